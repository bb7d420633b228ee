"""The service: its addresses, and what each answers."""

import asyncio
import base64
import hashlib
import logging
import re
import sys
import threading
import time
from collections.abc import AsyncIterator, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cnn import Sequential
from pipeline.apps.playground import example_images, measured_images, render
from pipeline.apps.predict import answer, look_at, problem
from pipeline.apps.serve.limits import Limits
from pipeline.apps.serve.metrics import Metrics
from pipeline.apps.serve.uploads import HOW, pictures_of
from pipeline.artefacts.evaluate import Metrics as Measured
from pipeline.artefacts.evaluate import Model
from pipeline.artefacts.train import Network
from pipeline.artefacts.trained import load_model
from pipeline.cores import count_cores
from pipeline.data.pictures import LARGEST_UPLOAD, Upload, open_picture
from pipeline.errors import UserError, printable
from pipeline.report.rendering import fill

PAGE = Path(__file__).with_name("page.html")
LARGE = 4_000_000  # pixels: of pictures above, one at a time is decoded, which takes up to 60 bytes a pixel
MOST_PIXELS = 2 * LARGEST_UPLOAD  # of the pictures of one request together
MOST_THREADS = 8
PIECE = 2**16  # bytes, of a long answer: a client that does not take it holds no more
LONGEST_PATH = 100  # characters that are repeated to the client or in the log

NOTHING_ELSE = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Service:
    """An ASGI application that answers for one network.

    The event loop reads requests; threads read pictures and run the network, a request each. NumPy, its BLAS
    and Pillow let the other threads run while they compute.
    """

    def __init__(self, model: Sequential, network: Network, playground: str | None, limits: Limits) -> None:
        self.model, self.network, self.limits = model, network, limits
        self.about = about(model, network)
        self.playground = playground and playground.encode()
        self.page = fill(PAGE, about=self.about, playground=playground is not None, limits=limits)
        self.metrics = Metrics()
        self.held = 0  # bytes of bodies
        self._jobs: set[Future[list[dict[str, Any]]]] = set()
        self.threads = min(count_cores(), MOST_THREADS)
        self._pool = ThreadPoolExecutor(self.threads, "predict")
        self._large = threading.Lock()
        self._log = _logger()
        Image.init()  # imports all formats, before there are threads
        routes = {
            "/": ("GET", self._show_page),
            "/predict": ("POST", self._predict),
            "/model": ("GET", self._show_model),
            "/health": ("GET", self._show_health),
            "/metrics": ("GET", self._show_metrics),
        }
        if self.playground:
            routes["/playground"] = ("GET", self._show_playground)
        self._routes = routes
        self._app = Starlette(
            routes=[Route(path, endpoint, methods=[method]) for path, (method, endpoint) in routes.items()],
            exception_handlers={
                HTTPException: _explain,
                ClientDisconnect: _nobody_listens,
                Exception: _report_bug,
            },
        )
        self._app.router.redirect_slashes = False

    @classmethod
    def of_models(cls, limits: Limits = Limits()) -> Self:  # noqa: B008
        """The service for the network in models/; UserError if there is none."""
        model, network = load_model()
        data = network.data
        try:
            playground = render(model, network, example_images(data), measured_images(data))
        except UserError:  # a layer that the page does not know, or damaged test images
            playground = None
        return cls(model, network, playground, limits)

    @property
    def waiting(self) -> int:
        """How many requests threads have, or will get."""
        return sum(not job.done() for job in self._jobs)

    def close(self) -> None:
        """Let no request wait any longer."""
        self._pool.shutdown(cancel_futures=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; count it, and write its line to the log, before the answer's last piece goes."""
        started = time.perf_counter()
        status, sent, is_noted = 499, 0, False  # 499: without an answer, since the client has gone

        def note() -> None:
            nonlocal is_noted
            if not is_noted:
                seconds = time.perf_counter() - started
                self.note(scope["client"], scope["method"], scope["path"], status, sent, seconds)
            is_noted = True

        async def send_and_note(message: MutableMapping[str, Any]) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name for name, _ in message["headers"]}
                added = HEADERS | {"content-security-policy": NOTHING_ELSE}
                pairs = [(name.encode(), value.encode()) for name, value in added.items()]
                message["headers"] += [pair for pair in pairs if pair[0] not in names]
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                note()
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            note()

    def note(
        self, client: tuple[str, int] | None, method: str, path: str, status: int, sent: int, seconds: float
    ) -> None:
        """Count a request, and write its line to the log: nothing of its content."""
        self.metrics.count(path if path in self._routes else "other", status, seconds)
        asked = printable(f"{method[:10]} {path[:LONGEST_PATH]}")
        address = client[0] if client else "-"
        self._log.info("%s %s %d %d bytes %.1f ms", address, asked, status, sent, 1000 * seconds)

    async def _predict(self, request: Request) -> Response:
        """The document of `python -m pipeline predict --json`; 422 if a picture in it is bad."""
        body = bytearray()
        try:
            await self._read(request, body)
            document = await self._in_thread(bytes(body), request.headers.get("content-type", ""))
        finally:
            self.held -= len(body)
        bad = sum("error" in entry for entry in document)
        self.metrics.pictures["refused"] += bad
        self.metrics.pictures["recognised"] += len(document) - bad
        return JSONResponse(document, 422 if bad else 200)

    async def _read(self, request: Request, body: bytearray) -> None:
        """Append what the client sends to `body`, within the limits, which are checked as it comes."""
        limit = self.limits.upload
        declared = request.headers.get("content-length", "0")
        too_large = HTTPException(413, f"The upload has more than {limit:,} bytes: make the picture smaller.")
        if int(declared) > limit:
            raise too_large
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > limit:
                        raise too_large
                    if self.held + len(chunk) > self.limits.held:
                        raise _busy()
                    self.held += len(chunk)
                    body += chunk
        except TimeoutError:
            seconds = self.limits.body_seconds
            raise HTTPException(408, f"The upload took more than {seconds:g} seconds.") from None

    async def _in_thread(self, body: bytes, content_type: str) -> list[dict[str, Any]]:
        """`recognise` in a thread, if not too many wait for one."""
        self._jobs = {job for job in self._jobs if not job.done()}
        if len(self._jobs) >= self.threads + self.limits.waiting:
            raise _busy()
        job = self._pool.submit(self.recognise, body, content_type)
        self._jobs.add(job)
        try:
            async with asyncio.timeout(self.limits.work_seconds):
                return await asyncio.wrap_future(job)
        except TimeoutError:  # which takes the job from the queue, unless a thread has begun with it
            raise _busy() from None

    def recognise(self, body: bytes, content_type: str) -> list[dict[str, Any]]:
        """An entry for each picture in the body, as of `python -m pipeline predict --json`."""
        document, pixels = [], 0
        for name, content in pictures_of(body, content_type, self.limits.parts):
            upload = Upload(content)
            try:
                with open_picture(upload) as picture:  # which reads its size alone
                    own = picture.width * picture.height
                pixels += own
                if pixels > MOST_PIXELS:
                    raise UserError("the pictures before it are too large: send it by itself")
                with self._large if own > LARGE else nullcontext():
                    image, _ = look_at(upload, self.network.data)
                document.append(answer(name, self.model, image, self.network.data))
            except UserError as error:
                document.append(problem(name, error))
        return document

    async def _show_page(self, request: Request) -> Response:
        return HTMLResponse(self.page, headers={"content-security-policy": policy_of(self.page)})

    async def _show_playground(self, request: Request) -> Response:
        """The page, which has a content policy of its own inside."""
        content = self.playground or b""

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(content), PIECE):
                yield content[start : start + PIECE]

        headers = {"content-length": str(len(content)), "content-security-policy": "frame-ancestors 'none'"}
        return StreamingResponse(pieces(), media_type="text/html", headers=headers)

    async def _show_model(self, request: Request) -> Response:
        return JSONResponse(self.about)

    async def _show_health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "architecture": self.network.architecture})

    async def _show_metrics(self, request: Request) -> Response:
        text = self.metrics.text(serve_requests_waiting=self.waiting, serve_bytes_held=self.held)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def about(model: Sequential, network: Network) -> dict[str, Any]:
    """What GET /model answers; the measures are null if reports/metrics.json is not of this network."""
    data = network.data
    height, width, channels = data.image_shape
    own = Model.of(model, network)
    try:
        measured: Measured | None = Measured.load()
    except UserError:
        measured = None
    if measured is not None and (measured.model, measured.dataset) != (own, data.dataset):
        measured = None
    return {
        **own.model_dump(),
        "dataset": data.dataset,
        "title": data.title,
        "classes": data.class_names,
        "image": {"width": width, "height": height, "channels": channels, "framing": data.framing},
        "test": measured and measured.test.model_dump(),
    }


