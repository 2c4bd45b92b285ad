"""Vision transformers that classify: of timm, torchvision and transformers, each with its own last layer as the head.

The image embedding is what the last linear layer reads. They have no text tower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_cam.backbones.common import resize_positions
from concept_cam.backbones.dinov2 import Dinov2
from concept_cam.backbones.made import Made
from concept_cam.backbones.open_clip_vit import OpenClipBlock
from concept_cam.backbones.own_head import OwnHead
from concept_cam.backbones.text import NoText
from concept_cam.backbones.timm_vit import TRUNKS, TimmViT
from concept_cam.backbones.tokens import ALL_ATTENTIONS, Block, Embedded, TokenBackbone, merge_heads
from concept_cam.backbones.transformers_block import TransformersBlock
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["Dinov2Classifier", "TimmViTClassifier", "TorchvisionViT", "TransformersViT", "read", "reader_of"]


def _own(linear: Any, classes: tuple[str, ...], name: str) -> OwnHead:
    if not isinstance(linear, nn.Linear):
        raise UnsupportedModelError(f"{name}: the last layer is a {type(linear).__name__}, not a linear layer.")
    bias = linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
    return OwnHead(linear.weight, bias, classes)


def _number(model: Any, name: str) -> int:
    return int(getattr(model, name))


class TimmViTClassifier(TimmViT):
    """Reads timm's ``VisionTransformer`` or ``Eva`` with its own classifier."""

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, classes: tuple[str, ...]) -> None:
        super().__init__(model, name=name, preprocess=preprocess, text=NoText(name), embed_dim=_number(model, "num_features"))
        self.own_head = _own(self._trunk.get_classifier(), classes, name)

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast("Tensor", self._trunk.forward_head(self._trunk.forward_features(pixels), pre_logits=True))

    def _head(self, pooled: Tensor) -> Tensor:
        return cast("Tensor", self._trunk.fc_norm(pooled))


class _TorchvisionBlock(OpenClipBlock):
    """An ``EncoderBlock`` of torchvision: the parts of open_clip's block under other names."""

    def __init__(self, block: nn.Module) -> None:
        module: Any = block
        self._block = module
        self._attention = module.self_attention
        self._heads = int(self._attention.num_heads)
        self.scale = (self._attention.embed_dim // self._heads) ** -0.5

    def output(self, context: Tensor) -> Tensor:
        return cast("Tensor", self._attention.out_proj(merge_heads(context)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._block.mlp(self._block.ln_2(x)))


class _PlainViT(TokenBackbone):
    """What torchvision's and transformers' class-token transformers share."""

    prefix = 1
    class_token = True

    def __init__(
        self, model: nn.Module, blocks: Sequence[Block], linear: Any, name: str, preprocess: Preprocess, classes: tuple[str, ...]
    ) -> None:
        self.blocks = list(blocks)
        super().__init__(
            model,
            name=name,
            family="vit-classifier",
            preprocess=preprocess,
            text=NoText(name),
            embed_dim=int(linear.in_features),
            attentions=ALL_ATTENTIONS,
        )
        self.own_head = _own(linear, classes, name)

    def project_patches(self, patches: Tensor) -> Tensor:
        return self._finish(self.settle(patches))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        return self._finish(settled[:, 0])

    def _finish(self, pooled: Tensor) -> Tensor:
        return pooled

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return self.pool(self._feature_map(pixels, None))


class TorchvisionViT(_PlainViT):
    """Reads ``torchvision.models.VisionTransformer``."""

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, classes: tuple[str, ...]) -> None:
        vit: Any = model
        self._vit = vit
        super().__init__(model, [_TorchvisionBlock(block) for block in vit.encoder.layers], vit.heads[-1], name, preprocess, classes)

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        vit = self._vit
        patches = vit.conv_proj(pixels)
        grid = (patches.shape[2], patches.shape[3])
        side = vit.image_size // vit.patch_size
        table = vit.encoder.pos_embedding[0]
        table = torch.cat([table[:1], resize_positions(table[1:], (side, side), grid)])
        token = vit.class_token.expand(len(patches), -1, -1)
        return Embedded(torch.cat([token, patches.flatten(2).transpose(1, 2)], dim=1) + table, grid)

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._vit.encoder.ln(tokens))

    def _finish(self, pooled: Tensor) -> Tensor:
        for module in list(self._vit.heads)[:-1]:
            pooled = module(pooled)
        return pooled


