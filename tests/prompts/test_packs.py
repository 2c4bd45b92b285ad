"""Trait packs: what they mean as concepts, selection, merging, dumping, the shipped vocabularies, separability."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import PromptError
from concept_cam.prompts import Pack, packs

SHELL = """\
pack: shells
host: shell
characters:
  coil:
    kind: shape
    entity: {label: spire}
    states:
      tall: {phrases: [a tall spire, a high spire], quality: {label: elongated, id: "PATO:0001154", match: close}}
      flat: {phrases: a flat spire, aliases: {museum: depressed}}
      sunken: {phrases: [a sunken spire], contrasts: [tall, "holes=present", host]}
  holes:
    kind: presence
    entity: {label: hole}
    states:
      present: {phrases: [a shell with a hole]}
  parts:
    kind: part
    states:
      lip: {phrases: [the lip of a shell], entity: {label: lip}}
      apex: {phrases: [the apex of a shell], entity: {label: apex}}
"""

FISHVISTA_PARTS = {
    "Head": "head",
    "Eye": "eye",
    "Dorsal fin": "dorsal_fin",
    "Pectoral fin": "pectoral_fin",
    "Pelvic fin": "pelvic_fin",
    "Anal fin": "anal_fin",
    "Caudal fin": "caudal_fin",
    "Adipose fin": "adipose_fin",
    "Barbel": "barbels",
}
FISHVISTA_TRAITS = {"adipose fin", "pelvic fin", "barbel", "multiple dorsal fin"}

PROMISED = {
    "fish": {
        "caudal_fin_shape": {"forked", "rounded", "truncate", "lunate", "emarginate", "pointed"},
        "dorsal_fin_number": {"single", "double"},
        "dorsal_fin_texture": {"spiny", "soft"},
        "adipose_fin": {"present", "absent"},
        "pelvic_fin": {"present", "absent"},
        "barbels": {"present", "absent"},
        "eye_spot": {"present", "absent"},
        "body_shape": {"fusiform", "elongated", "deep"},
        "mouth_position": {"terminal", "superior", "inferior"},
        "pattern": {"plain", "striped", "barred", "spotted", "mottled"},
        "parts": {*FISHVISTA_PARTS.values(), "operculum", "lateral_line"},
    },
    "bird": {name: set() for name in (
        "bill_shape", "crest", "head_pattern", "wing_bars", "eye_ring", "tail_shape", "breast_pattern", "plumage_colour"
    )},
    "lepidoptera": {name: set() for name in ("eyespots", "hindwing_tails", "wing_pattern", "wing_margin", "antenna_shape")},
    "beetle": {name: set() for name in ("elytra_texture", "elytra_colour", "horns", "pronotum_shape", "antenna_shape")},
    "plant": {name: set() for name in (
        "leaf_margin", "leaf_shape", "leaf_arrangement", "leaf_venation", "flower_colour", "flower_symmetry", "fruit_type", "thorns"
    )},
    "mammal": {name: set() for name in ("ear_shape", "horns", "antlers", "tail_shape", "coat_pattern")},
    "generic": {name: set() for name in ("colour", "texture", "shape")},
}  # fmt: skip


@pytest.fixture(scope="module")
def shells() -> Pack:
    return prompts.parse(SHELL)


def by_name(concepts: list[Concept]) -> dict[str, Concept]:
    return {concept.name: concept for concept in concepts}


# ------------------------------------------------------------------------------------------------------------- concepts


def test_a_state_contrasts_with_its_siblings(shells: Pack) -> None:
    concept = by_name(prompts.concepts(shells))["coil=tall"]
    assert concept.target == ("a tall spire", "a high spire")
    assert concept.rival_names == ("flat", "sunken")
    assert concept.rivals == (("a flat spire",), ("a sunken spire",))
    assert concept.metadata["entity"] == {"label": "spire"}
    assert concept.metadata["quality"] == {"label": "elongated", "id": "PATO:0001154", "match": "close"}
    assert {concept.metadata[key] for key in ("pack", "character", "state", "kind", "host")} == {
        "shells",
        "coil",
        "tall",
        "shape",
        "shell",
    }


def test_named_contrasts_replace_the_siblings(shells: Pack) -> None:
    concept = by_name(prompts.concepts(shells))["coil=sunken"]
    assert concept.contrast_names == ("tall", "holes=present", "host")
    assert concept.contrasts == (("a tall spire", "a high spire"), ("a shell with a hole",), ("a photo of a shell", "a shell"))
    assert concept.rival_names == ("tall", "holes=present"), "the host lies around, and is no answer to how the spire is"


AROUND = {
    "both": ("host", "background"),
    "host": ("host",),
    "background": ("background",),
    "nothing": (),
}


@pytest.mark.parametrize("around", [None, *AROUND])
def test_the_map_of_a_state_is_set_against_what_lies_around(shells: Pack, around: str | None) -> None:
    plain = replace(
        shells, characters=tuple(replace(item, around=around or "both") if item.kind == "shape" else item for item in shells.characters)
    )
    pack = shells if around is None else prompts.parse(prompts.dump(plain))
    concept = by_name(prompts.concepts(pack))["coil=tall"]
    expected = AROUND[around or "both"]
    assert concept.contrast_names == ("flat", "sunken", *expected)
    assert concept.surroundings == len(expected)
    words = {"host": ("a photo of a shell", "a shell"), "background": ("a photo of the background", "the background")}
    # In the words of what names the host itself: "a photo of a shell with a shell" would be no caption.
    assert concept.contrast_prompts[2:] == tuple(words[name] for name in expected)


ELSEWHERE = """
schema: 1
pack: shells
host: shell
version: "1"
characters:
  parts:
    kind: part
    states:
      lip: {phrases: [the lip of a shell], entity: {label: lip}}
      apex: {phrases: [the apex of a shell], entity: {label: apex}}
  coil:
    kind: shape
    entity: {label: spire}
    elsewhere: [lip]
    around: host
    states:
      tall: {phrases: [a tall spire]}
      flat: {phrases: [a flat spire]}
      sunken: {phrases: [a sunken spire], contrasts: [tall]}
