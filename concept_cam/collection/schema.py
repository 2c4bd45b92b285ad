"""The table of an annotation run: its columns, their types, units and frames, in one place.

``RUN_COLUMNS`` is the source: the Arrow schema, the check of a table that is read back and the table in the documentation are made from it.

One row is one *record*: one picture (or one specimen of it) and one character. A character of kind ``part`` gives one row per state,
because all parts are present at once. A distance between named parts is a row of kind ``distance`` whose character is the distance's
name (``standard_length``); its value is in the ``length`` columns and its line in ``contour``. All records of a picture stand together, in
one part of the data set, so that a reader can stream picture by picture.

Every coordinate is in the *original* frame: pixels of the file after its EXIF orientation is applied, x to the right, y down, origin in
the upper left corner, pixel i covers [i, i+1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from concept_cam.collection.calls import ABSTENTION_REASONS
from concept_cam.core.errors import DataError, MissingExtraError
from concept_cam.core.names import picture_key as image_key
from concept_cam.core.names import stable_key

try:
    import pyarrow as pa
except ImportError as error:
    raise MissingExtraError("pyarrow", "annotate", "the table of an annotation run") from error

__all__ = [
    "RUN_COLUMNS",
    "DISTANCE_MEANINGS",
    "FRAME",
    "ROW_KINDS",
    "MEASURES",
    "PASSTHROUGH_PREFIX",
    "RUN_SCHEMA_VERSION",
    "Column",
    "Measure",
    "arrow_schema",
    "check_schema",
    "image_key",
    "markdown_table",
    "passthrough_columns",
    "record_key",
    "table_from_records",
]

RUN_SCHEMA_VERSION = "1"
"""Raised when a column is renamed, removed or changes its meaning; a new nullable column does not raise it."""

PASSTHROUGH_PREFIX = "input_"
"""Every other column of the input is carried through as text under this prefix, so that it can never clash with a column below."""

FRAME = "upright picture after EXIF orientation; pixels; origin upper left; x right, y down"
"""The frame of every coordinate, as the exports state it."""

ROW_KINDS: dict[str, str] = {
    "shape": "one state is called among siblings",
    "pattern": "one state is called among siblings",
    "colour": "one state is called among siblings",
    "count": "one state is called among siblings",
    "presence": "present or absent",
    "part": "one row per part; each part is found on its own",
    "distance": "a length between named parts; one row per distance",
}
"""Known values of ``kind``; a trait pack may use others, which are read like ``shape``."""

DISTANCE_MEANINGS: dict[str, str] = {
    "standard_length": "standard length: from the front end of the head to the base of the tail fin, along the midline of the body",
    "head_length": "head length: from the front end of the head to where it ends, along the midline of the body",
    "head_depth": "head depth: greatest depth of the head across the midline of the body",
    "body_depth": "body depth: greatest depth of the body without fins, across its midline",
    "eye_diameter": "eye diameter: of a disc as large as the eye on its map; eyes of under one and a half patches come out too large",
    "caudal_fin_length": "tail fin length: from the base of the tail fin to its rear end, along the midline of the body",
    "dorsal_fin_height": "dorsal fin height: how far the dorsal fin stands out of the body, across the midline",
    "anal_fin_height": "anal fin height: how far the anal fin stands out of the body, across the midline",
    "fore_wing_length": "fore wing length: from where the longer fore wing leaves the body to its tip",
    "elytral_length": "elytral length: length of the elytra along the line from the pronotum through their middle",
    "elytral_width": "elytral width: greatest width of the elytra across that line, as seen",
    "leaf_length": "leaf length: from the base of the blade to its tip, without the stalk",
    "leaf_width": "leaf width: greatest width of the blade across its length",
}
"""Characters of kind ``distance`` that the packs measure. Ends and borders are those of the parts' regions, not landmarks set by
hand."""


@dataclass(frozen=True)
class Measure:
    """A shape measure of a record's region, which stands in one to four columns.

    Attributes:
        name: Stem of the columns' names.
        unit: ``px``, ``px2``, ``deg`` or ``1`` (a ratio).
        meaning: What is measured.
    """

    name: str
    unit: str
    meaning: str

    @property
    def value(self) -> str:
        """Column of the value (``length_px``, ``solidity``)."""
        return self.name if self.unit == "1" else f"{self.name}_{self.unit}"

    @property
    def uncertainty(self) -> str:
        """Column of the uncertainty (``length_uncertainty_px``)."""
        return f"{self.name}_uncertainty" + ("" if self.unit == "1" else f"_{self.unit}")

    @property
    def metric(self) -> tuple[str, str] | None:
        """Columns of the value and its uncertainty in millimetres (or their square); none for angles and ratios."""
        if self.unit not in _METRIC:
            return None
        return f"{self.name}_{_METRIC[self.unit]}", f"{self.name}_uncertainty_{_METRIC[self.unit]}"


_METRIC = {"px": "mm", "px2": "mm2"}

MEASURES: tuple[Measure, ...] = (
    Measure("area", "px2", "Pixels of the region."),
    Measure("length", "px", "Length of the region along its major axis; the value of a `distance`."),
    Measure("width", "px", "Width of the region across its major axis."),
    Measure(
        "orientation",
        "deg",
        "Angle of the major axis against the x axis, counter-clockwise as seen, over -90 to 90.",
    ),
    Measure("extent", "1", "Area of the region over the area of its box."),
    Measure("eccentricity", "1", "Eccentricity of the ellipse with the region's second moments, 0 (circle) to 1."),
    Measure("solidity", "1", "Area of the region over the area of its convex hull."),
)
"""Shape measures, named as :func:`concept_cam.core.regions.measure` names them. An uncertainty is what one patch of the model's grid is in
original pixels; null below two patches."""


@dataclass(frozen=True)
class Column:
    """One documented column.

    Attributes:
        name: Name in the table.
        type: Arrow type.
        unit: ``px``, ``mm``, ``deg``, ``1`` for a ratio or empty.
        frame: ``original``, ``grid`` or empty.
        meaning: What the value says; one sentence.
        nullable: Whether the value may be missing.
    """

    name: str
    type: pa.DataType
    unit: str
    frame: str
    meaning: str
    nullable: bool = True

    @property
    def field(self) -> pa.Field:
        """The Arrow field with its documentation as metadata."""
        notes = {"meaning": self.meaning, "unit": self.unit, "frame": self.frame}
        return pa.field(self.name, self.type, self.nullable, {key: text for key, text in notes.items() if text})


_TEXT, _BOOL, _INT = pa.string(), pa.bool_(), pa.int32()
_FLOAT, _DOUBLE = pa.float32(), pa.float64()
_STATES = pa.map_(pa.string(), pa.float32())
_POLYGONS = pa.list_(pa.list_(pa.float32()))
_INTS = pa.list_(pa.int32())
_TEXTS = pa.list_(pa.string())


def _measure_columns() -> tuple[Column, ...]:
    columns: list[Column] = []
    for measure in MEASURES:
        frame = "original" if measure.unit != "1" else ""
        columns.append(Column(measure.value, _DOUBLE, measure.unit, frame, measure.meaning))
        about = f"Uncertainty of `{measure.value}` from the grid's resolution; null where it cannot be stated."
        columns.append(Column(measure.uncertainty, _DOUBLE, measure.unit, frame, about))
        if measure.metric:
            value, uncertainty = measure.metric
            unit = _METRIC[measure.unit]
            columns.append(Column(value, _DOUBLE, unit, "", f"`{measure.value}` by `px_per_mm`; null without a scale."))
            columns.append(Column(uncertainty, _DOUBLE, unit, "", f"`{measure.uncertainty}` by `px_per_mm`."))
    return tuple(columns)


RUN_COLUMNS: tuple[Column, ...] = (
    # which picture
    Column(
        "record_key",
        _TEXT,
        "",
        "",
        "Stable id of picture + specimen + pack + character (+ part); see `record_key`.",
        False,
    ),
    Column("image_key", _TEXT, "", "", "Stable id of the picture; see `image_key`.", False),
    Column("file_name", _TEXT, "", "", "Last part of `source`; not unique.", False),
    Column(
        "source",
        _TEXT,
        "",
        "",
        "Where the picture came from: path relative to the input folder, URI or table row; unique.",
        False,
    ),
    Column("path", _TEXT, "", "", "Absolute path or URL at which the picture was read, where it has one."),
    Column("media_uri", _TEXT, "", "", "Public URI of the picture, where the input names one."),
    Column("sha256", _TEXT, "", "", "SHA-256 of the picture's encoded bytes, hexadecimal.", False),
    Column("image_width", _INT, "px", "original", "Columns of the upright picture.", False),
    Column("image_height", _INT, "px", "original", "Rows of the upright picture.", False),
    Column(
        "specimen",
        _INT,
        "",
        "",
        "Number of the specimen in the picture, from 0; 0 where no boxes were given.",
        False,
    ),
    Column(
        "specimen_x",
        _INT,
        "px",
        "original",
        "Left edge of the specimen's box; null where no boxes were given.",
    ),
    Column("specimen_y", _INT, "px", "original", "Upper edge of the specimen's box."),
    Column("specimen_width", _INT, "px", "original", "Width of the specimen's box."),
    Column("specimen_height", _INT, "px", "original", "Height of the specimen's box."),
    # which question
    Column("pack", _TEXT, "", "", "Name of the trait pack.", False),
    Column("character", _TEXT, "", "", "Name of the character in its pack.", False),
    Column(
        "kind",
        _TEXT,
        "",
        "",
        "Kind of the character: " + ", ".join(f"`{kind}`" for kind in ROW_KINDS) + ".",
        False,
    ),
    Column("entity", _TEXT, "", "", "Label of the anatomical entity."),
    Column("entity_id", _TEXT, "", "", "Ontology id of the entity (`UBERON:4000164`)."),
    # what was called
    Column(
        "state",
        _TEXT,
        "",
        "",
        "The state that is called (for a part: the part that is found); null when `abstained`.",
    ),
    Column(
        "best_state",
        _TEXT,
        "",
        "",
        "The state with the most evidence, also when `abstained`; for a part row always the part.",
    ),
    Column("quality", _TEXT, "", "", "Label of the called state's quality (PATO)."),
    Column("quality_id", _TEXT, "", "", "Ontology id of the called state's quality."),
    Column("quality_match", _TEXT, "", "", "How well the quality fits the state: `exact`, `synonym` or `close`."),
    Column(
        "probability",
        _FLOAT,
        "1",
        "",
        "Probability of `best_state` over its sibling states (for a part: over its contrasts, at its best patch).",
    ),
    Column("probabilities", _STATES, "1", "", "Probability of every sibling state."),
    Column(
        "likely_states",
        _TEXTS,
        "",
        "",
        "The fewest sibling states that together have a probability of 0.9, the most probable first: one where the model is sure, several "
        "where it can only narrow the character down. Null of parts, where nothing is ruled out, and where the host or part is not there.",
    ),
    Column("likely_probability", _FLOAT, "1", "", "Probability that one of `likely_states` is right."),
    Column(
        "state_set",
        _TEXTS,
        "",
        "",
        "States among which the right one is with the probability that was asked for, the most probable first; null without a guarantee, "
        "and without any state where none is as probable as right ones are.",
    ),
    Column("score", _FLOAT, "", "", "Signed, raw evidence for `best_state` that the call rests on."),
    Column("margin", _FLOAT, "1", "", "`probability` minus that of the runner-up."),
    Column("abstained", _BOOL, "", "", "Whether no call is made; `abstained_because` says why.", False),
    Column(
        "abstained_because",
        _TEXT,
        "",
        "",
        "Why: " + ", ".join(f"`{reason}`" for reason in ABSTENTION_REASONS) + ".",
    ),
    Column("limit", _FLOAT, "1", "", "The limit under which a call is not made; null where none decides, as for what is `absent`."),
    # whether to trust it
    Column(
        "verdict",
        _TEXT,
        "",
        "",
        "Whether the map of the part or best state can be trusted: `clear`, `doubtful`, `not about the prompt` or `absent`; null where no "
        "map was read.",
    ),
    Column("verdict_because", _TEXT, "", "", "Why, in one sentence."),
    Column(
        "confidence", _FLOAT, "1", "", "Probability that the map's peak lies on the target; null where no limits were fitted for the model."
    ),
    Column(
        "presence",
        _FLOAT,
        "1",
        "",
        "Probability that what the map is of, the part or `best_state`, is in the picture at all; for the state `absent` that is the host "
        "without the part. Null where no limits were fitted for the model.",
    ),
    Column("p_value", _FLOAT, "1", "", "How often an unrelated word in the target's place rises as high at the map's peak."),
    Column(
        "dependence",
        _FLOAT,
        "1",
        "",
        "Rank correlation of the target's map with that of the whole subject: 1 where the subject is found, whatever is asked.",
    ),
    Column("agreement", _FLOAT, "1", "", "How far mirrored and shifted readings put the peak at the same place; null where not asked for."),
    Column("text_share", _FLOAT, "1", "", "Share of the peak's surroundings that lies on written words, rulers or colour cards."),
    Column("domain", _FLOAT, "1", "", "How far the picture is from what the model knows; null where unknown."),
    Column(
        "ledger",
        _STATES,
        "",
        "",
        "What the target and each contrast contribute to the score at the map's peak; their sum is that score.",
    ),
    # which of several is meant
    Column(
        "place",
        _TEXT,
        "",
        "",
        "Which of several the part is, where the pack names a place: `left`, `right`, `front`, `rear`, `first`, `second` or `last`.",
    ),
    Column(
        "place_of",
        _TEXT,
        "",
        "",
        "Whose left and right that is: `animal`, `viewer, head up` or `viewer`; null for places along the body and those that could not be "
        "told.",
    ),
    Column("place_because", _TEXT, "", "", "How the place was told, or why it could not be, in one sentence."),
    # where it is
    Column("threshold", _FLOAT, "", "", "Score above which a pixel belongs to the region."),
    Column("peak_x", _FLOAT, "px", "original", "x of the highest point of the entity's map, between cells (cubic, or refined)."),
    Column("peak_y", _FLOAT, "px", "original", "y of the highest point of the entity's map."),
    Column("peak_score", _FLOAT, "", "", "The highest score of a cell of that map."),
    Column(
        "evidence_x",
        _FLOAT,
        "px",
        "original",
        "x of the highest point of the map of `best_state` against its contrasts.",
    ),
    Column(
        "evidence_y",
        _FLOAT,
        "px",
        "original",
        "y of the highest point of the map of `best_state` against its contrasts.",
    ),
    Column(
        "box_x",
        _INT,
        "px",
        "original",
        "Left edge of the region's box; null without a region, like all that follows of the region.",
    ),
    Column("box_y", _INT, "px", "original", "Upper edge of the region's box."),
    Column(
        "box_width",
        _INT,
        "px",
        "original",
        "Width of the region's box (its right edge is `box_x + box_width`, half-open).",
    ),
    Column("box_height", _INT, "px", "original", "Height of the region's box."),
    Column("region_count", _INT, "", "", "Number of connected areas that make up the region; 0 without one."),
    Column(
        "rle_counts",
        _TEXT,
        "",
        "original",
        "Mask of the region: `counts` of COCO's compressed run-length encoding.",
    ),
    Column("rle_size", _INTS, "px", "original", "`[rows, columns]` of that mask: the upright picture's."),
    Column(
        "contour",
        _POLYGONS,
        "px",
        "original",
        "Outlines, each flat `x0, y0, x1, y1 ...`; of a `distance`: its one line of two points.",
    ),
    Column("centroid_x", _DOUBLE, "px", "original", "x of the region's centroid."),
    Column("centroid_y", _DOUBLE, "px", "original", "y of the region's centroid."),
    Column("centroid_uncertainty_px", _DOUBLE, "px", "original", "Uncertainty of the centroid along either axis."),
    Column(
        "area_frac",
        _DOUBLE,
        "1",
        "",
        "`area_px2` over the area of the picture (of the specimen's box, where there is one).",
    ),
    *_measure_columns(),
    Column("px_per_mm", _DOUBLE, "px/mm", "original", "Scale of the picture, where it is known."),
    # evidence kept on request
    Column(
        "scores",
        pa.large_binary(),
        "",
        "grid",
        "Grid scores, float16 little-endian in C order; with `--keep-scores`.",
    ),
    Column("scores_shape", _INTS, "", "grid", "`[maps, rows, columns]` of `scores`."),
    Column(
        "scores_names",
        pa.list_(pa.string()),
        "",
        "",
        "Name of each map of `scores`: the entity first, then the states.",
    ),
    Column(
        "geometry",
        _TEXT,
        "",
        "",
        "JSON of the mapping from grid to original pixels (`Geometry.to_dict()`); with `scores`.",
    ),
    # who said so
    Column("model", _TEXT, "", "", "Name of the model.", False),
    Column("weights_hash", _TEXT, "", "", "Hash of the model's weights.", False),
    Column("package_version", _TEXT, "", "", "Version of concept-cam.", False),
    Column(
        "reviewed",
        _TEXT,
        "",
        "",
        "What a person said of the call: `accept`, `state` (another is right), `reject`, `cannot_tell`, `region` (drawn anew); null: "
        "nobody looked.",
    ),
    Column("reviewed_by", _TEXT, "", "", "Who said so."),
    Column("reviewed_at", _TEXT, "", "", "When, ISO 8601."),
)
"""Every column in order. Columns of the input follow, as text, under ``PASSTHROUGH_PREFIX``."""


def arrow_schema(passthrough: Iterable[str] = ()) -> pa.Schema:
    """Returns the Arrow schema of a run.

    Args:
        passthrough: Names of the input's further columns, without prefix, in order.
    """
    fields = [column.field for column in RUN_COLUMNS]
    fields += [pa.field(PASSTHROUGH_PREFIX + name, pa.string(), True, {"meaning": f"Input column {name!r}."}) for name in passthrough]
    return pa.schema(fields, {"concept_cam_schema": RUN_SCHEMA_VERSION, "frame": FRAME})


def passthrough_columns(schema: pa.Schema) -> tuple[str, ...]:
    """Returns the names of the input's further columns in a run's schema, without prefix."""
    return tuple(name.removeprefix(PASSTHROUGH_PREFIX) for name in schema.names if name.startswith(PASSTHROUGH_PREFIX))


def record_key(source: str, specimen: int, pack: str, character: str, part: str = "") -> str:
    """Returns the stable id of a record: 24 hexadecimal digits, the same in every run over the same input.

    Args:
        source: The picture's ``source``.
        specimen: Number of the specimen.
        pack: Name of the trait pack.
        character: Name of the character.
        part: For a character of kind ``part`` the state's name, else empty.
    """
    return stable_key("record", source, str(specimen), pack, character, part)


def table_from_records(records: Sequence[Mapping[str, Any]], passthrough: Sequence[str] = ()) -> pa.Table:
    """Builds a run's table from plain records.

    Args:
        records: One mapping per row, column name -> value; a nullable column may be left out. ``probabilities`` may be a mapping;
            passthrough columns stand under their prefixed names.
        passthrough: Names of the input's further columns, without prefix.

    Raises:
        DataError: On an unknown column, a missing required value or a value of the wrong type.
    """
    schema = arrow_schema(passthrough)
    if unknown := sorted(set().union(*records) - set(schema.names)):
        raise DataError(f"a record has unknown columns {unknown}; concept_cam.collection.schema.RUN_COLUMNS lists the known ones.")
    present: dict[str, list[Any]] = {}
    nothing: list[Any] = [None] * len(records)
    for row, record in enumerate(records):
        for name, value in record.items():
            if value is not None:
                if name not in present:
                    present[name] = nothing.copy()
                present[name][row] = value
    required = [column.name for column in RUN_COLUMNS if not column.nullable]
    for row in sorted({row for name in required for row in _gaps(present.get(name, nothing))})[:1]:
        missing = [name for name in required if records[row].get(name) is None]
        raise DataError(f"the record of {records[row].get('source')!r} lacks a value for {missing}.")
    columns = []
    for field in schema:
        if field.name not in present:
            columns.append(pa.nulls(len(records), field.type))
            continue
        values = present[field.name]
        if pa.types.is_map(field.type):
            values = [list(value.items()) if isinstance(value, Mapping) else value for value in values]
        try:
            columns.append(pa.array(values, field.type))
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            pa.ArrowNotImplementedError,
            OverflowError,
            UnicodeEncodeError,
        ) as error:
            raise DataError(f"column {field.name!r} expects {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _gaps(values: Sequence[Any]) -> list[int]:
    """The rows in which a column has no value."""
    return [row for row, value in enumerate(values) if value is None] if None in values else []


def check_schema(schema: pa.Schema, where: str) -> None:
    """Checks that a table that was read is one of a run.

    Raises:
        DataError: When columns are missing, unknown or of another type, or the schema's version is another one.
    """
    version = (schema.metadata or {}).get(b"concept_cam_schema", RUN_SCHEMA_VERSION.encode()).decode()
    if version != RUN_SCHEMA_VERSION:
        raise DataError(
            f"{where} has schema version {version}; this release of concept-cam reads version {RUN_SCHEMA_VERSION}. "
            "Read it with the release named in its run.json."
        )
    present = dict(zip(schema.names, schema.types, strict=True))
    if missing := [column.name for column in RUN_COLUMNS if column.name not in present and not column.nullable]:
        raise DataError(f"{where} is not part of an annotation run: columns {missing} are missing; it has {schema.names}.")
    for column in RUN_COLUMNS:
        if column.name in present and present[column.name] != column.type:
            raise DataError(f"{where}: column {column.name!r} is {present[column.name]}, expected {column.type}.")
    names = {column.name for column in RUN_COLUMNS}
    if unknown := [name for name in present if name not in names and not name.startswith(PASSTHROUGH_PREFIX)]:
        raise DataError(f"{where}: unknown columns {unknown}; columns of the input carry the prefix {PASSTHROUGH_PREFIX!r}.")


def markdown_table() -> str:
    """Returns the documentation's table of columns in Markdown, made from :data:`RUN_COLUMNS`."""
    lines = ["| column | type | unit | frame | null | meaning |", "|---|---|---|---|---|---|"]
    for column in RUN_COLUMNS:
        null = "yes" if column.nullable else "no"
        lines.append(f"| `{column.name}` | `{column.type}` | {column.unit} | {column.frame} | {null} | {column.meaning} |")
    lines.append(f"| `{PASSTHROUGH_PREFIX}*` | `string` |  |  | yes | Every other column of the input, as text. |")
    return "\n".join(lines) + "\n"
