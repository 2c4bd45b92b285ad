"""What every command says beside its results: notes, warnings, how far it is, and tables. Results go to stdout, all else to stderr."""

from __future__ import annotations

import argparse
import datetime
import errno
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from concept_cam.core.errors import ConceptCamError, OutputError
from concept_cam.core.progress import Progress, Tracker
from concept_cam.pictures.pages import FirstPages, FirstPageWarning

__all__ = [
    "DETAIL",
    "NOTE",
    "WARNING",
    "ProgressDisplay",
    "above_zero",
    "add_options",
    "at_least",
    "at_least_one",
    "detail",
    "existing",
    "interactive",
    "note",
    "notices",
    "print_table",
    "refused_by_system",
    "run_script",
    "track",
    "warn",
]

T = TypeVar("T")

DETAIL, NOTE, WARNING = 0, 1, 2
"""How much a line matters: ``-v`` shows all, the default what is worth a note, ``-q`` warnings and errors alone."""

_LEAST = "concept_cam.least"
_LOG = "concept_cam.log"

# ------------------------------------------------------------------------------------------------------------------ lines


def detail(text: str) -> None:
    """Says on stderr what only ``-v`` shows."""
    _say(text, DETAIL)


def note(text: str) -> None:
    """Says a line on stderr, away from the results."""
    _say(text, NOTE)


def warn(text: str) -> None:
    """Says on stderr what must be read, ``-q`` or not; ``concept-cam:`` stands before it."""
    _say(f"concept-cam: {text}", WARNING)


@contextmanager
def notices() -> Iterator[None]:
    """Prints what the package wants to be noticed (Python's warnings) as plain lines of a command or script, when it is said; of pictures
    with several pages once, at the end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        shown = warnings.showwarning
        said: set[str] = set()
        pages = FirstPages()

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, UserWarning):
                shown(message, category, *place, **more)
            elif str(message) not in said:  # a picture may be read more than once
                said.add(str(message))
                if isinstance(message, FirstPageWarning):
                    pages.add(message.name)
                else:
                    warn(f"note: {message}")

        warnings.showwarning = show
        try:
            yield
        finally:
            if text := pages.text():
                warn(f"note: {text}")


def _say(text: str, level: int) -> None:
    if level >= _meta(_LEAST, NOTE):
        click.echo(text, err=True)
    log: _Log | None = _meta(_LOG, None)
    if log is not None:
        log.write(text)


def _meta(name: str, otherwise: Any) -> Any:
    context = click.get_current_context(silent=True)
    return otherwise if context is None else context.meta.get(name, otherwise)


def at_least(least: int) -> Callable[[str], int]:
    """Returns what reads how many of something a script is to take, as a type for ``argparse``.

    It raises an ``ArgumentTypeError`` for what is no whole number, or less than ``least``.
    """

    def read(text: str) -> int:
        try:
            count = int(text)
        except ValueError:
            count = least - 1
        if count < least:
            raise argparse.ArgumentTypeError(f"received {text!r}: expected a whole number of at least {least}.")
        return count

    return read


at_least_one = at_least(1)


def above_zero(text: str) -> float:
    """Reads how much of something a script is to take, as a type for ``argparse``.

    Raises:
        ArgumentTypeError: It is no number above 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"received {text!r}: expected a number above 0.")
    return value


def existing(text: str) -> Path:
    """A folder that is there, as a type for ``argparse``.

    Raises:
        ArgumentTypeError: It is not.
    """
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}. Check the path.")
    return path


def run_script(main: Callable[[], object]) -> None:
    """Runs the main function of a script: a wrong input ends it as it ends a command, in one sentence on stderr and status 2.

    So does a file or folder that cannot be read or written, and a process that the script started and that failed, whose words stand above.

    What the package wants to be noticed is a plain line on stderr too.

    Args:
        main: What the script does; it reads the command line itself.
    """
    name = Path(sys.argv[0]).name
    try:
        with notices():
            main()
    except ConceptCamError as error:
        click.echo(f"{name}: error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if (text := refused_by_system(error)) is None:
            raise
        click.echo(f"{name}: error: {text}", err=True)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        click.echo(f"{name}: error: a step ended with status {error.returncode}; what it said stands above.", err=True)
        sys.exit(2)


def refused_by_system(error: OSError) -> str | None:
    """Says in one sentence which file or folder the operating system refused, and why; ``None`` for what is about neither.

    Args:
        error: What was raised; of output that goes to a full disk it names no file.
    """
    if error.strerror is None:
        return None
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)!r} cannot be used: {error.strerror}. Check the path."
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"what is printed cannot be written: {error.strerror}. Free some room." if error.errno in full else None


