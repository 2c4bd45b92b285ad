from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from concept_cam import prompts
from concept_cam.collection.questions import MEASURED_DISTANCES, build_questions
from concept_cam.core.errors import ConfigurationError, PromptError


def test_every_character_of_the_fish_pack_has_its_questions() -> None:
    questions = build_questions(["fish"])
    (pack,) = questions.packs
    loaded = prompts.load_pack("fish")
    assert [character.name for character in pack.characters] == [character.name for character in loaded.characters]
    for character, source in zip(pack.characters, loaded.characters):
        assert [state.name for state in character.states] == [state.name for state in source.states]
        for state in character.states:
            assert questions.concepts[state.concept].metadata["state"] == state.name
        if source.kind != "part":
            call = questions.concepts[character.call]
            assert (call.target, *call.contrasts) == tuple(loaded.phrases_of(state) for state in source.states)
    assert pack.distances == tuple(name for name in MEASURED_DISTANCES if name.split("_")[0] not in ("fore", "elytral", "leaf"))
    parts = len(loaded.character("parts").states)
    assert questions.rows == len(loaded.characters) - 1 + parts + len(pack.distances)


def test_the_region_is_the_entitys_own_part_where_the_pack_has_it() -> None:
    questions = build_questions(["fish"])
    characters = {character.name: character for character in questions.packs[0].characters}
    parts = {state.name: state.concept for state in characters["parts"].states}
    assert characters["caudal_fin_shape"].region == parts["caudal_fin"]
    assert characters["dorsal_fin_number"].region == characters["dorsal_fin_texture"].region == parts["dorsal_fin"]
    assert characters["adipose_fin"].region == parts["adipose_fin"]
    spot = questions.concepts[characters["eye_spot"].region]
    assert "the eye spot of a fish" in spot.target
    assert "caudal_fin" in spot.contrast_names


def test_a_selected_character_still_finds_its_part() -> None:
    questions = build_questions(["fish:caudal_fin_shape"])
    (character,) = questions.packs[0].characters
    assert questions.concepts[character.region].metadata["part"] == "caudal_fin"
    assert questions.packs[0].distances == ()
    assert questions.rows == 1


def test_whether_there_is_a_host_is_not_asked_where() -> None:
    parts = build_questions(["fish:parts"])
    assert len(parts.concepts) == len(parts.placed) + 1
    assert parts.concepts[parts.packs[0].host] not in parts.placed
    assert [concept.metadata["state"] for concept in parts.placed] == [
        state.name for state in prompts.load_pack("fish").character("parts").states
    ]


def test_the_host_is_no_alternative_to_itself_and_unknown_words_are_left_out() -> None:
    fish = build_questions(["fish"])
    host = fish.concepts[fish.packs[0].host]
    assert host.target == ("a fish",)
    assert ("a bird",) in host.contrasts
    assert ("a fish",) not in host.contrasts
    few = build_questions(["fish"], lambda text: () if "background" in text else ("word",))
    assert few.concepts[few.packs[0].host].contrasts == (("background",),)


def test_several_packs_stand_side_by_side_and_share_questions() -> None:
    questions = build_questions(["fish", "bird", "fish:pattern"])
    assert [pack.name for pack in questions.packs] == ["fish", "bird"]
    keys = {(concept.target_prompts, concept.contrast_prompts) for concept in questions.concepts}
    assert len(keys) == len(questions.concepts)
    assert set(questions.facts) == {"fish", "bird"}
    assert pickle.loads(pickle.dumps(questions)) == questions


def test_wrong_packs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no trait pack"):
        build_questions([])
    with pytest.raises(ConfigurationError, match="fish:pattern"):
        build_questions(["fish:pattern=barred"])
    with pytest.raises(PromptError, match="fish"):
        build_questions(["fsh"])
    changed = prompts.to_dict(prompts.load_pack("fish")) | {"host": "shark"}
    with pytest.raises(ConfigurationError, match="two different"):
        build_questions(["fish", changed])


def test_a_character_named_as_a_length_is_refused() -> None:
    changed = prompts.to_dict(prompts.load_pack("beetle"))
    changed["characters"]["elytral_length"] = changed["characters"].pop("elytra_length")
    with pytest.raises(PromptError, match="Give the character another name"):
        build_questions([changed])
    for name in ("fish", "bird", "lepidoptera", "beetle", "plant", "mammal"):
        pack = build_questions([name]).packs[0]
        assert not {character.name for character in pack.characters}.intersection(pack.distances)


