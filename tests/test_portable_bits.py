"""The bits that all x86-64 processors with AVX2 compute: hashes of operations and of small trainings.

docs/reliability.md says on which processors they were confirmed. A change of an algorithm may change those of the
trainings; then record new ones: python -m tests.portable_bits > tests/portable_bits.json
"""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from projects import ROOT, make_project, run

from cnn import checkpoint
from pipeline.bits import NATIVE_VARIABLE, SETTINGS

GOLDEN = json.loads((ROOT / "tests/portable_bits.json").read_text())


def computed(**variables):
    """The hashes that a new process computes."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.portable_bits"],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.fixture(scope="module", autouse=True)
def avx2():
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if " avx2 " not in flags:
        pytest.skip("this is not known to be a processor with AVX2")


@pytest.mark.parametrize("workers", ["1", "2", "3"])
def test_the_bits_are_those_of_every_processor_at_any_number_of_workers(workers):
    assert computed(WORKERS=workers) == GOLDEN


def test_the_code_for_zen_gives_the_same_bits():
    assert computed(**SETTINGS | {NATIVE_VARIABLE: "1", "OPENBLAS_CORETYPE": "Zen"}) == GOLDEN


def test_a_setting_of_the_users_does_not_change_the_bits():
    assert computed(OPENBLAS_CORETYPE="Prescott", NPY_DISABLE_CPU_FEATURES="X86_V3") == GOLDEN


def test_other_code_gives_other_bits():
    """The hashes can fail: the code for older processors gives others."""
    found = computed(**{NATIVE_VARIABLE: "1", "OPENBLAS_CORETYPE": "Sandybridge"})
    assert found.keys() == GOLDEN.keys()
    assert {name for name in found if found[name] != GOLDEN[name]} >= {"product 676x9x8", "training, ReLU"}


def weights_of_a_run(folder, **changes):
    """A hash of the weights that the stages up to training write in a copy of the project."""
    project = make_project(folder, changes)
    for stage in ("fetch", "preprocess", "train"):
        result = run(project, "pipeline", stage)
        assert result.returncode == 0, result.stderr
    assert json.loads((project / "reports/environment.json").read_text())["blas"].endswith("Haswell")
    arrays, _ = checkpoint.load(project / "models/model.npz")
    return sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()[:16]


def test_the_default_network_on_the_digits(tmp_path):
    assert weights_of_a_run(tmp_path / "project", **{"data.dataset": "digits"}) == "499d075f9a14f447"


def test_the_default_run(tmp_path, request, monkeypatch):
    if not (request.config.getoption("long") and (ROOT / "../shared/datasets/mnist").exists()):
        pytest.skip("takes 20 s, and needs --long and ../shared/datasets/mnist")
    monkeypatch.setenv("DATASET_MIRROR", str((ROOT / "../shared/datasets").resolve()))
    assert weights_of_a_run(tmp_path / "project") == "c6e5bb0eb4581ae5"
