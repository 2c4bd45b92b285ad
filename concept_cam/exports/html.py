"""The contact sheet: a page on which a curator looks through a run, by trait, state and confidence, without a server.

As a folder: ``index.html`` with ``data/`` (one file per trait, loaded when it is chosen) and ``thumbs/``. As one file: everything
inside it, for an e-mail. A card shows the picture (or the specimen's part of it), the region's outline and the call. Thumbnails are
made anew from pixels: they carry no EXIF, so no place and no owner; the page asks nothing of any server.

A picture that cannot be read any more, or that is another one now under the old name, stands as an empty frame with its outline that says
which of these it is, and a warning names it. So does one that lies in an archive, which is not opened again; a warning counts these.
"""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np

import concept_cam
from concept_cam.collection.calls import ABSTENTION_REASONS
from concept_cam.collection.runs import Run
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.plain import plain_json
from concept_cam.exports.survey import PART_SEPARATOR, PLAIN, Form, Survey, passthrough_of, survey, when
from concept_cam.pictures.again import NOT_SHOWN, Revisit
from concept_cam.trust.verdicts import CLEAR, TRUST_VERDICTS, UNFOUND

__all__ = ["FILE_PICTURES", "THUMBNAIL", "write", "write_sheet"]

THUMBNAIL = 480
"""Longest side of a thumbnail in pixels; half of it in the single file."""

FILE_PICTURES = 1000
"""Most pictures of the single file; more would not pass as an e-mail nor open at once."""

_QUALITY = 80
_AHEAD = 32


@dataclass(frozen=True)
class _Trait:
    """One entry of the sheet's list of traits: a character, or one part; ``ledgers`` are the texts that its rows' ledgers are of."""

    name: str
    kind: str
    states: tuple[str, ...]
    entities: dict[str, None] = field(default_factory=dict)
    ledgers: dict[tuple[str, ...], int] = field(default_factory=dict)

    def head(self, source: str) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "states": self.states,
            "entity": ", ".join(self.entities),
            "ledgers": list(self.ledgers),
            "src": source,
        }


