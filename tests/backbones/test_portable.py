"""Models, and localizers, that go to another process or are kept."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam import Localizer, Settings
from concept_cam.backbones.portable import Packed, portable
from concept_cam.core.concept import Concept
from concept_cam.evaluation.randomisation import randomised
from tests.backbones.models import BUILDERS, WORDLESS_KINDS, backbone, pictures

WORKER = """
import pickle, sys
localizer, picture = pickle.load(sys.stdin.buffer)
found = localizer.locate(picture, "a forked tail fin", ["a rounded tail fin"])
certificate = found.certificate
said = certificate.verdict, certificate.reason, certificate.presence
sys.stdout.buffer.write(pickle.dumps((repr(localizer), found.scores, said, localizer.unknown_words(found.concept))))
"""


def test_a_localizer_answers_alike_in_another_process(tmp_path: Path) -> None:
    """A pool of processes ended in "Can't pickle local object", or in that of a lock."""
    localizer = Localizer.from_pretrained("demo", size=96, gamma=0.5)
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "noise.png")
    mine = localizer.locate(picture, "a forked tail fin", ["a rounded tail fin"])
    sent = pickle.dumps((localizer, str(tmp_path / "noise.png")))
    done = subprocess.run([sys.executable, "-c", WORKER], input=sent, capture_output=True, check=True)
    said, scores, certificate, unknown = pickle.loads(done.stdout)
    assert said == repr(localizer)
    assert "gamma=0.5" in said
    np.testing.assert_array_equal(scores, mine.scores)
    assert certificate == (mine.certificate.verdict, mine.certificate.reason, mine.certificate.presence)
    assert unknown == localizer.unknown_words(mine.concept)


@pytest.mark.parametrize("kind", BUILDERS)
def test_every_family_can_be_sent(kind: str) -> None:
    model = backbone(kind)
    sent = portable(model, "float32")
    assert isinstance(sent, Packed), f"{kind} goes by its name alone"
    other = sent.load()
    assert other.weights_hash == model.weights_hash
    pixels = pictures(model)
    torch.testing.assert_close(other.encode_image(pixels), model.encode_image(pixels), rtol=0, atol=0)
    if kind not in WORDLESS_KINDS:
        torch.testing.assert_close(other.encode_text(["a fish"]), model.encode_text(["a fish"]), rtol=0, atol=0)


def test_a_localizer_whose_model_cannot_be_pickled_is_refused_where_it_is_sent() -> None:
    """It went by a name that nothing is loaded by, and failed in every process of a pool, one after another without end."""
    model = backbone("vit")
    model.held = lambda: None  # type: ignore[attr-defined]  # plain pickle refuses a function within another
    with pytest.raises((AttributeError, pickle.PicklingError), match="local object"):
        pickle.dumps(Localizer(model))


def test_a_copy_within_the_process_shares_the_model() -> None:
    localizer = Localizer(backbone("vit"), Settings(gamma=0.5))
    other = copy.copy(localizer)
    assert other.backbone is localizer.backbone
    assert other.settings == localizer.settings


def test_words_keep_their_meaning_where_weights_are_shuffled() -> None:
    """What the bundled model knows of words is part of its texts, which the randomised copy shares."""
    localizer = Localizer.from_pretrained("demo", size=96)
    asked = Concept(("a xyzzyq fin",))
    assert randomised(localizer, 0).unknown_words(asked) == localizer.unknown_words(asked) == ("xyzzyq",)
