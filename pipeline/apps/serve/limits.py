"""How much the service takes from outside; docs/serve.md lists what happens beyond."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    upload: int = 16 * 2**20  # of one request's body
    held: int = 128 * 2**20  # of the bodies of all requests
    parts: int = 16  # of a form
    waiting: int = 32  # requests whose pictures are being read, or wait for it, beyond one a core
    connections: int = 256
    head: int = 32 * 2**10  # of a request
    head_seconds: float = 10  # from the connection, or the answer before, to a whole head
    body_seconds: float = 30
    work_seconds: float = 40  # until the pictures are read, waiting included
    answer_seconds: float = 90  # from the head until the whole answer was taken
    stop_seconds: int = 10  # for requests in progress
