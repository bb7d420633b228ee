"""Get a dataset's files from a folder or a server, and check that they are the right ones."""

import os
import re
import time
from collections.abc import Sequence
from hashlib import file_digest, sha256
from pathlib import Path

import requests
import urllib3

from cnn.atomic import atomic_path, write_bytes
from pipeline.data.dataset import DataFile
from pipeline.data.progress import progress_bar
from pipeline.errors import UserError

MIRROR_VARIABLE = "DATASET_MIRROR"
NOTE_VARIABLE = "NO_SOURCE_NOTE"  # a path: fetch writes an empty file there if no source has a file
SHARED_FOLDER = Path("../shared/datasets")
TIMEOUT = (5, 30)  # seconds: to connect, and between bytes
LONGEST = 300  # seconds for one file, and those that SLOWEST allows
SLOWEST = 200_000  # bytes per second
PAUSES = (1, 3)  # seconds before the second and the third try
OTHER_HASH = "its SHA-256 is not the published one"


def sources(name: str, mirrors: Sequence[str]) -> list[str]:
    """Folders and URLs to search for the files of the dataset `name`, in this order."""
    folders = []
    if mirror := os.environ.get(MIRROR_VARIABLE):
        folders.append(f"{mirror.removesuffix('/')}/{name}")
    if SHARED_FOLDER.is_dir():
        folders.append(f"{SHARED_FOLDER}/{name}")
    return folders + [mirror.rstrip("/") for mirror in mirrors]


def fetch_file(file: DataFile, destination: Path, mirrors: Sequence[str]) -> None:
    """Fetch a file from the first source that has it intact, into the folder with the dataset's name."""
    if _is_whole(destination, file):
        return
    name = destination.parent.name
    tried = []
    for source in sources(name, mirrors):
        location = f"{source}/{file.name}"
        problem = (
            _download(location, file, destination)
            if _is_url(location)
            else _copy(location, file, destination)
        )
        if problem is None:
            return
        tried.append(f"- {_without_password(location)}: {problem}")
    if note := os.environ.get(NOTE_VARIABLE):
        Path(note).touch()
    raise UserError(
        "\n".join(
            [
                f"No source has {file.name} of {name}. Tried:",
                *tried,
                f"Either set {MIRROR_VARIABLE} to a folder or URL that holds {name}/{file.name},",
                "or use the digits that come with scikit-learn: dvc exp run -S data.dataset=digits",
            ]
        )
    )


def _copy(location: str, file: DataFile, destination: Path) -> str | None:
    """Copy from a folder; return what was wrong, or None."""
    try:
        content = Path(location).read_bytes()
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if sha256(content).hexdigest() != file.sha256:
        return OTHER_HASH
    write_bytes(destination, content)
    return None


def _download(location: str, file: DataFile, destination: Path) -> str | None:
    """Download from a server; return what was wrong, or None.

    After a problem that may be temporary (a broken connection, a server error), it pauses and tries again.
    """
    for pause in (*PAUSES, None):
        problem, may_pass = _try_download(location, file, destination)
        if problem is None or not may_pass or pause is None:
            return problem
        time.sleep(pause)
    return problem


def _try_download(location: str, file: DataFile, destination: Path) -> tuple[str | None, bool]:
    """Download, check, and only then put in place: (what was wrong or None, whether it may be temporary)."""
    try:
        with atomic_path(destination) as temporary:
            _stream(location, temporary, file)
            if not _is_whole(temporary, file):
                raise _NotTheFileError(OTHER_HASH)
    except requests.HTTPError as error:
        answer = error.response
        assert answer is not None  # raise_for_status gives it
        code = answer.status_code
        return f"it answered: {code} {answer.reason}", code >= 500 or code in (408, 425, 429)
    except requests.Timeout:
        return "it did not answer in time", True
    except requests.exceptions.InvalidSchema:
        return "only folders, http and https addresses are supported", False
    except ValueError:  # from requests, urllib3 or the encoding of the host's name
        return "the address is not valid", False
    except requests.exceptions.ChunkedEncodingError:
        return "the connection broke off", True
    except requests.TooManyRedirects:
        return "it redirects too often", False
    except requests.RequestException:
        return "it cannot be reached", True
    except _NotTheFileError as error:
        return str(error), False
    return None, False


class _NotTheFileError(Exception):
    """What the server sends cannot be the file."""


def _stream(url: str, path: Path, wanted: DataFile) -> None:
    """Write what a server sends to the file at `path`, but no more than the wanted file can have."""
    deadline = time.monotonic() + LONGEST + wanted.largest / SLOWEST
    with requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()
        if "html" in response.headers.get("Content-Type", ""):
            raise _NotTheFileError("it sent a web page instead of the file")
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else wanted.size
        with path.open("wb") as file, progress_bar(wanted.name, total, of_bytes=True) as advance:
            try:
                while chunk := response.raw.read1(2**16):  # what has arrived, without waiting for more
                    file.write(chunk)
                    advance(len(chunk))
                    if file.tell() > wanted.largest:
                        raise _NotTheFileError(f"it sent more than {wanted.largest:,} bytes")
                    if time.monotonic() > deadline:
                        raise requests.Timeout
            except urllib3.exceptions.HTTPError as error:
                raise requests.exceptions.ChunkedEncodingError from error


def _is_url(location: str) -> bool:
    return "://" in location


def _without_password(location: str) -> str:
    """`location` for display: SCHEME://USER:PASSWORD@HOST/… without what is before the last @."""
    return re.sub(r"^(\w+://|[^/]*:).*@", r"\1…@", location)


def _is_whole(path: Path, file: DataFile) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as content:
        return file_digest(content, "sha256").hexdigest() == file.sha256
