"""Image classifiers that end in a map: convolutional and window networks of timm, torchvision and transformers, with their own last layer.

A network is cut in three: what makes the last map, what makes one vector of it, and the linear layer over the classes. The parts are the
network's own modules, called in its own order; nothing is hooked. That the cut gives the network's own logits is checked when it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_cam.backbones.made import Made
from concept_cam.backbones.own_head import OwnHead
from concept_cam.backbones.spatial import SpatialBackbone
from concept_cam.backbones.text import NoText
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.core.quiet import quiet
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["CnnClassifier", "CnnFeatures", "Cut", "cut_network", "read"]


@dataclass(frozen=True)
class Cut:
    """A network cut at its last map.

    Attributes:
        trunk: Pixels [B, 3, H, W] -> the last map [B, K, h, w].
        rest: That map -> the embedding [B, D] that the linear layer reads.
        linear: The linear layer; ``None`` for networks that end in the embedding.
        averages: Whether ``rest`` begins with the mean over the map, so that padding can be left out of it and a cell can stand for a
            picture.
    """

    trunk: Callable[[Tensor], Tensor]
    rest: Callable[[Tensor], Tensor]
    linear: nn.Linear | None
    averages: bool = True


class CnnFeatures(SpatialBackbone):
    """Reads a network that was cut at its last map; see :class:`concept_cam.backbones.protocol.Backbone`. It has no text tower.

    Where the network does not begin its head with a mean (VGG), padding cannot be left out: it is read as the mean colour.

    Args:
        model: The whole network, in evaluation mode.
        cut: Its parts.
        name: Name of the model.
        family: Key of :data:`~concept_cam.backbones.FAMILIES`.
        preprocess: What the input must look like.
        stride: ``(y, x)`` pixels per cell; ``None``: that of ``preprocess``.
        embed_dim: Width of the embedding; ``None``: counted from the cut.
    """

    def __init__(
        self,
        model: nn.Module,
        cut: Cut,
        *,
        name: str,
        family: str,
        preprocess: Preprocess,
        stride: tuple[int, int] | None = None,
        embed_dim: int | None = None,
    ) -> None:
        self._cut = cut
        super().__init__(
            model,
            name=name,
            family=family,
            preprocess=preprocess if stride is None else replace(preprocess, stride=stride),
            text=NoText(name),
            embed_dim=embed_dim or _width(model, cut, preprocess.size),
            attentions=("vanilla",),
        )

    @property
    def averages(self) -> bool:  # type: ignore[override]
        """Whether padding can be left out."""
        return self._cut.averages

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return self.rest(self.cells(pixels))

    def cells(self, pixels: Tensor) -> Tensor:
        return self._cut.trunk(pixels)

    def rest(self, cells: Tensor) -> Tensor:
        return self._cut.rest(cells)

    def head(self, pooled: Tensor) -> Tensor:
        return self._cut.rest(pooled[:, :, None, None])

    def _check_cells(self) -> None:
        if not self._cut.averages:
            raise UnsupportedModelError(
                f"{self.name} does not average its last map, so a single cell has no embedding: use a CAM method such as 'grad-cam'."
            )


class CnnClassifier(CnnFeatures):
    """Reads a classifier that was cut at its last map, with its own last layer.

    Args:
        model: The whole network, in evaluation mode.
        cut: Its parts.
        name: Name of the model.
        preprocess: What the input must look like.
        classes: Names of its classes.
    """

    def __init__(self, model: nn.Module, cut: Cut, *, name: str, preprocess: Preprocess, classes: tuple[str, ...]) -> None:
        linear = cut.linear
        assert linear is not None
        super().__init__(model, cut, name=name, family="cnn-classifier", preprocess=preprocess, embed_dim=linear.in_features)
        bias = linear.weight.new_zeros(len(classes)) if linear.bias is None else linear.bias
        self.own_head = OwnHead(linear.weight, bias, classes)


@quiet(graph=False)
def _width(model: nn.Module, cut: Cut, size: tuple[int, int]) -> int:
    return int(cut.rest(cut.trunk(torch.zeros(1, 3, *size).to(next(model.parameters())))).shape[1])


# ------------------------------------------------------------------------------------------------------------ where to cut


def _as_linear(layer: Any) -> Any:
    """A 1 x 1 convolution over pooled channels is a linear layer: the same values in another shape. Other layers come back as they are."""
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size != (1, 1) or layer.groups != 1:
        return layer
    linear = nn.Linear(layer.in_channels, layer.out_channels, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach()[:, :, 0, 0], requires_grad=False)
    linear.bias = nn.Parameter(
        layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.detach(), requires_grad=False
    )
    return linear.eval()


def _mean(cells: Tensor) -> Tensor:
    return cells.mean(dim=(2, 3))


def _timm(model: Any) -> Cut | None:
    if not all(hasattr(model, name) for name in ("forward_features", "forward_head", "get_classifier")):
        return None
    last_layer = _as_linear(model.get_classifier())
    if not isinstance(last_layer, nn.Linear | nn.Identity):
        raise UnsupportedModelError(f"the classifier of this timm network is a {type(last_layer).__name__}, not a linear layer.")
    linear = last_layer if isinstance(last_layer, nn.Linear) else None
    last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def trunk(pixels: Tensor) -> Tensor:
        x = model.forward_features(pixels)
        return cast("Tensor", x.permute(0, 3, 1, 2) if last and x.ndim == 4 else x)

    def rest(cells: Tensor) -> Tensor:
        x = model.forward_head(cells.permute(0, 2, 3, 1) if last else cells, pre_logits=True)
        return cast("Tensor", x.flatten(1))

    head = getattr(model, "head", None)
    pooling = getattr(head, "global_pool", None) or getattr(model, "global_pool", None)
    kind = pooling if isinstance(pooling, str) else getattr(head, "pool_type", None) or getattr(pooling, "pool_type", None)
    return Cut(trunk, rest, linear, kind in ("avg", "fast", "fastavg"))


_CHAINS: dict[str, tuple[str, ...]] = {
    "ShuffleNetV2": ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    "MNASNet": ("layers",),
    "GoogLeNet": (
        "conv1", "maxpool1", "conv2", "conv3", "maxpool2", "inception3a", "inception3b", "maxpool3", "inception4a", "inception4b",
        "inception4c", "inception4d", "inception4e", "maxpool4", "inception5a", "inception5b",
    ),
}  # fmt: skip
"""torchvision's networks that are a chain of modules, a mean and a linear layer."""


