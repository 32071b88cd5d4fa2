"""Recorded steps compute what called ones do, whatever batch was recorded."""

import gc
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_graphs import Again, CpuRecorder, TracingRecorder

from mmsearch.retriever.models.backbones.graphs import (
    CudaRecorder,
    Lease,
    StepGraphs,
    bucket,
    row_bucket,
    run_steps,
)
from mmsearch.retriever.models.backbones.kv_cache import BufferShape, KVCache
from mmsearch.retriever.models.backbones.qwen_text import TextHalf, build_language

WIDTH = 32
HF: dict[str, Any] = {
    "model_type": "qwen2_vl",
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 10,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
}
CPU = torch.device("cpu")
SHAPE = BufferShape(2, 3, 2, 20, 8, torch.float32, CPU)


class BrokenRecorder(CpuRecorder):
    """A driver that objects."""

    def record(self, function: Callable[[], Tensor], device: torch.device) -> Again:
        function()
        raise RuntimeError("operation not permitted when stream is capturing")


class FullRecorder(CpuRecorder):
    """No memory is left."""

    def record(self, function: Callable[[], Tensor], device: torch.device) -> Again:
        raise torch.OutOfMemoryError("CUDA out of memory")


class WrongRecorder(CpuRecorder):
    """Records so many times what it was given."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def record(self, function: Callable[[], Tensor], device: torch.device) -> Again:
        return super().record(lambda: self.factor * function(), device)


@dataclass(frozen=True)
class Steps:
    """Latent steps that an anchor turns, then a suffix that all rows share."""

    half: TextHalf
    steps: int = 2

    def __call__(self, cache: KVCache, z: Tensor, anchor: Tensor, suffix: Tensor) -> Tensor:
        for step in range(self.steps):
            hidden, cache = self.half.extend((z + anchor * step)[:, None], cache)
            z = hidden[:, 0]
        hidden, _ = self.half.extend(suffix.expand(len(z), -1, -1), cache)
        return hidden[:, -1]


SUFFIX = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(3))
ROOM = 8


def half_with(recorder: CpuRecorder, **settings: Any) -> TextHalf:
    torch.manual_seed(0)
    language = build_language(HF).requires_grad_(False)
    return TextHalf(language, HF, graphs=StepGraphs(recorder, **settings))


@pytest.fixture
def recorder() -> CpuRecorder:
    return CpuRecorder()


@pytest.fixture
def half(recorder: CpuRecorder) -> TextHalf:
    return half_with(recorder)


def prompts(lengths: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    longest = max(lengths)
    mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    positions = mask.cumsum(dim=1) - 1
    embeds = torch.randn(*mask.shape, WIDTH, generator=torch.Generator().manual_seed(seed))
    return {
        "embeds": embeds,
        "positions": positions.clamp_min(0).expand(3, -1, -1),
        "mask": mask,
        "next_position": torch.tensor(lengths) + seed,
    }


@torch.inference_mode()
def thought(
    half: TextHalf,
    lengths: tuple[int, ...],
    seed: int = 0,
    steps: int = 2,
    suffix: Tensor = SUFFIX,
) -> Tensor:
    hidden, cache = half.prefill(**prompts(lengths, seed), room=ROOM)
    return run_steps(Steps(half, steps), cache, hidden[:, -1], hidden[:, 0], suffix)


@torch.inference_mode()
def called(
    half: TextHalf,
    lengths: tuple[int, ...],
    seed: int = 0,
    steps: int = 2,
    suffix: Tensor = SUFFIX,
) -> Tensor:
    """Return the same without buffers that anything could be recorded over."""
    whole = prompts(lengths, seed)
    first = [row.item() for row in (~whole["mask"]).sum(dim=1)]
    rows = []
    for i, start in enumerate(first):
        hidden, cache = half.prefill(
            whole["embeds"][i : i + 1, start:],
            whole["positions"][:, i : i + 1, start:],
            whole["mask"][i : i + 1, start:],
            whole["next_position"][i : i + 1],
            room=0,
        )
        # The batch's own first state, as `thought` has it, is padding in shorter rows.
        together, _ = half.prefill(**whole, room=0)
        anchor = together[i : i + 1, 0]
        rows.append(Steps(half, steps)(cache, hidden[:, -1], anchor, suffix))
    return torch.cat(rows)


def assert_near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_replayed_operations_compute_what_a_call_does() -> None:
    recorder = TracingRecorder()
    half = half_with(recorder)

    for seed in range(5):
        assert_near(thought(half, (9, 4), seed), called(half, (9, 4), seed))

    assert len(recorder.recordings) == 1
    assert recorder.recordings[0].replays >= 3


def test_one_recording_serves_batches_of_many_sizes(half: TextHalf, recorder: CpuRecorder) -> None:
    sizes = [(9, 4, 2, 1, 1, 1, 1, 1), (3, 60, 2, 5, 5, 5, 5), (31, 2, 3, 3, 3, 3, 3, 12)]
    for seed, lengths in enumerate(sizes * 2):
        assert_near(thought(half, lengths, seed), called(half, lengths, seed))

    assert len(recorder.recordings) == 1


def test_a_batch_as_large_as_its_suffix_is_long_is_right(
    half: TextHalf, recorder: CpuRecorder
) -> None:
    lengths = (9, 4, 2, 1, 7)  # five rows, as SUFFIX has five tokens

    for seed in range(4):
        assert_near(thought(half, lengths, seed), called(half, lengths, seed))

    assert [recording.replays >= 3 for recording in recorder.recordings] == [True]


def test_what_replays_return_is_not_overwritten(half: TextHalf) -> None:
    results = [thought(half, (9, 4), seed) for seed in range(4)]

    for seed, result in enumerate(results):
        assert_near(result, called(half, (9, 4), seed))


def test_efforts_and_lengths_have_recordings_of_their_own(
    half: TextHalf, recorder: CpuRecorder
) -> None:
    for _ in range(3):
        for steps, longest in ((0, 9), (2, 9), (2, 90)):
            lengths = (longest, 4)
            result = thought(half, lengths, steps=steps)
            assert_near(result, called(half, lengths, steps=steps))

    assert len(recorder.recordings) == 3


def test_nan_of_one_batch_does_not_reach_the_next(half: TextHalf) -> None:
    for lengths in ((60, 50, 3), (60, 2, 2)):
        broken = prompts(lengths)
        broken["embeds"][:] = torch.nan
        with torch.inference_mode():
            for _ in range(2):
                hidden, cache = half.prefill(**broken, room=ROOM)
                run_steps(Steps(half), cache, hidden[:, -1], hidden[:, 0], SUFFIX)
                del cache

    for seed in range(3):
        assert_near(thought(half, (9, 4, 3), seed), called(half, (9, 4, 3), seed))


def test_caches_in_use_at_once_share_nothing(half: TextHalf) -> None:
    with torch.inference_mode():
        opened = []
        for seed in range(3):
            hidden, cache = half.prefill(**prompts((9, 4), seed), room=ROOM)
            opened.append((hidden, cache))
        results = [
            run_steps(Steps(half), cache, hidden[:, -1], hidden[:, 0], SUFFIX)
            for hidden, cache in opened
        ]

    for seed, result in enumerate(results):
        assert_near(result, called(half, (9, 4), seed))


def test_buffers_are_lent_again_once_their_cache_is_dropped(half: TextHalf) -> None:
    def address() -> int:
        _, cache = half.prefill(**prompts((9, 4)), room=ROOM)
        longer = half.extend(torch.zeros(2, 1, WIDTH), cache)[1]
        del cache
        _, other = half.prefill(**prompts((9, 4)), room=ROOM)
        assert other.keys[0].data_ptr() != longer.keys[0].data_ptr()  # still in use
        return longer.keys[0].data_ptr()

    with torch.inference_mode():
        addresses = {address() for _ in range(4)}

    assert len(addresses) <= 2


def test_threads_at_once_compute_what_one_does(half: TextHalf) -> None:
    expected = [called(half, (9, 4), seed) for seed in range(6)]

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            results = pool.map(lambda seed: thought(half, (9, 4), seed), range(6))
            for result, alone in zip(results, expected, strict=True):
                assert_near(result, alone)


def test_a_driver_that_objects_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    half = half_with(BrokenRecorder())

    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            assert_near(thought(half, (9, 4), seed), called(half, (9, 4), seed))

    assert [record.message for record in caplog.records] == [
        "latent steps run unrecorded: operation not permitted when stream is capturing"
    ]


@pytest.mark.parametrize("factor", [-1.0, 1.5, torch.nan])
def test_a_recording_of_something_else_is_not_used(
    caplog: pytest.LogCaptureFixture, factor: float
) -> None:
    half = half_with(WrongRecorder(factor))

    with caplog.at_level(logging.WARNING):
        for seed in range(4):
            assert_near(thought(half, (9, 4), seed), called(half, (9, 4), seed))

    assert len(caplog.records) == 1


def test_out_of_memory_is_raised_for_the_batch_to_be_halved() -> None:
    half = half_with(FullRecorder())
    thought(half, (9, 4))

    with pytest.raises(torch.OutOfMemoryError):
        thought(half, (9, 4))


def test_weights_that_were_moved_are_recorded_anew(half: TextHalf, recorder: CpuRecorder) -> None:
    for _ in range(3):
        thought(half, (9, 4))
    half.pack()
    for _ in range(3):
        thought(half, (9, 4))
    weights = {k: v * 1.5 for k, v in half.language.state_dict().items()}
    half.language.load_state_dict(weights, assign=True)

    for seed in range(3):
        assert_near(thought(half, (9, 4), seed), called(half, (9, 4), seed))
    assert len(recorder.recordings) == 3


def test_with_gradients_nothing_is_recorded(half: TextHalf, recorder: CpuRecorder) -> None:
    half.language.requires_grad_(True)
    for _ in range(3):
        hidden, cache = half.prefill(**prompts((9, 4)), room=ROOM)
        result = run_steps(Steps(half), cache, hidden[:, -1], hidden[:, 0], SUFFIX)

    assert result.requires_grad
    assert not recorder.recordings


def test_no_room_takes_no_buffers(half: TextHalf) -> None:
    with torch.no_grad():
        _, cache = half.prefill(**prompts((9, 4)), room=0)

    assert cache.lease is None
    assert cache.places == 9


def test_steps_that_outgrow_their_room_are_right(half: TextHalf) -> None:
    long = torch.randn(90, WIDTH, generator=torch.Generator().manual_seed(4))

    for seed in range(3):
        result = thought(half, (9, 4), seed, suffix=long)
        assert_near(result, called(half, (9, 4), seed, suffix=long))


def test_the_recording_used_longest_ago_is_dropped() -> None:
    recorder = CpuRecorder()
    half = half_with(recorder, most_graphs=2)
    for steps in (0, 0, 1, 1, 0, 2, 2):  # recorded at the second sight: 0, 1, then 2 for 1
        thought(half, (9, 4), steps=steps)
    assert len(recorder.recordings) == 3

    thought(half, (9, 4), steps=0)
    assert len(recorder.recordings) == 3

    thought(half, (9, 4), steps=1)
    thought(half, (9, 4), steps=1)
    assert len(recorder.recordings) == 4


def lend(graphs: StepGraphs, places: int) -> Lease:
    lease = graphs.reserve(replace(SHAPE, places=places), places - ROOM)
    assert lease is not None
    return lease


def test_waiting_buffers_take_no_more_than_spare_memory() -> None:
    three = 3 * lend(StepGraphs(CpuRecorder()), 20).arena.key.shape.num_bytes
    graphs = StepGraphs(CpuRecorder(spare_bytes=three))
    lent = {id(lease.arena): lease for lease in [lend(graphs, 20) for _ in range(5)]}
    assert len(lent) == 5

    arenas = [lease.arena for lease in lent.values()]
    lent.clear()
    gc.collect()
    again = [lend(graphs, 20) for _ in range(5)]

    assert sum(lease.arena in arenas for lease in again) == 3


def test_filling_rows_and_places_see_only_themselves() -> None:
    lease = lend(StepGraphs(CpuRecorder()), 20)  # 12 tokens and 8 of room, 3 rows of 3

    assert lease.start == 64
    whole = lease.arena.whole
    assert whole.mask.shape == (3, 128)
    assert not whole.mask[:, 12:64].any()
    assert whole.mask[:, 64:].all()


def test_what_no_prompt_overwrites_is_cleared() -> None:
    graphs = StepGraphs(CpuRecorder())
    shape = replace(SHAPE, rows=5)
    first = graphs.reserve(shape, 12)
    assert first is not None
    arena = first.arena
    for buffer in (*arena.whole.keys, *arena.whole.values):
        buffer.fill_(torch.nan)
    del first

    second = graphs.reserve(shape, 12)

    assert second is not None
    assert second.arena is arena
    assert len(arena.whole.mask) == 6
    for buffer in (*arena.whole.keys, *arena.whole.values):
        assert not buffer[:5, :, 12:64].any()
        assert not buffer[5:, :, :64].any()


@pytest.mark.parametrize(
    ("n", "rounded"), [(1, 64), (64, 64), (65, 128), (1_000, 1_024), (1_030, 1_152), (8_000, 8_192)]
)
def test_lengths_are_rounded_up_by_at_most_an_eighth_or_64(n: int, rounded: int) -> None:
    assert bucket(n, finest=64) == rounded


def test_rows_are_rounded_up_by_at_most_a_half() -> None:
    rounded = [row_bucket(n) for n in range(1, 26)]

    assert rounded == [1, 2, 3, 4, 6, 6, 8, 8, *[12] * 4, *[16] * 4, *[24] * 8, 32]


def test_the_cpu_is_left_alone_by_cuda() -> None:
    graphs = StepGraphs(CudaRecorder())

    assert graphs.reserve(SHAPE, 12) is None
