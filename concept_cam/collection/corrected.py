"""A run with the corrections of people applied: what exports write.

The run on disk is never changed. A record that somebody accepted or corrected is a call that was made; one that was rejected or cannot be
told is none. A region that was drawn takes the place of the model's, with its measures. ``reviewed``, ``reviewed_by`` and ``reviewed_at``
say which records a person looked at. The certificate's verdict on them, which was about the model's call and map, is not theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from concept_cam import prompts
from concept_cam.collection.corrections import CORRECTIONS_FILE, Correction, Corrections, Key
from concept_cam.collection.runs import Run
from concept_cam.collection.schema import MEASURES
from concept_cam.core.errors import DataError, PromptError
from concept_cam.core.names import counted
from concept_cam.core.regions import decode_rle, encode_rle, find_regions, measure

__all__ = ["CorrectedRun", "apply", "corrected"]

_VERDICT = ("verdict", "verdict_because", "confidence", "presence")
_OF_THE_MAP = ("score", "margin", "evidence_x", "evidence_y", "p_value", "dependence", "agreement", "text_share", "ledger")
_KEY = ("source", "pack", "character", "specimen", "kind", "best_state")


def corrected(run: Run, path: str | os.PathLike[str] | None = None) -> Run:
    """Returns a run with the corrections that stand; the run itself where nobody corrected anything.

    Args:
        run: The run.
        path: File of corrections; by default ``corrections.sqlite`` in the run's folder, where there is one.

    Raises:
        DataError: The file is not there, or is none of corrections.
    """
    file = Path(path) if path is not None else run.path / CORRECTIONS_FILE
    if path is not None and not file.is_file():
        raise DataError(f"there is no file of corrections {str(path)!r}: name the one that 'concept-cam serve' keeps, or none.")
    standing = Corrections(file).standing() if file.is_file() else []
    if not standing:
        return run
    return CorrectedRun(run.path, run.info, run.parts, run.schema, {item.key: item for item in standing})


@dataclass(frozen=True)
class CorrectedRun(Run):
    """A run whose records are changed as they are read.

    Attributes:
        corrections: What stands, by source, pack, character, specimen and part.
    """

    corrections: Mapping[Key, Correction] = field(default_factory=dict)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Streams the records in order, corrected; ``columns`` as for :meth:`Run.batches`."""
        wanted = self._select(columns)
        for batch in super().batches(None):
            touched = {index: item for index, item in enumerate(self._corrections(batch)) if item is not None}
            if touched:
                # Only the records that somebody corrected are taken apart and put together again.
                rows = batch.take(pa.array(list(touched))).to_pylist(maps_as_pydicts="strict")
                changed = pa.RecordBatch.from_pylist(
                    [_storable(apply(row, item)) for row, item in zip(rows, touched.values())], batch.schema
                )
                order = np.arange(batch.num_rows)
                order[list(touched)] = batch.num_rows + np.arange(len(touched))
                table = pa.Table.from_batches([batch, changed]).take(pa.array(order)).combine_chunks()
                batch = table.to_batches()[0]
            yield batch.select(wanted.names) if columns is not None else batch

    def not_carried(self) -> list[str]:
        """Says what of the corrections no record carries, a sentence for each kind; nothing where they all are."""
        left = {key: item for key, item in self.corrections.items() if item.says_something}
        both, misfits = [], []
        for batch in super().batches([*_KEY, "image_height", "image_width"]):
            for item, *size in zip(self._corrections(batch), *(batch.column(name).to_pylist() for name in ("image_height", "image_width"))):
                if item is None:
                    continue
                left.pop(item.key, None)
                if item.mask is not None and list(item.mask["size"]) != size:
                    misfits.append(item)
                elif item.mask is not None and item.boxes:
                    both.append(item)
        asked = [item for item in left.values() if item.pack]
        said = []
        if asked:
            said.append(f"corrections of which the run has no record, so that none carries them: {_examples(asked)}.")
        if words := [item for item in left.values() if not item.pack]:
            said.append(f"corrections of questions in words, of which a run has no records: {_examples(words)}.")
        if misfits:
            said.append(f"regions brushed on a picture of another size than the run's, which are left out: {_examples(misfits)}.")
        if both:
            said.append(f"a region was brushed and boxes were drawn as well; the brushed region alone is carried: {_examples(both)}.")
        return said

    def _corrections(self, batch: pa.RecordBatch) -> Iterator[Correction | None]:
        for row in batch.select(list(_KEY)).to_pylist():
            part = row["best_state"] if row["kind"] == "part" else ""
            yield self.corrections.get((row["source"], row["pack"], row["character"], row["specimen"], part))


