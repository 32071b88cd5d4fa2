"""What a training run is told: a TOML file, checked before anything is loaded.

    CONFIG.toml + ["run.steps=10", ...] -> read_config -> TrainingConfig

Every table of the file is a dataclass here and every key one of its fields, so this module
is also the list of what can be said. A key that does not exist, or a value of another type,
is refused with its line and the nearest key that does; paths are relative to the file, and
those of an override to the working folder.
"""

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mmsearch.errors import BadConfig

Kind = TypeVar("Kind")

OBJECTIVES = ("plain", "plume", "lame")
REASONERS = ("", "none", "rollout", "bottleneck")
LAYOUTS = ("pairs", "ume", "mmeb")
SCHEDULES = ("cosine", "linear", "constant")
DTYPES = ("float32", "bfloat16")
BAD_ROWS = ("drop", "stop")
MOST_PAIRS = 1_000_000  # of one step
LARGEST = 2**62  # whole number: what torch and numpy count with
# What clears a file's data, so that others can be said instead.
BARE_DATA = ("data.train=[]", "data.held_out=[]", "data.toy=0", "data.held_out_toy=0")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What is trained, and from where.

    start:      a model's name or folder, a published Qwen-VL folder, or "tiny-default" and
                "tiny-qwen2_vl", which are random and made in milliseconds
    reasoner:   "none", "rollout" (PLUME), "bottleneck" (LaME); "" leaves the model's own
    options:    fields of that reasoner's configuration, such as ``steps`` or ``num_tokens``
    readout:    which readout makes the vector; "" leaves it, or takes the reasoner's usual one
    frozen:     parameters that never learn, as globs of their names ("backbone.vision.*")
    name:       what the trained model is called; "" names it after the run's folder
    max_pixels: larger pictures are brought down to so many; 0 leaves it as the model has it
    max_frames: frames of a film; 0 leaves it
    """

    start: str = "default"
    reasoner: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    readout: str = ""
    frozen: tuple[str, ...] = ()
    name: str = ""
    max_pixels: int = 0
    max_frames: int = 0

    def __post_init__(self) -> None:
        _one_of("reasoner", self.reasoner, REASONERS)


@dataclass(frozen=True, slots=True)
class DataSource:
    """One file of training rows.

    layout:  "pairs" (ours), "ume" (PLUME and UME-R1 records), "mmeb" (MMEB-train)
    root:    folder that media are relative to; that of the file by default
    dataset: what its rows are called where they do not say; the file's name by default
    weight:  how often its rows are drawn beside those of the others
    limit:   only so many rows; 0 takes all
    """

    path: Path
    layout: str = "pairs"
    root: Path | None = None
    dataset: str = ""
    weight: float = 1.0
    limit: int = 0

    def __post_init__(self) -> None:
        _one_of("layout", self.layout, LAYOUTS)
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight}, and has to be more than 0")


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learnt from, and what is kept back to see whether it was learnt.

    held_out_share: without ``held_out``, so many of the rows are kept back, drawn by the seed
    max_text:       longer words of a side are cut at so many characters (the rationale and
                    the picture are not); 0 cuts none
    compare_looks:  open every picture before the first step, so that none that looks like a
                    held-out one is trained on; without it equal files alone are kept out
    toy:            drawings instead of files: so many pairs to train on ...
    held_out_toy:   ... and so many to be probed with
    """

    train: tuple[DataSource, ...] = ()
    held_out: tuple[DataSource, ...] = ()
    held_out_share: float = 0.0
    max_text: int = 0
    compare_looks: bool = True
    toy: int = 0
    held_out_toy: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.held_out_share < 1.0:
            raise ValueError(f"held_out_share is {self.held_out_share}, and has to be in [0, 1)")


@dataclass(frozen=True, slots=True)
class LossWeights:
    """How much each loss counts; an objective ignores those it does not have.

    ce:             PLUME, next-token loss of the suffix
    gen, anchor:    PLUME, contrast of the readout and of the semantic anchor
    balance:        PLUME, experts used alike over the batch
    disc:           LaME, contrast of [EMBED]; gen is that of the reason tokens
    reconstruction: LaME, the target told from the first reason tokens
    hold:           what the model knew before: vectors held near those of the start
    """

    ce: float = 1.0
    gen: float = 1.0
    anchor: float = 1.0
    balance: float = 0.1
    disc: float = 1.0
    reconstruction: float = 0.5
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """LaME's decoder, which is trained along and left out at export."""

    width: int = 256
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    ffn_width: int = 512

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):
            if getattr(self, one.name) < 1:
                raise ValueError(f"{one.name} is {getattr(self, one.name)}, and counts from 1")
        if self.width % (2 * self.num_heads):  # halves of a head are turned by its place
            each = f"{self.num_heads} heads of an even width"
            raise ValueError(f"width is {self.width}, which does not make {each}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads is {self.num_kv_heads}, of {self.num_heads} num_heads")


