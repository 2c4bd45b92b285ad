from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, MissingExtraError
from concept_cam.localizer import Localizer
from concept_cam.methods import METHODS, explain, find_method
from tests.methods.models import LinearBackbone, photograph


def test_the_registry_loads_no_torch() -> None:
    code = "import sys, concept_cam.methods as m; assert 'direct' in m.METHODS; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_entry_is_complete() -> None:
    for name, method in METHODS.items():
        assert method.name == name
        assert method.description
        assert callable(method.load())
        assert method.relu == (name.endswith("+relu") or name == "finer-cam")


def test_unknown_names_and_arguments() -> None:
    localizer = Localizer(LinearBackbone())
    with pytest.raises(ConfigurationError, match="Did you mean 'grad-cam'"):
        localizer.locate(photograph(), "red", method="gradcam")
    with pytest.raises(ConfigurationError, match="lcam:PATH"):
        find_method("lcam")
    with pytest.raises(ConfigurationError, match="'grad-cam' alone"):
        find_method("grad-cam:x")
    assert find_method("lcam:a.safetensors").argument == "a.safetensors"
    assert find_method(METHODS["direct"]) is METHODS["direct"]


@pytest.mark.parametrize(
    ("method", "asked", "message"),
    [
        ("grad-cam", {"views": "mirrored"}, r"'grad-cam' looks at the picture as it is, received views='mirrored'.*gem, clip-surgery"),
        ("luminance", {"views": "mirrored"}, "'luminance' looks at the picture as it is"),
        ("rise:4", {"attention": "value"}, r"'rise:4' takes no other attention, received attention='value'.*\(direct\). Leave"),
        ("gem", {"attention": "value"}, "'gem' takes no other attention"),
        ("clip-surgery", {"look_again": True}, r"'clip-surgery' cannot look again, received look_again=True.*\(direct, gem\)"),
    ],
)
def test_what_a_method_does_not_follow_is_refused(method: str, asked: dict[str, object], message: str) -> None:
    """It was passed over, and the result said that it was made of single views."""
    localizer = Localizer(LinearBackbone())
    with pytest.raises(ConfigurationError, match=message):
        localizer.locate(photograph(), "red", ["green"], method=method, **asked)


def test_what_a_checkpoint_chooses_is_no_question() -> None:
    tower = LinearBackbone()
    tower.preprocess = replace(tower.preprocess, views="mirrored")
    for views in ("auto", "single"):
        assert Localizer(tower).locate(photograph(), "red", ["green"], method="grad-cam", views=views).provenance.views == "single"


def test_direct_is_the_localizers_own() -> None:
    localizer = Localizer(LinearBackbone())
    concept = Concept(("red",), (("green",),))
    own = localizer.locate_all([photograph()], [concept])[0]
    for method in ("direct", METHODS["direct"]):
        other = explain(localizer, [localizer.read(photograph())], concept, method)[0]
        np.testing.assert_array_equal(own.scores, other.scores)
        assert other.provenance.method == "direct"
        assert set(other[0].ledger()) == {"red", "green"}


def test_relu_variants_drop_the_negative_values_only() -> None:
    localizer = Localizer(LinearBackbone())
    signed = localizer.locate(photograph(), "red", ["green"], method="ablation-cam")
    published = localizer.locate(photograph(), "red", ["green"], method="ablation-cam+relu")
    assert (signed.scores < 0).any()
    np.testing.assert_array_equal(published.scores, np.maximum(signed.scores, 0))
    assert published.provenance.method == "ablation-cam+relu"
    with pytest.raises(ConfigurationError, match="no contrast ledger"):
        signed.ledger()


def test_a_missing_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(MissingExtraError, match=r"-m pip .*install 'grad-cam"):
        Localizer(LinearBackbone()).locate(photograph(), "red", method="grad-cam")
