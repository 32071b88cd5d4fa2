"""A writer that dies: ``python killed_at.py DIR NAME`` opens an index for writing and is
killed -9 where a function of that name in the store is called first.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import lancedb  # noqa: F401  before calls are looked at: that makes all of them slow
import pyarrow.compute  # noqa: F401

from mmsearch.retriever.store.store import Store


def main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    store = Store.open(path)

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name == name and "mmsearch" in code.co_filename:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(look)
    with store.writing():
        sys.setprofile(None)


if __name__ == "__main__":
    main()
