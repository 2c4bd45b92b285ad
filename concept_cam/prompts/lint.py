"""What makes a trait pack poor although it is well formed: negations, shared names, doubtful text, unverified ids.

:func:`check_pack` is the whole ``concept-cam prompts check``: errors of form (:mod:`concept_cam.prompts.schema`), the checks here, and
where the tables are at hand the maintainers' check of ontology ids (:mod:`concept_cam.prompts.ontology`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from concept_cam import prompts
from concept_cam.core.errors import PromptError
from concept_cam.core.names import normalise_text
from concept_cam.prompts import Character, Entity, Pack, Quality, State, ontology, packs
from concept_cam.prompts import schema as prompt_schema
from concept_cam.prompts.schema import Document, Problem

__all__ = ["CHECKS", "TokenCounter", "check_pack", "check_text"]

TokenCounter = Callable[[str], int]
"""Number of tokens of a prompt, start and end tokens included, before any cutting."""

LONG_PROMPT_WORDS = 20
"""Without a tokenizer: CLIP's BPE rarely takes more than three tokens for a word, and the shortest common context is 64."""

NEGATION = re.compile(
    r"\b(no|not|non|none|never|neither|nor|without|lack|lacks|lacking|missing|absent|absence|free of|devoid)\b|n't\b",
    re.I,
)
NEGATED_WORD = re.compile(r"\b\w{3,}less\b", re.I)
LESS_BUT_NOT_NEGATIVE = {"unless", "nevertheless", "nonetheless", "regardless"}
# Genus, then an epithet with one of the common Latin endings; a short ending only on a long word ("Spanish tuna" is none).
BINOMIAL = re.compile(
    r"\b[A-Z][a-z]{2,}\s(?!(?:this|has|was|its)\b)"
    r"(?:[a-z]{2,}(?:us|um|is|ii|ae|ensis|oides|ica|ata|osa|alis|ina|ana|ella)|[a-z]{4,}(?:ta|ra|na|la|ia|ea|or|ax|ens|ans))\b"
)
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of on in its her with and or at by from to along near behind before under photo close up",
    )
)
MOJIBAKE = re.compile(r"[ÃÂ][\u0080-\u00bf]|â€|ï»¿|\ufffd")
INVISIBLE = re.compile(r"[\u00a0\u00ad\u200b-\u200f\u2028-\u202f\u2060\ufeff]")


def check_pack(
    path: Path,
    tables: Mapping[str, ontology.Term] | None = None,
    count_tokens: TokenCounter | None = None,
    context_length: int = 77,
) -> list[Problem]:
    """Checks one trait pack file.

    Args:
        path: The YAML file.
        tables: Ontology tables; without them an id counts as verified if a shipped pack has it with the same label.
        count_tokens: The model's tokenizer; without it long prompts are guessed by their words.
        context_length: The model's context length in tokens.

    Returns:
        Errors and warnings in the order of the file; empty for a clean pack.

    Raises:
        PromptError: If the file cannot be opened.
    """
    try:
        document = prompt_schema.read_file(path)
    except OSError as error:
        raise PromptError(f"cannot read the trait pack {str(path)!r}: {error.strerror}.") from error
    return _check(document, tables, count_tokens, context_length)


def check_text(
    text: str,
    source: str = "<text>",
    tables: Mapping[str, ontology.Term] | None = None,
    count_tokens: TokenCounter | None = None,
    context_length: int = 77,
) -> list[Problem]:
    """Checks a trait pack given as YAML text; see :func:`check_pack`."""
    return _check(prompt_schema.read(text, source), tables, count_tokens, context_length)


