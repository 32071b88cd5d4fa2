"""AdamW as a training run needs it: groups, warm-up, stages, an average of the weights.

    parts {"backbone": [(name, parameter)], ...} -> Optimiser
    begin(stage) sets what learns;  backward fills .grad;  step(number) moves the weights

Weights are float32 whatever the network computes in, so that a step far smaller than a
weight is not rounded away.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from mmsearch.retriever.training.config import OptimiserConfig
from mmsearch.retriever.training.objective import Stage

Named: TypeAlias = Sequence[tuple[str, Parameter]]
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Optimiser:
    """AdamW over every parameter that learns in any stage.

    parts:  parameters by the part they belong to, as `Stage.trained` names them
    new:    names of parameters that start at random, for `new_learning_rate`
    frozen: globs of names that never learn

    A parameter that does not learn in a stage has no gradient, and AdamW leaves it alone:
    neither its moments nor weight decay move it. Biases, norms and other vectors decay not.
    """

    def __init__(
        self,
        parts: Mapping[str, Named],
        config: OptimiserConfig,
        *,
        stages: Sequence[Stage],
        num_steps: int,
        new: frozenset[str] = frozenset(),
        frozen: Sequence[str] = (),
    ) -> None:
        self.config, self.num_steps = config, num_steps
        ever = {part for stage in stages for part in stage.trained}
        if unknown := sorted(ever - parts.keys()):
            raise ValueError(f"no part is named {unknown[0]!r}; there are {', '.join(parts)}")
        self._parts: dict[str, Named] = {
            part: [
                (name, parameter)
                for name, parameter in named
                if not any(fnmatchcase(name, pattern) for pattern in frozen)
            ]
            for part, named in parts.items()
        }
        self._every = [parameter for named in parts.values() for _, parameter in named]
        self.parameters = {
            name: parameter
            for part, named in self._parts.items()
            if part in ever
            for name, parameter in named
        }
        groups: dict[tuple[bool, bool], list[Parameter]] = {}
        for name, parameter in self.parameters.items():
            groups.setdefault((name in new, parameter.ndim >= 2), []).append(parameter)
        new_rate = config.new_learning_rate or config.learning_rate
        self._adamw = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": 0.0,
                    "base": new_rate if is_new else config.learning_rate,
                    "weight_decay": config.weight_decay if is_matrix else 0.0,
                }
                for (is_new, is_matrix), parameters in groups.items()
            ],
            betas=config.betas,
            eps=config.eps,
        )
        self.averages: dict[str, Tensor] = {}
        if config.ema:
            self.averages = {name: one.detach().clone() for name, one in self.parameters.items()}

    def begin(self, stage: Stage, *, forget: bool = False) -> None:
        """Let the parts of a stage learn and no others; ``forget`` zeroes all moments."""
        for parameter in self._every:
            parameter.requires_grad_(False)
            parameter.grad = None
        for part in stage.trained:
            for _, parameter in self._parts[part]:
                parameter.requires_grad_(True)
        if forget:
            self._adamw.state.clear()

    @property
    def trained(self) -> list[Parameter]:
        """The parameters that learn now, in an order that is the same in every process."""
        return [one for one in self.parameters.values() if one.requires_grad]

    def clip(self) -> Tensor:
        """Return the length of the whole gradient, which is shortened to `config.clip`.

        Not a number where any of it is not: nothing was moved then.
        """
        gradients = [one.grad for one in self.trained if one.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.config.clip and bool(norm.isfinite()) and bool(norm > self.config.clip):
            scale = self.config.clip / (norm + 1e-6)
            torch._foreach_mul_(gradients, scale)
        return norm

    def step(self, number: int) -> float:
        """Move the weights by their gradients, and return the learning rate.

        ``number`` counts the steps of the run from 0. Gradients are gone afterwards.
        """
        share = rate_share(self.config, number, self.num_steps)
        for group in self._adamw.param_groups:
            group["lr"] = group["base"] * share
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        if self.averages:
            # The first steps would otherwise be an average of the start.
            decay = min(self.config.ema, (1 + number) / (10 + number))
            with torch.no_grad():
                for name, average in self.averages.items():
                    average.lerp_(self.parameters[name].detach(), 1 - decay)
        return self.config.learning_rate * share

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averages, where there are any, in the place of the weights for a while."""
        kept = {name: self.parameters[name].detach().clone() for name in self.averages}
        self._put(self.averages)
        try:
            yield
        finally:
            self._put(kept)

    def state(self) -> dict[str, Tensor]:
        """Return the moments and averages: ``exp_avg.NAME``, ``step.NAME``, ``ema.NAME``."""
        tensors = {f"ema.{name}": average for name, average in self.averages.items()}
        for name, parameter in self.parameters.items():
            # .get: asking a defaultdict would make an empty state, which AdamW trips over
            known = self._adamw.state.get(parameter) or {}
            tensors |= {f"{moment}.{name}": known[moment] for moment in MOMENTS if moment in known}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned, bit for bit."""
        self._adamw.state.clear()
        for name, parameter in self.parameters.items():
            found = {one: tensors[key] for one in MOMENTS if (key := f"{one}.{name}") in tensors}
            if found:
                # AdamW counts its steps on the CPU, whatever the device
                self._adamw.state[parameter] = {
                    one: value.clone() if one == "step" else value.to(parameter.device, copy=True)
                    for one, value in found.items()
                }
        with torch.no_grad():
            for name, average in self.averages.items():
                average.copy_(tensors[f"ema.{name}"])

    def _put(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.parameters[name].copy_(value)


def rate_share(config: OptimiserConfig, number: int, num_steps: int) -> float:
    """Return which share of the learning rate step ``number``, from 0, is taken with.

    It grows over the warm-up, is 1 once, and falls to nearly 0 at the last step.
    """
    warm = math.ceil(config.warm_up * num_steps)
    if number < warm:
        return (number + 1) / warm
    done = (number - warm) / max(num_steps - warm, 1)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1 - done if config.schedule == "linear" else 1.0


def stage_at(stages: Sequence[Stage], number: int, num_steps: int) -> int:
    """Return which of the stages step ``number``, from 0, belongs to."""
    # An epsilon below a step: 0.5 of 10 steps is step 5, whatever 5 / 10 rounds to.
    reached = [i for i, one in enumerate(stages) if one.start * num_steps <= number + 1e-6]
    return reached[-1]


def count(parameters: Iterable[Parameter]) -> int:
    """Return how many numbers there are in all of them, shared ones once."""
    return sum(one.numel() for one in {id(each): each for each in parameters}.values())
