"""dino.txt: DINOv3 with a vision head and a text tower that were trained to agree (arXiv 2412.16334).

The backbone is the transformers library's DINOv3, the blocks of the vision head are timm's, the text tower is open_clip's. The embedding
joins the class token and the mean of the patch tokens, as the head leaves them; a text's second half was thus trained against patches, so a
patch alone stands in that half and has nothing in the first.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from concept_cam.backbones.made import Made, pair
from concept_cam.backbones.text import TextEncoder
from concept_cam.backbones.timm_vit import TimmBlock
from concept_cam.backbones.tokens import ALL_ATTENTIONS, Embedded, TokenBackbone, masked_mean
from concept_cam.backbones.transformers_block import DinoBlock
from concept_cam.core.attention import ATTENTION_STRATEGIES
from concept_cam.pictures.preprocessing import Preprocess

__all__ = ["DinoText", "DinoTextModel", "read"]


class DinoTextModel(nn.Module):
    """The three parts of dino.txt.

    Args:
        backbone: ``transformers.DINOv3ViTModel``.
        blocks: The blocks of the vision head, of timm.
        norm: What follows them.
        text: ``open_clip.transformer.TextTransformer``.
        logit_scale: Logarithm of the factor of cosines.
    """

    def __init__(self, backbone: nn.Module, blocks: nn.ModuleList, norm: nn.Module, text: nn.Module, logit_scale: Tensor) -> None:
        super().__init__()
        self.backbone, self.blocks, self.norm, self.text = backbone, blocks, norm, text
        self.logit_scale = nn.Parameter(logit_scale)

    def encode_text(self, text: Tensor) -> Tensor:
        """Embeds token ids [N, L]: [N, D], not normalised."""
        return cast("Tensor", self.text(text))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Embeds pixels [B, 3, H, W]: [B, D], not normalised; by the modules' own forwards."""
        backbone: Any = self.backbone
        tokens = backbone(pixels).last_hidden_state
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        return torch.cat([tokens[:, 0], tokens[:, 1 + backbone.config.num_register_tokens :].mean(dim=1)], dim=-1)


class _HeadBlock(TimmBlock):
    """A block of the vision head, which knows no places; the first one begins with the backbone's last norm."""

    def __init__(self, block: nn.Module, before: nn.Module | None) -> None:
        super().__init__(block)
        self._before: Any = before

    def project(self, normed: Tensor, which: str, rope: Tensor | None = None) -> tuple[Tensor, ...]:
        return super().project(normed, which)

    def own(self, x: Tensor, rope: Tensor | None) -> Tensor | None:
        return super().own(x, None)

    def __call__(self, x: Tensor, keys: Tensor | None = None, rope: Tensor | None = None) -> Tensor:
        return super().__call__(x if self._before is None else self._before(x), keys)


class DinoText(TokenBackbone):
    """Reads :class:`DinoTextModel`; see :class:`concept_cam.backbones.protocol.Backbone`.

    Args:
        model: The model, in evaluation mode, with at least two blocks in its vision head.
        name: Name of the model.
        preprocess: What the input must look like.
        text: The text tower.
    """

    class_token = False

    def __init__(self, model: DinoTextModel, *, name: str, preprocess: Preprocess, text: TextEncoder) -> None:
        backbone: Any = model.backbone
        config = backbone.config
        self._backbone, self._norm = backbone, model.norm
        self.prefix = 1 + int(config.num_register_tokens)
        layers = backbone.model.layer if hasattr(backbone, "model") else backbone.layer
        head = [_HeadBlock(block, None if number else backbone.norm) for number, block in enumerate(model.blocks)]
        self.blocks = [*(DinoBlock(layer, int(config.num_attention_heads)) for layer in layers), *head]
        super().__init__(
            model,
            name=name,
            family="dinotxt",
            preprocess=preprocess,
            text=text,
            embed_dim=2 * int(config.hidden_size),
            # A second path over several blocks would cross the norm between backbone and head.
            attentions=[key for key in ALL_ATTENTIONS if ATTENTION_STRATEGIES[key].depth == 1],
        )

    def embed(self, pixels: Tensor, valid: Tensor | None = None) -> Embedded:
        rows, columns = self.preprocess.stride
        grid = (pixels.shape[2] // rows, pixels.shape[3] // columns)
        return Embedded(self._backbone.embeddings(pixels), grid, self.rope(grid))

    def rope(self, grid: tuple[int, int]) -> Tensor:
        rows, columns = self.preprocess.stride
        pixels = torch.empty((), device=self.device, dtype=self.dtype).expand(1, 1, grid[0] * rows, grid[1] * columns)
        cosine, sine = self._backbone.rope_embeddings(pixels)
        return torch.cat([sine, cosine], dim=-1)

    def project_patches(self, patches: Tensor) -> Tensor:
        normed = self._norm(patches)
        return torch.cat([torch.zeros_like(normed), normed], dim=-1)

    def settle(self, tokens: Tensor) -> Tensor:
        return cast("Tensor", self._norm(tokens))

    def pool_tokens(self, settled: Tensor, keys: Tensor | None) -> Tensor:
        patches = masked_mean(settled[:, self.prefix :], None if keys is None else keys[:, self.prefix :])
        return torch.cat([settled[:, 0], patches], dim=-1)

    def own_embedding(self, pixels: Tensor) -> Tensor:
        return cast(DinoTextModel, self.model).encode_image(pixels)

    def own_embedding_at(self, pixels: Tensor) -> Tensor | None:
        return self.own_embedding(pixels)


def read(made: Made) -> DinoText:
    """Reads a loaded model; see :class:`concept_cam.backbones.Family`."""
    model = cast(DinoTextModel, made.model)
    config: Any = model.backbone.config
    usual = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    preprocess = made.preprocess(pair(config.image_size), pair(config.patch_size), usual=usual)
    return DinoText(model, name=made.name, preprocess=preprocess, text=made.words)
