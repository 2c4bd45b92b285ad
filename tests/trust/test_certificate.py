"""Towers that fail in known ways are called out; a healthy one is not."""

from __future__ import annotations

import gc
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import Concept, Localizer
from concept_cam.backbones.protocol import ImageFeatures
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.settings import OWN_INPUT, Settings
from concept_cam.trust import probes
from concept_cam.trust.certificate import Certifier, host_of
from concept_cam.trust.conformal import Conformal
from concept_cam.trust.logistic import Logistic
from concept_cam.trust.rules import Fit, KnownTarget, Rules, shipped
from tests.planted import PlantedBackbone

WORDS = 96


class Words(PlantedBackbone):
    """Every text has a direction of its own; a picture's cells hold the texts that were planted there, in noise."""

    embed_dim = WORDS

    def __init__(self, planted: dict[str, tuple[slice, slice]], noise: float = 0.35, seed: int = 0) -> None:
        super().__init__(size=96, stride=8)
        self.planted, self.noise, self.seed = planted, noise, seed

    def word(self, text: str) -> Tensor:
        generator = torch.Generator().manual_seed(sum(ord(c) * 31**i for i, c in enumerate(text[:40])) % 2**31)
        return F.normalize(torch.randn(WORDS, generator=generator), dim=0)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([self.word(prompt) for prompt in prompts])

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        rows, columns = self.grid_size((pixels.shape[-2], pixels.shape[-1]))
        generator = torch.Generator().manual_seed(self.seed)
        patches = self.noise * F.normalize(torch.randn(len(pixels), rows, columns, WORDS, generator=generator), dim=-1)
        for text, (y, x) in self.planted.items():
            patches[:, y, x] += self.word(text)
        return ImageFeatures(patches, patches.mean(dim=(1, 2)))


class Subject(Words):
    """Answers with the subject whatever is asked: all texts are one, up to a little."""

    def word(self, text: str) -> Tensor:
        return F.normalize(super().word("a fish") + 0.01 * super().word(text), dim=0)


class Constant(Words):
    """Every cell is the same."""

    def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
        features = super().encode_patches(pixels, attention, valid)
        return ImageFeatures(features.image[:, None, None].expand_as(features.patches).contiguous(), features.image)


class Reader(Words):
    """Answers at written words, whatever is asked."""

    def word(self, text: str) -> Tensor:
        written = super().word("written words")
        return written if text in probes.LABELS else F.normalize(0.9 * written + 0.3 * super().word(text), dim=0)


FIN = {"a fish": (slice(2, 10), slice(1, 11)), "a tail fin": (slice(4, 7), slice(9, 11)), "a head": (slice(4, 8), slice(1, 3))}
PICTURE = np.zeros((96, 96, 3), np.uint8)


def verdicts(tower: type[Words], noise: float = 0.35, count: int = 40, planted: dict[str, tuple[slice, slice]] | None = None) -> list[str]:
    found = []
    for seed in range(count):
        backbone = tower(FIN if planted is None else planted, noise, seed)
        backbone.weights_hash = f"{tower.__name__}{seed}"
        concept = Concept(("a tail fin",), (("a head",),), metadata={"host": "fish"})
        found.append(Localizer(backbone).locate(PICTURE, concept).certificate.verdict)
    return found


def share(found: list[str], verdict: str) -> float:
    return found.count(verdict) / len(found)


def test_a_healthy_tower_is_clear() -> None:
    assert share(verdicts(Words), "clear") >= 0.95


@pytest.mark.parametrize("tower", [Subject, Constant])
def test_towers_that_do_not_listen_are_called_out(tower: type[Words]) -> None:
    assert share(verdicts(tower), "not about the prompt") >= 0.95


def test_a_tower_that_reads_is_called_out() -> None:
    found = verdicts(Reader, planted={"a fish": (slice(2, 10), slice(1, 11)), "written words": (slice(0, 1), slice(0, 4))})
    assert share(found, "clear") <= 0.05


