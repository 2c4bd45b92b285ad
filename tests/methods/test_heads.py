from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam.backbones.dinov2 import Dinov2
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.errors import ConfigurationError, DataError, OutputError, UnsupportedModelError
from concept_cam.core.settings import Settings
from concept_cam.methods.heads import AGGREGATIONS, ClassifierHead, FinerCam, class_folders, fit_head, image_embeddings
from concept_cam.methods.lcam import Explainer
from tests.backbones.models import backbone, randomise
from tests.methods.models import LinearBackbone, photograph, untouched


def make_head(width: int, count: int = 6, seed: int = 0, **values: Any) -> ClassifierHead:
    generator = torch.Generator().manual_seed(seed)
    names = [f"species {i}" for i in range(count)]
    weight, bias = torch.randn(count, width, generator=generator), torch.randn(count, generator=generator)
    return ClassifierHead.from_matrix(weight, bias, names, **values)


@pytest.fixture(scope="module")
def dino() -> Any:
    transformers = import_transformers()
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, mlp_ratio=2, image_size=28, patch_size=7)
    return randomise(transformers.Dinov2Model(config))


# ------------------------------------------------------------------------------------------------------------------ head


def test_from_state_dict_and_files(tmp_path: Path) -> None:
    layer = torch.nn.Linear(5, 3)
    torch.save(layer.state_dict(), tmp_path / "head.pth")
    names = ("a", "b", "c")
    head = ClassifierHead.load(tmp_path / "head.pth", names)
    image = torch.randn(4, 5)
    torch.testing.assert_close(head.logits(image), layer(image).detach())
    head.save(tmp_path / "head.safetensors")
    again = ClassifierHead.load(tmp_path / "head.safetensors")
    assert again.classes == names
    torch.testing.assert_close(again.logits(image), head.logits(image))
    with pytest.raises(OutputError, match="exists"):
        head.save(tmp_path / "head.safetensors")
    with pytest.raises(ConfigurationError, match=r"\.safetensors"):
        head.save(tmp_path / "head.bin")
    torch.save({"state_dict": layer.state_dict(), "epoch": 3}, tmp_path / "wrapped.pth")
    torch.testing.assert_close(ClassifierHead.load(tmp_path / "wrapped.pth").weight, layer.weight.detach())
    torch.save(layer, tmp_path / "module.pth")
    with pytest.raises(ConfigurationError, match="more than tensors"):
        ClassifierHead.load(tmp_path / "module.pth")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="no safetensors file"):
        ClassifierHead.load(tmp_path / "broken.safetensors")
    with pytest.raises(ConfigurationError, match="cannot read"):
        ClassifierHead.load(tmp_path / "missing.pth")


def test_names_in_another_order_do_not_rename_the_classes(tmp_path: Path) -> None:
    head = ClassifierHead(torch.eye(3), torch.zeros(3), ("cat", "cup", "rocket"))
    path = head.save(tmp_path / "head.safetensors")
    for rename in (head.named, lambda names: ClassifierHead.load(path, names)):
        assert rename(["cat", "cup", "rocket"]).classes == head.classes
        assert rename(["Felis", "cup", "Saturn V"]).classes == ("Felis", "cup", "Saturn V")
        with pytest.raises(ConfigurationError, match="'rocket' would stand for what it knows as 'cat'"):
            rename(["rocket", "cup", "cat"])
        with pytest.raises(ConfigurationError, match="expected 3 different class names, received 2"):
            rename(["cat", "cup"])


def test_an_explainer_is_not_taken_for_a_head(tmp_path: Path) -> None:
    from concept_cam.methods.lcam import Explainer

    tensors = {"matrix": torch.eye(3, 2), "vector": torch.ones(3), "query": torch.zeros(2), "bias": torch.zeros(1)}
    path = Explainer("fm", **tensors, mean=torch.zeros(3), scale=torch.ones(3)).save(tmp_path / "lcam.safetensors")
    with pytest.raises(ConfigurationError, match=r"lcam\.safetensors' is an explainer .* give it as --method lcam:FILE"):
        ClassifierHead.load(path)


