"""The application: engines behind routes.

    Settings -> make_app -> FastAPI: guard -> routes -> answer -> Engine

Each group of routes is a module with a ``router``; `guard` sees every request first.
"""

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmsearch import __version__
from mmsearch.serving.answers import handle_errors
from mmsearch.serving.guard import Guard
from mmsearch.serving.jobs import Jobs
from mmsearch.serving.settings import Settings
from mmsearch.serving.state import Served, mean_index_of

log = logging.getLogger("mmsearch.serving")

ROUTERS = ("health", "embeddings", "search", "indexing", "library", "page", "described")


def make_app(
    settings: Settings, *, on_ready: Callable[[float], object] = lambda _: None
) -> FastAPI:
    """Return the application of a server; its engines are open, its models not yet loaded.

    on_ready: is told once they are, and how many seconds that took

    Raises StoreNotFound, SpaceMismatch, ModelNotFound and what else `Engine.open` does.
    """
    state = Served(settings)
    app = FastAPI(
        title="mmsearch",
        version=__version__,
        summary="Find the page, the picture or the moment that answers a question.",
        docs_url=None,  # FastAPI's pages fetch scripts from elsewhere: `described` has ours
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.served = state
    app.state.on_ready = on_ready
    handle_errors(app)
    for name in ROUTERS:
        app.include_router(importlib.import_module(f"mmsearch.serving.{name}").router)
    state.jobs = Jobs(state)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(_Counted, state=state)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the models while the server already answers /healthz; end everything at the end."""
    state: Served = app.state.served
    loading = asyncio.ensure_future(asyncio.to_thread(_load, state, app.state.on_ready))
    try:
        yield
    finally:
        state.draining.set()
        await loading
        if state.jobs is not None:
            await asyncio.to_thread(state.jobs.close)
        await asyncio.to_thread(state.close)


def _load(state: Served, on_ready: Callable[[float], object]) -> None:
    began = time.perf_counter()
    try:
        state.load()
    except Exception:
        log.debug("the model could not be loaded", exc_info=True)  # /readyz and serve say it
    else:
        on_ready(time.perf_counter() - began)


class _Counted:
    """Outermost: counts every request and how long it took, by route; knows its socket."""

    def __init__(self, app: ASGIApp, state: Served) -> None:
        self._app, self._state, self._metrics = app, state, state.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        mean_index_of(scope, self._state)
        began = time.perf_counter()
        status = 500

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(method, route, status).inc()
            seconds = time.perf_counter() - began
            self._metrics.seconds.labels(route).observe(seconds)
            log.info("%s %s %d %.1f ms", method, route, status, seconds * 1000)
            if status == 429:
                self._metrics.refused.inc()
            elif status == 499:
                self._metrics.abandoned.inc()
        return None


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
