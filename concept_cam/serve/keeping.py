"""What becomes of corrections: new limits, and every export."""

from __future__ import annotations

import io
import math
import tempfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_cam.collection.corrections import Correction, labels_csv
from concept_cam.collection.limits import PROBABILITY_SETTINGS, Calibration
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.names import choose
from concept_cam.evaluation.calibration import ModelCall, calibrate
from concept_cam.exports import EXPORTS, export
from concept_cam.exports.survey import Label

if TYPE_CHECKING:
    from concept_cam.serve.desk import Desk

__all__ = ["LIMITS_FILE", "calls_and_labels", "export_bytes", "fit_limits", "keep_limits"]

LIMITS_FILE = "limits.yaml"


def calls_and_labels(standing: list[Correction]) -> tuple[list[ModelCall], list[Label]]:
    """Turns corrections into the calls that were judged and what is right; what cannot be told counts neither way."""
    calls, labels = [], []
    for item in standing:
        part = item.kind == "part"
        state = item.call
        if not item.verdict or item.verdict == "cannot_tell" or not state:  # A row that holds no call says of none whether it was right.
            continue
        nan = float("nan")
        calls.append(
            ModelCall(
                item.source,
                item.character,
                state,
                nan if item.probability is None else item.probability,
                nan if item.score is None else item.score,
                item.pack,
                item.specimen,
                part,
            )
        )
        labels.append(Label(item.source, item.character, item.true_state or f"not {state}", item.pack, item.specimen, alone=True))
    return calls, labels


def fit_limits(desk: Desk, target: float = 0.9, confidence: float = 0.8) -> tuple[Calibration, dict[str, Any]]:
    """Fits limits to what people said, and says what they change.

    Limits are for the model whose calls they are fitted to: that of the run, where one is served, whichever model answers; else the one
    that answers. Corrections of calls that other weights made are left out, and counted.

    Args:
        desk: Where the corrections and the run are.
        target: Share of calls that are to be right.
        confidence: Of the bound.

    Returns:
        The limits, and as plain data one row per character: the limit, how many labels it rests on, and of the run's calls how many would
        no longer be made and how many that were held back would be; the model that they are for; and how many corrected calls were left
        out, of other weights and of what no limit decides about (no host, an absent part).

    Raises:
        DataError: There is no label, or none for a call of that model; the message says what the corrections lack.
    """
    if not (0 < target < 1 and 0 < confidence < 1):
        raise ConfigurationError(f"target and confidence must lie between 0 and 1, received {target} and {confidence}.")
    standing, run, backbone = desk.standing(), desk.gallery.run, desk.localizer.backbone
    model, weights_hash = (backbone.name, backbone.weights_hash) if run is None else (run.model, run.weights_hash)
    # Probabilities of two models are not set against one limit.
    own = [item for item in standing if not (item.weights_hash and weights_hash) or item.weights_hash == weights_hash]
    calls, labels = calls_and_labels([item for item in own if not item.before_limits])
    judged, judged_own = (len(calls_and_labels(items)[0]) for items in (standing, own))
    others, held = judged - judged_own, judged_own - len(calls)
    if not calls and held:
        beside = f", and {others} more were made with other weights" if others else ""
        raise DataError(
            f"all {held} corrected calls are of pictures without the host or of absent parts, and no limit decides about those{beside}: "
            "correct other calls first."
        )
    if not calls and others:
        raise DataError(
            f"all {others} corrected calls were made with other weights than {weights_hash} of {model!r}, which the limits would be for: "
            f"correct calls of {'that model' if run is None else 'the run'} first."
        )
    if not calls:
        raise DataError(_nothing_judged(standing))
    if all(math.isnan(call.score if call.part else call.probability) for call in calls):
        raise DataError(
            f"none of the {len(calls)} calls that were corrected has a probability (called.probability), nor, of a part, a score "
            "(called.score), on which a limit could be set: ask with contrasts, and send what was answered with the verdict."
        )
    here = {**desk.localizer.settings.recorded(), "views": desk.localizer.views}
    used = here if run is None else run.info.get("configuration", {})
    facts = {
        **{name: value for name, value in (("model", model), ("weights_hash", weights_hash)) if value},
        "settings": {name: used[name] for name in PROBABILITY_SETTINGS if name in used},
    }
    found = calibrate(calls, labels, target, confidence, facts=facts)
    rows = []
    for name, limit in found.limits.items():
        value = math.inf if limit.value is None else limit.value
        dropped, gained = _changes(desk, name, limit.measure, value)
        rows.append({"name": name, **limit.to_dict(), "no_longer_called": dropped, "newly_called": gained})
    return found, {
        "target": target,
        "confidence": confidence,
        "limits": rows,
        "file": LIMITS_FILE,
        "run": run is not None,
        "model": model,
        "weights_hash": weights_hash,
        "other_weights": others,
        "before_limits": held,
    }


