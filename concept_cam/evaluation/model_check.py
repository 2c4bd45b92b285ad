"""Are my weights loaded right? Each check is one function of :data:`CHECKS`; what they find becomes a verdict.

A model can be wrong in ways that raise no error: weights that were never trained or stand in the wrong places, pictures prepared with other
statistics than in training, a tokenizer of another vocabulary. Such a model gives maps all the same. The checks compare the reading of the
tower with its library's own, ask about pictures that come with the package, and compare right texts with shuffled ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from concept_cam.backbones import FAMILIES, STATISTICS
from concept_cam.backbones.common import BaseBackbone
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.quiet import quiet
from concept_cam.core.settings import Settings
from concept_cam.evaluation.bundled_pictures import Captioned, fishes, photographs
from concept_cam.pictures.preprocessing import Preprocess, adapted
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import prepare

__all__ = ["CHECKS", "FAILED", "PASSED", "SKIPPED", "UNSURE", "Finding", "ModelCheck", "check_model"]

PASSED, UNSURE, FAILED, SKIPPED = "passed", "unsure", "failed", "left out"

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest relative difference of two image embeddings that is rounding, by number format."""

ERROR_RATE = 0.01
"""How often a check of texts or statistics may fail a model that is right, or pass one that knows nothing."""

DRAWS = 20_000
"""Permutations and sign flips drawn."""

VARIANCE_RATIO = 0.5
"""Most that the variance before the first batch norm may differ from what it has learned: natural logarithm, median over channels."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: Key of :data:`CHECKS`.
        outcome: :data:`PASSED`, :data:`UNSURE`, :data:`FAILED` or :data:`SKIPPED`.
        text: What was compared and found, and what to do.
    """

    check: str
    outcome: str
    text: str


@dataclass(frozen=True)
class ModelCheck:
    """The findings about a model.

    Attributes:
        name: Name of the model.
        findings: One for each check.
    """

    name: str
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> str:
        """:data:`FAILED` where a check failed, else :data:`UNSURE` where one was not sure, else :data:`PASSED`."""
        found = {finding.outcome for finding in self.findings}
        return next((outcome for outcome in (FAILED, UNSURE) if outcome in found), PASSED)

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        names = {kind: ", ".join(finding.check for finding in self.findings if finding.outcome == kind) for kind in (FAILED, UNSURE)}
        return {
            FAILED: f"{self.name} is not loaded right: {names[FAILED]} failed.",
            UNSURE: f"nothing is wrong with {self.name} as far as it can be told, but look at: {names[UNSURE]}.",
            PASSED: f"{self.name} is loaded right.",
        }[self.outcome]


class Subject:
    """A model and the pictures it is looked over with; what several checks need is computed once.

    Args:
        backbone: The model.
        preprocess: How its pictures are prepared.
    """

    def __init__(self, backbone: Any, preprocess: Preprocess) -> None:
        self.backbone, self.preprocess = backbone, preprocess
        self.family = FAMILIES[backbone.family]

    @functools.cached_property
    def sources(self) -> dict[str, list[Captioned]]:
        """Photographs and fishes, as far as they are there."""
        found = {"rendered fishes": fishes()}
        try:
            return {"photographs": photographs(), **found}
        except DataError:
            return found

    def input(self, picture: Captioned, preprocess: Preprocess | None = None) -> Tensor:
        """Pixels [1, 3, H, W] of a picture at the native size, the whole picture stretched to it."""
        used = preprocess or self.preprocess
        return prepare(Picture(picture.pixels), used, "squash", used.size).batch

    def scores(self, source: str, preprocess: Preprocess | None = None) -> dict[str, np.ndarray]:
        """Cosines of every picture (rows) with every text (columns), by the image embedding and by the best cell of the map."""
        pictures = self.sources[source]
        texts = F.normalize(self.backbone.encode_text([item.texts[self.family.language] for item in pictures]).float(), dim=-1)
        rows: dict[str, list[Tensor]] = {"image": [], "map": []}
        for item in pictures:
            features = self.backbone.encode_patches(self.input(item, preprocess))
            rows["image"].append((F.normalize(features.image.float(), dim=-1) @ texts.T)[0])
            rows["map"].append((F.normalize(features.patches.float(), dim=-1) @ texts.T).flatten(0, 2).amax(dim=0))
        return {name: torch.stack(found).cpu().numpy() for name, found in rows.items()}

    @functools.cached_property
    def agreement(self) -> list[_Agreement]:
        """How right texts fare against shuffled ones, by source and reading, the clearest first."""
        found = [
            _Agreement(source, reading, scores, *_permutation(scores))
            for source in self.sources
            for reading, scores in self.scores(source).items()
        ]
        return sorted(found, key=lambda item: (item.p, -item.gain))


