"""The engine on Ray gives what the local one gives."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from concept_cam.backbones.portable import Named, Packed, portable
from concept_cam.collection.annotation import annotate
from concept_cam.collection.engines.ray import chunks
from concept_cam.collection.indexing import build_index
from concept_cam.collection.inputs.items import Blob, File, Item
from concept_cam.core.errors import ConfigurationError, MissingExtraError, ModelError
from concept_cam.localizer import Localizer
from tests.backbones.models import VIT, open_clip_model, randomise
from tests.backbones.test_loading import save_open_clip
from tests.collection.test_annotation import assert_agree
from tests.colour_world import PACK, write_pictures
from tests.planted import PlantedBackbone


def test_chunks_end_by_number_and_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.collection.engines import ray as engine

    monkeypatch.setattr(engine, "CHUNK_PICTURES", 4)
    monkeypatch.setattr(engine, "CHUNK_BYTES", 100)
    paths = [Item(str(number), File("x")) for number in range(10)]
    assert [len(chunk) for chunk in chunks(paths)] == [4, 4, 2]
    blobs = [Item(str(number), Blob(b"x" * 60)) for number in range(5)]
    assert [len(chunk) for chunk in chunks(blobs)] == [2, 2, 1]
    assert list(chunks(paths, stop=lambda: True)) == []


def test_a_missing_ray_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    write_pictures(tmp_path / "in", 1)
    with pytest.raises(MissingExtraError, match=r"pip .*install .*ray"):
        annotate(tmp_path / "in", tmp_path / "run", PACK, localizer=Localizer(PlantedBackbone(64, 8)), engine="ray")


def test_the_engine_runs_real_models(tmp_path: Path) -> None:
    """The bundled model and one from a folder, each with its own text tower and tokenizer, through Ray's processes and back."""
    ray = pytest.importorskip("ray", reason="the engine 'ray' is an extra")
    write_pictures(tmp_path / "in", 3, broken=1)
    folder = save_open_clip(tmp_path / "model", randomise(open_clip_model(VIT)), VIT)
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=1, runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}})
    try:
        for number, model in enumerate(("demo", f"local-dir:{folder}")):
            localizer = Localizer.from_pretrained(model)
            local = annotate(tmp_path / "in", tmp_path / f"local{number}", "fish:parts", localizer=localizer, workers=0)
            run = annotate(tmp_path / "in", tmp_path / f"ray{number}", "fish:parts", localizer=localizer, engine="ray", workers=1)
            assert run.info["model"] == localizer.backbone.name
            assert run.info["counts"]["pictures"] == 3 - 1
            assert_agree(local, run)
        localizer = Localizer.from_pretrained("demo")
        here = build_index(tmp_path / "in", tmp_path / "here", localizer=localizer, workers=0)
        there = build_index(tmp_path / "in", tmp_path / "there", localizer=localizer, engine="ray", workers=1)
        assert len(here) == len(there) == 3 - 1
        assert here.configuration == there.configuration
        assert there.check().sound
        assert there.check().unhashed == ()
        assert here.pictures.equals(there.pictures)
        for one, other in zip(here, there):
            assert torch.equal(one.patches, other.patches)
            assert torch.equal(one.image, other.image)
            assert (one.geometry, one.source) == (other.geometry, other.source)
    finally:
        ray.shutdown()


def test_models_travel_and_those_that_cannot_are_loaded_by_name(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path / "model", randomise(open_clip_model(VIT)), VIT)
    localizer = Localizer.from_pretrained(f"local-dir:{folder}")
    prompts = ["a forked tail fin", "a fish"]
    expected = localizer.backbone.encode_text(prompts)
    sent = pickle.loads(pickle.dumps(localizer.backbone))
    torch.testing.assert_close(sent.encode_text(prompts), expected, rtol=0, atol=0)
    assert sent.weights_hash == localizer.backbone.weights_hash

    assert isinstance(portable(localizer.backbone, "float32"), Packed)
    localizer.backbone.model.held = lambda: None  # type: ignore[union-attr]  # plain pickle refuses a function within another
    named = portable(localizer.backbone, "float32")
    assert isinstance(named, Named)
    torch.testing.assert_close(named.load().encode_text(prompts), expected, rtol=0, atol=0)
    with pytest.raises(ModelError, match="other weights"):
        replace(named, weights_hash="0").load()


@pytest.mark.slow
def test_ray_and_local_agree(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine 'ray' is an extra")
    write_pictures(tmp_path / "in", 40, broken=4)
    localizer = Localizer(PlantedBackbone(64, 8))
    local = annotate(tmp_path / "in", tmp_path / "local", PACK, localizer=localizer, workers=0)
    before = signal.getsignal(signal.SIGTERM)
    half = annotate(tmp_path / "in", tmp_path / "ray", PACK, localizer=localizer, engine="ray", workers=2, limit=15)
    assert half.info["engine"] == "ray"
    assert signal.getsignal(signal.SIGTERM) is before
    run = annotate(tmp_path / "in", tmp_path / "ray", PACK, localizer=localizer, engine="ray", workers=2, resume=True)
    assert_agree(local, run)
    sources = [group[0]["source"] for group in run.pictures()]
    assert sources == [group[0]["source"] for group in local.pictures()]


def test_a_cluster_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the engine 'ray' is an extra")
    write_pictures(tmp_path / "in", 1)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1.*refused"):
        annotate(
            tmp_path / "in",
            tmp_path / "run",
            PACK,
            localizer=Localizer(PlantedBackbone(64, 8)),
            engine="ray",
            ray_address="127.0.0.1:1",
        )