def test_a_tower_of_noise_is_called_out() -> None:
    assert share(verdicts(Words, noise=1.0, planted={}), "clear") <= 0.25


def test_certificates_are_plain_data() -> None:
    localizer = Localizer(Words(FIN))
    found = localizer.locate(PICTURE, "a tail fin", ["a head"])
    certificate = found.certificate
    assert found.certificate is certificate  # Computed once.
    content = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
    assert content["verdict"] == certificate.verdict
    assert content["calibrated"] is False
    assert content["confidence"] is content["presence"] is content["domain"] is None
    assert str(certificate) == f"{certificate.verdict}: {certificate.reason}"
    assert certificate.text == certificate.evidence.text
    assert certificate.dependence == certificate.evidence.dependence_host
    assert certificate.evidence.separability == pytest.approx(
        float((localizer.embed_texts([["a tail fin"]]) - localizer.embed_texts([["a head"]])).norm()), abs=1e-5
    )


def test_the_scores_of_the_evidence_are_those_of_the_map() -> None:
    found = Localizer(Words(FIN)).locate(PICTURE, "a tail fin", ["a head"])
    slow = (found.scores.max() - found.scores.mean()) / found.scores.std()
    assert found.certificate.evidence.peak == pytest.approx(float(slow), rel=1e-4)


def test_certificates_of_some_questions_are_those_of_all() -> None:
    """To the last bit, whichever are asked for: with few and with many contrasts, with places, with hidden cells."""
    tower = Words({"a forked tail": (slice(2, 4), slice(6, 9)), "an eye": (slice(6, 8), slice(1, 3))})
    localizer = Localizer(tower)
    concepts = [
        Concept(("a forked tail",), (("a rounded tail",), ("a square tail",))),
        Concept(("an eye",)),
        Concept(("a fin",), (("a forked tail",),), metadata={"host": "fish"}),
        Concept(("a rounded tail",), (("a forked tail",), ("a square tail",))),
        Concept(("a photo of text",), (("an eye",),)),
    ]
    answers = localizer.score(localizer.encode(np.full((96, 96, 3), 90, dtype=np.uint8)), concepts)
    certify = answers.certify
    assert isinstance(certify, Certifier)
    hidden, left = answers.geometry.valid(), np.zeros(answers.geometry.grid, dtype=bool)
    hidden[:, :2], left[:, :6] = False, True
    for valid, cells in ((answers.geometry.valid(), {}), (hidden, {}), (answers.geometry.valid(), {1: left})):
        alone = {number: repr(certify.within(cells.get(number, valid))(number)) for number in range(len(concepts))}
        for wanted in ([0], [3, 1], [4, 2, 0], list(range(5))):
            found = certify.within(valid).placed(cells).of(wanted)
            assert list(found) == wanted
            assert {number: repr(one) for number, one in found.items()} == {number: alone[number] for number in wanted}
    assert certify.of([]) == {}


def test_what_no_question_is_about_is_asked_of_a_picture_once() -> None:
    localizer = Localizer(Words(FIN))
    features = localizer.encode(PICTURE)
    asked = [Concept(("a tail fin",), (("a head",),)), Concept(("a head",)), Concept(("a tail fin",), metadata={"host": "fish"})]
    first = [localizer.score(features, concept)[0].certificate for concept in asked]
    (known,) = localizer._probed.values()
    again = [localizer.score(features, concept)[0].certificate for concept in asked]
    assert list(localizer._probed.values()) == [known]
    other = localizer.with_settings(gamma=0.5)
    assert other._probed is localizer._probed
    assert localizer.with_settings(feature_norm="none")._probed is not localizer._probed
    for concept, one, two in zip(asked, first, again):
        fresh = Localizer(localizer.backbone).locate(PICTURE, concept).certificate
        assert one.to_dict() == two.to_dict()
        assert {**one.to_dict(), "evidence": None} == {**fresh.to_dict(), "evidence": None}
        numbers = [[np.nan if value is None else value for value in found.evidence.to_dict().values()] for found in (one, fresh)]
        assert np.allclose(*numbers, rtol=1e-5, equal_nan=True)
    del features
    gc.collect()
    assert len(localizer._probed) == 0  # Held by nobody else.