@dataclass(frozen=True, eq=False)
class _Agreement:
    """Right texts against shuffled ones: share of pictures that find their own text first, gain in standard deviations, p-value."""

    source: str
    reading: str
    scores: np.ndarray
    p: float
    gain: float


def _centred(scores: np.ndarray) -> np.ndarray:
    """Takes off what a picture has in common with all texts and a text with all pictures."""
    centred: np.ndarray = scores - scores.mean(0, keepdims=True) - scores.mean(1, keepdims=True) + scores.mean()
    return centred


def _permutation(scores: np.ndarray) -> tuple[float, float]:
    """Returns the p-value of the right assignment among drawn ones, and its gain over them in standard deviations."""
    centred, count = _centred(scores), len(scores)
    generator = np.random.default_rng(0)
    orders = generator.permuted(np.tile(np.arange(count), (DRAWS, 1)), axis=1)
    null = centred[np.arange(count), orders].mean(axis=1)
    right = float(np.trace(centred) / count)
    spread = float(null.std())
    if spread == 0:
        return 1.0, 0.0
    return float((1 + (null >= right - 1e-12).sum()) / (DRAWS + 1)), right / spread


def _sign_flips(differences: np.ndarray) -> float:
    """Returns the one-sided p-value that paired differences lie above zero."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (DRAWS, len(differences)))
    null = (signs * differences).mean(axis=1)
    return float((1 + (null >= differences.mean() - 1e-12).sum()) / (DRAWS + 1))


def _relative(found: Tensor, own: Tensor) -> float:
    return float(((found - own).float().norm(dim=-1) / own.float().norm(dim=-1).clamp_min(1e-12)).max())


# ----------------------------------------------------------------------------------------------------------------- checks


def _weights(subject: Subject) -> tuple[str, str]:
    """Numbers that are none, and norms that nothing was learned in."""
    model = subject.backbone.model
    broken = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    if broken:
        return FAILED, f"{len(broken)} tensors hold infinite numbers or none, such as {broken[0]!r}: the file is damaged."
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.GroupNorm) and module.weight is not None and module.bias is not None
    ]
    fresh = [module for module in norms if bool((module.weight == 1).all()) and bool((module.bias == 0).all())]
    if len(norms) > 1 and len(fresh) == len(norms):
        return FAILED, f"all {len(norms)} norms are at their initial values: these weights were never trained."
    return (
        PASSED,
        f"all numbers are finite, {len(norms) - len(fresh)} of {len(norms)} norms are trained" if norms else "all numbers are finite",
    )


def _parity(subject: Subject) -> tuple[str, str]:
    """Image embedding at the native size, as this package reads it, against the library's own."""
    backbone = subject.backbone
    pixels = torch.cat([subject.input(item) for item in subject.sources["rendered fishes"][:2]])
    own = backbone.library_embedding(pixels)
    what = "the library's own forward"
    if own is None:
        own, what = backbone.encode_image(pixels), "its own embedding (no library to compare with)"
    readings = {name: backbone.encode_patches(pixels, name).image for name in dict.fromkeys(("vanilla", backbone.default_attention))
                if name in backbone.attentions}  # fmt: skip
    readings["feature map"] = backbone.pool(backbone.feature_map(pixels))
    worst = max(_relative(found, own) for found in readings.values())
    return _compared(worst, backbone.dtype, f"image embedding at {_size(pixels)} against {what}")


