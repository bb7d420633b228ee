"""A server that misbehaves only causes a message: good data stay, and the next source is tried."""

import errno
import gzip
import http.server
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from test_failed_writes import in_a_child
from test_fetch import FILES, tiny_dataset  # noqa: F401

from pipeline.data import dataset, sources
from pipeline.data.catalogue import DATASETS
from pipeline.errors import UserError
from pipeline.paths import RAW

NAME = "train-i.gz"
GOOD = FILES[NAME]


def answer(code, body=b"", **headers):
    """A handler's method that sends this answer."""

    def send(self):
        self.send_response(code)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    return send


def raw_bytes(content):
    def send(self):
        self.wfile.write(content)

    return send


def stall(before, body=b""):
    """Send nothing more for longer than the reader waits."""

    def send(self):
        if before == "body":
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
        time.sleep(0.6)

    return send


def drip(self):
    """Send a byte now and then, so that no single wait is too long."""
    self.send_response(200)
    self.end_headers()
    for _ in range(100):
        self.wfile.write(b"x")
        self.wfile.flush()
        time.sleep(0.05)


def endless(self):
    self.send_response(200)
    self.end_headers()
    for _ in range(40):
        self.wfile.write(bytes(2**16))


PAGE = b"<html><body>Please log in</body></html>"
FAULTS = {
    "400": (answer(400), "it answered: 400"),
    "401": (answer(401), "it answered: 401"),
    "403": (answer(403), "it answered: 403"),
    "404": (answer(404, PAGE), "it answered: 404"),
    "408": (answer(408), "it answered: 408"),
    "410": (answer(410), "it answered: 410"),
    "429": (answer(429), "it answered: 429"),
    "451": (answer(451), "it answered: 451"),
    "500": (answer(500), "it answered: 500"),
    "502": (answer(502), "it answered: 502"),
    "503": (answer(503, Retry_After=1), "it answered: 503"),
    "504": (answer(504), "it answered: 504"),
    "no content": (answer(204), "SHA-256"),
    "an empty file": (answer(200), "SHA-256"),
    "another file": (answer(200, FILES["test-i.gz"]), "SHA-256"),
    "half of the file": (answer(200, GOOD[: len(GOOD) // 2]), "SHA-256"),
    "more than the file": (answer(200, GOOD + b"x"), "SHA-256"),
    "a flipped bit": (answer(200, GOOD[:50] + bytes([GOOD[50] ^ 1]) + GOOD[51:]), "SHA-256"),
    "the file unpacked": (answer(200, gzip.decompress(GOOD)), "SHA-256"),
    "a web page": (answer(200, PAGE, Content_Type="text/html; charset=utf-8"), "a web page"),
    "a web page without a type": (answer(200, PAGE), "SHA-256"),
    "a part of a file": (answer(206, GOOD[:10], Content_Range="bytes 0-9/100"), "SHA-256"),
    "a length too long": (answer(200, GOOD, Content_Length=len(GOOD) + 100), "broke off"),
    "a length too short": (answer(200, GOOD, Content_Length=len(GOOD) - 100), "SHA-256"),
    "a length that is none": (answer(200, GOOD[:-1], Content_Length="many"), "SHA-256"),
    "more than any dataset has": (endless, "it sent more than"),
    "a length beyond bounds": (answer(200, GOOD, Content_Length=2**60), "broke off"),
    "a redirection to itself": (answer(302, Location="/tiny/train-i.gz"), "redirects too often"),
    "a redirection to nowhere": (answer(301, Location="/nothing"), "it answered: 404|redirects too often"),
    "a redirection to a file": (answer(302, Location="file:///etc/hostname"), "http and https"),
    "no HTTP": (raw_bytes(b"hello\r\n\r\n"), "cannot be reached"),
    "nothing": (raw_bytes(b""), "cannot be reached"),
    "broken chunks": (
        raw_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nxx"),
        "broke off",
    ),
    "no answer": (stall("header"), "in time"),
    "half of the file, and then nothing": (stall("body", GOOD[:100]), "broke off"),
    "a byte now and then": (drip, "in time"),
}


@pytest.fixture
def serve():
    """serve(method): (address of a server that answers with this method, paths that it was asked for).

    If a certificate is given, the server speaks HTTPS.
    """
    running = []

    def start(method, certificate=None):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                if self.path == "/nothing":
                    return answer(404)(self)
                with suppress(BrokenPipeError, ConnectionResetError):
                    (method[len(asked) - 1] if isinstance(method, list) else method)(self)
                return None

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads, server.block_on_close = True, False
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # who does not trust it hangs up
        threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(sources, "TIMEOUT", (0.3, 0.3))
    monkeypatch.setattr(sources, "LONGEST", 0.5)
    monkeypatch.setattr(sources, "SLOWEST", float("inf"))
    monkeypatch.setattr(dataset, "LARGEST_FILE", 2**20)


def fetch_one():
    (file,) = (file for file in DATASETS["tiny"].files if file.name == NAME)
    sources.fetch_file(file, RAW / "tiny" / NAME, [])


def files():
    return {path.name: path.read_bytes() for path in RAW.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_told_and_nothing_is_left(serve, monkeypatch, fault):
    method, reason = FAULTS[fault]
    monkeypatch.setenv("DATASET_MIRROR", serve(method)[0])
    with pytest.raises(UserError, match=reason) as error:
        fetch_one()
    assert str(error.value).startswith(f"No source has {NAME} of tiny. Tried:\n- http://127.0.0.1:")
    assert files() == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_source_is_asked_and_other_files_stay(serve, monkeypatch, tiny_dataset, fault):  # noqa: F811
    folder = RAW / "tiny"
    folder.mkdir(parents=True)
    (folder / "train-l.gz").write_bytes(FILES["train-l.gz"])
    places = [f"{serve(FAULTS[fault][0])[0]}/tiny", str(tiny_dataset / "tiny")]
    monkeypatch.setattr(sources, "sources", lambda *_: places)
    fetch_one()
    assert files() == {NAME: GOOD, "train-l.gz": FILES["train-l.gz"]}


@pytest.mark.parametrize("fault", ["500", "503", "429", "a length too long", "nothing", "no answer"])
def test_what_may_pass_is_tried_again(serve, monkeypatch, fault):
    bad = FAULTS[fault][0]
    address, asked = serve([bad, bad, answer(200, GOOD)])
    monkeypatch.setenv("DATASET_MIRROR", address)
    fetch_one()
    assert files() == {NAME: GOOD}
    assert len(asked) == 3


@pytest.mark.parametrize("fault", ["403", "404", "another file", "a web page"])
def test_what_will_not_pass_is_not_tried_again(serve, monkeypatch, fault):
    address, asked = serve(FAULTS[fault][0])
    monkeypatch.setenv("DATASET_MIRROR", address)
    with pytest.raises(UserError):
        fetch_one()
    assert len(asked) == 1


def test_a_whole_file_is_not_asked_for_again(serve, monkeypatch):
    (RAW / "tiny").mkdir(parents=True)
    (RAW / "tiny" / NAME).write_bytes(GOOD)
    address, asked = serve(answer(500))
    monkeypatch.setenv("DATASET_MIRROR", address)
    fetch_one()
    assert asked == []


def test_a_damaged_file_is_kept_until_a_whole_one_is_there(serve, monkeypatch):
    (RAW / "tiny").mkdir(parents=True)
    (RAW / "tiny" / NAME).write_bytes(GOOD[:-1])
    monkeypatch.setenv("DATASET_MIRROR", serve(answer(404))[0])
    with pytest.raises(UserError):
        fetch_one()
    assert files() == {NAME: GOOD[:-1]}
    monkeypatch.setenv("DATASET_MIRROR", serve(answer(200, GOOD))[0])
    fetch_one()
    assert files() == {NAME: GOOD}


def test_a_downloaded_file_may_be_read_by_whom_any_other_may(serve, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", serve(answer(200, GOOD))[0])
    fetch_one()
    Path("other").touch()
    assert (RAW / "tiny" / NAME).stat().st_mode == Path("other").stat().st_mode


def test_a_full_disk_is_told_with_the_name_of_the_file(serve, monkeypatch):
    monkeypatch.setenv("DATASET_MIRROR", serve(answer(200, GOOD))[0])

    def attempt():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        try:
            fetch_one()
        except OSError as error:
            return f"{error.strerror} {error.filename}"
        return "written"

    assert in_a_child(attempt) == f"File too large data/raw/tiny/{NAME}"
    assert files() == {}


def test_a_downloaded_file_has_reached_the_disk_before_it_gets_its_name(serve, monkeypatch):
    def fail(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setenv("DATASET_MIRROR", serve(answer(200, GOOD))[0])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        fetch_one()
    assert files() == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_download_leaves_is_cleared_by_the_next(serve, monkeypatch, number):
    monkeypatch.setattr(sources, "LONGEST", 60)
    address, asked = serve([drip, answer(200, GOOD)])
    monkeypatch.setenv("DATASET_MIRROR", address)
    pid = os.fork()
    if pid == 0:
        try:
            fetch_one()
        finally:
            os._exit(0)
    while not asked:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(pid, number)
    os.waitpid(pid, 0)
    assert len(files()) == 1, "the child was in the middle of it"
    fetch_one()
    assert files() == {NAME: GOOD}


@pytest.fixture
def certificate(tmp_path):
    """The file of a certificate for 127.0.0.1 that nobody signed but itself, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate")
    path = tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", path, "-out", tmp_path / "public.pem"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + (tmp_path / "public.pem").read_bytes())
    return path


@pytest.fixture
def secure(serve, certificate):
    """The address of a server with that certificate, which has the file."""
    address, _ = serve(answer(200, GOOD), certificate)
    return address.replace("http:", "https:")


def then_the_next(monkeypatch, tiny_dataset, address):  # noqa: F811
    """The message if `address` is the only source; the file has come if it is the first one."""
    with pytest.MonkeyPatch.context() as only:
        only.setenv("DATASET_MIRROR", address)
        with pytest.raises(UserError) as error:
            fetch_one()
    assert files() == {}
    places = [f"{address}/tiny", str(tiny_dataset / "tiny")]
    monkeypatch.setattr(sources, "sources", lambda *_: places)
    fetch_one()
    assert files() == {NAME: GOOD}
    return str(error.value)


def test_a_self_signed_certificate_is_told_and_accepted_once_it_is_trusted(
    secure,
    monkeypatch,
    tiny_dataset,  # noqa: F811
    certificate,
):
    message = then_the_next(monkeypatch, tiny_dataset, secure)
    assert re.search(
        r"its certificate is not trusted \(self.signed certificate\); if you trust it, ", message
    )
    (RAW / "tiny" / NAME).unlink()
    monkeypatch.setattr(sources, "sources", lambda *_: [f"{secure}/tiny"])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate.with_name("public.pem")))
    fetch_one()
    assert files() == {NAME: GOOD}


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_missing_file_of_trusted_certificates_is_named(secure, monkeypatch, tiny_dataset, variable):  # noqa: F811
    monkeypatch.setenv(variable, "/no/such/bundle.pem")
    message = then_the_next(monkeypatch, tiny_dataset, secure)
    assert ": the file of trusted certificates cannot be read: /no/such/bundle.pem\n" in message


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        ("http://127.0.0.1:9", "the proxy cannot be reached, or refuses; it is that of the environment"),
        ("nowhere:9", "the address of the proxy is not valid; it is that of the environment variable"),
        ("socks5://127.0.0.1:9", "SOCKS proxies are not supported; "),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_dead_proxy_is_told(monkeypatch, tiny_dataset, scheme, proxy, reason):  # noqa: F811
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    assert reason in then_the_next(monkeypatch, tiny_dataset, f"{scheme}://mirror.invalid")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_unknown_host_is_told(monkeypatch, tiny_dataset, scheme):  # noqa: F811
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = then_the_next(monkeypatch, tiny_dataset, f"{scheme}://mirror.invalid")
    assert ": its host is not known (Name or service not known)\n" in message


def test_a_refused_connection_is_told_in_the_words_of_the_system(monkeypatch, tiny_dataset):  # noqa: F811
    message = then_the_next(monkeypatch, tiny_dataset, "http://127.0.0.1:9")
    assert f": it cannot be reached ({os.strerror(errno.ECONNREFUSED)})\n" in message


def test_two_processes_that_fetch_at_once_do_not_harm_each_other(tmp_path):
    program = f"import sys; sys.path[:0] = {sys.path!r}; sys.argv[1:] = ['fetch']\n"
    program += "from pipeline.__main__ import main\nmain()"
    (tmp_path / "params.yaml").write_text(DIGITS_PARAMS)
    running = [subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert sorted(path.name for path in (tmp_path / "data/raw/digits").iterdir()) == [
        "images.npy",
        "labels.npy",
    ]


DIGITS_PARAMS = (
    (Path(__file__).parents[2] / "params.yaml").read_text().replace("dataset: mnist", "dataset: digits")
)
