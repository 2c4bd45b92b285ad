"""From evidence to a verdict: few visible rules, whose limits come from a fit.

Two logistic models read the same features of a map (:data:`concept_cam.trust.logistic.FEATURES`): one says how likely the target is in the
picture at all (*presence*), one how likely the peak lies on a target that is there. Their product is the *confidence*: what tells a target
that is not there from one that is does not tell a peak on it from one beside it. Both are fitted, with their limits, to pictures with known
answers (:mod:`concept_cam.trust.fitting`), for each kind of question apart: parts, states of characters, things by name; parts and
states also for each group of organisms apart, for a model that knows fishes well need not know butterflies. The bundled model's come
with it. Other models have none until ``concept-cam calibrate`` makes one: then confidence and presence are not stated, and the rules that
need none of them still hold.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from concept_cam.core.concept import Concept
from concept_cam.core.documents import read_json, understood
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.settings import OWN_INPUT, PREPROCESS_SETTINGS, said_once, written
from concept_cam.trust import probes
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.logistic import Logistic, MapFacts, feature_list
from concept_cam.trust.verdicts import ABSENT, CLEAR, DOUBTFUL, OFF_PROMPT

__all__ = ["KINDS", "Fit", "Judgement", "KnownTarget", "Rules", "beside", "compared", "fit_key", "judge", "key_of", "kind_of", "shipped"]

LATER_LOOKS = ("refine", "look_again")
"""Settings that change what comes after a certificate, which is that of the first look, on the cells."""


def compared(fitted: Mapping[str, Any], made: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the facts under which something was fitted and those under which maps are made as they can be compared, fact by fact.

    What either leaves to the model is ``None`` in both, and so is what either says and the model does anyway: files that were written
    earlier hold that too.

    Args:
        fitted: Facts of rules or limits; of those of unknown origin, which are empty, there is nothing to compare.
        made: Those of :meth:`concept_cam.Localizer.conditions`.
    """
    own = {**(fitted.get(OWN_INPUT) or {}), **(made.get(OWN_INPUT) or {})}

    def comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
        said = said_once(facts, own)
        said.pop(OWN_INPUT, None)
        return cast("dict[str, Any]", written(said | {name: None for name in PREPROCESS_SETTINGS if name not in said}))

    return (comparable(fitted) if fitted else {}), comparable(made)


RULES_VERSION = 5
"""Raised when a rule or a feature changes."""

KINDS: dict[str, str] = {
    "part": "parts of an organism",
    "state": "states of its characters",
    "thing": "things by name",
}
"""Kinds of questions that are fitted apart: how often a peak of some height is right differs among them."""


HOST_TARGET = "host"
"""What a group's whole organism is called among the measured targets, after the group: ``fish:host``."""


def kind_of(concept: Concept) -> str:
    """Returns the kind of a question: ``"part"`` or ``"state"`` where it comes from a trait pack, else ``"thing"``."""
    kind = concept.metadata.get("kind")
    if kind in KINDS:
        return str(kind)
    return "state" if kind else "thing"


def key_of(concept: Concept) -> str:
    """Returns the name under which a target is known: that of its concept, with its pack's before it."""
    pack = concept.metadata.get("pack")
    return f"{pack}:{concept.name}" if pack else concept.name


def fit_key(kind: str, group: str = "") -> str:
    """Returns the name under which a fit is kept: ``"part"``, or ``"fish/part"`` where it is for one group."""
    return f"{group}/{kind}" if group else kind


@dataclass(frozen=True)
class KnownTarget:
    """A target whose maps were measured when the rules were fitted.

    Attributes:
        phrase: What it is called: a question in free words that means the same is known by it.
        kind: Of the question.
        host: What it belongs to; empty for things.
        maps: How many of its maps were measured with the target in the picture.
        right: Share of their peaks that lay on it.
    """

    phrase: str
    kind: str
    host: str
    maps: int
    right: float


