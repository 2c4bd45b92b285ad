"""A small annotation run with planted truth: every mask, box and state is known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from skimage.measure import find_contours, regionprops

from concept_cam.collection.runs import PARTS_FOLDER, RUN_FILE, Run
from concept_cam.collection.schema import image_key, record_key, table_from_records
from concept_cam.core.regions import encode_rle, measure

SHAPES = ("forked", "rounded", "truncate")

ODD_NAMES = (
    "fish/één vis 鱼.jpg",
    "other/één vis 鱼.jpg",
    "fish/a b (1).png",
    "fish/<b>&\"'{{x}}.png",
    "s3://bucket/gone away.png",
)
"""Unicode, spaces, the same name in two folders, mark-up in a name, and a picture that is not on this disk."""

SIZES = ((40, 60), (61, 33), (21, 34), (50, 50), (30, 45))
"""``(H, W)`` of each upright picture."""


@dataclass
class Planted:
    """A run on disk and what was planted in it.

    Attributes:
        path: The run's folder.
        masks: bool [H, W] by record key.
        records: The records as they were written.
    """

    path: Path
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def run(self) -> Run:
        return Run.open(self.path)

    def record(self, source: str, character: str, state: str = "", specimen: int = 0) -> dict[str, Any]:
        for record in self.records:
            same = (record["source"], record["character"], record["specimen"]) == (
                source,
                character,
                specimen,
            )
            if same and state in ("", record["best_state"]):
                return record
        raise KeyError((source, character, state, specimen))


def ring(size: tuple[int, int], centre: tuple[float, float], outer: float, inner: float = 0.0) -> np.ndarray:
    """A disc, or a ring with a hole; bool [H, W]; may touch the edge."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(rows + 0.5 - centre[0], columns + 0.5 - centre[1])
    return (distance <= outer) & (distance >= inner)


def region_columns(mask: np.ndarray) -> dict[str, Any]:
    """The columns of a record that follow from its mask."""
    if not mask.any():
        return {"region_count": 0}
    box = regionprops(mask.astype(np.uint8))[0].bbox
    rle = encode_rle(mask)
    outlines = find_contours(np.pad(mask.astype(float), 1), 0.5)
    measures = measure(mask)
    return {
        "box_x": box[1],
        "box_y": box[0],
        "box_width": box[3] - box[1],
        "box_height": box[2] - box[0],
        "region_count": 1,
        "rle_counts": rle["counts"],
        "rle_size": rle["size"],
        "contour": [(outline[:, ::-1] - 0.5).ravel().tolist() for outline in outlines],
        "area_px2": measures["area"],
        "area_frac": float(mask.mean()),
        "length_px": measures["length"],
        "length_uncertainty_px": 8.0,
        "width_px": measures["width"],
        "width_uncertainty_px": None,
        "orientation_deg": measures["orientation"],
        "eccentricity": float("nan"),
        "solidity": measures["solidity"],
        "peak_x": measures["centroid_x"],
        "peak_y": measures["centroid_y"],
    }


def make_record(source: str, size: tuple[int, int], character: str, kind: str, best: str | None, **values: Any) -> dict[str, Any]:
    """A record with the columns that every record has."""
    specimen, pack = values.get("specimen", 0), values.get("pack", "fish")
    part = best if kind == "part" else ""
    abstained = values.get("abstained", False)
    return {
        "record_key": record_key(source, specimen, pack, character, part or ""),
        "image_key": image_key(source),
        "file_name": source.rpartition("/")[2],
        "source": source,
        "sha256": "ab" * 32,
        "image_height": size[0],
        "image_width": size[1],
        "specimen": specimen,
        "pack": pack,
        "character": character,
        "kind": kind,
        "best_state": best,
        "state": None if abstained else best,
        "abstained": abstained,
        "model": "tiny/planted",
        "weights_hash": "0123abcd",
        "package_version": "0.1.0",
        **values,
    }


