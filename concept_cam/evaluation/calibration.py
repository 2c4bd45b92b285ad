"""When may a call be made? Fits abstention limits to about fifty labelled pictures."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from concept_cam.collection.calls import ABSTENTION_REASONS, BEFORE_LIMITS
from concept_cam.collection.limits import POOLED_LIMIT, PROBABILITY_SETTINGS, Calibration, Limit
from concept_cam.collection.questions import ABSENT
from concept_cam.core.documents import understood
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.names import choose, did_you_mean, nearest_names, normalise_text, some_of
from concept_cam.core.tables import read_header, rows_of, unescaped
from concept_cam.exports.survey import PACK_SEPARATOR, REVIEWED, Label, is_reviewed

__all__ = [
    "ModelCall",
    "calibrate",
    "fit_limit",
    "read_calls",
    "read_truth",
    "strangers",
    "undecided",
]

Key = tuple[str, str, str, int]
_Judged = tuple[float, bool]


@dataclass(frozen=True)
class ModelCall:
    """One call that a model made, whether or not it abstained.

    Attributes:
        file_name: The picture, as ``source`` of the run.
        character: Name of the character; for a part ``character=part``.
        state: The state with the most evidence.
        probability: Its probability among its siblings.
        score: Its raw evidence.
        pack: Name of the pack.
        specimen: Number of the specimen.
        part: Whether the character is a part, which is found rather than called.
        states: Every state of the character that can be labelled, where it is known.
        before_limits: Whether it was not called for a reason that no limit decides about: no host, or the part is absent.
        called: Whether the call was made; a part that was not found has no region in an export that could be removed.
    """

    file_name: str
    character: str
    state: str
    probability: float
    score: float
    pack: str = ""
    specimen: int = 0
    part: bool = False
    states: tuple[str, ...] = ()
    before_limits: bool = False
    called: bool = True


# ----------------------------------------------------------------------------------------------------------------- fit


def _lower_bounds(right: np.ndarray, count: np.ndarray, confidence: float) -> np.ndarray:
    """One-sided Clopper-Pearson bounds; 0 where nothing is right."""
    found = stats.beta.ppf(1 - confidence, np.maximum(right, 1), count - right + 1)
    return np.where(right > 0, found, 0.0)


def _lower_bound(right: int, count: int, confidence: float) -> float:
    return float(_lower_bounds(np.array([right]), np.array([count]), confidence)[0])


def _search(values: np.ndarray, right: np.ndarray, target: float, confidence: float) -> float | None:
    """The lowest limit whose kept calls are right often enough with the confidence asked for."""
    order = np.argsort(-values, kind="stable")
    ordered, hits = values[order], np.cumsum(right[order])
    # Equal values enter together: only the last of a tie is a limit.
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    enough = ends[_lower_bounds(hits[ends], ends + 1, confidence) >= target]
    return float(ordered[enough[-1]]) if len(enough) else None


def fit_limit(
    values: Sequence[float],
    right: Sequence[bool],
    target: float = 0.9,
    confidence: float = 0.8,
    measure: str = "probability",
) -> Limit:
    """Fits one abstention limit.

    The limit is the lowest value such that, of the calls at or above it, the share that is right is at least ``target`` by its one-sided
    Clopper-Pearson bound. Since the same calls choose the limit and measure it, that share is optimistic; ``expected_accuracy`` holds
    each call out in turn.

    Args:
        values: Probability or score of each labelled call; NaN calls are left out.
        right: Whether each is right.
        target: Share that is to be right, 0..1.
        confidence: Of the bound, 0..1; 0.5 asks little more than the plain share.
        measure: Recorded.

    Returns:
        The limit; its value is ``None`` when no limit reaches the target.

    Raises:
        ConfigurationError: Target or confidence outside 0..1.
        DataError: No labelled call.
    """
    if not (0 < target < 1 and 0 < confidence < 1):
        raise ConfigurationError(f"target and confidence must lie between 0 and 1, received {target} and {confidence}.")
    scores, hits = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=bool)
    if scores.shape != hits.shape:
        raise DataError(f"received {scores.size} values and {hits.size} judgements.")
    known = ~np.isnan(scores)
    scores, hits = scores[known], hits[known]
    if not len(scores):
        raise DataError("there is no labelled call to fit a limit to.")
    limit = _search(scores, hits, target, confidence)
    kept = np.zeros(len(scores), dtype=bool) if limit is None else scores >= limit
    held = np.zeros(len(scores), dtype=bool)
    for i in range(len(scores)):
        rest = np.arange(len(scores)) != i
        other = _search(scores[rest], hits[rest], target, confidence) if rest.any() else None
        held[i] = other is not None and scores[i] >= other
    return Limit(
        measure,
        limit,
        len(scores),
        int(kept.sum()),
        float(hits[kept].mean()) if kept.any() else float("nan"),
        _lower_bound(int(hits[kept].sum()), int(kept.sum()), confidence) if kept.any() else float("nan"),
        float(hits[held].mean()) if held.any() else float("nan"),
        float(held.mean()),
        plain_accuracy=float(hits.mean()),
    )


def calibrate(
    calls: Iterable[ModelCall],
    truth: Iterable[Label],
    target: float = 0.9,
    confidence: float = 0.8,
    least: int = 15,
    facts: Mapping[str, Any] | None = None,
) -> Calibration:
    """Fits the limit of every character.

    A call is right when the label of its picture, specimen and character names its state. A part is there when a label names it, and not
    there when a label says so (``not PART``), or when somebody went through the parts of its picture and no label is of this one: all of
    them count (see below), none speaks alone (``Label.alone``), and in an export the part was called. Characters with fewer than
    ``least`` labelled calls take the limit of all characters together (parts and states apart), listed under ``*``. What was not called
    for lack of a host or of the part is left out (see :func:`undecided`): no limit would have called it.

    States and characters are compared without regard to case, white space and underscores; ``not STATE`` says that a state is wrong without
    saying which is right. Where any label is marked as reviewed, only those that are count.

    Args:
        calls: What the model said.
        truth: What people said; the state ``absent`` is a state like others.
        target: Share of calls that are to be right.
        confidence: Of the bound.
        least: Fewest labelled calls for a limit of their own.
        facts: Recorded.

    Raises:
        DataError: No call has a label (the message compares names), a label names a state that its character does not have (with the
            nearest one) or no pack where several packs have calls that it could judge, or no label is marked as reviewed and all of them
            equal the calls.
    """
    said, given = list(calls), list(truth)
    labels = _counting(given)
    _check_packs(said, labels)
    _check_states(said, labels)
    known = _known(given)
    groups: dict[tuple[str, str, bool], list[_Judged]] = {}
    for call in said:
        right = _right(known, call)
        if right is None or call.before_limits:
            continue
        value = call.score if call.part else call.probability
        if np.isnan(value):  # Nothing was measured that a limit could be set on.
            continue
        groups.setdefault((call.pack, f"{call.character}={call.state}" if call.part else call.character, call.part), []).append(
            (value, right)
        )
    if not groups and (held := undecided(said, labels)):
        raise DataError(
            f"no limit decides about any labelled call ({held} in all): their pictures show no host, or their parts are absent."
        )
    if not groups:
        raise DataError(_no_match(said, labels))
    if all(label.reviewed is False for label in labels) and all(right for group in groups.values() for _, right in group):
        raise DataError(
            f"all {sum(map(len, groups.values()))} labels equal the model's calls, and none is marked as reviewed: this looks "
            "like an export "
            f"that nobody has gone through, which would make every call right. Mark what a person looked at: 'yes' in the column "
            f"'{REVIEWED}' of a table, a tick at '{REVIEWED}' in CVAT."
        )

    def fit(judged: Sequence[_Judged], part: bool) -> Limit:
        values, right = [value for value, _ in judged], [hit for _, hit in judged]
        return fit_limit(values, right, target, confidence, "score" if part else "probability")

    pooled = {
        part: fit(judged, part)
        for part in (False, True)
        if (judged := [pair for (_, _, own), group in groups.items() if own == part for pair in group])
    }
    several = len({pack for pack, _, _ in groups}) > 1
    limits = {f"{POOLED_LIMIT} parts" if part else POOLED_LIMIT: limit for part, limit in pooled.items()}
    for (pack, character, part), judged in groups.items():
        name = f"{pack}/{character}" if several else character
        limits[name] = fit(judged, part) if len(judged) >= least else _borrowed(pooled[part], judged, confidence)
    return Calibration(target, confidence, limits, dict(facts or {}))


def _counting(labels: list[Label]) -> list[Label]:
    """The labels that count: those that are marked as reviewed, where any is."""
    return [label for label in labels if label.reviewed is not False] if any(label.reviewed for label in labels) else labels


@dataclass
class _Said:
    """What people said of one picture, character and specimen.

    Attributes:
        states: What the labels that count say.
        whole: Whether every label counts and none speaks alone.
        exported: Whether they came back from an export.
    """

    states: set[str] = field(default_factory=set)
    whole: bool = True
    exported: bool = False


def _known(labels: list[Label]) -> dict[Key, _Said]:
    """What is said of each picture, character and specimen, where anything is."""
    counting = set(map(id, _counting(labels)))
    known: dict[Key, _Said] = {}
    for label in labels:
        said = known.setdefault((label.pack, label.file_name, compared(label.character), label.specimen), _Said())
        said.whole &= id(label) in counting and not label.alone
        said.exported |= label.reviewed is not None
        if id(label) in counting and label.state:
            said.states.add(compared(label.state))
    return {key: said for key, said in known.items() if said.states}


def _borrowed(pooled: Limit, judged: Sequence[_Judged], confidence: float) -> Limit:
    """The limit of all characters together, with what it does to these few calls."""
    right = [hit for value, hit in judged if pooled.value is not None and value >= pooled.value]
    nan = float("nan")
    accuracy = float(np.mean(right)) if right else nan
    low = _lower_bound(sum(right), len(right), confidence) if right else nan
    plain_accuracy = float(np.mean([hit for _, hit in judged]))
    return Limit(pooled.measure, pooled.value, len(judged), len(right), accuracy, low, nan, nan, True, plain_accuracy)


def compared(name: str) -> str:
    """Returns the form in which states and characters are compared: no case, single spaces in place of underscores."""
    return normalise_text(name.replace("_", " "))


_REASONS = {compared(reason): reason for reason in ABSTENTION_REASONS}
"""Why nothing is called, by the form in which names are compared."""


def _check_packs(calls: Sequence[ModelCall], labels: Sequence[Label]) -> None:
    """Refuses labels without a pack that could judge calls of several: a head would be that of a fish and of a bird."""
    packs: dict[tuple[str, str, int], dict[str, None]] = {}
    for call in calls:
        if not call.before_limits:
            packs.setdefault((call.file_name, compared(call.character), call.specimen), {})[call.pack] = None
    for label in labels:
        found = packs.get((label.file_name, compared(label.character), label.specimen), {})
        if not label.pack and len(found) > 1:
            full = f"{next(iter(found))}{PACK_SEPARATOR}{label.character}"
            raise DataError(
                f"the label of {label.file_name!r} for {label.character!r} names no pack, and {some_of(list(found))} have calls of it: "
                f"say which pack is meant, in the column 'pack' of a table, or as in {full!r} in CVAT and Label Studio."
            )


def _check_states(calls: Sequence[ModelCall], labels: Sequence[Label]) -> None:
    """Refuses labels whose state no call of their character can have: they would count as wrong calls without a word.

    Where the calls do not say which states there are, as in a table of calls, only what looks like a misspelt one is refused.
    """
    listed: dict[str, dict[str, None]] = {}
    complete: dict[str, bool] = {}
    for call in calls:
        states = listed.setdefault(compared(call.character), {})
        states.update(dict.fromkeys(filter(None, (*call.states, call.state))))
        complete[compared(call.character)] = complete.get(compared(call.character), False) or bool(call.states)
    for label in labels:
        character = compared(label.character)
        known = {compared(state): state for state in listed.get(character, ())}
        state = compared(label.state).removeprefix("not ")
        if not state or not known or state in known or compared(label.state) in known or state == ABSENT:
            continue
        near = [known[name] for name in known if difflib.SequenceMatcher(None, state, name).ratio() >= MISSPELT]
        near = near or (nearest_names(state, known.values(), 1) if complete[character] else [])
        if near or complete[character]:
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(
                f"the label of {label.file_name!r} says {label.state!r} for {label.character!r}, which is no state of it.{hint} "
                f"Known: {', '.join(known.values())}; also '{ABSENT}', and 'not STATE'."
            )


MISSPELT = 0.85
"""How alike (difflib) two states are when one is taken for the other misspelt."""


def _right(known: Mapping[Key, _Said], call: ModelCall) -> bool | None:
    """Whether a call is right, or ``None`` when nobody said so. Exports of one pack do not name it."""
    keys = ((pack, call.file_name, compared(call.character), call.specimen) for pack in (call.pack, ""))
    said = next((known[key] for key in keys if key in known), None)
    if said is None:
        return None
    state = compared(call.state)
    if state in said.states:
        return True
    if f"not {state}" in said.states:
        return False
    if call.part:
        return False if said.whole and (call.called or not said.exported) else None
    # That another state is wrong says nothing of this one.
    return None if all(other.startswith("not ") for other in said.states) else False


def undecided(calls: Iterable[ModelCall], labels: Iterable[Label]) -> int:
    """Returns how many calls have a label and are left out all the same: no limit decides about them (``ModelCall.before_limits``)."""
    known = _known(list(labels))
    return sum(call.before_limits and _right(known, call) is not None for call in calls)


def strangers(calls: Iterable[ModelCall], labels: Iterable[Label]) -> list[str]:
    """Returns the labelled pictures of which there is no call: their labels say nothing, and a misspelt name should be noticed."""
    pictures = {call.file_name for call in calls}
    return [name for name in dict.fromkeys(label.file_name for label in labels) if name not in pictures]


def _no_match(calls: Sequence[ModelCall], labels: Sequence[Label]) -> str:
    if not calls or not labels:
        return f"nothing to fit: {len(calls)} calls and {len(labels)} labels."
    pictures, labelled = {call.file_name for call in calls}, labels[0].file_name
    if labelled not in pictures:
        hint = did_you_mean(labelled, pictures)
        return f"no call has a label: {labelled!r} of the labels is no picture of the run.{hint}"
    names = sorted({call.character for call in calls})
    specimens = [sorted({item.specimen for item in items}) for items in (labels, calls)]
    of_labels, of_calls = (some_of(list(map(str, numbers))) for numbers in specimens)
    apart = "" if set(specimens[0]) & set(specimens[1]) else f" Specimens: {of_labels} in the labels, {of_calls} in the calls."
    if not apart and any(label.file_name in pictures and compared(label.character) in map(compared, names) for label in labels):
        return (
            "no label says whether a call is right: those that count name no state, say only that another one is wrong, or are of other "
            "parts. Set a state, or write 'not STATE', where you looked."
        )
    asked = some_of(sorted({label.character for label in labels}))
    return f"no call has a label: the labels are of {asked}, the calls of {some_of(names)}.{apart}"


# ------------------------------------------------------------------------------------------------------------- reading


def read_calls(path: str | os.PathLike[str]) -> tuple[list[ModelCall], dict[str, Any]]:
    """Reads what a model said: the folder of an annotation run, or a CSV table of calls.

    The table needs ``file_name`` (or ``source``), ``character``, ``state`` (or ``best_state``) and ``probability``; ``score``, ``pack``,
    ``specimen``, ``kind`` and ``abstained_because`` are read where they are there.

    Returns:
        The calls and the facts of the run (model, weights, the settings that decide probabilities).

    Raises:
        DataError: Neither of the two.
    """
    source = Path(path)
    if source.suffix.lower() in TABLES:
        return [_call(_renamed(row), source, line) for line, row in _csv_rows(source, {"character", "probability"})], {}
    from concept_cam.collection.runs import read_run

    run = read_run(source)
    columns = [
        "source",
        "specimen",
        "pack",
        "character",
        "kind",
        "best_state",
        "probability",
        "score",
        "probabilities",
        "abstained_because",
    ]
    columns = [name for name in columns if name in run.schema.names]
    calls: list[ModelCall] = []
    states: dict[tuple[str, str], dict[str, None]] = {}
    for number, record in enumerate(run.records(columns)):
        if record["best_state"] is not None:
            call = _call(_renamed(record), source, number)
            # Parts are listed by their records; their probabilities are against the host as well.
            listed = (call.state,) if call.part else record.get("probabilities") or ()
            states.setdefault((call.pack, call.character), {}).update(dict.fromkeys(listed))
            calls.append(call)
    known = {key: tuple(names) for key, names in states.items()}
    calls = [replace(call, states=known[call.pack, call.character]) for call in calls]
    facts: dict[str, Any] = {name: run.info[name] for name in ("model", "weights_hash") if name in run.info}
    used = run.info.get("configuration", {})
    return calls, {**facts, "settings": {name: used[name] for name in PROBABILITY_SETTINGS if name in used}}


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in row.items() if value not in (None, "")}
    if name := _picture(found):
        found["file_name"] = name
    if "best_state" in found:
        found["state"] = found["best_state"]
    return found


def _picture(row: Mapping[str, Any]) -> str | None:
    """The picture of a row, as `source` names it: exports have a `file_name` too, its last part alone, which several pictures may share."""
    name, source = row.get("file_name"), row.get("source")
    if name and source and str(source).rstrip("/").endswith(f"/{name}"):
        return str(source)
    return str(name or source) if name or source else None


def _call(row: Mapping[str, Any], source: Path, line: int) -> ModelCall:
    reason = str(row.get("abstained_because", ""))
    if reason and compared(reason) not in _REASONS:
        raise DataError(
            f"{source}, row {line}: abstained_because is {reason!r}; expected nothing or one of {', '.join(ABSTENTION_REASONS)}."
        )
    before_limits = _REASONS.get(compared(reason)) in BEFORE_LIMITS
    # A row that no limit decides about needs no state: tables leave it empty where nothing is called.
    missing = [name for name in ("file_name", "character", "state") if name not in row and not (name == "state" and before_limits)]
    if missing:
        raise DataError(f"{source}, row {line}: {', '.join(missing)} is missing.")
    try:
        return ModelCall(
            str(row["file_name"]),
            str(row["character"]),
            str(row.get("state", "")),
            float(_point(row.get("probability", "nan"))),
            float(_point(row.get("score", "nan"))),
            str(row.get("pack", "")),
            _number(str(row.get("specimen", 0)), source, line),
            row.get("kind") == "part",
            before_limits=before_limits,
            called=not reason,
        )
    except ValueError as error:
        raise DataError(f"{source}, row {line}: {error}.") from error


def _csv_rows(path: Path, needed: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    header, _ = read_header(str(path))
    if missing := needed - set(header):
        raise DataError(f"{path} has no column {sorted(missing)[0]!r}; it has {', '.join(header)}.")
    for line, row in rows_of(str(path)):
        yield line, {name: unescaped(value) for name, value in row.items()}


def _truth_table(path: Path) -> list[Label]:
    found = []
    for line, row in _csv_rows(path, {"character"}):
        name = _picture(row)
        state = row["true_state"] if "true_state" in row else row.get("state")
        if not name:
            raise DataError(f"{path}, line {line}: file_name is missing.")
        # No export has the column `true_state`: somebody wrote it. A column for marks says of each row whether it was looked at.
        mark = None if "true_state" in row and REVIEWED not in row else is_reviewed(row.get(REVIEWED))
        said = (state or "").strip()
        if said or mark:  # A row that nobody filled in or marked says nothing.
            specimen = _number(row.get("specimen"), path, line)
            if row.get("kind") == "part" and compared(said) == ABSENT:
                # The name of the part stands beside it: in the column of calls, or in that of the states that were called.
                part = row.get("best_state") or (row.get("state") if "true_state" in row else "")
                said = f"not {part}" if part else said
            # Beside calls, or with marks, every row speaks of its own part; a list of labels names all that is there.
            alone = mark is not None or not CALLED.isdisjoint(row)
            found.append(Label(name, row["character"], said, row.get("pack") or "", specimen, mark, alone))
    return found


CALLED = frozenset({"best_state", "probability", "score"})
"""Columns of a table of calls: in it, labels stand beside what they judge."""


def _point(number: Any) -> Any:
    """Turns the decimal comma, which spreadsheets write in half of Europe, into a point."""
    return number.replace(",", ".") if isinstance(number, str) and number.count(",") == 1 and "." not in number else number


def _number(text: str | None, path: Path, line: int) -> int:
    """Reads the number of a specimen; spreadsheets and pandas write whole numbers as ``0.0`` or ``0,0`` too."""
    if not text or not text.strip():
        return 0
    try:
        value = float(_point(text))
        if value.is_integer() and 0 <= value < 2**31:
            return int(value)
    except ValueError:
        pass
    raise DataError(f"{path}, line {line}: the specimen {text[:80]!r} is no whole number.")


def _truth_cvat(path: Path) -> list[Label]:
    from concept_cam.exports.cvat import read_labels

    return read_labels(path)


def _truth_labelstudio(path: Path) -> list[Label]:
    from concept_cam.exports.labelstudio import read_labels

    return read_labels(path)


def _truth_corrections(path: Path) -> list[Label]:
    from concept_cam.collection.corrections import Corrections

    found = []
    for item in Corrections(path).standing():
        state = item.part if item.kind == "part" else item.called
        truth = item.true_state or (f"not {state}" if item.verdict == "reject" and state else "")
        if item.verdict:  # A region that was only drawn says nothing about the call; what cannot be told was looked at.
            found.append(Label(item.source, item.character, truth, item.pack, item.specimen, True, alone=True))
    return found


TABLES = (".csv", ".tsv", ".tab")
"""Endings of tables, of calls and of labels."""

TRUTH_READERS = {
    **dict.fromkeys(TABLES, _truth_table),
    ".xml": _truth_cvat,
    ".json": _truth_labelstudio,
    ".sqlite": _truth_corrections,
}
"""Ending -> reader of labels: a table, CVAT for images 1.1, a JSON export of Label Studio, the corrections of ``concept-cam serve``."""


def read_truth(path: str | os.PathLike[str]) -> list[Label]:
    """Reads what people said; the file's ending says how.

    ``.csv``, ``.tsv``: a table with ``file_name`` (or ``source``), ``character`` and ``true_state`` (or ``state``; empty: nobody looked),
    optionally ``pack``, ``specimen`` and ``reviewed`` (``yes``: a person looked at the row). ``.xml``: an export of CVAT in the format
    "CVAT for images 1.1". ``.json``: an export of Label Studio. ``.sqlite``: the corrections of ``concept-cam serve``, every one of which a
    person made.

    Raises:
        DataError: Another ending, or a file that cannot be used.
    """
    source = Path(path)
    with understood(source):
        return choose(source.suffix.lower(), TRUTH_READERS, "kind of label file", DataError)(source)
