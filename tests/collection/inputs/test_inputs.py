"""Every layout yields the same pictures under stable names, in the same order, with its other columns."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from concept_cam.collection.inputs import LAYOUTS, Collection, Columns, Item, Shard, files, find_layout, open_collection, parse_shard
from concept_cam.collection.inputs.specimens import BoxFile, TakenMasks, open_boxes, open_ignored, parse_boxes, read_specimen_mask
from concept_cam.collection.schema import image_key
from concept_cam.core.errors import ConfigurationError, DataError, ImageError
from concept_cam.core.regions import encode_rle
from concept_cam.pictures.reading import read_image
from tests.colour_world import picture


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def items(*arguments: Any, **options: Any) -> list[Item]:
    collection = open_collection(*arguments, **options)
    found = list(collection.items())
    assert [item.source for item in collection.items()] == [item.source for item in found], "the order changed"
    assert len({item.source for item in found}) == len(found)
    return found


def pixels(item: Item) -> np.ndarray:
    return read_image(item.payload.read().content).pixels


NAMES = ("b/a fish.png", "b/é鱼.png", "c/a fish.png", "top.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for seed, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(seed))
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_bytes(b"")
    return root


def test_folder(folder: Path) -> None:
    found = items(folder)
    assert sorted(item.source for item in found) == sorted(NAMES)
    for item in found:
        np.testing.assert_array_equal(pixels(item), picture(NAMES.index(item.source)))
    assert open_collection(folder).count() == 4
    assert [item.source for item in items(folder, skip=[str(folder / "b")])] == ["top.png", "c/a fish.png"]


def make_run(folder: Path) -> None:
    """What an annotation run leaves behind, and a picture that was made of it."""
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "part-000000.parquet").write_bytes(b"PAR1")
    (folder / "run.json").write_text('{"schema_version": "1"}')
    (folder / "overlay.png").write_bytes(png(9))


def test_runs_beside_the_pictures_are_no_input(folder: Path) -> None:
    make_run(folder / "annotated")
    make_run(folder / "b" / "shards" / "shard-00001-of-00002")
    (folder / "b" / "run.json").write_text("another program's, beside pictures")
    assert find_layout([str(folder)]) == "folder"
    assert sorted(item.source for item in items(folder)) == sorted(NAMES)
    assert open_collection(folder).count() == 4
    assert items(folder, layout="parquet") == []
    # A run that is named is read: it may hold pictures that are wanted.
    assert [item.source for item in items(folder / "annotated", layout="folder")] == ["overlay.png"]


def test_a_run_is_no_input(tmp_path: Path) -> None:
    """Its Parquet files were read as pictures, of which every row was an error."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-000001.parquet").write_bytes(b"")
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"is an annotation run.*give the pictures, or an index"):
        open_collection(tmp_path)


def test_folders_that_are_left_out_do_not_decide_the_layout(tmp_path: Path) -> None:
    root = tmp_path / "coll"
    (root / "zoo").mkdir(parents=True)
    (root / "zoo" / "1.png").write_bytes(png(0))
    (root / "annotated" / "parts").mkdir(parents=True)  # killed before it wrote its run.json
    (root / "annotated" / "parts" / "part-000000.parquet").write_bytes(b"PAR1")
    assert find_layout([str(root)]) == "parquet"
    assert find_layout([str(root)], skip=[str(root / "annotated")]) == "folder"
    collection = open_collection(root, skip=[str(root / "annotated")])
    assert collection.layout == "folder"
    assert [item.source for item in collection.items()] == ["zoo/1.png"]


def test_a_run_is_known_by_its_own_file_names() -> None:
    runs = pytest.importorskip("concept_cam.collection.runs")
    assert (files.RUN_FILE, files.PARTS_FOLDER) == (runs.RUN_FILE, runs.PARTS_FOLDER)


def test_names_that_are_no_unicode(folder: Path) -> None:
    raw = os.fsencode(folder) + b"/\xff.png"
    try:
        with open(raw, "wb") as stream:
            stream.write(png(0))
    except OSError:
        pytest.skip("the file system refuses names that are no Unicode")
    odd = next(item for item in items(folder) if "xff" in item.source)
    assert odd.source.encode("utf-8")
    assert pixels(odd).shape == (96, 128, 3)


def test_glob(folder: Path) -> None:
    assert [item.source for item in items(str(folder / "**" / "a*.png"))] == ["b/a fish.png", "c/a fish.png"]
    with pytest.raises(DataError, match="matches nothing"):
        open_collection(str(folder / "*.jpg"))


