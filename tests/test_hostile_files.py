"""Whatever a file of the user holds, reading it ends in what it means or in one error of ours; see ``examples/campaigns``.

:data:`READERS` names every reader of user files with a good file; each is damaged from seeds. The default run takes under a minute; ``-m
slow`` many more.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaigns.mutations import mutated
from PIL import Image

from concept_cam.core.errors import ConceptCamError
from concept_cam.core.regions import encode_rle

pytest.importorskip("pyarrow", reason="annotation runs are Parquet data sets")

from concept_cam.exports.labelstudio import encode_brush

SECONDS = 4.0
"""Per reader, by default."""


@dataclass(frozen=True)
class Reader:
    """A reader of user files.

    Attributes:
        file: Name of the file that is damaged.
        good: Makes the files of a folder in which it works.
        read: Reads them.
    """

    file: str
    good: Callable[[Path], None]
    read: Callable[[Path], Any]


def image_bytes(form: str, seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, form)
    return buffer.getvalue()


def put(name: str, content: bytes | str) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content

    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return write


def both(*makers: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: [maker(folder) for maker in makers] and None


def drain(path: Path, **options: Any) -> None:
    from concept_cam.collection.inputs import Columns, open_collection
    from concept_cam.pictures.reading import read_image

    columns = Columns(**options)
    collection = open_collection(path, columns=columns)
    for item in collection.items():
        try:
            read_image(item.payload.read().content, max_pixels=1_000_000)
        except ConceptCamError:
            continue


def tar(folder: Path) -> None:
    members = {
        "a.png": image_bytes("PNG"),
        "a.json": b'{"species": "Esox", "box": "1 2 3 4"}',
        "b.c.png": image_bytes("PNG", 1),
        "b.c.txt": b"a pike",
    }
    with tarfile.open(folder / "s.tar", "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    raw = np.zeros((4, 5, 3), np.uint8).tobytes()
    table = pa.table(
        {
            "image": [raw] * 6,
            "resized_size": [[4, 5]] * 6,
            "original_size": [[8, 10]] * 6,
            "uuid": list("abcdef"),
            "kind": pa.array(["x"] * 6).dictionary_encode(),
        }
    )
    pq.write_table(table, folder / "p.parquet", row_group_size=3)


def run_folder(folder: Path) -> None:
    import pyarrow.parquet as pq

    from concept_cam.collection.schema import RUN_SCHEMA_VERSION, table_from_records
    from tests.exports.planted import make_record

    (folder / "run" / "parts").mkdir(parents=True, exist_ok=True)
    record = make_record("a.png", (20, 30), "caudal_fin_shape", "shape", "forked")
    pq.write_table(table_from_records([record]), folder / "run" / "parts" / "part-000001.parquet")
    info = {
        "schema_version": RUN_SCHEMA_VERSION,
        "model": "m",
        "input": {"root": "/x"},
        "configuration": {"shard": "1/1"},
        "counts": {"pictures": 1, "records": 1},
        "finished": "2026",
        "started": "2026",
    }
    (folder / "run" / "run.json").write_text(json.dumps(info))
    (folder / "run" / "errors.csv").write_text('source,path,reason\nb.png,/x/b.png,"it is, well, damaged"\n')


def read_whole_run(folder: Path) -> None:
    from concept_cam.collection.runs import read_run, read_run_info
    from concept_cam.exports import EXPORTS, export

    run = read_run(folder / "run")
    read_run_info(folder / "run")
    run.errors()
    for record in run.records():
        run.picture_path(record)
    list(run.pictures())
    for name in ("csv", "coco", "cvat", "darwin-core"):
        if name in EXPORTS:
            export(folder / "run", name, folder / f"out-{name}{EXPORTS[name].suffix}", overwrite=True)


def merge(folder: Path) -> None:
    import shutil

    from concept_cam.collection.merging import merge_runs

    shutil.rmtree(folder / "merged", ignore_errors=True)
    merge_runs([folder / "run"], folder / "merged")


TAIL = np.zeros((24, 32), dtype=bool)
TAIL[3:9, 4:20] = True
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 32}],
    "categories": [{"id": 1, "name": "tail", "supercategory": "fish"}, {"id": 2, "name": "fish", "supercategory": "fish"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 10, 1, 10, 10]], "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [24, 32], "counts": [100, 200, 468]}, "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [24, 32], "counts": encode_rle(TAIL)["counts"]}, "iscrowd": 0},
    ],
}
MANIFEST = [
    {"image": "images/a.png", "mask": "masks/a.png", "key": "tail", "query": "a tail", "contrast": ["a head"], "nested_in": ["fish"]}
]


def dataset(spec: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from concept_cam.evaluation import datasets
        from concept_cam.pictures.reading import read_image

        name, path = spec.split(":")
        for sample in datasets.load(f"{name}:{folder / path}" if path else f"{name}:{folder}"):
            read_image(sample.image)
            for question in sample.questions:
                for loader in (question.mask, question.host):
                    if loader is not None:
                        loader()

    return read


def manifest_mask(folder: Path) -> None:
    (folder / "masks").mkdir(exist_ok=True)
    Image.new("L", (32, 24), 255).save(folder / "masks/a.png")


def picture(name: str) -> Callable[[Path], None]:
    return put(name, image_bytes("PNG"))


LABELSTUDIO = [
    {
        "id": 1,
        "data": {"source": "a.png", "image": "x"},
        "annotations": [
            {
                "was_cancelled": False,
                "updated_at": "2026-01-01",
                "result": [
                    {"id": "specimen-0", "type": "rectanglelabels", "from_name": "box", "original_width": 32, "original_height": 24,
                    "value": {"x": 1, "y": 2, "width": 50, "height": 60, "rotation": 0, "rectanglelabels": ["specimen"]}},
                    {"id": "specimen-0", "type": "choices", "from_name": "caudal_fin_shape", "value": {"choices": ["forked"]}},
                    {"id": "drawn", "type": "brushlabels", "from_name": "mask", "original_width": 32, "original_height": 24,
                    "value": {"format": "rle", "rle": encode_brush(TAIL), "brushlabels": ["parts: tail"]}},
                ],
            }
        ],
    }
]  # fmt: skip
CVAT = (
    '<?xml version="1.0"?>\n<annotations><version>1.1</version><image id="0" name="a.png" width="32" height="24">'
    '<mask label="caudal_fin_shape" rle="1, 2, 1" left="0" top="0" width="2" height="2"><attribute name="state">forked</attribute>'
    '<attribute name="specimen">0</attribute></mask><tag label="parts: head"><attribute '
    'name="state">head</attribute></tag></image></annotations>'
)


def calibration(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from concept_cam.evaluation.calibration import read_truth

        read_truth(folder / name)

    return read


def calls(folder: Path) -> None:
    from concept_cam.evaluation.calibration import read_calls

    read_calls(folder / "calls.csv")


LIMITS = (
    "schema: 1\ntarget: 0.9\nconfidence: 0.8\nmodel: demo\nlimits:\n  fish/tail: {measure: probability, value: 0.5, labelled: 20, "
    "kept: 10, accuracy: 0.9, low: 0.8, expected_accuracy: null, expected_kept: 0.4, pooled: false}\n"
)
PACK = """schema: 1
pack: mine
host: fish
templates: ["{}"]
characters:
  tail:
    kind: shape
    entity: {label: tail, id: "UBERON:0000033", nouns: [tail fin]}
    states:
      forked: {phrases: [a forked tail fin], quality: {label: forked, id: "PATO:0000322", match: exact}}
      round: {phrases: [a rounded tail fin]}
