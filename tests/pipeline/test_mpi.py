"""What a process does that mpirun has started, or that is to start it; with real ranks: tests/faults."""

import sys
import types

import pytest

from pipeline import ranks
from pipeline.errors import UserError


@pytest.fixture
def executed(monkeypatch):
    """The commands that replace this process."""
    found = []
    monkeypatch.setattr(
        ranks.os, "execvpe", lambda file, command, environment: found.append((command, environment))
    )
    return found


def test_the_launcher_starts_this_command_and_is_not_passed_on(executed, monkeypatch):
    monkeypatch.setattr(ranks.sys, "argv", ["pipeline", "train"])
    ranks.launch({"MPI_LAUNCH": "mpirun -n 2", "A": "1"})
    ((command, environment),) = executed
    assert (command[:3], command[-3:]) == (["mpirun", "-n", "2"], ["-m", "pipeline", "train"])
    assert environment == {"A": "1"}


@pytest.mark.parametrize(
    ("name", "size", "started"),
    [
        ("PMI_SIZE", "2", False),
        ("PMI_SIZE", "1", True),
        ("PMIX_RANK", "0", False),
    ],  # which does not say how many
)
def test_a_rank_does_not_start_mpirun_again(executed, monkeypatch, name, size, started):
    monkeypatch.setenv(name, size)
    ranks.launch({"MPI_LAUNCH": "mpirun -n 2"})
    assert bool(executed) == started


def test_a_launcher_that_is_not_there_is_reported_with_what_to_do():
    with pytest.raises(UserError, match="MPI_LAUNCH is 'no_mpirun -n 2', but no_mpirun cannot be started"):
        ranks.launch({"MPI_LAUNCH": "no_mpirun -n 2"})


@pytest.fixture
def alone(monkeypatch):
    """mpi4py of an MPI in which this process is alone."""
    world = types.SimpleNamespace(Get_size=lambda: 1, Get_rank=lambda: 0)
    mpi = types.SimpleNamespace(COMM_WORLD=world, Get_library_version=lambda: "Other MPI 1.0")
    monkeypatch.setitem(sys.modules, "mpi4py", types.SimpleNamespace(rc=types.SimpleNamespace(), MPI=mpi))
    ranks._communicator.cache_clear()
    yield world
    ranks._communicator.cache_clear()


def test_ranks_of_one_mpi_with_mpi4py_of_another_are_refused(alone, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(
        UserError, match=r"started 2 ranks, but mpi4py was built for another MPI \(Other MPI 1\.0\)"
    ):
        ranks.is_first()


def test_a_launcher_that_does_not_say_how_many_ranks_there_are_is_asked_through_mpi(alone, monkeypatch):
    monkeypatch.setenv("PMIX_RANK", "0")
    assert ranks._communicator() is alone
    ranks.leave()
    ranks._communicator.cache_clear()
    assert ranks._communicator() is None
