from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, ImageError, PromptError
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.pictures.reading import read_image
from tests.planted import PlantedBackbone


def blocks(height: int = 32, width: int = 32) -> np.ndarray:
    """Red in the upper left quarter, green in the lower right one, dark blue elsewhere."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 2] = 60
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[height // 2 :, width // 2 :] = (0, 255, 0)
    return picture


def test_map_is_highest_where_the_target_is(planted: Localizer) -> None:
    found = planted.locate(blocks(), "red", ["green"])
    assert (found.scores[:2, :2] > 0.9).all()
    assert (found.scores[2:, 2:] < -0.9).all()
    assert (abs(found.scores[:2, 2:]) < 0.2).all()
    x, y = found.peak
    assert x < 16
    assert y < 16
    assert found.heatmap.shape == (32, 32)
    assert found.heatmap.dtype == np.float32


def test_score_is_the_definition(planted: Localizer) -> None:
    found = planted.locate(blocks(), "red", ["green", "blue"], gamma=0.5)
    cell = np.array([1.0, 0, 0, 0.1])
    cell /= np.linalg.norm(cell)
    direction = np.array([1, 0, 0, 0]) - 0.25 * np.array([0, 1, 0, 0]) - 0.25 * np.array([0, 0, 1, 0])
    assert found.scores[0, 0] == pytest.approx(cell @ direction, abs=1e-6)


def test_ledger_sums_and_names_its_terms(planted: Localizer) -> None:
    found = planted.locate(blocks(), "red", ["green", "blue"], weighting="softmax")
    split = found.ledger()
    assert list(split) == ["red", "green", "blue"]
    np.testing.assert_allclose(sum(split.values()), found.scores, atol=1e-6)
    assert sum(found.weights) == pytest.approx(1)


def test_probabilities_are_softmax_over_target_and_contrasts(planted: Localizer) -> None:
    found = planted.locate(blocks(), "red", ["green", "blue"])
    assert sum(found.probabilities) == pytest.approx(1)
    assert found.probability == found.probabilities[0]
    assert planted.locate(blocks(), "red").probability is None


def test_no_contrast_is_a_plain_concept_map(planted: Localizer) -> None:
    found = planted.locate(blocks(), "red")
    assert found.scores[0, 0] == pytest.approx(1 / 1.01**0.5, abs=1e-5)
    assert list(found.ledger()) == ["red"]


@pytest.mark.parametrize("resize", ["pad", "aspect", "squash", "native", "tile"])
@pytest.mark.parametrize("size", [(32, 32), (20, 90), (90, 20), (1, 1), (3, 200), (130, 170)])
def test_every_policy_finds_the_red_half(resize: str, size: tuple[int, int]) -> None:
    localizer = Localizer(PlantedBackbone(), Settings(resize=resize))
    height, width = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 1] = 255
    if width > 1:
        picture[:, : width // 2] = (255, 0, 0)
    found = localizer.locate(picture, "red", ["green"])
    assert found.heatmap.shape == size
    seen = np.isfinite(found.heatmap)
    assert seen.all() or resize == "native"
    if width > 1:
        middle = found.heatmap[height // 2]
        known = np.flatnonzero(np.isfinite(middle))
        assert middle[known[0]] > middle[known[-1]]
        assert found.peak[0] < width / 2
    assert 0 <= found.peak[0] < width
    assert 0 <= found.peak[1] < height


def test_padding_never_scores() -> None:
    picture = np.zeros((8, 64, 3), np.uint8)
    picture[...] = (0, 255, 0)
    found = Localizer(PlantedBackbone(64)).locate(picture, "blue", ["green"])
    assert np.isnan(found.scores).sum() == 64 - 2 * 8  # eight rows of pixels, centred across two rows of cells
    assert np.isfinite(found.heatmap).all()


def test_batch_equals_singles_in_any_composition(planted: Localizer) -> None:
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 255, (generator.integers(9, 60), generator.integers(9, 60), 3), np.uint8) for _ in range(7)]
    concepts = [Concept(("red",), (("green",), ("blue",))), Concept(("blue",)), Concept(("green",), (("red",),))]
    for weighting in ("uniform", "softmax", "hardest", "orthogonal"):
        for resize in ("pad", "aspect", "tile"):
            localizer = Localizer(planted.backbone, Settings(weighting=weighting, resize=resize, batch_size=3))
            together = localizer.locate_all(pictures, concepts)
            for picture, answers in zip(pictures, together):
                alone = localizer.locate_all([picture], concepts)[0]
                for one, other in zip(alone, answers):
                    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
                    assert one.score == pytest.approx(other.score, abs=1e-5)
                    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_encode_once_query_many(planted: Localizer) -> None:
    features = planted.encode(blocks())
    answers = planted.score(features, [Concept(("red",), (("green",),)), Concept(("green",), (("red",),))])
    assert len(answers) == 2
    np.testing.assert_allclose(answers[0].scores, -answers[1].scores, atol=1e-6)
    np.testing.assert_allclose(answers[0].scores, planted.locate(blocks(), "red", ["green"]).scores, atol=1e-6)
    assert answers[-1].concept.name == "green"
    assert [found.concept.name for found in answers[0:2]] == ["red", "green"]
    assert set(answers.by_name()) == {"red", "green"}
    with pytest.raises(IndexError):
        answers[2]


def test_each_prompt_is_embedded_once() -> None:
    backbone = PlantedBackbone()
    localizer = Localizer(backbone)
    for _ in range(3):
        localizer.locate(blocks(), "red", ["green"])
        localizer.locate(blocks(), "green", ["red", "blue"], gamma=0.3)
    assert backbone.text_calls == 3


def test_questions_asked_again_are_not_worked_out_again() -> None:
    localizer = Localizer(PlantedBackbone())
    concepts = [Concept(("red",), (("green",),)), Concept(("blue",))]
    with torch.inference_mode():
        first = localizer.directions(concepts)
    assert localizer.directions([Concept(("red",), (("green",),)), Concept(("blue",))]) is first
    assert localizer.with_settings(gamma=0.5).directions(concepts) is first
    assert localizer.directions(concepts[:1]) is not first
    assert not first.texts.is_inference()  # gradient methods use it too
    for name in ("red", "green", "blue", "plain"):
        localizer.directions([Concept((name,))])
    assert localizer.directions(concepts) is not first  # forgotten, and the same again
    assert torch.equal(localizer.directions(concepts).texts, first.texts)


def test_four_threads_give_the_maps_of_one() -> None:
    localizer = Localizer(PlantedBackbone())
    jobs = [("red", ["green"]), ("green", ["blue"]), ("blue", []), ("red", ["blue"])] * 5
    expected = [localizer.locate(blocks(), target, contrast).scores for target, contrast in jobs]
    fresh = Localizer(PlantedBackbone())
    results: dict[int, np.ndarray] = {}

    def work(start: int) -> None:
        for index in range(start, len(jobs), 4):
            results[index] = fresh.locate(blocks(), *jobs[index]).scores

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(jobs)
    for index, scores in enumerate(expected):
        np.testing.assert_array_equal(results[index], scores)


def test_class_list_mode_picks_the_nearest_classes(planted: Localizer) -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[...] = (255, 128, 0)
    picture[:, 24:] = (255, 0, 0)
    found = planted.locate_class(picture, ["red", "green", "blue"], references=1)
    assert found.concept.target == ("red",)
    assert found.concept.contrast_names == ("green",)
    assert found.peak[0] > 24
    named = planted.locate_class(picture, ["red", "green", "blue"], "blue", references=2)
    assert named.concept.contrast_names == ("green", "red")
    with pytest.raises(PromptError, match="'green'"):
        planted.locate_class(picture, ["red", "green"], "gren")
    for twice in (["red", "red"], ["red", "Red", "green"], ["red", " red"]):
        with pytest.raises(PromptError, match=r"the class list names 'red', .* more than once"):
            planted.locate_class(picture, twice)
    for few in ([], ["red"]):
        with pytest.raises(ConfigurationError, match=f"at least two classes, received {len(few)}"):
            planted.locate_class(picture, few)
    with pytest.raises(PromptError, match="in a list, received 'red'"):
        planted.locate_class(picture, "red")
    for references in (2.0, np.float32(2), torch.tensor(2.0), np.int64(2)):
        again = planted.locate_class(picture, ["red", "green", "blue"], "blue", references=references)  # type: ignore[arg-type]
        assert again.concept == named.concept
    for references in (0, 1.5, float("nan"), True, torch.tensor(True), ["green"]):
        with pytest.raises(ConfigurationError, match="whole number of at least 1, received"):
            planted.locate_class(picture, ["red", "green"], references=references)  # type: ignore[arg-type]


def test_bad_texts(planted: Localizer) -> None:
    with pytest.raises(PromptError, match="empty"):
        planted.locate(blocks(), "  ")
    with pytest.raises(PromptError, match="limit is 16"):
        planted.locate(blocks(), "red " * 20)
    with pytest.raises(PromptError, match="equals the target"):
        planted.locate(blocks(), "red", ["RED "])
    with pytest.raises(PromptError, match="the direction of 'one thing' vanishes"):
        planted.locate_all([blocks()], [Concept("red"), Concept("one thing", ("other stuff",))])
    for ask in (planted.locate, lambda picture, *words: planted.unknown_words(Concept(*words))):
        with pytest.raises(PromptError, match=r"the text 'a \\udce9 fin' holds '\\udce9', which is no character: expected text in UTF-8"):
            ask(blocks(), "red", ["a \udce9 fin"])  # as a terminal that speaks Latin-1 hands it over
    with pytest.raises(PromptError, match="the contrast 'green' is given twice: name each once"):
        planted.locate(blocks(), "red", ["green", "green"])
    with pytest.raises(PromptError, match="no concept"):
        planted.locate_all([blocks()], [])


def test_bad_settings(planted: Localizer) -> None:
    for values in ({"gamma": -1}, {"weighting": "unifrom"}, {"resize": "padd"}, {"batch_size": 0}, {"size": -8}):
        with pytest.raises(ConfigurationError):
            planted.locate(blocks(), "red", **values)


def test_unknown_settings_and_texts_of_other_types_say_what_is_wrong(planted: Localizer) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown setting 'gama'. Did you mean 'gamma'"):
        planted.locate(blocks(), "red", gama=1)
    wrong: Any = 5
    with pytest.raises(PromptError, match=r"target must be text.*5"):
        planted.locate(blocks(), wrong)
    with pytest.raises(PromptError, match=r"contrast must be text.*5"):
        planted.locate(blocks(), "red", wrong)
    with pytest.raises(PromptError, match=r"received 2 at once: ask for several with locate_all"):
        planted.locate(blocks(), [Concept("red"), Concept("green")])  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"received 'picture.png' \(str\): encode it first"):
        planted.score("picture.png", Concept("red"))  # type: ignore[arg-type]
    several = planted.score((planted.encode(picture) for picture in [blocks(), blocks()]), Concept("red"))  # type: ignore[call-overload]
    assert len(several) == 2
    for picture in (Path("picture.png"), [blocks()]):
        with pytest.raises(ConfigurationError, match="encode it first"):
            planted.score(picture, Concept("red"))  # type: ignore[arg-type]


def test_a_result_is_shown_in_one_line(planted: Localizer) -> None:
    text = repr(planted.locate(blocks(64, 96), "red", ["green"]))
    assert text.startswith("<Localization of 'red' against 'green': 96 x 64 pixels, score ")
    assert "\n" not in text


def test_features_of_another_model_are_refused(planted: Localizer) -> None:
    other = PlantedBackbone()
    other.weights_hash = "fedcba9876543210"
    with pytest.raises(ConfigurationError, match="encode the picture again"):
        Localizer(other).score(planted.encode(blocks()), Concept(("red",)))


def test_nan_from_the_model_is_an_error() -> None:
    class Broken(PlantedBackbone):
        def encode_patches(self, pixels, attention="auto", valid=None):
            output = super().encode_patches(pixels, attention, valid)
            output.patches[:, 0, 0] = torch.nan
            return output

    with pytest.raises(ImageError, match="NaN"):
        Localizer(Broken()).locate(blocks(), "red")


def test_result_files(planted: Localizer, tmp_path: Path) -> None:
    Image.fromarray(blocks()).save(tmp_path / "in.png")
    found = planted.locate(tmp_path / "in.png", "red", ["green"])
    found.save(tmp_path / "a.npz")
    found.save(tmp_path / "a.json")
    found.save(tmp_path / "a.png")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as data:
        np.testing.assert_array_equal(data["scores"], found.scores)
        assert data["target"].tolist() == ["red"]
    with pytest.raises(OSError, match="exists"):
        found.save(tmp_path / "a.npz")
    found.save(tmp_path / "a.npz", overwrite=True)
    with pytest.raises(ConfigurationError, match=r"\.npz"):
        found.save(tmp_path / "a.tiff")
    with pytest.raises(OSError, match="folder exists"):
        found.save(tmp_path / "nowhere" / "a.npz")
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("strategy", ["half-max", "zero", "otsu", "li"])
def test_a_map_without_evidence_has_no_regions(planted: Localizer, strategy: str) -> None:
    """Nothing is red, all is green: no score is above zero, and strategies that split a histogram find one value."""
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[..., 1] = 255
    found = planted.locate(picture, "red", ["green"])
    assert found.scores.max() < 0
    assert not found.mask(strategy).any()
    for resolution in ("original", "model"):
        assert found.regions(strategy, resolution=resolution) == ()
    plain, outlined = found.overlay(), found.overlay(threshold=strategy)
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(outlined))
    record = found.to_dict(strategy)
    assert record["regions"] == []
    assert record["threshold"] in ({"strategy": strategy, "value": None}, {"strategy": strategy, "value": 0.0})


def test_regions_at_both_resolutions_agree(planted: Localizer) -> None:
    found = planted.locate(blocks(320, 480), "red", ["green"])
    exact, fast = found.regions(0.5)[0], found.regions(0.5, resolution="model")[0]
    for one, other in zip(exact.box, fast.box):
        assert abs(one - other) <= 480 / 32
    assert fast.area == pytest.approx(exact.area, rel=0.1)
    assert fast.measures["length"] == pytest.approx(exact.measures["length"], rel=0.1)
    assert fast.measures["centroid_x"] == pytest.approx(exact.measures["centroid_x"], abs=10)


def test_provenance_and_plain_data(planted: Localizer) -> None:
    import json

    record = planted.locate(blocks(), "red", ["green"], gamma=0.5).to_dict()
    again = json.loads(json.dumps(record))
    assert again["provenance"]["gamma"] == 0.5
    assert again["provenance"]["weights_hash"] == "0123456789abcdef"
    assert again["concept"]["target"] == ["red"]
    assert again["regions"][0]["rle"]["size"] == [32, 32]


@pytest.mark.parametrize("values", [{}, {"refine": "guided"}, {"look_again": True}])
def test_pictures_and_features_are_as_many(planted: Localizer, values: dict[str, Any]) -> None:
    localizer = planted.with_settings(**values)
    one, other = localizer.encode([blocks(), blocks(32, 48)])
    asked = [Concept("red")]
    for pictures in ([blocks()], [blocks(), blocks(32, 48), blocks()], []):
        with pytest.raises(ConfigurationError, match=rf"received {len(pictures)} pictures for 2 encoded ones"):
            localizer.score([one, other], asked, pictures)
    with pytest.raises(ConfigurationError, match=r"score of 2 encoded ones takes several .*a single one, ndarray uint8 \[32, 32, 3\]"):
        localizer.score([one, other], asked, blocks())  # type: ignore[arg-type]
    answers = localizer.score([one, other], asked, [blocks(), blocks(32, 48)])
    assert [answer.geometry.original for answer in answers] == [(32, 32), (32, 48)]


def test_a_picture_beside_features_is_the_one_that_was_encoded(planted: Localizer, tmp_path: Path) -> None:
    localizer = planted.with_settings(refine="guided")
    picture = blocks(64, 96)
    Image.fromarray(picture).save(tmp_path / "in.png")
    features, asked = localizer.encode(picture), Concept("red")
    wrong: Any
    for wrong, said in (
        (np.zeros((400, 40, 3), np.uint8), r"400 x 40 pixels .* 64 x 96: expected uint8 \[64, 96, 3\]"),
        (np.zeros((96, 64, 3), np.uint8), "96 x 64"),
        (picture / 255, r"received ndarray float64 \[64, 96, 3\]"),
        (picture[..., 0], r"received ndarray uint8 \[64, 96\]"),
        (torch.from_numpy(picture), r"received Tensor torch.uint8 \[64, 96, 3\]"),
        (str(tmp_path / "in.png"), r"received '.*' \(str\).* Give read_image\(picture\)"),
        (tmp_path / "in.png", "read_image"),
        (Image.fromarray(picture), "received a Pillow image of 64 x 96 pixels"),
        ([picture], "received a list of 1"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            localizer.score(features, asked, wrong)
        with pytest.raises(ConfigurationError, match=said):
            localizer.refine(planted.score(features, asked), wrong)
        with pytest.raises(ConfigurationError, match=said):
            planted.with_settings(look_again=True).look_again([features], asked, [wrong])
    for right in (picture, read_image(picture), picture[::2, ::2], picture[:-1, ::3][::3]):
        assert localizer.score(features, asked, right)[0].refined is not None
    with pytest.raises(ConfigurationError, match="valid cells of 2 pictures for 1"):
        planted.with_settings(look_again=True).look_again([features], [asked], [picture], [features.geometry.valid()] * 2)


def test_one_picture_is_not_taken_for_several(planted: Localizer, tmp_path: Path) -> None:
    Image.fromarray(blocks()).save(tmp_path / "in.png")
    path, asked = tmp_path / "in.png", Concept("red")
    wrong: Any
    for wrong in (blocks(), str(path), path, path.read_bytes(), Image.fromarray(blocks()), read_image(blocks()), torch.zeros(3, 32, 32)):
        with pytest.raises(ConfigurationError, match=r"locate_all takes several pictures, received a single one.* give it in a list"):
            planted.locate_all(wrong, asked)
    with path.open("rb") as stream, pytest.raises(ConfigurationError, match="a single one"):
        planted.locate_all(stream, asked)  # type: ignore[arg-type]
    for wrong in (5, None, {"a": path}):
        with pytest.raises(ConfigurationError, match=r"locate_all takes several pictures, received .* expected a list"):
            planted.locate_all(wrong, asked)
    for right in ([path], (path,), np.stack([blocks()]), (item for item in [path]), np.array([str(path)]), {path}):
        assert len(planted.locate_all(right, asked)) == 1

    class Pictures(torch.utils.data.Dataset[Any]):
        """Items by number, and no ``__iter__``, as torch has it."""

        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> Path:
            return [path, path][number]

    assert len(planted.locate_all(Pictures(), asked)) == 2  # type: ignore[arg-type]
    assert planted.locate_all([], asked) == []


def test_words_are_no_concepts(planted: Localizer) -> None:
    features = planted.encode(blocks())
    for wrong in ("red", ["red"], [Concept("green"), "red"]):
        for ask in (
            lambda given: planted.locate_all([blocks()], given),
            lambda given: planted.score(features, given),
            planted.directions,
            planted.phrased,
            planted.unknown_words,
        ):
            with pytest.raises(PromptError, match=r"expected concepts, received 'red' \(str\): give Concept\('red'\)"):
                ask(wrong)
    for other in (5, [None], b"red"):
        with pytest.raises(PromptError, match="expected concepts, received"):
            planted.score(features, other)  # type: ignore[arg-type]


def test_settings_and_rules_of_another_type_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam import backbones

    monkeypatch.setattr(backbones, "load", lambda *_, **__: pytest.fail("the model was loaded first"))
    wrong: Any = {"gamma": 1}
    for make in (lambda **values: Localizer(PlantedBackbone(), **values), Localizer.from_pretrained):
        with pytest.raises(ConfigurationError, match=r"settings must be a Settings .* received \{'gamma': 1\} \(dict\). Give Settings\("):
            make(settings=wrong)
        with pytest.raises(ConfigurationError, match=r"rules must be .* received 'trust.json' \(str\): give Trust.read"):
            make(rules="trust.json")
    wrong = "trust.json"
    with pytest.raises(ConfigurationError, match="rules must be"):
        Localizer(PlantedBackbone()).with_rules(wrong)
    wrong = "demo"
    with pytest.raises(ConfigurationError, match="from_pretrained"):
        Localizer(wrong)
