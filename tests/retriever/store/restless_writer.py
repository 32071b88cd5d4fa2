"""A process that writes until it is killed: python restless_writer.py DB SEED.

It replaces, adds, removes and fails documents. On stdout it says, one JSON line each, that
it is ready, what it is about to do and, when the call has returned, that it is done. Every
version of a document has pages whose texts name that version.
"""

import json
import random
import sys
from pathlib import Path

from toy_store import a_document, pages

from mmsearch.retriever.store.store import Store
from mmsearch.values import Status

PATHS = [f"/docs/{name}.pdf" for name in "abcde"]


def version_pages(path: str, version: int) -> list[str]:
    return [f"version {version} of {path}"] * (1 + version % 4)


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(folder: Path, seed: int) -> None:
    choose = random.Random(seed)
    with Store.open(folder).writing() as writer:
        say(ready=True)
        for version in range(seed * 10_000, (seed + 1) * 10_000):
            some = choose.sample(PATHS, choose.randint(1, 3))
            what = choose.choices(["commit", "fail", "remove", "refresh"], [12, 1, 1, 1])[0]
            say(begin=what, paths=some, version=version)
            if what == "commit":
                texts = {path: version_pages(path, version) for path in some}
                writer.commit_all([(a_document(p), pages(p, texts[p])) for p in some])
            elif what == "fail":
                writer.commit_all([(a_document(p, status=Status.FAILED), []) for p in some])
            elif what == "remove":
                writer.remove(some)
            else:
                writer.refresh()
            say(done=what, paths=some, version=version)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
