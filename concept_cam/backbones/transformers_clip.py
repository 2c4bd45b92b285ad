"""CLIP of the transformers library."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_cam.backbones.common import resize_positions
from concept_cam.backbones.made import Made
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import ALL_ATTENTIONS, Block, Embedded, TokenBackbone, merge_heads, split_heads
from concept_cam.pictures.preprocessing import Preprocess


class TransformersBlock(Block):
    """An encoder layer of the transformers library's CLIP, SigLIP and SigLIP2."""

    def __init__(self, layer: nn.Module) -> None:
        module: Any = layer
        self._layer = module
        self._heads = int(module.self_attn.num_heads)
        self.scale = float(module.self_attn.scale)

    def norm(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.layer_norm1(x))

    def project(self, normed: Tensor, which: str, rope: Tensor | None = None) -> tuple[Tensor, ...]:
        attention = self._layer.self_attn
        return tuple(split_heads(getattr(attention, f"{letter}_proj")(normed), self._heads) for letter in which)

    def output(self, context: Tensor) -> Tensor:
        return cast("Tensor", self._layer.self_attn.out_proj(merge_heads(context)))

    def feed_forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self._layer.mlp(self._layer.layer_norm2(x)))


def pooled(output: Any) -> Tensor:
    """Returns the embedding of ``get_image_features`` and ``get_text_features``: a tensor before transformers 5, an output object since."""
    return output if isinstance(output, Tensor) else output.pooler_output


class TransformersClip(TokenBackbone):
    """Reads ``CLIPModel``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
    """

    prefix = 1
    class_token = True

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        any_model: Any = model
        self._vision = any_model.vision_model
        self._projection = any_model.visual_projection
        self.blocks = [TransformersBlock(layer) for layer in self._vision.encoder.layers]
        super().__init__(
            model,
            name=name,
            family="transformers-clip",
            preprocess=preprocess,
            text=text,
            embed_dim=int(self._projection.out_features),
            attentions=ALL_ATTENTIONS,
        )

    def embed(self, pixels: Tensor) -> Embedded:
        embeddings = self._vision.embeddings
        cells = embeddings.patch_embedding(pixels)
        grid = (cells.shape[2], cells.shape[3])
        table = embeddings.position_embedding.weight
        side = int((len(table) - 1) ** 0.5)
        positions = torch.cat([table[:1], resize_positions(table[1:], (side, side), grid, antialias=False)])
        token = embeddings.class_embedding.to(cells.dtype).expand(len(cells), 1, -1)
        return Embedded(torch.cat([token, cells.flatten(2).transpose(1, 2)], dim=1) + positions, grid)

    def enter(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._vision.pre_layrnorm(tokens))

    def project_patches(self, patches: Tensor) -> Tensor:
        return cast("Tensor", self._projection(self._vision.post_layernorm(patches)))

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._vision.post_layernorm(tokens))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        return cast("Tensor", self._projection(settled[:, 0]))

    def own_embedding(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        return pooled(model.get_image_features(pixel_values=pixels))


def read(made: Made) -> TransformersClip:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    model: Any = made.model
    vision = model.config.vision_config
    preprocess = made.preprocess(vision.image_size, int(vision.patch_size))
    return TransformersClip(made.model, name=made.name, preprocess=preprocess, text=made.words)
