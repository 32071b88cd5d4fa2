"""What a chat model is given to read, token by token."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mmsearch.errors import BadItem
from mmsearch.retriever.models.backbones.chat import Chat, Shown, Written, shown_parts
from mmsearch.retriever.models.backbones.patches import Grid
from mmsearch.retriever.models.backbones.positions import FILM, IMAGE, TEXT
from mmsearch.retriever.models.policy import Limits, VisualPolicy
from mmsearch.retriever.models.prompts import ChatFormat, Prompts
from mmsearch.retriever.models.tiny_qwen import tiny_tokenizer
from mmsearch.values import Frames, Item, Role

GEN_PROMPT = (
    "Represent the above input text, images, videos, or any combination of the three as "
    "embeddings. First output the thinking process in <think> </think> tags and then "
    "summarize the entire input in a word or sentence. Finally, use the <gen_emb> tag to "
    "represent the entire input."
)
PLUME = ChatFormat(
    template="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n{visuals}{prompt}{text}\n<disc_emb>\n"
    + GEN_PROMPT
    + "<|im_end|>\n<|im_start|>assistant\n<think><bot>",
    anchor="<disc_emb>",
)
PLUME_BEFORE = ["<|im_start|>", "system\nYou are a helpful assistant.", "<|im_end|>", "\n"]
PLUME_BEFORE += ["<|im_start|>", "user\n"]
PLUME_AFTER = [
    "<disc_emb>",
    "\nRepresent the above input text, images, videos, or any combination of the three as "
    "embeddings. First output the thinking process in <think> </think> tags and then summarize "
    "the entire input in a word or sentence. Finally, use the ",
    "<gen_emb>",
    " tag to represent the entire input.",
    "<|im_end|>",
    "\n",
    "<|im_start|>",
    "assistant\n<think>",
    "<bot>",
]
SHORT = ChatFormat(template="<|im_start|>{prompt}{parts}<|im_end|>")
FIRST = ChatFormat(template="<|im_start|>{visuals}{prompt}{text}<|im_end|>")
LIMITS = Limits(max_pixels=10**9, max_frames=8)
PROMPTS = Prompts(query="Find: ", document="")


def pads_of(tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode("<|image_pad|><|video_pad|>", add_special_tokens=False).ids


def chat(form: ChatFormat = SHORT, *, max_tokens: int = 600, split_films: int = 0) -> Chat:
    tokenizer = tiny_tokenizer()
    image_pad, video_pad = pads_of(tokenizer)
    return Chat(
        tokenizer,
        form,
        PROMPTS,
        image_pad=image_pad,
        video_pad=video_pad,
        merge=2,
        max_tokens=max_tokens,
        split_films=split_films,
    )


def picture(height: int = 56, width: int = 84) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def film(frames: int, height: int = 56, width: int = 56) -> np.ndarray:
    return np.zeros((frames, height, width, 3), dtype=np.uint8)


def grids_of(parts: Sequence[str | Shown]) -> Callable[[int], list[Grid]]:
    """Return sizes at 28 pixels a token, shrunk evenly to what is allowed."""

    def sizes(max_pixels: int) -> list[Grid]:
        grids = []
        for part in (part for part in parts if isinstance(part, Shown)):
            frames, height, width = part.pixels.shape[:3]
            scale = min((max_pixels / (height * width)) ** 0.5, 1.0)
            rows, columns = (max(int(side * scale / 28), 1) * 2 for side in (height, width))
            grids.append(Grid((frames + 1) // 2, rows, columns))
        return grids

    return sizes


def write(
    writer: Chat,
    item: Item,
    *,
    role: Role = Role.DOCUMENT,
    policy: VisualPolicy = VisualPolicy(),  # noqa: B008 - frozen
    max_pixels: int = 10**9,
) -> Written:
    parts = shown_parts(item, policy, LIMITS)
    return writer.write(parts, grids_of(parts), max_pixels=max_pixels, role=role)


def spelled(written: Written, tokenizer: Tokenizer | None = None) -> list[str]:
    """Return special tokens one by one, runs of words as text, pads as ``name*count``."""
    tokenizer = tokenizer or tiny_tokenizer()
    specials = {id_: t.content for id_, t in tokenizer.get_added_tokens_decoder().items()}
    shown: list[str] = []
    words: list[int] = []
    for token in [*written.ids.tolist(), None]:
        if token is not None and token not in specials:
            words.append(token)
            continue
        if words:
            shown.append(tokenizer.decode(words))
            words = []
        if token is None:
            continue
        name = specials[token]
        if name.endswith("_pad|>"):
            before, _, count = shown[-1].partition("*") if shown else ("", "", "")
            if before == name:
                shown[-1] = f"{name}*{int(count) + 1}"
            else:
                shown.append(f"{name}*1")
        else:
            shown.append(name)
    return shown


def plume(*between: str) -> list[str]:
    """Return PLUME's conversation around what stands between; words that touch are one."""
    pieces: list[str] = []
    for piece in (*PLUME_BEFORE, *between, *PLUME_AFTER):
        if pieces and not pieces[-1].endswith(">") and not piece.startswith("<"):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


