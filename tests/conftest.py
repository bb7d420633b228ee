"""What all tests share: options, and an environment that is not the user's."""

import os

import numpy as np
import pytest

from pipeline.cores import count_cores

# Git and DVC are not configured as the user's, nor bound to the repository of a Git hook that runs the tests;
# no proxy, no mirror of datasets and no wish for colours changes what is tested.
for name in list(os.environ):
    if name.startswith(("GIT_", "DVC_")) or name.lower().endswith("_proxy"):
        del os.environ[name]
for name in ("COLUMNS", "DATASET_MIRROR", "FORCE_COLOR", "PYTHONSAFEPATH", "REQUESTS_CA_BUNDLE"):
    os.environ.pop(name, None)
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
os.environ |= {f"GIT_{role}_NAME": "test" for role in ("AUTHOR", "COMMITTER")}
os.environ |= {f"GIT_{role}_EMAIL": "test@localhost" for role in ("AUTHOR", "COMMITTER")}


@pytest.fixture(scope="session", autouse=True)
def dvc_of_its_own(tmp_path_factory):
    """DVC's settings and working files outside projects: none of the user's are read, none are left behind."""
    folder = tmp_path_factory.mktemp("dvc")
    for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE"):
        os.environ[f"DVC_{kind}_DIR"] = str(folder / kind.lower())


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist nobody asks
def pytest_xdist_auto_num_workers():
    """Workers of `-n auto`: a few, since many tests start several processes of their own."""
    return min(4, count_cores())


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
