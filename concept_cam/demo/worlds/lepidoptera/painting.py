"""Paint a butterfly or moth as a camera sees it, and aim the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from concept_cam.demo.worlds.canvas import Array, Canvas, Patch, curve, polygon, ribbon, texture
from concept_cam.demo.worlds.lepidoptera.anatomy import Body, Draw, Wing
from concept_cam.demo.worlds.lepidoptera.coat import Coat, polar, wing_colours


@dataclass(frozen=True)
class Camera:
    """Where the camera stands.

    Attributes:
        turn: float64 [3, 3], from the animal's axes to right, up and towards the camera.
        scale: pixels per unit.
        origin: the pixel (x, y) that shows the animal's origin.
    """

    turn: Array
    scale: float
    origin: tuple[float, float]

    def pixel(self, points: Array) -> Array:
        """Points in space [N, 3] to pixels (x, y), float64 [N, 2]."""
        seen = points @ self.turn[:2].T
        return np.asarray(self.origin + self.scale * seen * (1, -1))

    @property
    def toward(self) -> Array:
        """The direction to the camera in the animal's axes, float64 [3]."""
        return np.asarray(self.turn[2])


@dataclass(frozen=True)
class Animal:
    """One animal in space, with its states and colours."""

    wings: list[Wing]
    body: Body
    state: dict[str, str]
    coat: Coat


def front(wing: Wing, camera: Camera, posture: str) -> bool:
    """The wing is between the camera and the body."""
    return posture == "tented" or (wing.raised > 0.6 and float(wing.normal @ camera.toward) < 0)


def painting_order(wings: list[Wing], camera: Camera) -> list[Wing]:
    """Wings from the farthest to the nearest."""
    depth = {
        left: np.mean([wing.place(wing.outline).mean(axis=0) @ camera.toward for wing in wings if wing.left == left])
        for left in (True, False)
    }

    def rank(wing: Wing) -> tuple[float, bool]:
        upper = float(wing.normal @ camera.toward) > 0
        # Seen from above a fore wing lies over the hind wing, from below under it.
        return float(depth[wing.left]), (wing.name == "fore_wing") == upper

    return sorted(wings, key=rank)


def paint(canvas: Canvas, animal: Animal, camera: Camera, draw: Draw, rng: np.random.Generator, *, pinned: bool) -> None:
    """Paints the animal on the canvas. `rng` is for hairs only."""
    posture, z = animal.state["resting_posture"], float(camera.toward[2])
    order = painting_order(animal.wings, camera)
    before = [wing for wing in order if front(wing, camera, posture)]
    if z > -0.1:
        _legs(canvas, animal, camera, draw)
    for wing in order:
        if wing not in before:
            _wing(canvas, animal, wing, camera, draw)
    _tube(canvas, animal, camera, "abdomen", draw, rng)
    if posture == "tented":
        for wing in before:
            _wing(canvas, animal, wing, camera, draw)
    _tube(canvas, animal, camera, "thorax", draw, rng)
    _antennae(canvas, animal, camera, draw)
    _head(canvas, animal, camera, draw, rng)
    if posture != "tented":
        for wing in before:
            _wing(canvas, animal, wing, camera, draw)
    if z <= -0.1:
        _legs(canvas, animal, camera, draw)
    if pinned and z > 0.5:
        at = camera.pixel(np.array([[0.03, 0.0, 0.1]]))[0]
        radius = max(camera.scale * draw("pin.size", 0.012, 0.024), 0.7)
        canvas.lay(_disc(canvas, at, radius), np.full(3, draw("pin.tone", 0.1, 0.9)))


def _disc(canvas: Canvas, at: Array, radius: float) -> Patch:
    s = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return polygon(at + radius * np.stack([np.cos(s), np.sin(s)], axis=1), canvas.size)