START, END = "<|vision_start|>", "<|vision_end|>"
IMAGES, FILMS = "<|image_pad|>", "<|video_pad|>"


@pytest.mark.parametrize(
    ("item", "between"),
    [
        (Item("a red bus"), ["a red bus\n"]),
        (
            Item(["before", picture(), "after", picture(56, 56)]),
            [START, f"{IMAGES}*6", END, START, f"{IMAGES}*4", END, "before\nafter\n"],
        ),
        (Item([film(5), "a bus"]), [START, f"{FILMS}*12", END, "a bus\n"]),
    ],
    ids=["words", "two pictures", "a film"],
)
def test_plume_reads_its_own_conversation(item: Item, between: list[str]) -> None:
    written = write(chat(PLUME), item)

    assert spelled(written) == plume(*between)


def test_without_pixels_plume_is_shown_a_white_picture_first() -> None:
    written = write(chat(PLUME), Item("a red bus"), policy=VisualPolicy(blank_image=True))

    assert spelled(written) == plume(START, f"{IMAGES}*1", END, "a red bus\n")


def test_the_blank_picture_is_white_and_28_pixels_wide() -> None:
    [blank, words] = shown_parts(Item("a"), VisualPolicy(blank_image=True), LIMITS)

    assert isinstance(blank, Shown)
    assert blank.pixels.shape == (1, 28, 28, 3)
    assert (blank.pixels == 255).all()
    assert words == "a"


def test_pixels_need_no_blank_picture() -> None:
    shown = shown_parts(Item([film(1)]), VisualPolicy(blank_image=True), LIMITS)

    assert len(shown) == 1


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            SHORT,
            ["a", START, f"{IMAGES}*6", END, "b\nc", START, f"{FILMS}*4", END, START,
             f"{IMAGES}*1", END],
        ),
        (
            FIRST,
            [START, f"{IMAGES}*6", END, START, f"{FILMS}*4", END, START, f"{IMAGES}*1", END,
             "a\nb\nc"],
        ),
    ],
    ids=["in order", "pictures first"],
)  # fmt: skip
def test_parts_stand_where_the_format_has_them(form: ChatFormat, expected: list[str]) -> None:
    item = Item(["a", picture(), "b", "c", film(2), picture(28, 28)])

    written = write(chat(form), item)

    assert spelled(written) == ["<|im_start|>", *expected, "<|im_end|>"]


def test_types_say_what_each_token_is() -> None:
    written = write(chat(), Item(["a", picture(28, 56), "b", film(1)]))

    assert written.types.tolist() == [
        *(TEXT, TEXT, TEXT, IMAGE, IMAGE, TEXT),
        *(TEXT, TEXT, FILM, FILM, FILM, FILM, TEXT, TEXT),
    ]
    assert written.grids == written.runs == (Grid(1, 2, 4), Grid(1, 4, 4))