@dataclass(frozen=True, slots=True)
class ObjectiveConfig:
    """The recipe.

    dims:           Matryoshka: the loss is that of each of these leading dimensions as well
    dim_weights:    how much each of them counts; all alike where left out
    near_duplicate: items whose looks have a cosine above it are no negatives of one another
    final_share:    PLUME, share of the steps that the fully latent stage takes
    ratios:         PLUME, share of the rationale that is latent, stage by stage
    segments:       PLUME, pieces that a rationale is cut into; 0 for one a latent step
    warm_up:        LaME, share of the steps in which only new parts learn
    decoder:        LaME, its sizes
    max_rationale_tokens: a longer rationale (PLUME) or target (LaME) is cut at its end
    """

    name: str = "plain"
    temperature: float = 0.02
    dims: tuple[int, ...] = ()
    dim_weights: tuple[float, ...] = ()
    weights: LossWeights = field(default_factory=LossWeights)
    near_duplicate: float = 0.97
    final_share: float = 0.5
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    segments: int = 0
    warm_up: float = 0.2
    decoder: DecoderSizes = field(default_factory=DecoderSizes)
    max_rationale_tokens: int = 512

    def __post_init__(self) -> None:
        _one_of("name", self.name, OBJECTIVES)
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}, and has to be more than 0")
        if self.dim_weights and len(self.dim_weights) != len(self.dims):
            raise ValueError(f"{len(self.dim_weights)} dim_weights for {len(self.dims)} dims")
        for name in ("final_share", "warm_up"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, and has to be in [0, 1]")
        if not self.ratios or list(self.ratios) != sorted(set(self.ratios)):
            raise ValueError(f"ratios are {list(self.ratios)}, and have to grow")


@dataclass(frozen=True, slots=True)
class OptimiserConfig:
    """AdamW, always on float32 weights.

    new_learning_rate: of parts that start at random; 0 for the same
    warm_up:           share of the steps in which the rate grows from 0
    schedule:          how it falls afterwards: "cosine" and "linear" to 0, "constant"
    clip:              most length of the gradient; 0 leaves it
    ema:               decay of an average of the weights, which is what is exported; 0 has none
    """

    learning_rate: float = 5e-5
    new_learning_rate: float = 0.0
    weight_decay: float = 0.0
    warm_up: float = 0.03
    schedule: str = "cosine"
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    ema: float = 0.0

    def __post_init__(self) -> None:
        _one_of("schedule", self.schedule, SCHEDULES)
        for beta in self.betas:
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"betas are {list(self.betas)}, and have to be in [0, 1)")
        if not self.eps > 0:
            raise ValueError(f"eps is {self.eps}, and has to be more than 0")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}, and has to be more than 0")
        for name in ("warm_up", "ema"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}, and has to be in [0, 1)")
        for name in ("learning_rate", "new_learning_rate"):
            if getattr(self, name) > 1e30:  # which no weight could take
                raise ValueError(f"{name} is {getattr(self, name)}, and has to be far less")
        for name in ("new_learning_rate", "weight_decay", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, and cannot be negative")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How long, how large, where.

    steps, epochs: one of them; an epoch sees every row once
    batch:         pairs of one step, over all processes: what contrast has to choose from
    chunk:         pairs that are computed at once, so that they fit the memory; 0 for all of
                   a process. The step is that of the whole batch either way (GradCache)
    dtype:         what the network computes in; weights, losses and AdamW stay float32
    device:        "auto", "cpu", "cuda"; one process drives one GPU
    checkpointing: compute activations again on the way back instead of keeping them
    save_every:    steps between snapshots; 0 for one at the end
    probe_every:   steps between looks at the held-out pairs; 0 for one at the end
    keep:          snapshots that stay
    workers:       threads that open pictures ahead
    bad_rows:      "drop" replaces a row that cannot be opened, on both sides, and counts it;
                   "stop" ends the run
    probe_pairs:   most held-out pairs looked at
    tensorboard:   write event files too
    """

    steps: int = 0
    epochs: float = 0.0
    batch: int = 64
    chunk: int = 0
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"
    checkpointing: bool = False
    save_every: int = 0
    probe_every: int = 0
    keep: int = 2
    workers: int = 2
    bad_rows: str = "drop"
    probe_pairs: int = 1_000
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("bad_rows", self.bad_rows, BAD_ROWS)
        if (self.steps > 0) == (self.epochs > 0):
            raise ValueError("say either steps or epochs, and more than 0 of them")
        if self.batch > MOST_PAIRS:
            raise ValueError(f"batch is {self.batch}, more than {MOST_PAIRS:,} pairs")
        if self.batch < 2:
            raise ValueError(f"batch is {self.batch}, and contrast needs at least 2 pairs")
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}, and one snapshot has to stay")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Small matrices beside frozen ones; there is no LoRA without this table.

    targets: linear layers that get them, as peft matches names (their ends); empty for the
             attention and the MLP of the language model
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}, and counts from 1")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """A whole run; equal configurations give equal runs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    run: RunConfig = field(default_factory=lambda: RunConfig(steps=1_000))
    lora: LoraSettings | None = None

    def __post_init__(self) -> None:
        if bool(self.data.train) == bool(self.data.toy):
            raise ValueError("data: name the files to train on (data.train), or draw some (toy)")
        if self.data.toy == 1:
            raise ValueError("data: toy is 1, and contrast needs at least 2 pairs")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON, every field named."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(_plain(self))))


def read_config(
    path: Path, overrides: Sequence[str] = (), *, home: Path | None = None
) -> TrainingConfig:
    """Return the configuration of a TOML file, with ``"run.steps=10"`` and the like set.

    Paths in it are relative to ``home``, which is the file's folder where it is not given.

    Raises BadConfig, which names the line, for a file that cannot be read, a key that there
    is not, and a value that is of another type or makes no sense.
    """
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise BadConfig(path, (error.strerror or str(error)).lower()) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(path, f"it is not TOML: {error}") from None
    with_overrides(table, overrides, path=path)
    said = frozenset(override.partition("=")[0].strip() for override in overrides)
    return config_of(table, path=path, text=text, home=home, said=said)


def with_overrides(table: dict[str, Any], overrides: Sequence[str], *, path: Path) -> None:
    """Put ``"run.steps=10"`` and the like into nested tables; raises BadConfig.

    Steps that are asked for take the place of epochs, and the other way round.
    """
    asked = {override.partition("=")[0].strip() for override in overrides}
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        run = table.get("run")
        if f"run.{one}" in asked and f"run.{other}" not in asked and isinstance(run, dict):
            run.pop(other, None)
    for override in overrides:
        _set(path, table, override)


def config_of(
    table: Mapping[str, Any],
    *,
    path: Path = Path("config"),
    text: str = "",
    home: Path | None = None,
    said: frozenset[str] = frozenset(),
) -> TrainingConfig:
    """Return the configuration of nested tables; BadConfig names ``path`` and a line of ``text``.

    ``said`` are the keys that do not come from there but from the command line.
    What `TrainingConfig.as_dict` gave comes back equal.
    """
    return _Reader(path, text, home or path.parent, said).build(TrainingConfig, table, ())


class _Reader:
    """Builds dataclasses of tables, and knows where each key stands in the file."""

    def __init__(self, path: Path, text: str, home: Path, said: frozenset[str]) -> None:
        self.path, self.text, self.home, self.said = path, text, home, said

    def build(self, kind: type[Kind], table: Any, at: tuple[str | int, ...]) -> Kind:  # noqa: ANN401 - any TOML
        if not isinstance(table, Mapping):
            raise self.bad(at, f"is {table!r}, not a table")
        hints = typing.get_type_hints(kind)
        values = {}
        for key, value in table.items():
            if key not in hints:
                raise self.bad((*at, key), "is no key", hint=_nearest(key, hints))
            values[key] = self.value(hints[key], value, (*at, key))
        needed = [
            one.name
            for one in dataclasses.fields(typing.cast(Any, kind))
            if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        ]
        if missing := [name for name in needed if name not in values]:
            raise self.bad(at, f"lacks {missing[0]}")
        try:
            return kind(**values)
        except ValueError as error:
            named = [key for key in values if str(error).split()[0].rstrip(":") == key]
            raise self.bad((*at, *named[:1]), f"makes no sense: {error}") from None

    def value(self, hint: Any, value: Any, at: tuple[str | int, ...]) -> Any:  # noqa: ANN401 - any TOML
        options = _options(hint)
        if value is None and type(None) in options:
            return None
        for option in options:
            if dataclasses.is_dataclass(option):
                return self.build(typing.cast(type[Any], option), value, at)
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is tuple and isinstance(value, list | tuple):
            if args[-1] is not Ellipsis and len(value) != len(args):
                raise self.bad(at, f"has {len(value)} values, not {len(args)}")
            each = args[:1] * len(value) if args[-1] is Ellipsis else args
            return tuple(
                self.value(one, part, (*at, number))
                for number, (one, part) in enumerate(zip(each, value, strict=True))
            )
        if Path in options and isinstance(value, str) and value:
            return (self.home / _home(value)).absolute()
        if type(value) is int and abs(value) > LARGEST:
            raise self.bad(at, "is a larger number than can be counted with")
        if not any(_fits(value, option) for option in options):
            wanted = " or ".join(_shown_type(one) for one in options)
            raise self.bad(at, f"is {value!r}, not {wanted}")
        if type(value) is int and value < 0:
            raise self.bad(at, f"is {value}, and cannot be negative")
        return float(value) if hint is float else value

    def bad(self, at: tuple[str | int, ...], reason: str, *, hint: str = "") -> BadConfig:
        name = ".".join(map(str, at)) or "the file"
        for key in self.said:
            if name == key or name.startswith(f"{key}."):
                return BadConfig(f"--set {key}", f"{name} {reason}", hint=hint)
        return BadConfig(self.path, f"{name} {reason}", line=_line_of(self.text, at), hint=hint)


def _set(path: Path, table: dict[str, Any], override: str) -> None:
    """Put ``"run.steps=10"`` into the tables; what is no TOML value is a string."""
    name, is_said, value = override.partition("=")
    *tables, key = name.strip().split(".")
    if not is_said or not key or not all(tables):
        reason = f"--set {override!r} is not table.key=value, such as run.steps=100"
        raise BadConfig(path, reason)
    for one in tables:
        table = table.setdefault(one, {})
        if not isinstance(table, dict):
            raise BadConfig(path, f"--set {override!r}: {one} is no table")
    try:
        table[key] = _from_here(tomllib.loads(f"value = {value}")["value"])
    except tomllib.TOMLDecodeError:
        table[key] = value


def _from_here(value: Any) -> Any:  # noqa: ANN401 - any TOML
    """Return an override with the paths in its tables made absolute."""
    if isinstance(value, list):
        return [_from_here(one) for one in value]
    if not isinstance(value, dict):
        return value
    paths = {"path", "root"} & value.keys()
    said = {name: value[name] for name in paths if isinstance(value[name], str)}
    return value | {name: str(_home(path).absolute()) for name, path in said.items()}


def _home(path: str) -> Path:
    """Return a path with its ``~`` followed, where there is such a home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no user of that name: a file may be called so
        return Path(path)


def _line_of(text: str, at: tuple[str | int, ...]) -> int:
    """Return the line, from 1, of the innermost of ``at`` that stands in the file; 0 of none."""
    found, table, count = 0, (), {}  # type: int, tuple[str | int, ...], dict[str, int]
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#")[0].strip()
        if line.startswith("[") and line.endswith("]") and "=" not in line:
            name = line.strip("[] ")
            table = tuple(name.split("."))
            if line.startswith("[["):
                count[name] = count.get(name, -1) + 1
                table = (*table, count[name])
            here = table
        else:
            here = (*table, *line.partition("=")[0].strip().split("."))
        if line and here == at[: len(here)]:
            found = number
    return found


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"


def _options(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any annotation
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def _shown_type(hint: Any) -> str:  # noqa: ANN401 - any annotation
    """Return what a type is called in a configuration."""
    origin = typing.get_origin(hint) or hint
    return _TYPES.get(origin, getattr(hint, "__name__", str(hint)))


_TYPES = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    tuple: "a list",
    Mapping: "a table",
    Path: "a path",
}


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - any TOML, any annotation
    """Return whether ``value`` is of the type ``hint``; true is no number."""
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, Mapping) if typing.get_origin(hint) else type(value) is hint


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value of a configuration
    if dataclasses.is_dataclass(value):
        return {one.name: _plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def differences(one: TrainingConfig, other: TrainingConfig) -> Iterator[str]:
    """Yield ``"run.batch is 8, not 16"`` for every value in which ``one`` differs."""

    def flat(value: Any, at: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from flat(inner, f"{at}.{name}" if at else name)
        else:
            yield at, value

    ours, theirs = dict(flat(one.as_dict(), "")), dict(flat(other.as_dict(), ""))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            yield f"{name} is {ours.get(name)!r}, not {theirs.get(name)!r}"


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(map(repr, known))}")