def _torchvision(model: Any) -> Cut | None:
    if not type(model).__module__.startswith("torchvision."):
        return None
    if all(hasattr(model, name) for name in ("layer4", "avgpool", "fc")):  # ResNet, ResNeXt, Wide ResNet

        def trunk(pixels: Tensor) -> Tensor:
            x = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
            return cast("Tensor", model.layer4(model.layer3(model.layer2(model.layer1(x)))))

        return Cut(trunk, lambda cells: model.avgpool(cells).flatten(1), model.fc)
    if all(hasattr(model, name) for name in ("stem", "trunk_output", "avgpool", "fc")):  # RegNet
        return Cut(lambda pixels: model.trunk_output(model.stem(pixels)), lambda cells: model.avgpool(cells).flatten(1), model.fc)
    if all(hasattr(model, name) for name in ("features", "norm", "permute", "avgpool", "head")):  # Swin
        return Cut(
            lambda pixels: model.permute(model.norm(model.features(pixels))),
            lambda cells: model.avgpool(cells).flatten(1),
            model.head,
        )
    kind = type(model).__name__
    if kind in _CHAINS:

        def chain(pixels: Tensor) -> Tensor:
            x = model._transform_input(pixels) if hasattr(model, "_transform_input") else pixels
            for name in _CHAINS[kind]:
                x = getattr(model, name)(x)
            return cast("Tensor", x)

        return Cut(chain, _mean, model.fc if hasattr(model, "fc") else model.classifier[-1])
    if kind == "DenseNet":
        return Cut(
            lambda pixels: torch.relu(model.features(pixels)),
            lambda cells: torch.nn.functional.adaptive_avg_pool2d(cells, 1).flatten(1),
            model.classifier,
        )
    sequence = list(getattr(model, "classifier", None) or [])
    if not hasattr(model, "features") or not sequence or not isinstance(sequence[-1], nn.Linear):
        return None
    if kind == "MobileNetV2":
        return Cut(model.features, lambda cells: torch.nn.functional.adaptive_avg_pool2d(cells, 1).flatten(1), sequence[-1])
    before = sequence[:-1]

    def rest(cells: Tensor) -> Tensor:
        x = model.avgpool(cells)
        x = x if kind == "ConvNeXt" else x.flatten(1)  # Its classifier begins with a norm over channels and flattens itself.
        for module in before:
            x = module(x)
        return cast("Tensor", x)

    return Cut(model.features, rest, sequence[-1], averages=getattr(model.avgpool, "output_size", None) == 1)


_TRANSFORMERS: dict[str, tuple[str, str, str]] = {
    "resnet": ("resnet", "embedder", "pooler"),
    "regnet": ("regnet", "embedder", "pooler"),
    "convnext": ("convnext", "embeddings", "layernorm"),
    "convnextv2": ("convnextv2", "embeddings", "layernorm"),
}
"""Model types of the transformers library: attributes of the body, of its first part, and of what follows the encoder."""


_BODIES: dict[str, tuple[str, bool]] = {
    "mobilenet_v1": ("mobilenet_v1", False),
    "mobilenet_v2": ("mobilenet_v2", False),
    "siglip": ("vision_model", True),
    "swin": ("swin", True),
    "swinv2": ("swinv2", True),
}
"""Model types whose body gives what the mean is taken of: attribute of the body, and whether that is a row of tokens."""


