"""Torch's switches, shut out: what a caller set for its own computations changes nothing in ours.

Autocast, inference mode, gradients and a default device belong to a thread and are undone for it. The default number type and the precision
of float32 products belong to the whole process: they are held at float32 and full precision as long as any thread computes here, and given
back as they were. A caller that has not touched them pays nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

__all__ = ["quiet"]

_DEVICES = ("cpu", "cuda", "mps", "xpu")


class _Held:
    """A switch of the whole process, held at one value while somebody needs it.

    Args:
        get: Reads it.
        set_: Sets it.
        value: What is needed.
    """

    def __init__(self, get: Callable[[], Any], set_: Callable[[Any], None], value: Any) -> None:
        self._get, self._set, self._value = get, set_, value
        self._lock = threading.Lock()
        self._users = 0
        self._before: Any = value

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._before = self._get()
                if self._before != self._value:
                    self._set(self._value)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._before != self._value:
                    self._set(self._before)


_TYPE = _Held(torch.get_default_dtype, torch.set_default_dtype, torch.float32)
_PRECISION = _Held(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest")


@contextmanager
def quiet(graph: bool | None = None) -> Iterator[None]:
    """Computes within as if the caller had set nothing; also as a decorator: ``@quiet(graph=False)``.

    Args:
        graph: Whether graphs are built; ``None``: as the caller has it. Tensors made within may serve later graphs in either case.
    """
    with ExitStack() as stack:
        stack.enter_context(_TYPE())
        stack.enter_context(_PRECISION())
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            # A default device is a mode, and modes turn fused attention off: other last digits even with "cpu" as the innermost.
            stack.enter_context(torch._C.DisableTorchFunction())
        if torch.is_inference_mode_enabled():
            # Leaving inference mode switches gradients on.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.set_grad_enabled(bool(graph)))
        elif graph is not None:
            stack.enter_context(torch.set_grad_enabled(graph))
        yield
