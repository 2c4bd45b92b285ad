"""Captions of the fish world and their truth."""

from __future__ import annotations

import numpy as np
import pytest

from concept_cam import prompts
from concept_cam.demo.worlds import captions
from concept_cam.demo.worlds.captions import Caption, CaptionWriter, PictureFacts
from concept_cam.demo.worlds.claims import FALSE, TRUE, UNKNOWN, Statement
from concept_cam.demo.worlds.family import SCENES
from concept_cam.demo.worlds.fish.room import WORLD
from concept_cam.demo.worlds.fish.traits import CHARACTERS, FISH, MASKS, PARTS, PRESENCE_CHARACTERS

NAMES = list(CHARACTERS)


def facts(
    states: dict[str, str] | None = None,
    *,
    present: bool = True,
    scene: str = "steel",
    whole: bool = True,
    visible: tuple[str, ...] = MASKS,
    in_frame: tuple[str, ...] | None = None,
    judgeable: tuple[str, ...] = tuple(CHARACTERS),
) -> PictureFacts:
    """One picture."""
    row = [CHARACTERS[name].index((states or {}).get(name, CHARACTERS[name][0])) for name in NAMES]
    frame = visible if in_frame is None else in_frame
    return PictureFacts(
        FISH,
        np.array([row]),
        np.array([present]),
        np.array([SCENES.index(scene)]),
        np.array([whole]),
        np.array([[part in visible for part in MASKS]]),
        np.array([[part in frame for part in MASKS]]),
        np.array([[name in judgeable for name in NAMES]]),
    )


def truth(picture: PictureFacts, *claims: Statement) -> int:
    return int(captions.truth_table(picture, [Caption("", claims)])[0, 0])


@pytest.fixture(scope="module")
def writer() -> CaptionWriter:
    return CaptionWriter(WORLD)


FORKED = Statement("state", "caudal_fin_shape", "forked")
ROUNDED = Statement("state", "caudal_fin_shape", "rounded")


def test_a_state_is_true_or_false_where_it_can_be_judged() -> None:
    picture = facts({"caudal_fin_shape": "forked"})
    assert truth(picture, FORKED) == TRUE
    assert truth(picture, ROUNDED) == FALSE


def test_a_state_of_a_cut_off_part_is_unknown_and_of_a_part_outside_the_frame_false() -> None:
    cut = facts({"caudal_fin_shape": "forked"}, visible=("head",), in_frame=("head", "caudal_fin"), judgeable=())
    assert truth(cut, FORKED) == UNKNOWN
    outside = facts({"caudal_fin_shape": "forked"}, visible=("head",), judgeable=())
    assert truth(outside, FORKED) == FALSE


def test_presence_and_its_lack() -> None:
    present, lacks = Statement("state", "adipose_fin", "present"), Statement("lacks", "adipose_fin")
    with_fin = facts({"adipose_fin": "present"})
    without = facts({"adipose_fin": "absent"}, visible=("head",))
    assert (truth(with_fin, present), truth(with_fin, lacks)) == (TRUE, FALSE)
    assert (truth(without, present), truth(without, lacks)) == (FALSE, TRUE)
    head_only = facts({"adipose_fin": "absent"}, visible=("head",), judgeable=())
    assert truth(head_only, lacks) == UNKNOWN


def test_parts_fish_empty_and_scene() -> None:
    picture = facts(visible=("head",), in_frame=("head", "trunk"), whole=False, scene="gravel")
    assert truth(picture, Statement("part", "head")) == TRUE
    assert truth(picture, Statement("part", "trunk")) == UNKNOWN
    assert truth(picture, Statement("part", "caudal_fin")) == FALSE
    assert truth(picture, Statement("host")) == TRUE
    assert truth(picture, Statement("empty")) == FALSE
    assert truth(picture, Statement("scene", "gravel")) == UNKNOWN
    assert truth(picture, Statement("scene", "sand")) == FALSE


def test_without_a_fish_everything_about_it_is_false() -> None:
    picture = facts(present=False, scene="sand")
    table = captions.statement_truth(picture, captions.statements(FISH))[0]
    true = {claim for claim, value in zip(captions.statements(FISH), table, strict=True) if value == TRUE}
    assert true == {Statement("empty"), Statement("scene", "sand")}
    assert not (table == UNKNOWN).any()


