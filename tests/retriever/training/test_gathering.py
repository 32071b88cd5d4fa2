"""Two processes have one gradient: that of the whole batch in a single one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import toy_processes
from toy_objective import assert_same
from toy_processes import BATCHES, parameters_of, rows_of, settings, trained

from mmsearch.errors import BadSetting
from mmsearch.retriever.training.gathering import (
    World,
    end_world,
    gather_rows,
    gather_values,
    same_everywhere,
    start_world,
    sum_gradients,
)

ALONE = World()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found, started once for all tests here."""
    folder: Path = tmp_path_factory.mktemp("processes")
    return toy_processes.run_processes(folder)


def test_each_process_knows_which_it_is(found: list[dict[str, Any]]) -> None:
    assert [of_one["world"] for of_one in found] == [(0, 2), (1, 2)]
    assert [of_one["again"] for of_one in found] == [(0, 2), (1, 2)]


@pytest.mark.parametrize("number", range(len(settings())))
def test_gradients_are_those_of_one_process_with_the_whole_batch(
    found: list[dict[str, Any]], number: int
) -> None:
    name, losses, dropout, autocast = settings()[number]
    first, second = (of_one["trained"][number] for of_one in found)
    (chunks, seeds), (others, other_seeds) = BATCHES[name]
    whole = trained(losses, dropout, autocast, chunks + others, seeds + other_seeds, ALONE)
    tolerance = 1e-4 if autocast is None else 2e-2
    assert_same(first, whole, rtol=tolerance, atol=tolerance / 100)
    assert_same(second, first, rtol=0, atol=0)  # to the bit
    assert whole["never"] is None
    is_marked = name == "a weight that one process does not use"
    assert (whole["sometimes"] is not None) == is_marked


def test_rows_of_all_processes_are_in_the_order_of_their_ranks(found: list[dict[str, Any]]) -> None:
    for number, (first, second) in enumerate(zip(rows_of(0), rows_of(1), strict=True)):
        expected = torch.cat([first, second])
        for of_one in found:
            rows = of_one["gathered"][number]
            assert rows.dtype is expected.dtype
            assert torch.equal(rows, expected), number


def test_gradients_are_summed_and_missing_ones_are_zeros(found: list[dict[str, Any]]) -> None:
    for buckets in (0, 1):
        for number, pair in enumerate(zip(parameters_of(0), parameters_of(1), strict=True)):
            held = [parameter.grad for parameter in pair if parameter.grad is not None]
            for of_one in found:
                gradient = of_one["summed"][buckets][number]
                if held:
                    assert torch.equal(gradient, sum(held[1:], held[0])), number
                else:
                    assert gradient is None, number


def test_small_values_are_known_everywhere(found: list[dict[str, Any]]) -> None:
    assert [of_one["first"] for of_one in found] == [{"seed": 5}, {"seed": 5}]
    assert [of_one["ranks"] for of_one in found] == [[0, 1], [0, 1]]


def test_processes_that_disagree_all_say_so(found: list[dict[str, Any]]) -> None:
    for of_one in found:
        look, parameters, nothing, summed = of_one["refused"]
        assert look.startswith("rows of 'positive.look' are not the same kind")
        assert parameters == summed == "the processes train different parameters"
        assert nothing == "the batch has no pairs"


def test_alone_everything_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = start_world("cpu")
    assert world == (0, 1)
    rows = torch.ones(2, 3, requires_grad=True)
    assert torch.equal(gather_rows(rows, world), rows)
    assert not gather_rows(rows, world).requires_grad
    parameters = parameters_of(0)
    before = [parameter.grad for parameter in parameters]
    sum_gradients(parameters, world)
    assert all(p.grad is g for p, g in zip(parameters, before, strict=True))
    assert same_everywhere("a", world) == "a"
    assert gather_values("a", world) == ["a"]
    end_world(world)


def test_a_process_without_a_device_is_told_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = torch.cuda.device_count()
    monkeypatch.setenv("WORLD_SIZE", str(missing + 1))
    monkeypatch.setenv("LOCAL_RANK", str(missing))
    with pytest.raises(BadSetting, match=f"process {missing} of this machine has none"):
        start_world("cuda")
