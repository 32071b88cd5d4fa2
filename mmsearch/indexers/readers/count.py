"""How many segments a file holds, about, without making them: for estimates.

A PDF says how many pages it has; a text is read, which is quick; of a film only the length
is known before it is decoded, and how many shots are in that is guessed.
"""

import math
from pathlib import Path

from mmsearch.indexers.readers import read
from mmsearch.values import Kind, ReadPolicy

CLIP_S = 5.0  # of a clip on average: 4.9 in ``sample_corpus``


def count(path: Path, kind: Kind, policy: ReadPolicy) -> int:
    """Return the number of segments, at least 1. Raises what the decoders raise."""
    if kind is Kind.IMAGE:
        return 1
    if kind is Kind.TEXT:
        return sum(1 for _ in read(path, kind, policy))
    if kind is Kind.PDF:
        from mmsearch.indexers.readers.pdf import num_pages

        return num_pages(path, policy)
    from mmsearch.indexers.readers.video import seconds

    return max(1, min(math.ceil(seconds(path, policy) / CLIP_S), policy.max_clips))
