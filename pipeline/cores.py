"""How many processes share the work."""

import joblib

from pipeline.errors import UserError


def count_cores() -> int:
    """The cores that this process may use: affinity and cgroup limits, LOKY_MAX_CPU_COUNT if it is set."""
    try:
        return int(joblib.cpu_count())
    except ValueError as error:
        raise UserError(
            f"LOKY_MAX_CPU_COUNT, an environment variable, is no number of cores: {error}."
        ) from None
