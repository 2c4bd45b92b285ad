"""The ``concept-cam`` command: a group whose commands are imported only when they are used.

Listing the commands loads neither torch nor numpy, so that ``--help`` and shell completion answer at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import Any, NoReturn


class _Interrupts:
    """Ctrl-C is one line and status 130 from the first moment on: while modules are imported it would end in tracebacks, or be taken for
    something else.
    """

    def __init__(self) -> None:
        self.running = self.seen = False

    def watch(self) -> None:
        """Takes over Ctrl-C where nobody has, in a process that is this command."""
        ours = os.path.basename(sys.argv[0]).startswith(("concept-cam", "cli.py", "-m"))
        mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours and mine:
            signal.signal(signal.SIGINT, self._take)

    def _take(self, _number: int, _frame: Any) -> None:
        if not self.running:
            self.end()
        self.seen = True
        raise KeyboardInterrupt

    def end(self) -> NoReturn:
        """Says so and ends the process, before anything half imported can object."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os.write(2, b"concept-cam: interrupted.\n")
        os._exit(130)


_interrupts = _Interrupts()
_interrupts.watch()


import click  # noqa: E402

from concept_cam import __version__  # noqa: E402
from concept_cam.core.registry import Entry, described  # noqa: E402

COMMANDS: dict[str, Entry] = {
    "locate": Entry("concept_cam.commands.locate:locate", "Show where a concept is in pictures, as opposed to its look-alikes."),
    "annotate": Entry("concept_cam.commands.annotate:annotate", "Annotate a whole collection with trait packs; survives interruptions."),
    "serve": Entry("concept_cam.commands.serve:serve", "Open a page to try words on pictures, correct calls and keep them."),
    "index": Entry("concept_cam.commands.index:index", "Encode a collection once; its features are kept."),
    "query": Entry("concept_cam.commands.index:query", "Rank the pictures of an index by concepts, in seconds."),
    "export": Entry("concept_cam.commands.export:export", "Turn an annotation run into COCO, CVAT, Darwin Core, HTML and more."),
    "prompts": Entry("concept_cam.commands.prompts:prompts", "List, show, check and start trait packs."),
    "models": Entry("concept_cam.commands.models:models", "List the models that can be loaded; check that weights are loaded right."),
    "demo": Entry("concept_cam.commands.demo:demo", "Run the bundled example: fish, fins and a picture to look at."),
    "evaluate": Entry("concept_cam.commands.evaluate:evaluate", "Measure methods on a data set with part masks."),
    "sweep": Entry("concept_cam.commands.evaluate:sweep", "Search the best settings on labelled or unlabelled pictures."),
    "calibrate": Entry("concept_cam.commands.calibrate:calibrate", "Fit abstention limits, rules of trust and guarantees."),
    "fit-head": Entry("concept_cam.commands.fit:fit_head", "Train a linear classifier head on a folder of class folders."),
    "fit-attention": Entry("concept_cam.commands.fit:fit_attention", "Train a learned single-pass explainer (L-CAM)."),
}
"""Every command: where it is defined and what it does, in one line."""


OLD_SPELLINGS: dict[tuple[str, str], str] = {
    ("annotate", "-t"): "--traits",
    ("calibrate", "--target"): "--accuracy",
    ("locate", "--limits"): "--colour-scale",
    ("prompts", "--limit"): "--least-distance",
}
"""Options that had another name, by command; they work, with a notice, until the release after 0.2."""


def _today(args: list[str]) -> list[str]:
    """Puts the names of today in place of options' old ones, and says so."""
    if not args:
        return args
    translated = args[:1]
    for position, text in enumerate(args[1:], 1):
        if text == "--":
            return [*translated, *args[position:]]
        name, equals, value = text.partition("=") if text.startswith("--") else (text[:2], "", text[2:])
        new = OLD_SPELLINGS.get((args[0], name))
        if new is None:
            translated.append(text)
            continue
        click.echo(f"concept-cam: note: {name} of {args[0]!r} is called {new} now; the old spelling goes after release 0.2.", err=True)
        translated += [new, value] if value and not equals else [new + equals + value]
    return translated


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is looked up, and lists commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the command names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in COMMANDS:
            return None
        from concept_cam.commands.console import add_options

        command = COMMANDS[cmd_name].load()
        assert isinstance(command, click.Command)
        return add_options(command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Names the nearest command when one is mistyped."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from concept_cam.core.names import did_you_mean

            hint = did_you_mean(args[0], COMMANDS)
            ctx.fail(f"unknown command {args[0]!r}.{hint} Known: {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, _today(args))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the table of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(described(COMMANDS))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Prints help and version, whose output may go to a full disk as well."""
        try:
            return super().parse_args(ctx, args)
        except OSError as error:
            self._explain(error)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Turns the package's errors into one line on stderr and exit status 2, and its warnings into plain lines."""
        from concept_cam.commands.console import notices

        _interrupts.running = True
        try:
            with notices():
                return super().invoke(ctx)
        except BaseException as error:
            if _interrupts.seen and not isinstance(error, SystemExit):
                _interrupts.end()
            return self._explain(error)
        finally:
            _interrupts.running = False

    def _explain(self, problem: BaseException) -> Any:
        try:
            raise problem
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            # The reader of our output went away (``| head``): not an error, but nothing more can be printed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        except Exception as error:
            from concept_cam.commands.console import refused_by_system, warn
            from concept_cam.core.errors import ConceptCamError

            ours = isinstance(error, ConceptCamError)
            text = str(error) if ours else refused_by_system(error) if isinstance(error, OSError) else None
            if text is None:
                raise
            warn(f"error: {text}")
            sys.exit(2)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Each command has its own help with examples: concept-cam COMMAND --help",
)
@click.version_option(__version__, "-V", "--version", prog_name="concept-cam")
def main() -> None:
    """Name a trait and its look-alikes in words; see where it is in the picture.

    \b
    Examples:
      concept-cam demo
      concept-cam locate fish.png --target "a forked tail fin" --contrast "a rounded tail fin" -o out/
      concept-cam annotate photos/ --traits fish -o run/
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Species names are not ASCII; a pipe must carry them whatever the locale says.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape" if stream is sys.stdin else "replace")


if __name__ == "__main__":
    main()
