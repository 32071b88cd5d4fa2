"""What is known of the published models, and by what they are recognised.

Read from the authors' own evaluation code and model cards; where they say nothing, what was
chosen is marked so. None of these models was measured by us.

plume                PLUME (arXiv 2604.02073), its evaluation at commit 18db7e4: positions of
                     the latent steps counted on from the number of tokens, two resizes (the
                     first by qwen-vl-utils 0.0.11), a blank picture before text alone. The
                     experts and their number are read from the weights; the number of steps
                     from trainer_state.json where it is there, else 8. The steering context
                     and the best two of the experts are as released.
ume-r1               UME-R1 (arXiv 2511.00405), its README and evaluation: the same template up
                     to the assistant, the thought written out, 784 to 2,359,296 pixels. The
                     prompt is on one line, as in its training data; its demo breaks it into
                     three. Chosen: the first <gen_emb> ends a thought, where its evaluation
                     writes on and takes the last one; a thought without one has it forced,
                     where that takes the last state as it is; thoughts end after 1,024
                     tokens (403 are usual; it allows 8,192).
vlm2vec-v2           VLM2Vec-V2 (arXiv 2507.04590): no conversation at all, and pads without
                     <|vision_start|>, so that every feature takes a position of its own.
                     Chosen: its instructions differ by data set, and ours is that of document
                     retrieval; pictures and films get the commonest of its targets'.
gme                  GME (arXiv 2412.16855), gme_inference.py: features are counted as words
                     too, because its code hands the text model embeddings without ids. Chosen:
                     no instruction (its default) on both sides; films, of which it says
                     nothing, are shown as eight frames.
qwen3-vl-embedding   Qwen3-VL-Embedding (arXiv 2601.04720), qwen3_vl_embedding.py: the
                     instruction is the system's part; what is seen comes before what is said,
                     in whichever order it was given; the last token is read. Chosen: films
                     are taken to have been sampled once a second, as it samples them, and
                     shown as eight frames, where it takes up to 64.
qwen2-vl, qwen2.5-vl, qwen3-vl
                     the bare models, not trained to embed: their own chat format and the pixel
                     floors of their own preprocessing; ceilings and frames are chosen.

A token that a folder's own tokenizer adds to every text (such as a closing one) is added to
the template by hub_layout.py.
"""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmsearch.retriever.models.policy import VisualPolicy
from mmsearch.retriever.models.prompts import ChatFormat, Prompts
from mmsearch.retriever.seams import Calibration

# Not measured: between the cosines that these models' cards print for wrong pairs (0.2 to
# 0.4) and for right ones (0.5 to 0.7), with a slope that tells those apart.
UNMEASURED = Calibration(midpoint=0.45, slope=12.0)

SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
USER, END = "<|im_start|>user\n", "<|im_end|>\n"
ASSISTANT = "<|im_start|>assistant\n"
READ_OUT = (
    "Represent the above input text, images, videos, or any combination of the three as "
    "embeddings. First output the thinking process in <think> </think> tags and then "
    "summarize the entire input in a word or sentence. Finally, use the <gen_emb> tag to "
    "represent the entire input."
)
ANCHORED = f"{SYSTEM}{USER}{{visuals}}{{prompt}}{{text}}\n<disc_emb>\n{READ_OUT}{END}{ASSISTANT}"
INSTRUCTED = f"<|im_start|>system\n{{prompt}}{END}{USER}"
QWEN2_TYPES = ("qwen2_vl", "qwen2_5_vl")
PADS = ("<|image_pad|>", "<|video_pad|>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Everything that a published folder does not say of itself.

    title:       for people
    model_types: of ``config.json``, on which it is known to stand
    named:       a regular expression of its names, in small letters; empty for none
    tokens:      what its tokenizer has to know
    The rest is as in `ModelDescription` and in QwenConfig.
    """

    title: str
    model_types: tuple[str, ...]
    named: str = ""
    tokens: tuple[str, ...] = PADS
    chat: ChatFormat = field(default_factory=ChatFormat)
    prompts: Prompts = field(default_factory=Prompts)
    policy: VisualPolicy
    max_pixels: int
    max_frames: int = 8
    max_tokens: int = 8_192
    position_mode: str = "contiguous"
    reasoner: str = "none"
    reasoner_config: Mapping[str, Any] = field(default_factory=dict)
    effort: int = 0
    readout: str = "last"


# qwen-vl-utils sizes a picture first, with a floor of four tokens, then the processor again.
TWICE = VisualPolicy(min_pixels=28 * 28, first_min_pixels=56 * 56, blank_image=True)
# qwen-vl-utils gives a frame 128 to 768 tokens before two frames share them.
BARE_QWEN2 = VisualPolicy(
    min_pixels=4 * 28 * 28, frame_min_pixels=128 * 28 * 28, frame_max_pixels=768 * 28 * 28
)
BARE_QWEN3 = VisualPolicy(
    min_pixels=64 * 32 * 32, frame_min_pixels=128 * 32 * 32, frame_max_pixels=768 * 32 * 32
)

FAMILIES: Mapping[str, Family] = {
    "plume": Family(
        title="PLUME",
        model_types=QWEN2_TYPES,
        named=r"plume",
        tokens=(*PADS, "<gen_emb>", "<disc_emb>", "<bot>", "<eot>"),
        chat=ChatFormat(template=ANCHORED + "<think><bot>", anchor="<disc_emb>"),
        policy=TWICE,
        max_pixels=1_536 * 1_536,
        max_tokens=12_288,
        position_mode="cache_length",
        reasoner="rollout",
        reasoner_config={
            "steps": 8,
            "suffix": "<eot></think>\n<gen_emb>",
            "context": "disc",
            "adapter": {"num_experts": 4, "top_k": 2, "dropout": 0.0},
        },
        effort=8,
        readout="gen",
    ),
    "ume-r1": Family(
        title="UME-R1",
        model_types=QWEN2_TYPES,
        named=r"ume[-_]?r1",
        tokens=(*PADS, "<gen_emb>", "<disc_emb>"),
        chat=ChatFormat(template=ANCHORED, anchor="<disc_emb>"),
        policy=TWICE,
        max_pixels=1_536 * 1_536,
        max_tokens=12_288,
        reasoner="cot",
        reasoner_config={
            "max_new_tokens": 1_024,
            "gen": "<gen_emb>",
            "ends": ["<|im_end|>", "<|endoftext|>"],
        },
        readout="gen",
    ),
    "vlm2vec-v2": Family(
        title="VLM2Vec-V2",
        model_types=QWEN2_TYPES,
        named=r"vlm2vec",
        chat=ChatFormat(
            template="{visuals}{prompt}{text}",
            image="<|image_pad|> ",
            video="<|video_pad|> ",
            wordless="Represent the given image.",
            wordless_film="Understand the content of the provided video.",
            visual_positions=False,
        ),
        prompts=Prompts(query="Find a document image that matches the given query: "),
        policy=VisualPolicy(min_pixels=4 * 28 * 28),
        max_pixels=1_280 * 28 * 28,
    ),
    "gme": Family(
        title="GME",
        model_types=("qwen2_vl",),
        named=r"(?<![a-z])gme(?![a-z])|gmeqwen",
        chat=ChatFormat(
            template=f"{INSTRUCTED}{{visuals}}{{text}}{END}{ASSISTANT}<|endoftext|>",
            visual_positions=False,
        ),
        prompts=Prompts("You are a helpful assistant.", "You are a helpful assistant."),
        policy=VisualPolicy(min_pixels=256 * 28 * 28, first_min_pixels=4 * 28 * 28),
        max_pixels=1_280 * 28 * 28,
        max_tokens=1_800,
    ),
    "qwen3-vl-embedding": Family(
        title="Qwen3-VL-Embedding",
        model_types=("qwen3_vl",),
        named=r"qwen3[-_]?vl[-_]?embed|qwen3vlforembedding",
        chat=ChatFormat(template=f"{INSTRUCTED}{{visuals}}{{text}}{END}{ASSISTANT}"),
        prompts=Prompts(
            "Retrieve images or text relevant to the user's query.", "Represent the user's input."
        ),
        policy=replace(BARE_QWEN3, min_pixels=4 * 32 * 32, frame_rate=1.0),
        max_pixels=1_800 * 32 * 32,
    ),
    "qwen2-vl": Family(
        title="Qwen2-VL",
        model_types=("qwen2_vl",),
        policy=BARE_QWEN2,
        max_pixels=1_280 * 28 * 28,
    ),
    "qwen2.5-vl": Family(
        title="Qwen2.5-VL",
        model_types=("qwen2_5_vl",),
        policy=BARE_QWEN2,
        max_pixels=1_280 * 28 * 28,
    ),
    "qwen3-vl": Family(
        title="Qwen3-VL",
        model_types=("qwen3_vl",),
        chat=ChatFormat(template=f"{USER}{{prompt}}{{parts}}{END}{ASSISTANT}"),
        policy=BARE_QWEN3,
        max_pixels=1_280 * 32 * 32,
    ),
}
BARE = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl", "qwen3_vl": "qwen3-vl"}
SENTENCE_TRANSFORMERS_FILES = ("modules.json", "config_sentence_transformers.json")
_COMMIT = re.compile(r"\.?[0-9a-f]{40}(?:\.part)?")


def recognise(
    folder: Path,
    config: Mapping[str, Any],
    *,
    has_adapter: bool,
    tokens: Container[str],
    name: str,
) -> tuple[str, str]:
    """Return the family of a published folder, and by what it was taken for it.

    The first of these decides: PLUME's adapter among the tensors; the readout tokens of the
    tokenizer; the names of its code; the files of sentence-transformers; the name in
    config.json; the name it was published under. A folder that nothing gives away is taken
    for the bare model of its ``model_type``, which has to be one of BARE.
    """
    model_type = config["model_type"]
    if has_adapter:
        return "plume", "taken for it by its adapter"
    if all(token in tokens for token in ("<bot>", "<eot>", "<ct>")):
        return "plume", "taken for it by its tokens <bot>, <eot> and <ct>"
    if all(token in tokens for token in ("<gen_emb>", "<disc_emb>")):
        return "ume-r1", "taken for it by its tokens <gen_emb> and <disc_emb>"
    code = json.dumps([config.get("auto_map"), config.get("architectures")])
    if family := _named(code, model_type):
        return family, "taken for it by the names of its code"
    has_files = any((folder / file).is_file() for file in SENTENCE_TRANSFORMERS_FILES)
    if has_files and model_type == "qwen3_vl":
        return "qwen3-vl-embedding", "taken for it by the files of sentence-transformers"
    written_as = str(config.get("_name_or_path", "")).rpartition("/")[2]
    if family := _named(written_as, model_type):
        return family, f"taken for it by the name {written_as} in its config.json"
    if family := _named(name, model_type):
        return family, f"taken for it by its name, {name}"
    return BARE[model_type], "taken for the bare model, as nothing says otherwise"


def _named(said: str, model_type: str) -> str | None:
    """Return the first family that stands on ``model_type`` and is named in ``said``."""
    for name, family in FAMILIES.items():
        is_meant = family.named and re.search(family.named, said.lower())
        if is_meant and model_type in family.model_types:
            return name
    return None


def published_name(folder: Path) -> str:
    """Return the name of a folder, or that of the repository whose revision it is."""
    folder = folder.absolute()
    if _COMMIT.fullmatch(folder.name):
        folder = folder.parent
        if folder.name == "snapshots":
            folder = folder.parent
    return folder.name.removeprefix("models--").replace("--", "/")
