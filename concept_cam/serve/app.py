"""The HTTP side: routes, errors and the page. What they answer comes from :mod:`concept_cam.serve.desk`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import concept_cam
from concept_cam import prompts
from concept_cam.collection.calls import ABSTENTION_REASONS
from concept_cam.collection.corrections import Conflict, Correction
from concept_cam.core.errors import ConceptCamError, ConfigurationError, ImageError
from concept_cam.core.names import choose
from concept_cam.core.plain import plain_json
from concept_cam.core.regions import THRESHOLDS, decode_rle, encode_rle
from concept_cam.core.settings import WEIGHTINGS
from concept_cam.exports import EXPORTS
from concept_cam.serve import labelstudio
from concept_cam.serve.choosing import next_pictures, progress
from concept_cam.serve.desk import Busy, Desk
from concept_cam.serve.frames import as_drawn, as_kept
from concept_cam.serve.gallery import SIDES, UPLOAD_BYTES, GalleryPicture, Unknown
from concept_cam.serve.guard import Guard, TooLarge
from concept_cam.serve.keeping import export_bytes, fit_limits, keep_limits
from concept_cam.serve.openapi import document
from concept_cam.serve.questions import number
from concept_cam.serve.teaching import LEAST_CLICKS, Taught, click_vectors, prototype
from concept_cam.trust.verdicts import CLEAR, TRUST_VERDICTS, UNFOUND

if TYPE_CHECKING:
    from torch import Tensor

    from concept_cam.collection.runs import Run
    from concept_cam.core.features import PatchFeatures

__all__ = ["build_app", "build_routes"]

T = TypeVar("T")

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "drawing.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files of the page; no other file of the package is sent."""

LONGEST_MASK_SIDE = 2048
"""Largest side of a mask that a client may draw; it is enlarged to the picture's pixels here."""

MOST_BOXES = 200

STATUS: dict[type[Exception], tuple[int, str]] = {
    Conflict: (409, "conflict"),
    Busy: (503, "busy"),
    Unknown: (404, "not_found"),
    TooLarge: (413, "too_large"),
    ConceptCamError: (400, "bad_request"),
}
"""Which status an error becomes; the first class that fits."""


def build_app(desk: Desk, *, hosts: tuple[str, ...] = (), token: str = "") -> Guard:
    """Returns the ASGI application.

    Args:
        desk: What answers.
        hosts: Host names that are answered for, besides those of the loopback interface.
        token: Secret that every request must carry; empty for none.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        desk.close()

    handlers: Any = {Exception: _failed, HTTPException: _failed}
    app = Starlette(routes=build_routes(desk), lifespan=lifespan, exception_handlers=handlers)
    uploads = ("/api/pictures", "/api/ask", "/predict")
    return Guard(_Errors(app), hosts=hosts, token=token, uploads=uploads, upload_limit=UPLOAD_BYTES * 4 // 3 + 65536)


class _Errors:
    """Answers our own errors as JSON before the server's middleware logs them as failures."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except (ConceptCamError, TooLarge) as error:
            if started:
                raise
            await _error_response(error)(scope, receive, send)


def _error_response(error: Exception) -> JSONResponse:
    for kind, (status, code) in STATUS.items():
        if isinstance(error, kind):
            message = str(error) or "the request's body is larger than the limit."
            body: dict[str, Any] = {"error": {"code": code, "message": message}}
            if isinstance(error, Conflict):
                body["current"] = None if error.current is None else _shown(error.current)
                body["last"] = error.last
            headers = {"Retry-After": "2"} if status == 503 else {}
            return JSONResponse(body, status, headers)
    return JSONResponse({"error": {"code": "failed", "message": "something went wrong inside; see the server's output."}}, 500)


