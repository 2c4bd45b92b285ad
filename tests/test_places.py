"""Places in questions: planted butterflies through packs, words, runs, exports and the page."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from concept_cam import Localizer, prompts
from concept_cam.core.concept import Concept, Where
from concept_cam.core.errors import PromptError
from concept_cam.core.placing import orient, resolve
from concept_cam.prompts.places import concept_of_words, read_place
from concept_cam.trust.conformal import Conformal, Guaranteed
from tests.butterflies import PACK, PartsBackbone, butterfly

WINGS = [f"{side}_{wing}" for wing in ("fore_wing", "hind_wing") for side in ("left", "right")]


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(PartsBackbone(noise=0.05))


@pytest.fixture(scope="module")
def pack() -> prompts.Pack:
    return prompts.load_pack(PACK)


# ------------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("pictures", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_left_and_right_fore_and_hind_wings_are_told_apart(localizer: Localizer, pack: prompts.Pack, pictures: int) -> None:
    """Any rotation, mirrored pictures, from above and from below, at a slant, off the middle: 0.98 of all wings."""
    concepts = prompts.concepts(pack, "wings")
    rng = np.random.default_rng(0)
    right = []
    for number in range(pictures):
        made = butterfly(
            rng.uniform(-math.pi, math.pi), ("above", "below")[number % 2], mirrored=bool(number % 3 == 0), scale=rng.uniform(0.65, 0.85),
            middle=tuple(rng.uniform(-0.1, 0.1, 2)), squeeze=rng.uniform(0.55, 1.0),
        )  # fmt: skip
        for wing, found in zip(WINGS, localizer.locate_all([made.pixels], concepts)[0], strict=True):
            assert found.place is not None
            x, y = (int(value) for value in found.peak)
            own, of_both = (found.mask() & made.masks[name] for name in (wing, wing.partition("_")[2]))
            right.append(found.place.left_of == "animal" and bool(made.masks[wing][y, x]) and own.sum() > 0.9 * of_both.sum())
    print(f"{sum(right)} of {len(right)} wings")
    assert np.mean(right) >= 0.98


@pytest.mark.parametrize("method", ["direct", "luminance", "random"])
def test_every_method_keeps_to_the_place(localizer: Localizer, pack: prompts.Pack, method: str) -> None:
    made = butterfly(2.0)
    concepts = prompts.concepts(pack, "wings")[:2]
    for wing, found in zip(WINGS, localizer.locate_all([made.pixels], concepts, method=method)[0], strict=False):
        assert found.place.resolved
        other = made.masks[wing.replace("left", "?").replace("right", "left").replace("?", "right")]
        x, y = (int(value) for value in found.peak)
        assert not other[y, x]
        finite = np.isfinite(found.scores)
        assert 0.3 < finite.mean() < 0.7


def test_the_certificate_speaks_of_the_place(localizer: Localizer, pack: prompts.Pack) -> None:
    made = butterfly(0.7)
    left, right = localizer.locate_all([made.pixels], prompts.concepts(pack, "wings")[:2])[0]
    whole = localizer.locate(made.pixels, prompts.concepts(pack, "parts", "fore_wing")[0])
    assert max(left.peak_score, right.peak_score) == pytest.approx(whole.peak_score, abs=1e-5)
    assert sum(np.isfinite(answer.scores).sum() for answer in (left, right)) == np.isfinite(whole.scores).sum()
    assert left.certificate.evidence.peak != right.certificate.evidence.peak
    assert left.ledger_at_peak().keys() == whole.ledger_at_peak().keys()
    assert "(left)" in left.question
    assert left.to_dict()["place"]["left_of"] == "animal"
    assert whole.to_dict()["place"] is None


def test_what_cannot_be_told_keeps_its_map_and_says_why(localizer: Localizer, pack: prompts.Pack) -> None:
    made = butterfly(0.3, "beside")
    found = localizer.locate(made.pixels, prompts.concepts(pack, "wings", "left_fore_wing")[0])
    assert not found.place.resolved
    assert "seen from the side" in found.place.reason
    whole = localizer.locate(made.pixels, prompts.concepts(pack, "parts", "fore_wing")[0])
    np.testing.assert_array_equal(found.scores, whole.scores)
    assert whole.certificate.verdict == "clear"
    assert (found.certificate.verdict, found.certificate.confidence, found.certificate.presence) == ("doubtful", None, None)
    assert found.certificate.reason == f"the place that was asked for is not told: {found.place.reason}"
    assert (len(whole.to_dict()["regions"]) > 0, found.to_dict()["regions"]) == (True, [])
    names = (found.concept.name, whole.concept.name)
    limits = Conformal(0.1, {f"{pack.name}:{name}": 0.5 for name in names}, {f"{pack.name}:{name}": 0.1 for name in names})
    assert limits.guarantee(found).to_dict() == Guaranteed(0.1).to_dict()
    assert limits.guarantee(whole).inner is not None


def test_what_is_not_found_is_found_at_no_place() -> None:
    from concept_cam.trust.certified import Certificate, without_place
    from concept_cam.trust.evidence import Evidence

    evidence = Evidence(**dict.fromkeys(Evidence.__dataclass_fields__, 0.0))  # type: ignore[arg-type]
    for verdict in ("absent", "not about the prompt"):
        whole = Certificate(verdict, "why.", 0.1, 0.2, evidence)
        assert without_place(whole, "no place.") is whole
    told = without_place(Certificate("clear", "why.", 0.9, 0.9, evidence, calibrated=True), "no place.")
    assert (told.verdict, told.confidence, told.presence, told.calibrated) == ("doubtful", None, None, False)


# --------------------------------------------------------------------------------------------------------------- renders


def test_front_and_rear_dorsal_fins_of_rendered_fish_are_told_apart() -> None:
    """Exact masks: 0.95 of the fins of fish that have two."""
    from benchmarks.places import double_finned, told_by_masks

    plan = prompts.load_pack("fish").frame
    found = [told_by_masks(masks, plan, where) for _, masks in double_finned(16, size=(240, 320)) for where in ("front", "rear")]
    assert len(found) >= 28
    assert np.mean(found) >= 0.95


def test_rendered_wings_are_told_apart_by_their_masks() -> None:
    """Butterflies drawn by the package's own world, which knows their sides: 0.98 of what is told, and most is told."""
    from benchmarks.places import WINGS as ASKED
    from benchmarks.places import butterflies, meant

    frame = prompts.load_pack("lepidoptera").frame
    right = []
    told = 0
    for _, masks, seen in butterflies(16, "spread", size=(192, 256)):
        lies = orient({name: masks[name] for name in frame.parts if masks[name].sum() >= 8}, frame)
        for side, wing in ASKED if seen else ():
            if masks[wing].sum() >= 40:
                place, cells = resolve(side, masks[wing].astype(np.float32), lies, frame, wing)
                told += cells is not None
                if cells is not None:
                    own = masks[f"{meant(side, place.left_of, seen)}_{wing}"] & cells
                    right.append(own.sum() > 0.9 * (cells & masks[wing]).sum())
    assert np.mean(right) >= 0.98
    assert told >= 0.8 * 4 * 16


