"""`python -m pipeline serve`: what it answers, what it refuses, how it stops."""

import base64
import hashlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from projects import ROOT, environment
from serving import NAMES, ask, encoded, form, in_a_thread, noise, save_network, send_raw

from pipeline import __main__ as program
from pipeline.apps import predict as predict_command
from pipeline.apps.serve import listen
from pipeline.apps.serve import service as service_module
from pipeline.apps.serve.limits import Limits
from pipeline.apps.serve.service import Service
from pipeline.artefacts.evaluate import Metrics
from pipeline.errors import UserError

SHORT = Limits(
    upload=100_000, held=250_000, parts=3, waiting=1, connections=20, head_seconds=0.3, body_seconds=0.4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    save_network(folder)
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def running(folder):
    """(service, port), with small limits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        service = Service.of_models(SHORT)
    with in_a_thread(service) as port:
        yield service, port


@pytest.fixture
def port(running):
    return running[1]


@pytest.fixture
def picture(rng):
    return encoded(noise(rng))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_the_answer_is_that_of_predict(here, port, rng, capsys, kind):
    """A form gives predict's document, error texts included; a body by itself, the same without a name."""
    good = encoded(noise(rng, 150, 80), kind)
    Path("a.png").write_bytes(good)
    Path("b.png").write_bytes(good[: len(good) // 3])
    Path("c.png").write_bytes(b"")
    Path("d.png").write_text("no picture")
    files = [Path(name) for name in ("a.png", "b.png", "c.png", "d.png")]
    with pytest.raises(SystemExit):
        predict_command.predict(files, as_json=True, pictures=None)
    expected = json.loads(capsys.readouterr().out)
    body, kind = form(*((file.name, file.read_bytes()) for file in files[:3]))
    assert ask(port, body=body, Content_Type=kind) == (422, expected[:3])
    assert ask(port, body=good) == (200, [expected[0] | {"file": "picture"}])
    reason = expected[3]["error"].replace("d.png", "picture")
    assert ask(port, body=b"no picture") == (422, [{"file": "picture", "error": reason}])
    assert list(expected[0]["probabilities"]) == NAMES


def test_photographs_of_digits_are_framed_as_predict_does(tmp_path, monkeypatch, capsys):
    from photographs import drawn_seven

    monkeypatch.chdir(tmp_path)
    save_network(tmp_path, "digit", [str(digit) for digit in range(10)], (28, 28, 1))
    drawn_seven().save("seven.png")
    predict_command.predict([Path("seven.png")], as_json=True, pictures=None)
    service = Service.of_models()
    (entry,) = service.recognise(Path("seven.png").read_bytes(), "image/png")
    assert [entry | {"file": "seven.png"}] == json.loads(capsys.readouterr().out)
    (entry,) = service.recognise(encoded(noise(np.random.default_rng(0), mode="L")), "image/png")
    assert "digit" in entry["error"]
    service.close()


def test_answers_do_not_mix_if_many_ask_at_once(running, rng):
    service, _ = running
    bodies = [encoded(noise(rng)) for _ in range(40)]
    alone = [service.recognise(body, "") for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda body: service.recognise(body, ""), bodies)) == alone
    assert len({str(answer) for answer in alone}) == len(bodies)


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"x", "multipart/form-data", 400, "The form's Content-Type has no boundary"),
        (b"x", "multipart/form-data; boundary=a", 400, "The form breaks off"),
        (
            b"--a\r\nno head\r\n--a--",
            "multipart/form-data; boundary=a",
            400,
            "A part of the form has no head",
        ),
        (b"--a\r\nX: %b\r\n\r\n\r\n--a--" % bytes(5000), "multipart/form-data; boundary=a", 400, "A part of"),
        (b"--a\r\n\r\nfield\r\n--a--", "multipart/form-data; boundary=a", 400, "The form holds no file"),
        (form(*[("a", b"x")] * 4)[0], form()[1], 413, "The form has more than 3 parts"),
        (form()[0], form()[1], 400, "The form holds no file"),
        (form(("", b""))[0], form()[1], 400, "The form holds no file"),
    ],
)
def test_a_form_that_cannot_be_read_is_refused_with_the_reason(port, body, kind, status, reason):
    got, answer = ask(port, body=body, Content_Type=kind)
    assert (got, answer["error"][: len(reason)]) == (status, reason)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        ("C:\\secret.png", "C:\\secret.png"),
        ("a\tb\x00c", "a�b�c"),
        ("x" * 3000, "x" * 100),
        ("Größe.png", "Größe.png"),
        ("", "picture"),
    ],
)
def test_a_file_name_is_repeated_and_nothing_else(here, port, picture, name, shown):
    before = sorted(here.rglob("*"))
    body, kind = form((name, picture))
    status, (entry,) = ask(port, body=body, Content_Type=f'{kind}; charset="x"')
    assert (status, entry["file"]) == (200, shown)
    assert sorted(here.rglob("*")) == before


