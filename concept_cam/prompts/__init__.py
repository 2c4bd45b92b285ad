"""Trait packs: vocabularies of traits as data. `packs` reads them, `schema` says what a file may hold, `lint` what makes one poor."""

from concept_cam.prompts.packs import (
    Character,
    Entity,
    Pack,
    Quality,
    Separability,
    State,
    available,
    concepts,
    dump,
    load,
    load_pack,
    merge,
    parse,
    separability,
    split_pack_spec,
    to_dict,
    unique_names,
)
from concept_cam.prompts.places import concept_of_words
from concept_cam.prompts.schema import host_phrase

__all__ = [
    "Character",
    "Entity",
    "Pack",
    "Quality",
    "Separability",
    "State",
    "available",
    "concept_of_words",
    "concepts",
    "dump",
    "host_phrase",
    "load",
    "load_pack",
    "merge",
    "parse",
    "separability",
    "split_pack_spec",
    "to_dict",
    "unique_names",
]
