"""Interrupted runs: DVC runs the real pipeline on the digits, is stopped or killed, and continues."""

import copy
import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from hashlib import md5
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from projects import (
    STAGES,
    build_once,
    commit,
    environment,
    make_project,
    results,
    run,
    set_params,
    stages_run,
)

from pipeline.apps import verify
from pipeline.apps.run import dvc, repair_dvc
from pipeline.data.catalogue import DATASETS
from pipeline.errors import UserError

SMALL = """
small:
- {type: conv2d, out_channels: 4, kernel_size: 3, stride: 2, bias: false}
- {type: batch_norm}
- {type: relu}
- {type: dropout, rate: 0.5}
- {type: flatten}
- {type: dense, out_features: 10}
"""
STOPPED_EARLY = 60  # seconds; no run takes as long


def start(folder, *command, **variables):
    """Start `python -m COMMAND` in its own session, so that signals can reach all of its processes.

    It does not ignore Ctrl-C, as processes do that a shell runs in the background.
    """
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


PARAMS = {  # everything that is random or has a state is switched on
    "data.dataset": "digits",
    "model.architecture": "small",
    "train.epochs": 20,
    "train.checkpoint_seconds": 0.05,
    "train.moving_average": 0.9,
    "train.optimizer.name": "adam",
    "train.schedule.name": "one_cycle",
    "train.augmentation.random_shift": 1.0,
}
OF_TRAIN = ("models/", "reports/history.csv", "reports/statistics.csv", "reports/environment")


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """A committed project in which nothing has run. Tests must not change it."""
    return build_once(tmp_path_factory, "clean", lambda folder: make_project(folder, PARAMS, SMALL))


@pytest.fixture(scope="session")
def undisturbed(clean, tmp_path_factory):
    """The same after a run, with its results committed; a file beside it has the run's seconds."""

    def build(folder):
        shutil.copytree(clean, folder, dirs_exist_ok=True)
        begin = time.monotonic()
        result = run(folder, "dvc", "repro")
        assert result.returncode == 0, result.stderr
        folder.with_suffix(".seconds").write_text(str(time.monotonic() - begin))
        commit(folder)

    return build_once(tmp_path_factory, "undisturbed", build)


@pytest.fixture(scope="session")
def ready_to_train(clean, tmp_path_factory):
    """A project in which the first two stages have run. Tests must not change it."""

    def build(folder):
        shutil.copytree(clean, folder, dirs_exist_ok=True)
        assert run(folder, "dvc", "repro", "preprocess").returncode == 0

    return build_once(tmp_path_factory, "ready_to_train", build)


@pytest.fixture
def finished(undisturbed, tmp_path):
    """A copy of `undisturbed` that a test may change."""
    return shutil.copytree(undisturbed, tmp_path / "finished")


@pytest.fixture
def folder(ready_to_train, tmp_path):
    """A copy of `ready_to_train` that a test may change."""
    return shutil.copytree(ready_to_train, tmp_path / "project")


@pytest.fixture(scope="module")
def expected(undisturbed):
    """The results of an undisturbed run."""
    return results(undisturbed)


def of_train(files):
    return {path: content for path, content in files.items() if path.startswith(OF_TRAIN)}


