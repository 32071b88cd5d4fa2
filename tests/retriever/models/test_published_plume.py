"""A PLUME folder gives the vectors of the published evaluation, end to end.

The oracle knows nothing of ours: it is written from what is known of that evaluation
(arXiv 2604.02073 and its code), with transformers' own model, image processor, positions
and cache, the first resize of qwen-vl-utils, and the adapter as plain equations that read
the published tensors. One item at a time, as there.
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_folders import PLUME_TOKENS, edit_json, edit_tensors, write_published
from published_pixels import PublishedPixels, noise, strengthen
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.errors import BadCheckpoint
from mmsearch.retriever.embedding.load import load_described, load_embedder, model_description
from mmsearch.retriever.models.convert import convert_model
from mmsearch.retriever.models.description import ModelSettings
from mmsearch.values import Frames, Image, Item, Role, Text

WIDTH, EXPERTS = 32, 4
BEFORE = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
AFTER = (
    "\n<disc_emb>\nRepresent the above input text, images, videos, or any combination of the "
    "three as embeddings. First output the thinking process in <think> </think> tags and then "
    "summarize the entire input in a word or sentence. Finally, use the <gen_emb> tag to "
    "represent the entire input.<|im_end|>\n<|im_start|>assistant\n<think><bot>"
)
SUFFIX = "<eot></think>\n<gen_emb>"


ITEMS = {
    "words": Item("a red bus at night"),
    "words and a picture": Item([Image(noise(70, 90, 3)), Text("where is this?")]),
    "a picture": Item(Image(noise(150, 61, 3))),
    "a tiny picture": Item(Image(noise(13, 20, 3))),
    "eight frames": Item([Frames(noise(8, 60, 110, 3)), Text("what happens?")]),
    "five frames": Item(Frames(noise(5, 112, 100, 3))),
    "an instruction": Item("Find a document image that matches the given query: sales in 2019"),
}


# ---------------------------------------------------------------- the folder


def write_plume(folder: Path) -> None:
    """Write a tiny folder as it was published; the adapter lies in the last of two shards."""

    def long_enough(config: dict[str, Any]) -> None:
        config["text_config"]["max_position_embeddings"] = 32_768

    write_published(folder, tokens=PLUME_TOKENS, num_shards=2, config=long_enough)
    shapes: dict[str, tuple[int, ...]] = {
        "ln.weight": (WIDTH,),
        "ln.bias": (WIDTH,),
        "step_embed.weight": (32, WIDTH),
        "router.weight": (EXPERTS, 2 * WIDTH),
        "router.bias": (EXPERTS,),
    }
    for expert in [*(f"experts.{i}" for i in range(EXPERTS)), "shared_expert"]:
        shapes |= {f"{expert}.fc1.weight": (2 * WIDTH, WIDTH), f"{expert}.fc1.bias": (2 * WIDTH,)}
        shapes |= {f"{expert}.fc2.weight": (WIDTH, 2 * WIDTH), f"{expert}.fc2.bias": (WIDTH,)}
    generator = torch.Generator().manual_seed(1)
    adapter = {
        f"latent_moe_transition.{name}": 0.3 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    for shard in folder.glob("*.safetensors"):
        edit_tensors(shard, strengthen)
    last = folder / "model-00002-of-00002.safetensors"
    edit_tensors(last, lambda tensors: tensors.update(adapter))
    index = folder / "model.safetensors.index.json"
    edit_json(index, lambda it: it["weight_map"].update(dict.fromkeys(adapter, last.name)))


# ---------------------------------------------------------------- the oracle


class PublishedPlume:
    """The evaluation of PLUME at batch 1, in float32."""

    def __init__(self, folder: Path) -> None:
        from transformers import Qwen2VLForConditionalGeneration

        loaded: Any = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        self.model: Any = loaded.eval()
        self.pixels = PublishedPixels(784, 2_359_296, twice=True)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.adapter: dict[str, Tensor] = {}
        for shard in folder.glob("*.safetensors"):
            for name, tensor in load_file(shard).items():
                if name.startswith("latent_moe_transition."):
                    self.adapter[name.removeprefix("latent_moe_transition.")] = tensor

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def transition(self, z: Tensor, step: int, c: Tensor) -> Tensor:
        """Return A(z, k, c) of ``[D]`` with only the two best experts evaluated."""
        w = self.adapter

        def expert(name: str, u: Tensor) -> Tensor:
            inner = w[f"{name}.fc1.weight"] @ u + w[f"{name}.fc1.bias"]
            inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
            return w[f"{name}.fc2.weight"] @ inner + w[f"{name}.fc2.bias"]

        centred = z - z.mean()
        u = centred / torch.sqrt((centred**2).mean() + 1e-5) * w["ln.weight"] + w["ln.bias"]
        e = w["step_embed.weight"][min(step, 31)]
        powers = torch.exp(w["router.weight"] @ torch.cat([z + c, e]) + w["router.bias"])
        pi = powers / powers.sum()
        out = z + expert("shared_expert", u)
        for m in sorted(range(EXPERTS), key=lambda m: -float(pi[m]))[:2]:
            out = out + pi[m] * expert(f"experts.{m}", u)
        return out

    @torch.no_grad()
    def readouts(self, item: Item, *, steps: int) -> dict[str, Tensor]:
        """Return the unit vectors ``[D]`` of an item of words and one picture or film."""
        from transformers import DynamicCache

        text = "".join(part.text for part in item.parts if isinstance(part, Text))
        visual = [part for part in item.parts if not isinstance(part, Text)]
        shown = visual[0] if visual else Image(np.full((28, 28, 3), 255, dtype=np.uint8))
        if isinstance(shown, Frames):
            kind, named, (patches, grid) = "video", 2, self.pixels.film(shown.pixels)
        else:
            kind, named, (patches, grid) = "image", 1, self.pixels.picture(shown.pixels)
        num_pads = int(grid.prod()) // 4
        prompt = f"{BEFORE}<|vision_start|>{f'<|{kind}_pad|>' * num_pads}<|vision_end|>"
        ids: Tensor = torch.tensor([self.ids(prompt + text + AFTER)])
        [pad, anchor] = self.ids(f"<|{kind}_pad|><disc_emb>")
        types = named * torch.eq(ids, pad).int()
        fields = {f"{kind}_grid_thw": grid}
        inner, cache = self.model.model, DynamicCache(config=self.model.config.get_text_config())
        positions, _ = inner.get_rope_index(
            ids, types, **fields, attention_mask=torch.ones_like(ids)
        )
        pixels = "pixel_values_videos" if kind == "video" else "pixel_values"
        prefix = inner(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=positions,
            mm_token_type_ids=types,
            past_key_values=cache,
            use_cache=True,
            **fields,
            **{pixels: patches},
        ).last_hidden_state[0]
        start, at = len(prefix), int(torch.eq(ids[0], anchor).nonzero()[-1])

        def go_on(embeds: Tensor, position: int) -> Tensor:
            """Return the states ``[m, D]`` of more positions, in the cache as well."""
            where = torch.arange(position, position + len(embeds)).expand(3, 1, -1)
            out = inner.language_model(
                inputs_embeds=embeds[None],
                position_ids=where,
                past_key_values=cache,
                use_cache=True,
            )
            states: Tensor = out.last_hidden_state[0]
            return states

        z = prefix[-1]
        for k in range(steps):
            z = go_on(self.transition(z, k, prefix[at])[None], start + k)[-1]
        suffix = inner.get_input_embeddings()(torch.tensor(self.ids(SUFFIX)))
        gen = go_on(suffix, start + steps)[-1]
        states = {"gen": gen, "disc": prefix[at], "disc_next": prefix[at + 1]}
        return {name: F.normalize(state, dim=0) for name, state in states.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "PLUME-Qwen2-VL-2B"
    write_plume(path)
    return path


@pytest.fixture(scope="module")
def published(folder: Path) -> PublishedPlume:
    return PublishedPlume(folder)


def cosines(ours: np.ndarray, wanted: list[Tensor]) -> list[float]:
    pairs = zip(ours, wanted, strict=True)
    return [float(np.float64(a) @ b.double().numpy()) for a, b in pairs]


def with_readout(folder: Path, readout: str) -> Any:
    path, description = model_description(folder)
    return load_described(path, replace(description, readout=readout), device="cpu", dtype="auto")


# ---------------------------------------------------------------- the promises


@pytest.mark.parametrize("effort", [0, 4, 8])
def test_the_vectors_are_those_of_the_published_evaluation(
    folder: Path, published: PublishedPlume, effort: int
) -> None:
    embedder = load_embedder(folder, device="cpu", settings=ModelSettings(effort=effort))
    items = list(ITEMS.values())

    together = embedder.embed(items, role=Role.QUERY)
    alone = np.concatenate([embedder.embed([item], role=Role.QUERY) for item in items])

    wanted = [published.readouts(item, steps=effort)["gen"] for item in items]
    assert min(cosines(together, wanted) + cosines(alone, wanted)) >= 0.999999
    for ours in (together, alone):
        np.testing.assert_allclose(ours, torch.stack(wanted).numpy(), rtol=0, atol=2e-6)


def test_without_settings_the_effort_is_that_of_the_paper(
    folder: Path, published: PublishedPlume
) -> None:
    item = ITEMS["words and a picture"]

    ours = load_embedder(folder, device="cpu").embed([item])

    assert cosines(ours, [published.readouts(item, steps=8)["gen"]])[0] >= 0.999999
    assert cosines(ours, [published.readouts(item, steps=7)["gen"]])[0] < 0.99


@pytest.mark.parametrize("readout", ["disc", "disc_next"])
def test_both_discriminative_readouts_are_those_that_were_published(
    folder: Path, published: PublishedPlume, readout: str
) -> None:
    """``disc`` as the training has it, ``disc_next`` as the evaluation reads it."""
    items = list(ITEMS.values())

    ours = with_readout(folder, readout).embed(items)

    wanted = [published.readouts(item, steps=0) for item in items]
    assert min(cosines(ours, [one[readout] for one in wanted])) >= 0.999999
    other = {"disc": "disc_next", "disc_next": "disc"}[readout]
    assert max(cosines(ours, [one[other] for one in wanted])) < 0.99


def test_a_large_picture_lands_on_the_grid_of_two_resizes(
    folder: Path, published: PublishedPlume
) -> None:
    """One resize alone would make it 100 by 120 patches."""
    pixels = np.kron(noise(15, 18, 3), np.ones((100, 100, 1), dtype=np.uint8))
    _, grid = published.pixels.picture(pixels)

    ours = load_embedder(folder, device="cpu").embed([Item(Image(pixels))])

    assert grid.tolist() == [[1, 100, 118]]
    wanted = published.readouts(Item(Image(pixels)), steps=8)["gen"]
    assert cosines(ours, [wanted])[0] >= 0.999999


def test_grids_are_those_that_were_seen_of_the_evaluation(published: PublishedPlume) -> None:
    """Of the oracle itself: 4 visual tokens of the blank picture, 32 of small frames."""
    assert published.pixels.picture(np.full((28, 28, 3), 255, dtype=np.uint8))[1].tolist() == [
        [1, 4, 4]
    ]
    assert published.pixels.film(noise(8, 60, 110, 3))[1].tolist() == [[4, 4, 8]]


def test_a_converted_folder_gives_the_same_vectors_to_the_bit(folder: Path, tmp_path: Path) -> None:
    items = list(ITEMS.values())

    convert_model(folder, tmp_path / "ours")

    assert not (tmp_path / "ours" / "config.json").exists()
    np.testing.assert_array_equal(
        load_embedder(tmp_path / "ours", device="cpu").embed(items),
        load_embedder(folder, device="cpu").embed(items),
    )


def test_a_prompt_of_the_model_stands_where_the_evaluation_put_its_instruction(
    folder: Path, published: PublishedPlume, tmp_path: Path
) -> None:
    instruction, item = "Find a picture of: ", ITEMS["words and a picture"]
    convert_model(folder, tmp_path / "ours")

    def with_prompt(fields: dict[str, Any]) -> None:
        fields["prompts"]["query"] = instruction

    edit_json(tmp_path / "ours" / "mmsearch.json", with_prompt)
    ours = load_embedder(tmp_path / "ours", device="cpu").embed([item], role=Role.QUERY)

    picture, words = item.parts
    assert isinstance(words, Text)
    wanted = published.readouts(Item([picture, instruction + words.text]), steps=8)["gen"]
    assert cosines(ours, [wanted])[0] >= 0.999999


def test_contiguous_positions_change_the_vector_wherever_pixels_are(folder: Path) -> None:
    """The blank picture of words alone among them, and nothing once that is left out."""
    path, described = model_description(folder)

    def embedded(items: list[Item], mode: str, **policy: bool) -> np.ndarray:
        fields: Mapping[str, Any] = described.backbone_config
        changed = {"position_mode": mode, "policy": fields["policy"] | policy}
        description = replace(described, backbone_config={**fields, **changed})
        return load_described(path, description, device="cpu", dtype="auto").embed(items)

    items = list(ITEMS.values())
    released, contiguous = (embedded(items, mode) for mode in ("cache_length", "contiguous"))
    alike = (released * contiguous).sum(axis=1)
    assert alike.max() < 0.99

    words = [ITEMS["words"], ITEMS["an instruction"]]
    np.testing.assert_array_equal(
        embedded(words, "cache_length", blank_image=False),
        embedded(words, "contiguous", blank_image=False),
    )


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("router.bias", r"missing tensors \['reasoner.adapter.router.bias'\]"),
        ("experts.2.fc2", r"missing tensors \['reasoner.adapter.experts.2.fc2.bias'"),
        ("experts.3", r"router.weight is \[4, 64\], not \[3, 64\]"),
        ("", r"it is a PLUME without its adapter"),
    ],
)
def test_a_part_of_the_adapter_is_not_enough(
    folder: Path, tmp_path: Path, missing: str, reason: str
) -> None:
    """The published loader takes whatever it finds, and embeds with chance for the rest."""
    shutil.copytree(folder, tmp_path / "PLUME")
    unwanted = f"latent_moe_transition.{missing}"

    def drop(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(unwanted)]:
            del tensors[name]

    edit_tensors(tmp_path / "PLUME" / "model-00002-of-00002.safetensors", drop)
    edit_json(
        tmp_path / "PLUME" / "model.safetensors.index.json", lambda it: drop(it["weight_map"])
    )

    with pytest.raises(BadCheckpoint, match=reason):
        load_embedder(tmp_path / "PLUME", device="cpu")


def test_slivers_and_a_single_pixel_have_a_vector(folder: Path) -> None:
    """The published evaluation refuses what is 200 times longer than wide."""
    shapes = [(1, 1), (1, 20_000), (20_000, 1)]

    vectors = load_embedder(folder, device="cpu").embed(
        [Item(Image(noise(*shape, 3))) for shape in shapes]
    )

    np.testing.assert_allclose((vectors**2).sum(axis=1), 1.0, atol=1e-6)


def test_the_adapter_may_lie_in_any_shard_and_is_read_from_there(
    folder: Path, tmp_path: Path
) -> None:
    """As a control of the oracle too: other weights of the adapter, another vector."""
    other = tmp_path / "PLUME-other"
    shutil.copytree(folder, other)
    shards = sorted(other.glob("*.safetensors"))
    moved: dict[str, Tensor] = {}

    def take(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("latent_moe_transition.")]:
            moved[name] = tensors.pop(name)

    edit_tensors(shards[1], take)
    edit_tensors(shards[0], lambda tensors: tensors.update(moved))
    index = other / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    weight_map |= dict.fromkeys(moved, shards[0].name)
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    item = ITEMS["a picture"]
    as_published = load_embedder(folder, device="cpu").embed([item])

    np.testing.assert_array_equal(load_embedder(other, device="cpu").embed([item]), as_published)

    edit_tensors(shards[0], lambda tensors: tensors["latent_moe_transition.ln.bias"].add_(1.0))
    changed = load_embedder(other, device="cpu").embed([item])
    assert float((changed @ as_published.T)[0, 0]) < 0.99
