import math

import pytest
import torch
from torch import nn

from mmsearch.retriever.training.config import OptimiserConfig
from mmsearch.retriever.training.objective import Stage
from mmsearch.retriever.training.optimiser import Named, Optimiser, rate_share, stage_at

WARM = Stage("warm-up", 0.0, 0, trained=("reasoner",))
JOINT = Stage("joint", 0.5, 0, trained=("backbone", "reasoner"), is_new=True)


def parts() -> dict[str, Named]:
    torch.manual_seed(0)
    return {
        "backbone": [
            ("backbone.w", nn.Parameter(torch.randn(3, 2))),
            ("backbone.b", nn.Parameter(torch.randn(3))),
        ],
        "reasoner": [("reasoner.w", nn.Parameter(torch.randn(2, 2)))],
        "head": [("head.w", nn.Parameter(torch.randn(2, 2)))],
    }


def optimiser(config: OptimiserConfig, *, new: frozenset[str] = frozenset()) -> Optimiser:
    return Optimiser(parts(), config, stages=[WARM, JOINT], num_steps=10, new=new)


def take(one: Optimiser, number: int, *, gradient: float = 1.0) -> float:
    for parameter in one.trained:
        parameter.grad = torch.full_like(parameter, gradient)
    return one.step(number)


def values(one: Optimiser) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in one.parameters.items()}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # two steps of warm-up of ten, then down
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.5, 1, *(0.5 + 0.5 * math.cos(math.pi * k / 8) for k in range(8))]),
    ],
)
def test_the_rate_grows_and_falls(schedule: str, expected: list[float]) -> None:
    config = OptimiserConfig(warm_up=0.2, schedule=schedule)
    assert [rate_share(config, number, 10) for number in range(10)] == pytest.approx(expected)


def test_without_warm_up_the_first_step_is_whole() -> None:
    assert rate_share(OptimiserConfig(warm_up=0.0), 0, 10) == 1.0


def test_a_stage_begins_with_the_step_of_its_share() -> None:
    stages = [WARM, JOINT]
    assert [stage_at(stages, number, 10) for number in range(10)] == [0] * 5 + [1] * 5
    thirds = [Stage("a", 0.0, 0), Stage("b", 1 / 3, 0), Stage("c", 2 / 3, 0)]
    assert [stage_at(thirds, number, 3) for number in range(3)] == [0, 1, 2]


def test_only_the_parts_of_the_stage_learn() -> None:
    one = optimiser(OptimiserConfig(weight_decay=0.1))
    assert set(one.parameters) == {"backbone.w", "backbone.b", "reasoner.w"}  # the head never
    one.begin(WARM)
    before = values(one)
    take(one, 0)
    after = values(one)
    assert torch.equal(before["backbone.w"], after["backbone.w"])  # not even by weight decay
    assert not torch.equal(before["reasoner.w"], after["reasoner.w"])
    one.begin(JOINT)
    take(one, 5)
    assert not torch.equal(after["backbone.w"], values(one)["backbone.w"])


def test_new_parts_learn_at_their_own_rate() -> None:
    config = OptimiserConfig(learning_rate=1e-3, new_learning_rate=1e-2, warm_up=0.0)
    one = optimiser(config, new=frozenset({"reasoner.w"}))
    one.begin(JOINT)
    before = values(one)
    take(one, 0)
    # AdamW's first step moves every weight by its rate
    moved = {name: (value - before[name]).abs().mean() for name, value in values(one).items()}
    assert moved["reasoner.w"].item() == pytest.approx(1e-2, rel=1e-3)
    assert moved["backbone.w"].item() == pytest.approx(1e-3, rel=1e-3)


def test_matrices_decay_and_vectors_do_not() -> None:
    one = optimiser(OptimiserConfig(learning_rate=0.1, weight_decay=0.5, warm_up=0.0))
    one.begin(JOINT)
    before = values(one)
    take(one, 0, gradient=0.0)
    after = values(one)
    torch.testing.assert_close(after["backbone.w"], before["backbone.w"] * 0.95)
    assert torch.equal(after["backbone.b"], before["backbone.b"])


def test_the_gradient_is_shortened_as_one() -> None:
    one = optimiser(OptimiserConfig(clip=1.0))
    one.begin(WARM)
    (parameter,) = one.trained
    parameter.grad = torch.full_like(parameter, 3.0)  # of length 6
    assert one.clip().item() == pytest.approx(6.0)
    assert parameter.grad.norm().item() == pytest.approx(1.0, rel=1e-4)
    parameter.grad = torch.full_like(parameter, 0.1)
    one.clip()
    assert parameter.grad.norm().item() == pytest.approx(0.2)  # a short one is left alone


def test_a_gradient_that_is_no_number_is_told_and_left() -> None:
    one = optimiser(OptimiserConfig())
    one.begin(WARM)
    (parameter,) = one.trained
    parameter.grad = torch.full_like(parameter, math.nan)
    assert not one.clip().isfinite()


def test_moments_are_forgotten_where_that_is_asked() -> None:
    kept, forgot = optimiser(OptimiserConfig(warm_up=0.0)), optimiser(OptimiserConfig(warm_up=0.0))
    for one in (kept, forgot):
        one.begin(WARM)
        take(one, 0, gradient=5.0)
        one.begin(JOINT, forget=one is forgot)
    assert any(name.startswith("exp_avg") for name in kept.state())
    assert forgot.state() == {}
    for one in (kept, forgot):
        take(one, 5, gradient=-1.0)
    assert not torch.equal(values(kept)["reasoner.w"], values(forgot)["reasoner.w"])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_was_saved_goes_on_to_the_bit(ema: float) -> None:
    config = OptimiserConfig(ema=ema, weight_decay=0.1)
    whole, first, second = (optimiser(config) for _ in range(3))
    for one in (whole, first):
        one.begin(JOINT)
        for number in range(3):
            take(one, number, gradient=0.3 * number - 0.2)
    saved = {name: tensor.clone() for name, tensor in first.state().items()}
    for name, value in values(first).items():
        with torch.no_grad():
            second.parameters[name].copy_(value)
    second.begin(JOINT)
    second.load_state(saved)
    for one in (whole, second):
        take(one, 3, gradient=0.7)
    for name, value in values(whole).items():
        assert torch.equal(value, values(second)[name])
    assert whole.state().keys() == second.state().keys()
    assert all(torch.equal(value, second.state()[name]) for name, value in whole.state().items())


def test_averages_stand_in_for_a_while() -> None:
    one = optimiser(OptimiserConfig(ema=0.5, warm_up=0.0, learning_rate=0.1))
    one.begin(JOINT)
    start = values(one)
    take(one, 20)
    now = values(one)
    with one.averaged():
        for name, value in values(one).items():
            torch.testing.assert_close(value, (start[name] + now[name]) / 2)
    assert all(torch.equal(value, now[name]) for name, value in values(one).items())


def test_a_stage_that_trains_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="'tail'"):
        Optimiser(
            parts(),
            OptimiserConfig(),
            stages=[Stage("a", 0.0, 0, trained=("tail",))],
            num_steps=1,
        )
