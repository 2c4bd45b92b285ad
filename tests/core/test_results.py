"""What a query gives back, as objects that people look at and write to disk."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam import Concept, Localizer, prompts
from concept_cam.core.errors import ConfigurationError, OutputError, PromptError
from concept_cam.core.regions import decode_rle, find_shapes
from concept_cam.core.results import Localization, Localizations
from tests.planted import PlantedBackbone
from tests.test_localizer import blocks


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone())


@pytest.fixture(scope="module")
def found(localizer: Localizer) -> Localization:
    return localizer.locate(blocks(64, 96), "red", ["green", "blue"])


def test_reprs_fit_a_line(localizer: Localizer, found: Localization) -> None:
    features = localizer.encode(blocks(64, 96))
    answers = localizer.score(features, [Concept((name,)) for name in ("red", "green", "blue", "white", "black")])
    for thing, part in (
        (found, "'red' against 'green', 'blue'"),
        (features, "patches of"),
        (answers, "<5 Localizations, 96 x 64 pixels: 'red', 'green', 'blue', 'white', ...>"),
        (localizer, "<Localizer of"),
        (localizer.with_settings(gamma=0.5), "; gamma=0.5>"),
        (found.regions()[0], "pixels, peak"),
    ):
        text = repr(thing)
        assert part in text
        assert "\n" not in text
        assert len(text) < 200


@pytest.mark.parametrize(
    ("probabilities", "likely"),
    [
        ((0.95, 0.03, 0.02), ("red",)),
        ((0.5, 0.45, 0.05), ("red", "green")),
        ((0.02, 0.38, 0.6), ("blue", "green")),
        ((0.4, 0.3, 0.3), ()),
        ((), ()),
    ],
)
def test_a_question_is_narrowed_down_to_its_likely_answers(
    probabilities: tuple[float, ...], likely: tuple[str, ...], found: Localization
) -> None:
    concept = Concept(("red",), (("green",), ("blue",)) if probabilities else ())
    narrowed = dataclasses.replace(found, concept=concept, probabilities=probabilities)
    together = sum(share for share, name in zip(probabilities, ("red", "green", "blue")) if name in likely)
    assert narrowed.likely_states == likely
    assert narrowed.likely_probability == (pytest.approx(together) if likely else None)
    written = narrowed.to_dict()
    assert (written["likely_states"], written["likely_probability"]) == (list(likely), narrowed.likely_probability)
    part = dataclasses.replace(concept, metadata={"kind": "part"})
    assert dataclasses.replace(narrowed, concept=part).likely_states == ()


def test_every_state_of_a_character_is_narrowed_down_alike(localizer: Localizer) -> None:
    """Whichever state is asked for, the set is the character's, in the names of its states."""
    states = {name: {"phrases": [f"{name} thing"]} for name in ("red", "green", "blue", "white")}
    character = {"kind": "colour", "entity": {"label": "block"}, "states": states}
    concepts = prompts.load({"pack": "blocks", "host": "block", "characters": {"colour": character}})
    answers = localizer.locate_all([blocks(64, 96)], concepts)[0]
    assert {frozenset(answer.likely_states) for answer in answers} == {frozenset({"red", "green"})}  # the blocks of the picture


def test_a_concept_may_be_asked_whole(localizer: Localizer, found: Localization) -> None:
    concept = Concept(("red",), (("green",), ("blue",)))
    np.testing.assert_array_equal(localizer.locate(blocks(64, 96), concept).scores, found.scores)
    with pytest.raises(PromptError, match="brings its own contrasts"):
        localizer.locate(blocks(64, 96), concept, "green")


@pytest.mark.parametrize("kind", ["array", "HWC", "CHW"])
def test_a_batch_is_a_list_of_pictures(kind: str, localizer: Localizer, found: Localization) -> None:
    pictures = np.stack([blocks(64, 96), np.zeros((64, 96, 3), np.uint8)])
    tensor = torch.from_numpy(pictures)
    batch: Any = {"array": pictures, "HWC": tensor, "CHW": tensor.permute(0, 3, 1, 2)}[kind]
    answers = localizer.locate(batch, "red", ["green", "blue"])
    assert len(answers) == len(localizer.encode(batch)) == 2
    np.testing.assert_array_equal(answers[0].scores, found.scores)
    np.testing.assert_array_equal(localizer.locate_all(batch, [found.concept])[0][0].scores, found.scores)


def test_plot_draws_into_the_axes(found: Localization) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    shown = found.plot(axes, limits=(-0.5, 0.5))
    assert shown.get_clim() == (-0.5, 0.5)
    np.testing.assert_array_equal(np.ma.filled(shown.get_array(), np.nan), found.heatmap)
    assert len(axes.images) == 2  # The picture below.
    assert axes.get_title() == found.question
    plt.close(figure)