@dataclass(frozen=True)
class _Item:
    """One picture, or one specimen of it, as the sheet shows it."""

    record: dict[str, Any]
    box: tuple[int, int, int, int]
    scale: float

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` of the thumbnail."""
        left, top, right, bottom = self.box
        return max(1, round((right - left) * self.scale)), max(1, round((bottom - top) * self.scale))


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the contact sheet as ``index.html`` with its data and thumbnails into the folder ``path``."""
    found = survey(run)
    traits = _traits(found)
    (path / "data").mkdir()
    heads: list[dict[str, Any]] = []
    records = 0
    with ExitStack() as stack:
        files: list[TextIO] = []
        for index in range(len(traits)):
            file: TextIO = stack.enter_context((path / "data" / f"trait-{index}.js").open("w", encoding="utf-8"))
            file.write(f"SHEET_TRAIT({index}, [\n")
            files.append(file)

        def keep(number: int, jpeg: bytes | None) -> str | None:
            if jpeg is None:
                return None
            name = f"thumbs/{number // 1000:03d}/{number:06d}.jpg"
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(jpeg)
            return name

        for entry in _sheet(run, found, traits, THUMBNAIL, keep):
            if isinstance(entry, dict):
                heads.append(entry)
            else:
                files[entry[0]].write(f"{_script(entry[1])},\n")
                records += 1
        for file in files:
            file.write("]);\n")
    sources = [trait.head(f"data/trait-{index}.js") for index, trait in enumerate(traits.values())]
    start = f"SHEET_START({_script(_about(run, found, records))}, {_script(sources)}, {_script(heads)});\n"
    (path / "data" / "start.js").write_text(start, encoding="utf-8")
    (path / "index.html").write_text(_page(run, '<script src="data/start.js"></script>'), encoding="utf-8")


def write_sheet(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the contact sheet as one file.

    Raises:
        ConfigurationError: The run has more than :data:`FILE_PICTURES` pictures.
    """
    found = survey(run)
    if found.pictures > FILE_PICTURES:
        raise ConfigurationError(
            f"the run has {found.pictures} pictures; a contact sheet in one file holds up to {FILE_PICTURES}. Use --to html."
        )
    traits = _traits(found)
    heads: list[dict[str, Any]] = []
    rows: list[list[dict[str, Any]]] = [[] for _ in traits]

    def keep(number: int, jpeg: bytes | None) -> str | None:
        return None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"

    for entry in _sheet(run, found, traits, THUMBNAIL // 2, keep):
        if isinstance(entry, dict):
            heads.append(entry)
        else:
            rows[entry[0]].append(entry[1])
    sources = [trait.head("") for trait in traits.values()]
    lines = [f"SHEET_START({_script(_about(run, found, sum(map(len, rows))))}, {_script(sources)}, {_script(heads)});"]
    lines += [f"SHEET_TRAIT({index}, {_script(row)});" for index, row in enumerate(rows)]
    path.write_text(_page(run, "<script>\n" + "\n".join(lines) + "\n</script>"), encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------- content


def _traits(found: Survey) -> dict[str, _Trait]:
    traits: dict[str, _Trait] = {}
    for (pack, character), states in found.states.items():
        kind, name = found.kinds[pack, character], found.name(pack, character)
        if kind == "part":
            for part in states:
                label = f"{name}{PART_SEPARATOR}{part}"
                traits[label] = _Trait(label, kind, (part,))
        else:
            traits[name] = _Trait(name, kind, states)
    return traits


def _about(run: Run, found: Survey, records: int) -> dict[str, Any]:
    return {
        "pictures": found.pictures,
        "records": records,
        "model": run.info.get("model"),
        "date": when(run)[:10],
        "version": run.info.get("package_version", concept_cam.__version__),
        "verdicts": VERDICT_NAMES,
        "trusted": VERDICT_NAMES.index(CLEAR),
        "unfound": [VERDICT_NAMES.index(name) for name in UNFOUND],
        "reasons": ABSTENTION_REASONS,
        "missing": NOT_SHOWN,
    }


def _page(run: Run, data: str) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("concept_cam.exports", "sheet"), autoescape=True, undefined=StrictUndefined)
    folder = resources.files("concept_cam.exports") / "sheet"
    # Our own style and script, and data that `_script` has made safe, are no text to be escaped.
    return environment.get_template("page.html").render(
        title=f"Contact sheet: {run.name}",
        style=Markup((folder / "sheet.css").read_text(encoding="utf-8")),
        script=Markup((folder / "sheet.js").read_text(encoding="utf-8")),
        data=Markup(data),
    )


def _script(value: Any) -> str:
    # "</script>" and "<!--" inside a text must not end the script element.
    text = json.dumps(plain_json(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sheet(run: Run, found: Survey, traits: dict[str, _Trait], longest: int, keep: Any) -> Iterator[Any]:
    """Streams the sheet: an item's head (a dict), then its rows as ``(trait index, row)``."""
    columns = [name for name in run.schema.names if name not in ("scores", "rle_counts")]
    index = {name: number for number, name in enumerate(traits)}
    number = 0
    revisit = Revisit("annotated", "the sheet has empty frames there", "annotate them anew, into another folder")
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        pictures = run.pictures(columns)
        while chunk := list(islice(pictures, _AHEAD)):
            grouped = [_items(records, longest) for records in chunk]
            thumbs = pool.map(lambda items: _thumbnails(run, revisit, [item for item, _ in items]), grouped)
            for items, jpegs in zip(grouped, thumbs, strict=True):
                for (item, records), jpeg in zip(items, jpegs, strict=True):
                    yield _head(item, keep(number, jpeg), None if jpeg else revisit.why(item.record["source"]))
                    for record in records:
                        name = found.name(record["pack"], record["character"])
                        if record["kind"] == "part":
                            name = f"{name}{PART_SEPARATOR}{record['best_state']}"
                        if record["entity"]:
                            traits[name].entities[record["entity"]] = None
                        yield index[name], _row(number, record, item, traits[name])
                    number += 1
    for said in revisit.findings():
        warnings.warn(said, UserWarning, stacklevel=2)


VERDICT_NAMES = tuple(TRUST_VERDICTS)
"""Verdicts by number, as the page knows them."""


def _items(records: list[dict[str, Any]], longest: int) -> list[tuple[_Item, list[dict[str, Any]]]]:
    by_specimen: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        by_specimen.setdefault(record["specimen"], []).append(record)
    items = []
    for group in by_specimen.values():
        first = group[0]
        box = _box(first)
        scale = min(1.0, longest / max(box[2] - box[0], box[3] - box[1]))
        items.append((_Item(first, box, scale), group))
    return items


def _box(record: dict[str, Any]) -> tuple[int, int, int, int]:
    width, height = record["image_width"], record["image_height"]
    if record["specimen_x"] is None:
        return 0, 0, width, height
    left, top = max(0, record["specimen_x"]), max(0, record["specimen_y"])
    right = min(width, record["specimen_x"] + record["specimen_width"])
    bottom = min(height, record["specimen_y"] + record["specimen_height"])
    return (left, top, right, bottom) if right > left and bottom > top else (0, 0, width, height)


def _thumbnails(run: Run, revisit: Revisit, items: Sequence[_Item]) -> list[bytes | None]:
    from PIL import Image

    first = items[0].record
    size = (first["image_height"], first["image_width"])
    path = run.picture_path(first)
    if path is None and not first["path"] and run.in_containers:
        revisit.leave(first["source"])
        return [None] * len(items)
    picture = revisit.read(first["source"], path, first["sha256"], size)
    if picture is None:
        return [None] * len(items)
    upright = picture.to_pil()
    thumbs: list[bytes | None] = []
    for item in items:
        stream = io.BytesIO()
        upright.resize(item.size, Image.Resampling.LANCZOS, box=item.box, reducing_gap=2.0).save(stream, "JPEG", quality=_QUALITY)
        thumbs.append(stream.getvalue())
    return thumbs


def _head(item: _Item, thumbnail: str | None, missing: str | None) -> dict[str, Any]:
    record = item.record
    width, height = item.size
    head = {
        "f": record["source"],
        "s": record["specimen"] if record["specimen_x"] is not None else None,
        "w": record["image_width"],
        "h": record["image_height"],
        "t": thumbnail,
        "m": missing,
        "tw": width,
        "th": height,
        "u": record["media_uri"],
        "x": passthrough_of(record) or None,
    }
    return {name: value for name, value in head.items() if value is not None}


def _row(number: int, record: dict[str, Any], item: _Item, trait: _Trait) -> dict[str, Any]:
    states = trait.states
    ledger = None
    if record.get("ledger"):
        place = trait.ledgers.setdefault(tuple(record["ledger"]), len(trait.ledgers))
        ledger = [place, *(_short(value) for value in record["ledger"].values())]
    metric = record["length_mm"] is not None
    best, odds = record["best_state"], record["probabilities"]
    row = {
        "i": number,
        "b": states.index(best) if best in states else None,
        "c": 0 if record["abstained"] else 1,
        "p": _short(record["probability"]),
        "m": _short(record["margin"]),
        "v": VERDICT_NAMES.index(record["verdict"]) if record.get("verdict") in VERDICT_NAMES else None,
        "y": record.get("verdict_because"),
        "z": _short(record.get("confidence")),
        "h": _short(record.get("presence")),
        # What a person said stands, however sure the model was.
        "d": record.get("reviewed"),
        "by": record.get("reviewed_by"),
        "tx": _short(record.get("text_share")) or None,
        "ag": _short(record.get("agreement")),
        "w": record.get("place_because"),
        "r": record["abstained_because"],
        "a": _short(record["area_frac"]),
        "l": _short(record["length_mm"] if metric else record["length_px"]),
        "e": _short(record["length_uncertainty_mm"] if metric else record["length_uncertainty_px"]),
        "n": ("mm" if metric else "px") if record["length_px"] is not None else None,
        "g": ledger,
        "q": [_short(odds.get(state)) for state in states] if odds and len(states) > 1 else None,
        "lk": [states.index(state) for state in record.get("likely_states") or () if state in states] or None,
        "lp": _short(record.get("likely_probability")),
        "o": _outline(record, item) or None,
        "k": _peak(record, item),
    }
    return {name: value for name, value in row.items() if value is not None}


def _short(value: float | None) -> float | None:
    return None if value is None or value != value else float(f"{value:.5g}")


def _peak(record: dict[str, Any], item: _Item) -> list[float] | None:
    if record["peak_x"] is None or record["peak_y"] is None:
        return None
    left, top, right, bottom = item.box
    if not (left <= record["peak_x"] <= right and top <= record["peak_y"] <= bottom):
        return None
    return [round((record["peak_x"] - left) * item.scale, 1), round((record["peak_y"] - top) * item.scale, 1)]


def _outline(record: dict[str, Any], item: _Item) -> str:
    """Returns the outline as SVG path data in pixels of the thumbnail, with no more points than are seen there."""
    left, top, _, _ = item.box
    closed = record["kind"] != "distance"
    paths = []
    for flat in record["contour"] or ():
        points = (np.asarray(flat, dtype=np.float64).reshape(-1, 2) - (left, top)) * item.scale
        if closed:
            points = _simplify(points)
        if len(points) > 1:
            paths.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points.round(1)) + ("Z" if closed else ""))
    return "".join(paths)


def _simplify(points: np.ndarray) -> np.ndarray:
    """Drops what a thumbnail does not show: specks, then steps under half a pixel, then corners under 0.6 pixels."""
    from skimage.measure import approximate_polygon

    if len(points) < 3 or np.ptp(points, axis=0).max() < 2:
        return points[:0]
    coarse = np.round(points * 2) / 2
    coarse = coarse[np.append(True, np.any(np.diff(coarse, axis=0) != 0, axis=1))]
    return cast("np.ndarray", approximate_polygon(coarse, 0.6) if len(coarse) > 6 else coarse)
