"""What each published family is given to read, word for word, and the vector it then has.

The conversations were read off the authors' own code: eval_twomode.py of UME-R1,
process_input_text of VLM2Vec, gme_inference.py of GME, qwen3_vl_embedding.py of
Qwen3-VL-Embedding, the chat templates of the bare models.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from published_folders import UME_TOKENS, edit_tensors, write_published
from published_pixels import PublishedPixels, noise, strengthen
from tokenizers import Tokenizer
from torch import Tensor

from mmsearch.retriever.embedding.load import load_described, load_embedder, model_description
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.hub_layout import describe
from mmsearch.values import Frames, Image, Item, Role, Text

NAMES = {  # folder by family, with the model_type it stands on
    "ume-r1": ("UME-R1-2B", "qwen2_vl"),
    "vlm2vec-v2": ("VLM2Vec-V2.0", "qwen2_vl"),
    "gme": ("gme-Qwen2-VL-2B-Instruct", "qwen2_vl"),
    "qwen3-vl-embedding": ("Qwen3-VL-Embedding-2B", "qwen3_vl"),
    "qwen2-vl": ("Qwen2-VL-2B-Instruct", "qwen2_vl"),
    "qwen2.5-vl": ("Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
    "qwen3-vl": ("Qwen3-VL-2B-Instruct", "qwen3_vl"),
}
PICTURE, FILM = Image(noise(70, 90, 3)), Frames(noise(4, 60, 110, 3))
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER, END, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n"
READ_OUT = (
    "\n<disc_emb>\nRepresent the above input text, images, videos, or any combination of the "
    "three as embeddings. First output the thinking process in <think> </think> tags and then "
    "summarize the entire input in a word or sentence. Finally, use the <gen_emb> tag to "
    "represent the entire input."
)
ASKED = "<|im_start|>system\nRetrieve images or text relevant to the user's query.<|im_end|>\n"
GIVEN = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n"


def ume(between: str) -> str:
    return f"{SYSTEM}{USER}{between}{READ_OUT}{END}{ASSISTANT}"


def gme(between: str) -> str:
    return f"{SYSTEM}{USER}{between}{END}{ASSISTANT}<|endoftext|>"


def qwen(system: str, between: str) -> str:
    return f"{system}{USER}{between}{END}{ASSISTANT}"


def write_family(folder: Path, family: str) -> Path:
    """Write a tiny folder of that family, with room for as much as it was trained with."""
    name, model_type = NAMES[family]

    def long_enough(config: dict[str, Any]) -> None:
        config["text_config"]["max_position_embeddings"] = 32_768

    tokens = UME_TOKENS if family == "ume-r1" else ()
    write_published(folder / name, model_type=model_type, tokens=tokens, config=long_enough)
    edit_tensors(folder / name / "model.safetensors", strengthen)
    return folder / name


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    return {family: write_family(root, family) for family in NAMES}


# ---------------------------------------------------------------- what they read


def conversation(folder: Path, item: Item, role: Role) -> str:
    """Return what the model is given to read, each run of pads as one of them."""
    _, model = read_checkpoint(folder, description=describe(folder))
    ids = model.backbone.collate([item], role=role).ids[0].tolist()
    spelled: str = model.backbone.tokenizer.decode(ids, skip_special_tokens=False)
    return re.sub(r"(<\|(?:image|video)_pad\|>)+", r"\1", spelled)


@pytest.mark.parametrize(
    ("family", "role", "parts", "expected"),
    [
        ("ume-r1", "query", ["a bus"], ume(f"{IMAGE}a bus")),
        ("ume-r1", "document", [PICTURE], ume(IMAGE)),
        ("ume-r1", "query", ["what?", PICTURE], ume(f"{IMAGE}what?")),
        ("ume-r1", "document", [FILM, "what?"], ume(f"{VIDEO}what?")),
        (
            "vlm2vec-v2",
            "query",
            ["a bus"],
            "Find a document image that matches the given query: a bus",
        ),
        ("vlm2vec-v2", "document", ["a bus"], "a bus"),
        ("vlm2vec-v2", "document", [PICTURE], "<|image_pad|> Represent the given image."),
        (
            "vlm2vec-v2",
            "document",
            [FILM],
            "<|video_pad|> Understand the content of the provided video.",
        ),
        (
            "vlm2vec-v2",
            "document",
            [FILM, PICTURE],
            "<|video_pad|> <|image_pad|> Represent the given image.",
        ),
        ("vlm2vec-v2", "document", ["a bus", PICTURE], "<|image_pad|> a bus"),
        ("vlm2vec-v2", "document", [FILM, "a bus"], "<|video_pad|> a bus"),
        ("gme", "query", ["a bus"], gme("a bus")),
        ("gme", "document", [PICTURE], gme(IMAGE)),
        ("gme", "query", ["what?", PICTURE], gme(f"{IMAGE}what?")),
        ("qwen3-vl-embedding", "query", ["a bus"], qwen(ASKED, "a bus")),
        ("qwen3-vl-embedding", "document", ["a bus"], qwen(GIVEN, "a bus")),
        ("qwen3-vl-embedding", "document", [PICTURE], qwen(GIVEN, IMAGE)),
        ("qwen3-vl-embedding", "query", ["what?", PICTURE], qwen(ASKED, f"{IMAGE}what?")),
        (
            "qwen3-vl-embedding",
            "document",
            ["what?", FILM],
            qwen(GIVEN, f"<0.5 seconds>{VIDEO}<2.5 seconds>{VIDEO}what?"),
        ),
        ("qwen2-vl", "query", ["a", PICTURE, "b"], qwen(SYSTEM, f"a{IMAGE}b")),
        ("qwen2.5-vl", "document", ["a", FILM], qwen(SYSTEM, f"a{VIDEO}")),
        ("qwen3-vl", "document", ["a", PICTURE], qwen("", f"a{IMAGE}")),
    ],
)
def test_the_conversation_is_that_of_the_authors(
    folders: dict[str, Path], family: str, role: str, parts: list[Any], expected: str
) -> None:
    assert conversation(folders[family], Item(parts), Role(role)) == expected


# ---------------------------------------------------------------- the vector they then have


class PublishedModel:
    """transformers' own model of a folder, at batch 1 and in float32."""

    def __init__(self, folder: Path, pixels: PublishedPixels, *, as_words: bool) -> None:
        import transformers

        self.pixels, self.as_words = pixels, as_words
        loaded: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32
        )
        self.model: Any = loaded.eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @torch.no_grad()
    def states(self, text: str, picture: Image | None, written: tuple[int, ...] = ()) -> Tensor:
        """Return hidden states ``[n, D]`` of a conversation and of tokens written after it."""
        fields: dict[str, Any] = {}
        if picture is not None:
            patches, grid = self.pixels.picture(picture.pixels)
            text = text.replace("<|image_pad|>", "<|image_pad|>" * (int(grid.prod()) // 4))
            fields = {"pixel_values": patches, "image_grid_thw": grid}
        ids: Tensor = torch.tensor([[*self.ids(text), *written]])
        types = torch.eq(ids, self.ids("<|image_pad|>")[0]).int()
        positions = torch.arange(ids.shape[1]).expand(3, 1, -1)
        if not self.as_words:
            positions, _ = self.model.model.get_rope_index(
                ids,
                types,
                image_grid_thw=fields.get("image_grid_thw"),
                attention_mask=torch.ones_like(ids),
            )
        states: Tensor = self.model.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            position_ids=positions,
            mm_token_type_ids=types,
            **fields,
        ).last_hidden_state[0]
        return states

    @torch.no_grad()
    def next_token(self, state: Tensor) -> int:
        return int(self.model.lm_head(state).argmax())


SEEN = {  # least and most pixels, whether two resizes, the side of a patch
    "ume-r1": (784, 2_359_296, True, 14),
    "vlm2vec-v2": (4 * 784, 1_280 * 784, False, 14),
    "gme": (256 * 784, 1_280 * 784, True, 14),
    "qwen3-vl-embedding": (4 * 1_024, 1_800 * 1_024, False, 16),
    "qwen2-vl": (4 * 784, 1_280 * 784, False, 14),
    "qwen2.5-vl": (4 * 784, 1_280 * 784, False, 14),
    "qwen3-vl": (64 * 1_024, 1_280 * 1_024, False, 16),
}


@pytest.mark.parametrize("family", SEEN)
def test_pictures_of_every_size_land_on_the_published_grid(
    folders: dict[str, Path], family: str
) -> None:
    least, most, twice, patch = SEEN[family]
    cutter = PublishedPixels(least, most, twice=twice, patch=patch)
    _, model = read_checkpoint(folders[family], description=describe(folders[family]))
    shown = [noise(*shape, 3) for shape in ((13, 20), (97, 61), (600, 900), (1_500, 1_800))]

    batch = model.backbone.collate([Item(Image(one)) for one in shown], role=Role.DOCUMENT)

    assert [list(grid) for grid in batch.grids] == [
        cutter.picture(one)[1][0].tolist() for one in shown
    ]


@pytest.mark.parametrize(
    ("family", "as_words", "around"),
    [
        ("vlm2vec-v2", True, "<|image_pad|> {}"),
        ("gme", True, gme(IMAGE + "{}")),
        ("qwen3-vl-embedding", False, qwen(GIVEN, IMAGE + "{}")),
        ("qwen2-vl", False, qwen(SYSTEM, IMAGE + "{}")),
        ("qwen2.5-vl", False, qwen(SYSTEM, IMAGE + "{}")),
        ("qwen3-vl", False, qwen("", IMAGE + "{}")),
    ],
)
def test_the_vector_is_the_last_state_of_the_published_model(
    folders: dict[str, Path], family: str, as_words: bool, around: str
) -> None:
    """A small picture below every floor, and one that is scaled by hardly anything."""
    least, most, twice, patch = SEEN[family]
    cutter = PublishedPixels(least, most, twice=twice, patch=patch)
    published = PublishedModel(folders[family], cutter, as_words=as_words)
    shown = [Image(noise(20, 33, 3)), Image(noise(300, 270, 3))]
    items = [Item([one, Text("where is this?")]) for one in shown] + [Item("a red bus")]

    ours = load_embedder(folders[family], device="cpu").embed(items)

    texts = [around.format("where is this?")] * 2 + [around.format("a red bus")]
    texts[2] = texts[2].replace(IMAGE, "").replace("<|image_pad|> ", "")
    for vector, text, picture in zip(ours, texts, [*shown, None], strict=True):
        wanted = F.normalize(published.states(text, picture)[-1], dim=0).numpy()
        assert float(np.dot(vector, wanted)) >= 0.999999
        np.testing.assert_allclose(vector, wanted, rtol=0, atol=3e-6)


def test_ume_r1_writes_until_its_readout_token_and_is_read_there(tmp_path: Path) -> None:
    """Where the evaluation looks for the last one it wrote, the first one ends the thought."""
    folder, most = write_family(tmp_path, "ume-r1"), 12

    def eager(tensors: dict[str, Tensor]) -> None:
        gen = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<gen_emb>")
        tensors["model.embed_tokens.weight"][gen] *= -2.5

    edit_tensors(folder / "model.safetensors", eager)
    published = PublishedModel(folder, PublishedPixels(784, 2_359_296, twice=True), as_words=False)
    blank = Image(np.full((28, 28, 3), 255, dtype=np.uint8))
    words = ["a red bus", "two cats", "sales in 2019", "the harbour at night"]
    path, described = model_description(folder)
    assert described.reasoner_config["max_new_tokens"] == 1_024
    config = dict(described.reasoner_config) | {"max_new_tokens": most}
    described = replace(described, reasoner_config=config)

    ours = load_described(path, described, device="cpu", dtype="auto").embed(
        [Item(one) for one in words]
    )

    [gen, *ends] = published.ids("<gen_emb><|im_end|><|endoftext|>")
    lengths = []
    for vector, one in zip(ours, words, strict=True):
        written: tuple[int, ...] = ()
        while gen not in written:
            state = published.states(ume(IMAGE + one), blank, written)[-1]
            token = published.next_token(state) if len(written) < most else gen
            written += (gen if token in ends else token,)
        lengths.append(len(written))
        wanted = F.normalize(published.states(ume(IMAGE + one), blank, written)[-1], dim=0)
        np.testing.assert_allclose(vector, wanted.numpy(), rtol=0, atol=3e-6)
    assert sorted(lengths) == [2, 3, 6, most + 1]  # the longest had it forced