@dataclass(frozen=True)
class Fit:
    """What was fitted for one kind of question.

    Attributes:
        found: How likely the peak lies on the target where the target is in the picture.
        presence: How likely the target is in the picture.
        clear: Least confidence of a clear map; above 1 where no limit was good enough.
        absent: Presence under which the target counts as absent.
        domain: Distance from what the model knows above which nothing was measured, so that no map is clear.
        nearer: By how much nearer to another group than to the one that was asked about a picture may be for its maps to be clear.
        variation: How much a map varies at least, in logits, where the model tells anything from anything.
        text: Share of the peak's region that may lie on written words and rulers.
    """

    found: Logistic
    presence: Logistic
    clear: float
    absent: float
    domain: float = math.inf
    nearer: float = math.inf
    variation: float = 0.0
    text: float = 0.5


@dataclass(frozen=True)
class Rules:
    """The rules of one model.

    Attributes:
        fits: What was fitted, by :func:`fit_key`: for a kind of question, or for that kind in one group. Empty where nothing was.
        p_value: Highest p-value of a map that obeys its prompt.
        p_anywhere: Highest p-value, over the whole of other words' maps, of a clear map of which nothing was fitted.
        dependence: Rank correlation with the host's and with every sibling's map above which a map is about neither.
        mass: Share of the map's softmax around its peak under which nothing stands out. A flat map has a twentieth of it there.
        text: Share of the peak's region that may lie on written words and rulers, where nothing was fitted.
        known: Targets that were measured, by :func:`key_of`.
        hosts: Whose parts and states were measured, such as ``("fish",)``: questions about other hosts are not clear. Empty: any host.
        weights_hash: The model they were fitted for; empty for the defaults.
        facts: Under what they were fitted.
    """

    fits: Mapping[str, Fit] = field(default_factory=dict)
    p_value: float = 0.2
    p_anywhere: float = 0.2
    dependence: float = 0.98
    mass: float = 0.1
    text: float = 0.5
    known: Mapping[str, KnownTarget] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    weights_hash: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of questions for which something was fitted, by their names in :data:`KINDS`."""
        return frozenset(key.rpartition("/")[2] for key in self.fits)

    def strange(self, facts: MapFacts) -> bool:
        """Whether a question is about a host that was not measured."""
        return bool(facts.host) and bool(self.hosts) and facts.host not in self.hosts

    def fit_of(self, facts: MapFacts) -> Fit | None:
        """Returns what was fitted for a question: for its group, or for its kind in all groups; ``None`` where nothing was."""
        if self.strange(facts):
            return None
        return self.fits.get(fit_key(facts.kind, facts.group)) or self.fits.get(facts.kind)

    def group_of(self, concept: Concept, target: str = "") -> str:
        """Returns the group that a question is about: its pack, or that of the measured targets which it means or whose host it names.

        Args:
            concept: The question.
            target: The measured target that it is most like; empty for none.
        """
        pack, host = str(concept.metadata.get("pack") or ""), concept.metadata.get("host")
        measured = {name.rpartition(":")[0]: known.host for name, known in self.known.items()}
        if pack and (pack in measured or not measured):
            return pack
        return target.rpartition(":")[0] or next((name for name, of in measured.items() if name and host and of == host), pack)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Refuses maps that were made under other facts than the rules were fitted under.

        Raises:
            ConfigurationError: The model or a setting differs; the message names it.
        """
        fitted, asked = compared(self.facts, facts)
        for name, value in fitted.items():
            # A model has several names; its weights have one hash.
            if name not in ("model", *LATER_LOOKS) and name in asked and asked[name] != value:
                raise ConfigurationError(
                    f"the rules of trust were fitted with {name} {value!r}, the maps are made with {asked[name]!r}: fit them again with  "
                    "concept-cam calibrate."
                )

    def under(self, facts: Mapping[str, Any]) -> Rules:
        """Returns the rules for maps that are made under some facts: without what was fitted, where those are others."""
        try:
            self.check(facts)
        except ConfigurationError:
            return replace(self, fits={}, known={})
        return self

    def to_json(self) -> str:
        """Returns the rules as JSON; :meth:`read` reads them back."""
        content = {"version": RULES_VERSION, "words": probes.PROBES_VERSION, **asdict(self)}
        for fit in content["fits"].values():
            fit |= {name: None if math.isinf(fit[name]) else fit[name] for name in ("domain", "nearer")}
        return json.dumps(written(content), indent=1, ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> Rules:
        """Reads rules.

        Raises:
            DataError: The file cannot be read, or is of another version.
        """
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, content: Any, origin: str) -> Rules:
        """Makes rules of what :meth:`to_json` wrote, parsed; ``origin`` says where it was read.

        Raises:
            DataError: It is something else, or of another version.
        """
        with understood(f"{origin}: the rules of trust"):
            content = dict(content)
            version = content.pop("version"), content.pop("words")
            if version != (RULES_VERSION, probes.PROBES_VERSION):
                raise DataError(
                    f"{origin} holds rules of version {version}, expected {(RULES_VERSION, probes.PROBES_VERSION)}: fit them again with  "
                    "concept-cam calibrate."
                )
            content["fits"] = {str(key): _read_fit(fit) for key, fit in content["fits"].items() if str(key).rpartition("/")[2] in KINDS}
            content["known"] = {str(name): _read_target(target) for name, target in content["known"].items()}
            content["hosts"] = tuple(map(str, content["hosts"]))
            content["weights_hash"], content["facts"] = str(content["weights_hash"]), dict(content["facts"])
            limits = {name: _finite(content[name]) for name in ("p_value", "p_anywhere", "dependence", "mass", "text")}
            return cls(**{**content, **limits})


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no limit")
    return number


