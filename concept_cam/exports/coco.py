"""COCO instances: ``images``, ``annotations`` with masks as compressed run lengths, ``categories``.

A category is a character's state (``caudal_fin_shape: forked``); its supercategory is the character. ``file_name`` is the run's
``source``, which is unique also where names repeat in different folders. Distances and records without a region or a call are not
instances and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from concept_cam.collection.runs import Run
from concept_cam.exports.survey import (
    FRAME,
    PART_SEPARATOR,
    PLAIN,
    Form,
    Survey,
    creator,
    has_region,
    passthrough_of,
    probability_of,
    survey,
    when,
    write_json,
)

__all__ = ["write"]


def write(run: Run, path: Path, form: Form = PLAIN) -> None:
    """Writes the run as one COCO instances file."""
    found = survey(run)
    categories = _categories(found)
    info = {
        "description": f"concept-cam annotation run {run.name}",
        "contributor": "{name} {version}".format(**creator()),
        "date_created": when(run),
        "frame": FRAME,
        "model": run.info.get("model"),
        "weights_hash": run.info.get("weights_hash"),
    }
    write_json(
        path,
        {"info": info, "licenses": [], "categories": list(categories.values())},
        images=_images(run),
        annotations=_annotations(run, found, categories),
    )


def _categories(found: Survey) -> dict[str, dict[str, Any]]:
    categories: dict[str, dict[str, Any]] = {}
    for (pack, character), states in found.states.items():
        for state in states if found.kinds[pack, character] != "distance" else ():
            above = found.name(pack, character)
            name = f"{above}{PART_SEPARATOR}{state}"
            categories[name] = {"id": len(categories) + 1, "name": name, "supercategory": above}
    return categories


def _images(run: Run) -> Iterator[dict[str, Any]]:
    for number, records in enumerate(run.pictures(), start=1):
        first = records[0]
        image = {
            "id": number,
            "file_name": first["source"],
            "width": first["image_width"],
            "height": first["image_height"],
            "sha256": first["sha256"],
        }
        if first["media_uri"]:
            image["coco_url"] = first["media_uri"]
        if further := passthrough_of(first):
            image["input"] = further
        yield image


def _annotations(run: Run, found: Survey, categories: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    number = 0
    for image, records in enumerate(run.pictures(), start=1):
        for record in records:
            if record["abstained"] or record["kind"] == "distance" or record["state"] is None or not has_region(record):
                continue
            number += 1
            name = f"{found.name(record['pack'], record['character'])}{PART_SEPARATOR}{record['state']}"
            further = passthrough_of(record) if record["specimen_x"] is not None else {}
            yield {
                "id": number,
                "image_id": image,
                "category_id": categories[name]["id"],
                "segmentation": {
                    "size": [record["image_height"], record["image_width"]],
                    "counts": record["rle_counts"],
                },
                "area": record["area_px2"],
                "bbox": [record["box_x"], record["box_y"], record["box_width"], record["box_height"]],
                "iscrowd": 0,
                "score": probability_of(record),
                "attributes": {
                    "record_key": record["record_key"],
                    "specimen": record["specimen"],
                    "entity": record["entity"],
                    "entity_id": record["entity_id"],
                    "quality_id": record["quality_id"],
                    "verdict": record.get("verdict"),
                    "confidence": record.get("confidence"),
                    **({name: record[name] for name in ("reviewed", "reviewed_by", "reviewed_at")} if record.get("reviewed") else {}),
                    **({"place": record["place"], "place_of": record["place_of"]} if record.get("place") else {}),
                },
                **({"input": further} if further else {}),
            }