def _wing(canvas: Canvas, animal: Animal, wing: Wing, camera: Camera, draw: Draw) -> None:
    side = 1 if wing.left else 2
    outline = camera.pixel(wing.place(wing.outline))
    patch = polygon(outline, canvas.size)
    # From pixels to places in the wing.
    forward = camera.scale * (wing.axes @ camera.turn[:2].T) * (1, -1)
    det = float(np.linalg.det(forward))
    edge_on = abs(det) < 0.02 * camera.scale**2
    back = np.linalg.inv(forward) if not edge_on else np.zeros((2, 2))
    root = camera.pixel(wing.root[None])[0]
    upper = float(wing.normal @ camera.toward) > 0
    # Light falls from above the picture's upper edge and from behind the camera.
    sun = np.array([draw("sun.x", -0.6, 0.6), draw("sun.y", -0.1, 0.7), 1.0])
    facing = camera.turn @ wing.normal * (1 if upper else -1)
    lit = 0.62 + 0.42 * max(float(facing @ sun) / float(np.linalg.norm(sun)), 0.0)
    gloss = animal.coat.numbers["gloss"] * max(float(facing @ sun) / float(np.linalg.norm(sun)), 0) ** 8
    fore = wing.name == "fore_wing"

    def lay(patch: Patch, *marks: str) -> None:
        if patch.empty:
            canvas.lay(patch, np.zeros(3), wing.name, "wing", *marks, side=side)
            return
        x, y = patch.pixels()
        dx, dy = x - np.float32(root[0]), y - np.float32(root[1])
        p, q = (dx * np.float32(back[0, k]) + dy * np.float32(back[1, k]) for k in (0, 1))
        rgb, opaque = wing_colours(animal.coat, animal.state, p, q, wing.outline, camera.scale, upper, fore)
        canvas.lay(patch, np.clip(rgb * np.float32(lit) + np.float32(gloss), 0, 1), wing.name, "wing", *marks, side=side, opacity=opaque)

    if wing.tail is not None:
        lay(polygon(camera.pixel(wing.place(wing.tail)), canvas.size), "tail")
    canvas.darken(patch, 0.22 * draw("wing.shadow", 0.2, 1.0))
    lay(patch)
    if animal.state["eyespots"] == "present":
        for at, radius in eyespots(animal, wing, draw):
            _eyespot(canvas, animal, wing, camera, at, radius, side, lit, draw)


def eyespots(animal: Animal, wing: Wing, draw: Draw) -> list[tuple[Array, float]]:
    """Places (p, q) and radii of the eyespots of a wing."""
    table, low, high = polar(wing.outline)
    fore = wing.name == "fore_wing"
    where = draw("eyespot.where", 0, 1)
    if (fore and where < 0.4) or (not fore and where > 0.85):
        return []
    if animal.state["eyespot_number"] == "one":
        spots = [
            (draw(f"eyespot.{wing.name}.t", 0.35, 0.7), draw(f"eyespot.{wing.name}.rho", 0.55, 0.74), draw("eyespot.size", 0.07, 0.135))
        ]
    else:
        count = round(draw(f"eyespot.{wing.name}.count", 2.6, 6.4))
        size = draw("eyespot.small", 0.03, 0.058)
        rho = draw("eyespot.row", 0.7, 0.8)
        spots = [(0.2 + 0.62 * (k + 0.5) / count, rho, size * (0.75 + 0.5 * draw(f"eyespot.{wing.name}.{k}", 0, 1))) for k in range(count)]
    found = []
    for t, rho, radius in spots:
        angle = low + (high - low) * t
        reach = rho * float(table[int(t * 255)])
        found.append((np.array([reach * np.cos(angle) - 0.04, reach * np.sin(angle)]), radius))
    return found


_RINGS = np.array([[0.95, 0.85, 0.35], [0.93, 0.60, 0.18], [0.95, 0.93, 0.85], [0.80, 0.30, 0.15], [0.75, 0.70, 0.55]])
_IRIS = np.array([[0.05, 0.05, 0.06], [0.15, 0.22, 0.55], [0.30, 0.12, 0.30], [0.06, 0.05, 0.05], [0.35, 0.15, 0.08]])


def _eyespot(
    canvas: Canvas, animal: Animal, wing: Wing, camera: Camera, at: Array, radius: float, side: int, lit: float, draw: Draw
) -> None:
    s = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    oval = draw("eyespot.oval", 0.75, 1.15)
    circle = np.stack([np.cos(s), oval * np.sin(s)], axis=1)
    ring = _RINGS[int(draw("eyespot.ring", 0, len(_RINGS) - 1e-6))]
    iris = _IRIS[int(draw("eyespot.iris", 0, len(_IRIS) - 1e-6))]
    if abs(float(ring.mean() - animal.coat.base.mean())) < 0.12:
        ring = np.array([0.95, 0.9, 0.7]) if animal.coat.base.mean() < 0.5 else np.array([0.2, 0.12, 0.08])
    inner = draw("eyespot.inner", 0.55, 0.8)
    steps = [(1.0, ring), (inner, np.array([0.05, 0.045, 0.05])), (inner * draw("eyespot.disc", 0.3, 0.85), iris)]
    names = (wing.name, "wing", "eyespot")
    for size, colour in steps:
        shape = wing.place(at + radius * size * circle)
        canvas.lay(
            polygon(camera.pixel(shape), canvas.size), np.clip(colour * lit, 0, 1), *names, side=side, adds=names[2:] if size == 1 else ()
        )
    # A white pupil, in the middle or as a glint.
    pupil = at + radius * inner * np.array([draw("eyespot.glint_p", -0.3, 0.3), draw("eyespot.glint_q", -0.3, 0.3)])
    shape = wing.place(pupil + radius * draw("eyespot.pupil", 0.1, 0.25) * circle)
    canvas.lay(polygon(camera.pixel(shape), canvas.size), np.full(3, 0.95 * lit), *names, side=side, adds=())


