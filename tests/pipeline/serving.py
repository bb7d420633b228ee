"""What tests of `python -m pipeline serve` share: a network, a running service, requests."""

import http.client
import io
import json
import select
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict

import numpy as np
import uvicorn
from PIL import Image
from projects import ROOT, environment

from cnn import checkpoint
from pipeline.apps.serve import listen
from pipeline.apps.serve.server import configured
from pipeline.config.architectures import build_model

LAYERS = [
    {"type": "conv2d", "out_channels": 4, "kernel_size": 3, "stride": 2},
    {"type": "relu"},
    {"type": "flatten"},
    {"type": "dense", "out_features": 3},
]
NAMES = ["bird", "cat", "dog"]
IN_A_PROCESS = """
import sys
from pipeline.apps.serve import listen
from pipeline.apps.serve.limits import Limits
from pipeline.apps.serve.server import run
from pipeline.apps.serve.service import Service
with listen("127.0.0.1", 0) as listener:
    service = Service.of_models(Limits(**eval(sys.argv[1])))
    print(listener.getsockname()[1], flush=True)
    run(service, listener)
"""


def save_network(folder, framing="crop", names=NAMES, shape=(32, 32, 3)):
    """A network with random weights in `folder`/models."""
    layers = [*LAYERS[:-1], {"type": "dense", "out_features": len(names)}]
    model = build_model(layers, "the test", shape, len(names), np.random.default_rng(0))
    data = {"dataset": "own", "title": "pets", "class_names": names, "image_shape": shape, "framing": framing}
    data |= {"background": [0.0] * shape[2], "mean": [0.5] * shape[2], "deviation": [0.25] * shape[2]}
    data |= {"examples": {"train": 1, "validation": 1, "test": 1}}
    metadata = {"architecture": "small", "layers": layers, "data": data, "epoch": 1}
    metadata["environment"] = {"machine": "none", "numpy": "none", "numpy_simd": "", "pillow": "", "blas": ""}
    checkpoint.save(folder / "models/model.npz", model.state_dict(), metadata)


def encoded(picture, kind="PNG", **options):
    """The bytes of a file with the picture."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def noise(rng, width=40, height=30, mode="RGB"):
    """A picture of random pixels."""
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


@contextmanager
def in_a_thread(service):
    """The port at which the service answers, in a thread of this process."""
    server = uvicorn.Server(configured(service))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)
            service.close()
            assert not thread.is_alive()


@contextmanager
def in_a_process(folder, limits):
    """(process, port) of a service for the network in `folder`."""
    with (
        open(folder / "log.txt", "w") as log,
        subprocess.Popen(
            [sys.executable, "-c", IN_A_PROCESS, str(asdict(limits))],
            cwd=folder,
            env=environment(PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def ask(port, method="POST", path="/predict", body=b"", timeout=30, **headers):
    """(status, answer) to a request; an answer in JSON is decoded."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with suppress(BrokenPipeError):  # it was answered before all of the body was sent
            connection.request(method, path, body, names)
        response = connection.getresponse()
        content = response.read()
        is_json = response.getheader("content-type") == "application/json"
        return response.status, json.loads(content) if is_json else content.decode()
    finally:
        connection.close()


def form(*files, boundary="b0undary"):
    """(body, Content-Type) of a form with files (name, content)."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'.encode()
        + b"Content-Type: image/png\r\n\r\n%b\r\n" % content
        for name, content in files
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def send_raw(port, *pieces, pause=0.0, timeout=30):
    """What comes back, until the connection closes, for bytes that need not be HTTP.

    As clients do, it stops sending when an answer is there: what arrives after the server has closed resets the
    connection, and with it an answer that was not read yet.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        try:
            for piece in pieces:
                if select.select([connection], [], [], pause)[0]:
                    break
                connection.sendall(piece)
            while received := connection.recv(2**16):
                answer += received
        except (BrokenPipeError, ConnectionResetError):
            pass
    return answer