def _check(
    document: Document,
    tables: Mapping[str, ontology.Term] | None,
    count_tokens: TokenCounter | None,
    context_length: int,
) -> list[Problem]:
    pack, found = packs.checked(document)
    found += [problem for problem in document.found if problem.severity == "warning"]
    if pack is None:
        return found
    for one in CHECKS.values():
        found += one(document, pack)
    found += _ids(document, pack, tables)
    found += _context(document, pack, count_tokens, context_length)
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _phrases(document: Document, pack: Pack) -> Iterator[tuple[tuple[str | int, ...], Character, State, str]]:
    """Yields the place, character and state of every phrase."""
    for character in pack.characters:
        for state in character.states:
            path = ("characters", character.name, "states", state.name, "phrases")
            for index, phrase in enumerate(state.phrases):
                yield document.item(path, index), character, state, phrase


# --------------------------------------------------------------------------------------------------------------- checks


def duplicate_phrases(document: Document, pack: Pack) -> Iterator[Problem]:
    """A phrase that a state has twice weighs double in its mean."""
    seen: set[tuple[str, str, str]] = set()
    for path, character, state, phrase in _phrases(document, pack):
        key = (character.name, state.name, normalise_text(phrase))
        if key in seen:
            yield document.problem("warning", "duplicate-phrase", f"{phrase!r} is given twice; delete one.", path)
        seen.add(key)


def negations(document: Document, pack: Pack) -> Iterator[Problem]:
    """CLIP reads "no fin" as "fin"."""
    for path, _, _, phrase in _phrases(document, pack):
        word = NEGATION.search(phrase)
        if word:
            message = f"{phrase!r} holds the negation {word[0]!r}, which CLIP does not understand: say what is seen instead."
            yield document.problem("error", "negation", message, path)
            continue
        word = NEGATED_WORD.search(phrase)
        if word and word[0].lower() not in LESS_BUT_NOT_NEGATIVE:
            message = f"{word[0]!r} in {phrase!r} negates by its form, which CLIP hardly understands: say what is seen instead."
            yield document.problem("warning", "negation", message, path)


def attribute_only(document: Document, pack: Pack) -> Iterator[Problem]:
    """CLIP's text embedding collapses where only attributes remain."""
    for path, character, state, phrase in _phrases(document, pack):
        entity = state.entity or character.entity
        nouns = [pack.host, *((entity.label, *entity.nouns) if entity else ())]
        if state.phrases and not any(_contains(phrase, noun) for noun in nouns):
            known = ", ".join(dict.fromkeys(nouns))
            message = f"{phrase!r} names an attribute, but not of what: expected one of {known} (add other nouns to entity.nouns)."
            yield document.problem("warning", "attribute-only", message, path)


def latin_names(document: Document, pack: Pack) -> Iterator[Problem]:
    """Captions on the web use common names."""
    for path, character, state, phrase in _phrases(document, pack):
        name = BINOMIAL.search(phrase)
        if not name:
            continue
        entity = state.entity or character.entity
        rest = phrase.replace(name[0], " ")
        for noun in (pack.host, *((entity.label, *entity.nouns) if entity else ())):
            rest = re.sub(rf"\b{re.escape(noun)}(?:s|es|'s)?\b", " ", rest, flags=re.I)
        if not set(re.findall(r"[a-z]{2,}", rest.lower())) - STOP_WORDS:
            message = f"{name[0]!r} looks like a Latin name without a common name beside it: add one, as in 'brown trout (Salmo trutta)'."
            yield document.problem("warning", "latin-name", message, path)


def host_missing(document: Document, pack: Pack) -> Iterator[Problem]:
    """A prompt set in which the host never occurs loses the subject."""
    for character in pack.characters:
        templates = pack.templates_of(character)
        if any(_contains(template, pack.host) for template in templates):
            continue
        for state in character.states:
            if not any(_contains(phrase, pack.host) for phrase in pack.phrases_of(state, character)):
                path = ("characters", character.name, "states", state.name)
                message = f"neither a template nor a phrase names the host {pack.host!r}: keep it in the prompts."
                yield document.problem("warning", "no-host", message, path, True)


