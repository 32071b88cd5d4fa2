"""What the default backbone makes of items, seen through its seam."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmsearch.retriever.models.backbones.default import DefaultBackbone, network_size
from mmsearch.retriever.models.none import NoneConfig, NoReasoner
from mmsearch.retriever.models.prompts import Prompts
from mmsearch.retriever.models.tiny import CONFIG, LIMITS, letter_tokenizer, random_model
from mmsearch.values import Frames, Image, Item, Role

ROOM = CONFIG.window_tokens - 2


@pytest.fixture(scope="module")
def backbone() -> DefaultBackbone:
    return random_model(seed=0).backbone


def noise(*shape: int, seed: int = 0) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def base(backbone: DefaultBackbone, *items: Item) -> torch.Tensor:
    return backbone.readouts(backbone.collate(items, role=Role.DOCUMENT))["base"]


def test_words_fit_one_window_up_to_its_room(backbone: DefaultBackbone) -> None:
    batch = backbone.collate([Item(["a " * ROOM]), Item(["b"])], role=Role.QUERY)

    assert batch.ids.shape == (2, CONFIG.window_tokens)
    assert batch.ids[0, 0] == batch.ids[1, 0] == backbone.first
    assert batch.ids[0, -1] == batch.ids[1, 2] == backbone.last
    assert batch.mask.sum(dim=1).tolist() == [CONFIG.window_tokens, 3]


@pytest.mark.parametrize(
    ("words", "lengths"),
    [(ROOM + 1, [8, 7]), (2 * ROOM + 2, [10, 10, 10]), (9 * ROOM, [ROOM] * 3)],
)
def test_longer_text_is_cut_into_even_windows_of_a_bounded_number(
    backbone: DefaultBackbone, words: int, lengths: list[int]
) -> None:
    batch = backbone.collate([Item(["a " * words])], role=Role.QUERY)

    assert (batch.mask.sum(dim=1) - 2).tolist() == lengths


def test_words_beyond_the_first_window_count(backbone: DefaultBackbone) -> None:
    opening = "a " * ROOM

    one, other = base(backbone, Item([opening + "b c d"]), Item([opening + "x y z"]))

    assert one @ other < 0.999


def test_the_base_of_words_is_the_mean_of_their_states(backbone: DefaultBackbone) -> None:
    ids = torch.tensor([[backbone.first, 4, 5, backbone.last]])  # "a b"
    states = backbone.text(ids, torch.ones_like(ids, dtype=torch.bool))

    vector = base(backbone, Item(["a b"]))

    torch.testing.assert_close(vector, F.normalize(states.mean(dim=1), dim=-1))


def test_the_base_of_a_mixed_item_is_the_mean_of_its_parts_in_any_order(
    backbone: DefaultBackbone,
) -> None:
    picture = Image(noise(50, 80))

    words, pixels, mixed, reversed_ = base(
        backbone, Item(["abc"]), Item([picture]), Item([picture, "abc"]), Item(["abc", picture])
    )

    torch.testing.assert_close(mixed, F.normalize(words + pixels, dim=0))
    torch.testing.assert_close(mixed, reversed_)


def test_the_base_of_frames_is_the_mean_of_their_own(backbone: DefaultBackbone) -> None:
    clip = noise(3, 40, 60)

    frames = base(backbone, *(Item([Image(frame)]) for frame in clip))
    [vector] = base(backbone, Item([Frames(clip)]))

    torch.testing.assert_close(vector, F.normalize(frames.mean(dim=0), dim=0))


def test_the_base_of_a_picture_mixes_the_names_of_its_likeliest_classes(
    backbone: DefaultBackbone,
) -> None:
    pooled = torch.rand(1, CONFIG.vision.head_width)
    logits = pooled @ backbone.vision.classifier.weight.T + backbone.vision.classifier.bias
    shares = torch.exp(logits[0]) / torch.exp(logits[0]).sum()
    best = sorted(range(len(shares)), key=lambda i: -shares[i].item())[: CONFIG.top_classes]
    mixture = sum((shares[i] * backbone.class_names[i] for i in best), torch.tensor(0.0))

    vector = backbone.class_mixture(pooled)

    torch.testing.assert_close(vector[0], mixture / mixture.norm())


def test_the_decoder_reads_parts_in_order_and_ends_with_the_end_token(
    backbone: DefaultBackbone,
) -> None:
    cells = CONFIG.image_grid**2
    picture = Image(noise(64, 64))
    batch = backbone.collate([Item([picture, "a b"]), Item(["c"])], role=Role.DOCUMENT)
    towers = backbone.towers(batch)

    hidden, cache = backbone.prefill(batch)

    assert hidden.shape == (2, cells + 4 + 1, CONFIG.decoder.width)
    assert cache.mask.sum(dim=1).tolist() == [cells + 4 + 1, 3 + 1]
    row = torch.cat(
        [
            backbone.picture_in(towers.grids[0]),
            backbone.words_in(towers.states[0, :4]),
            backbone.end[None],
        ]
    )
    alone, _ = backbone.decoder.prefill(row[None], torch.ones(1, len(row), dtype=torch.bool))
    torch.testing.assert_close(hidden[:1], alone, atol=1e-5, rtol=0)


def test_a_frame_of_a_film_costs_the_decoder_fewer_tokens_than_a_picture(
    backbone: DefaultBackbone,
) -> None:
    picture, film = Item([Image(noise(64, 64))]), Item([Frames(noise(3, 64, 64))])

    _, cache = backbone.prefill(backbone.collate([film, picture], role=Role.DOCUMENT))

    cells, frame_cells = CONFIG.image_grid**2, CONFIG.frame_grid**2
    assert cache.mask.sum(dim=1).tolist() == [3 * frame_cells + 1, cells + 1]
    assert frame_cells < cells


def test_going_on_after_prefill_works_for_items_of_every_length(
    backbone: DefaultBackbone,
) -> None:
    items = [Item(["a b c d e"]), Item([Frames(noise(2, 40, 40))]), Item(["z"])]
    new = torch.randn(3, 2, CONFIG.decoder.width, generator=torch.Generator().manual_seed(0))

    _, cache = backbone.prefill(backbone.collate(items, role=Role.QUERY))
    together, _ = backbone.extend(new, cache)

    for row, item in enumerate(items):
        _, cache = backbone.prefill(backbone.collate([item], role=Role.QUERY))
        alone, _ = backbone.extend(new[row : row + 1], cache)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=0)


def test_a_tail_in_the_same_pass_equals_going_on_from_the_prompt(
    backbone: DefaultBackbone,
) -> None:
    items = [Item(["a b c d e"]), Item([Frames(noise(2, 40, 40))]), Item(["z"])]
    tail = torch.randn(3, CONFIG.decoder.width, generator=torch.Generator().manual_seed(0))
    batch = backbone.collate(items, role=Role.QUERY)

    hidden, _ = backbone.prefill(batch, tail=tail)

    prompt, cache = backbone.prefill(batch)
    after, _ = backbone.extend(tail.expand(3, -1, -1), cache)
    # Padding is not compared: nobody reads it.
    torch.testing.assert_close(hidden[:, -4:-3], prompt[:, -1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(hidden[:, -3:], after, atol=1e-5, rtol=0)


def test_a_word_is_as_likely_as_its_embedding_points_along_the_state(
    backbone: DefaultBackbone,
) -> None:
    hidden = torch.randn(2, CONFIG.decoder.width, generator=torch.Generator().manual_seed(0))

    logits = backbone.logits(hidden)

    for word in (0, 7, CONFIG.text.vocabulary - 1):
        expected = (hidden * backbone.embed(torch.tensor(word))).sum(dim=-1)
        torch.testing.assert_close(logits[:, word], expected, atol=1e-5, rtol=1e-5)
    assert logits.shape == (2, CONFIG.text.vocabulary)


def test_text_of_the_models_own_becomes_tokens_without_a_frame(backbone: DefaultBackbone) -> None:
    ids = backbone.tokens("a ~")

    assert ids == [backbone.tokenizer.token_to_id("a"), backbone.tokenizer.token_to_id("~")]
    assert backbone.embed(torch.tensor(ids)).shape == (2, backbone.width)


def test_bfloat16_turns_no_vector_by_much() -> None:
    items = [Item(["abc def"]), Item([Image(noise(60, 50)), "xyz"]), Item([Frames(noise(2, 9, 9))])]
    vectors = []
    for dtype in (torch.float32, torch.bfloat16):
        model = random_model(seed=0).to(dtype)
        batch = model.backbone.collate(items, role=Role.QUERY)
        readout = model.reasoner.think(model.backbone, batch, effort=0)["last"]
        vectors.append(model.head(model.backbone.readouts(batch)["base"], readout))

    assert F.cosine_similarity(*vectors).min() >= 0.999
    assert not torch.equal(*vectors)


def test_reasoner_none_reads_the_last_token(backbone: DefaultBackbone) -> None:
    batch = backbone.collate([Item(["a b c"]), Item(["d"])], role=Role.QUERY)
    hidden, _ = backbone.prefill(batch)

    readouts = NoReasoner(NoneConfig(), backbone).think(backbone, batch, effort=0)

    assert list(readouts) == ["last", "disc", "disc_next"]
    torch.testing.assert_close(readouts["disc"], hidden[:, -1])


def test_reasoner_none_refuses_an_effort(backbone: DefaultBackbone) -> None:
    batch = backbone.collate([Item(["a"])], role=Role.QUERY)

    with pytest.raises(ValueError, match="takes no latent steps"):
        NoReasoner(NoneConfig(), backbone).think(backbone, batch, effort=4)


def test_a_prompt_stands_before_the_words_of_its_side() -> None:
    told = DefaultBackbone(CONFIG, letter_tokenizer(), Prompts(query="q"), LIMITS)

    query = told.collate([Item([" a"])], role=Role.QUERY)
    document = told.collate([Item([" a"])], role=Role.DOCUMENT)

    q, a = told.tokenizer.token_to_id("q"), told.tokenizer.token_to_id("a")
    assert query.ids.tolist() == [[told.first, q, a, told.last]]
    assert document.ids.tolist() == [[told.first, a, told.last]]


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (448, 448, (224, 224)),
        (10, 10, (224, 224)),
        (480, 640, (192, 256)),
        (1, 5000, (32, 1568)),
        (5000, 1, (1568, 32)),
    ],
)
def test_a_picture_keeps_its_shape_in_multiples_of_32(
    height: int, width: int, size: tuple[int, int]
) -> None:
    assert network_size(height, width, area=224 * 224) == size


def test_work_is_counted_in_tokens_and_bounded_for_words(backbone: DefaultBackbone) -> None:
    picture, clip = Image(noise(8, 8)), Frames(noise(4, 8, 8))

    short, long = backbone.num_tokens(Item(["a"])), backbone.num_tokens(Item(["a " * 10_000]))

    assert short < 4
    assert long == CONFIG.window_tokens * CONFIG.max_windows
    one = backbone.num_tokens(Item([picture]))
    assert backbone.num_tokens(Item([clip])) == 4 * one
    assert backbone.num_tokens(Item([picture, "a"])) == one + short


def test_a_vocabulary_without_special_tokens_is_refused() -> None:
    tokenizer = letter_tokenizer()
    bare = type(tokenizer)(type(tokenizer.model)({"a": 0}, unk_token="a"))

    with pytest.raises(ValueError, match="no \\[CLS\\]"):
        DefaultBackbone(dataclasses.replace(CONFIG), bare, Prompts(), LIMITS)