def save_picture(path: Path, size: tuple[int, int], seed: int, rotated: bool = False) -> None:
    """Writes a picture; a rotated one is stored on its side, with EXIF orientation, position, owner and a comment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = np.kron(rng.integers(60, 200, (size[0] // 10 + 1, size[1] // 10 + 1, 3)), np.ones((10, 10, 1)))
    image = Image.fromarray(pixels[: size[0], : size[1]].astype(np.uint8))
    if not rotated:
        image.save(path)
        return
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x013B] = "SECRET-OWNER"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 9.0, 0.0), 3: "E", 4: (4.0, 30.0, 0.0), 29: "SECRET-DAY"})
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, comment=b"SECRET-COMMENT", quality=95)


def digest(path: Path) -> str:
    """SHA-256 of a file, as records hold it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_run(path: Path, records: list[dict[str, Any]], passthrough: tuple[str, ...] = (), parts: int = 2) -> None:
    """Writes records as a run of several parts; records of one picture stay together."""
    (path / PARTS_FOLDER).mkdir(parents=True)
    sources = list(dict.fromkeys(record["source"] for record in records))
    for number in range(parts):
        chosen = set(sources[number * len(sources) // parts : (number + 1) * len(sources) // parts])
        table = table_from_records([record for record in records if record["source"] in chosen], passthrough)
        pq.write_table(table, path / PARTS_FOLDER / f"part-{number:05d}.parquet")
    info = {
        "schema_version": "1",
        "package_version": "0.1.0",
        "model": "tiny/planted",
        "weights_hash": "0123abcd",
        "started": "2026-01-02T03:04:05+00:00",
        "finished": "2026-01-02T03:05:06+00:00",
        "input": {"root": str(path.parent / "photos")},
    }
    (path / RUN_FILE).write_text(json.dumps(info), encoding="utf-8")


def plant(folder: Path) -> Planted:
    """A run over ``ODD_NAMES``: called and abstaining records, empty regions, holes, parts and distances."""
    planted = Planted(folder / "run")
    for number, (source, size) in enumerate(zip(ODD_NAMES, SIZES, strict=True)):
        height, width = size
        on_disk = "://" not in source
        shared: dict[str, Any] = {
            "input_occurrenceID": f"urn:occ:{number}",
            "input_rights": 'CC BY 4.0, "quoted"',
            "input_creator": "Ada Løv",
            "input_species": "Danio rerio",
            "path": str(folder / "photos" / source) if on_disk else None,
            "media_uri": None if on_disk else "https://example.org/gone%20away.png",
        }
        if on_disk:
            save_picture(folder / "photos" / source, size, number, rotated=number == 0)
            shared["sha256"] = digest(folder / "photos" / source)
        fin = {"entity": "caudal fin", "entity_id": "UBERON:4000164"}
        best = SHAPES[number % 3]
        unsure = number == 2
        odds = {state: 0.5 + 0.09 * number if state == best else (0.5 - 0.09 * number) / 2 for state in SHAPES}
        call = {
            "probability": odds[best],
            "probabilities": odds,
            "score": 0.1,
            "margin": odds[best] - (1 - odds[best]) / 2,
            "abstained": unsure,
            "abstained_because": "low_probability" if unsure else None,
            "limit": 0.6,
            "threshold": 0.02,
        }
        quality = {"quality": "truncated", "quality_id": "PATO:0000936", "quality_match": "synonym"}
        tail = ring(size, (height / 2, width - 6), 9.0, 3.0)
        head = ring(size, (height / 2, 5), 6.0)
        adipose = {"present": 0.3, "absent": 0.7}
        rows = [
            (
                tail,
                make_record(
                    source,
                    size,
                    "caudal_fin_shape",
                    "shape",
                    best,
                    **shared,
                    **fin,
                    **call,
                    **(quality if best == "truncate" and not unsure else {}),
                ),
            ),
            (
                None,
                make_record(
                    source,
                    size,
                    "adipose_fin",
                    "presence",
                    "absent",
                    **shared,
                    probability=0.7,
                    probabilities=adipose,
                    margin=0.4,
                ),
            ),
            (
                head,
                make_record(
                    source,
                    size,
                    "parts",
                    "part",
                    "head",
                    **shared,
                    entity="head",
                    entity_id="UBERON:0000033",
                    probability=0.9,
                    px_per_mm=2.0,
                ),
            ),
            (
                np.zeros(size, bool),
                make_record(
                    source,
                    size,
                    "parts",
                    "part",
                    "pelvic_fin",
                    **shared,
                    abstained=True,
                    abstained_because="low_score",
                ),
            ),
        ]
        for mask, record in rows:
            if mask is not None:
                record.update(region_columns(mask))
                planted.masks[record["record_key"]] = mask
            if record.get("px_per_mm"):
                record["length_mm"] = record["length_px"] / 2.0
                record["length_uncertainty_mm"] = 4.0
                record["area_mm2"] = record["area_px2"] / 4.0
            planted.records.append(record)
        known = number != 3
        line = {"length_px": 40.0, "length_uncertainty_px": 8.0, "contour": [[2.0, 10.0, 42.0, 10.0]]} if known else {}
        planted.records.append(make_record(source, size, "standard_length", "distance", None, **shared, **line, abstained=not known))
    write_run(planted.path, planted.records, ("occurrenceID", "rights", "creator", "species"))
    return planted


def plant_specimens(folder: Path) -> Planted:
    """A tray with two specimens, asked about by two packs that share a character's name."""
    planted = Planted(folder / "tray")
    source, size = "tray 1.png", (60, 100)
    save_picture(folder / "photos" / source, size, 7)
    for specimen, left in enumerate((0, 50)):
        for pack, best in (("fish", ("silver", "red")[specimen]), ("beetle", ("metallic", "dull")[specimen])):
            mask = ring(size, (30, left + 25), 10 + 3 * specimen)
            odds = {"silver": 0.6, "red": 0.4} if pack == "fish" else {"metallic": 0.7, "dull": 0.3}
            box = {"specimen_x": left, "specimen_y": 5, "specimen_width": 50, "specimen_height": 50}
            record = make_record(
                source, size, "body_colour", "colour", best, specimen=specimen, pack=pack, **box, probability=0.6, probabilities=odds,
                entity="body proper", sha256=digest(folder / "photos" / source)
            )  # fmt: skip
            record.update(region_columns(mask))
            planted.masks[record["record_key"]] = mask
            planted.records.append(record)
    write_run(planted.path, planted.records, parts=1)
    return planted
