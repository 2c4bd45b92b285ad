"""What every method promises: batches equal singles, padding is silent, the model is left alone, threads, half precision."""

from __future__ import annotations

import functools
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from concept_cam.core.concept import Concept
from concept_cam.core.errors import AttentionError, ImageError, UnsupportedModelError
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.methods import METHODS
from concept_cam.methods.engine import Batch, encode, gradients
from concept_cam.methods.lcam_training import LcamTraining, TrainingExample, train_on_concepts
from tests.backbones.models import BUILDERS, WORDLESS_KINDS, backbone, wrap
from tests.methods.models import LinearBackbone, photograph, untouched

pytest.importorskip("sklearn", reason="grad-cam needs scikit-learn")
pytest.importorskip("ttach", reason="the extra 'cams' is not installed")

NAMES = ["lcam"] + [name for name, method in METHODS.items() if not method.takes and not method.relu]
QUICK = [name for name in NAMES if name != "score-cam"]


def registered(name: str) -> str:
    """The method as it is asked for; an explainer of one step stands for the trained ones."""
    return name if name != "lcam" else f"lcam:{_explainer()}"


@functools.cache
def _explainer() -> str:
    example = TrainingExample(photograph(1, (32, 32)), Concept(("a forked tail",), (("a rounded tail",),)))
    trained = train_on_concepts(Localizer(backbone("vit")), [example], LcamTraining(steps=1, batch_size=1))
    return str(trained.save(Path(tempfile.mkdtemp()) / "lcam.safetensors"))


CONCEPTS = [
    Concept(("a forked tail fin",), (("a rounded tail fin",), ("a square tail fin",))),
    Concept(("a dorsal fin",)),
]
SIZES = [(40, 60), (60, 40), (33, 33)]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [photograph(seed, size) for seed, size in enumerate(SIZES)]


