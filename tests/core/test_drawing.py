"""Drawing: every colour is checked against the score that it stands for."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from concept_cam.core.concept import Concept
from concept_cam.core.drawing import (
    COLORMAPS,
    DISPLAY_SIDES,
    DIVERGING,
    Scale,
    bars,
    blend,
    captioned,
    colorbar,
    grey,
    outline,
    sheet,
    ticks,
    with_colorbar,
)
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.geometry import Geometry
from concept_cam.core.results import Localization, Provenance

SIGNED = Scale((-0.2, 0.2))


def lightness(colours: np.ndarray) -> np.ndarray:
    return rgb2lab(colours[None] / 255.0)[0, :, 0]


# ------------------------------------------------------------------------------------------------------------ colours


def test_diverging_colours_mean_what_they_should() -> None:
    red, neutral, blue = SIGNED.rgb(np.array([0.2, 0.0, -0.2])).astype(int)
    assert red[0] > 150 > 2 * red[1]
    assert blue[2] > 150 > 2 * blue[0]
    assert np.ptp(neutral) <= 1
    assert neutral.min() > 220


@pytest.mark.parametrize("limits", [(-0.2, 0.2), (-0.1, 0.4), (0.1, 0.3), (-0.5, -0.2), (0.0, 1.0)])
def test_zero_is_neutral_whatever_the_limits(limits: tuple[float, float]) -> None:
    scale = Scale(limits)
    if limits[0] <= 0 <= limits[1]:
        assert np.ptp(scale.rgb(np.array(0.0)).astype(int)) <= 1
    for value in np.linspace(*limits, 9):
        red, _, blue = scale.rgb(np.array(value)).astype(int)
        assert (red > blue) == (value > 1e-9) or abs(value) < 0.01


@pytest.mark.parametrize("name", sorted(COLORMAPS))
def test_colour_maps_are_perceptually_ordered(name: str) -> None:
    """Lightness changes monotonically (from the centre, on a diverging map) and equal score steps look about equally large."""
    colours = Scale((-1, 1), name).rgb(np.linspace(-1, 1, 65))
    steps = np.diff(lightness(colours))
    if name in DIVERGING:
        assert (steps[:32] > 0).all()
        assert (steps[32:] < 0).all()
        # Both sides are equally strong: a score and its negative differ in hue, not in weight.
        assert np.abs(lightness(colours) - lightness(colours[::-1])).max() < 6
    else:
        assert (steps > 0).all()
    lab = rgb2lab(colours[None] / 255.0)[0]
    distances = deltaE_ciede2000(lab[:-1], lab[1:])
    assert distances.min() > 0.2 * distances.max()


def test_tables_have_the_stated_form() -> None:
    for make in COLORMAPS.values():
        table = make()
        assert table.shape == (513, 3)
        assert table.min() >= 0
        assert table.max() <= 1
    # The published ends of viridis.
    assert Scale((0, 1), "viridis").rgb(np.array([0.0, 1.0])).tolist() == [[68, 1, 84], [253, 231, 37]]


def test_scores_beyond_the_limits_have_the_colour_of_the_end() -> None:
    for name in COLORMAPS:
        scale = Scale((-0.2, 0.2), name)
        np.testing.assert_array_equal(scale.rgb(np.array([5.0, -5.0, np.inf])), scale.rgb(np.array([0.2, -0.2, 0.2])))


@pytest.mark.parametrize("limits", [(0.0, 0.0), (0.3, 0.3), (-0.3, -0.3)])
@pytest.mark.parametrize("name", sorted(COLORMAPS))
def test_a_constant_map_has_one_colour(limits: tuple[float, float], name: str) -> None:
    colours = Scale(limits, name).rgb(np.full((2, 2), limits[0]))
    assert (colours == colours[0, 0]).all()
    assert colorbar(Scale(limits, name), 100).height == 100


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0.2, -0.2), "LOW then HIGH"),
        ((float("nan"), 1.0), "finite"),
        ((0.0, float("inf")), "finite"),
        ((1.0,), "two finite scores"),
    ],
)
def test_wrong_limits(limits: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Scale(limits)  # type: ignore[arg-type]


def test_unknown_colour_map() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown colour map 'viridsi'\. Did you mean 'viridis'"):
        Scale((0, 1), "viridsi")


# ------------------------------------------------------------------------------------------------------------ blending


def test_blend_is_the_stated_mixture() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    heatmap = np.random.default_rng(1).uniform(-0.3, 0.3, (5, 7)).astype(np.float32)
    mixed = blend(picture, heatmap, SIGNED, 0.3)
    assert mixed.dtype == np.uint8
    for y, x in itertools.product(range(5), range(7)):
        expected = 0.7 * picture[y, x] + 0.3 * SIGNED.rgb(heatmap[y, x])
        assert np.abs(mixed[y, x] - expected).max() <= 0.5 + 1e-3
    np.testing.assert_array_equal(blend(picture, heatmap, SIGNED, 0.0), picture)
    np.testing.assert_array_equal(blend(picture, heatmap, SIGNED, 1.0), SIGNED.rgb(heatmap))


def test_nan_leaves_the_picture_untouched() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    heatmap = np.full((6, 6), 0.2, dtype=np.float32)
    heatmap[:, :3] = np.nan
    mixed = blend(picture, heatmap, SIGNED, 0.5)
    np.testing.assert_array_equal(mixed[:, :3], picture[:, :3])
    assert (mixed[:, 3:] != picture[:, 3:]).any(axis=2).all()


def test_blend_checks_its_input() -> None:
    with pytest.raises(ConfigurationError, match=r"picture is \(2, 3\) and the heatmap \(3, 2\)"):
        blend(np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2)), SIGNED)
    with pytest.raises(ConfigurationError, match="alpha"):
        blend(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), SIGNED, 1.5)


def test_grey_takes_colour_out_only_where_told() -> None:
    picture = np.full((2, 2, 3), (200, 100, 0), dtype=np.uint8)
    shown = grey(picture, np.array([[True, False], [False, False]]))
    assert np.ptp(shown[0, 0]) == 0
    np.testing.assert_array_equal(shown[0, 1], picture[0, 1])
    np.testing.assert_array_equal(shown[1], picture[1])


def test_outline_runs_along_the_contour() -> None:
    picture = np.full((60, 80, 3), 128, dtype=np.uint8)
    square = np.array([[20.0, 10.0], [50.0, 10.0], [50.0, 40.0], [20.0, 40.0]])
    drawn = outline(picture, [square], width=2)
    changed = (drawn != picture).any(axis=2)
    ys, xs = np.nonzero(changed)
    # The line lies on the border between pixels 19|20 and 49|50, 9|10 and 39|40, at most three pixels to either side.
    assert 17 <= xs.min() < 20 <= 50 <= xs.max() <= 52
    assert 7 <= ys.min() < 10 <= 40 <= ys.max() <= 42
    assert not changed[15:35, 25:45].any()
    for x in range(20, 50):
        assert (drawn[8:13, x] == 255).all(axis=1).any()
    assert (picture == 128).all()
    np.testing.assert_array_equal(outline(picture, []), picture)


# ------------------------------------------------------------------------------------------------------------ colour bar


@pytest.mark.parametrize(("low", "high"), [(-0.2, 0.2), (0.0, 1.0), (-0.031, 0.47), (0.1234, 0.1235), (-5, 1000), (-3e-7, 2e-7)])
def test_ticks(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] == low
    assert marks[-1] == high
    assert marks == sorted(set(marks))
    assert 2 <= len(marks) <= 11
    inner = np.diff(marks[1:-1])
    np.testing.assert_allclose(inner, inner[:1].repeat(len(inner)))
    if len(inner):
        mantissa = inner[0] / 10 ** np.floor(np.log10(inner[0]) + 1e-9)
        assert min(abs(mantissa - value) for value in (1, 2, 5, 10)) < 1e-6


def test_ticks_of_a_single_score() -> None:
    assert ticks(0.3, 0.3) == [0.3]


def bar_rows(scale: Scale, height: int = 200) -> np.ndarray:
    """The colours of the bar's own column, uint8 [N, 3], without the white margins."""
    column = np.asarray(colorbar(scale, height, "score"))[:, 3]
    rows = np.flatnonzero((column != 255).any(axis=1))
    return column[rows[0] : rows[-1] + 1]


