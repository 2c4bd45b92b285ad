"""The example that new users meet: rendered fish and questions about them, drawn as one sheet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from concept_cam import prompts
from concept_cam.core import drawing as overlay
from concept_cam.core.concept import Concept
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.demo import world

if TYPE_CHECKING:
    from PIL.Image import Image

    from concept_cam.core.results import Localization
    from concept_cam.localizer import Localizer

__all__ = ["FISH", "SIZE", "ExampleFish", "ask", "draw_sheet", "questions", "render_fish"]

SIZE = (384, 512)
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


def render_fish(name: str) -> np.ndarray:
    """Renders an example fish, uint8 [H, W, 3]; the same on every machine within 3/255."""
    fish = FISH[name]
    specimens = world.sample(1, fish.seed, view="whole", scenes=(fish.scene,), traits=dict(fish.traits))
    return np.asarray(world.render(specimens, SIZE).images[0].permute(1, 2, 0).contiguous().numpy())


def questions() -> list[Concept]:
    """Returns the concepts of :data:`QUESTIONS`."""
    return prompts.load(list(QUESTIONS))


def ask(localizer: Localizer, picture: np.ndarray, concepts: list[Concept]) -> list[Localization]:
    """Answers every question about one picture."""
    return list(localizer.locate_all([picture], concepts)[0])


def draw_sheet(picture: np.ndarray, answers: list[Localization]) -> Image:
    """Draws the picture and the answers side by side, regions outlined."""
    from PIL import Image as Pillow

    panels = [Pillow.fromarray(picture)] + [answer.overlay(threshold=DEFAULT_THRESHOLD, title="") for answer in answers]
    titles = ["the picture"] + [_title(answer) for answer in answers]
    return overlay.sheet(panels, columns=4 if len(panels) > 6 else 3, titles=titles, size=16)


def _title(answer: Localization) -> str:
    contrasts = answer.concept.contrast_names
    against = f"against {', '.join(contrasts[:3])}{' ...' if len(contrasts) > 3 else ''}" if contrasts else "alone"
    return f"where is: {answer.concept.target[0]}?  ({against})"
