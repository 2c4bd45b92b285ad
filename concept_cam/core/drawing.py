"""Drawing: score maps over pictures, colour bars in true units, outlines and contact sheets. Pure functions, numpy and Pillow only.

A :class:`Scale` says which colour a score has. The same scale gives the same score the same colour on every picture; nothing is
stretched to each map's own range behind the reader's back, and the bar beside the picture carries the numbers.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import choose
from concept_cam.core.regions import above, find_regions
from concept_cam.core.resampling import heatmap

if TYPE_CHECKING:
    from concept_cam.core.geometry import Geometry

__all__ = [
    "COLORMAPS",
    "Scale",
    "blend",
    "captioned",
    "colorbar",
    "draw_map",
    "grey",
    "outline",
    "sheet",
    "ticks",
    "with_colorbar",
]

WHITE, INK = (255, 255, 255), (32, 32, 32)

# ------------------------------------------------------------------------------------------------------------ colour maps


def _oklab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """OKLab float [N, 3] -> sRGB float [N, 3] in 0..1 (Ottosson 2020, "A perceptual color space for image processing")."""
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0.0, 1.0)
    return cast("np.ndarray", np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def _blue_red() -> np.ndarray:
    """Blue, light grey, red; straight lines in OKLab, so that equal score differences look equally large on both sides."""

    def point(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
        angle = math.radians(hue)
        return lightness, chroma * math.cos(angle), chroma * math.sin(angle)

    stops = np.array([point(0.52, 0.205, 262.0), point(0.95, 0.0, 0.0), point(0.52, 0.205, 28.0)])
    share = np.linspace(0.0, 2.0, _TABLE_SIZE)
    return _oklab_to_srgb(np.stack([np.interp(share, [0.0, 1.0, 2.0], stops[:, axis]) for axis in range(3)], axis=1))


def _viridis() -> np.ndarray:
    """Viridis (van der Walt and Smith, matplotlib, CC0) from nine of its colours."""
    stops = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"]
    colours = np.array([list(bytes.fromhex(stop)) for stop in stops]) / 255
    share = np.linspace(0.0, 1.0, _TABLE_SIZE)
    return np.stack([np.interp(share, np.linspace(0, 1, len(stops)), colours[:, axis]) for axis in range(3)], axis=1)


_TABLE_SIZE = 513  # odd: a diverging map has an entry that is exactly its centre

COLORMAPS: dict[str, Callable[[], np.ndarray]] = {"blue-red": _blue_red, "viridis": _viridis}
"""Colour maps by name: float [513, 3] sRGB in 0..1. ``blue-red`` diverges from zero, ``viridis`` runs from low to high."""

DIVERGING = frozenset({"blue-red"})
"""Colour maps whose centre stands for the score zero."""


@lru_cache(maxsize=8)
def _table(name: str) -> np.ndarray:
    table = np.rint(choose(name, COLORMAPS, "colour map")() * 255).astype(np.uint8)
    table.flags.writeable = False
    return cast("np.ndarray", table)


@dataclass(frozen=True)
class Scale:
    """Which colour a score has.

    Attributes:
        limits: Lowest and highest score that are told apart; scores beyond have the colour of the end.
        colormap: Name in :data:`COLORMAPS`. A diverging map keeps its neutral colour at zero whatever the limits are.

    Raises:
        ConfigurationError: Limits that are not finite or in the wrong order, or an unknown colour map.
    """

    limits: tuple[float, float]
    colormap: str = "blue-red"

    def __post_init__(self) -> None:
        choose(self.colormap, COLORMAPS, "colour map")
        try:
            low, high = (float(limit) for limit in self.limits)
        except (TypeError, ValueError):
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigurationError(f"colour limits must be two finite scores, received {self.limits!r}.")
        if low > high:
            raise ConfigurationError(f"colour limits must be LOW then HIGH, received {self.limits[0]} and {self.limits[1]}.")
        object.__setattr__(self, "limits", (low, high))

    def rgb(self, scores: np.ndarray) -> np.ndarray:
        """Returns the colours uint8 [..., 3] of scores of any shape; NaN takes the colour of the lower limit."""
        low, high = self.limits
        values = np.clip(np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=low), low, high)
        if self.colormap in DIVERGING:
            reach = max(abs(low), abs(high))
            share = 0.5 + values / (2 * reach) if reach > 0 else np.full_like(values, 0.5)
        else:
            share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
        return _table(self.colormap)[np.rint(share * (_TABLE_SIZE - 1)).astype(np.intp)]


# ------------------------------------------------------------------------------------------------------------ maps on pictures


def blend(picture: np.ndarray, heatmap: np.ndarray, scale: Scale, alpha: float = 0.5) -> np.ndarray:
    """Lays a score map over a picture.

    Args:
        picture: uint8 [H, W, 3].
        heatmap: float [H, W], score units; where it is NaN the picture shows untouched.
        scale: Colours of the scores.
        alpha: Share of the colour in 0..1; the rest is the picture.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ConfigurationError: Sizes differ, or ``alpha`` is out of range.
    """
    if picture.shape[:2] != heatmap.shape:
        raise ConfigurationError(f"the picture is {picture.shape[:2]} and the heatmap {heatmap.shape} (rows, columns).")
    if not 0 <= alpha <= 1:
        raise ConfigurationError(f"alpha must lie in 0..1, received {alpha}.")
    weight = np.where(np.isfinite(heatmap), np.float32(alpha), np.float32(0))[:, :, None]
    mixed = picture * (1 - weight) + scale.rgb(heatmap) * weight
    return cast("np.ndarray", np.rint(mixed).astype(np.uint8))


def grey(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Takes the colour out of a picture uint8 [H, W, 3] where the mask bool [H, W] is true.

    Over a grey picture every hue belongs to the map: an orange fish is not mistaken for a high score.
    """
    luma = np.asarray(Image.fromarray(picture).convert("L"))
    return np.where(where[:, :, None], luma[:, :, None], picture)