def test_show_opens_the_picture(found: Localization, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, int]] = []
    monkeypatch.setattr(Image.Image, "show", lambda image, title=None: opened.append(image.size))
    found.show(title="")
    assert opened == [found.overlay(title="").size]


def test_the_ledger_sums_to_the_scores(found: Localization) -> None:
    ledger = found.ledger()
    assert list(ledger) == ["red", "green", "blue"]
    np.testing.assert_allclose(sum(ledger.values()), found.scores, atol=1e-6)
    with pytest.raises(ConfigurationError, match="no contrast ledger"):
        dataclasses.replace(found, split=None).ledger()


def test_another_upsampling_keeps_frame_and_scores(found: Localization) -> None:
    np.testing.assert_array_equal(found.upsample("cubic"), found.heatmap)
    linear = found.upsample("bilinear")
    assert linear.shape == found.heatmap.shape
    assert np.nanmax(linear) <= np.nanmax(found.scores) + 1e-6
    assert np.nanmin(linear) >= np.nanmin(found.scores) - 1e-6


def test_the_peak_is_the_heatmaps_highest_point(found: Localization) -> None:
    x, y = found.peak
    rows, columns = np.unravel_index(np.nanargmax(found.heatmap), found.heatmap.shape)
    cell_y, cell_x = found.geometry.cell_original
    assert abs(x - columns - 0.5) <= cell_x / 8 + 0.5
    assert abs(y - rows - 0.5) <= cell_y / 8 + 0.5
    assert found.peak_score == pytest.approx(float(np.nanmax(found.scores)))


@pytest.mark.parametrize("resolution", ["original", "model"])
def test_the_region_of_the_peak_comes_first_and_the_others_by_size(localizer: Localizer, resolution: str) -> None:
    """The purest red is the smallest of three red things: peak and first region are of one place, for every way to ask."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[..., 1] = 200
    pixels[0:32, 0:24] = (255, 0, 90)
    pixels[48:64, 0:72] = (255, 0, 90)
    pixels[0:16, 72:96] = (255, 0, 0)
    found = localizer.locate(pixels, "red", ["green"])
    regions = found.regions(0.3, resolution=resolution)
    x, y = (int(value) for value in found.peak)
    assert (x >= 72, y < 16) == (True, True)
    assert [bool(decode_rle(region.rle)[y, x]) for region in regions] == [True, False, False]
    assert regions[0].area < regions[2].area < regions[1].area
    boxes = [region.box for region in regions]
    assert [region.box for region in found.regions(0.3, largest=2, resolution=resolution)] == boxes[:2]
    own = found.region_of_peak(0.3, resolution=resolution)
    assert own is not None
    assert own.box == boxes[0]
    # Where the peak's region is too small there is none that is about it; the largest of the others is first here and in `annotate`.
    least = (regions[0].area + regions[2].area) / 2
    assert [region.box for region in found.regions(0.3, min_area=least, resolution=resolution)] == boxes[1:]
    for area in (0, least):
        own = found.region_of_peak(0.3, min_area=area, resolution=resolution)
        shape = find_shapes(found.scores[None], found.geometry, threshold=0.3, resolution=resolution, min_area=area)[0][0]
        assert own is not None
        assert shape is not None
        assert (own.box, dict(own.rle)) == (shape.box, dict(shape.rle))
    assert found.to_dict(0.3)["regions"][0]["box"] == list(found.regions(0.3)[0].box)


@pytest.mark.parametrize("resolution", ["original", "model"])
def test_regions_reach_up_to_cells_that_may_not_be_read(localizer: Localizer, resolution: str) -> None:
    """The left eye lies beside the line that parts left from right, where the other half of the map is none of it."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[..., 1] = 200
    pixels[16:48, 24:72] = (255, 0, 0)
    whole = localizer.locate(pixels, "red", ["green"])
    scores = whole.scores.copy()
    middle = scores.shape[1] // 2
    scores[:, middle:] = np.nan
    found = dataclasses.replace(whole, scores=scores)
    (region,) = found.regions(0.3, resolution=resolution)
    mask = decode_rle(region.rle)
    x, y = (int(value) for value in found.peak)
    assert mask[y, x]
    assert region.box[2] == 48
    if resolution == "original":
        np.testing.assert_array_equal(mask, found.mask(0.3))
    (shape, count, _) = find_shapes(found.scores[None], found.geometry, threshold=0.3, resolution=resolution)[0]
    assert shape is not None
    assert (count, shape.box, dict(shape.rle)) == (1, region.box, dict(region.rle))


