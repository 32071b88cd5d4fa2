"""A model to train: one of ours or a published one, with the way of thinking that is asked for.

    ModelConfig --load--> Model --tokens, chat, reasoner put in--> ModelDescription, Model
    Model, Objective --parts_of--> {"backbone": [(name, parameter), ...], "reasoner": ...}

Whatever was trained before is kept: only what the new way of thinking needs and the model
does not have starts at random. The weights are as their constructors and tables below say:

    PLUME's adapter       as torch draws it, step embeddings N(0, 1); nothing is zero
    PLUME's tokens        copies of the rows in COPIED; rows that are there already are kept
    LaME's tokens         N(0, 0.02); projections as torch draws them
    a residual head       kept where its shape is; else as torch draws it, the gate at 0
"""

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn

from mmsearch.errors import BadSetting
from mmsearch.retriever.embedding.load import model_description
from mmsearch.retriever.models import tiny, tiny_qwen
from mmsearch.retriever.models.backbones.graphs import CudaRecorder, StepGraphs
from mmsearch.retriever.models.checkpoint import (
    READOUTS,
    REASONERS,
    Model,
    build_model,
    read_checkpoint,
)
from mmsearch.retriever.models.configs import config_from
from mmsearch.retriever.models.description import Layout, ModelDescription
from mmsearch.retriever.models.hub_families import FAMILIES
from mmsearch.retriever.models.prompts import ChatFormat, Prompts
from mmsearch.retriever.models.vocabulary import SPELLED
from mmsearch.retriever.training.config import ModelConfig
from mmsearch.retriever.training.objective import Objective

if TYPE_CHECKING:
    from mmsearch.retriever.models.head import Head

Named = tuple[str, nn.Parameter]

TINY = {f"tiny-{family}": family for family in tiny_qwen.FAMILIES}
# What makes the vector where nobody says.
USUAL_READOUT = {"none": "last", "rollout": "gen", "bottleneck": "mean"}
TITLES = {
    "none": "A plain readout",
    "rollout": "PLUME's latent steps",
    "bottleneck": "LaME's reason tokens",
}
# Whose row of the table a new token of PLUME starts from: (Qwen2-VL's, Qwen2.5-VL's).
OPENS, CLOSES = ("<|object_ref_start|>", "<tool_call>"), ("<|object_ref_end|>", "</tool_call>")
COPIED: Mapping[str, tuple[str, str]] = {
    "<gen_emb>": CLOSES,
    "<disc_emb>": OPENS,
    "<bot>": OPENS,
    "<eot>": CLOSES,
    "<ct>": CLOSES,
}
assert tuple(COPIED) == SPELLED
# BERT's vocabulary has pieces that no text is ever cut into; they stand for PLUME's tokens.
UNUSED: Mapping[str, str] = {token: f"[unused{i}]" for i, token in enumerate(SPELLED)}
# Finer parts of the backbone, by the beginnings of their parameters' names.
SEEING = ("backbone.vision.",)
JOINING = (
    "backbone.vision.merger.",
    "backbone.vision.deepstack_merger_list.",
    "backbone.picture_in.",
)

_fresh: "WeakKeyDictionary[Model, frozenset[str]]" = WeakKeyDictionary()
_new_tokens: "WeakKeyDictionary[Model, tuple[int, ...]]" = WeakKeyDictionary()
_start: "WeakKeyDictionary[Model, str]" = WeakKeyDictionary()


class _NoRecorder(CudaRecorder):
    """Records nothing: a replay would read weights as they were, and drop what it dropped."""

    def serves(self, device: torch.device) -> bool:
        return False


