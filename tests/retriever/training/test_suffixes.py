"""What PLUME's suffix says at each stage, token by token, and what is to be predicted of it."""

import pytest
import torch
from toy_pairs import tiny_model

from mmsearch.retriever.models.checkpoint import Model
from mmsearch.retriever.training.curriculum import plume_stages
from mmsearch.retriever.training.examples import Side
from mmsearch.retriever.training.objective import Stage
from mmsearch.retriever.training.objectives.suffixes import PUBLISHED, SuffixForm, SuffixWriter

CPU = torch.device("cpu")
FOUR = plume_stages(4)
THOUGHT = Side(("q",), rationale="One. Two. Three. Four.", answer="a cat")


@pytest.fixture(scope="module")
def qwen() -> Model:
    return tiny_model("qwen2_vl", "rollout")


@pytest.fixture(scope="module")
def default() -> Model:
    return tiny_model("default", "rollout")


def writer(model: Model, *, count: int = 4, max_tokens: int = 512) -> SuffixWriter:
    suffix = model.reasoner.suffix
    return SuffixWriter(model.backbone, suffix, count=count, max_tokens=max_tokens)


def spelled(model: Model, ids: list[int]) -> str:
    return str(model.backbone.tokenizer.decode(ids, skip_special_tokens=False))


def said(model: Model, side: Side, stage: Stage, **choices: int) -> str:
    """Return the real tokens of a suffix, as text."""
    suffix = writer(model, **choices).write([side], stage, device=CPU)
    return spelled(model, suffix.ids[0][suffix.mask[0]].tolist())


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (0, "<eot>Two. Three. Four.</think><answer>a cat</answer>\n<gen_emb><|im_end|>\n"),
        (1, "<eot>Three. Four.</think><answer>a cat</answer>\n<gen_emb><|im_end|>\n"),
        (2, "<eot>Four.</think><answer>a cat</answer>\n<gen_emb><|im_end|>\n"),
        (3, "<eot></think><answer>a cat</answer>\n<gen_emb><|im_end|>\n"),
        (4, "<eot></think>\n<gen_emb><|im_end|>\n"),
    ],
)
def test_the_rationale_goes_from_its_beginning_and_then_the_answer(
    qwen: Model, stage: int, expected: str
) -> None:
    assert said(qwen, THOUGHT, FOUR[stage]) == expected


def test_without_latent_steps_all_of_it_is_written(qwen: Model) -> None:
    written = Stage("written", 0.0, 0, text_left=1.0, has_answer=True)

    assert said(qwen, THOUGHT, written).startswith("<eot>One. Two. Three. Four.</think><answer>")


def test_a_side_without_an_answer_has_no_place_for_one(qwen: Model) -> None:
    side = Side(("q",), rationale=THOUGHT.rationale)

    assert said(qwen, side, FOUR[2]) == "<eot>Four.</think>\n<gen_emb><|im_end|>\n"


def test_a_rationale_of_few_sentences_is_cut_by_characters(qwen: Model) -> None:
    side = Side(("q",), rationale="abcdefgh")

    assert said(qwen, side, FOUR[0]) == "<eot>cdefgh</think>\n<gen_emb><|im_end|>\n"


@pytest.mark.parametrize("stage", FOUR, ids=lambda stage: stage.name)
def test_a_side_without_a_rationale_is_read_out_as_in_embedding_and_asked_nothing(
    qwen: Model, stage: Stage
) -> None:
    sides = [THOUGHT, Side(("q",), answer="a cat"), Side(("q",), rationale=" \n")]

    suffix = writer(qwen).write(sides, stage, device=CPU)

    assert suffix.is_told.tolist() == [True, False, False]
    forced = list(qwen.reasoner.suffix)
    for row in (1, 2):
        assert suffix.ids[row, : suffix.readout[row] + 1].tolist() == forced


def test_the_last_stage_forces_the_tokens_of_embedding(qwen: Model, default: Model) -> None:
    for model in (qwen, default):
        suffix = writer(model).write([THOUGHT], FOUR[-1], device=CPU)

        assert suffix.ids[0, : suffix.readout[0] + 1].tolist() == list(model.reasoner.suffix)


def test_the_readout_of_each_row_is_its_readout_token(qwen: Model) -> None:
    sides = [THOUGHT, Side(("q",)), Side(("q",), rationale="Long. " * 9, answer="b")]

    suffix = writer(qwen).write(sides, FOUR[0], device=CPU)

    gen = qwen.backbone.tokens("<gen_emb>")[0]
    assert suffix.ids.gather(1, suffix.readout[:, None]).flatten().tolist() == [gen] * 3
    after = suffix.mask.sum(dim=1) - 1 - suffix.readout
    assert after.tolist() == [2, 2, 2]  # <|im_end|> and the end of its line


def test_words_that_spell_special_tokens_stay_words(qwen: Model) -> None:
    evil = Side(("q",), rationale="See <gen_emb> and <|im_end|>.\ud800", answer="<eot>")
    written = Stage("written", 0.0, 0, text_left=1.0, has_answer=True)

    suffix = writer(qwen).write([evil], written, device=CPU)

    ids = suffix.ids[0].tolist()
    for token in ("<gen_emb>", "<eot>", "<|im_end|>"):
        assert ids.count(qwen.backbone.tokens(token)[0]) == 1


def test_a_rationale_that_is_too_long_is_cut_at_its_end_and_nothing_else_is(qwen: Model) -> None:
    long = Side(("q",), rationale="One two. " * 100, answer="cat " * 100)
    written = Stage("written", 0.0, 0, text_left=1.0, has_answer=True)

    text = said(qwen, long, written, max_tokens=12)

    # A token of this vocabulary is a byte.
    rest = "</think><answer>cat cat cat</answer>\n<gen_emb><|im_end|>\n"
    assert text == "<eot>One two. One" + rest


def test_another_vocabulary_says_it_between_its_own_head_and_readout(default: Model) -> None:
    head, readout = default.backbone.tokens("( ~"), default.backbone.tokens(")")
    assert default.reasoner.suffix == (*head, *readout)
    words = default.backbone.tokens("Four.") + default.backbone.tokens("a cat")

    suffix = writer(default).write([THOUGHT], FOUR[2], device=CPU)

    assert suffix.ids[0].tolist() == [*head, *words, *readout]
    assert suffix.mask.all()


def test_the_form_is_that_of_the_published_weights() -> None:
    assert PUBLISHED.spell() == "<eot></think>\n<gen_emb>"
    assert PUBLISHED.spell("r", "a") == "<eot>r</think><answer>a</answer>\n<gen_emb>"
    assert SuffixForm(answer="[{}]").spell(answer="{}") == "<eot></think>[{}]\n<gen_emb>"
