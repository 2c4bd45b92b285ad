from __future__ import annotations

import os

import pytest

# Nothing is downloaded in tests, whatever the machine could reach.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The models of the tests are tiny: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_disk_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests neither read nor fill the user's cache."""
    monkeypatch.setenv("CONCEPT_CAM_CACHE", "off")


@pytest.fixture
def planted():
    """A localizer over the planted colour backbone."""
    from concept_cam.localizer import Localizer
    from tests.planted import PlantedBackbone

    return Localizer(PlantedBackbone())
