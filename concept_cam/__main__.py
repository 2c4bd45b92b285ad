"""``python -m concept_cam`` is the command ``concept-cam``."""

from __future__ import annotations

from concept_cam.cli import main

if __name__ == "__main__":
    main(prog_name="concept-cam")
