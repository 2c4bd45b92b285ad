"""Gradient CAMs, Eigen-CAM and KPCA-CAM through the library grad-cam (the extra ``[cams]``); Grad-CAM++ is ours.

The library's classes hook a module, run ``backward()``, drop negative values and min-max scale each map. Here they are given a private
stub to hook, and activations and gradients that were computed beside the model, and are asked for ``get_cam_image``, their raw weighted
sum, which is the library's own map before the ReLU and the scaling. Padded cells are left out of every mean, sum and decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from concept_cam.core.errors import MissingExtraError
from concept_cam.methods.engine import Batch, TowerMethod, gradients

__all__ = ["eigen_cam", "grad_cam", "grad_cam_plusplus", "hires_cam", "kpca_cam", "layer_cam", "xgrad_cam"]


class _Stub(nn.Module):
    """Something for the library to hook that is nobody's model."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.layer(x))


def load_library() -> Any:
    """Imports ``pytorch_grad_cam``.

    Raises:
        MissingExtraError: It is not installed.
    """
    from concept_cam.backbones.torchvision_compat import prepare_torchvision

    prepare_torchvision()
    try:
        import pytorch_grad_cam
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "pytorch_grad_cam", "cams", "this method") from error
    return pytorch_grad_cam


def _raw_map(name: str) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
    """Returns the library's raw map for one picture: activations and gradients [1, K, 1, n] -> [n]."""
    kind = getattr(load_library(), name)
    stub = _Stub()
    cam = kind(model=stub, target_layers=[stub.layer])
    cam.activations_and_grads.release()

    def compute(activations: np.ndarray, gradient: np.ndarray | None) -> np.ndarray:
        image = cam.get_cam_image(None, stub.layer, [], activations, gradient, False)
        return np.asarray(image, dtype=np.float32).reshape(-1)

    return compute


def _valid_cells(values: Tensor, valid: np.ndarray, row: int) -> np.ndarray:
    """Returns one picture's valid cells as an image of one row: [1, K, 1, n]."""
    picture: np.ndarray = values[row].float().cpu().numpy()
    return picture[:, valid[row]][None, :, None, :]


def _gradient_method(name: str) -> Callable[[Batch], Tensor]:
    def maps(batch: Batch) -> Tensor:
        compute = _raw_map(name)
        valid = batch.valid.cpu().numpy()
        count = len(batch.pixels)
        activations = [_valid_cells(batch.features.map, valid, row) for row in range(count)]
        found = np.zeros((count, batch.concepts, *valid.shape[1:]), dtype=np.float32)
        for index, gradient in enumerate(gradients(batch)):
            for row in range(count):
                found[row, index][valid[row]] = compute(activations[row], _valid_cells(gradient, valid, row))
        return torch.from_numpy(found)

    return maps


def _grad_cam_plusplus(batch: Batch) -> Tensor:
    """Grad-CAM++ by equation 19 (Chattopadhay et al., WACV 2018), in float64: ``alpha_kij = g^2 / (2 g^2 + sum_ab(A_kab) g^3)``.

    ``g`` are gradients of the model's own logits, that is of the objective times the logit scale: ``alpha`` depends on the scale. Where a
    gradient is not zero, ``alpha = 1 / (2 + sum(A) g)``, and that is how it is computed. The libraries add a constant to the denominator,
    in which gradients of a cosine (about 1e-5) drown.
    """
    features = batch.features.map.double()
    valid = batch.valid[:, None]
    totals = (features * valid).sum(dim=(2, 3), keepdim=True)
    found = []
    for gradient in gradients(batch):
        slope = gradient.to(features.device).double() * batch.temperature
        below = 2 + totals * slope
        alpha = torch.where((slope != 0) & (below != 0), 1 / below, 0.0)
        weights = (alpha * slope.clamp(min=0) * valid).sum(dim=(2, 3))
        found.append(torch.einsum("bk,bkhw->bhw", weights, features).float())
    return torch.stack(found, dim=1)


def _decomposition(name: str) -> Callable[[Batch], Tensor]:
    def maps(batch: Batch) -> Tensor:
        compute = _raw_map(name)
        valid = batch.valid.cpu().numpy()
        found = np.zeros(valid.shape, dtype=np.float32)
        for row in range(len(found)):
            cells = _valid_cells(batch.features.map, valid, row)
            if cells.shape[-1] > 1:  # A single cell has no principal component.
                found[row][valid[row]] = fix_sign(compute(cells, None))
        return torch.from_numpy(found)[:, None].expand(-1, batch.concepts, -1, -1)

    return maps


def fix_sign(values: np.ndarray) -> np.ndarray:
    """Turns a principal component, whose sign is arbitrary, so that its largest magnitude is positive.

    The rule of Seg-Eigen-CAM (Chung and Ying, 2025): the few places that stand out are the subject, not the background.
    """
    return -values if -values.min() > values.max() else values


grad_cam = TowerMethod(_gradient_method("GradCAM"))
"""``sum_k mean_ij(g_k) A_k`` (before the ReLU)."""

grad_cam_plusplus = TowerMethod(_grad_cam_plusplus)
"""``sum_k sum_ij(alpha_kij relu(g_kij)) A_k`` with the paper's ``alpha`` (before the ReLU)."""

xgrad_cam = TowerMethod(_gradient_method("XGradCAM"))
"""``sum_k (sum_ij g_kij A_kij / sum_ij A_kij) A_k`` (before the ReLU)."""

hires_cam = TowerMethod(_gradient_method("HiResCAM"))
"""``sum_k g_k A_k``; its definition has no ReLU."""

layer_cam = TowerMethod(_gradient_method("LayerCAM"))
"""``sum_k relu(g_k) A_k`` (before the last ReLU)."""

eigen_cam = TowerMethod(_decomposition("EigenCAM"))
"""Projection of the centred feature map on its first principal component."""

kpca_cam = TowerMethod(_decomposition("KPCA_CAM"))
"""Projection on the first kernel principal component, sigmoid kernel, the library's defaults."""
