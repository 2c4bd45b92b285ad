"""An auto-annotation function for CVAT's SDK: text prompts inside CVAT.

``cvat-cli`` loads the module and calls :func:`create` with the parameters given::

    cvat-cli --server-host https://cvat.example.org task auto-annotate 137 \\
        --function-module concept_cam.serve.cvat -p target=str:"the tail fin of a fish" \\
        -p contrast=str:"the head of a fish|the eye of a fish"
    cvat-cli ... --function-module concept_cam.serve.cvat -p traits=str:fish:parts -p shape=str:rectangle

Each label of the CVAT task with the name of a label of the function gets what was found. Needs ``pip install cvat-sdk`` beside this
package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, MissingExtraError
from concept_cam.core.names import choose
from concept_cam.core.regions import DEFAULT_THRESHOLD, Region, decode_rle, parse_threshold
from concept_cam.exports.survey import PART_SEPARATOR

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["SHAPES", "ConceptFunction", "create"]

SHAPES = {"mask": "the region itself", "polygon": "its outline", "rectangle": "its box", "points": "its highest point"}
"""What can be drawn."""


class ConceptFunction:
    """CVAT's detection function over a localizer: one label per concept, at most one shape per picture and label.

    Args:
        localizer: The model.
        concepts: What is looked for, by label name.
        shape: A key of :data:`SHAPES`.
        threshold: As for :meth:`concept_cam.core.results.Localization.regions`.
    """

    def __init__(
        self, localizer: Localizer, concepts: dict[str, Concept], shape: str = "mask", threshold: str | float = DEFAULT_THRESHOLD
    ) -> None:
        try:
            import cvat_sdk.auto_annotation as cvataa
        except ImportError as error:
            raise MissingExtraError("cvat_sdk", "", "the CVAT auto-annotation function", package="cvat-sdk") from error
        choose(shape, SHAPES, "shape")
        self._cvat, self._localizer, self._concepts = cvataa, localizer, concepts
        self._shape, self._threshold = shape, parse_threshold(threshold)
        self.spec = cvataa.DetectionFunctionSpec(labels=[cvataa.label_spec(name, number) for number, name in enumerate(concepts)])

    def detect(self, context: Any, image: Any) -> Sequence[Any]:
        """Finds the concepts in one picture (a Pillow image, upright)."""
        least, shape = context.conf_threshold, self._shape
        if shape == "mask" and context.conv_mask_to_poly:
            shape = "polygon"
        shapes = []
        answers = self._localizer.locate_all([image.convert("RGB")], list(self._concepts.values()))[0]
        for number, found in enumerate(answers):
            sure = found.probability if found.probability is not None else max(0.0, found.peak_score)
            region = found.region_of_peak(self._threshold, resolution="model") if found.told else None
            if region is not None and (least is None or sure >= least):
                shapes.append(self._drawn(number, shape, region))
        return shapes

    def _drawn(self, label: int, shape: str, region: Region) -> Any:
        if shape == "mask":
            from cvat_sdk.masks import encode_mask

            return self._cvat.mask(label, encode_mask(decode_rle(region.rle), list(region.box)))
        if shape == "rectangle":
            return self._cvat.rectangle(label, [float(value) for value in region.box])
        if shape == "points":
            return self._cvat.shape(label, type="points", points=list(region.peak))
        return self._cvat.polygon(label, region.polygon().ravel().tolist())


def create(
    model: str = "demo",
    target: str = "",
    contrast: str = "",
    traits: str = "",
    label: str = "",
    shape: str = "mask",
    threshold: str = DEFAULT_THRESHOLD,
    device: str = "auto",
) -> ConceptFunction:
    """Makes the function from text parameters, as ``cvat-cli`` gives them.

    Args:
        model: Model name.
        target: What to find; several parted by ``|``.
        contrast: What to tell it apart from; several parted by ``|``, shared by all targets.
        traits: In place of words: trait specifications such as ``fish:parts``, several parted by commas.
        label: Name of the label in CVAT, where there is one target and the label is called otherwise.
        shape: A key of :data:`SHAPES`.
        threshold: Strategy or score above which a pixel belongs to a region.
        device: Where the model runs.

    Raises:
        ConfigurationError: Nothing to find, or a label for several concepts.
    """
    if bool(target) == bool(traits):
        raise ConfigurationError('say what to find: target=str:"a forked tail fin", or traits=str:fish:parts, not both.')
    if target:
        others = [text.strip() for text in contrast.split("|") if text.strip()]
        named = {text.strip(): prompts.concept_of_words(text.strip(), others) for text in target.split("|") if text.strip()}
    else:
        named = {
            concept.name.replace("parts=", f"parts{PART_SEPARATOR}"): concept
            for concept in prompts.load([part.strip() for part in traits.split(",")])
        }
    if label:
        if len(named) != 1:
            raise ConfigurationError(f"one label ({label!r}) was named for {len(named)} concepts.")
        named = {label: next(iter(named.values()))}
    from concept_cam.localizer import Localizer

    return ConceptFunction(Localizer.from_pretrained(model, device=device), named, shape, threshold)