def test_unusable_heads() -> None:
    with pytest.raises(ConfigurationError, match="2 matrices"):
        ClassifierHead.from_state_dict({"a": torch.zeros(2, 3), "b": torch.zeros(2, 2)})
    for prefix in ("", "head."):
        with pytest.raises(ConfigurationError, match=r"expected a bias of 3 values, .*'(head\.)?weight' has classes, found .* \[2\]"):
            ClassifierHead.from_state_dict({f"{prefix}weight": torch.zeros(3, 4), f"{prefix}bias": torch.zeros(2)})
    with pytest.raises(ConfigurationError, match="two rows"):
        ClassifierHead.from_matrix(torch.zeros(1, 3))
    with pytest.raises(ConfigurationError, match="bias"):
        ClassifierHead.from_matrix(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(ConfigurationError, match="different class names"):
        ClassifierHead.from_matrix(torch.zeros(2, 3), classes=["a", "a"])
    with pytest.raises(ConfigurationError, match="NaN"):
        ClassifierHead.from_matrix(torch.full((2, 3), torch.nan))
    with pytest.raises(ConfigurationError, match="Did you mean 'species 1'"):
        make_head(4).index("species1")
    with pytest.raises(ConfigurationError, match="0 to 5"):
        make_head(4).index(6)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("scaled", [False, True])
def test_from_sklearn(count: int, scaled: bool) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is optional")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    labels = np.array([f"kind {i % count}" for i in range(80)])
    features = generator.normal(size=(80, 5)) + 2.0 * np.array([[int(name[-1])] for name in labels]) + 7
    model = linear.LogisticRegression()
    model = make_pipeline(StandardScaler(), model) if scaled else model
    model.fit(features, labels)
    head = ClassifierHead.from_sklearn(model)
    assert head.classes == tuple(f"kind {i}" for i in range(count))
    shares = torch.softmax(head.logits(torch.tensor(features, dtype=torch.float32)), dim=1)
    np.testing.assert_allclose(shares.numpy(), model.predict_proba(features), atol=1e-4)
    with pytest.raises(ConfigurationError, match="linear classifier"):
        ClassifierHead.from_sklearn(object())


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_scaler_is_folded_in_as_it_scales(centred: bool, scaled: bool) -> None:
    """A StandardScaler that does not centre knows the mean all the same."""
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is optional")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    features = generator.normal(size=(90, 5)) * [1, 2, 3, 4, 5] + labels[:, None] + 3
    model = make_pipeline(StandardScaler(with_mean=centred, with_std=scaled), linear.LogisticRegression(max_iter=1000)).fit(
        features, labels
    )
    shares = torch.softmax(ClassifierHead.from_sklearn(model).logits(torch.tensor(features, dtype=torch.float32)), dim=1)
    np.testing.assert_allclose(shares.numpy(), model.predict_proba(features), atol=1e-4)


def test_what_of_scikit_learn_has_no_row_for_a_class_is_refused() -> None:
    """Of three classes there are three pairs: the shapes alone do not tell a classifier that compares two by two."""
    svm = pytest.importorskip("sklearn.svm", reason="scikit-learn is optional")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    features = np.random.default_rng(0).normal(size=(60, 4)) + np.arange(60)[:, None] % 3
    for count in (3, 4):
        with pytest.raises(ConfigurationError, match=f"SVC compares its {count} classes two by two.*LinearSVC"):
            ClassifierHead.from_sklearn(svm.SVC(kernel="linear").fit(features, np.arange(60) % count))
    two = svm.SVC(kernel="linear").fit(features, np.arange(60) % 2)
    called = ClassifierHead.from_sklearn(two).logits(torch.tensor(features, dtype=torch.float32)).argmax(dim=1)
    np.testing.assert_array_equal(called.numpy(), two.predict(features))
    with pytest.raises(ConfigurationError, match="StandardScaler and a linear classifier, received MinMaxScaler and LinearSVC"):
        ClassifierHead.from_sklearn(make_pipeline(MinMaxScaler(), svm.LinearSVC()).fit(features, np.arange(60) % 3))


@pytest.mark.parametrize("read", [ClassifierHead.load, Explainer.load])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "pointer of Git LFS"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
    ],
)
def test_what_stands_where_a_head_should_be_is_told(read: Callable[[Path], object], content: bytes, said: str, tmp_path: Path) -> None:
    """A page and a pointer were said to hold more than tensors, and to be saved again."""
    for ending in (".safetensors", ".pth"):
        file = tmp_path / f"head{ending}"
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=f"cannot read the .*{said}"):
            read(file)


@pytest.mark.parametrize("other", ["norm.weight", "norm.bias"])
def test_a_vector_of_another_layer_is_no_bias(other: str) -> None:
    """A norm over as many numbers as there are classes was added to the logits."""
    with pytest.raises(ConfigurationError, match=f"found further tensors: '{other}'"):
        ClassifierHead.from_state_dict({other: torch.ones(4), "head.weight": torch.eye(4)})
    for names in (("W", "b"), ("layer.W", "layer.b"), ("weight", "bias")):
        head = ClassifierHead.from_state_dict(dict(zip(names, (torch.eye(4), torch.ones(4)), strict=True)))
        assert head.bias.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    "layers",
    [
        [torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)],
        [torch.nn.LayerNorm(4), torch.nn.Linear(4, 3)],
        [torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)],
    ],
    ids=["norm", "layer norm", "network"],
)
def test_a_head_is_one_layer_alone(layers: list[torch.nn.Module], tmp_path: Path) -> None:
    """What stands before the layer in the file has a say in its logits: it was left out without a word."""
    torch.save(torch.nn.Sequential(*layers).state_dict(), tmp_path / "head.pth")
    with pytest.raises(ConfigurationError, match=r"found further tensors: '0\.bias'.*a whole network is read as a model: --model timm:"):
        ClassifierHead.load(tmp_path / "head.pth")


