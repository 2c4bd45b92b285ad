"""What lies around small animals and plants out of doors: blurred vegetation, leaves, flowers, twigs, dust; and boards, pins and labels.

None of it is a part of the specimen; it is there to be told from one. All of it is painted on a `Canvas` from a stream of random numbers.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from concept_cam.demo.worlds.canvas import Array, Canvas, curve, polygon, ribbon, texture

_GREENS = np.array([[0.16, 0.26, 0.08], [0.30, 0.42, 0.14], [0.45, 0.56, 0.25], [0.10, 0.16, 0.07], [0.55, 0.62, 0.38], [0.22, 0.33, 0.22]])
_EARTH = np.array([[0.34, 0.27, 0.18], [0.55, 0.46, 0.33], [0.22, 0.18, 0.13], [0.66, 0.60, 0.48], [0.48, 0.44, 0.40]])
_FLOWERS = np.array(
    [
        [0.95, 0.93, 0.90],
        [0.93, 0.80, 0.18],
        [0.90, 0.45, 0.12],
        [0.78, 0.35, 0.62],
        [0.55, 0.38, 0.75],
        [0.85, 0.20, 0.25],
        [0.92, 0.66, 0.76],
        [0.45, 0.50, 0.85],
    ]
)
"""Colours of petals."""


def petal_colour(rng: np.random.Generator) -> Array:
    """A colour of petals, float32 [3]."""
    return np.asarray(
        np.clip(_FLOWERS[rng.integers(len(_FLOWERS))] * rng.uniform(0.8, 1.08) + rng.normal(0, 0.03, 3), 0, 1), dtype=np.float32
    )


def leaf_colour(rng: np.random.Generator) -> Array:
    """A colour of living leaves, float32 [3]."""
    return np.asarray(
        np.clip(_GREENS[rng.integers(len(_GREENS))] * rng.uniform(0.85, 1.25) + rng.normal(0, 0.03, 3), 0, 1), dtype=np.float32
    )


def vegetation(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """Leaves, blades, flowers, stems and bare ground, mostly out of focus, float32 [H, W, 3].

    Two distances: what is far is blurred more than what is near.
    """
    height, width = size
    kind = str(rng.choice(["green", "dark", "earth", "pale"], p=[0.5, 0.15, 0.2, 0.15]))
    palette = _EARTH if kind == "earth" else _GREENS
    tone = {"green": 1.1, "dark": 0.45, "earth": 1.1, "pale": 1.6}[kind] * rng.uniform(0.8, 1.2)
    small = (max(8, round(96 * height / max(size))), max(8, round(96 * width / max(size))))
    first, second = (palette[rng.integers(len(palette))] * tone for _ in range(2))
    ramp = np.linspace(0, 1, small[0])[:, None, None] if rng.random() < 0.6 else np.linspace(0, 1, small[1])[None, :, None]
    field = np.clip((first + (second - first) * ramp) * np.ones((*small, 1)), 0, 1)
    far = Image.fromarray(np.rint(255 * field).astype(np.uint8))
    flowery = rng.random() < 0.35
    _scatter(ImageDraw.Draw(far), rng, far.size, palette * tone, int(rng.integers(4, 40)), 1.0, flowery)
    far = far.filter(ImageFilter.GaussianBlur(float(rng.uniform(2.0, 9.0))))
    middle = far.resize((2 * small[1], 2 * small[0]), Image.Resampling.BICUBIC)
    if rng.random() < 0.7:
        _scatter(ImageDraw.Draw(middle), rng, middle.size, palette * tone * rng.uniform(0.8, 1.3), int(rng.integers(3, 60)), 1.5, flowery)
        # A third of the pictures have their background in focus.
        middle = middle.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.2) if rng.random() < 0.35 else rng.uniform(1.2, 7.0))))
    large = middle.resize((width, height), Image.Resampling.BICUBIC)
    rgb = np.asarray(large, dtype=np.float32) / np.float32(255)
    if rng.random() < 0.4:
        # Grain of soil, moss or litter where the ground is near.
        x, y = np.meshgrid(np.arange(width, dtype=np.float32) / width, np.arange(height, dtype=np.float32) / width)
        noise = texture(str(rng.choice(["grass", "gravel", "concrete", "sand"])), x + rng.uniform(0, 3), y + rng.uniform(0, 3), 380, width)
        rgb = np.clip(rgb * (1 + np.float32(rng.uniform(0.03, 0.2)) * noise[..., :1]), 0, 1)
    return np.asarray(rgb, dtype=np.float32)


def _scatter(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, extent: tuple[int, int], palette: Array, count: int, unit: float, flowery: bool
) -> None:
    """Blades, leaves, discs and petals at random."""

    def ink(colours: Array) -> tuple[int, int, int]:
        r, g, b = np.clip(255 * (colours[rng.integers(len(colours))] * rng.uniform(0.55, 1.45) + rng.normal(0, 0.03, 3)), 0, 255)
        return int(r), int(g), int(b)

    flower = _FLOWERS[rng.integers(len(_FLOWERS))][None]
    for _ in range(count):
        x, y = rng.uniform(-0.1, 1.1, 2) * extent
        shape = rng.choice(["blade", "leaf", "disc", "rays"], p=[0.4, 0.35, 0.12, 0.13])
        colour = ink(_EARTH if rng.random() < 0.15 else palette)
        turn = rng.uniform(0, np.pi)
        along = np.array([np.cos(turn), np.sin(turn)])
        if shape == "blade":
            reach = unit * rng.uniform(20, 90)
            pen.line([(x, y), (x + reach * along[0], y + reach * along[1])], fill=colour, width=int(rng.integers(1, int(2 + 4 * unit))))
        elif shape == "leaf":
            reach, half = unit * rng.uniform(5, 34), rng.uniform(0.15, 0.45)
            s = np.linspace(0, 2 * np.pi, 20)
            a, b = reach * np.cos(s), half * reach * np.sin(s) * (1 - 0.4 * np.cos(s))
            points = np.stack([x + a * along[0] - b * along[1], y + a * along[1] + b * along[0]], axis=1)
            pen.polygon([(float(p), float(q)) for p, q in points], fill=colour)
            pen.line([tuple(points[0]), tuple(points[10])], fill=tuple(min(255, int(c * 1.25)) for c in colour), width=1)
        elif shape == "rays" and flowery:
            colour = ink(flower)
            reach, petals = unit * rng.uniform(4, 15), int(rng.integers(5, 16))
            for k in range(petals):
                angle = turn + 2 * np.pi * k / petals
                wide = 1.6 * np.pi / petals
                tips = [(x + reach * np.cos(angle + o), y + reach * np.sin(angle + o)) for o in (-0.5 * wide, 0.0, 0.5 * wide)]
                pen.polygon([(x, y), *((float(p), float(q)) for p, q in tips)], fill=colour)
            pen.ellipse([x - 0.25 * reach, y - 0.25 * reach, x + 0.25 * reach, y + 0.25 * reach], fill=(200, 160, 40))
        else:
            r = unit * rng.uniform(1, 9)
            colour = ink(flower) if flowery else ink(palette)
            pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)


def lay_leaf(
    canvas: Canvas, rng: np.random.Generator, at: tuple[float, float], length: float, turn: float, colour: Array | None = None
) -> None:
    """A leaf with its veins, in focus: middle at the pixel `at`, `length` pixels long, turned by `turn` radians."""
    half = rng.uniform(0.22, 0.45)
    peak = rng.uniform(0.35, 0.5)
    s = np.linspace(0, 1, 40)
    outline = np.where(
        s < peak, np.sin(0.5 * np.pi * s / peak), np.clip(np.cos(0.5 * np.pi * (s - peak) / (1 - peak)), 0, 1) ** rng.uniform(0.8, 1.3)
    )
    bend = rng.uniform(-0.15, 0.15)
    axis = bend * np.sin(np.pi * s)
    teeth = 1 - (0.06 * (s * rng.integers(12, 26) % 1.0) if rng.random() < 0.4 else 0.0)
    upper = np.stack([s - 0.5, axis + half * outline * teeth], axis=1)
    lower = np.stack([s - 0.5, axis - half * outline * teeth], axis=1)
    cos, sin = np.cos(turn), np.sin(turn)

    def placed(points: Array) -> Array:
        return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]) * length + at)

    patch = polygon(placed(np.concatenate([upper, lower[::-1]])), canvas.size)
    if patch.empty:
        return
    x, y = patch.pixels()
    dx, dy = (x - at[0]) / length, (y - at[1]) / length
    along, across = dx * cos + dy * sin, dy * cos - dx * sin
    across = across - bend * np.sin(np.pi * np.clip(along + 0.5, 0, 1))
    tint = leaf_colour(rng) if colour is None else colour
    count, lean = rng.uniform(6, 14), rng.uniform(0.5, 1.2)
    vein = np.abs((along - lean * np.abs(across)) * count % 1.0 - 0.5)
    line = np.clip(1 - vein / rng.uniform(0.05, 0.12), 0, 1) * rng.uniform(0.05, 0.3) + np.clip(1 - np.abs(across) * 45, 0, 1) * 0.4
    pale = rng.choice([1.0, -0.5])
    noise = texture("concrete", along + rng.uniform(0, 9), across + rng.uniform(0, 9), 300, length)
    light = 1 + rng.uniform(-0.4, 0.4) * across / half + rng.uniform(0.02, 0.09) * noise[..., 0] + rng.uniform(-0.25, 0.25) * along
    canvas.darken(patch, 0.0)
    canvas.lay(patch, np.clip(tint * light[..., None] + (pale * line * 0.25)[..., None], 0, 1))


def lay_flower(canvas: Canvas, rng: np.random.Generator, at: tuple[float, float], radius: float, colour: Array | None = None) -> None:
    """A flower with petals around its middle: a ray flower or a few broad petals."""
    tint = petal_colour(rng) if colour is None else colour
    many = rng.random() < 0.5
    count = int(rng.integers(10, 26)) if many else int(rng.integers(4, 9))
    squeeze, turn = rng.uniform(0.45, 1.0), rng.uniform(0, np.pi)
    half = (0.9 if many else rng.uniform(1.0, 1.5)) * np.pi / count
    start = rng.uniform(0, 6.28)
    notch = rng.uniform(-0.12, 0.08)
    middle = rng.uniform(0.1, 0.35)
    for k in rng.permutation(count):
        angle = start + 2 * np.pi * k / count + rng.normal(0, 0.08)
        reach = radius * rng.uniform(0.85, 1.05)
        s = np.linspace(0.08, 1.0, 12)
        width = half * np.sin(np.pi * np.clip(s, 0, 1) ** 0.9) ** 0.6 * s**0.5
        edge = np.concatenate([np.stack([s, width], 1), [[1 + notch, 0.0]], np.stack([s, -width], 1)[::-1]])
        r, a = edge[:, 0] * reach, angle + edge[:, 1]
        points = np.stack([r * np.cos(a), r * np.sin(a) * squeeze], axis=1)
        cos, sin = np.cos(turn), np.sin(turn)
        points = points @ np.array([[cos, sin], [-sin, cos]]) + at
        patch = polygon(points, canvas.size)
        if patch.empty:
            continue
        x, y = patch.pixels()
        far = np.hypot(x - at[0], y - at[1]) / radius
        canvas.darken(patch, 0.25)
        shade = rng.uniform(0.78, 1.08) * (0.72 + 0.33 * np.clip(far, 0, 1))
        canvas.lay(patch, np.clip(tint * shade[..., None], 0, 1))
    s = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    core_radius = middle * radius
    disc = (
        core_radius
        * np.stack([np.cos(s), np.sin(s) * squeeze], axis=1)
        @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    )
    patch = polygon(disc + at, canvas.size)
    if not patch.empty:
        core = np.array([[0.85, 0.65, 0.1], [0.35, 0.22, 0.08], [0.75, 0.75, 0.3], [0.9, 0.85, 0.5]])[rng.integers(4)]
        x, y = patch.pixels()
        noise = texture("sand", x / 100, y / 100, 500, 100)[..., 0]
        canvas.lay(patch, np.clip(core * (1 + 0.2 * noise[..., None]), 0, 1))


def lay_twig(canvas: Canvas, rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float], width: float) -> None:
    """A twig or stem from pixel to pixel."""
    line = np.linspace(start, end, 5)
    reach = float(np.hypot(*np.subtract(end, start)))
    line[1:-1] += rng.normal(0, 0.03 * reach, (3, 2))
    patch = polygon(ribbon(curve(line, 30), np.linspace(width, width * rng.uniform(0.4, 1.0), 30)), canvas.size)
    if patch.empty:
        return
    x, y = patch.pixels()
    noise = texture("wood", x / 300, y / 300, 400, 300)[..., 0]
    tint = _EARTH[rng.integers(len(_EARTH))] if rng.random() < 0.6 else _GREENS[rng.integers(len(_GREENS))]
    canvas.lay(patch, np.clip(tint * rng.uniform(0.7, 1.2) * (1 + 0.12 * noise[..., None]), 0, 1))


def lay_dust(canvas: Canvas, rng: np.random.Generator, count: int, longest: float) -> None:
    """Specks, hairs and scraps that lie about: thin and small as legs and antennae are."""
    height, width = canvas.size
    for _ in range(count):
        at = rng.uniform(0, 1, 2) * (width, height)
        tint = rng.uniform(0.05, 0.9) * np.array([1.0, 0.95, 0.88])
        if rng.random() < 0.5:
            points = at + np.cumsum(rng.normal(0, longest / 6, (4, 2)), axis=0)
            outline = ribbon(curve(points, 12), rng.uniform(0.5, 1.6))
        else:
            angle = np.sort(rng.uniform(0, 6.28, 7))
            outline = at + rng.uniform(0.4, 2.5) * rng.uniform(0.5, 1, (7, 1)) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        patch = polygon(outline, canvas.size)
        if not patch.empty:
            canvas.lay(patch.times(float(rng.uniform(0.4, 1.0))), tint)