class _TransformersViTBlock(TransformersBlock):
    """A ``ViTLayer``."""

    family = "transformers ViT"

    def norm(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.layernorm_before(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        layer = self._layer
        normed = layer.layernorm_after(x)
        return cast("Tensor", layer.mlp(normed) if hasattr(layer, "mlp") else layer.output.dense(layer.intermediate(normed)))


class TransformersViT(_PlainViT):
    """Reads ``ViTForImageClassification`` and ``DeiTForImageClassification``."""

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, classes: tuple[str, ...]) -> None:
        any_model: Any = model
        body = any_model.vit if hasattr(any_model, "vit") else any_model.deit
        self._body: Any = body
        self.prefix = int(body.embeddings.position_embeddings.shape[1]) - int(body.embeddings.patch_embeddings.num_patches)
        layers = body.layers if hasattr(body, "layers") else body.encoder.layer
        heads = int(any_model.config.num_attention_heads)
        super().__init__(model, [_TransformersViTBlock(layer, heads) for layer in layers], any_model.classifier, name, preprocess, classes)

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        embeddings = self._body.embeddings
        patches = embeddings.patch_embeddings.projection(pixels)
        grid = (patches.shape[2], patches.shape[3])
        native = tuple(side // step for side, step in zip(self.preprocess.size, self.preprocess.stride))
        table = embeddings.position_embeddings[0]
        positions = resize_positions(table[self.prefix :], (native[0], native[1]), grid)
        extra = [embeddings.cls_token, *([embeddings.distillation_token] if self.prefix > 1 else [])]
        tokens = [token.expand(len(patches), -1, -1) for token in extra]
        tokens.append(patches.flatten(2).transpose(1, 2))
        return Embedded(torch.cat(tokens, dim=1) + torch.cat([table[: self.prefix], positions]), grid)

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._body.layernorm(tokens))


class Dinov2Classifier(Dinov2):
    """Reads ``Dinov2ForImageClassification``: its layer takes the class token and the mean of the patch tokens side by side."""

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, classes: tuple[str, ...]) -> None:
        any_model: Any = model
        super().__init__(any_model.dinov2, name=name, pooling="mean")
        self.model = model
        self.preprocess = preprocess
        self.embed_dim *= 2
        self.own_head = _own(any_model.classifier, classes, name)

    def project_patches(self, patches: Tensor) -> Tensor:
        """A patch alone stands for the mean; its share of the class token is none."""
        normed = self._tower.layernorm(patches)
        return torch.cat([torch.zeros_like(normed), normed], dim=-1)

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        return torch.cat([settled[:, 0], super().pool_tokens(settled, keys)], dim=-1)

    def own_embedding(self, pixels: Tensor) -> Tensor:
        tokens = self._tower(pixels).last_hidden_state
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=-1)


VIT_CLASSES: dict[str, Callable[..., TokenBackbone]] = {
    **{f"timm:{kind}": TimmViTClassifier for kind in TRUNKS},
    "torchvision:VisionTransformer": TorchvisionViT,
    "transformers:vit": TransformersViT,
    "transformers:deit": TransformersViT,
    "transformers:dinov2": Dinov2Classifier,
}
"""Library and class, or model type, of a network -> what reads it."""


def reader_of(model: nn.Module) -> Callable[..., TokenBackbone] | None:
    """Returns what reads a network; ``None`` where it is no vision transformer that is known here."""
    kind, library = type(model).__name__, type(model).__module__.partition(".")[0]
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    return VIT_CLASSES.get(f"transformers:{model_type}" if model_type and hasattr(model, "classifier") else f"{library}:{kind}")


def read(made: Made) -> TokenBackbone:
    """Reads a loaded network; see :class:`concept_cam.backbones.Family`. Its options hold ``classes`` and how its input must look,
    ``preprocess``.

    Raises:
        UnsupportedModelError: It is no vision transformer that is known here.
    """
    reader = reader_of(made.model)
    if reader is None:
        raise UnsupportedModelError(f"{made.name}: {type(made.model).__name__} is no vision transformer that is known here.")
    return reader(made.model, name=made.name, preprocess=made.options["preprocess"], classes=made.options["classes"](None))
