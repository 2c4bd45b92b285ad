"""From a name, a file or an already made model object to a backbone; nothing is ever loaded with random weights."""

from __future__ import annotations

from concept_cam.backbones.loading.classifiers import from_classifier
from concept_cam.backbones.loading.names import CatalogueEntry, about, catalogue, load
from concept_cam.backbones.loading.open_clip import from_open_clip
from concept_cam.backbones.loading.transformers import from_transformers

__all__ = ["CatalogueEntry", "about", "catalogue", "from_classifier", "from_open_clip", "from_transformers", "load"]
