"""A server whose model costs nothing and is 1536 wide: what is left is the encoding.

python benchmarks/serve_speed/wide.py DIR      makes an empty index in DIR and serves it
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "benchmarks")) if path not in sys.path]

from modelless import Modelless  # noqa: E402

from mmsearch import Engine  # noqa: E402
from mmsearch.serving.server import Listening, serve  # noqa: E402
from mmsearch.serving.settings import Settings  # noqa: E402
from mmsearch.values import Item, Role  # noqa: E402

if TYPE_CHECKING:
    from mmsearch.values import Vectors

WIDTH = 1536


class Wide(Modelless):
    """Gives every item the next of some vectors that were drawn beforehand."""

    def __init__(self) -> None:
        super().__init__("wide", dim=WIDTH, call_tokens=4096)
        drawn = np.random.default_rng(0).standard_normal((4096, WIDTH))
        self._rows = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

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