"""


TWINS = """\
pack: twins
host: shell
characters:
  parts:
    kind: part
    states:
      lip: {phrases: [the lip of a shell], entity: {label: lip}}
  rims:
    kind: part
    states:
      lip: {phrases: [the rim of a shell], entity: {label: rim}}
"""


def test_parts_elsewhere_are_set_against_the_map_in_their_own_words() -> None:
    pack = prompts.parse(ELSEWHERE)
    concepts = by_name(prompts.concepts(pack))
    tall = concepts["coil=tall"]
    assert tall.contrast_names == ("flat", "sunken", "host", "lip")
    assert tall.surrounding_names == ("host", "lip")
    assert tall.contrast_prompts[-1] == concepts["parts=lip"].target_prompts, "as the part is asked for itself"
    assert concepts["coil=sunken"].contrast_names == ("tall",), "a state that names its contrasts has those"
    assert prompts.parse(prompts.dump(pack)) == pack


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("elsewhere: [lp]", "did you mean 'lip'"),
        ("elsewhere: [lip, lip]", "given twice"),
        ("elsewhere: [lip]\n    templates: x", "exactly once"),
    ],
)
def test_wrong_parts_elsewhere(line: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        prompts.parse(ELSEWHERE.replace("elsewhere: [lip]", line))
    shared = ELSEWHERE.replace("[a tall spire]", "[a tall spire, the lip of a shell]")
    with pytest.raises(PromptError, match="lies nowhere else"):
        prompts.parse(shared)


@pytest.mark.parametrize(
    ("spec", "received"),
    [
        (None, "None (NoneType)"),
        (5, "5 (int)"),
        (b"fish", "b'fish' (bytes)"),
        ([None], "None (NoneType)"),
        (["fish", 3], "3 (int)"),
        ([["fish"]], "['fish'] (list)"),
    ],
)
def test_no_pack_at_all(spec: object, received: str) -> None:
    with pytest.raises(
        PromptError, match=re.escape(f"expected a trait pack such as 'fish', a file or several of these, received {received}.")
    ):
        prompts.load(spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [None, 5, b"fish", ["fish"]])
def test_no_pack_to_load(source: object) -> None:
    with pytest.raises(PromptError, match="expected a trait pack such as 'fish'"):
        prompts.load_pack(source)  # type: ignore[arg-type]


def test_a_state_and_a_part_elsewhere_may_have_one_name() -> None:
    pack = prompts.parse(ELSEWHERE.replace("      flat:", "      lip:"))
    tall = by_name(prompts.concepts(pack))["coil=tall"]
    assert tall.contrast_names == ("lip", "sunken", "host", "parts=lip")
    assert tall.contrasts[0] == ("a flat spire",)


def test_a_part_elsewhere_that_is_not_there_is_named() -> None:
    pack = prompts.parse(ELSEWHERE)
    lost = replace(pack, characters=pack.characters[1:])
    with pytest.raises(PromptError, match="unknown part of 'shells': 'lip'"):
        prompts.concepts(lost)


def test_a_place_is_that_of_the_part_of_its_own_character() -> None:
    pack = prompts.parse(TWINS + "      left_lip: {of: lip, where: left}\n")
    rims = pack.character("rims")
    assert pack.phrases_of(rims.state("left_lip"), rims) == ("the rim of a shell",)
    assert pack.phrases_of(rims.state("left_lip")) == ("the rim of a shell",)
    assert by_name(prompts.concepts(pack))["rims=left_lip"].target == ("the rim of a shell",)


def stones(states: str, host: str = "stone") -> list[Concept]:
    """The concepts of a pack of one character with these states, as YAML."""
    head = f"pack: stones\nhost: {host}\ncharacters:\n  kind:\n    kind: shape\n    entity: {{label: stone}}\n"
    return prompts.concepts(prompts.parse(f"{head}    states: {states}\n"))


def test_a_state_that_is_called_as_the_host_is_not_set_against_it() -> None:
    plain, holed = stones("{plain: {phrases: [a stone]}, holed: {phrases: [a holed stone]}}")
    assert plain.contrast_names == ("holed", "background")
    assert holed.contrast_names == ("plain", "background")


@pytest.mark.parametrize(("own", "sibling"), [("a round stone", "a photo of a stone"), ("a photo of a stone", "a round stone")])
def test_a_phrase_that_is_the_host_in_a_template_is_no_error(own: str, sibling: str) -> None:
    for concept in stones(f"{{round: {{phrases: [{own}]}}, other: {{phrases: [{sibling}, an odd stone]}}}}"):
        assert concept.surroundings == 1
        assert concept.contrast_names[-1] == "background"


def test_a_host_that_is_called_the_background_is_set_against_once() -> None:
    near, _ = stones("{near: {phrases: [a near view]}, far: {phrases: [a far view]}}", host="the background")
    assert near.contrast_names == ("far", "host")


def test_a_state_told_from_its_surroundings_alone_has_them_for_rivals() -> None:
    concept, _ = stones("{round: {phrases: [a round stone], contrasts: [host, background]}, odd: {phrases: [an odd stone]}}")
    assert (concept.rival_names, concept.surroundings) == (("host", "background"), 0), "without rivals there would be no probability"


def test_presence_and_parts_are_asked_as_before(shells: Pack) -> None:
    found = [concept for concept in prompts.concepts(shells) if concept.metadata["kind"] in ("presence", "part")]
    assert found
    assert all(concept.surroundings == 0 for concept in found)


@pytest.mark.parametrize("fin", ["caudal_fin", "dorsal_fin", "anal_fin", "pelvic_fin", "pectoral_fin", "adipose_fin"])
def test_a_fin_is_contrasted_with_what_it_stands_on_and_with_no_other_fin(fin: str) -> None:
    (concept,) = prompts.load(f"fish:parts={fin}")
    # The host's own back takes from the dorsal fin what is to be found.
    around = ("background",) if fin == "dorsal_fin" else ("host", "background")
    assert concept.contrast_names == ("trunk", "head", *around)
    assert not any("fin" in text.split() for texts in concept.contrasts for text in texts)


def test_a_part_contrasts_with_its_siblings_and_the_host(shells: Pack) -> None:
    concept = by_name(prompts.concepts(shells))["parts=lip"]
    assert concept.contrast_names == ("apex", "host")
    assert concept.contrasts == (("the apex of a shell",), ("a shell",))
    assert concept.metadata["part"] == "lip"
    assert concept.metadata["entity"] == {"label": "lip"}


def test_absent_is_the_host_alone_and_a_contrast_only(shells: Pack) -> None:
    names = [concept.name for concept in prompts.concepts(shells)]
    assert names == ["coil=tall", "coil=flat", "coil=sunken", "holes=present", "parts=lip", "parts=apex"]
    present = prompts.concepts(shells, "holes")[0]
    assert present.contrasts == (("a shell",),)
    assert present.contrast_names == ("absent",)
    absent = prompts.concepts(shells, "holes", "absent")[0]
    assert (absent.target, absent.contrasts) == (("a shell",), (("a shell with a hole",),))


def test_prompts_are_every_template_with_every_phrase() -> None:
    concept = prompts.load({**prompts.to_dict(prompts.parse(SHELL)), "templates": ["look, {}!", "{}"]})[0]
    assert concept.target_prompts == (
        "look, a tall spire!",
        "look, a high spire!",
        "a tall spire",
        "a high spire",
    )


def test_host_templates_fit_presence_and_part(shells: Pack) -> None:
    concepts = by_name(prompts.concepts(shells))
    assert concepts["holes=present"].templates == concepts["parts=lip"].templates == shells.host_templates
    assert concepts["coil=tall"].templates == shells.templates
    assert concepts["holes=present"].contrast_prompts == (("a photo of a shell", "a shell"),)


@pytest.mark.parametrize(
    ("host", "phrase"),
    [
        ("fish", "a fish"),
        ("insect", "an insect"),
        ("Owl", "an Owl"),
        ("the moon", "the moon"),
        ("a ewe", "a ewe"),
    ],
)
def test_host_phrase(host: str, phrase: str) -> None:
    assert prompts.host_phrase(host) == phrase


def test_aliases_of_state_and_character_reach_the_metadata(shells: Pack) -> None:
    assert by_name(prompts.concepts(shells))["coil=flat"].metadata["aliases"] == {"museum": "depressed"}


def test_concepts_travel_to_other_processes(shells: Pack) -> None:
    for concept in prompts.concepts(shells):
        assert pickle.loads(pickle.dumps(concept)) == concept
    assert pickle.loads(pickle.dumps(shells)) == copy.deepcopy(shells) == shells


# ------------------------------------------------------------------------------------------------------------ selection


def test_selection() -> None:
    whole = prompts.load("fish")
    character = prompts.load("fish:caudal_fin_shape")
    state = prompts.load("fish:caudal_fin_shape=forked")
    assert [concept for concept in whole if concept.metadata["character"] == "caudal_fin_shape"] == character
    assert [concept for concept in character if concept.metadata["state"] == "forked"] == state
    assert len(state) == 1
    assert len(character) == 6


def test_selection_from_a_file_with_colons_in_its_path(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    path = folder / "shells.yaml"
    path.write_text(SHELL, encoding="utf-8")
    assert len(prompts.load(str(path))) == len(prompts.load(path)) == 6
    assert [concept.name for concept in prompts.load(f"{path}:coil=flat")] == ["coil=flat"]


def test_windows_drive_is_not_a_selector() -> None:
    assert prompts.split_pack_spec(r"C:\packs\shells.yaml") == (r"C:\packs\shells.yaml", None, None)
    assert prompts.split_pack_spec(r"C:\packs\shells.yaml:coil=flat") == (r"C:\packs\shells.yaml", "coil", "flat")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("fihs", "Did you mean 'fish'"),
        ("fish:caudal_fin_shap", "Did you mean 'caudal_fin_shape'"),
        ("fish:caudal_fin_shape=forkd", "Did you mean 'forked'"),
        ("fish:", "expected PACK, PACK:character or PACK:character=state"),
        ("fish:pattern=", "expected PACK, PACK:character or PACK:character=state"),
        ("nowhere/pack.yaml", "neither a shipped pack"),
    ],
)
def test_unknown_names_suggest_the_nearest(spec: str, expected: str) -> None:
    with pytest.raises(PromptError, match=expected):
        prompts.load(spec)


def test_several_specs_without_repeats() -> None:
    concepts = prompts.load(["fish:pattern", "fish:pattern=plain", "fish:caudal_fin_shape=forked"])
    assert [concept.name for concept in concepts] == [
        *(f"pattern={state}" for state in ("plain", "striped", "barred", "spotted", "mottled")),
        "caudal_fin_shape=forked",
    ]


def test_names_that_packs_share_get_the_pack() -> None:
    names = [concept.name for concept in prompts.load(["fish:parts=eye", "bird:parts=eye", "fish:parts=mouth"])]
    assert names == ["fish:parts=eye", "bird:parts=eye", "parts=mouth"]


def test_two_concepts_of_one_name_in_one_pack_are_refused() -> None:
    first = Concept(("a",), ("b",), name="x=y", metadata={"pack": "p"})
    second = Concept(("c",), ("b",), name="x=y", metadata={"pack": "p"})
    with pytest.raises(PromptError, match="'p:x=y'"):
        prompts.unique_names([first, second])


# ---------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_dump_and_load_is_the_identity(name: str) -> None:
    pack = prompts.load_pack(name)
    again = prompts.parse(prompts.dump(pack))
    assert again == pack
    assert prompts.load(prompts.to_dict(pack)) == prompts.load(name)
    assert prompts.dump(again) == prompts.dump(pack)


def test_dump_keeps_what_yaml_would_misread() -> None:
    text = SHELL.replace("a flat spire", '"yes: [a flat] spire # é 渦"').replace("pack: shells", 'pack: shells\nversion: "1.0"')
    pack = prompts.parse(text)
    assert pack.version == "1.0"
    assert pack.character("coil").state("flat").phrases == ("yes: [a flat] spire # é 渦",)
    assert prompts.parse(prompts.dump(pack)) == pack


def test_an_implied_absent_is_the_same_as_a_written_one() -> None:
    written = SHELL.replace("{phrases: [a shell with a hole]}\n", "{phrases: [a shell with a hole]}\n      absent:\n")
    assert written != SHELL
    assert prompts.parse(written) == prompts.parse(SHELL)


def test_mapping_errors_name_the_place_by_keys() -> None:
    with pytest.raises(PromptError, match=r"characters\.coil\.kind: unknown kind 'form'"):
        prompts.load(
            {
                "pack": "x",
                "host": "y",
                "characters": {"coil": {"kind": "form", "entity": {"label": "z"}, "states": {"a": {}}}},
            }
        )


def test_mapping_with_foreign_objects_is_refused() -> None:
    with pytest.raises(PromptError, match="not plain data"):
        prompts.load({"pack": object(), "host": "y", "characters": {}})


# ------------------------------------------------------------------------------------------------------------- merging

EXTRA = """\
pack: more-shells
host: shell
templates: ["one {}"]
characters:
  coil:
    kind: shape
    entity: {label: spire}
    templates: ["a photo of a shell with {}", "a close-up photo of a shell with {}", "{}"]
    states:
      bent: {phrases: [a bent spire]}
      twisted: {phrases: [a twisted spire]}
  rim:
    kind: shape
    entity: {label: rim}
    states:
      smooth: {phrases: [a smooth rim]}
      toothed: {phrases: [a toothed rim]}
