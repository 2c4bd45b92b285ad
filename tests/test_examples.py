"""The notebook's cells run, and the committed example pictures are what the renderer makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from concept_cam.demo import example
from tests.test_readme import needs_model

EXAMPLES = Path(__file__).parent.parent / "examples"


@needs_model
def test_the_notebook_runs() -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "quickstart.ipynb", "exec"), names)
    assert names["found"].heatmap.shape == example.SIZE


@pytest.mark.parametrize("name", example.FISH)
def test_stored_pictures_are_rendered_again(name: str) -> None:
    """Rendering is deterministic: at most 3/255 from the stored reference, on any machine."""
    stored = np.asarray(Image.open(EXAMPLES / "images" / f"{example.FISH[name].name}.png").convert("RGB")).astype(int)
    assert abs(stored - example.render_fish(name).astype(int)).max() <= 3
