"""Desks for the tests: one over the planted colours, where every answer is known, and one over the bundled model."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

if any(importlib.util.find_spec(name) is None for name in ("pyarrow", "starlette", "uvicorn", "httpx")):
    collect_ignore_glob = ["test_*.py"]  # The extra [serve] is not installed.


def painted(size: tuple[int, int], box: tuple[int, int, int, int], colour: tuple[int, int, int] = (255, 0, 0)) -> Image.Image:
    """A green picture with a coloured box ``(x0, y0, x1, y1)``."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 1] = 200
    pixels[box[1] : box[3], box[0] : box[2]] = colour
    return Image.fromarray(pixels)


BOXES = {"a.png": (0, 0, 32, 32), "b.png": (32, 32, 64, 64), "c.png": (0, 32, 32, 64), "sub/d.png": (16, 16, 48, 48)}
"""Where the red box lies in each picture of 64 x 64."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with four pictures, a text file and a folder beside it that is not served."""
    folder = tmp_path / "photos"
    for name, box in BOXES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        painted((64, 64), box).save(folder / name)
    (folder / "notes.txt").write_text("secret notes")
    painted((64, 64), (0, 0, 8, 8)).save(tmp_path / "outside.png")
    return folder


@pytest.fixture
def desk(photos: Path) -> Iterator[Any]:
    """A desk over the planted colour backbone."""
    from concept_cam.localizer import Localizer
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery
    from tests.planted import PlantedBackbone

    made = Desk(Localizer(PlantedBackbone(64, 8)), open_gallery(str(photos)))
    yield made
    made.close()


@pytest.fixture
def client(desk: Any) -> Iterator[Any]:
    """A client of the app over that desk."""
    from starlette.testclient import TestClient

    from concept_cam.serve.app import build_app

    with TestClient(build_app(desk), base_url="http://localhost:8765") as made:
        yield made


@pytest.fixture(scope="session")
def fish_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two example fish and one more."""
    from concept_cam.commands.example import render_fish

    folder = tmp_path_factory.mktemp("fish")
    for name in ("forked", "rounded"):
        Image.fromarray(render_fish(name)).save(folder / f"{name}.png")
    Image.fromarray(render_fish("forked")[:, ::-1]).save(folder / "turned.png")
    return folder


@pytest.fixture(scope="session")
def bundled() -> Any:
    """The bundled model."""
    from concept_cam import backbones
    from concept_cam.localizer import Localizer

    if not any(backbones.BUNDLED.glob("*.safetensors")):
        pytest.skip("the bundled model is not in this checkout")
    return Localizer.from_pretrained()


@pytest.fixture
def fish_desk(bundled: Any, fish_folder: Path, tmp_path: Path) -> Iterator[Any]:
    """A desk over the bundled model and the example fish; corrections are the test's own."""
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    made = Desk(bundled, open_gallery(str(fish_folder)), corrections=tmp_path / "corrections.sqlite")
    yield made
    made.close()
