"""A check of an index finds every byte that is not as it was written, and what it names can be made again."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from click.testing import CliRunner, Result

from concept_cam.cli import main
from concept_cam.collection.indexing import build_index
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError, OutputError
from concept_cam.index import writing
from concept_cam.index.index import Index
from concept_cam.localizer import Localizer
from tests.colour_world import write_pictures
from tests.planted import PlantedBackbone


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(64, 8))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_pictures(folder, 6)
    return folder


def make(inputs: Path, output: Path, localizer: Localizer, **options: Any) -> Index:
    return build_index(inputs, output, localizer=localizer, workers=0, part_pictures=2, batch_size=2, **options)


@pytest.fixture(scope="module")
def whole(photos: Path, localizer: Localizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(photos, tmp_path_factory.mktemp("whole") / "fish.index", localizer).path


@pytest.fixture
def own(whole: Path, tmp_path: Path) -> Path:
    """A copy of the index, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "fish.index"))


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("part-*.arrow"))


def flip(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1
    file.write_bytes(bytes(content))


def faults(folder: Path) -> dict[str, str]:
    return {fault.path.name: fault.reason for fault in Index.open(folder).check().faults}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_whole_index_is_sound_and_its_hashes_are_those_of_its_files(whole: Path) -> None:
    noted = json.loads((whole / "index.json").read_text())["sha256"]
    assert noted == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in parts(whole)}
    assert len(noted) == 3
    read: list[int] = []
    found = Index.open(whole).check(read.append)
    assert (found.sound, found.parts, found.faults, found.unhashed) == (True, 3, (), ())
    assert sum(read) == found.size == sum(file.stat().st_size for file in parts(whole))
    said = run("index", "--check", whole)
    assert said.exit_code == 0, said.output
    assert "every byte is as it was written" in said.output


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_one_byte_anywhere_in_a_part(own: Path, place: float) -> None:
    flip(parts(own)[1], place)
    assert faults(own) == {"part-000002.arrow": "is damaged: its bytes are not those that were written"}
    said = run("index", "--check", own)
    assert said.exit_code == 1
    assert "part-000002.arrow: is damaged" in said.output
    assert "--resume --check" in said.output
    assert "part-000001" not in said.output