def _nothing_judged(standing: list[Correction]) -> str:
    """Says why no correction tells of a call whether it was right."""
    if not standing:
        return "nothing was corrected yet: accept or correct some calls first."
    counts = Counter(item.verdict if item.verdict in ("", "cannot_tell") else "judged" for item in standing)
    lacks = {
        "judged": "lack the call that they judge (called.state, and called.probability or, of a part, called.score)",
        "cannot_tell": "say that it cannot be told",
        "": "have no verdict",
    }
    reasons = ", ".join(f"{counts[name]} {text}" for name, text in lacks.items() if counts[name])
    return (
        f"none of the {len(standing)} corrections says of a call whether it was right: {reasons}. Send the verdict together with the call, "
        "called, or accept or correct some calls on the page."
    )


def _changes(desk: Desk, name: str, measure: str, value: float) -> tuple[int, int]:
    """Counts the run's calls of one character that a limit would silence, and those it would let through."""
    dropped = gained = 0
    for calls in desk.gallery.all_calls().values():
        for (pack, character, _, part), record in calls.items():
            own = f"{character}={part}" if part else character
            if name not in (own, f"{pack}/{own}"):
                continue
            size = record["score"] if measure == "score" else record["probability"]
            made = size is not None and size >= value
            dropped += not record["abstained"] and not made
            gained += made and record["abstained_because"] in ("low_probability", "low_score")
    return dropped, gained


def keep_limits(desk: Desk, target: float = 0.9, confidence: float = 0.8) -> Path:
    """Fits limits and writes them beside the corrections, in the place of older ones; ``annotate --calibration`` takes the file."""
    return fit_limits(desk, target, confidence)[0].save(desk.corrections.path.parent / LIMITS_FILE, overwrite=True)


def export_bytes(desk: Desk, to: str) -> tuple[bytes, str]:
    """Returns an export of the run with its corrections, and a file name; folders, and files that have a companion, become a ZIP archive.
    ``"labels"`` needs no run.

    Raises:
        ConfigurationError: Unknown format, or one that needs a run.
    """
    if to == "labels":
        return labels_csv(desk.standing()).encode("utf-8"), "labels.csv"
    choose(to, {"labels": None, **EXPORTS}, "export format")
    chosen = EXPORTS[to]
    run = desk.gallery.run
    if run is None:
        raise ConfigurationError(
            f"the export to {to!r} needs an annotation run: serve the folder that annotate wrote. Labels work without."
        )
    with tempfile.TemporaryDirectory(prefix="concept-cam-export-") as scratch:
        output = Path(scratch) / f"{run.name}-{to}{chosen.suffix}"
        export(run, to, output, corrections=desk.corrections.path if desk.corrections.path.is_file() else False)
        written = [file for file in sorted(Path(scratch).rglob("*")) if file.is_file()]
        if not chosen.is_folder and len(written) == 1:
            return output.read_bytes(), output.name
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in written:
                archive.write(file, file.relative_to(output.parent))
        return buffer.getvalue(), f"{output.name.removesuffix(chosen.suffix)}.zip"
