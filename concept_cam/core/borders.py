"""Where the front part of a body ends, read off the score maps of its parts in several ways. Plain numpy.

A border between two parts' regions says where it is, not how sure that is. Read in other ways, off the same maps, it comes out elsewhere:
near by where the maps are clear, far off where they are not. So the spread of the readings belongs to the uncertainty of a length that ends
there. None of the readings is nearer to the truth than the regions' own border (tried on rendered fish); how far they lie apart tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from concept_cam.core.frame import BodyFrame

__all__ = ["border_readings"]

Profile = npt.NDArray[np.float64]

_ACROSS = np.linspace(-0.9, 0.9, 13)
"""Places across the body where maps are read, in shares of its half width."""

_MIDDLE = 0.45
"""Half width, in the same shares, of the band about the middle where a cover's end is looked for: it is rounded and ends earlier beside."""

_REACH = 0.65
"""Share of the body's length behind its front end within which the border is looked for."""

_COVER = 0.5
"""Share of its highest value down to which a cover reaches."""


def border_readings(
    frame: BodyFrame, heats: Mapping[str, np.ndarray], front: str = "head", trunk: str = "trunk", cover: str = "operculum"
) -> tuple[float, ...]:
    """Reads in several ways where the front part ends along the midline.

    Args:
        frame: The body's frame, in the pixels of the maps.
        heats: Part -> float [H, W], scores; NaN where nothing may be read. Other parts than the three are not looked at.
        front: Name of the part at the front end.
        trunk: Name of what lies behind it.
        cover: Name of what the front part ends with (the gill cover of a fish).

    Returns:
        Places along the midline, pixels, each only where it can be read: where the maps of front part and trunk, each in shares of its
        peak, divide the body best; the same for the scores as they are; and the hind edge of the cover.
    """
    end = frame.end if frame.base is None else frame.base
    rows = np.arange(np.ceil(frame.front), min(frame.front + _REACH * (end - frame.front), len(frame.low) - 1))
    known = np.flatnonzero(np.isfinite(frame.low) & np.isfinite(frame.high))
    if len(rows) < 2 or not len(known):
        return ()
    low, high = (np.interp(rows, known, side[known]) for side in (frame.low, frame.high))
    points = frame.at(np.repeat(rows[:, None], len(_ACROSS), axis=1), 0.5 * (low + high)[:, None] + 0.5 * (high - low)[:, None] * _ACROSS)
    found: list[float] = []
    if front in heats and trunk in heats:
        before, behind = (_read(heats[name], points).mean(axis=1) for name in (front, trunk))
        peaks = [_peak(heats[name]) for name in (front, trunk)]
        if peaks[0] > 0 and peaks[1] > 0:
            found += [_parting(rows, before / peaks[0] - behind / peaks[1]), _parting(rows, before - behind)]
    if cover in heats:
        edge = _hind_edge(rows, _read(heats[cover], points[:, np.abs(_ACROSS) <= _MIDDLE]).mean(axis=1))
        found += [] if edge is None else [edge]
    return tuple(found)


def _peak(heat: np.ndarray) -> float:
    """The highest score; NaN where nothing may be read."""
    return float(np.fmax.reduce(heat, axis=None))


def _read(heat: np.ndarray, points: Profile) -> Profile:
    """A map at points ``(x, y)`` [..., 2], between the centres of its pixels; 0 where nothing may be read."""
    from scipy.ndimage import map_coordinates

    found = map_coordinates(heat, [points[..., 1] - 0.5, points[..., 0] - 0.5], output=np.float64, order=1, mode="nearest")
    return np.asarray(np.nan_to_num(found))


def _parting(rows: Profile, lead: Profile) -> float:
    """The place before which `lead` sums to the most, and behind which to the least; between two rows, where it crosses zero."""
    number = int(np.concatenate([[0.0], np.cumsum(lead)]).argmax())
    if not 0 < number < len(rows):
        return float(rows[min(number, len(rows) - 1)])
    # The sum is highest here, so the lead is positive before, and not after.
    return float(rows[number - 1] + lead[number - 1] / max(lead[number - 1] - lead[number], 1e-12))


def _hind_edge(rows: Profile, values: Profile) -> float | None:
    """Where a profile falls to a share of its highest value behind it; ``None`` where it never does, or is nowhere positive."""
    top = int(values.argmax())
    level = _COVER * values[top]
    under = np.flatnonzero(values[top:] < level)
    if values[top] <= 0 or not len(under):
        return None
    last = top + int(under[0])
    return float(rows[last - 1] + (values[last - 1] - level) / (values[last - 1] - values[last]))
