"""One bad entry costs itself: whatever it holds, wherever it fails, the others are done and the run says why."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

import pyarrow as pa
import pyarrow.parquet as pq

from concept_cam.collection import records
from concept_cam.collection.annotation import annotate
from concept_cam.collection.engines import annotator
from concept_cam.collection.inputs import Columns, files, open_collection
from concept_cam.collection.inputs.items import File
from concept_cam.collection.run_writer import errors_text
from concept_cam.collection.runs import Run, read_errors
from concept_cam.core.errors import LONGEST_REASON, DataError, ImageError, reason_of
from concept_cam.localizer import Localizer
from concept_cam.pictures.reading import read_image
from tests.colour_world import PACK, write_pictures
from tests.planted import PlantedBackbone


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PlantedBackbone(64, 8))


def run(inputs: Any, output: Path, localizer: Localizer, **options: Any) -> Run:
    return annotate(inputs, output, PACK, localizer=localizer, workers=0, **options)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RecursionError("deep"), OSError(5, "Input/output error"), KeyError("x"), OverflowError("big"), ZeroDivisionError()],
)
def test_whatever_a_stage_raises_is_its_pictures_own(
    tmp_path: Path, localizer: Localizer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    good, _ = write_pictures(tmp_path / "in", 4)
    read, measured = File.read, records.records_of_all

    def failing_read(self: File, *arguments: Any) -> Any:
        if self.path.endswith(good[1]):
            raise error
        return read(self, *arguments)

    def failing_measure(scored: Any, plan: Any) -> Any:
        if good[2] in [one.item.source for one in scored]:
            raise error
        return measured(scored, plan)

    monkeypatch.setattr(File, "read", failing_read)
    monkeypatch.setattr(annotator, "records_of_all", failing_measure)
    found = run(tmp_path / "in", tmp_path / "run", localizer)
    assert {record["source"] for record in found.records()} == {good[0], good[3]}
    assert [row["source"] for row in found.errors()] == [good[1], good[2]]
    assert run(tmp_path / "in", tmp_path / "run", localizer, resume=True).info["counts"]["errors"] == 2


def test_reasons_are_one_bounded_line_and_lists_of_errors_stay_readable(tmp_path: Path) -> None:
    long = "line\n" * 100_000
    assert len(reason_of(ValueError(long))) <= LONGEST_REASON
    assert "\n" not in reason_of(ImageError(long))
    source = "x" * 200_000 + ".png"
    (tmp_path / "errors.csv").write_text(
        errors_text([{"source": source, "path": "", "reason": long}, {"source": "b", "path": "", "reason": 'a "q", b'}])
    )
    first, second = read_errors(tmp_path)
    assert first["source"] == source
    assert len(first["reason"]) <= LONGEST_REASON
    assert second["reason"] == 'a "q", b'


def test_one_bad_row_of_parquet_is_one_entry(tmp_path: Path) -> None:
    raw = np.zeros((4, 5, 3), np.uint8).tobytes()
    sizes = [[4, 5], [], [4, None], [4, 5, 6], None, [-4, 5], [2**62, 2**62], [4, 5]]
    table = pa.table({"image": [raw] * len(sizes), "resized_size": pa.array(sizes, pa.list_(pa.int64()))})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=3)
    found = list(open_collection(tmp_path / "p.parquet").items())
    assert [item.source for item in found] == [f"p.parquet#{row}" for row in range(len(sizes))]
    outcomes = []
    for item in found:
        try:
            outcomes.append(item.payload.read().original or True)
        except ImageError:
            outcomes.append(False)
    assert outcomes == [True, False, False, False, False, False, False, True]
    # Text that is no UTF-8, and a category for a path.
    odd = pa.array([b"a.png", b"\xff\xfe", b"b.png"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"path": odd}), tmp_path / "odd.parquet")
    found = list(open_collection(tmp_path / "odd.parquet").items())
    assert [item.source for item in found] == ["a.png", "odd.parquet#1...", "b.png"]
    pq.write_table(pa.table({"path": pa.array(["a.png", "b.png"]).dictionary_encode(), "n": [1, 2]}), tmp_path / "cat.parquet")
    assert [item.source for item in open_collection(tmp_path / "cat.parquet").items()] == ["a.png", "b.png"]


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(
        pa.table({"path": [f"{number}.png" for number in range(30)]}), path, row_group_size=10, compression="gzip", use_dictionary=False
    )
    column = pq.read_metadata(path).row_group(1).column(0)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(content))
    found = [item.source for item in open_collection(path).items()]
    assert found == [f"{number}.png" for number in range(10)] + ["p.parquet#10..."] + [f"{number}.png" for number in range(20, 30)]


@pytest.mark.parametrize("kind", ["folder", "glob", "parquet", "webdataset"])
def test_folders_that_cannot_be_read_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    suffix = {"parquet": ".parquet", "webdataset": ".tar"}.get(kind, ".png")
    for name in ("a", "locked", "z"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / f"x{suffix}").write_bytes(b"")
    scan = os.scandir

    def locked(path: Any = ".") -> Any:
        if os.path.basename(str(path)) == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    inputs = str(tmp_path / "in" / "**" / "*.png") if kind == "glob" else str(tmp_path / "in")
    found = {item.source: item for item in open_collection(inputs, layout=kind).items()}
    assert "locked/#unreadable" in found
    assert sum(source.startswith(("a/", "z/")) for source in found) == 2
    with pytest.raises(ImageError, match="Permission denied"):
        found["locked/#unreadable"].payload.read()


def test_an_input_that_ends_before_its_end_is_one_error(tmp_path: Path, localizer: Localizer, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "in", 3)
    walk = files.walk

    def broken(*arguments: Any) -> Iterator[str]:
        yield next(walk(*arguments))
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(files, "walk", broken)
    with pytest.raises(DataError, match=r"first 1 entries.*disk is gone"):
        run(tmp_path / "in", tmp_path / "run", localizer)
    monkeypatch.undo()
    assert run(tmp_path / "in", tmp_path / "run", localizer, resume=True).info["counts"]["pictures"] == 3


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (
        tmp_path / "pipe.png",
        Path("/dev/zero"),
        Path("/dev/full"),
        Path("/proc/self/mem"),
        Path("/proc/kmsg"),
        Path("/proc/kcore"),
        tmp_path,
    ):
        if path.exists():
            with pytest.raises(ImageError):
                read_image(path)
            with pytest.raises(ImageError):
                File(str(path)).read()


def test_bytes_are_bounded_for_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.pictures import limits

    monkeypatch.setattr(limits, "_SPARE_BYTES", 100)
    path = tmp_path / "long.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(2_000))
    with path.open("rb") as stream:
        for source in (path, path.read_bytes(), stream):
            with pytest.raises(ImageError, match="bytes, more than the limit of 900"):
                read_image(source, max_pixels=100)
    with pytest.raises(ImageError, match="limit of 900"):
        File(str(path)).read(limits.byte_limit(100))


@pytest.mark.parametrize("form", ["TIFF", "GIF", "WEBP", "PNG", "JPEG", "MPO"])
def test_every_format_obeys_the_limit_of_pixels_and_only_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    path = tmp_path / "x"
    options: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", (40, 50))]} if form == "MPO" else {}
    Image.new("RGB", (40, 50)).save(path, form, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own, which must neither apply nor change
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).size == (50, 40)
        with pytest.raises(ImageError, match="more than the limit of 1,999"):
            read_image(path, max_pixels=1_999)
        with pytest.raises(Image.DecompressionBombError):
            Image.open(path)


def test_boxes_in_shares_are_refused_and_boxes_past_the_edge_are_said(tmp_path: Path, localizer: Localizer) -> None:
    from concept_cam.collection.inputs.specimens import open_boxes, parse_boxes

    for text in ("0.1 0.2 0.5 0.4", "0 0 1 1", "[0.25, 0.5, 0.25, 0.5]"):
        with pytest.raises(ImageError, match="shares of the picture"):
            parse_boxes(text)
    (tmp_path / "shares.csv").write_text("file,x,y,width,height\na.png,0.1,0.1,0.5,0.5\n")
    with pytest.raises(DataError, match=r"line 2.*shares of the picture"):
        open_boxes(str(tmp_path / "shares.csv"))
    good, _ = write_pictures(tmp_path / "in", 2)
    rows = f'file,box\n{good[0]},"100 60 500 500"\n{good[1]},"0.4 0.2 127.9 96.5"\n'
    (tmp_path / "in" / "t.csv").write_text(rows, encoding="utf-8")
    found = run(tmp_path / "in" / "t.csv", tmp_path / "run", localizer, box_column="box")
    assert {record["source"] for record in found.records()} == set(good)
    (error,) = found.errors()
    assert error["source"] == good[0]
    assert "past the edge" in error["reason"]
    again = run(tmp_path / "in" / "t.csv", tmp_path / "run", localizer, box_column="box", resume=True)
    assert again.count == found.count
    assert len(again.errors()) == 1


@pytest.mark.parametrize("column", ["path", "image", "file_name", "associatedMedia"])
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_cell_names_several_pictures_between_bars(tmp_path: Path, column: str, ending: str) -> None:
    (tmp_path / "ph").mkdir()
    for name in ("A.jpg", "B.jpg", "a | b.jpg", "A|B.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "ph" / name)

    def sources(cell: str) -> list[str]:
        if ending == "csv":
            (tmp_path / "t.csv").write_text(f"{column},sex\n{cell},f\n", encoding="utf-8")
        else:
            pq.write_table(pa.table({column: [cell], "sex": ["f"]}), tmp_path / "t.parquet")
        found = list(open_collection(tmp_path / f"t.{ending}").items())
        assert all(item.columns == {"sex": "f"} for item in found)
        return [item.source for item in found]

    assert sources("ph/A.jpg | ph/B.jpg |  ph/A.jpg") == ["ph/A.jpg", "ph/B.jpg"]
    assert sources("https://x.org/1.jpg | ph/B.jpg") == ["https://x.org/1.jpg", "ph/B.jpg"]
    # What a file is called is that file.
    assert sources("ph/a | b.jpg") == ["ph/a | b.jpg"]
    assert sources("ph/A|B.jpg") == ["ph/A|B.jpg"]
    assert sources("https://x.org/iiif/1|2/full.jpg") == (
        ["https://x.org/iiif/1", "2/full.jpg"] if column == "associatedMedia" else ["https://x.org/iiif/1|2/full.jpg"]
    )


def test_columns_of_exports_that_people_have(tmp_path: Path) -> None:
    def sources(header: str, row: str, name: str = "t.csv", columns: Columns | None = None) -> list[tuple[str, str | None]]:
        (tmp_path / name).write_text(f"{header}\n{row}\n", encoding="utf-8")
        return [(item.source, item.media_uri) for item in open_collection(tmp_path / name, columns=columns).items()]

    page, shot = "https://x.org/observations/1", "https://x.org/photos/1.jpg"
    assert sources("id,url,image_url", f"1,{page},{shot}") == [(shot, shot)]
    assert sources("id\tac:accessURI\tac:furtherInformationURL", f"1\t{shot}\t{page}", "t.tsv") == [(shot, shot)]
    assert sources("occurrenceID,dwc:associatedMedia", f"1,{shot} | {shot}2|{shot}3") == [
        (shot, shot),
        (f"{shot}2", f"{shot}2"),
        (f"{shot}3", f"{shot}3"),
    ]
    assert sources("File Name;Accession;URL", f"a.jpg;1;{page}") == [("a.jpg", page)]
    assert sources("gbifID\tidentifier\treferences", f"1\t{shot}\t{page}", "multimedia.txt") == [(shot, shot)]


def test_links_to_folders_elsewhere_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "elsewhere"
    for folder in (inside / "a", outside / "deep"):
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "x.png")
    Image.new("RGB", (4, 4)).save(outside / "y.png")
    (inside / "link").symlink_to(outside)
    (inside / "again").symlink_to(outside / "deep")
    (inside / "itself").symlink_to(inside)
    (inside / "around").symlink_to(tmp_path)
    (outside / "circle").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    (inside / "gone").symlink_to(tmp_path / "nowhere")
    found = [item.source for item in open_collection(inside).items()]
    # What stands behind two links is there under both names; nothing else is twice, and nothing is missing.
    assert found == ["a/x.png", "again/x.png", "link/y.png", "link/deep/x.png"]