def test_what_is_saved_comes_back(found: Localization, tmp_path: Path) -> None:
    with np.load(found.save(tmp_path / "x.npz")) as file:
        np.testing.assert_array_equal(file["scores"], found.scores)
        assert tuple(file["original_size"]) == found.geometry.original
        assert json.loads(str(file["provenance"]))["gamma"] == 1.0
    content = json.loads(found.save(tmp_path / "x.json").read_text(encoding="utf-8"))
    assert content["probabilities"] == pytest.approx(
        {"red": found.probabilities[0], "green": found.probabilities[1], "blue": found.probabilities[2]}
    )
    assert content["regions"][0]["box"] == list(found.regions()[0].box)
    with Image.open(found.save(tmp_path / "x.png")) as image:
        assert image.size == found.overlay().size
    with pytest.raises(OutputError, match="exists"):
        found.save(tmp_path / "x.json")
    with pytest.raises(ConfigurationError, match="a name that ends in"):
        found.save(tmp_path / "x.txt")


def test_what_is_written_is_json(localizer: Localizer, tmp_path: Path) -> None:
    """NaN is no JSON: jq, browsers and most languages refuse a file that holds it. A map without contrasts had one in its certificate."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    flat = np.full((32, 32, 3), 255, np.uint8)
    for number, found in enumerate(
        (localizer.locate(blocks(64, 96), "red"), localizer.locate(flat, "red", "green"), localizer.locate(flat, "red", method="luminance"))
    ):
        path = found.save(tmp_path / f"{number}.json")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=refused)
        assert content == json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert localizer.locate(blocks(64, 96), "red").certificate.probability is None
    nothing = dataclasses.replace(found, scores=np.full_like(found.scores, np.nan), score=math.nan)
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_answers_are_a_sequence(localizer: Localizer) -> None:
    answers = localizer.score(localizer.encode(blocks(64, 96)), [Concept((name,)) for name in ("red", "green", "blue")])
    assert isinstance(answers, Localizations)
    assert [answer.concept.name for answer in answers] == ["red", "green", "blue"] == list(answers.by_name())
    assert [answer.concept.name for answer in answers[1:]] == ["green", "blue"]
    np.testing.assert_array_equal(answers[-1].scores, answers[2].scores)
    with pytest.raises(IndexError):
        answers[3]


def test_the_ledger_at_the_peak_sums_to_its_score(found: Localization) -> None:
    shares = found.ledger_at_peak()
    assert list(shares) == ["red", "green", "blue"]
    assert sum(shares.values()) == pytest.approx(found.peak_score, abs=1e-6)
    assert dataclasses.replace(found, split=None).ledger_at_peak() == {}
    assert dataclasses.replace(found, scores=np.full_like(found.scores, np.nan)).ledger_at_peak() == {}


def test_an_explained_overlay_is_taller(found: Localization) -> None:
    plain, explained = found.overlay(), found.overlay(explain=True)
    assert explained.width == plain.width
    assert explained.height > plain.height + 3 * 12  # Three bars, and the certificate.
    np.testing.assert_array_equal(np.asarray(explained)[: plain.height], np.asarray(plain))


@pytest.mark.parametrize(
    ("verdict", "confidence", "tail"),
    [
        ("clear", 0.97, " [clear, 0.97]"),
        ("doubtful", 0.4, " [doubtful, 0.40]"),
        ("clear", None, " [clear]"),
        ("absent", 0.0, " [absent]"),
        ("not about the prompt", 0.9, " [not about the prompt]"),
    ],
)
def test_a_caption_has_no_number_where_nothing_was_found(found: Localization, verdict: str, confidence: float | None, tail: str) -> None:
    told = dataclasses.replace(found.certificate, verdict=verdict, confidence=confidence)
    assert dataclasses.replace(found, certify=lambda: told).caption == f"{found.question}{tail}"


def test_no_text_is_lost_by_its_name(localizer: Localizer) -> None:
    """What is told of each text is kept by name: two of one name would be one."""
    for values in ({"contrast_names": ("red",)}, {"name": "green"}):
        with pytest.raises(PromptError, match=r"the concept and one of its contrasts have the name '\w+'.* rename one"):
            Concept("red", ("green",), **values)
    # A pack's state may be called as another one's words are.
    asked = Concept("red", ("green", "blue"), name="colour=crimson", contrast_names=("red", "blue"))
    found = localizer.locate(blocks(), asked)
    assert list(found.ledger_at_peak()) == ["colour=crimson", "red", "blue"]
    assert sum(found.ledger_at_peak().values()) == pytest.approx(found.peak_score, abs=1e-6)
    assert list(found.to_dict()["probabilities"]) == ["colour=crimson", "red", "blue"]
    assert sum(found.to_dict()["probabilities"].values()) == pytest.approx(1)
    assert len(found.certificate.ledger) == 3


def test_what_regions_and_masks_cannot_be_made_with_is_named(found: Localization) -> None:
    for threshold, said in ((None, r"received None \(NoneType\)"), ([0.1], r"\(list\)"), (True, r"received True \(bool\)")):
        for ask in (found.regions, found.mask, found.threshold):
            with pytest.raises(ConfigurationError, match=rf"threshold must be a strategy \(half-max, .*\) or a number.*{said}"):
                ask(threshold)  # type: ignore[arg-type, operator]
    for area in ("5", None, True, -1):
        with pytest.raises(ConfigurationError, match=rf"min_area\) must be a finite number that is not negative, received {area!r}"):
            found.regions(min_area=area)  # type: ignore[arg-type]
    numbers = [found.regions(number) for number in (0.1, np.float32(0.1), torch.tensor(0.1), "0.1")]  # type: ignore[arg-type]
    assert len({region.area for regions in numbers for region in regions[:1]}) == 1


@pytest.mark.parametrize("largest", [0, -1, 1.5, "1", True])
def test_a_number_of_regions_is_at_least_one(largest: Any, localizer: Localizer) -> None:
    """A negative one left regions out from the end."""
    pixels = blocks(64, 96)
    pixels[:, 40:56] = 0
    found = localizer.locate(pixels, "red")
    with pytest.raises(ConfigurationError, match=rf"largest\) must be a whole number of at least 1, or None .*received {largest!r}"):
        found.regions(largest=largest)
    assert found.regions(largest=np.int64(1))[0].box == found.regions()[0].box  # type: ignore[arg-type]


def test_what_an_overlay_cannot_be_drawn_with_is_named(found: Localization) -> None:
    for limits in (0.3, ("a", "b"), (), (0.1,), (0.1, None)):
        with pytest.raises(ConfigurationError, match="colour limits must be two finite scores, received"):
            found.overlay(limits=limits)  # type: ignore[arg-type]
    drawn = [np.asarray(found.overlay(limits=limits)) for limits in ((-0.2, 0.2), np.array([-0.2, 0.2]), [-0.2, 0.2])]  # type: ignore[arg-type]
    assert all(np.array_equal(drawn[0], other) for other in drawn[1:])
    for picture, said in (("fish.png", "received str"), (np.zeros((64, 96)), r"received float64 \[64, 96\]")):
        with pytest.raises(ConfigurationError, match=rf"drawn over pixels, uint8 \[H, W, 3\], {said}: give read_image"):
            found.overlay(picture=picture)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"title must be text, received 5 \(int\)"):
        found.overlay(title=5)  # type: ignore[arg-type]


def test_answers_go_through_a_pickle_whole(localizer: Localizer) -> None:
    """As a pool of processes returns them, or a file keeps them: with ledger and certificate, and without the model."""
    asked = [Concept("red", ("green", "blue")), Concept("green")]
    answers = localizer.locate_all([blocks(64, 96)], asked)[0]
    written = pickle.dumps(answers)
    assert len(written) < 200_000
    again = pickle.loads(written)
    for before, after in (
        *zip(answers, again, strict=True),
        (answers[0], pickle.loads(pickle.dumps(answers[0]))),
        (again[1], copy.copy(again[1])),
    ):
        assert after.to_dict() == before.to_dict()  # which holds no NaN: that is not equal to itself
        np.testing.assert_array_equal(after.heatmap, before.heatmap)
        np.testing.assert_array_equal(after.picture, before.picture)
        assert {name: map_.tolist() for name, map_ in after.ledger().items()} == {
            name: map_.tolist() for name, map_ in before.ledger().items()
        }
        assert str(after.certificate) == str(before.certificate)
    with pytest.raises(ConfigurationError, match=r"went through a pickle.*Ask again, with careful=True"):
        localizer.careful(again)
    plain = localizer.locate(blocks(64, 96), "red", "green", method="luminance")
    assert pickle.loads(pickle.dumps(plain)).split is None


def test_a_copy_is_no_pickle(localizer: Localizer) -> None:
    """Certificates were made for it, and another reading was refused with the word that it went through a pickle."""
    answers = localizer.locate_all([blocks(64, 96)], [Concept("red", ("green", "blue"))])[0]
    for given in (answers, answers[0]):
        again = copy.copy(given)
        assert again is not given
        assert again.certify is given.certify
        assert again.split is given.split
    assert localizer.careful(copy.copy(answers))[0].certificate.agreement is not None


def test_answers_go_by_number(localizer: Localizer) -> None:
    answers = localizer.locate_all([blocks(64, 96)], [Concept("red"), Concept("green")])[0]
    for key in ("green", 0.0, None):
        with pytest.raises(ConfigurationError, match=r"answers go by number, 0 to 1, received .*by_name\(\)\['red'\]"):
            answers[key]  # type: ignore[call-overload]
    assert answers[np.int64(-1)].concept.name == "green"
    assert [answer.concept.name for answer in answers[::-1]] == ["green", "red"]