def left_out(document: Document, pack: Pack) -> Iterator[Problem]:
    """A surrounding that is called like a state, or like another surrounding, is not set against the map."""
    places: set[tuple[tuple[str | int, ...], str]] = set()
    for character in pack.characters:
        for state in character.states:
            for left in packs.left_out(pack, character, state):
                path = _place_of(document, character, state, left)
                if (path, left.name) not in places:
                    places.add((path, left.name))
                    message = (
                        f"{character.name}={state.name} is not set against {left.name!r}: {left.text!r} is also what {left.owner!r} is "
                        "called. Say one of them in other words, or leave it out of what the state is set against."
                    )
                    yield document.problem("warning", "left-out", message, path)


def _place_of(document: Document, character: Character, state: State, left: packs.LeftOut) -> tuple[str | int, ...]:
    """Where a surrounding is named, or, where none is named, where its words are."""
    path = ("characters", character.name)
    if left.name in state.contrasts:
        return document.item((*path, "states", state.name, "contrasts"), state.contrasts.index(left.name))
    if left.name in character.elsewhere:
        return document.item((*path, "elsewhere"), character.elsewhere.index(left.name))
    if left.owner in prompt_schema.REFERENCES:
        return ("host",)
    index = character.state(left.owner).position(left.text)
    return document.item((*path, "states", left.owner, "phrases"), index or 0)


def elsewhere_unused(document: Document, pack: Pack) -> Iterator[Problem]:
    """A state that names its contrasts has those, in place of all that its character is set against."""
    for character in pack.characters:
        for state in character.states if character.elsewhere else ():
            if state.contrasts:
                message = (
                    f"{state.name!r} names its own contrasts, so that 'elsewhere' of {character.name!r} ({', '.join(character.elsewhere)}) "
                    "does not hold for it: leave the contrasts out to have it, or move the state to a character without 'elsewhere'."
                )
                yield document.problem(
                    "warning", "elsewhere", message, ("characters", character.name, "states", state.name, "contrasts"), True
                )


ENTITY_ONTOLOGIES = ("UBERON", "PO", "AISM")
QUALITY_ONTOLOGIES = ("PATO",)


def swapped_terms(document: Document, pack: Pack) -> Iterator[Problem]:
    """An entity is a thing, a quality says how it is, and each of these ontologies holds one of the two."""
    for path, _, term in ontology.terms(pack):
        source = str(term.id).partition(":")[0]
        if isinstance(term, Quality) and source in ENTITY_ONTOLOGIES:
            message = f"{term.id} is a thing and no quality: give a term of {QUALITY_ONTOLOGIES[0]}, or leave the quality out."
        elif isinstance(term, Entity) and source in QUALITY_ONTOLOGIES:
            message = f"{term.id} is a quality and no thing: give a term of {', '.join(ENTITY_ONTOLOGIES)}, or leave the id out."
        else:
            continue
        yield document.problem("error", "swapped-term", message, (*path, "id"))


def shared_qualities(document: Document, pack: Pack) -> Iterator[Problem]:
    """Two states of a character that are one and the same quality, of one and the same part, are one to whoever reads the ids."""
    for character in pack.characters:
        owners: dict[tuple[str | None, str], str] = {}
        for state in character.states:
            quality = state.quality
            if quality is None or quality.id is None or quality.match == "close":
                continue
            part = None if state.entity is None else state.entity.id or state.entity.label
            owner = owners.setdefault((part, quality.id), state.name)
            if owner != state.name:
                message = (
                    f"{owner!r} and {state.name!r} are both said to be just what {quality.id} {quality.label!r} is, so that none can tell "
                    "them apart by it: write match: close for what is only a kind of it."
                )
                path = ("characters", character.name, "states", state.name, "quality", "match")
                yield document.problem("error", "shared-quality", message, path)


