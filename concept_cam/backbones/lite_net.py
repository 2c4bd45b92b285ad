"""EfficientNet-Lite0 as an inference network: convolutions with their batch norms folded in, read at every stride.

The architecture is that of Liu, "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020): EfficientNet-B0 (Tan and
Le, ICML 2019) without squeeze-and-excitation and with ReLU6. Padding is TensorFlow's ("same": odd pixels go to the bottom and the right).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CHANNELS", "HEAD", "STRIDE", "LiteNet", "folded"]

# Per stage: blocks, kernel, stride of the first block, expansion, channels.
_STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM: Final = 32
HEAD: Final = 1280
"""Channels that the classifier reads."""
CHANNELS: Final[dict[int, int]] = {4: 24, 8: 40, 16: 112, 32: 320}
"""Stride -> channels of the last map at that stride."""
STRIDE: Final = 32
_READ: Final[dict[int, int]] = {2: 4, 4: 8, 10: 16, 15: 32}
"""Number of a block -> stride of the map that is read behind it."""
_EPSILON: Final = 1e-3
"""Of the batch norms."""


class _Block(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection."""

    def __init__(self, entering: int, leaving: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = entering * expansion
        self.expand = nn.Conv2d(entering, wide, 1) if expansion > 1 else None
        self.depth = nn.Conv2d(wide, wide, kernel, stride, 0 if stride > 1 else kernel // 2, groups=wide)
        self.project = nn.Conv2d(wide, leaving, 1)
        # What TensorFlow pads an even side by when a convolution halves it: one pixel less before than after.
        self.margin = ((kernel - 2) // 2, (kernel - 1) // 2) * 2 if stride > 1 else None
        self.residual = stride == 1 and entering == leaving

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.project.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.depth(y if self.margin is None else F.pad(y, self.margin))
        y = self.project(F.relu6(y))
        return cast("Tensor", x + y if self.residual else y)


class LiteNet(nn.Module):
    """The network; its parameters are named as `folded` names them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2)
        blocks, entering = [], _STEM
        for repeats, kernel, stride, expansion, channels in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(entering, channels, kernel, 1 if repeat else stride, expansion))
                entering = channels
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(entering, HEAD, 1)

    @property
    def delicate(self) -> tuple[nn.Module, ...]:
        """What stays in float32 whatever the rest is computed in: the stem and the first block.

        In bfloat16 throughout, maps of photographs correlate with those of float32 by 0.9977 (median); with these two in float32, which
        costs a twentieth of the time, by 0.9995.
        """
        return self.stem, self.blocks[0]

    def forward(self, x: Tensor, deepest: int = STRIDE) -> dict[int, Tensor]:
        """Maps by stride.

        Args:
            x: [B, 3, H, W], preprocessed, sides multiples of `STRIDE`.
            deepest: Stride of the last map that is wanted; what comes after it is not computed.

        Returns:
            Stride (of `CHANNELS`) -> [B, channels, H / stride, W / stride], before any activation.
        """
        x = F.relu6(self.stem(F.pad(x.to(self.stem.weight.dtype), (0, 1, 0, 1))))
        maps = {}
        for number, block in enumerate(cast("list[_Block]", self.blocks)):
            x = block(x.to(block.dtype))
            if number in _READ:
                maps[_READ[number]] = x
                if _READ[number] == deepest:
                    break
        return maps

    def top(self, last: Tensor) -> Tensor:
        """What the classifier reads: [B, 320, h, w], the map at stride 32, to [B, 1280, h, w]."""
        return F.relu6(self.head(last))


def folded(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Turns a published state dict of EfficientNet-Lite0 into that of a :class:`LiteNet`.

    Args:
        state: Convolutions, each followed by its batch norm (weight, bias, mean, variance, count), and last the classifier, in the order of
            computation; the names do not matter (timm's `tf_efficientnet_lite0` and the original have different ones).

    Returns:
        The parameters of a `LiteNet`, and the classifier's weight [1000, 1280] and bias [1000].

    Raises:
        ValueError: It is the state dict of something else.
    """
    values = [value for value in state.values() if value.ndim]
    net = LiteNet()
    convolutions = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    if len(values) != 5 * len(convolutions) + 2:
        raise ValueError(f"expected {5 * len(convolutions) + 2} tensors of EfficientNet-Lite0, received {len(values)}.")
    result = {}
    for (name, module), start in zip(convolutions, range(0, len(values), 5)):
        weight, scale, shift, mean, variance = values[start : start + 5]
        if weight.shape != module.weight.shape:
            raise ValueError(f"expected {name} of shape {list(module.weight.shape)}, received {list(weight.shape)}.")
        factor = scale.double() / (variance.double() + _EPSILON).sqrt()
        result[f"{name}.weight"] = (weight.double() * factor[:, None, None, None]).float()
        result[f"{name}.bias"] = (shift.double() - mean.double() * factor).float()
    return result, values[-2], values[-1]
