"""What can go wrong, said so that the reader can mend it.

    MMSearchError                catch this to catch them all               exit code
    ├── BadInput                 a file, a query or a setting we were handed    1
    │   ├── UnreadableFile       one source; ends that document, not the run
    │   ├── NothingToIndex       no such path, or no supported file under it
    │   ├── FilesGone            a rebuild would lose documents whose file is not there
    │   ├── EmptyQuery
    │   ├── BadUpload            a part of a request that cannot be used
    │   ├── TooLarge             a request of more than a server takes
    │   ├── NotAllowed           a file or an address that a server may not touch
    │   ├── BadFilter            ``where`` is not SQL over the filter columns
    │   ├── BadQueryFile         a line of queries.jsonl
    │   ├── BadConfig            a training configuration                       2
    │   ├── BadTrainingFile      holds no row that can be trained on
    │   └── BadExample           training rows whose words or media cannot be used
    ├── StoreError               the folder the vectors live in                 1
    │   ├── StoreNotFound
    │   ├── StoreLocked          another process is writing
    │   ├── StoreDamaged
    │   ├── StoreOutdated        written by an older mmsearch, not yet brought up to date
    │   ├── SegmentNotFound
    │   ├── DocumentNotFound     also where its file is gone or is another one by now
    │   └── SpaceMismatch        written by another model                       4
    ├── ModelError               weights or what they computed                  1
    │   ├── ModelNotFound
    │   ├── BadCheckpoint
    │   ├── BadSetting           an effort, a size or a device there is not    2
    │   ├── BadItem              longer than the model can read
    │   ├── OutOfMemory          one item alone is more than the device holds
    │   ├── DownloadFailed       a hub that cannot be reached, or sends something else
    │   ├── ToBeConverted        a fetched model that is not used as it is
    │   ├── NotPulled            a model that is not ours to remove
    │   ├── ConversionFailed     a published model that could not be put into our format
    │   └── BadVectors           NaN, infinite or of the wrong shape
    ├── TrainingStopped          a run that cannot go on; its last snapshot is good   1
    ├── Unanswered               a server that does not answer this request     1
    │   ├── Busy                 more is waiting than it can answer soon
    │   └── Abandoned            whoever asked has gone
    ├── ServerError              a server that we asked said no, or nothing     1
    └── MissingExtra             an optional dependency is not installed        1

Programming mistakes (a wrong shape, a negative k) stay plain ValueError and
TypeError: no caller should be tempted to catch them.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path


class MMSearchError(Exception):
    """Base of every error a caller may want to handle.

    ``str(error)`` is one sentence that names the thing at fault; ``hint`` is
    the next thing to type or do, empty where there is none; ``exit_code`` is
    what the command line ends with.
    """

    hint: str = ""
    exit_code: int = 1


class BadInput(MMSearchError):
    """Something we were handed cannot be used."""


class UnreadableFile(BadInput):
    """One source cannot be read; ``reason`` is a short clause for the report."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = str(path), reason
        super().__init__(f"cannot read {path}: {reason}")

    def __reduce__(self) -> tuple[type["UnreadableFile"], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # it crosses a process boundary


class NothingToIndex(BadInput):
    """There is no such path, or nothing under it that a reader understands."""

    def __init__(self, path: Path | str, reason: str, *, hint: str = "") -> None:
        self.path = str(path)
        self.hint = hint or (
            "name a PDF, image, video or text file, or a folder that holds some; "
            "'mmsearch remove' takes out what was deleted"
        )
        super().__init__(f"nothing to index at {path}: {reason}")


class FilesGone(BadInput):
    """Documents of an index whose files are not there, and which a rebuild would lose."""

    hint = "bring them back (is a disk not mounted?), or --forget-missing"

    def __init__(self, db: Path | str, paths: Sequence[str], *, num_documents: int) -> None:
        self.paths = tuple(paths)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        super().__init__(
            f"{len(paths)} of the {num_documents} files that {db} knows are gone: {paths[0]}{more}"
        )


class EmptyQuery(BadInput):
    """A query without text, image, video or page."""

    hint = 'mmsearch query "chart showing ..." --image q.png'

    def __init__(self) -> None:
        super().__init__("the query is empty")


class BadUpload(BadInput):
    """A part of a request that cannot be used; ``name`` is where it stands: ``images[1]``.

    Its text never quotes a decoder, nor says where the part was kept meanwhile.
    """

    def __init__(self, name: str, reason: str, *, hint: str = "") -> None:
        self.name, self.hint = name, hint
        super().__init__(f"{name}: {reason}")


class TooLarge(BadInput):
    """A request of more than a server takes."""

    def __init__(self, what: str, limit: str) -> None:
        self.hint = "send less in one request"
        super().__init__(f"{what} is over the limit of {limit}")


class NotAllowed(BadInput):
    """A file or an address that a server was not told it may touch."""

    def __init__(self, what: str, reason: str, *, hint: str = "") -> None:
        self.hint = hint
        super().__init__(f"{what}: {reason}")


class BadFilter(BadInput):
    """A filter that the store cannot evaluate."""

    def __init__(self, where: str, reason: str) -> None:
        self.where = where
        self.hint = 'columns: path, kind, page, start, end, num_words, modified; e.g. "page <= 3"'
        super().__init__(f"cannot filter by {where!r}: {reason}")


class BadQueryFile(BadInput):
    """A line of a query file is not what ``mmsearch eval`` reads."""

    def __init__(self, path: Path | str, line: int, reason: str) -> None:
        self.path, self.line = str(path), line
        self.hint = 'one object a line: {"id", "kind", "text"?, "images"?, "relevant": [...]}'
        super().__init__(f"{path}, line {line}: {reason}")


class BadConfig(BadInput):
    """A training configuration that cannot be followed; ``line`` is 0 where none is at fault."""

    exit_code = 2

    def __init__(self, path: Path | str, reason: str, *, line: int = 0, hint: str = "") -> None:
        self.path, self.line = str(path), line
        self.hint = hint or "'mmsearch train --help' names the ready configurations to start from"
        where = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{where}: {reason}")


class BadTrainingFile(BadInput):
    """A file of training examples that cannot be read, or that holds none."""

    def __init__(self, path: Path | str, reason: str, *, hint: str = "") -> None:
        self.path, self.reason = str(path), reason
        self.hint = (
            hint or 'one object a line: {"query": ..., "positive": ..., "negatives"?: [...]}'
        )
        super().__init__(f"cannot train on {path}: {reason}")


class BadExample(BadInput):
    """Training rows that cannot be used: ``reasons`` says why, by the name of the row."""

    hint = 'mend or delete the row; bad_rows = "drop" takes another of its data set instead'

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        self.row, reason = next(iter(self.reasons.items()))
        more = f" ({len(self.reasons) - 1} more of its batch)" if len(self.reasons) > 1 else ""
        super().__init__(f"{self.row} cannot be trained on: {reason}{more}")


class StoreError(MMSearchError):
    """The store cannot serve this request."""


class StoreNotFound(StoreError):
    """No index at that path."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self.hint = f"mmsearch index FILES... --db {shlex.quote(self.path)}"
        super().__init__(f"no index at {path}")


class StoreLocked(StoreError):
    """Another process is writing to this index."""

    def __init__(self, path: Path | str, holder: str) -> None:
        self.path, self.holder = str(path), holder
        self.hint = "wait for it to finish; reading and querying work meanwhile"
        super().__init__(f"{path} is being written by {holder}")


class StoreDamaged(StoreError):
    """The folder is there, but it is not an index that this version can read."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path = str(path)
        self.hint = (
            f"mmsearch doctor --db {shlex.quote(self.path)}, "
            "or index the files again into a new folder"
        )
        super().__init__(f"{path} cannot be opened: {reason}")


class StoreOutdated(StoreError):
    """An index of an older schema; the next writer brings it up to date."""

    def __init__(self, path: Path | str, *, schema: int, current: int) -> None:
        self.path = str(path)
        self.hint = f"mmsearch optimize --db {shlex.quote(self.path)}"
        super().__init__(
            f"{path} was made by an older mmsearch (schema {schema}, this one reads {current}) "
            f"and has to be brought up to date once"
        )


class SegmentNotFound(StoreError):
    """No segment with that id."""

    def __init__(self, segment_id: str) -> None:
        self.segment_id = segment_id
        self.hint = "ids are printed by 'mmsearch query --json'; re-indexing a file keeps them"
        super().__init__(f"no segment {segment_id}")


class DocumentNotFound(StoreError):
    """No document with that id, or none whose file is what was indexed."""

    def __init__(self, document_id: str, reason: str = "") -> None:
        self.document_id = document_id
        self.hint = "index its folder again" if reason else "GET /v1/documents lists them"
        super().__init__(f"no document {document_id}{reason and ': '}{reason}")


class SpaceMismatch(StoreError):
    """The index holds vectors of another embedding space.

    options: of ``mmsearch rebuild``, for an index of the space that was asked for
    """

    exit_code = 4

    def __init__(
        self,
        path: Path | str,
        *,
        stored: str,
        asked: str,
        difference: str,
        same_model: bool,
        same_name: bool = False,
        options: str = "",
    ) -> None:
        self.path, self.stored, self.asked = str(path), stored, asked
        ask = "leave its settings as the index has them" if same_model else "ask with that model"
        if same_name and not same_model:
            ask = "that model has changed since: put back what it was"
        anew = "index the files into a new folder (--db DIR)"
        if options:
            anew = f"embed its files anew: mmsearch rebuild {options} --db {shlex.quote(self.path)}"
        self.hint = f"{ask}, or {anew}"
        super().__init__(f"{path} holds vectors of {stored}, not of {asked}: {difference}")


class ModelError(MMSearchError):
    """A model cannot be loaded, or what it computed cannot be used."""


class ModelNotFound(ModelError):
    """No model of that name or at that path."""

    hint = "mmsearch model list"

    def __init__(self, name: str, *, index: Path | str | None = None) -> None:
        self.name = name
        made = "" if index is None else f"; {index} was made with it"
        if made:
            self.hint = "--model DIR says where that folder is now"
        super().__init__(f"no model named {name!r}, and no such folder{made}")


class BadCheckpoint(ModelError):
    """A model folder is incomplete or does not match its own description."""

    def __init__(self, path: Path | str, reason: str) -> None:
        self.path, self.reason = str(path), reason
        self.hint = "fetch the model again, or install mmsearch again if it came with it"
        super().__init__(f"model at {path} cannot be loaded: {reason}")


class BadSetting(ModelError):
    """A setting that this model, or this machine, does not have."""

    exit_code = 2

    def __init__(self, setting: str, reason: str, *, hint: str = "") -> None:
        self.setting, self.hint = setting, hint
        super().__init__(f"{setting}: {reason}")


class BadItem(ModelError):
    """An item that is longer than the model can read."""

    hint = "shorten the text, or ask with fewer or smaller pictures (--max-pixels)"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the item does not fit the model: {reason}")


class OutOfMemory(ModelError):
    """One item alone takes more memory than the device has."""

    hint = "--max-pixels N lowers what a picture takes; --device cpu uses the machine's memory"

    def __init__(self, device: str) -> None:
        super().__init__(f"one item alone does not fit into the memory of {device}")


class DownloadFailed(ModelError):
    """A model could not be fetched whole; what came is kept, and the next try goes on."""

    def __init__(self, name: str, reason: str, *, hint: str) -> None:
        self.name, self.hint = name, hint
        super().__init__(f"cannot fetch {name}: {reason}")


class ToBeConverted(ModelError):
    """A model that was fetched to ``folder`` and cannot be used as it was published."""

    def __init__(self, name: str, folder: Path | str, reason: str) -> None:
        self.name, self.folder = name, str(folder)
        self.hint = f"mmsearch model convert {name} DIR, then name DIR with --model"
        super().__init__(f"{name} was fetched to {folder}, but {reason}")


class NotPulled(ModelError):
    """A model that 'mmsearch model pull' did not fetch, so it is not removed either."""

    hint = "mmsearch model list"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"{name!r} was not pulled, so there is nothing to remove")


