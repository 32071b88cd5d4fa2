"""What a model folder says about itself: ``mmsearch.json``, read without torch.

    weights/default/
      mmsearch.json       this description; the SHA-256 of the two files beside it
      model.safetensors   int8 rows and their scales, small tensors as they are
      tokenizer.json
      MODEL_CARD.md       for people

The command line compares spaces before it loads a network, so this imports none.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.seams import Calibration
from mmsearch.values import Space, View

FORMAT = 1
DESCRIPTION_FILE = "mmsearch.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """One model: what it is made of, what its vectors are, and how to read a cosine.

    backbone, backbone_config: the family's name and its sizes, as checkpoint.py knows them
    reasoner, effort:          how it thinks, and how many latent steps
    files:                     SHA-256 of each file that the vectors depend on
    """

    name: str
    about: str
    backbone: str
    backbone_config: Mapping[str, Any]
    reasoner: str
    effort: int
    prompts: Prompts
    max_pixels: int
    max_frames: int
    dim: int
    calibration: Mapping[tuple[View, View], Calibration]
    files: Mapping[str, str]

    @property
    def space(self) -> Space:
        """The identity of its vectors: the files, the sizes, the prompts and the limits."""
        prompt = "" if self.prompts == Prompts() else json.dumps(_prompts_json(self.prompts))
        shape = {"format": FORMAT, "backbone": self.backbone, "config": self.backbone_config}
        identity = json.dumps(shape | {"files": dict(self.files)}, sort_keys=True)
        return Space(
            model=self.name,
            weights_hash=hashlib.sha256(identity.encode()).hexdigest(),
            reasoner=self.reasoner,
            effort=self.effort,
            dim=self.dim,
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
            "reasoner": {"name": self.reasoner, "effort": self.effort},
            "prompts": _prompts_json(self.prompts),
            "max_pixels": self.max_pixels,
            "max_frames": self.max_frames,
            "dim": self.dim,
            "calibration": [
                {"query": query, "segment": segment, **calibration._asdict()}
                for (query, segment), calibration in self.calibration.items()
            ],
            "sha256": dict(self.files),
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(fields, indent=2) + "\n")


def _prompts_json(prompts: Prompts) -> dict[str, str]:
    return {"query": prompts.query, "document": prompts.document}


def read_description(folder: Path) -> ModelDescription:
    """Return what ``folder`` says about itself.

    Raises BadCheckpoint where the file is missing, is not JSON, is of another format
    version, or lacks a field.
    """
    try:
        fields = json.loads((folder / DESCRIPTION_FILE).read_text())
    except FileNotFoundError:
        raise BadCheckpoint(folder, f"it has no {DESCRIPTION_FILE}") from None
    except (OSError, ValueError) as error:
        raise BadCheckpoint(folder, f"{DESCRIPTION_FILE} cannot be read: {error}") from None
    if not isinstance(fields, dict):
        raise BadCheckpoint(folder, f"{DESCRIPTION_FILE} is not an object")
    if fields.get("format") != FORMAT:
        reason = f"its format is {fields.get('format')}, and this version reads {FORMAT}"
        raise BadCheckpoint(folder, reason)
    try:
        return ModelDescription(
            name=fields["name"],
            about=fields["about"],
            backbone=fields["backbone"]["name"],
            backbone_config=fields["backbone"]["config"],
            reasoner=fields["reasoner"]["name"],
            effort=fields["reasoner"]["effort"],
            prompts=Prompts(**fields["prompts"]),
            max_pixels=fields["max_pixels"],
            max_frames=fields["max_frames"],
            dim=fields["dim"],
            calibration={
                (View(row["query"]), View(row["segment"])): Calibration(
                    row["midpoint"], row["slope"]
                )
                for row in fields["calibration"]
            },
            files=fields["sha256"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadCheckpoint(folder, f"{DESCRIPTION_FILE} is incomplete: {error!r}") from None
