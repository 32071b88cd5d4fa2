"""How many frames of a film a model is shown, whichever model it is."""

import numpy as np
import pytest

from mmsearch.retriever.models.policy import Limits
from mmsearch.retriever.models.tiny import LIMITS, random_model
from mmsearch.values import Frames, Item, Role


@pytest.mark.parametrize(
    ("most", "num_frames", "kept"),
    [
        (8, 1, [0]),
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (4, 10, [0, 3, 6, 9]),
        (4, 9, [0, 2, 5, 8]),
        (2, 100, [0, 99]),
        (1, 100, [0]),
    ],
)
def test_a_film_is_thinned_evenly_from_first_to_last(
    most: int, num_frames: int, kept: list[int]
) -> None:
    assert list(Limits(max_pixels=1, max_frames=most).kept_frames(num_frames)) == kept


def test_the_default_model_is_shown_no_more_frames_than_its_space_says() -> None:
    backbone = random_model(seed=0).backbone
    film = np.random.default_rng(0).integers(0, 256, (9, 40, 40, 3), dtype=np.uint8)
    whole, thinned = Item([Frames(film)]), Item([Frames(film[[0, 2, 5, 8]])])

    batch = backbone.collate([whole, thinned], role=Role.DOCUMENT)

    assert [len(batch.pictures)] == [2 * LIMITS.max_frames]
    assert backbone.num_tokens(whole) == backbone.num_tokens(thinned)
    one, other = backbone.readouts(batch)["base"]
    assert one @ other == pytest.approx(1.0, abs=1e-6)
