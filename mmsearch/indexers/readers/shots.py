"""Where a film cuts, told from small pictures of its frames as they come by."""

from collections import deque
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mmsearch.values import Pixels

MIN_SHOT_S = 1.0
"""Seconds; a shorter shot is a flash, and goes with its neighbour."""

# A cut changes where the light is and how much of each colour there is; movement changes
# the first alone. Of the mean of both, in [0, 1]: films of talking heads lie under 0.02,
# fast pans near 0.1, cuts mostly above 0.2.
_LEAST = 0.12
_MOST = 0.30  # however restless the film
_RESTLESS = 3.0  # a cut stands out from the film's usual movement by this factor
_REMEMBERED = 24
_BINS = 8


class CutDetector:
    """Says of each sampled frame whether a new shot begins with it."""

    def __init__(self) -> None:
        self._last: Signature | None = None
        self._changes: deque[float] = deque(maxlen=_REMEMBERED)

    def is_cut(self, frame: "Pixels") -> bool:
        """Compare an RGB frame ``[h, w, 3]`` with the one before; the first is no cut."""
        signature, last = Signature(frame), self._last
        self._last = signature
        if last is None:
            return False
        change = signature.distance(last)
        usual = median(self._changes) if len(self._changes) >= 4 else 0.0
        found = change > min(max(_LEAST, _RESTLESS * usual), _MOST)
        self._changes.append(change)
        return found


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

    def distances(self, other: "Signature") -> tuple[float, float]:
        """Return how far light moved and how far colours changed, each in [0, 1]."""
        import numpy as np

        light = float(np.abs(self.small - other.small).mean()) / 255
        colour = float(np.abs(self.quantiles - other.quantiles).mean()) / 255
        return light, colour

    def distance(self, other: "Signature") -> float:
        """Return how much changed, in [0, 1]."""
        light, colour = self.distances(other)
        return (light + colour) / 2
