"""Published folders compute what their authors' code does, by transformers' own forward."""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_folders import PLUME_TOKENS, flat_config, random_adapter, write_published
from torch import Tensor, nn

from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.models.adapter import AdapterConfig, LatentAdapter
from mmsearch.retriever.models.checkpoint import Model, matched_model, read_checkpoint
from mmsearch.retriever.models.convert import convert_model
from mmsearch.retriever.models.hub_layout import describe, describe_parts
from mmsearch.retriever.models.weight_files import TensorInfo, TensorWriter, read_headers
from mmsearch.values import Image, Item, Role, Text


def hidden_of(model: Model, item: Item) -> tuple[Any, Tensor]:
    with torch.no_grad():
        batch = model.backbone.collate([item], role=Role.DOCUMENT)
        hidden, _ = model.backbone.prefill(batch)
    return batch, hidden


def their_fields(reference: nn.Module, batch: Any) -> dict[str, Any]:
    """Return the ids and the pixels of a batch as transformers' models take them."""
    ids = batch.ids
    config: Any = reference.config
    fields: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if batch.grids:
        grids = [(grid.frames, grid.rows, grid.columns) for grid in batch.grids]
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
        if config.model_type == "qwen3_vl":
            mean = std = torch.full((3,), 0.5)
        pixels = batch.patches.float().reshape(len(batch.patches), 3, -1) / 255
        pixels = (pixels - mean[:, None]) / std[:, None]
        fields |= {"pixel_values": pixels.flatten(1), "image_grid_thw": torch.tensor(grids)}
    fields["mm_token_type_ids"] = (ids == config.image_token_id).int()
    return fields


def theirs(reference: nn.Module, batch: Any) -> Tensor:
    """Return what transformers' own model makes of a batch."""
    inner: Any = reference.model
    with torch.no_grad():
        return inner(**their_fields(reference, batch)).last_hidden_state


@pytest.mark.parametrize(
    ("model_type", "how"),
    [
        ("qwen2_vl", {}),
        ("qwen2_vl", {"config": flat_config}),
        ("qwen2_5_vl", {}),
        ("qwen2_5_vl", {"config": flat_config}),
        ("qwen3_vl", {}),
        ("qwen3_vl", {"num_shards": 2, "tied": False}),
    ],
)
def test_a_published_folder_computes_what_transformers_does(
    tmp_path: Path, model_type: str, how: dict[str, Any]
) -> None:
    reference = write_published(tmp_path / "x", model_type=model_type, **how)
    _, model = read_checkpoint(tmp_path / "x", description=describe(tmp_path / "x"))
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)

    batch, ours = hidden_of(model, Item([Text("a bus"), Image(pixels), Text("at night")]))

    assert len(batch.grids) == 1
    torch.testing.assert_close(ours, theirs(reference, batch), atol=1e-5, rtol=1e-5)


