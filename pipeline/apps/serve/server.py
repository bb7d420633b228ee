"""Connections: how long each may take, and how many there may be at once.

uvicorn parses HTTP (with h11) and waits without end for a head that does not come and for an answer that is
not taken. Here, each phase of a connection has its time.
"""

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from threadpoolctl import threadpool_limits
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.apps.serve.service import Service


def configured(service: Service) -> uvicorn.Config:
    """The settings of a server for `service`."""

    class Connection(TimedConnection):
        """A connection to this service."""

    Connection.service = service
    return uvicorn.Config(
        service,
        http=Connection,
        loop="asyncio",  # the same everywhere
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,  # the service has its own
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=service.limits.head,
        timeout_graceful_shutdown=service.limits.stop_seconds,
    )


def run(service: Service, listener: socket.socket) -> None:
    """Serve until a signal; with one BLAS thread for each thread that answers."""
    with threadpool_limits(1, user_api="blas"):
        Server(configured(service)).run(sockets=[listener])
    service.close()


class Server(uvicorn.Server):
    """A server after which a signal does not go on to end the program: it is done."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM stop the server."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.handle_exit)
        yield


class TimedConnection(H11Protocol):
    """A connection that ends if the head of a request, or the taking of the answer, lasts too long.

    The time between two requests counts to the second one's head.
    """

    service: Service
    _timer: asyncio.TimerHandle | None = None
    _busy = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count; refuse a connection too many."""
        super().connection_made(transport)
        self._start_phase()
        if len(self.connections) > self.service.limits.connections:
            self._refuse(503, "There are too many connections. Try again later.", ("Retry-After", "5"))

    def data_received(self, data: bytes) -> None:
        """Take what comes; with a whole head, the phase of the answer begins."""
        super().data_received(data)
        if self._busy != self._in_request():
            self._start_phase()

    def on_response_complete(self) -> None:
        """After an answer, wait for the next head."""
        super().on_response_complete()
        self._start_phase()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting."""
        super().connection_lost(exc)
        if self._timer:
            self._timer.cancel()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, "This is no HTTP request, or its head is too large.")

    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_phase(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._busy = self._in_request()
        limits = self.service.limits
        seconds = limits.answer_seconds if self._busy else limits.head_seconds
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _refuse(self, status: int, text: str, *more: tuple[str, str]) -> None:
        body = json.dumps({"error": text}).encode()
        headers: list[tuple[Any, Any]] = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *more,
        ]
        with suppress(h11.LocalProtocolError):  # an answer has begun already
            for event in (
                h11.Response(status_code=status, reason=HTTPStatus(status).phrase, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.service.note(self.client, "-", "-", status, len(body), 0.0)
        self.transport.close()
