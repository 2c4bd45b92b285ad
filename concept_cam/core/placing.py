"""Places within a body: the *left* fore wing, the *rear* dorsal fin. Told by geometry, from maps of parts; plain numpy.

A model of pictures and words does not know left from right. What it does know is parts. From where these lie follows how the body lies
(:func:`orient`): which way its head points, and whether it is seen from above, from below or from the side. From that follows which pixels
of a part's map are meant (:func:`resolve`).

Left is the animal's own left where its head and its upper side are known. Where only the head is known, left is that of a viewer who turns
the picture until the head points up; where nothing is known, left is left in the picture. The answer says which it was. Nothing is guessed:
where a place cannot be told, the answer says why.

Directions are unit vectors ``(x, y)`` in pixels, y down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from concept_cam.core.frame import BodyFrame, body_frame, exclusive_masks

__all__ = ["BODY_VIEWS", "LEFT_OF", "ORDER", "PLACES", "SIDES", "BodyPlan", "Orientation", "Place", "orient", "part_masks", "resolve"]

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

SIDES: dict[str, int] = {"left": 1, "right": -1}
"""Places on one of two sides."""

ORDER: dict[str, int] = {"front": 0, "rear": -1, "first": 0, "second": 1, "last": -1}
"""Places in the order from the front to the rear: which of the pieces is meant."""

_NEEDS_TWO = ("front", "rear", "second")
"""Places that mean nothing where there is one piece only."""

PLACES: dict[str, str] = {
    "left": "the one on the left: the animal's own where its head and upper side are known, else the viewer's",
    "right": "the one on the right",
    "front": "of several, the one nearest to the front",
    "rear": "of several, the one nearest to the rear",
    "first": "the first from the front; the only one where there is one",
    "second": "the second from the front",
    "last": "the last from the front; the only one where there is one",
}
"""Places by name, and what each means."""

BODY_VIEWS: dict[str, str] = {
    "above": "its upper side faces the camera",
    "below": "its under side faces the camera",
    "beside": "its left or its right side faces the camera",
}
"""How a body can be seen."""

LEFT_OF: dict[str, str] = {
    "animal": "the animal's own",
    "viewer, head up": "the viewer's, with the head turned up: whether the upper side is seen is not known",
    "viewer": "the viewer's, as the picture is: where the head is is not known",
    "": "no left or right was asked for",
}
"""Whose left and right a place speaks of."""

BOTH_SIDES = 0.2
"""Least share of a paired part's area on the weaker side of the body, where both sides are seen."""

_SPECK = 0.15
"""Share of the largest piece's area under which a piece is a speck."""

_WHOLLY = 0.85
"""Share of a piece's area on one side of the body from which the whole piece belongs to that side."""

_PRESENT = 0.35
"""Share of a map's peak that the asked side must reach: below it there is none on that side."""

_MARGIN = 0.5
"""Room beside a body, in shares of how far its paired part reaches on the other side, under which that side may be out of the picture."""

_AGREED = 0.95
"""How far parts behind each other agree where none of them is out of place."""

_CLEAR = 0.5
"""Share of a map's peak from which a piece counts."""

_FAINT = 0.3
"""The same where two are asked for and one alone is clear. Chosen, with the next, on rendered fish with one and with two dorsal fins."""

_FAINT_SPECK = 0.3
"""Share of the largest piece's area under which a faint piece is a speck: edges of a fin and an adipose fin are smaller."""

_VALLEY = 0.15
"""Depth of the valley between two pieces of a map, in shares of its peak, from which they are two."""


