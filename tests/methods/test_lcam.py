"""Learned explainers: definition, training against planted truth, files, and a tower that is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.files import write_tensors
from concept_cam.core.settings import Settings
from concept_cam.localizer import Localizer
from concept_cam.methods.heads import FinerCam, class_folders, fit_head, image_embeddings
from concept_cam.methods.lcam import Explainer
from concept_cam.methods.lcam_training import LcamTraining, TrainingExample, area, train_on_classes, train_on_concepts, variation
from concept_cam.pictures.reading import read_image
from concept_cam.pictures.resizing import prepare
from tests.backbones.models import backbone
from tests.methods.models import LinearBackbone, photograph, untouched
from tests.methods.test_heads import colour_folder

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def coloured(count: int = 24) -> list[TrainingExample]:
    """Dark pictures with one coloured quarter; asked for that colour as opposed to the others."""
    generator = np.random.default_rng(1)
    examples = []
    for index in range(count):
        name = list(COLOURS)[index % 3]
        picture = generator.integers(0, 60, (32, 32, 3), np.uint8)
        row, column = generator.integers(0, 2, 2) * 16
        picture[row : row + 16, column : column + 16] = COLOURS[name]
        others = tuple((other,) for other in COLOURS if other != name)
        examples.append(TrainingExample(picture, Concept((name,), others)))
    return examples


def inside(example: TrainingExample) -> np.ndarray:
    """Bool [4, 4]: cells of the coloured quarter."""
    picture = np.asarray(example.image)
    return (picture.reshape(4, 8, 4, 8, 3).max(axis=-1).mean(axis=(1, 3))) > 200


def test_losses_are_the_papers() -> None:
    maps = torch.rand(2, 7, 7, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 7, 7, dtype=torch.bool)
    assert float(area(maps, valid, 0.3)) == pytest.approx(float(((maps + 5e-4) ** 0.3).mean()), rel=1e-5)
    assert float(area(maps, valid, 1.0)) == pytest.approx(float(maps.mean()) + 5e-4, rel=1e-5)
    total = 0.0
    for one in maps.tolist():
        for i in range(7):
            for j in range(7):
                total += (one[i][j] - one[i - 1][j]) ** 2 if i else 0
                total += (one[i][j] - one[i][j - 1]) ** 2 if j else 0
                total += 0.3 * one[i][j] ** 2 * ((i in (0, 6)) + (j in (0, 6)))
    assert float(variation(maps)) == pytest.approx(total / 4, rel=1e-5)
    valid[:, 3:] = False
    assert float(area(maps, valid, 1.0)) == pytest.approx(float(maps[:, :3].mean()) + 5e-4, rel=1e-5)


@pytest.mark.parametrize("kind", ["fm", "img"])
def test_one_explainer_answers_any_colour(kind: str, tmp_path: Path) -> None:
    localizer = Localizer(LinearBackbone())
    examples = coloured()
    losses: list[float] = []
    training = LcamTraining(kind, steps=250, batch_size=12, learning_rate=0.03)
    with untouched(localizer.backbone.model):
        explainer = train_on_concepts(localizer, examples, training, lambda step, loss: losses.append(loss))
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    path = explainer.save(tmp_path / "lcam.safetensors")
    wins = 0
    for example in coloured(30)[24:]:
        found = localizer.locate_all([example.image], [example.concept], method=f"lcam:{path}")[0][0]
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert found.provenance.method.startswith(f"lcam-{kind}:")
        shown = inside(example)
        wins += found.scores[shown].mean() > found.scores[~shown].mean() + 0.02
    assert wins >= 5


def test_the_map_is_a_convolution_and_a_sigmoid(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = {
        "matrix": torch.randn(6, 4, generator=generator),
        "vector": torch.randn(6, generator=generator),
        "query": torch.randn(4, generator=generator),
        "bias": torch.randn(1, generator=generator),
        "mean": torch.randn(6, generator=generator),
        "scale": torch.rand(6, generator=generator) + 0.5,
    }
    explainer = Explainer("fm", **parts)
    features, queries = (
        torch.randn(2, 6, 3, 5, generator=generator),
        torch.randn(2, 2, 4, generator=generator),
    )
    found = explainer.attend(features, queries)
    for b in range(2):
        for c in range(2):
            weight = (parts["matrix"] @ queries[b, c] + parts["vector"]) / parts["scale"]
            bias = queries[b, c] @ parts["query"] + parts["bias"] - weight @ parts["mean"]
            expected = torch.sigmoid(torch.nn.functional.conv2d(features[b : b + 1], weight[None, :, None, None], bias))[0, 0]
            torch.testing.assert_close(found[b, c], expected, atol=1e-5, rtol=1e-5)
    path = explainer.save(tmp_path / "a.safetensors")
    torch.testing.assert_close(Explainer.load(path).attend(features, queries), found)
    assert Explainer.load(path).digest == explainer.digest


@pytest.mark.parametrize("kind", ["fm", "img"])
def test_class_heads(kind: str, tmp_path: Path) -> None:
    files = class_folders(colour_folder(tmp_path / "data"))
    model = LinearBackbone()
    labels = [name for _, name in files]
    head = fit_head(image_embeddings(model, [path for path, _ in files]), labels, l2=0.01)
    prepared = [prepare(read_image(path), model.preprocess) for path, _ in files]
    training = LcamTraining(kind, steps=120, batch_size=8, learning_rate=0.03, area=0.5)
    explainer = train_on_classes(model, head, prepared, labels, training)
    assert explainer.classes == head.classes
    saved = explainer.save(tmp_path / "lcam.safetensors")
    cam = FinerCam(model, head)
    # The class that a picture without anything is taken for needs no evidence, so its map may stay empty.
    with torch.no_grad():
        unseen = head.classes[int(head.logits(model.encode_image(torch.zeros(1, 3, 32, 32))).argmax())]
    for (_, name), answer in zip(files, cam.explain([path for path, _ in files], base=f"lcam:{saved}")):
        assert answer.concept.target == (name,)
        if kind == "img" and name == unseen:
            continue
        assert answer.scores[:2, 2:].mean() > answer.scores[2:].mean()
    with pytest.raises(ConfigurationError, match="asked about text"):
        Localizer(model).locate(files[0][0], "red", method=f"lcam:{saved}")


def test_trains_on_a_class_token_tower_with_padding() -> None:
    model = backbone("vit")
    localizer = Localizer(model)
    concepts = [
        Concept(("a forked tail",), (("a rounded tail",),)),
        Concept(("a rounded tail",), (("a forked tail",), ("a fish",))),
    ]
    pictures = [photograph(0, (16, 32)), photograph(1, (32, 16)), photograph(2, (32, 32))]
    examples = [TrainingExample(picture, concepts[i % 2]) for i, picture in enumerate(pictures)]
    for kind in ("fm", "img"):
        losses: dict[int, float] = {}
        with untouched(model.model):
            explainer = train_on_concepts(localizer, examples, LcamTraining(kind, steps=12, batch_size=4), losses.__setitem__)
        assert losses[11] < losses[0]
        again = train_on_concepts(localizer, examples, LcamTraining(kind, steps=12, batch_size=4))
        assert again.digest == explainer.digest


def test_wrong_files_and_questions(tmp_path: Path) -> None:
    localizer = Localizer(LinearBackbone())
    with pytest.raises(ConfigurationError, match="does not exist"):
        localizer.locate(photograph(), "red", method="lcam:nowhere.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"bad")
    with pytest.raises(ConfigurationError, match="cannot read"):
        Explainer.load(tmp_path / "bad.safetensors")
    from tests.methods.test_heads import make_head

    make_head(4).save(tmp_path / "head.safetensors")
    with pytest.raises(ConfigurationError, match="no explainer"):
        Explainer.load(tmp_path / "head.safetensors")
    explainer = train_on_concepts(localizer, coloured(3), LcamTraining(steps=1))
    explainer.save(tmp_path / "l.safetensors")
    other = LinearBackbone()
    other.weights_hash = "f" * 16
    with pytest.raises(ConfigurationError, match="other weights"):
        Localizer(other).locate(photograph(), "red", method=f"lcam:{tmp_path / 'l.safetensors'}")
    with pytest.raises(DataError, match="contrasts"):
        train_on_concepts(localizer, [TrainingExample(photograph(), Concept(("red",)))])
    with pytest.raises(ConfigurationError, match="one size"):
        train_on_concepts(Localizer(LinearBackbone(), Settings(resize="tile")), coloured(3))
    with pytest.raises(ConfigurationError, match="kind of explainer"):
        LcamTraining("both")
    with pytest.raises(ConfigurationError, match=r"\.safetensors"):
        explainer.save(tmp_path / "l.pt")


def stored(path: Path, tensors: dict[str, Any] | None = None, facts: dict[str, Any] | None = None) -> Path:
    """Writes an explainer for two classes in which the given parts take the place of sound ones."""
    sound: dict[str, torch.Tensor] = {"matrix": torch.ones(6, 2), "query": torch.zeros(2), "bias": torch.zeros(1)}
    sound |= {name: torch.ones(6) for name in ("vector", "mean", "scale")}
    header = {"explainer": "lcam", "kind": "fm", "classes": ["a", "b"], "weights_hash": "x", "asks": "classes", "facts": {}}
    return write_tensors(path, {**sound, **(tensors or {})}, {**header, **(facts or {})}, overwrite=True)


@pytest.mark.parametrize(
    ("tensors", "facts", "what"),
    [
        ({"bias": torch.zeros(3)}, {}, "'bias' has the shape"),
        ({"query": torch.zeros(3)}, {}, "'query' has the shape"),
        ({"vector": torch.zeros(5)}, {}, "'vector' has the shape"),
        ({"mean": torch.zeros(6, 1)}, {}, "'mean' has the shape"),
        ({"matrix": torch.ones(6)}, {}, "'matrix' of two axes"),
        ({"matrix": torch.full((6, 2), float("nan"))}, {}, "'matrix' holds NaN"),
        ({"bias": torch.full((1,), float("inf"))}, {}, "'bias' holds NaN"),
        ({"scale": torch.zeros(6)}, {}, "'scale' holds values that are not above 0"),
        ({"scale": -torch.ones(6)}, {}, "'scale' holds values that are not above 0"),
        ({"mean": torch.ones(6, dtype=torch.float16)}, {}, "holds float16"),
        ({}, {"classes": ["a", "b", "c"]}, "weights of 2 classes, its header the names of 3"),
        ({}, {"classes": ["a", "a"]}, "different class names"),
        ({}, {"classes": "ab"}, "different class names"),
        ({}, {"asks": "rows"}, "asked with 'rows'"),
        ({}, {"asks": "classes", "classes": []}, "names 0 classes"),
        ({}, {"asks": 5}, "asked with 5"),
        ({}, {"asks": ["rows"]}, "asked with"),
        ({}, {"weights_hash": None}, "no hash of the weights"),
        ({}, {"facts": [1]}, "description of its training"),
    ],
)
def test_a_damaged_explainer_is_refused_by_name(tensors: dict[str, Any], facts: dict[str, Any], what: str, tmp_path: Path) -> None:
    assert Explainer.load(stored(tmp_path / "sound.safetensors")).classes == ("a", "b")
    with pytest.raises(ConfigurationError, match=r"e\.safetensors' is damaged") as caught:
        Explainer.load(stored(tmp_path / "e.safetensors", tensors, facts))
    assert what in str(caught.value)


def test_an_explainer_of_another_width_is_refused(tmp_path: Path) -> None:
    """A file whose tensors fit each other may still not fit the tower whose hash it bears."""
    model = LinearBackbone()
    facts = {"classes": [], "asks": "texts", "weights_hash": model.weights_hash}
    path = stored(tmp_path / "e.safetensors", {}, facts)
    with pytest.raises(ConfigurationError, match="directions of 2 numbers"):
        Localizer(model).locate(photograph(), "red", method=f"lcam:{path}")
    tensors = {"matrix": torch.ones(5, 4), "query": torch.zeros(4), **{name: torch.ones(5) for name in ("vector", "mean", "scale")}}
    path = stored(tmp_path / "e.safetensors", tensors, facts)
    with pytest.raises(ConfigurationError, match="maps of 5 channels"):
        Localizer(model).locate(photograph(), "red", method=f"lcam:{path}")


@pytest.mark.parametrize("rows", [False, True])
def test_a_start_from_gradients_is_grad_cam(rows: bool, tmp_path: Path) -> None:
    """With nothing learned, the map before the sigmoid is Grad-CAM of the class's unit row, up to one factor and one offset."""
    files = class_folders(colour_folder(tmp_path / "data"))
    model = LinearBackbone()
    labels = [name for _, name in files]
    head = fit_head(image_embeddings(model, [path for path, _ in files]), labels, l2=0.01)
    prepared = [prepare(read_image(path), model.preprocess) for path, _ in files]
    training = LcamTraining(steps=1, batch_size=64, learning_rate=0.0, start="gradient")
    explainer = train_on_classes(model, head, prepared, labels, training, rows=rows)
    saved = explainer.save(tmp_path / "lcam.safetensors")
    cam = FinerCam(model, head)
    factors, spread = [], []
    for path, name in files:
        grad_cam = torch.einsum(
            "khw,dk,d->hw",
            model.feature_map(prepare(read_image(path), model.preprocess).batch).map[0],
            model.model.weight.detach(),
            torch.nn.functional.normalize(head.weight[head.index(name)], dim=0),
        ).numpy()
        raw = cam.explain(path, name, base=f"lcam-logit:{saved}").scores
        (factor, _), residuals = np.polyfit(grad_cam.ravel(), raw.ravel(), 1, full=True)[:2]
        assert float(residuals[0]) < 1e-8 * raw.size
        factors.append(factor)
        spread.append(raw.ravel())
        share = cam.explain(path, name, base=f"lcam:{saved}")
        np.testing.assert_allclose(share.scores, 1 / (1 + np.exp(-raw)), atol=1e-6)
        assert share.provenance.method.startswith("finer-cam/lcam:")
    np.testing.assert_allclose(factors, factors[0], rtol=1e-4)
    assert 0.7 < np.std(np.concatenate(spread)) < 1.4