def _failed(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JSONResponse({"error": {"code": "http", "message": error.detail}}, error.status_code, error.headers)
    return _error_response(error)


def _handled(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Returns a handler whose own errors become answers."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except (ConceptCamError, TooLarge) as error:
            return _error_response(error)

    return handle


async def _json(request: Request) -> dict[str, Any]:
    """Reads a JSON object; other content types are refused, so that no plain form of another page can send one."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise ConfigurationError("expected the content type application/json.")
    body = await request.body()
    try:
        data = json.loads(body, parse_constant=_no_constant)
        if b"\\ud" in body.lower():  # Half a surrogate pair is no text: it could be neither kept nor sent back.
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigurationError("the body holds half of a surrogate pair (\\ud800 to \\udfff), which is no text.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the body is no JSON: {str(error)[:200]}.") from None
    if not isinstance(data, dict):
        raise ConfigurationError("expected a JSON object.")
    return data


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class _Handlers:
    """The handlers of the routes; each runs its work in the desk's threads."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def _work(self, work: Callable[[], T], *, reading: bool = False) -> T:
        return await asyncio.wrap_future(self.desk.submit(work, reading=reading))

    async def _encoded(self, entry: GalleryPicture) -> tuple[PatchFeatures, bool]:
        """Waits for a picture's features without holding a thread; others may wait for the same ones, so going away cancels nothing."""
        coming, encoded = self.desk.coming(entry)
        return await asyncio.shield(asyncio.wrap_future(coming)), encoded

    # ------------------------------------------------------------------------------------------------------------ page

    async def page(self, request: Request) -> Response:
        """The page and its files."""
        name = request.path_params.get("file", "index.html")
        if name not in PAGE:
            raise Unknown(f"there is no file {name[:60]!r}.")
        content = resources.files("concept_cam.serve").joinpath("page", name).read_bytes()
        return Response(content, media_type=PAGE[name], headers={"Cache-Control": "no-cache"})

    async def openapi(self, request: Request) -> Response:
        """The description of this API."""
        return JSONResponse(document())

    async def state(self, request: Request) -> Response:
        """What is served, with which model, and what can be asked."""
        desk = self.desk

        def work() -> dict[str, Any]:
            backbone, settings, run = desk.localizer.backbone, desk.localizer.settings, desk.gallery.run
            return {
                "version": concept_cam.__version__,
                "title": desk.gallery.title,
                "kind": desk.gallery.kind,
                "pictures": len(desk.gallery),
                "model": {"name": backbone.name, "weights_hash": backbone.weights_hash},
                "settings": {"gamma": settings.gamma, "weighting": settings.weighting},
                "weightings": list(WEIGHTINGS),
                "thresholds": list(THRESHOLDS),
                "trust": {"trusted": CLEAR, "unfound": UNFOUND, "verdicts": TRUST_VERDICTS},
                "reasons": ABSTENTION_REASONS,
                "packs": [_pack(pack) for pack in desk.packs.values()],
                "preferred": list(desk.preferred),
                "run": None if run is None else _run(desk, run),
                "taught": [taught.facts() for taught in desk.taught],
                "least_clicks": LEAST_CLICKS,
                "exports": ["labels", *(EXPORTS if run is not None else ())],
                "corrections": desk.corrections.path.name,
                "identity": _identity(desk),
                "upload_bytes": UPLOAD_BYTES,
            }

        return JSONResponse(await self._work(work))

    # -------------------------------------------------------------------------------------------------------- pictures

    def _listed(self, entries: Sequence[GalleryPicture]) -> list[dict[str, Any]]:
        """Returns pictures as the list has them, each with the number of its calls that were judged or drawn."""
        marks = Counter((item.source, item.specimen) for item in self.desk.corrections.standing() if item.says_something)
        return [_entry(entry, marks[entry.source, entry.specimen]) for entry in entries]

    async def pictures(self, request: Request) -> Response:
        """A part of the list of pictures."""
        offset, limit = _whole(request, "offset", 0, 10**9), _whole(request, "limit", 200, 1000)
        search, title = request.query_params.get("search", "")[:200].casefold(), request.query_params.get("title")

        def work() -> dict[str, Any]:
            entries = [entry for entry in self.desk.gallery.entries if search in entry.title.casefold()]
            if title is not None:
                entries = [entry for entry in entries if entry.title == title]
            return {"total": len(entries), "offset": offset, "pictures": self._listed(entries[offset : offset + limit])}

        return JSONResponse(await self._work(work))

    async def upload(self, request: Request) -> Response:
        """Takes a picture that was dropped on the page, as the raw body; it stays in memory."""
        if not request.headers.get("content-type", "").startswith("image/"):
            raise ConfigurationError("send the picture itself as the body, with its content type (image/jpeg, image/png ...).")
        body = await request.body()
        if len(body) > UPLOAD_BYTES:
            raise TooLarge
        name = request.query_params.get("name", "picture")
        made = await self._work(lambda: self._listed([self.desk.gallery.add(body, name)]), reading=True)
        return JSONResponse(made[0], 201)

    async def image(self, request: Request) -> Response:
        """A picture as JPEG at one of a few sizes, without metadata."""
        side = _whole(request, "side", SIDES[-1], 10**4)
        chosen = next((known for known in SIDES if known >= side), SIDES[-1])
        id_ = request.path_params["id"]

        content = await self._work(lambda: self.desk.picture(self.desk.gallery.get(id_), chosen), reading=True)
        # The id is made of the picture's name: another folder that is served here later may have another picture of that name, so that a
        # browser's copy is good only as long as it is the same.
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"Cache-Control": "private, no-cache", "ETag": tag}
        if tag in [own.strip() for own in request.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="image/jpeg", headers=headers)

    # --------------------------------------------------------------------------------------------------------- answers

    async def ask(self, request: Request) -> Response:
        """Answers one question about one picture."""
        data = await _json(request)

        id_, image = data.pop("picture", None), data.pop("image", None)
        if (id_ is None) == (image is None):
            raise ConfigurationError("give either picture (an id of GET /api/pictures) or image (a file in base64).")
        question = self.desk.read(data)
        if id_ is None:
            entry = await self._work(lambda: self.desk.gallery.add(_base64(image), "asked"), reading=True)
        else:
            entry = self.desk.gallery.get(str(id_))
        features, encoded = await self._encoded(entry)
        return JSONResponse(await self._work(lambda: self.desk.answer(entry, features, question, encoded).to_dict()))

    async def next(self, request: Request) -> Response:
        """Which pictures to look at next for a question, and how many labels are still needed."""
        data = await _json(request)
        wanted = int(number(data.pop("wanted", 1), "wanted", 0, 50))

        def work() -> dict[str, Any]:
            question = self.desk.read(data)
            return {
                "next": next_pictures(self.desk, question, wanted) if wanted else [],
                "progress": progress(self.desk.standing(), question),
                "known": len(self.desk.image_embeddings()),
            }

        return JSONResponse(await self._work(work))

    # ----------------------------------------------------------------------------------------------------- corrections

    async def corrections(self, request: Request) -> Response:
        """What counts now, of all pictures or of one; and the number of the last row, by which a tab sees news."""
        id_ = request.query_params.get("picture")

        def work() -> dict[str, Any]:
            entry = None if id_ is None else self.desk.gallery.get(id_)
            found = self.desk.corrections.standing(None if entry is None else entry.source)
            own = [item for item in found if entry is None or item.specimen == entry.specimen]
            return {"last": self.desk.corrections.last(), "corrections": [self._shown(item) for item in own]}

        return JSONResponse(await self._work(work))

    async def correct(self, request: Request) -> Response:
        """Writes one correction, what it leaves out as it stands; it is on the disk when this answers."""
        data = await _json(request)

        entry = self.desk.gallery.get(_short(data, "picture", 64))
        size = (await self._encoded(entry))[0].geometry.original

        def work() -> dict[str, Any]:
            correction, sent, seen = self._correction(data, entry, size)
            told = as_kept(correction, entry)
            try:
                written = self.desk.corrections.amend(told, lambda current: _completed(told, sent, current), seen)
            except Conflict as conflict:
                raise Conflict(None if conflict.current is None else as_drawn(conflict.current, entry), conflict.last) from None
            return {"correction": self._shown(written), "last": self.desk.corrections.last()}

        return JSONResponse(await self._work(work), 201)

    async def undo(self, request: Request) -> Response:
        """Takes a correction back; what counted before counts again."""
        data = await _json(request)
        id_, person = _short(data, "id", 64), _short(data, "person", 120, empty=True)

        def work() -> dict[str, Any]:
            current = self.desk.corrections.undo(id_, person)
            return {"current": None if current is None else self._shown(current), "last": self.desk.corrections.last()}

        return JSONResponse(await self._work(work))

    def _shown(self, correction: Correction) -> dict[str, Any]:
        """Returns a correction as the page draws it, in the frame of what it is about."""
        return _shown(as_drawn(correction, self.desk.gallery.by_specimen(correction.source, correction.specimen)))

    def _correction(
        self, data: Mapping[str, Any], entry: GalleryPicture, size: tuple[int, int]
    ) -> tuple[Correction, frozenset[str], int | None]:
        """Reads a correction: what it says, which of its fields were sent, and the number of the row that the person had seen."""
        asked = data.get("question")
        if not isinstance(asked, Mapping):
            raise ConfigurationError("question: expected the question that was answered, as it was asked.")
        question = self.desk.read(asked)
        pack, character, part = question.subject
        seen = data.get("seen")
        model, weights_hash = self.desk.made_by(entry, question.subject)
        called = {} if data.get("called") is None else data["called"]
        if not isinstance(called, Mapping):
            raise ConfigurationError(
                f"called: expected an object {{state, probability, score, abstained_because}}, received {type(called).__name__}."
            )
        verdict, states = _short(data, "verdict", 20, empty=True), self.desk.states_of(entry, question)
        state, seen_state = (_state(own, name, states) for own, name in ((data, "state"), (called, "called.state")))
        if verdict in ("accept", "reject") and not (seen_state or part or (state and verdict == "accept")):
            raise ConfigurationError(f"the verdict {verdict!r} needs the call that it is about: give called.state.")
        correction = Correction(
            id=_short(data, "id", 64, empty=True) or uuid.uuid4().hex,
            source=entry.source,
            character=character,
            verdict=verdict,
            state=state,
            pack=pack,
            specimen=entry.specimen,
            part=part,
            kind=question.kind,
            called=seen_state or part,
            probability=_optional(called, "probability", 0.0, 1.0),
            score=_optional(called, "score", -1e6, 1e6),
            abstained_because=_reason(called),
            mask=_mask(data.get("mask"), size),
            boxes=_boxes(() if data.get("boxes") is None else data["boxes"], size),
            clicks=question.clicks,
            question={key: value for key, value in asked.items() if key not in ("map", "clicks")},
            taught=question.taught,
            model=model,
            weights_hash=weights_hash,
            person=_short(data, "person", 120, empty=True),
        )
        sent = {name for name in ("verdict", "state", "called", "mask", "boxes", "person") if name in data}
        sent |= {"clicks"} & set(asked)
        return correction, frozenset(sent), None if seen is None else int(number(seen, "seen", 0, 1e12))

    # ----------------------------------------------------------------------------------------------------------- keep

    async def limits(self, request: Request) -> Response:
        """New limits from the corrections so far, and what they change; nothing is written."""
        target = _share(request, "target", 0.9)
        confidence = _share(request, "confidence", 0.8)
        return JSONResponse(await self._work(lambda: plain_json(fit_limits(self.desk, target, confidence)[1])))

    async def keep(self, request: Request) -> Response:
        """Writes new limits beside the corrections."""
        data = await _json(request)
        target = number(data.get("target", 0.9), "target", 0.01, 0.999)
        confidence = number(data.get("confidence", 0.8), "confidence", 0.01, 0.999)
        path = await self._work(lambda: keep_limits(self.desk, target, confidence))
        return JSONResponse({"file": path.name})

    async def export(self, request: Request) -> Response:
        """An export of the run with the corrections, or the labels, as a file to save."""
        content, name = await self._work(lambda: export_bytes(self.desk, request.path_params["to"]))
        plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
        headers = {"Content-Disposition": f'attachment; filename="{plain}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    # ---------------------------------------------------------------------------------------------------------- teach

    async def teach(self, request: Request) -> Response:
        """Makes a taught concept of clicks on several pictures."""
        data = await _json(request)
        examples = data.get("examples")
        if not isinstance(examples, list) or not 1 <= len(examples) <= 500:
            raise ConfigurationError("examples: expected a list of 1 to 500 entries {picture, clicks: [[x, y, 1 or -1]]}.")

        def work() -> dict[str, Any]:
            question = self.desk.read({"target": data.get("target", ""), "contrasts": data.get("contrasts", [])})
            groups: dict[int, list[Tensor]] = {1: [], -1: []}
            for example in examples:
                if not isinstance(example, Mapping):
                    raise ConfigurationError("an example is an object {picture, clicks}.")
                entry = self.desk.gallery.get(_short(example, "picture", 64))
                clicks = self.desk.read({"target": "x", "clicks": example.get("clicks", [])}).clicks
                features = self.desk.features(entry)[0]
                for sign, group in groups.items():
                    group.append(click_vectors(features, [(x, y) for x, y, own in clicks if own == sign]))
            import torch

            positive, negative = torch.cat(groups[1]), torch.cat(groups[-1])
            backbone = self.desk.localizer.backbone
            taught = Taught(
                name=_short(data, "name", 60),
                target=question.concept.target[0],
                contrasts=question.concept.rival_names,
                vector=prototype(positive, negative),
                positive=len(positive),
                negative=len(negative),
                pictures=len(examples),
                mix=number(data.get("mix", 0.5), "mix", 0.0, 1.0),
                model=backbone.name,
                weights_hash=backbone.weights_hash,
                person=_short(data, "person", 120, empty=True),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            return self.desk.taught.keep(taught).facts()

        return JSONResponse(await self._work(work), 201)

    async def forget(self, request: Request) -> Response:
        """Removes a taught concept."""
        name = request.path_params["name"]
        await self._work(lambda: self.desk.taught.forget(name))
        return JSONResponse({"removed": name})

    # --------------------------------------------------------------------------------------------------- label studio

    async def health(self, request: Request) -> Response:
        """Says that the model is there."""
        return JSONResponse({"status": "UP", "model_class": "ConceptCam", **self.desk.counts})

    async def setup(self, request: Request) -> Response:
        """Label Studio introduces a project; its configuration is checked."""
        data = await _json(request)
        if isinstance(data.get("schema"), str) and data["schema"].strip():
            labelstudio.read_controls(data["schema"])
        return JSONResponse({"model_version": labelstudio.model_version(self.desk)})

    async def versions(self, request: Request) -> Response:
        """The version of the model, as Label Studio lists it."""
        return JSONResponse({"versions": [labelstudio.model_version(self.desk)]})

    async def predict(self, request: Request) -> Response:
        """Predictions for Label Studio's tasks."""
        data = await _json(request)
        return JSONResponse(await self._work(lambda: labelstudio.predict(self.desk, data)))

    async def webhook(self, request: Request) -> Response:
        """Label Studio reports what people did; nothing is trained, so nothing is done."""
        await _json(request)
        return JSONResponse({"status": "nothing is trained here"})


def build_routes(desk: Desk) -> list[Route]:
    """Returns every route; :mod:`concept_cam.serve.openapi` describes the same ones."""
    handlers = _Handlers(desk)
    table: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("/", "GET", handlers.page),
        ("/page/{file}", "GET", handlers.page),
        ("/openapi.json", "GET", handlers.openapi),
        ("/api/state", "GET", handlers.state),
        ("/api/pictures", "GET", handlers.pictures),
        ("/api/pictures", "POST", handlers.upload),
        ("/api/pictures/{id}/image", "GET", handlers.image),
        ("/api/ask", "POST", handlers.ask),
        ("/api/next", "POST", handlers.next),
        ("/api/corrections", "GET", handlers.corrections),
        ("/api/corrections", "POST", handlers.correct),
        ("/api/corrections/undo", "POST", handlers.undo),
        ("/api/limits", "GET", handlers.limits),
        ("/api/limits", "POST", handlers.keep),
        ("/api/export/{to}", "GET", handlers.export),
        ("/api/taught", "POST", handlers.teach),
        ("/api/taught/{name}", "DELETE", handlers.forget),
        ("/health", "GET", handlers.health),
        ("/setup", "POST", handlers.setup),
        ("/versions", "GET", handlers.versions),
        ("/predict", "POST", handlers.predict),
        ("/webhook", "POST", handlers.webhook),
    ]
    return [Route(path, _handled(handler), methods=[method]) for path, method, handler in table]


# -------------------------------------------------------------------------------------------------------------- checks


def _entry(entry: GalleryPicture, corrections: int) -> dict[str, Any]:
    """A picture of the list."""
    specimen = None if entry.box is None else {"number": entry.specimen, "box": list(entry.box)}
    return {"id": entry.id, "source": entry.source, "title": entry.title, "specimen": specimen, "corrections": corrections}


def _identity(desk: Desk) -> str:
    """What tells one place of corrections from another: what a browser could not send to the one is never sent to the other."""
    return hashlib.sha256(str(desk.corrections.path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _pack(pack: prompts.Pack) -> dict[str, Any]:
    characters = [
        {
            "name": item.name,
            "kind": item.kind,
            "entity": item.entity.label if item.entity else None,
            "states": [{"name": state.name, "phrases": list(pack.phrases_of(state, item))} for state in item.states],
        }
        for item in pack.characters
    ]
    return {"name": pack.name, "title": pack.title or pack.name, "host": pack.host, "characters": characters}


def _run(desk: Desk, run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "model": {"name": run.model, "weights_hash": run.weights_hash},
        "other_weights": desk.other_weights,
        "characters": _run_characters(desk),
    }


def _run_characters(desk: Desk) -> list[dict[str, Any]]:
    """The characters of the run that a pack at hand can ask, in order."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for calls in desk.gallery.all_calls().values():
        for (pack, character, _, part), record in calls.items():
            own = seen.setdefault((pack, character), {"pack": pack, "character": character, "kind": record["kind"], "parts": {}})
            if part:
                own["parts"][part] = None
    rows = [{**row, "parts": list(row["parts"])} for row in seen.values() if row["kind"] != "distance"]
    return [row for row in rows if row["pack"] in desk.packs]


def _whole(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > most:
        raise ConfigurationError(f"{name} is a whole number of at most {most}, received {text[:40]!r}.")
    return int(text)


def _share(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name, str(default))
    try:
        return number(float(text), name, 0.01, 0.999)
    except ValueError:
        raise ConfigurationError(f"{name} is a number in 0..1, received {text[:40]!r}.") from None


def _short(data: Mapping[str, Any], name: str, most: int, empty: bool = False) -> str:
    value = data.get(name)
    value = "" if value is None else value
    if not isinstance(value, str) or len(value) > most or (not value and not empty):
        raise ConfigurationError(f"{name} is a text of {'at most' if empty else '1 to'} {most} characters, received {str(value)[:60]!r}.")
    return value


def _optional(data: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    return None if data.get(name) is None else number(data[name], name, low, high)


def _state(data: Mapping[str, Any], name: str, states: tuple[str, ...]) -> str:
    """Reads a state that may be left out; a character's states are known, those of words are not."""
    state = _short(data, "state", 300, empty=True)
    if state and states:
        choose(state, dict.fromkeys(states), name)
    return state


def _reason(called: Mapping[str, Any]) -> str:
    """Reads why a call was not made, which may be left out."""
    reason = _short(called, "abstained_because", 40, empty=True)
    if reason:
        choose(reason, ABSTENTION_REASONS, "called.abstained_because")
    return reason


_JUDGEMENT = (
    "verdict", "state", "called", "probability", "score", "abstained_because", "question", "taught", "model", "weights_hash",
)  # fmt: skip
"""What belongs to a verdict: none of it says anything beside the verdict on another call."""


def _completed(told: Correction, sent: frozenset[str], current: Correction | None) -> Correction:
    """Returns a correction with what it leaves open as it stands: a box that is sent alone does not take back who said what of the call.

    Verdict, state and call stay or change together, by whether a verdict was sent.

    Args:
        told: What was sent.
        sent: The fields of the body that were there, empty or not.
        current: What counts now; ``None`` for nothing.

    Raises:
        ConfigurationError: A state or another call was sent without the verdict that it belongs to.
    """
    if "verdict" not in sent:
        standing = current if current is not None and current.verdict else None
        if told.state and (standing is None or told.state != standing.state):
            raise ConfigurationError(f"the state {told.state!r} was sent without a verdict: give verdict 'state' with it.")
        if standing is not None and "called" in sent and told.call != standing.call:
            about = f"is about {standing.call!r}" if standing.call else "names no call"
            raise ConfigurationError(
                f"called.state {told.call!r} was sent without a verdict, and the verdict {standing.verdict!r} that stands {about}: "
                "send the verdict on this call as well, or leave called out."
            )
    if current is None:
        return told
    stays = [name for name in ("mask", "boxes", "clicks", "person") if name not in sent]
    if "verdict" not in sent and (current.verdict or (current.call and "called" not in sent)):
        stays += _JUDGEMENT
    return replace(told, **{name: getattr(current, name) for name in stays})


def _base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ConfigurationError("image: expected the file in base64.")
    try:
        return base64.b64decode(text.partition(";base64,")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"image: the text is no base64: {error}.") from None


def _mask(value: Any, size: tuple[int, int]) -> dict[str, Any] | None:
    """Reads a drawn mask (runs row by row, zeros first, at any size) and returns it as COCO run lengths of the original picture."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("runs"), list) or not isinstance(value.get("size"), list):
        raise ConfigurationError("mask: expected {size: [rows, columns], runs: [...]}, row by row, zeros first.")
    rows, columns = (int(number(side, "mask side", 1, LONGEST_MASK_SIDE)) for side in (value["size"] + [0, 0])[:2])
    runs = value["runs"]
    if len(runs) > 400_000 or any(isinstance(run, bool) or not isinstance(run, int) or run < 0 for run in runs):
        raise ConfigurationError("mask: runs are whole numbers, at most 400,000 of them.")
    if sum(runs) != rows * columns:
        raise ConfigurationError(f"mask: the runs sum to {str(sum(runs))[:20]}, expected {rows} x {columns}.")
    small = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(rows, columns)
    down = np.minimum(((np.arange(size[0]) + 0.5) * rows / size[0]).astype(int), rows - 1)
    across = np.minimum(((np.arange(size[1]) + 0.5) * columns / size[1]).astype(int), columns - 1)
    return encode_rle(small[down][:, across])


def _shown(correction: Correction) -> dict[str, Any]:
    """Returns a correction as plain data; a drawn region also small and row by row, as a page draws it."""
    shown = correction.to_dict()
    if correction.mask is not None:
        mask = decode_rle(correction.mask)
        step = max(1, -(-max(mask.shape) // 1024))
        small = mask[step // 2 :: step, step // 2 :: step]
        edges = np.flatnonzero(np.diff(small.ravel())) + 1
        runs = np.diff(np.concatenate([[0], edges, [small.size]])).tolist()
        shown["drawn"] = {"size": list(small.shape), "runs": [0, *runs] if small.ravel()[0] else runs}
    return shown


def _boxes(value: Any, size: tuple[int, int]) -> tuple[tuple[int, int, int, int], ...]:
    if not isinstance(value, list | tuple) or len(value) > MOST_BOXES:
        raise ConfigurationError(f"boxes: expected a list of at most {MOST_BOXES} entries [x0, y0, x1, y1].")
    boxes = []
    for box in value:
        if not isinstance(box, list) or len(box) != 4:
            raise ConfigurationError("a box is [x0, y0, x1, y1] in original pixels.")
        x0, x1 = (int(np.clip(round(number(box[at], "box", -1e6, 1e6)), 0, size[1])) for at in (0, 2))
        y0, y1 = (int(np.clip(round(number(box[at], "box", -1e6, 1e6)), 0, size[0])) for at in (1, 3))
        if x1 <= x0 or y1 <= y0:
            raise ConfigurationError(f"the box {box} holds no pixel of the picture.")
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes)
