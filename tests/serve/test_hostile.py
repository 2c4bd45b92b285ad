"""A hostile client: nothing outside the folder is served, nothing of other web pages is answered, and sizes are bounded."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from concept_cam.core.errors import ConfigurationError, ImageError
from concept_cam.serve import gallery, server
from concept_cam.serve.app import build_app
from concept_cam.serve.desk import Busy, Desk
from concept_cam.serve.gallery import open_gallery
from concept_cam.serve.guard import Guard
from tests.serve.test_asking import RED, ids

PATHS = [
    "/../outside.png", "/%2e%2e/outside.png", "/page/../../desk.py", "/page/..%2f..%2fdesk.py", "/page/%2e%2e%2fapp.py",
    "/page//etc/passwd",
    "/api/pictures/..%2f..%2foutside.png/image", "/api/pictures/%2fetc%2fpasswd/image", "/api/pictures/notes.txt/image", "/notes.txt",
    "/a.png",
    "/corrections.sqlite", "/api/pictures/%00/image", "/page/app.py", "/api/export/..%2f..%2fx", "/.git/config",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert b"secret" not in answer.content
    assert b"PNG" not in answer.content
    assert b"import" not in answer.content


def test_a_link_out_of_the_folder_is_not_followed(photos: Path) -> None:
    (photos / "link.png").symlink_to(photos.parent / "outside.png")
    (photos / "within.png").symlink_to(photos / "a.png")
    made = open_gallery(str(photos))
    entries = {entry.source: entry for entry in made.entries}
    with pytest.raises(ImageError, match="leads out of the folder"):
        made.read(entries["link.png"])
    assert made.read(entries["within.png"]).size == (64, 64)


def test_what_is_no_picture_is_never_sent(photos: Path, client: Any, desk: Any) -> None:
    (photos / "a.png").write_text("secret notes in a picture's clothes")
    answer = client.get(f"/api/pictures/{ids(client)['a.png']}/image")
    assert answer.status_code == 400
    assert "secret" not in answer.text
    assert client.post("/api/ask", json={"picture": ids(client)["a.png"], **RED}).status_code == 400
    # Others are still answered.
    assert client.post("/api/ask", json={"picture": ids(client)["b.png"], **RED}).status_code == 200


def test_metadata_stays_at_home(photos: Path, client: Any) -> None:
    image = Image.new("RGB", (64, 64), "red")
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    image.save(photos / "a.jpg", exif=exif)
    made = open_gallery(str(photos))
    entry = next(entry for entry in made.entries if entry.source == "a.jpg")
    assert b"secret place" in Path(entry.path).read_bytes()
    assert b"secret place" not in gallery.encode_picture(made.read(entry), 512)


# ------------------------------------------------------------------------------------------------------------ cross-site


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8765"}, 421),
        ({"Host": ""}, 421),
        ({"Host": "localhost:8765@evil.example"}, 421),
        ({"Host": "127.0.0.1:8765"}, 200),
        ({"Host": "[::1]:8765"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "http://localhost:8765"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_hosts_and_origins(client: Any, headers: dict[str, str], status: int) -> None:
    assert client.get("/api/state", headers=headers).status_code == status
    answer = client.post("/api/next", json=RED, headers=headers)
    assert answer.status_code == status


def test_a_form_of_another_page_writes_nothing(client: Any, desk: Any) -> None:
    body = json.dumps({"picture": ids(client)["a.png"], "question": RED, "verdict": "accept"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert client.post("/api/corrections", content=body, headers={"Content-Type": kind}).status_code == 400
    assert desk.corrections.standing() == []


def test_every_answer_carries_the_headers(client: Any) -> None:
    for path in ("/", "/api/state", "/nothing", "/page/app.js", "/api/ask"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers
    refused = client.get("/", headers={"Host": "evil.example"})
    assert refused.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_methods(client: Any, method: str) -> None:
    answer = client.request(method, "/api/state")
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


def test_a_token(desk: Any) -> None:
    token = "a-token-of-many-letters"
    with TestClient(build_app(desk, hosts=("lab.example",), token=token), base_url="http://lab.example") as client:
        for path in ("/", "/api/state", "/openapi.json", "/page/app.js"):
            assert client.get(path).status_code == 401
        assert client.get("/api/state", headers={"Authorization": f"Bearer {token}x"}).status_code == 401
        assert client.get("/api/state", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert client.get("/api/state", auth=("label-studio", token)).status_code == 200
        assert client.get("/api/state", headers={"Authorization": "Basic !!!"}).status_code == 401
        first = client.get(f"/?token={token}&x=1", follow_redirects=False)
        assert (first.status_code, first.headers["location"]) == (303, "/?x=1")
        assert {"HttpOnly", "SameSite=Strict"} <= {part.strip() for part in first.headers["set-cookie"].split(";")}
        assert client.get("/api/state").status_code == 200  # The cookie.
        other = Guard(None, token=token + "x")
        assert first.headers["set-cookie"].split("=")[0] != other._cookie  # Another server on this host has a cookie of its own.
        assert (
            client.get("http://lab.example//evil.example/?token=" + token, follow_redirects=False)
            .headers["location"]
            .startswith("/evil.example")
        )


def test_where_it_listens() -> None:
    assert server.plan_address(None, 1).token == ""
    assert server.plan_address("localhost", 1).token == ""
    elsewhere = server.plan_address("0.0.0.0", 1, allowed=("lab.example",))
    assert len(elsewhere.token) >= 24
    assert "lab.example" in elsewhere.hosts
    assert server.plan_address("192.168.1.7", 80).url.startswith("http://192.168.1.7:80/?token=")
    with pytest.raises(ConfigurationError, match="at least 16"):
        server.plan_address("0.0.0.0", 1, "short")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="Give another --port"):
            server.bind(server.Address("127.0.0.1", taken.getsockname()[1]))


# ----------------------------------------------------------------------------------------------------------------- sizes


def test_bodies_are_bounded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"x" * (5 * 2**20)
    assert client.post("/api/corrections", content=large, headers={"Content-Type": "application/json"}).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(80):
            yield b"x" * 65536

    cut = client.post("/api/next", content=endless(), headers={"Content-Type": "application/json"})
    assert cut.status_code == 413
    lied = client.post("/api/next", content=b"{}", headers={"Content-Type": "application/json", "Content-Length": "-5"})
    assert lied.status_code in (400, 413)
    monkeypatch.setattr(gallery, "UPLOAD_PIXELS", 1000)
    buffer = io.BytesIO()
    Image.new("L", (200, 200)).save(buffer, "PNG")
    bomb = client.post("/api/pictures", content=buffer.getvalue(), headers={"Content-Type": "image/png"})
    assert bomb.status_code == 400
    assert "more than the limit of 1,000" in bomb.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"target": NaN}', b"[" * 100_000, b"\xff\xfe", b'"x"', b"null"])
def test_bodies_that_are_no_question(client: Any, body: bytes) -> None:
    answer = client.post("/api/ask", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_request"


LONG = "1" + "0" * 400
HALF = "\\ud800"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/ask", '{"picture": "@", "target": "red", "gamma": LONG}'),
        ("/api/ask", '{"picture": "@", "target": "red", "threshold": LONG}'),
        ("/api/ask", '{"picture": "@", "target": "red", "clicks": [[1, LONG, 1]]}'),
        ("/api/ask", '{"picture": "@", "target": "red HALF"}'),
        ("/api/corrections", '{"picture": "@", "question": {"target": "red"}, "verdict": "accept", "seen": LONG}'),
        ("/api/corrections", '{"picture": "@", "question": {"target": "red"}, "verdict": "accept", "called": {"score": LONG}}'),
        ("/api/corrections", '{"picture": "@", "question": {"target": "red"}, "mask": {"size": [2, 2], "runs": [LONG]}}'),
        ("/api/corrections", '{"picture": "@", "question": {"target": "red"}, "verdict": "accept", "person": "HALF"}'),
        ("/api/corrections", '{"picture": "@", "id": "HALF", "question": {"target": "red"}, "verdict": "accept"}'),
        ("/api/corrections/undo", '{"id": "HALF"}'),
    ],
)  # fmt: skip
def test_numbers_and_texts_that_no_machine_can_keep(client: Any, desk: Any, path: str, body: str) -> None:
    content = body.replace("@", ids(client)["a.png"]).replace("LONG", LONG).replace("HALF", HALF)
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert len(answer.json()["error"]["message"]) < 300
    assert desk.corrections.all() == []


def test_pairs_of_surrogates_are_text(client: Any) -> None:
    body = '{"picture": "@", "target": "red \\ud83d\\udc1f"}'.replace("@", ids(client)["a.png"])
    answer = client.post("/api/ask", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["question"]["target"] == "red \U0001f41f"


def test_dropped_pictures_are_forgotten_when_memory_is_full(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def noise() -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    monkeypatch.setattr(gallery, "UPLOADS_KEPT", 3 * len(noise()))
    made = [client.post("/api/pictures", content=noise(), headers={"Content-Type": "image/png"}).json()["id"] for _ in range(8)]
    assert len(client.get("/api/pictures").json()["pictures"]) <= 4 + 3
    assert client.get(f"/api/pictures/{made[0]}/image").status_code == 404
    assert client.get(f"/api/pictures/{made[-1]}/image").status_code == 200


# ----------------------------------------------------------------------------------------------------------------- queue


def slow_desk(photos: Path, go: threading.Event) -> Desk:
    from concept_cam.localizer import Localizer
    from tests.planted import PlantedBackbone

    class Slow(PlantedBackbone):
        def encode_patches(self, *arguments: Any, **values: Any) -> Any:
            go.wait(20)
            return super().encode_patches(*arguments, **values)

    return Desk(Localizer(Slow(64, 8)), open_gallery(str(photos)))


def test_a_full_queue_says_busy_and_known_pictures_are_still_answered(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.serve import desk as module

    monkeypatch.setattr(module, "ENCODING_QUEUE", 2)
    go = threading.Event()
    go.set()
    desk = slow_desk(photos, go)
    entries = desk.gallery.entries
    desk.ask(entries[0], RED)
    go.clear()
    with TestClient(build_app(desk), base_url="http://localhost") as client:
        answers: dict[str, Any] = {}

        def asked(name: str, id_: str) -> None:
            answers[name] = client.post("/api/ask", json={"picture": id_, **RED})

        threads = [threading.Thread(target=asked, args=(f"{n}-{k}", entries[n].id)) for n in (1, 2) for k in range(3)]
        [thread.start() for thread in threads]
        deadline = time.monotonic() + 10
        while len(desk._coming) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        busy = client.post("/api/ask", json={"picture": entries[3].id, **RED})
        assert busy.status_code == 503
        assert busy.json()["error"]["code"] == "busy"
        assert busy.headers["retry-after"] == "2"
        assert client.post("/api/ask", json={"picture": entries[0].id, **RED}).status_code == 200
        go.set()
        [thread.join() for thread in threads]
    assert [answer.status_code for answer in answers.values()] == [200] * 6
    assert desk.counts["encoded"] == 3  # Three clients asked for each of two pictures: each was encoded once.
    monkeypatch.setattr(module, "SCORING_QUEUE", 0)
    with pytest.raises(Busy):
        desk.submit(lambda: None)


# --------------------------------------------------------------------------------------------------------------- sockets


@pytest.fixture
def running(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """The server on a real socket."""
    monkeypatch.setattr(server, "SILENCE", 1.0)
    listener, address = server.bind(server.Address("127.0.0.1", 0))
    made = server.make_server(desk, address)
    thread = threading.Thread(target=made.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not made.started:
        time.sleep(0.01)
    yield "127.0.0.1", address.port
    made.should_exit = True
    thread.join(10)
    listener.close()


def exchange(place: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(place, timeout=10) as link:
        link.sendall(data)
        link.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: link.recv(65536), b""))


def test_raw_requests(running: tuple[str, int]) -> None:
    port = running[1]
    good = exchange(running, f"GET /health HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
    assert good.startswith(b"HTTP/1.1 200")
    for raw in (
        b"GET /../../outside.png HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST /api/ask HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: "
        b"close\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n" + b"X-Long: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
        b"x\r\nSec-WebSocket-Version: 13\r\n\r\n",
    ):
        try:
            answer = exchange(running, raw)
        except OSError:
            continue  # Hung up: as good a refusal.
        assert not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 5")), raw[:60]
        assert b"root:" not in answer
        if b"evil" in raw or b"outside" in raw or b"passwd" in raw:
            assert not answer.startswith(b"HTTP/1.1 200"), raw[:60]
    assert exchange(running, f"GET /health HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode()).startswith(
        b"HTTP/1.1 200"
    )


def test_a_thousand_silent_sockets(running: tuple[str, int]) -> None:
    """They are bounded, closed, and somebody with a question is answered again."""

    async def crowd() -> int:
        async def one() -> bool:
            reader, writer = await asyncio.open_connection(*running)
            try:
                return (await asyncio.wait_for(reader.read(1), 15)) == b""
            except ConnectionError:
                return True
            finally:
                writer.close()

        done = await asyncio.gather(*(one() for _ in range(1000)), return_exceptions=True)
        return sum(result is True for result in done)

    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("this machine allows too few open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    assert asyncio.run(crowd()) >= 950
    good = exchange(running, f"GET /health HTTP/1.1\r\nHost: localhost:{running[1]}\r\nConnection: close\r\n\r\n".encode())
    assert good.startswith(b"HTTP/1.1 200")
