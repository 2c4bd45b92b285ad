"""Identity of a model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Returns the first 16 hex digits of SHA-256 over names, shapes, types and values, in the order of the names.

    Values of 16 bits count as the float32 numbers that they are: weights stored in half the space and read in full are the same weights.

    Args:
        state: ``module.state_dict()``: parameters and persistent buffers (batch-norm statistics change results too).
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu").contiguous()
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