def _odd_size(subject: Subject) -> tuple[str, str]:
    """The same at a rectangle that the model was not trained at."""
    backbone, (rows, columns) = subject.backbone, subject.preprocess.stride
    if not subject.preprocess.flexible:
        return SKIPPED, "this tower reads its native size only"
    grid = (max(2, subject.preprocess.size[0] // rows - 2), subject.preprocess.size[1] // columns + 3)
    preprocess = replace(subject.preprocess, size=(grid[0] * rows, grid[1] * columns))
    pixels = torch.cat([subject.input(item, preprocess) for item in subject.sources["rendered fishes"][:2]])
    own = backbone.library_embedding(pixels)
    what = "the library's own forward"
    if own is None:
        own, what = backbone.encode_image(pixels), "its other reading (the library reads its native size only)"
    features = backbone.encode_patches(pixels)
    if tuple(features.patches.shape[1:3]) != grid or not bool(torch.isfinite(features.patches).all()):
        return (
            FAILED,
            f"at {_size(pixels)} the map has the shape {list(features.patches.shape[1:3])} for {list(grid)} cells, or holds no numbers",
        )
    return _compared(_relative(features.image, own), backbone.dtype, f"image embedding at {_size(pixels)} against {what}")


def _batch(subject: Subject) -> tuple[str, str]:
    """Pictures in a batch against each alone, one of them half padding."""
    backbone = subject.backbone
    pixels = torch.cat([subject.input(item) for item in subject.sources["rendered fishes"][:3]])
    valid = torch.ones(3, *backbone.grid_size((pixels.shape[2], pixels.shape[3])), dtype=torch.bool)
    valid[1, :, valid.shape[2] // 2 :] = False
    together = backbone.encode_patches(pixels, valid=valid)
    worst = 0.0
    for row in range(3):
        alone = backbone.encode_patches(pixels[row : row + 1], valid=valid[row : row + 1])
        worst = max(worst, _relative(together.image[row : row + 1], alone.image))
        worst = max(worst, _relative(together.patches[row].flatten()[None], alone.patches[0].flatten()[None]))
    return _compared(worst, backbone.dtype, "pictures in a batch against each alone")


def _compared(worst: float, dtype: torch.dtype, what: str) -> tuple[str, str]:
    limit = TOLERANCE[dtype]
    said = f"{what}: largest relative difference {worst:.1e}, allowed {limit:.0e}"
    if worst <= limit:
        return PASSED, said
    return FAILED, f"{said}. The tower is not read as its library reads it: report the model and the versions of its libraries."


def _size(pixels: Tensor) -> str:
    return f"{pixels.shape[2]} x {pixels.shape[3]}"


def _preprocessing(subject: Subject) -> tuple[str, str]:
    """Mean and deviation against those that weights of the family were published with."""
    preprocess = subject.preprocess
    if preprocess.unsure:
        names = ", ".join(name.replace("_", " ") for name, _ in preprocess.unsure)
        return UNSURE, f"published weights of this architecture differ in {names}: name the model ARCHITECTURE/TAG:FILE"
    known = [name for name in subject.family.statistics if _same(preprocess, name)]
    if known or not subject.family.statistics or preprocess.origin.startswith("published with"):
        return PASSED, f"{preprocess}" + (f": {known[0]}" if known else "")
    usual = "; ".join(f"{name} {_shown(name)}" for name in subject.family.statistics)
    return UNSURE, (
        f"{preprocess}: no weights of this family were published with this mean and deviation, but with {usual}. Unless these weights "
        "were trained otherwise, correct the folder's configuration, or give --mean and --std."
    )


def _same(preprocess: Preprocess, name: str) -> bool:
    used, usual = (*preprocess.mean, *preprocess.std), (*STATISTICS[name][0], *STATISTICS[name][1])
    return all(abs(one - other) < 5e-3 for one, other in zip(used, usual))


def _shown(name: str) -> str:
    mean, std = STATISTICS[name]
    return f"(mean {'/'.join(f'{part:.3g}' for part in mean)}, std {'/'.join(f'{part:.3g}' for part in std)})"


def _input_statistics(subject: Subject) -> tuple[str, str]:
    """What the first batch norm sees of photographs against what it has learned in training."""
    norms = [module for module in subject.backbone.model.modules() if isinstance(module, nn.BatchNorm2d) and module.track_running_stats]
    if not norms or norms[0].running_var is None:
        return SKIPPED, "this tower has no batch norm that remembers the pixels of its training"
    source = next(iter(subject.sources))
    first, seen = norms[0], []
    # For these pictures alone; nothing is changed, and nothing stays.
    handle = first.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().float().flatten(2).cpu()))
    try:
        for item in subject.sources[source]:
            subject.backbone.encode_image(subject.input(item))
    finally:
        handle.remove()
    if not seen:
        return SKIPPED, "its first batch norm takes no part in reading pictures"
    found = torch.cat([values.permute(0, 2, 1).flatten(0, 1) for values in seen])
    learned = first.running_var.detach().float().cpu()  # type: ignore[union-attr]
    used = learned > 1e-6
    ratio = float((found.var(dim=0)[used] / learned[used]).log().median())
    said = f"{source}: variance before the first batch norm is {np.exp(ratio):.2f} times what it has learned"
    if abs(ratio) <= VARIANCE_RATIO:
        return PASSED, said
    return FAILED, (
        f"{said}; between {np.exp(-VARIANCE_RATIO):.1f} and {np.exp(VARIANCE_RATIO):.1f} was expected. Pictures are prepared with another "
        "mean or deviation than in training (--mean, --std, or the folder's configuration), or these weights are not the network's own."
    )


def _texts(subject: Subject) -> tuple[str, str]:
    """Right texts against shuffled ones, over pictures that come with the package."""
    best = subject.agreement[0]
    if not np.isfinite(best.scores).all():
        return FAILED, f"{best.source}: the model answers with NaN or infinity, which agrees with no text. Its weights may hold them."
    p = min(1.0, best.p * len(subject.agreement))
    columns = best.scores.argmax(axis=1)
    texts = [item.texts[subject.family.language] for item in subject.sources[best.source]]
    first = float(np.mean([texts[column] == text for column, text in zip(columns, texts)]))
    said = (
        f"{best.source}, read by the {best.reading}: right texts beat shuffled ones by {best.gain:.1f} standard deviations (p {_p(p)}), "
        f"{first:.0%} of {len(texts)} pictures find their own text first"
    )
    if p <= ERROR_RATE:
        return PASSED, said
    return FAILED, (
        f"{said}. The model does not tell these pictures apart by words: its weights are random, incomplete or in the wrong places, "
        "its tokenizer is another's, its pictures are prepared otherwise than in training, or it knows nothing of such pictures."
    )


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _other_statistics(subject: Subject) -> tuple[str, str]:
    """Whether pictures find their texts better when they are prepared as for other weights of the family."""
    best = subject.agreement[0]
    if best.p * len(subject.agreement) > ERROR_RATE:
        return SKIPPED, "texts say nothing about this model"
    others = [name for name in subject.family.statistics if not _same(subject.preprocess, name)]
    if not others:
        return SKIPPED, "no weights of this family were published with others"
    spread = float(best.scores.std()) or 1.0
    now = np.diag(_centred(best.scores)) / spread
    found: dict[str, tuple[float, float]] = {}
    for name in others:
        mean, std = STATISTICS[name]
        scores = subject.scores(best.source, replace(subject.preprocess, mean=mean, std=std))[best.reading]
        gains = np.diag(_centred(scores)) / (float(scores.std()) or 1.0) - now
        found[name] = (min(1.0, _sign_flips(gains) * len(others)), float(gains.mean()))
    name = min(found, key=lambda key: found[key])
    p, gain = found[name]
    if p > ERROR_RATE:
        return PASSED, f"{best.source}: no other usual mean and deviation finds their texts better (best other: {name}, p {_p(p)})"
    # Evidence from both sides: nobody publishes this family with these values, and the usual ones do better.
    outcome = UNSURE if any(_same(subject.preprocess, usual) for usual in subject.family.statistics) else FAILED
    return outcome, (
        f"{best.source}: prepared with {name} {_shown(name)}, they find their texts better than as they are prepared now, by {gain:.2f} "
        f"standard deviations (p {_p(p)}). Look at where the preprocessing comes from: {subject.preprocess.origin or 'not said'}."
    )


def _places(subject: Subject) -> tuple[str, str]:
    """Towers without words: cells find their own place again in a mirrored, recoloured picture, against the same weights shuffled."""
    backbone = subject.backbone
    pictures = [item for found in subject.sources.values() for item in found]
    own = _found_again(subject, pictures)
    generator = torch.Generator().manual_seed(0)
    mixed = {
        f"model.{name}": value.detach().flatten()[torch.randperm(value.numel(), generator=generator).to(value.device)].reshape(value.shape)
        for name, value in backbone.model.named_parameters()
        if value.ndim > 1
    }
    other = torch.func.functional_call(_Reading(subject, pictures), mixed, ())
    p = _sign_flips(own - other)
    said = (
        f"{own.mean():.0%} of the cells of {len(pictures)} pictures find their place again in a mirrored, recoloured copy, with shuffled "
        f"weights {other.mean():.0%} (p {_p(p)})"
    )
    if p <= ERROR_RATE:
        return PASSED, said
    return FAILED, f"{said}. These weights do no better than shuffled ones: they are random, incomplete or in the wrong places."


class _Reading(nn.Module):
    """The reading of a model as a module, so that it can be called with other weights and be left as it was."""

    def __init__(self, subject: Subject, pictures: Sequence[Captioned]) -> None:
        super().__init__()
        self.model = subject.backbone.model
        self.training = False
        self._subject, self._pictures = subject, pictures

    def forward(self) -> np.ndarray:
        return _found_again(self._subject, self._pictures)


def _found_again(subject: Subject, pictures: Sequence[Captioned]) -> np.ndarray:
    """Share of each picture's cells whose nearest cell in the changed picture is the mirrored one or a neighbour of it."""
    shares = []
    for item in pictures:
        changed = item.pixels[:, ::-1].astype(np.float32) / 255
        changed = (np.clip(changed * [0.7, 0.9, 0.6] + [0.15, 0.0, 0.25], 0, 1) ** 0.8 * 255).astype(np.uint8)
        pair = torch.cat([subject.input(item), subject.input(Captioned(np.ascontiguousarray(changed), {}))])
        features = F.normalize(subject.backbone.encode_patches(pair).patches.float(), dim=-1)
        rows, columns = features.shape[1:3]
        nearest = (features[0].flatten(0, 1) @ features[1].flatten(0, 1).T).argmax(dim=1).cpu()
        place = torch.arange(rows * columns)
        down = (nearest // columns - place // columns).abs()
        across = (nearest % columns - (columns - 1 - place % columns)).abs()
        shares.append(float(((down <= 1) & (across <= 1)).float().mean()))
    return np.array(shares)


def _with_words(check: Callable[[Subject], tuple[str, str]]) -> Callable[[Subject], tuple[str, str]]:
    def only(subject: Subject) -> tuple[str, str]:
        if not subject.backbone.has_words:
            return SKIPPED, "this tower has no text tower"
        return check(subject)

    return only


def _without_words(check: Callable[[Subject], tuple[str, str]]) -> Callable[[Subject], tuple[str, str]]:
    def only(subject: Subject) -> tuple[str, str]:
        return check(subject) if not subject.backbone.has_words else (SKIPPED, "texts say more of this model")

    return only


CHECKS: dict[str, Callable[[Subject], tuple[str, str]]] = {
    "weights": _weights,
    "parity": _parity,
    "odd size": _odd_size,
    "batch": _batch,
    "preprocessing": _preprocessing,
    "input statistics": _input_statistics,
    "texts": _with_words(_texts),
    "other statistics": _with_words(_other_statistics),
    "places": _without_words(_places),
}
"""Every check by name, in the order in which they are made."""


def check_model(backbone: Any, settings: Settings | None = None, report: Callable[[Finding], None] | None = None) -> ModelCheck:
    """Looks a loaded model over.

    Args:
        backbone: The model, from :func:`concept_cam.backbones.load` or :mod:`concept_cam.backbones.loading`.
        settings: Of these, what stands in place of the checkpoint's preprocessing.
        report: Called with each finding as soon as it is there.

    Raises:
        ConfigurationError: Not one of this package's backbones.
    """
    if not isinstance(backbone, BaseBackbone):
        raise ConfigurationError(f"expected a model that this package loaded, received {type(backbone).__name__}.")
    used = backbone.preprocess if settings is None else adapted(backbone.preprocess, settings)
    subject = Subject(backbone, used)
    findings = []
    with quiet(graph=False):
        for name, check in CHECKS.items():
            outcome, text = check(subject)
            findings.append(Finding(name, outcome, text))
            if report is not None:
                report(findings[-1])
    return ModelCheck(backbone.name, tuple(findings))
