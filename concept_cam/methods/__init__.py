"""The family of localisation methods behind one interface: ``method=`` in Python, ``--method`` at the command line.

Importing this package loads no torch. All methods ask the same question: the direction ``w`` of target against contrasts (see
:mod:`concept_cam.core.directions`), on the same picture, weights and padding mask. Gradient and perturbation methods explain the objective
``y = e^ . w`` with the unit image embedding ``e^`` (``feature_norm="none"``: ``e . w``), a contrast of logits and never of probabilities;
the contrast weights are constants. Maps are raw: never min-max scaled. Those whose definition ends in a ReLU come signed, as the sum before
it, and under the name with ``+relu`` as published.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import choose
from concept_cam.methods.method import READING, Method

if TYPE_CHECKING:
    import numpy as np

    from concept_cam.core.results import Localizations
    from concept_cam.core.settings import Settings
    from concept_cam.methods.asker import Asker
    from concept_cam.pictures.reading import Picture

__all__ = ["METHODS", "Method", "explain", "find_method", "require_followed"]


def _with_relu(*methods: Method) -> tuple[Method, ...]:
    return tuple(
        variant
        for method in methods
        for variant in (
            method,
            replace(
                method,
                name=f"{method.name}+relu",
                description=f"{method.name} with negative values dropped, as published",
                relu=True,
            ),
        )
    )


_HERE = "concept_cam.methods"

_ENTRIES = (
    Method(
        "direct",
        f"{_HERE}.direct:direct",
        "direction over patch features: one forward pass for any number of concepts",
        follows=("attention", "views", "look_again"),
    ),
    *_with_relu(
        Method(
            "grad-cam",
            f"{_HERE}.gradient:grad_cam",
            "channels weighted by their mean gradient",
            "Selvaraju et al., ICCV 2017",
            "cams",
        )
    ),
    Method(
        "finer-cam",
        f"{_HERE}.gradient:grad_cam",
        "Finer-CAM as published: Grad-CAM of the contrasted logit, negative values dropped (the same as grad-cam+relu)",
        "Zhang et al., CVPR 2025",
        "cams",
        relu=True,
    ),
    *_with_relu(
        Method(
            "grad-cam++",
            f"{_HERE}.gradient:grad_cam_plusplus",
            "channels weighted by positive gradients of the logit, places by their share (equation 19)",
            "Chattopadhay et al., WACV 2018",
        ),
        Method(
            "xgrad-cam",
            f"{_HERE}.gradient:xgrad_cam",
            "channels weighted by gradients where they are active; unstable where a signed channel sums to nearly zero",
            "Fu et al., BMVC 2020",
            "cams",
        ),
        Method(
            "layer-cam",
            f"{_HERE}.gradient:layer_cam",
            "each activation weighted by its own positive gradient",
            "Jiang et al., TIP 2021",
            "cams",
        ),
    ),
    Method(
        "hires-cam",
        f"{_HERE}.gradient:hires_cam",
        "gradient times activation, summed over channels",
        "Draelos and Carin, 2020",
        "cams",
    ),
    Method(
        "eigen-cam",
        f"{_HERE}.gradient:eigen_cam",
        "first principal component of the feature map; the same map for every question",
        "Muhammad and Yeasin, IJCNN 2020",
        "cams",
        contrast=False,
    ),
    Method(
        "kpca-cam",
        f"{_HERE}.gradient:kpca_cam",
        "first kernel principal component of the feature map; the same map for every question",
        "Karmani et al., ICIP 2024",
        "cams",
        contrast=False,
    ),
    *_with_relu(
        Method(
            "score-cam",
            f"{_HERE}.perturbation:score_cam",
            "channels weighted by the score of the picture masked with them; slow, one forward pass per channel, or per group: "
            "score-cam:128",
            "Wang et al., CVPR-W 2020",
            takes="GROUPS",
            optional=True,
        ),
        Method(
            "ablation-cam",
            f"{_HERE}.perturbation:ablation_cam",
            "channels weighted by the drop of the score without them",
            "Desai and Ramaswamy, WACV 2020",
        ),
        Method(
            "grad-eclip",
            f"{_HERE}.grad_eclip:grad_eclip",
            "values of the attention that gathers the picture, weighted by its gradient and the loosened attention; towers with a class "
            "token or attention pooling",
            "Zhao et al., ICML 2024",
        ),
    ),
    Method(
        "rise",
        f"{_HERE}.perturbation:rise",
        "random masks weighted by the score of what they show, 1000 forward passes or as many as named: rise:4000",
        "Petsiuk et al., BMVC 2018",
        takes="MASKS",
        optional=True,
    ),
    Method(
        "legrad",
        f"{_HERE}.legrad:legrad",
        "positive gradients of the last attentions; transformers and CLIP ResNets",
        "Bousselham et al., ICCV 2025",
    ),
    Method(
        "gem",
        f"{_HERE}.direct:gem",
        "the direct method with GEM's self-self attention in the last block",
        "Bousselham et al., CVPR 2024",
        follows=("views", "look_again"),
    ),
    Method(
        "clip-surgery",
        f"{_HERE}.direct:clip_surgery",
        "value-value attention and feature surgery for single texts: the empty prompt's share taken out",
        "Li et al., 2023",
        follows=("views",),
    ),
    Method(
        "lcam",
        f"{_HERE}.lcam:lcam",
        "learned single-pass explainer (L-CAM-Fm, L-CAM-Img) trained by 'concept-cam fit-attention'; give its file: lcam:PATH",
        "Gkartzonika et al., ECCV-W 2022",
        takes="PATH",
    ),
    Method(
        "lcam-logit",
        f"{_HERE}.lcam:lcam",
        "the same before its sigmoid: signed, with a highest cell even where the sigmoid is full; lcam-logit:PATH",
        "Gkartzonika et al., ECCV-W 2022",
        takes="PATH",
    ),
    Method(
        "random",
        f"{_HERE}.baselines:random",
        "baseline: noise, seeded by the picture",
        contrast=False,
    ),
    Method(
        "center",
        f"{_HERE}.baselines:center",
        "baseline: a fixed Gaussian in the middle of the picture",
        contrast=False,
    ),
    Method(
        "luminance",
        f"{_HERE}.baselines:luminance",
        "baseline: the brightness of the picture",
        contrast=False,
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ENTRIES}
"""Localisation methods by name."""


def find_method(method: str | Method) -> Method:
    """Looks a method up.

    Args:
        method: A name of :data:`METHODS`, with ``:ARGUMENT`` behind it where the method takes one, or a method.

    Raises:
        ConfigurationError: Unknown name (with the nearest ones), or an argument that is missing or too many.
    """
    if isinstance(method, Method):
        return method
    name, colon, argument = method.partition(":") if isinstance(method, str) else (method, "", "")
    found = choose(name, METHODS, "method")
    if bool(found.takes) != bool(argument) and not (found.optional and not colon):
        expected = f"'{name}:{found.takes}'" if found.takes else f"{name!r} alone"
        raise ConfigurationError(f"expected the method as {expected}, received {method!r}.")
    return replace(found, name=method, argument=argument) if colon else found


def require_followed(who: str, follows: Collection[str], settings: Settings) -> None:
    """Refuses settings that would change nothing, though they were asked for.

    Args:
        who: What would not follow them, for the message.
        follows: Names in :data:`concept_cam.methods.method.READING` that it follows.
        settings: What was asked for.

    Raises:
        ConfigurationError: A setting of how patch features are read that it does not follow.
    """
    for name, (idle, instead) in READING.items():
        value = getattr(settings, name)
        if name not in follows and value not in idle:
            able = ", ".join(method.name for method in METHODS.values() if name in method.follows)
            raise ConfigurationError(
                f"{who} {instead}, received {name}={value!r}: that is for methods that read patch features ({able}). Leave {name} out."
            )


def explain(
    localizer: Asker,
    pictures: Sequence[Picture],
    concepts: Concept | Sequence[Concept],
    method: str | Method,
) -> list[Localizations]:
    """Locates concepts in pictures with any method.

    Args:
        localizer: Model and settings.
        pictures: Pictures that were read.
        concepts: One or more concepts.
        method: A name of :data:`METHODS`, or a method.

    Returns:
        Per picture the answers in the order of the concepts: ``scores`` float32 [C, h, w] in the grid frame, NaN in padding; image-level
        scores and probabilities as for the direct method.

    Raises:
        ConfigurationError: An unknown method, or one that this model or these settings cannot be used with.
        MissingExtraError: The method's library is not installed.
        UnsupportedModelError: The method needs a kind of tower that this model does not have.
    """
    chosen = find_method(method)
    require_followed(f"the method {chosen.name!r}", chosen.follows, localizer.settings)
    asked = localizer.phrased(concepts)
    answers: list[Localizations] = chosen.load()(localizer, list(pictures), asked, chosen)
    # A method that puts other maps in the place of the direct ones keeps to the places that were told by these.
    answers = [replace(answer, scores=_placed(answer)) if answer.cells else answer for answer in answers]
    if not chosen.relu:
        return answers
    import numpy as np

    return [replace(answer, scores=np.maximum(answer.scores, np.float32(0)), split=None, certify=None) for answer in answers]


def _placed(answer: Localizations) -> np.ndarray:
    import numpy as np

    scores = answer.scores.copy()
    for number, cells in answer.cells.items():
        scores[number] = np.where(cells, scores[number], np.float32(np.nan))
    return scores