def test_the_ledger_sums_to_the_score_of_the_best_cell() -> None:
    found = Localizer(Words(FIN)).locate(PICTURE, "a tail fin", ["a head", "a fish"])
    ledger = dict(found.certificate.ledger)
    assert list(ledger) == ["a tail fin", "a head", "a fish"]
    assert sum(ledger.values()) == pytest.approx(found.peak_score, abs=1e-5)
    assert ledger == pytest.approx(found.ledger_at_peak(), abs=1e-5)


def test_the_caption_of_an_overlay_says_the_verdict() -> None:
    localizer = Localizer(Words(FIN))
    found = localizer.locate(PICTURE, "a tail fin", ["a head"])
    assert found.caption == "a tail fin vs. a head [clear]"
    assert localizer.locate(PICTURE, "a tail fin", method="center").caption == "a tail fin"


def known(localizer: Localizer, **kinds: str) -> Rules:
    """Rules that know some targets, and nothing else."""
    targets = {f"pack:{name.replace('_', ' ')}": KnownTarget(name.replace("_", " "), kind, "fish", 9, 0.5) for name, kind in kinds.items()}
    return Rules(known=targets, facts=localizer.conditions(), hosts=("fish",))


def test_free_words_are_known_by_what_they_mean() -> None:
    plain = Localizer(Words(FIN))
    localizer = Localizer(plain.backbone, rules=known(plain, a_tail_fin="part", a_head="part"))
    facts = localizer.locate(PICTURE, "a tail fin").certificate.facts
    assert (facts.kind, facts.host, facts.target, facts.likeness) == ("part", "fish", "pack:a tail fin", 1.0)
    strange = localizer.locate(PICTURE, "a violin").certificate.facts
    assert (strange.kind, strange.host, strange.target, strange.likeness) == ("thing", "", "", 0.0)
    named = Concept(("something else",), name="a head", metadata={"pack": "pack", "kind": "part", "host": "fish"})
    assert localizer.locate(PICTURE, named).certificate.facts.target == "pack:a head"  # By its name in the pack.
    bird = Concept(("a tail fin",), metadata={"kind": "part", "host": "bird"})
    assert localizer.locate(PICTURE, bird).certificate.facts.target == ""  # What a bird has was not measured.


def test_rules_of_other_settings_are_not_used() -> None:
    plain = Localizer(Words(FIN))
    localizer = Localizer(plain.backbone, rules=known(plain, a_tail_fin="part"))
    assert localizer.with_settings(gamma=0.5).locate(PICTURE, "a tail fin", ["a head"]).certificate.facts.target == ""


@pytest.mark.parametrize("other", [{"size": 64}, {"views": "mirrored"}, {"resize": "squash"}, {"std": (0.5, 0.5, 0.5)}])
def test_answers_know_how_their_features_were_encoded(other: dict[str, Any]) -> None:
    """Features bear how they were encoded: whoever asks them, provenance and certificates are those of asking in one go."""
    plain = Localizer(Words({"a tail fin": (slice(3, 6), slice(3, 6))}))
    localizer = Localizer(plain.backbone, rules=Rules(fits={"thing": Fit(ALWAYS, ALWAYS, 0.5, 0.5)}, facts=plain.conditions()))
    changed = localizer.with_settings(**other)
    concept = Concept(("a tail fin",), (("a head",),))
    own, features = localizer.encode(PICTURE), changed.encode(PICTURE)
    at_once = changed.locate(PICTURE, concept)
    (mixed, again), back = localizer.score([own, features], [concept]), changed.score(own, [concept])[0]
    np.testing.assert_array_equal(again[0].scores, at_once.scores)
    assert again[0].provenance == at_once.provenance
    assert again[0].certificate.to_dict() == at_once.certificate.to_dict()
    assert (at_once.certificate.confidence, at_once.certificate.calibrated) == (None, False)
    for found in (mixed[0], back):
        assert found.provenance == localizer.locate(PICTURE, concept).provenance
        assert found.certificate.calibrated
    limits = Conformal(0.1, inner={"a tail fin": 0.5}, facts=plain.conditions())
    assert limits.guarantee(back).inner is not None
    with pytest.raises(ConfigurationError, match=f"fitted with {next(iter(other))}"):
        limits.guarantee(again[0])


