"""`python -m pipeline verify`: whether a rerun gives the recorded results, byte for byte."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.apps.run import check_git, dvc, git
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.artefacts.train import Environment
from pipeline.config.params import load_params
from pipeline.config.yaml_files import read_mapping
from pipeline.data.catalogue import DATASETS
from pipeline.data.dataset import OWN
from pipeline.data.sources import MIRROR_VARIABLE, SHARED_FOLDER
from pipeline.errors import StoppedError, UserError
from pipeline.paths import PARAMS, RAW

LOCK = Path("dvc.lock")
Lock = dict[str, dict[str, Any]]


def verify() -> None:
    """Rerun the last commit's pipeline in a temporary clone, and compare each output with its dvc.lock."""
    check_git()
    if git("status", "--porcelain"):
        print("note: Uncommitted changes are left out: the last commit is verified.")
    with TemporaryDirectory() as folder:
        git("clone", "--quiet", git("rev-parse", "--show-toplevel"), f"{folder}/clone")
        clone = Path(folder, "clone", git("rev-parse", "--show-prefix"))
        recorded, environment = read_lock(clone), read_environment(clone)
        problems = compare_committed(recorded, Path.cwd(), clone)
        data = load_params(clone / PARAMS).data
        mirror = None if data.dataset == OWN else find_mirror(data.dataset)
        if data.dataset == OWN:
            copy_images(Path(data.path), clone)
        (clone / LOCK).unlink()  # so that a new one lists only what has run in the clone
        (clone / ".dvc" / "config.local").write_text("[cache]\n    dir = cache\n")  # of the clone alone
        print("The output below comes from a temporary clone, in which the last commit runs.", flush=True)
        variables = {MIRROR_VARIABLE: mirror} if mirror else {}
        try:
            code = dvc("repro", "--force", folder=clone, **variables)
        except KeyboardInterrupt:
            raise StoppedError("Stopped. Nothing outside the clone has changed.", signal.SIGINT) from None
        if code != 0:
            raise UserError("\n".join(["The pipeline stopped in the clone; the reason is above.", *problems]))
        environments = environment, read_environment(clone)
        problems += compare(recorded, read_lock(clone), Path.cwd(), clone, environments)
    if problems:
        raise UserError("\n".join(["Not every byte is as dvc.lock records it.", *problems]))
    print("Every byte is as dvc.lock records it.")


def read_lock(folder: Path) -> Lock:
    """The stages of a dvc.lock."""
    if not (folder / LOCK).exists():
        raise UserError("The last commit has no dvc.lock. Make one, and commit it: dvc repro")
    content = read_mapping(folder / LOCK)
    stages = content.get("stages")
    if not isinstance(stages, dict) or not all(map(_is_stage, stages.values())):
        raise UserError(
            "dvc.lock must hold the key stages, with what each stage read and wrote; that of the last commit "
            f"holds: {', '.join(map(str, content)) or 'nothing'}. Make a new one, and commit it: "
            "rm dvc.lock && dvc repro"
        )
    return stages


def _is_stage(content: Any) -> bool:
    """Whether this is what dvc.lock holds of a stage, as far as `verify` reads it."""
    if not isinstance(content, dict):
        return False
    keys: tuple[tuple[str, set[str]], ...] = (("outs", {"path", "md5"}), ("deps", {"path"}))
    return all(
        isinstance(entry, dict) and needed <= entry.keys()
        for key, needed in keys
        for entry in content.get(key) or []
    )


def compare_committed(recorded: Lock, project: Path, clone: Path) -> list[str]:
    """Outputs kept in Git that differ from dvc.lock's record, in a clone in which nothing has run."""
    return [
        f"- {path} as committed is not the file that dvc.lock records: its MD5 is {committed[:8]}, not "
        f"{digest[:8]}. One of them comes from another run. Run dvc repro, and commit what it changes."
        for stage in recorded.values()
        for path, digest in _files(stage, project).items()
        if (clone / path).is_file()
        and (committed := md5((clone / path).read_bytes(), usedforsecurity=False).hexdigest()) != digest
    ]


