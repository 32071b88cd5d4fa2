"""Pack the mix into shards for a machine with a GPU that nothing can be fetched from.

    rows of the mix -> shard-000.tar, shard-001.tar, ...   at most 60 MB each
    a shard         -> pairs-000.jsonl and the pictures/ that no earlier shard has

``python -m mmsearch.retriever.training.default.pack --data DIR --out DIR`` writes them. There,
all of them unpacked into one folder, every layer that sees learns along, end to end:

    for shard in shard-*.tar; do tar xf $shard; done; cat pairs-*.jsonl > pairs.jsonl
    mmsearch train default --from pairs.jsonl --set run.device=cuda --set run.batch=512 \\
        --set run.chunk=128 --set run.save_every=100 \\
        --set 'model.frozen=["backbone.text.*", "backbone.class_names"]'

After ten minutes Ctrl-C keeps a snapshot, and the same with ``--resume`` goes on from it.
"""

import argparse
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as pil

from mmsearch.retriever.training.default.mix import read_mix
from mmsearch.retriever.training.default.pairs import HELD_OUT, VALIDATION
from mmsearch.retriever.training.examples import Example, Media, Side
from mmsearch.values import Frames

MOST_BYTES = 60_000_000
SIDE = 256  # the longest of a packed picture; the network sees about 224 x 224
QUALITY = 85
BLOCK = 512  # of a tar file: each member is padded to it and has a header of one


class Shards:
    """Writes rows one after the other; a new shard begins where the next row does not fit."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._most = folder, most_bytes
        self._known: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._lines: list[bytes] = []
        self._size = 0
        self.paths: list[Path] = []

    def add(self, example: Example) -> None:
        """Put a row into a shard, with those of its pictures that are in none yet."""
        files: dict[str, bytes] = {}
        row: dict[str, Any] = {
            "query": self._side(example.query, files),
            "positive": self._side(example.positive, files),
            "dataset": example.dataset,
            "id": example.row,
        }
        if example.negatives:
            row["negatives"] = [self._side(side, files) for side in example.negatives]
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        size = len(line) + sum(_padded(len(data)) for data in files.values())
        if self._lines and self._size + size > self._most - 10 * BLOCK:
            self.close()
        self._files |= files
        self._known |= files.keys()
        self._lines.append(line)
        self._size += size

    def close(self) -> None:
        """Write the shard that is being filled."""
        if not self._lines:
            return
        number = len(self.paths)
        path = self._folder / f"shard-{number:03}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
            rows = {f"pairs-{number:03}.jsonl": b"".join(self._lines)}
            for name, data in (rows | self._files).items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
        self.paths.append(path)
        self._files, self._lines, self._size = {}, [], 0

    def _side(self, side: Side, files: dict[str, bytes]) -> dict[str, Any]:
        parts: list[Any] = []
        for part in side.parts:
            if isinstance(part, str):
                parts.append(str(part))
                continue
            if isinstance(part, Media):
                raise TypeError(f"{part.path} is not of the mix")
            name = hashlib.blake2b(part.key.encode("utf-8", "replace"), digest_size=8).hexdigest()
            names = [f"pictures/{name}.jpg"]
            if f"pictures/{name}.jpg" in self._known or names[0] in files:
                parts.append({"image": names[0]})
                continue
            if f"pictures/{name}-0.jpg" in self._known or f"pictures/{name}-0.jpg" in files:
                opened = None
            else:
                opened = part.open()
            if opened is None or isinstance(opened, Frames):
                count = 8 if opened is None else len(opened.pixels)
                names = [f"pictures/{name}-{i}.jpg" for i in range(count)]
                if opened is not None:
                    files.update(zip(names, map(_jpeg, opened.pixels), strict=True))
                parts.append({"frames": names})
            else:
                files[names[0]] = _jpeg(opened.pixels)
                parts.append({"image": names[0]})
        told = {"rationale": side.rationale, "answer": side.answer}
        return {"parts": parts, **{name: words for name, words in told.items() if words}}


def pack(examples: Iterable[Example], out: Path, *, most_bytes: int = MOST_BYTES) -> Sequence[Path]:
    """Write the shards of ``examples`` into ``out`` and return their paths."""
    shards = Shards(out, most_bytes=most_bytes)
    for example in examples:
        shards.add(example)
    shards.close()
    return shards.paths


def _padded(size: int) -> int:
    return BLOCK + -(-size // BLOCK) * BLOCK


def _jpeg(pixels: Any) -> bytes:  # noqa: ANN401 - an array of any writer
    picture = pil.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=QUALITY)
    return packed.getvalue()


def main() -> None:
    """Pack the mix that `recipe` trains on."""
    from mmsearch.retriever.training.default.caches import training_pairs
    from mmsearch.retriever.training.default.recipe import SIZES
    from mmsearch.retriever.training.default.start import starting_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/default"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    held_out = (*HELD_OUT, *VALIDATION)
    backbone = starting_model(asked.data, seed=asked.seed).backbone
    pairs, _, train, _ = training_pairs(backbone, asked.data, asked.work / "start", books=held_out)
    examples = read_mix(
        asked.data, [pairs[i] for i in train], seed=asked.seed, sizes=SIZES, held_out=held_out
    )
    for path in pack(examples, asked.out):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
