"""Views of a picture: their features are averaged at the places they belong to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from concept_cam import Localizer, Settings
from concept_cam.backbones.protocol import ImageFeatures
from concept_cam.backbones.views import VIEWS, mirrored, single
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import VIEW_NAMES
from tests.planted import PlantedBackbone


class LopsidedBackbone(PlantedBackbone):
    """Sees what lies to the left of a cell too: its maps do not mirror with the picture."""

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        found = super().encode_patches(pixels, attention, valid)
        patches = found.patches.clone()
        patches[:, :, 1:] += 0.7 * found.patches[:, :, :-1]
        if valid is not None:
            patches = patches * valid[..., None]
        return ImageFeatures(patches, found.image)


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def localizer(views: str, **values: object) -> Localizer:
    return Localizer(LopsidedBackbone(), Settings(views=views).with_values(**values))


def test_names() -> None:
    assert ("auto", *VIEWS) == VIEW_NAMES


def test_mirrored_features_are_the_mean_of_both_at_every_cell() -> None:
    tower = LopsidedBackbone()
    pixels = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 2, 4, dtype=torch.bool)
    valid[0, :, 3] = False

    def encode(seen: Tensor, cells: Tensor | None) -> ImageFeatures:
        return tower.encode_patches(seen, "value", cells)

    found = mirrored(encode, pixels, valid, 32)
    upright = encode(pixels, valid)
    turned = encode(pixels.flip(-1), valid.flip(-1))
    for b in range(2):
        for y in range(2):
            for x in range(4):
                expected = (upright.patches[b, y, x] + turned.patches[b, y, 3 - x]) / 2
                torch.testing.assert_close(found.patches[b, y, x], expected)
    assert not found.patches[0, :, 3].any(), "padding of one view is padding of the other"
    torch.testing.assert_close(found.image, upright.image)
    torch.testing.assert_close(single(encode, pixels, valid, 32).patches, upright.patches)


def test_columns_beyond_the_grid_stay_where_they_are() -> None:
    """A tower that drops the last columns must drop the same ones of the mirror image, or both readings are of different places."""
    tower = PlantedBackbone()
    tower.preprocess = replace(tower.preprocess, size=(20, 20), flexible=False)
    ramp = np.repeat(np.linspace(0, 1, 40)[None, :, None], 40, axis=0).repeat(3, axis=2)
    asked = {views: Localizer(tower, Settings(views=views)) for views in VIEWS}
    one, both = (asked[views].encode(ramp).patches for views in VIEWS)
    torch.testing.assert_close(both, one, msg="of a tower without a bias both readings are the same")


@pytest.mark.parametrize("size", [(32, 32), (20, 44), (37, 16), (1, 1)])
@pytest.mark.parametrize("resize", ["pad", "squash", "tile"])
def test_the_map_of_the_mirror_image_is_the_mirrored_map(size: tuple[int, int], resize: str) -> None:
    seen = picture(size)
    asked = localizer("mirrored", resize=resize)
    one = asked.locate(seen, "red", "blue").heatmap
    other = asked.locate(np.ascontiguousarray(seen[:, ::-1]), "red", "blue").heatmap
    np.testing.assert_allclose(one, other[:, ::-1], atol=1e-5)


def test_a_single_view_is_lopsided_where_the_tower_is() -> None:
    seen = picture((32, 32))
    asked = localizer("single")
    one = asked.locate(seen, "red", "blue").scores
    other = asked.locate(np.ascontiguousarray(seen[:, ::-1]), "red", "blue").scores
    assert np.abs(one - other[:, ::-1]).max() > 0.01


def test_the_checkpoint_chooses_unless_the_settings_do() -> None:
    tower = LopsidedBackbone()
    assert Localizer(tower).views == "single"
    tower.preprocess = replace(tower.preprocess, views="mirrored")
    seen = picture((32, 32))
    chosen = Localizer(tower).locate(seen, "red", "blue")
    np.testing.assert_array_equal(chosen.scores, Localizer(tower, Settings(views="mirrored")).locate(seen, "red", "blue").scores)
    assert chosen.provenance.views == "mirrored"
    alone = Localizer(tower, Settings(views="single")).locate(seen, "red", "blue")
    assert alone.provenance.views == "single"
    assert np.abs(alone.scores - chosen.scores).max() > 0.01
    assert alone.score == pytest.approx(chosen.score), "image-level numbers are of the picture as it is"


def test_batch_equals_singles() -> None:
    pictures = [picture((32, 32), seed) for seed in range(3)]
    asked = localizer("mirrored", batch_size=2)
    for found, seen in zip(asked.locate(pictures, "red", "blue"), pictures, strict=True):
        np.testing.assert_allclose(found.scores, asked.locate(seen, "red", "blue").scores, atol=1e-6)


def test_unknown_views_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown views 'miror'.*'mirrored'"):
        Settings(views="miror")
    tower = LopsidedBackbone()
    tower.preprocess = replace(tower.preprocess, views="twice")
    with pytest.raises(ConfigurationError, match=r"unknown views 'twice'.*mirrored, single"):
        Localizer(tower).locate(picture((8, 8)), "red")
