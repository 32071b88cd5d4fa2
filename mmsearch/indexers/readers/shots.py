"""Where a film cuts, told from small pictures of its frames as they come by."""

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy.typing as npt

    from mmsearch.values import Pixels

MIN_SHOT_S = 1.0
"""Seconds; a shorter shot is a flash, and goes with its neighbour."""

# A cut changes where the light is and which colours there are; movement changes the first
# much more than the second. Of the two together (`Signature.distance`): talking heads lie
# under 0.03, fast pans and passing cars reach 0.13, cuts begin at 0.14 and are mostly 0.2-0.8.
_LEAST, _RESTLESS = 0.16, 3.0  # a cut stands out by this much, and from the usual movement
_LEAST_HINTED, _RESTLESS_HINTED = 0.09, 2.0  # where the encoder saw a cut as well
_MOST = 0.35  # is a cut in however restless a film
_REMEMBERED = 24


class CutDetector:
    """Says of each sampled frame whether a new shot begins with it."""

    def __init__(self) -> None:
        self._last: Signature | None = None
        self._changes: deque[float] = deque(maxlen=_REMEMBERED)

    def is_cut(self, frame: "Pixels", *, hinted: bool = False) -> bool:
        """Compare an RGB frame ``[h, w, 3]`` with the one before; the first is no cut.

        ``hinted`` says that the encoder started afresh between the two, as it does at cuts.
        """
        signature, last = Signature(frame), self._last
        self._last = signature
        if last is None:
            return False
        change = signature.distance(last)
        usual = median(self._changes) if len(self._changes) >= 4 else 0.0
        least, restless = (_LEAST_HINTED, _RESTLESS_HINTED) if hinted else (_LEAST, _RESTLESS)
        self._changes.append(change)
        return change > min(max(least, restless * usual), _MOST)


class Signature:
    """A frame as 32 x 18 pixels, and how its light is distributed in each colour."""

    def __init__(self, frame: "Pixels") -> None:
        import numpy as np
        from PIL import Image

        picture = Image.fromarray(frame).resize((32, 18), Image.Resampling.BOX)
        self.small: npt.NDArray[np.int16] = np.asarray(picture).astype(np.int16)
        # Sorted values are the distribution's quantiles: their distance (earth mover's) grows
        # smoothly with a fade, where bins of a histogram would all empty at once.
        self.quantiles = np.sort(self.small.reshape(-1, 3), axis=0)

    def distance(self, other: "Signature") -> float:
        """Return how much changed, in [0, 1.5]."""
        import numpy as np

        light = float(np.abs(self.small - other.small).mean()) / 255
        colour = float(np.abs(self.quantiles - other.quantiles).mean()) / 255
        return light / 2 + colour
