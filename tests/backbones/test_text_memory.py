from __future__ import annotations

from pathlib import Path

import pytest
import torch

from concept_cam.backbones import text_memory
from concept_cam.backbones.text_memory import TextMemory
from concept_cam.core.cache import CACHE_VARIABLE, cache_folder
from tests.planted import PlantedBackbone


def test_each_prompt_is_embedded_once_per_model_and_machine(tmp_path: Path) -> None:
    first = PlantedBackbone()
    expected = first.encode_text(["red", "green"])
    first.text_calls = 0
    memory = TextMemory(first, tmp_path)
    assert torch.equal(memory.embed(["red", "green", "red"]), expected[[0, 1, 0]])
    assert torch.equal(memory.embed(["green"]), expected[1:])
    assert first.text_calls == 2
    second = PlantedBackbone()
    assert torch.equal(TextMemory(second, tmp_path).embed(["green", "red"]), expected[[1, 0]])
    assert second.text_calls == 0


def test_other_weights_have_their_own_embeddings(tmp_path: Path) -> None:
    TextMemory(PlantedBackbone(), tmp_path).embed(["red"])
    other = PlantedBackbone()
    other.weights_hash = "another"
    TextMemory(other, tmp_path).embed(["red"])
    assert other.text_calls == 1


@pytest.mark.parametrize("damage", [b"", b"no array", None])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: bytes | None) -> None:
    TextMemory(PlantedBackbone(), tmp_path).embed(["red"])
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:-4] if damage is None else damage)
    backbone = PlantedBackbone()
    memory = TextMemory(backbone, tmp_path)
    assert torch.equal(memory.embed(["red"]), backbone.encode_text(["red"]))
    assert TextMemory(PlantedBackbone(), tmp_path).embed(["red"]).shape == (1, 4)


def test_a_cache_that_cannot_be_written_costs_no_answer() -> None:
    backbone = PlantedBackbone()
    assert TextMemory(backbone, Path("/proc/nowhere")).embed(["red"]).shape == (1, 4)


def test_no_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    assert cache_folder() is None
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "concept_cam"


def test_what_is_kept_is_bounded_in_memory_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_memory, "MOST_IN_MEMORY", 10)
    monkeypatch.setattr(text_memory, "MOST_ON_DISK", 20)
    monkeypatch.setattr(text_memory, "_COUNT_EVERY", 5)
    backbone = PlantedBackbone()
    memory = TextMemory(backbone, tmp_path)
    prompts = [f"red {number}" for number in range(100)]
    assert torch.equal(memory.embed(prompts), backbone.encode_text(prompts))
    for prompt in prompts:
        memory.embed([prompt, "green"])
    assert len(memory._embedded) == 10
    assert "green" in memory._embedded, "what is used stays"
    assert len(list(tmp_path.rglob("*.npy"))) <= 20 + 5
    assert torch.equal(memory.embed(prompts), backbone.encode_text(prompts))
