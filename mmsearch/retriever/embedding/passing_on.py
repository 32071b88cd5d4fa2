"""An embedder in front of another: of itself it says what that one says."""

from collections.abc import Callable, Mapping

from mmsearch.retriever.seams import Calibration, Embedder
from mmsearch.values import Item, Space, View


class PassingOn:
    """All of an `mmsearch.retriever.seams.Embedder` but `embed`, which is why one is in front.

    behind: returns the embedder behind, which may not be loaded before
    """

    def __init__(self, behind: Callable[[], Embedder]) -> None:
        self._behind = behind

    @property
    def space(self) -> Space:
        return self._behind().space

    @property
    def calibration(self) -> Mapping[tuple[View, View], Calibration]:
        return self._behind().calibration

    @property
    def call_tokens(self) -> int:
        return self._behind().call_tokens

    def num_tokens(self, item: Item) -> int:
        return self._behind().num_tokens(item)
