"""Several processes that run the same stage, started by mpirun: what each needs to know of the others.

Without mpirun there is one rank, and every function here does nothing that costs time. mpi4py is needed only
under mpirun.
"""

import os
import shlex
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cnn import CheckpointError, Processes, Ranks, Serial
from pipeline.device import Device
from pipeline.errors import UserError

if TYPE_CHECKING:
    from cnn.engine.executors import Executor

LAUNCH_VARIABLE = "MPI_LAUNCH"  # how to start the ranks, such as mpirun -n 4; not recorded by DVC
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # set by Open MPI's mpirun; by MPICH's, and others'
RANK_VARIABLE = "PMIX_RANK"  # set by launchers such as srun --mpi=pmix, which do not say how many there are
PATIENCE = 3.0  # seconds in which the first rank reports an error that all ranks have

T = TypeVar("T")


def launch(variables: Mapping[str, str] = os.environ) -> None:
    """Start this command again on several ranks, as MPI_LAUNCH says; return if it says nothing.

    A process that mpirun has started is one of these ranks already.
    """
    launcher = shlex.split(variables.get(LAUNCH_VARIABLE, ""))
    if not launcher or _size() != 1:
        return
    others = {name: value for name, value in variables.items() if name != LAUNCH_VARIABLE}
    sys.stdout.flush()
    try:
        os.execvpe(launcher[0], [*launcher, sys.executable, "-m", "pipeline", *sys.argv[1:]], others)
    except OSError as error:
        raise UserError(
            f"{LAUNCH_VARIABLE} is {variables[LAUNCH_VARIABLE]!r}, but {launcher[0]} cannot be started "
            f"({error.strerror}). It is on the path if this is: pip install mpi4py mpich"
        ) from None


def _size() -> int:
    """How many ranks were started, of which this process is one; 0 if the launcher does not say."""
    sizes = [int(size) for name in SIZE_VARIABLES if (size := os.environ.get(name, "")).isdecimal()]
    return max(sizes, default=0 if RANK_VARIABLE in os.environ else 1)


@cache
def _communicator() -> Any | None:
    """MPI's communicator of all ranks; None if this process runs alone."""
    if _size() == 1:
        return None
    try:
        import mpi4py
    except ModuleNotFoundError:
        raise UserError(
            f"mpirun has started {_size() or 'several'} ranks, but this Python does not have mpi4py, so that "
            "each would do all the work. Install it: pip install mpi4py"
        ) from None
    mpi4py.rc.thread_level = "funneled"  # only the main thread uses MPI
    from mpi4py import MPI

    if _size() > 1 and MPI.COMM_WORLD.Get_size() != _size():
        library = " ".join(MPI.Get_library_version().split()[:4])
        raise UserError(
            f"mpirun has started {_size()} ranks, but mpi4py was built for another MPI ({library}), in which "
            "this process is alone. Use the mpirun of that MPI, or install mpi4py for the one of this mpirun."
        )
    return MPI.COMM_WORLD


def leave() -> None:
    """Let processes that this one starts know nothing of its ranks."""
    for name in (*SIZE_VARIABLES, RANK_VARIABLE):
        os.environ.pop(name, None)


def is_first() -> bool:
    """Whether this is rank 0: the one that prints and writes."""
    communicator = _communicator()
    return communicator is None or communicator.Get_rank() == 0


def make_executor(device: Device) -> "Executor":
    """All cores of this machine, or of all ranks' machines; ranks on one machine divide its cores.

    A GPU is used by one process alone.
    """
    from pipeline.cores import count_cores  # it takes a moment to import

    communicator, cores = _communicator(), count_cores()
    if device == "cuda":
        if communicator is not None:
            raise UserError(
                f"mpirun has started {_size()} ranks, but a GPU is used by one process. Start it without "
                "mpirun, or in params.yaml: device: cpu"
            )
        return Serial()
    if communicator is None:
        return Processes(cores)
    here = Counter(communicator.allgather(socket.gethostname()))[socket.gethostname()]
    return Ranks(communicator, Processes(max(cores // here, 1)))


def shared(compute: Callable[[], T]) -> T:
    """compute() of rank 0, on every rank; its CheckpointError is raised on all of them."""
    communicator = _communicator()
    if communicator is None:
        return compute()
    found: T | CheckpointError | None = None
    if is_first():
        try:
            found = compute()
        except CheckpointError as error:
            found = error
    found = communicator.bcast(found)
    if isinstance(found, CheckpointError):
        raise found
    return found


def largest(value: int) -> int:
    """The largest value that any rank has, on every rank."""
    communicator = _communicator()
    return value if communicator is None else max(communicator.allgather(value))


def check_same(what: str, files: Iterable[Path]) -> None:
    """UserError, on all ranks, unless these files have the same content on all of them."""
    if _communicator() is not None:
        same_everywhere(
            what, sha256(b"".join(sha256(path.read_bytes()).digest() for path in files)).hexdigest()
        )


def same_everywhere(what: str, value: str) -> str:
    """`value`, if it is the same on all ranks; else UserError on all of them."""
    communicator = _communicator()
    if communicator is None:
        return value
    found = communicator.allgather((value, socket.gethostname()))
    for rank, (other, host) in enumerate(found):
        if other != found[0][0]:
            raise UserError(
                f"Rank {rank} on {host} has {what} than rank 0 on {found[0][1]}. All {len(found)} "
                "ranks need the same, in the folder in which they run: use a shared disk, or copy the "
                "project to each machine."
            )
    return value


def describe() -> str | None:
    """Which rank is which process, for messages of mpirun; None if this process runs alone."""
    communicator = _communicator()
    if communicator is None:
        return None
    from mpi4py import MPI

    places = communicator.allgather(f"{socket.gethostname()} {os.getpid()}")
    library = MPI.Get_library_version().split("\n")[0].split(",")[0].replace("\t", " ")
    listed = ", ".join(f"{rank}: {place}" for rank, place in enumerate(places))
    return f"{len(places)} ranks of {' '.join(library.split())} (rank: host, process): {listed}"


def abort(code: int) -> None:
    """End all ranks, since others may wait for this one; nothing if it runs alone."""
    if "mpi4py.MPI" not in sys.modules:
        return
    communicator = _communicator()
    assert communicator is not None
    communicator.Abort(code)
    os._exit(code)  # MPICH's Abort may return


def end_all(ended: BaseException) -> None:
    """End all ranks if this one ends with an error, since others may wait for it; one of them reports it.

    A signal ends all of them anyway.
    """
    if "mpi4py.MPI" not in sys.modules:
        return
    code = ended.code if isinstance(ended, SystemExit) else "".join(traceback.format_exception(ended))
    if code is None or isinstance(code, int):
        return
    communicator = _communicator()
    assert communicator is not None
    if not is_first():
        time.sleep(PATIENCE)
        code = f"rank {communicator.Get_rank()} on {socket.gethostname()}: {code}"
    print(code, file=sys.stderr, flush=True)
    abort(1)