def test_lengths_of_insects_and_leaves_follow_from_the_parts_of_their_packs() -> None:
    wanted = {"lepidoptera": ("fore_wing_length",), "beetle": ("elytral_length", "elytral_width"), "plant": ("leaf_length", "leaf_width")}
    for name, distances in wanted.items():
        assert build_questions([f"{name}:parts"]).packs[0].distances == distances, name


@pytest.mark.parametrize("name", ["fish", "bird", "lepidoptera", "beetle", "plant", "mammal", "generic"])
def test_every_shipped_pack_can_be_asked(name: str) -> None:
    questions = build_questions([name])
    (pack,) = questions.packs
    for character in pack.characters:
        for state in character.states:
            assert questions.concepts[state.concept].target
        if character.call >= 0:
            region = questions.concepts[character.region]
            assert region.target
            assert not set(region.target) & {text for contrast in region.contrasts for text in contrast}
            assert not any("organism" in text or "whole plant" in text for text in region.target)


def test_the_region_of_the_whole_organism_is_the_hosts() -> None:
    questions = build_questions(["fish:body_shape"])
    (pack,) = questions.packs
    assert pack.characters[0].region == pack.host
    assert questions.concepts[pack.host].target == ("a fish",)


@pytest.mark.parametrize(
    ("rim", "expected"),
    [
        ("{phrases: [the rim of a shell]}", {"lip": "the lip of a shell", "rims=lip": "the rim of a shell", "host": "a shell"}),
        ("{phrases: [the lip of a shell]}", {"lip": "the lip of a shell", "host": "a shell"}),
        ("{phrases: [a shell], contrasts: parts=lip}", {"lip": "the lip of a shell", "host": "a shell"}),
    ],
)
def test_a_region_is_told_from_parts_that_share_a_name_or_a_phrase(rim: str, expected: dict[str, str]) -> None:
    pack = prompts.parse(
        "pack: shells\nhost: shell\ncharacters:\n"
        "  parts: {kind: part, states: {lip: {phrases: [the lip of a shell]}}}\n"
        f"  rims: {{kind: part, states: {{lip: {rim}}}}}\n"
        "  coil: {kind: shape, entity: {label: spire}, states: {tall: {phrases: [a tall spire]}, flat: {phrases: [a flat spire]}}}\n"
    )
    questions = build_questions([pack])
    region = questions.concepts[questions.packs[0].characters[-1].region]
    assert dict(zip(region.contrast_names, (texts[0] for texts in region.contrasts), strict=True)) == expected


def test_what_lies_around_is_part_of_what_identifies_a_pack() -> None:
    """A run that was made with other maps of the same words is not continued with these."""
    pack = prompts.load_pack("fish")

    def digest(around: str | None) -> str:
        characters = tuple(replace(item, around=around) if around and item.name == "mouth_position" else item for item in pack.characters)
        return str(build_questions([replace(pack, characters=characters)]).facts["fish"]["sha256"])

    assert digest(None) == digest("both")
    assert len({digest(None), digest("host"), digest("nothing")}) == 3
    # Maps of a pack that says nothing were others before there was anything around.
    plain = json.dumps(prompts.to_dict(pack), sort_keys=True, ensure_ascii=False)
    assert digest(None) != hashlib.sha256(plain.encode("utf-8")).hexdigest()


@pytest.mark.parametrize("name", ["eyespot_number", "flower_shape", "petal_number", "antler_shape"])
def test_what_a_character_needs_is_asked_and_certified_along(name: str) -> None:
    """So that it is called alike, asked alone or with its whole pack; it has no rows of its own where nobody asked for it."""
    host = {"eyespot_number": "lepidoptera", "antler_shape": "mammal"}.get(name, "plant")
    told = []
    for traits in (f"{host}:{name}", host):
        questions = build_questions([traits])
        (pack,) = questions.packs
        character = next(item for item in pack.characters if item.name == name)
        needed = character.needs
        assert needed is not None
        assert needed.name == prompts.load_pack(host).character(name).needs
        shares = np.full((len(questions.concepts), 12), 0.1, np.float32)
        certified = [questions.concepts[index].name for index in questions.certified(shares)]
        region = questions.concepts[needed.region]
        assert (region.name in certified) == (region.metadata.get("kind") == "part")
        told.append([questions.concepts[needed.call], region, *(questions.concepts[state.concept] for state in needed.states)])
        if traits != host:
            assert questions.rows == 1
            assert [item.name for item in pack.characters] == [name]
    assert told[0] == told[1]
