"""Maps finer than the grid: a signed map becomes one that stops at the picture's edges, after the subtraction and never before it.

Importing this package loads no torch. A refiner is a pure function of maps on the cells and of a
:class:`~concept_cam.refine.scene.Scene` (the picture, the tower's patch features, what all maps of the picture share). What none of them
may change is taken back afterwards, in one place (:func:`concept_cam.refine.keeping.kept`): units, sign, the highest score and nearly its
place, and all of the map where the picture is flat. The scores on the cells stay beside the refined map; thresholds, ledger, certificate
and probabilities are theirs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import choose
from concept_cam.core.settings import refiner_steps

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from concept_cam.core.results import Localization, Localizations
    from concept_cam.pictures.reading import Picture
    from concept_cam.refine.scene import Scene

__all__ = ["REFINERS", "Answers", "Refiner", "find_refiners", "load_refiner", "refine", "refine_each", "refined_maps"]

_HERE = "concept_cam.refine"


@dataclass(frozen=True)
class Refiner:
    """One way to refine maps.

    Attributes:
        name: Its name.
        target: ``"module:name"`` of a function ``(maps, scene) -> [C, H, W]`` of maps on cells [C, h, w], or on pixels [C, H, W] where
            another refiner came before.
        description: One line for people.
        cost: What it costs beside the plain map.
        source: The papers behind it.
        takes: What may follow the name and a colon, such as ``"FOLDER"``.
        required: Whether it must.
        made: ``"module:name"`` of what makes the function from that.
        argument: What followed.
        cells: Whether it works on the cells, and so must come before others.
    """

    name: str
    target: str
    description: str
    cost: str = ""
    source: str = ""
    takes: str = ""
    required: bool = False
    made: str = ""
    argument: str = ""
    cells: bool = False

    def load(self, device: torch.device | str = "cpu") -> Callable[[Tensor, Scene], Tensor]:
        """Imports the function, or makes it from the argument."""
        module, _, name = (self.made if self.argument else self.target).partition(":")
        loaded: Any = getattr(importlib.import_module(module), name)
        function: Callable[[Tensor, Scene], Tensor] = loaded(self.argument, device) if self.argument else loaded
        return function


_ENTRIES = (
    Refiner("none", "", "the map between the cells' centres, as it is"),
    Refiner(
        "guided",
        f"{_HERE}.guided:guided",
        "guided filter beside the picture's colours: edges of the map snap to edges of the picture",
        "twice the time of the bundled model",
        "He et al., TPAMI 2013",
    ),
    Refiner(
        "superpixel",
        f"{_HERE}.superpixel:voted",
        "patches of like colour (SLIC) take the mean of the map over them",
        "2 to 5 times the time of the bundled model",
        "Achanta et al., TPAMI 2012",
    ),
    Refiner(
        "affinity",
        f"{_HERE}.affinity:within_tower",
        "scores spread among cells that look alike to the tower itself, or to another: affinity:early, affinity:dinov2:FOLDER",
        "twice the time of the bundled model; with another tower one of its passes more",
        "Lan et al., ECCV 2024",
        takes="MODEL",
        made=f"{_HERE}.affinity:SecondTower",
        cells=True,
    ),
    Refiner(
        "masks",
        "",
        "masks that SAM, SAM 2 or EdgeTAM proposes take the mean of the map over them; give a local folder: masks:FOLDER",
        "a pass of the segmenter, and four of its decoder",
        "Kirillov et al., ICCV 2023",
        takes="FOLDER",
        required=True,
        made=f"{_HERE}.masks:ProposedMasks",
    ),
)

REFINERS: dict[str, Refiner] = {refiner.name: refiner for refiner in _ENTRIES}
"""Refiners by name."""


def find_refiners(text: str) -> tuple[Refiner, ...]:
    """Looks refiners up.

    Args:
        text: A name of :data:`REFINERS`, with ``:ARGUMENT`` behind it where the refiner takes one; several that follow each other are
            joined by a plus.

    Returns:
        The refiners in turn; none for ``"none"``.

    Raises:
        ConfigurationError: Unknown name (with the nearest one), an argument that is missing or too many, or an order that makes no sense.
    """
    steps = tuple(_find(step) for step in refiner_steps(text))
    if len(steps) == 1:
        return steps if steps[0].name != "none" else ()
    for number, step in enumerate(steps):
        if step.name == "none" or (step.cells and number):
            raise ConfigurationError(
                f"{step.name!r} cannot follow another refiner, received {text!r}: affinity works on the cells and comes first, such as "
                "affinity:early+guided."
            )
    return steps


def _find(text: str) -> Refiner:
    name, colon, argument = text.partition(":")
    found = choose(name, REFINERS, "refiner")
    if (colon and not (found.takes and argument)) or (found.required and not argument):
        forms = [repr(name)] * (not found.required) + [f"'{name}:{found.takes}'"] * bool(found.takes)
        raise ConfigurationError(f"expected the refiner as {' or '.join(forms)}, received {text!r}.")
    return replace(found, argument=argument)


def load_refiner(text: str, device: torch.device | str = "cpu") -> Callable[[Tensor, Scene], Tensor] | None:
    """Makes a refiner ready, or several that follow each other: imports them, and loads the models that they name.

    Returns:
        Maps [C, h, w] and a scene to maps [C, H, W]; ``None`` for ``"none"``.

    Raises:
        ConceptCamError: A name is unknown, or its model cannot be loaded.
    """
    functions = [step.load(device) for step in find_refiners(text)]

    def chain(maps: Tensor, scene: Scene) -> Tensor:
        for function in functions:
            maps = function(maps, scene)
        return maps

    chain.__name__ = text  # by which provenances say what refined a map
    return chain if functions else None


def refined_maps(maps: np.ndarray, scene: Scene, refiner: Callable[[Tensor, Scene], Tensor]) -> np.ndarray:
    """Refines the maps of one picture.

    Args:
        maps: float32 [C, h, w], signed; cells that ``scene`` does not let be read are ignored.
        scene: The picture.
        refiner: What :func:`load_refiner` returns.

    Returns:
        float32 [C, H', W'] over the whole model frame, ``scene.zoom`` pixels per model pixel; NaN where the picture is not, or may not be
        read.
    """
    import numpy as np
    import torch

    from concept_cam.core.quiet import quiet
    from concept_cam.core.resampling import continued, highest_places
    from concept_cam.refine.keeping import kept

    # Maps of which a place alone was asked for end within the picture.
    ends = scene.valid & ~np.isfinite(maps)
    ending = np.flatnonzero(ends.any(axis=(1, 2)))
    if ending.size:
        maps = maps.copy()
        for number in ending:
            known = np.where(scene.valid, maps[number], np.float32(np.nan))
            maps[number] = continued(known) if np.isfinite(known).any() else 0.0
    tops = scene.pixels_at(highest_places(np.where(scene.valid, maps, np.float32(np.nan)), scene.geometry))
    with quiet(graph=False):
        cells = torch.from_numpy(maps).to(scene.device)
        found = scene.framed(kept(refiner(cells, scene), scene.enlarge(cells), scene, tops))
    for number in ending:
        found[number, scene.pixels_of(ends[number])] = np.nan
    return found


Answers = TypeVar("Answers", "Localization", "Localizations")


def refine(
    answers: Answers,
    refiner: str | Callable[[Tensor, Scene], Tensor],
    picture: Picture | np.ndarray | None = None,
    features: Tensor | None = None,
    valid: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> Answers:
    """Refines the maps of one picture's answers, whatever method made them.

    Args:
        answers: One answer or all; their scores stay as they are.
        refiner: A name of :data:`REFINERS`, or what :func:`load_refiner` returned.
        picture: uint8 [H, W, 3], the upright picture or a smaller copy of it; by default that of the answers.
        features: float [h, w, D], the tower's patch features, for refiners that read them.
        valid: bool [h, w], cells that may be read; by default those that show the picture.
        device: Where to compute.

    Returns:
        The same with ``refined`` maps, and a provenance that says the refiner: by its name, or that of the function.

    Raises:
        ConfigurationError: An unknown refiner, one that needs what is not at hand, or a picture of another shape than what was encoded.
    """
    import numpy as np

    from concept_cam.pictures.given import pixels_of
    from concept_cam.refine.scene import Scene

    function = load_refiner(refiner, device) if isinstance(refiner, str) else refiner
    scores = answers.scores.reshape(-1, *answers.geometry.grid)
    known = np.isfinite(scores).any(axis=0)
    # What was promised of the map as it was does not hold for a refined one.
    name = refiner if isinstance(refiner, str) else "none" if function is None else getattr(function, "__name__", type(function).__name__)
    made = replace(answers.provenance, settings={**answers.provenance.settings, "refine": name})
    if function is None or not known.any():
        return replace(answers, refined=None, provenance=made)  # nothing was asked for, or nothing was seen that an edge could bound
    pixels = answers.picture if picture is None else pixels_of(picture, answers.geometry)
    scene = Scene(answers.geometry, known if valid is None else known & valid, pixels, features, seen=answers.seen, device=device)
    maps = refined_maps(scores, scene, function)
    return replace(answers, refined=maps if answers.scores.ndim == 3 else maps[0], provenance=made)


def refine_each(
    answers: Sequence[Localization], refiner: Callable[[Tensor, Scene], Tensor], device: torch.device | str = "cpu"
) -> list[Localization]:
    """Refines single answers about one picture, each of which holds the picture, as classifiers give them; see :func:`refine`."""
    import numpy as np

    from concept_cam.refine.scene import Scene

    scores = np.stack([answer.scores for answer in answers])
    scene = Scene(answers[0].geometry, np.isfinite(scores).any(axis=0), answers[0].picture, seen=answers[0].seen, device=device)
    return [replace(answer, refined=map_) for answer, map_ in zip(answers, refined_maps(scores, scene, refiner))]
