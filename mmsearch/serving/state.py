"""What a running server holds, and how a request gets at it.

    request -> served(request) -> Served: engines by name, settings, jobs, metrics
    request -> answer(request, work) -> work() in a thread, given up when the client leaves

Everything that takes longer than a few hundred microseconds goes through `answer`: the event
loop stays free, at most ``limits.queue`` requests are let in (Busy beyond), and whatever the
thread still has to embed is dropped once nobody waits for it.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, HTTPException
from starlette.requests import HTTPConnection, Request

from mmsearch.engine import Engine
from mmsearch.errors import Abandoned, Busy, ModelError
from mmsearch.models import model_tokens
from mmsearch.retriever.embedding.giving_up import Cancellation, heard_by
from mmsearch.retriever.embedding.passing_on import PassingOn
from mmsearch.retriever.embedding.remembered import RememberingEmbedder
from mmsearch.retriever.embedding.shared import SharedEmbedder
from mmsearch.serving.metrics import Metrics
from mmsearch.serving.settings import Settings
from mmsearch.serving.sockets import SOCKET_NAME
from mmsearch.values import Backend, Role, Space

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmsearch.retriever.embedding.tokens import ModelTokens
    from mmsearch.retriever.seams import Embedder
    from mmsearch.values import Item, Vectors

Answer = TypeVar("Answer")

_BACKEND = Backend.RESIDENT  # a server asks often enough to pay for the copy
_BUSY_RETRY_S = 1.0
_WARMING_UP = "warming up"  # any words do


class Served:
    """The engines of one server, opened, and what its routers share.

    engines:  by name, in the order of ``settings.dbs``
    jobs:     what `mmsearch.serving.jobs` runs
    metrics:  counted for /metrics
    is_ready: the models are loaded
    draining: set once the server is told to stop; streams end then
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.is_ready = False
        self.failure: Exception | None = None
        self.draining = asyncio.Event()
        self.jobs: Any = None
        self.num_running = 0
        self.metrics.running(lambda: self.num_running)
        self.index_of_socket: dict[str, str] = {}  # address of a unix socket -> name
        self._threads = ThreadPoolExecutor(settings.limits.threads, "mmsearch-request")
        self._tokens: dict[str, ModelTokens | None] = {}
        self._tokens_lock = threading.Lock()
        self._shared: list[SharedEmbedder] = []
        self.engines: dict[str, Engine] = {}
        by_space: dict[str, Engine] = {}
        for db in settings.dbs:
            engine = self._open(db, by_space)
            self.engines[_free_name(db, self.engines)] = engine
            by_space.setdefault(engine.space.id, engine)

    def _open(self, db: Path, by_space: Mapping[str, Engine]) -> Engine:
        """Return the engine of a folder; one model in memory serves all indexes of its space."""
        settings = self.settings
        engine = Engine.open(
            db,
            model=settings.model,
            device=settings.device,
            dtype=settings.dtype,
            backend=_BACKEND,
            through=self._through,
        )
        same = by_space.get(engine.space.id)
        if same is None:
            return engine
        return Engine.open(db, model=_ModelOf(same), backend=_BACKEND)

    def _through(self, embedder: "Embedder") -> "Embedder":
        """Return a model that remembers, and that puts the calls of many requests together."""
        limits = self.settings.limits
        shared = SharedEmbedder(
            embedder,
            self.settings.latency_ms / 1000,
            # `answer` lets no more in than may wait here, and a job must never be refused.
            limits.queue + limits.threads,
            on_batch=self.metrics.count_batch,
        )
        remembering = RememberingEmbedder(shared, limits.cache_bytes // len(self.settings.dbs))
        self._shared.append(shared)
        self.metrics.watch(shared, remembering)
        return remembering

    def engine(self, name: str | None = None) -> Engine:
        """Return the engine of that name; where none is named, that of the request.

        It is the index in whose socket the request came, else the first. An unknown name
        is a 404.
        """
        name = name or _MEANT_INDEX.get()
        if name is None:
            return next(iter(self.engines.values()))
        found = self.engines.get(name)
        if found is None:
            raise HTTPException(404, f"no index named {name!r}; GET /v1/status names them")
        return found

    def tokens(self, engine: Engine) -> "ModelTokens | None":
        """Return the tokens of an engine's model, read once; None where it has none."""
        name = engine.space.model
        with self._tokens_lock:
            if name not in self._tokens:
                try:
                    self._tokens[name] = model_tokens(name)
                except ModelError:
                    self._tokens[name] = None
            return self._tokens[name]

    def load(self) -> None:
        """Load the models, so that no request waits for them; what fails is kept for /readyz."""
        try:
            for engine in self.engines.values():
                engine.load()
                if engine.documents([Path("/")]):
                    engine.query(_WARMING_UP, k=1)  # opens files, copies vectors, starts threads
            self.is_ready = True
        except Exception as error:  # said to whoever started the server, who may end it
            self.failure = error
            raise

    def wait_s(self) -> float:
        """Return in how many seconds it is worth asking again, at least 1."""
        return max([_BUSY_RETRY_S, *(one.wait_s() for one in self._shared)])

    def close(self) -> None:
        """End threads and worker processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for embedder in self._shared:
            embedder.close()
        for engine in self.engines.values():
            engine.close()

    async def run(self, work: Callable[[], Answer], gone: Cancellation) -> Answer:
        """Do it in a thread, where ``gone`` is listened to."""

        def unless_gone() -> Answer:
            if gone.is_cancelled:  # while it waited for a thread
                raise Abandoned
            return work()

        with heard_by(gone):
            context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, context.run, unless_gone)


def served(request: HTTPConnection) -> Served:
    """Return what the server holds."""
    state: Served = request.app.state.served
    return state


async def _served(request: HTTPConnection) -> Served:
    return served(request)  # a dependency that is no coroutine takes two turns of a thread


State = Annotated[Served, Depends(_served)]  # what every route depends on


async def answer(request: Request, work: Callable[[], Answer]) -> Answer:
    """Return ``work()``, done in a thread while the event loop goes on.

    Raises what it raises; Busy where ``limits.queue`` requests are at work already; Abandoned
    when the client leaves first: its thread then ends at the next thing it would embed.
    """
    state = served(request)
    if state.num_running >= state.settings.limits.queue:
        raise Busy(state.wait_s())
    gone = Cancellation()
    state.num_running += 1
    working = asyncio.ensure_future(state.run(work, gone))
    working.add_done_callback(lambda _: _finished(state))
    leaving = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Abandoned
    finally:
        leaving.cancel()
        if not working.done():
            gone.cancel()
            working.add_done_callback(_look_at)


def _finished(state: Served) -> None:
    state.num_running -= 1


def _look_at(future: "asyncio.Future[Any]") -> None:
    """Take a result that nobody waits for, lest the loop complain of an error not looked at."""
    if not future.cancelled():
        future.exception()


async def _until_gone(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


_MEANT_INDEX: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "mmsearch_meant_index", default=None
)


def mean_index_of(scope: Mapping[str, Any], state: Served) -> None:
    """Let a request that came by the socket of an index and names none mean that one."""
    if came_by_socket(scope):
        _MEANT_INDEX.set(state.index_of_socket.get(scope["server"][0]))


def came_by_socket(scope: Mapping[str, Any]) -> bool:
    """Say whether a request came by the unix socket of an index: by its owner, on this machine.

    The server's own end of the connection tells, so that no client can claim it.
    """
    address = scope.get("server")
    return bool(address and address[1] is None and str(address[0]).endswith("/" + SOCKET_NAME))


def _free_name(db: Path, taken: Mapping[str, Engine]) -> str:
    """Return what an index is called: its folder, or for a hidden one the folder it lies in."""
    folder = db.resolve()
    name = folder.parent.name if folder.name.startswith(".") else folder.name
    name = name or "index"
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


class _ModelOf(PassingOn):
    """The model of another engine, loaded when that one's is: an Embedder."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(lambda: engine.embedder)
        self._engine = engine

    @property
    def space(self) -> Space:
        return self._engine.space  # known before there is a model

    def embed(self, items: "Sequence[Item]", *, role: "Role | str" = Role.DOCUMENT) -> "Vectors":
        return self._engine.embedder.embed(items, role=role)
