"""Whatever is sent to `python -m pipeline serve`, it answers with a reason, and the next request rightly."""

import io
import json
import re
import signal
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import numpy as np
import pytest
from PIL import Image
from serving import ask, encoded, form, in_a_process, noise, save_network

from pipeline.apps.serve.limits import Limits

LIMITS = Limits(upload=2**21, head_seconds=3, body_seconds=3, answer_seconds=20)
PEAK = 1000 * 2**20  # bytes of memory; the largest pictures below have 25 million grey pixels
LEFT = 250 * 2**20  # afterwards


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, data=b"", depth=8, colour=0, extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def webp(width, height):
    """An animation in a canvas of this size, with a frame of one pixel."""
    still = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    canvas = b"\2\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(16) + still
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(tags, following=0):
    """A little-endian TIFF with these tags {number: (type, value)}."""
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(tags.items())
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def huge(rng):
    return int(rng.integers(30_000, 2**31 - 1))


def real(rng):
    """A picture as people send it, in a format drawn at random."""
    kind = str(rng.choice(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"]))
    width, height = rng.integers(1, 120, 2)
    return encoded(noise(rng, width, height), kind)


def truncated(rng):
    content = real(rng)
    return content[: rng.integers(1, len(content))]


def flipped(rng):
    content = np.frombuffer(real(rng), np.uint8).copy()
    places = rng.integers(0, len(content), rng.integers(1, 20))
    content[places] ^= rng.integers(1, 256, len(places), dtype=np.uint8)
    return content.tobytes()


def random_bytes(rng):
    magic = [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"RIFF\0\0\0\0WEBP",
    ]
    magic += [
        b"\0\0\0\x20ftypavif",
        b"%!PS-Adobe",
        b"\0\0\1\0",
        b"8BPS",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"P6 9 9 255\n",
    ]
    return magic[rng.integers(len(magic))] + rng.bytes(rng.integers(0, 200_000))


def bomb(rng):
    """Few bytes that say they are many pixels."""
    w, h = huge(rng), huge(rng)
    side = struct.pack("<HH", w % 65536 | 1024, h % 65536 | 32768)
    return [
        png(w, h),
        png(w, h, zlib.compress(bytes(10**6))),
        b"GIF89a" + side + b"\0\0\0," + bytes(4) + side + b"\0\2\2\x44\1\0;",
        b"GIF89a\1\0\1\0\0\0\0," + bytes(4) + side + b"\0\2\2\x44\1\0;",  # a frame larger than the screen
        tiff({256: (4, w), 257: (4, h), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8), 279: (4, 8)}),
        webp(16383, 16383),
        b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, w, -h, 1, 24, 0, 0, 0, 0, 0, 0),
        b"\xff\xd8\xff\xc0\0\x11\x08"
        + struct.pack(">HH", 65500, 65500)
        + b"\3\1\x22\0\2\x11\1\3\x11\1\xff\xd9",
        png(10**6, 25),  # within the limit of pixels
        png(1, 25_000_000, zlib.compress(bytes(2 * 10**6))),
    ][rng.integers(10)]


@cache
def compressed_zeros():
    return zlib.compress(bytes(30_000_000))


def overfull(rng):
    """Much more content, compressed, than the picture has room for."""
    zeros = compressed_zeros()
    return [
        png(4, 4, zeros),
        png(4, 4, zlib.compress(bytes(20)), extra=chunk(b"zTXt", b"a\0\0" + zeros)),
        png(4, 4, zlib.compress(bytes(20)), extra=chunk(b"iCCP", b"a\0\0" + zeros)),
        png(4, 4, zlib.compress(bytes(20)), extra=chunk(b"iTXt", b"a\0\1\0\0\0" + zeros) * 3),
        png(2000, 2000, zlib.compress(bytes(2000 * 2001)), 8, 0),  # a right picture, of 4 kB
        b"\x1f\x8b" + zeros,
    ][rng.integers(6)]


def exif(rng):
    """Directions that lead nowhere, beside a right picture."""
    data = (
        b"Exif\0\0"
        + [
            rng.bytes(rng.integers(0, 60_000)),
            tiff({274: (3, int(rng.integers(9, 65536)))}),
            tiff({274: (3, 6), 34665: (4, 8)}, following=8),  # directories that point to themselves
            tiff({34853: (4, 2**31), 274: (int(rng.integers(0, 65536)), 2**31)}),
        ][rng.integers(4)]
    )
    return encoded(noise(rng), str(rng.choice(["JPEG", "WEBP", "PNG"])), exif=data)


def animated(rng):
    frames = [noise(rng, 20, 20, "L") for _ in range(rng.integers(2, 40))]
    return encoded(
        frames[0], str(rng.choice(["GIF", "PNG", "WEBP", "TIFF"])), save_all=True, append_images=frames
    )