def _examples(items: Sequence[Correction]) -> str:
    return counted([f"{item.character}{f' {item.part}' if item.part else ''} of {item.source}" for item in items], 3)


def _storable(record: dict[str, Any]) -> dict[str, Any]:
    probabilities = record.get("probabilities")
    return {**record, "probabilities": None if probabilities is None else list(probabilities.items())}


def apply(record: Mapping[str, Any], correction: Correction) -> dict[str, Any]:
    """Returns a record as a person corrected it; as it is where that person neither judged the call nor drew a region that fits."""
    mask = _drawn(correction, (record["image_height"], record["image_width"]))
    if not correction.verdict and mask is None:
        return dict(record)
    row = {**record, "reviewed": correction.verdict or "region", "reviewed_by": correction.person or None, "reviewed_at": correction.at}
    state = correction.true_state
    if correction.verdict in ("accept", "state"):
        row |= {"state": state, "best_state": state, "abstained": False, "abstained_because": None, "limit": None}
        if state != record["best_state"]:
            # The model's numbers were about another state, its map too.
            row |= {"probability": (record["probabilities"] or {}).get(state), **dict.fromkeys(_OF_THE_MAP)}
        row |= _quality(record["pack"], record["character"], state)
    elif correction.verdict in ("reject", "cannot_tell"):
        because = "rejected" if correction.verdict == "reject" else "cannot_be_told"
        row |= {"state": None, "abstained": True, "abstained_because": because, "quality": None, "quality_id": None, "quality_match": None}
    if correction.verdict:
        row |= {"likely_states": None, "likely_probability": None}
    row |= dict.fromkeys(_VERDICT)
    if mask is not None:
        row |= _region(mask, record)
    return row


@cache
def _pack(name: str) -> prompts.Pack | None:
    try:
        return prompts.load_pack(name) if name in prompts.available() else None
    except PromptError:
        return None


def _quality(pack: str, character: str, state: str) -> dict[str, Any]:
    """The ontology terms of a state, where the pack ships with the package."""
    known = _pack(pack)
    for item in known.characters if known else ():
        for own in item.states if item.name == character else ():
            if own.name == state and own.quality is not None:
                return {"quality": own.quality.label, "quality_id": own.quality.id, "quality_match": own.quality.match}
    return {"quality": None, "quality_id": None, "quality_match": None}


def _drawn(correction: Correction, size: tuple[int, int]) -> np.ndarray | None:
    """The region that a person drew, bool [H, W]: the brush's, else the boxes'; ``None`` where nothing was drawn."""
    if correction.mask is not None and list(correction.mask["size"]) == list(size):
        return decode_rle(correction.mask)
    if not correction.boxes:
        return None
    mask = np.zeros(size, dtype=bool)
    for x0, y0, x1, y1 in correction.boxes:
        mask[y0:y1, x0:x1] = True
    return mask


def _region(mask: np.ndarray, record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a record that follow from its region; a person's hand has no grid, so that no uncertainty is stated."""
    row: dict[str, Any] = {name: None for measure_ in MEASURES for name in (measure_.value, measure_.uncertainty, *(measure_.metric or ()))}
    row |= dict.fromkeys(
        ("box_x", "box_y", "box_width", "box_height", "rle_counts", "rle_size", "contour", "centroid_x", "centroid_y",
        "centroid_uncertainty_px",
         "area_frac", "threshold")
    )  # fmt: skip
    row["region_count"] = 0
    if not mask.any():
        return row
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    values = measure(mask[top:bottom, left:right])
    regions = find_regions(mask.astype(np.float32), mask)
    rle = encode_rle(mask)
    outlines = [contour.ravel().round(2).tolist() for region in regions for contour in region.contours]
    whole = mask.size
    if record.get("specimen_width") and record.get("specimen_height"):
        whole = record["specimen_width"] * record["specimen_height"]
    row |= {"box_x": left, "box_y": top, "box_width": right - left, "box_height": bottom - top, "region_count": len(regions)}
    row |= {"rle_counts": rle["counts"], "rle_size": rle["size"], "contour": outlines, "area_frac": float(mask.sum() / whole)}
    row |= {"centroid_x": values["centroid_x"] + left, "centroid_y": values["centroid_y"] + top}
    scale = record.get("px_per_mm")
    for item in MEASURES:
        row[item.value] = values[item.name]
        if item.metric and scale:
            row[item.metric[0]] = values[item.name] / (scale**2 if item.unit == "px2" else scale)
    return row
