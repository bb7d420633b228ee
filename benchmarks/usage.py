"""`python benchmarks/usage.py COMMAND …`: run it, print its time and memory as JSON, return its exit code."""

import json
import resource
import sys
import time

import psutil

PERIOD = 0.1  # seconds between two readings of the memory


def main() -> int:
    """Measure the seconds and the peak memory in MB (10⁶ bytes) of the command and its child processes.

    This runs in a small process of its own, since a command inherits the peak of the process that starts it.
    """
    start, largest = time.perf_counter(), 0
    with psutil.Popen(sys.argv[1:], stdout=sys.stderr) as process:
        while process.poll() is None:
            largest = max(largest, sum(map(_memory, [process, *_children(process)])))
            time.sleep(PERIOD)
    # For a single process, the system keeps the largest value, which periodic readings may miss.
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    largest = max(largest, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)
    print(json.dumps({"seconds": time.perf_counter() - start, "megabytes": largest / 1e6}))
    return process.returncode


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:  # it has just ended
        return []


def _memory(process: psutil.Process) -> int:
    """Resident bytes; if the system reports it, pages that processes share count once in total."""
    try:
        used = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(used, "pss", used.rss)


if __name__ == "__main__":
    sys.exit(main())
