"""What a caller set for its own computations changes nothing: features, text memory, directions, maps and loaded weights."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from concept_cam.backbones.text_memory import TextMemory
from concept_cam.core.concept import Concept
from concept_cam.core.quiet import quiet
from concept_cam.localizer import Localizer
from tests.backbones.models import BUILDERS, backbone, wrap
from tests.methods.models import photograph


@contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() is dtype  # given back as it was
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
        assert torch.get_default_device().type == name
    finally:
        torch.set_default_device(None)


@contextmanager
def precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    try:
        yield
        assert torch.get_float32_matmul_precision() == name
    finally:
        torch.set_float32_matmul_precision("highest")


SWITCHES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float64": lambda: default_type(torch.float64),
    "bfloat16": lambda: default_type(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "products": lambda: precision("medium"),
}
CONCEPTS = [
    Concept(("a forked tail",), (("a rounded tail",), ("a square tail",), ("a pointed tail",))),
    Concept(("a fin", "the fin"), templates=("a photo of {}", "{}")),
]
PICTURES = [photograph(1, (24, 40)), photograph(2, (40, 40))]


def everything(localizer: Localizer) -> list[np.ndarray]:
    """All numbers that a localizer gives, by way of each kind of method."""
    features = localizer.encode(PICTURES)
    found = [item.patches.numpy() for item in features] + [item.image.numpy() for item in features]
    found.append(localizer.directions(CONCEPTS).texts.numpy())
    for method in ("direct", "legrad", "luminance"):
        for answer in localizer.locate_all(PICTURES, CONCEPTS, method=method):
            found += [answer.scores, answer.image_scores, answer.probabilities, answer.terms]
    return found


@pytest.mark.parametrize("kind", ["vit", "resnet", "transformers-siglip", "timm-convnext"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_numbers_are_the_same_whatever_is_switched(kind: str, switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCEPT_CAM_CACHE", str(tmp_path / "one"))
    methods_exist = kind != "timm-convnext"  # It has no attention that LeGrad could read.

    def numbers(localizer: Localizer) -> list[np.ndarray]:
        if methods_exist:
            return everything(localizer)
        return [item.patches.numpy() for item in localizer.encode(PICTURES)] + [a.scores for a in localizer.locate_all(PICTURES, CONCEPTS)]

    expected = numbers(Localizer(backbone(kind)))
    monkeypatch.setenv("CONCEPT_CAM_CACHE", str(tmp_path / "two"))
    with SWITCHES[switch]():
        inside = numbers(Localizer(backbone(kind)))
    after = numbers(Localizer(backbone(kind)))  # reads what was kept on disk within
    for want, within, later in zip(expected, inside, after, strict=True):
        assert within.dtype == want.dtype
        np.testing.assert_array_equal(within, want)
        np.testing.assert_array_equal(later, want)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "one").rglob("*.npy")}
    assert kept
    assert kept == {path.name: path.read_bytes() for path in (tmp_path / "two").rglob("*.npy")}


@pytest.mark.parametrize("switch", SWITCHES)
def test_the_tower_alone_and_loading_are_the_same_too(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.backbones import load

    pixels = torch.randn(2, 3, 384, 384, generator=torch.Generator().manual_seed(1))
    plain = load("demo")
    expected, text = plain.encode_patches(pixels), plain.encode_text(["a forked tail fin"])
    with SWITCHES[switch]():
        loaded = load("demo")
        found, words = loaded.encode_patches(pixels), loaded.encode_text(["a forked tail fin"])
    assert torch.equal(found.patches, expected.patches)
    assert torch.equal(found.image, expected.image)
    assert torch.equal(words, text)
    assert loaded.weights_hash == plain.weights_hash
    assert {value.dtype for value in loaded.model.parameters()} == {torch.float32}  # type: ignore[attr-defined]
    # Weights and memories made within serve gradients later.
    assert Localizer(loaded).locate(PICTURES[0], "a fin", "a mouth", method="grad-cam").scores.dtype == np.float32


def test_memory_filled_in_inference_mode_serves_gradients() -> None:
    model = wrap("vit", BUILDERS["vit"]())
    memory = TextMemory(model)
    with torch.inference_mode():
        kept = memory.embed(["a fin"])
    (kept * torch.ones(1, requires_grad=True)).sum().backward()  # an inference tensor cannot be saved for this


def test_a_switch_of_the_process_is_given_back_when_the_last_thread_is_done() -> None:
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with quiet():
            entered.set()
            leave.wait(10)

    with default_type(torch.float64):
        thread = threading.Thread(target=work)
        thread.start()
        entered.wait(10)
        with quiet():
            assert torch.get_default_dtype() is torch.float32
        assert torch.get_default_dtype() is torch.float32  # the other thread still computes
        leave.set()
        thread.join()
        assert torch.get_default_dtype() is torch.float64