"""


def test_merge_unites_states_and_keeps_prompts(shells: Pack) -> None:
    extra = prompts.parse(EXTRA.replace('    templates: ["a photo of a shell with {}", "a close-up photo of a shell with {}", "{}"]\n', "")
                          .replace('templates: ["one {}"]\n', ""))  # fmt: skip
    merged = prompts.merge([shells, extra], "all")
    assert merged.name == "all"
    assert [state.name for state in merged.character("coil").states] == [
        "tall",
        "flat",
        "sunken",
        "bent",
        "twisted",
    ]
    assert prompts.concepts(merged, "coil", "tall")[0].rival_names == ("flat", "sunken", "bent", "twisted")
    other = prompts.parse(EXTRA.replace("coil:", "twist:"))
    kept = prompts.merge([shells, other])
    assert prompts.concepts(kept, "rim", "smooth")[0].target_prompts == ("one a smooth rim",)


def test_merge_refuses_contradictions(shells: Pack) -> None:
    with pytest.raises(PromptError, match="'coil' is defined in two ways"):
        prompts.merge([shells, prompts.parse(SHELL.replace("kind: shape", "kind: pattern"))])
    with pytest.raises(PromptError, match="'coil=tall' is defined in two ways"):
        prompts.merge([shells, prompts.parse(SHELL.replace("a high spire", "a steep spire"))])
    with pytest.raises(PromptError, match="'shell' and 'fish'"):
        prompts.merge([shells, prompts.load_pack("fish")])
    with pytest.raises(PromptError, match="at least one"):
        prompts.merge([])
    clash = SHELL.replace("tall:", "lofty:").replace("[tall,", "[lofty,")
    with pytest.raises(PromptError, match="'a tall spire' is also a phrase of the sibling state 'tall'"):
        prompts.merge(
            [
                shells,
                prompts.parse(clash.split("      sunken")[0] + "  " + "holes:" + clash.split("  holes:")[1]),
            ]
        )


CLASHING = """\
pack: rims
host: shell
characters:
  rims:
    kind: part
    states:
      lip: {phrases: [the rim of a shell], entity: {label: rim}}
  rim:
    kind: shape
    entity: {label: rim}
    around: background
    elsewhere: [lip]
    states:
      smooth: {phrases: [a smooth rim]}
      toothed: {phrases: [a toothed rim]}
