"""Downloads one picture by ``http`` or ``https``, within bounds and by stated rules. Needs nothing but Python.

* **Time.** Twenty seconds without a byte, or five minutes for one picture, end a try.
* **Again.** 429, 5xx, a lost connection and a time-out are tried again, up to four times in all, after what ``Retry-After`` says or 1, 2
  and 4 seconds; a server that asks for more than a minute is not waited for.
* **Bytes.** At most as many as a picture may have, also once decompressed. A body that is shorter than announced is an error.
* **Redirects.** At most five, to ``http`` and ``https`` alone; each is checked as the first address is.
* **Local addresses.** A list may name a server of the own machine or network, such as an institute's. What a *public* server redirects to
  may not: otherwise a stranger's list could look around in one's own network. Link-local addresses (``169.254.0.0/16``, ``fe80::/10``:
  where cloud machines keep their keys) are never read.
"""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from typing import Any

from concept_cam.core.errors import ImageError, reason_of
from concept_cam.pictures.limits import too_long

__all__ = ["download_picture"]

QUIET_SECONDS, WHOLE_SECONDS = 20.0, 300.0
TRIES = 4
LONGEST_WAIT = 60.0
REDIRECTS = 5
_CHUNK_BYTES = 1 << 18
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Again(Exception):
    """A try that failed and may be repeated, after so many seconds where the server says so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download_picture(url: str, max_bytes: int) -> bytes:
    """Returns what is behind an address.

    Args:
        url: ``http://`` or ``https://``.
        max_bytes: Most bytes, before and after decompression.

    Raises:
        ImageError: It cannot be had; the message says why.
    """
    reason = ""
    for number in range(TRIES):
        try:
            return _once(url, max_bytes, time.monotonic() + WHOLE_SECONDS)
        except _Again as error:
            reason = str(error)
            wait = float(2**number) if error.wait is None else error.wait
            if wait > LONGEST_WAIT:
                raise ImageError(
                    f"cannot read {url!r}: {reason}; the server asks to wait {wait:.0f} seconds. Try these pictures later."
                ) from None
            if number + 1 < TRIES:
                time.sleep(wait)
        except ImageError:
            raise
        except Exception as error:  # odd addresses and odd servers raise nearly anything
            raise ImageError(f"cannot read {url!r}: {reason_of(error)}") from error
    raise ImageError(f"cannot read {url!r}: {reason}, {TRIES} times.")


def _once(url: str, limit: int, deadline: float) -> bytes:
    _check(url, strict=False)
    request = urllib.request.Request(
        _quoted(url), headers={"User-Agent": _agent(), "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
    )
    opener = urllib.request.build_opener(_Redirects(_is_local(url)))
    try:
        with opener.open(request, timeout=QUIET_SECONDS) as answer:
            return _body(answer, url, limit, deadline)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _AGAIN:
                raise _Again(f"the server answers {error.code} {error.reason}", _retry_after(error.headers.get("Retry-After"))) from None
            raise ImageError(f"cannot read {url!r}: the server answers {error.code} {error.reason}.") from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ImageError):
            raise error.reason from None
        if isinstance(error.reason, socket.gaierror):
            raise ImageError(f"cannot read {url!r}: there is no such server ({error.reason.strerror}).") from None
        raise _Again(reason_of(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)) from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Again(f"the connection failed ({reason_of(error)})") from None


def _body(answer: Any, url: str, limit: int, deadline: float) -> bytes:
    announced = answer.headers.get("Content-Length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise ImageError(too_long(repr(url), int(announced), limit))
    encoding = (answer.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
        raise ImageError(f"cannot read {url!r}: the server compresses it as {encoding!r}, though asked not to.")
    inflate = None if encoding == "identity" else zlib.decompressobj(47)  # gzip or zlib, whichever it is
    parts: list[bytes] = []
    received = kept = 0
    while chunk := answer.read1(_CHUNK_BYTES):
        received += len(chunk)
        if time.monotonic() > deadline:
            raise _Again(f"it did not arrive within {WHOLE_SECONDS:.0f} seconds")
        part = chunk if inflate is None else inflate.decompress(chunk, limit + 1 - kept)
        kept += len(part)
        if kept > limit or received > limit:
            raise ImageError(too_long(repr(url), None, limit))
        parts.append(part)
    if announced is not None and announced.isdigit() and received < int(announced):
        raise _Again(f"only {received} of {announced} bytes arrived")
    if inflate is not None and not inflate.eof:
        raise _Again("its compressed body is cut short")
    return b"".join(parts)


# ------------------------------------------------------------------------------------------------------------- addresses


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = REDIRECTS

    def __init__(self, local: bool) -> None:
        self._local = local

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Checks where a redirect leads."""
        _check(newurl, strict=not self._local)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check(url: str, *, strict: bool) -> None:
    """Refuses an address that must not be read; ``strict`` for redirects of a public server."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImageError(f"{url!r} is no address of the web: expected http:// or https:// and the name of a server.")
    for address in _addresses(url):
        if address.is_link_local:
            raise ImageError(f"{url!r} leads to the link-local address {address}, which is never read.")
        if strict and not address.is_global:
            raise ImageError(f"{url!r}, to which a public server redirects, leads to the local address {address}, which is not read.")


def _is_local(url: str) -> bool:
    return any(not address.is_global for address in _addresses(url))


def _addresses(url: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []  # a proxy may know the name; else opening it says that there is none
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]


def _quoted(url: str) -> str:
    """Returns an address as it may be sent: names of files with spaces and letters of any script are percent-encoded."""
    parts = urllib.parse.urlsplit(url)
    safe = "%/:=&?~#+!$,;'@()*[]"
    host = parts.netloc
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    return urllib.parse.urlunsplit((parts.scheme, host, urllib.parse.quote(parts.path, safe), urllib.parse.quote(parts.query, safe), ""))


def _retry_after(text: str | None) -> float | None:
    """Returns the seconds that a server asks to wait, from a number or a date."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _agent() -> str:
    from concept_cam import __version__

    return f"concept-cam/{__version__}"