@dataclass(frozen=True)
class BodyPlan:
    """Which parts tell how a host lies; names of parts.

    Attributes:
        along: Parts on the midline, in order from the front to the rear.
        sides: Parts of which there is one on either side, such as wings; in order from the front to the rear.
        upper: Parts on the upper side, seen from beside.
        lower: Parts on the under side, seen from beside.
        from_above: Parts that are only seen from above.
        from_below: Parts that are only seen from below.
        view: A key of :data:`BODY_VIEWS` where all pictures show the host so: pinned insects from above, butterflies at rest, their
            wings closed, from beside; else empty.
    """

    along: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    upper: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    from_above: tuple[str, ...] = ()
    from_below: tuple[str, ...] = ()
    view: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that is named, once."""
        groups = [getattr(self, item.name) for item in fields(self) if item.name != "view"]
        return tuple(dict.fromkeys(name for group in groups for name in group))


@dataclass(frozen=True)
class Orientation:
    """How a body lies in a picture.

    Attributes:
        ahead: float64 [2], unit vector to the front; ``None`` where it cannot be told.
        origin: float64 [2], a point of the body's axis, pixels.
        view: A key of :data:`BODY_VIEWS`; empty where it cannot be told.
        across: Whether both sides of the body are seen, from above or from below.
        up: float64 [2], unit vector to the upper side, in a view from beside; ``None`` elsewhere.
        told_by: Parts that it was told by.
        midline: The midline of a body whose parts give one; ``None`` elsewhere.
    """

    ahead: Points | None
    origin: Points
    view: str = ""
    across: bool = False
    up: Points | None = None
    told_by: tuple[str, ...] = ()
    midline: BodyFrame | None = field(default=None, repr=False)

    @property
    def left(self) -> Points | None:
        """Unit vector to the animal's own left in the picture; ``None`` where it points away or cannot be told."""
        if self.ahead is None or self.view not in ("above", "below"):
            return None
        return _left_of(self.ahead) if self.view == "above" else -_left_of(self.ahead)

    @property
    def facing(self) -> str:
        """Which side of the animal faces the camera, ``"left"`` or ``"right"``; empty where it cannot be told."""
        if self.ahead is None or self.up is None or self.view != "beside":
            return ""
        return "left" if self.ahead[0] * self.up[1] - self.ahead[1] * self.up[0] > 0 else "right"

    @property
    def heading(self) -> float | None:
        """Where the head points, degrees counter-clockwise from the right, in (-180, 180]."""
        return None if self.ahead is None else float(np.degrees(np.arctan2(-self.ahead[1], self.ahead[0])))

    def along(self, points: Points) -> Points:
        """Returns how far from the front points ``(x, y)`` [M, 2] lie, float64 [M], rising to the rear."""
        if self.midline is not None:
            return self.midline.coordinates(points)[0]
        assert self.ahead is not None
        return np.asarray(-(points - self.origin) @ self.ahead)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {"heading_deg": self.heading, "view": self.view, "facing": self.facing, "told_by": list(self.told_by)}


@dataclass(frozen=True)
class Place:
    """What became of a place that was asked for.

    Attributes:
        where: A key of :data:`PLACES`.
        resolved: Whether it could be told; else the map is that of the part, wherever it is.
        left_of: A key of :data:`LEFT_OF`.
        reason: How it was told, or why it could not be, in one sentence.
        orientation: How the body lies, as far as it is known.
    """

    where: str
    resolved: bool
    left_of: str
    reason: str
    orientation: Orientation

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "where": self.where,
            "resolved": self.resolved,
            "left_of": self.left_of,
            "reason": self.reason,
            **self.orientation.to_dict(),
        }


def part_masks(heats: Mapping[str, np.ndarray]) -> dict[str, Mask]:
    """Shares the pixels of a picture out among parts of which there may be several; see :func:`concept_cam.core.frame.exclusive_masks`.

    Args:
        heats: Part -> float32 [H, W], scores; NaN where nothing may be read.
    """
    return exclusive_masks(heats, least=_SPECK)


# ----------------------------------------------------------------------------------------------------------------- orient