def _hairy(outline: Array, length: float, rng: np.random.Generator, count: int) -> Array:
    """The outline [N, 2] with hairs standing out of it, at most `length` pixels long."""
    closed = np.concatenate([outline, outline[:1]])
    walked = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    place = np.linspace(0, walked[-1], count, endpoint=False)
    points = np.stack([np.interp(place, walked, closed[:, k]) for k in (0, 1)], axis=1)
    away = points - points.mean(axis=0)
    tangent = np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    normal *= np.sign((normal * away).sum(axis=1))[:, None]
    normal /= np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-6)[:, None]
    out = np.where(np.arange(count) % 2, rng.uniform(0.2, 1.0, count), 0.0) * length
    return np.asarray(points + normal * out[:, None])


def _tube(canvas: Canvas, animal: Animal, camera: Camera, name: str, draw: Draw, rng: np.random.Generator) -> None:
    """Thorax or abdomen."""
    axis, radii = animal.body.thorax if name == "thorax" else animal.body.abdomen
    line, widths = camera.pixel(axis), radii * camera.scale
    # Seen from its end a tube is a disc.
    low, high = line[0], line[-1]
    length = float(np.hypot(*(high - low)))
    fat = float(widths.max())
    if length < 1.2 * fat:
        middle = 0.5 * (low + high)
        s = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        outline = middle + np.stack([np.cos(s), np.sin(s)], axis=1) * fat
    else:
        outline = ribbon(line, 2 * widths)
    hairy = animal.state["body_hair"] == "hairy"
    if hairy:
        outline = _hairy(
            outline, fat * (0.75 if name == "thorax" else 0.4) * draw("hair.long", 0.5, 1.2), rng, int(np.clip(6 * fat, 40, 220))
        )
    patch = polygon(outline, canvas.size)
    canvas.darken(patch, 0.25)
    if patch.empty:
        canvas.lay(patch, np.zeros(3), name, "body")
        return
    x, y = patch.pixels()
    way = (high - low) / max(length, 1e-6)
    dx, dy = x - np.float32(low[0]), y - np.float32(low[1])
    along, across = dx * np.float32(way[0]) + dy * np.float32(way[1]), dy * np.float32(way[0]) - dx * np.float32(way[1])
    t = np.clip(along / max(length, 1e-6), 0, 1)
    radius = np.maximum(np.interp(t, np.linspace(0, 1, len(widths)), widths), 0.3).astype(np.float32)
    dome = np.sqrt(np.clip(1 - (across / (radius * np.float32(1.25))) ** 2, 0.05, 1))
    light = np.float32(0.5) + np.float32(0.6) * dome
    n = animal.coat.numbers
    noise = texture(
        "grass" if hairy else "skin", across / camera.scale + n["x"], along / camera.scale + n["y"], 900 if hairy else 500, camera.scale
    )
    light = light * (1 + np.float32(0.16 if hairy else 0.04) * noise[..., 0])
    tint = animal.coat.body
    colour = np.ones((*t.shape, 3), np.float32) * tint.astype(np.float32)
    if name == "abdomen":
        rings = draw("abdomen.rings", 5, 9)
        dark = np.clip(np.abs((t * rings) % 1 - 0.5) * 4 - 1.2, 0, 1) * draw("abdomen.ring_dark", -0.35, 0.6) * (0.4 if hairy else 1.0)
        other = np.array([0.85, 0.55, 0.12]) if draw("abdomen.warn", 0, 1) < 0.2 else tint * 0.35
        colour = colour + (other.astype(np.float32) - colour) * np.clip(np.abs(dark), 0, 0.8)[..., None].astype(np.float32)
    elif draw("thorax.stripe", 0, 1) < 0.25:
        line_at = np.abs(np.abs(across / radius) - np.float32(0.4)) < 0.16
        colour = colour * np.where(line_at, np.float32(1.7), np.float32(1))[..., None]
    rgb = colour * light[..., None]
    if not hairy:
        shine = np.clip(1 - np.abs(across / radius + np.float32(0.35)) * 4, 0, 1) * np.float32(draw("body.gloss", 0.1, 0.45))
        rgb = rgb + shine[..., None]
    canvas.lay(patch, np.clip(rgb, 0, 1), name, "body")


