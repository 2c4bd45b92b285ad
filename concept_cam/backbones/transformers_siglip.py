"""SigLIP and SigLIP2 of the transformers library, of fixed size (``SiglipModel``) and NaFlex (``Siglip2Model``).

A NaFlex tower reads a picture at its own aspect: its position table is resized to the grid that the picture fills. Where a picture is
padded into a larger grid, the table covers the picture and not the padding, so that the tower sees what its own processor would show it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones.common import resize_positions
from concept_cam.backbones.made import Made
from concept_cam.backbones.protocol import BY_POOLING, FeatureMap, Gathering
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.tokens import ALL_ATTENTIONS, Embedded, TokenBackbone, map_tokens, merge_heads, project_attention, valid_tokens
from concept_cam.backbones.transformers_clip import TransformersBlock, pooled
from concept_cam.core.errors import UnsupportedModelError
from concept_cam.pictures.preprocessing import Preprocess


class TransformersSiglip(TokenBackbone):
    """Reads ``SiglipModel`` and ``Siglip2Model``; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.

    Raises:
        UnsupportedModelError: The model was made without its attention-pooling head.
    """

    prefix = 0
    class_token = False
    gathers = BY_POOLING

    def __init__(self, model: nn.Module, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        vision: Any = model.vision_model
        if getattr(vision, "head", None) is None:
            raise UnsupportedModelError(f"{name}: this SigLIP has no attention-pooling head, hence no image embedding.")
        self._vision = vision
        self._naflex = isinstance(vision.embeddings.patch_embedding, nn.Linear)
        self.blocks = [TransformersBlock(layer) for layer in vision.encoder.layers]
        super().__init__(
            model,
            name=name,
            family="transformers-siglip",
            preprocess=preprocess,
            text=text,
            embed_dim=int(vision.post_layernorm.normalized_shape[0]),
            attentions=ALL_ATTENTIONS,
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        embeddings = self._vision.embeddings
        table = embeddings.position_embedding.weight
        side = int(len(table) ** 0.5)
        if self._naflex:
            size = int(embeddings.patch_size)
            patches = embeddings.patch_embedding(_patchify(pixels, size))
            grid = (pixels.shape[2] // size, pixels.shape[3] // size)
            return Embedded(patches + self._naflex_positions(grid, valid), grid)
        cells = embeddings.patch_embedding(pixels)
        grid = (cells.shape[2], cells.shape[3])
        return Embedded(cells.flatten(2).transpose(1, 2) + resize_positions(table, (side, side), grid, antialias=False), grid)

    def _naflex_positions(self, grid: tuple[int, int], valid: Tensor | None) -> Tensor:
        """Returns position embeddings of a grid: [h * w, W], or [B, h * w, W] where each picture fills a rectangle of its own."""
        table = self._vision.embeddings.position_embedding.weight
        side = int(len(table) ** 0.5)
        if valid is None:
            return resize_positions(table, (side, side), grid, "bilinear")
        places = []
        for cells in valid:
            rows, columns = cells.any(dim=1).nonzero().flatten(), cells.any(dim=0).nonzero().flatten()
            (top, bottom), (left, right) = ((int(found[0]), int(found[-1]) + 1) for found in (rows, columns))
            own = resize_positions(table, (side, side), (bottom - top, right - left), "bilinear").unflatten(0, (bottom - top, right - left))
            places.append(F.pad(own, (0, 0, left, grid[1] - right, top, grid[0] - bottom)))
        return torch.stack(places).flatten(1, 2)

    def project_patches(self, patches: Tensor) -> Tensor:
        head = self._vision.head
        width = head.attention.embed_dim
        weight, bias = head.attention.in_proj_weight[2 * width :], head.attention.in_proj_bias[2 * width :]
        x = head.attention.out_proj(F.linear(self._vision.post_layernorm(patches), weight, bias))
        return cast("Tensor", x + head.mlp(head.layernorm(x)))

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._vision.post_layernorm(tokens))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        head = self._vision.head
        probe = head.probe.expand(len(settled), -1, -1)
        padding = None if keys is None else ~keys
        x = head.attention(probe, settled, settled, key_padding_mask=padding, need_weights=False)[0]
        return cast("Tensor", (x + head.mlp(head.layernorm(x)))[:, 0])

    def gathering(self, features: FeatureMap) -> Gathering:
        """See :meth:`concept_cam.backbones.protocol.Backbone.gathering`."""
        head = self._vision.head
        tokens = map_tokens(features, 0)
        query, key, value = project_attention(head.attention, head.probe.expand(len(tokens), -1, -1), tokens)

        def finish(context: Tensor) -> Tensor:
            x = head.attention.out_proj(merge_heads(context))
            return cast("Tensor", (x + head.mlp(head.layernorm(x)))[:, 0])

        return Gathering(query, key, value, float(query.shape[-1]) ** -0.5, 0, valid_tokens(features, 0), finish)

    def own_embedding_at(self, pixels: Tensor) -> Tensor | None:
        model: Any = self.model
        return (
            self.own_embedding(pixels)
            if self._naflex
            else pooled(model.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True))
        )

    def own_embedding(self, pixels: Tensor) -> Tensor:
        model: Any = self.model
        if not self._naflex:
            return pooled(model.get_image_features(pixel_values=pixels))
        size = int(self._vision.embeddings.patch_size)
        patches = _patchify(pixels, size)
        shape = torch.tensor([[pixels.shape[2] // size, pixels.shape[3] // size]] * len(pixels), device=pixels.device)
        mask = torch.ones(patches.shape[:2], dtype=torch.long, device=pixels.device)
        return pooled(model.get_image_features(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shape))


def _patchify(pixels: Tensor, size: int) -> Tensor:
    """[B, 3, H, W] -> [B, N, size * size * 3], pixels of a patch in rows, channels last, as NaFlex towers read them."""
    batch, channels, height, width = pixels.shape
    patches = pixels.reshape(batch, channels, height // size, size, width // size, size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, size * size * channels)


def read(made: Made) -> TransformersSiglip:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    model: Any = made.model
    vision = model.config.vision_config
    patch = int(vision.patch_size)
    if hasattr(vision, "image_size"):
        size = vision.image_size
    else:
        size = round((made.config.get("max_num_patches") or vision.num_patches) ** 0.5) * patch
    usual = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}
    if not hasattr(vision, "image_size"):
        usual |= {"interpolation": "bilinear", "resize_mode": "naflex"}
    preprocess = made.preprocess(size, patch, usual=usual)
    return TransformersSiglip(made.model, name=made.name, preprocess=preprocess, text=made.words)
