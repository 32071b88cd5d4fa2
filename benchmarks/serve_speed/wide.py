"""A server whose model costs nothing and is 1536 wide: what is left is the encoding.

python benchmarks/serve_speed/wide.py DIR      makes an empty index in DIR and serves it
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

from mmsearch import Engine  # noqa: E402
from mmsearch.retriever.seams import Calibration  # noqa: E402
from mmsearch.serving.server import Listening, serve  # noqa: E402
from mmsearch.serving.settings import Settings  # noqa: E402
from mmsearch.values import Item, Role, Space, View  # noqa: E402

if TYPE_CHECKING:
    from mmsearch.values import Vectors

WIDTH = 1536


class Wide:
    """Gives every item the next of some vectors that were drawn beforehand."""

    def __init__(self) -> None:
        self.space = Space(
            model="wide",
            weights_hash="wide",
            reasoner="none",
            effort=0,
            dim=WIDTH,
            prompt="",
            max_pixels=64 * 64,
            max_frames=1,
        )
        self.calibration: Mapping[tuple[View, View], Calibration] = {
            (asked, kept): Calibration(midpoint=0.5, slope=10.0) for asked in View for kept in View
        }
        drawn = np.random.default_rng(0).standard_normal((4096, WIDTH))
        self._rows = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    @property
    def call_tokens(self) -> int:
        return 4096

    def num_tokens(self, item: Item) -> int:
        return 1

    def embed(self, items: Sequence[Item], *, role: Role | str = Role.DOCUMENT) -> "Vectors":
        return self._rows[np.arange(len(items)) % len(self._rows)]


def main() -> None:
    """Serve until told to stop; say on stderr where, as ``mmsearch serve`` does."""
    model = Wide()
    db = Path(sys.argv[1])
    Engine.open(db, create=True, model=model).close()

    def listening(where: Listening) -> None:
        print(f"listening at {where.url}", file=sys.stderr, flush=True)

    def ready(seconds: float) -> None:
        print(f"ready after {seconds:.1f} s", file=sys.stderr, flush=True)

    serve(Settings(dbs=(db,), port=0, model=model), on_listening=listening, on_ready=ready)


if __name__ == "__main__":
    main()
