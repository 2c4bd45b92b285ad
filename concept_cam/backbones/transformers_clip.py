"""CLIP of the transformers library, and the models whose image tower is CLIP's: MetaCLIP 2, AltCLIP, ChineseCLIP, FG-CLIP.

They differ in their text towers and tokenizers, see :mod:`concept_cam.backbones.loading.transformers_text`. FG-CLIP's own reading of its
patches, each with its value alone, residual and feed-forward network kept, is the strategy ``value+residual+ffn``.
"""

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
    """Reads ``CLIPModel`` and its kin; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model.
        name: Name of the model.
        family: Key of :data:`~concept_cam.backbones.FAMILIES`.
        preprocess: What the input must look like.
        text: The text tower.
    """

    prefix = 1
    class_token = True

    def __init__(self, model: nn.Module, *, name: str, family: str, preprocess: Preprocess, text: TextEncoder) -> None:
        any_model: Any = model
        self._vision = any_model.vision_model
        self._projection = any_model.visual_projection
        self.blocks = [TransformersBlock(layer) for layer in self._vision.encoder.layers]
        super().__init__(
            model,
            name=name,
            family=family,
            preprocess=preprocess,
            text=text,
            embed_dim=int(self._projection.out_features),
            attentions=ALL_ATTENTIONS,
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
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

    def own_embedding_at(self, pixels: Tensor) -> Tensor | None:
        model: Any = self.model
        return pooled(model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True))


FAMILY_OF: dict[str, str] = {
    "clip": "transformers-clip",
    "fgclip": "fg-clip",
    "metaclip_2": "metaclip-2",
    "altclip": "altclip",
    "chinese_clip": "chinese-clip",
}
"""Kind of a model (see :func:`kind_of`) -> family."""


def kind_of(config: Any) -> str:
    """Returns the model type, or ``"fgclip"`` for an FG-CLIP: a CLIP with further parts, whose folder says CLIP's model type."""
    kind = str(config.model_type)
    return "fgclip" if kind == "clip" and "FGCLIPModel" in (getattr(config, "architectures", None) or ()) else kind


def read(made: Made) -> TransformersClip:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    model: Any = made.model
    vision = model.config.vision_config
    preprocess = made.preprocess(vision.image_size, int(vision.patch_size))
    return TransformersClip(made.model, name=made.name, family=FAMILY_OF[kind_of(model.config)], preprocess=preprocess, text=made.words)
