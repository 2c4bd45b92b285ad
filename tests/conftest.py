from __future__ import annotations

import os

import pytest

# Nothing is downloaded in tests, whatever the machine could reach.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture
def planted():
    """A localizer over the planted colour backbone."""
    from concept_cam.localizer import Localizer
    from tests.planted import PlantedBackbone

    return Localizer(PlantedBackbone())
