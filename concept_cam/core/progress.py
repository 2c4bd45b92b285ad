"""How far a long job is, as numbers and as a line of text."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Tracker", "clock"]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: Items dealt with, errors and those of earlier sessions included.
        total: Items in all, where that is known.
        errors: Items that could not be used.
        seconds: Since this session began.
        rate: Items per second of this session; 0 before the first.
        unit: What the items are called.
        extra: What else there is to say, such as the loss of a training.
    """

    done: int
    total: int | None
    errors: int
    seconds: float
    rate: float
    unit: str = "pictures"
    extra: str = ""

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
        extra = f", {self.extra}" if self.extra else ""
        return f"{self.done}{total} {self.unit}, {self.rate:.1f}/s{left}{errors}{extra}"


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
        total: Returns the items in all, or ``None`` while that is not known.
        done: Items of earlier sessions.
        errors: Errors of earlier sessions.
        unit: What the items are called.
    """

    def __init__(self, total: Callable[[], int | None], done: int = 0, errors: int = 0, unit: str = "pictures") -> None:
        self._total, self._before, self._done, self._errors, self._unit = total, done, 0, errors, unit
        self._start = time.monotonic()

    def add(self, items: int, errors: int, extra: str = "") -> Progress:
        """Counts items that were dealt with and returns where the job is."""
        self._done += items
        self._errors += errors
        seconds = time.monotonic() - self._start
        rate = self._done / seconds if seconds > 0 else 0.0
        return Progress(self._before + self._done, self._total(), self._errors, seconds, rate, self._unit, extra)