def test_lists(folder: Path, tmp_path: Path) -> None:
    lines = [str(folder / NAMES[0]) + "\n", "\n", str(folder / "gone.png") + "\r\n"]
    found = items("-", lines=lines)
    assert [item.source for item in found] == [str(folder / NAMES[0]), str(folder / "gone.png")]
    with pytest.raises(ImageError, match="no such picture"):
        found[1].payload.read()
    strange = items("-", lines=["bad\udcff.png\n"])
    assert [item.source for item in strange] == ["bad\\xff.png"]
    listing = tmp_path / "list.txt"
    listing.write_text("photos/top.png\nphotos/b/é鱼.png\n", encoding="utf-8")
    assert pixels(items(listing)[1]).shape == (96, 128, 3)
    several = items([folder / NAMES[0], folder / NAMES[3]])
    assert [item.source for item in several] == [str(folder / NAMES[0]), str(folder / NAMES[3])]


@pytest.mark.parametrize("cell", ["0", "-1", "nan", "inf", "1e-300", "1e300", "2 px"])
def test_a_cell_that_is_no_scale_concerns_its_row_alone(cell: str, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "scales.csv"
    table.write_text(f"file,scale\nphotos/top.png,{cell}\nphotos/b/é鱼.png,2.5\n", encoding="utf-8")
    bad, good = items(table, columns=Columns(px_per_mm="scale"))
    assert (bad.source, bad.px_per_mm, good.px_per_mm) == ("photos/top.png", None, 2.5)
    with pytest.raises(ImageError, match=rf"column 'scale' is '{cell}': expected pixels per millimetre, from 1e-06 to 1e\+09\."):
        bad.payload.read()
    assert pixels(good).shape == (96, 128, 3)


def test_table_carries_columns_and_names_those_it_has(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "media.csv"
    table.write_text(
        '\ufeffoccurrenceID,file,accessURI,rights,scale\nurn:1,photos/top.png,https://x.org/1,"CC BY, 4.0",12.5\n'
        "urn:2,photos/b/é鱼.png,,CC0,\nurn:3,,,,\nurn:4,photos/c/a fish.png,,,zero\n",
        encoding="utf-8",
    )
    found = items(table, columns=Columns(px_per_mm="scale"))
    assert [item.source for item in found] == [
        "photos/top.png",
        "photos/b/é鱼.png",
        "media.csv#line4",
        "photos/c/a fish.png",
    ]
    assert found[0].columns["occurrenceID"] == "urn:1"
    assert found[0].columns["rights"] == "CC BY, 4.0"
    assert "file" not in found[0].columns
    assert found[0].media_uri == "https://x.org/1"
    assert found[0].px_per_mm == 12.5
    assert found[1].px_per_mm is None
    assert pixels(found[1]).shape == (96, 128, 3)
    for position, message in ((2, "empty"), (3, "zero")):
        with pytest.raises(ImageError, match=message):
            found[position].payload.read()
    with pytest.raises(DataError, match=r"occurrenceID, file, accessURI, rights, scale.*Name one of these with --column\."):
        open_collection(table, columns=Columns("picture"))
    for columns, option in ((Columns(box="b"), "--boxes"), (Columns(mask="b"), "--masks"), (Columns(px_per_mm="b"), "--px-per-mm")):
        with pytest.raises(DataError, match=rf"has no column 'b'\..*Name one of these with {option}\."):
            open_collection(table, columns=columns)
    semicolons = tmp_path / "media2.csv"
    semicolons.write_text("file;species\nphotos/top.png;Esox lucius\n", encoding="utf-8")
    assert items(semicolons)[0].columns == {"species": "Esox lucius"}
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="empty"):
        open_collection(tmp_path / "empty.csv")


def test_a_table_that_was_printed_names_pictures_by_an_apostrophe(folder: Path, tmp_path: Path) -> None:
    """What `locate` prints has one before what a spreadsheet would run; a file of that very name is meant all the same."""
    for name in ("@a.png", "'-b.png", "-b.png", "'=c.png"):
        (folder / name).write_bytes(png(3))
    table = tmp_path / "found.csv"
    table.write_text("file_name,x,y,width,height\n'@a.png,1,2,30,40\n'-b.png,5,6,30,40\n''=c.png,7,8,30,40\n-5,1,1,2,2\n", encoding="utf-8")
    assert [item.source for item in items(table, root=str(folder))] == ["@a.png", "'-b.png", "'=c.png", "-5"]
    boxes, there = open_boxes(str(table)), {item.source: item for item in items(folder)}
    found = [[specimen.box for specimen in boxes.of(there[name])] for name in ("@a.png", "-b.png", "'=c.png")]
    assert found == [[(1, 2, 30, 40)], [(5, 6, 30, 40)], [(7, 8, 30, 40)]]


def test_table_with_boxes_has_one_specimen_per_row(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "trays.csv"
    table.write_text('file,box,id\nphotos/top.png,1 2 30 40,A\nphotos/top.png,"[50, 2, 30, 40]",B\nphotos/c/a fish.png,broken,C\n')
    found = items(table, columns=Columns(box="box"))
    assert [specimen.box for specimen in found[0].specimens] == [(1, 2, 30, 40), (50, 2, 30, 40)]
    assert [specimen.columns["id"] for specimen in found[0].specimens] == ["A", "B"]
    with pytest.raises(ImageError, match="broken"):
        found[1].payload.read()


def test_masks_of_a_table_are_looked_up_where_its_pictures_are(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    truth = np.zeros((96, 128), bool)
    truth[10:20, 30:50] = True
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("photos/m.png", "elsewhere/here.png"):
        Image.fromarray(truth).save(tmp_path / name)
    encoded = json.dumps(encode_rle(truth))
    masks = ["photos/m.png", encoded, str(tmp_path / "photos" / "m.png"), "here.png", "none.png", ""]
    expected = [
        str(tmp_path / "photos" / "m.png"),
        encoded,
        str(tmp_path / "photos" / "m.png"),
        "here.png",  # only in the working directory, as it used to be
        str(tmp_path / "none.png"),
        None,
    ]
    cells = ["" if mask == "" else json.dumps(mask)[1:-1].replace('\\"', '""') for mask in masks]
    table = tmp_path / "media.csv"
    table.write_text("path,mask\n" + "".join(f'photos/top.png,"{cell}"\n' for cell in cells), encoding="utf-8")
    write_parquet(tmp_path / "paths.parquet", {"path": ["photos/top.png"] * len(masks), "mask": masks})
    write_parquet(tmp_path / "bytes.parquet", {"image": [png(0)] * len(masks), "mask": masks})
    for name in ("media.csv", "paths.parquet", "bytes.parquet"):
        found = [specimen for item in items(tmp_path / name, columns=Columns(mask="mask")) for specimen in item.specimens]
        assert [specimen.mask for specimen in found] == expected, name
        for specimen in found[:4]:
            assert specimen.mask is not None
            np.testing.assert_array_equal(read_specimen_mask(specimen.mask, truth.shape), truth)
    short = tmp_path / "elsewhere" / "short.csv"
    short.write_text("path,mask\ntop.png,m.png\n")
    (item,) = items(short, columns=Columns(mask="mask"), root=str(folder))
    assert item.specimens[0].mask == str(folder / "m.png")


def test_boxes_and_masks() -> None:
    assert parse_boxes("1,2 3;4") == [(1, 2, 3, 4)]
    assert parse_boxes("[[1,2,3,4],[5,6,7,8]]") == [(1, 2, 3, 4), (5, 6, 7, 8)]
    for text in ("", "1 2 3", "1 2 0 4", "[[1,2]]", "nan 1 2 3"):
        with pytest.raises(ImageError):
            parse_boxes(text)
    mask = np.zeros((5, 7), bool)
    mask[1:3, 2:6] = True
    np.testing.assert_array_equal(read_specimen_mask(json.dumps(encode_rle(mask)), (5, 7)), mask)
    with pytest.raises(ImageError, match="5 x 7"):
        read_specimen_mask(encode_rle(mask), (6, 7))
    with pytest.raises(ImageError, match="run-length"):
        read_specimen_mask('{"size": 3}', (5, 7))


TRANSPARENT = [
    (255, 255, 255, 0),
    (0, 0, 0, 0),
    (0, 0, 0, 255),
    (0, 0, 0, 128),
    (9, 0, 0, 1),
    (255, 255, 255, 255),
]
"""Pixels of a mask: the first four are outside, transparent or black, the last two inside."""


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_what_is_transparent_in_a_mask_picture_is_outside(tmp_path: Path, ending: str, orientation: int) -> None:
    stored = np.array([TRANSPARENT, TRANSPARENT[::-1]], dtype=np.uint8)
    truth = np.array([[0, 0, 0, 0, 1, 1], [1, 1, 0, 0, 0, 0]], bool)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True, "exact": True} if ending == "webp" else {}
    Image.fromarray(stored).save(tmp_path / f"m.{ending}", exif=exif, **options)
    upright = np.rot90(truth, -1) if orientation == 6 else truth
    np.testing.assert_array_equal(read_specimen_mask(str(tmp_path / f"m.{ending}"), upright.shape), upright)
    with pytest.raises(ImageError, match="the upright picture 3 x 3"):
        read_specimen_mask(str(tmp_path / f"m.{ending}"), (3, 3))


def test_transparency_of_every_kind_of_mask_picture(tmp_path: Path) -> None:
    truth = np.array([[True, False, False]])
    palette = Image.fromarray(np.array([[1, 2, 0]], np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255, 200, 200, 200])
    palette.save(tmp_path / "palette.png", transparency=2)
    Image.fromarray(np.array([[[255, 255], [255, 0], [0, 255]]], np.uint8), "LA").save(tmp_path / "grey.png")
    Image.fromarray(np.array([[255, 7, 0]], np.uint8)).save(tmp_path / "key.png", transparency=7)
    Image.fromarray(np.array([[255, 0, 0]], np.uint8)).save(tmp_path / "none.png")
    for name in ("palette.png", "grey.png", "key.png", "none.png"):
        np.testing.assert_array_equal(read_specimen_mask(str(tmp_path / name), (1, 3)), truth, err_msg=name)


def test_a_transparent_mask_beyond_pillows_own_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGBA", (20, 20), (255, 255, 255, 255)).save(tmp_path / "m.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_specimen_mask(str(tmp_path / "m.png"), (20, 20)).all()


def box_file(folder: Path, *names: str) -> BoxFile:
    path = folder / "boxes.csv"
    path.write_text("file,x,y,width,height\n" + "".join(f"{name},1,2,3,4\n" for name in names), encoding="utf-8")
    return open_boxes(str(path))


def boxed(boxes: BoxFile, found: list[Item]) -> list[str]:
    """Sources of the pictures that have boxes; the same in any order and in another process."""
    sent = pickle.loads(pickle.dumps(boxes))
    forth = [item.source for item in found if boxes.of(item)]
    assert sorted(item.source for item in reversed(found) if sent.of(item)) == sorted(forth)
    return sorted(forth)


def test_a_bare_name_in_a_box_file_is_first_of_all_a_whole_name(folder: Path, tmp_path: Path) -> None:
    (folder / "c" / "top.png").write_bytes(png(5))
    found = items(folder)
    assert boxed(box_file(tmp_path, "top.png"), found) == ["top.png"]
    assert boxed(box_file(tmp_path, "top.png", "c/top.png"), found) == ["c/top.png", "top.png"]
    assert boxed(box_file(tmp_path, "é鱼.png"), found) == ["b/é鱼.png"]
    # The rule is the same where only a part of the files is asked for, and for lists, however they write their paths.
    assert boxed(box_file(tmp_path, "top.png"), items(str(folder / "*" / "top.png"))) == []
    listing = tmp_path / "list.txt"
    listing.write_text("./top.png\nb/../c/top.png\n")
    assert boxed(box_file(tmp_path, "top.png"), items(listing, root=str(folder))) == ["./top.png"]
    absolute = items("-", lines=[str(folder / "c" / "top.png")])
    assert boxed(box_file(tmp_path, "top.png"), absolute) == [absolute[0].source]


def test_bare_names_behind_urls(tmp_path: Path) -> None:
    memory = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("0.png", "sub/0.png", "sub/1.png"):
        memory.pipe(f"/bare/{name}", png(0))
    found = items("memory://bare")
    assert boxed(box_file(tmp_path, "0.png", "1.png"), found) == ["0.png", "sub/1.png"]


def test_ambiguous_bare_names_are_refused_where_the_collection_can_be_listed(folder: Path, tmp_path: Path) -> None:
    collection = open_collection(folder)
    box_file(tmp_path, "top.png", "é鱼.png", "b/a fish.png", "c/a fish.png").check(collection)
    with pytest.raises(DataError, match=r"'a fish\.png'.*'b/a fish\.png' or 'c/a fish\.png'"):
        box_file(tmp_path, "top.png", "a fish.png").check(collection)
    (folder / "a fish.png").write_bytes(png(6))  # now the row is for this one
    box_file(tmp_path, "a fish.png").check(collection)
    write_tar(tmp_path / "s.tar", {"a/1.png": png(0), "b/1.png": png(1)})
    box_file(tmp_path, "1.png").check(open_collection(tmp_path / "s.tar"))


def test_rows_of_boxes_name_files_by_their_paths_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute, name = str(folder / "c" / "a fish.png"), folder.name
    # Beside the collection's folder, and from the working directory.
    assert boxed(box_file(folder.parent, f"{name}/top.png", f"./{name}/b/../b/é鱼.png", absolute), items(folder)) == [
        "b/é鱼.png", "c/a fish.png", "top.png",
    ]  # fmt: skip
    monkeypatch.chdir(folder.parent)
    (tmp_path / "elsewhere").mkdir()
    boxes = box_file(tmp_path / "elsewhere", f"{name}/top.png", "top.png", f"{name}/top.png")
    assert boxed(boxes, items(folder)) == ["top.png"]
    assert sum(len(boxes.of(item)) for item in items(folder)) == 3  # of every way to write it
    # What is the whole name of one picture is not the path of another.
    (folder / "c" / "c").mkdir()
    (folder / "c" / "c" / "a fish.png").write_bytes(png(7))
    assert boxed(box_file(folder / "c", "c/a fish.png"), items(folder)) == ["c/a fish.png"]
    listed = items("-", lines=["c/a fish.png", "./c/a fish.png", absolute], root=str(folder))
    assert len(boxed(box_file(tmp_path, absolute), listed)) == 3
    box_file(tmp_path, absolute).check(open_collection("-", lines=["c/a fish.png", "./c/a fish.png"], root=str(folder)))


def checked(file: BoxFile, collection: Collection) -> list[str]:
    """The pictures that have boxes, as a run of the collection finds them."""
    return boxed(file.check(collection), list(collection.items()))


def test_rows_of_boxes_name_files_by_their_addresses_too(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    path = folder / "c" / "a fish.png"
    given = folder, folder.as_uri()
    for row in (path.as_uri(), f"file://{path}", f"file://localhost{path}", str(path)):
        assert row == str(path) or row.startswith("file://")
        for inputs in given:
            assert checked(box_file(tmp_path, row), open_collection(str(inputs))) == ["c/a fish.png"], (row, inputs)
    (folder / "c" / "100%25.png").write_bytes(png(5))
    assert checked(box_file(tmp_path, f"file://{folder}/c/100%25.png"), open_collection(folder)) == ["c/100%25.png"]
    with pytest.raises(DataError, match="no row"):
        box_file(tmp_path, f"file://{folder}/gone.png").check(open_collection(folder))


@pytest.mark.parametrize("ignored", [False, True])
def test_rows_of_boxes_lead_to_files_through_links(folder: Path, tmp_path: Path, ignored: bool) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder, target_is_directory=True)

    def found(inputs: Path, *names: str) -> list[str]:
        path = box_file(tmp_path, *names).path
        collection = open_collection(inputs)
        file = open_ignored(path).check(collection).boxes if ignored else open_boxes(path).check(collection)
        assert file is not None
        return boxed(file, list(collection.items()))

    for inputs, named in ((link, folder), (folder, link)):
        for row in (f"{named}/c/a fish.png", f"{named.name}/c/a fish.png", f"file://{named}/c/a fish.png"):
            assert found(inputs, row) == ["c/a fish.png"], (inputs, row)
    # Some rows of a picture may lead there and others name it.
    assert found(link, f"{folder}/c/a fish.png", "c/a fish.png", "top.png") == ["c/a fish.png", "top.png"]
    file = box_file(tmp_path, f"{folder}/c/a fish.png", "c/a fish.png").check(open_collection(link))
    assert [len(file.of(item)) for item in items(link) if item.source == "c/a fish.png"] == [2]


def test_links_are_followed_only_where_no_plain_path_matches(folder: Path, tmp_path: Path) -> None:
    (folder / "other.png").symlink_to(folder / "top.png")
    assert checked(box_file(tmp_path, str(folder / "top.png")), open_collection(folder)) == ["top.png"]
    assert box_file(tmp_path, str(folder / "top.png")).check(open_collection(folder)).linked == {}
    # A row that leads to two pictures is refused, like any other that can mean two.
    links = tmp_path / "links"
    links.mkdir()
    for name in ("1.png", "2.png"):
        (links / name).symlink_to(folder / "top.png")
    with pytest.raises(DataError, match=r"top\.png' of .* can mean '1\.png' or '2\.png'"):
        box_file(tmp_path, str(folder / "top.png")).check(open_collection(links))
    with pytest.raises(DataError, match="no row"):  # names that can be no paths
        box_file(tmp_path, f"{folder}/{'x' * 5000}/a.png", "a/b\0c.png").check(open_collection(links))


def test_rows_of_boxes_lead_to_the_files_of_a_parquet_table_of_paths(folder: Path, tmp_path: Path) -> None:
    write_parquet(folder / "paths.parquet", {"path": ["top.png", "c/a fish.png"]})
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert checked(box_file(tmp_path, str(folder / "top.png")), open_collection(tmp_path / "link" / "paths.parquet")) == ["top.png"]


@pytest.mark.parametrize("ignored", [False, True])
def test_rows_of_boxes_that_name_no_picture_are_told(folder: Path, tmp_path: Path, ignored: bool) -> None:
    def check(*names: str) -> None:
        path = box_file(tmp_path, *names).path
        (open_ignored(path) if ignored else open_boxes(path)).check(open_collection(folder))

    option = "--ignore" if ignored else "--boxes"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check("top.png", "b/a fish.png")
        check()
    with pytest.warns(UserWarning, match=rf"{option}: 3 of 4 rows .*such as 'q/top\.png', 'gone\.png'\..*'top\.png'"):
        check("q/top.png", "top.png", "gone.png", "gone.png")
    with pytest.raises(DataError, match=rf"{option}: no row .*boxes\.csv.*'q/top\.png', 'gone\.png'.*called, for example, 'top\.png'"):
        check("q/top.png", "gone.png")


def test_masks_that_are_named_after_no_picture_are_told(folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    (masks / "c").mkdir(parents=True)

    def check(*names: str) -> None:
        for name in names:
            (masks / name).write_bytes(png(0))
        (masks / "notes.txt").write_text("no mask", encoding="utf-8")
        open_ignored(str(masks)).check(open_collection(folder))

    with pytest.raises(DataError, match=r"--ignore: no mask in .*called, for example, .*'b/a fish\.png'"):
        check("a fish.png")
    with pytest.warns(UserWarning, match=r"--ignore: 1 of 3 masks in .* are not used, such as 'a fish\.png'\..*'b/a fish\.png'"):
        check("c/a fish.tif", "top.png.png")
    (masks / "a fish.png").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check("top.png")  # the one that is used, beside 'top.png.png'


@pytest.mark.parametrize("source", [f"{'5' * 300}.jpg", "b\0/c.png"])
def test_names_that_no_file_can_have_have_no_mask(folder: Path, tmp_path: Path, source: str) -> None:
    """One of them in a Parquet table ended the whole run, which had no mask for it and needed none."""
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "top.png").write_bytes(png(0))
    ignored, payload = open_ignored(str(tmp_path / "masks")), next(open_collection(folder).items()).payload
    taken = TakenMasks(ignored)
    for item in (Item(source, payload), Item("top.png", payload)):
        taken.add(item)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        taken.tell()
    assert ignored.mask(Item(source, payload), (8, 8)) is None


def test_masks_behind_a_link_are_told_as_others_are(folder: Path, tmp_path: Path) -> None:
    elsewhere, masks = tmp_path / "elsewhere", tmp_path / "masks"
    for place in (elsewhere, masks):
        place.mkdir()
    (masks / "top.png").write_bytes(png(0))
    (elsewhere / "nobody.png").write_bytes(png(0))
    (masks / "b").symlink_to(elsewhere, target_is_directory=True)
    taken = TakenMasks(open_ignored(str(masks)))
    taken.add(Item("top.png", next(open_collection(folder).items()).payload))
    with pytest.warns(UserWarning, match=r"--ignore: 1 of 2 masks in .* are not used, such as 'b/nobody\.png'"):
        taken.tell()


def test_box_files(tmp_path: Path) -> None:
    path = tmp_path / "boxes.csv"
    path.write_text("file,x,y,width\na.png,1,2,3\n")
    with pytest.raises(DataError, match="height"):
        open_boxes(str(path))
    path.write_text("file,x,y,width,height\nd/a.png,1,2,3,4\nb.png,1,2,-3,4\n")
    with pytest.raises(DataError, match="line 3"):
        open_boxes(str(path))
    with pytest.raises(ConfigurationError, match="neither"):
        open_ignored(str(tmp_path / "nothing"))


def write_parquet(path: Path, columns: dict[str, Any]) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=2)


def test_parquet_with_encoded_bytes(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "a.parquet",
        {"image": [png(0), png(1), None], "species": ["x", None, "z"], "count": [1, 2, 3]},
    )
    found = items(tmp_path / "a.parquet")
    assert [item.source for item in found] == ["a.parquet#0", "a.parquet#1", "a.parquet#2"]
    np.testing.assert_array_equal(pixels(found[1]), picture(1))
    assert found[0].columns == {"species": "x", "count": "1"}
    with pytest.raises(ImageError, match="empty"):
        found[2].payload.read()
    assert open_collection(tmp_path / "a.parquet").count() == 3
    with pytest.raises(DataError, match="image, species, count"):
        open_collection(tmp_path / "a.parquet", columns=Columns("picture"))
    with pytest.raises(DataError, match=r"Name one of these with --px-per-mm\."):
        open_collection(tmp_path / "a.parquet", columns=Columns(px_per_mm="scale"))


def test_parquet_in_the_hugging_face_layout_and_with_paths(folder: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "hf.parquet", {"image": [{"bytes": png(3), "path": "x.png"}], "label": [7]})
    np.testing.assert_array_equal(pixels(items(tmp_path / "hf.parquet")[0]), picture(3))
    write_parquet(tmp_path / "paths.parquet", {"path": ["photos/top.png"], "label": [7]})
    assert items(tmp_path / "paths.parquet")[0].columns == {"label": "7"}
    assert pixels(items(tmp_path / "paths.parquet")[0]).shape == (96, 128, 3)


def test_parquet_rows_of_one_path_are_specimens_as_in_a_csv_table(folder: Path, tmp_path: Path) -> None:
    # The rows of the second picture lie across the end of a batch, which has at most 64 rows.
    paths = ["photos/top.png"] * 63 + ["photos/c/a fish.png"] * 3 + ["photos/b/é鱼.png"]
    boxes = [f"{number} 0 20 20" for number in range(len(paths))]
    table = tmp_path / "trays.csv"
    table.write_text(
        "path,box,id\n" + "".join(f"{path},{box},i{box[:2]}\n" for path, box in zip(paths, boxes)),
        encoding="utf-8",
    )
    columns = Columns(box="box")
    expected = items(table, columns=columns)
    assert [len(item.specimens) for item in expected] == [63, 3, 1]
    write_parquet(tmp_path / "trays.parquet", {"path": paths, "box": boxes, "id": [f"i{box[:2]}" for box in boxes]})
    assert items(tmp_path / "trays.parquet", columns=columns) == expected
    assert open_collection(tmp_path / "trays.parquet", columns=columns).count() == 3
    structs = [{"bytes": None, "path": path} for path in paths]
    write_parquet(tmp_path / "hf.parquet", {"image": structs, "box": boxes})
    found = items(tmp_path / "hf.parquet", columns=columns)
    assert [[specimen.box for specimen in item.specimens] for item in found] == [
        [specimen.box for specimen in item.specimens] for item in expected
    ]


def test_parquet_rows_without_a_path_are_entries_of_their_own(folder: Path, tmp_path: Path) -> None:
    paths = ["photos/top.png", None, None, "", " ", "photos/c/a fish.png"]
    write_parquet(tmp_path / "paths.parquet", {"path": paths})
    found = items(tmp_path / "paths.parquet")
    empty = [f"paths.parquet#{number}" for number in range(1, 5)]
    assert [item.source for item in found] == ["photos/top.png", *empty, "photos/c/a fish.png"]
    for item in found[1:5]:
        with pytest.raises(ImageError, match="'path' is empty"):
            item.payload.read()
    assert open_collection(tmp_path / "paths.parquet").count() == 6
    # Rows that hold the same bytes are pictures of their own.
    write_parquet(tmp_path / "bytes.parquet", {"image": [png(0), png(0)]})
    assert len(items(tmp_path / "bytes.parquet")) == 2


def test_a_parquet_table_of_paths_that_is_damaged_gives_what_it_has(folder: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "paths.parquet"
    paths = ["photos/top.png"] * 64 + ["photos/c/a fish.png"] * 64
    pq.write_table(pa.table({"path": paths}), path, row_group_size=64, compression="gzip", use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    start = column.data_page_offset
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(content))
    found = items(path)
    assert [item.source for item in found] == ["photos/top.png", "paths.parquet#64..."]
    with pytest.raises(ImageError, match="from row 64 on"):
        found[1].payload.read()
    assert open_collection(path).count() == 2


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_parquet_with_any_type_of_text(folder: Path, tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    paths = make_array(pa, ["photos/top.png", "photos/c/a fish.png"], kind)
    write_parquet(tmp_path / "paths.parquet", {"path": paths, "thumbnail": [1, 2]})
    assert [item.source for item in items(tmp_path / "paths.parquet")] == paths.to_pylist()
    assert open_collection(tmp_path / "paths.parquet").count() == 2


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_parquet_with_any_type_of_bytes(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "a.parquet", {"scan": make_array(pa, [png(0), png(1)], kind)})
    found = items(tmp_path / "a.parquet")
    np.testing.assert_array_equal(pixels(found[1]), picture(1))


def make_array(pa: Any, values: list[Any], kind: str) -> Any:
    """An Arrow array of a type that not every pyarrow knows or writes."""
    if not hasattr(pa, kind):
        pytest.skip(f"this pyarrow has no {kind}")
    array = pa.array(values, getattr(pa, kind)())
    try:
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"x": array}), io.BytesIO())
    except (pa.ArrowNotImplementedError, TypeError):
        pytest.skip(f"this pyarrow writes no {kind}")
    return array