def orient(parts: Mapping[str, Mask], plan: BodyPlan, size: tuple[int, int] | None = None) -> Orientation:
    """Tells how a body lies.

    Args:
        parts: Part -> bool [H, W] of those that were found; a part that was not is missing or empty.
        plan: What the parts say.
        size: ``(H, W)`` of the picture; needed where no part was found.

    Returns:
        As much as can be told.
    """
    there = {name: _pixels(mask) for name, mask in parts.items() if name in plan.parts and mask.any()}
    shape = size or (next(iter(parts.values())).shape if parts else (1, 1))
    middles = {name: (points.mean(axis=0), float(len(points))) for name, points in there.items()}
    ahead, told_by = _ahead(middles, plan)
    on_axis = [middles[name] for name in plan.along if name in middles] or [middles[name] for name in plan.sides if name in middles]
    if not on_axis:
        return Orientation(None, np.array([shape[1] / 2, shape[0] / 2]), plan.view)
    weights = np.array([weight for _, weight in on_axis])
    origin = np.asarray(np.stack([middle for middle, _ in on_axis]).T @ weights / weights.sum())
    if ahead is None:
        return Orientation(None, origin, plan.view, told_by=told_by)
    view, across, up, by = _view(there, plan, ahead, origin, shape)
    midline = _midline(parts, plan)
    return Orientation(ahead, origin, view, across, up, tuple(dict.fromkeys((*told_by, *by))), midline)


def _ahead(middles: Mapping[str, tuple[Points, float]], plan: BodyPlan) -> tuple[Points | None, tuple[str, ...]]:
    """Which way the front is, and the parts that say so."""
    for names in (plan.along, plan.sides):
        known = tuple(name for name in names if name in middles)
        way, agreed = _vote(middles, known)
        # One part of several may have been taken for what it is not: the tails of wings for antennae.
        if len(known) >= 4 and agreed < _AGREED:
            without = {left_out: _vote(middles, tuple(name for name in known if name != left_out)) for left_out in known}
            left_out = max(without, key=lambda name: without[name][1])
            if without[left_out][1] >= max(_AGREED, agreed):
                way, agreed = without[left_out]
                known = tuple(name for name in known if name != left_out)
        # Parts that contradict each other say nothing.
        if way is not None and agreed >= 0.5:
            return way, known
    return None, ()


def _vote(middles: Mapping[str, tuple[Points, float]], known: Sequence[str]) -> tuple[Points | None, float]:
    """Every two parts that lie behind each other say where the front is, the larger ones louder: the way, and how far they agree, 0..1."""
    votes = [
        (np.sqrt(middles[first][1] * middles[second][1]), middles[first][0] - middles[second][0])
        for number, first in enumerate(known)
        for second in known[number + 1 :]
    ]
    said = sum(weight * float(np.linalg.norm(way)) for weight, way in votes)
    if not said > 0:
        return None, 0.0
    total = np.sum([weight * way for weight, way in votes], axis=0)
    length = float(np.linalg.norm(total))
    return (np.asarray(total / length) if length > 0 else None), length / said


def _view(
    there: Mapping[str, Points], plan: BodyPlan, ahead: Points, origin: Points, shape: tuple[int, ...]
) -> tuple[str, bool, Points | None, tuple[str, ...]]:
    """How the body is seen, whether both of its sides are, where up is, and what says so."""
    left = _left_of(ahead)
    offsets = {name: (there[name] - origin) @ left for name in plan.sides if name in there}
    weaker = {name: min(float((values > 0).mean()), float((values < 0).mean())) for name, values in offsets.items()}
    across = bool(weaker) and max(weaker.values()) >= BOTH_SIDES
    by = tuple(offsets)
    if plan.view in ("above", "below"):
        return plan.view, across, None, by
    if across and plan.view != "beside":
        seen = [
            (view, [name for name in names if name in there]) for view, names in (("above", plan.from_above), ("below", plan.from_below))
        ]
        told = [(view, names) for view, names in seen if names]
        # Where parts of both sides are there, one of them is not what it seems.
        return (told[0][0], True, None, (*by, *told[0][1])) if len(told) == 1 else ("", True, None, by)
    up, told_up = _up(there, plan, left, origin)
    if up is None and offsets:
        values = np.concatenate(list(offsets.values()))
        sign = 1.0 if float(np.median(values)) > 0 else -1.0
        reach = float(np.quantile(np.abs(values), 0.95))
        # Wings on one side only stand up over the back; or the others are out of the picture.
        if plan.view == "beside" or _room(origin, -sign * left, shape) >= _MARGIN * reach:
            up, told_up = sign * left, by
    if up is None:
        return plan.view, False, None, by
    return "beside", False, up, (*by, *told_up)


