"""Zero-shot multimodal concept localisation: name a trait and its look-alikes, see where it is in the picture.

    >>> from concept_cam import Localizer
    >>> localizer = Localizer.from_pretrained()
    >>> found = localizer.locate("fish.png", "a forked tail fin", ["a rounded tail fin"])
    >>> found.overlay().save("overlay.png")

The public names below are imported when they are first used, so that ``import concept_cam`` is instant and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concept_cam import prompts
    from concept_cam.collection.annotation import annotate
    from concept_cam.collection.indexing import build_index
    from concept_cam.collection.runs import Run, read_run
    from concept_cam.core.concept import Concept
    from concept_cam.core.errors import ConceptCamError
    from concept_cam.core.features import PatchFeatures
    from concept_cam.core.geometry import Geometry
    from concept_cam.core.regions import Region
    from concept_cam.core.results import Localization, Localizations
    from concept_cam.core.settings import Settings
    from concept_cam.evaluation.runner import evaluate
    from concept_cam.index.index import Index
    from concept_cam.localizer import Localizer
    from concept_cam.methods.heads import ClassifierHead

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "ClassifierHead": "concept_cam.methods.heads",
    "Concept": "concept_cam.core.concept",
    "ConceptCamError": "concept_cam.core.errors",
    "Geometry": "concept_cam.core.geometry",
    "Index": "concept_cam.index.index",
    "Localization": "concept_cam.core.results",
    "Localizations": "concept_cam.core.results",
    "Localizer": "concept_cam.localizer",
    "PatchFeatures": "concept_cam.core.features",
    "Region": "concept_cam.core.regions",
    "Run": "concept_cam.collection.runs",
    "Settings": "concept_cam.core.settings",
    "annotate": "concept_cam.collection.annotation",
    "build_index": "concept_cam.collection.indexing",
    "evaluate": "concept_cam.evaluation.runner",
    "prompts": "",
    "read_run": "concept_cam.collection.runs",
}
"""The public names and the modules that define them."""

__all__ = [
    "ClassifierHead",
    "Concept",
    "ConceptCamError",
    "Geometry",
    "Index",
    "Localization",
    "Localizations",
    "Localizer",
    "PatchFeatures",
    "Region",
    "Run",
    "Settings",
    "annotate",
    "build_index",
    "evaluate",
    "prompts",
    "read_run",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _PUBLIC[name]:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
