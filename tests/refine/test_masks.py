"""Segmenters of the SAM family on the true architectures, smallest sizes and random weights; the vote restated slowly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.errors import ModelError
from concept_cam.core.geometry import Geometry
from concept_cam.refine import load_refiner, refined_maps
from concept_cam.refine.masks import Proposal, ProposedMasks, vote
from concept_cam.refine.scene import Scene

SIDE = 64
"""Side of the small segmenters' input."""


def sam(library: Any) -> tuple[Any, Any]:
    vision = library.SamVisionConfig(
        hidden_size=24, output_channels=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8, window_size=4,
        global_attn_indexes=[1], num_pos_feats=8, mlp_dim=32,
    )  # fmt: skip
    prompt = library.SamPromptEncoderConfig(hidden_size=16, image_size=SIDE, patch_size=8, mask_input_channels=8)
    decoder = library.SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_depth=2, iou_head_hidden_dim=16
    )
    parts = {"vision_config": vision.to_dict(), "prompt_encoder_config": prompt.to_dict(), "mask_decoder_config": decoder.to_dict()}
    images = library.SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    return library.SamModel(library.SamConfig(**parts)), library.SamProcessor(images)


def _later(library: Any, name: str, vision: Any) -> tuple[Any, Any]:
    prompt = getattr(library, f"{name}PromptEncoderConfig")(hidden_size=32, image_size=SIDE, patch_size=16, mask_input_channels=8)
    decoder = getattr(library, f"{name}MaskDecoderConfig")(
        hidden_size=32, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_depth=2, iou_head_hidden_dim=16
    )
    config = getattr(library, f"{name}Config")(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    images = library.Sam2ImageProcessor(size={"height": SIDE, "width": SIDE}, mask_size={"height": SIDE // 4, "width": SIDE // 4})
    return getattr(library, f"{name}Model")(config), library.Sam2Processor(images)


def sam2(library: Any) -> tuple[Any, Any]:
    backbone = library.Sam2HieraDetConfig(
        hidden_size=8, num_attention_heads=1, image_size=[SIDE, SIDE], window_positional_embedding_background_size=[2, 2],
        blocks_per_stage=[1, 1, 2, 1], embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[4, 4, 2, 2], global_attention_blocks=[3],
    )  # fmt: skip
    vision = library.Sam2VisionConfig(
        backbone_config=backbone.to_dict(), backbone_channel_list=[64, 32, 16, 8], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )  # fmt: skip
    return _later(library, "Sam2", vision)


def edgetam(library: Any) -> tuple[Any, Any]:
    trunk = library.TimmWrapperConfig(
        architecture="repvit_m0_9", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    vision = library.EdgeTamVisionConfig(
        backbone_config=trunk.to_dict(), backbone_channel_list=[384, 192, 96, 48], backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )  # fmt: skip
    return _later(library, "EdgeTam", vision)


MAKERS = {"sam": sam, "sam2": sam2, "edgetam": edgetam}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = import_transformers()
    if not hasattr(library, {"sam": "SamModel", "sam2": "Sam2Model", "edgetam": "EdgeTamModel"}[request.param]):
        pytest.skip(f"this transformers {library.__version__} has no {request.param}")
    torch.manual_seed(0)
    model, processor = MAKERS[request.param](library)
    where = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(where)
    processor.save_pretrained(where)
    return where


def picture(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(48, 64), (65, 31)])
def test_a_segmenter_proposes_masks_of_the_pictures_own_size(folder: Path, size: tuple[int, int]) -> None:
    found = ProposedMasks(str(folder), points=4, least_iou=-10, least_stability=0).propose(picture(size))
    assert found.masks.dtype == torch.bool
    assert found.masks.shape[1:] == size
    assert 0 < len(found.masks) <= 4 * 4 * 3
    assert found.quality.shape == (len(found.masks),)
    # No two are nearly the same.
    flat = found.masks.flatten(1).float()
    common = flat @ flat.T
    sizes = flat.sum(1)
    overlap = common / (sizes[:, None] + sizes[None] - common)
    overlap.fill_diagonal_(0)
    assert float(overlap.max()) <= 0.9


def test_masks_are_the_models_own(folder: Path) -> None:
    """One point, asked of the library itself, whole and not by way of kept embeddings."""
    from transformers import AutoModelForMaskGeneration, AutoProcessor

    image = picture((48, 64))
    model, processor = AutoModelForMaskGeneration.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    inputs = processor(images=[image], input_points=[[[[32.0, 24.0]]]], return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs)
    sizes = [inputs[name] for name in ("original_sizes", "reshaped_input_sizes") if name in inputs]
    expected = processor.post_process_masks(output.pred_masks, *sizes)[0][0]
    found = ProposedMasks(str(folder), points=1, least_iou=-10, least_stability=0).propose(image)
    order = output.iou_scores.flatten().argsort(descending=True)
    best = expected[order][[bool(mask.any()) for mask in expected[order]]]
    if len(found.masks):
        torch.testing.assert_close(found.masks[0], best[0])
    else:
        assert not len(best)


def test_unsure_masks_have_no_vote(folder: Path) -> None:
    assert not len(ProposedMasks(str(folder), points=2, least_iou=1e6).propose(picture((40, 40))).masks)
    geometry = Geometry("squash", (48, 64), (48, 64), (6, 8), (1.0, 1.0))
    maps = np.random.default_rng(1).normal(size=(2, 6, 8)).astype(np.float32)
    scene = Scene(geometry, pixels=picture((48, 64)))
    silent = ProposedMasks(str(folder), points=2, least_iou=1e6)
    found = refined_maps(maps, scene, silent)
    np.testing.assert_allclose(found, scene.framed(scene.enlarge(torch.from_numpy(maps))), atol=1e-5)


def test_a_folder_refines(folder: Path) -> None:
    refiner = load_refiner(f"masks:{folder}")
    assert refiner is not None
    geometry = Geometry("pad", (40, 64), (64, 64), (8, 8), (1.0, 1.0), (12.0, 0.0))
    maps = np.random.default_rng(1).normal(size=(2, 8, 8)).astype(np.float32)
    found = refined_maps(maps, Scene(geometry, pixels=picture((40, 64))), refiner)
    assert found.shape == (2, 64, 64)
    assert np.isfinite(found[:, 12:52]).all()
    assert np.isnan(found[:, :12]).all()


def test_the_vote_is_the_weighted_mean_of_means() -> None:
    generator = np.random.default_rng(2)
    wide = generator.normal(size=(2, 6, 7)).astype(np.float32)
    masks = generator.random((4, 6, 7)) < 0.3
    masks[:, 0] = False  # the first row lies in none
    quality = np.array([0.9, 0.8, 0.95, 0.85], np.float32)
    found = vote(torch.from_numpy(wide), Proposal(torch.from_numpy(masks), torch.from_numpy(quality))).numpy()
    np.testing.assert_array_equal(found[:, 0], wide[:, 0])
    for row in range(1, 6):
        for column in range(7):
            own = [number for number in range(4) if masks[number, row, column]]
            for map_, values in zip(wide, found):
                if not own:
                    assert values[row, column] == map_[row, column]
                    continue
                weights = [quality[number] / masks[number].sum() for number in own]
                means = [map_[masks[number]].mean() for number in own]
                assert values[row, column] == pytest.approx(np.average(means, weights=weights), abs=1e-5)


def test_a_true_mask_bounds_the_map() -> None:
    """What a segmenter knows the map takes over: within the thing its mean, beyond it that of the rest."""
    thing = np.zeros((32, 32), dtype=bool)
    thing[8:20, 10:25] = True
    rows, columns = np.mgrid[0:32, 0:32]
    wide = np.exp(-((rows - 14) ** 2 + (columns - 17) ** 2) / 60).astype(np.float32)[None]
    masks = torch.from_numpy(np.stack([thing, ~thing]))
    found = vote(torch.from_numpy(wide), Proposal(masks, torch.tensor([0.9, 0.9])))[0].numpy()
    assert ((found > 0.3) == thing).all()


@pytest.mark.parametrize("content", [None, "nothing", "clip"])
def test_a_folder_without_a_segmenter_is_refused(tmp_path: Path, content: str | None) -> None:
    if content == "clip":
        library = import_transformers()
        library.CLIPVisionModel(
            library.CLIPVisionConfig(
                hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4
            )
        ).save_pretrained(tmp_path)
    where = tmp_path / "missing" if content is None else tmp_path
    with pytest.raises(ModelError, match=r"no folder|cannot load a segmenter|cannot be asked"):
        load_refiner(f"masks:{where}")
