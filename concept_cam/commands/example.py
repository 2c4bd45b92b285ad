"""The example that new users meet: a rendered fish, free photographs of other things, and questions about them, drawn as one sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from concept_cam import prompts
from concept_cam.core import drawing as overlay
from concept_cam.core.concept import Concept
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.demo.worlds.fish import world

if TYPE_CHECKING:
    from PIL.Image import Image

    from concept_cam.core.results import Localization
    from concept_cam.localizer import Localizer

__all__ = [
    "FISH",
    "PHOTOGRAPHS",
    "EXAMPLE_SIZE",
    "ExampleFish",
    "ask",
    "ask_photographs",
    "draw_sheet",
    "photograph",
    "questions",
    "render_fish",
]

EXAMPLE_SIZE = (384, 512)
"""``(H, W)`` of the example pictures."""


@dataclass(frozen=True)
class ExampleFish:
    """A specimen of the fish world that shows well what it should.

    Attributes:
        name: Stem of its file.
        seed: Seed of the specimen; not one of the training pictures or of the benchmark.
        scene: What it lies on.
        traits: States that are fixed.
    """

    name: str
    seed: int
    scene: str
    traits: tuple[tuple[str, str], ...]


_COMMON = (
    ("barbels", "present"),
    ("adipose_fin", "present"),
    ("dorsal_fin_texture", "spiny"),
    ("dorsal_fin_number", "single"),
)

FISH: dict[str, ExampleFish] = {
    "forked": ExampleFish(
        "fish_forked_tail",
        90001,
        "blue_tray",
        (("caudal_fin_shape", "forked"), ("pelvic_fin", "present"), ("body_shape", "fusiform"), *_COMMON),
    ),
    "rounded": ExampleFish(
        "fish_rounded_tail",
        90001,
        "blue_tray",
        (("caudal_fin_shape", "rounded"), ("pelvic_fin", "present"), ("body_shape", "fusiform"), *_COMMON),
    ),
}
"""Example fish by name: one with a forked tail fin, and its twin with a rounded one."""

QUESTIONS = (
    "fish:caudal_fin_shape=forked",
    "fish:parts=head",
    "fish:parts=eye",
    "fish:parts=dorsal_fin",
    "fish:parts=barbels",
    "fish:parts=adipose_fin",
)
"""What the sheet asks, as trait specifications."""


PHOTOGRAPHS: tuple[tuple[str, str], ...] = (
    ("coffee", "a cup of coffee"),
    ("astronaut", "a helmet"),
    ("astronaut", "a space shuttle"),
    ("chelsea", "a cat"),
)
"""Photographs that scikit-image brings, free to use, and what is asked of them."""


def photograph(name: str) -> np.ndarray:
    """Returns one of scikit-image's own photographs, uint8 [H, W, 3]; they are installed with it and need no network."""
    from skimage import data

    return np.asarray(getattr(data, name)())


def ask_photographs(localizer: Localizer) -> list[Localization]:
    """Asks where the things of :data:`PHOTOGRAPHS` are."""
    return [localizer.locate(photograph(name), text) for name, text in PHOTOGRAPHS]


def render_fish(name: str) -> np.ndarray:
    """Renders an example fish, uint8 [H, W, 3]; the same on every machine within 3/255."""
    fish = FISH[name]
    specimens = world.sample(1, fish.seed, view="whole", scenes=(fish.scene,), traits=dict(fish.traits))
    return np.asarray(world.render(specimens, EXAMPLE_SIZE).images[0].permute(1, 2, 0).contiguous().numpy())


def questions() -> list[Concept]:
    """Returns the concepts of :data:`QUESTIONS`."""
    return prompts.load(list(QUESTIONS))


def ask(localizer: Localizer, picture: np.ndarray, concepts: list[Concept]) -> list[Localization]:
    """Answers every question about one picture."""
    return list(localizer.locate_all([picture], concepts)[0])


def draw_sheet(picture: np.ndarray, answers: list[Localization], photographs: list[Localization] | None = None) -> Image:
    """Draws the picture and the answers side by side, regions outlined.

    Args:
        picture: uint8 [H, W, 3], the fish.
        answers: About the fish.
        photographs: About photographs of other things, which follow.
    """
    from PIL import Image as Pillow

    panels = [Pillow.fromarray(picture)] + [answer.overlay(threshold=DEFAULT_THRESHOLD, title="") for answer in answers]
    titles = ["the picture"] + [_title(answer) for answer in answers]
    for answer in photographs or []:
        panels.append(_fitted(answer.overlay(threshold=DEFAULT_THRESHOLD, title=""), panels[1].height))
        titles.append(_title(answer))
    return overlay.sheet(panels, columns=4 if len(panels) > 6 else 3, titles=titles, size=16)


def _fitted(image: Image, height: int) -> Image:
    """Brings a panel to the height of the others."""
    return image if image.height <= height else image.resize((round(image.width * height / image.height), height))


def _title(answer: Localization) -> str:
    contrasts = answer.concept.contrast_names
    against = f"against {', '.join(contrasts[:3])}{' ...' if len(contrasts) > 3 else ''}" if contrasts else "alone"
    return f"where is: {answer.concept.target[0]}?  ({against})"
