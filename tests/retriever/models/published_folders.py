"""Tiny model folders in the shapes that others publish, with weights of transformers' own."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmsearch.retriever.models.adapter import AdapterConfig, LatentAdapter
from mmsearch.retriever.models.tiny_qwen import WIDTH, tiny_hf, tiny_tokenizer

PLUME_TOKENS = ("<gen_emb>", "<disc_emb>", "<bot>", "<eot>", "<ct>")
UME_TOKENS = ("<gen_emb>", "<disc_emb>")
Renamed = Callable[[str], str]


def write_published(
    folder: Path,
    *,
    model_type: str = "qwen2_vl",
    tokens: Iterable[str] = (),
    num_experts: int = 0,
    num_shards: int = 1,
    dtype: torch.dtype = torch.float32,
    renamed: Renamed = str,
    adapter_prefix: str = "",
    config: Callable[[dict[str, Any]], object] = lambda fields: None,
    tied: bool = True,
    pickled: bool = False,
    seed: int = 0,
) -> nn.Module:
    """Write a folder as its authors would have, and return transformers' model of it.

    tokens:      added to the tokenizer, as ordinary ones
    num_experts: of a PLUME adapter, written into the last shard; 0 for none
    renamed:     what becomes of each tensor's name
    config:      changes config.json in place
    """
    model = random_transformers_model(model_type, tied=tied, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)  # type: ignore[operator]
    tensors = {renamed(k): v.to(dtype) for k, v in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    if num_experts:
        for name, tensor in random_adapter(num_experts, seed=seed).state_dict().items():
            tensors[f"{adapter_prefix}latent_moe_transition.{name}"] = tensor.to(dtype)
    write_shards(folder, tensors, num_shards=num_shards, pickled=pickled)
    fields = json.loads((folder / "config.json").read_text())
    config(fields)
    (folder / "config.json").write_text(json.dumps(fields))
    write_tokenizer(folder, tokens)
    return model


def random_transformers_model(model_type: str, *, tied: bool = True, seed: int = 0) -> nn.Module:
    """Return a tiny model of transformers' own class, in float32."""
    import transformers

    names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
    fields = tiny_hf(model_type) | {"tie_word_embeddings": tied}
    fields["text_config"]["tie_word_embeddings"] = tied
    config = getattr(transformers, names[model_type] + "Config")(**fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, names[model_type] + "ForConditionalGeneration")(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def random_adapter(num_experts: int, *, seed: int = 0) -> LatentAdapter:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LatentAdapter(WIDTH, AdapterConfig(num_experts=num_experts))


def write_shards(
    folder: Path, tensors: dict[str, Tensor], *, num_shards: int = 1, pickled: bool = False
) -> None:
    """Write tensors as published shards with their index, or as one file without."""
    stem, ending = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    names = list(tensors)
    parts = [names[i::num_shards] for i in range(num_shards)]
    weight_map: dict[str, str] = {}
    for i, part in enumerate(parts):
        shard = f"{stem}-{i + 1:05}-of-{num_shards:05}.{ending}"
        file = folder / (shard if num_shards > 1 else f"{stem}.{ending}")
        held = {name: tensors[name].contiguous() for name in part}
        if pickled:
            torch.save(held, file)
        else:
            save_file(held, file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file.name)
    if num_shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, tokens: Iterable[str] = (), *, closing: str = "") -> None:
    """Write a tokenizer with only these of PLUME's tokens; ``closing`` ends every text."""
    fields = json.loads(tiny_tokenizer().to_str())
    unwanted = set(PLUME_TOKENS) - set(tokens)
    fields["added_tokens"] = [
        token for token in fields["added_tokens"] if token["content"] not in unwanted
    ]
    if closing:
        closing_id = next(t["id"] for t in fields["added_tokens"] if t["content"] == closing)
        piece = {"SpecialToken": {"id": closing, "type_id": 0}}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        fields["post_processor"] = {
            "type": "Sequence",
            "processors": [
                {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": False,
                    "use_regex": False,
                },
                {
                    "type": "TemplateProcessing",
                    "single": [text, piece],
                    "pair": [text, {"Sequence": {"id": "B", "type_id": 0}}, piece],
                    "special_tokens": {
                        closing: {"id": closing, "ids": [closing_id], "tokens": [closing]}
                    },
                },
            ],
        }
    (folder / "tokenizer.json").write_text(json.dumps(fields))


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def edit_tensors(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def nested_names(name: str) -> str:
    """Return a name as transformers writes it from 4.52 on."""
    if name.startswith("visual."):
        return "model." + name
    return name.replace("model.", "model.language_model.", 1) if "visual" not in name else name


def flat_config(fields: dict[str, Any]) -> None:
    """Write a nested config.json as transformers did before 4.52."""
    text = fields.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type", None)
    fields.update({name: value for name, value in text.items() if name not in fields})
    fields["rope_theta"] = rope["rope_theta"]
    fields["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