def checkpoints(folder):
    """The existing checkpoints, with the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(".scratch/*/training.npz")}


def wait_for_checkpoint(folder, before=()):
    """Wait until a checkpoint is written that is not in `before`."""
    deadline = time.monotonic() + STOPPED_EARLY
    while checkpoints(folder).items() <= dict(before).items():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(
    clean, undisturbed, expected, tmp_path, faults, monkeypatch
):
    seconds = float(undisturbed.with_suffix(".seconds").read_text())
    resumed = caught_dvc = 0
    for number in faults(1, 200):
        folder = tmp_path / str(number)
        shutil.copytree(clean, folder)
        process = start(folder, "dvc", "repro")
        time.sleep(np.random.default_rng(number).uniform(0.5, seconds))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        result = run(folder, "dvc", "repro")
        if re.search("Unable to read RWLock-file|'./dvc.lock' validation failed", result.stderr):
            caught_dvc += 1  # killed while DVC wrote a file of its own
            with monkeypatch.context() as inside:
                inside.chdir(folder)
                repair_dvc()  # as `make run` does
            result = run(folder, "dvc", "repro")
        assert result.returncode == 0, (number, result.stdout + result.stderr)
        resumed += "Continuing from" in result.stdout
        assert results(folder) == expected, number
        shutil.rmtree(folder)
        print(
            f"{number}: {resumed} continued from a checkpoint, {caught_dvc} hit a file that DVC wrote",
            flush=True,
        )


def test_a_run_killed_again_and_again_in_training_ends_with_the_same_bytes(folder, expected):
    for number in range(3):
        before = checkpoints(folder)
        process = start(folder, "dvc", "repro")
        wait_for_checkpoint(folder, before)
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        assert ("Continuing from .scratch/" in output) == (number > 0)
    result = run(folder, "dvc", "repro", "train")
    assert "Continuing from .scratch/" in result.stdout
    assert results(folder) == of_train(expected)
    assert not checkpoints(folder)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stage_that_is_asked_to_stop_says_how_to_go_on(folder, expected, number, code):
    set_params(
        folder, {"train.checkpoint_seconds": 1000.0}
    )  # so that checkpoints are only written at an epoch's end
    process = start(folder, "pipeline", "train")
    wait_for_checkpoint(folder)
    os.killpg(process.pid, number)
    output, _ = process.communicate()
    assert process.returncode == code
    last = output.splitlines()[-1]
    stopped = re.fullmatch(r"Stopped in epoch (\d+) of 20, after ([\d,]+) images\. .*: dvc repro", last)
    assert stopped, last
    assert "Traceback" not in output
    assert not (folder / "models").exists()
    epoch, images = stopped.groups()
    set_params(folder, PARAMS)
    went_on = f"after {int(epoch) - 1} epochs and {images} images."
    # It continues from exactly the step after which it was stopped.
    output = run(folder, "dvc", "repro", "train").stdout
    assert went_on in output, output
    assert results(folder) == of_train(expected)


def test_a_stop_that_comes_between_two_looks_at_the_signal_is_saved_too(folder):
    code = """
import os, signal
from pipeline.__main__ import app
from pipeline.stages.resume import RunCheckpoint
RunCheckpoint.is_due = lambda self: os.kill(os.getpid(), signal.SIGINT)
app(["train"])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert "Stopped in epoch 1 of 20" in result.stdout + result.stderr
    assert checkpoints(folder)


MPIRUN = Path(sys.executable).with_name("mpirun")
with_mpi = pytest.mark.skipif(
    not MPIRUN.exists() or find_spec("mpi4py") is None, reason="needs mpi4py and mpich"
)


