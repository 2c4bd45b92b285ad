"""Captions of every world: what they say is what the pictures show."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from concept_cam import prompts
from concept_cam.core.errors import ConfigurationError
from concept_cam.demo.worlds import WORLDS, captions
from concept_cam.demo.worlds.captions import CaptionWriter, PictureFacts
from concept_cam.demo.worlds.claims import FALSE, KINDS, TRUE, UNKNOWN, Statement
from concept_cam.demo.worlds.family import Rendering, Specimens, World


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


@pytest.fixture(scope="module")
def writer(world: World) -> CaptionWriter:
    return CaptionWriter(world, more=True)


@pytest.fixture(scope="module")
def shown(world: World) -> tuple[Specimens, Rendering, PictureFacts]:
    some = world.sample(12, 71)
    made = world.render(some, 128, masks=True)
    return some, made, captions.picture_facts(world, some, made)


def test_every_claim_has_phrases_of_its_own(world: World, writer: CaptionWriter) -> None:
    assert set(writer.phrases) == {*captions.statements(world), *world.more_phrases}
    owner: dict[str, Statement] = {}
    for claim, phrases in writer.phrases.items():
        assert phrases, claim
        for phrase in phrases:
            same = owner.setdefault(" ".join(captions.split_words(phrase)), claim)
            # A part and its presence say the same of a picture; what lies behind may be what lies beside.
            assert same == claim or same.key == claim.key or "scene" in (same.kind, claim.kind), (phrase, same, claim)


def test_a_host_has_the_article_that_it_takes(tmp_path: Path) -> None:
    text = prompts.available()["beetle"].read_text(encoding="utf-8")
    (tmp_path / "insect.yaml").write_text(re.sub("beetle", "insect", re.sub(r"\b([Aa]) beetle\b", r"\1n insect", text)), encoding="utf-8")
    world = replace(WORLDS["beetle"], host="insect")
    writer, rng = CaptionWriter(world, prompts.load_pack(str(tmp_path / "insect.yaml"))), np.random.default_rng(0)
    written = {writer.single(rng, claim).text for _ in range(12) for claim in captions.statements(world)}
    assert any("an insect" in text for text in written)
    assert not [text for text in (*written, *(phrase for phrases in writer.phrases.values() for phrase in phrases)) if "a insect" in text]


def test_a_pack_that_has_no_words_for_a_world_is_named() -> None:
    """The names of a presence need not be what is had: its states may be whole sentences."""
    pack, world = prompts.load_pack("beetle"), WORLDS["beetle"]
    name = sorted(world.presences)[0]

    def reworded(character: prompts.Character) -> prompts.Character:
        if character.name != name:
            return character
        states = (replace(state, phrases=("horns on a beetle",) if state.name == "present" else ()) for state in character.states)
        return replace(character, states=tuple(states))

    silent = replace(world, state_phrases={key: value for key, value in world.state_phrases.items() if key != name})
    other = replace(pack, characters=tuple(map(reworded, pack.characters)))
    said = rf"'{name}' is missing: none of its phrases .*'horns on a beetle'.* begins with 'a beetle with'"
    with pytest.raises(ConfigurationError, match=said):
        CaptionWriter(silent, other)
    told = replace(silent, state_phrases={**silent.state_phrases, name: {"absent": ("a bare beetle",)}})
    assert CaptionWriter(told, other).phrases[Statement("lacks", name)] == ("a bare beetle",)
    few = replace(pack, characters=tuple(each for each in pack.characters if each.name != name))
    with pytest.raises(ConfigurationError, match=rf"received the pack 'beetle' without '{name}': add them"):
        CaptionWriter(world, few)


def test_prompts_are_the_packs(world: World, writer: CaptionWriter) -> None:
    for concept in prompts.concepts(prompts.load_pack(world.name), "parts"):
        claim = Statement("part", concept.metadata["part"])
        assert claim not in writer.prompts or set(writer.prompts[claim]) == set(concept.target_prompts)
    table = captions.prompts_by_state(writer)
    assert {name: set(states) for name, states in table.items()} == {name: set(states) for name, states in world.characters.items()}


def test_descriptions_and_joint_captions_are_true(writer: CaptionWriter, shown: tuple[Specimens, Rendering, PictureFacts]) -> None:
    rng = np.random.default_rng(0)
    for i in range(len(shown[2])):
        row = shown[2][slice(i, i + 1)]
        written = writer.describe(rng, row, 8)
        assert (captions.truth_table(row, written) == TRUE).all()
        assert all("HOST" not in caption.text and "{}" not in caption.text for caption in written)
    written = writer.batch(rng, shown[2])
    assert {claim for caption in written for claim in caption.statements} >= set(captions.statements(shown[0].group))
    known = set(writer.words())
    assert all(set(captions.split_words(caption.text)) <= known for caption in written)


def test_truth_restated(world: World, shown: tuple[Specimens, Rendering, PictureFacts]) -> None:
    """The same table, claim by claim and picture by picture, from the masks and the states."""
    some, made, facts = shown
    claims = captions.statements(world)
    table = captions.statement_truth(facts, claims)
    for i in range(len(some)):
        traits = some.trait(i)
        for a, claim in enumerate(claims):
            if claim.kind in ("host", "empty"):
                expected = TRUE if bool(traits) == (claim.kind == "host") else FALSE
            elif claim.kind == "part":
                p = world.masks.index(claim.key)
                expected = TRUE if bool(made.visible[i, p]) else UNKNOWN if bool(made.in_frame[i, p]) else FALSE
            elif claim.kind == "scene":
                same = world.scenes[int(some.scene[i])] == claim.key
                expected = (TRUE if some.view(i) == "whole" or not traits else UNKNOWN) if same else FALSE
            else:
                c, p = list(world.characters).index(claim.key), world.masks.index(world.character_mask[claim.key])
                if not traits:
                    expected = FALSE
                elif bool(made.judgeable[i, c]):
                    expected = TRUE if traits[claim.key] == (claim.state or "absent") else FALSE
                else:
                    expected = UNKNOWN if claim.kind == "lacks" or bool(made.in_frame[i, p]) else FALSE
            assert table[i, a] == expected, (i, claim)


def test_batches_of_facts(world: World, shown: tuple[Specimens, Rendering, PictureFacts]) -> None:
    facts = shown[2]
    again = captions.concatenate_facts([facts[slice(0, 5)], facts[slice(5, 12)]])
    claims = (*captions.statements(world), *world.more_phrases)
    assert (captions.statement_truth(again, claims) == captions.statement_truth(facts, claims)).all()
    other = next(name for name in WORLDS if name != world.name)
    specimens = WORLDS[other].sample(1, 1)
    foreign = captions.picture_facts(WORLDS[other], specimens, WORLDS[other].render(specimens, 32))
    with pytest.raises(ValueError, match="expected one group"):
        captions.concatenate_facts([facts, foreign])
    with pytest.raises(ValueError, match="unknown kind"):
        captions.statement_truth(facts, [Statement("wish", "x")])
    assert {claim.kind for claim in claims} <= set(KINDS)
