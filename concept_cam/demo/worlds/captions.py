"""Captions of a world, and which of them are true of which picture.

A caption is a text and the claims it makes. A claim is true, false or unknown for a picture: a close-up of a head says nothing about the
shape of a tail that is cut off by the frame. Phrases come from the trait pack and the room; only carrier sentences are written here. NumPy
only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from concept_cam import prompts
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.names import some_of
from concept_cam.demo.worlds.claims import FALSE, KINDS, TRUE, UNKNOWN, Statement
from concept_cam.demo.worlds.family import Specimens, Vocabulary, World

if TYPE_CHECKING:
    from concept_cam.demo.worlds.family import Rendering

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
"""Carrier sentences for phrases that stand alone or name the host."""

HAVING_CARRIERS: Final = (
    "a HOST with {}",
    "a photo of a HOST with {}",
    "{} of a HOST",
    "{} on a HOST",
    "a HOST that has {}",
    "a specimen with {}",
    "a picture of a HOST with {}",
    "a close-up of {} of a HOST",
    "a HOST showing {}",
    "a photo of a HOST having {}",
)
"""Carrier sentences for what a host has; HOST stands for its noun."""

EMPTY_PHRASES: Final = (
    "an empty scene",
    "background",
    "the background",
    "no HOST",
    "a picture without a HOST",
    "nothing but background",
)


@dataclass(frozen=True)
class Caption:
    """A text and the claims it makes together."""

    text: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class PictureFacts:
    """What is true of `B` pictures.

    Attributes:
        group: the vocabulary that the numbers below belong to.
        states: int64 [B, C], state number per character in the order of `group.characters`.
        present: bool [B], there is a specimen.
        scene: int64 [B], number in `group.scenes`; -1 where it cannot be told.
        whole: bool [B], the whole specimen is meant to be in the frame, and so its surroundings.
        visible: bool [B, P], the part (order of `group.masks`) can be seen.
        in_frame: bool [B, P], any of the part lies in the frame, visible or not.
        judgeable: bool [B, C], the state can be told from the picture.
        more: claim that only this group's room tells -> its truth, int8 [B].
    """

    group: Vocabulary
    states: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    scene: npt.NDArray[np.int64]
    whole: npt.NDArray[np.bool_]
    visible: npt.NDArray[np.bool_]
    in_frame: npt.NDArray[np.bool_]
    judgeable: npt.NDArray[np.bool_]
    more: Mapping[Statement, npt.NDArray[np.int8]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: npt.NDArray[np.int64] | slice) -> PictureFacts:
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in _COLUMNS}
        return replace(self, **columns, more={claim: truth[rows] for claim, truth in self.more.items()})


_COLUMNS: Final = ("states", "present", "scene", "whole", "visible", "in_frame", "judgeable")


def concatenate_facts(facts: Sequence[PictureFacts]) -> PictureFacts:
    """One `PictureFacts` for all the pictures, in order; what cannot be told of some of the batches cannot be told of any.

    Raises:
        ValueError: there are none, or they are of several groups.
    """
    groups = {each.group.name for each in facts}
    if len(groups) != 1:
        raise ValueError(f"facts of {sorted(groups) or 'no group'}: expected one group.")
    columns: dict[str, Any] = {name: np.concatenate([getattr(each, name) for each in facts]) for name in _COLUMNS}
    told = [claim for claim in facts[0].more if all(claim in each.more for each in facts)]
    return replace(facts[0], **columns, more={claim: np.concatenate([each.more[claim] for each in facts]) for claim in told})


def picture_facts(world: World, specimens: Specimens, rendering: Rendering) -> PictureFacts:
    """What is true of rendered pictures."""
    return PictureFacts(
        specimens.group,
        specimens.states,
        specimens.present,
        specimens.scene,
        specimens.focus < 0,
        rendering.visible.cpu().numpy(),
        rendering.in_frame.cpu().numpy(),
        rendering.judgeable.cpu().numpy(),
        {} if world.more_truth is None else world.more_truth(specimens, rendering),
    )


def statements(group: Vocabulary) -> tuple[Statement, ...]:
    """Every claim that a caption of any world can make of this group, in a fixed order."""
    found = [Statement("host"), Statement("empty")]
    found += [Statement("part", part) for part in group.parts]
    for character, states in group.characters.items():
        if character in group.presences:
            found += [Statement("state", character, "present"), Statement("lacks", character)]
        else:
            found += [Statement("state", character, state) for state in states]
    return tuple(found + [Statement("scene", scene) for scene in group.scenes])


def statement_truth(facts: PictureFacts, claims: Sequence[Statement]) -> npt.NDArray[np.int8]:
    """Truth of single claims.

    A part or state that lies outside the frame is *false*: the picture does not show it. One that is partly cut off or too small to be
    told is *unknown*. This is what lets captions alone teach where things are.

    Returns:
        int8 [B, A] of `FALSE`, `UNKNOWN`, `TRUE`.

    Raises:
        ValueError: a claim of no known kind.
    """
    columns = [_truth(facts, claim) for claim in claims]
    return np.stack(columns, axis=1).astype(np.int8) if columns else np.zeros((len(facts), 0), np.int8)


def _truth(facts: PictureFacts, claim: Statement) -> npt.NDArray[np.integer[Any]]:
    group = facts.group
    if claim.kind not in KINDS:
        raise ValueError(f"unknown kind of statement {claim.kind!r}: expected one of {', '.join(KINDS)}.")
    if claim.kind == "host":
        return np.where(facts.present, TRUE, FALSE)
    if claim.kind == "empty":
        return np.where(facts.present, FALSE, TRUE)
    if claim.kind == "scene":
        same = facts.scene == group.scenes.index(claim.key)
        # A close-up may show nothing of its surroundings.
        told = np.where(same, np.where(facts.whole | ~facts.present, TRUE, UNKNOWN), FALSE)
        return np.where(facts.scene < 0, UNKNOWN, told)
    if claim.kind == "part":
        p = group.masks.index(claim.key)
        return np.where(
            facts.present & facts.visible[:, p],
            TRUE,
            np.where(facts.present & facts.in_frame[:, p], UNKNOWN, FALSE),
        )
    if claim.kind not in ("state", "lacks"):
        return facts.more.get(claim, np.full(len(facts), UNKNOWN, dtype=np.int8))
    c = list(group.characters).index(claim.key)
    judgeable = facts.present & facts.judgeable[:, c]
    if claim.kind == "lacks":
        absent = facts.states[:, c] == group.characters[claim.key].index("absent")
        return np.where(facts.present, np.where(judgeable, np.where(absent, TRUE, FALSE), UNKNOWN), FALSE)
    same = facts.states[:, c] == group.characters[claim.key].index(claim.state)
    in_frame = facts.present & facts.in_frame[:, group.masks.index(group.character_mask[claim.key])]
    return np.where(judgeable, np.where(same, TRUE, FALSE), np.where(in_frame, UNKNOWN, FALSE))


def truth_table(facts: PictureFacts, captions: Sequence[Caption]) -> npt.NDArray[np.int8]:
    """Truth of every caption for every picture.

    Returns:
        int8 [B, N] of `FALSE`, `UNKNOWN`, `TRUE`; a conjunction is false if any of its claims is false, true if all are true.
    """
    claims = list(dict.fromkeys(claim for caption in captions for claim in caption.statements))
    column = {claim: i for i, claim in enumerate(claims)}
    table = statement_truth(facts, claims)
    longest = max((len(caption.statements) for caption in captions), default=1)
    # Claims are padded with the caption's first one: repeating a claim does not change a conjunction.
    index = np.array(
        [[column[s] for s in c.statements] + [column[c.statements[0]]] * (longest - len(c.statements)) for c in captions],
        dtype=np.int64,
    ).reshape(len(captions), longest)
    return cast("npt.NDArray[np.int8]", table[:, index].min(axis=2))


def _article(phrase: str) -> str:
    """A bare noun (`tail fin`) with its article."""
    if phrase.endswith("s") or re.match(r"^(a|an|the)\b", phrase):
        return phrase
    return f"{'an' if phrase[0] in 'aeio' else 'a'} {phrase}"


class CaptionWriter:
    """Writes captions of a world in many wordings.

    Args:
        world: the world.
        pack: trait pack with the characters and parts of the world; the one of its name by default.
        more: write also of what only this world's room tells, such as how a fish lies and what lies beside it.

    Raises:
        ConfigurationError: the pack lacks a character of the world, or nothing says that a presence is missing.

    Attributes:
        phrases: statement -> phrases; some name the host themselves (`a fish with barbels`).
        prompts: statement -> the trait pack's own prompts, in its templates.
    """

    def __init__(self, world: World, pack: str | prompts.Pack | None = None, more: bool = False) -> None:
        self.world = world
        self.pack = prompts.load_pack(world.name if pack is None else pack)
        self.phrases: dict[Statement, tuple[str, ...]] = {}
        self.prompts: dict[Statement, tuple[str, ...]] = {}
        self._one = prompts.host_phrase(world.host)
        self._host = re.compile(rf"\b{world.host}\b")
        self._owner = re.compile(rf"^(a|an|the) {world.host} (with|that has) ")
        self._collect()
        if more:
            self.phrases |= dict(world.more_phrases)
        self._claims = tuple(self.phrases)

    def _collect(self) -> None:
        world, known = self.world, {character.name: character for character in self.pack.characters}
        lacking = [name for name in (*world.characters, "parts") if name not in known]
        if lacking:
            raise ConfigurationError(
                f"captions of the world {world.name!r} take their phrases from a pack with its characters, received the pack "
                f"{self.pack.name!r} without {some_of(lacking)}: add them, or give the world's own pack."
            )
        for name, states in world.characters.items():
            character = known[name]
            templates = self.pack.templates_of(character)
            for state in states:
                if name in world.presences and state == "absent":
                    continue
                claim = Statement("state", name, state)
                own = character.state(state).phrases
                self.phrases[claim] = own + world.state_phrases.get(name, {}).get(state, ())
                self.prompts[claim] = tuple(t.replace("{}", p) for t in templates for p in own)
            if name in world.presences:
                present = character.state("present").phrases
                without = tuple(self._owner.sub(f"{self._one} without ", p) for p in present if self._owner.match(p))
                without = without or world.state_phrases.get(name, {}).get("absent", ())
                if not without:
                    raise ConfigurationError(
                        f"nothing says that {name!r} is missing: none of its phrases in the pack {self.pack.name!r} ({some_of(present)}) "
                        f"begins with '{self._one} with', and the world {world.name!r} has no phrases of its state 'absent'. Write such a "
                        f"phrase, or give state_phrases[{name!r}]['absent']."
                    )
                self.phrases[Statement("lacks", name)] = without
        parts = known["parts"]
        for part in world.parts:
            own = parts.state(part).phrases
            claim = Statement("part", part)
            self.phrases[claim] = own + world.part_phrases.get(part, ())
            self.prompts[claim] = tuple(t.replace("{}", p) for t in self.pack.templates_of(parts) for p in own)
        self.phrases[Statement("host")] = (*self.pack.host_phrases, *world.host_phrases)
        self.prompts[Statement("host")] = tuple(t.replace("{}", p) for t in self.pack.host_templates for p in self.pack.host_phrases)
        self.phrases[Statement("empty")] = tuple(self._named(phrase) for phrase in EMPTY_PHRASES)
        for scene in world.scenes:
            self.phrases[Statement("scene", scene)] = world.scene_phrases[scene]

    def _named(self, text: str) -> str:
        return text.replace("a HOST", self._one).replace("HOST", self.world.host)

    def _choose(self, rng: np.random.Generator, options: Sequence[str]) -> str:
        return options[int(rng.integers(len(options)))]

    def _having(self, rng: np.random.Generator, claim: Statement) -> str | None:
        """A phrase that can follow `a host with`, or None when the chosen one names the host in another way."""
        phrase = self._owner.sub("", self._choose(rng, self.phrases[claim]))
        return None if self._host.search(phrase) else phrase

    def single(self, rng: np.random.Generator, claim: Statement) -> Caption:
        """One wording of one claim."""
        if claim in self.prompts and rng.random() < 0.35:
            return Caption(self._choose(rng, self.prompts[claim]), (claim,))
        phrase = self._choose(rng, self.phrases[claim])
        if claim.kind == "scene" and rng.random() < 0.3:
            return Caption(
                f"{self._one} {self._choose(rng, ('on', 'over', 'in front of', 'against', 'in'))} {phrase}",
                (Statement("host"), claim),
            )
        alone = ("scene", "empty", "host", "lacks", "viewpoint", "number", "thing")
        names_host = claim.kind in alone or self._host.search(phrase) is not None
        carriers = CARRIERS if names_host or rng.random() < 0.3 else HAVING_CARRIERS
        carrier = self._named(self._choose(rng, carriers))
        if (not names_host and carrier.startswith(self._one)) or carrier.endswith("with {}"):
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
            return self.single(rng, Statement("host"))
        listing = " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]
        return Caption(self._named(self._choose(rng, HAVING_CARRIERS[:2])).replace("{}", listing), tuple(chosen))

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
        repeats = {"state": per_state, "part": per_part, "host": per_part, "empty": 2, "lacks": 1, "scene": 1}
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
            *(self._named(carrier) for carrier in HAVING_CARRIERS),
            f"{self._one} on over in front of against without and in no",
        ]
        for phrases in self.phrases.values():
            texts += phrases
        for filled in self.prompts.values():
            texts += filled
        texts += [state.replace("_", " ") for states in self.world.characters.values() for state in states]
        texts += [name.replace("_", " ") for name in (*self.world.characters, *self.world.parts, *self.world.scenes)]
        return tuple(sorted({word for text in texts for word in split_words(text)}))


def split_words(text: str) -> list[str]:
    """The words of a text as the tokenizer sees them: lower case, everything but letters and digits taken as space."""
    return re.sub(r"[^\w\s]|_", " ", text.lower()).split()


def prompts_by_state(writer: CaptionWriter) -> Mapping[str, Mapping[str, Iterable[str]]]:
    """Character -> state -> the trait pack's own prompts; the host's for `absent`. What zero-shot classification compares."""
    host = writer.prompts[Statement("host")]
    return {
        name: {
            state: host if name in writer.world.presences and state == "absent" else writer.prompts[Statement("state", name, state)]
            for state in states
        }
        for name, states in writer.world.characters.items()
    }