def _up(there: Mapping[str, Points], plan: BodyPlan, left: Points, origin: Points) -> tuple[Points | None, tuple[str, ...]]:
    """Unit vector to the upper side across the axis, by the parts on the upper and on the under side."""
    sums: list[tuple[float, float]] = []
    by: list[str] = []
    for names, sign in ((plan.upper, 1.0), (plan.lower, -1.0)):
        for name in names:
            if name in there:
                sums.append((sign * float(((there[name] - origin) @ left).mean()), float(len(there[name]))))
                by.append(name)
    total = sum(offset * np.sqrt(size) for offset, size in sums)
    said = sum(abs(offset) * np.sqrt(size) for offset, size in sums)
    if not sums or said <= 0 or abs(total) < 0.5 * said:
        return None, ()
    return (left if total > 0 else -left), tuple(by)


def _room(origin: Points, way: Points, shape: tuple[int, ...]) -> float:
    """Pixels from a point to the edge of the picture along a direction."""
    far = [
        (limit - at) / step if step > 0 else at / -step for at, step, limit in zip(origin, way, (shape[1], shape[0])) if abs(step) > 1e-9
    ]
    return float(min(far))


def _midline(parts: Mapping[str, Mask], plan: BodyPlan) -> BodyFrame | None:
    """The midline of a body of three parts behind each other, which may be bent."""
    if len(plan.along) != 3 or plan.sides:
        return None
    front, trunk, rear = (parts.get(name) for name in plan.along)
    return None if front is None or rear is None else body_frame(front, trunk, rear)


# ---------------------------------------------------------------------------------------------------------------- resolve


def resolve(
    where: str, heat: np.ndarray, lies: Orientation, plan: BodyPlan, part: str = "", others: Mapping[str, Mask] | None = None
) -> tuple[Place, Mask | None]:
    """Tells which pixels of a part's map are meant by a place.

    Args:
        where: A key of :data:`PLACES`.
        heat: float [H, W], the part's map, in the frame of ``lies``; NaN where nothing may be read. A mask is a map of zeros and ones.
        lies: How the body lies.
        plan: What the parts say.
        part: Name of the part, where the plan may name it.
        others: Other part -> bool [H, W], its pixels: a hill of the map that lies on them is none of this part. What a part of the under
            side has on the upper side does not count, and the other way round.

    Returns:
        What became of it, and bool [H, W]: the pixels that belong to the place, those around the part included; ``None`` where it could not
        be told.
    """
    heat = np.where(np.isfinite(heat), heat, -np.inf)
    sided = (*plan.upper, *plan.lower)
    above = _above(lies, heat.shape) > 0 if lies.up is not None and part in sided else None
    foreign = np.zeros(heat.shape, dtype=bool)
    for name, mask in (others or {}).items():
        # What is on the back is no anal fin, and takes nothing from a dorsal fin.
        foreign |= mask if above is None or name not in sided else mask & (above == (name in plan.upper))
    if above is not None:
        foreign |= above != (part in plan.upper)  # What is on the belly is no dorsal fin.
    own = np.where(foreign, -np.inf, heat)
    if not heat.size or not float(own.max()) > 0:
        return Place(where, False, "", "nothing of it was found.", lies), None
    place, pixels = _sided(where, own, lies, plan, part in plan.sides) if where in SIDES else _ordered(where, own, lies)
    rivals = [piece for piece in _pieces(heat) if float(foreign[piece].mean()) > 0.5] if foreign.any() else []
    if pixels is not None and rivals:
        pieces = _meant(where, own)
        pixels = pixels & (_nearest([*pieces, *rivals]) < len(pieces))
    return place, pixels


