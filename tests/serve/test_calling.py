"""What the page calls now is what an annotation of the same pictures calls, with its reasons for calling nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from concept_cam import prompts
from concept_cam.collection.annotation import annotate
from concept_cam.collection.calls import Limits
from concept_cam.collection.questions import NOT_THE_HOST, host_concept
from concept_cam.collection.runs import read_run
from concept_cam.core.concept import Concept
from concept_cam.demo.worlds import WORLDS
from concept_cam.serve.calling import host_probability
from concept_cam.serve.desk import Desk
from concept_cam.serve.gallery import open_gallery

TRAITS = (
    "fish:caudal_fin_shape",
    "fish:parts",
    "lepidoptera:parts",
    "beetle:parts",
    "beetle:mandible_size",
    "beetle:elytra_gloss",
    "lepidoptera:eyespot_number",
)


@pytest.fixture(scope="module")
def pictures(fish_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fish, a beetle whose head is hidden, a butterfly without eyespots, and a picture of nothing that any pack is about."""
    folder = tmp_path_factory.mktemp("both")
    Image.open(fish_folder / "forked.png").save(folder / "fish.png")
    for world, start, profile in (("beetle", 24, "photographs"), ("lepidoptera", 4, "plain")):
        room = WORLDS[world]
        image = room.render(room.sample(1, 4242, view="whole", start=start, profile=profile), (256, 384)).images[0]
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{world}.png")
    waves = np.sin(np.mgrid[:256, :320][1] / 9)[..., None] * [60, 40, 20] + [120, 140, 110]
    Image.fromarray(waves.astype(np.uint8)).save(folder / "waves.png")
    return folder


@pytest.fixture(scope="module")
def desk(bundled: Any, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Desk(bundled, open_gallery(str(pictures)), corrections=tmp_path_factory.mktemp("kept") / "corrections.sqlite")
    yield made
    made.close()


def test_calls_are_those_of_an_annotation(bundled: Any, desk: Any, pictures: Path, tmp_path: Path) -> None:
    annotate(pictures, traits=TRAITS, output=tmp_path / "run", localizer=bundled, workers=0)
    reasons, told = set(), set()
    for record in read_run(tmp_path / "run").records():
        if record["kind"] == "distance":
            continue
        entry = desk.gallery.by_source(record["source"])
        question = {"character": f"{record['pack']}:{record['character']}"}
        if record["kind"] == "part":
            question["state"] = record["best_state"]
        call = desk.ask(entry, question).to_dict()["call"]
        where = (record["source"], question, record["abstained_because"], call)
        assert call["state"] == record["best_state"], where
        assert call["probability"] == pytest.approx(record["probability"], abs=2e-3), where
        assert call["likely"] == (record["likely_states"] or []), where
        assert call["likely_probability"] == pytest.approx(record["likely_probability"], abs=2e-3), where
        # The part's region may be empty after the call was made, which is the run's affair.
        if record["abstained_because"] != "no_region":
            assert (call["abstained"], call["abstained_because"]) == (record["abstained"], record["abstained_because"]), where
        reasons.add(record["abstained_because"])
        told.add((record["character"], record["abstained_because"]))
    assert {None, "no_host", "absent"} <= reasons
    absent = {name for name, because in told if because == "absent"}
    assert {"mandible_size", "parts"} <= absent, "the states of a part that is absent are not called either"
    assert "elytra_gloss" not in absent
    assert "eyespot_number" in absent, "of eyespots that are not there nobody counts any"


def test_the_host_is_a_softmax_over_other_things(desk: Any) -> None:
    """Restated by hand: cosines of the picture with each text, times the temperature, through a softmax."""
    localizer, pack = desk.localizer, prompts.load_pack("lepidoptera")
    entry = desk.gallery.by_source("fish.png")
    features = desk.features(entry)[0]
    concept = host_concept(pack, lambda text: ())
    assert "a butterfly" not in [texts[0] for texts in concept.contrasts]
    assert {texts[0] for texts in concept.contrasts} < set(NOT_THE_HOST)
    picture = features.image.double().numpy()
    logits = []
    for texts in (concept.target, *concept.contrasts):
        alone = localizer.directions([Concept(texts, templates=concept.templates)])
        (vector,) = alone.texts.double().numpy()
        logits.append(localizer.backbone.logit_scale * float(vector @ picture) / float(np.linalg.norm(vector) * np.linalg.norm(picture)))
    shares = np.exp(np.array(logits) - max(logits))
    assert host_probability(localizer, features, concept) == pytest.approx(shares[0] / shares.sum(), rel=1e-3)


def test_limits_of_a_pack_do_not_touch_words(bundled: Any, pictures: Path, tmp_path: Path) -> None:
    strict = Desk(
        bundled, open_gallery(str(pictures)), corrections=tmp_path / "c.sqlite", limits=Limits(host=0.0, probability=float("inf"))
    )
    entry = strict.gallery.by_source("fish.png")
    shape = strict.ask(entry, {"character": "fish:caudal_fin_shape"}).to_dict()["call"]
    assert (shape["state"], shape["abstained_because"]) == ("forked", "low_probability")
    words = strict.ask(entry, {"target": "a forked tail fin", "contrasts": ["a rounded tail fin"]}).to_dict()["call"]
    assert (words["abstained"], words["host_probability"]) == (False, None)
    alone = strict.ask(entry, {"target": "a forked tail fin"}).to_dict()["call"]
    assert (alone["probability"], alone["abstained"], alone["states"]) == (None, False, ["a forked tail fin"])
    strict.close()
