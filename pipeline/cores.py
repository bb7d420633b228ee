"""How many processes share the work."""

import joblib

from pipeline.errors import UserError


def count_cores() -> int:
    """The cores that this process may use: limited by affinity, cgroups and, if set, LOKY_MAX_CPU_COUNT."""
    try:
        return int(joblib.cpu_count())
    except ValueError as error:
        raise UserError(
            f"The environment variable LOKY_MAX_CPU_COUNT must be a number of cores: {error}."
        ) from None
