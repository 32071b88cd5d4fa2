"""Every backbone with every way of thinking: none of them knows the other."""

import functools
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from plain_plume import plain_rollout
from toy_graphs import TracingRecorder
from toy_thinking import mixed_items

from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.models import tiny, tiny_qwen
from mmsearch.retriever.models.backbones.graphs import StepGraphs
from mmsearch.retriever.models.checkpoint import REASONERS, Model, read_checkpoint, write_checkpoint
from mmsearch.retriever.models.cot import Cot, CotConfig
from mmsearch.retriever.models.description import ModelDescription, ModelSettings
from mmsearch.values import Image, Item, Role

FAMILIES = ("default", *tiny_qwen.FAMILIES)
ITEMS = [*mixed_items(), Item(["a longer text, " * 12])]

every_pair = pytest.mark.parametrize(
    ("family", "reasoner"), [(family, reasoner) for family in FAMILIES for reasoner in REASONERS]
)
every_family = pytest.mark.parametrize("family", FAMILIES)


@functools.cache
def made(family: str, reasoner: str) -> tuple[ModelDescription, Model]:
    """Return a tiny random model and its description."""
    if family == "default":
        return tiny.tiny_description(reasoner=reasoner), tiny.random_model(reasoner=reasoner)
    description = tiny_qwen.tiny_description(family, reasoner=reasoner)
    return description, tiny_qwen.random_qwen(description)