# ---------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("words", "place", "plain"),
    [
        ("the left fore wing of a butterfly", "left", "the fore wing of a butterfly"),
        ("The RIGHT hind wing", "right", "The hind wing"),
        ("left eye", "left", "eye"),
        ("the left-hand antenna", "left", "the antenna"),
        ("the rear dorsal fin of a fish", "rear", "the dorsal fin of a fish"),
        ("a fish's second dorsal fin", "second", "a fish's dorsal fin"),
        ("the dog’s left ear", "left", "the dog’s ear"),
        ("the left of the picture", "", "the left of the picture"),
        ("a fin seen from the left side", "", "a fin seen from the left side"),
        ("the left wing and tail", "", "the left wing and tail"),
        ("the second dorsal fin", "second", "the dorsal fin"),
        ("the first left wing", "", "the first left wing"),
        ("what is left of a fish", "", "what is left of a fish"),
        ("the fin on the left", "", "the fin on the left"),
        ("an upright fin", "", "an upright fin"),
        ("", "", ""),
    ],
)
def test_the_place_is_taken_out_of_the_words(words: str, place: str, plain: str) -> None:
    assert read_place(words) == (place, plain)


@pytest.mark.parametrize(
    ("words", "place", "plain", "part"),
    [
        ("the butterfly's left fore wing", "left", "the butterfly's fore wing", "fore_wing"),
        ("a butterfly's right fore wing", "right", "a butterfly's fore wing", "fore_wing"),
        ("the butterfly's left fore wing.", "left", "the butterfly's fore wing.", "fore_wing"),
        ("the butterfly’s left fore wing", "left", "the butterfly’s fore wing", "fore_wing"),
        ("a fish's rear dorsal fin", "rear", "a fish's dorsal fin", "dorsal_fin"),
        ("the left front wing of a butterfly", "left", "the front wing of a butterfly", "fore_wing"),
        ("the upper left wing of a butterfly", "left", "the upper wing of a butterfly", "fore_wing"),
        ("the pale left fore wing of a large butterfly", "left", "the pale fore wing of a large butterfly", "fore_wing"),
        ("the eyespot on the left hind wing of a butterfly", "left", "the eyespot on the hind wing of a butterfly", "hind_wing"),
        ("the left nostril of a fish", "left", "the nostril of a fish", ""),
        ("the left hindwing of a swallowtail butterfly", "left", "the hindwing of a swallowtail butterfly", "hind_wing"),
        ("the left eye of a fish with long barbels", "left", "the eye of a fish with long barbels", "eye"),
        ("the left antenna of a butterfly with white hind wings", "left", "the antenna of a butterfly with white hind wings", "antennae"),
        ("a fish's left side fin behind the gills", "left", "a fish's side fin behind the gills", "pectoral_fin"),
        ("the left side fin of a fish", "left", "the side fin of a fish", ""),
        ("the left hand wing of a butterfly", "left", "the wing of a butterfly", ""),
        ("the spot on the fish's left side", "left", "the spot on the fish's side", "trunk"),
        ("the left fore wing of a butterfly on a perch", "left", "the fore wing of a butterfly on a perch", "fore_wing"),
    ],
)
def test_a_place_before_a_part_is_read(words: str, place: str, plain: str, part: str) -> None:
    concept = concept_of_words(words)
    assert concept.where is not None
    assert (concept.where.place, concept.target, concept.where.part, concept.where.unread) == (place, (plain,), part, "")


