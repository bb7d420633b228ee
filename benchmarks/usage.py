"""`python benchmarks/usage.py COMMAND …`: run it, print what it took as JSON, and exit as it did.

In a small process of its own, for a command starts as a copy of its parent and inherits the parent's peak.
"""

import json
import resource
import subprocess
import sys
import time


def main() -> int:
    """Seconds, and the largest resident memory in MB (10⁶ bytes)."""
    start = time.perf_counter()
    code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    print(json.dumps({"seconds": seconds, "megabytes": peak * unit / 1e6}))
    return code


if __name__ == "__main__":
    sys.exit(main())