"""


def require_kept(pack: Pack, merged: Pack) -> None:
    """Asserts that a pack asks the same, word by word, in a merged one; a character of both may have more siblings."""
    for old, new in zip(pack.characters, (merged.character(item.name) for item in pack.characters), strict=True):
        for state in old.states:
            (before,) = prompts.concepts(pack, old.name, state.name)
            (after,) = prompts.concepts(merged, old.name, state.name)
            assert after.target_prompts == before.target_prompts
            rivals, others = (dict(zip(item.rival_names, item.contrast_prompts, strict=False)) for item in (before, after))
            if old.states == new.states:
                assert others == rivals, before.name
            else:
                assert rivals.items() <= others.items(), before.name
            assert after.contrast_prompts[len(after.rivals) :] == before.contrast_prompts[len(before.rivals) :], before.name
            assert replace(after, metadata={}).where == before.where or before.where is not None
            if before.where is not None and after.where is not None:
                assert after.where.plan == before.where.plan
                own = [[part.target_prompts for part in item.where.parts] for item in (before, after) if item.where is not None]
                assert own[0] == own[1]


def test_merge_refuses_parts_of_one_name_where_a_pack_would_mean_the_other() -> None:
    shells, rims = prompts.parse(ELSEWHERE), prompts.parse(CLASHING)
    expected = (
        "cannot merge the packs 'shells' and 'rims': more than one has a part 'lip', which 'rims' names in 'elsewhere' of 'rim'; rename"
    )
    with pytest.raises(PromptError, match=expected):
        prompts.merge([shells, rims])
    with pytest.raises(PromptError, match=r"which 'shells' names in 'elsewhere' of 'coil'.*load\(\['rims', 'shells'\]\)"):
        prompts.merge([rims, shells])
    # A part that no pack names by itself may have its name twice.
    plain = prompts.parse(CLASHING.replace("    elsewhere: [lip]\n", ""))
    require_kept(shells, prompts.merge([shells, plain]))
    require_kept(plain, prompts.merge([shells, plain]))
    other = prompts.parse(CLASHING.replace("lip", "rim_edge"))
    for pair in ([shells, other], [other, shells]):
        for pack in pair:
            require_kept(pack, prompts.merge(pair))


def test_merge_refuses_to_tell_states_of_the_part_of_another_pack() -> None:
    rims = prompts.parse(CLASHING.replace("    elsewhere: [lip]\n", ""))
    told = "pack: {}\nhost: shell\ncharacters:\n  {}:\n    kind: part\n    states:\n"
    edges = prompts.parse(told.format("edges", "edges") + "      edge: {phrases: [the edge of a shell], entity: {label: rim}}\n")
    with pytest.raises(PromptError, match="'rim' of 'rims' is told of its part 'lip', and would be told of another pack's part 'edge'"):
        prompts.merge([edges, rims])
    # Behind the pack's own part the other one is not asked for; and one that had none is told of the very thing that it names.
    merged = prompts.merge([rims, edges])
    assert [each.name for each in merged.part_told_of(merged.character("rim")) or ()] == ["rims", "lip"]
    alone = replace(rims, characters=(rims.character("rim"),))
    assert alone.part_told_of(alone.character("rim")) is None
    merged = prompts.merge([alone, edges])
    assert [each.name for each in merged.part_told_of(merged.character("rim")) or ()] == ["edges", "edge"]


NEEDING = """\
pack: shells
host: shell
characters:
  holes:
    kind: presence
    entity: {label: hole}
    states: {present: {phrases: [a shell with a hole]}}
  pits:
    kind: presence
    entity: {label: pit}
    states: {present: {phrases: [a shell with a pit]}}
  hole_number:
    kind: count
    entity: {label: hole}
    needs: holes
    states: {one: {phrases: [one hole in a shell]}, many: {phrases: [many holes in a shell]}}
  parts:
    kind: part
    states: {lip: {phrases: [the lip of a shell], entity: {label: lip}}}
