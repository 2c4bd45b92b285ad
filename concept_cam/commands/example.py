"""The examples that new users meet: a rendered fish, one picture of every other group, free photographs of other things, and questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from concept_cam import prompts
from concept_cam.core import drawing as overlay
from concept_cam.core.concept import Concept
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.demo.worlds import WORLDS

if TYPE_CHECKING:
    from PIL.Image import Image

    from concept_cam.core.results import Localization
    from concept_cam.localizer import Localizer

__all__ = [
    "FISH",
    "GROUPS",
    "PHOTOGRAPHS",
    "EXAMPLE_SIZE",
    "ExampleFish",
    "ExampleGroup",
    "ask",
    "ask_photographs",
    "draw_groups",
    "draw_sheet",
    "photograph",
    "questions",
    "render_fish",
    "render_group",
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


@dataclass(frozen=True)
class ExampleGroup:
    """A specimen of another group.

    Attributes:
        stem: Stem of its file.
        seed: Seed of the specimen; not one of the training pictures or of the benchmark.
        number: Its number under the seed.
        scenes: What it may be before; all scenes of the group when ``None``.
        traits: States that are fixed.
        questions: What is asked of it, as trait specifications.
    """

    stem: str
    seed: int
    number: int
    scenes: tuple[str, ...] | None
    traits: tuple[tuple[str, str], ...]
    questions: tuple[str, ...]


GROUPS: dict[str, ExampleGroup] = {
    "lepidoptera": ExampleGroup(
        "butterfly",
        90001,
        1,
        ("leaf", "flower", "blurred"),
        (
            ("resting_posture", "spread"),
            ("eyespots", "present"),
            ("eyespot_number", "one"),
            ("hindwing_tails", "present"),
            ("antenna_shape", "clubbed"),
            ("wing_colour", "orange"),
            ("wing_pattern", "plain"),
            ("wing_border", "dark"),
            ("wing_margin", "smooth"),
            ("forewing_shape", "triangular"),
            ("body_hair", "hairy"),
        ),
        ("lepidoptera:parts=fore_wing", "lepidoptera:parts=hind_wing", "lepidoptera:parts=antennae"),
    ),
    "beetle": ExampleGroup("beetle", 90001, 7, None, (), ("beetle:parts=elytra", "beetle:parts=head", "beetle:parts=legs")),
    "plant": ExampleGroup("leaf", 90001, 8, None, (), ("plant:parts=leaf", "plant:parts=petiole", "plant:parts=leaf_base")),
}
"""The groups beside fish: the pack's name -> its example."""


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
    return _render("fish", fish.seed, 0, (fish.scene,), fish.traits)


def render_group(name: str) -> np.ndarray:
    """Renders the example of a group, uint8 [H, W, 3]; the same on every machine within 3/255."""
    group = GROUPS[name]
    return _render(name, group.seed, group.number, group.scenes, group.traits)


def _render(name: str, seed: int, number: int, scenes: tuple[str, ...] | None, traits: tuple[tuple[str, str], ...]) -> np.ndarray:
    world = WORLDS[name]
    specimens = world.sample(1, seed, view="whole", scenes=scenes, traits=dict(traits), start=number)
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


def draw_groups(localizer: Localizer) -> tuple[Image, list[Localization]]:
    """Renders the example of every group, and asks its questions of a model that was trained on the group, or does not say on what.

    Args:
        localizer: Answers the questions.

    Returns:
        The sheet, a row for each group that is asked about and then the pictures of the others, and the answers.
    """
    from PIL import Image as Pillow

    trained = getattr(localizer.backbone, "groups", None)
    rows: list[tuple[Image, str]] = []
    others: list[tuple[Image, str]] = []
    said: list[Localization] = []
    for name, group in GROUPS.items():
        picture = render_group(name)
        if trained is not None and name not in trained:
            others.append((Pillow.fromarray(picture), f"a {group.stem}: this model was not trained on any"))
            continue
        answers = ask(localizer, picture, prompts.load(list(group.questions)))
        rows.append((Pillow.fromarray(picture), f"the {group.stem}"))
        rows += [(answer.overlay(threshold=DEFAULT_THRESHOLD, title=""), _title(answer)) for answer in answers]
        said += answers
    panels, titles = zip(*rows, *others)
    return overlay.sheet(panels, columns=4 if rows else len(panels), titles=titles, size=16), said


def _fitted(image: Image, height: int) -> Image:
    """Brings a panel to the height of the others."""
    return image if image.height <= height else image.resize((round(image.width * height / image.height), height))


def _title(answer: Localization) -> str:
    contrasts = answer.concept.contrast_names
    against = f"against {', '.join(contrasts[:3])}{' ...' if len(contrasts) > 3 else ''}" if contrasts else "alone"
    return f"where is: {answer.concept.target[0]}?  ({against})"
