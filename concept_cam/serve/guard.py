"""Who may talk to the app: checks of every request before anything else looks at it, as one ASGI layer.

Against other pages in the person's browser (DNS rebinding, cross-site requests) the ``Host`` must be one we answer for, the ``Origin`` our
own, and the browser's own statement ``Sec-Fetch-Site`` must not say "cross-site". Against other machines: the app listens on the loopback
interface, and elsewhere only with a token. Against size: bodies are counted while they arrive, and cut off.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

__all__ = ["BODY_LIMIT", "HEADERS", "LOOPBACK", "Guard", "TooLarge"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names under which a browser reaches this machine alone."""

BODY_LIMIT = 4 * 2**20
"""Largest body of a request that is not an upload."""

COOKIE = "concept_cam_token"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
)
"""Sent with every answer."""

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE"})


class Guard:
    """Checks Host, Origin, token and size of every request.

    Args:
        app: What answers when all is well.
        hosts: Host names that we answer for, besides those of the loopback interface.
        token: Secret that every request must carry; empty for none.
        uploads: Paths whose bodies may be as large as ``upload_limit``.
        upload_limit: Bytes.
    """

    def __init__(
        self, app: Any, *, hosts: Iterable[str] = (), token: str = "", uploads: Iterable[str] = (), upload_limit: int = BODY_LIMIT
    ) -> None:
        self._app, self._token = app, token
        # Cookies know no ports: each token has its own, so that two servers of one machine do not sign each other's people out.
        self._cookie = f"{COOKIE}_{hashlib.sha256(token.encode()).hexdigest()[:8]}"
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._uploads, self._upload_limit = frozenset(uploads), upload_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # No web sockets here.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1").lower()
            if key in ("host", "origin", "content-length") and key in headers:
                await _refuse(send, 400, "bad_request", f"the request has two {key} headers.")
                return
            headers[key] = value.decode("latin-1")
        problem = self._problem(scope, headers)
        if problem is not None:
            await _refuse(send, *problem)
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if self._token and "token" in query and scope["method"] == "GET" and self._matches(query["token"][0]):
            # The token leaves the address bar at once, so that a shared address does not carry it.
            rest = "&".join(part for part in scope["query_string"].decode("latin-1").split("&") if not part.startswith("token="))
            # A path that began with two slashes would lead to another host.
            location = "/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else "")
            cookie = f"{self._cookie}={self._token}; HttpOnly; SameSite=Strict; Path=/"
            await _answer(send, 303, b"", [(b"location", location.encode("ascii", "ignore")), (b"set-cookie", cookie.encode())])
            return
        if self._token and not self._has_token(headers):
            await _refuse(
                send,
                401,
                "no_token",
                "this address needs its token: open the address that the command printed, with ?token=... at its end.",
            )
            return
        limit = self._upload_limit if scope["path"] in self._uploads else BODY_LIMIT
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > limit:
            await _refuse(send, 413, "too_large", f"the request has {length[:20]} bytes, more than the limit of {limit:,}.")
            return
        await self._app(scope, _bounded(receive, limit), _with_headers(send))

    def _problem(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str] | None:
        if scope["method"] not in HTTP_METHODS:
            return 405, "method", f"the method {scope['method'][:20]} is not known here."
        host = headers.get("host", "")
        if _host_name(host) not in self._hosts:
            return 421, "host", f"this server does not answer for the host {host[:100]!r}; name it with --allow-host if it is yours."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "cross_site", "requests of other web pages are not answered."
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "")
        navigation = scope["method"] == "GET" and mode == "navigate" and scope["path"] == "/"
        if site in ("cross-site", "same-site") and not navigation:
            return 403, "cross_site", "requests of other web pages are not answered."
        return None

    def _has_token(self, headers: dict[str, str]) -> bool:
        kind, _, value = headers.get("authorization", "").partition(" ")
        if kind.lower() in ("bearer", "token") and self._matches(value.strip()):
            return True
        if kind.lower() == "basic":  # Label Studio signs in so: any user, the token as password.
            try:
                password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return False
            return self._matches(password)
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self._cookie in cookies and self._matches(cookies[self._cookie].value)

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode("utf-8"))


def _host_name(host: str) -> str:
    """Returns the name in a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


class TooLarge(Exception):
    """The body grew past the limit while it arrived."""


def _bounded(receive: Receive, limit: int) -> Receive:
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise TooLarge
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            known = {name.lower() for name, _ in message.get("headers", ())}
            extra = [(name, value) for name, value in HEADERS if name not in known]
            if b"cache-control" not in known:
                extra.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return sending


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    import json

    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    await _answer(send, status, body, [(b"content-type", b"application/json"), (b"connection", b"close")])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
