"""PLUME's stages are those of its table, and LaME's begin with what is fresh."""

import pytest

from mmsearch.retriever.training.curriculum import lame_stages, plume_stages

# Start of the stage, latent steps, share of the rationale's segments that is left, answer.
TABLE = {
    4: [(0, 1, 3 / 4, True), (1 / 6, 2, 2 / 4, True), (1 / 3, 3, 1 / 4, True)],
    6: [(0, 2, 4 / 6, True), (1 / 6, 3, 3 / 6, True), (1 / 3, 4, 2 / 6, True)],
    8: [(0, 2, 6 / 8, True), (1 / 6, 4, 4 / 8, True), (1 / 3, 6, 2 / 8, True)],
}


@pytest.mark.parametrize("steps", [4, 6, 8])
def test_the_stages_are_those_of_the_paper(steps: int) -> None:
    stages = plume_stages(steps)

    expected = [*TABLE[steps], (1 / 2, steps, 0, True), (3 / 4, steps, 0, False)]
    found = [(stage.start, stage.effort, stage.text_left, stage.has_answer) for stage in stages]
    assert found == [pytest.approx(row) for row in expected]


def test_half_steps_are_rounded_to_even_numbers() -> None:
    # 6 x 0.25 = 1.5 and 6 x 0.75 = 4.5: two steps and four.
    assert [stage.effort for stage in plume_stages(6)] == [2, 3, 4, 6, 6]


def test_moments_begin_anew_with_each_ratio_and_not_where_the_answer_goes() -> None:
    assert [stage.is_new for stage in plume_stages(8)] == [False, True, True, True, False]


def test_a_step_may_stand_for_more_or_less_than_a_segment() -> None:
    stages = plume_stages(8, segments=4)

    assert [(stage.effort, stage.text_left) for stage in stages[:3]] == [
        (2, 3 / 4),
        (4, 2 / 4),
        (6, 1 / 4),
    ]
    # Of two segments with four steps each, two steps replace none as yet.
    assert [stage.text_left for stage in plume_stages(8, segments=2)] == [1, 0.5, 0.5, 0, 0]


def test_there_is_at_least_one_step_unless_the_ratio_is_0() -> None:
    stages = plume_stages(4, ratios=(0.0, 0.1, 1.0))

    assert [stage.effort for stage in stages] == [0, 1, 4, 4]
    assert [stage.text_left for stage in stages] == [1.0, 0.75, 0.0, 0.0]


@pytest.mark.parametrize("choices", [{"ratios": (1.0,)}, {"final_share": 1.0}])
def test_the_last_ratio_can_be_all_there_is(choices: dict[str, object]) -> None:
    stages = plume_stages(4, **choices)  # type: ignore[arg-type]

    found = [(stage.start, stage.effort, stage.has_answer, stage.is_new) for stage in stages]
    assert found == [(0.0, 4, True, False), (0.5, 4, False, False)]


def test_without_steps_there_is_nothing_to_lead_up_to() -> None:
    [stage] = plume_stages(0)

    assert (stage.start, stage.effort, stage.text_left, stage.has_answer) == (0.0, 0, 0.0, False)


@pytest.mark.parametrize(
    ("steps", "choices"),
    [
        (-1, {}),
        (8, {"segments": 3}),
        (8, {"segments": -2}),
        (8, {"ratios": (0.5, 0.25, 1.0)}),
        (8, {"ratios": (0.5, 0.5, 1.0)}),
        (8, {"ratios": (0.5,)}),
        (8, {"ratios": ()}),
        (8, {"final_share": 0.0}),
    ],
)
def test_stages_that_cannot_be_are_refused(steps: int, choices: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"steps|ratio"):
        plume_stages(steps, **choices)  # type: ignore[arg-type]


def test_lame_warms_up_without_the_backbone() -> None:
    warm_up, joint = lame_stages(8, 0.2)

    assert (warm_up.start, warm_up.effort) == (0.0, 8)
    assert warm_up.trained == ("reasoner", "head", "extras")
    assert (joint.start, joint.effort) == (0.2, 8)
    assert joint.trained == ("backbone", "reasoner", "head", "extras")


@pytest.mark.parametrize(("share", "names"), [(0.0, ["joint"]), (1.0, ["warm-up"])])
def test_lame_may_have_one_stage_alone(share: float, names: list[str]) -> None:
    stages = lame_stages(8, share)

    assert [stage.name for stage in stages] == names
    assert stages[0].start == 0.0


def test_a_warm_up_is_a_share() -> None:
    with pytest.raises(ValueError, match="share"):
        lame_stages(8, 1.5)
