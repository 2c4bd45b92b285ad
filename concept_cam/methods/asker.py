"""What a method needs of whoever asks it: the model, the settings, and the questions as directions. The localizer is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from concept_cam.backbones.protocol import Backbone
    from concept_cam.core.concept import Concept
    from concept_cam.core.directions import DirectionSet
    from concept_cam.core.features import PatchFeatures
    from concept_cam.core.results import Localizations, Provenance
    from concept_cam.core.settings import Settings
    from concept_cam.pictures.preprocessing import Preprocess
    from concept_cam.pictures.reading import ImageSource, Picture
    from concept_cam.pictures.resizing import Prepared

__all__ = ["Asker"]


class Asker(Protocol):
    """A model with settings that can be asked in words; see :class:`concept_cam.localizer.Localizer` for what each call does."""

    @property
    def backbone(self) -> Backbone: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def preprocess(self) -> Preprocess: ...
    def with_settings(self, **values: Any) -> Asker: ...
    def embed_texts(self, groups: Sequence[Sequence[str]]) -> Tensor: ...
    def phrased(self, concepts: Concept | Iterable[Concept]) -> tuple[Concept, ...]: ...
    def directions(self, concepts: Concept | Iterable[Concept]) -> DirectionSet: ...
    def prepare(self, image: ImageSource) -> Prepared: ...
    @overload
    def encode(self, images: str) -> PatchFeatures: ...  # type: ignore[overload-overlap]
    @overload
    def encode(self, images: Sequence[ImageSource]) -> list[PatchFeatures]: ...  # type: ignore[overload-overlap]
    @overload
    def encode(self, images: ImageSource) -> PatchFeatures: ...
    def encode_prepared(self, prepared: Sequence[Prepared], sources: Sequence[str | None] | None = None) -> list[PatchFeatures]: ...
    @overload
    def score(
        self,
        features: Sequence[PatchFeatures],
        concepts: Concept | Sequence[Concept],
        pictures: Sequence[Picture | np.ndarray] | None = None,
    ) -> list[Localizations]: ...
    @overload
    def score(
        self, features: PatchFeatures, concepts: Concept | Sequence[Concept], pictures: Picture | np.ndarray | None = None
    ) -> Localizations: ...
    def provenance(self, method: str, attention: str, resize: str, views: str = "single") -> Provenance: ...