@pytest.mark.parametrize(
    "words",
    [
        "the front of a fish",
        "the rear of a beetle",
        "the fore wing on the left of a butterfly",
        "the first of the dorsal fins of a fish",
        "a fish seen from the left side",
        "the rear edge of the tail fin of a fish",
        "the first dorsal fin ray of a fish",
        "the left half of a butterfly",
        "the left fish's eye",
        "the left butterfly",
        "the left and right eyes of a fish",
        "the left wing and tail of a butterfly",
        "the leftmost fore wing of a butterfly",
        "a left-facing fish",
        "a fish lying on its left side",
        "the left-fore wing of a butterfly",
        "the left-hand-side eye of a fish",
        "the lefthand eye of a fish",
        "the left front paw of a cat",
        "the car's front left wheel",
    ],
)
def test_a_place_elsewhere_leaves_the_words_whole_and_is_said_not_to_be_read(words: str) -> None:
    concept = concept_of_words(words, ["a bird"])
    assert (concept.target, concept.contrasts, concept.name) == ((words,), (("a bird",),), words)
    assert concept.where is not None
    assert "had no say: a place is read only right before the part" in concept.where.unread
    assert concept.metadata.get("kind") is None


def test_a_contrast_in_a_parts_own_name_stays_whole() -> None:
    asked = concept_of_words("the left hind wing of a butterfly", ["the front wing of a butterfly", "the front of a butterfly"])
    assert asked.contrasts == (("the front wing of a butterfly",), ("the front of a butterfly",))


