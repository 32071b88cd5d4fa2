"""What a model folder says about itself: ``mmsearch.json``, read without torch.

    weights/default/
      mmsearch.json       this description; the SHA-256 of the files beside it
      model.safetensors   the weights, or several shards of them
      tokenizer.json
      MODEL_CARD.md       for people

The command line compares spaces before it loads a network, so this imports none.
"""

import enum
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from mmsearch.errors import BadCheckpoint, BadSetting
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.weight_files import read_json
from mmsearch.retriever.seams import Calibration
from mmsearch.values import Space, View

FORMAT = 2
DESCRIPTION_FILE = "mmsearch.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


# What may be asked for: a patch of 28 x 28 that readers pad a sliver to, and what Qwen-VL was
# made for. More would let 48 pictures that wait to be embedded fill the memory.
PIXELS = range(28 * 28, 16_384 * 28 * 28 + 1)
MOST_STEPS = MOST_FRAMES = 1_024  # far beyond what anyone trains


class Layout(enum.StrEnum):
    """How the tensors in a folder are named."""

    OWN = "own"  # as `Model` names them
    HUB = "hub"  # as the model's authors published them; see hub_layout.py


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What a user may choose of a model; None leaves it as the model has it.

    effort:     latent steps, 0 up to what was trained
    max_pixels: the most pixels of a picture that the model is shown
    dims:       leading dimensions that are kept of a vector (Matryoshka)
    """

    effort: int | None = None
    max_pixels: int | None = None
    dims: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """One model: what it is made of, what its vectors are, and how to read a cosine.

    backbone, backbone_config: the family's name and its sizes, as checkpoint.py knows them
    reasoner, reasoner_config: how it thinks, likewise
    effort:                    how many latent steps, unless the user says otherwise
    head, readout:             how a vector is made, and of which of the readouts
    max_pixels, max_frames:    what a picture and a film are brought down to
    dim:                       width of the vectors it computes
    dims:                      leading dimensions that are kept of them; None for all
    files:                     SHA-256 of each file that the vectors depend on
    """

    name: str
    about: str
    backbone: str
    backbone_config: Mapping[str, Any]
    reasoner: str
    reasoner_config: Mapping[str, Any] = field(default_factory=dict)
    effort: int
    head: str
    readout: str
    prompts: Prompts
    max_pixels: int
    max_frames: int
    dim: int
    dims: int | None = None
    calibration: Mapping[tuple[View, View], Calibration]
    layout: Layout = Layout.OWN
    files: Mapping[str, str]

    @property
    def efforts(self) -> range:
        """The efforts it can be asked for."""
        if self.reasoner == "rollout":
            return range(int(self.reasoner_config["steps"]) + 1)
        only = {"none": 0, "cot": 0, "bottleneck": self.reasoner_config.get("num_tokens")}
        effort = only.get(self.reasoner)
        effort = self.effort if effort is None else effort
        return range(effort, effort + 1)

    def with_settings(self, settings: ModelSettings) -> "ModelDescription":
        """Return it as the user wants it; raises BadSetting for what it does not have."""
        changes: dict[str, Any] = {}
        for name, asked in asdict(settings).items():
            if asked is not None and type(asked) is not int:  # True and 2.0 would equal an int
                raise BadSetting(f"{name.replace('_', '-')} {asked!r}", "it is a whole number")
        if settings.effort is not None:
            if settings.effort not in self.efforts:
                reason = f"{self.name} ({self.reasoner}) has {_span(self.efforts)}"
                raise BadSetting(f"effort {settings.effort}", reason)
            changes["effort"] = settings.effort
        if settings.max_pixels is not None:
            if settings.max_pixels not in PIXELS:
                reason = f"it is {PIXELS[0]:,} to {PIXELS[-1]:,}"
                raise BadSetting(f"max-pixels {settings.max_pixels}", reason)
            changes["max_pixels"] = settings.max_pixels
        if settings.dims is not None:
            if not 1 <= settings.dims <= self.dim:
                reason = f"vectors of {self.name} have {self.dim} dimensions"
                raise BadSetting(f"dims {settings.dims}", reason)
            changes["dims"] = settings.dims
        return replace(self, **changes)

    @property
    def space(self) -> Space:
        """The identity of its vectors: the files, the sizes, the prompts and the limits.

        How tensors are named does not change it, nor do device and precision: a vector of a
        GPU in bfloat16 is compared with one of a CPU in float32.
        """
        prompt = "" if self.prompts == Prompts() else json.dumps(asdict(self.prompts))
        shape = {
            "backbone": [self.backbone, self.backbone_config],
            "reasoner": [self.reasoner, self.reasoner_config],
            "head": [self.head, self.readout],
            "files": dict(self.files),
        }
        identity = json.dumps(shape, sort_keys=True)
        return Space(
            model=self.name,
            weights_hash=hashlib.sha256(identity.encode()).hexdigest(),
            reasoner=self.reasoner,
            effort=self.effort,
            dim=self.dims or self.dim,
            prompt=prompt,
            max_pixels=self.max_pixels,
            max_frames=self.max_frames,
        )

    def write(self, folder: Path) -> None:
        """Write ``mmsearch.json`` into ``folder``."""
        fields = {
            "format": FORMAT,
            "name": self.name,
            "about": self.about,
            "backbone": {"name": self.backbone, "config": self.backbone_config},
            "reasoner": {
                "name": self.reasoner,
                "effort": self.effort,
                "config": self.reasoner_config,
            },
            "head": {"name": self.head, "readout": self.readout},
            "prompts": asdict(self.prompts),
            "max_pixels": self.max_pixels,
            "max_frames": self.max_frames,
            "dim": self.dim,
            "dims": self.dims,
            "layout": self.layout,
            "calibration": [
                {"query": query, "segment": segment, **calibration._asdict()}
                for (query, segment), calibration in self.calibration.items()
            ],
            "sha256": dict(self.files),
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(fields, indent=2) + "\n")


def _span(efforts: range) -> str:
    if len(efforts) == 1:
        return f"effort {efforts[0]} only"
    return f"efforts {efforts[0]} to {efforts[-1]}"


def read_description(folder: Path) -> ModelDescription:
    """Return what ``folder`` says about itself.

    Raises BadCheckpoint where the file is missing, is not JSON, is of another format
    version, or where a field is missing or is not what can be in it.
    """
    fields = read_json(folder, DESCRIPTION_FILE)
    if fields.get("format") != FORMAT:
        reason = f"its format is {fields.get('format')}, and this version reads {FORMAT}"
        raise BadCheckpoint(folder, reason)
    try:
        description = ModelDescription(
            name=fields["name"],
            about=fields["about"],
            backbone=fields["backbone"]["name"],
            backbone_config=fields["backbone"]["config"],
            reasoner=fields["reasoner"]["name"],
            reasoner_config=fields["reasoner"]["config"],
            effort=fields["reasoner"]["effort"],
            head=fields["head"]["name"],
            readout=fields["head"]["readout"],
            prompts=Prompts(**fields["prompts"]),
            max_pixels=fields["max_pixels"],
            max_frames=fields["max_frames"],
            dim=fields["dim"],
            dims=fields["dims"],
            layout=Layout(fields["layout"]),
            calibration={
                (View(row["query"]), View(row["segment"])): Calibration(
                    row["midpoint"], row["slope"]
                )
                for row in fields["calibration"]
            },
            files=fields["sha256"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadCheckpoint(folder, f"{DESCRIPTION_FILE} is incomplete: {error!r}") from None
    if wrong := next(_wrong(description), ""):
        raise BadCheckpoint(folder, f"{DESCRIPTION_FILE} says {wrong}")
    return description


def _wrong(model: ModelDescription) -> Iterator[str]:
    """Yield what a description says that cannot be; checkpoint.py checks the configurations."""
    texts = ("name", "about", "backbone", "reasoner", "head", "readout")
    prompts = {f"prompts {side}": text for side, text in asdict(model.prompts).items()}
    for name, text in ({one: getattr(model, one) for one in texts} | prompts).items():
        if not isinstance(text, str):
            yield f"{name} {text!r}, which is no text"
    for name in ("backbone_config", "reasoner_config", "files"):
        if not isinstance(getattr(model, name), dict):
            yield f"{name} {getattr(model, name)!r}, which is no object"
    for name, least in (("max_pixels", 1), ("max_frames", 1), ("dim", 1), ("effort", 0)):
        number = getattr(model, name)
        if type(number) is not int or number < least:
            yield f"{name} {number!r}, which is no whole number from {least}"
    for name, most in (("max_pixels", PIXELS[-1]), ("max_frames", MOST_FRAMES)):
        if getattr(model, name) > most:
            yield f"{name} {getattr(model, name)}, which is more than {most}"
    if model.dims is not None and (type(model.dims) is not int or not 1 <= model.dims <= model.dim):
        yield f"dims {model.dims!r} of {model.dim}"
    counted = {"rollout": "steps", "bottleneck": "num_tokens"}.get(model.reasoner)
    count = model.reasoner_config.get(counted) if counted else 0
    if type(count) is not int or count < 0:
        yield f"{counted} {count!r}, which is no whole number from 0"
    elif count > MOST_STEPS:
        yield f"{counted} {count}, which is more than {MOST_STEPS}"
    elif model.effort not in model.efforts:
        yield f"effort {model.effort}, and has {_span(model.efforts)}"
    for sides, calibration in model.calibration.items():
        are_numbers = all(type(one) in (int, float) and isfinite(one) for one in calibration)
        if not are_numbers or calibration.slope <= 0:
            yield f"calibration {tuple(calibration)} of {' to '.join(sides)}"
    for name, digest in model.files.items():
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            yield f"sha256 {digest!r} of {name}"
    if not any(name.endswith(".safetensors") for name in model.files):
        yield "no *.safetensors among its files"
