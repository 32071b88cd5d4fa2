"""What an embedder says of itself that has no model: benchmarks of all else use such."""

from collections.abc import Mapping

from mmsearch.retriever.seams import Calibration
from mmsearch.values import Item, Space, View


class Modelless:
    """All of an `mmsearch.retriever.seams.Embedder` but `embed`; every item costs the same.

    name:        of its space; the vectors of two names cannot be compared
    call_tokens: items that one call takes
    """

    def __init__(
        self, name: str, *, dim: int, call_tokens: int, max_side: int = 64, max_frames: int = 4
    ) -> None:
        self.space = Space(
            model=name,
            weights_hash=name,
            reasoner="none",
            effort=0,
            dim=dim,
            prompt="",
            max_pixels=max_side**2,
            max_frames=max_frames,
        )
        self.call_tokens = call_tokens
        self.calibration: Mapping[tuple[View, View], Calibration] = {
            (asked, kept): Calibration(midpoint=0.5, slope=10.0) for asked in View for kept in View
        }

    def num_tokens(self, item: Item) -> int:
        """Every item costs the same."""
        return 1
