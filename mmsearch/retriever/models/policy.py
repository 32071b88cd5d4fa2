"""What pixels a model sees of a picture or a film: part of its space, kept in its folder.

``max_pixels`` of a picture and ``max_frames`` of a film are not here: they are the user's
(`ModelDescription`), and the model's defaults for them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The user's share of the policy: the most pixels of a picture, and frames of a film."""

    max_pixels: int
    max_frames: int

    def kept_frames(self, num_frames: int) -> range | list[int]:
        """Return which frames of a film are shown: all, or so many evenly from first to last."""
        if num_frames <= self.max_frames:
            return range(num_frames)
        if self.max_frames == 1:
            return [0]
        return [i * (num_frames - 1) // (self.max_frames - 1) for i in range(self.max_frames)]


@dataclass(frozen=True, slots=True)
class VisualPolicy:
    """How pictures are sized before they are cut into patches.

    min_pixels:       a smaller picture is enlarged to this many
    first_min_pixels: floor of a resize that comes before the other one, as in qwen-vl-utils;
                      0 for a single resize
    first_max_pixels: ceiling of that first resize
    frame_min_pixels, frame_max_pixels: of one frame of a film; 0 for those of a picture
    frame_first_unit: the first resize of frames is to multiples of this many tokens a side;
                      2 in qwen-vl-utils 0.0.14
    film_min_pixels, film_max_pixels: of all frames of a film together, as Qwen3-VL counts;
                      0 for no such bound
    frame_rate:       frames a second that films are taken to have been sampled at, for
                      models that tell time
    blank_image:      put a white 28x28 picture before an item without pixels, as UME-R1
                      and PLUME did when they were measured
    """

    min_pixels: int = 4 * 28 * 28
    first_min_pixels: int = 0
    first_max_pixels: int = 16_384 * 28 * 28
    frame_min_pixels: int = 0
    frame_max_pixels: int = 0
    frame_first_unit: int = 1
    film_min_pixels: int = 0
    film_max_pixels: int = 0
    frame_rate: float = 2.0
    blank_image: bool = False