def test_parquet_in_the_tree_of_life_layout(tmp_path: Path) -> None:
    bgr = np.ascontiguousarray(picture(2)[:, :, ::-1])
    columns = {
        "uuid": ["u-1", "u-2", "u-3"],
        "source_id": ["1", "2", "3"],
        "identifier": ["https://x.org/1.jpg", "", ""],
        "original_size": [[192, 256], [96, 128], [96, 128]],
        "resized_size": [[96, 128], [96, 128], [95, 128]],
        "image": [bgr.tobytes()] * 3,
    }
    (tmp_path / "server=x").mkdir()
    write_parquet(tmp_path / "server=x" / "data_0.parquet", columns)
    found = items(tmp_path)
    assert [item.source for item in found] == ["u-1", "u-2", "u-3"]
    raw = found[0].payload.read()
    np.testing.assert_array_equal(raw.content, picture(2))
    assert raw.original == (192, 256)
    assert found[1].payload.read().original is None
    assert found[0].media_uri == "https://x.org/1.jpg"
    with pytest.raises(ImageError, match="95 x 128 x 3"):
        found[2].payload.read()


def test_damaged_containers_are_entries_not_the_end(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": [png(0)]})
    write_parquet(tmp_path / "c.parquet", {"picture_of": ["no bytes"]})
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and then nothing")
    found = items(tmp_path)
    assert [item.source for item in found] == ["a.parquet#0", "b.parquet", "c.parquet"]
    with pytest.raises(ImageError, match="damaged"):
        found[1].payload.read()
    with pytest.raises(ImageError, match="picture_of"):
        found[2].payload.read()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(("name", "mode"), [("s-0.tar", "w"), ("s-0.tar.gz", "w:gz")])
def test_webdataset(tmp_path: Path, name: str, mode: str) -> None:
    members = {
        "d/001.png": png(0), "d/001.json": b'{"species": "Esox", "n": 3}', "d/001.txt": b"a pike",
        "d/002.seg.png": png(1), "003.cls": b"7", "003.png": png(2),
    }  # fmt: skip
    write_tar(tmp_path / name, members, mode)
    found = items(tmp_path / name)
    assert [item.source for item in found] == [
        f"{name}/d/001.png",
        f"{name}/d/002.seg.png",
        f"{name}/003.png",
    ]
    assert found[0].columns == {"species": "Esox", "n": "3", "txt": "a pike"}
    assert found[2].columns == {"cls": "7"}
    np.testing.assert_array_equal(pixels(found[2]), picture(2))
    assert find_layout([str(tmp_path)]) == "webdataset"


def test_webdataset_texts_are_valid_unicode(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from concept_cam.collection.schema import table_from_records
    from tests.exports.planted import make_record

    members = {
        "1.png": png(0), "1.json": rb'{"caption": "cut \ud83d", "k\udc00": {"deep": "\ud83d"}, "whole": "\ud83d\ude00", "none": null}',
        "2.png": png(1), "2.json": rb'["\ud83d"]',
    }  # fmt: skip
    write_tar(tmp_path / "s.tar", members)
    first, second = items(tmp_path / "s.tar")
    assert first.columns == {"caption": "cut ?", "k?": '{"deep": "?"}', "whole": "\U0001f600", "none": ""}
    assert second.columns == {"json": '["?"]'}
    record = make_record("s.tar/1.png", (20, 30), "caudal_fin_shape", "shape", "forked")
    record |= {f"input_{name}": text for name, text in first.columns.items()}
    (row,) = table_from_records([record], list(first.columns)).to_pylist()
    assert row["input_caption"] == "cut ?"


def test_a_tar_that_is_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {f"{number}.png": png(number) for number in range(4)})
    content = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(content[: 2 * (512 + 1024) + 700])
    found = items(tmp_path / "s.tar")
    assert 1 <= len(found) - 1 < 4
    assert found[-1].source == "s.tar#damaged"
    with pytest.raises(ImageError, match="cut short"):
        found[-1].payload.read()


def test_urls(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    found = items(folder.as_uri() + "/b/")
    assert [item.source for item in found] == ["a fish.png", "é鱼.png"]
    assert pixels(found[0]).shape == (96, 128, 3)
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/box/1.png", png(1))
    np.testing.assert_array_equal(pixels(items("memory://box")[0]), picture(1))
    write_tar(tmp_path / "s.tar", {"1.png": png(1)})
    memory.pipe("/s.tar", (tmp_path / "s.tar").read_bytes())
    np.testing.assert_array_equal(pixels(items("memory://s.tar")[0]), picture(1))
    write_parquet(tmp_path / "a.parquet", {"image": [png(2)]})
    memory.pipe("/a.parquet", (tmp_path / "a.parquet").read_bytes())
    np.testing.assert_array_equal(pixels(items("memory://a.parquet")[0]), picture(2))
    with pytest.raises(ImageError, match="cannot read"):
        items("-", lines=["memory://box/none.png"])[0].payload.read()
    with pytest.raises(DataError, match="nosuch"):
        open_collection("nosuch://bucket/x")


def test_layouts_are_found_by_name(tmp_path: Path) -> None:
    for name, layout in (
        ("a.csv", "table"),
        ("a.tsv", "table"),
        ("a.parquet", "parquet"),
        ("a.tar", "webdataset"),
        ("a.jpg", "list"),
    ):
        (tmp_path / name).write_bytes(b"x")
        assert find_layout([str(tmp_path / name)]) == layout
        assert layout in LAYOUTS
    with pytest.raises(DataError, match="several kinds"):
        find_layout([str(tmp_path / "a.csv"), str(tmp_path / "a.tar")])
    with pytest.raises(ConfigurationError, match="folder"):
        open_collection(tmp_path, layout="foldr")
    with pytest.raises(DataError, match="no input"):
        open_collection([])


def test_shards_are_disjoint_and_complete() -> None:
    keys = [image_key(f"{number}.jpg") for number in range(500)]
    owners = [[index for index in range(1, 8) if Shard(index, 7).holds(key)] for key in keys]
    assert all(len(owner) == 1 for owner in owners)
    counts = np.bincount([owner[0] for owner in owners], minlength=8)[1:]
    assert counts.min() > 40
    assert parse_shard(" 3/7 ") == Shard(3, 7)
    for text in ("0/3", "4/3", "3", "a/b", "1/0"):
        with pytest.raises(ConfigurationError):
            parse_shard(text)


def test_slurm_arrays() -> None:
    variables = {
        "SLURM_ARRAY_TASK_ID": "14",
        "SLURM_ARRAY_TASK_MIN": "10",
        "SLURM_ARRAY_TASK_COUNT": "5",
        "SLURM_ARRAY_TASK_STEP": "2",
    }
    assert parse_shard("slurm", variables) == Shard(3, 5)
    with pytest.raises(ConfigurationError, match="sbatch --array"):
        parse_shard("slurm", {})
