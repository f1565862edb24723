"""The HTTP API and the page."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from restore import __version__
from restore.devices import describe as describe_device
from restore.errors import RestoreError, unknown_name
from restore.images import SUFFIXES
from restore.serve.guard import Access, Guard, problem
from restore.serve.jobs import ENDED, Job, Jobs, found_in
from restore.serve.limits import Admission, Admitted, Refused
from restore.serve.metrics import Metrics
from restore.serve.options import EXTENSIONS, SPECS, CommonQuery, describe, order, query_model, wrong_query
from restore.serve.restorers import Watch
from restore.serve.service import Output, ResultT, Service, Upload, file_name
from restore.tasks import TaskSpec
from restore.tasks.steps import AUTO

STATIC = Path(__file__).parent / "static"
SAMPLES = {
    "denoise": "noisy",
    "super-resolve": "small",
    "inpaint": "covered",
    "dewatermark": "marked",
    "colorize": "gray",
}  # their folders, by the task that undoes the damage they show
KEEP_ALIVE = 15.0  # seconds after which a silent stream of events says that it is still there
LEFT = 499  # the client closed the connection; nobody reads this status but the metrics

_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The token is missing."},
    413: {"description": "Too many bytes or pixels."},
    422: {"description": "No picture that can be read, or options that do not fit."},
    429: {"description": "Too many pictures of this client at once; Retry-After says when to try again."},
    503: {"description": "The queue is full, or the server stops; Retry-After says when to try again."},
    504: {"description": "It took too long."},
}


def _binary(description: str) -> dict[str, str]:
    """The OpenAPI schema of the bytes of a file."""
    return {"type": "string", "format": "binary", "description": description}


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": _binary("The picture."),
                        "mask": _binary("White is what to restore (inpaint, dewatermark)."),
                        "hints": _binary("Known colours on transparent or white (colorize)."),
                    },
                }
            },
            "image/*": {"schema": _binary("The picture as it is.")},
        },
    }
}


def samples_folder() -> Path | None:
    """The sample pictures, in the wheel or in the source tree it runs from; None where there are none."""
    package = Path(__file__).parent.parent
    for folder in (package / "_data" / "samples", package.parent / "samples"):
        if folder.is_dir():
            return folder
    return None


def create_app(service: Service, access: Access) -> FastAPI:
    """The server as an ASGI application.

    Args:
        service: what restores the pictures; stopped when the application is.
        access: who may ask.
    """
    limits = service.limits
    server = _Server(service)
    folder = samples_folder()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(server.sweep())
        yield
        sweeper.cancel()
        server.stop()
        server.jobs.close()

    app = FastAPI(
        title="restore",
        version=__version__,
        description="Restores pictures. Errors are JSON: {status, detail}.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.server = server
    app.add_middleware(Guard, access=access, limits=limits, metrics=server.metrics)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)

    @app.get("/healthz", summary="Whether the server works")
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "stopping" if service.stopped else "ok"}, 503 if service.stopped else 200)

    @app.get("/metrics", summary="Figures in the text format of Prometheus")
    async def metrics() -> Response:
        return Response(server.metrics.text(server.gauges), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/api/v1/tasks", summary="The tasks with their options, and the limits")
    async def tasks() -> dict[str, Any]:
        return {
            "version": __version__,
            "device": describe_device(service.restorers.device, service.restorers.dtype),
            "formats": EXTENSIONS,
            "reads": [suffix.lstrip(".") for suffix in SUFFIXES],
            "max_bytes": limits.max_bytes,
            "max_megapixels": limits.max_megapixels,
            "per_client": limits.per_client,
            "tasks": [await asyncio.to_thread(describe, spec) for spec in SPECS.values()],
        }

    @app.get("/api/v1/samples", summary="Pictures to try")
    async def samples_list() -> dict[str, list[str]]:
        return {task: [path.name for path in paths] for task, paths in _samples(folder).items()}

    @app.get("/api/v1/samples/{task}/{name}", summary="A picture to try")
    async def sample(task: str, name: str) -> FileResponse:
        # Looked up by name in a listing, so that no path is made of what a client sends.
        for path in _samples(folder).get(task, []):
            if path.name == name:
                return FileResponse(path)
        raise Refused(404, "no such sample")

    @app.post("/api/v1/preview", summary="A picture in any format as an 8-bit PNG", openapi_extra=_BODY)
    async def previewed(request: Request) -> Response:
        with server.admission.admitted(*server.client(request)) as place:
            upload = await server.read(request, "")
            shown = await server.wait(request, place, partial(service.preview, upload.data))
        return Response(shown, media_type="image/png")

    @app.post("/api/v1/jobs", status_code=202, summary="Begin a job", responses=_ERRORS, openapi_extra=_BODY)
    async def begin(request: Request, task: str) -> JSONResponse:
        """Takes the query parameters of `/api/v1/{task}`, too. Answers with where its progress and result are."""
        spec = _spec(task)
        values = {name: value for name, value in request.query_params.items() if name != "task"}
        try:
            query = query_model(spec).model_validate(values)
        except ValidationError as error:
            raise Refused(422, wrong_query(error.errors())) from error
        return await server.begin(request, spec, query)

    @app.get("/api/v1/jobs/{id}", summary="How far a job is")
    async def state(id: str) -> dict[str, Any]:
        return server.jobs.get(id).state

    @app.delete("/api/v1/jobs/{id}", summary="Cancel a job, or forget its result")
    async def cancel(id: str) -> dict[str, Any]:
        return server.jobs.cancel(id).state

    @app.get("/api/v1/jobs/{id}/events", summary="The progress of a job as server-sent events")
    async def events(id: str) -> StreamingResponse:
        """Each event's data is the job as JSON; the last one has the stage done, failed or cancelled."""
        job = server.jobs.get(id)
        return StreamingResponse(
            server.events(job), media_type="text/event-stream", headers={"cache-control": "no-store"}
        )

    @app.get("/api/v1/jobs/{id}/result", summary="The restored picture")
    async def result(id: str) -> FileResponse:
        job = server.jobs.finished(id)
        assert job.output is not None
        return FileResponse(job.path, media_type=job.output.media_type, headers=_headers(job.output))

    @app.get("/api/v1/jobs/{id}/mask", summary="What was found or given, as PNG")
    async def mask(id: str) -> FileResponse:
        job = server.jobs.finished(id)
        if not job.mask_bytes:
            raise Refused(404, "this job has no mask")
        return FileResponse(job.mask_path, media_type="image/png")

    @app.get("/api/v1/archive", summary="Results of several jobs as a zip file")
    async def archive(
        id: Annotated[list[str], Query(max_length=10_000)], folder: Annotated[tuple[str, ...], Query()] = ()
    ) -> StreamingResponse:
        """`folder`: of each result in the file, in the order of `id`."""
        pieces = server.jobs.archive(id, folder)
        name = {"content-disposition": 'attachment; filename="restored.zip"'}
        return StreamingResponse(pieces, media_type="application/zip", headers=name)

    for spec in SPECS.values():
        app.post(
            f"/api/v1/{spec.name}",
            summary=spec.help,
            response_class=Response,
            responses={200: {"content": {"image/*": {}, "application/json": {}}}, **_ERRORS},
            openapi_extra=_BODY,
            name=spec.name,
        )(_endpoint(server, spec))

    @app.post("/api/v1/{task}", include_in_schema=False)
    async def unknown(task: str) -> Response:
        _spec(task)
        raise Refused(404, "no such task")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