def _head(canvas: Canvas, animal: Animal, camera: Camera, draw: Draw, rng: np.random.Generator) -> None:
    middle, radius = animal.body.head
    at, r = camera.pixel(middle[None])[0], radius * camera.scale
    if animal.body.proboscis is not None:
        line = camera.pixel(animal.body.proboscis)
        canvas.lay(polygon(ribbon(line, max(0.012 * camera.scale, 0.9)), canvas.size), animal.coat.body * 0.35, "proboscis", least=0.35)
    s = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    outline = at + r * np.stack([np.cos(s), np.sin(s)], axis=1)
    if animal.state["body_hair"] == "hairy":
        outline = _hairy(outline, 0.45 * r, rng, int(np.clip(5 * r, 24, 120)))
    patch = polygon(outline, canvas.size)
    if patch.empty:
        canvas.lay(patch, np.zeros(3), "head")
    else:
        x, y = patch.pixels()
        dome = np.clip(1 - ((x - at[0]) ** 2 + (y - at[1]) ** 2) / (1.4 * r) ** 2, 0, 1)
        tint = animal.coat.body * draw("head.tone", 0.7, 1.15)
        canvas.lay(patch, np.clip(tint * (0.5 + 0.55 * dome[..., None]), 0, 1), "head")
    eyes, size = animal.body.eyes
    dark = np.array([[0.06, 0.05, 0.05], [0.25, 0.16, 0.10], [0.10, 0.13, 0.10], [0.35, 0.30, 0.22]])[int(draw("eye.tint", 0, 3.999))]
    for number in np.argsort(eyes @ camera.toward):
        towards = float((eyes[number] - middle) @ camera.toward) / radius
        if towards < -0.25:
            continue
        eye = camera.pixel(eyes[number][None])[0]
        disc = _disc(canvas, eye, max(size * camera.scale, 0.6))
        side = int(number) + 1
        canvas.lay(disc, dark, "head", "eye", side=side, adds=("eye",))
        if size * camera.scale > 2:
            glint = _disc(canvas, eye - 0.35 * size * camera.scale, 0.28 * size * camera.scale)
            canvas.lay(glint, np.clip(dark + 0.5, 0, 1), "head", "eye", side=side, adds=())


def antenna_outline(shape: str, line: Array, width: float, draw: Draw) -> Array:
    """The outline of one antenna along its `line` [N, 2] in pixels; `width` is that of its shaft."""
    s = np.linspace(0, 1, len(line))
    if shape == "clubbed":
        club = draw("antenna.club", 3.0, 4.6)
        return ribbon(line, width * (0.8 + (club - 0.8) * np.exp(-(((s - 0.95) / draw("antenna.club_long", 0.045, 0.1)) ** 2))))
    if shape == "hooked":
        return ribbon(line, width * (0.8 + 2.4 * np.exp(-(((s - 0.82) / 0.11) ** 2)) + 0.2 * (1 - s)))
    if shape == "threadlike":
        return ribbon(line, width * (1.25 - 0.9 * s))
    # Combs on both sides of a shaft, longest in the middle.
    teeth = int(draw("antenna.teeth", 14, 24))
    reach = width * draw("antenna.comb", 4.5, 9.0)
    fine = np.repeat(np.linspace(0.04, 0.98, teeth), 4)
    points = curve(line, 400)
    at = points[np.clip((fine * 399).astype(int) + np.tile([0, 4, 6, 9], teeth), 0, 399)]
    along = np.gradient(points, axis=0)[np.clip((fine * 399).astype(int), 0, 399)]
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    long = np.tile([0.0, 1.0, 1.0, 0.0], teeth) * reach * np.sin(np.pi * (0.1 + 0.87 * fine)) ** 0.7 + 0.5 * width
    lean = along * (0.55 * long)[:, None]
    return np.concatenate([at + across * long[:, None] + lean, (at - across * long[:, None] + lean)[::-1]])


def _antennae(canvas: Canvas, animal: Animal, camera: Camera, draw: Draw) -> None:
    width = max(draw("antenna.width", 0.008, 0.015) * camera.scale, 0.8)
    tint = np.clip(animal.coat.body * draw("antenna.tone", 0.25, 1.2), 0, 1)
    tint = tint + (np.array([0.05, 0.04, 0.04]) - tint) * draw("antenna.dark", 0, 1)
    for number, points in enumerate(animal.body.antennae):
        line = camera.pixel(points)
        outline = antenna_outline(animal.state["antenna_shape"], line, width, draw)
        canvas.lay(polygon(outline, canvas.size), tint, "antennae", side=number + 1, least=0.35)


def _legs(canvas: Canvas, animal: Animal, camera: Camera, draw: Draw) -> None:
    width = max(draw("legs.width", 0.012, 0.022) * camera.scale, 0.8)
    tint = np.clip(animal.coat.body * draw("legs.tone", 0.35, 1.1), 0, 1)
    for points in animal.body.legs:
        line = curve(camera.pixel(points), 20)
        canvas.lay(polygon(ribbon(line, width * np.linspace(1.2, 0.5, 20)), canvas.size), tint, "legs", least=0.4)
