"""Plain data: geometry by planted points, what a concept accepts, how registries answer."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from concept_cam.core import errors as errors_module
from concept_cam.core.concept import Concept, Where
from concept_cam.core.errors import ConceptCamError, ConfigurationError, ImageError, MissingExtraError, OutputError, PromptError
from concept_cam.core.geometry import Geometry
from concept_cam.core.names import choose, nearest_names, normalise_text
from concept_cam.core.regions import Region

# ------------------------------------------------------------------------------------------------------------ geometry

# A 100 x 300 picture (rows x columns) shrunk to a third and centred on 100 x 100 model pixels with a grid of 10 x 5.
PADDED = Geometry("pad", (100, 300), (100, 100), (10, 5), (1 / 3, 1 / 3), (100 / 3, 0.0))
# The middle of a 100 x 300 picture at its own size.
CROPPED = Geometry("native", (100, 300), (100, 100), (10, 10), (1.0, 1.0), (0.0, -100.0))
SQUASHED = Geometry("squash", (100, 300), (64, 64), (8, 8), (0.64, 64 / 300))


def test_planted_points() -> None:
    np.testing.assert_allclose(PADDED.original_to_model(np.array([0.0, 0.0])), [0, 100 / 3])
    np.testing.assert_allclose(PADDED.original_to_model(np.array([300.0, 100.0])), [100, 200 / 3])
    np.testing.assert_allclose(PADDED.original_to_grid(np.array([150.0, 50.0])), [2.5, 5.0])
    np.testing.assert_allclose(PADDED.grid_to_original(np.array([5.0, 5.0])), [300, 50])
    np.testing.assert_allclose(CROPPED.original_to_grid(np.array([100.0, 0.0])), [0, 0])
    np.testing.assert_allclose(CROPPED.grid_to_original(np.array([10.0, 10.0])), [200, 100])
    np.testing.assert_allclose(SQUASHED.grid_to_original(np.array([8.0, 4.0])), [300, 50])


@pytest.mark.parametrize("geometry", [PADDED, CROPPED, SQUASHED])
def test_round_trips(geometry: Geometry) -> None:
    points = np.random.default_rng(0).uniform(-50, 350, (4, 7, 2))
    np.testing.assert_allclose(geometry.model_to_original(geometry.original_to_model(points)), points, atol=1e-9)
    np.testing.assert_allclose(geometry.grid_to_model(geometry.model_to_grid(points)), points, atol=1e-9)
    np.testing.assert_allclose(geometry.grid_to_original(geometry.original_to_grid(points)), points, atol=1e-9)
    assert geometry.original_to_grid([[1, 2]]).dtype == np.float64  # type: ignore[arg-type]


def test_rows_and_columns_are_not_swapped() -> None:
    """Everything differs between the axes; a swap anywhere shows."""
    geometry = Geometry("pad", (50, 90), (60, 100), (6, 20), (1.1, 1.05), (2.5, 2.75))
    assert geometry.cell == (10.0, 5.0)
    np.testing.assert_allclose(geometry.cell_original, (10 / 1.1, 5 / 1.05))
    np.testing.assert_allclose(geometry.original_to_model(np.array([10.0, 20.0])), [10 * 1.05 + 2.75, 20 * 1.1 + 2.5])
    np.testing.assert_allclose(geometry.model_to_grid(np.array([10.0, 20.0])), [2.0, 2.0])
    np.testing.assert_allclose(geometry.content, (2.75, 2.5, 97.25, 57.5))
    assert geometry.seen == (0.0, 0.0, 90.0, 50.0)


def test_what_is_seen() -> None:
    assert PADDED.seen == (0.0, 0.0, 300.0, 100.0)
    assert CROPPED.seen == (100.0, 0.0, 200.0, 100.0)
    np.testing.assert_allclose(PADDED.content, (0.0, 100 / 3, 100.0, 200 / 3))
    assert CROPPED.content == (0.0, 0.0, 100.0, 100.0)


def test_seen_survives_rounding_of_the_affine_map() -> None:
    """A picture that is wholly visible is wholly seen, whatever its size does to the floating-point numbers."""
    generator = np.random.default_rng(0)
    for height, width in generator.integers(1, 20_000, (300, 2)):
        scale = min(224 / height, 224 / width)
        inner = max(1, round(height * scale)), max(1, round(width * scale))
        offset = ((224 - inner[0]) // 2, (224 - inner[1]) // 2)
        geometry = Geometry(
            "pad",
            (int(height), int(width)),
            (224, 224),
            (14, 14),
            (inner[0] / height, inner[1] / width),
            offset,
        )
        assert geometry.seen == (0.0, 0.0, float(width), float(height))
        assert geometry.valid().any()


@pytest.mark.parametrize("geometry", [PADDED, CROPPED, SQUASHED])
def test_coverage_restated_by_counting(geometry: Geometry) -> None:
    steps = 200  # samples per cell and axis
    rows, columns = geometry.grid
    ys = (np.arange(rows * steps) + 0.5) / steps * geometry.cell[0]
    xs = (np.arange(columns * steps) + 0.5) / steps * geometry.cell[1]
    original_y = (ys - geometry.offset[0]) / geometry.scale[0]
    original_x = (xs - geometry.offset[1]) / geometry.scale[1]
    in_y = ((original_y >= 0) & (original_y < geometry.original[0])).reshape(rows, steps).mean(axis=1)
    in_x = ((original_x >= 0) & (original_x < geometry.original[1])).reshape(columns, steps).mean(axis=1)
    np.testing.assert_allclose(geometry.coverage(), np.outer(in_y, in_x), atol=2 / steps)
    np.testing.assert_array_equal(geometry.valid(), np.outer(in_y, in_x) > 0)


def test_padding_is_invalid() -> None:
    assert PADDED.valid().tolist() == [[row in (3, 4, 5, 6)] * 5 for row in range(10)]
    assert PADDED.coverage()[3].tolist() == pytest.approx([2 / 3] * 5)
    assert CROPPED.valid().all()


def test_with_grid_keeps_the_mapping() -> None:
    finer = PADDED.with_grid((20, 10))
    assert finer.cell == (5.0, 10.0)
    points = np.array([[12.0, 34.0]])
    np.testing.assert_allclose(finer.original_to_grid(points), PADDED.original_to_grid(points) * 2)


def test_geometry_to_dict_is_json() -> None:
    data = json.loads(json.dumps(CROPPED.to_dict()))
    assert data["original_size"] == [100, 300]
    assert data["offset_yx"] == [0.0, -100.0]
    restored = Geometry(
        data["policy"],
        tuple(data["original_size"]),
        tuple(data["model_size"]),
        tuple(data["grid_size"]),
        tuple(data["scale_yx"]),
        tuple(data["offset_yx"]),
    )
    assert restored == CROPPED


@pytest.mark.parametrize(
    "change",
    [
        {"original": (0, 5)},
        {"model": (5, -1)},
        {"grid": (0, 0)},
        {"grid": (1, 2, 3)},
        {"scale": (0.0, 1.0)},
        {"scale": (1.0, -1.0)},
        {"scale": (float("nan"), 1.0)},
        {"scale": (1.0, float("inf"))},
        {"offset": (float("nan"), 0.0)},
    ],
)
def test_impossible_geometry(change: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigurationError, match="geometry"):
        dataclasses.replace(PADDED, **change)


# ------------------------------------------------------------------------------------------------------------ concepts


def test_texts_become_tuples() -> None:
    concept = Concept("a forked tail", "a round tail")  # type: ignore[arg-type]
    assert concept.target == ("a forked tail",)
    assert concept.contrasts == (("a round tail",),)
    assert concept.name == "a forked tail"
    assert concept.contrast_names == ("a round tail",)
    several = Concept(["forked", "swallow-like"], ["round", ["square", "truncate"]], name="tail")  # type: ignore[arg-type, list-item]
    assert several.contrasts == (("round",), ("square", "truncate"))
    assert several.contrast_names == ("round", "square")
    assert several.name == "tail"


def test_prompts_fill_every_template_with_every_phrase() -> None:
    concept = Concept(("a", "b"), (("c",),), templates=("{}", "a photo of {}."))
    assert concept.target_prompts == ("a", "b", "a photo of a.", "a photo of b.")
    assert concept.contrast_prompts == (("c", "a photo of c."),)
    odd = Concept(("{weird} 100% {0}",), templates=("x {} y",))
    assert odd.target_prompts == ("x {weird} 100% {0} y",)


@pytest.mark.parametrize("text", ["", "   ", "\t\n", ".", "\u3000"])
def test_empty_text(text: str) -> None:
    with pytest.raises(PromptError, match="the target is empty"):
        Concept((text,))
    with pytest.raises(PromptError, match="the contrast is empty"):
        Concept(("a",), ((text,),))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"surroundings": 1.5}, r"surroundings must be a whole number, received 1.5 \(float\)"),
        ({"surroundings": True}, "surroundings must be a whole number"),
        ({"surroundings": None}, "surroundings must be a whole number"),
        ({"where": "left"}, r"where must be a Where, such as Where\('left'\)"),
        ({"name": 5}, "name must be text"),
        ({"metadata": None}, "metadata must be a mapping"),
        ({"templates": None}, "templates must be a tuple of texts"),
        ({"templates": (5,)}, "exactly once"),
        ({"contrast_names": 3}, "contrast_names must be a tuple of texts"),
        ({"contrast_names": ("x", 5)}, r"contrast_names must be texts that are not blank, received 5 \(int\)"),
        ({"contrast_names": ("x", " ")}, "contrast_names must be texts that are not blank, received ' '"),
        ({"contrast_names": ("x", "x")}, "two contrasts have the name 'x'"),
        ({"name": " "}, "the name of a concept is blank"),
        ({"name": "\u200b"}, "the name of a concept is blank"),
        ({"target": "\u200b"}, "the target is empty"),
        ({"surroundings": "1"}, "surroundings must be a whole number"),
        ({"surroundings": np.float32(1)}, "surroundings must be a whole number"),
        ({"surroundings": np.bool_(True)}, "surroundings must be a whole number"),
        ({"surroundings": torch.tensor(True)}, "surroundings must be a whole number"),
        ({"surroundings": np.array([1, 1])}, "surroundings must be a whole number"),
        ({"target": b"a fork"}, r"the target must be text or several texts, received b'a fork' \(bytes\)"),
        ({"contrasts": b"b"}, "contrasts must be texts, received b'b'"),
        ({"contrasts": (b"b",)}, "the contrast must be text or several texts, received b'b'"),
        ({"contrasts": None}, "contrasts must be texts, received None"),
        ({"contrasts": 5}, "contrasts must be texts, received 5"),
    ],
)
def test_a_concept_of_wrong_types_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Concept(**{"target": ("a",), "contrasts": (("b",), ("c",)), **given})


@pytest.mark.parametrize("one", [np.int64(1), np.uint8(1)])
def test_any_whole_number_of_surroundings(one: Any) -> None:
    concept = Concept(("a",), (("b",), ("c",)), surroundings=one)
    assert concept == Concept(("a",), (("b",), ("c",)), surroundings=1)
    assert type(concept.surroundings) is int
    assert concept.rivals == (("b",),)


def test_a_place_that_is_no_text() -> None:
    with pytest.raises(PromptError, match=r"place must be one of left, .*received \['left'\] \(list\)"):
        Where(["left"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"part": 3}, r"part must be text, received 3 \(int\)"),
        ({"plan": "fish"}, r"plan must be a BodyPlan, received 'fish' \(str\)"),
        ({"parts": "head"}, r"parts must be a tuple of concepts, received 'head' \(str\)"),
        ({"parts": 3}, r"parts must be a tuple of concepts, received 3 \(int\)"),
        ({"parts": np.array(3)}, r"parts must be concepts, received array\(3\)"),
        ({"parts": Concept(("a",))}, "parts must be a tuple of concepts, received Concept"),
        ({"parts": ("head",)}, r"parts must be concepts, received 'head' \(str\)"),
    ],
)
def test_a_place_of_wrong_types_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        Where("left", **given)


def test_the_parts_of_a_place_may_be_a_list() -> None:
    assert Where("left", parts=[Concept(("a",))]) == Where("left", parts=(Concept(("a",)),))  # type: ignore[arg-type]


def test_no_phrase_or_no_text() -> None:
    with pytest.raises(PromptError, match="the target has no phrase"):
        Concept(())
    with pytest.raises(PromptError, match="the contrast has no phrase"):
        Concept(("a",), ((),))
    with pytest.raises(PromptError, match=r"must be text, received 3 \(int\)"):
        Concept((3,))  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="must be text or several texts, received None"):
        Concept(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("contrast", ["A Forked  Tail", "a forked tail.", " a forked tail", "a ｆorked tail"])
def test_a_contrast_that_equals_the_target(contrast: str) -> None:
    with pytest.raises(PromptError, match="equals the target 'a forked tail': their difference is zero"):
        Concept(("a fork", "a forked tail"), (("a round tail",), ("something", contrast)))


def test_a_contrast_that_is_given_twice() -> None:
    with pytest.raises(PromptError, match="given twice"):
        Concept(("a",), (("b",), ("B.",)))


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "{0}", ""])
def test_a_template_without_its_place(template: str) -> None:
    with pytest.raises(PromptError, match=r"must hold '{}' exactly once"):
        Concept(("a",), templates=(template,))


def test_no_template_and_wrong_names() -> None:
    with pytest.raises(PromptError, match="at least one template"):
        Concept(("a",), templates=())
    with pytest.raises(PromptError, match="received 2 contrast names for 1 contrasts"):
        Concept(("a",), (("b",),), contrast_names=("x", "y"))


def test_surroundings_are_the_last_contrasts_and_no_rivals() -> None:
    concept = Concept(
        ("a",), (("b",), ("a fish", "a photo of a fish")), contrast_names=("b", "host"), templates=("with {}",), surroundings=1
    )
    assert concept.rivals == (("b",),)
    assert concept.rival_names == ("b",)
    assert concept.contrast_prompts == (("with b",), ("a fish", "a photo of a fish"))
    assert pickle.loads(pickle.dumps(concept)) == concept
    assert concept != dataclasses.replace(concept, surroundings=0)
    for count in (-1, 3):
        with pytest.raises(PromptError, match=f"received {count} surroundings among 2 contrasts: expected 0 to 2"):
            dataclasses.replace(concept, surroundings=count)


def test_concepts_are_values() -> None:
    concept = Concept(("a",), (("b",),), metadata={"pack": "fish"})
    assert concept == Concept(("a",), (("b",),), metadata={"pack": "fish"})
    assert len({concept, Concept(("a",), (("b",),), metadata={"pack": "fish"})}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        concept.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        concept.metadata["pack"] = "bird"  # type: ignore[index]
    assert pickle.loads(pickle.dumps(concept)) == concept
    assert copy.deepcopy(concept) == concept
    assert dataclasses.replace(concept, name="other").contrasts == concept.contrasts


def test_metadata_is_a_copy() -> None:
    facts = {"pack": "fish"}
    concept = Concept(("a",), metadata=facts)
    facts["pack"] = "bird"
    assert concept.metadata["pack"] == "fish"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A  Tail. ", "a tail"),
        ("Straße", "strasse"),
        ("ﬁn", "fin"),
        ("a\u00a0b", "a b"),
        ("e\u0301", "\u00e9"),
        ("...", ""),
        ("v1.2 fin", "v1.2 fin"),
        ("a f\u00adin\u200b", "a fin"),
        ("e\u200d\u0301", "\u00e9"),
    ],
)
def test_normalise_text(text: str, expected: str) -> None:
    assert normalise_text(text) == expected


# ------------------------------------------------------------------------------------------------------------ registries, errors


def test_choose() -> None:
    table = {"uniform": 1, "softmax": 2, "hardest": 3}
    assert choose("softmax", table, "weighting") == 2
    with pytest.raises(ConfigurationError) as caught:
        choose("unifrom", table, "weighting")
    assert str(caught.value) == ("unknown weighting 'unifrom'. Did you mean 'uniform'? Known: hardest, softmax, uniform.")
    with pytest.raises(ImageError, match=r"unknown thing 'zzz'\. Known"):
        choose("zzz", table, "thing", ImageError)


def test_nearest_names() -> None:
    assert nearest_names("VIT-b-16", ["ViT-B-16", "ViT-B-32", "RN50"], 1) == ["ViT-B-16"]
    assert nearest_names("zzzz", ["ViT-B-16"]) == []
    assert nearest_names("x", []) == []


def test_errors_share_a_base_and_fit_the_standard_ones() -> None:
    errors = [value for value in vars(errors_module).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) >= 9
    assert all(issubclass(error, ConceptCamError) for error in errors)
    assert issubclass(ImageError, ValueError)
    assert issubclass(OutputError, OSError)
    error = MissingExtraError("pyarrow", "annotate", "writing Parquet")
    assert isinstance(error, ImportError)
    assert "pyarrow" in str(error).partition("install ")[2]  # The library itself: no index has the package.
    assert (error.library, error.extra) == ("pyarrow", "annotate")


def test_region_to_dict_is_json() -> None:
    region = Region(
        box=(1, 2, 5, 9),
        area=20,
        rle={"size": [10, 10], "counts": "abc"},
        contours=(np.array([[1.0, 2.0], [5.0, 2.0], [5.0, 9.123456]]),),
        peak=(3.5, 4.5),
        peak_score=0.25,
        mean_score=0.125,
        measures={"area": 20.0},
    )
    assert (region.width, region.height) == (4, 7)
    data = json.loads(json.dumps(region.to_dict()))
    assert data["box"] == [1, 2, 5, 9]
    assert data["contours"] == [[[1.0, 2.0], [5.0, 2.0], [5.0, 9.12]]]


def test_types_do_not_load_torch() -> None:
    code = (
        "import sys; import concept_cam.core.concept, concept_cam.core.geometry, concept_cam.core.regions, concept_cam.core.results; "
        "assert 'torch' not in sys.modules and 'open_clip' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
