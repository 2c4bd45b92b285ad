"""Image classifiers as towers: every cut gives the network's own logits, every checkpoint is right or refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from concept_cam.backbones import load
from concept_cam.backbones.cnn_classifier import CnnClassifier, Cut
from concept_cam.backbones.loading.classifiers import class_list, from_classifier, imagenet_names, imagenet_synsets, read_class_names
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.torchvision_compat import import_transformers, prepare_torchvision
from concept_cam.core.errors import ConfigurationError, ModelError, UnsupportedModelError
from concept_cam.localizer import Localizer
from concept_cam.pictures.preprocessing import Preprocess
from tests.backbones.models import randomise
from tests.methods.models import untouched

prepare_torchvision()
timm = pytest.importorskip("timm")
torchvision = pytest.importorskip("torchvision")


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    library, _, name = kind.partition(":")
    if library == "timm":
        extra = {"img_size": 64} if name.startswith("vit") else {}
        return randomise(timm.create_model(name, pretrained=False, num_classes=7, **extra).eval())
    if library == "torchvision":
        if name == "vit":
            vit = torchvision.models.VisionTransformer(
                image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=48, num_classes=7
            )
            return randomise(vit.eval())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet's initial weights.
            return getattr(torchvision.models, name)(num_classes=7).eval()
    transformers = import_transformers()
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "num_labels": 7}
    models = {
        "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(intermediate_size=48, patch_size=16, **small)),
        "deit": lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(intermediate_size=48, patch_size=16, **small)),
        "dinov2": lambda: transformers.Dinov2ForImageClassification(transformers.Dinov2Config(patch_size=16, **small)),
        "resnet": lambda: transformers.ResNetForImageClassification(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_labels=7)
        ),
        "swin": lambda: transformers.SwinForImageClassification(
            transformers.SwinConfig(
                image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=2, num_labels=7
            )
        ),
        "mobilenet": lambda: transformers.MobileNetV2ForImageClassification(
            transformers.MobileNetV2Config(image_size=64, depth_multiplier=0.35, num_labels=7)
        ),
        "siglip": lambda: transformers.SiglipForImageClassification(
            transformers.SiglipConfig(vision_config={**small, "intermediate_size": 48, "patch_size": 16}, num_labels=7)
        ),
        "convnext": lambda: transformers.ConvNextForImageClassification(
            transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_labels=7)
        ),
    }
    return randomise(models[name]().eval())


KINDS = (
    "timm:resnet18", "timm:tf_efficientnet_lite0", "timm:convnext_atto", "timm:vgg11", "timm:vit_tiny_patch16_224",
    "timm:vit_base_patch16_siglip_224", "timm:resnetv2_50",
    "torchvision:shufflenet_v2_x0_5", "torchvision:mnasnet0_5", "torchvision:googlenet", "transformers:swin", "transformers:mobilenet",
    "transformers:siglip",
    "torchvision:resnet18", "torchvision:mobilenet_v2", "torchvision:convnext_tiny", "torchvision:densenet121", "torchvision:vit",
    "transformers:vit", "transformers:deit", "transformers:dinov2", "transformers:resnet", "transformers:convnext",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_give_the_networks_own_logits(kind: str) -> None:
    network = make(kind)
    expected = Preprocess((64, 64), (32, 32), (0.5,) * 3, (0.5,) * 3)
    with untouched(network):
        tower = from_classifier(network, name=kind, preprocess=expected)
        assert isinstance(tower, Backbone)
        assert tower.own_head is not None
        assert len(tower.own_head.classes) == 7
        pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            own = network(pixels)
            own = own if isinstance(own, torch.Tensor) else own.logits
            for layer in tower.layers:
                image = tower.pool(tower.feature_map(pixels, None, layer))
                found = image @ tower.own_head.weight.T + tower.own_head.bias
                torch.testing.assert_close(found, own, atol=1e-4 * float(own.abs().max()) + 1e-6, rtol=1e-4)
            torch.testing.assert_close(
                tower.encode_image(pixels) @ tower.own_head.weight.T + tower.own_head.bias, found, atol=1e-4, rtol=1e-3
            )
    with pytest.raises(ConfigurationError, match="layer"):
        tower.feature_map(pixels, None, "layer3")
    with pytest.raises(UnsupportedModelError, match="no text tower"):
        tower.encode_text(["a fish"])


@pytest.mark.parametrize("kind", ["timm:resnet18", "timm:convnext_atto", "torchvision:vit", "transformers:dinov2"])
def test_padding_is_left_out(kind: str) -> None:
    """The pooled embedding of a padded picture does not depend on what the map holds in the padding."""
    tower = from_classifier(make(kind), preprocess=Preprocess((64, 64), (32, 32), (0.5,) * 3, (0.5,) * 3))
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    valid = torch.ones(1, *tower.grid_size((64, 64)), dtype=torch.bool)
    valid[:, -1] = False
    from dataclasses import replace

    for layer in tower.layers:
        features = tower.feature_map(pixels, valid, layer)
        other = features.map.clone()
        other[:, :, -1] = 5.0
        with torch.no_grad():
            torch.testing.assert_close(tower.pool(replace(features, map=other)), tower.pool(features), atol=1e-5, rtol=1e-4)


def test_class_names(tmp_path: Path) -> None:
    names, synsets = imagenet_names(), imagenet_synsets()
    assert len(set(names)) == len(synsets) == 1000
    assert (names[0], synsets[0]) == ("tench", "n01440764")
    assert {names[134], names[517]} == {"crane (n02012849)", "crane (n03126707)"}
    assert class_list(["a, b", "a, c", "d, e"]) == ("a, b", "a, c", "d")
    network = make("timm:resnet18")
    assert from_classifier(network).own_head.classes[2] == "class 2"
    given = from_classifier(network, classes=list("abcdefg"))
    assert given.own_head.classes == tuple("abcdefg")
    with pytest.raises(ConfigurationError, match="7 classes"):
        from_classifier(network, classes=["a", "b"])
    with pytest.raises(ConfigurationError, match="7 classes; received 1 class names"):
        from_classifier(network, classes="abcdefg")  # a name, and not seven of one letter
    labelled = make("transformers:vit")
    labelled.config.id2label = {index: f"bird {index}, Avis" for index in range(7)}
    assert from_classifier(labelled).own_head.classes[3] == "bird 3"
    (tmp_path / "names.txt").write_text("# two\nred\n\nblue\n", encoding="utf-8")
    assert read_class_names(tmp_path / "names.txt") == ("red", "blue")


def test_networks_that_cannot_be_read() -> None:
    with pytest.raises(UnsupportedModelError, match="no spatial map"):
        from_classifier(timm.create_model("mixer_s32_224", pretrained=False, num_classes=7).eval())
    with pytest.raises(UnsupportedModelError, match="do not divide"):
        from_classifier(torchvision.models.alexnet(num_classes=7).eval())
    with pytest.raises(UnsupportedModelError, match="Known"):
        from_classifier(nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 4)).eval())
    with pytest.raises(ModelError, match="training mode"):
        from_classifier(torchvision.models.resnet18(num_classes=7).train())
    for given in ("resnet18", None):
        with pytest.raises(ConfigurationError, match=f"a network that is built, received {given!r}.*backbones.load"):
            from_classifier(given)  # type: ignore[arg-type]


def test_a_network_cut_by_hand() -> None:
    """What no reader knows can be given in parts."""
    body, linear = nn.Sequential(nn.Conv2d(3, 5, 8, 8), nn.ReLU()), nn.Linear(5, 3)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.linear = body, linear

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.body(x).mean(dim=(2, 3)))

    network = Network().eval()
    cut = Cut(body, lambda cells: cells.mean(dim=(2, 3)), linear)
    tower = CnnClassifier(
        network, cut, name="mine", preprocess=Preprocess((32, 32), (8, 8), (0.5,) * 3, (0.5,) * 3), classes=("a", "b", "c")
    )
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found = tower.pool(tower.feature_map(pixels)) @ linear.weight.T + linear.bias
        torch.testing.assert_close(found, network(pixels))


# ------------------------------------------------------------------------------------------------------------ checkpoints


@pytest.fixture(scope="module")
def network() -> Any:
    return randomise(timm.create_model("resnet18", pretrained=False).eval())


def test_checkpoints_that_fit(network: Any, tmp_path: Path) -> None:
    state = network.state_dict()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        own = network(pixels)

    def logits(name: str) -> torch.Tensor:
        tower = load(name)
        assert tower.own_head is not None
        with torch.no_grad():
            return tower.encode_image(pixels) @ tower.own_head.weight.T + tower.own_head.bias

    torch.save({"epoch": torch.tensor(3), "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "wrapped.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.testing.assert_close(logits(f"timm:resnet18,{tmp_path / 'wrapped.pth'}"), own, atol=1e-4, rtol=1e-4)
    foreign = {f"net.{number}": value for number, value in enumerate(state.values())}
    torch.save(foreign, tmp_path / "foreign.pth")
    with pytest.warns(UserWarning, match="one for one in order and shape"):
        found = logits(f"timm:resnet18,{tmp_path / 'foreign.pth'}")
    torch.testing.assert_close(found, own, atol=1e-4, rtol=1e-4)
    few = timm.create_model("resnet18", pretrained=False, num_classes=5).eval()
    torch.save(few.state_dict(), tmp_path / "few.pth")
    tower = load(f"timm:resnet18,{tmp_path / 'few.pth'}")
    assert tower.own_head.classes == tuple(f"class {index}" for index in range(5))


def test_checkpoints_that_do_not_fit(network: Any, tmp_path: Path) -> None:
    state = network.state_dict()
    keys = list(state)

    def refused(changed: dict[str, Any], match: str) -> None:
        torch.save(changed, tmp_path / "bad.pth")
        with pytest.raises(ModelError, match=match):
            load(f"timm:resnet18,{tmp_path / 'bad.pth'}")

    refused({f"x{key}": value for key, value in state.items() if key != keys[-1]}, "does not fit")
    swapped = [*keys[:-2], keys[-1], keys[-2]]
    refused({f"x.{key}": state[key] for key in swapped}, "does not fit")
    refused({**state, "extra": torch.zeros(1)}, "foreign")
    refused({**state, keys[0]: torch.zeros(3, 3)}, "another shape")
    refused({"a": 1}, "tensors by name")
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(ModelError, match="more than tensors"):
        load(f"timm:resnet18,{tmp_path / 'whole.pth'}")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    for name, match in (
        (f"timm:resnet18,{tmp_path / 'broken.safetensors'}", "cannot read"),
        (f"timm:resnet18,{tmp_path / 'missing.pth'}", "does not exist"),
        ("timm:resnet18,package:no_such_package_at_all", "not installed"),
        ("timm:resnet18,package:numpy", "one file of weights"),
        ("timm:resnet18,", "behind the comma"),
        ("timm:resnet81", "Did you mean"),
    ):
        with pytest.raises(ModelError, match=match):
            load(name)


def test_questions_in_words_are_refused(network: Any, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(UnsupportedModelError, match="no text tower"):
        Localizer.from_pretrained(f"timm:resnet18,{tmp_path / 'weights.pth'}")


def test_a_transformer_built_for_another_size_reads_that_size() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=3, img_size=56, embed_dim=32, depth=1, num_heads=2)
    backbone = from_classifier(model.eval(), name="small")
    assert backbone.preprocess.size == (56, 56)
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.encode_image(pixels), model.forward_head(model.forward_features(pixels), pre_logits=True), atol=1e-5, rtol=1e-5
        )
