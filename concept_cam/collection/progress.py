"""How far a long job is: numbers for programs, a line for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

__all__ = ["Progress", "ProgressLine", "Tracker", "clock"]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Pictures dealt with, errors and those of earlier sessions included.
        total: Pictures in all, where that is known.
        errors: Pictures and specimens that could not be used.
        seconds: Since this session began.
        rate: Pictures per second of this session; 0 before the first.
    """

    done: int
    total: int | None
    errors: int
    seconds: float
    rate: float

    @property
    def seconds_left(self) -> float | None:
        """Time left at this rate, where the total is known."""
        if self.total is None or self.rate <= 0:
            return None
        return max(0.0, (self.total - self.done) / self.rate)

    def __str__(self) -> str:
        total = f"/{self.total} ({100 * self.done / self.total:.0f} %)" if self.total else ""
        left = f", {clock(self.seconds_left)} left" if self.seconds_left is not None else ""
        errors = f", {self.errors} errors" if self.errors else ""
        return f"{self.done}{total} pictures, {self.rate:.1f} images/s{left}{errors}"


def clock(seconds: float | None) -> str:
    """Returns a duration as people read it: ``1:02:03`` or ``02:03``."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


class Tracker:
    """Counts and measures the rate of this session.

    Args:
        total: Returns the pictures in all, or ``None`` while that is not known.
        done: Pictures of earlier sessions.
        errors: Errors of earlier sessions.
    """

    def __init__(self, total: Callable[[], int | None], done: int = 0, errors: int = 0) -> None:
        self._total, self._before, self._done, self._errors = total, done, 0, errors
        self._start = time.monotonic()

    def add(self, pictures: int, errors: int) -> Progress:
        """Counts pictures that were dealt with and returns where the run is."""
        self._done += pictures
        self._errors += errors
        seconds = time.monotonic() - self._start
        rate = self._done / seconds if seconds > 0 else 0.0
        return Progress(self._before + self._done, self._total(), self._errors, seconds, rate)


class ProgressLine:
    """Shows progress: one line that is written over on a terminal, plain lines now and then in a log.

    Args:
        stream: Where to; standard error by default.
        every: Seconds between lines in a log.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 30.0) -> None:
        self._stream = stream or sys.stderr
        self._every = 0.2 if self._stream.isatty() else every
        self._last = time.monotonic() if not self._stream.isatty() else 0.0
        self._open = False

    def __call__(self, progress: Progress) -> None:
        """Shows where the run is, when it is time."""
        moment = time.monotonic()
        if moment - self._last < self._every:
            return
        self._last = moment
        if self._stream.isatty():
            share = 0.0 if not progress.total else min(1.0, progress.done / progress.total)
            bar = f"[{'#' * round(24 * share):<24}] " if progress.total else ""
            self._stream.write(f"\r\x1b[K{bar}{progress}")
            self._open = True
        else:
            self._stream.write(f"{progress}\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line on a terminal."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


ProgressCallback = Callable[[Progress], None]