def test_vlm2vec_and_gme_count_every_feature_as_a_word(tmp_path: Path) -> None:
    """As the code they were trained with: it finds no vision start, or is given no ids."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    for name in ("VLM2Vec-V2.0", "gme-Qwen2-VL-2B-Instruct"):
        write_published(tmp_path / name)
        _, model = read_checkpoint(tmp_path / name, description=describe(tmp_path / name))

        batch, _ = hidden_of(model, Item(Image(pixels)))

        length = batch.ids.shape[1]
        assert torch.equal(batch.positions[:, 0], torch.arange(length).expand(3, -1))


def test_vlm2vec_writes_a_lone_picture_with_an_instruction_and_words_without(
    tmp_path: Path,
) -> None:
    write_published(tmp_path / "VLM2Vec-V2.0")
    _, model = read_checkpoint(
        tmp_path / "VLM2Vec-V2.0", description=describe(tmp_path / "VLM2Vec-V2.0")
    )
    tokenizer, pad = model.backbone.tokenizer, 264
    pixels = np.zeros((56, 56, 3), dtype=np.uint8)

    def written(item: Item, role: Role) -> str:
        ids = model.backbone.collate([item], role=role).ids[0]
        pads = "<|image_pad|>" if bool((ids == pad).any()) else ""
        return pads + tokenizer.decode(ids[ids != pad].tolist(), skip_special_tokens=False)

    assert written(Item(Image(pixels)), Role.DOCUMENT) == "<|image_pad|> Represent the given image."
    assert written(Item("a bus"), Role.DOCUMENT) == "a bus"
    assert written(Item("a bus"), Role.QUERY) == (
        "Find a document image that matches the given query: a bus"
    )


# ---------------------------------------------------------------- PLUME


def write_full_size_plume(folder: Path) -> None:
    """Write a folder of the released sizes and names, its weights a hole in the disk."""
    import transformers

    write_published(folder, tokens=PLUME_TOKENS, num_experts=4)
    fields: dict[str, Any] = {  # Qwen2-VL-2B's own config.json, as it was published in 2024
        "model_type": "qwen2_vl",
        "hidden_size": 1_536,
        "intermediate_size": 8_960,
        "max_position_embeddings": 32_768,
        "num_attention_heads": 12,
        "num_hidden_layers": 28,
        "num_key_value_heads": 2,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
        "vocab_size": 151_936,  # and the weights have 151,662 rows
        "vision_config": {
            "depth": 32,
            "embed_dim": 1_280,
            "mlp_ratio": 4,
            "num_heads": 16,
            "in_chans": 3,
            "hidden_size": 1_536,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "temporal_patch_size": 2,
        },
    }
    (folder / "config.json").write_text(json.dumps(fields))
    with torch.device("meta"):
        model = transformers.Qwen2VLForConditionalGeneration(
            transformers.Qwen2VLConfig(**(fields | {"vocab_size": 151_662}))
        )
        adapter = LatentAdapter(1_536, AdapterConfig())
    held = {
        name.replace("model.visual", "visual").replace("model.language_model", "model"): tensor
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    } | {f"latent_moe_transition.{name}": one for name, one in adapter.state_dict().items()}
    tensors = {name: TensorInfo("BF16", tuple(one.shape)) for name, one in held.items()}
    with contextlib.suppress(ValueError), TensorWriter(folder / "model.safetensors", tensors):
        pass  # nothing was written but the header
    size = sum(info.num_bytes for info in tensors.values())
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) + size)


def test_the_released_sizes_and_names_are_those_of_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "PLUME-Qwen2-VL-2B"
    write_full_size_plume(folder)
    shards, tokenizer = [folder / "model.safetensors"], folder / "tokenizer.json"
    description = describe_parts(folder, shards, tokenizer)

    model, hub_names = matched_model(folder, description, shards, tokenizer)

    assert (description.dim, description.backbone_config["max_tokens"]) == (1_536, 12_288)
    assert sum(p.numel() for p in model.reasoner.adapter.parameters()) == 47_273_476
    assert len(model.backbone.language.embed_tokens.weight) == 151_662
    assert len(hub_names) == len(read_headers(shards))


def plume_by_hand(reference: nn.Module, model: Model, item: Item, *, steps: int) -> Tensor:
    """Return PLUME's vector by plain loops: transformers' text model, recomputed every step.

    From the equations of the paper and the inference row of its evaluation: latent step k
    stands at P + k and suffix token j at P + K + j, P being the number of tokens before.
    """
    inner: Any = reference.model
    adapter = random_adapter(4)
    batch = model.backbone.collate([item], role=Role.DOCUMENT)
    ids, prefix = batch.ids, batch.ids.shape[1]
    fields = their_fields(reference, batch)
    positions, _ = inner.get_rope_index(
        ids,
        fields["mm_token_type_ids"],
        image_grid_thw=fields["image_grid_thw"],
        attention_mask=fields["attention_mask"],
    )
    embeds = inner.get_input_embeddings()(ids)
    seen = inner.get_image_features(
        fields["pixel_values"], fields["image_grid_thw"], return_dict=True
    )
    pads = fields["mm_token_type_ids"] == 1
    embeds[pads] = torch.cat(list(seen.pooler_output))
    tokens = model.backbone.tokenizer
    at = int((ids[0] == tokens.token_to_id("<disc_emb>")).nonzero()[-1])

    def hidden(embeds: Tensor) -> Tensor:
        after = torch.arange(prefix, embeds.shape[1]).expand(3, 1, -1)
        return inner.language_model(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            position_ids=torch.cat([positions, after], dim=2),
            use_cache=False,
        ).last_hidden_state

    states = hidden(embeds)
    z, anchor = states[0, -1], states[0, at]
    for k in range(steps):
        u = F.layer_norm(z, z.shape, adapter.ln.weight, adapter.ln.bias)
        routed = torch.cat([z + anchor, adapter.step_embed.weight[k]])
        pi = F.softmax(adapter.router.weight @ routed + adapter.router.bias, dim=0)
        latent = z + adapter.shared_expert(u)
        for expert in pi.topk(2).indices.tolist():
            latent = latent + pi[expert] * adapter.experts[expert](u)
        embeds = torch.cat([embeds, latent[None, None]], dim=1)
        z = hidden(embeds)[0, -1]
    suffix = tokens.encode("<eot></think>\n<gen_emb>", add_special_tokens=False).ids
    embeds = torch.cat([embeds, inner.get_input_embeddings()(torch.tensor([suffix]))], dim=1)
    return F.normalize(hidden(embeds)[0, -1], dim=0)


@pytest.mark.parametrize("steps", [0, 1, 8])
@pytest.mark.parametrize("with_picture", [True, False], ids=["picture", "words"])
def test_a_plume_folder_gives_the_vectors_of_its_evaluation(
    tmp_path: Path, steps: int, with_picture: bool
) -> None:
    reference = write_published(tmp_path / "PLUME", tokens=PLUME_TOKENS, num_experts=4)
    description, model = read_checkpoint(
        tmp_path / "PLUME", description=describe(tmp_path / "PLUME")
    )
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    item = Item([Image(pixels), "a bus"] if with_picture else "a bus")
    batch = model.backbone.collate([item], role=Role.DOCUMENT)
    if not with_picture:  # a blank picture, which the first resize makes 56 by 56
        assert [tuple(grid) for grid in batch.grids] == [(1, 4, 4)]

    with torch.no_grad():
        ours = model.reasoner.think(model.backbone, batch, effort=steps)["gen"][0]
        wanted = plume_by_hand(reference, model, item, steps=steps)

    torch.testing.assert_close(F.normalize(ours, dim=0), wanted, atol=1e-5, rtol=0)
    assert description.effort == 8


def test_a_converted_folder_gives_the_same_vectors(tmp_path: Path) -> None:
    write_published(tmp_path / "PLUME", tokens=PLUME_TOKENS, num_experts=4, num_shards=2)
    converted = convert_model(tmp_path / "PLUME", tmp_path / "ours")
    items = [Item("a bus"), Item(Image(np.zeros((70, 90, 3), dtype=np.uint8)))]

    published = LatentEmbedder(
        *read_checkpoint(tmp_path / "PLUME", description=describe(tmp_path / "PLUME"))
    )
    ours = LatentEmbedder(*read_checkpoint(tmp_path / "ours"))

    assert ours.space == converted.space
    np.testing.assert_array_equal(ours.embed(items), published.embed(items))