def _read_target(content: dict[str, Any]) -> KnownTarget:
    found = KnownTarget(**content)
    return replace(
        found, phrase=str(found.phrase), kind=str(found.kind), host=str(found.host), maps=int(found.maps), right=_finite(found.right)
    )


def _read_fit(content: dict[str, Any]) -> Fit:
    return Fit(
        Logistic.of_dict(content["found"]),
        Logistic.of_dict(content["presence"]),
        _finite(content["clear"]),
        _finite(content["absent"]),
        math.inf if content["domain"] is None else _finite(content["domain"]),
        math.inf if content["nearer"] is None else _finite(content["nearer"]),
        _finite(content["variation"]),
        _finite(content["text"]),
    )


def shipped(weights_hash: str) -> Rules | None:
    """Returns the rules that come with the package for a model's weights; ``None`` for other models."""
    path = Path(__file__).parent / "fitted" / f"{weights_hash}.json"
    return Rules.read(path) if path.is_file() else None


def beside(rules: Rules, weights_hash: str, facts: Mapping[str, Any]) -> Rules | None:
    """Returns a model's own rules, for the kinds of questions of which other rules say nothing; ``None`` where these need none.

    Args:
        rules: Those that are used; rules without any fit are used alone.
        weights_hash: The model.
        facts: Under which its maps are made.
    """
    own = shipped(weights_hash) if rules.fits and rules.kinds < KINDS.keys() else None
    return None if own is None else own.under(facts)


@dataclass(frozen=True)
class Judgement:
    """What the rules make of the evidence.

    Attributes:
        verdict: A name of :data:`concept_cam.trust.verdicts.TRUST_VERDICTS`.
        reason: Why, in one plain sentence.
        confidence: How likely the peak lies on the target, 0..1; NaN where nothing was fitted.
        presence: How likely the target is in the picture, 0..1; NaN where nothing was fitted.
    """

    verdict: str
    reason: str
    confidence: float
    presence: float


UNFITTED: Final = "how often such a peak is right was not calibrated for this model and these settings"
"""What every reason says where nothing was fitted."""


LIKELY: Final = 0.5
"""Probability among its siblings under which a state of which nothing was fitted is not clear: the others together are likelier."""

_WHERE: Final = {"part": "at the peak", "state": "in the picture", "thing": "at the peak"}
"""Where the probability of a question of each kind is asked."""


def _nearer_to(facts: MapFacts) -> str:
    return f"the picture looks more like another group ({facts.nearest}) than like what was asked about ({facts.group})."


