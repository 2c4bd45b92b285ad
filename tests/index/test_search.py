from __future__ import annotations

import numpy as np
import pytest

pa = pytest.importorskip("pyarrow")

from concept_cam.core.errors import ConfigurationError  # noqa: E402
from concept_cam.index import search  # noqa: E402
from concept_cam.index.codec import Codec  # noqa: E402
from concept_cam.index.filtering import matching  # noqa: E402
from concept_cam.index.search import best_patches, ranking  # noqa: E402
from concept_cam.index.storage import Part, features_table, part_bytes  # noqa: E402


def part_of(tmp_path, codec: Codec, cells: list[int], seed: int = 0) -> tuple[Part, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    patches = [generator.normal(size=(count, 24)).astype(np.float32) for count in cells]
    for array in patches[::3]:
        array[::5] = 0  # where the model did not look
    rows = [{"source": str(number), "image_key": str(number), "specimen": 0, "geometry": "{}"} for number in range(len(cells))]
    table = features_table(rows, [codec.encode(array) for array in patches], generator.normal(size=(len(cells), 24)))
    path = tmp_path / "part-000001.arrow"
    path.write_bytes(part_bytes(table))
    return Part(path), patches


def slow_best(patches: list[np.ndarray], directions: np.ndarray, norm: str) -> np.ndarray:
    best = []
    for array in patches:
        lengths = np.linalg.norm(array, axis=1)
        seen = array[lengths > 0]
        units = seen / lengths[lengths > 0][:, None] if norm == "l2" else seen
        best.append((directions @ units.T).max(axis=1))
    return np.stack(best, axis=1)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("norm", ["l2", "none"])
@pytest.mark.parametrize("concepts", [1, 7])
@pytest.mark.parametrize("cells", [[16] * 9, [16, 25, 9, 40, 16, 1, 30]], ids=["one-size", "sizes"])
@pytest.mark.parametrize("block", [1, 3000, 1 << 20])
def test_best_patches_are_those_of_the_definition(tmp_path, monkeypatch, dtype, norm, concepts, cells, block) -> None:
    monkeypatch.setattr(search, "BLOCK_BYTES", block)
    codec = Codec(dtype)
    part, patches = part_of(tmp_path, codec, cells)
    directions = np.random.default_rng(1).normal(size=(concepts, 24)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    tolerance = (2e-3 if dtype == "float16" else 2e-2) * (1 if norm == "l2" else 6)
    np.testing.assert_allclose(best_patches(part, codec, directions, norm), slow_best(patches, directions, norm), atol=tolerance)


def test_an_entry_in_which_nothing_was_seen_never_ranks(tmp_path) -> None:
    codec = Codec("float16")
    table = features_table(
        [{"source": name, "specimen": 0} for name in "ab"], [codec.encode(np.zeros((4, 8), np.float32)),
        codec.encode(np.eye(4, 8, dtype=np.float32))],
        np.zeros((2, 8)),
    )  # fmt: skip
    (tmp_path / "part.arrow").write_bytes(part_bytes(table))
    values = best_patches(Part(tmp_path / "part.arrow"), codec, np.ones((1, 8), np.float32))
    assert np.isneginf(values[0, 0])
    assert ranking(values[0], 5).tolist() == [1]


def test_ranking_is_a_stable_sort() -> None:
    values = np.array([0.5, 0.9, -np.inf, 0.9, 0.1, 0.5, np.nan], np.float32)
    assert ranking(values, 3).tolist() == [1, 3, 0]
    assert ranking(values, 99).tolist() == [1, 3, 0, 5, 4]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_is_kept_comes_back(dtype: str) -> None:
    patches = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32) * 7
    codec = Codec(dtype)
    kept = codec.decode(codec.encode(patches))
    error = np.linalg.norm(kept - patches, axis=1) / np.linalg.norm(patches, axis=1)
    assert error.max() < (5e-4 if dtype == "float16" else 1e-2)
    whole = Codec.fit(patches, 32, dtype)
    assert whole.loss == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(whole.decode(whole.encode(patches)), patches, atol=0.02 if dtype == "float16" else 0.6)
    with pytest.raises(ConfigurationError, match="between 1 and 32"):
        Codec.fit(patches, 33)
    with pytest.raises(ConfigurationError, match="float16 or int8"):
        Codec("float64")


def test_conditions_on_columns() -> None:
    table = pa.table({"source": ["a", "b", "c"], "input_year": ["1990", "2001", ""], "input_sex": ["male", "female", None]})
    assert matching(table, ["year>=1995"]).tolist() == [False, True, False]
    assert matching(table, ["sex=male", "year<1995"]).tolist() == [True, False, False]
    assert matching(table, ["sex!=male"]).tolist() == [False, True, True]
    assert matching(table, ["sex ~ FEM"]).tolist() == [False, True, False]
    assert matching(table, ["input_year = 1990.0"]).tolist() == [True, False, False]
    with pytest.raises(ConfigurationError, match="Did you mean 'sex'"):
        matching(table, ["sexx=male"])
    with pytest.raises(ConfigurationError, match="cannot read the condition"):
        matching(table, ["male"])
