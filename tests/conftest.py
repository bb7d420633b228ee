"""What all tests share: options, and an environment independent of the user's."""

import os

import numpy as np
import pytest

from pipeline.cores import count_cores

# Git and DVC do not use the user's configuration, nor the repository of a Git hook that runs the tests.
# No proxy, dataset mirror or colour setting of the user changes what is tested.
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
    """Keep DVC's global settings and working files in a temporary folder, apart from the user's."""
    folder = tmp_path_factory.mktemp("dvc")
    for kind in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE"):
        os.environ[f"DVC_{kind}_DIR"] = str(folder / kind.lower())


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist, nothing calls this
def pytest_xdist_auto_num_workers():
    """The number of workers for `-n auto`: few, since many tests start several processes themselves.

    One more than there are cores, since many tests wait for a process or a browser.
    """
    return min(4, count_cores() + 1)


def pytest_addoption(parser):
    parser.addoption(
        "--long",
        action="store_true",
        help="also what takes minutes: as many faults as `make test-faults` injects, the walks of documents",
    )
    parser.addoption(
        "--device",
        choices=["double", "cuda"],
        default="double",
        help="where tests/cnn/test_device.py computes: on the device double, or with CuPy (make gpu-check)",
    )
    parser.addoption("--fault-seed", type=int, default=0, help="the seed of the fault tests")


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "walk: runs the commands of a document, or of a user, from end to end; only with --long"
    )


def pytest_collection_modifyitems(config, items):
    # The many short ones last, so that no worker is left with a long one at the end.
    items.sort(key=lambda item: item.path.parent.name == "cnn")
    if not config.getoption("long"):
        skip = pytest.mark.skip(reason="takes half a minute: make test-docs")
        for item in items:
            if item.get_closest_marker("walk"):
                item.add_marker(skip)


@pytest.fixture
def faults(request):
    """faults(short, long): a seed for each fault to inject; `long` of them with --long, else `short`."""
    seed = request.config.getoption("fault_seed")
    print(f"--fault-seed {seed}")  # shown if a test fails

    def numbers(short, long):
        count = long if request.config.getoption("long") else short
        return range(seed * 1_000_000, seed * 1_000_000 + count)

    return numbers


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


def spread(rng, shape, dtype=np.float64):
    """Distinct values, at least 0.01 apart and at least 0.01 from 0: no ties, no kinks nearby."""
    size = int(np.prod(shape))
    values = (rng.permutation(size) - size // 2 + 0.5) * 0.02
    return values.reshape(shape).astype(dtype)