class ConversionFailed(ModelError):
    """A published model was not put into our format; nothing of it is left behind."""

    def __init__(self, source: Path | str, reason: str, *, hint: str = "") -> None:
        self.source, self.hint = str(source), hint
        super().__init__(f"cannot convert {source}: {reason}")


class BadVectors(ModelError):
    """An embedder returned NaN, infinite or wrongly shaped vectors."""

    def __init__(self, reason: str) -> None:
        self.hint = "the input, the model or its precision (--dtype) is at fault"
        super().__init__(f"the model returned unusable vectors: {reason}")


class TrainingStopped(MMSearchError):
    """A training run that cannot go on; what it had saved before is kept."""

    def __init__(self, reason: str, *, hint: str = "") -> None:
        self.hint = hint
        super().__init__(f"training stopped: {reason}")


class Unanswered(MMSearchError):
    """A request that a server does not answer, though nothing is wrong with it."""


class Busy(Unanswered):
    """More is waiting than can be answered soon; ``retry_after_s`` says when to ask again."""

    def __init__(self, retry_after_s: float, *, what: str = "the server") -> None:
        self.retry_after_s = retry_after_s
        self.hint = f"ask again in {max(retry_after_s, 1):.0f} s"
        super().__init__(f"{what} has more waiting than it can answer soon")


class Abandoned(Unanswered):
    """Whoever asked has gone, so that nothing more is computed for it."""

    def __init__(self) -> None:
        super().__init__("the request was given up by whoever made it")


class ServerError(MMSearchError):
    """A server that we asked refused, or did not answer.

    status: as HTTP has it; 0 where there was no answer
    """

    def __init__(self, url: str, reason: str, *, status: int = 0, hint: str = "") -> None:
        self.url, self.status, self.hint = url, status, hint
        super().__init__(f"{url} {'refused' if status else 'did not answer'}: {reason}")


class MissingExtra(MMSearchError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        self.hint = f"pip install 'mmsearch[{extra}]'"
        super().__init__(f"this needs {package}, which is not installed")
