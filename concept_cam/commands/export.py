"""``concept-cam export``: an annotation run in the formats of other tools."""

from __future__ import annotations

from pathlib import Path

import click

from concept_cam.commands.console import PathName
from concept_cam.core.errors import ConfigurationError
from concept_cam.exports import EXPORTS

_FORMATS = "\b\nFormats:\n" + "\n".join(f"  {name:<21} {entry.description}" for name, entry in EXPORTS.items())

_EXAMPLES = """\b
Examples:
  concept-cam export run/ --to html --output sheet/
  concept-cam export run/ --to coco --output instances.json
  concept-cam export run/ --to darwin-core --base https://museum.org/photos/ --output measurements.csv"""


@click.command(
    short_help="Turn an annotation run into COCO, CVAT, Darwin Core, HTML and more.",
    epilog=f"{_FORMATS}\n\n{_EXAMPLES}",
)
@click.argument("run", type=PathName(path_type=Path))
@click.option(
    "--to",
    "to",
    required=True,
    type=click.Choice(list(EXPORTS)),
    metavar="FORMAT",
    help="One of the formats listed below.",
)
@click.option(
    "--output",
    "-o",
    required=True,
    type=PathName(path_type=Path),
    metavar="PATH",
    help="File or folder to write.",
)
@click.option("--uncorrected", is_flag=True, help="Leave out what people corrected on the page of 'concept-cam serve'.")
@click.option(
    "--corrections",
    type=PathName(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What people corrected, where 'concept-cam serve --corrections FILE' keeps it.  [default: corrections.sqlite in RUN]",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier export wrote there.")
@click.option("--base", metavar="URL", help="Put relative sources behind this address, where a format names the pictures.")
@click.option(
    "--escape/--no-escape",
    default=True,
    help="CSV: put an apostrophe before text that a spreadsheet would run as a formula. Default: --escape.",
)
@click.option("--mark/--no-mark", default=None, help="CSV: begin with the UTF-8 mark that spreadsheets look for. Default: only --to csv.")
def export(
    run: Path,
    to: str,
    output: Path,
    uncorrected: bool,
    corrections: Path | None,
    overwrite: bool,
    base: str | None,
    escape: bool,
    mark: bool | None,
) -> None:
    """Write the annotation run in folder RUN in another format.

    All coordinates refer to the upright picture: a tool that ignores the EXIF orientation of photographs must be told to apply it.
    """
    from concept_cam.exports import export as write

    if uncorrected and corrections is not None:
        raise ConfigurationError(f"--uncorrected leaves out what --corrections {str(corrections)!r} holds: give one of the two.")
    applied = not uncorrected if corrections is None else corrections
    click.echo(write(run, to, output, overwrite, base=base, escape=escape, mark=mark, corrections=applied))
