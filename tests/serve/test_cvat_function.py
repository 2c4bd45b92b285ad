"""The function for CVAT's SDK, as far as the SDK's own doubles go: its spec, its annotations, and a task that is annotated through the
driver.

``cvat-sdk`` wants an environment of its own (``CVAT_PYTHON`` names its Python); the tests run in it beside this one's packages.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from concept_cam.core.errors import ConfigurationError, MissingExtraError
from concept_cam.serve import cvat
from tests.serve.conftest import BOXES, painted

ROOT = Path(__file__).parents[2]
HERE = importlib.util.find_spec("cvat_sdk") is not None


@pytest.mark.skipif(HERE, reason="cvat_sdk is installed here")
def test_a_missing_sdk_is_named(planted: Any) -> None:
    with pytest.raises(MissingExtraError, match=r"install cvat-sdk$"):
        cvat.ConceptFunction(planted, {})


def test_wrong_parameters() -> None:
    for values, words in (
        ({}, "say what to find"),
        ({"target": "red", "traits": "fish"}, "not both"),
        ({"traits": "fish:parts", "label": "tail"}, "one label"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            cvat.create(**values)


@pytest.mark.skipif(HERE or "CVAT_PYTHON" not in os.environ, reason="CVAT_PYTHON names no Python with cvat-sdk")
def test_in_an_environment_with_the_sdk() -> None:
    """This file's other tests, run where the SDK is; our own packages come behind the SDK's."""
    ours = os.pathsep.join([str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))])
    code = (
        "import os, sys; sys.path.extend(os.environ['OURS'].split(os.pathsep)); import pytest;"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'sdk_', {str(Path(__file__))!r}]))"
    )
    environment = {**os.environ, "OURS": ours}
    done = subprocess.run([os.environ["CVAT_PYTHON"], "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "7 passed" in done.stdout


needs_sdk = pytest.mark.skipif(not HERE, reason="cvat_sdk is not installed")


class Context:
    """What the SDK hands to a function with a picture."""

    frame_name = "a.png"

    def __init__(self, conf_threshold: float | None = None, conv_mask_to_poly: bool = False) -> None:
        self.conf_threshold, self.conv_mask_to_poly = conf_threshold, conv_mask_to_poly


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    from concept_cam import backbones
    from tests.planted import PlantedBackbone

    monkeypatch.setattr(backbones, "load", lambda name, **_: PlantedBackbone(64, 8))
    return lambda **values: cvat.create(target="red", contrast="green|blue", **values)


@needs_sdk
@pytest.mark.parametrize("shape", cvat.SHAPES)
def test_sdk_shapes(made: Any, shape: str) -> None:
    from cvat_sdk.masks import decode_mask

    function = made(shape=shape, label="spot")
    assert [label.name for label in function.spec.labels] == ["spot"]
    for x0, y0, x1, y1 in BOXES.values():
        (found,) = function.detect(Context(), painted((64, 64), (x0, y0, x1, y1)))
        assert str(found.type) == shape
        assert found.label_id == 0
        if shape == "mask":
            mask = decode_mask(found.points, image_width=64, image_height=64)
            assert mask[y0:y1, x0:x1].mean() > 0.8
            assert mask.sum() < 1.8 * (x1 - x0) * (y1 - y0)
        elif shape == "rectangle":
            assert all(abs(value - edge) <= 8 for value, edge in zip(found.points, (x0, y0, x1, y1)))
        else:
            assert min(found.points) >= -1
            assert max(found.points) <= 65


@needs_sdk
def test_sdk_limits(made: Any) -> None:
    picture = painted((64, 64), (0, 0, 32, 32))
    function = made()
    assert str(function.detect(Context(conv_mask_to_poly=True), picture)[0].type) == "polygon"
    assert function.detect(Context(conf_threshold=1.0), picture) == []
    assert function.detect(Context(), painted((64, 64), (0, 0, 1, 1), (0, 200, 0))) == []


@needs_sdk
def test_sdk_traits(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [label.name for label in cvat.create(traits="fish:parts").spec.labels]
    assert "parts: head" in names


@needs_sdk
def test_sdk_driver(made: Any, tmp_path: Path) -> None:
    """The SDK's own driver annotates a task: only the server is a double."""
    from unittest.mock import MagicMock, patch

    import cvat_sdk.auto_annotation as cvataa
    import cvat_sdk.models as models
    from cvat_sdk.auto_annotation import driver

    dataset = MagicMock()
    dataset.labels = [
        models.Label._from_openapi_data(id=77, name="red", color="", attributes=[], sublabels=[], type="any", has_parent=False)
    ]
    samples = []
    for number, box in enumerate(BOXES.values()):
        sample = MagicMock(frame_index=number, frame_name=f"{number}.png")
        sample.media.load_image.return_value = painted((64, 64), box)
        samples.append(sample)
    dataset.samples = samples
    client = MagicMock()
    with patch.object(driver, "TaskDataset", return_value=dataset):
        cvataa.annotate_task(client, 5, made(shape="rectangle"), allow_unmatched_labels=True)
    calls = [*client.tasks.api.update_annotations.call_args_list, *client.tasks.api.partial_update_annotations.call_args_list]
    assert calls
    sent = [value for call in calls for value in (*call.args, *call.kwargs.values()) if hasattr(value, "shapes")]
    assert sorted(shape.frame for request in sent for shape in request.shapes) == [0, 1, 2, 3]
    assert {shape.label_id for request in sent for shape in request.shapes} == {77}
