"""The engine on Ray gives what the local one gives."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from concept_cam.collection.annotation import annotate
from concept_cam.collection.engines.ray import chunks
from concept_cam.collection.inputs.items import Blob, File, Item
from concept_cam.core.errors import ConfigurationError, MissingExtraError
from concept_cam.localizer import Localizer
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
