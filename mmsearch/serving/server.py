"""The running server: sockets, signals, and an orderly end.

    Settings -> check -> engines open -> listen -> models load -> ready -> SIGTERM -> drained

It answers /healthz as soon as it listens, and everything that needs no model; a request that
needs one waits for it. Told to stop, it takes no new connection, lets what is at work finish
for ``limits.drain_s`` seconds, and ends.
"""

import contextlib
import importlib.util
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mmsearch.errors import MissingExtra
from mmsearch.serving.settings import Settings
from mmsearch.serving.sockets import FolderListener, folder_listener, tcp_listener

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from mmsearch.serving.state import Served

log = logging.getLogger("mmsearch.serving")

_LIBRARIES = ("fastapi", "uvicorn", "multipart", "prometheus_client")
_BACKLOG = 512
_MOST_CONNECTIONS = 512  # a process may have 1,024 files open, by default, and ours are some
_MOST_HEAD_BYTES = 32 * 1024
_KEEP_ALIVE_S = 30


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server can be reached.

    url:     ``http://127.0.0.1:7700``
    sockets: in the folders of its indexes
    notices: why an index has none
    """

    url: str
    sockets: tuple[Path, ...]
    notices: tuple[str, ...]


def check_libraries() -> None:
    """Raise MissingExtra where what a server needs is not installed."""
    for name in _LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise MissingExtra(name, "serve")


def serve(
    settings: Settings,
    *,
    on_listening: Callable[[Listening], object] = lambda _: None,
    on_ready: Callable[[float], object] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until ``stop`` is set; return once it is drained.

    on_listening: is told where, once connections are accepted
    on_ready:     is told after how many seconds, once the models are loaded, and after that
    Raises BadSetting for an address beyond this machine without a key, or one that is taken;
    MissingExtra; what `Engine.open` raises; and what loading a model raises.
    """
    settings.check_exposure()
    check_libraries()
    from mmsearch.serving.app import make_app

    with contextlib.ExitStack() as cleanup:
        listener = cleanup.enter_context(tcp_listener(settings.host, settings.port))
        listens = threading.Event()
        cleanup.callback(listens.set)

        def ready(seconds: float) -> None:
            listens.wait()  # a small model may be loaded before: first things first
            on_ready(seconds)

        app = make_app(settings, on_ready=ready)
        state: Served = app.state.served
        cleanup.callback(state.close)
        in_folders: list[FolderListener] = []
        notices = []
        for name, engine in state.engines.items():
            made = folder_listener(engine.path)
            if isinstance(made, str):
                notices.append(made)
                continue
            cleanup.callback(made.remove)
            in_folders.append(made)
            state.index_of_socket[made.socket.getsockname()] = name
        where = Listening(_url(listener), tuple(one.path for one in in_folders), tuple(notices))

        def listening() -> None:
            on_listening(where)
            listens.set()

        server = _server(app, settings, stop or threading.Event(), listening)
        server.run(sockets=[listener, *(one.socket for one in in_folders)])
        if state.failure is not None:
            raise state.failure


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Serve in a thread of this process for as long as the block lasts; yields the URL.

    The block begins once the models are loaded. Raises as `serve` does.
    """
    stop, ready = threading.Event(), threading.Event()
    where: list[Listening] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            serve(
                settings,
                on_listening=where.append,
                on_ready=lambda _: ready.set(),
                stop=stop,
            )
        except BaseException as error:  # it is raised where the block is
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="mmsearch-server", daemon=True)
    thread.start()
    ready.wait()
    try:
        if not failed:
            yield where[0].url
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(
    app: "FastAPI",
    settings: Settings,
    stop: threading.Event,
    on_listening: Callable[[], object],
) -> "uvicorn.Server":
    import uvicorn

    from mmsearch.serving.connections import patient

    state: Served = app.state.served

    class Server(uvicorn.Server):
        """Ends with 0 when told to, tells streams first, and stops where a model fails."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            on_listening()

        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or stop.is_set() or state.failure is not None

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            state.draining.set()
            log.info("draining: %d requests at work", state.num_running)
            await super().shutdown(sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # Not kept for uvicorn to raise again at the end: a drained server has not failed.
            # A second one does not wait: whoever asks twice means it.
            self.force_exit = self.should_exit
            self.should_exit = True

    return Server(
        uvicorn.Config(
            app,
            http=patient(settings.limits.head_timeout_s),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # who asks is who connected, whatever a header says
            server_header=False,
            backlog=_BACKLOG,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(settings.limits.drain_s)),
        )
    )
