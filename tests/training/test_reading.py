"""The reading is fitted to what the queries see: views against the towers' own words, the fit on planted and on rendered pictures."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from training import reading as module
from training.backbone import shipped_model
from training.export import embedder
from training.reading import FitConfig, More, Views, check_model, eyes_hash, joined, kept, look, look_on, narrowed, refit, unit
from training.sentences import Sentences, load_sentences

from concept_cam.backbones import BUNDLED, lite
from concept_cam.backbones.lite_towers import Reading, Sizes
from concept_cam.core.errors import DataError
from concept_cam.demo.worlds import WORLDS


@pytest.fixture(scope="module")
def views() -> Views:
    model, _ = shipped_model()
    return look(model, "beetle", 6, 123)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Sentences:
    model, _ = shipped_model()
    embed = embedder(model, (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8"))
    return load_sentences(tmp_path_factory.mktemp("words") / "sentences.pt", ["beetle"], embed, draws=4)


def test_what_is_seen_is_what_the_towers_make_the_image_embedding_of(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNCHANGED", 1.1)
    model, _ = shipped_model()
    plain = look(model, "beetle", 6, 123)
    size = module.SIZES[int(module.np.random.default_rng((123, 41)).integers(3))]
    room = WORLDS["beetle"]
    first = room.render(room.sample(3, module.TRAIN_SEED, view="whole", start=123), size)
    with torch.no_grad():
        tower = model.image
        embedding = tower.pool(tower.cells(tower.read((first.images.float() - 127.0) / 128.0)))
        own = unit(tower.value(plain.seen[:3].float()), plain.nouns[:3], tower.sizes.rest)
        whole = torch.nn.functional.normalize(embedding, dim=-1)
    block = slice(tower.sizes.nouns, tower.sizes.nouns + tower.sizes.parts)
    # Views are kept in half precision.
    torch.testing.assert_close(own, whole[:, block], rtol=0.02, atol=2e-3)
    torch.testing.assert_close(plain.visible[:3], first.visible)
    assert not plain.false_colour.any()
    assert len(joined([views, plain])) == 12


def test_numbers_beside_a_reading_are_added_to_what_it_read() -> None:
    torch.manual_seed(0)
    sizes = Sizes(hidden=5, queries=3, parts=4, reading=2)
    sample = torch.randn(40, 3, 2 * sizes.seen) * torch.rand(2 * sizes.seen) * 5 + 2
    old, more = Reading(sizes), More(sample, 3, 4, 0.5, slice(1, 2)).eval()
    torch.nn.init.normal_(old.out.weight)
    wide = Reading(replace(sizes, reading=5))
    wide.load_state_dict(more.beside(old))
    with torch.no_grad():
        torch.testing.assert_close(wide(sample), old(sample) + more(sample), rtol=1e-4, atol=1e-4)
        other = sample.clone()
        other[:, 1] += 3.0
        torch.testing.assert_close(more(other), more(sample), msg="a silent query reads nothing more")
        assert not torch.allclose(more(sample), torch.zeros(1))


def test_a_fit_tells_its_pictures_better_and_leaves_all_but_the_reading(views: Views, sentences: Sentences) -> None:
    model, _ = shipped_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    lines: list[str] = []
    config = FitConfig(steps=30, batch=6, foreign=0, left_out=0.0, decay=0.0)
    found = refit(model, {"beetle": views}, sentences, config, lines.append)
    told = [float(line.split("states ")[1].split(",")[0]) for line in lines]
    assert told[-1] < 0.6 * told[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed = {name for name, value in found.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"image.value.reading.own", "image.value.reading.own_bias", "image.value.reading.out.weight"}
    again = refit(model, {"beetle": views}, sentences, config, lambda text: None)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in found.state_dict().items()), "the same seed, the same fit"


def test_a_wider_reading_is_written_and_read(views: Views, sentences: Sentences, tmp_path: Path) -> None:
    model, _ = shipped_model()
    wider = refit(model, {"beetle": views}, sentences, FitConfig(steps=2, batch=4, foreign=0, more=4))
    tokenizer = (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8")
    lite.save(wider, tokenizer, tmp_path / "wider", json.loads((BUNDLED / lite.KNOWN).read_text(encoding="utf-8")))
    read = lite.make(tmp_path / "wider", "wider").model
    assert read.image.value.reading.own.shape == (64, 688, model.sizes.reading + 4)
    seen = views.seen.float()
    with torch.no_grad():
        torch.testing.assert_close(read.image.value(seen), wider.image.value(seen), rtol=0.02, atol=0.02)


def test_views_are_kept_and_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, views: Views) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    model, _ = shipped_model()
    said: list[str] = []
    look_on(model, ["beetle", "fish"], tmp_path, 4, 0, said.append)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["beetle_00000.pt", "beetle_00001.pt", "fish_00000.pt"], "of fishes fewer are needed"
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    look_on(model, ["beetle", "fish"], tmp_path, 4, 0, said.append)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == stamps
    assert len(kept(tmp_path, ["beetle"])["beetle"]) == 4
    with pytest.raises(DataError, match=r"no views of plant: make them with  PYTHONPATH=examples python -m training\.reading look"):
        kept(tmp_path, ["plant"])
    torch.save({each.name: getattr(views, each.name) for each in fields(views)[1:]}, tmp_path / "plant_00000.pt")
    with pytest.raises(DataError, match="no views of pictures"):
        kept(tmp_path, ["plant"])
    (tmp_path / "plant_00000.pt").write_text("nothing")
    with pytest.raises(DataError, match=r"plant_00000\.pt holds no views of pictures"):
        kept(tmp_path, ["plant"])


def test_a_model_without_a_reading_is_refused(views: Views, sentences: Sentences) -> None:
    model, _ = shipped_model()
    model.image.value.reading = None
    with pytest.raises(DataError, match="has no reading of its own"):
        refit(model, {"beetle": replace(views)}, sentences, FitConfig(steps=1))


def test_views_of_another_model_are_not_mixed(tmp_path: Path) -> None:
    check_model(tmp_path / "views", "abc")
    check_model(tmp_path / "views", "abc")
    with pytest.raises(DataError, match=r"holds what another model saw \(abc, this one is def\): name another folder"):
        check_model(tmp_path / "views", "def")


def test_a_fit_that_was_added_can_be_left_out_again(views: Views, sentences: Sentences) -> None:
    model, _ = shipped_model()
    reads = model.image.sizes.reading
    wider = refit(model, {"beetle": views}, sentences, FitConfig(steps=2, batch=4, foreign=0, more=4))
    assert wider.image.sizes.reading == reads + 4
    again, state = narrowed(wider, reads).state_dict(), model.state_dict()
    assert again.keys() == state.keys()
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    assert narrowed(wider, 3).image.value.reading.own.shape[2] == 3
    # What the queries see does not depend on what is read of it; it does on all else.
    assert eyes_hash(wider) == eyes_hash(model)
    specialists = [value for name, value in wider.state_dict().items() if name.startswith("image.specialists.")]
    assert specialists
    with torch.no_grad():
        specialists[0].add_(1.0)
    assert eyes_hash(wider) == eyes_hash(model), "a specialist sees for itself"
    with torch.no_grad():
        wider.image.query.weight += 1e-3
    assert eyes_hash(wider) != eyes_hash(model)
    for count in (0, reads + 1):
        with pytest.raises(DataError, match=f"the model reads {reads} numbers a query: received {count} that stay"):
            narrowed(model, count)
