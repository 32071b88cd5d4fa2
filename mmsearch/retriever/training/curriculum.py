"""What is trained when: rationales that give way to latent steps, tokens that warm up.

    plume_stages(8)       -> five stages: 2, 4, 6 steps, 8 with the answer, 8 alone
    lame_stages(8, 0.25)  -> two stages: the tokens and what reads them, then everything

PLUME (arXiv 2604.02073) replaces a rationale from its beginning: a stage of ``n`` latent
steps leaves out the segments that n steps stand for. The stage where all is replaced takes
half of the training, and the answer goes in the middle of it.
"""

import itertools
from collections.abc import Sequence

from mmsearch.retriever.training.objective import Stage

RATIOS = (0.25, 0.5, 0.75, 1.0)


def plume_stages(
    steps: int,
    *,
    ratios: Sequence[float] = RATIOS,
    final_share: float = 0.5,
    segments: int | None = None,
    trained: tuple[str, ...] = ("backbone", "reasoner", "head", "extras"),
) -> tuple[Stage, ...]:
    """Return the stages of a rollout of ``steps`` latent steps.

    ratios:      share of the steps that is taken in each stage; the last is 1
    final_share: share of the training that the last ratio takes; the others share the rest
    segments:    into how many a rationale is cut, of which ``steps`` is a multiple; one for
                 each step where nothing is said

    A share that is no whole number of steps is rounded as Python rounds, 4.5 to 4, and is at
    least one step unless the ratio is 0, which writes all of the rationale. AdamW begins
    anew at each ratio, and not where the answer goes. Without steps there is one stage.
    """
    if steps == 0:
        return (Stage("no latent steps", 0.0, 0, trained),)
    count = steps if segments is None else segments
    if steps < 0 or count < 1 or steps % count:
        raise ValueError(f"{steps} latent steps do not replace {count} segments evenly")
    rising = all(a < b for a, b in itertools.pairwise(ratios))
    if not ratios or not rising or ratios[0] < 0 or ratios[-1] != 1.0:
        raise ValueError(f"ratios rise to 1, not {', '.join(map(str, ratios)) or 'none'}")
    if not 0 < final_share <= 1:
        raise ValueError(f"the last ratio takes a share of the training, not {final_share}")
    if final_share == 1:
        ratios = ratios[-1:]
    earlier = len(ratios) - 1
    stages = []
    for i, ratio in enumerate(ratios[:-1]):
        effort = max(round(steps * ratio), 1) if ratio else 0
        replaced = effort // (steps // count)
        stages.append(
            Stage(
                f"{effort} of {steps} steps",
                (1 - final_share) * i / earlier,
                effort,
                trained,
                text_left=(count - replaced) / count,
                has_answer=True,
                is_new=i > 0,
            )
        )
    last = 1 - final_share if earlier else 0.0
    stages.append(
        Stage(
            f"{steps} steps, answer",
            last,
            steps,
            trained,
            has_answer=True,
            is_new=earlier > 0,
        )
    )
    stages.append(Stage(f"{steps} steps", (1 + last) / 2, steps, trained))
    return tuple(stages)


def lame_stages(num_tokens: int, warm_up: float) -> tuple[Stage, ...]:
    """Return LaME's stages: for a share ``warm_up`` of the training the backbone stays as it is.

    What is fresh is trained first, or its noise would reach the backbone.
    """
    if not 0 <= warm_up <= 1:
        raise ValueError(f"the warm-up is a share of the training, not {warm_up}")
    fresh = Stage("warm-up", 0.0, num_tokens, trained=("reasoner", "head", "extras"))
    joint = Stage("joint", warm_up, num_tokens)
    if warm_up in (0, 1):
        return (fresh if warm_up else joint,)
    return (fresh, joint)