def scans(rng):
    """A progressive JPEG that says the same of its pixels hundreds of times."""
    content = encoded(noise(rng, 64, 64), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:start] + content[start:-2] * int(rng.integers(110, 1000)) + content[-2:]


def document(rng):
    entities = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 10))
    drawing = {"label": "7", "png": "data:,AAAA"}
    texts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="9999999" height="9999999"><script>alert(1)</script></svg>',
        f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "ha">{entities}]><a>&a9;</a>',
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        "<!doctype html><script>fetch('/')</script>",
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n%%EOF",
        "%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        json.dumps({"drawings": [drawing] * int(rng.integers(0, 100))}),
        "[" * 100_000,
        "P3 99999 99999 255\n",
        "/etc/passwd",
        "http://127.0.0.1/",
        "",
    ]
    return texts[rng.integers(len(texts))].encode()


BODIES = [truncated, flipped, random_bytes, bomb, overfull, exif, animated, scans, document, real]


def plain(rng, port):
    """One of the bodies above, as it is, with a Content-Type that may be wrong."""
    body = BODIES[rng.integers(len(BODIES))](rng)
    kinds = [
        "image/png",
        "application/json",
        "text/html",
        "application/x-www-form-urlencoded",
        "",
        "x" * 5000,
    ]
    answer = ask(port, body=body, Content_Type=str(rng.choice(kinds)), Content_Encoding="gzip")
    assert answer[0] in (200, 413, 422)
    return answer


def in_a_form(rng, port):
    """Several of them as files of a form, with names that lead elsewhere."""
    names = [
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\con",
        "a" * 2000,
        "a\0b",
        "%2e%2e%2f",
        "",
        "é\u202eg",
        "..",
        "\\",
    ]
    files = [
        (str(rng.choice(names)), BODIES[rng.integers(len(BODIES))](rng)) for _ in range(rng.integers(0, 20))
    ]
    body, kind = form(*files)
    answer = ask(port, body=body, Content_Type=kind)
    assert answer[0] in (200, 400, 413, 422)
    return answer


def broken_form(rng, port):
    body, kind = form(("a", real(rng)), ("b", real(rng)))
    flood = b"--b0undary\r\n" + b"X: y\r\n" * 20_000 + b"\r\n" + body
    body, kind = [
        (body[: rng.integers(1, len(body))], kind),
        (body, "multipart/form-data"),
        (body, "multipart/form-data; boundary=other"),
        (body, "multipart/form-data; boundary=" + "b" * 5000),
        (body, 'multipart/form-data; boundary="'),
        (flood, kind),
        (body.replace(b"filename", b"file"), kind),
        (b"--b0undary\r\n\r\n" * 50_000, kind),
        (body, "multipart/mixed; boundary=b0undary"),
        (rng.bytes(100_000), kind),
    ][rng.integers(10)]
    answer = ask(port, body=body, Content_Type=kind)
    assert 400 <= answer[0] < 500
    return answer