def test_words_become_a_part_and_its_place() -> None:
    fish = concept_of_words("the rear dorsal fin of a fish", ["the tail fin of a fish", "the front dorsal fin of a fish"])
    assert (fish.name, fish.target) == ("the rear dorsal fin of a fish", ("the dorsal fin of a fish",))
    assert fish.contrasts == (("the tail fin of a fish",),)  # The front fin is the same thing elsewhere: geometry tells it.
    assert (fish.where.place, fish.where.part) == ("rear", "dorsal_fin")
    assert {part.metadata["part"] for part in fish.where.parts} == set(prompts.load_pack("fish").frame.parts)
    # A name that a pack gives to a part holds no place; nor do words without a host that a pack knows, but for "the left ...".
    for words in (
        "the front wing of a butterfly",
        "the butterfly's front wing",
        "a right turn",
        "the left of the picture",
        "the front door",
        "the right whale",
        "the last supper",
        "a right-angled wing of a butterfly",
    ):
        assert concept_of_words(words) == Concept((words,))
    assert concept_of_words("the left wing of a dragonfly").where == Where("left")
    with pytest.raises(PromptError, match="unknown place 'lef'"):
        Where("lef")
    with pytest.raises(PromptError, match="unread must be text"):
        Where("left", unread=1)  # type: ignore[arg-type]


def test_the_api_takes_words(localizer: Localizer) -> None:
    made = butterfly(1.1, evidence=False)
    # The planted tower knows no antennae, which the frame of the shipped pack names too: what it knows is enough.
    found = localizer.locate(made.pixels, "the left fore wing of a butterfly", ["the background"])
    assert found.place.left_of == "viewer, head up"
    x, y = (int(value) for value in found.peak)
    assert made.masks["left_fore_wing"][y, x]


# ----------------------------------------------------------------------------------------------------------------- packs


def broken(**frame: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(PACK))
    document["frame"] |= frame
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (broken(along=["haed"]), "'haed' is no part of this pack; did you mean 'head'?"),
        (broken(view="behind"), "unknown view 'behind'"),
        (broken(along=[], sides=[]), "expected a list of texts"),
        ({**PACK, "frame": {"view": "above"}}, "a frame needs 'along' or 'sides'"),
    ],
)
def test_frames_that_say_nothing_are_refused(document: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptError, match="is not a trait pack") as caught:
        prompts.load_pack(document)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"of": "parts=fore_wing"}, "need each other"),
        ({"where": "left"}, "need each other"),
        ({"of": "parts=fore_wing", "where": "lef"}, "did you mean 'left'?"),
        ({"of": "parts=forewing", "where": "left"}, "Did you mean 'fore_wing'?"),
        ({"of": "left_fore_wing", "where": "left"}, "is no part of this pack with phrases of its own"),
        ({"of": "parts=fore_wing", "where": "left", "phrases": ["a wing"]}, "no phrases of its own"),
    ],
)
def test_places_that_mean_nothing_are_refused(state: dict[str, Any], words: str) -> None:
    document = json.loads(json.dumps(PACK))
    document["characters"]["wings"]["states"]["wrong"] = state
    with pytest.raises(PromptError) as caught:
        prompts.load_pack(document)
    assert words in str(caught.value)