def start_model(
    config: ModelConfig,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[ModelDescription, Model]:
    """Return the model that is asked for, ready to be trained, and what it is.

    Every parameter learns but those that ``config.frozen`` names. What is new is drawn by
    ``seed``; the same call gives the same weights. The description has no hashes yet.
    Raises ModelNotFound, BadCheckpoint, and BadSetting for what such a model cannot be.
    """
    description, model = _loaded(config.start, str(device), dtype)
    start = description.space.weights_hash
    asked = config.reasoner or description.reasoner
    if asked not in USUAL_READOUT:
        raise BadSetting(
            f"model.reasoner of {description.name}",
            f"a thought that is written ({asked}) is not trained here",
            hint=f"ask for one of {', '.join(USUAL_READOUT)}",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        told, started, fresh = _thinking(description, model, config)
    before, after = (one.backbone.tokenizer for one in (model, started))
    added = [token for token in SPELLED if before.token_to_id(token) is None]
    ids = [after.token_to_id(token) for token in added]
    description, model = told, started.to(device=device, dtype=dtype)
    _fresh[model], _start[model] = fresh, start
    _new_tokens[model] = tuple(one for one in ids if one is not None)
    if hasattr(model.backbone, "text_half"):
        model.backbone.text_half.graphs = StepGraphs(_NoRecorder())
    model.requires_grad_(True)
    freeze(model, config.frozen)
    return description, model.train()


def freeze(model: Model, frozen: tuple[str, ...]) -> None:
    """Stop the parameters from learning whose names match a glob; BadSetting if none does."""
    for pattern in frozen:
        names = [name for name, _ in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            some = ", ".join(sorted({_stem(name) for name, _ in model.named_parameters()}))
            raise BadSetting(
                f"model.frozen {pattern!r}", "no parameter is named so", hint=f"there are {some}"
            )
        for name in names:
            model.get_parameter(name).requires_grad_(False)


def parts_of(model: Model, objective: Objective | None = None) -> dict[str, list[Named]]:
    """Return what can learn, by part: every name of a `Stage`, and some finer ones.

    backbone, reasoner, head   the parts of the model; every learning parameter is in one
    extras                     what is trained and never exported, such as LaME's decoder
    vision, merger             what sees and what joins it to the words: both in "backbone"
    lora                       small matrices beside frozen ones: in "backbone" as well
    fresh                      what started at random, whichever part it is in

    Parameters that are frozen when this is asked are in none.
    """
    parts: dict[str, list[Named]] = {
        name: []
        for name in ("backbone", "reasoner", "head", "extras", "vision", "merger", "lora", "fresh")
    }
    fresh = _fresh.get(model, frozenset())
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        one = name, parameter
        parts[name.partition(".")[0]].append(one)
        if name.startswith(SEEING):
            parts["vision"].append(one)
        if name.startswith(JOINING):
            parts["merger"].append(one)
        if ".lora_" in name:
            parts["lora"].append(one)
        if name in fresh or ".lora_" in name or ".new_rows." in name:
            parts["fresh"].append(one)
    if objective is not None:
        extras = [(f"extras.{n}", p) for n, p in objective.extras.named_parameters()]
        parts["extras"] += [one for one in extras if one[1].requires_grad]
        parts["fresh"] += parts["extras"]
    return parts


def fresh_names(model: Model) -> frozenset[str]:
    """Return the parameters of a started model that no training has seen before this one."""
    return _fresh.get(model, frozenset())


def new_tokens(model: Model) -> tuple[int, ...]:
    """Return the ids of the tokens that a started model was given."""
    return _new_tokens.get(model, ())


def start_hash(model: Model) -> str:
    """Return what tells the model that this one started from: a hash of its files and sizes.

    Empty for a model that `start_model` did not make.
    """
    return _start.get(model, "")


def _stem(name: str) -> str:
    return ".".join(name.split(".")[:2]) + ".*"


# ---------------------------------------------------------------- where it starts


def _loaded(start: str, device: str, dtype: torch.dtype) -> tuple[ModelDescription, Model]:
    if start == "tiny-default":
        return tiny.tiny_description(name=start), tiny.random_model().to(device, dtype)
    if start in TINY:
        description = tiny_qwen.tiny_description(TINY[start], name=start)
        return description, tiny_qwen.random_qwen(description).to(device, dtype)
    folder, description = model_description(start)
    return read_checkpoint(folder, device=device, dtype=dtype, description=description)


# ---------------------------------------------------------------- the way of thinking


def _thinking(
    description: ModelDescription, model: Model, config: ModelConfig
) -> tuple[ModelDescription, Model, frozenset[str]]:
    """Return the model with its reasoner put in, and the names of what is new in it."""
    asked = config.reasoner or description.reasoner
    is_new = asked != description.reasoner
    tokenizer = Tokenizer.from_str(model.backbone.tokenizer.to_str())
    backbone = dict(description.backbone_config)
    state = dict(model.backbone.state_dict())
    prompts = description.prompts
    reasoner = dict(description.reasoner_config)
    if is_new:
        reasoner = dataclasses.asdict(REASONERS[asked][0]())
        if description.backbone == "qwen_vl":
            chat = _chat(config.start, asked, ChatFormat(**backbone["chat"]))
            if dataclasses.asdict(chat) != backbone["chat"]:
                prompts = Prompts()  # they were made for the other conversation
            backbone |= {"chat": dataclasses.asdict(chat), "position_mode": "contiguous"}
            if asked == "rollout":
                rows = add_tokens(tokenizer, state, model_type=backbone["hf"]["model_type"])
                backbone["hf"] = _resized(backbone["hf"], rows)
        elif asked == "rollout":
            reasoner["suffix"] = _word_pieces(tokenizer)
    elif config.reasoner and description.backbone == "qwen_vl":
        backbone["position_mode"] = "contiguous"
    options = _merged(reasoner, config.options)
    told = _describe(description, config, asked, options, backbone, prompts)
    try:
        with torch.device("meta"):  # its weights are there already
            built = build_model(told, tokenizer)
        thought = config_from(REASONERS[asked][0], options)
        thinking: nn.Module = REASONERS[asked][1](thought, built.backbone)
    except (TypeError, ValueError) as error:
        raise BadSetting(f"model.options for {asked}", str(error)) from None
    built.backbone.load_state_dict(state, assign=True)
    fresh = set()
    if not is_new:
        fresh |= {f"reasoner.{name}" for name in _kept(thinking, model.reasoner)}
    else:
        fresh |= {f"reasoner.{name}" for name, _ in thinking.named_parameters()}
    head: Head = model.head
    if [p.shape for p in built.head.parameters()] != [p.shape for p in head.parameters()]:
        turned = {name: one for name, one in head.named_buffers() if len(one) == told.dim}
        head = type(head)(thinking.dim, told.dim)  # type: ignore[arg-type]
        head.load_state_dict(turned, strict=False)  # which way its dimensions point stays
        fresh |= {f"head.{name}" for name, _ in head.named_parameters()}
    return told, Model(built.backbone, thinking, head), frozenset(fresh)


def _describe(
    description: ModelDescription,
    config: ModelConfig,
    asked: str,
    options: Mapping[str, Any],
    backbone: Mapping[str, Any],
    prompts: Prompts,
) -> ModelDescription:
    """Return what the model will be; raises BadSetting for a readout that it will not have."""
    readout = config.readout
    if not readout:
        is_same = asked == description.reasoner
        readout = description.readout if is_same else USUAL_READOUT[asked]
    if readout not in READOUTS[asked]:
        known = ", ".join(READOUTS[asked])
        raise BadSetting(f"model.readout {readout!r}", f"{asked} has {known}")
    dim = description.dim
    if description.head == "plain":
        dim = options.get("projection") or _width(description)
    dims = description.dims if description.dims and description.dims <= dim else None
    effort = {"rollout": options.get("steps"), "bottleneck": options.get("num_tokens")}.get(asked)
    about = description.about
    if asked != description.reasoner:
        about = f"{TITLES[asked]} on {description.name}"
    return dataclasses.replace(
        description,
        name=config.name or description.name,
        about=about,
        backbone_config=backbone,
        reasoner=asked,
        reasoner_config=options,
        effort=effort if type(effort) is int else 0,
        readout=readout,
        prompts=prompts,
        max_pixels=config.max_pixels or description.max_pixels,
        max_frames=config.max_frames or description.max_frames,
        dim=dim,
        dims=dims,
        layout=Layout.OWN,
        files={},
    )


def _width(description: ModelDescription) -> int:
    hf = description.backbone_config.get("hf")
    if hf is None:
        return int(description.backbone_config["decoder"]["width"])
    return int((hf.get("text_config") or hf)["hidden_size"])


def _merged(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` with the options put in, tables into tables."""
    merged = dict(config)
    for name, value in options.items():
        inside = merged.get(name)
        if isinstance(inside, Mapping) and isinstance(value, Mapping):
            value = _merged(inside, value)
        merged[name] = value
    return merged


def _kept(new: nn.Module, old: nn.Module) -> Iterator[str]:
    """Put the weights of ``old`` into ``new``; yield the names of those it has no use for."""
    before = dict(old.named_parameters())
    for name, parameter in new.named_parameters():
        if name in before and before[name].shape == parameter.shape:
            parameter.data = before[name].data
        else:
            yield name


# ---------------------------------------------------------------- words of its own


def _chat(start: str, asked: str, now: ChatFormat) -> ChatFormat:
    """Return the conversation of a Qwen that thinks as ``asked``."""
    if asked == "rollout":
        return tiny_qwen.CHATS["rollout"] if start in TINY else FAMILIES["plume"].chat
    if any(token in now.template for token in SPELLED):  # of PLUME or UME-R1: it asks for a thought
        return ChatFormat()
    return now


def add_tokens(tokenizer: Tokenizer, state: dict[str, Tensor], *, model_type: str) -> int:
    """Add PLUME's tokens to a tokenizer and to the table in ``state``; return its rows.

    ``state`` is that of a Qwen backbone. The table (and the head, where it is not tied) gets
    as many rows as there are tokens, which may be fewer than it was padded to. Raises
    BadSetting where the tokens that new rows are copied from are not in the vocabulary.
    """
    known = tokenizer.get_vocab(with_added_tokens=True)
    missing = [token for token in SPELLED if token not in known]
    tokenizer.add_tokens([AddedToken(token) for token in missing])
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    rows = max(vocabulary.values()) + 1
    copied = {vocabulary[token]: known[_copied_from(token, model_type, known)] for token in missing}
    for name in ("language.embed_tokens.weight", "lm_head.weight"):
        if name not in state:
            continue
        table = state[name]
        resized = table.new_zeros(rows, table.shape[1])
        shared = min(rows, len(table))
        resized[:shared] = table[:shared]
        for new, old in copied.items():
            resized[new] = table[old]
        state[name] = resized
    return rows


def _copied_from(token: str, model_type: str, known: Mapping[str, int]) -> str:
    """Return whose row the token starts from: the family's own choice, or the other one."""
    qwen2, later = COPIED[token]
    for one in (qwen2, later) if model_type == "qwen2_vl" else (later, qwen2):
        if one in known:
            return one
    raise BadSetting(
        "model.reasoner 'rollout'", f"the vocabulary has neither {qwen2} nor {later} to start from"
    )


def _resized(hf: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return a config.json with a vocabulary of so many rows, wherever it says so."""
    resized = dict(hf)
    if isinstance(hf.get("text_config"), Mapping):
        resized["text_config"] = {**hf["text_config"], "vocab_size": rows}
    if "vocab_size" in hf or "text_config" not in hf:
        resized["vocab_size"] = rows
    return resized


def _word_pieces(tokenizer: Tokenizer) -> str:
    """Return the suffix of a default model: its pieces for <eot> and <gen_emb>.

    The word table stays as it is, so they are rows that it has and no text is cut into; the
    tokenizer learns to read them where they are spelled out.
    """
    pieces = [UNUSED[token] for token in SPELLED]
    if all(tokenizer.token_to_id(piece) is not None for piece in pieces):
        tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in pieces])
        return UNUSED["<eot>"] + UNUSED["<gen_emb>"]
    return tiny.THOUGHTS["rollout"][0].suffix  # a vocabulary of letters
