import numpy as np
import pytest
import torch

from concept_cam.backbones.noun_head import NounConfig, NounHead
from examples.training import noun_rows
from examples.training.families import families


def test_kernel_ridge_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = noun_rows.unit(rng.standard_normal((12, 5))), rng.standard_normal((12, 3)).astype(np.float32)
    asked = noun_rows.unit(rng.standard_normal((4, 5)))

    def kernel(a, b):
        return np.array([[np.exp(-((p - q) ** 2).sum() / (2 * 0.7**2)) for q in b] for p in a])

    weights = np.linalg.solve(kernel(x, x) + 2.0 * np.eye(12), y - y.mean(0))
    expected = kernel(asked, x) @ weights + y.mean(0)
    assert np.allclose(noun_rows.KernelRidge(x, y)(asked), expected, atol=1e-4)


def test_row_space_keeps_angles_when_no_axis_is_dropped() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    found = noun_rows.row_space(rows, 6)
    centred = noun_rows.unit(rows - rows.mean(0))
    assert np.allclose(found @ found.T, centred @ centred.T, atol=1e-4)


def test_rows_that_are_not_known_do_not_move_the_space() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    known = np.arange(15)
    other = rows.copy()
    other[15:] *= 7
    assert np.allclose(noun_rows.row_space(rows, 4, known)[:15], noun_rows.row_space(other, 4, known)[:15], atol=1e-5)


def test_ranks_count_what_is_nearer_than_the_own_row() -> None:
    rows = np.eye(3, dtype=np.float32)
    predicted = np.array([[1, 0, 0], [0.5, 0.4, 0], [0.1, 0.2, 0.05]], np.float32)
    assert noun_rows.ranks(predicted, rows).tolist() == [0, 1, 2]


def test_families_name_classes_that_there_are() -> None:
    for names, numbers in families():
        assert names
        assert all(name == name.strip() and name for name in names)
        assert numbers
        assert all(0 <= number < 1000 for number in numbers)


def test_a_family_without_known_classes_is_left_out() -> None:
    rows = np.eye(1000, dtype=np.float32)
    every, targets = noun_rows.family_rows(rows)
    zebra = every.index("zebra")
    assert targets[zebra].argmax() == 340
    assert "zebra" not in noun_rows.family_rows(rows, [number for number in range(1000) if number != 340])[0]


def test_split_is_fixed() -> None:
    chosen = noun_rows.split(noun_rows.FIXED_SPLIT)
    assert len(set(chosen.tolist())) == 100
    assert chosen[:5].tolist() == noun_rows.split(noun_rows.FIXED_SPLIT)[:5].tolist()


def test_the_network_learns_directions_and_the_basis_keeps_them() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = NounConfig(classes=8, features=5, sentence=6, hidden=32, rows=4, width=5)
    head = NounHead(config)
    rows = noun_rows.unit(rng.standard_normal((8, 4)))
    head.rows.copy_(torch.from_numpy(rows))
    x = noun_rows.unit(rng.standard_normal((8, 6)))
    noun_rows.fit_network(head, np.repeat(x, 64, 0), np.repeat(rows, 64, 0), epochs=400)
    with torch.no_grad():
        assert noun_rows.ranks(head.direction(torch.from_numpy(x)).numpy(), rows).tolist() == [0] * 8
        noun_rows.fit_basis(head, x)
        assert torch.allclose(head.basis @ head.basis.T, torch.eye(5), atol=1e-4)


def test_sentences_are_embedded_once(tmp_path) -> None:
    asked = []

    def embed(texts):
        asked.extend(texts)
        return noun_rows.unit(np.array([[len(text), 1.0] for text in texts], np.float32))

    first = noun_rows.sentence_cache(tmp_path, ["a", "bbb", "a"], embed)
    second = noun_rows.sentence_cache(tmp_path, ["bbb", "cc"], embed)
    assert asked == ["a", "bbb", "cc"]
    assert np.allclose(first(["bbb"]), second(["bbb"]), atol=1e-3)
    assert second(["cc", "a"]).shape == (2, 2)


@pytest.mark.parametrize(("text", "numbers"), [("2-4, 7", (2, 3, 4, 7)), ("5", (5,)), ("1, 1-2", (1, 2))])
def test_numbers(text: str, numbers: tuple[int, ...]) -> None:
    from examples.training.families import _numbers

    assert _numbers(text) == numbers