@pytest.mark.parametrize("name", NAMES)
def test_batches_equal_singles(name: str, pictures: list[np.ndarray]) -> None:
    name = registered(name)
    localizer = Localizer(backbone("vit"), Settings(weighting="softmax", gamma=0.7, batch_size=2))
    together = localizer.locate_all(pictures, CONCEPTS, method=name)
    for picture, answer in zip(pictures, together):
        alone = localizer.locate_all([picture], CONCEPTS, method=name)[0]
        assert answer.scores.dtype == np.float32
        assert answer.scores.shape == (2, 4, 4)
        scale = float(np.nanmax(np.abs(answer.scores)))
        assert scale > 0
        np.testing.assert_allclose(answer.scores, alone.scores, atol=1e-3 * scale)
        np.testing.assert_allclose(answer.image_scores, alone.image_scores, atol=1e-5)
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
        direct = localizer.locate_all([picture], CONCEPTS)[0]
        np.testing.assert_allclose(answer.image_scores, direct.image_scores, atol=1e-4)
        np.testing.assert_allclose(answer.probabilities, direct.probabilities, atol=1e-4)
        np.testing.assert_allclose(answer.terms, direct.terms, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_never_scored_nor_seen(name: str) -> None:
    localizer = Localizer(backbone("vit"))
    wide = photograph(5, (16, 60))
    answer = localizer.locate_all([wide], CONCEPTS, method=registered(name))[0]
    assert np.isnan(answer.scores[:, 0]).all()
    assert np.isfinite(answer.scores[:, ~np.isnan(answer.scores[0])]).all()
    assert answer[0].peak_score == pytest.approx(float(np.nanmax(answer.scores[0])))


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_alone(name: str) -> None:
    model = BUILDERS["vit"]()
    frozen = list(model.parameters())[::2]
    for parameter in frozen:
        parameter.requires_grad_(False)
    loss = sum((p.float().sum() for p in model.parameters() if p.requires_grad), torch.zeros(()))
    loss.backward()
    handle = model.visual.ln_post.register_forward_hook(lambda *_: None)
    localizer = Localizer(wrap("vit", model))
    name = registered(name)
    with untouched(model):
        localizer.locate_all([photograph()], CONCEPTS, method=name)
    with torch.inference_mode(), untouched(model):
        localizer.locate_all([photograph()], CONCEPTS, method=name)
    handle.remove()


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_alone_when_a_method_raises(name: str) -> None:
    model = BUILDERS["vit"]()
    localizer = Localizer(wrap("vit", model))
    localizer.locate_all([photograph()], CONCEPTS)
    name = registered(name)

    class Interrupted(Exception):
        pass

    calls = []

    def interrupt(*_: Any) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise Interrupted

    handle = model.visual.ln_post.register_forward_hook(interrupt)
    with untouched(model):
        try:
            localizer.locate_all([photograph(1), photograph(2)], CONCEPTS, method=name, batch_size=1)
        except Interrupted:
            pass
        else:
            pytest.fail("the interruption never came")
    handle.remove()


@pytest.mark.parametrize("name", [name for name in QUICK if name not in ("lcam", "kpca-cam", "xgrad-cam")])
def test_bfloat16_runs_and_agrees_roughly(name: str) -> None:
    full, half = BUILDERS["vit"](), BUILDERS["vit"]().to(torch.bfloat16)
    expected = Localizer(wrap("vit", full)).locate_all([photograph(2, (40, 40))], CONCEPTS, method=name)[0].scores
    found = Localizer(wrap("vit", half)).locate_all([photograph(2, (40, 40))], CONCEPTS, method=name)[0].scores
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    if METHODS[name].contrast:
        assert np.corrcoef(found[0].ravel(), expected[0].ravel())[0, 1] > 0.5


@pytest.mark.parametrize("name", ["grad-cam", "hires-cam", "grad-eclip", "legrad"])
def test_small_gradients_survive_float16(name: str) -> None:
    """The objective is scaled while it is differentiated, for gradients may be below what float16 can hold."""
    full, half = BUILDERS["vit"](), BUILDERS["vit"]().half()
    pictures = [photograph(2, (40, 40))]
    expected = Localizer(wrap("vit", full)).locate_all(pictures, CONCEPTS, method=name)[0].scores
    found = Localizer(wrap("vit", half)).locate_all(pictures, CONCEPTS, method=name)[0].scores
    assert found.dtype == np.float32
    for one, other in zip(found, expected):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.95
        assert np.abs(one - other).max() < 0.25 * np.abs(other).max()


# What a method cannot read of a kind of tower it refuses by name; nothing else may be missing.
REFUSED = {
    "grad-eclip": ("vit-mean", "vit-mean-late-norm", "timm-mean-registers", "timm-convnext", "timm-resnet", "transformers-align"),
    **dict.fromkeys(("legrad", "gem", "clip-surgery"), ("timm-convnext", "timm-resnet", "transformers-align")),
}


@pytest.mark.parametrize("kind", WORDLESS_KINDS)
def test_towers_without_words_cannot_be_asked_in_words(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match="has no text tower"):
        Localizer(backbone(kind)).locate_all([photograph(4)], CONCEPTS)


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in WORDLESS_KINDS])
def test_every_method_answers_on_every_kind_of_tower(kind: str) -> None:
    localizer = Localizer(backbone(kind))
    wide = photograph(4, (40, 60))
    direct = localizer.locate_all([wide], CONCEPTS)[0]
    # Score-CAM runs the tower once per channel: one kind of each sort of tower is enough.
    names = [name for name in NAMES if name != "lcam"]
    names = [name for name in names if name != "score-cam" or kind in ("resnet", "transformers-siglip")]
    for name in names:
        if kind in REFUSED.get(name, ()):
            with pytest.raises((UnsupportedModelError, AttentionError)):
                localizer.locate_all([wide], CONCEPTS, method=name)
            continue
        found = localizer.locate_all([wide], CONCEPTS, method=name)[0]
        np.testing.assert_array_equal(np.isnan(found.scores), np.isnan(direct.scores))
        assert np.nanmax(np.abs(found.scores[0])) > 0, name
        assert np.nanstd(found.scores[0]) > 0, name
        if METHODS[name].contrast:
            assert not np.array_equal(found.scores[0], found.scores[1], equal_nan=True), name


def test_four_threads_give_the_maps_of_one() -> None:
    localizer = Localizer(backbone("vit"))
    jobs = [(name, seed) for seed in range(2) for name in ("grad-cam", "layer-cam", "ablation-cam", "grad-eclip", "legrad")]
    expected = [localizer.locate_all([photograph(seed)], CONCEPTS, method=name)[0].scores for name, seed in jobs]
    found: dict[int, np.ndarray] = {}

    def work(first: int) -> None:
        for index in range(first, len(jobs), 4):
            name, seed = jobs[index]
            found[index] = localizer.locate_all([photograph(seed)], CONCEPTS, method=name)[0].scores

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(jobs)
    for index, scores in enumerate(expected):
        np.testing.assert_allclose(found[index], scores, atol=1e-6)


@pytest.mark.parametrize("name", ["direct", "grad-cam", "hires-cam", "eigen-cam", "legrad", "luminance", "center", "random"])
def test_tiles_give_one_map(name: str) -> None:
    localizer = Localizer(backbone("vit"), Settings(resize="tile"))
    found = localizer.locate_all([photograph(3, (64, 150))], CONCEPTS, method=name)[0]
    assert found.scores.shape[1:] == found.geometry.grid
    assert np.isfinite(found.scores[0]).sum() >= 16
    assert found.geometry.grid[1] > 4


