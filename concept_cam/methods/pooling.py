"""Which methods read the attention that gathers the picture, and what they say to towers without one."""

from __future__ import annotations

from concept_cam.backbones.protocol import Backbone
from concept_cam.core.errors import UnsupportedModelError

__all__ = ["require_gathering"]


def require_gathering(backbone: Backbone) -> None:
    """Raises UnsupportedModelError where ``backbone.gathering`` has nothing to read."""
    if not backbone.gathers:
        raise UnsupportedModelError(
            f"this method reads the attention of a class token or of an attention pooling, which {backbone.name!r} (family "
            f"{backbone.family}) does not have. Use 'direct', 'grad-cam' or 'hires-cam' with this model."
        )