def test_truncated_swapped_copied_missing_and_foreign_parts(own: Path) -> None:
    one, two, three = parts(own)
    content = one.read_bytes()
    one.write_bytes(content[: len(content) // 2])
    assert "is damaged" in faults(own)[one.name]
    one.write_bytes(two.read_bytes())
    assert faults(own) == {one.name: f"holds what {two.name} should hold"}
    two.write_bytes(content)
    assert faults(own) == {one.name: f"holds what {two.name} should hold", two.name: f"holds what {one.name} should hold"}
    one.write_bytes(content)
    two.unlink()
    assert "is missing" in faults(own)[two.name]
    three.rename(two)
    assert faults(own) == {two.name: f"holds what {three.name} should hold", three.name: faults(own)[three.name]}
    two.with_name("part-000009.arrow").write_bytes(content)
    assert [file.name for file in Index.open(own).check().unhashed] == ["part-000009.arrow"]


def test_what_is_damaged_is_made_again(own: Path, whole: Path, photos: Path, localizer: Localizer) -> None:
    flip(parts(own)[0], 0.5)
    # Without the check nothing is read, and what cannot be seen is kept.
    assert len(make(photos, own, localizer, resume=True)) == 6
    assert list(faults(own)) == ["part-000001.arrow"]
    said: list[str] = []
    mended = make(photos, own, localizer, resume=True, check=True, say=said.append)
    assert mended.check().sound
    assert mended.check().unhashed == ()
    assert "damaged-part-000001.arrow" in "".join(said)
    assert (own / "parts" / "damaged-part-000001.arrow").is_file()
    before, now = ({item.source: item.patches for item in index} for index in (Index.open(whole), mended))
    assert before.keys() == now.keys()
    assert all((before[name] == now[name]).all() for name in before)


def test_an_index_without_hashes_is_read_and_said_to_have_none(own: Path, photos: Path, localizer: Localizer) -> None:
    info = json.loads((own / "index.json").read_text())
    del info["sha256"]
    (own / "index.json").write_text(json.dumps(info))
    found = Index.open(own)
    assert len(found) == 6
    assert found.check().sound
    assert [file.name for file in found.check().unhashed] == [file.name for file in parts(own)]
    said = run("index", "--check", own)
    assert said.exit_code == 0, said.output
    assert "no hash was kept of 3 of 3 parts" in said.output
    assert "as it was written" not in said.output
    content = parts(own)[2].read_bytes()
    parts(own)[2].write_bytes(content[:-40])
    assert faults(own) == {"part-000003.arrow": "is damaged: it cannot be read"}
    parts(own)[2].write_bytes(content)
    grown = found.append([found.features(0)], ["again"]).check()  # what comes now has one
    assert (grown.parts, len(grown.unhashed)) == (4, 3)


def test_a_folder_of_pictures_is_told_how_to_become_an_index(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as said:
        Index.open(photos)
    assert str(said.value).endswith(f"concept-cam index {photos} -o {photos.name}.index")
    with pytest.raises(DataError) as said:
        Index.open(tmp_path / "fish.index")
    assert str(said.value).endswith(f"concept-cam index photos/ -o {tmp_path / 'fish.index'}")


def test_hashes_that_are_none_are_refused(own: Path) -> None:
    info = json.loads((own / "index.json").read_text())
    for wrong in (["a"], {"part-000001.arrow": 3}):
        (own / "index.json").write_text(json.dumps({**info, "sha256": wrong}))
        with pytest.raises(DataError, match="expected a hash for the name of each part"):
            Index.open(own)


def test_what_is_appended_or_resumed_keeps_all_hashes(
    own: Path, photos: Path, localizer: Localizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.open(own)
    grown = index.append([index.features(0)], ["again"])
    assert (grown.check().sound, grown.check().parts, grown.check().unhashed) == (True, 4, ())
    flip(parts(own)[3], 0.4)
    assert list(faults(own)) == ["part-000004.arrow"]
    flip(parts(own)[3], 0.4)
    resumed = make(photos, own, localizer, resume=True)
    assert (resumed.check().sound, resumed.check().parts, resumed.check().unhashed) == (True, 4, ())

    # What an entry does not keep of its own must be as the index says.
    assert index.features(0).reading == localizer.settings.reading()
    with pytest.raises(ConfigurationError, match="encoded with size 32, those of the index"):
        index.append([localizer.with_settings(size=32).encode(photos / index.row(0)["source"])], ["smaller"])

    # Killed between the hash and the part: the note names what never came, the index is what it was.
    write = writing.write_file

    def stopped(path: Path, *arguments: Any, **options: Any) -> Path:
        if path.suffix == ".arrow":
            raise OutputError("the disk is full")
        return write(path, *arguments, **options)

    monkeypatch.setattr(writing, "write_file", stopped)
    with pytest.raises(OutputError):
        resumed.append([index.features(0)], ["never"])
    monkeypatch.undo()
    assert len(Index.open(own)) == 7
    assert "was being written" in faults(own)["part-000005.arrow"]
    assert make(photos, own, localizer, resume=True).check().sound


def test_shards_are_checked_together(photos: Path, localizer: Localizer, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make(photos, tmp_path / "fish.index", localizer, shard=f"{number}/3")
    found = Index.open(tmp_path / "fish.index").check()
    assert (found.sound, found.parts, found.unhashed) == (True, len(parts(tmp_path)), ())
    damaged = parts(tmp_path)[-1]
    flip(damaged, 0.5)
    assert [fault.path for fault in Index.open(tmp_path / "fish.index").check().faults] == [damaged]
    shard = int(damaged.parents[1].name[6:11])
    make(photos, tmp_path / "fish.index", localizer, shard=f"{shard}/3", resume=True, check=True)
    assert Index.open(tmp_path / "fish.index").check().sound
    shutil.rmtree(tmp_path / "fish.index" / "shard-00002-of-00003")
    assert faults(tmp_path / "fish.index") == {"shard-00002-of-00003": "this shard is missing"}
    with pytest.warns(UserWarning, match="is not whole: shard-00002-of-00003 of its shards"):
        assert len(Index.open(tmp_path / "fish.index"))


def test_an_index_that_is_not_finished_says_so_when_it_is_asked(own: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        entries = len(Index.open(own))
    info = json.loads((own / "index.json").read_text())
    (own / "index.json").write_text(json.dumps({**info, "finished": None}))
    with pytest.warns(UserWarning, match=f"is not finished: it holds {entries} entries so far.*--resume"):
        assert Index.open(own).pictures.num_rows == entries


def test_axes_are_checked_too(photos: Path, localizer: Localizer, tmp_path: Path) -> None:
    folder = make(photos, tmp_path / "fish.index", localizer, pca=4).path
    assert Index.open(folder).check().sound
    axes = folder / "basis.safetensors"
    content = axes.read_bytes()
    flip(axes, 1.0)
    assert "these are not the axes" in faults(folder)["basis.safetensors"]
    axes.write_bytes(b"x" + content[1:])
    assert "cannot be read" in faults(folder)["basis.safetensors"]
    axes.unlink()
    assert "cannot be read" in faults(folder)["basis.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "INDEX", "--keep", "int8"], "--check takes an index alone and encodes nothing, received --keep too"),
        (["photos", "-o", "INDEX", "--check"], "received --output too"),
        (["photos"], "Missing option '--output' / '-o'"),
        (["--check", "no such folder"], "is no index"),
        (["--check"], "Missing argument 'INPUT...'"),
    ],
)
def test_a_check_that_cannot_be(whole: Path, arguments: list[str], said: str) -> None:
    found = run("index", *(whole if word == "INDEX" else word for word in arguments))
    assert found.exit_code == 2, found.output
    assert said in " ".join(found.output.split())


def test_a_part_that_was_copied_is_said(own: Path) -> None:
    """Its pictures would be listed twice."""
    first = parts(own)[0]
    copy = first.with_name("part-000009.arrow")
    shutil.copy(first, copy)
    found = Index.open(own).check()
    assert [(fault.path, f"is a copy of {first.name}" in fault.reason) for fault in found.faults] == [(copy, True)]
    copy.unlink()
    assert Index.open(own).check().sound


def test_features_of_the_same_input_go_together_however_it_was_said(photos: Path, localizer: Localizer, tmp_path: Path) -> None:
    own = localizer.backbone.preprocess
    said = localizer.with_settings(mean=own.mean, interpolation=own.interpolation, resize_mode="squash")
    for number, (maker, asker) in enumerate(((localizer, said), (said, localizer))):
        index = make(photos, tmp_path / f"{number}.index", maker)
        picture = photos / index.row(0)["source"]
        grown = index.append([asker.encode(picture)], ["again"])
        assert len(grown) == len(index) + 1
        concept = Concept(("red",))
        assert asker.score(grown.features(0), concept).provenance == localizer.score(localizer.encode(picture), concept).provenance
        with pytest.raises(ConfigurationError, match="encoded with mean"):
            index.append([localizer.with_settings(mean=0.25).encode(picture)], ["other"])


def test_an_index_reads_pictures_as_the_settings_say(photos: Path, localizer: Localizer, tmp_path: Path) -> None:
    other = localizer.with_settings(mean=0.25, std=0.125)
    index = make(photos, tmp_path / "other.index", other)
    picture = photos / index.row(0)["source"]
    found, expected, plain = (item.image.numpy() for item in (index.features(0), other.encode(picture), localizer.encode(picture)))
    assert np.abs(found - expected).max() < 0.05 * np.abs(plain - expected).max()
