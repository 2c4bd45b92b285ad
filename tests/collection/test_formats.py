"""The number format of a run: measured, told, kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("pyarrow")

from concept_cam.backbones.protocol import ImageFeatures
from concept_cam.collection import formats
from concept_cam.collection.annotation import annotate
from concept_cam.collection.formats import TOLERANCE, Choice, Tried, compared, fastest, shared
from concept_cam.collection.indexing import build_index
from concept_cam.core.errors import ImageError
from concept_cam.localizer import Localizer
from tests.colour_world import PACK, write_pictures
from tests.planted import PlantedBackbone


class Rough(PlantedBackbone):
    """Rounds its features, as a coarse number format does, or gives NaN."""

    def __init__(self, step: float) -> None:
        super().__init__(64, 8)
        self.step = step

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        found = super().encode_patches(pixels, attention, valid)
        return ImageFeatures((found.patches / self.step).round() * self.step, found.image)


@pytest.mark.parametrize(
    ("tried", "chosen"),
    [
        ({}, "float32"),
        ({"bfloat16": Tried(2.0, 0.9999, 0.99)}, "bfloat16"),
        ({"bfloat16": Tried(1.05, 0.9999, 0.99)}, "float32"),
        ({"bfloat16": Tried(2.0, 0.998, 0.99)}, "float32"),
        ({"bfloat16": Tried(2.0, 0.9999, 0.99), "int8": Tried(3.5, 0.9995, 0.99)}, "int8"),
        ({"bfloat16": Tried(2.0, 0.9999, 0.99), "int8": Tried(3.5, 0.99, 0.98)}, "bfloat16"),
        ({"bfloat16": Tried(2.0, 0.9999, 0.99), "int8": Tried(error="no")}, "bfloat16"),
        ({"int8": Tried(error="cannot be exported")}, "float32"),
    ],
    ids=str,
)
def test_the_fastest_whose_maps_stay_the_same(tried: dict[str, Tried], chosen: str) -> None:
    choice = Choice.of(tried)
    assert choice.dtype == chosen
    assert chosen in str(choice)
    for name, found in tried.items():
        assert (name in str(choice)) or choice.dtype != "float32"
        assert not found.error or choice.dtype != "float32" or found.error in str(choice)
    assert json.loads(json.dumps(choice.to_dict()))["dtype"] == chosen


def test_agreement_is_the_correlation_of_maps() -> None:
    plain = Localizer(PlantedBackbone(64, 8))
    pictures = [plain.prepare(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)) for seed in (0, 1)]
    words = ("red", "green", "blue")
    fine, coarse = (compare(plain, Localizer(Rough(step)), pictures, words) for step in (1e-6, 0.2))
    assert fine.agreement == pytest.approx(1.0, abs=1e-6)
    assert coarse.agreement < TOLERANCE
    assert coarse.lowest <= coarse.agreement
    rounded = Rough(0.2)
    slow = []
    for picture in pictures:
        one, two = (
            torch.nn.functional.normalize(tower.encode_patches(torch.from_numpy(np.asarray(picture.pixels))[None]).patches[0], dim=-1)
            for tower in (plain.backbone, rounded)
        )
        texts = plain.embed_texts([(word,) for word in words])
        for along in (*texts, texts[1] - texts[0], texts[2] - texts[1]):
            slow.append(np.corrcoef((one @ along).flatten(), (two @ along).flatten())[0, 1])
    assert coarse.agreement == pytest.approx(float(np.median(slow)), abs=1e-5)


def compare(plain: Localizer, other: Localizer, pictures: list[Any], words: tuple[str, ...]) -> Tried:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "NEUTRAL", words)
        return compared(plain, other, pictures)


def test_flat_maps_say_nothing() -> None:
    plain = Localizer(PlantedBackbone(64, 8))
    grey = [plain.prepare(np.full((64, 64, 3), 90, dtype=np.uint8))]
    with pytest.raises(ImageError, match="flat"):
        compare(plain, Localizer(Rough(1.0)), grey, ("red", "green"))


def test_all_shards_take_what_the_first_has_chosen(tmp_path: Path) -> None:
    assert shared(Choice("bfloat16"), tmp_path / "run") == "bfloat16"
    assert shared(Choice("int8"), tmp_path / "run") == "bfloat16"
    (tmp_path / "run" / "dtype.json").write_text("{damaged")
    assert shared(Choice("float32"), tmp_path / "run") == "float32"
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["dtype.json"]


def test_a_run_says_its_format_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "in", 4)
    calls: list[str] = []

    def chosen(model: str, device: str, settings: Any, items: Any, count: Any) -> tuple[Localizer, Choice]:
        assert count() == 2
        calls.append(model)
        return Localizer(PlantedBackbone(64, 8)), Choice("float32", {"bfloat16": Tried(0.5, 0.9999, 0.999)})

    said: list[str] = []
    monkeypatch.setattr(formats, "fastest", chosen)
    monkeypatch.setattr(
        Localizer, "from_pretrained", lambda *given, **named: calls.append(named["dtype"]) or Localizer(PlantedBackbone(64, 8))
    )
    options: dict[str, Any] = {"workers": 0, "say": said.append, "limit": 2}
    run = annotate(tmp_path / "in", tmp_path / "run", PACK, **options)
    assert run.info["dtype_choice"]["tried"]["bfloat16"]["gain"] == 0.5
    assert said == ["the tower computes in float32 (bfloat16: 0.5 times as fast, maps correlate by 0.9999)."]
    annotate(tmp_path / "in", tmp_path / "run", PACK, workers=0, resume=True)
    assert calls == ["demo", "float32"], "a run that is continued is not measured again"
    build_index(tmp_path / "in", tmp_path / "index", **options)
    made = build_index(tmp_path / "in", tmp_path / "index", workers=0, resume=True)
    assert calls == ["demo", "float32", "demo", "float32"]
    assert len(made) == 4


def test_what_was_found_is_remembered_and_a_format_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCEPT_CAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(formats, "computes_in_bfloat16", lambda device: True)
    tower = PlantedBackbone(64, 8)
    tower.weights_hash = f"of {tmp_path}"
    loads: list[str] = []

    def load(name: str, device: str = "cpu", dtype: str = "float32", settings: Any = None) -> Localizer:
        loads.append(dtype)
        if dtype == "bfloat16" and broken:
            raise ImageError("its maps are NaN.")
        return Localizer(copy.copy(tower))

    broken = True
    monkeypatch.setattr(Localizer, "from_pretrained", load)
    for _ in range(2):
        _, choice = fastest("planted", "cpu", None, [], lambda: 3)
        assert choice.dtype == "float32"
        assert choice.tried["bfloat16"].error == "its maps are NaN."
    assert loads == ["float32", "bfloat16", "float32"]
