"""Teaching with clicks: a prototype of the patches that people clicked, mixed with the direction of the words. No training, no probe.

With unit patch features ``f^`` the prototype is ``p = mean(f^ at "this") - mean(f^ at "not this")``, set to the length of the words'
direction ``w``; a map is ``(1 - m) f^ . w + m f^ . p |w| / |p|``. What is mixed so is no longer zero-shot, and every answer says it.

A taught concept is two files beside the corrections: ``taught/NAME.safetensors`` (the prototype, what was clicked, the model it belongs to)
and an entry in the trait pack ``taught/taught.yaml``, which any command takes with ``--traits`` (its words; the prototype is the page's).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F

from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.files import METADATA, make_directory, write_file, write_tensors
from concept_cam.core.names import choose

if TYPE_CHECKING:
    from torch import Tensor

    from concept_cam.core.features import PatchFeatures

__all__ = ["LEAST_CLICKS", "Taught", "TaughtConcepts", "click_vectors", "prototype"]

LEAST_CLICKS = 10
"""Positive clicks from which a prototype is made; fewer are one picture's accidents."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
PACK_FILE = "taught.yaml"


def click_vectors(features: PatchFeatures, points: Sequence[tuple[float, float]]) -> Tensor:
    """Returns the unit features of the patches under points of the original picture: float32 [N, D]; points in padding are left out."""
    if not points:
        return features.patches.new_zeros(0, features.patches.shape[-1])
    geometry = features.geometry
    cells = np.floor(geometry.original_to_grid(np.asarray(points, dtype=np.float64))).astype(int)
    height, width = geometry.grid
    valid = geometry.valid()
    kept = [(y, x) for x, y in cells.tolist() if 0 <= y < height and 0 <= x < width and valid[y, x]]
    if not kept:
        return features.patches.new_zeros(0, features.patches.shape[-1])
    rows, columns = zip(*kept)
    return F.normalize(features.patches[list(rows), list(columns)].float(), dim=-1)


def prototype(positive: Tensor, negative: Tensor) -> Tensor:
    """Returns the mean of the clicked patches less that of the negative clicks, float32 [D].

    Raises:
        ConfigurationError: Too few positive clicks, or a difference that vanishes.
    """
    if len(positive) < LEAST_CLICKS:
        raise ConfigurationError(f"a concept is taught from at least {LEAST_CLICKS} positive clicks, received {len(positive)}.")
    found = positive.mean(dim=0) - (negative.mean(dim=0) if len(negative) else 0.0)
    if float(found.norm()) < 1e-4:
        raise ConfigurationError("the positive and the negative clicks look the same to the model: their difference vanishes.")
    return found


@dataclass(frozen=True)
class Taught:
    """A taught concept.

    Attributes:
        name: Lower-case letters, digits and underscores.
        target: Words that it goes with.
        contrasts: Contrasts that it goes with.
        vector: float32 [D], the prototype.
        positive: Positive clicks it was made from.
        negative: Negative clicks.
        pictures: Pictures that were clicked.
        mix: Share that is proposed.
        model: Model whose features were clicked.
        weights_hash: Hash of its weights; a prototype means nothing to others.
        person: Who taught it.
        at: When.
    """

    name: str
    target: str
    contrasts: tuple[str, ...]
    vector: Tensor
    positive: int
    negative: int
    pictures: int
    mix: float
    model: str
    weights_hash: str
    person: str = ""
    at: str = ""

    def facts(self) -> dict[str, Any]:
        """Returns all but the vector, for people and files."""
        facts = {name: value for name, value in vars(self).items() if name != "vector"}
        return {**facts, "contrasts": list(self.contrasts), "zero_shot": False}


class TaughtConcepts:
    """The taught concepts in a folder; those of other weights are left aside.

    Args:
        folder: Made with the first concept.
        weights_hash: Hash of the weights of the model in use.
    """

    def __init__(self, folder: Path, weights_hash: str) -> None:
        self.folder, self._weights_hash = folder, weights_hash
        self._lock = threading.Lock()
        self._known: dict[str, Taught] = {}
        for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
            taught = _read(file)
            if taught.weights_hash == weights_hash:
                self._known[taught.name] = taught

    def __iter__(self) -> Any:
        return iter(list(self._known.values()))

    def get(self, name: str) -> Taught:
        """Returns a taught concept by its name.

        Raises:
            ConfigurationError: There is none; the message names the nearest.
        """
        if not self._known:
            raise ConfigurationError(f"no concept {name!r} was taught for this model: click at least {LEAST_CLICKS} examples first.")
        return choose(name, self._known, "taught concept")

    def keep(self, taught: Taught) -> Taught:
        """Stores a concept, in the place of an older one of its name, and writes the pack anew.

        Raises:
            ConfigurationError: The name cannot be used.
            OutputError: The folder is not writable.
        """
        if not _NAME.fullmatch(taught.name):
            raise ConfigurationError(
                f"a taught concept's name is made of a-z, 0-9 and _ and begins with a letter, received {taught.name[:80]!r}."
            )
        with self._lock:
            make_directory(self.folder)
            write_tensors(
                self.folder / f"{taught.name}.safetensors", {"prototype": taught.vector.cpu().contiguous()}, taught.facts(), overwrite=True
            )
            self._known[taught.name] = taught
            write_file(self.folder / PACK_FILE, _pack(list(self._known.values())).encode("utf-8"), overwrite=True)
        return taught

    def forget(self, name: str) -> None:
        """Removes a taught concept.

        Raises:
            ConfigurationError: There is none.
        """
        with self._lock:
            taught = self.get(name)
            (self.folder / f"{taught.name}.safetensors").unlink(missing_ok=True)
            del self._known[name]
            if self._known:
                write_file(self.folder / PACK_FILE, _pack(list(self._known.values())).encode("utf-8"), overwrite=True)
            else:
                (self.folder / PACK_FILE).unlink(missing_ok=True)


def _read(file: Path) -> Taught:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            facts = json.loads((content.metadata() or {})[METADATA])
            vector = content.get_tensor("prototype")
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{file} holds no taught concept: {error}. Remove it, or teach it again.") from error
    facts.pop("zero_shot", None)
    return Taught(**{**facts, "contrasts": tuple(facts["contrasts"]), "vector": vector})


def _pack(known: Sequence[Taught]) -> str:
    """Writes the concepts' words as a trait pack; a taught concept is a character with the target and its contrasts as states."""
    from concept_cam import prompts

    characters: dict[str, Any] = {}
    for taught in known:
        note = (
            f"Taught, not zero-shot: {taught.positive} positive and {taught.negative} negative clicks on {taught.pictures} pictures, model "
            f"{taught.model} ({taught.weights_hash}). These are its words; the prototype is in {taught.name}.safetensors."
        )
        states: Mapping[str, Any] = {
            "taught": {"phrases": [taught.target]},
            **{f"contrast_{number}": {"phrases": [text]} for number, text in enumerate(taught.contrasts, 1)},
        }
        if len(states) == 1:
            states = {**states, "surroundings": {"phrases": ["the background"]}}
        characters[taught.name] = {
            "kind": "shape",
            "entity": {"label": taught.target},
            "notes": note,
            "templates": ["{}"],
            "states": states,
        }
    return prompts.dump(prompts.load_pack({"pack": "taught", "title": "Taught with clicks", "host": "picture", "characters": characters}))
