"""What only a GPU can show; the rest of its path is tested on a CPU beside it."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.retriever.embedding.embedder import LatentEmbedder
from mmsearch.retriever.embedding.load import load_embedder
from mmsearch.retriever.embedding.memory import MOST_TOKENS, plan_tokens
from mmsearch.retriever.embedding.schedule import LookAhead
from mmsearch.retriever.models.checkpoint import read_checkpoint
from mmsearch.retriever.models.tiny_qwen import write_random_qwen
from mmsearch.values import Frames, Item

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # A compiler's warning that became an error would be taken for its failure.
    pytest.mark.filterwarnings("ignore"),
]
MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_falls_back(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Hold every test to recorded and compiled work: what falls back to less is logged."""
    with caplog.at_level(logging.WARNING, "mmsearch"):
        yield
    said = [one.getMessage() for one in caplog.get_records("call")]
    assert said == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "plume"
    write_random_qwen(folder, reasoner="rollout")
    return folder


@pytest.fixture(scope="module")
def items() -> list[Item]:
    noise = np.random.default_rng(0)
    films = noise.integers(0, 256, (6, 4, 60, 50, 3), dtype=np.uint8)
    words = [Item(["a b " * n]) for n in range(1, 40)]
    return [*words, *(Item([Frames(film)]) for film in films), Item([films[0, 0], "what is it"])]


@pytest.mark.parametrize("model", ["plume", "default"])
def test_vectors_of_a_gpu_are_those_of_a_cpu(folder: Path, items: list[Item], model: str) -> None:
    name = folder if model == "plume" else model
    expected = load_embedder(name, device="cpu").embed(items)
    embedder = load_embedder(name, device="cuda", dtype="float32")

    for _ in range(3):  # called, recorded, replayed
        assert (embedder.embed(items) * expected).sum(axis=1).min() >= 0.9999


def test_an_item_in_bfloat16_is_the_same_alone_and_in_a_batch(
    folder: Path, items: list[Item]
) -> None:
    embedder = load_embedder(folder, device="cuda")

    together = embedder.embed(items)

    assert embedder._model.backbone.embed(torch.tensor([1]).cuda()).dtype is torch.bfloat16
    alone = np.concatenate([embedder.embed([item]) for item in items])
    assert np.median((alone * together).sum(axis=1)) >= 0.999


def test_threads_share_a_gpu(folder: Path, items: list[Item]) -> None:
    embedder = load_embedder(folder, device="cuda", dtype="float32")
    expected = embedder.embed(items)
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(5):
            if (embedder.embed(items) * expected).sum(axis=1).min() < 0.9999:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_work_goes_to_the_stream_of_the_caller(folder: Path, items: list[Item]) -> None:
    embedder = load_embedder(folder, device="cuda", dtype="float32")
    expected = embedder.embed(items)
    busy = torch.ones(8_192, 8_192, device="cuda")

    for _ in range(4):
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            for _ in range(20):
                busy = (busy @ busy).clamp(-1, 1)  # what is queued after it has to wait for it
            assert (embedder.embed(items) * expected).sum(axis=1).min() >= 0.9999


def test_a_batch_that_is_too_much_for_a_gpu_is_embedded_in_halves(folder: Path) -> None:
    device = torch.device("cuda:0")
    model = read_checkpoint(folder, device="cuda:0")
    greedy = LatentEmbedder(*model, batch_tokens=10**6, schedule=LookAhead(2))
    items = [Item([f"number {i} of many"]) for i in range(8_000)]
    expected = load_embedder(folder, device="cuda", dtype="float32").embed(items)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(device) + 256 * MIB) / total, device
    )
    try:
        vectors = greedy.embed(items)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)

    assert greedy.batch_tokens < 10**6
    assert (vectors * expected).sum(axis=1).min() >= 0.9999


def test_a_budget_is_planned_from_the_memory_there_is() -> None:
    device = torch.device("cuda:0")
    free, _ = torch.cuda.mem_get_info(device)

    assert plan_tokens(device, 1) == MOST_TOKENS
    assert 1 <= plan_tokens(device, free // 100) < 100