def own_settings(localizer: Localizer) -> list[dict[str, Any]]:
    """The model's own input in words, and a resize mode that the policy does not use."""
    own = localizer.backbone.preprocess
    return [
        {"mean": own.mean, "std": own.std},
        {"interpolation": own.interpolation},
        {"resize_mode": own.native},
        {"resize_mode": next(mode for mode in ("squash", "longest") if mode != own.native)},
    ]


@pytest.mark.parametrize("number", range(4))
def test_the_models_own_input_may_be_said(number: int) -> None:
    """Said or left to the model, an input that is the same one is described alike, and what was fitted to it holds."""
    plain = Localizer(Words({"a tail fin": (slice(3, 6), slice(3, 6))}))
    said = own_settings(plain)[number]
    fits = {"thing": Fit(ALWAYS, ALWAYS, 0.5, 0.5)}
    concept = Concept(("a tail fin",), (("a head",),))
    expected = Localizer(plain.backbone, rules=Rules(fits=fits, facts=plain.conditions())).locate(PICTURE, concept)
    localizer = plain.with_settings(**said)
    recorded = {name: list(value) if isinstance(value, tuple) else value for name, value in said.items()}
    earlier = {name: value for name, value in plain.conditions().items() if name != OWN_INPUT}
    # Facts as they are made now, as they were written before, and as they were where the input was said then too.
    for facts in (plain.conditions(), localizer.conditions(), earlier, {**earlier, **recorded}):
        rules = Rules.of(json.loads(Rules(fits=fits, facts=facts).to_json()), "a file")
        limits = Conformal.of(json.loads(Conformal(0.1, inner={"a tail fin": 0.5}, facts=facts).to_json()), "a file")
        for asked in (localizer, plain):
            rules.check(asked.conditions())
            found = asked.with_rules(rules).locate(PICTURE, concept)
            assert found.certificate.calibrated
            assert found.certificate.to_dict() == expected.certificate.to_dict()
            assert found.provenance == expected.provenance
            assert found.provenance.to_dict() == expected.provenance.to_dict()
            assert limits.guarantee(found).inner is not None
    other = plain.with_settings(mean=(0.1, 0.2, 1 / 3))
    Rules.of(json.loads(Rules(fits=fits, facts=other.conditions()).to_json()), "a file").check(other.conditions())
    for facts in (plain.conditions(), earlier):
        with pytest.raises(ConfigurationError, match="fitted with mean None"):
            Rules(fits=fits, facts=facts).check(other.conditions())
    native = plain.with_settings(resize="native")
    if "resize_mode" in said and said["resize_mode"] != plain.preprocess.native:  # Under this policy it is another input.
        with pytest.raises(ConfigurationError, match="fitted with resize_mode None"):
            Rules(fits=fits, facts=native.conditions()).check(native.with_settings(**said).conditions())
    else:
        Rules(fits=fits, facts=native.conditions()).check(native.with_settings(**said).conditions())


def test_what_a_model_leaves_open_is_recorded() -> None:
    """Where published weights disagree the model has no value of its own that could be left out."""
    backbone = Words(FIN)
    own = backbone.preprocess
    backbone.preprocess = replace(own, unsure=(("mean", "one of two"),))
    localizer = Localizer(backbone, Settings(mean=own.mean))
    assert localizer.conditions()["mean"] == list(own.mean)
    found = replace(localizer.locate_all([PICTURE], Concept(("a tail fin",)))[0], picture=PICTURE)
    assert localizer.careful(found)[0].certificate.agreement is not None


