"""A picture's numbers in a run do not depend on which others are in its batch: a run that was resumed is the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from concept_cam.localizer import Localizer
from tests.backbones.models import BUILDERS, wrap
from tests.methods.models import photograph

SIZES = [(40, 60), (60, 40), (33, 33), (20, 60), (64, 64), (60, 41), (16, 60)]


@pytest.mark.parametrize("kind", ["vit", "resnet", "transformers-siglip", "timm-convnext"])
@pytest.mark.parametrize("resize", ["pad", "squash", "aspect"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_features_do_not_depend_on_company(kind: str, resize: str, dtype: torch.dtype) -> None:
    localizer = Localizer(wrap(kind, BUILDERS[kind]().to(dtype)))
    if resize == "aspect" and not localizer.backbone.preprocess.flexible:
        pytest.skip("this tower reads one size")
    localizer = localizer.with_settings(resize=resize, batch_size=4)
    prepared = [localizer.prepare(photograph(seed, size)) for seed, size in enumerate(SIZES)]
    alone = [localizer.encode_prepared([item], steady=True)[0] for item in prepared]
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 2, 4, 0, 5, 1, 3], [3, 5]):
        together = localizer.encode_prepared([prepared[place] for place in order], steady=True)
        for place, found in zip(order, together):
            assert torch.equal(found.patches, alone[place].patches)
            assert torch.equal(found.image, alone[place].image)


def test_a_resumed_run_has_the_same_records(tmp_path: Path) -> None:
    """The bundled model in bfloat16 at a small size: three pictures together, and one that a resumed run reads alone."""
    from PIL import Image

    from concept_cam.collection.annotation import annotate

    pytest.importorskip("pyarrow", reason="annotation runs need the extra 'annotate'")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(photograph(seed, (48, 64))).save(folder / f"{seed}.png")
    localizer = Localizer.from_pretrained(device="cpu", dtype="bfloat16", size=64, batch_size=8)
    whole = annotate(folder, tmp_path / "whole", "fish:parts", localizer=localizer, workers=0, batch_size=8)
    annotate(folder, tmp_path / "parts", "fish:parts", localizer=localizer, workers=0, batch_size=8, limit=2)
    resumed = annotate(folder, tmp_path / "parts", "fish:parts", localizer=localizer, workers=0, resume=True)
    assert resumed.info["batch_size"] == 8
    names = ("source", "best_state", "probability", "score", "peak_x", "peak_y", "rle_counts")
    first, second = ([tuple(record[name] for name in names) for record in run.records(list(names))] for run in (whole, resumed))
    assert sorted(first, key=repr) == sorted(second, key=repr)
    assert len(first) >= 6
    assert any(value is not None for _, _, _, value, *_ in first)