class _Server:
    """What the endpoints share."""

    def __init__(self, service: Service) -> None:
        self.service, self.limits = service, service.limits
        self.admission, self.jobs, self.metrics = Admission(self.limits), Jobs(self.limits), Metrics()

    @property
    def gauges(self) -> dict[str, float]:
        """Figures of the moment."""
        return {
            "pictures_in_flight": self.admission.count,
            "bytes_in_flight": self.admission.bytes,
            "jobs_kept": len(self.jobs),
            "tasks_loaded": len(self.service.restorers.loaded),
        }

    def stop(self) -> None:
        """Gives everything up; from any thread."""
        self.jobs.stop()
        self.service.stop()

    async def sweep(self) -> None:
        """Forgets old results, forever."""
        while True:
            await asyncio.sleep(min(30.0, self.limits.keep_seconds))
            await asyncio.to_thread(self.jobs.forget)

    def client(self, request: Request) -> tuple[str, int]:
        """The address of a client, and how much it says it sends."""
        length = request.headers.get("content-length", "")
        host = request.client.host if request.client else "unknown"
        return host, int(length) if length.isdecimal() else self.limits.max_bytes

    async def read(self, request: Request, name: str) -> Upload:
        """The body: a form with `file` and perhaps `mask` or `hints`, or the picture itself, called `name`.

        Raises:
            Refused: 400 for half a body, 408 if it takes too long, 413 or 422.
        """
        try:
            return await asyncio.wait_for(_upload(request, name), self.limits.body_seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise Refused(408, f"the body took longer than {self.limits.body_seconds:g} seconds") from None
        except ClientDisconnect:
            raise Refused(LEFT, "the client left before its picture was here") from None

    async def answer(self, request: Request, spec: TaskSpec, query: CommonQuery) -> Response:
        """Restores the picture of a request, or says what was found."""
        examine = _wants_json(request)
        with self.admission.admitted(*self.client(request)) as place:
            upload = await self.read(request, query.name or "")
            asked = _order(spec, query, examine=examine)
            output = await self.wait(request, place, partial(self.service.submit, upload, asked))
        if examine:
            return JSONResponse({"task": spec.name, **found_in(output)})
        self.metrics.restored(spec.name, output.size[0] * output.size[1])
        return Response(output.data, media_type=output.media_type, headers=_headers(output))

    async def begin(self, request: Request, spec: TaskSpec, query: CommonQuery) -> JSONResponse:
        """Begins a job with the picture of a request."""
        with self.admission.admitted(*self.client(request)) as place:
            upload = await self.read(request, query.name or "")
            asked = _order(spec, query, with_mask=not spec.hints)
            job = self.jobs.create(spec.name, file_name(upload.name))
            try:
                future = self.service.submit(upload, asked, job.watch)
            except Refused:
                self.jobs.drop(job)
                raise
            place.keep()
            self.jobs.begin(job, future, place)
        future.add_done_callback(lambda _: self._count(job))
        asyncio.get_running_loop().call_later(self.limits.job_seconds, self.jobs.expire, job)
        return JSONResponse(job.state, 202, headers={"location": f"/api/v1/jobs/{job.id}"})

    async def events(self, job: Job) -> AsyncIterator[str]:
        """What happens to a job, as server-sent events."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        with job.watch.listening(_waking(loop, changed)):
            last = ""
            while True:
                changed.clear()
                state = job.state
                if (data := json.dumps(state)) != last:
                    yield f"data: {data}\n\n"
                    last = data
                if state["stage"] in ENDED:
                    return
                if self.service.stopped:
                    yield f"data: {json.dumps(state | {'stage': 'failed', 'error': 'the server was stopped'})}\n\n"
                    return
                try:
                    await asyncio.wait_for(changed.wait(), KEEP_ALIVE)
                    await asyncio.sleep(0.05)  # many tiles of a moment are one event
                except (TimeoutError, asyncio.TimeoutError):
                    yield ": still there\n\n"

    def _count(self, job: Job) -> None:
        if job.output is not None:
            self.metrics.restored(job.task, job.output.size[0] * job.output.size[1])

    async def wait(self, request: Request, place: Admitted, begin: Callable[[Watch], Future[ResultT]]) -> ResultT:
        """The result of what `begin` begins, which is given up when the client leaves or the time is over."""
        watch = Watch()
        future = begin(watch)
        # A picture that is given up keeps its place until its thread has noticed.
        place.keep()
        future.add_done_callback(lambda _: place.leave())
        loop, finished = asyncio.get_running_loop(), asyncio.Event()
        wake = _waking(loop, finished)
        future.add_done_callback(lambda _: wake())
        ended, left = asyncio.create_task(finished.wait()), asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({ended, left}, timeout=self.limits.seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            left.cancel()
            if not future.done():
                watch.cancel()
                future.cancel()
        if not finished.is_set():
            if left.done() and not left.cancelled():
                raise Refused(LEFT, "the client left")
            raise Refused(504, f"took longer than {self.limits.seconds:g} seconds; send it as a job")
        try:
            return future.result()
        except CancelledError:
            raise Refused(503, "the server stops; nothing was restored") from None


def _endpoint(server: _Server, spec: TaskSpec) -> Callable[..., Any]:
    """The endpoint of a task; FastAPI reads its query parameters from the signature."""

    async def endpoint(request: Request, query: CommonQuery) -> Response:
        return await server.answer(request, spec, query)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    annotations = {"request": Request, "query": Annotated[query_model(spec), Query()]}
    parameters = [inspect.Parameter(name, kind, annotation=hint) for name, hint in annotations.items()]
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__doc__ = (
        "The restored picture comes back in the format of the one that was sent, with its metadata."
        " With `Accept: application/json` it is only looked at, and what was found comes back."
    )
    return endpoint


async def _upload(request: Request, name: str) -> Upload:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return Upload(await request.body(), name or "picture")
    async with request.form(max_files=3, max_fields=3) as form:
        unknown = sorted({str(key) for key, _ in form.multi_items()} - {"file", "mask", "hints"})
        if unknown:
            raise Refused(
                422, f"unknown part '{unknown[0][:40]}'; known: file, mask, hints (options go into the query)"
            )
        picture = form.get("file")
        if not isinstance(picture, UploadFile):
            raise Refused(422, "the form has no file: send the picture as the part 'file'")
        given = {part: form.get(part) for part in ("mask", "hints") if part in form}
        read = {part: await one.read() for part, one in given.items() if isinstance(one, UploadFile)}
        if no_file := sorted(given.keys() - read.keys()):
            raise Refused(422, f"the part '{no_file[0]}' is no file")
        return Upload(await picture.read(), name or picture.filename or "picture", **read)


async def _gone(request: Request) -> None:
    """Waits until the client closes the connection. Its body has been read, so nothing else arrives."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _waking(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> Callable[[], None]:
    """Sets `event` from any thread; nothing happens once the loop is closed."""

    def wake() -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)

    return wake


def _order(spec: TaskSpec, query: CommonQuery, **wanted: bool) -> Any:
    try:
        return order(spec, query, **wanted)
    except RestoreError as error:
        raise Refused(422, str(error)) from error


def _spec(task: str) -> TaskSpec:
    if task not in SPECS:
        raise Refused(404, str(unknown_name("task", task[:40], SPECS)))
    return SPECS[task]


def _wants_json(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return "application/json" in accepted and "image/" not in accepted


def _samples(folder: Path | None) -> dict[str, list[Path]]:
    """Pictures to try, by task: those that show the damage it undoes; for auto one of each damage."""
    if folder is None:
        return {}
    found = {task: sorted((folder / name).glob("*.png")) for task, name in SAMPLES.items()}
    found[AUTO] = [path for number, paths in enumerate(found.values()) for path in paths[number : number + 1]]
    return {task: paths for task, paths in found.items() if paths}


def _headers(output: Output) -> dict[str, str]:
    plain = output.name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_").replace("\\", "_")
    headers = {
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(output.name, safe='')}",
        "x-restore-result": output.status,
    }
    if output.message:
        headers["x-restore-message"] = output.message.encode("ascii", "replace").decode()
    return headers


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return problem(Refused(422, wrong_query(error.errors())))
