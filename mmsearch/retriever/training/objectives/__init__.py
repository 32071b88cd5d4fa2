"""The recipes: plain contrastive training, PLUME's, LaME's.

    build_objective(config, model) -> Objective

Whoever adds one writes it as one file here and adds its line to OBJECTIVES.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mmsearch.retriever.training.objective import Objective

if TYPE_CHECKING:
    from mmsearch.retriever.models.checkpoint import Model
    from mmsearch.retriever.training.config import ObjectiveConfig


def _plain(config: "ObjectiveConfig", model: "Model") -> Objective:
    from mmsearch.retriever.training.objectives.plain import Plain

    return Plain(config, model)


def _plume(config: "ObjectiveConfig", model: "Model") -> Objective:
    from mmsearch.retriever.training.objectives.plume import Plume

    return Plume(config, model)


def _lame(config: "ObjectiveConfig", model: "Model") -> Objective:
    from mmsearch.retriever.training.objectives.lame import Lame

    return Lame(config, model)


OBJECTIVES: Mapping[str, "Callable[[ObjectiveConfig, Model], Objective]"] = {
    "plain": _plain,
    "plume": _plume,
    "lame": _lame,
}


def build_objective(config: "ObjectiveConfig", model: "Model") -> Objective:
    """Return the recipe of that name for ``model``.

    Raises ValueError for a name that is not known, and for a model whose reasoner cannot be
    trained with it.
    """
    if config.name not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise ValueError(f"an objective is one of {known}, not {config.name!r}")
    return OBJECTIVES[config.name](config, model)
