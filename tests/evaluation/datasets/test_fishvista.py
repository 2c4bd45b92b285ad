import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.core.errors import DataError
from concept_cam.evaluation import datasets
from tests.evaluation.datasets.test_samples import save

TRAITS = {"0": "Background", "1": "Head", "2": "Eye", "3": "Dorsal fin", "7": "Caudal fin", "9": "Barbel"}
HEADER = "filename,source_filename,family,standardized_species,file_name,adipose_fin,pelvic_fin,barbel,multiple_dorsal_fin\n"


def write(root: Path) -> Path:
    """The published layout in small: three rows, one picture in a chunk, one moved to the flat folder, one missing."""
    numbers = np.zeros((12, 20), dtype=np.uint8)
    numbers[4:8, 2:6], numbers[5, 3], numbers[3:9, 15:18] = 1, 2, 7
    pixels = np.full((12, 20, 3), 255, dtype=np.uint8)
    pixels[3:9, 2:18] = 120
    pixels[6, 10] = 255
    rows = []
    for name, place in (
        ("10031_Gramma_loreto_HT.jpg", "Images/chunk_2"),
        ("100096-p#0.jpg", "Images"),
        ("gone.jpg", None),
    ):
        if place:
            save(root / place / name, pixels)
            (root / place / name).unlink()
            Image.fromarray(pixels).save(root / place / name, quality=95)
        mask = Image.fromarray(numbers)
        (root / "segmentation_masks" / "images").mkdir(parents=True, exist_ok=True)
        mask.save(root / "segmentation_masks" / "images" / f"{Path(name).stem}.png")
        rows.append(f"{name},x.jpg,Grammatidae,Gramma loreto,segmentation_masks/images/{Path(name).stem}.png,0,1.0,-1,0\n")
    (root / "segmentation_test.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    (root / "segmentation_masks" / "seg_id_trait_map.json").write_text(json.dumps(TRAITS), encoding="utf-8")
    return root


def test_the_published_layout(tmp_path: Path) -> None:
    data = datasets.load(f"fishvista:{write(tmp_path)}")
    assert len(data) == 2
    assert data.facts["missing_pictures"] == 1
    samples = list(data)
    assert [sample.name for sample in samples] == ["10031_Gramma_loreto_HT.jpg", "100096-p#0.jpg"]
    found = {(question.kind, question.trait): question for question in samples[0].questions}
    assert set(found) == {
        ("part", "Head"),
        ("part", "Eye"),
        ("part", "Caudal fin"),
        ("presence", "adipose_fin"),
        ("presence", "pelvic_fin"),
    }
    tail = found["part", "Caudal fin"]
    assert "a fish's tail fin" in tail.concept.target
    assert tail.mask().sum() == 6 * 3
    host = tail.host()
    assert host[6, 10]
    assert not host[0, 0]
    assert host[3:9, 2:18].all()
    assert not found["presence", "adipose_fin"].present
    assert found["presence", "pelvic_fin"].present


def test_what_is_not_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="seg_id_trait_map"):
        datasets.load(f"fishvista:{tmp_path}")
    write(tmp_path)
    with pytest.raises(DataError, match=r"segmentation_train\.csv"):
        datasets.load(f"fishvista:{tmp_path}", split="train")
    for path in (tmp_path / "Images").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="none of the 3 pictures"):
        datasets.load(f"fishvista:{tmp_path}")