def _chance(probability: float) -> str:
    """Returns a probability in words: ``of 0.97``; never 0 nor 1, for nothing that was fitted is that sure."""
    if probability < 0.01:
        return "under 0.01"
    return "over 0.99" if probability > 0.99 else f"of {probability:.2f}"


def judge(found: Evidence, facts: MapFacts, rules: Rules, *, others: str = "unrelated words", host: str = "the whole subject") -> Judgement:
    """Applies the rules, the gravest first.

    Args:
        found: What speaks for and against the map.
        facts: What else is known of it.
        rules: The model's rules.
        others: What the neutral maps are of, for the reason.
        host: What the host's map is of, for the reason.
    """
    fit = rules.fit_of(facts)
    nan = float("nan")
    confidence = presence = nan
    if fit is not None:
        features = feature_list(found, facts)
        presence = fit.presence(features, facts)
        confidence = presence * fit.found(features, facts)

    def answer(verdict: str, reason: str) -> Judgement:
        if fit is None:
            reason = f"{reason.removesuffix('.')}; {UNFITTED}."
        return Judgement(verdict, reason, confidence, presence)

    anyway = min(found.p_value, found.p_plain)
    if anyway > rules.p_value:
        return answer(OFF_PROMPT, f"{anyway:.0%} of {others} rise at this place as high as the target does.")
    if found.dependence_host > rules.dependence and not found.dependence_siblings <= rules.dependence:
        return answer(OFF_PROMPT, f"the map is that of {host} (rank correlation {found.dependence_host:.2f}).")
    if found.mass < rules.mass:
        return answer(OFF_PROMPT, f"nothing stands out: to the model, {1 - found.mass:.0%} of the target is elsewhere than at the peak.")
    even = fit is not None and found.variation < fit.variation
    # The map of an absent target is even too. But in a picture unlike those that were measured it may be the model that sees nothing.
    if fit is not None and presence < fit.absent and (not even or facts.domain <= fit.domain):
        return answer(ABSENT, f"the target is in the picture with a probability {_chance(presence)}.")
    if fit is not None and even:
        return answer(
            OFF_PROMPT,
            f"nothing stands out: the map varies by {found.variation:.2f} logits, where a target is found by {fit.variation:.2f} or more.",
        )
    if found.text > (rules.text if fit is None else fit.text):
        return answer(DOUBTFUL, f"{found.text:.0%} of the peak's surroundings look like written words or a ruler.")
    if rules.strange(facts):
        return answer(
            DOUBTFUL, f"the model's limits were fitted for {', '.join(rules.hosts)}; what it knows of {facts.host} was not measured."
        )
    if fit is None:
        # No figure says how often such a peak is right: clear is what nothing speaks against that can be told without one.
        if facts.likelier:
            return answer(DOUBTFUL, f"of what was named, '{facts.likelier}' is likelier {_WHERE[facts.kind]}.")
        if facts.kind == "state" and facts.probability < LIKELY:
            return answer(DOUBTFUL, "the other states that were named are together likelier in the picture.")
        if facts.nearer > 0:
            return answer(DOUBTFUL, _nearer_to(facts))
        if found.p_anywhere > rules.p_anywhere:
            return answer(DOUBTFUL, f"{found.p_anywhere:.0%} of {others} rise as high somewhere in their own maps.")
        return answer(CLEAR, "the map obeys its prompt")
    if facts.domain > fit.domain:
        return answer(DOUBTFUL, f"the picture is unlike those that were measured (distance {facts.domain:.2f}, limit {fit.domain:.2f}).")
    if facts.nearer > fit.nearer:
        return answer(DOUBTFUL, _nearer_to(facts))
    known = rules.known.get(facts.target)
    often = f" (this target's over all: {known.right:.2f})" if known is not None and facts.likeness >= 0.5 else ""
    sure = f"peaks like this one are right with a probability {_chance(confidence)}{often}."
    return answer(CLEAR if confidence >= fit.clear else DOUBTFUL, sure)
