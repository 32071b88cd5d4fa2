"""Published model folders that do not describe themselves: what they are, what is in them.

    config.json, tokenizer.json, headers of the weights -> describe -> ModelDescription
    names of published tensors -> own_names -> names as `Model` has them

Nothing is loaded and nothing is run: a name in ``auto_map`` is evidence of the family and
never imported. ``about`` says by what a folder was taken for what it was taken for; whoever
knows better names the family. torch-free.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.models.description import (
    TOKENIZER_FILE,
    Layout,
    ModelDescription,
)
from mmsearch.retriever.models.hub_families import (
    BARE,
    FAMILIES,
    UNMEASURED,
    Family,
    published_name,
    recognise,
)
from mmsearch.retriever.models.weight_files import (
    TensorInfo,
    file_hash,
    pickle_shards,
    read_headers,
    read_json,
    weight_shards,
)
from mmsearch.values import View

CONFIG_FILE = "config.json"
LORA_FILE = "adapter_config.json"
ADAPTER = "latent_moe_transition."
CONVERT = "mmsearch model convert {} NEW_FOLDER"
# What the same modules are called, by who wrote them: transformers before and after 4.52,
# with and without its head, wrapped or not. The first that matches counts.
ROOTS = (
    (r"model\.visual\.", "backbone.vision."),
    (r"visual\.", "backbone.vision."),
    (r"model\.language_model\.", "backbone.language."),
    (r"language_model\.model\.", "backbone.language."),
    (r"language_model\.", "backbone.language."),
    (r"lm_head\.", "backbone.lm_head."),
    (r"model\.(?=layers\.|embed_tokens\.|norm\.)", "backbone.language."),
)
_ROOT = re.compile("|".join(f"({pattern})" for pattern, _ in ROOTS))
_WRAPPED = re.compile(rf"((?:[A-Za-z_]\w*\.)*?)(?:{_ROOT.pattern})(.+)")
_COMPUTED = re.compile(r"(?:^|\.)rotary_\w*\.inv_freq$")  # old writers kept it
# Of config.json: how it was written, not what the model is.
NOT_THE_MODEL = {"architectures", "auto_map", "dtype", "torch_dtype", "transformers_version"}


def describe(folder: Path, *, family: str | None = None) -> ModelDescription:
    """Return the description of a published folder, hashing the files it rests on.

    ``family`` is one of FAMILIES for a folder that would be taken for another. Raises
    BadCheckpoint for a folder that is no model, is of no known family, or lacks a part.
    """
    shards, tokenizer = weight_shards(folder), folder / TOKENIZER_FILE
    if not shards and pickle_shards(folder):
        raise _to_convert(folder, "its weights are pickled, and a pickle can run code")
    if (
        not tokenizer.is_file()
        and (folder / "vocab.json").is_file()
        and (folder / CONFIG_FILE).is_file()
    ):
        raise _to_convert(folder, f"it has vocab.json and no {TOKENIZER_FILE}")
    described = describe_parts(folder, shards, tokenizer, family=family)
    files = {file.name: file_hash(file) for file in (*shards, tokenizer)}
    return replace(described, files=files)


def _to_convert(folder: Path, reason: str) -> BadCheckpoint:
    error = BadCheckpoint(folder, reason)
    error.hint = CONVERT.format(folder)
    return error


def describe_parts(
    folder: Path, shards: Sequence[Path], tokenizer: Path, *, family: str | None = None
) -> ModelDescription:
    """Return the description of weights and a tokenizer that need not lie in ``folder``.

    Its ``files`` are left empty. Raises as `describe` does.
    """
    config = _config(folder)
    if not shards:
        raise BadCheckpoint(folder, "it has no model*.safetensors")
    tensors = read_headers(shards)
    words = _tokenizer(tokenizer)
    try:
        description = _description(folder, config, tensors, words, family)
        own_names(tensors, description)
    except (KeyError, TypeError, AttributeError, ArithmeticError) as error:
        reason = f"its JSON files are not what those of a model are: {error!r}"
        raise BadCheckpoint(folder, reason) from None
    except ValueError as error:
        raise BadCheckpoint(folder, str(error)) from None
    return description


def _description(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    words: "_Words",
    family: str | None,
) -> ModelDescription:
    name, why = _family(folder, config, tensors, words, family)
    fields = FAMILIES[name]
    hf, width = _hf(folder, config, tensors)
    _check_tokens(folder, fields, words, _rows(hf))
    chat = replace(fields.chat, template=f"{words.before}{fields.chat.template}{words.after}")
    reasoner_config = dict(fields.reasoner_config)
    if fields.reasoner == "cot" and not (_is_tied(config) or _has_head(tensors)):
        reason = f"it has no lm_head, without which {fields.title} writes no thought"
        raise BadCheckpoint(folder, reason)
    if name == "plume":
        reasoner_config |= _steps(folder) | _adapter(folder, tensors, reasoner_config["adapter"])
    sides = [(query, segment) for query in View for segment in View]
    return ModelDescription(
        name=published_name(folder),
        about=f"{fields.title} on {config['model_type']}, {why}; never measured here",
        backbone="qwen_vl",
        backbone_config={
            "hf": hf,
            "chat": asdict(chat),
            "policy": asdict(fields.policy),
            "position_mode": fields.position_mode,
            "max_tokens": min(fields.max_tokens, _reach(hf)),
        },
        reasoner=fields.reasoner,
        reasoner_config=reasoner_config,
        effort=reasoner_config.get("steps", fields.effort),
        head="plain",
        readout=fields.readout,
        prompts=fields.prompts,
        max_pixels=fields.max_pixels,
        max_frames=fields.max_frames,
        dim=width,
        calibration=dict.fromkeys(sides, UNMEASURED),
        layout=Layout.HUB,
        files={},
    )


# ---------------------------------------------------------------- names of tensors


def own_names(hub_names: Iterable[str], description: ModelDescription) -> dict[str, str]:
    """Return ``{published name: name in Model}``; what is not used is left out.

    A head that is tied to the embeddings is not used, nor are angles that are computed.
    Raises ValueError for tensors it does not know, and for two of one name.
    """
    is_tied = bool(description.backbone_config["hf"].get("tie_word_embeddings"))
    names: dict[str, str] = {}
    prefixes: set[str] = set()
    unknown: list[str] = []
    for hub in hub_names:
        if _COMPUTED.search(hub):
            continue
        if ADAPTER in hub:
            if description.reasoner != "rollout":
                unknown.append(hub)
            names[hub] = "reasoner.adapter." + hub.partition(ADAPTER)[2]
        elif match := _WRAPPED.fullmatch(hub):
            root = next(own for i, (_, own) in enumerate(ROOTS) if match.group(i + 2))
            prefixes.add(match.group(1))
            if not (is_tied and root == "backbone.lm_head."):
                names[hub] = root + match.group(len(ROOTS) + 2)
        else:
            unknown.append(hub)
    if unknown:
        raise ValueError(_shown("it has tensors that no known model has", unknown))
    if len(prefixes) > 1:
        raise ValueError(_shown("it holds several networks, under", prefixes))
    if len(set(names.values())) < len(names):
        own = list(names.values())
        twice = {one for one in own if own.count(one) > 1}
        raise ValueError(_shown("it holds tensors twice, under two names each:", twice))
    return names


def _shown(what: str, names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return f"{what}: {', '.join(repr(name) for name in listed[:3])}{more}"


# ---------------------------------------------------------------- which family


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise BadCheckpoint(folder, "it is not a folder")
    if (folder / LORA_FILE).is_file() and not weight_shards(folder):
        base = read_json(folder, LORA_FILE).get("base_model_name_or_path")
        reason = f"it holds only a LoRA adapter for {base}, to be merged into that model first"
        raise BadCheckpoint(folder, reason)
    config = read_json(folder, CONFIG_FILE)
    if str(config.get("model_type")) not in BARE:
        reason = f"model_type {config.get('model_type')!r} is not one of {', '.join(BARE)}"
        error = BadCheckpoint(folder, reason)
        error.hint = f"known families: {', '.join(FAMILIES)}"
        raise error
    return config


def _family(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, TensorInfo],
    words: "_Words",
    named: str | None,
) -> tuple[str, str]:
    """Return the family, and by what it was taken for it."""
    model_type = config["model_type"]
    has_adapter = any(ADAPTER in name for name in tensors)
    if named is not None:
        name, why = named.lower(), "as it was named"
        if name not in FAMILIES:
            reason = f"no family is named {named!r}"
            error = BadCheckpoint(folder, reason)
            error.hint = f"known families: {', '.join(FAMILIES)}"
            raise error
        if model_type not in FAMILIES[name].model_types:
            raise BadCheckpoint(folder, f"{FAMILIES[name].title} does not stand on {model_type}")
    else:
        name, why = recognise(
            folder, config, has_adapter=has_adapter, tokens=words.ids, name=published_name(folder)
        )
    if name == "plume" and not has_adapter:
        raise BadCheckpoint(folder, f"it is a PLUME without its adapter ({ADAPTER}*)")
    return name, why


# ---------------------------------------------------------------- its parts


@dataclass(frozen=True, slots=True)
class _Words:
    """What a tokenizer.json says: ids of added tokens, what it puts around every text."""

    ids: Mapping[str, int]
    before: str
    after: str


def _tokenizer(file: Path) -> _Words:
    fields = read_json(file.parent, file.name)
    try:
        vocabulary = fields["model"]["vocab"]
        ids = dict(vocabulary) if isinstance(vocabulary, dict) else {}
        ids |= {token["content"]: token["id"] for token in fields.get("added_tokens", [])}
        before, after = _around(fields.get("post_processor"))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{file.name} is no tokenizer: {error!r}"
        raise BadCheckpoint(file.parent, reason) from None
    return _Words(ids, before, after)


def _around(processor: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the special tokens that a post-processor puts before and after a text."""
    before, after = "", ""
    for one in (processor or {}).get("processors", [processor] if processor else []):
        if one["type"] != "TemplateProcessing":
            continue
        tokens = [piece.get("SpecialToken", {}).get("id") for piece in one["single"]]
        text = tokens.index(None)
        before += "".join(tokens[:text])
        after += "".join(token or "" for token in tokens[text + 1 :])
    return before, after


