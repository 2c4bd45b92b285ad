"""Look at a world: a sheet of rendered pictures beside their masks.

    python examples/world_sheet.py lepidoptera -o sheet.png
    python examples/world_sheet.py beetle --profile photographs --view closeup --seed 7 --trait horns=present -o horns.png

Every mask has a colour, which is printed; the right one of paired parts is darker. Over each picture stand its states, over its masks the
characters that can be told from it.
"""

from __future__ import annotations

import colorsys
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from concept_cam.commands.console import run_script
from concept_cam.core.drawing import sheet
from concept_cam.demo.worlds import ROOMS, WORLDS
from concept_cam.demo.worlds.family import VIEWS, Rendering, Specimens, World

PANEL = 300


def _tints(count: int) -> np.ndarray:
    """Colours that differ, uint8 [count, 3]."""
    return np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(k * 0.618 % 1, 0.85, 1.0)] for k in range(count)], dtype=np.uint8)


def panel(world: World, specimens: Specimens, rendering: Rendering, i: int) -> Image.Image:
    """Picture `i` beside its masks."""
    picture = rendering.images[i].permute(1, 2, 0).numpy()
    painted = (0.4 * picture).astype(np.uint8)
    assert rendering.masks is not None
    # Small masks lie within large ones: they come last.
    order = np.argsort([-int(plane.sum()) for plane in rendering.masks[i]])
    for k in order:
        mask = rendering.masks[i, int(k)].numpy()
        painted[mask] = (0.3 * picture[mask] + 0.7 * _tints(len(world.masks))[int(k)]).astype(np.uint8)
    if rendering.side is not None:
        right = rendering.side[i].numpy() == 2
        painted[right] = (0.6 * painted[right]).astype(np.uint8)
    both = Image.fromarray(np.concatenate([picture, painted], axis=1)).resize((2 * PANEL, PANEL))
    told = [name for name, yes in zip(world.characters, rendering.judgeable[i].tolist(), strict=True) if yes]
    pen = ImageDraw.Draw(both)
    for x, words in ((3, list(specimens.trait(i).values())), (PANEL + 3, told)):
        for line in range(0, len(words), 4):
            pen.text((x, 2 + 11 * (line // 4)), ", ".join(words[line : line + 4]), fill=(255, 255, 120))
    return both


@click.command()
@click.argument("group", type=click.Choice(list(ROOMS)))
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--count", default=16, show_default=True, help="Pictures.")
@click.option("--seed", default=1, show_default=True)
@click.option("--profile", default="plain", show_default=True, help="plain or photographs.")
@click.option("--view", default="whole", show_default=True, type=click.Choice(VIEWS))
@click.option("--size", default=384, show_default=True, help="Side of the rendered pictures.")
@click.option("--trait", "traits", multiple=True, metavar="CHARACTER=STATE", help="States that are fixed; may be repeated.")
def main(group: str, output: Path, count: int, seed: int, profile: str, view: str, size: int, traits: tuple[str, ...]) -> None:
    """Draws the sheet."""
    world = WORLDS[group]
    if output.suffix.lower() not in Image.registered_extensions():
        raise click.BadParameter(f"received {output.name!r}: expected a picture's name such as sheet.png.", param_hint="--output")
    fixed = dict(each.split("=", 1) for each in traits if "=" in each)
    if len(fixed) < len(traits):
        raise click.BadParameter(f"received {traits}: expected CHARACTER=STATE.")
    try:
        specimens = world.sample(count, seed, view=view, profile=profile, traits=fixed)  # type: ignore[arg-type]
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    rendering = world.render(specimens, size, masks=True)
    panels = [panel(world, specimens, rendering, i) for i in range(count)]
    sheet(panels, columns=2 if count < 9 else 4, titles=[""] * count, size=8).save(output)
    for name, tint in zip(world.masks, _tints(len(world.masks)), strict=True):
        click.echo(f"#{tint[0]:02x}{tint[1]:02x}{tint[2]:02x}  {name}")


if __name__ == "__main__":
    run_script(main)
