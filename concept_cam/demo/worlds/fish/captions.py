"""Captions of the fish world, and which of them are true of which picture.

A caption is a text and the statements it makes. A statement is true, false or unknown for a picture: a close-up of a head says nothing
about the shape of a tail fin that is cut off by the frame. Phrases come from the trait pack; only carrier sentences and a few more
ways to say the same are written here. NumPy only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from concept_cam import prompts
from concept_cam.demo.worlds.family import SCENES
from concept_cam.demo.worlds.fish.phrases import (
    EMPTY_PHRASES,
    EXTRA_PARTS,
    EXTRA_PHRASES,
    FISH_PHRASES,
    NUMBER_PHRASES,
    SCENE_PHRASES,
    TAIL_PHRASES,
    THING_PHRASES,
    VIEWPOINT_PHRASES,
)
from concept_cam.demo.worlds.fish.poses import TAIL_TOLD, VIEWPOINTS
from concept_cam.demo.worlds.fish.things import THINGS
from concept_cam.demo.worlds.fish.traits import CHARACTER_PART, CHARACTERS, MASKS, PARTS, PRESENCE_CHARACTERS

if TYPE_CHECKING:
    from concept_cam.demo.worlds.family import Specimens
    from concept_cam.demo.worlds.fish.world import FishRendering

FALSE: Final = 0
UNKNOWN: Final = 1
TRUE: Final = 2
"""Truth values, ordered so that the truth of a conjunction is the least of its parts' (Kleene's strong three-valued logic)."""

CARRIERS: Final = (
    "{}",
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a photograph of {}",
    "a close-up of {}",
    "a photo showing {}",
    "a blurry photo of {}",
    "a side view of {}",
    "this is {}",
    "the photo shows {}",
)
"""Carrier sentences for phrases that stand alone or name the fish."""

HAVING_CARRIERS: Final = (
    "a fish with {}",
    "a photo of a fish with {}",
    "{} of a fish",
    "{} on a fish",
    "a fish that has {}",
    "a specimen with {}",
    "a picture of a fish with {}",
    "a close-up of {} of a fish",
    "a fish showing {}",
    "a photo of a fish having {}",
)
"""Carrier sentences for what a fish has."""


@dataclass(frozen=True)
class Statement:
    """One claim about a picture.

    Attributes:
        kind: `state`, `lacks` (a presence character is visibly absent), `part`, `fish`, `empty` or `scene`; of photographs also
            `viewpoint`, `tail`, `number` or `thing`.
        key: character, part, scene, or a key of `VIEWPOINT_PHRASES`, `TAIL_PHRASES`, `NUMBER_PHRASES`, `THING_PHRASES`; empty for
            `fish` and `empty`.
        state: state of the character for kind `state`.
    """

    kind: str
    key: str = ""
    state: str = ""


@dataclass(frozen=True)
class Caption:
    """A text and the claims it makes together."""

    text: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class PictureFacts:
    """What is true of `B` pictures.

    Attributes:
        states: int64 [B, C], state number per character in the order of `CHARACTERS`.
        present: bool [B], there is a fish.
        scene: int64 [B], number in `SCENES`; -1 where it cannot be told.
        whole: bool [B], the whole fish is meant to be in the frame, and so its surroundings.
        visible: bool [B, P], the part (order of `MASKS`) can be seen.
        in_frame: bool [B, P], any of the part lies in the frame, visible or not.
        judgeable: bool [B, C], the state can be told from the picture.
        viewpoint: int64 [B], number in `VIEWPOINTS`; -1 where it cannot be told.
        tail: float32 [B], how far the tail fin is spread before the camera, 0 to 1; NaN where it cannot be told.
        number: int64 [B], how many fishes; -1 where it cannot be told.
        things: int8 [B, T], truth of there being each of `THINGS`.

    The last four are for pictures in the style of photographs; None says that they cannot be told of any picture.
    """

    states: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    scene: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.bool_]
    in_frame: npt.NDArray[np.bool_]
    judgeable: npt.NDArray[np.bool_]
    viewpoint: npt.NDArray[np.int64] | None = None
    tail: npt.NDArray[np.float32] | None = None
    number: npt.NDArray[np.int64] | None = None
    things: npt.NDArray[np.int8] | None = None

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> PictureFacts:
        columns: list[Any] = [getattr(self, name) for name in (*FACT_FIELDS, *PHOTOGRAPH_FIELDS)]
        chosen: list[Any] = [None if column is None else column[rows] for column in columns]
        return PictureFacts(*chosen)


FACT_FIELDS: Final = ("states", "present", "scene", "whole", "visible", "in_frame", "judgeable")
PHOTOGRAPH_FIELDS: Final = ("viewpoint", "tail", "number", "things")


def concatenate_facts(facts: Sequence[PictureFacts]) -> PictureFacts:
    """One `PictureFacts` for all the pictures, in order; what cannot be told of some of the batches cannot be told of any."""
    columns: list[Any] = []
    for name in (*FACT_FIELDS, *PHOTOGRAPH_FIELDS):
        parts = [getattr(each, name) for each in facts]
        columns.append(None if any(part is None for part in parts) else np.concatenate(parts))
    return PictureFacts(*columns)


def picture_facts(specimens: Specimens, rendering: FishRendering) -> PictureFacts:
    """What is true of rendered pictures. Things are told where the pictures were rendered with masks."""
    things = None
    if rendering.things is not None:
        area = rendering.things.flatten(2).sum(dim=2).cpu().numpy()
        least = _THING_SHARE * rendering.things.shape[-1] * rendering.things.shape[-2]
        things = np.where(area >= least, TRUE, np.where(area > 0, UNKNOWN, FALSE)).astype(np.int8)
    return PictureFacts(
        specimens.states,
        specimens.present,
        specimens.scene,
        specimens.focus < 0,
        rendering.visible.cpu().numpy(),
        rendering.in_frame.cpu().numpy(),
        rendering.judgeable.cpu().numpy(),
        rendering.viewpoint.cpu().numpy(),
        rendering.tail.cpu().numpy(),
        rendering.number.cpu().numpy(),
        things,
    )


_THING_SHARE = 0.004
"""Least share of the picture at which a thing counts as seen."""


def photograph_statements() -> tuple[Statement, ...]:
    """Every claim about how a fish lies and what lies beside it, in a fixed order."""
    tables = {
        "viewpoint": VIEWPOINT_PHRASES,
        "tail": TAIL_PHRASES,
        "number": NUMBER_PHRASES,
        "thing": THING_PHRASES,
    }
    return tuple(Statement(kind, key) for kind, table in tables.items() for key in table)


def statements() -> tuple[Statement, ...]:
    """Every claim that a caption of this world can make, in a fixed order: the axis `A` of `statement_truth`."""
    found = [Statement("fish"), Statement("empty")]
    found += [Statement("part", part) for part in PARTS]
    for character, states in CHARACTERS.items():
        if character in PRESENCE_CHARACTERS:
            found += [Statement("state", character, "present"), Statement("lacks", character)]
        else:
            found += [Statement("state", character, state) for state in states]
    return tuple(found + [Statement("scene", scene) for scene in SCENES])


def statement_truth(facts: PictureFacts, claims: Sequence[Statement]) -> npt.NDArray[np.int8]:
    """Truth of single claims.

    A part or state that lies outside the frame is *false*: the picture does not show it. One that is partly cut off or too small to be
    told is *unknown*. This is what lets captions alone teach where things are.

    Returns:
        int8 [B, A] of `FALSE`, `UNKNOWN`, `TRUE`.
    """
    columns = [_truth(facts, claim) for claim in claims]
    return np.stack(columns, axis=1).astype(np.int8) if columns else np.zeros((len(facts), 0), np.int8)


def _truth(facts: PictureFacts, claim: Statement) -> npt.NDArray[np.int64]:
    if claim.kind == "fish":
        return np.where(facts.present, TRUE, FALSE)
    if claim.kind == "empty":
        return np.where(facts.present, FALSE, TRUE)
    if claim.kind == "scene":
        same = facts.scene == SCENES.index(claim.key)
        # A close-up may show nothing of its surroundings.
        told = np.where(same, np.where(facts.whole | ~facts.present, TRUE, UNKNOWN), FALSE)
        return np.where(facts.scene < 0, UNKNOWN, told)
    if claim.kind == "part":
        p = MASKS.index(claim.key)
        return np.where(
            facts.present & facts.visible[:, p],
            TRUE,
            np.where(facts.present & facts.in_frame[:, p], UNKNOWN, FALSE),
        )
    if claim.kind in ("viewpoint", "tail", "number", "thing"):
        return _photograph_truth(facts, claim)
    if claim.kind not in ("state", "lacks"):
        raise ValueError(
            f"unknown kind of statement {claim.kind!r}: expected state, lacks, part, fish, empty, scene, viewpoint, tail, number or thing."
        )
    c = list(CHARACTERS).index(claim.key)
    judgeable = facts.present & facts.judgeable[:, c]
    if claim.kind == "lacks":
        absent = facts.states[:, c] == CHARACTERS[claim.key].index("absent")
        return np.where(facts.present, np.where(judgeable, np.where(absent, TRUE, FALSE), UNKNOWN), FALSE)
    same = facts.states[:, c] == CHARACTERS[claim.key].index(claim.state)
    in_frame = facts.present & facts.in_frame[:, MASKS.index(CHARACTER_PART[claim.key])]
    return np.where(judgeable, np.where(same, TRUE, FALSE), np.where(in_frame, UNKNOWN, FALSE))


_FOLDED = 0.3
"""Spread up to which a tail fin is called folded; between this and `TAIL_TOLD` it is called neither folded nor spread."""


def _photograph_truth(facts: PictureFacts, claim: Statement) -> npt.NDArray[np.int64]:
    unknown = np.full(len(facts), UNKNOWN)
    if claim.kind == "thing":
        return unknown if facts.things is None else facts.things[:, THINGS.index(claim.key)].astype(np.int64)
    if claim.kind == "viewpoint":
        if facts.viewpoint is None:
            return unknown
        vague = (facts.viewpoint < 0) | (facts.viewpoint == VIEWPOINTS.index("between"))
        truth = np.where(vague, UNKNOWN, np.where(facts.viewpoint == VIEWPOINTS.index(claim.key), TRUE, FALSE))
    elif claim.kind == "number":
        if facts.number is None:
            return unknown
        truth = np.where(facts.number < 0, UNKNOWN, np.where((facts.number > 1) == (claim.key == "several"), TRUE, FALSE))
    else:
        if facts.tail is None:
            return unknown
        seen = facts.visible[:, MASKS.index("caudal_fin")]
        in_frame = facts.in_frame[:, MASKS.index("caudal_fin")]
        spread, folded = facts.tail >= TAIL_TOLD, facts.tail <= _FOLDED
        same, other = (spread, folded) if claim.key == "spread" else (folded, spread)
        truth = np.where(in_frame, np.where(same & seen, TRUE, np.where(other & seen, FALSE, UNKNOWN)), FALSE)
        # Several tails may lie differently.
        truth = np.where((facts.number is not None) and (facts.number != 1) & in_frame, UNKNOWN, truth)
    return np.where(facts.present, truth, FALSE)


def truth_table(facts: PictureFacts, captions: Sequence[Caption]) -> npt.NDArray[np.int8]:
    """Truth of every caption for every picture.

    Returns:
        int8 [B, N] of `FALSE`, `UNKNOWN`, `TRUE`; a conjunction is false if any of its claims is false, true if all are true.
    """
    claims = (*statements(), *photograph_statements())
    column = {claim: i for i, claim in enumerate(claims)}
    table = statement_truth(facts, claims)
    longest = max((len(caption.statements) for caption in captions), default=1)
    # Claims are padded with the caption's first one: repeating a claim does not change a conjunction.
    index = np.array(
        [[column[s] for s in c.statements] + [column[c.statements[0]]] * (longest - len(c.statements)) for c in captions],
        dtype=np.int64,
    ).reshape(len(captions), longest)
    return cast("npt.NDArray[np.int8]", table[:, index].min(axis=2))


_OWNER = re.compile(r"^(a|the) fish (with|that has) ")


def _article(phrase: str) -> str:
    """A bare noun (`tail fin`) with its article."""
    if phrase.endswith("s") or re.match(r"^(a|an|the)\b", phrase):
        return phrase
    return f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"


class CaptionWriter:
    """Writes captions of the fish world in many wordings.

    Args:
        pack: trait pack with the characters and parts of the world; `"fish"` by default.
        photographs: write of how the fish lies and of things beside it as well.

    Attributes:
        phrases: statement -> phrases as `(text, names_host)`; `names_host` phrases name the fish themselves (`a fish with barbels`).
    """

    def __init__(self, pack: str | prompts.Pack = "fish", photographs: bool = False) -> None:
        self.pack = prompts.load_pack(pack)
        self.phrases: dict[Statement, tuple[str, ...]] = {}
        self.prompts: dict[Statement, tuple[str, ...]] = {}
        self._collect()
        if photographs:
            tables = {"viewpoint": VIEWPOINT_PHRASES, "tail": TAIL_PHRASES, "number": NUMBER_PHRASES, "thing": THING_PHRASES}
            self.phrases |= {claim: tables[claim.kind][claim.key] for claim in photograph_statements()}
        self._claims = tuple(self.phrases)

    def _collect(self) -> None:
        known = {character.name: character for character in self.pack.characters}
        for name, states in CHARACTERS.items():
            character = known[name]
            templates = self.pack.templates_of(character)
            for state in states:
                if name in PRESENCE_CHARACTERS and state == "absent":
                    continue
                claim = Statement("state", name, state)
                own = character.state(state).phrases
                self.phrases[claim] = own + EXTRA_PHRASES.get(name, {}).get(state, ())
                self.prompts[claim] = tuple(t.replace("{}", p) for t in templates for p in own)
            if name in PRESENCE_CHARACTERS:
                present = character.state("present").phrases
                self.phrases[Statement("lacks", name)] = tuple(re.sub(_OWNER, "a fish without ", p) for p in present if _OWNER.match(p))
        parts = known["parts"]
        for part in PARTS:
            own = parts.state(part).phrases
            claim = Statement("part", part)
            self.phrases[claim] = own + EXTRA_PARTS.get(part, ())
            self.prompts[claim] = tuple(t.replace("{}", p) for t in self.pack.templates_of(parts) for p in own)
        self.phrases[Statement("fish")] = (*self.pack.host_phrases, *FISH_PHRASES)
        self.prompts[Statement("fish")] = tuple(t.replace("{}", p) for t in self.pack.host_templates for p in self.pack.host_phrases)
        self.phrases[Statement("empty")] = EMPTY_PHRASES
        for scene in SCENES:
            self.phrases[Statement("scene", scene)] = SCENE_PHRASES[scene]

    def _choose(self, rng: np.random.Generator, options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    def _having(self, rng: np.random.Generator, claim: Statement) -> str | None:
        """A phrase that can follow `a fish with`, or None when the chosen one names the fish in another way."""
        phrase = re.sub(_OWNER, "", self._choose(rng, self.phrases[claim]))
        return None if re.search(r"\bfish\b", phrase) else phrase

    def single(self, rng: np.random.Generator, claim: Statement) -> Caption:
        """One wording of one claim."""
        if claim in self.prompts and rng.random() < 0.35:
            return Caption(self._choose(rng, self.prompts[claim]), (claim,))
        phrase = self._choose(rng, self.phrases[claim])
        if claim.kind == "scene" and rng.random() < 0.3:
            return Caption(
                f"a fish {self._choose(rng, ('on', 'over', 'in front of', 'against', 'in'))} {phrase}",
                (Statement("fish"), claim),
            )
        alone = ("scene", "empty", "fish", "lacks", "viewpoint", "number", "thing")
        names_host = claim.kind in alone or re.search(r"\bfish\b", phrase) is not None
        carriers = CARRIERS if names_host or rng.random() < 0.3 else HAVING_CARRIERS
        carrier = self._choose(rng, carriers)
        if (not names_host and carrier.startswith("a fish")) or carrier.endswith("with {}"):
            phrase = _article(phrase) if claim.kind == "part" else phrase
        return Caption(carrier.replace("{}", phrase), (claim,))

    def joint(self, rng: np.random.Generator, count: int, facts: PictureFacts | None = None) -> Caption:
        """A caption that makes several claims about states; with `facts` of one picture, true ones where there are enough."""
        claims = [claim for claim in self._claims if claim.kind == "state"]
        if facts is not None:
            truth = statement_truth(facts, claims)[0]
            true = [claim for claim, value in zip(claims, truth, strict=True) if value == TRUE]
            claims = true if len(true) >= count else claims
        order = rng.permutation(len(claims))
        chosen: list[Statement] = []
        words: list[str] = []
        for i in order:
            claim = claims[int(i)]
            if claim.key in {c.key for c in chosen}:
                continue
            phrase = self._having(rng, claim)
            if phrase is not None:
                chosen.append(claim)
                words.append(phrase)
            if len(chosen) == count:
                break
        if not chosen:
            return self.single(rng, Statement("fish"))
        listing = " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]
        return Caption(self._choose(rng, HAVING_CARRIERS[:2]).replace("{}", listing), tuple(chosen))

    def batch(
        self,
        rng: np.random.Generator,
        facts: PictureFacts,
        *,
        per_state: int = 2,
        per_part: int = 2,
        joint: int = 16,
    ) -> list[Caption]:
        """Captions for one training step: every claim in several wordings, and joint claims that are true of some of the pictures."""
        found: list[Caption] = []
        repeats = {"state": per_state, "part": per_part, "fish": per_part, "empty": 2, "lacks": 1, "scene": 1}
        repeats |= dict.fromkeys(("viewpoint", "tail", "number", "thing"), 1)
        for claim in self._claims:
            found += [self.single(rng, claim) for _ in range(repeats[claim.kind])]
        for _ in range(joint):
            i = int(rng.integers(len(facts)))
            found.append(self.joint(rng, int(rng.integers(2, 4)), facts[slice(i, i + 1)]))
        return found

    def describe(self, rng: np.random.Generator, facts: PictureFacts, count: int = 4) -> list[Caption]:
        """True captions of one picture, `facts` holding one row."""
        claims = self._claims
        truth = statement_truth(facts, claims)[0]
        true = [claim for claim, value in zip(claims, truth, strict=True) if value == TRUE]
        return [self.single(rng, true[int(rng.integers(len(true)))]) for _ in range(count)] if true else []

    def words(self) -> tuple[str, ...]:
        """Every word that a caption or prompt can hold, sorted: the vocabulary of the model."""
        texts: list[str] = [
            *CARRIERS,
            *HAVING_CARRIERS,
            "a fish on over in front of against without and in no",
        ]
        for phrases in self.phrases.values():
            texts += phrases
        for filled in self.prompts.values():
            texts += filled
        texts += [state.replace("_", " ") for states in CHARACTERS.values() for state in states]
        texts += [name.replace("_", " ") for name in (*CHARACTERS, *PARTS, *SCENES)]
        return tuple(sorted({word for text in texts for word in split_words(text)}))


def split_words(text: str) -> list[str]:
    """The words of a text as the tokenizer sees them: lower case, everything but letters and digits taken as space."""
    return re.sub(r"[^\w\s]|_", " ", text.lower()).split()


def prompts_by_state(writer: CaptionWriter) -> Mapping[str, Mapping[str, Iterable[str]]]:
    """Character -> state -> the trait pack's own prompts; the host's for `absent`. What zero-shot classification compares."""
    host = writer.prompts[Statement("fish")]
    return {
        name: {
            state: host if name in PRESENCE_CHARACTERS and state == "absent" else writer.prompts[Statement("state", name, state)]
            for state in states
        }
        for name, states in CHARACTERS.items()
    }
