"""What tests share."""

import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


def spread(rng, shape, dtype=np.float64):
    """Distinct values that keep a distance of 0.01 from one another and from 0: no ties, no kinks nearby."""
    size = int(np.prod(shape))
    values = (rng.permutation(size) - size // 2 + 0.5) * 0.02
    return values.reshape(shape).astype(dtype)