def start_ranks(folder, *parts):
    """Start `mpirun PARTS`, in which "train" and others stand for the command."""
    python = [sys.executable, "-m", "pipeline"]
    command = [argument for part in parts for argument in ([*python, part] if part in STAGES else [part])]
    return subprocess.Popen(
        [MPIRUN, *command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@with_mpi
def test_several_ranks_write_the_same_bytes_and_go_on_with_another_number_after_one_was_killed(
    ready_to_train, expected, tmp_path, faults
):
    for number in faults(1, 50):
        folder = shutil.copytree(ready_to_train, tmp_path / str(number))
        rng = np.random.default_rng(number)
        first, second = rng.integers(2, 9, 2) if number % 1_000_000 else (3, 2)
        process = start_ranks(folder, "-n", str(first), "train")
        wait_for_checkpoint(folder)
        time.sleep(rng.uniform(0, 0.5))
        ranks = process.stdout.readline()
        processes = re.findall(r"\d+: \S+ (\d+)", ranks)
        assert len(processes) == first, ranks
        killed = int(rng.choice(processes))
        os.kill(killed, signal.SIGKILL)
        output, _ = process.communicate(timeout=30)
        assert process.returncode != 0
        # The message of mpirun, or of MPI in a rank that waited for the one that was killed.
        assert "BAD TERMINATION" in output or "Fatal error in" in output
        assert not (folder / "models").exists()
        output, _ = start_ranks(folder, "-n", str(second), "train").communicate()
        assert "Continuing from .scratch/" in output
        assert results(folder) == of_train(expected), (number, first, second)
        shutil.rmtree(folder)


@with_mpi
def test_a_rank_that_is_asked_to_stop_stops_all_after_the_same_step(folder, expected):
    process = start_ranks(folder, "-n", "2", "train")
    second = int(re.findall(r"\d+: \S+ (\d+)", process.stdout.readline())[1])
    wait_for_checkpoint(folder)
    os.kill(second, signal.SIGTERM)
    output, _ = process.communicate()
    assert (
        len(re.findall(r"^Stopped in epoch \d+ of 20, after [\d,]+ images\.", output, re.MULTILINE)) == 1
    ), output
    assert "Continuing from" in run(folder, "pipeline", "train").stdout
    assert results(folder) == of_train(expected)


@with_mpi
def test_ranks_that_differ_are_told_before_anything_runs(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    set_params(other, {"seed": 1})
    here, there = ("-n", "1", "-wdir", str(folder), "train"), ("-n", "1", "-wdir", str(other), "train")
    output, _ = start_ranks(folder, *here, ":", *there).communicate()
    assert output.count("error: Rank 1 on ") == 1, output
    assert "has other code, packages, params or data than rank 0" in output
    assert not checkpoints(folder)


@with_mpi
def test_ranks_evaluate_the_same_network_and_data_with_the_same_params_or_nothing(finished, tmp_path):
    before = results(finished)

    def evaluate_with(other):
        here, there = (("-n", "1", "-wdir", str(each), "evaluate") for each in (finished, other))
        return start_ranks(finished, *here, ":", *there).communicate(timeout=60)[0]

    other = shutil.copytree(finished, tmp_path / "other params")
    set_params(other, {"evaluate.test_time_augmentation.shift": 1})
    output = evaluate_with(other)
    assert output.count("has other params than rank 0") == 1, output
    other = shutil.copytree(finished, tmp_path / "other data")
    labels = other / "data/processed/test_targets.npy"
    labels.chmod(0o644)
    content = bytearray(labels.read_bytes())
    content[-40:] = content[-80:-40]  # another class for the last image
    labels.unlink()
    labels.write_bytes(content)
    output = evaluate_with(other)
    assert output.count("has another network or other data than rank 0") == 1, output
    assert results(finished) == before


@with_mpi
def test_an_error_of_one_rank_ends_all_in_one_message_that_names_it(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "data/processed/train_images.npy").unlink()
    here, there = ("-n", "1", "-wdir", str(folder), "train"), ("-n", "1", "-wdir", str(other), "train")
    output, _ = start_ranks(folder, *here, ":", *there).communicate(timeout=60)
    assert output.count("error:") == 1, output
    assert re.search(r"^rank 1 on \S+: error: data/processed/train_images.npy", output, re.MULTILINE), output


@with_mpi
def test_dvc_starts_several_ranks_if_the_environment_says_so_and_records_the_same(finished, expected):
    recorded = (finished / "dvc.lock").read_bytes()
    result = run(finished, "dvc", "repro", "--force", "train", MPI_LAUNCH=f"{MPIRUN} -n 2")
    assert "2 ranks of MPICH" in result.stdout, result.stderr
    assert results(finished) == expected
    assert (finished / "dvc.lock").read_bytes() == recorded
    (finished / "reports/metrics.json").unlink()
    output, _ = start_ranks(finished, "-n", "2", "evaluate").communicate()
    assert output.count("test accuracy") == 1, output
    assert results(finished) == expected


@pytest.fixture
def endless_server():
    """(address of a server that sends a byte now and then, event that its first request sets)."""
    asked = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            asked.set()
            try:
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            except OSError:  # the client has disconnected
                pass

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_ctrl_c_in_a_download_stops_make_run_and_changes_nothing(tmp_path, endless_server):
    address, asked = endless_server
    folder = make_project(tmp_path / "project")
    process = start(folder, "pipeline", "run", DATASET_MIRROR=address)
    assert asked.wait(STOPPED_EARLY)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert output.splitlines()[-1] == "Stopped. To continue: make run"
    assert "MNIST could not be fetched" not in output
    assert "Traceback" not in output
    subprocess.run(["git", "diff", "--exit-code"], cwd=folder, check=True)


def test_ctrl_c_in_an_experiment_leaves_the_last_results_within_reach(finished, expected):
    process = start(finished, "dvc", "exp", "run", "-S", "train.epochs=50")
    wait_for_checkpoint(finished)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "Traceback" not in output
    (line,) = (line for line in output.splitlines() if line.startswith("DVC removes a stage's"))
    command = line.rpartition("): ")[2]
    subprocess.run(command, shell=True, cwd=finished, env=environment(), check=True, capture_output=True)
    assert results(finished) == expected
    assert "up to date" in run(finished, "dvc", "repro").stdout


def test_a_checkpoint_is_never_taken_for_that_of_another_run(folder):
    def cut_off():
        before = set(folder.glob(".scratch/*/training.npz"))
        process = start(folder, "pipeline", "train")
        deadline = time.monotonic() + STOPPED_EARLY
        while set(folder.glob(".scratch/*/training.npz")) <= before and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert "Continuing from" not in process.communicate()[0]
        (new,) = set(folder.glob(".scratch/*/training.npz")) - before
        return new

    def change(path, old, new):
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    cut_off()
    change("params.yaml", "seed: 0", "seed: 1")
    cut_off()
    change("architectures.yaml", "rate: 0.5", "rate: 0.4")
    cut_off()
    kept = set(folder.glob(".scratch/*/training.npz"))
    with (folder / "cnn/optimizers.py").open("a") as code:
        code.write("# changed\n")
    newest = cut_off()
    assert set(folder.glob(".scratch/*/training.npz")) < kept | {newest}  # the oldest has gone
    newest.write_bytes(b"damaged")
    process = start(folder, "pipeline", "train")
    output, _ = process.communicate()
    assert "its checksum does not match its content" in output
    assert "Training starts from scratch" in output
    assert process.returncode == 0


def test_a_second_run_in_the_same_folder_is_refused_and_harms_nothing(folder, expected):
    first = start(folder, "dvc", "repro", "train")
    wait_for_checkpoint(folder)
    second = run(folder, "dvc", "repro", "train")
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr or "Unable to acquire lock" in second.stderr
    first.communicate()
    assert first.returncode == 0
    assert results(folder) == of_train(expected)


@pytest.mark.parametrize(("content", "kept"), [(b"", False), (b'{"a', False), (b"{}", True)])
def test_make_run_mends_what_a_killed_dvc_leaves_half_written(tmp_path, monkeypatch, content, kept):
    monkeypatch.chdir(tmp_path)
    repair_dvc()  # if there is none
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_bytes(content)
    repair_dvc()
    assert lock.exists() == kept


def test_make_run_mends_empty_files_of_dvc_and_finds_the_results_again(finished, expected):
    (finished / ".dvc/tmp/rwlock").write_bytes(b"")
    recorded = (finished / "dvc.lock").read_bytes()
    (finished / "dvc.lock").write_bytes(b"")
    result = run(finished, "pipeline", "run")
    assert result.returncode == 0, result.stderr
    assert results(finished) == expected
    assert (finished / "dvc.lock").read_bytes() == recorded


def test_verify_needs_recorded_results(clean):
    result = run(clean, "pipeline", "verify")
    assert result.returncode == 1
    assert "The last commit has no dvc.lock. Make one, and commit it: dvc repro" in result.stderr


@pytest.mark.walk
def test_verify_runs_every_stage_whatever_a_shared_cache_holds_and_finds_every_byte_again(finished, tmp_path):
    folder, cache = tmp_path / "repository/folder/project", tmp_path / "cache"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(".git"))
    shutil.copytree(finished / ".dvc/cache", cache)
    min(cache.glob("files/md5/*/*")).unlink()  # so that a run with this cache would change it
    with (folder / ".dvc/config").open("a") as file:
        file.write(f"[cache]\n    dir = {cache}\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "repository", check=True)
    commit(folder)
    (folder / "params.yaml").write_text("")
    cached = sorted(cache.rglob("*"))
    git = tmp_path / "repository/.git"
    staged = ["git", "ls-files", "--stage"]
    before = subprocess.check_output(staged, cwd=folder)
    hook = {"GIT_DIR": str(git), "GIT_INDEX_FILE": str(git / "index"), "GIT_PREFIX": ""}
    result = run(folder, "pipeline", "verify", OPENBLAS_NUM_THREADS="1", **hook)
    assert result.returncode == 0, result.stdout + result.stderr
    assert subprocess.check_output(staged, cwd=folder) == before
    assert result.stdout.startswith("note: Uncommitted changes are left out")
    assert stages_run(result.stdout) == STAGES
    assert "models/model.npz" in result.stdout
    assert result.stdout.endswith("Every byte is as dvc.lock records it.\n")
    assert sorted(cache.rglob("*")) == cached


def test_verify_says_what_git_says_if_it_cannot_clone(finished, tmp_path):
    hooks = tmp_path / "template/hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text("#!/bin/sh\necho a hook of mine >&2\nexit 3\n")
    (hooks / "post-checkout").chmod(0o755)
    result = run(finished, "pipeline", "verify", GIT_TEMPLATE_DIR=str(tmp_path / "template"))
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search("^error: .*git clone", result.stderr)
    assert "a hook of mine" in result.stderr


def test_dvc_is_not_bound_to_the_repository_of_a_git_hook(tmp_path, monkeypatch):
    (tmp_path / "dvc.py").write_text("import os; open('seen', 'w').write(' '.join(os.environ))")
    monkeypatch.setenv("GIT_DIR", "elsewhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "elsewhere/index")
    assert dvc("repro", folder=tmp_path, HANDED="on") == 0
    seen = set((tmp_path / "seen").read_text().split())
    assert seen & {"HANDED", "PATH", "GIT_DIR", "GIT_INDEX_FILE"} == {"HANDED", "PATH"}


@pytest.fixture
def verify_finished(finished, undisturbed, monkeypatch, capsys):
    """verify_finished(): verify's answer in `finished`, as if the run in the clone gave `undisturbed`.

    Another test makes real runs in the clone.
    """

    def rerun(*arguments, folder, **variables):
        shutil.copytree(undisturbed / ".dvc/cache", folder / ".dvc/cache")
        shutil.copy(undisturbed / "dvc.lock", folder)
        return 0

    monkeypatch.setattr(verify, "dvc", rerun)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(finished)

    def call():
        try:
            verify.verify()
        except UserError as error:
            return capsys.readouterr().out, str(error)
        return capsys.readouterr().out, None

    return call


def test_verify_finds_forged_reports_whether_or_not_dvc_lock_agrees_with_them(finished, verify_finished):
    with (finished / "reports/history.csv").open("a") as file:
        file.write("forged")
    metrics = finished / "reports/metrics.json"
    digests = [md5(metrics.read_bytes()).hexdigest()]
    metrics.write_text(re.sub('"accuracy": [0-9.]+', '"accuracy": 0.99', metrics.read_text()))
    digests.append(md5(metrics.read_bytes()).hexdigest())
    lock = finished / "dvc.lock"
    lock.write_text(lock.read_text().replace(*digests))
    commit(finished)
    output, error = verify_finished()
    (row,) = (line for line in output.splitlines() if "DIFFERENT" in line)
    assert row.split() == ["reports/metrics.json", "evaluate", digests[1][:8], digests[0][:8], "DIFFERENT"]
    heading, committed, differs = error.splitlines()
    assert heading == "Not every byte is as dvc.lock records it."
    assert committed.startswith("- reports/history.csv as committed is not the file that dvc.lock records: ")
    assert differs.startswith("- Code, params and environment are as recorded.")


@pytest.mark.parametrize(
    ("content", "held"), [("{}", "nothing"), ("schema: '2.0'", "schema"), ("stages: []", "stages")]
)
def test_a_lock_without_stages_is_told(tmp_path, content, held):
    (tmp_path / "dvc.lock").write_text(content)
    with pytest.raises(UserError) as caught:
        verify.read_lock(tmp_path)
    assert str(caught.value).startswith("dvc.lock must hold the key stages, ")
    assert f"holds: {held}. Make a new one, and commit it: rm dvc.lock && dvc repro" in str(caught.value)


def test_verify_looks_for_the_dataset_where_fetch_would_and_hands_on_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("DATASET_MIRROR", "https://localhost")
    assert verify.find_mirror("mnist") is None  # fetch reads the variable itself
    for place in ("../shared/datasets", "mirror", "data/raw"):  # each takes precedence over those before it
        for file in DATASETS["mnist"].files:
            path = Path(place) / "mnist" / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert verify.find_mirror("mnist") != str(Path(place).resolve()), "not whole yet"
            path.touch()
        monkeypatch.setenv("DATASET_MIRROR", "mirror")
        assert verify.find_mirror("mnist") == str(Path(place).resolve())


def test_verify_tells_what_is_not_the_same_and_what_may_explain_it(finished, tmp_path, capsys, monkeypatch):
    lock = verify.read_lock(finished)
    same = ({"numpy": "1.0"},) * 2
    assert verify.compare(lock, lock, finished, finished, same) == []

    other = copy.deepcopy(lock)
    (models,) = (out for out in other["train"]["outs"] if out["path"] == "models")
    models["md5"] = "0" * 32 + ".dir"
    (problem,) = verify.compare(other, lock, finished, finished, same)
    assert problem.startswith("- Code, params and environment are as recorded.")
    assert capsys.readouterr().out.count("DIFFERENT") == 1

    other["train"]["params"]["params.yaml"]["seed"] = 5
    next(dep for dep in other["train"]["deps"] if dep["path"] == "cnn")["md5"] = "0" * 32
    code, params = verify.compare(other, lock, finished, finished, same)
    assert code.startswith("- cnn has changed since train ran: ")
    assert params.startswith("- The params of train are not those in dvc.lock.")

    (problem,) = verify._explanations(
        lock, lock, {"numpy": "1.0", "blas": "x"}, {"numpy": "2.0", "blas": "x"}
    )
    assert problem.startswith("- numpy: recorded 1.0, here 2.0. Other versions")
