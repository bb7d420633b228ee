"""What a process does that mpirun has started, or that is to start it; with real ranks: tests/faults."""

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


@pytest.mark.parametrize(("name", "size", "started"), [("PMI_SIZE", "2", False), ("PMI_SIZE", "1", True)])
def test_a_rank_does_not_start_mpirun_again(executed, monkeypatch, name, size, started):
    monkeypatch.setenv(name, size)
    ranks.launch({"MPI_LAUNCH": "mpirun -n 2"})
    assert bool(executed) == started


def test_a_launcher_that_is_not_there_is_reported_with_what_to_do():
    with pytest.raises(UserError, match="MPI_LAUNCH is 'no_mpirun -n 2', but no_mpirun cannot be started"):
        ranks.launch({"MPI_LAUNCH": "no_mpirun -n 2"})
