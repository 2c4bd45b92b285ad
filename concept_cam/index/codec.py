"""How patch features are kept: unit vectors in few bytes, with their lengths beside."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from concept_cam.core.errors import ConfigurationError, DataError

__all__ = ["BASIS_FILE", "INDEX_DTYPES", "Codec", "Codes"]

INDEX_DTYPES: dict[str, str] = {
    "float16": "two bytes a value; scores to about 1e-4",
    "int8": "one byte a value and one scale a patch; scores to about 1e-3",
}
"""Number formats of kept features."""

BASIS_FILE = "basis.safetensors"
"""Holds the axes of an index whose features were brought to fewer dimensions."""


@dataclass(frozen=True)
class Codes:
    """The features of some patches as they are kept.

    Attributes:
        values: float16 or int8 [N, K]: unit vectors, over ``scales`` for int8.
        scales: float32 [N]; ``None`` for float16.
        norms: float32 [N]: lengths of the vectors; zero where the model did not look.
    """

    values: np.ndarray
    scales: np.ndarray | None
    norms: np.ndarray


@dataclass(frozen=True, eq=False)
class Codec:
    """A way of keeping features.

    Attributes:
        dtype: A name of :data:`INDEX_DTYPES`.
        basis: float32 [K, D], orthonormal axes that the unit vectors are projected on; ``None`` to keep all of them.
        loss: Share of the sample's squared length that the axes leave out.
    """

    dtype: str = "float16"
    basis: np.ndarray | None = field(default=None, repr=False)
    loss: float = 0.0

    def __post_init__(self) -> None:
        if self.dtype not in INDEX_DTYPES:
            raise ConfigurationError(f"an index keeps features as {' or '.join(INDEX_DTYPES)}, received {self.dtype!r}.")

    @classmethod
    def fit(cls, patches: np.ndarray, dimensions: int, dtype: str = "float16") -> Codec:
        """Finds the axes that keep most of some patches' unit vectors (principal components about zero, so that cosines stay cosines).

        Args:
            patches: float32 [N, D]; those of length zero are left out.
            dimensions: ``K``.
            dtype: A name of :data:`INDEX_DTYPES`.

        Raises:
            ConfigurationError: More dimensions than there are, or than patches.
        """
        units = patches[np.linalg.norm(patches, axis=1) > 0].astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        if not 0 < dimensions <= min(units.shape):
            raise ConfigurationError(f"--pca must be between 1 and {min(units.shape)} for these features, received {dimensions}.")
        values, axes = np.linalg.eigh(units.T @ units)
        kept = axes[:, ::-1][:, :dimensions].T
        loss = 1 - float(values[::-1][:dimensions].sum() / values.sum())
        return cls(dtype, np.ascontiguousarray(kept, dtype=np.float32), max(0.0, loss))

    def encode(self, patches: np.ndarray) -> Codes:
        """Makes codes of patches float32 [N, D]."""
        norms = np.linalg.norm(patches, axis=1).astype(np.float32)
        units = patches / np.where(norms > 0, norms, 1)[:, None]
        if self.basis is not None:
            units = units @ self.basis.T
        if self.dtype == "float16":
            return Codes(units.astype(np.float16), None, norms)
        scales = (np.abs(units).max(axis=1) / 127).astype(np.float32)
        values = np.rint(units / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
        return Codes(values, scales, norms)

    def decode(self, codes: Codes) -> np.ndarray:
        """Returns patches float32 [N, D], as near to the encoded ones as the codec keeps them."""
        units = codes.values.astype(np.float32)
        if codes.scales is not None:
            units *= codes.scales[:, None]
        if self.basis is not None:
            units = units @ self.basis
        return np.asarray(units * codes.norms[:, None], dtype=np.float32)

    def queries(self, directions: np.ndarray) -> np.ndarray:
        """Returns directions float32 [C, D] as the codes are multiplied with them: float32 [C, K]."""
        return directions if self.basis is None else np.asarray(directions @ self.basis.T, dtype=np.float32)

    @property
    def description(self) -> dict[str, Any]:
        """What an index says of its codec, as plain data."""
        dimensions = None if self.basis is None else int(self.basis.shape[0])
        return {"dtype": self.dtype, "pca": dimensions, "pca_loss": self.loss}

    def save(self, folder: Path) -> None:
        """Writes the axes, where there are any."""
        if self.basis is None:
            return
        import torch

        from concept_cam.core.files import write_tensors

        write_tensors(folder / BASIS_FILE, {"basis": torch.from_numpy(self.basis)}, self.description, overwrite=True)

    @classmethod
    def load(cls, folder: Path, description: dict[str, Any]) -> Codec:
        """Reads the codec that an index describes.

        Raises:
            DataError: The axes are missing.
        """
        if description.get("pca") is None:
            return cls(description["dtype"])
        from safetensors.numpy import load_file

        try:
            basis = load_file(os.fspath(folder / BASIS_FILE))["basis"]
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"{folder / BASIS_FILE} cannot be read: {error}. Without it the index means nothing.") from error
        return cls(description["dtype"], basis, float(description["pca_loss"]))
