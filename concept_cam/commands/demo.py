"""``concept-cam demo``: the bundled example, from words to a picture to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from concept_cam.commands.console import PathName
from concept_cam.commands.options import build_localizer, model_options, resolve, setting_options


@click.command(short_help="Run the bundled example.")
@click.option("--output", "-o", type=PathName(file_okay=False), default="concept-cam-demo", show_default=True, metavar="DIR")
@click.option("--overwrite", is_flag=True, help="Replace files that exist under --output.")
@model_options
@setting_options
def demo(output: str, overwrite: bool, **options: Any) -> None:
    """Renders an example fish, asks where its forked tail fin, head, eye and other traits are, asks the same of a few free photographs of
    other things, and draws the answers on one sheet. A second sheet, groups.png, shows a butterfly, a beetle and a leaf,
    with questions about those that the model was trained on.

    Works offline with the model that comes with the package.

    \b
    Examples:
      concept-cam demo
      concept-cam demo --output out/ --gamma 0
      concept-cam demo --model ViT-B-16/openai
    """
    values = resolve(options)
    from PIL import Image

    from concept_cam.commands import example
    from concept_cam.core.files import make_directory, write_file
    from concept_cam.core.results import png_bytes

    folder = make_directory(output)
    sheet_path, fish_path = folder / "sheet.png", folder / f"{example.FISH['forked'].name}.png"
    localizer = build_localizer(values)
    picture = example.render_fish("forked")
    answers = example.ask(localizer, picture, example.questions())
    write_file(fish_path, png_bytes(Image.fromarray(picture)), overwrite=overwrite)
    photographs = example.ask_photographs(localizer)
    write_file(sheet_path, png_bytes(example.draw_sheet(picture, answers, photographs)), overwrite=overwrite)
    groups, others = example.draw_groups(localizer)
    groups_path = folder / "groups.png"
    write_file(groups_path, png_bytes(groups), overwrite=overwrite)
    for name, group in example.GROUPS.items():
        write_file(folder / f"{group.stem}.png", png_bytes(Image.fromarray(example.render_group(name))), overwrite=overwrite)
    for answer in (*answers, *photographs, *others):
        x, y = answer.peak
        click.echo(f"{answer.concept.target[0]:<32} peak at x {x:.0f}, y {y:.0f}, score {answer.peak_score:+.3f}")
    click.echo(f"\nLook at {_shown(sheet_path)} and {_shown(groups_path)}")
    click.echo("Ask your own question:")
    click.echo(
        f'  concept-cam locate {_shown(fish_path)} --target "a dorsal fin" --contrast "a tail fin" --output {_shown(folder / "mine")}'
    )


def _shown(path: Path) -> str:
    text = str(path)
    return f"'{text}'" if " " in text else text
