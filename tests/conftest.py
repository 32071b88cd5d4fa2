"""A world small enough to hold in the head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from mmsearch.errors import BadVectors
from mmsearch.retriever.seams import Calibration
from mmsearch.values import Item, Role, Space, Text, View

if TYPE_CHECKING:
    from mmsearch.values import Vectors

pytest_plugins = ("toy_hub", "toy_terminal")  # fixtures of several files

# The same examples every time, and no test fails because the machine is busy.
settings.register_profile(
    "mmsearch", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("mmsearch")

WORDS = ("cat", "dog", "chart", "pump", "museum")
POISON = "poison"


class WordEmbedder:
    """Counts WORDS and averages colours: its vectors can be worked out on paper.

    A text of none of the WORDS lies in a direction of its own, and an item that says
    POISON has no vector at all.
    """

    def __init__(self, name: str = "words") -> None:
        self.space = Space(
            model=name,
            weights_hash=name,
            reasoner="none",
            effort=0,
            dim=len(WORDS) + 4,
            prompt="",
            max_pixels=64 * 64,
            max_frames=4,
        )
        self.calibration: Mapping[tuple[View, View], Calibration] = {
            (asked, kept): Calibration(midpoint=0.5, slope=10.0) for asked in View for kept in View
        }

    @property
    def call_tokens(self) -> int:
        return 24

    def num_tokens(self, item: Item) -> int:
        return 1

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        rows = np.stack([self._row(item) for item in items])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def _row(self, item: Item) -> "Vectors":
        row = np.zeros(self.space.dim)
        for part in item.parts:
            if isinstance(part, Text):
                words = part.text.lower().split()
                if POISON in words:
                    raise BadVectors("NaN for an item that says poison")
                counts = [sum(word.startswith(known) for word in words) for known in WORDS]
                row[: len(WORDS)] += counts
                row[-1] += not any(counts)
            else:
                row[len(WORDS) : -1] += part.pixels.reshape(-1, 3).mean(0) / 255
        row[-1] += 1e-3  # black is a colour too
        return row.astype(np.float32)


@pytest.fixture(autouse=True)
def models_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where models are pulled to: no test sees those of whoever runs it."""
    home = tmp_path_factory.getbasetemp() / "no-models"
    monkeypatch.setenv("MMSEARCH_MODELS", str(home))
    return home


@pytest.fixture
def embedder() -> WordEmbedder:
    return WordEmbedder()
