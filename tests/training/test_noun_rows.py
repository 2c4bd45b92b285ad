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
        return np.array([[np.exp(-((p - q) ** 2).sum() / (2 * 0.5**2)) for q in b] for p in a])

    weights = np.linalg.solve(kernel(x, x) + 0.5 * np.eye(12), y - y.mean(0))
    expected = kernel(asked, x) @ weights + y.mean(0)
    assert np.allclose(noun_rows.KernelRidge(x, y)(asked), expected, atol=1e-4)


def test_what_may_be_missed_more_is_missed_more() -> None:
    rng = np.random.default_rng(0)
    x, y = noun_rows.unit(rng.standard_normal((12, 5))), rng.standard_normal((12, 3)).astype(np.float32)
    loose = np.where(np.arange(12) == 4, 50.0, 0.1).astype(np.float32)
    error = ((noun_rows.KernelRidge(x, y, ridge=loose)(x) - y) ** 2).sum(1)
    even = ((noun_rows.KernelRidge(x, y, ridge=0.1)(x) - y) ** 2).sum(1)
    assert error[4] > 4 * even[4]
    assert np.delete(error, 4).mean() < error[4] / 4


def test_row_space_keeps_angles_when_no_axis_is_dropped() -> None:
    rng = np.random.default_rng(0)
    several = [rng.standard_normal((20, width)).astype(np.float32) for width in (6, 9)]
    found = noun_rows.row_space(several, 15)
    slow = []
    for rows in several:
        units = np.stack([row / np.linalg.norm(row) for row in rows])
        slow.append(noun_rows.unit(units - units.mean(0)))
    joined = np.concatenate(slow, 1) / np.sqrt(2)
    assert np.allclose(found @ found.T, joined @ joined.T, atol=1e-4)


def test_rows_that_are_not_known_do_not_move_the_space() -> None:
    rows = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    known = np.arange(15)
    other = rows.copy()
    other[15:] = other[15:][::-1]
    first, second = (noun_rows.row_space([each], 4, known) for each in (rows, other))
    assert np.allclose(first[:15], second[:15], atol=1e-5)
    assert not np.allclose(first[15:], second[15:], atol=1e-2)


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


def test_what_a_crowd_gives_is_taken_off() -> None:
    rows = noun_rows.unit(np.array([[1, 0.1, 0], [0, 0, 1]], np.float32))
    known = noun_rows.unit(np.array([[1, 0.2, 0], [1, 0, 0.1], [0, 1, 1]], np.float32))
    predicted = np.array([[1, 0, 0], [0.8, 0, 0.7]], np.float32)
    assert noun_rows.ranks(predicted, rows).tolist() == [0, 1]
    assert noun_rows.ranks(predicted, rows, known, 1.0).tolist() == [0, 0]


def test_a_head_is_the_regression_that_was_written_into_it_and_the_basis_keeps_it() -> None:
    rng = np.random.default_rng(0)
    config = NounConfig(classes=8, features=5, sentence=6, hidden=8, rows=4, width=5, activation="exp")
    head, rows, x = NounHead(config), noun_rows.unit(rng.standard_normal((8, 4))), noun_rows.unit(rng.standard_normal((8, 6)))
    head.rows.copy_(torch.from_numpy(rows))
    found = noun_rows.KernelRidge(x, rows, ridge=0.01)
    found.write(head)
    asked = noun_rows.unit(rng.standard_normal((3, 6)))
    with torch.no_grad():
        assert np.allclose(head.direction(torch.from_numpy(asked)).numpy(), found(asked), atol=1e-4)
        assert noun_rows.ranks(head.direction(torch.from_numpy(x)).numpy(), rows).tolist() == [0] * 8
        noun_rows.fit_basis(head, x)
        assert torch.allclose(head.basis @ head.basis.T, torch.eye(5), atol=1e-4)