def test_other_addresses_and_methods_are_refused_as_json(port):
    assert ask(port, "GET", "/nothing") == (
        404,
        {"error": "There is no /nothing. The page at / says what there is."},
    )
    for path in (
        "/../etc/passwd",
        "/%2e%2e/models/model.npz",
        "/models/model.npz",
        "/predict/",
        "//",
        "/%00",
    ):
        assert ask(port, "GET", path)[0] == 404
    status, answer = ask(port, "GET", "/predict")
    assert (status, answer["error"].partition(".")[0]) == (405, "/predict takes POST alone")
    for method in ("PUT", "DELETE", "TRACE", "OPTIONS", "NONSENSE"):
        assert ask(port, method, "/")[0] == 405


def test_an_upload_too_large_is_refused_before_it_is_read_or_while(port):
    reason = {"error": "The upload has more than 100,000 bytes: make the picture smaller."}
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    answer = send_raw(port, head + b"Content-Length: 100001\r\nExpect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")  # without 100 Continue
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == reason
    endless = [head + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1000\r\n%b\r\n" % bytes(4096)] * 60]
    answer = send_raw(port, *endless)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == reason


def test_the_packets_of_an_answer_do_not_wait_for_one_another():
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_slow_sender_is_answered_408_and_one_without_a_head_is_cut_off(port, picture):
    started = time.perf_counter()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n"
    answer = send_raw(port, head, *[b"x"] * 8, pause=0.1)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"The upload took more than 0.4 seconds." in answer
    assert send_raw(port, b"") == b""
    assert send_raw(port, b"POST /pre") == b""
    assert send_raw(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /hea").count(b"HTTP/1.1") == 1
    assert send_raw(port, *[b"GET / HTTP/1.1\r\n", *[b"X: y\r\n"] * 20], pause=0.05) == b""
    assert time.perf_counter() - started < 6


def test_an_answer_that_nobody_takes_ends(here, rng):
    """A page of megabytes is sent piece by piece; the connection ends after its time."""
    service = Service.of_models(Limits(answer_seconds=0.3))
    service.playground = bytes(20_000_000)
    with in_a_thread(service) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(b"GET /playground HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.7)
        received = 0
        with suppress(ConnectionResetError):
            while count := len(client.recv(2**20)):
                received += count
        assert received < 15_000_000


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10**5,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: a\r\n" * 10**5 + b"\r\n",
        b"GET /" + b"a" * 10**5,
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_as_json(port, request_):
    answer = send_raw(port, request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 40", b"HTTP/1.1 501")), answer
    assert json.loads(body)["error"].startswith("This is no HTTP request")


def test_it_refuses_with_503_what_it_has_no_room_for(running, picture, monkeypatch):
    """More bytes than it may hold; more requests than may wait; more connections than there may be."""
    service, port = running
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: send_raw(port, head, bytes(80_000)), range(4)))
    assert sorted(answer[9:12] for answer in answers) == [b"408", b"408", b"408", b"503"]
    assert b"retry-after: 1" in max(answers)

    go_on, look_at = threading.Event(), service_module.look_at
    monkeypatch.setattr(service_module, "look_at", lambda *a: go_on.wait(10) and look_at(*a))
    room = service.threads + SHORT.waiting
    with ThreadPoolExecutor(room + 2) as pool:
        asked = [pool.submit(ask, port, body=picture) for _ in range(room + 2)]
        while sum(future.done() for future in asked) < 2:
            time.sleep(0.01)
        assert ask(port, "GET", "/health")[0] == 200  # which needs no thread
        go_on.set()
        assert sorted(future.result()[0] for future in asked) == [200] * room + [503] * 2

    lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(SHORT.connections)]
    assert send_raw(port, b"").startswith(b"HTTP/1.1 503")
    for line in lines:
        line.close()
    time.sleep(0.1)
    assert ask(port, body=picture)[0] == 200
    assert (service.held, service.waiting) == (0, 0)


def test_what_waits_too_long_is_answered_503(here, picture, monkeypatch):
    service = Service.of_models(Limits(work_seconds=0.2))
    go_on = threading.Event()
    monkeypatch.setattr(service_module, "look_at", lambda *_: go_on.wait(10))
    with in_a_thread(service) as port:
        assert ask(port, body=picture)[0] == 503
        assert service.waiting == 1  # the thread cannot be stopped
        go_on.set()


def test_pictures_too_large_together_are_refused(running, rng, monkeypatch):
    monkeypatch.setattr(service_module, "MOST_PIXELS", 3000)
    body, kind = form(*[(name, encoded(noise(rng, 40, 40))) for name in "abc"])
    first, second, third = running[0].recognise(body, kind)
    assert "prediction" in first
    assert second["error"] == "b: the pictures before it are too large: send it by itself."
    assert "error" in third


def test_a_bug_is_answered_500_and_the_next_request_rightly(running, picture, monkeypatch):
    service, port = running
    with monkeypatch.context() as patch:
        patch.setattr(service_module, "look_at", lambda *_: 1 / 0)
        status, answer = ask(port, body=picture)
    assert status == 500
    assert answer["error"].startswith("ZeroDivisionError in the service. This is a bug")
    assert ask(port, body=picture)[0] == 200
    assert (service.held, service.waiting) == (0, 0)


def test_the_page_runs_its_own_script_alone_and_asks_nobody_else(port):
    status, page = ask(port, "GET", "/")
    assert status == 200
    assert not re.search(r"(src|href)=\"(?!/|data:)", page)
    (script,) = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = client.recv(2**14).partition(b"\r\n\r\n")[0].decode()
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; script-src 'sha256-{own}';" in head
    assert "unsafe" not in head
    status, playground = ask(port, "GET", "/playground")
    assert status == 200
    assert "Content-Security-Policy" in playground


def test_model_health_and_metrics_say_what_is_served(here, running, monkeypatch):
    service, port = running
    assert ask(port, "GET", "/health") == (200, {"status": "ok", "architecture": "small"})
    status, model = ask(port, "GET", "/model")
    assert (status, model["classes"], model["test"]) == (200, NAMES, None)
    assert model["image"] == {"width": 32, "height": 32, "channels": 3, "framing": "crop"}
    measures = dict.fromkeys(["loss", "macro_precision", "macro_recall", "macro_f1"], 0.5)
    measures |= {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95, "examples": 10}
    record = {
        "dataset": "own",
        "model": {key: model[key] for key in ("architecture", "parameters", "epoch")},
        "test": measures,
        "validation": measures,
        "per_class": {"cat": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}},
    }
    monkeypatch.chdir(here)
    Metrics.model_validate(record).save()
    assert service_module.about(service.model, service.network)["test"]["accuracy"] == 0.9
    record["model"]["epoch"] = 2  # of another training
    Metrics.model_validate(record).save()
    assert service_module.about(service.model, service.network)["test"] is None

    def count(text, line):
        return int(re.search(rf"^{re.escape(line)} (\d+)$", text, re.MULTILINE)[1])

    line = 'serve_requests_total{route="other",status="404"}'
    ask(port, "GET", "/a")
    before = ask(port, "GET", "/metrics")[1]
    ask(port, "GET", "/b%22}%201%0A")
    after = ask(port, "GET", "/metrics")[1]
    assert count(after, line) == count(before, line) + 1
    assert count(after, "serve_requests_waiting") == 0
    for each in after.splitlines():
        assert re.fullmatch(r'# TYPE \w+ (counter|gauge|histogram)|\w+(\{(\w+="[^"]*",?)+\})? [\d.]+', each)


