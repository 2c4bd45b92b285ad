"""An index reads pictures in one way: that which made it, however it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from concept_cam.collection.annotation import annotate
from concept_cam.collection.indexing import build_index
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.settings import Settings
from concept_cam.index.index import Index
from concept_cam.localizer import Localizer
from tests.colour_world import PACK, write_pictures
from tests.planted import PlantedBackbone


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(64, 8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, 3)
    return folder


@pytest.fixture(scope="module")
def own(photos: Path, localizer: Localizer, tmp_path_factory: pytest.TempPathFactory) -> Index:
    return build_index(photos, tmp_path_factory.mktemp("own") / "fish.index", localizer=localizer, workers=0)


def test_the_model_of_an_index_reads_as_the_index_did(own: Index, localizer: Localizer, photos: Path) -> None:
    for other in ({"size": 128}, {"mean": 0.25}, {"resize": "squash"}):
        asker = own.localizer(localizer.with_settings(gamma=0.5, **other))
        assert asker.settings == localizer.with_settings(gamma=0.5).settings
    # What append advises is what it takes.
    picture = photos / own.row(0)["source"]
    encoded = own.localizer(localizer.with_settings(size=128)).encode(picture)
    assert len(own.append([encoded], ["again"])) == len(own) + 1


def test_what_an_index_has_fixed_may_be_named_and_not_changed(own: Index, localizer: Localizer) -> None:
    preprocess = localizer.backbone.preprocess
    same = {
        "size": preprocess.default_size[0],
        "mean": preprocess.mean,
        "interpolation": preprocess.interpolation,
        "resize_mode": "squash",  # which the policy does not use
        "attention": localizer.backbone.default_attention,
        "views": "single",
    }
    assert own.localizer(localizer, **same).settings == localizer.settings
    with pytest.raises(ConfigurationError, match="made with size 64, which cannot become 128 without its pictures: leave size out"):
        own.query(Concept("red"), localizer=localizer, size=128)
    with pytest.raises(ConfigurationError, match=r"mean .* cannot become 0\.25 "):
        own.localizer(localizer, mean=0.25)


def test_an_index_is_not_annotated_as_if_it_were_read_otherwise(own: Index, localizer: Localizer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="made with size 64, which cannot become 128"):
        annotate(own.path, tmp_path / "run", PACK, localizer=localizer, settings=Settings(size=128), workers=0)
    run = annotate(own.path, tmp_path / "run", PACK, localizer=localizer, settings=Settings(size=64), workers=0)
    assert run.info["configuration"]["size"] is None


def test_an_index_is_continued_however_its_settings_are_said(photos: Path, localizer: Localizer, tmp_path: Path) -> None:
    preprocess = localizer.backbone.preprocess
    said = localizer.with_settings(size=preprocess.default_size[0], interpolation=preprocess.interpolation)
    for number, (maker, goer) in enumerate(((localizer, said), (said, localizer))):
        made = build_index(photos, tmp_path / f"{number}.index", localizer=maker, workers=0)
        again = build_index(photos, made.path, localizer=goer, workers=0, resume=True)
        assert (len(again), again.configuration) == (len(made), made.configuration)
        with pytest.raises(DataError, match=r"settings\.size"):
            build_index(photos, made.path, localizer=localizer.with_settings(size=128), workers=0, resume=True)


def test_a_model_that_leaves_its_input_open_is_loaded_as_the_index_says(own: Index, localizer: Localizer, monkeypatch) -> None:
    asked: list[Settings | None] = []

    def loaded(name: str, *, settings: Settings | None = None, **options: object) -> Localizer:
        asked.append(settings)
        return localizer

    monkeypatch.setattr(Localizer, "from_pretrained", loaded)
    own.localizer()
    assert asked == [own.settings]


def test_the_page_reads_an_index_as_it_was_made(own: Index, localizer: Localizer, monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.commands import serve

    monkeypatch.setattr(serve, "build_localizer", lambda values: localizer.under(own.settings.with_values(gamma=values["gamma"])))
    assert serve._localizer_of(own, {"gamma": 0.5, "max_pixels": 1000}).settings == localizer.with_settings(gamma=0.5).settings
    with pytest.raises(ConfigurationError, match="made with size 64, which cannot become 128"):
        serve._localizer_of(own, {"gamma": 0.5, "size": 128})


def test_axes_are_taken_from_an_index_that_has_some_of_the_same_model(
    own: Index, photos: Path, localizer: Localizer, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="has no axes to take"):
        build_index(photos, tmp_path / "a.index", localizer=localizer, pca=own.path, workers=0)
    sample = build_index(photos, tmp_path / "sample.index", localizer=localizer, pca=2, workers=0)
    other = Localizer(PlantedBackbone(64, 8))
    other.backbone.weights_hash = "another"
    with pytest.raises(ConfigurationError, match=r"axes of .*sample\.index' are those of .* take them from an index of the same model"):
        build_index(photos, tmp_path / "a.index", localizer=other, pca=sample.path, workers=0)
    assert not (tmp_path / "a.index").exists()
    taken = build_index(photos, tmp_path / "a.index", localizer=localizer, pca=sample.path, workers=0)
    assert taken.configuration["codec"] == sample.configuration["codec"]