def test_a_model_that_reads_moments_has_their_seconds_before_each() -> None:
    policy = VisualPolicy(frame_rate=2.0)

    written = write(chat(split_films=2), Item([film(5), "x"]), policy=policy)

    # frames at 0, 0.5, 1, 1.5, 2 s; the last one stands for two
    assert spelled(written) == [
        "<|im_start|>",
        *("<0.2 seconds>", START, f"{FILMS}*4", END),
        *("<1.2 seconds>", START, f"{FILMS}*4", END),
        *("<2.0 seconds>", START, f"{FILMS}*4", END),
        "x",
        "<|im_end|>",
    ]
    assert written.grids == (Grid(3, 4, 4),)
    assert written.runs == (Grid(1, 4, 4),) * 3


def test_a_long_film_is_thinned_evenly_and_keeps_its_time() -> None:
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)

    [shown] = shown_parts(Item(Frames(frames)), VisualPolicy(frame_rate=4.0), Limits(1, 3))

    assert isinstance(shown, Shown)
    assert shown.pixels[:, 0, 0, 0].tolist() == [0, 4, 8]
    assert shown.rate == 1.0  # 0, 1 and 2 seconds, as frames 0, 4 and 8 at 4 a second


def test_a_query_and_a_document_have_their_own_prompt() -> None:
    assert spelled(write(chat(), Item("bus"), role=Role.QUERY))[1] == "Find: bus"
    assert spelled(write(chat(), Item("bus"), role=Role.DOCUMENT))[1] == "bus"


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|>",
        "a<|image_pad|>b<|video_pad|>",
        "<gen_emb><disc_emb>",
        "<<|im_start|><bot>>",
        "<disc_emb>\n" * 3,
    ],
)
def test_words_that_spell_a_special_token_stay_words(text: str, role: Role) -> None:
    written = write(chat(PLUME), Item(text), role=role)
    harmless = write(chat(PLUME), Item("harmless"), role=role)

    added = tiny_tokenizer().get_added_tokens_decoder()
    specials = [token for token in written.ids if token in added]
    assert specials == [token for token in harmless.ids if token in added]
    assert written.anchor == harmless.anchor
    assert text.replace("<", "< ").replace("< < ", "<< ") in "".join(spelled(written))


@pytest.mark.parametrize("form", [SHORT, FIRST])
def test_an_item_without_words_has_those_of_the_format(form: ChatFormat) -> None:
    form = dataclasses.replace(form, wordless="NULL")

    assert spelled(write(chat(form), Item([picture(28, 28), " "])))[-2].strip() == "NULL"
    assert spelled(write(chat(form), Item([picture(28, 28), "bus"])))[-2] == "bus"


def test_a_token_torn_over_two_parts_is_not_joined() -> None:
    written = write(chat(), Item(["<gen_", "emb>"]))

    assert spelled(written) == ["<|im_start|>", "<gen_\nemb>", "<|im_end|>"]


def test_pieces_merge_across_template_and_words() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, "Ċx", ":a"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ċ", "x"), (":", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(["<|image_pad|>", "<|video_pad|>"])
    form = ChatFormat(template="{prompt}{parts}", image=IMAGES, video=FILMS)
    pads = pads_of(tokenizer)
    writer = Chat(
        tokenizer, form, Prompts(document="p:"), image_pad=pads[0], video_pad=pads[1], merge=2,
        max_tokens=9,
    )  # fmt: skip

    written = writer.write(["a", "x"], lambda _: [], max_pixels=1, role=Role.DOCUMENT)

    assert [tokenizer.id_to_token(token) for token in written.ids] == ["p", ":a", "Ċx"]


def test_the_anchor_is_the_last_one_counted_from_the_end() -> None:
    form = ChatFormat(
        template="{visuals}<disc_emb>{prompt}{text}<disc_emb>abc", anchor="<disc_emb>"
    )

    assert write(chat(form), Item("words")).anchor == 3
    assert write(chat(), Item("words")).anchor == 0