def test_a_place_belongs_to_a_part_and_an_order_needs_a_frame() -> None:
    document = json.loads(json.dumps(PACK))
    document["characters"]["hue"] = {
        "kind": "colour", "entity": {"label": "wing"},
        "states": {"red": {"phrases": ["red wings"]}, "left": {"of": "parts=fore_wing", "where": "left"}},
    }  # fmt: skip
    with pytest.raises(PromptError, match="in characters of kind part only"):
        prompts.load_pack(document)
    document = json.loads(json.dumps(PACK))
    del document["frame"]
    prompts.load_pack(document)  # Left and right are the viewer's then.
    document["characters"]["wings"]["states"]["rear"] = {"of": "parts=fore_wing", "where": "rear"}
    with pytest.raises(PromptError, match="give the pack a 'frame'"):
        prompts.load_pack(document)


def test_packs_with_places_go_there_and_back_again(pack: prompts.Pack) -> None:
    assert prompts.parse(prompts.dump(pack)) == pack
    left = prompts.concepts(pack, "wings", "left_fore_wing")[0]
    base = prompts.concepts(pack, "parts", "fore_wing")[0]
    assert (left.target, left.contrasts, left.templates) == (base.target, base.contrasts, base.templates)
    assert left.metadata["part"] == "left_fore_wing"
    assert pack.phrases_of(pack.character("wings").state("left_fore_wing")) == base.target
    # A part's place is no contrast of the other parts.
    beside = json.loads(json.dumps(PACK))
    del beside["characters"]["parts"]["states"]["head"]["contrasts"]
    beside["characters"]["parts"]["states"]["left_one"] = {"of": "fore_wing", "where": "left"}
    assert "left_one" not in prompts.concepts(prompts.load_pack(beside), "parts", "head")[0].contrast_names


# ------------------------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def run(localizer: Localizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from concept_cam.collection.annotation import annotate

    folder = tmp_path_factory.mktemp("butterflies")
    (folder / "photos").mkdir()
    for name, made in {"above": butterfly(1.2), "below": butterfly(-2.0, "below"), "beside": butterfly(0.2, "beside")}.items():
        Image.fromarray(made.pixels).save(folder / "photos" / f"{name}.png")
    return annotate(folder / "photos", folder / "run", PACK, localizer=localizer, workers=0)


def test_runs_hold_the_place_and_how_it_was_told(run: Any) -> None:
    rows = {(row["source"].removesuffix(".png"), row["best_state"]): row for row in run.records() if row["kind"] == "part"}
    for view, angle in (("above", 1.2), ("below", -2.0)):
        made = butterfly(angle, view)
        for wing in WINGS:
            row = rows[view, wing]
            assert (row["state"], row["place"], row["place_of"]) == (wing, wing.split("_")[0], "animal")
            assert f"seen from {view}" in row["place_because"]
            assert made.masks[wing][int(row["peak_y"]), int(row["peak_x"])]
            middle = np.argwhere(made.masks[wing]).mean(axis=0)
            assert np.hypot(*(middle - (row["centroid_y"], row["centroid_x"]))) < 14
    left = rows["beside", "left_fore_wing"]
    assert (left["state"], left["abstained"], left["abstained_because"], left["region_count"]) == (None, True, "no_place", 0)
    assert (left["place"], left["place_of"]) == ("left", None)
    assert (left["verdict"], left["confidence"], left["rle_counts"]) == ("doubtful", None, None)
    assert left["place_because"] in left["verdict_because"]
    assert rows["above", "head"]["place"] is None


def test_of_what_is_not_there_no_place_is_told(localizer: Localizer, tmp_path: Path) -> None:
    from concept_cam.collection.annotation import annotate
    from concept_cam.collection.calls import Limits

    Image.fromarray(butterfly(1.2).pixels).save(tmp_path / "above.png")
    run = annotate(tmp_path / "above.png", tmp_path / "run", PACK, localizer=localizer, workers=0, limits=Limits(host=1.0))
    rows = {row["best_state"]: row for row in run.records() if row["kind"] == "part"}
    left = rows["left_fore_wing"]
    assert (left["abstained_because"], left["place"], left["place_of"]) == ("no_host", "left", None)
    assert left["place_because"] == "what the pack is about is not in the picture."


