"""Each token stands where transformers puts it."""

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
    "a film": [2, Grid(4, 4, 6), 3],
    "a film longer than wide": [2, Grid(9, 2, 2), 6],
    "pictures and films": [1, Grid(3, 2, 4), 2, Grid(1, 6, 4), 1, Grid(2, 4, 4), 5],
}


def types_of(prompt: list[int | Grid]) -> np.ndarray:
    runs = [
        [TEXT] * part
        if isinstance(part, int)
        else [IMAGE if part.frames == 1 else FILM] * part.num_tokens(2)
        for part in prompt
    ]
    return np.array([kind for run in runs for kind in run], dtype=np.int8)


def moment_by_moment(prompt: list[int | Grid]) -> list[int | Grid]:
    """Return what Qwen3-VL reads: a film's moments apart, their seconds in words before."""
    split: list[int | Grid] = []
    for part in prompt:
        if isinstance(part, Grid) and part.frames > 1:
            for _ in range(part.frames):
                split += [3, part._replace(frames=1)]
        else:
            split.append(part)
    return split


@pytest.mark.parametrize("seconds", [1.0, 0.4, 2 / 3])
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_positions_are_those_of_transformers(family: str, name: str, seconds: float) -> None:
    config_type, model_type = MODELS[family]
    with torch.device("meta"):
        model = model_type(config_type(**tiny_hf(family)))
    prompt = PROMPTS[name]
    whole = [part for part in prompt if isinstance(part, Grid)]
    stills = [grid for grid in whole if grid.frames == 1]
    films = [grid for grid in whole if grid.frames > 1]
    types = types_of(prompt)
    if family == "qwen3_vl":
        prompt = moment_by_moment(prompt)
        lengths = [part if isinstance(part, int) else part.num_tokens(2) for part in prompt]
        films_left = [grid for grid in prompt if isinstance(grid, Grid)]
        kinds = [FILM if grid.frames > 1 else IMAGE for grid in whole for _ in range(grid.frames)]
        left = iter(kinds)
        runs = [TEXT if isinstance(part, int) else next(left) for part in prompt]
        types = np.repeat(np.array(runs, dtype=np.int8), lengths)
        whole_runs = films_left
    else:
        whole_runs = whole
    extra = {}
    if family == "qwen2_5_vl" and films:
        extra["second_per_grid_ts"] = torch.tensor([seconds] * len(films))

    expected, deltas = model.get_rope_index(
        torch.zeros(1, len(types), dtype=torch.long),
        torch.from_numpy(types).int()[None],
        image_grid_thw=torch.tensor(stills) if stills else None,
        video_grid_thw=torch.tensor(films) if films else None,
        **extra,
    )

    tells_time = family == "qwen2_5_vl"
    moments = [2 * seconds if tells_time and run.frames > 1 else 1.0 for run in whole_runs]
    placed = place(types, whole_runs, moments, merge=2)
    np.testing.assert_array_equal(placed.positions, expected[:, 0].numpy())
    assert placed.next_position == len(types) + int(deltas)


def test_pictures_that_touch_are_told_apart_by_their_sizes() -> None:
    apart = place(
        types_of([Grid(1, 4, 4), Grid(1, 2, 6)]), [Grid(1, 4, 4), Grid(1, 2, 6)], [1, 1], merge=2
    )

    np.testing.assert_array_equal(
        apart.positions,
        [[0, 0, 0, 0, 2, 2, 2], [0, 0, 1, 1, 2, 2, 2], [0, 1, 0, 1, 2, 3, 4]],
    )
    assert apart.next_position == 5


def test_tokens_that_make_no_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="3 visual tokens do not make grids of \\[4\\]"):
        place(np.array([IMAGE] * 3, dtype=np.int8), [Grid(1, 4, 4)], [1], merge=2)