def interactive() -> bool:
    """Tells whether a person watches stderr."""
    return sys.stderr.isatty()


# ---------------------------------------------------------------------------------------------------------------- options


def _loudness(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_LEAST] = DETAIL if parameter.name == "verbose" else WARNING


class _Log:
    """The file of ``--log-file``. One that cannot be written any more, as on a full disk, is given up with a word: the work goes on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stream: TextIO | None = Path(path).open("a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def write(self, text: str) -> None:
        if self._stream is None:
            return
        moment = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            self._stream.write(f"{moment}  {text}\n")
            self._stream.flush()
        except OSError as error:
            self.close()
            warn(
                f"note: the log {self._path!r} cannot be written: {error.strerror or error}. "
                "The work goes on, and what is said from here on is not in the log."
            )

    def close(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # It flushes what could not be written.
                self._stream.close()
            self._stream = None


def _log_file(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    try:
        log = _Log(value)
    except OSError as error:
        raise OutputError(f"cannot write the log {value!r}: {error.strerror or error}. Choose another --log-file.") from error
    context.call_on_close(log.close)
    context.meta[_LOG] = log
    log.write(f"$ {' '.join(sys.argv)}")


def _options() -> tuple[click.Option, ...]:
    return (
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_loudness,
            help="Print more: what is loaded, and how long it takes.",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_loudness, help="Print only warnings and errors."),
        click.Option(
            ["--log-file"],
            type=PathName(dir_okay=False),
            metavar="FILE",
            expose_value=False,
            callback=_log_file,
            help="Append all messages to this file, with the time.",
        ),
    )


def add_options(command: click.Command) -> click.Command:
    """Gives a command, and every command of a group, the options ``-v``, ``-q`` and ``--log-file``."""
    if not any(parameter.name == "verbose" for parameter in command.params):
        command.params.extend(_options())
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            add_options(inner)
    return command


class PathName(click.Path):
    """The name of a file or a folder. A blank one, as an unset variable of the shell leaves it, would mean the folder one is in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reads and checks the name."""
        if isinstance(value, str) and not value.strip():
            kind = " or ".join(name for name, okay in (("file", self.file_okay), ("folder", self.dir_okay)) if okay)
            advice = "" if param is None or param.required else "; leave it out for the default"
            self.fail(f"received {value!r}: expected the name of a {kind}{advice}. Is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)


# --------------------------------------------------------------------------------------------------------------- progress


class ProgressDisplay:
    """Shows how far a job is: a bar on a terminal, a line now and then in a log; nothing when asked to be quiet.

    Args:
        every: Seconds between lines in a log.
    """

    def __init__(self, every: float = 30.0) -> None:
        self._every = every
        self._last = time.monotonic()
        self._bar: Any = None
        self._quiet = _meta(_LEAST, NOTE) > NOTE

    def __call__(self, progress: Progress) -> None:
        """Shows where the job is, when it is time."""
        if self._quiet:
            return
        if interactive():
            if self._bar is None:
                self._bar = _rich_bar()
                self._bar.start()
                self._bar.add_task("", total=progress.total)
            self._bar.update(self._bar.task_ids[0], completed=progress.done, total=progress.total, description=str(progress))
            return
        moment = time.monotonic()
        if moment - self._last >= self._every:
            self._last = moment
            note(str(progress))

    def close(self) -> None:
        """Ends the bar on a terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _rich_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(BarColumn(bar_width=24), TextColumn("{task.description}", markup=False), console=Console(stderr=True))


def track(items: Iterable[T], total: int | None, unit: str = "pictures") -> Iterator[T]:
    """Yields the items and shows how far they are, with rate and time left; a single one is not worth a word.

    Args:
        items: What is worked on.
        total: How many there are, where that is known.
        unit: What they are called.
    """
    if total == 1:
        yield from items
        return
    display, tracker = ProgressDisplay(), Tracker(lambda: total, unit=unit)
    try:
        for item in items:
            yield item
            display(tracker.add(1, 0))
    finally:
        display.close()


# ----------------------------------------------------------------------------------------------------------------- tables


def print_table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), *, indent: int = 0) -> None:
    """Prints aligned columns on stdout; the last one is wrapped under itself where the terminal is too narrow.

    Args:
        rows: Cells.
        head: Names of the columns; none for a table without a head.
        indent: Spaces before every line.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(head))
    columns = len(head) or max((len(row) for row in rows), default=0)
    for position in range(columns):
        last = position == columns - 1
        table.add_column(Text(head[position]) if head else "", no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A pipe has no width: nothing is wrapped there, so that the next program finds one row on one line.
    width = None if sys.stdout.isatty() else 100_000
    console = Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False)
    with console.capture() as captured:
        console.print(Padding(table, (0, 0, 0, indent)))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
