"""Counts in the text format that Prometheus reads."""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate
from pathlib import Path

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
STATUS = Path("/proc/self/status")  # Linux


class Metrics:
    """What happened since the start; labels come from fixed sets, so that no request adds one."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and status
        self.pictures: Counter[str] = Counter()  # recognised, refused
        self.buckets = [0] * (len(BOUNDS) + 1)  # requests to /predict by their seconds
        self.seconds = 0.0

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests[route, status] += 1
        if route == "/predict":
            self.buckets[bisect_left(BOUNDS, seconds)] += 1
            self.seconds += seconds

    def text(self, **gauges: int) -> str:
        """The page; `gauges` are values as they are now."""
        lines = ["# TYPE serve_requests_total counter"]
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'serve_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE serve_pictures_total counter")
        for outcome in ("recognised", "refused"):
            lines.append(f'serve_pictures_total{{outcome="{outcome}"}} {self.pictures[outcome]}')
        lines.append("# TYPE serve_predict_seconds histogram")
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), accumulate(self.buckets), strict=True):
            lines.append(f'serve_predict_seconds_bucket{{le="{bound}"}} {count}')
        lines.append(f"serve_predict_seconds_sum {self.seconds:.6f}")
        lines.append(f"serve_predict_seconds_count {sum(self.buckets)}")
        for name, value in (gauges | resident()).items():
            lines += [f"# TYPE {name} gauge", f"{name} {value}"]
        return "\n".join(lines) + "\n"


def resident() -> dict[str, int]:
    """The memory of this process in bytes, now and at its peak, where the system tells."""
    names = {"VmRSS:": "process_resident_memory_bytes", "VmHWM:": "process_resident_memory_peak_bytes"}
    words = [line.split() for line in STATUS.read_text().splitlines()] if STATUS.exists() else []
    return {names[key]: 1024 * int(value) for key, value, *_ in (w for w in words if w and w[0] in names)}
