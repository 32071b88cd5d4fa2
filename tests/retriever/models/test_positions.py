"""Each token stands where transformers puts it, and after long films where it used to."""

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig, Qwen3VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

from mmsearch.retriever.models.backbones.patches import Grid
from mmsearch.retriever.models.backbones.positions import FILM, IMAGE, TEXT, place
from mmsearch.retriever.models.tiny_qwen import FAMILIES, tiny_hf

MODELS = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VLModel),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLModel),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VLModel),
}

# Text is a number of words; a Grid of several moments is a film.
PROMPTS: dict[str, list[int | Grid]] = {
    "words": [7],
    "one word": [1],
    "a picture": [3, Grid(1, 4, 6), 2],
    "a picture of one token": [3, Grid(1, 2, 2), 2],
    "several pictures": [1, Grid(1, 8, 2), 4, Grid(1, 2, 10), 1, Grid(1, 4, 4), 3],
    "a picture at either end": [Grid(1, 4, 4), 5, Grid(1, 6, 2)],
    "a film": [2, Grid(4, 4, 14), 3],
    "pictures and films": [1, Grid(3, 10, 4), 2, Grid(1, 6, 4), 1, Grid(2, 4, 6), 5],
}


def moment_by_moment(prompt: list[int | Grid]) -> list[int | Grid]:
    """Return what Qwen3-VL reads: a film's moments apart, their seconds in words before."""
    split: list[int | Grid] = []
    for part in prompt:
        if isinstance(part, Grid) and part.frames > 1:
            split += [3, part] * part.frames
        else:
            split.append(part)
    return split


def written(prompt: list[int | Grid], *, split: bool) -> tuple[np.ndarray, list[Grid]]:
    """Return the type of each token, and the grid of each run of features."""
    types: list[int] = []
    runs: list[Grid] = []
    for part in moment_by_moment(prompt) if split else prompt:
        if isinstance(part, int):
            types += [TEXT] * part
            continue
        runs.append(part._replace(frames=1) if split else part)
        types += [IMAGE if part.frames == 1 else FILM] * runs[-1].num_tokens(2)
    return np.array(types, dtype=np.int8), runs


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_positions_are_those_of_transformers(family: str, name: str) -> None:
    config_type, model_type = MODELS[family]
    with torch.device("meta"):
        model = model_type(config_type(**tiny_hf(family)))
    grids = [part for part in PROMPTS[name] if isinstance(part, Grid)]
    stills = [grid for grid in grids if grid.frames == 1]
    films = [grid for grid in grids if grid.frames > 1]
    types, runs = written(PROMPTS[name], split=family == "qwen3_vl")
    tells_time = family == "qwen2_5_vl"
    time = {"second_per_grid_ts": torch.ones(len(films))} if tells_time else {}

    expected, deltas = model.get_rope_index(
        torch.zeros(1, len(types), dtype=torch.long),
        torch.from_numpy(types).int()[None],
        image_grid_thw=torch.tensor(stills) if stills else None,
        video_grid_thw=torch.tensor(films) if films else None,
        **time,
    )

    # The tiny configuration has two positions a second.
    moments = [2.0 if tells_time and run.frames > 1 else 1.0 for run in runs]
    placed = place(types, runs, moments, merge=2)
    np.testing.assert_array_equal(placed.positions, expected[:, 0].numpy())
    assert placed.next_position == len(types) + int(deltas)


def test_what_follows_a_long_film_goes_on_after_its_last_moment() -> None:
    types, runs = written([1, Grid(5, 2, 2), 2], split=False)

    placed = place(types, runs, [2.0], merge=2)

    np.testing.assert_array_equal(placed.positions[0], [0, 1, 3, 5, 7, 9, 10, 11])
    np.testing.assert_array_equal(placed.positions[1], [0, 1, 1, 1, 1, 1, 10, 11])
    assert placed.next_position == 12


def test_moments_that_are_no_whole_positions_are_cut_off() -> None:
    types, runs = written([Grid(4, 2, 2), 1], split=False)

    placed = place(types, runs, [2 / 3], merge=2)

    np.testing.assert_array_equal(placed.positions[0], [0, 0, 1, 2, 3])


def test_pictures_that_touch_are_told_apart_by_their_sizes() -> None:
    types, runs = written([Grid(1, 4, 4), Grid(1, 2, 6)], split=False)

    apart = place(types, runs, [1, 1], merge=2)

    np.testing.assert_array_equal(
        apart.positions,
        [[0, 0, 0, 0, 2, 2, 2], [0, 0, 1, 1, 2, 2, 2], [0, 1, 0, 1, 2, 3, 4]],
    )
    assert apart.next_position == 5


def test_tokens_that_make_no_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="3 visual tokens do not make grids of \\[4\\]"):
        place(np.array([IMAGE] * 3, dtype=np.int8), [Grid(1, 4, 4)], [1], merge=2)