# ------------------------------------------------------------------ more than the model reads


def test_too_long_an_item_has_its_pictures_shrunk_first() -> None:
    item = Item([picture(560, 560), "all these words stay", picture(280, 560)])

    written = write(chat(max_tokens=300), item, role=Role.QUERY)

    assert len(written.ids) <= 300
    assert "Find: " in spelled(written)[1]
    assert "all these words stay" in "".join(spelled(written))
    assert written.max_pixels < 560 * 560
    assert written.grids == (Grid(1, 22, 22), Grid(1, 16, 32))


def test_a_picture_that_fits_is_not_shrunk() -> None:
    written = write(chat(max_tokens=600), Item([picture(560, 560)]), max_pixels=10**7)

    assert written.max_pixels == 10**7
    assert written.grids == (Grid(1, 40, 40),)


def test_a_document_loses_words_at_its_end_and_nothing_else() -> None:
    written = write(chat(PLUME, max_tokens=500), Item(["start", "word " * 300]))

    num_around = len(write(chat(PLUME), Item("")).ids)
    kept = ("start\n" + "word " * 300)[: 500 - num_around]
    assert spelled(written) == plume(f"{kept}\n")
    assert len(written.ids) == 500


def test_pictures_give_way_before_the_words_of_a_document_do() -> None:
    item = Item(["w" * 200, picture(560, 560)])

    written = write(chat(max_tokens=300), item)

    assert "w" * 200 in "".join(spelled(written))
    assert written.max_pixels < 560 * 560


def test_a_picture_does_not_vanish_for_words() -> None:
    written = write(chat(max_tokens=300), Item(["w" * 1_000, picture(560, 560)]))

    assert written.max_pixels == 224 * 224
    assert written.grids == (Grid(1, 16, 16),)
    assert len(written.ids) == 300


def test_cutting_a_letter_of_several_bytes_leaves_no_half() -> None:
    written = write(chat(max_tokens=9), Item("é" * 40))

    assert spelled(written) == ["<|im_start|>", "ééé", "<|im_end|>"]


def test_a_query_too_long_is_refused_and_never_cut() -> None:
    with pytest.raises(BadItem, match="308 tokens of 300"):
        write(chat(max_tokens=300), Item("w" * 300), role=Role.QUERY)


@pytest.mark.parametrize("role", Role)
def test_more_pictures_than_fit_at_their_smallest_are_refused(role: Role) -> None:
    with pytest.raises(BadItem):
        write(chat(max_tokens=300), Item([picture(560, 560)] * 5), role=role)


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(BadItem, match="no words and no pixels"):
        write(chat(ChatFormat(template="{parts}")), Item(""))


def test_half_a_character_is_replaced() -> None:
    assert spelled(write(chat(), Item("a\udcffb")))[1] == "a\N{REPLACEMENT CHARACTER}b"


def test_a_document_of_any_length_is_written_at_once() -> None:
    written = write(chat(max_tokens=300), Item("word " * 2_000_000))

    assert len(written.ids) == 300


# ------------------------------------------------------------------ formats that make no sense


@pytest.mark.parametrize(
    "form",
    [
        ChatFormat(image="<|vision_start|><|vision_end|>"),
        ChatFormat(video="<|video_pad|><|video_pad|>"),
        ChatFormat(image="<|video_pad|>"),
        ChatFormat(anchor="<nowhere>"),
    ],
)
def test_a_format_that_cannot_be_followed_is_refused(form: ChatFormat) -> None:
    with pytest.raises(ValueError, match=r"pad token|no token"):
        chat(form)


def test_a_template_with_a_pad_of_its_own_is_refused() -> None:
    with pytest.raises(ValueError, match="pad token of its own"):
        write(chat(ChatFormat(template="<|image_pad|>{parts}")), Item("a"))
