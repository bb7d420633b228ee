"""`python -m benchmarks.serve`: requests per second of `python -m pipeline serve`, and how long they take.

The service runs in a process of its own, with the network in models/. Each connection is a thread here, which
sends a picture, waits for the answer, and sends the next one. Only answers that are right count.
"""

import http.client
import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from PIL import Image, ImageDraw

from benchmarks.machine import LOAD, other_load
from benchmarks.report import is_busy
from pipeline.artefacts.trained import load_model
from pipeline.cores import count_cores
from pipeline.errors import UserError

CONNECTIONS = (1, 8, 32)
SIZES = ((28, 28), (1200, 900))  # pixels of the pictures that are sent


def picture(size: tuple[int, int]) -> bytes:
    """A 7 in dark strokes on light paper, as a PNG or, if it is large, a JPEG."""
    image = Image.new("L", size, 225)
    points = [(x * size[0], y * size[1]) for x, y in ((0.3, 0.25), (0.7, 0.25), (0.45, 0.8))]
    ImageDraw.Draw(image).line(points, fill=40, width=max(size) // 14, joint="curve")
    stream = io.BytesIO()
    image.save(stream, "PNG" if max(size) < 100 else "JPEG")
    return stream.getvalue()


def load(port: int, content: bytes, connections: int, seconds: float) -> list[float]:
    """The seconds that each request took."""
    times: list[list[float]] = [[] for _ in range(connections)]
    failures: list[str] = []
    until = time.perf_counter() + seconds

    def ask(own: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < until:
            started = time.perf_counter()
            connection.request("POST", "/predict", content)
            response = connection.getresponse()
            answer = response.read()
            own.append(time.perf_counter() - started)
            if response.status != 200 or "prediction" not in json.loads(answer)[0]:
                failures.append(f"{response.status} {answer[:200]!r}")
                return
        connection.close()

    threads = [threading.Thread(target=ask, args=(own,)) for own in times]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"error: The service answered {failures[0]}")
    return [seconds for own in times for seconds in own]


def processor_seconds(process: int) -> float:
    """What the process has used so far: of use also if other programs want the cores."""
    used = psutil.Process(process).cpu_times()
    return used.user + used.system


def main(seconds: Annotated[float, typer.Option(help="for each row")] = 5.0) -> None:
    """Measure requests per second, and the median and 99th percentile of their times."""
    try:
        _, network = load_model()
    except UserError as error:
        sys.exit(f"error: {error}")
    load_of_others = other_load()
    print(f"{count_cores()} cores; {LOAD}: {load_of_others:.1f}")
    if is_busy({LOAD: load_of_others}):
        print("Other programs are running: measure again on an idle machine.")
    command = [sys.executable, "-m", "pipeline", "serve", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path.cwd()
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rpartition("/ ")[0].rpartition(":")[2])
            print(f"\n`{network.architecture}`, {network.data.title}\n")
            print("| picture | connections | requests per second | p50, ms | p99, ms | processor ms each |")
            print("|---|---|---|---|---|---|")
            for size in SIZES:
                content = picture(size)
                load(port, content, 2, 0.5)
                for connections in CONNECTIONS:
                    started, used_before = time.perf_counter(), processor_seconds(process.pid)
                    times = load(port, content, connections, seconds)
                    rate = len(times) / (time.perf_counter() - started)
                    used = 1000 * (processor_seconds(process.pid) - used_before) / len(times)
                    p50, p99 = (f"{1000 * np.percentile(times, q):.0f}" for q in (50, 99))
                    name = f"{size[0]}x{size[1]}, {len(content) / 1000:.1f} kB"
                    print(f"| {name} | {connections} | {rate:.1f} | {p50} | {p99} | {used:.0f} |", flush=True)
        finally:
            process.terminate()


if __name__ == "__main__":
    typer.run(main)
