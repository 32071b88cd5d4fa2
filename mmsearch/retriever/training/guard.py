"""What must not be trained on (being written: names and promises first)."""

from mmsearch.retriever.training.loading import Opener, open_still
from mmsearch.retriever.training.records import BadRow, Rows


class Guard:
    """Keeps a query's picture from its positive, and held-out content from training."""

    def __init__(
        self, opener: Opener = open_still, *, above: float = 0.97, looks: bool = True
    ) -> None: ...

    def hold_out(self, rows: Rows) -> None:
        """Remember what these rows show: by content and, with ``looks``, by how it looks."""

    def clean(self, rows: Rows) -> "tuple[Rows, list[BadRow]]":
        """Return the rows that may be trained on, and why each of the others may not."""
        raise NotImplementedError
