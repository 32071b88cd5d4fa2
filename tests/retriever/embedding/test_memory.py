"""Memory is planned, and what did not fit is remembered."""

import threading

import pytest
import torch

from mmsearch.retriever.embedding.memory import (
    CPU_TOKENS,
    MOST_TOKENS,
    TokenBudget,
    affordable_tokens,
    is_out_of_memory,
    plan_tokens,
)


@pytest.mark.parametrize(
    ("free_bytes", "token_bytes", "tokens"),
    [
        (10_000_000_000, 1_000_000, 7_000),  # seven tenths of ten gigabytes
        (100_000, 1_000_000, 1),  # one item is always tried
        (140_000_000_000, 300_000, MOST_TOKENS),
    ],
)
def test_a_gpu_is_filled_to_a_margin_and_a_cap(
    free_bytes: int, token_bytes: int, tokens: int
) -> None:
    assert affordable_tokens(free_bytes, token_bytes) == tokens


def test_a_cpu_takes_small_batches_whatever_the_model() -> None:
    assert plan_tokens(torch.device("cpu"), 1) == plan_tokens(torch.device("cpu"), 10**9)
    assert plan_tokens(torch.device("cpu"), 1) == CPU_TOKENS


def test_a_budget_only_falls() -> None:
    budget = TokenBudget(1_000)

    budget.did_not_fit(800)
    assert budget.tokens == 400
    budget.did_not_fit(900)  # cut before that was learnt
    assert budget.tokens == 400
    budget.did_not_fit(1)
    assert budget.tokens == 1


def test_a_budget_needs_a_token() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        TokenBudget(0)


def test_batches_of_one_size_that_fail_side_by_side_halve_it_once() -> None:
    budget = TokenBudget(1_024)
    threads = [threading.Thread(target=budget.did_not_fit, args=(1_024,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert budget.tokens == 512


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        MemoryError(),
    ],
    ids=str,
)
def test_memory_that_ran_out_is_known_by_what_is_raised(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_allocator_of_this_machine_is_understood() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**54)

    assert is_out_of_memory(error.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=str,
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)
