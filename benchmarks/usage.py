"""`python benchmarks/usage.py COMMAND …`: run it, print what it took as JSON, and exit as it did."""

import json
import resource
import sys
import time

import psutil

PERIOD = 0.1  # seconds between two looks at the memory


def main() -> int:
    """Seconds, and the largest memory in MB (10⁶ bytes) of the command and the processes it starts.

    This is a small process: a command starts as a copy of its parent, whose peak it would inherit.
    """
    start, largest = time.perf_counter(), 0
    with psutil.Popen(sys.argv[1:], stdout=sys.stderr) as process:
        while process.poll() is None:
            largest = max(largest, sum(map(_memory, [process, *_children(process)])))
            time.sleep(PERIOD)
    # Of one process the system itself keeps the largest value, which a look now and then may miss.
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
    """Resident bytes; where the system tells, pages that several processes use count once in all."""
    try:
        used = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(used, "pss", used.rss)


if __name__ == "__main__":
    sys.exit(main())
