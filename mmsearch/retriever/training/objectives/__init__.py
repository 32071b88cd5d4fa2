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


Recipe = Callable[["ObjectiveConfig", "Model", str], Objective]


def _plain(config: "ObjectiveConfig", model: "Model", readout: str) -> Objective:
    from mmsearch.retriever.training.objectives.plain import Plain

    return Plain(config, model, readout=readout)


def _plume(config: "ObjectiveConfig", model: "Model", readout: str) -> Objective:
    from mmsearch.retriever.training.objectives.plume import Plume

    return Plume(config, model, readout=readout)


def _lame(config: "ObjectiveConfig", model: "Model", readout: str) -> Objective:
    from mmsearch.retriever.training.objectives.lame import Lame

    return Lame(config, model, readout=readout)


OBJECTIVES: Mapping[str, Recipe] = {"plain": _plain, "plume": _plume, "lame": _lame}


def build_objective(config: "ObjectiveConfig", model: "Model", *, readout: str = "") -> Objective:
    """Return the recipe of that name for ``model``, as it is before training.

    readout: which one makes the model's vector, as its description says; the reasoner's
             usual one where nothing is said

    Raises BadSetting where the model's reasoner is not trained with that recipe, or has not
    the sizes that it asks for; ValueError for a name that is not known.
    """
    from mmsearch.retriever.training.starting import USUAL_READOUT

    if config.name not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise ValueError(f"an objective is one of {known}, not {config.name!r}")
    readout = readout or USUAL_READOUT.get(model.reasoner.name, "")
    return OBJECTIVES[config.name](config, model, readout)