def _check_tokens(folder: Path, family: Family, words: _Words, rows: int) -> None:
    for token in family.tokens:
        if token not in words.ids:
            raise BadCheckpoint(folder, f"its tokenizer has no {token}, which {family.title} needs")
        if words.ids[token] >= rows:
            reason = f"its tokenizer has {token} at {words.ids[token]}, of {rows} embeddings"
            raise BadCheckpoint(folder, reason)


def _hf(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> tuple[dict[str, Any], int]:
    """Return config.json as the weights have it, and the model's width.

    A vocabulary that was resized, and a head that is or is not there, are as the weights
    say: config.json is often not written again. Raises BadCheckpoint for other sizes.
    """
    hf: dict[str, Any] = _the_model(config)
    text = hf["text_config"] if isinstance(hf.get("text_config"), dict) else hf
    vision = hf.get("vision_config")
    tables = [info for name, info in tensors.items() if name.endswith("embed_tokens.weight")]
    if len(tables) != 1 or len(tables[0].shape) != 2:
        raise BadCheckpoint(folder, "its weights have no table of token embeddings")
    rows, width = tables[0].shape
    depths = {
        "language": (text.get("num_hidden_layers"), _depth(tensors, r"(?<!visual\.)layers")),
        "vision": ((vision or {}).get("depth"), _depth(tensors, r"visual\.blocks")),
    }
    for which, (said, found) in depths.items():
        if said not in (None, found):
            reason = f"{CONFIG_FILE} says {said} {which} layers, and its weights have {found}"
            raise BadCheckpoint(folder, reason)
    if text.get("hidden_size") not in (None, width):
        reason = f"{CONFIG_FILE} says width {text['hidden_size']}, and its weights have {width}"
        raise BadCheckpoint(folder, reason)
    is_tied = _is_tied(hf) or not _has_head(tensors)
    for fields in (text, hf):  # nested or not, transformers asks at the top as well
        if fields is text or "vocab_size" in fields:
            fields["vocab_size"] = rows
        fields["tie_word_embeddings"] = is_tied
    return hf, width


def _is_tied(hf: Mapping[str, Any]) -> bool:
    nested = hf.get("text_config") or {}
    return bool(hf.get("tie_word_embeddings", nested.get("tie_word_embeddings", False)))


def _has_head(tensors: Iterable[str]) -> bool:
    return any(name.endswith("lm_head.weight") for name in tensors)


def _the_model(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _the_model(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name not in NOT_THE_MODEL and not name.startswith("_")
    }


def _rows(hf: Mapping[str, Any]) -> int:
    return int((hf.get("text_config") or hf)["vocab_size"])


def _reach(hf: Mapping[str, Any]) -> int:
    """Return how many positions the model has; what config.json leaves out is plenty."""
    return int((hf.get("text_config") or hf).get("max_position_embeddings", 32_768))


def _depth(tensors: Iterable[str], layers: str) -> int:
    pattern = re.compile(rf"(?:^|\.){layers}\.(\d+)\.")
    return len({match.group(1) for name in tensors if (match := pattern.search(name))})


def _steps(folder: Path) -> dict[str, int]:
    """Return how many latent steps the training ended with, where its state says so."""
    if not (folder / "trainer_state.json").is_file():
        return {}
    history = read_json(folder, "trainer_state.json").get("log_history")
    steps = [
        row["curriculum_latent_tokens"]
        for row in (history if isinstance(history, list) else [])
        if isinstance(row, dict) and "curriculum_latent_tokens" in row
    ]
    return {"steps": int(steps[-1])} if steps and steps[-1] >= 1 else {}


def _adapter(
    folder: Path, tensors: Mapping[str, TensorInfo], released: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the adapter's configuration with as many experts as the weights have."""
    pattern = re.compile(re.escape(ADAPTER) + r"experts\.(\d+)\.")
    found = {int(match.group(1)) for name in tensors if (match := pattern.search(name))}
    if found != set(range(len(found))) or not found:
        raise BadCheckpoint(folder, f"its adapter has experts {sorted(found)}")
    top_k = min(released["top_k"], len(found))
    return {"adapter": {**released, "num_experts": len(found), "top_k": top_k}}