def _sided(where: str, heat: np.ndarray, lies: Orientation, plan: BodyPlan, paired: bool) -> tuple[Place, Mask | None]:
    sign = SIDES[where]
    if lies.view == "beside":
        if paired and plan.view != "beside":
            # Wings that are closed over the back show the near one, wings that are half raised the far one.
            reason = (
                "the body is seen from the side, or what is paired was found on one side of it only: whether that is the near one, the far "
                "one or one of two cannot be told, unless the frame's view is beside."
            )
            return Place(where, False, "", reason, lies), None
        if not lies.facing:
            return Place(where, False, "", "the body is seen from the side, and which side it is cannot be told.", lies), None
        if lies.facing == where:
            return Place(where, True, "animal", f"its {where} side faces the camera.", lies), np.ones(heat.shape, dtype=bool)
        return Place(where, False, "animal", f"its {lies.facing} side faces the camera: what is on the {where} is not seen.", lies), None
    across = lies.across or (paired and _on_both_sides(heat, lies))
    left, left_of, reason = lies.left, "animal", f"the body is seen from {lies.view}, its head points to {lies.heading or 0:.0f} degrees."
    if left is None and lies.ahead is not None and (across or not paired):
        left, left_of = _left_of(lies.ahead), "viewer, head up"
        reason = f"the head points to {lies.heading:.0f} degrees; whether the upper side is seen is not known."
    if left is None and lies.ahead is not None:
        return Place(where, False, "", "only one side of the body is in the picture, and which side it is cannot be told.", lies), None
    if left is None:
        return _pictured(where, heat, lies)
    offset = (_grid(heat.shape) - lies.origin) @ left
    return _half(where, heat, sign * offset.reshape(heat.shape), lies, left_of, reason)


def _on_both_sides(heat: np.ndarray, lies: Orientation) -> bool:
    """Whether a paired part is seen on both sides of the axis, by its own map."""
    if lies.ahead is None:
        return False
    offset = (_pixels(heat > 0.5 * float(heat.max())) - lies.origin) @ _left_of(lies.ahead)
    return min(float((offset > 0).mean()), float((offset < 0).mean())) >= BOTH_SIDES


def _pictured(where: str, heat: np.ndarray, lies: Orientation) -> tuple[Place, Mask | None]:
    """Left and right as the picture is: nothing is known of the body, so there must be two pieces, one beside the other."""
    pieces = _pieces(heat)
    middles = sorted(float(np.nonzero(piece)[1].mean()) for piece in pieces)
    if len(pieces) < 2:
        return Place(where, False, "", "where the head is is not known, and there is only one of it.", lies), None
    gaps = np.diff(middles)
    widest = int(gaps.argmax())
    if gaps[widest] < 0.1 * heat.shape[1]:
        return Place(where, False, "", "where the head is is not known, and they lie above each other.", lies), None
    cut = 0.5 * (middles[widest] + middles[widest + 1]) + 0.5
    offset = -SIDES[where] * (_grid(heat.shape)[:, 0] - cut).reshape(heat.shape)
    return _half(where, heat, offset, lies, "viewer", "where the head is is not known: left and right as the picture is.")


def _half(where: str, heat: np.ndarray, offset: np.ndarray, lies: Orientation, left_of: str, reason: str) -> tuple[Place, Mask | None]:
    """The half of the picture in which ``offset`` is positive; pieces that lie nearly all on one side belong to it wholly."""
    own = offset > 0
    for piece in _pieces(heat):
        share = float(own[piece].mean())
        if share >= _WHOLLY or share <= 1 - _WHOLLY:
            own = np.where(piece, share >= _WHOLLY, own)
    peak = float(heat[own].max()) if own.any() else -np.inf
    if peak < _PRESENT * float(heat.max()):
        return Place(where, False, left_of, f"there is none on the {where}: {reason}", lies), None
    return Place(where, True, left_of, reason, lies), np.asarray(own)