@functools.cache
def vectors_of(family: str, reasoner: str) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Return the vectors of all items, embedded in one batch."""
    return LatentEmbedder(*made(family, reasoner), batch_tokens=1_000_000).embed(ITEMS)


@every_pair
def test_mixed_items_become_unit_vectors_of_the_described_width(family: str, reasoner: str) -> None:
    description, _ = made(family, reasoner)

    vectors = vectors_of(family, reasoner)

    assert vectors.shape == (len(ITEMS), description.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    alike = vectors @ vectors.T - 2 * np.eye(len(ITEMS))
    assert alike.max() < 0.9999  # no two of them are the same


@every_pair
def test_an_item_alone_has_the_vector_it_has_in_a_batch(family: str, reasoner: str) -> None:
    embedder = LatentEmbedder(*made(family, reasoner))

    alone = np.concatenate([embedder.embed([item]) for item in ITEMS])

    together = vectors_of(family, reasoner)
    assert (alone.astype(float) * together).sum(axis=1).min() >= 0.999999
    np.testing.assert_allclose(alone, together, atol=1e-4)


@every_pair
def test_a_folder_gives_back_the_same_vectors_to_the_bit(
    tmp_path: Path, family: str, reasoner: str
) -> None:
    description, model = made(family, reasoner)
    written = write_checkpoint(tmp_path, model, description)

    described, read = read_checkpoint(tmp_path)

    assert described.space == written.space
    again = LatentEmbedder(described, read, batch_tokens=1_000_000).embed(ITEMS)
    np.testing.assert_array_equal(again, vectors_of(family, reasoner))


@every_family
def test_ways_of_thinking_differ(family: str) -> None:
    first = np.stack([vectors_of(family, reasoner)[0] for reasoner in REASONERS])

    assert (first @ first.T - 2 * np.eye(len(first))).max() < 0.9999


@every_family
def test_every_latent_step_turns_the_vector(family: str) -> None:
    description, model = made(family, "rollout")
    told = [description.with_settings(ModelSettings(effort=effort)) for effort in (0, 1, 2, 3, 4)]

    by_effort = np.concatenate([LatentEmbedder(one, model).embed(ITEMS[:1]) for one in told])

    assert (by_effort @ by_effort.T - 2 * np.eye(5)).max() < 0.999999


@every_family
@pytest.mark.parametrize("effort", [0, 3])
def test_the_rollout_equals_a_recomputation_without_a_cache(family: str, effort: int) -> None:
    _, model = made(family, "rollout")
    backbone, reasoner = model.backbone, model.reasoner

    with torch.inference_mode():
        batch = backbone.collate(ITEMS, role=Role.QUERY)
        gen = reasoner.think(backbone, batch, effort=effort)["gen"]
        expected = [
            plain_rollout(backbone, reasoner, backbone.collate([item], role=Role.QUERY), effort)
            for item in ITEMS
        ]

    torch.testing.assert_close(gen, torch.stack(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", tiny_qwen.FAMILIES)
def test_recorded_latent_steps_compute_what_called_ones_do(family: str) -> None:
    recorder = TracingRecorder()  # replays a list of operations, as a CUDA graph does
    recorded = tiny_qwen.random_qwen(tiny_qwen.tiny_description(family, reasoner="rollout"))
    recorded.backbone.text_half.graphs = StepGraphs(recorder)
    _, called = made(family, "rollout")
    batches = [ITEMS[:3], ITEMS[:3], ITEMS[2:5], ITEMS[:2], ITEMS[1:4]]

    with torch.inference_mode():
        for items in batches:
            batch = called.backbone.collate(items, role=Role.QUERY)
            gen = recorded.reasoner.think(recorded.backbone, batch, effort=2)["gen"]
            expected = called.reasoner.think(called.backbone, batch, effort=2)["gen"]
            torch.testing.assert_close(gen, expected, atol=1e-5, rtol=1e-5)

    # Steps of one model are equal, so that few recordings serve all batches.
    assert 1 <= len(recorder.recordings) <= 2
    assert sum(recording.replays for recording in recorder.recordings) >= 3


@pytest.mark.parametrize("family", tiny_qwen.FAMILIES)
def test_the_published_positions_hold_in_every_step_and_matter_after_pixels(family: str) -> None:
    picture = Image(np.full((112, 112, 3), 90, dtype=np.uint8))
    items = [*ITEMS, Item([picture, "a square"])]
    description = tiny_qwen.tiny_description(
        family, reasoner="rollout", position_mode="cache_length"
    )
    published = tiny_qwen.random_qwen(description).backbone
    _, model = made(family, "rollout")  # the same weights
    contiguous, reasoner = model.backbone, model.reasoner

    with torch.inference_mode():
        gen = reasoner.think(published, published.collate(items, role=Role.QUERY), effort=2)["gen"]
        expected = [
            plain_rollout(published, reasoner, published.collate([item], role=Role.QUERY), 2)
            for item in items
        ]
        batch = contiguous.collate(items, role=Role.QUERY)
        other = reasoner.think(contiguous, batch, effort=2)["gen"]

    torch.testing.assert_close(gen, torch.stack(expected), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gen[0], other[0])  # of words alone
    assert (gen[-1] - other[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", tiny_qwen.FAMILIES)
def test_thoughts_of_unequal_length_are_those_of_a_loop_of_one_row(family: str) -> None:
    _, model = made(family, "cot")
    backbone = model.backbone
    ends = tuple(string.ascii_letters + string.digits)  # so that many a thought ends early
    reasoner = Cot(CotConfig(max_new_tokens=12, ends=ends), backbone)
    gen, stops = backbone.tokens("<gen_emb>")[0], backbone.tokens("".join(ends))

    def written(item: Item) -> tuple[torch.Tensor, int]:
        hidden, cache = backbone.prefill(backbone.collate([item], role=Role.QUERY), room=13)
        for length in range(13):
            token = int(backbone.logits(hidden[:, -1]).argmax())
            ended = length == 12 or token in (gen, *stops)
            ids = torch.tensor([[gen if ended else token]])
            hidden, cache = backbone.extend(backbone.embed(ids), cache)
            if ended:
                break
        return hidden[0, -1], length

    with torch.inference_mode():
        expected = [written(item) for item in ITEMS]
        batch = backbone.collate(ITEMS, role=Role.QUERY)
        readouts = reasoner.think(backbone, batch, effort=0)["gen"]

    torch.testing.assert_close(
        readouts, torch.stack([readout for readout, _ in expected]), atol=1e-5, rtol=1e-5
    )
    assert len({length for _, length in expected}) > 1


@every_family
def test_reason_tokens_in_the_one_pass_equal_those_after_it(family: str) -> None:
    _, model = made(family, "bottleneck")
    backbone, reasoner = model.backbone, model.reasoner

    with torch.inference_mode():
        batch = backbone.collate(ITEMS, role=Role.QUERY)
        reason, embed = reasoner.reason_states(backbone, batch)
        tail = torch.cat([reasoner.reason, reasoner.embed[None]])
        _, cache = backbone.prefill(batch, room=len(tail))
        hidden, _ = backbone.extend(tail.expand(len(ITEMS), -1, -1), cache)

    torch.testing.assert_close(
        torch.cat([reason, embed[:, None]], dim=1), hidden, atol=1e-5, rtol=0
    )


@every_family
def test_a_rollout_can_be_trained(family: str) -> None:
    description, _ = made(family, "rollout")
    if family == "default":
        model = tiny.random_model(reasoner="rollout")
    else:
        model = tiny_qwen.random_qwen(description)
    model.requires_grad_(True)

    batch = model.backbone.collate(ITEMS, role=Role.QUERY)
    gen = model.reasoner.think(model.backbone, batch, effort=2)["gen"]
    torch.autograd.backward(gen.square().sum(dim=-1).log().sum() + gen[:, 0].sum())

    for name, parameter in model.reasoner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.reasoner.adapter.router.weight.grad.any()
    seen = [one for one in model.backbone.vision.parameters() if one.grad is not None]
    assert any(bool(one.grad.any()) for one in seen)


@pytest.mark.parametrize("family", tiny_qwen.FAMILIES)
def test_without_thinking_a_prompt_is_read_out_at_its_end_its_anchor_and_after_it(
    family: str,
) -> None:
    description = tiny_qwen.tiny_description(family, chat=tiny_qwen.CHATS["rollout"])
    model = tiny_qwen.random_qwen(description)
    anchor = model.backbone.tokens("<disc_emb>")[0]

    with torch.inference_mode():
        batch = model.backbone.collate(ITEMS, role=Role.QUERY)
        hidden, _ = model.backbone.prefill(batch)
        readouts = model.reasoner.think(model.backbone, batch, effort=0)

    for row in range(len(ITEMS)):
        [place] = (batch.ids[row] == anchor).nonzero().flatten().tolist()
        torch.testing.assert_close(readouts["last"][row], hidden[row, -1])
        torch.testing.assert_close(readouts["disc"][row], hidden[row, place])
        torch.testing.assert_close(readouts["disc_next"][row], hidden[row, place + 1])