def _whole_body(model: Any, body: Any, tokens: bool) -> Cut:
    def trunk(pixels: Tensor) -> Tensor:
        if not tokens:
            return cast("Tensor", body(pixels).last_hidden_state)
        x = body(pixels, interpolate_pos_encoding=True).last_hidden_state
        high, wide = pixels.shape[2:]
        rows = round((x.shape[1] * high / wide) ** 0.5)
        return cast("Tensor", x.transpose(1, 2).unflatten(2, (rows, x.shape[1] // rows)))

    linear = model.classifier if isinstance(model.classifier, nn.Linear) else list(model.classifier)[-1]
    return Cut(trunk, _mean, linear)


def _transformers(model: Any) -> Cut | None:
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind in _BODIES and hasattr(model, "classifier"):
        return _whole_body(model, getattr(model, _BODIES[kind][0]), _BODIES[kind][1])
    if kind not in _TRANSFORMERS or not hasattr(model, "classifier"):
        return None
    body_name, first, after = _TRANSFORMERS[kind]
    body = getattr(model, body_name)
    linear = model.classifier if isinstance(model.classifier, nn.Linear) else model.classifier[-1]

    def trunk(pixels: Tensor) -> Tensor:
        return cast("Tensor", body.encoder(getattr(body, first)(pixels)).last_hidden_state)

    def rest(cells: Tensor) -> Tensor:
        if after == "pooler":
            return cast("Tensor", body.pooler(cells).flatten(1))
        return cast("Tensor", body.layernorm(cells.mean(dim=(2, 3))))

    return Cut(trunk, rest, linear)


CNN_READERS: tuple[Callable[[Any], Cut | None], ...] = (_timm, _torchvision, _transformers)
"""Whose networks are known; asked in this order."""


def cut_network(model: nn.Module, size: tuple[int, int], name: str) -> tuple[Cut, tuple[int, int]]:
    """Finds where a network is to be cut, and checks that the parts give its own logits.

    Args:
        model: The network, in evaluation mode.
        size: ``(H, W)`` of its input.
        name: Its name, for messages.

    Returns:
        The cut, and ``(y, x)`` pixels per cell of the map.

    Raises:
        UnsupportedModelError: No reader knows the network, its last layer is not linear, or its map does not divide the picture evenly.
    """
    found = next((cut for cut in (reader(model) for reader in CNN_READERS) if cut is not None), None)
    kind = f"{type(model).__module__.partition('.')[0]} {type(model).__name__}"
    if found is None or not isinstance(found.linear, nn.Linear | None):
        raise UnsupportedModelError(
            f"{name}: no spatial map can be read from the network {kind}. Known: timm networks, torchvision's ResNet, RegNet, "
            "DenseNet, VGG, MobileNet, EfficientNet, ConvNeXt, Swin, ViT, ShuffleNet, MNASNet and GoogLeNet, transformers' ResNet, RegNet, "
            "ConvNeXt, MobileNet, Swin, ViT, DeiT, DINOv2 and SigLIP classifiers; for another network give its parts: CnnClassifier(model, "
            "Cut(trunk, rest, linear), ...)."
        )
    parameter = next(model.parameters())
    with quiet(graph=False):
        pixels = torch.linspace(-1, 1, 3 * size[0] * size[1], dtype=torch.float32).reshape(1, 3, *size).to(parameter)
        cells = found.trunk(pixels)
        if cells.ndim != 4 or min(cells.shape[2:]) < 2:
            raise UnsupportedModelError(f"{name}: the network {kind} has no spatial map: its last features have shape {list(cells.shape)}.")
        grid = (cells.shape[2], cells.shape[3])
        if size[0] % grid[0] or size[1] % grid[1]:
            raise UnsupportedModelError(
                f"{name}: the {grid[0]} x {grid[1]} cells of the last map do not divide a picture of {size[0]} x {size[1]} pixels "
                "evenly, so "
                "their places in the picture are not known."
            )
        embedding = found.rest(cells)
        logits = embedding if found.linear is None else found.linear(embedding)
        own = model(pixels)
        own = own if isinstance(own, Tensor) else own.logits
        if own.shape != logits.shape or not torch.allclose(
            own.float(), logits.float(), atol=1e-3 * max(1.0, float(own.abs().max())), rtol=1e-3
        ):
            raise UnsupportedModelError(f"{name}: the network {kind} computes more than its map, its pooling and its last layer.")
    return found, (size[0] // grid[0], size[1] // grid[1])


def read(made: Made) -> CnnClassifier:
    """Reads a loaded network; see :class:`concept_cam.backbones.Family`. Its options hold ``classes`` and how its input must look,
    ``preprocess``.
    """
    expected: Preprocess = made.options["preprocess"]
    cut, stride = cut_network(made.model, expected.size, made.name)
    if cut.linear is None:
        raise UnsupportedModelError(f"{made.name} ends without a classifier.")
    classes = made.options["classes"](cut.linear.out_features)
    return CnnClassifier(made.model, cut, name=made.name, preprocess=replace(expected, stride=stride), classes=classes)