def test_exports_say_which_wing(run: Any, tmp_path: Path) -> None:
    from concept_cam.exports import export

    coco = json.loads(export(run.path, "coco", tmp_path / "a.json").read_text())
    names = {row["id"]: row["name"] for row in coco["categories"]}
    placed = [row for row in coco["annotations"] if "place" in row["attributes"]]
    assert {names[row["category_id"]] for row in placed} == {f"wings: {wing}" for wing in WINGS}
    assert {row["attributes"]["place_of"] for row in placed} == {"animal"}
    darwin = list(csv.DictReader(io.StringIO(export(run.path, "darwin-core", tmp_path / "a.csv").read_text())))
    assert "left fore wing" in {row["measurementType"] for row in darwin}
    assert any("left is the animal's own" in row["measurementRemarks"] for row in darwin)
    assert "left_hind_wing" in export(run.path, "cvat", tmp_path / "a.xml").read_text()


def test_locate_says_how_the_place_was_told(monkeypatch: pytest.MonkeyPatch, localizer: Localizer, tmp_path: Path) -> None:
    from concept_cam.cli import main
    from concept_cam.commands import locate

    monkeypatch.setattr(locate, "build_localizer", lambda values, *_: localizer)
    for name, made in {"above": butterfly(1.2), "beside": butterfly(0.2, "beside")}.items():
        Image.fromarray(made.pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "pack.yaml").write_text(prompts.dump(prompts.load_pack(PACK)))
    pictures = [str(tmp_path / "above.png"), str(tmp_path / "beside.png")]
    result = CliRunner().invoke(main, ["locate", *pictures, "--traits", f"{tmp_path / 'pack.yaml'}:wings=left_fore_wing"])
    assert result.exit_code == 0, result.output
    above, beside = csv.DictReader(io.StringIO(result.stdout))
    assert above["place"] == "left, the animal's own"
    assert above["x"] != ""
    assert beside["place"].startswith("not told: the body is seen from the side")
    assert beside["x"] == ""


def test_rows_and_files_speak_of_the_same_regions(monkeypatch: pytest.MonkeyPatch, localizer: Localizer, tmp_path: Path) -> None:
    from concept_cam.cli import main
    from concept_cam.commands import locate

    monkeypatch.setattr(locate, "build_localizer", lambda values, *_: localizer)
    Image.fromarray(butterfly(0.2, "beside").pixels).save(tmp_path / "beside.png")
    (tmp_path / "pack.yaml").write_text(prompts.dump(prompts.load_pack(PACK)))
    specs = [f"{tmp_path / 'pack.yaml'}:{spec}" for spec in ("wings=left_fore_wing", "parts=fore_wing", "parts=head")]
    least = 400.0

    def areas(*options: str) -> dict[str, tuple[bool, int, int]]:
        """Concept -> whether the row has a box, pixels of the file's regions, pixels of the mask."""
        out = tmp_path / "out"
        traits = [text for spec in specs for text in ("--traits", spec)]
        result = CliRunner().invoke(main, ["locate", str(tmp_path / "beside.png"), *traits, "-o", str(out), "--overwrite", *options])
        assert result.exit_code == 0, result.output
        written = {entry["concept"]["name"]: entry for entry in json.loads((out / "beside.json").read_text())["results"]}
        found = {}
        for row in csv.DictReader(io.StringIO(result.stdout)):
            mask = np.asarray(Image.open(out / f"beside__{row['target']}.mask.png")) > 0
            found[row["target"]] = (row["x"] != "", sum(region["area"] for region in written[row["target"]]["regions"]), int(mask.sum()))
        return found

    plain, large = areas(), areas("--min-area", str(least))
    assert plain["wings=left_fore_wing"] == large["wings=left_fore_wing"] == (False, 0, 0)
    for answers in (plain, large):
        assert all(box == (area > 0) and area == mask for box, area, mask in answers.values())
    assert plain["parts=head"][0] != large["parts=head"][0]
    assert large["parts=fore_wing"][0]
    untold = areas("--only", "clear")
    assert "wings=left_fore_wing" not in untold