def encoding(document: Document, pack: Pack) -> Iterator[Problem]:
    """Text damaged by a wrong encoding, invisible characters, letters in decomposed form."""
    places: list[tuple[tuple[str | int, ...], str]] = [(path, phrase) for path, _, _, phrase in _phrases(document, pack)]
    places += _texts(document.data, ())
    for path, text in dict(places).items():
        damaged, hidden = MOJIBAKE.search(text), INVISIBLE.search(text)
        if damaged:
            message = f"{text!r} looks like text read with a wrong encoding; write it again and save as UTF-8."
            yield document.problem("error", "encoding", message, path)
        elif hidden:
            message = f"{text!r} holds the invisible character U+{ord(hidden[0]):04X}; write an ordinary space or delete it."
            yield document.problem("warning", "encoding", message, path)
        elif text != unicodedata.normalize("NFC", text):
            yield document.problem(
                "warning",
                "encoding",
                f"{text!r} holds decomposed letters; write it in Unicode form NFC.",
                path,
            )


def _texts(value: object, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        return [(path, value)]
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in _texts(item, (*path, key))]
    if isinstance(value, list):
        return [pair for index, item in enumerate(value) for pair in _texts(item, (*path, index))]
    return []


CHECKS: dict[str, Callable[[Document, Pack], Iterator[Problem]]] = {
    "duplicate-phrase": duplicate_phrases,
    "negation": negations,
    "attribute-only": attribute_only,
    "latin-name": latin_names,
    "no-host": host_missing,
    "left-out": left_out,
    "elsewhere": elsewhere_unused,
    "swapped-term": swapped_terms,
    "shared-quality": shared_qualities,
    "encoding": encoding,
}
"""Checks of well-formed packs that need nothing but the pack: code -> function."""


def _contains(text: str, noun: str) -> bool:
    """Tells whether a text holds a noun, in the singular or plural."""
    words = normalise_text(noun)
    forms = {
        words,
        f"{words}s",
        f"{words}es",
        re.sub(r"y$", "ies", words),
        re.sub(r"fe?$", "ves", words),
        re.sub(r"s$", "", words),
    }
    return any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", normalise_text(text)) for form in forms)


def _ids(document: Document, pack: Pack, tables: Mapping[str, ontology.Term] | None) -> Iterator[Problem]:
    if tables is not None:
        for mismatch in ontology.compare(pack, tables):
            yield document.problem("error", "ontology", mismatch.message, mismatch.path)
        return
    known = _shipped_labels()
    for path, _, term in ontology.terms(pack):
        label = known.get(term.id or "")
        if label is None:
            message = f"{term.id} {term.label!r} is unverified: no shipped pack has it; compare it with a table (--ontologies DIR)."
            yield document.problem("warning", "unverified-id", message, (*path, "id"))
        elif label != term.label:
            yield document.problem(
                "error",
                "ontology",
                f"{term.id} is labelled {label!r}, received {term.label!r}.",
                (*path, "label"),
            )


@cache
def _shipped_labels() -> dict[str, str]:
    packs = (prompts.load_pack(path) for path in prompts.available().values())
    return {term.id: term.label for pack in packs for _, _, term in ontology.terms(pack) if term.id}


def _context(document: Document, pack: Pack, count_tokens: TokenCounter | None, context_length: int) -> Iterator[Problem]:
    for path, character, _, phrase in _phrases(document, pack):
        filled = [template.replace("{}", phrase) for template in pack.templates_of(character)]
        if count_tokens is None:
            longest = max(filled, key=lambda prompt: len(prompt.split()))
            words = len(longest.split())
            if words > LONG_PROMPT_WORDS:
                message = (
                    f"the prompt {longest!r} has {words} words (over {LONG_PROMPT_WORDS}); it may not fit a text tower. "
                    "Shorten it, or count its tokens with --model."
                )
                yield document.problem("warning", "long-prompt", message, path)
            continue
        counts = {prompt: count_tokens(prompt) for prompt in filled}
        longest = max(counts, key=lambda prompt: counts[prompt])
        if counts[longest] > context_length:
            message = f"the prompt {longest!r} has {counts[longest]} tokens; the model reads {context_length} and would cut it off."
            yield document.problem("error", "context-length", message, path)


def worst(found: Sequence[Problem]) -> Literal["error", "warning"] | None:
    """Returns the gravest severity among problems, ``None`` if there are none."""
    severities = {problem.severity for problem in found}
    return "error" if "error" in severities else "warning" if severities else None
