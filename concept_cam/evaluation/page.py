"""The page of a report: one self-contained HTML file, filled into the template beside this module by Jinja, which escapes every text."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.evaluation.observations import METRICS, TABLE_TITLES, ShownExample
from concept_cam.evaluation.summary import best_value

if TYPE_CHECKING:
    from concept_cam.evaluation.metrics.intervals import Interval
    from concept_cam.evaluation.report import Report

__all__ = ["example_cells", "page"]


def page(report: Report) -> str:
    """Returns the page of a report."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("concept_cam.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.tests["known"] = _known
    data, model = report.facts.get("dataset", {}), report.facts.get("model", {})
    about = [f"{data.get('pictures', '?')} pictures"]
    about += [f"{key} {model[key]}" for key in ("weights_hash", "device", "dtype", "resize", "weighting") if model.get(key)]
    kinds = [kind for kind in ("all", *report.kinds()) if report.metric_names(kind)]
    cells, names = example_cells(report.examples, [row.name for row in report.rows])
    used = [name for name in METRICS if any(name in report.metric_names(kind) for kind in kinds)]
    return environment.get_template("page.html.jinja").render(
        report=report,
        about="; ".join(about),
        metrics=METRICS,
        titles=TABLE_TITLES,
        kinds={kind: report.metric_names(kind) for kind in kinds},
        best={kind: {name: best_value(report.rows, kind, name) for name in report.metric_names(kind)} for kind in kinds},
        examples=[(example, [_data_uri(image) for image in line]) for example, line in zip(report.examples, cells)],
        columns=("truth", *names),
        used=used,
        facts=json.dumps(report.facts, ensure_ascii=False, indent=1, default=str),
    )


def _number(value: float, sign: bool = False) -> str:
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def _known(interval: Interval | None) -> bool:
    return interval is not None and not math.isnan(interval.value)


def example_cells(examples: Sequence[ShownExample], wanted: Sequence[str]) -> tuple[list[list[Any]], list[str]]:
    """Draws the examples: per question the truth, then one overlay per row that has any map; one colour scale per row.

    Args:
        examples: Questions with their maps.
        wanted: Names of the rows.

    Returns:
        Pillow images per example, and the names of the rows that are shown.
    """
    from PIL import Image
    from skimage.measure import find_contours

    from concept_cam.core import drawing

    names = [name for name in wanted if any(name in example.heatmaps for example in examples)]
    scales: dict[str, drawing.Scale] = {}
    for name in names:
        values = np.concatenate([example.heatmaps[name].ravel() for example in examples if name in example.heatmaps])
        values = values[np.isfinite(values)]
        low, high = (float(x) for x in np.quantile(values, [0.005, 0.995])) if len(values) else (0.0, 0.0)
        # A diverging scale needs a zero that means something; maps without negative scores run from low to high.
        scales[name] = drawing.Scale((low, high), "blue-red" if low < 0 < high else "viridis")
    cells = []
    for example in examples:
        contours = []
        if example.mask is not None:
            padded = np.pad(example.mask.astype(np.float64), 1)
            contours = [contour[:, ::-1] - 0.5 for contour in find_contours(padded, 0.5)]
        line = [Image.fromarray(drawing.outline(example.picture, contours))]
        for name in names:
            shown = drawing.blend(example.picture, example.heatmaps[name], scales[name], 0.6)
            line.append(Image.fromarray(drawing.outline(shown, contours, 1)))
        cells.append(line)
    return cells, names


def _data_uri(image: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