def test_locate_says_which_place_was_not_read(monkeypatch: pytest.MonkeyPatch, localizer: Localizer, tmp_path: Path) -> None:
    from concept_cam.cli import main
    from concept_cam.commands import locate

    monkeypatch.setattr(locate, "build_localizer", lambda values, *_: localizer)
    Image.fromarray(butterfly(1.2).pixels).save(tmp_path / "above.png")
    words = ["the butterfly's left fore wing", "the front edge of the fore wing of a butterfly"]
    result = CliRunner().invoke(main, ["locate", str(tmp_path / "above.png"), *(text for word in words for text in ("-t", word))])
    assert result.exit_code == 0, result.output
    left, edge = csv.DictReader(io.StringIO(result.stdout))
    assert left["place"].startswith("left, the")
    assert edge["verdict"] != "clear"
    assert edge["place"].startswith("not read: 'front' had no say")
    assert edge["target"] == words[1]
    assert edge["x"] != "", "the region of the words as they stand"
    assert result.stderr.count("the place in") == 1
    assert f"the place in {words[1]!r} was not read" in " ".join(result.stderr.split())


def test_the_page_asks_for_places(localizer: Localizer, pack: prompts.Pack, run: Any, tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from concept_cam.serve.desk import Desk
    from concept_cam.serve.gallery import open_gallery

    photos = run.path.parent / "photos"
    desk = Desk(localizer, open_gallery(str(photos)), corrections=tmp_path / "c.sqlite", packs=[pack])
    made = butterfly(1.2)
    entry = desk.gallery.by_source("above.png")
    for question in (
        {"character": "planted_butterflies:wings", "state": "left_fore_wing"},
        {"target": "the left fore wing of a butterfly"},
    ):
        answer = desk.ask(entry, {**question, "map": True}).to_dict()
        assert answer["place"]["resolved"]
        assert answer["place"]["whose"] in (
            "the animal's own",
            "the viewer's, with the head turned up: whether the upper side is seen is not known",
        )
        assert made.masks["left_fore_wing"][int(answer["peak"]["y"]), int(answer["peak"]["x"])]
        assert answer["ledger"][0]["name"] in ("left_fore_wing", "the left fore wing of a butterfly")
    beside = desk.ask(desk.gallery.by_source("beside.png"), {"character": "planted_butterflies:wings", "state": "left_fore_wing"}).to_dict()
    assert (beside["call"]["abstained_because"], beside["regions"]) == ("no_place", [])
    # What was asked is one thing with its place and another without.
    left, plain = (desk.read({"target": f"the {side}fore wing of a butterfly"}).subject for side in ("left ", ""))
    assert left != plain
    desk.close()


def test_a_noun_that_two_parts_share_names_neither() -> None:
    """The wing of a butterfly is its fore wing or its hind wing: the place is that of whatever is found."""
    for words, part in (
        ("the left wing of a butterfly", ""),
        ("the left fore wing of a butterfly", "fore_wing"),
        ("the left hindwing of a butterfly", "hind_wing"),
    ):
        where = concept_of_words(words).where
        assert where is not None
        assert (where.place, where.part, where.unread) == ("left", part, "")


@pytest.mark.parametrize("spec", ["fish:parts=head", "fish:parts", " lepidoptera:parts=left_fore_wing "])
def test_a_spec_is_not_taken_for_words(spec: str) -> None:
    """The text tower would read its letters, without the contrasts that the pack names."""
    for words in ((spec,), ("a head", [spec])):
        with pytest.raises(PromptError, match=rf"received the spec '{spec.strip()}' .*--traits.*prompts\.load\('{spec.strip()}'\)"):
            concept_of_words(*words)  # type: ignore[arg-type]
    for other in ("fish: the head", "note:head", "16:9"):
        assert concept_of_words(other).target == (other,)