def test_what_is_no_head_is_named() -> None:
    layer = torch.nn.Linear(4, 3)
    with pytest.raises(ConfigurationError, match=r"received Linear.*give layer\.state_dict\(\)"):
        ClassifierHead.from_state_dict(layer)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="found 0 matrices among: 'epoch', 'model'"):
        ClassifierHead.from_state_dict({"model": layer.state_dict(), "epoch": 3})
    for given in ("fc.weight", None):
        with pytest.raises(ConfigurationError, match=r"needs a weight matrix .* of numbers, received"):
            ClassifierHead.from_matrix(given)  # type: ignore[arg-type]
    matrix = torch.zeros(3, 4)
    for names, said in (("abc", "in a list, received 'abc'"), ([0, 1, 2], r"received 0 \(int\)"), (["a", "b", " "], "not blank")):
        with pytest.raises(ConfigurationError, match=f"class names must be texts.*{said}"):
            ClassifierHead.from_matrix(matrix, classes=names)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=f"class names must be texts.*{said}"):
            ClassifierHead.from_matrix(matrix).named(names)  # type: ignore[arg-type]


def test_fit_head_separates_what_can_be_separated() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = [f"kind {i % 3}" for i in range(90)]
    centres = torch.randn(3, 6, generator=generator) * 4 + 50
    features = torch.stack([centres[i % 3] + torch.randn(6, generator=generator) * 0.3 for i in range(90)])
    head = fit_head(features, truth)
    assert [head.classes[i] for i in head.logits(features).argmax(dim=1).tolist()] == truth
    unit = fit_head(features, truth, feature_norm="l2")
    scaled = unit.logits(features * 3)
    torch.testing.assert_close(scaled, unit.logits(features), atol=1e-3, rtol=1e-4)
    with pytest.raises(DataError, match="two classes"):
        fit_head(features, ["one"] * 90)
    for l2 in (math.nan, math.inf, -1.0):
        with pytest.raises(ConfigurationError, match="l2 must be"):
            fit_head(features, truth, l2=l2)


# -------------------------------------------------------------------------------------------------------------- Finer-CAM


def manual_grad_cam(model: Any, pixels: torch.Tensor, objective: Any, layer: str | None = None) -> np.ndarray:
    """Grad-CAM written out: mean gradient per channel times activation."""
    features = model.feature_map(pixels, None, layer)
    leaf = features.map.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(model.pool(replace(features, map=leaf))).sum(), leaf)
    return (gradient.mean(dim=(2, 3), keepdim=True) * leaf).sum(dim=1).detach().numpy()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize(("kind", "layer"), [("vit", None), ("resnet", None), ("dino", None), ("dino", "last")])
def test_definition(kind: str, layer: str | None, aggregation: str, dino: Any) -> None:
    model = Dinov2(dino) if kind == "dino" else backbone(kind)
    head = make_head(model.embed_dim)
    cam = FinerCam(model, head, Settings(resize="squash"), layer=layer)
    assert cam.layer == (layer or ("last" if kind == "resnet" else "norm1"))
    picture = photograph(3, model.preprocess.size)
    found = cam.explain(picture, alpha=0.8, aggregation=aggregation)
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    pixels = prepare(read_image(picture), model.preprocess, "squash").batch
    with torch.no_grad():
        logits = head.logits(model.encode_image(pixels))[0]
    target = int(logits.argmax())
    nearest = sorted((i for i in range(6) if i != target), key=lambda i: abs(float(logits[i] - logits[target])))[:3]
    assert found.concept.target == (head.classes[target],)
    assert found.concept.contrast_names == tuple(head.classes[i] for i in nearest)

    def objective(image: torch.Tensor) -> torch.Tensor:
        z = head.logits(image)
        if aggregation == "uniform":
            return z[:, target] - 0.8 * z[:, nearest].mean(dim=1)
        if aggregation == "hardest":
            return z[:, target] - 0.8 * z[:, nearest].max(dim=1).values
        shares = torch.softmax(z, dim=1)[:, nearest]
        if aggregation == "softmax":
            shares = shares.detach()
        return (shares * (z[:, [target]] - 0.8 * z[:, nearest])).sum(dim=1) / shares.sum(dim=1)

    expected = manual_grad_cam(model, pixels, objective, cam.layer)[0]
    np.testing.assert_allclose(found.scores, expected, atol=1e-4 * np.abs(expected).max())
    assert found.provenance.weighting == aggregation
    assert sum(found.probabilities) == pytest.approx(1)


def test_equals_the_finer_cam_of_grad_cam() -> None:
    """The released objective, through the library's own class with its own choice of classes."""
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    from concept_cam.methods.gradient import load_library

    cams = load_library()
    from tests.methods.test_gradient import Whole, scaled

    model = backbone("resnet")
    head = make_head(model.embed_dim, 8)
    pictures = [photograph(seed, model.preprocess.size) for seed in range(3)]
    mine = FinerCam(model, head, Settings(resize="squash")).explain(pictures, aggregation="released", alpha=0.7)
    whole = Whole(model, head.weight)
    whole.forward = lambda pixels: head.logits(model.pool(_through(model, whole.layer, pixels)))  # type: ignore[method-assign]
    theirs_cam = cams.FinerCAM(whole, [whole.layer])
    side = mine[0].scores.shape
    theirs_cam.base_cam.get_target_width_height = lambda _: side[::-1]
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    pixels = torch.cat([prepare(read_image(picture), model.preprocess, "squash").batch for picture in pictures])
    theirs = theirs_cam(pixels, alpha=0.7)
    for found, other in zip(mine, theirs):
        np.testing.assert_allclose(scaled(found.scores), other, atol=2e-4)


