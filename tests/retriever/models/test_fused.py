"""A fused piece computes what the plain one does, whatever its compiler thinks of it."""

import functools
import logging
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from mmsearch.retriever.models.backbones.fused import fused

Function = Callable[[Tensor], Tensor]


def twice(x: Tensor) -> Tensor:
    return x * 2


double: Function = twice
X = torch.arange(3.0)


@torch.no_grad()
def test_it_runs_compiled_where_it_should() -> None:
    calls = []

    def compiler(function: Function) -> Function:
        def fast(x: Tensor) -> Tensor:
            calls.append(1)
            return function(x)

        return fast

    on_cpu = fused(double, compiler=compiler, device_types=("cpu",))
    elsewhere = fused(double, compiler=compiler)

    assert on_cpu(X).tolist() == elsewhere(X).tolist() == [0.0, 2.0, 4.0]
    assert calls == [1]
    with torch.enable_grad():
        on_cpu(X)
    assert calls == [1]


@torch.no_grad()
def test_a_compiler_that_fails_is_named_once_and_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = []

    def compiler(function: Function) -> Function:
        def fast(x: Tensor) -> Tensor:
            calls.append(1)
            raise RuntimeError("no kernel\nfor this")

        return fast

    piece = fused(double, compiler=compiler, device_types=("cpu",))
    with caplog.at_level(logging.WARNING):
        results = [piece(X).tolist() for _ in range(3)]

    assert results == [[0.0, 2.0, 4.0]] * 3
    assert [record.message for record in caplog.records] == ["twice runs uncompiled: no kernel"]
    assert calls == [1]


@torch.no_grad()
def test_out_of_memory_is_no_failure_to_compile() -> None:
    def compiler(function: Function) -> Function:
        def fast(x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

        return fast

    piece = fused(double, compiler=compiler, device_types=("cpu",))

    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            piece(X)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Count what torch compiles, without generating kernels."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    return counter


@torch.inference_mode()
def test_lengths_change_without_compiling_anew(counter: CompileCounter) -> None:
    piece = fused(double, device_types=("cpu",))

    for length in (5, 300, 4, 6):
        joint = torch.ones(length, 4, 6)
        assert piece(joint[:, 1:3]).sum() == 24 * length

    assert counter.frame_count == 1


@torch.inference_mode()
def test_widths_of_many_models_are_compiled_in_any_thread(
    counter: CompileCounter, caplog: pytest.LogCaptureFixture
) -> None:
    piece = fused(double, device_types=("cpu",))

    def work() -> None:
        for width in range(2, 14):
            piece(torch.ones(5, width))

    @torch.inference_mode()
    def elsewhere() -> None:
        work()

    thread = threading.Thread(target=elsewhere)
    with caplog.at_level(logging.WARNING):
        thread.start()
        thread.join()
        work()

    assert counter.frame_count == 12
    assert not caplog.records
