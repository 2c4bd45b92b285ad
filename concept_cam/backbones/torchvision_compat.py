"""Lets open_clip, timm and transformers be imported beside a torchvision that was built for another torch.

PyPI's Linux wheels of torchvision are CUDA builds. Beside a CPU-only torch (a common, much smaller installation) their compiled operators
cannot be loaded, and ``import torchvision`` ends with ``RuntimeError: operator torchvision::nms does not exist``, because it registers
shape functions for operators that are missing. None of these operators is used in this package or in the towers that it reads: declaring
the schemas of the missing ones is enough for the import to go through. Where torchvision works, nothing is touched.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from concept_cam.core.errors import MissingExtraError, ModelError

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_DECLARED: list[torch.library.Library] = []
"""Declarations live as long as the objects that made them."""


def prepare_torchvision() -> None:
    """Imports torchvision, declaring the operators whose absence alone would stop it.

    Raises:
        ModelError: torchvision is installed but cannot be imported for another reason.
    """
    for _ in range(4):
        try:
            importlib.import_module("torchvision")
            return
        except ModuleNotFoundError as error:
            if error.name == "torchvision":
                return  # Only some libraries need it; they say so themselves.
            raise
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(q?nms) does not exist", str(error))
            if missing is None:
                raise ModelError(f"torchvision cannot be imported: {error}. Reinstall torch and torchvision together.") from error
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(missing[1] + _SCHEMA)
            _DECLARED.append(library)
            # A failed import leaves half-initialised submodules behind.
            for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
                del sys.modules[name]
    raise ModelError("torchvision cannot be imported beside this torch. Reinstall torch and torchvision together.")


def import_open_clip() -> ModuleType:
    """Returns the module ``open_clip``, imported with :func:`prepare_torchvision`."""
    prepare_torchvision()
    return importlib.import_module("open_clip")


def import_transformers() -> ModuleType:
    """Returns the module ``transformers``, imported with :func:`prepare_torchvision`.

    Raises:
        MissingExtraError: It is not installed.
    """
    prepare_torchvision()
    try:
        return importlib.import_module("transformers")
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise MissingExtraError("transformers", "", "a model or tokenizer of the transformers library", package="transformers") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Keeps the progress bars of transformers off the terminal while weights are read from the disk, which takes moments: commands say
    themselves what they do, and are silent where they were asked to be. Not for downloads, whose bars tell how long they take.
    """
    logging = import_transformers().utils.logging
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