def test_the_shipped_rules_hold_where_the_checkpoints_own_input_is_said() -> None:
    localizer = Localizer.from_pretrained("demo")
    rules = shipped(localizer.backbone.weights_hash)
    assert rules is not None
    for said in own_settings(localizer):
        rules.check(localizer.with_settings(**said).conditions())
    with pytest.raises(ConfigurationError, match="fitted with interpolation None, the maps are made with 'bilinear'"):
        rules.check(localizer.with_settings(interpolation="bilinear").conditions())


def test_other_readings_are_encoded_as_the_first_was() -> None:
    class Noting(PlantedBackbone):
        sizes: ClassVar[list[tuple[int, ...]]] = []

        def encode_patches(self, pixels: Tensor, attention: str = "auto", valid: Tensor | None = None) -> ImageFeatures:
            self.sizes.append(tuple(pixels.shape[-2:]))
            return super().encode_patches(pixels, attention, valid)

    localizer = Localizer(Noting(size=32))
    features = localizer.with_settings(size=64).encode(PICTURE)
    answers = replace(localizer.score(features, [Concept(("red",))]), picture=PICTURE)
    assert localizer.careful(answers)[0].certificate.agreement is not None
    assert set(Noting.sizes) == {(64, 64)}


def test_a_word_for_labels_that_is_asked_for_is_no_evidence_against_itself() -> None:
    ruler = {"a ruler": (slice(2, 4), slice(2, 8))}
    localizer = Localizer(Words(ruler))
    assert localizer.locate(PICTURE, "a ruler", ["a head"]).certificate.evidence.text == 0.0
    beside = Words({**ruler, "a tail fin": (slice(2, 4), slice(2, 8))})
    assert Localizer(beside).locate(PICTURE, "a tail fin", ["a head"]).certificate.evidence.text == 1.0


