"""``concept-cam serve``: the page on which people try words, see where they lead, and correct what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from concept_cam.commands.console import PathName, note, warn
from concept_cam.commands.options import build_localizer, model_options, resolve, setting_options
from concept_cam.core.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from concept_cam.index.index import Index
    from concept_cam.localizer import Localizer


@click.command(short_help="Open a page to try words on pictures, correct calls and keep them.")
@click.argument("source", required=False, type=PathName(exists=True), metavar="[PHOTOS|RUN|INDEX]")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="Port; 0 takes any free one.")
@click.option(
    "--host", metavar="ADDRESS", help="Address to listen on, where other machines are to reach the page; everybody then needs a token."
)
@click.option("--token", metavar="TEXT", help="The token, at least 16 letters.  [default: a random one, printed at the start]")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer for this host name too, for example behind a tunnel. Repeat.")
@click.option(
    "--traits", multiple=True, metavar="PACK", help="Packs in which names are looked up first: shipped packs by name, or files. Repeat."
)
@click.option(
    "--corrections",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Where corrections are kept.  [default: corrections.sqlite in the folder]",
)
@click.option(
    "--memory",
    type=click.IntRange(min=16),
    default=1024,
    show_default=True,
    metavar="MIB",
    help="Memory for features of pictures already seen.",
)
@click.option(
    "--calibration",
    type=PathName(exists=True, dir_okay=False),
    metavar="FILE",
    help="Limits that the page or 'concept-cam calibrate' fitted: a pack's character is not called below them.  [default: as annotate]",
)
@click.option("--ahead/--no-ahead", default=True, show_default=True, help="Encode pictures while nobody waits.")
@click.option("--open/--no-open", "open_", default=False, help="Open the page in the browser.")
@model_options
@setting_options
def serve(
    source: str | None,
    port: int,
    host: str | None,
    token: str | None,
    allow_host: tuple[str, ...],
    traits: tuple[str, ...],
    corrections: str | None,
    memory: int,
    calibration: str | None,
    ahead: bool,
    open_: bool,
    **options: Any,
) -> None:
    """Serves a page: type a trait, see where it is, correct what is wrong, keep it.

    Give a folder of pictures, the folder of an annotation run (its calls are then corrected), a feature index, or nothing and drop pictures
    on the page. Everything stays on this machine. Corrections are saved at once, in one SQLite file beside the pictures; exports of the run
    apply them, and calibrate reads them. The same address is a machine-learning backend for Label Studio (/health, /setup, /predict), and
    its JSON API is described at /openapi.json.

    \b
    Examples:
      concept-cam serve photos/
      concept-cam serve run/ --open
      concept-cam serve photos/ --model hf-hub:imageomics/bioclip-2 --traits my-traits.yaml
      concept-cam serve photos/ --calibration limits.yaml
      concept-cam serve photos/ --host 0.0.0.0 --allow-host lab.example.org
    """
    try:
        import pyarrow  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "starlette", "serve", "the page") from error
    from concept_cam import prompts
    from concept_cam.collection.calls import Limits
    from concept_cam.collection.limits import read_limits
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery
    from concept_cam.serve.server import bind, make_server, plan_address

    listener, address = bind(plan_address(host, port, token, allow_host))
    with listener:
        packs = [prompts.load_pack(spec) for spec in traits]
        fitted = None if calibration is None else read_limits(calibration)
        values = resolve(options)
        if values.get("method", "direct") != "direct":
            raise ConfigurationError("the page answers with the direct method alone: leave method out of the configuration.")
        gallery = open_gallery(source, max_pixels=values.get("max_pixels", 200_000_000))
        if gallery.index is None:
            localizer = build_localizer(values)
        else:
            localizer = _localizer_of(gallery.index, values)
        limits = Limits()
        if fitted is not None:
            fitted.check_model(localizer)
            limits = limits.with_calibration(fitted)
        desk = Desk(localizer, gallery, corrections=corrections, packs=packs, memory=memory * 2**20, limits=limits)
        desk.corrections.check()
        desk.warm_up()
        if ahead:
            desk.encode_ahead()
        note(f"concept-cam: {len(gallery)} pictures of {gallery.title!r}, model {desk.localizer.backbone.name!r}; Ctrl+C ends it.")
        if gallery.absent:
            warn(f"{len(gallery.absent)} more of the run are not where they were and are not shown, the first {gallery.absent[0]!r}.")
        if desk.other_weights is not None:
            warn(desk.other_weights)
        click.echo(address.url)
        if open_:
            click.launch(address.url)
        make_server(desk, address).run(sockets=[listener])
        desk.close()


def _localizer_of(index: Index, values: dict[str, Any]) -> Localizer:
    """Loads the model of an index, to read as the index was made.

    Raises:
        ConfigurationError: The options read pictures in another way.
    """
    from concept_cam.index.index import READING_SETTINGS

    # How large pictures may be that are shown is no matter of the features.
    asked = {name: values[name] for name in READING_SETTINGS if name in values and name != "max_pixels"}
    own = {name: value for name in READING_SETTINGS if (value := getattr(index.settings, name)) is not None}
    return index.localizer(build_localizer({"model": index.model, **values, **own}), **asked)
