"""Identity of a model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["hash_model", "hash_weights"]


def hash_model(model: nn.Module) -> str:
    """Returns :func:`hash_weights` of a model, with its ``constants`` where it has any: numbers beside the weights that change results.

    What is kept on disk under the hash (embeddings of texts, rules of trust) would else be taken for that of a model with others.
    """
    return hash_weights(model.state_dict(), getattr(model, "constants", None) or {})


def hash_weights(state: Mapping[str, Tensor], constants: Mapping[str, float | str] | None = None) -> str:
    """Returns the first 16 hex digits of SHA-256 over names, shapes, types and values, in the order of the names, and over constants.

    Values of 16 bits count as the float32 numbers that they are: weights stored in half the space and read in full are the same weights.

    Args:
        state: ``module.state_dict()``: parameters and persistent buffers (batch-norm statistics change results too).
        constants: What changes results beside them, by name; none by default.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu").contiguous()
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    for name, value in sorted((constants or {}).items()):
        digest.update(f"{name}={value!r}|".encode())
    return digest.hexdigest()[:16]