@pytest.mark.parametrize("name", sorted(COLORMAPS))
@pytest.mark.parametrize("limits", [(-0.2, 0.2), (-0.1, 0.4), (0.1, 0.3)])
def test_the_bar_carries_the_colours_of_its_scores(name: str, limits: tuple[float, float]) -> None:
    scale = Scale(limits, name)
    rows = bar_rows(scale)
    np.testing.assert_array_equal(rows[0], scale.rgb(np.array(limits[1])))
    np.testing.assert_array_equal(rows[-1], scale.rgb(np.array(limits[0])))
    np.testing.assert_array_equal(rows, scale.rgb(np.linspace(limits[1], limits[0], len(rows))))


def test_the_bars_ends_carry_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts that are drawn, and at which height."""
    from PIL import ImageDraw

    drawn: list[tuple[float, str]] = []
    original = ImageDraw.ImageDraw.text

    def record(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, *args: object, **options: object) -> None:
        drawn.append((xy[1], text))
        original(self, xy, text, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    colorbar(Scale((-0.1, 0.4)), 300)
    texts = [text for _, text in drawn]
    assert texts[0] == "-0.100"
    assert texts[-1] == "+0.400"
    assert "0" in texts
    heights = [y for y, _ in drawn]
    assert heights == sorted(heights, reverse=True)
    # Labels sit where their score is.
    low, high = heights[0], heights[-1]
    for y, text in drawn:
        assert y == pytest.approx(low + (float(text) + 0.1) / 0.5 * (high - low), abs=0.5)
    drawn.clear()
    colorbar(Scale((0.1, 0.3), "viridis"), 300)
    assert drawn[0][1] == "0.100"
    assert drawn[-1][1] == "0.300"


@pytest.mark.parametrize("height", [1, 5, 20, 60, 400])
def test_bars_of_any_height(height: int) -> None:
    assert colorbar(SIGNED, height, "score").height >= height


def test_with_colorbar_keeps_the_image() -> None:
    image = Image.new("RGB", (50, 200), "navy")
    combined = with_colorbar(image, SIGNED)
    np.testing.assert_array_equal(np.asarray(combined)[:200, :50], np.asarray(image))
    flat = with_colorbar(Image.new("RGB", (300, 5), "navy"), SIGNED, "score")
    assert flat.height >= 90


# ------------------------------------------------------------------------------------------------------------ text and sheets


def test_captions_wrap_and_keep_the_image() -> None:
    image = Image.new("RGB", (300, 40), "navy")
    short, long = captioned(image, "a tail"), captioned(image, "a very long title " * 10)
    assert image.height < short.height < long.height
    assert short.width == long.width == 300
    for result in (short, long):
        np.testing.assert_array_equal(np.asarray(result)[-40:, :300], np.asarray(image))
    assert captioned(image, "") is image
    assert captioned(image, "  \n ") is image
    # No ink touches the right edge: nothing is cut off, not even a word without spaces.
    for text in ("a very long title " * 10, "x" * 200):
        assert (np.asarray(captioned(image, text))[:-40, -3:] == 255).all()


def ink(text: str) -> np.ndarray:
    return np.asarray(captioned(Image.new("RGB", (300, 10), "white"), text).convert("L"))


def test_text_beyond_ascii_is_drawn_or_spelt_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.core import drawing as overlay

    for text in ("Flügel – größer", "плавник", "尾鳍", "\U0001f41f", "e\u0301"):
        assert (ink(text) < 128).any()
    # Without any font of the system: accents are dropped, unknown letters become question marks, nothing is an empty box.
    monkeypatch.setattr(overlay, "_FALLBACK_FONTS", ())
    np.testing.assert_array_equal(ink("Flügel – é"), ink("Flugel - e"))
    np.testing.assert_array_equal(ink("尾鳍"), ink("??"))


def test_sheet_places_every_image() -> None:
    colours = ["red", "lime", "blue", "yellow", "cyan"]
    images = [Image.new("RGB", (40, 30 + index), colour) for index, colour in enumerate(colours)]
    result = np.asarray(sheet(images, columns=2, titles=["one", "two " * 20, "three", "four", "five"], gap=10))
    assert result.shape[1] == 2 * 40 + 3 * 10
    corners = {}
    for colour, image in zip(colours, images, strict=True):
        where = (result == np.asarray(image)[0, 0]).all(axis=2)
        ys, xs = np.nonzero(where)
        assert where.sum() == image.width * image.height
        corners[colour] = (int(ys.min()), int(xs.min()))
    assert corners["red"][1] == corners["blue"][1] == 10
    assert corners["lime"][1] == corners["yellow"][1] == 60
    assert corners["red"][0] == corners["lime"][0] < corners["blue"][0] == corners["yellow"][0] < corners["cyan"][0]


def test_sheet_defaults_and_errors() -> None:
    image = Image.new("RGB", (10, 10))
    assert sheet([image]).size == (34, 34)
    assert sheet([image] * 4, gap=0).size == (20, 20)
    assert sheet([image] * 2, columns=7, gap=0).size == (20, 10)
    with pytest.raises(ConfigurationError, match="at least one image"):
        sheet([])
    with pytest.raises(ConfigurationError, match="1 titles for 2 images"):
        sheet([image] * 2, titles=["x"])
    with pytest.raises(ConfigurationError, match="at least one column"):
        sheet([image], columns=0)


# ------------------------------------------------------------------------------------------------------------ results


def result(
    picture: np.ndarray,
    *,
    scores: np.ndarray | None = None,
    contrasts: bool = True,
    geometry: Geometry | None = None,
) -> Localization:
    height, width = picture.shape[:2]
    geometry = geometry or Geometry("squash", (height, width), (64, 64), (4, 4), (64 / height, 64 / width))
    if scores is None:
        scores = np.full(geometry.grid, -0.05, dtype=np.float32)
        scores[1, 2] = 0.2
    concept = Concept(("a forked fin",), (("a round fin",), ("a square fin",)) if contrasts else ())
    provenance = Provenance("none", "0" * 16, "direct", "float32")
    return Localization(concept, scores, geometry, 0.1, (), (), provenance, picture=picture)


def draw(found: Localization, **options: Any) -> Image.Image:
    return found.overlay(**options)


def test_draw_puts_the_same_score_in_the_same_colour_on_two_pictures() -> None:
    dark, bright = np.full((480, 480, 3), 60, np.uint8), np.full((600, 500, 3), 60, np.uint8)
    limits = (-0.3, 0.3)
    first = np.asarray(draw(result(dark), limits=limits, title=""))
    weak = np.full((4, 4), -0.05, dtype=np.float32)
    weak[1, 2] = 0.1
    second = np.asarray(draw(result(bright, scores=weak), limits=limits, title=""))
    np.testing.assert_array_equal(first[400, 50], second[550, 50])  # -0.05 in both
    np.testing.assert_array_equal(first[400, 50], np.rint(30 + 0.5 * Scale(limits).rgb(np.array(-0.05))))
    peak_first, peak_second = first[180, 300].astype(int), second[225, 312].astype(int)
    assert peak_first[0] - peak_first[2] > peak_second[0] - peak_second[2] > 0


def test_draw_chooses_the_scale_by_the_question() -> None:
    picture = np.zeros((480, 480, 3), np.uint8)
    contrasted = result(picture).display_scale()
    assert contrasted.colormap == "blue-red"
    assert contrasted.limits == (pytest.approx(-0.2), pytest.approx(0.2))
    plain = result(picture, contrasts=False).display_scale()
    assert plain.colormap == "viridis"
    assert plain.limits == (pytest.approx(-0.05), pytest.approx(0.2))
    assert result(picture).display_scale((-1, 1)).limits == (-1.0, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (20, 400), (64, 64), (480, 640), (40, 4000)])
def test_draw_any_size(shape: tuple[int, int]) -> None:
    image = draw(result(np.full((*shape, 3), 60, np.uint8)), threshold=0.1)
    assert max(image.size) >= DISPLAY_SIDES[0]
    assert max(image.size) <= DISPLAY_SIDES[1] + 400


def test_draw_leaves_what_was_not_seen_in_its_own_colours() -> None:
    picture = np.full((480, 960, 3), (200, 100, 0), dtype=np.uint8)
    geometry = Geometry("native", (480, 960), (64, 64), (4, 4), (64 / 480, 64 / 480), (0.0, -32.0))
    shown = np.asarray(draw(result(picture, geometry=geometry), title=""))
    assert shown[240, 100].tolist() == [200, 100, 0]
    assert shown[240, 480].tolist() != [200, 100, 0]


def test_draw_outlines_the_region() -> None:
    found = result(np.full((480, 480, 3), 60, np.uint8))
    plain, outlined = np.asarray(draw(found, title="")), np.asarray(draw(found, title="", threshold=0.1))
    ys, xs = np.nonzero((plain != outlined).any(axis=2))
    mask = found.mask(0.1)
    rows, columns = np.nonzero(mask)
    assert abs(ys.min() - rows.min()) <= 3
    assert abs(ys.max() - rows.max()) <= 3
    assert abs(xs.min() - columns.min()) <= 3
    assert abs(xs.max() - columns.max()) <= 3


def test_draw_title_states_the_question() -> None:
    picture = np.full((480, 480, 3), 60, np.uint8)
    assert result(picture).question == "a forked fin vs. a round fin | a square fin"
    assert result(picture, contrasts=False).question == "a forked fin"
    assert draw(result(picture), title="").height < draw(result(picture)).height


def test_draw_needs_the_right_picture() -> None:
    found = result(np.zeros((480, 480, 3), np.uint8))
    with pytest.raises(ConfigurationError, match="belongs to one of"):
        draw(found, picture=np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(ConfigurationError, match="without its picture"):
        draw(dataclasses.replace(found, picture=None))


def test_drawing_does_not_load_torch() -> None:
    code = "import sys; import concept_cam.core.drawing; assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bars_grow_from_a_common_zero() -> None:
    image = np.asarray(bars([("up", 0.4), ("down", -0.2), ("odd", float("nan")), ("nothing", 0.0)], 400, 14)).astype(int)
    line = math.ceil(14 * 1.5)
    red = (image[..., 0] - image[..., 2] > 60).sum(axis=1).reshape(-1)
    blue = (image[..., 2] - image[..., 0] > 60).sum(axis=1).reshape(-1)
    rows = [slice(row * line, (row + 1) * line) for row in range(4)]
    longest = [max(int(red[part].max()), int(blue[part].max())) for part in rows]
    assert longest[0] == pytest.approx(2 * longest[1], abs=3)
    assert longest[2] == longest[3] == 0
    assert red[rows[0]].max() > 0
    assert blue[rows[1]].max() > 0
    assert bars([], 100).height > 0