def test_groups_of_texts_count_alike_in_the_basis() -> None:
    """One group lies in two dimensions, one of a hundred times as many texts in two others; both are kept."""
    config = NounConfig(classes=12, features=5, sentence=6, hidden=8, rows=6, width=3, sharpness=30.0)
    torch.manual_seed(0)
    head = NounHead(config)
    rng = np.random.default_rng(0)
    head.rows.copy_(torch.from_numpy(noun_rows.unit(rng.standard_normal((12, 6)))))
    few = noun_rows.unit(rng.standard_normal((1, 6)))
    many = noun_rows.unit(rng.standard_normal((1, 6)) + 0.5 * rng.standard_normal((100, 6)))
    with torch.no_grad():
        head.down.weight.mul_(30.0)
        noun_rows.fit_basis(head, few, many)
        slow = np.zeros((12, 12))
        for group in (few, many):
            for text in group:
                k = head.likeness(torch.from_numpy(text[None]))[0].numpy() - 1 / 12
                slow += np.outer(k, k) / (k @ k) / len(group)
        k = head.likeness(torch.from_numpy(few))[0].numpy() - 1 / 12
    basis = head.basis.numpy()
    # No other axes hold more of the two groups, and the single text is held though the others are a hundred.
    assert np.trace(basis @ slow @ basis.T) == pytest.approx(np.linalg.eigvalsh(slow)[-3:].sum(), abs=1e-4)
    assert np.linalg.norm(basis @ k) / np.linalg.norm(k) > 0.99
    assert np.linalg.eigvalsh(slow)[-4] > 1e-3


@pytest.mark.parametrize("shortened", [1.0, 0.2])
def test_few_names_are_left_short_however_short_the_regression_makes_them(shortened: float) -> None:
    """The regression's output is scaled: the floor follows, and what was as long as a thing still gets unit length."""
    config = NounConfig(classes=12, features=5, sentence=6, hidden=8, rows=6, width=4)
    torch.manual_seed(0)
    head = NounHead(config)
    rng = np.random.default_rng(0)
    head.rows.copy_(torch.from_numpy(noun_rows.unit(rng.standard_normal((12, 6)))))
    names = noun_rows.unit(rng.standard_normal((200, 6)))
    with torch.no_grad():
        head.down.weight.mul_(shortened)
        head.down.bias.mul_(shortened)
        noun_rows.fit_basis(head, names)
        noun_rows.fit_floor(head, names)
        found = head.text(torch.from_numpy(names)).norm(dim=-1).numpy()
        slow = []
        for text in names:
            k = head.likeness(torch.from_numpy(text[None]))[0].numpy().astype(np.float64) - 1 / 12
            slow.append(float(np.linalg.norm(head.basis.numpy().astype(np.float64) @ k)))
    short = np.array(slow) < np.sort(slow)[10]  # a twentieth of 200
    assert short.sum() == 10
    assert np.all(found[short] < 1)
    assert np.allclose(found[~short], 1, atol=1e-3)
    assert head.config == NounConfig(**{**config.as_dict(), "floor": head.config.floor})


def letters(texts) -> np.ndarray:
    """How often each letter is in a text, as a unit vector."""
    return noun_rows.unit(np.array([[text.lower().count(letter) + 1e-3 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]))


def test_kept_out_names_are_used_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names, definitions and family rows of the classes that are kept out change nothing of what is predicted for them."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((1000, 12)).astype(np.float32) for _ in noun_rows.CLASSIFIERS]
    apart = noun_rows.split(3)
    embedded = []

    def embed(texts):
        embedded.extend(texts)
        return letters(texts)

    by_package = dict(zip(noun_rows.CLASSIFIERS, weights, strict=True))
    monkeypatch.setattr(noun_rows, "classifier", lambda package: (by_package[package], None))
    known = np.setdiff1d(np.arange(1000), apart)
    rows = noun_rows.row_space(weights, 8, known)
    first = noun_rows.fitted(embed, rows, known)
    classes = noun_rows.nouns(noun_rows.CLASSES)
    assert not set(embedded) & {f"{', '.join(classes[i].names)}: {classes[i].definition}" for i in apart}
    changed = rows.copy()
    changed[apart] = noun_rows.unit(rng.standard_normal((len(apart), 8)))
    second = noun_rows.fitted(letters, changed, known)
    assert np.array_equal(first(letters(["zebra", "a cat"])), second(letters(["zebra", "a cat"])))
    found = noun_rows.held_out_names(embed, apart, NounConfig(rows=8))
    expected = noun_rows.ranks(first(letters([classes[i].names[0] for i in apart])), rows[apart], rows[known])
    assert found["first name"].tolist() == expected.tolist()
    assert set(found) == {"first name", "first name, as asked", "all names", "all names, as asked"}


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