def _ordered(where: str, heat: np.ndarray, lies: Orientation) -> tuple[Place, Mask | None]:
    if lies.ahead is None:
        return Place(where, False, "", "where the front is cannot be told.", lies), None
    pieces = _meant(where, heat)
    number = ORDER[where]
    if len(pieces) < 2 and where in _NEEDS_TWO:
        return Place(where, False, "", f"there is only one of it, so that none is the {where} one.", lies), None
    places = [float(lies.along(_pixels(piece)).mean()) for piece in pieces]
    order = np.argsort(places)
    chosen = int(order[number])
    if len(pieces) == 1:
        return Place(where, True, "", "it is the only one.", lies), np.ones(heat.shape, dtype=bool)
    own = _nearest(pieces) == chosen
    count = {2: "two", 3: "three"}.get(len(pieces), str(len(pieces)))
    return Place(where, True, "", f"{count} were found, in this order from the front.", lies), own


# ----------------------------------------------------------------------------------------------------------------- pieces


def _left_of(ahead: Points) -> Points:
    """What is on the left of who looks ahead, seen from above; y points down."""
    return np.array([ahead[1], -ahead[0]])


def _above(lies: Orientation, shape: tuple[int, ...]) -> Points:
    """How far every pixel lies over the body's axis, on the upper side, float64 [H, W]."""
    assert lies.up is not None
    points = _grid(shape)
    straight = (points - lies.origin) @ lies.up
    if lies.midline is None:
        return np.asarray(straight.reshape(shape))
    offset = lies.midline.coordinates(points)[1]
    # To which side of the midline the offsets count is told by points well above and well below.
    return np.asarray((offset if float(offset @ straight) > 0 else -offset).reshape(shape))


def _pixels(mask: Mask) -> Points:
    y, x = np.nonzero(mask)
    return np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float64)


def _grid(shape: Sequence[int]) -> Points:
    """Centres of all pixels, float64 [H * W, 2] of ``(x, y)``."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1).astype(np.float64)


def _meant(where: str, heat: np.ndarray) -> list[Mask]:
    """The pieces among which a place chooses. Where two are asked for and one is clear, a fainter one counts too."""
    pieces = _pieces(heat)
    if len(pieces) > 1 or where not in _NEEDS_TWO:
        return pieces
    return _pieces(heat, _FAINT, _FAINT_SPECK)


def _pieces(heat: np.ndarray, above_share: float = _CLEAR, speck: float = _SPECK) -> list[Mask]:
    """The pieces of a map above a share of its peak, bool [H, W] each, without specks: its hills, parted where they run together.

    A hill counts where the way to any higher one leads through a valley that is deeper by a share of the peak.
    """
    from scipy.ndimage import label
    from skimage.morphology import reconstruction
    from skimage.segmentation import watershed

    values = np.maximum(heat, 0.0).astype(np.float64)
    peak = float(values.max())
    above, depth = values > above_share * peak, _VALLEY * peak
    # A valley that is lower than any hill by the whole depth parts hills however low it is: what lies deeper need not be looked at.
    low = max(0.0, above_share * peak - depth)
    around = _frame(values > low)
    heights = np.maximum(values[around], low)
    # What stands out by the whole depth is the top of a hill.
    tops = heights - reconstruction(np.maximum(heights - depth, 0.0), heights) > 0.999 * depth
    marks, count = label(tops & above[around], np.ones((3, 3), dtype=bool))
    labels = np.zeros(values.shape, dtype=np.int32)
    labels[around] = watershed(-values[around], marks, mask=above[around])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == number + 1 for number in range(count) if sizes[number] >= speck * sizes.max()]


def _frame(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns that hold all of a mask, and one more on each side; all where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    return slice(max(0, rows[0] - 1), rows[-1] + 2), slice(max(0, columns[0] - 1), columns[-1] + 2)


def _nearest(pieces: Sequence[Mask]) -> npt.NDArray[np.int64]:
    """The number of the nearest piece, int64 [H, W]."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(np.argmin(np.stack([distance_transform_edt(~piece) for piece in pieces]), axis=0))
