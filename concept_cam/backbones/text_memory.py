"""Embeds each distinct prompt once: in memory, and on disk by prompt and weights hash, so that a trait pack is embedded once per model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from concept_cam.backbones.protocol import Backbone
from concept_cam.core.errors import OutputError
from concept_cam.core.files import write_file
from concept_cam.core.names import require_text
from concept_cam.core.quiet import quiet

__all__ = ["TextMemory"]

_TEXTS_AT_ONCE = 256

MOST_IN_MEMORY = 20_000
"""Prompts that are kept in memory, the latest; about 60 MB at 768 numbers each."""

MOST_ON_DISK = 50_000
"""Files of one model that are kept on disk, the latest; about 200 MB. They are counted every :data:`_COUNT_EVERY` that are written."""

_COUNT_EVERY = 1_000


class TextMemory:
    """Prompt embeddings of one model; shared by all localizers made from each other, safe in several threads and processes.

    Args:
        backbone: The model.
        folder: Folder of the disk cache; ``None`` for none.
    """

    def __init__(self, backbone: Backbone, folder: Path | None = None) -> None:
        self._backbone = backbone
        self._folder = folder
        self._embedded: OrderedDict[str, Tensor] = OrderedDict()
        self._written = 0
        self._lock = threading.Lock()

    @quiet(graph=False)
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Returns float32 [N, D] on the CPU, not normalised.

        Raises:
            PromptError: An empty prompt, one longer than the model's context, or one with what is no character.
        """
        found: dict[str, Tensor] = {}
        with self._lock:
            for prompt in dict.fromkeys(prompts):
                if prompt in self._embedded:
                    found[prompt] = self._embedded[prompt]
                    self._embedded.move_to_end(prompt)
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
        for prompt in missing:
            require_text(prompt)
        if missing:
            stored = {prompt: embedding for prompt in missing if (embedding := self._read(prompt)) is not None}
            found |= stored
            self._keep(stored)
            missing = [prompt for prompt in missing if prompt not in stored]
        for start in range(0, len(missing), _TEXTS_AT_ONCE):
            chunk = missing[start : start + _TEXTS_AT_ONCE]
            fresh = dict(zip(chunk, self._backbone.encode_text(chunk).float().cpu(), strict=True))
            found |= fresh
            self._keep(fresh)
            for prompt, embedding in fresh.items():
                self._write(prompt, embedding)
        return torch.stack([found[prompt] for prompt in prompts])

    def _keep(self, embeddings: dict[str, Tensor]) -> None:
        with self._lock:
            self._embedded.update(embeddings)
            while len(self._embedded) > MOST_IN_MEMORY:
                self._embedded.popitem(last=False)

    def _path(self, prompt: str) -> Path | None:
        if self._folder is None:
            return None
        # The towers' number format changes the last digits, so it belongs to the key.
        model = f"{self._backbone.weights_hash}-{str(self._backbone.dtype).removeprefix('torch.')}"
        digest = hashlib.sha256(prompt.encode("utf-8")).hexdigest()[:32]
        return self._folder / "text" / model / f"{digest}.npy"

    def _read(self, prompt: str) -> Tensor | None:
        path = self._path(prompt)
        if path is None:
            return None
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None  # Not there, or damaged: it is simply made again.
        if array.shape != (self._backbone.embed_dim,) or array.dtype != np.float32 or not np.isfinite(array).all():
            return None
        return torch.from_numpy(array)

    def _write(self, prompt: str, embedding: Tensor) -> None:
        path = self._path(prompt)
        if path is None:
            return
        import io

        buffer = io.BytesIO()
        np.save(buffer, embedding.numpy().astype(np.float32), allow_pickle=False)
        with contextlib.suppress(OSError, OutputError):  # A cache that cannot be written costs time, not the answer.
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, buffer.getvalue(), overwrite=True)
            self._written += 1
            if self._written % _COUNT_EVERY == 1:
                _prune(path.parent)


def _prune(folder: Path) -> None:
    """Deletes the oldest files of a model's folder where there are more than :data:`MOST_ON_DISK`, down to nine tenths."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name.endswith(".npy")]
    if len(found) <= MOST_ON_DISK:
        return
    ages = sorted((entry.stat().st_mtime, entry.path) for entry in found)
    for _, path in ages[: len(ages) - MOST_ON_DISK * 9 // 10]:
        with contextlib.suppress(OSError):  # another process may have done it
            os.unlink(path)