def _through(model: Any, layer: torch.nn.Module, pixels: torch.Tensor) -> Any:
    with torch.no_grad():
        features = model.feature_map(pixels)
    return replace(features, map=layer(features.map.detach().requires_grad_(True)))


@pytest.mark.parametrize("base", ["grad-cam", "layer-cam"])
def test_equals_the_finer_cam_of_torchcam(base: str) -> None:
    methods = pytest.importorskip("torchcam.methods", reason="the extra 'cams' is not installed")
    if not hasattr(methods, "FinerCAM"):
        pytest.skip("this torchcam has no FinerCAM")
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    from tests.methods.test_gradient import Whole

    model = backbone("resnet")
    head = make_head(model.embed_dim, 8)
    pictures = [photograph(seed, model.preprocess.size) for seed in range(3)]
    mine = FinerCam(model, head, Settings(resize="squash")).explain(pictures, base=f"{base}+relu")
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    pixels = torch.cat([prepare(read_image(picture), model.preprocess, "squash").batch for picture in pictures])
    whole = Whole(model, head.weight)
    whole.forward = lambda pixels: head.logits(model.pool(_through(model, whole.layer, pixels)))  # type: ignore[method-assign]
    kind = {"grad-cam": methods.GradCAM, "layer-cam": methods.LayerCAM}[base]
    with methods.FinerCAM(whole, "layer", base_method=kind) as cam:
        scores = whole(pixels)
        theirs = cam(scores.argmax(dim=1).tolist(), scores, normalized=False)[0].numpy()
    for found, other in zip(mine, theirs):
        np.testing.assert_allclose(found.scores, other, rtol=1e-3, atol=1e-4 * max(other.max(), 1e-6))


def test_identity_with_the_patch_map() -> None:
    """Mean pooling and a linear head: ``relu(f . (W_t - alpha mean W_r)) / hw``."""
    model = LinearBackbone()
    head = make_head(4)
    picture = photograph(5, (32, 32))
    found = FinerCam(model, head).explain(picture, "species 2", references=["species 0", 4])
    from concept_cam.localizer import Localizer

    patches = Localizer(model).encode(picture).patches.numpy()
    weight = head.weight.numpy()
    expected = patches @ (weight[2] - 0.6 * (weight[0] + weight[4]) / 2) / 16
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert found.weights == pytest.approx((0.5, 0.5))


def test_batches_equal_singles_and_targets_may_differ() -> None:
    model = backbone("vit")
    cam = FinerCam(model, make_head(model.embed_dim), Settings(batch_size=2))
    pictures = [photograph(seed, size) for seed, size in enumerate([(40, 60), (60, 40), (32, 32)])]
    names = ["species 1", 3, "species 5"]
    together = cam.explain(pictures, names, aggregation="softmax")
    for picture, name, found in zip(pictures, names, together):
        alone = cam.explain(picture, name, aggregation="softmax")
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4 * np.nanmax(np.abs(alone.scores)))
        assert found.concept == alone.concept
        assert found.score == pytest.approx(alone.score, rel=1e-3)
    assert cam.logits(pictures).shape == (3, 6)
    assert cam.logits(iter(pictures)).shape == (3, 6)


def test_one_picture_is_not_taken_for_several() -> None:
    model = backbone("vit")
    cam = FinerCam(model, make_head(model.embed_dim))
    batch = np.stack([photograph(seed, (32, 32)) for seed in range(2)])
    assert cam.logits(batch).shape == (2, 6)
    assert len(cam.explain(batch, 1)) == len(cam.explain_all(batch, [1, 2])) == 2
    wrong: Any
    for wrong in ("x.png", Path("x.png"), batch[0], torch.from_numpy(batch[0]), Image.fromarray(batch[0])):
        with pytest.raises(ConfigurationError, match=r"logits takes several pictures, received a single one"):
            cam.logits(wrong)
        with pytest.raises(ConfigurationError, match=r"image_embeddings takes several pictures, received a single one"):
            image_embeddings(model, wrong)


@pytest.mark.parametrize(
    "base",
    [
        "layer-cam",
        "hires-cam",
        "score-cam",
        "ablation-cam",
        "eigen-cam",
        "grad-eclip",
        "legrad",
        "grad-cam+relu",
    ],
)
def test_every_base_runs_and_leaves_the_model_alone(base: str) -> None:
    model = backbone("vit")
    cam = FinerCam(model, make_head(model.embed_dim))
    with untouched(model.model):
        found = cam.explain(photograph(6), base=base)
    assert np.isfinite(found.scores).any()
    assert found.provenance.method == f"finer-cam/{base}"


