"""`python -m pipeline serve`: what is in pictures, answered over HTTP."""

import errno
import os
import socket
from importlib.util import find_spec

from pipeline.errors import UserError

NEEDED = ("starlette", "uvicorn")


def serve(host: str, port: int) -> None:
    """Listen at the address until Ctrl-C or SIGTERM; then finish the requests in progress."""
    if any(find_spec(name) is None for name in NEEDED):
        raise UserError(
            f"serve needs the packages {' and '.join(NEEDED)}. Install them with: "
            f"python -m pip install -c requirements.lock -c requirements-dev.lock {' '.join(NEEDED)}"
        )
    # Imported here, since they are an extra.
    from pipeline.apps.serve.server import run
    from pipeline.apps.serve.service import Service

    with listen(host, port) as listener:
        service = Service.of_models()
        name, number = listener.getsockname()[:2]
        place = f"[{name}]" if ":" in name else name
        print(f"{service.network.architecture} answers at http://{place}:{number}/ until Ctrl-C.", flush=True)
        run(service, listener)
    print("Stopped.")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens at the address; UserError, with what to do, if there can be none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server((str(address[0]), port), family=family, backlog=128)
        # Connections inherit it: an answer's second packet does not wait for the first one's receipt, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except socket.gaierror:
        raise UserError(
            f"{host!r} is no address of a machine. For this machine alone: --host 127.0.0.1"
        ) from None
    except OSError as error:
        advice = {
            errno.EADDRINUSE: "Another program listens there. Stop it, or choose another port: --port 8001",
            errno.EACCES: "Ports below 1024 are reserved for the system. Choose another: --port 8000",
            errno.EADDRNOTAVAIL: "This machine does not have that address. For this machine alone: "
            "--host 127.0.0.1; for others, too: --host 0.0.0.0",
        }.get(error.errno or 0, os.strerror(error.errno or 0))
        raise UserError(f"Nothing can listen at {host}, port {port}. {advice}") from None
