"""Get a dataset's files from a folder or a server, and check that they are the right ones."""

import gzip
import os
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Sequence
from hashlib import file_digest, sha256
from pathlib import Path

import requests
import urllib3

from cnn.atomic import atomic_path, write_bytes
from pipeline.data.dataset import LARGEST_FILE, DataFile
from pipeline.data.progress import progress_bar
from pipeline.errors import UserError
from pipeline.paths import checkout

MIRROR_VARIABLE = "DATASET_MIRROR"
NOTE_VARIABLE = "NO_SOURCE_NOTE"  # a path: fetch writes an empty file there if no source has a file
SHARED_FOLDER = Path("../shared/datasets")
TIMEOUT = (5, 30)  # seconds: to connect, and between bytes
LONGEST = 300  # seconds for one file, and those that SLOWEST allows
SLOWEST = 200_000  # bytes per second
PAUSES = (1, 3)  # seconds before the second and the third try
GZIP_SUFFIX = ".gz"
BUNDLE_VARIABLE = "REQUESTS_CA_BUNDLE"  # a file of certificates that requests trusts instead of its own
PROXY_HINT = "; it is that of the environment variable https_proxy, http_proxy or all_proxy"


def sources(name: str, mirrors: Sequence[str]) -> list[str]:
    """Folders (absolute) and URLs to search for the files of the dataset `name`, in this order."""
    places = [os.environ.get(MIRROR_VARIABLE), str(SHARED_FOLDER)]
    own = [f"{_absolute(place).removesuffix('/')}/{name}" for place in places if place]
    return own + [mirror.rstrip("/") for mirror in mirrors]


def _absolute(place: str) -> str:
    """A folder's path as an absolute one; an address, also without //, as it is."""
    return place if re.match("[^/]*:", place) else os.path.normpath(checkout() / place)


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
    """Copy from a folder, also if the file was unpacked or packed again; return what was wrong, or None."""
    problem = "there is no such file"
    for path in (Path(location), Path(location.removesuffix(GZIP_SUFFIX))):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        if (packed := _pack(content, file)) is not None:
            if packed is not content:
                print(f"note: {path} is not packed; its content is the published one.")
            write_bytes(destination, packed)
            return None
        problem = _other_hash(file)
    return problem


def _pack(content: bytes, file: DataFile) -> bytes | None:
    """`content` if it is the file, packed if it is what the file unpacks to; None if it is something else."""
    digest = sha256(content).hexdigest()
    if digest == file.content_sha256:
        return gzip.compress(content, compresslevel=1, mtime=0)
    return content if digest == file.sha256 or _unpacks_to_published(content, file) else None


def _other_hash(file: DataFile) -> str:
    also = ", and its content's is not, either" if file.content_sha256 else ""
    return f"its SHA-256 is not the published one{also}"


def _unpacks_to_published(packed: bytes, file: DataFile) -> bool:
    """Whether the bytes, which are not the published file, unpack to the same content."""
    if file.content_sha256 is None:
        return False
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip
    try:
        content = unpacker.decompress(packed, LARGEST_FILE)
    except zlib.error:
        return False
    whole = unpacker.eof and not unpacker.unused_data
    return whole and sha256(content).hexdigest() == file.content_sha256


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
                raise _NotTheFileError(_other_hash(file))
    except requests.HTTPError as error:
        answer = error.response
        assert answer is not None  # raise_for_status gives it
        code = answer.status_code
        return f"it answered: {code} {answer.reason}", code >= 500 or code in (408, 425, 429)
    except requests.Timeout:
        return "it did not answer in time", True
    except requests.exceptions.InvalidSchema as error:
        if "SOCKS" in str(error):
            return f"SOCKS proxies are not supported{PROXY_HINT}", False
        return "only folders, http and https addresses are supported", False
    except requests.exceptions.InvalidProxyURL:
        return f"the address of the proxy is not valid{PROXY_HINT}", False
    except ValueError:  # from requests, urllib3 or the encoding of the host's name
        return "the address is not valid", False
    except requests.exceptions.ChunkedEncodingError:
        return "the connection broke off", True
    except requests.TooManyRedirects:
        return "it redirects too often", False
    except requests.RequestException as error:
        return _connection_problem(error)
    except _NotTheFileError as error:
        return str(error), False
    return None, False


def _connection_problem(error: requests.RequestException) -> tuple[str, bool]:
    """(why there is no connection, whether it may be temporary)."""
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy cannot be reached, or refuses{PROXY_HINT}", True
    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case ssl.SSLCertVerificationError():
                hint = f"if you trust it, name the file of its certificate in {BUNDLE_VARIABLE}"
                return f"its certificate is not trusted ({cause.verify_message}); {hint}", False
            case socket.gaierror():
                return f"its host is not known ({cause.strerror})", True
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection is possible ({causes[-1]})", False
    system = [f" ({cause.strerror})" for cause in causes if isinstance(cause, OSError) and cause.strerror]
    return f"it cannot be reached{''.join(system[-1:])}", True


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what caused it: urllib3 keeps the cause in `reason`, and requests in its arguments."""
    cause: object = error
    while isinstance(cause, BaseException):
        yield cause
        cause = (
            getattr(cause, "reason", None)
            or cause.__cause__
            or cause.__context__
            or next(iter(cause.args), None)
        )


class _NotTheFileError(Exception):
    """What the server sends cannot be the file, or nothing was asked of it."""


def _stream(url: str, path: Path, wanted: DataFile) -> None:
    """Write what a server sends to the file at `path`, but no more than the wanted file can have."""
    deadline = time.monotonic() + LONGEST + wanted.largest / SLOWEST
    with _get(url) as response:
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


def _get(url: str) -> requests.Response:
    try:
        return requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    except requests.RequestException:
        raise
    except OSError:  # raised by requests itself, before it connects
        bundle = os.environ.get(BUNDLE_VARIABLE) or os.environ.get("CURL_CA_BUNDLE")
        raise _NotTheFileError(f"the file of trusted certificates cannot be read: {bundle}") from None


def _is_url(location: str) -> bool:
    return "://" in location


def _without_password(location: str) -> str:
    """`location` for display: SCHEME://USER:PASSWORD@HOST/… without what is before the last @."""
    return re.sub(r"^(\w+://|[^/]*:).*@", r"\1…@", location)


def _is_whole(path: Path, file: DataFile) -> bool:
    """Whether the file at `path` is the published one, or unpacks to the same content."""
    if not path.is_file():
        return False
    with path.open("rb") as content:
        if file_digest(content, "sha256").hexdigest() == file.sha256:
            return True
    return file.content_sha256 is not None and _unpacks_to_published(path.read_bytes(), file)