def find_mirror(name: str) -> str | None:
    """The first folder here that has all of the dataset's files; absolute, for fetch in another folder."""
    for folder in (RAW, Path(os.environ.get(MIRROR_VARIABLE, "")), SHARED_FOLDER):
        if all((folder / name / file.name).is_file() for file in DATASETS[name].files):
            return str(folder.resolve())
    return None


def copy_images(path: Path, clone: Path) -> None:
    """Copy own images, which Git does not keep, to the same place in the clone."""
    place = (clone / path).resolve()  # of an absolute path: itself
    if path.exists() and not place.exists():
        if not place.is_relative_to(clone.parent.resolve()):
            raise UserError(
                f"verify needs own images inside the project, or an absolute data.path; it is {path}."
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(path, place) if path.is_dir() else shutil.copy(path, place)


def read_environment(folder: Path) -> Mapping[str, str]:
    """The environment of the run in a folder; empty if it is not recorded, or the record is damaged."""
    try:
        return Environment.model_validate_json((folder / Environment.path).read_bytes()).model_dump()
    except (FileNotFoundError, ValueError):
        return {}


def compare(
    recorded: Lock,
    rerun: Lock,
    project: Path,
    clone: Path,
    environments: tuple[Mapping[str, str], Mapping[str, str]],
) -> list[str]:
    """Print a table of all outputs; return possible reasons for the differences, if there are any."""
    table = make_table("Verification", "file", "stage", "recorded", "now", "bytes")
    differ = False
    for stage in rerun:
        before = _files(recorded.get(stage, {}), project)
        now = _files(rerun[stage], clone)
        if before.keys() != now.keys():  # a folder's files are known if their list is in DVC's cache
            before, now = (_outputs(lock.get(stage, {})) for lock in (recorded, rerun))
        for name in sorted(before.keys() | now.keys()):
            same = before.get(name) == now.get(name)
            differ |= not same
            digests = (digests.get(name, "none")[:8] for digests in (before, now))
            table.add_row(name, stage, *digests, "same" if same else "DIFFERENT")
    print_table(open_console(), table)
    return _explanations(recorded, rerun, *environments) if differ else []


def _explanations(recorded: Lock, rerun: Lock, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    outputs = {name for stage in rerun.values() for name in _outputs(stage)}
    found = [
        f"- {dep['path']} has changed since {stage} ran: dvc.lock belongs to other code. "
        "Run dvc repro, and commit what it changes."
        for stage in rerun
        for dep in rerun[stage].get("deps", [])
        if dep["path"] not in outputs and dep not in recorded.get(stage, {}).get("deps", [])
    ]
    found += [
        f"- The params of {stage} are not those in dvc.lock. Run dvc repro, and commit what it changes."
        for stage in rerun
        if rerun[stage].get("params") != recorded.get(stage, {}).get("params")
    ]
    found += [
        f"- {key}: recorded {old.get(key, 'nothing')}, here {new.get(key, 'nothing')}. Other versions or "
        "processors may round differently; the same ones give the same bytes."
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    raw = (_outputs(lock.get("fetch", {})).get(str(RAW)) for lock in (recorded, rerun))
    if not found and len(set(raw)) > 1:
        found.append(
            f"- The files in {RAW} have the published content, but somebody packed those here again, or "
            "those of the recorded run. What is made of them is the same."
        )
    return found or ["- Code, params and environment are as recorded. This is a bug: please report it."]


def _outputs(stage: dict[str, Any]) -> dict[str, str]:
    """The MD5 that DVC records for each output, by path."""
    return {out["path"]: out["md5"] for out in stage.get("outs", [])}


def _files(stage: dict[str, Any], folder: Path) -> dict[str, str]:
    """The same for each file of an output folder, if its list is in the DVC cache of `folder`."""
    files = {}
    for path, digest in _outputs(stage).items():
        listed = _cached(digest, folder) if digest.endswith(".dir") else None
        if listed is None:
            files[path] = digest
        else:
            files |= {f"{path}/{entry['relpath']}": entry["md5"] for entry in json.loads(listed)}
    return files


def _cached(digest: str, folder: Path) -> bytes | None:
    path = folder / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    return path.read_bytes() if path.exists() else None