def outline(picture: np.ndarray, contours: Iterable[np.ndarray], width: int = 2, colour: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Draws closed outlines with a dark rim, visible on any ground.

    Args:
        picture: uint8 [H, W, 3].
        contours: Each float [N, 2] of ``(x, y)`` in pixels of ``picture``; pixel i covers [i, i+1).
        width: Width of the line, pixels.
        colour: Its colour.

    Returns:
        uint8 [H, W, 3].
    """
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    # Pillow puts integer coordinates on pixel centres, ours on pixel corners.
    lines = [[(float(x) - 0.5, float(y) - 0.5) for x, y in (*contour, contour[0])] for contour in contours if len(contour)]
    for thickness, ink in ((width + 2, INK), (width, colour)):
        for line in lines:
            pen.line(line, fill=ink, width=thickness, joint="curve")
    return np.asarray(image)


# ------------------------------------------------------------------------------------------------------------ text


_FALLBACK_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "Arial.ttf",
    "msyh.ttc",
    "Hiragino Sans GB.ttc",
)
_PLAIN = str.maketrans({"–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "„": '"', "×": "x", "→": "->", "≥": ">=", "≤": "<="})

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@lru_cache(maxsize=64)
def _system_font(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _missing(font: Font, text: str) -> set[str]:
    """Characters that the font draws as its box for unknown ones."""
    unknown = bytes(font.getmask("\U0010ffff"))
    return {char for char in set(text) if not char.isspace() and bytes(font.getmask(char)) == unknown}


def _font_for(text: str, size: int) -> tuple[Font, str]:
    """Returns a font and the text that it can draw.

    Pillow's bundled font knows little beyond ASCII. Other characters take a font of the system; what no font has is spelt
    without its accents, or as ``?``.
    """
    bundled: Font = ImageFont.load_default(size)
    if text.isascii():
        return bundled, text
    text = unicodedata.normalize("NFC", text)
    best, lacking = bundled, _missing(bundled, text)
    for name in _FALLBACK_FONTS:
        if not lacking:
            break
        font = _system_font(name, size)
        if font is not None and len(found := _missing(font, text)) < len(lacking):
            best, lacking = font, found

    def spelt(char: str) -> str:
        if char not in lacking:
            return char
        plain = unicodedata.normalize("NFKD", char.translate(_PLAIN)).encode("ascii", "ignore").decode()
        return plain or "?"

    return best, "".join(spelt(char) for char in text)


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Breaks a text into lines no wider than ``width`` pixels, at spaces where there are any."""
    lines = [""]
    for word in text.split():
        candidate = f"{lines[-1]} {word}".strip()
        if font.getlength(candidate) <= width:
            lines[-1] = candidate
            continue
        if lines[-1]:
            lines.append("")
        for char in word:  # a word wider than the line is broken anywhere
            if lines[-1] and font.getlength(lines[-1] + char) > width:
                lines.append("")
            lines[-1] += char
    return [line for line in lines if line]


def _text_block(text: str, width: int, size: int) -> Image.Image | None:
    """Returns wrapped text on white, ``width`` pixels wide; ``None`` for empty text."""
    font, text = _font_for(text, size)
    lines = _wrap(text, font, max(1, width - size))
    if not lines:
        return None
    line_height = math.ceil(size * 1.35)
    block = Image.new("RGB", (width, line_height * len(lines) + size // 2), WHITE)
    pen = ImageDraw.Draw(block)
    for index, line in enumerate(lines):
        pen.text((size // 2, size // 4 + index * line_height), line, font=font, fill=INK)
    return block


def captioned(image: Image.Image, text: str, size: int = 14) -> Image.Image:
    """Returns the image with a text above it, wrapped to its width (at least 16 letters); unchanged where the text is empty."""
    width = max(image.width, 16 * size)
    block = _text_block(text, width, size)
    if block is None:
        return image
    canvas = Image.new("RGB", (width, image.height + block.height), WHITE)
    canvas.paste(block, (0, 0))
    canvas.paste(image, (0, block.height))
    return canvas


def footed(image: Image.Image, *blocks: Image.Image | None) -> Image.Image:
    """Returns the image with further blocks below it, as wide as the widest; blocks that are ``None`` are left out."""
    kept = [image, *(block for block in blocks if block is not None)]
    canvas = Image.new("RGB", (max(block.width for block in kept), sum(block.height for block in kept)), WHITE)
    top = 0
    for block in kept:
        canvas.paste(block, (0, top))
        top += block.height
    return canvas


def note_block(text: str, width: int, size: int = 14) -> Image.Image | None:
    """Returns a text as a block of its own, wrapped to ``width`` pixels; ``None`` for an empty text."""
    return _text_block(text, width, size)


def bars(entries: Sequence[tuple[str, float]], width: int, size: int = 14) -> Image.Image:
    """Draws one bar per entry from a common zero line: red to the right for positive values, blue to the left for negative ones.

    Args:
        entries: Names and values; a value that is not a number gets no bar.
        width: Width in pixels.
        size: Height of the letters in pixels.
    """
    line = math.ceil(size * 1.5)
    finite = [value for _, value in entries if math.isfinite(value)]
    reach = max((abs(value) for value in finite), default=0.0) or 1.0
    fonts = [_font_for(name, size) for name, _ in entries]
    label = min(math.ceil(max((font.getlength(text) for font, text in fonts), default=0.0)), width // 3)
    number_font, _ = _font_for("0", size)
    number = math.ceil(number_font.getlength("+0.000"))
    left, right = label + size, width - number - size
    zero = (left + right) / 2
    image = Image.new("RGB", (width, line * len(entries) + size // 2), WHITE)
    pen = ImageDraw.Draw(image)
    scale = Scale((-1.0, 1.0))
    for row, ((font, text), (_, value)) in enumerate(zip(fonts, entries)):
        top = row * line + size // 4
        while text and font.getlength(text) > label:
            text = text[:-2] + "…" if len(text) > 2 else ""
        pen.text((size // 2, top), text, font=font, fill=INK)
        shown = "-" if not math.isfinite(value) else f"{value:+.3f}"
        pen.text((right + size // 2, top), shown, font=number_font, fill=INK)
        if math.isfinite(value):
            end = zero + value / reach * (right - left) / 2
            colour = tuple(int(part) for part in scale.rgb(np.array(0.8 if value > 0 else -0.8)))
            pen.rectangle((min(zero, end), top + size * 0.2, max(zero, end), top + size * 1.05), fill=colour)
    pen.line((zero, 0, zero, image.height), fill=INK)
    return image


# ------------------------------------------------------------------------------------------------------------ colour bar


def _decimals(span: float) -> int:
    """Decimals that tell a hundredth of the span apart."""
    return min(max(0, 2 - math.floor(math.log10(span))), 9) if span > 0 else 3


def ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Returns round scores between the limits (multiples of 1, 2 or 5 times a power of ten), and the limits themselves.

    A round score nearer to a limit than half a step gives way to it.
    """
    if high <= low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step), math.floor(high / step)
    inner = [index * step for index in range(first, last + 1)]
    return [low, *(value for value in inner if value - low > step / 2 and high - value > step / 2), high]


def colorbar(scale: Scale, height: int, label: str = "", size: int = 12) -> Image.Image:
    """Draws the scale: a column of its colours, highest on top, with scores beside it.

    Args:
        scale: What to draw.
        height: Height in pixels, ends and labels included.
        label: What the scores are; written along the bar.
        size: Height of the letters in pixels.
    """
    low, high = scale.limits
    width, margin = max(8, round(size * 1.2)), math.ceil(size * 0.75)
    length = max(height - 2 * margin, 2)
    marks = ticks(low, high, most=max(2, min(8, length // (2 * size))))
    decimals = _decimals(high - low)
    sign = "+" if low < 0 < high else "-"
    texts = ["0" if mark == 0 else f"{mark:{sign}.{decimals}f}" for mark in marks]
    font, _ = _font_for("0", size)
    text_width = math.ceil(max(font.getlength(text) for text in texts))
    title = _text_block(label, min(length + 2 * margin, math.ceil(font.getlength(label)) + 2 * size), size)
    total = width + size // 2 + text_width + size // 2 + (title.height if title else 0)
    image = Image.new("RGB", (total, max(height, length + 2 * margin)), WHITE)
    # Row centres: the first and the last row have exactly the colours of the limits.
    column = np.linspace(high, low, length)
    image.paste(Image.fromarray(np.repeat(scale.rgb(column)[:, None], width, axis=1)), (0, margin))
    pen = ImageDraw.Draw(image)
    for mark, text in zip(marks, texts, strict=True):
        share = (high - mark) / (high - low) if high > low else 0.5
        y = margin + share * (length - 1)
        pen.line([(width, y), (width + size // 4, y)], fill=INK)
        pen.text((width + size // 2, y), text, font=font, fill=INK, anchor="lm")
    if title is not None:
        image.paste(title.rotate(90, expand=True), (total - title.height, (image.height - title.width) // 2))
    return image


def with_colorbar(image: Image.Image, scale: Scale, label: str = "", size: int = 12) -> Image.Image:
    """Returns the image with the colour bar to its right."""
    bar = colorbar(scale, max(image.height, 8 * size), label, size)  # the bar of a very flat picture must stay legible
    gap = size
    canvas = Image.new("RGB", (image.width + gap + bar.width + size // 2, max(image.height, bar.height)), WHITE)
    canvas.paste(image, (0, 0))
    canvas.paste(bar, (image.width + gap, 0))
    return canvas


# ------------------------------------------------------------------------------------------------------------ sheets


def sheet(
    images: Sequence[Image.Image],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    gap: int = 12,
    size: int = 14,
) -> Image.Image:
    """Puts images side by side on one white sheet, row by row, each under its title.

    Args:
        images: At least one; kept at their own size, cells take the largest.
        columns: Images per row; by default as square as possible.
        titles: One text per image, wrapped to the cell.
        gap: White pixels between and around the cells.
        size: Height of the letters in pixels.

    Raises:
        ConfigurationError: No image, another number of titles, or less than one column.
    """
    if not images:
        raise ConfigurationError("a sheet needs at least one image, received none.")
    if titles is not None and len(titles) != len(images):
        raise ConfigurationError(f"received {len(titles)} titles for {len(images)} images.")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if columns < 1:
        raise ConfigurationError(f"a sheet needs at least one column, received {columns}.")
    columns = min(columns, len(images))
    width = max(image.width for image in images)
    blocks = [_text_block(title, width, size) for title in titles or [""] * len(images)]
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    # Titles of one row take the height of its longest, so that the pictures stay level.
    heads = [max((block.height if (block := blocks[index]) else 0) for index in row) for row in rows]
    bodies = [max(images[index].height for index in row) for row in rows]
    canvas = Image.new("RGB", (columns * (width + gap) + gap, sum(heads) + sum(bodies) + gap * (len(rows) + 1)), WHITE)
    top = gap
    for row, head, body in zip(rows, heads, bodies, strict=True):
        for column, index in enumerate(row):
            left = gap + column * (width + gap)
            block = blocks[index]
            if block is not None:
                canvas.paste(block, (left, top + head - block.height))
            canvas.paste(images[index], (left, top + head))
        top += head + body + gap
    return canvas


# --------------------------------------------------------------------------------------------------------------- maps

DISPLAY_SIDES = (480, 1600)
"""Least and most pixels of a drawn picture's longer side: smaller ones are enlarged for legibility, larger ones reduced."""


def draw_map(
    scores: np.ndarray,
    geometry: Geometry,
    picture: np.ndarray,
    scale: Scale,
    *,
    threshold: float | None = None,
    upsampling: str = "cubic",
    title: str = "",
    alpha: float = 0.5,
) -> Image.Image:
    """Draws a score map over its picture, outlines of the regions, a colour bar in score units, and a title.

    The longer side of the picture is brought within :data:`DISPLAY_SIDES`; the map is computed at that size.

    Args:
        scores: float32 [h, w], grid frame; NaN in padding.
        geometry: Frames of the picture.
        picture: uint8 [H, W, 3] upright.
        scale: Colours, and the scores that they stand for.
        threshold: Outline what lies above this score; ``None`` draws no outline.
        upsampling: Strategy of :data:`concept_cam.core.resampling.UPSAMPLING`.
        title: Text above; an empty text for none.
        alpha: Share of the colours in 0..1.

    Raises:
        ConfigurationError: The picture has another size than the map's, or is not read; or the title is no text.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3:
        kind = f"{picture.dtype} {list(picture.shape)}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise ConfigurationError(f"a map is drawn over pixels, uint8 [H, W, 3], received {kind}: give read_image(picture).pixels.")
    if not isinstance(title, str):
        raise ConfigurationError(f"the title must be text, received {title!r} ({type(title).__name__}).")
    if picture.shape[:2] != geometry.original:
        raise ConfigurationError(
            f"the picture is {picture.shape[:2]}, but the result belongs to one of {geometry.original} (rows, columns)."
        )
    height, width = picture.shape[:2]
    factor = min(max(DISPLAY_SIDES[0] / max(height, width), 1.0), DISPLAY_SIDES[1] / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shown = np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    scale_y, scale_x = (old * before / new for old, before, new in zip(geometry.scale, (height, width), size, strict=True))
    map_ = heatmap(scores, replace(geometry, original=size, scale=(scale_y, scale_x)), upsampling, shown)
    mixed = blend(grey(shown, np.isfinite(map_)), map_, scale, alpha)
    if threshold is not None:
        regions = find_regions(map_, above(map_, threshold))
        mixed = outline(mixed, [contour for region in regions for contour in region.contours])
    letters = max(12, round(max(size) / 60))
    return captioned(with_colorbar(Image.fromarray(mixed), scale, "score", letters), title, letters + 2)
