"""Vision transformers in whole numbers of 8 bits, on processors: by ONNX Runtime, the extra ``[int8]``.

The blocks before the last, which are nearly all of the work, are exported once and their linear layers are quantised: weights per channel
when they are exported, activations per tensor while they run (dynamic quantisation). What is read from the last block stays in float32, and
so do the text tower and everything that is differentiated.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.tokens import TokenBackbone
from concept_cam.core.errors import ConfigurationError, MissingExtraError, ModelError, UnsupportedModelError

__all__ = ["INT8", "FastBlocks", "in_int8"]

INT8 = "int8"
"""Name of the number format."""

_OPSET = 17

_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Says that nothing is left to prepare; else ONNX Runtime advises whoever runs this, on the root logger, to prepare it."""


def in_int8(backbone: Backbone) -> TokenBackbone:
    """Returns the same model with a tower that computes in int8; the text tower and the weights' identity are shared.

    Args:
        backbone: A vision transformer in float32 on a CPU.

    Raises:
        UnsupportedModelError: Another kind of tower.
        ConfigurationError: Another device or number format.
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: The blocks cannot be exported.
    """
    tower = backbone.transformer
    if tower is None or tower is not backbone or tower.rope(tower.grid_size(tower.preprocess.size)) is not None:
        raise UnsupportedModelError(
            f"{backbone.name}: int8 is for vision transformers without rotary embeddings; this one is of the family {backbone.family!r}. "
            "Use --dtype float32 or bfloat16."
        )
    if backbone.device.type != "cpu" or backbone.dtype != torch.float32:
        raise ConfigurationError(
            f"int8 towers are made of float32 ones on a CPU, received {str(backbone.dtype).removeprefix('torch.')} on {backbone.device}."
        )
    other = copy.copy(tower)
    other.fast_blocks = FastBlocks(tower)
    return other


class _Blocks(nn.Module):
    """The blocks before the last, as one module: tokens [B, L, W] to the stream behind them and the stream behind the middle one."""

    def __init__(self, tower: TokenBackbone) -> None:
        super().__init__()
        self.model = tower.model  # so that its weights are weights of the export, not constants
        self._blocks, self._middle = tower.blocks[:-1], tower.middle

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = x
        for done, block in enumerate(self._blocks, start=1):
            x = block.in_pieces(x)
            if done == self._middle:
                middle = x
        return x, middle


class FastBlocks:
    """The blocks before the last of a vision transformer, in int8.

    Args:
        tower: The tower that they are made of; it is not changed.
    """

    def __init__(self, tower: TokenBackbone) -> None:
        try:
            import onnx  # noqa: F401
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "int8", "computing in int8") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        # Waiting threads leave the processors to those who read pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        with tempfile.TemporaryDirectory() as folder:
            file = _quantised(tower, Path(folder))
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def __reduce__(self) -> Any:
        raise ModelError("an int8 tower cannot be sent to another process: load it there by its name, with dtype 'int8'.")

    def __call__(self, tokens: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Runs the blocks.

        Args:
            tokens: float32 [B, L, W], as they enter the first block.
            keys: bool [B, L], which are no padding; those come first. ``None``: all.

        Returns:
            float32 [B, L, W] behind the last but one block and behind the middle one; padding is zero.
        """
        if keys is None:
            last, middle = self._session.run(None, {"tokens": np.ascontiguousarray(tokens.detach().numpy())})
            return torch.from_numpy(last), torch.from_numpy(middle)
        found = tokens.new_zeros(tokens.shape), tokens.new_zeros(tokens.shape)
        for row, own in enumerate(keys):  # each alone: activations are scaled by what is there, which padding must not change
            for whole, part in zip(found, self(tokens[row : row + 1, own])):
                whole[row, own] = part[0]
        return found


def _quantised(tower: TokenBackbone, folder: Path) -> Path:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, small = folder / "plain.onnx", folder / "int8.onnx"
    width = tower.embed(torch.zeros(1, 3, *tower.preprocess.size), None).tokens.shape[-1]
    names = {"tokens": {0: "pictures", 1: "tokens"}, "last": {0: "pictures", 1: "tokens"}, "middle": {0: "pictures", 1: "tokens"}}
    try:
        # With gradients on, torch's attention takes its plain path, which can be exported.
        with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Blocks(tower).eval(),
                (torch.randn(2, 9, width, generator=torch.Generator().manual_seed(0)),),
                str(plain),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["tokens"],
                output_names=["last", "middle"],
                dynamic_axes=names,
            )
        model = onnx.load(str(plain))
        onnx.helper.set_model_props(model, _PREPARED)
        quantize_dynamic(model, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"], per_channel=True)
    except Exception as error:  # the exporter knows many ways to fail
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ModelError(f"the tower of {tower.name} cannot be brought to int8: {first}. Use --dtype float32 or bfloat16.") from error
    return small
