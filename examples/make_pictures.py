"""Renders the example fish and draws the pictures of the README with the bundled model.

python examples/make_pictures.py
"""

from __future__ import annotations

from pathlib import Path

import click
from PIL import Image

from concept_cam import Localizer, prompts
from concept_cam.commands import example
from concept_cam.commands.console import run_script
from concept_cam.core import drawing as overlay

FOLDER = Path(__file__).parent / "images"


@click.command()
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=FOLDER, show_default=True)
def main(output: Path) -> None:
    """Writes every picture."""
    output.mkdir(parents=True, exist_ok=True)
    pictures = {name: example.render_fish(name) for name in example.FISH}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(output / f"{example.FISH[name].name}.png", optimize=True)
    localizer = Localizer.from_pretrained()
    answers = example.ask(localizer, pictures["forked"], example.questions())
    example.draw_sheet(pictures["forked"], answers, example.ask_photographs(localizer)).save(output / "sheet.png", optimize=True)
    _contrast_sheet(localizer, pictures).save(output / "contrast.png", optimize=True)


def _contrast_sheet(localizer: Localizer, pictures: dict) -> Image.Image:
    """The same fish with two tails, asked for both shapes, on one colour scale: what contrast tells apart."""
    concepts = prompts.load(["fish:caudal_fin_shape=forked", "fish:caudal_fin_shape=rounded"])
    answers = {name: localizer.locate_all([picture], concepts)[0] for name, picture in pictures.items()}
    reach = max(abs(limit) for found in answers.values() for answer in found for limit in answer.limits)
    panels, titles = [], []
    for name, found in answers.items():
        for answer in found:
            panels.append(answer.overlay(limits=(-reach, reach), title=""))
            titles.append(f"a {name} tail, asked for: {answer.concept.target[0]}")
    return overlay.sheet(panels, columns=2, titles=titles, size=16)


if __name__ == "__main__":
    run_script(main)