"""


def test_what_a_character_needs_is_a_presence() -> None:
    pack = prompts.parse(NEEDING)
    assert prompts.parse(prompts.dump(pack)) == pack
    number, holes = pack.character("hole_number"), pack.character("holes")
    assert (number.needs, pack.needed_by(number), pack.needed_by(holes)) == ("holes", holes, None)
    chain = NEEDING.replace("{label: pit}", "{label: pit}\n    needs: holes")
    assert prompts.parse(chain).character("pits").needs == "holes"
    for text, message in (
        (NEEDING.replace("needs: holes", "needs: hole"), "'hole' is no other character of kind presence; did you mean 'holes'?"),
        (NEEDING.replace("needs: holes", "needs: coil"), "'coil' is no other character of kind presence; those of this pack: holes, pits."),
        (NEEDING.replace("needs: holes", "needs: 3"), "needs"),
        (NEEDING.replace("kind: part", "kind: part\n    needs: holes"), "a character of kind part has no 'needs'"),
        (chain.replace("{label: hole}\n    needs: holes", "{label: hole}\n    needs: pits"), "'pits' needs another one itself (holes)"),
    ):
        with pytest.raises(PromptError, match=re.escape(message)):
            prompts.parse(text)


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ("hole_number", "'hole_number' needs 'hole_number', which is of kind count: expected a presence that needs none"),
        ("parts", "'hole_number' needs 'parts', which is of kind part: expected a presence that needs none"),
        (3, r"needs of 'hole_number' must be text, received 3 \(int\)"),
        ("ribs", "ribs"),
    ],
)
def test_a_pack_made_by_hand_is_asked_for_what_it_needs(needs: Any, message: str) -> None:
    pack = prompts.parse(NEEDING)
    with pytest.raises(PromptError, match=message):
        pack.needed_by(replace(pack.character("hole_number"), needs=needs))


def test_merge_refuses_other_words_for_the_host() -> None:
    shells = prompts.parse(ELSEWHERE)
    head = 'host: shell\nhost_templates: ["one {}"]'
    other = prompts.parse(CLASHING.replace("lip", "edge").replace("host: shell", head))
    with pytest.raises(
        PromptError, match="'rim=smooth' would be set against the background in other words; give them the same host_templates"
    ):
        prompts.merge([shells, other])
    alone = prompts.parse(CLASHING.replace("lip", "edge").replace("host: shell", head).replace("around: background", "around: nothing"))
    for pack in (shells, alone):
        require_kept(pack, prompts.merge([shells, alone]))


def test_merge_refuses_a_state_that_hides_a_surrounding(shells: Pack) -> None:
    templates = '    templates: ["a photo of a shell with {}", "a close-up photo of a shell with {}", "{}"]\n'
    text = EXTRA.replace("a bent spire", "a shell").replace(templates, "").replace('templates: ["one {}"]\n', "")
    plain = prompts.parse(text)
    with pytest.raises(PromptError, match="another state would be called like what lies around 'coil=tall'"):
        prompts.merge([shells, plain])


def test_merge_keeps_the_frame_or_refuses() -> None:
    shells = prompts.parse(ELSEWHERE)
    framed = prompts.parse(CLASHING.replace("lip", "edge").replace("host: shell", "host: shell\nframe: {along: [edge]}")
                           .replace("label: rim}}\n", "label: rim}}\n      front_edge: {of: edge, where: front}\n", 1))  # fmt: skip
    for pair in ([shells, framed], [framed, shells]):
        merged = prompts.merge(pair)
        assert merged.frame == framed.frame
        for pack in pair:
            require_kept(pack, merged)
    for frame in ("{along: [apex]}", "{sides: [lip]}"):
        other = prompts.parse(ELSEWHERE.replace("host: shell", f"host: shell\nframe: {frame}"))
        with pytest.raises(PromptError, match="the frame of 'rims' is another one"):
            prompts.merge([other, framed])
    sided = prompts.parse(ELSEWHERE.replace("      apex:", "      left_lip: {of: lip, where: left}\n      apex:"))
    with pytest.raises(PromptError, match="the frame of 'shells' is another one"):
        prompts.merge([framed, sided])
    clash = prompts.parse(CLASHING.replace("host: shell", "host: shell\nframe: {along: [lip]}").replace("    elsewhere: [lip]\n", ""))
    with pytest.raises(PromptError, match="more than one has a part 'lip', which 'rims' names in its frame"):
        prompts.merge([shells, clash])


def test_merge_takes_packs_alone() -> None:
    with pytest.raises(PromptError, match=r"expected packs, as load_pack returns them, received 'fish' \(str\)"):
        prompts.merge(["fish"])  # type: ignore[list-item]
    fish = prompts.load_pack("fish")
    for alone in (fish, "fish", None, 3):
        with pytest.raises(PromptError, match="expected a list of packs, as load_pack returns them, received"):
            prompts.merge(alone)  # type: ignore[arg-type]
    assert prompts.merge(each for each in (fish,)) == prompts.merge([fish])


PAIRS = list(itertools.permutations(sorted(prompts.available()), 2))


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_shipped_packs_go_side_by_side(pair: tuple[str, str]) -> None:
    """They are about different hosts."""
    first, second = map(prompts.load_pack, pair)
    with pytest.raises(PromptError, match=re.escape(f"load(['{pair[0]}', '{pair[1]}'])")):
        prompts.merge([first, second])
    together = prompts.load(list(pair))
    assert [replace(item, name="") for item in together] == [
        replace(item, name="") for item in (*prompts.concepts(first), *prompts.concepts(second))
    ]


def about_organisms(name: str) -> Pack:
    """A shipped pack as if it were about the same host as the others, its characters called its own."""
    data = prompts.to_dict(replace(prompts.load_pack(name), host="organism"))

    def own(reference: str) -> str:
        return f"{name}_{reference}" if "=" in reference else reference

    for character in data["characters"].values():
        for state in character["states"].values():
            state |= {key: [own(item) for item in state[key]] for key in ("contrasts",) if key in state}
            state |= {"of": own(state["of"])} if "of" in state else {}
        character |= {"needs": f"{name}_{character['needs']}"} if "needs" in character else {}
    data["characters"] = {f"{name}_{key}": value for key, value in data["characters"].items()}
    return prompts.load_pack(data)


def test_shipped_packs_about_one_host_ask_the_same_or_are_refused() -> None:
    packs_ = {name: about_organisms(name) for name in prompts.available()}
    kept = 0
    for first, second in PAIRS:
        pair = [packs_[first], packs_[second]]
        shared = set(pair[0].parts) & set(pair[1].parts)
        try:
            merged = prompts.merge(pair)
        except PromptError as error:
            message = str(error)
            named = any(f"a part {name!r}, which" in message for name in shared)
            framed = "the frame of" in message and all(pack.frame.parts for pack in pair)
            assert named or framed, message
            continue
        kept += 1
        for pack in pair:
            require_kept(pack, merged)
    assert 10 <= kept < len(PAIRS)


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_halves_of_a_shipped_pack_merge_into_it(name: str) -> None:
    pack = prompts.load_pack(name)
    parts = [item for item in pack.characters if item.kind == "part"]
    rest = [item for item in pack.characters if item.kind != "part"]
    halves = [replace(pack, characters=(*own, *parts)) for own in (rest[::2], rest[1::2]) if own or parts]
    merged = prompts.merge(halves)
    assert {item.name for item in merged.characters} == {item.name for item in pack.characters}
    require_kept(pack, merged)
    assert prompts.merge([pack, pack]) == pack


# -------------------------------------------------------------------------------------------------------- shipped packs


def test_promised_packs_are_there() -> None:
    assert set(PROMISED) <= set(prompts.available())
    for name, characters in PROMISED.items():
        pack = prompts.load_pack(name)
        assert pack.name == name
        for character, states in characters.items():
            assert states <= {state.name for state in pack.character(character).states}, (name, character)


@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_every_state_has_three_to_six_phrases(name: str) -> None:
    for character in prompts.load_pack(name).characters:
        for state in character.states:
            own = 3 <= len(state.phrases) <= 6
            assert own or state.name == "absent" or (state.where and state.of), (character.name, state.name)


def test_fishvista_names_are_all_there() -> None:
    pack = prompts.load_pack("fish")
    assert {state.aliases["fishvista"]: state.name for state in pack.character("parts").states if state.aliases} == FISHVISTA_PARTS
    traits = {character.aliases.get("fishvista") for character in pack.characters}
    traits |= {state.aliases.get("fishvista") for state in pack.character("dorsal_fin_number").states}
    assert traits >= FISHVISTA_TRAITS


def test_caudal_fin_is_the_caudal_fin() -> None:
    assert prompts.load("fish:caudal_fin_shape=forked")[0].metadata["entity"] == {
        "label": "caudal fin",
        "id": "UBERON:4000164",
    }


def test_installed_packs_are_preferred_to_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "concept_cam"
    (package / "_packs").mkdir(parents=True)
    (package / "_packs" / "shells.yaml").write_text(SHELL, encoding="utf-8")
    monkeypatch.setattr(packs, "__file__", str(package / "prompts" / "packs.py"))
    assert list(prompts.available()) == ["shells"]
    assert len(prompts.load("shells")) == 6


def test_loading_packs_loads_no_torch() -> None:
    code = (
        "import sys; from concept_cam import prompts; from concept_cam.prompts import lint, ontology; prompts.load('fish'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------------------------- separability


class PlantedTexts:
    """Stands for a localizer: every prompt group has a planted angle in a plane."""

    def __init__(self, degrees: dict[str, float]) -> None:
        self.degrees = degrees

    def embed_texts(self, groups):
        angles = np.radians([self.degrees[group[0]] for group in groups])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_separability_is_plane_geometry() -> None:
    concepts = [
        Concept(("a",), ("b", "c"), name="k=a"),
        Concept(("b",), ("a", "c"), name="k=b"),
        Concept(("c",), (), name="k=c"),
    ]
    result = prompts.separability(concepts, PlantedTexts({"a": 0, "b": 5, "c": 90}))
    assert result.names == ("k=a", "k=b", "k=c")
    assert result.cosine[0, 1] == pytest.approx(math.cos(math.radians(5)))
    assert result.cosine[0, 2] == pytest.approx(0, abs=1e-6)
    mean = np.array([math.cos(math.radians(5)), math.sin(math.radians(5)) + 1]) / 2
    assert result.direction_norm["k=a"] == pytest.approx(np.linalg.norm(np.array([1, 0]) - mean), rel=1e-5)
    assert math.isnan(result.direction_norm["k=c"])
    # Five degrees are a distance of 2 sin(2.5 deg) = 0.087: under the limit, both ways.
    assert len(result.warnings) == 2
    assert "k=a" in result.warnings[0]
    assert "0.087 < 0.2" in result.warnings[0]
    assert prompts.separability(concepts, PlantedTexts({"a": 0, "b": 5, "c": 90}), limit=0.05).warnings == ()


def test_separability_warns_of_a_direction_that_vanishes_though_no_pair_does() -> None:
    # The target is the mean direction of its contrasts, each of which is far from it.
    concepts = [Concept(("a",), ("b", "c"), name="k=a")]
    result = prompts.separability(concepts, PlantedTexts({"a": 0, "b": 18, "c": -18}))
    assert result.direction_norm["k=a"] == pytest.approx(1 - math.cos(math.radians(18)), rel=1e-4)
    assert len(result.warnings) == 1
    assert "vanishes" in result.warnings[0]


def test_separability_takes_one_concept_and_names_what_is_none() -> None:
    concept = Concept(("a",), ("b",), name="k=a")
    texts = PlantedTexts({"a": 0, "b": 90})
    for given in (concept, (concept for _ in range(1))):
        assert prompts.separability(given, texts).names == ("k=a", "b")
    for wrong, said in (("fish:parts", "'fish:parts'"), (["fish:parts"], "'fish:parts'"), (5, "5"), ([None], "None")):
        with pytest.raises(PromptError, match=rf"expected concepts, received {said} .*prompts\.load\('fish:parts'\)"):
            prompts.separability(wrong, texts)
    with pytest.raises(PromptError, match="nothing to compare"):
        prompts.separability([], texts)


def test_separability_takes_a_real_localizer(planted) -> None:
    result = prompts.separability([Concept(("a red fin",), ("a green fin", "a red tail"), name="fin=red")], planted)
    assert result.cosine.shape == (3, 3)
    assert np.allclose(np.diag(result.cosine), 1)
    # The planted text tower knows colours alone: "a red tail" is "a red fin".
    assert any("a red tail" in warning for warning in result.warnings)
    assert not any("a green fin" in warning for warning in result.warnings)


def test_separability_of_nothing_is_refused(planted) -> None:
    with pytest.raises(PromptError, match="at least one"):
        prompts.separability([], planted)