def test_the_log_has_a_line_a_request_and_nothing_of_the_picture(running, picture, caplog, monkeypatch):
    service, port = running
    monkeypatch.setattr(service._log, "handlers", [caplog.handler])
    ask(port, body=form(("secret.png", picture))[0], Content_Type=form()[1])
    ask(port, "GET", "/a%0Ab%1b" + "c" * 500)
    first, second = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"127\.0\.0\.1 POST /predict 200 \d+ bytes [\d.]+ ms", first)
    assert re.fullmatch(r"127\.0\.0\.1 GET /a�b�c{95} 404 \d+ bytes [\d.]+ ms", second)


def test_an_address_that_cannot_be_had_is_one_message_with_what_to_do():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UserError, match=f"port {port}. Another program listens there. Stop it, or choose"
        ):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match="This machine does not have that address"):
        listen("192.0.2.1", 8000)
    with pytest.raises(UserError, match=r"'no\.such\.invalid' is no address"):
        listen("no.such.invalid", 8000)


def test_a_forbidden_port_is_one_message(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(UserError, match=r"port 80\. Ports below 1024 are reserved for the system"):
        listen("127.0.0.1", 80)


@pytest.mark.parametrize("missing", ["network", "packages"])
def test_what_is_missing_is_one_message(tmp_path, here, monkeypatch, missing):
    monkeypatch.setattr(sys, "argv", ["pipeline", "serve", "--port", "0"])
    if missing == "network":
        monkeypatch.chdir(tmp_path)
        Path("models").mkdir()
        expected = "error: models/model.npz is missing. Make it with: dvc repro train"
    else:
        monkeypatch.setattr("pipeline.apps.serve.find_spec", lambda name: None)
        expected = (
            "error: serve needs the packages starlette and uvicorn. Install them with: "
            "python -m pip install -c requirements.lock -c requirements-dev.lock starlette uvicorn"
        )
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == expected


def test_the_command_finishes_what_it_has_begun_and_ends_well_at_sigterm(here, rng):
    body = encoded(noise(rng, 1500, 1500))
    command = [sys.executable, "-m", "pipeline", "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        first = process.stdout.readline()
        port = int(re.fullmatch(r"small answers at http://127\.0\.0\.1:(\d+)/ until Ctrl-C\.\n", first)[1])
        with socket.create_connection(("127.0.0.1", port)) as client:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            client.sendall(head + body[:-1])
            while f"serve_bytes_held {len(body) - 1}" not in ask(port, "GET", "/metrics")[1]:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            client.sendall(body[-1:])
            assert client.recv(2**16).startswith(b"HTTP/1.1 200")
        out, log = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "Stopped.\n")
    assert "Traceback" not in log
