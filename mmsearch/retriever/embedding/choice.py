"""Which model an index is opened with, before anything is loaded.

name, folder or embedder, settings, the index's space -> choose_model -> ChosenModel
    .space    compared before a file is read
    .load()   when the first vector is needed
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mmsearch.errors import BadSetting
from mmsearch.retriever.embedding.load import AS_IT_IS, load_described, model_description
from mmsearch.retriever.models.description import ModelDescription, ModelSettings
from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.values import Space, View


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model that was found and described, and where it is to compute."""

    folder: Path
    description: ModelDescription
    device: str
    dtype: str

    @property
    def space(self) -> Space:
        """What its vectors may be compared with."""
        return self.description.space

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        """How to read its cosines."""
        return self.description.calibration

    def load(self) -> Embedder:
        """Return the embedder; raises as `load_embedder`."""
        return load_described(self.folder, self.description, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class OwnEmbedder:
    """An embedder that the user brought: it is there already."""

    embedder: Embedder

    @property
    def space(self) -> Space:
        """What its vectors may be compared with."""
        return self.embedder.space

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        """How to read its cosines."""
        return self.embedder.calibration

    def load(self) -> Embedder:
        """Return it."""
        return self.embedder


def choose_model(
    model: str | Path | Embedder,
    *,
    device: str = "auto",
    dtype: str = "auto",
    settings: ModelSettings = AS_IT_IS,
    like: Space | None = None,
) -> ChosenModel | OwnEmbedder:
    """Return the model that is meant by a name, a folder or an embedder.

    What ``settings`` leaves open is as ``like`` was made, the space of an index, as far as
    the model has it: another model than that of the index may not.
    Raises ModelNotFound, BadCheckpoint, BadSetting for a setting that the model does not
    have, and ValueError for an embedder together with what only its maker can choose.
    """
    if not isinstance(model, str | Path):
        if (device, dtype, settings) != ("auto", "auto", AS_IT_IS):
            raise ValueError("an embedder comes with its device, its dtype and its settings")
        return OwnEmbedder(model)
    folder, description = model_description(model, settings)
    if like is not None:
        made_with = {"effort": like.effort, "max_pixels": like.max_pixels, "dims": like.dim}
        for name, value in made_with.items():
            if getattr(settings, name) is None:
                description = _with(description, replace(AS_IT_IS, **{name: value}))
    return ChosenModel(folder, description, device, dtype)


def _with(description: ModelDescription, settings: ModelSettings) -> ModelDescription:
    try:
        return description.with_settings(settings)
    except BadSetting:
        return description
