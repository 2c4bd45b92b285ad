"""Each strategy against a slow restatement of its paper's formula, one query at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from concept_cam.core import attention_names as registries
from concept_cam.core.attention import (
    AFFINITY_BETA,
    AFFINITY_GAMMA,
    ATTENTION_STRATEGIES,
    GAUSSIAN_SIGMA,
    OUTLIER_THRESHOLD,
    READING_FUNCTIONS,
    LastAttention,
    attend,
    gaussian,
    strategy,
    suppress_outliers,
)
from concept_cam.core.errors import AttentionError

HEADS, WIDTH, PREFIX, GRID = 2, 4, 1, (2, 3)
PATCHES = GRID[0] * GRID[1]
TOKENS = PREFIX + PATCHES


def example(seed: int = 0, masked: bool = False, batch: int = 2) -> LastAttention:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows, columns = torch.meshgrid(torch.arange(GRID[0]), torch.arange(GRID[1]), indexing="ij")
    keys = None
    if masked:
        keys = torch.ones(batch, TOKENS, dtype=torch.bool)
        keys[0, -2:] = False
        keys[1, -1] = False
    return LastAttention(
        query=draw(batch, HEADS, TOKENS, WIDTH),
        key=draw(batch, HEADS, TOKENS, WIDTH),
        value=draw(batch, HEADS, TOKENS, WIDTH),
        prefix=PREFIX,
        scale=WIDTH**-0.5,
        positions=torch.stack([rows.flatten(), columns.flatten()], dim=-1)[None].float(),
        keys=keys,
        stream=draw(batch, TOKENS, HEADS * WIDTH),
        normed=draw(batch, TOKENS, HEADS * WIDTH),
        middle=draw(batch, TOKENS, HEADS * WIDTH),
    )


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    exponentials = [math.exp(logit - top) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def norm(a: Tensor) -> float:
    return math.sqrt(dot(a, a))


def is_key(last: LastAttention, image: int, token: int) -> bool:
    return last.keys is None or bool(last.keys[image, token])


def weighted(
    last: LastAttention,
    image: int,
    head: int,
    logits: Callable[[int, int], float],
    values: Tensor | None = None,
) -> list[Tensor]:
    """Context of every patch of one image and head, from the logit of each pair (query token, key token)."""
    source = last.value[image, head] if values is None else values
    rows = []
    for i in range(PREFIX, TOKENS):
        keys = [j for j in range(TOKENS) if is_key(last, image, j)]
        weights = softmax([logits(i, j) for j in keys])
        rows.append(
            sum(
                (w * source[j] for w, j in zip(weights, keys, strict=True)),
                torch.zeros(WIDTH, dtype=torch.float64),
            )
        )
    return rows


def slow(name: str, last: LastAttention) -> Tensor:
    batch = len(last.value)
    out = torch.zeros(batch, HEADS, PATCHES, WIDTH, dtype=torch.float64)
    for image in range(batch):
        for head in range(HEADS):
            out[image, head] = torch.stack(SLOW[name](last, image, head))
    return out


def slow_pair(left: str, right: str) -> Callable[[LastAttention, int, int], list[Tensor]]:
    def restate(last: LastAttention, image: int, head: int) -> list[Tensor]:
        a, b = getattr(last, left)[image, head], getattr(last, right)[image, head]
        return weighted(last, image, head, lambda i, j: dot(a[i], b[j]) / math.sqrt(WIDTH))

    return restate


def slow_value(last: LastAttention, image: int, head: int) -> list[Tensor]:
    return [last.value[image, head, i] for i in range(PREFIX, TOKENS)]


def slow_kk(last: LastAttention, image: int, head: int) -> list[Tensor]:
    key = last.key[image, head]

    def logit(i: int, j: int) -> float:
        similarity = dot(key[i], key[j]) / math.sqrt(WIDTH)
        if j < PREFIX:
            return similarity
        (yi, xi), (yj, xj) = divmod(i - PREFIX, GRID[1]), divmod(j - PREFIX, GRID[1])
        return similarity + math.exp(-((yi - yj) ** 2 + (xi - xj) ** 2) / (2 * GAUSSIAN_SIGMA**2))

    return weighted(last, image, head, logit)


def slow_qq_kk(last: LastAttention, image: int, head: int) -> list[Tensor]:
    pairs = zip(
        slow_pair("query", "query")(last, image, head),
        slow_pair("key", "key")(last, image, head),
        strict=True,
    )
    return [a + b for a, b in pairs]


def slow_gem(last: LastAttention, image: int, head: int) -> list[Tensor]:
    valid = [i for i in range(TOKENS) if is_key(last, image, i)]
    temperature = sum(norm(last.normed[image, i]) for i in valid) / len(valid) / math.sqrt(WIDTH)
    total = [torch.zeros(WIDTH, dtype=torch.float64) for _ in range(PATCHES)]
    for name in ("query", "key", "value"):
        x = [row / norm(row) for row in getattr(last, name)[image, head]]
        mixed = []
        for i in range(TOKENS):
            weights = softmax([temperature * dot(x[i], x[j]) for j in valid])
            mixed.append(
                sum(
                    (w * x[j] for w, j in zip(weights, valid, strict=True)),
                    torch.zeros(WIDTH, dtype=torch.float64),
                )
            )
        x = [row / norm(row) for row in mixed]
        rows = weighted(last, image, head, lambda i, j, x=x: temperature * dot(x[i], x[j]))
        total = [a + b / 3 for a, b in zip(total, rows, strict=True)]
    return total


def slow_affinity(last: LastAttention, image: int, head: int) -> list[Tensor]:
    valid = [j for j in range(PATCHES) if is_key(last, image, PREFIX + j)]
    middle = [row / norm(row) for row in last.middle[image, PREFIX:]]
    mean = sum(dot(middle[i], middle[j]) for i in valid for j in valid) / len(valid) ** 2
    values = slow_suppressed(last, image, head)
    rows = []
    for i in range(PATCHES):
        logits = {j: AFFINITY_GAMMA * (dot(middle[i], middle[j]) - AFFINITY_BETA * mean) for j in range(PATCHES)}
        keys = [j for j in range(PATCHES) if j == i or (j in valid and logits[j] >= 0)]
        weights = softmax([logits[j] for j in keys])
        rows.append(
            sum(
                (w * values[j] for w, j in zip(weights, keys, strict=True)),
                torch.zeros(WIDTH, dtype=torch.float64),
            )
        )
    return rows


def slow_suppressed(last: LastAttention, image: int, head: int) -> list[Tensor]:
    values = list(last.value[image, head, PREFIX:])
    norms = {j: norm(last.stream[image, PREFIX + j]) for j in range(PATCHES) if is_key(last, image, PREFIX + j)}

    def lower_median(numbers: list[float]) -> float:
        return sorted(numbers)[(len(numbers) - 1) // 2]

    median = lower_median(list(norms.values()))
    spread = 1.4826 * lower_median([abs(value - median) for value in norms.values()])
    outliers = {j for j, value in norms.items() if value > median + OUTLIER_THRESHOLD * spread}
    out = []
    for j in range(PATCHES):
        y, x = divmod(j, GRID[1])
        near = [k for k in norms if k not in outliers and max(abs(k // GRID[1] - y), abs(k % GRID[1] - x)) == 1]
        out.append(sum(values[k] for k in near) / len(near) if j in outliers and near else values[j])
    return out


SLOW: dict[str, Callable[[LastAttention, int, int], list[Tensor]]] = {
    "qk": slow_pair("query", "key"),
    "value": slow_value,
    "qq": slow_pair("query", "query"),
    "kk": slow_kk,
    "qq+kk": slow_qq_kk,
    "vv": slow_pair("value", "value"),
    "gem": slow_gem,
    "affinity": slow_affinity,
}


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("name", sorted(READING_FUNCTIONS))
def test_reading_equals_its_slow_restatement(name: str, masked: bool) -> None:
    last = example(seed=len(name), masked=masked)
    fast = READING_FUNCTIONS[name][0](last)
    expected = slow(name, last)
    keys = torch.ones(2, PATCHES, dtype=torch.bool) if last.keys is None else last.keys[:, PREFIX:]
    shown = keys[:, None, :, None].expand_as(expected)
    torch.testing.assert_close(fast[shown], expected[shown], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(READING_FUNCTIONS))
def test_reading_uses_only_what_it_names(name: str) -> None:
    read, needs = READING_FUNCTIONS[name]
    last = example()
    kept = {key: getattr(last, key) for key in ("query", "key", "normed", "middle") if key in needs}
    bare = LastAttention(value=last.value, prefix=PREFIX, scale=last.scale, positions=last.positions, stream=last.stream,
                         **{"query": None, "key": None, **kept})  # fmt: skip
    torch.testing.assert_close(read(bare), read(last))


@pytest.mark.parametrize("name", sorted(READING_FUNCTIONS))
def test_padded_tokens_never_matter(name: str) -> None:
    last = example(masked=True)
    changed = {}
    for field in ("query", "key", "value"):
        tensor = getattr(last, field).clone()
        tensor[0, :, -2:] = 1e3
        changed[field] = tensor
    for field in ("stream", "normed", "middle"):
        tensor = getattr(last, field).clone()
        tensor[0, -2:] = 1e3
        changed[field] = tensor
    other = LastAttention(prefix=PREFIX, scale=last.scale, positions=last.positions, keys=last.keys, **changed)
    read = READING_FUNCTIONS[name][0]
    torch.testing.assert_close(read(other)[0, :, :-2], read(last)[0, :, :-2])
    torch.testing.assert_close(read(other)[1], read(last)[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(READING_FUNCTIONS))
def test_half_precision_stays_finite_and_close(name: str, dtype: torch.dtype) -> None:
    last = example(masked=True)
    low = LastAttention(
        **{field: None if (tensor := getattr(last, field)) is None else tensor.to(dtype) for field in
           ("query", "key", "value", "stream", "normed", "middle")},
        prefix=PREFIX, scale=last.scale, positions=last.positions, keys=last.keys,
    )  # fmt: skip
    fast = READING_FUNCTIONS[name][0](low)
    assert fast.dtype == dtype
    torch.testing.assert_close(fast.double(), READING_FUNCTIONS[name][0](last), rtol=0.1, atol=0.06)


def test_one_colour_picture_has_no_empty_row() -> None:
    last = example()
    flat = LastAttention(
        query=None, key=None, value=last.value, prefix=PREFIX, scale=last.scale, positions=last.positions,
        stream=torch.ones_like(last.stream), middle=torch.ones_like(last.middle),
    )  # fmt: skip
    torch.testing.assert_close(READING_FUNCTIONS["affinity"][0](flat), last.value[:, :, PREFIX:])


def test_planted_outlier_becomes_the_mean_of_its_neighbours() -> None:
    positions = example().positions
    values = torch.arange(PATCHES, dtype=torch.float64).reshape(1, 1, PATCHES, 1)
    norms = torch.tensor([[1.0, 1.1, 0.9, 1.0, 50.0, 1.05]])
    out = suppress_outliers(values, norms, positions).flatten()
    # Patch 4 is row 1, column 1 of 2 x 3: its neighbours are 0, 1, 2, 3 and 5.
    assert out.tolist() == pytest.approx([0, 1, 2, 3, (0 + 1 + 2 + 3 + 5) / 5, 5])


def test_gaussian_is_one_at_home_and_falls_with_distance() -> None:
    near = gaussian(torch.tensor([[[0.0, 0.0], [0.0, 5.0], [3.0, 4.0]]]))[0]
    assert near.diagonal().tolist() == [1, 1, 1]
    assert near[0, 1].item() == pytest.approx(math.exp(-0.5))
    assert near[0, 2].item() == pytest.approx(near[0, 1].item())


def test_attend_to_one_key_returns_its_value() -> None:
    last = example()
    keys = torch.zeros(2, TOKENS, dtype=torch.bool)
    keys[:, 3] = True
    out = attend(last.query, last.key, last.value, last.scale, keys)
    torch.testing.assert_close(out, last.value[:, :, 3:4].expand_as(out))


def test_table_and_names_for_the_command_line_agree() -> None:
    assert list(ATTENTION_STRATEGIES) == list(registries.ATTENTION_NAMES)
    assert set(READING_FUNCTIONS) == set(registries.READINGS)
    assert ATTENTION_STRATEGIES["vanilla"].residual
    assert ATTENTION_STRATEGIES["vanilla"].ffn
    assert not ATTENTION_STRATEGIES["kk"].residual
    assert ATTENTION_STRATEGIES["qq+kk+residual"].residual
    assert not ATTENTION_STRATEGIES["qq+kk+residual"].ffn


def test_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(AttentionError, match="'value'"):
        strategy("valeu")
