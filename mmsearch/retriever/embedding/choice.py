"""Which model an index is opened with, before anything is loaded.

like(space of the index)   the choice, with what was not chosen as the index has it
space                      compared before a file is read
load()                     when the first vector is needed
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mmsearch.errors import BadSetting
from mmsearch.retriever.embedding.devices import check_asked
from mmsearch.retriever.embedding.load import (
    AS_IT_IS,
    load_embedder,
    model_description,
    model_space,
)
from mmsearch.retriever.models.description import ModelSettings
from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.values import Space, View


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A model by name, by folder, or an embedder of the user's own; where, and as what.

    Raises BadSetting for a device or a precision there is not, and ValueError for an
    embedder together with what only the maker of one can choose.
    """

    model: str | Path | Embedder
    device: str = "auto"
    dtype: str = "auto"
    settings: ModelSettings = AS_IT_IS

    def __post_init__(self) -> None:
        if isinstance(self.model, str | Path):
            check_asked(self.device, self.dtype)
        elif (self.device, self.dtype, self.settings) != ("auto", "auto", AS_IT_IS):
            raise ValueError("an embedder comes with its device, its dtype and its settings")

    def like(self, space: Space) -> "ModelChoice":
        """Return it with the settings that ``space`` was made with, where none are chosen.

        What the model does not have is left out: then it is another one than theirs.
        Raises BadSetting for a chosen setting that it does not have, ModelNotFound and
        BadCheckpoint.
        """
        if not isinstance(self.model, str | Path):
            return self
        description = model_description(self.model, self.settings)
        settings = self.settings
        made_with = {"effort": space.effort, "max_pixels": space.max_pixels, "dims": space.dim}
        for name, value in made_with.items():
            if getattr(self.settings, name) is None:
                try:
                    description.with_settings(ModelSettings(**{name: value}))
                except BadSetting:
                    continue
                settings = replace(settings, **{name: value})
        return replace(self, settings=settings)

    @property
    def space(self) -> Space:
        """What its vectors may be compared with; raises as `model_description`."""
        if isinstance(self.model, str | Path):
            return model_space(self.model, self.settings)
        return self.model.space

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        """How to read its cosines; raises as `model_description`."""
        if isinstance(self.model, str | Path):
            return model_description(self.model, self.settings).calibration
        return self.model.calibration

    def load(self) -> Embedder:
        """Return the embedder; raises as `load_embedder`."""
        if not isinstance(self.model, str | Path):
            return self.model
        return load_embedder(
            self.model, device=self.device, dtype=self.dtype, settings=self.settings
        )