@pytest.mark.parametrize(
    ("values", "expected"),
    [((TRUE, TRUE), TRUE), ((TRUE, UNKNOWN), UNKNOWN), ((UNKNOWN, FALSE), FALSE), ((FALSE, TRUE), FALSE)],
)
def test_conjunction_is_kleenes(values: tuple[int, int], expected: int) -> None:
    visible = tuple(part for part, value in zip(("head", "eye"), values, strict=True) if value == TRUE)
    frame = tuple(part for part, value in zip(("head", "eye"), values, strict=True) if value != FALSE)
    picture = facts(visible=visible, in_frame=frame)
    assert truth(picture, Statement("part", "head"), Statement("part", "eye")) == expected


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        captions.statement_truth(facts(), [Statement("wish", "x")])


def test_every_claim_has_phrases_and_pack_prompts_are_the_packs(writer: CaptionWriter) -> None:
    assert set(writer.phrases) == set(captions.statements(FISH))
    pack = prompts.load_pack("fish")
    for concept in prompts.concepts(pack, "caudal_fin_shape"):
        claim = Statement("state", "caudal_fin_shape", concept.metadata["state"])
        assert set(writer.prompts[claim]) == set(concept.target_prompts)
    for concept in prompts.concepts(pack, "parts"):
        assert set(writer.prompts[Statement("part", concept.metadata["part"])]) == set(concept.target_prompts)


def test_no_text_is_both_true_and_false(writer: CaptionWriter) -> None:
    """The same words must never stand for two different claims."""
    owner: dict[str, Statement] = {}
    for claim, phrases in writer.phrases.items():
        for phrase in phrases:
            key = " ".join(captions.split_words(phrase))
            same = owner.setdefault(key, claim)
            # A part and the presence of that part say the same of a picture.
            assert same == claim or ({same.key, claim.key} <= {"adipose_fin", "pelvic_fin", "barbels"} and same.key == claim.key)


def test_batches_cover_all_claims_reproducibly(writer: CaptionWriter) -> None:
    first = writer.batch(np.random.default_rng(3), facts())
    again = writer.batch(np.random.default_rng(3), facts())
    assert first == again
    assert {claim for caption in first for claim in caption.statements} == set(captions.statements(FISH))
    assert any(len(caption.statements) > 1 for caption in first)
    assert all("{}" not in caption.text for caption in first)


def test_joint_captions_are_true_of_their_picture(writer: CaptionWriter) -> None:
    picture = facts({"pattern": "barred", "barbels": "present"})
    for seed in range(20):
        caption = writer.joint(np.random.default_rng(seed), 3, picture)
        assert captions.truth_table(picture, [caption])[0, 0] == TRUE
        keys = [claim.key for claim in caption.statements]
        assert len(keys) == len(set(keys))


def test_descriptions_are_true(writer: CaptionWriter) -> None:
    picture = facts({"body_colour": "red"}, visible=("trunk",))
    found = writer.describe(np.random.default_rng(0), picture, 12)
    assert len(found) == 12
    assert (captions.truth_table(picture, found) == TRUE).all()


def test_vocabulary_holds_every_word_of_the_pack_and_every_caption(writer: CaptionWriter) -> None:
    known = set(writer.words())
    for concept in prompts.concepts(prompts.load_pack("fish")):
        for text in (*concept.target_prompts, *(p for c in concept.contrast_prompts for p in c)):
            assert set(captions.split_words(text)) <= known
    rng = np.random.default_rng(1)
    for _ in range(5):
        for caption in writer.batch(rng, facts()):
            assert set(captions.split_words(caption.text)) <= known


def test_zero_shot_prompts(writer: CaptionWriter) -> None:
    table = captions.prompts_by_state(writer)
    assert list(table) == NAMES
    for name in PRESENCE_CHARACTERS:
        assert "a fish" in set(table[name]["absent"])
    assert set(PARTS) <= {claim.key for claim in writer.phrases if claim.kind == "part"}
