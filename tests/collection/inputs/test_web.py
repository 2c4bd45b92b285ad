"""Pictures behind addresses: bounded, tried again where that helps, and never from where they must not come."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from concept_cam.collection.inputs import web
from concept_cam.collection.inputs.items import Url
from concept_cam.core.errors import ImageError
from tests.collection.inputs.test_inputs import png

PNG = png(0)
_sleep = time.sleep
Answer = Callable[[http.server.BaseHTTPRequestHandler, int], None]


def reply(handler: http.server.BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: Any) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": len(body), **{key.replace("_", "-"): value for key, value in headers.items()}}.items():
        if value is not None:
            handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def slowly(handler: http.server.BaseHTTPRequestHandler, tries: int) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        _sleep(0.05)


ANSWERS: dict[str, Answer] = {
    "/good.png": lambda handler, tries: reply(handler, 200, PNG),
    "/a%20fish%20%C3%A9.png": lambda handler, tries: reply(handler, 200, PNG),
    "/busy": lambda handler, tries: reply(handler, 200, PNG) if tries > 2 else reply(handler, 429, Retry_After="0"),
    "/flaky": lambda handler, tries: reply(handler, 200, PNG) if tries > 1 else reply(handler, 503),
    "/down": lambda handler, tries: reply(handler, 500),
    "/later": lambda handler, tries: reply(handler, 429, Retry_After="3600"),
    "/gone": lambda handler, tries: reply(handler, 404),
    "/short": lambda handler, tries: reply(handler, 200, PNG[:100], Content_Length=len(PNG)),
    "/announced": lambda handler, tries: reply(handler, 200, PNG, Content_Length=10**12),
    "/endless": lambda handler, tries: reply(handler, 200, bytes(3_000_000), Content_Length=None),
    "/bomb": lambda handler, tries: reply(handler, 200, gzip.compress(bytes(30_000_000)), Content_Encoding="gzip"),
    "/packed": lambda handler, tries: reply(handler, 200, gzip.compress(PNG), Content_Encoding="gzip"),
    "/packed-short": lambda handler, tries: reply(handler, 200, gzip.compress(PNG)[:-9], Content_Encoding="gzip"),
    "/brotli": lambda handler, tries: reply(handler, 200, PNG, Content_Encoding="br"),
    "/moved": lambda handler, tries: reply(handler, 302, Location="/good.png"),
    "/circle": lambda handler, tries: reply(handler, 302, Location="/circle"),
    "/file": lambda handler, tries: reply(handler, 302, Location="file:///etc/passwd"),
    "/keys": lambda handler, tries: reply(handler, 302, Location="http://169.254.169.254/latest/meta-data"),
    "/slow": slowly,
}  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, int]]]:
    counts: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            counts[self.path] = counts.get(self.path, 0) + 1
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                ANSWERS[self.path](self, counts[self.path])

        def log_message(self, *_: Any) -> None:
            pass

    waits: list[float] = []
    monkeypatch.setattr(
        web.time, "sleep", lambda seconds: waits.append(seconds) if threading.current_thread() is threading.main_thread() else None
    )
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    counts["waits"] = waits  # type: ignore[assignment]
    yield f"http://127.0.0.1:{running.server_port}", counts
    running.shutdown()
    running.server_close()


def test_what_can_be_had_is_had(server: tuple[str, dict[str, int]]) -> None:
    address, counts = server
    for path in ("/good.png", "/a fish é.png", "/busy", "/flaky", "/packed", "/moved"):
        assert Url(address + path).read(1_000_000).content == PNG, path
    assert (counts["/busy"], counts["/flaky"]) == (3, 2)
    assert counts["waits"] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("path", "message", "tries"),
    [
        ("/down", r"500.*4 times", 4),
        ("/short", r"only 100 of .* bytes.*4 times", 4),
        ("/packed-short", "cut short", 4),
        ("/later", "3600 seconds", 1),
        ("/gone", "404", 1),
        ("/announced", "1,000,000,000,000 bytes", 1),
        ("/endless", "more bytes than the limit", 1),
        ("/bomb", "more bytes than the limit", 1),
        ("/brotli", "'br'", 1),
        ("/file", "file:///etc/passwd", 1),
        ("/keys", "link-local", 1),
    ],
)
def test_what_cannot_be_had_says_why(server: tuple[str, dict[str, int]], path: str, message: str, tries: int) -> None:
    address, counts = server
    with pytest.raises(ImageError, match=message):
        Url(address + path).read(1_000_000)
    assert counts[path] == tries


def test_redirects_end(server: tuple[str, dict[str, int]]) -> None:
    address, counts = server
    with pytest.raises(ImageError, match="302"):
        Url(address + "/circle").read(1_000_000)
    assert counts["/circle"] <= web.REDIRECTS + 1


def test_a_body_that_drips_ends(server: tuple[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "WHOLE_SECONDS", 0.2)
    monkeypatch.setattr(web, "TRIES", 1)
    with pytest.raises(ImageError, match="did not arrive within"):
        Url(server[0] + "/slow").read(1_000_000)


def test_a_public_server_may_not_lead_into_the_own_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("http://127.0.0.1/x", "http://[::1]/x", "http://10.0.0.7/x", "http://192.168.1.1/", "http://[::ffff:10.0.0.1]/"):
        web._check(address, strict=False)
        with pytest.raises(ImageError, match="local address"):
            web._check(address, strict=True)
    web._check("http://93.184.216.34/x", strict=True)
    for address in ("http://169.254.169.254/", "http://[fe80::1]/"):
        with pytest.raises(ImageError, match="link-local"):
            web._check(address, strict=False)
    for address in ("ftp://x.org/a", "http:///a", "gopher://x.org"):
        with pytest.raises(ImageError, match="no address of the web"):
            web._check(address, strict=False)


def test_odd_addresses_are_errors_of_ours() -> None:
    for address in (
        "http://",
        "http://[::1",
        "http://exa mple/x",
        "http://x..y/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:notaport/",
        "https://\udcff/",
    ):
        with pytest.raises(ImageError):
            Url(address).read(1000)