def test_ranks_alpha_and_wrong_questions() -> None:
    model = backbone("vit")
    cam = FinerCam(model, make_head(model.embed_dim))
    picture = photograph(7)
    every = cam.explain(picture, 0, ranks=range(1, 9))
    assert len(every.concept.contrasts) == 5
    second = cam.explain(picture, 0, ranks=[2])
    assert second.concept.contrast_names == (every.concept.contrast_names[1],)
    plain = cam.explain(picture, 0, alpha=0)
    other = cam.explain(picture, 0, alpha=0, ranks=[2])
    np.testing.assert_allclose(plain.scores, other.scores, atol=1e-6)
    for values, match in (
        ({"aggregation": "mean"}, "aggregation"),
        ({"alpha": -1}, "alpha"),
        ({"ranks": [0]}, "ranks"),
        ({"ranks": [6, 9]}, "from 1 to 5"),
        ({"references": ["species 0"], "target": "species 0"}, "no reference"),
        ({"target": ["species 0", "species 1"]}, "2 targets for 1"),
        ({"base": "gem"}, "cannot explain a classifier"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            cam.explain(picture, **values)
    with pytest.raises(ConfigurationError, match="reads 3 numbers"):
        FinerCam(model, make_head(3))
    for wrong, match in (((torch.zeros(6, 3),), "head must be a ClassifierHead, received Tensor"), ((None, {"size": 32}), "settings must")):
        with pytest.raises(ConfigurationError, match=match):
            FinerCam(model, *wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="tile"):
        FinerCam(model, make_head(model.embed_dim), Settings(resize="tile"))
    for settings in (Settings(views="mirrored"), Settings(attention="value"), Settings(look_again=True)):
        with pytest.raises(ConfigurationError, match=r"a classifier's map .* is for methods that read patch features"):
            FinerCam(model, make_head(model.embed_dim), settings)
    with pytest.raises(ConfigurationError, match="other weights"):
        FinerCam(model, replace(make_head(model.embed_dim), weights_hash="0" * 16))


def test_classes_by_number_of_any_type_and_nothing_else() -> None:
    model = backbone("vit")
    cam = FinerCam(model, make_head(model.embed_dim))
    picture = photograph(7)
    expected = cam.explain(picture, 1, references=[2, 3])
    found: Any
    for target in (np.int64(1), np.array(1), torch.tensor(1), [np.int64(1)], np.array([1]), "species 1"):
        for references in ([2, 3], np.array([2, 3]), torch.tensor([2, 3]), (np.int32(2), "species 3")):
            found = cam.explain(picture, target, references=references, ranks=np.array([1, 2]), alpha=np.float32(0.6))  # type: ignore[arg-type]
            assert found.concept == expected.concept
    for alpha in (torch.tensor(0.5), np.array(0.5), np.float64(0.5), torch.tensor(0.5, dtype=torch.float16)):
        assert cam.explain(picture, 1, alpha=alpha).provenance.gamma == 0.5  # type: ignore[arg-type]
    assert cam.explain_all(picture, np.array([1]), references=[2, 3])[0].concept == expected.concept  # type: ignore[arg-type]
    assert cam.explain([picture, picture], [None, 1])[1].concept.target == ("species 1",)
    for values, match in (
        ({"target": True}, r"expected a class by name, such as 'species 0', or by number, 0 to 5; received True \(bool\)"),
        ({"target": np.bool_(True)}, "expected a class by name"),
        ({"target": 1.0}, r"received 1.0 \(float\)"),
        ({"target": [1.5]}, "by number"),
        ({"target": np.int64(6)}, "from 0 to 5, received 6"),
        ({"references": 2}, r"references must be .* in a list, received 2 \(int\): give \[2\], or ranks="),
        ({"references": [None]}, "expected a class by name"),
        ({"ranks": 1}, r"ranks must be whole numbers .* received 1 \(int\)"),
        ({"ranks": "12"}, "ranks must be"),
        ({"ranks": [1.5]}, "ranks are whole numbers"),
        ({"ranks": [True]}, "ranks are whole numbers"),
        ({"alpha": "1"}, r"alpha must be a number >= 0, received '1' \(str\)"),
        ({"alpha": True}, "alpha must be"),
        ({"alpha": torch.tensor(True)}, "alpha must be"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"aggregation": 5}, "unknown aggregation 5"),
        ({"base": ["grad-cam"]}, r"unknown method \['grad-cam'\]"),
    ):
        with pytest.raises(ConfigurationError, match=match):
            cam.explain(picture, **values)  # type: ignore[arg-type]
    wrong: Any
    for wrong in ("species 1", 1, None):
        with pytest.raises(ConfigurationError, match="targets must be names or numbers of classes in a list"):
            cam.explain_all(picture, wrong)
    head = make_head(model.embed_dim)
    lettered = FinerCam(model, replace(head, classes=tuple("abcdef"[: len(head)])))
    assert [found.concept.target for found in lettered.explain_all(picture, "b")] == [("b",)]


def test_two_names_of_one_method_have_one_certificate() -> None:
    model = backbone("vit")
    cam = FinerCam(model, make_head(model.embed_dim))
    found = {base: cam.explain(photograph(7), 1, base=base) for base in ("finer-cam", "grad-cam+relu", "grad-cam", "legrad")}
    np.testing.assert_array_equal(found["finer-cam"].scores, found["grad-cam+relu"].scores)
    assert found["finer-cam"].certificate.to_dict() == found["grad-cam+relu"].certificate.to_dict()
    assert sum(found["grad-cam"].ledger_at_peak().values()) == pytest.approx(found["grad-cam"].peak_score, abs=1e-4)
    for base in ("finer-cam", "grad-cam+relu", "legrad"):
        with pytest.raises(ConfigurationError, match="'grad-cam' and 'hires-cam', without"):
            found[base].ledger()
    with pytest.raises(ConfigurationError, match="has no certificate"):
        _ = found["legrad"].certificate


# ----------------------------------------------------------------------------------------------------------------- DINOv2


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_dinov2_reads_the_model(dino: Any, pooling: str) -> None:
    model = Dinov2(dino, pooling=pooling)
    assert isinstance(model, Backbone)
    generator = torch.Generator().manual_seed(1)
    for size in ((28, 28), (21, 42)):
        pixels = torch.randn(2, 3, *size, generator=generator)
        with torch.no_grad():
            tokens = dino(pixels).last_hidden_state
        own = tokens[:, 0] if pooling == "cls" else tokens[:, 1:].mean(dim=1)
        torch.testing.assert_close(model.encode_image(pixels), own, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.pool(model.feature_map(pixels)).detach(), own, atol=1e-5, rtol=1e-4)
        features = model.encode_patches(pixels, "vanilla")
        torch.testing.assert_close(features.patches.flatten(1, 2), tokens[:, 1:], atol=1e-5, rtol=1e-4)
    assert len(model.weights_hash) == 16


def test_heads_and_explainers_keep_to_the_embedding_they_were_trained_on(dino: Any, tmp_path: Path) -> None:
    """Mean patch and class token have the same width and the same weights, but are two spaces."""
    from concept_cam.methods.lcam import Explainer
    from concept_cam.methods.lcam_training import LcamTraining, train_on_classes
    from concept_cam.methods.origin import Origin
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    mean, token = Dinov2(dino, pooling="mean"), Dinov2(dino, pooling="cls")
    assert (mean.weights_hash, mean.embed_dim) == (token.weights_hash, token.embed_dim)
    pictures, labels = [photograph(seed) for seed in range(4)], ["a", "b", "a", "b"]
    found = image_embeddings(mean, pictures)
    head = fit_head(found, labels, weights_hash=mean.weights_hash, origin=Origin.of(mean, Settings()))
    head = ClassifierHead.load(head.save(tmp_path / "head.safetensors"))
    FinerCam(mean, head)
    with pytest.raises(ConfigurationError, match=r"made by 'patches', that of dinov2 is made by 'class token'"):
        FinerCam(token, head)
    prepared = [prepare(read_image(picture), mean.preprocess) for picture in pictures]
    for rows in (False, True):
        trained = train_on_classes(mean, head, prepared, labels, LcamTraining(steps=1, batch_size=2), rows=rows)
        explainer = Explainer.load(trained.save(tmp_path / f"lcam{rows}.safetensors"))
        explainer.require(mean, head.classes, head=True)
        with pytest.raises(ConfigurationError, match=r"made by 'patches', that of dinov2 is made by 'class token'"):
            explainer.require(token, head.classes, head=True)
    # Files of earlier versions do not say what they were trained on.
    FinerCam(token, fit_head(found, labels, weights_hash=mean.weights_hash))


def test_pictures_are_read_as_in_the_training_of_the_head(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    from concept_cam.methods.origin import Origin

    model = LinearBackbone()
    weight, bias, names = torch.randn(3, model.embed_dim), torch.zeros(3), ("a", "b", "c")
    for values in ({"size": 64, "resize": "squash"}, {"mean": 0.25, "resize": "native", "resize_mode": "longest"}, {}):
        trained = Settings(**values)
        made = ClassifierHead(weight, bias, names, origin=Origin.of(model, trained))
        head = ClassifierHead.load(made.save(tmp_path / "head.safetensors", overwrite=True))
        cam = FinerCam(model, head)
        assert cam.settings == trained
        picture = photograph(1)
        expected = FinerCam(model, ClassifierHead(weight, bias, names), trained).logits([picture])
        torch.testing.assert_close(cam.logits([picture]), expected)
    assert not [warning for warning in recwarn if "another way" in str(warning.message)]
    # What is said counts, and what differs by it is told.
    origin = Origin.of(model, Settings(size=64, resize="squash"))
    assert origin.settings_for(model, Settings(gamma=0.5, size=96), said=["size"]) == Settings(gamma=0.5, size=96, resize="squash")
    with pytest.warns(UserWarning, match="size 64 in training, 96 now"):
        assert FinerCam(model, replace(head, origin=origin), Settings(size=96)).settings == Settings(size=96)
    with pytest.raises(ConfigurationError, match="size must be a whole number"):
        FinerCam(model, replace(head, origin=Origin(reading={"size": ["far", "far"]})))


def test_a_head_says_what_its_tower_leaves_open(tmp_path: Path) -> None:
    """Published weights of one architecture are read differently: the head knows how its own were."""
    from concept_cam.methods.origin import Origin

    model = LinearBackbone()
    model.preprocess = replace(model.preprocess, unsure=(("mean", "one of two"), ("interpolation", "likewise")))
    trained = Settings(mean=0.25, interpolation="bilinear")
    head = ClassifierHead(torch.randn(3, model.embed_dim), torch.zeros(3), ("a", "b", "c"), origin=Origin.of(model, trained))
    assert FinerCam(model, head).settings == trained
    with pytest.raises(ConfigurationError, match=r"read differently: interpolation likewise\."):
        FinerCam(model, replace(head, origin=Origin(reading={"mean": [0.25] * 3})))
    said = Settings(mean=0.5)
    assert head.origin.settings_for(model, said, said=["mean"]) == Settings(mean=0.5, interpolation="bilinear")


def test_a_head_whose_origin_is_no_origin_is_refused(tmp_path: Path) -> None:
    from concept_cam.core.files import write_tensors

    for facts in ({"pooling": 5}, {"reading": ["pad"]}):
        path = write_tensors(tmp_path / "h.safetensors", {"weight": torch.eye(2), "bias": torch.zeros(2)}, facts, overwrite=True)
        with pytest.raises(ConfigurationError, match="how the embedding is pooled"):
            ClassifierHead.load(path)


def test_dinov2_has_no_words(dino: Any) -> None:
    from concept_cam.localizer import Localizer

    with pytest.raises(UnsupportedModelError, match="no text tower"):
        Localizer(Dinov2(dino)).locate(photograph(), "a fin")
    with pytest.raises(ConfigurationError, match="pooling"):
        Dinov2(dino, pooling="max")
    with pytest.raises(UnsupportedModelError, match="Dinov2Model"):
        Dinov2(torch.nn.Linear(2, 2))


def test_dinov2_from_a_folder(dino: Any, tmp_path: Path) -> None:
    from concept_cam.backbones import load
    from concept_cam.core.errors import ModelError

    dino.save_pretrained(tmp_path / "dino")
    pixels = torch.randn(1, 3, 28, 28)
    for name, pooling in {"dinov2": "mean", "dinov2-cls": "cls", "transformers": "mean", "local-dir": "mean"}.items():
        model = load(f"{name}:{tmp_path / 'dino'}")
        assert (model.family, model.name) == ("dinov2", f"{name}:{tmp_path / 'dino'}")
        torch.testing.assert_close(model.encode_image(pixels), Dinov2(dino, pooling=pooling).encode_image(pixels))
    with pytest.raises(ModelError, match="dinov2:"):
        load(f"dinov2:{tmp_path / 'nothing'}")


# ---------------------------------------------------------------------------------------------------------------- folders


def colour_folder(root: Path, count: int = 4) -> Path:
    """Class folders of pictures in which one corner has the class's colour."""
    generator = np.random.default_rng(0)
    for name, colour in {"red": (255, 0, 0), "green": (0, 255, 0)}.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            picture = generator.integers(90, 120, (32, 32, 3), np.uint8)
            picture[:16, 16:] = colour
            Image.fromarray(picture).save(root / name / f"{index}.png")
    return root


def test_class_folders_and_embeddings(tmp_path: Path) -> None:
    files = class_folders(colour_folder(tmp_path / "data"))
    assert [name for _, name in files] == ["green"] * 4 + ["red"] * 4
    model = LinearBackbone()
    found = image_embeddings(model, [path for path, _ in files], Settings(batch_size=3))
    assert found.shape == (8, 4)
    head = fit_head(found, [name for _, name in files], l2=0.1, weights_hash=model.weights_hash)
    cam = FinerCam(model, head)
    shown = cam.explain([path for path, _ in files], alpha=1.0)
    for (_, name), answer in zip(files, shown):
        assert answer.concept.target == (name,)
        assert answer.peak[0] > 16
        assert answer.peak[1] < 16
    with pytest.raises(DataError, match="not a folder"):
        class_folders(tmp_path / "nothing")
    (tmp_path / "empty" / "one").mkdir(parents=True)
    with pytest.raises(DataError, match="at least two"):
        class_folders(tmp_path / "empty")


def test_pictures_of_classes_are_found_as_those_of_collections_are(tmp_path: Path) -> None:
    from concept_cam.collection.inputs import Columns, open_collection

    root = colour_folder(tmp_path / "data", 2)
    elsewhere = colour_folder(tmp_path / "elsewhere", 2)
    (root / "red" / "nested").mkdir()
    (elsewhere / "red" / "0.png").rename(root / "red" / "nested" / "more.png")
    (root / "red" / ".thumbs").mkdir()
    (elsewhere / "red" / "1.png").rename(root / "red" / ".thumbs" / "hidden.png")
    (root / "blue").mkdir()
    (root / "blue" / "linked").symlink_to(elsewhere / "green")
    (root / "green" / "around").symlink_to(root)
    found = class_folders(root)
    assert [name for _, name in found] == ["blue"] * 2 + ["green"] * 2 + ["red"] * 3
    collected = [item.path for item in open_collection([str(root)], columns=Columns()).items()]
    assert sorted(str(path) for path, _ in found) == sorted(collected)


def test_classes_and_pictures_that_are_left_out_are_said(tmp_path: Path) -> None:
    root = colour_folder(tmp_path / "data", 2)
    (root / "blue").mkdir()
    (root / "blue" / "raw.cr2").write_bytes(b"raw")
    (root / "red" / "0.png").rename(root / "beside.png")
    with pytest.warns(UserWarning, match=r"without a picture: 'blue'; pictures that lie in no class folder are left out: 'beside\.png'\."):
        found = class_folders(root)
    assert [name for _, name in found] == ["green"] * 2 + ["red"]


# ---------------------------------------------------------------------------------------------------- the published layer


class Published(torch.nn.Module):
    """A tower with a linear head as the authors of Finer-CAM wrap it, from pixels to logits, for a library to hook by itself."""

    def __init__(self, run: Any, head: ClassifierHead) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(head.weight.shape[1], len(head))
        self.linear.weight.data.copy_(head.weight)
        self.linear.bias.data.copy_(head.bias)
        self.run = run

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(self.run(pixels))


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_equals_the_published_code_at_the_published_layer(kind: str, dino: Any) -> None:
    """The library's FinerCAM with its own hooks on the model's own module: the first norm of the last block, as in the authors' script."""
    pytest.importorskip("ttach", reason="the extra 'cams' is not installed")
    from concept_cam.methods.gradient import load_library
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    cams = load_library()
    if kind == "dinov2":
        tower: Any = Dinov2(dino)
        layer, run = dino.encoder.layer[-1].norm1, lambda pixels: dino(pixels).last_hidden_state[:, 1:].mean(dim=1)
    else:
        tower = backbone("vit")
        layer, run = tower.model.visual.transformer.resblocks[-1].ln_1, tower.model.visual
    head = make_head(tower.embed_dim, 8)
    pictures = [photograph(seed, tower.preprocess.size) for seed in range(3)]
    pixels = torch.cat([prepare(read_image(picture), tower.preprocess, "squash").batch for picture in pictures])
    height, width = tower.grid_size(tower.preprocess.size)
    whole = Published(run, head)
    whole.inner = tower.model  # So that the library finds its parameters.

    def reshape(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width))

    cam = cams.FinerCAM(whole, [layer], reshape_transform=reshape)
    cam.base_cam.get_target_width_height = lambda _: (width, height)
    before = {name: None if value.grad is None else value.grad.clone() for name, value in tower.model.named_parameters()}
    theirs = cam(pixels, alpha=0.7)
    cam.base_cam.activations_and_grads.release()
    for name, value in tower.model.named_parameters():
        value.grad = before[name]
    with untouched(tower.model):
        mine = FinerCam(tower, head, Settings(resize="squash")).explain(pictures, aggregation="released", alpha=0.7)
    from tests.methods.test_gradient import scaled

    for found, other in zip(mine, theirs):
        np.testing.assert_allclose(scaled(found.scores), other, atol=2e-4)


def test_the_layers_are_different_questions(dino: Any) -> None:
    model = Dinov2(dino)
    head = make_head(model.embed_dim)
    picture = photograph(3, model.preprocess.size)
    first = FinerCam(model, head).explain(picture)
    last = FinerCam(model, head, layer="last").explain(picture)
    assert np.corrcoef(first.scores.ravel(), last.scores.ravel())[0, 1] < 0.99
    with pytest.raises(ConfigurationError, match="Did you mean 'norm1'"):
        FinerCam(model, head, layer="norm2")
    with pytest.raises(ConfigurationError, match="inside the tower"):
        FinerCam(Dinov2(dino, pooling="cls"), head, layer="norm1").explain(picture, base="legrad")


def test_classes_of_one_picture_share_the_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("resnet")
    cam = FinerCam(model, make_head(model.embed_dim))
    pictures = [photograph(seed, (32, 48)) for seed in range(2)]
    alone = [[cam.explain(picture, target) for target in (None, "species 3", 1)] for picture in pictures]
    calls = []
    own = type(model).feature_map
    monkeypatch.setattr(type(model), "feature_map", lambda self, *values: calls.append(1) or own(self, *values))
    together = cam.explain_all(pictures, [None, "species 3", 1])
    assert len(calls) == 1
    for expected, found in zip(alone, together):
        for one, other in zip(expected, found):
            np.testing.assert_allclose(other.scores, one.scores, atol=1e-4 * np.nanmax(np.abs(one.scores)))
            assert other.concept == one.concept
    assert [found.concept for found in cam.explain_all(pictures[0], [None])] == [alone[0][0].concept]
    with pytest.raises(ConfigurationError, match="no class was named"):
        cam.explain_all(pictures[0], [])


def test_a_tower_without_a_classifier_says_so() -> None:
    with pytest.raises(UnsupportedModelError, match="comes without a classifier"):
        FinerCam(backbone("vit"))


def test_direct_as_a_base() -> None:
    """Unit patch features times the contrasted rows."""
    model = LinearBackbone()
    head = make_head(4)
    picture = photograph(5, (32, 32))
    found = FinerCam(model, head).explain(picture, "species 2", references=["species 0"], base="direct")
    from concept_cam.localizer import Localizer

    patches = torch.nn.functional.normalize(Localizer(model).encode(picture).patches, dim=-1).numpy()
    expected = patches @ (head.weight[2] - 0.6 * head.weight[0]).numpy()
    np.testing.assert_allclose(found.scores, expected, atol=1e-5)


def test_the_bundled_model_takes_a_head() -> None:
    from concept_cam.backbones import load

    tower = load("demo")
    cam = FinerCam(tower, make_head(tower.embed_dim))
    assert cam.layer in tower.layers
    found = cam.explain(photograph(8, (48, 64)), base="hires-cam")
    assert np.isfinite(found.scores).any()
