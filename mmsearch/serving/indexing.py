"""Changing an index over HTTP: jobs that index and remove, and how far they are.

    POST /v1/index, DELETE /v1/documents/{id} -> 202 and a job -> GET /v1/jobs/{id}, its events

Only what lies under the server's roots, once all links are followed, is indexed or removed.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from mmsearch.engine import Engine
from mmsearch.errors import Busy, NotAllowed, NothingToIndex
from mmsearch.serving.jobs import Job, Jobs, report_json
from mmsearch.serving.library import Id, Index, find_document
from mmsearch.serving.parts import is_within, real_path
from mmsearch.serving.state import Served, State, answer

router = APIRouter(prefix="/v1", tags=["indexing"])

_LOOK_EVERY_S = 0.2  # at a job that is followed
_SIGN_OF_LIFE_S = 15.0  # so that nothing between here and the client takes us for dead
_MOST_FOLLOWED = 64
_MOST_WILDCARDS = 4  # in a glob; with many of them matching takes time without end


def _plain_glob(glob: str) -> str:
    if glob.count("*") > _MOST_WILDCARDS * 2:
        raise ValueError(f"a glob has at most {_MOST_WILDCARDS * 2} stars")
    return glob


Glob = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain_glob)]


class IndexBody(BaseModel):
    """What to bring the index up to date with."""

    model_config = ConfigDict(extra="forbid")

    paths: list[Annotated[str, Field(max_length=4_096)]] = Field(
        min_length=1, max_length=64, description="Absolute, under the server's roots."
    )
    include: list[Glob] = Field(default=[], max_length=16)
    exclude: list[Glob] = Field(default=[], max_length=16)
    ocr: bool = Field(default=True, description="Read the words in pictures, scans and films.")
    retry_failed: bool = Field(default=False, description="Try files again that failed before.")
    again: bool = Field(default=False, description="Read every file again, changed or not.")
    index: str | None = Field(default=None, description="Which index; by default the first.")


@router.post("/index", status_code=202, summary="Index files")
async def index(request: Request, body: IndexBody, state: State) -> dict[str, Any]:
    """Begin to bring an index up to date with files and folders; returns the job."""
    name, engine = _named(state, body.index)
    roots = state.settings.roots

    def check() -> list[Path]:
        paths = [
            real_path(path, roots, name=f"paths[{place}]") for place, path in enumerate(body.paths)
        ]
        for given, path in zip(body.paths, paths, strict=True):
            if not path.exists():
                raise NothingToIndex(given, "there is no such path")
        return paths

    paths = await answer(request, check)

    def work(job: Job) -> Mapping[str, Any]:
        report = engine.index(
            paths,
            on_progress=job.on_progress,
            include=body.include,
            exclude=body.exclude,
            ocr=body.ocr,
            retry_failed=body.retry_failed,
            again=body.again,
            within=roots,
        )
        return report_json(report)

    job = Job(index=name, what="index", paths=tuple(map(str, paths)))
    return _begun(_jobs(state).start(job, work))


@router.delete("/documents/{document}", status_code=202, summary="Remove a document")
async def remove(
    request: Request, state: State, document: Id, index: Index = None
) -> dict[str, Any]:
    """Begin to take a document out of an index; its file stays. Returns the job."""
    name, engine = _named(state, index)

    def check() -> str:
        path = find_document(engine, document).path
        folder, _, file = path.rpartition("/")
        # Where the name stands, not where it leads: a link out of the roots may be forgotten.
        place = Path(os.path.realpath(folder or "/"), file)
        if not path.startswith("/") or not is_within(place, state.settings.roots):
            raise NotAllowed(
                f"document {document[:64]}",
                "it does not lie under a folder that this server may change",
                hint="start it with --root FOLDER",
            )
        return path

    path = await answer(request, check)

    def work(job: Job) -> Mapping[str, Any]:
        return {"removed": engine.remove([path])}

    return _begun(_jobs(state).start(Job(index=name, what="remove", paths=(path,)), work))


# ---------------------------------------------------------------- jobs


@router.get("/jobs", summary="List jobs")
async def jobs(state: State) -> dict[str, Any]:
    """Return the jobs that are remembered, the newest first."""
    return {"jobs": [job.as_dict() for job in _jobs(state).all()]}


@router.get("/jobs/{job}", summary="Show a job")
async def job(state: State, job: Id) -> dict[str, Any]:
    """Return how far a job is, or how it ended."""
    return _job(state, job).as_dict()


@router.delete("/jobs/{job}", status_code=202, summary="Cancel a job")
async def cancel(state: State, job: Id) -> dict[str, Any]:
    """Have a job end at its next step; what it has committed stays. Returns the job."""
    found = _job(state, job)
    found.cancel()
    return found.as_dict()


@router.get(
    "/jobs/{job}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def events(state: State, job: Id) -> StreamingResponse:
    """Send server-sent events: ``progress`` while the job changes, ``end`` when it is over."""
    found = _job(state, job)
    if _jobs(state).num_followed >= _MOST_FOLLOWED:
        raise Busy(5.0)
    return StreamingResponse(_events(state, found), media_type="text/event-stream")


async def _events(state: Served, job: Job) -> AsyncIterator[str]:
    """Yield the events of a job until it is over, or the server is told to stop."""
    jobs = _jobs(state)
    jobs.num_followed += 1
    try:
        told, quiet_s = -1, 0.0
        while not state.draining.is_set():
            is_over, version = job.is_over, job.version
            if version != told:
                name = "end" if is_over else "progress"
                yield f"event: {name}\ndata: {json.dumps(job.as_dict())}\n\n"
                told, quiet_s = version, 0.0
            elif quiet_s >= _SIGN_OF_LIFE_S:
                yield ": still here\n\n"
                quiet_s = 0.0
            if is_over:
                return
            await asyncio.sleep(_LOOK_EVERY_S)
            quiet_s += _LOOK_EVERY_S
    finally:
        jobs.num_followed -= 1


def _named(state: Served, index: str | None) -> tuple[str, Engine]:
    engine = state.engine(index)
    return next(name for name, one in state.engines.items() if one is engine), engine


def _jobs(state: Served) -> Jobs:
    jobs: Jobs = state.jobs
    return jobs


def _job(state: Served, job_id: str) -> Job:
    found = _jobs(state).get(job_id)
    if found is None:
        raise HTTPException(404, f"no job {job_id[:64]}; it may have been long ago")
    return found


def _begun(job: Job) -> dict[str, Any]:
    return {"job": job.id, "status": job.status, "url": f"/v1/jobs/{job.id}"}