def policy_of(page: str) -> str:
    """A content policy that lets the page's own script and style run, by their SHA-256, and no others."""

    def allowed(tag: str) -> str:
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        return " ".join(f"'sha256-{text}'" for text in hashes)

    return (
        f"{NOTHING_ELSE}; script-src {allowed('script')}; style-src {allowed('style')}; img-src blob: data:; "
        "connect-src 'self'; form-action 'self'"
    )


def _busy() -> HTTPException:
    return HTTPException(503, "There is too much to do. Try again in a second.", {"Retry-After": "1"})


async def _explain(request: Request, error: Exception) -> Response:
    """An answer that is no document, as JSON with the reason."""
    assert isinstance(error, HTTPException)
    path, text = printable(request.url.path[:LONGEST_PATH]), error.detail
    if error.status_code == 404:
        text = f"There is no {path}. The page at / says what there is."
    elif error.status_code == 405:
        text = f"{path} takes {(error.headers or {}).get('Allow', 'another method')} alone." + (
            f" {HOW}" if path == "/predict" else ""
        )
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def _nobody_listens(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _report_bug(request: Request, error: Exception) -> Response:
    """The answer; uvicorn writes the traceback to the log."""
    text = f"{type(error).__name__} in the service. This is a bug: please report it with its log."
    return JSONResponse({"error": text}, 500)


def _logger() -> logging.Logger:
    """The log of requests and of uvicorn's warnings, on standard error."""
    log = logging.getLogger("pipeline.serve")
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        for each in (log, logging.getLogger("uvicorn.error")):
            each.addHandler(handler)
            each.propagate = False
        log.setLevel(logging.INFO)
    return log