@pytest.mark.parametrize(
    "kind",
    ["vit", "vit-mean", "coca", "resnet", "timm-token", "timm-map", "timm-convnext", "transformers-siglip"],
)
def test_gradients_match_finite_differences(kind: str) -> None:
    model = backbone(kind)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 3, *model.preprocess.size, generator=generator)
    valid = np.ones((2, *model.grid_size(model.preprocess.size)), bool)
    valid[0, -1] = False
    pixels, features, image = encode(model, pixels, valid)
    directions = torch.randn(2, 3, model.embed_dim, generator=generator)
    batch = Batch(model, pixels, features, image, directions)
    found = list(gradients(batch))
    assert len(found) == 3
    from dataclasses import replace

    step = 3e-3 * float(features.map.float().std())
    noise = torch.randn(features.map.shape, generator=generator) * torch.from_numpy(valid)[:, None]
    with torch.no_grad():
        up = batch.objective(model.pool(replace(features, map=features.map + step * noise)))
        down = batch.objective(model.pool(replace(features, map=features.map - step * noise)))
    slope = (up - down) / (2 * step)
    for index, gradient in enumerate(found):
        expected = (gradient * noise).sum(dim=(1, 2, 3))
        size = float((gradient.square().sum(dim=(1, 2, 3)).sqrt()).max())
        torch.testing.assert_close(slope[:, index], expected, atol=0.03 * size, rtol=0.03)
        assert (gradient.permute(0, 2, 3, 1)[~torch.from_numpy(valid)] == 0).all()


@pytest.mark.parametrize("resize", ["squash", "pad"])
@pytest.mark.parametrize("name", ["grad-cam", "hires-cam", "finer-cam"])
def test_identity_of_direct_and_gradient_maps(name: str, resize: str) -> None:
    """On a mean-pooled tower that is linear after the feature map: ``relu(f . w) / hw``, with unnormalised features and logit."""
    localizer = Localizer(LinearBackbone(), Settings(feature_norm="none", resize=resize))
    picture = photograph(7, (24, 40))
    picture[:12, :16] = (255, 20, 20)
    direct = localizer.locate(picture, "red", ["green", "blue"])
    found = localizer.locate(picture, "red", ["green", "blue"], method=name)
    cells = np.isfinite(direct.scores).sum()
    expected = direct.scores / cells
    if name == "finer-cam":
        expected = np.maximum(expected, 0)
    assert np.nanmax(np.abs(expected)) > 1e-3
    np.testing.assert_allclose(found.scores, expected, atol=1e-7)


def test_normalised_embeddings_add_the_image_specific_correction() -> None:
    """``dy/dA = P' (I - e e') w / |z| / hw`` with ``e = z / |z|``: what the gradient methods have and the direct one leaves out."""
    model = LinearBackbone()
    localizer = Localizer(model, Settings(resize="squash"))
    picture = photograph(8, (32, 32))
    found = localizer.locate(picture, "red", ["green"], method="grad-cam")
    features = localizer.encode(picture)
    weight = localizer.directions([Concept(("red",), (("green",),))])
    w = weight.texts[weight.target[0]] - weight.texts[weight.contrasts[0, 0]]
    unit = features.image / features.image.norm()
    corrected = (w - unit * (unit @ w)) / features.image.norm()
    expected = (features.patches @ corrected).numpy() / features.patches[..., 0].numel()
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("timm-convnext", "grad-eclip"), ("timm-convnext", "legrad"), ("vit-mean", "grad-eclip")],
)
def test_towers_without_the_attention_are_refused(kind: str, name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="Use 'direct'"):
        Localizer(backbone(kind)).locate(photograph(), "a fin", method=name)


def test_nan_is_an_error_and_not_a_map() -> None:
    class Broken(LinearBackbone):
        def pool(self, features: Any) -> torch.Tensor:
            return super().pool(features) * torch.nan

    with pytest.raises(ImageError, match="NaN"):
        Localizer(Broken()).locate(photograph(), "red", method="grad-cam")


@pytest.mark.parametrize("stride", [16, 8])
@pytest.mark.parametrize("resize", ["pad", "tile"])
def test_image_level_numbers_of_a_finely_read_resnet_are_the_models_own(resize: str, stride: int) -> None:
    """At less than its stride the pooled map is not the image embedding; scores, probabilities and weights are the direct method's all the
    same.
    """
    from dataclasses import replace

    from concept_cam.backbones.open_clip_resnet import OpenClipResNet

    stock = backbone("resnet")
    fine = OpenClipResNet(stock.model, name="fine", preprocess=replace(stock.preprocess, stride=(stride, stride)), text=stock._text)
    localizer = Localizer(fine, Settings(weighting="softmax", resize=resize))
    picture = photograph(9, (60, 96))
    direct = localizer.locate_all([picture], CONCEPTS)[0]
    found = localizer.locate_all([picture], CONCEPTS, method="grad-cam")[0]
    assert found.scores.shape == direct.scores.shape
    np.testing.assert_allclose(found.image_scores, direct.image_scores, atol=1e-5)
    np.testing.assert_allclose(found.terms, direct.terms, atol=1e-5)
