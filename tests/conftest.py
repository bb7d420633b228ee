"""What tests share."""

import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--long", action="store_true", help="fault tests with as many faults as make test-faults has"
    )
    parser.addoption("--fault-seed", type=int, default=0, help="the seed of the fault tests")


@pytest.fixture
def faults(request):
    """faults(short, long): the numbers of the faults to inject, each of which seeds one."""
    seed = request.config.getoption("fault_seed")
    print(f"--fault-seed {seed}")  # shown where a test fails

    def numbers(short, long):
        count = long if request.config.getoption("long") else short
        return range(seed * 1_000_000, seed * 1_000_000 + count)

    return numbers


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


def spread(rng, shape, dtype=np.float64):
    """Distinct values that keep a distance of 0.01 from one another and from 0: no ties, no kinks nearby."""
    size = int(np.prod(shape))
    values = (rng.permutation(size) - size // 2 + 0.5) * 0.02
    return values.reshape(shape).astype(dtype)