def test_certificates_do_not_depend_on_what_the_caller_set() -> None:
    plain = Localizer(Words(FIN)).locate(PICTURE, "a tail fin", ["a head"]).certificate
    found = Localizer(Words(FIN)).locate(PICTURE, "a tail fin", ["a head"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert found.certificate.evidence == plain.evidence


def test_methods_without_texts_have_none() -> None:
    found = Localizer(Words(FIN)).locate(PICTURE, "a tail fin", method="center")
    with pytest.raises(ConfigurationError, match="has no certificate"):
        _ = found.certificate


def test_the_host_of_a_concept() -> None:
    assert host_of(Concept(("x",), metadata={"host": "animal"})) == ("a photo of an animal", "an animal")
    assert host_of(Concept(("x",))) == probes.SUBJECTS
    # Who asks for the whole animal asks for no part of it: its map may be that of the animal.
    assert host_of(Concept(("a creature", "An  animal"), metadata={"host": "animal"})) == probes.SUBJECTS


def test_the_bundled_model_brings_rules_of_its_own() -> None:
    from concept_cam.commands import example

    localizer = Localizer.from_pretrained()
    assert localizer.rules.weights_hash == localizer.backbone.weights_hash
    fish = localizer.locate_all([example.render_fish("forked")], example.questions())[0]
    assert all(found.certificate.calibrated for found in fish)
    assert sum(found.certificate.verdict == "clear" for found in fish) >= 4
    assert not any(found.certificate.verdict == "absent" for found in fish)
    cat = localizer.locate_all([example.photograph("chelsea")], example.questions())[0]
    assert [found.certificate.verdict for found in cat].count("clear") == 0


def test_under_other_settings_than_those_fitted_a_state_is_not_clear_beside_a_likelier_one() -> None:
    from concept_cam import prompts
    from concept_cam.commands import example

    asked = prompts.load("fish:caudal_fin_shape")
    states = Localizer.from_pretrained().locate_all([example.render_fish("forked")], asked, gamma=0.9)[0]
    told = {found.concept.name.split("=")[1]: found.certificate for found in states}
    assert not any(found.calibrated for found in told.values())
    assert [name for name, found in told.items() if found.verdict == "clear"] == ["forked"]
    assert "'forked' is likelier in the picture" in told["rounded"].reason
    assert (told["forked"].facts.likelier, told["rounded"].facts.likelier) == ("", "forked")


class Remembering(Words):
    """A tower that remembers what pictures of its groups look like: a group's own word."""

    groups: ClassVar[tuple[str, ...]] = ("fish", "beetle")

    def domain(self, image: Tensor, group: str = "") -> Tensor:
        assert not group or group in self.groups, "a group that the model does not know is not asked for"
        own = torch.stack([self.word(f"a {name}") for name in ([group] if group else self.groups)])
        return 1 - (F.normalize(image, dim=-1) @ own.T).amax(1)

    def nearest_group(self, image: Tensor) -> tuple[str, ...]:
        own = torch.stack([self.word(f"a {name}") for name in self.groups])
        return tuple(self.groups[row] for row in (image @ own.T).argmax(1).tolist())


def part_of(group: str) -> Concept:
    return Concept(("a head",), (("a tail fin",),), name="parts=head", metadata={"pack": group, "host": group, "kind": "part"})


ALWAYS = Logistic({}, {}, {}, 50.0)
"""Whatever is seen, it is there and found: what holds such a model back is the picture's group alone."""


def test_the_domain_is_that_of_the_group_that_was_asked_about() -> None:
    localizer = Localizer(Remembering(FIN))
    image = localizer.encode(PICTURE).image[None]
    distances = {name: float(localizer.backbone.domain(image, name)) for name in Remembering.groups}  # type: ignore[attr-defined]
    assert distances["fish"] < distances["beetle"] - 0.2
    fish, beetle, bird = (localizer.locate(PICTURE, part_of(group)).certificate for group in ("fish", "beetle", "bird"))
    assert (fish.domain, fish.facts.nearer) == (pytest.approx(distances["fish"]), 0.0)
    assert beetle.domain == pytest.approx(distances["beetle"])
    assert beetle.facts.nearer == pytest.approx(distances["beetle"] - distances["fish"])
    assert bird.domain is None  # The model remembers no birds: how far the nearest beetle is says nothing of them.
    assert np.isnan(bird.facts.nearer)
    assert {found.nearest_group for found in (fish, beetle, bird)} == {"fish"}
    thing = localizer.locate(PICTURE, "a violin").certificate
    assert (thing.facts.group, thing.domain) == ("", pytest.approx(distances["fish"]))
    assert beetle.to_dict()["nearest_group"] == "fish"


def test_how_far_a_picture_is_from_a_group_is_asked_once() -> None:
    class Counting(Remembering):
        calls: ClassVar[list[str]] = []

        def domain(self, image: Tensor, group: str = "") -> Tensor:
            self.calls.append(group)
            return super().domain(image, group)

    localizer = Localizer(Counting(FIN))
    asked = [part_of(group) for group in ("fish", "beetle", "bird")]
    found = localizer.locate_all([PICTURE], [*asked, *(replace(concept, name="again") for concept in asked), Concept(("a head",))])[0]
    assert len([answer.certificate.domain for answer in found]) == 7
    assert [Counting.calls.count(group) for group in Counting.groups] == [1, 1]


def test_a_model_that_knows_one_group_has_one_distance() -> None:
    class Alone(Words):
        def domain(self, image: Tensor) -> Tensor:
            return torch.full((len(image),), 0.3)

    found = [Localizer(Alone(FIN)).locate(PICTURE, concept).certificate for concept in (part_of("fish"), part_of("beetle"))]
    assert [(each.domain, each.nearest_group, np.isnan(each.facts.nearer)) for each in found] == [(pytest.approx(0.3), "", True)] * 2


def test_what_was_not_fitted_for_a_group_is_not_stated() -> None:
    plain = Localizer(Remembering(FIN))
    fits = {"fish/part": Fit(ALWAYS, ALWAYS, 0.5, 0.5)}
    localizer = Localizer(plain.backbone, rules=Rules(fits=fits, facts=plain.conditions(), hosts=("fish", "beetle")))
    fish, beetle = (localizer.locate(PICTURE, part_of(group)).certificate for group in ("fish", "beetle"))
    assert fish.calibrated
    assert (fish.verdict, fish.presence) == ("clear", pytest.approx(1.0))
    assert not beetle.calibrated
    assert beetle.presence is beetle.confidence is None


def test_kinds_that_given_rules_have_nothing_for_stay_with_the_models_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules that were fitted to states alone took confidence and presence of parts away."""
    plain = Localizer(Remembering(FIN))
    targets = {"fish:parts=head": KnownTarget("a head", "part", "fish", 9, 0.5)}
    own = Rules(fits={"fish/part": Fit(ALWAYS, ALWAYS, 0.5, 0.5)}, known=targets, facts=plain.conditions(), hosts=("fish",))
    monkeypatch.setattr("concept_cam.trust.rules.shipped", lambda name: own if name == plain.backbone.weights_hash else None)
    states = Rules(fits={"fish/state": Fit(ALWAYS, ALWAYS, 0.5, 0.5)}, facts=plain.conditions(), hosts=("fish",))
    localizer = Localizer(plain.backbone, rules=states)
    state = Concept(("a tail fin",), (("a head",),), name="tail=big", metadata={"pack": "fish", "host": "fish", "kind": "shape"})
    part, free, called, thing = (
        localizer.locate(PICTURE, asked).certificate for asked in (part_of("fish"), "a head", state, Concept(("a violin",)))
    )
    for found in (part, free):
        assert found.calibrated
        assert found.presence == pytest.approx(1.0)
        assert found.reason.endswith("; by the model's own limits: the trust file has none for parts of an organism.")
    assert free.facts.target == "fish:parts=head"
    assert called.calibrated
    assert "own limits" not in called.reason
    assert not thing.calibrated  # The model's own have nothing for things either.
    assert "own limits" not in thing.reason
    parts = Rules(fits={"fish/part": Fit(ALWAYS, ALWAYS, 1.01, 0.5)}, facts=plain.conditions(), hosts=("fish",))
    theirs = Localizer(plain.backbone, rules=parts).locate(PICTURE, part_of("fish")).certificate
    assert (theirs.verdict, "own limits" in theirs.reason) == ("doubtful", False)
    assert not Localizer(plain.backbone, rules=Rules()).locate(PICTURE, part_of("fish")).certificate.calibrated
    other = localizer.with_settings(gamma=0.5).locate(PICTURE, part_of("fish")).certificate
    assert not other.calibrated  # Neither were fitted under this.


def test_a_group_that_is_not_in_the_picture_abstains() -> None:
    plain = Localizer(Remembering(FIN))
    fits = {f"{group}/part": Fit(ALWAYS, ALWAYS, 0.5, 0.5, nearer=0.1) for group in Remembering.groups}
    localizer = Localizer(plain.backbone, rules=Rules(fits=fits, facts=plain.conditions(), hosts=Remembering.groups))
    fish, beetle = (localizer.locate(PICTURE, part_of(group)).certificate for group in ("fish", "beetle"))
    assert fish.verdict == "clear"
    assert beetle.verdict == "doubtful"
    assert "more like another group (fish) than like what was asked about (beetle)" in beetle.reason


def test_free_words_are_of_the_group_that_they_mean_or_name() -> None:
    plain = Localizer(Remembering(FIN))
    targets = {f"{group}:parts=head": KnownTarget(f"the head of a {group}", "part", group, 9, 0.5) for group in Remembering.groups}
    rules = Rules(known=targets, facts=plain.conditions(), hosts=Remembering.groups)
    localizer = Localizer(plain.backbone, rules=rules)
    assert localizer.locate(PICTURE, "the head of a beetle").certificate.facts.group == "beetle"
    assert localizer.locate(PICTURE, Concept(("a wing",), metadata={"host": "beetle"})).certificate.facts.group == "beetle"
    own = Concept(("a wing",), metadata={"host": "beetle", "pack": "mine"})
    assert localizer.locate(PICTURE, own).certificate.facts.group == "beetle"  # A pack of one's own about the same animals.
    assert localizer.locate(PICTURE, "a violin").certificate.facts.group == ""