def raw(rng, port):
    """Bytes that are no request, or not as they say; the connection may end without an answer."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    body = real(rng)
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    pieces = [
        [head + b"Content-Length: %d\r\n\r\n" % (len(body) + 1000) + body],  # too long
        [head + b"Content-Length: %d\r\n\r\n" % (len(body) // 2) + body],  # too short
        [head + b"Content-Length: -5\r\n\r\n" + body],
        [head + b"Content-Length: 99999999999999999999\r\n\r\n" + body],
        [head + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"],
        [head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"],
        [chunked, *[b"10000\r\n" + bytes(2**16) + b"\r\n"] * 60],  # has no end
        [chunked, b"FFFFFFFFFFFFFFFF\r\n", bytes(1000)],
        [chunked, b"-1\r\n"],
        [chunked, b"1;" + b"x" * 10**6],
        [chunked, b"1\r\na\r\n" * 2000, b"0\r\n" + b"X: y\r\n" * 50_000],
        [head + b"X: y\r\n" * 50_000],
        [head + b"X: " + b"y" * 10**6],
        [b"GET /" + b"y" * 10**6],
        [rng.bytes(rng.integers(1, 10_000))],
        [b"\x16\x03\x01\x02\0\1\0\1\xfc\x03\x03" + rng.bytes(500)],  # TLS
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        [b"GET /\r\n"],
        [b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50],
        [b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"],
        [b"TRACE /../../models/model.npz HTTP/1.1\r\nHost: x\r\n\r\n"],
        [b"GET /%00%0d%0aSet-Cookie:x HTTP/1.1\r\nHost: x\r\n\r\n"],
        [],  # half open
        [head[: rng.integers(1, len(head))]],
        [head + b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"],
    ]
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, suppress(ConnectionError):
        for piece in pieces[rng.integers(len(pieces))]:
            connection.sendall(piece)
        if rng.random() < 0.2:
            return 0, None  # gone without a word
        while received := connection.recv(2**16):
            answer += received
    first = re.match(rb"(?:HTTP/1.1 100 [^\r]*\r\n\r\n)?HTTP/1.1 (\d+) ", answer)
    assert first or not answer, answer
    status = int(first[1]) if first else 0
    assert status in (0, 200) or 400 <= status < 500 or status == 501, answer
    return status, None


def slow(rng, port):
    """A byte now and then, of the head or of the body, until the service has had enough."""
    message = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n" + bytes(9999)
    start = int(rng.integers(0, 200))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection, suppress(ConnectionError):
        connection.sendall(message[:start])
        for _ in range(150):
            connection.sendall(message[start : start + 1])
            start += 1
            time.sleep(0.1)
        raise AssertionError("the connection lasts")
    return 0, None


ATTACKS = [plain, plain, plain, in_a_form, broken_form, raw, raw, slow]


def attack(port, seed):
    """One attack; its answer, if it is awaited, is right or has a reason."""
    rng = np.random.default_rng(seed)
    kind = ATTACKS[seed % len(ATTACKS)]
    status, answer = kind(rng, port)
    if answer is None:  # raw bytes: the answer was looked at there
        return status
    if status in (200, 422):
        assert any("error" in entry for entry in answer) == (status == 422)
        for entry in answer:
            assert set(entry) in ({"file", "error"}, {"file", "prediction", "probabilities"})
            assert "bug" not in entry.get("error", "")
            assert "/tmp" not in str(entry)
            assert abs(sum(entry.get("probabilities", {"": 1}).values()) - 1) < 1e-5
    else:
        assert len(answer["error"]) > 20
    return status


def figure(port, name):
    text = ask(port, "GET", "/metrics")[1]
    return int(re.search(rf"^{name} (\d+)$", text, re.MULTILINE)[1])


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """(port, folder) of a service, which at last ends well at Ctrl-C."""
    folder = tmp_path_factory.mktemp("service")
    save_network(folder)
    with in_a_process(folder, LIMITS) as (process, port):
        yield port, folder
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "Traceback" not in (folder / "log.txt").read_text()


def test_hostile_uploads_do_no_harm_and_memory_is_bounded(service, faults, rng):
    port, folder = service
    good = encoded(noise(rng))
    expected = ask(port, body=good)
    before = figure(port, "process_resident_memory_bytes")
    files = sorted(folder.rglob("*"))
    seeds = faults(60, 1000)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda seed: attack(port, seed), seeds))
    assert ask(port, body=good) == expected
    assert expected[0] == 200

    def is_idle():
        return not (figure(port, "serve_requests_waiting") or figure(port, "serve_bytes_held"))

    assert is_idle() or time.sleep(3) or is_idle()
    assert 'status="500"' not in ask(port, "GET", "/metrics")[1]
    peak, after = (figure(port, f"process_resident_memory_{name}") for name in ("peak_bytes", "bytes"))
    print(
        f"{len(seeds)} attacks, (status, or 0 without an answer; how many): {sorted((s, statuses.count(s)) for s in set(statuses))}"
    )
    print(f"memory, MiB: before {before >> 20}, at its peak {peak >> 20}, afterwards {after >> 20}")
    assert peak < PEAK
    assert after < LEFT
    assert sorted(folder.rglob("*")) == files  # nothing is written but the log, which was there


def test_a_hundred_slow_senders_do_not_keep_others_waiting(service, rng):
    port, _ = service
    good = encoded(noise(rng))
    expected = ask(port, body=good)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
    senders = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for sender in senders:
            sender.sendall(head)
        for _ in range(4):
            for sender in senders:
                sender.sendall(bytes(100))
            started = time.perf_counter()
            assert ask(port, body=good) == expected
            assert time.perf_counter() - started < 1
            time.sleep(0.2)
        answers = {sender.recv(2**16)[:12] for sender in senders}
    finally:
        for sender in senders:
            sender.close()
    assert answers == {b"HTTP/1.1 408"}
    assert ask(port, body=good) == expected


def test_a_picture_with_more_pixels_than_may_be_is_refused_before_it_is_decoded(service):
    port, _ = service
    before = figure(port, "process_resident_memory_peak_bytes")
    compressed = io.BytesIO()
    packer = zlib.compressobj(9)
    for _ in range(60):
        compressed.write(packer.compress(bytes(10**6)))
    compressed.write(packer.flush())
    for content in (png(6000, 6000, compressed.getvalue()), webp(16383, 16383), png(2**31 - 1, 2**31 - 1)):
        status, (entry,) = ask(port, body=content)
        assert (status, entry["error"]) == (
            422,
            "picture: it has more than 25 million pixels: make it smaller, or crop it.",
        )
    assert figure(port, "process_resident_memory_peak_bytes") < before + 2**24