"""
CONFIG = "model: demo\ngamma: 0.8\nsize: 384\ntemplates: ['a photo of {}']\nresize: pad\nbatch_size: 4\n"


MASKS_CVAT = (
    '<annotations><version>1.1</version><image id="0" name="a.png" width="32" height="24">'
    '<mask label="head" rle="0, 5, 3, 4" left="2" top="3" width="4" height="3" z_order="0">'
    '<attribute name="reviewed">true</attribute></mask>'
    '<polygon label="tail" points="3,4;20,4;12,18"><attribute name="reviewed">true</attribute></polygon></image></annotations>'
)


def masks_labelstudio() -> str:
    mask = np.zeros((24, 32), bool)
    mask[3:9, 4:20] = True
    shared = {"original_width": 32, "original_height": 24, "image_rotation": 0}
    brush = {**shared, "type": "brushlabels", "value": {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["head"]}}
    outline = {**shared, "type": "polygonlabels", "value": {"points": [[10, 10], [80, 10], [40, 70]], "polygonlabels": ["tail"]}}
    task = {"data": {"source": "a.png"}, "annotations": [{"updated_at": "2026", "result": [brush, outline]}]}
    return json.dumps([task])


def trust_file(folder: Path) -> None:
    from concept_cam.trust.conformal import Conformal
    from concept_cam.trust.fitting import fit_rules
    from concept_cam.trust.kept import Trust
    from tests.trust.test_rules import planted

    limits = Conformal(0.1, {"fin": 0.6, "head": float("inf")}, {"fin": 0.1}, 0.5, {"shape": 0.2}, {"fin": 20}, {"size": 384})
    Trust(fit_rules(planted(200), hosts=("fish",)), (limits,)).save(folder / "trust.json", overwrite=True)


def trust(folder: Path) -> None:
    from concept_cam.trust.kept import Trust
    from tests.trust.test_rules import GOOD, PART

    read = Trust.read(folder / "trust.json")
    read.check({"size": 384})
    if read.rules is not None:
        from concept_cam.trust.rules import judge

        judge(GOOD, PART, read.rules)
    for guarantee in read.guarantees:
        guarantee.inner_mask("fin", np.eye(8, dtype=np.float32))
        guarantee.outer_mask("fin", np.eye(8, dtype=np.float32))
        guarantee.state_set("shape", {"forked": 0.6, "round": 0.4})


def limits(folder: Path) -> None:
    from concept_cam.collection.limits import read_limits

    read_limits(folder / "limits.yaml")


def config(folder: Path) -> None:
    from concept_cam.core.settings import Settings, read_config

    values = read_config(folder / "config.yaml")
    names = vars(Settings()).keys()
    Settings().with_values(**{name: value for name, value in values.items() if name in names})


def pack(folder: Path) -> None:
    from concept_cam.prompts import load_pack

    load_pack(str(folder / "pack.yaml"))


def head_file(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import torch

        from concept_cam.methods.heads import ClassifierHead

        head = ClassifierHead.from_matrix(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
        if name.endswith(".safetensors"):
            head.save(folder / name, overwrite=True)
        else:
            torch.save({"weight": head.weight, "bias": head.bias}, folder / name)

    return write


def head(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from concept_cam.methods.heads import ClassifierHead

        ClassifierHead.load(folder / name)

    return read


def explainer_file(folder: Path) -> None:
    import torch

    from concept_cam.core.files import write_tensors
    from concept_cam.methods.lcam import EXPLAINER_KINDS, TENSORS

    facts = {"explainer": "lcam", "kind": next(iter(EXPLAINER_KINDS)), "classes": ["a", "b"], "weights_hash": "x", "facts": {}}
    write_tensors(
        folder / "e.safetensors",
        {name: torch.ones({"matrix": (8, 2), "query": (2,), "bias": (1,)}.get(name, (8,))) for name in TENSORS},
        facts,
        overwrite=True,
    )


def explainer(folder: Path) -> None:
    from concept_cam.methods.lcam import Explainer

    Explainer.load(folder / "e.safetensors")


def a_mask(folder: Path) -> None:
    from concept_cam.evaluation.datasets.samples import read_target_mask as read

    read(folder / "m.png")


def a_mask_file(folder: Path) -> None:
    Image.fromarray((np.arange(600).reshape(20, 30) % 2).astype(np.uint16)).save(folder / "m.png")


def boxes(folder: Path) -> None:
    from concept_cam.collection.inputs.specimens import open_boxes

    open_boxes(str(folder / "boxes.csv"))


def image(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        from concept_cam.pictures.reading import read_image

        read_image(folder / name, max_pixels=1_000_000)

    return read


TABLE = 'occurrenceID,file,box,scale\no1,a.png,"1 2 3 4",11.8\no2,a.png,"[[1,2,3,4],[2,2,3,3]]",\no3,b.png,"{""x"": 1}",5\n'
LABELS = "file_name,character,true_state,specimen,pack\na.png,tail,forked,0,fish\nb.png,tail,rounded,1,\n"

READERS: dict[str, Reader] = {
    **{f"picture {form}": Reader(f"x.{form.lower()}", put(f"x.{form.lower()}", image_bytes(form)),
    image(f"x.{form.lower()}")) for form in ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "TGA")},
    "mask": Reader("m.png", a_mask_file, a_mask),
    "table csv": Reader("t.csv", both(picture("a.png"), put("t.csv", TABLE)),
    lambda folder: drain(folder / "t.csv", box="box", px_per_mm="scale")),
    "table tsv": Reader("t.tsv", both(picture("a.png"), put("t.tsv", TABLE.replace(",", "\t"))), lambda folder: drain(folder / "t.tsv")),
    "list": Reader("l.txt", both(picture("a.png"), put("l.txt", "a.png\nb.png\n")), lambda folder: drain(folder / "l.txt")),
    "tar": Reader("s.tar", tar, lambda folder: drain(folder / "s.tar")),
    "parquet": Reader("p.parquet", parquet, lambda folder: drain(folder / "p.parquet")),
    "boxes": Reader("boxes.csv", put("boxes.csv", "file,x,y,width,height,id\na.png,1,2,30,40,x\n"), boxes),
    "run.json": Reader("run/run.json", run_folder, read_whole_run),
    "errors.csv": Reader("run/errors.csv", run_folder, read_whole_run),
    "part": Reader("run/parts/part-000001.parquet", run_folder, read_whole_run),
    "merge": Reader("run/run.json", run_folder, merge),
    "coco": Reader("k.json", both(picture("images/a.png"), put("k.json", json.dumps(COCO))), dataset("coco:k.json")),
    "masks cvat": Reader("m.xml", both(picture("a.png"), put("m.xml", MASKS_CVAT)), dataset("cvat:m.xml")),
    "masks label studio": Reader("m.json", both(picture("a.png"), put("m.json", masks_labelstudio())), dataset("labelstudio:m.json")),
    "trust": Reader("trust.json", trust_file, trust),
    "manifest": Reader("manifest.json", both(picture("images/a.png"), manifest_mask, put("manifest.json", json.dumps(MANIFEST))),
    dataset("folder:")),
    "labels csv": Reader("l.csv", put("l.csv", LABELS), calibration("l.csv")),
    "labels cvat": Reader("l.xml", put("l.xml", CVAT), calibration("l.xml")),
    "labels label studio": Reader("l.json", put("l.json", json.dumps(LABELSTUDIO)), calibration("l.json")),
    "calls": Reader("calls.csv", put("calls.csv", "file_name,character,state,probability,score,specimen\na.png,tail,forked,0.9,0.1,0\n"),
    calls),
    "limits": Reader("limits.yaml", put("limits.yaml", LIMITS), limits),
    "configuration": Reader("config.yaml", put("config.yaml", CONFIG), config),
    "pack": Reader("pack.yaml", put("pack.yaml", PACK), pack),
    "head": Reader("h.safetensors", head_file("h.safetensors"), head("h.safetensors")),
    "head of torch": Reader("h.pth", head_file("h.pth"), head("h.pth")),
    "explainer": Reader("e.safetensors", explainer_file, explainer),
}  # fmt: skip
"""Every reader of user files."""


def outcomes(reader: Reader, folder: Path, seeds: Iterator[int], seconds: float) -> dict[str, list[str]]:
    """Reads damaged files until the time is over; anything but a value or one of our errors is listed under "other"."""
    reader.good(folder)
    path = folder / reader.file
    good = path.read_bytes()
    found: dict[str, list[str]] = {"right": [], "error": [], "other": []}
    end = time.monotonic() + seconds
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in seeds:
            if time.monotonic() > end:
                break
            path.write_bytes(mutated(good, seed))
            try:
                reader.read(folder)
                found["right"].append(str(seed))
            except ConceptCamError as error:
                found["error"].append(str(error))
            except Exception as error:
                found["other"].append(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
    path.write_bytes(good)
    return found


@pytest.mark.parametrize("name", READERS)
def test_good_files_are_read(tmp_path: Path, name: str) -> None:
    reader = READERS[name]
    reader.good(tmp_path)
    reader.read(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    found = outcomes(READERS[name], tmp_path, iter(range(60)), SECONDS)
    assert not found["other"], "\n".join(found["other"][:10])
    assert found["error"] or found["right"]


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    found = outcomes(READERS[name], tmp_path, iter(range(1000, 3000)), 60.0)
    assert not found["other"], "\n".join(found["other"][:10])