def test_cells_that_fill_the_sigmoid_keep_their_order_before_it(tmp_path: Path) -> None:
    """In float32 a sigmoid is 1 from about 17 on: the peak among such cells is only known before it."""
    localizer = Localizer(LinearBackbone())
    explainer = train_on_concepts(localizer, coloured(3), LcamTraining(steps=1))
    large = Explainer(**{name: getattr(explainer, name) for name in ("kind", "matrix", "vector", "query", "mean", "scale", "weights_hash")},
                      bias=torch.tensor([200.0]))  # fmt: skip
    path = large.save(tmp_path / "full.safetensors")
    full = localizer.locate(photograph(3, (32, 32)), "red", method=f"lcam:{path}")
    raw = localizer.locate(photograph(3, (32, 32)), "red", method=f"lcam-logit:{path}")
    assert (full.scores == 1).all()
    assert len(np.unique(raw.scores)) == raw.scores.size
    assert raw.provenance.method.startswith("lcam-logit-fm:")


def test_each_start_has_its_own_defaults() -> None:
    assert (LcamTraining().learning_rate, LcamTraining().area) == (3e-3, 2.0)  # The second is the paper's.
    assert (LcamTraining(start="gradient").learning_rate, LcamTraining(start="gradient").area) == (3e-4, 0.5)
    assert (LcamTraining(start="gradient", learning_rate=0.0, area=0.0).learning_rate, LcamTraining(area=0.0).area) == (0.0, 0.0)
    with pytest.raises(ConfigurationError, match="start of training"):
        LcamTraining(start="zero")


@pytest.mark.parametrize("values", [{"learning_rate": float("nan")}, {"learning_rate": -0.1}, {"area": float("inf")}, {"area": -1.0}])
def test_numbers_with_which_nothing_is_trained_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="learning_rate"):
        LcamTraining(**values)
