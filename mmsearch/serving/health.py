"""Whether the server lives, whether it can answer, and what it counted."""

from fastapi import APIRouter, Response

from mmsearch import __version__
from mmsearch.serving.metrics import CONTENT_TYPE
from mmsearch.serving.state import State

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process lives")
async def healthz() -> dict[str, str]:
    """Answer 200 as long as the server runs, drained or not."""
    return {"status": "ok", "version": __version__}


@router.get(
    "/readyz", summary="Models are loaded", responses={503: {"description": "Not yet, or no more"}}
)
async def readyz(state: State, response: Response) -> dict[str, str]:
    """Answer 200 once every model is loaded, and 503 before, and while draining."""
    if state.draining.is_set():
        response.status_code = 503
        return {"status": "draining"}
    if not state.is_ready:
        response.status_code = 503
        return {"status": "failed" if state.failure else "loading"}
    return {"status": "ready"}


@router.get("/metrics", summary="Counters, for Prometheus", response_class=Response)
async def metrics(state: State) -> Response:
    """Return what was counted, in Prometheus' text format."""
    return Response(state.metrics.text(), media_type=CONTENT_TYPE)
