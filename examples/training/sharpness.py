"""Fits how sharply the states of each character are told from each other, and writes it beside the weights of a model.

    PYTHONPATH=examples python -m training.sharpness --folder concept_cam/backbones/bundled
    PYTHONPATH=examples python -m training.sharpness --folder concept_cam/backbones/bundled --group beetle    # others stay
    PYTHONPATH=examples python -m training.sharpness --folder runs/model --group fish --keep fish:barbels     # and so does this one

A model has one temperature, and tells some characters better than that says and others worse. For each character of the packs that the
model was trained for, the factor of the temperature is first the one under which the states of rendered pictures are most likely
(temperature scaling; Guo et al., "On calibration of modern neural networks", ICML 2017), and then the sharpest that those pictures leave
open: the upper end of its 99 % interval by likelihood. What is said of photographs is said less surely than of renders, and right as often.
Half of the pictures are plain and half in the styles of photographs, a third has false colours; none of them is of the training, of the
benchmark, or a photograph. What is best called stays as it is; only how sure it is changes. The weights' hash changes with it,
for so do the answers: fit the rules of trust after it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import chi2

from concept_cam import Localizer, prompts
from concept_cam.backbones import lite
from concept_cam.collection.questions import build_questions
from concept_cam.commands.console import at_least_one, existing, run_script
from concept_cam.core.errors import DataError
from concept_cam.core.scoring import character_key
from concept_cam.demo.worlds import WORLDS
from concept_cam.trust.rules import Rules
from training.trust_pictures import FALSE_COLOURS, FIT_SEED, SIZE, false_colours

SEEN_AT_ONCE = 8
WIDE = 0.5
"""Standard deviation of the logarithm of a factor that is expected before anything is seen: few pictures move it little."""
BOUNDS = (0.25, 4.0)
FINER = 1.02
"""Step in which a sharper factor is looked for."""
LEFT_OPEN = 0.5 * float(chi2.ppf(0.99, 1))
"""By how much the logarithm of a likelihood falls to the ends of a 99 % interval."""
LEAST = 100
"""Pictures of a character under which nothing is fitted, and it is said."""
SURE = 0.9


@dataclass(frozen=True)
class Seen:
    """What a model says of one character on some pictures.

    Attributes:
        logits: float64 [N, K], of the states, up to a constant for each picture.
        truth: int64 [N], the right state.
    """

    logits: npt.NDArray[np.float64]
    truth: npt.NDArray[np.int64]

    def shares(self, factor: float) -> npt.NDArray[np.float64]:
        """Probabilities [N, K] under a factor of the temperature."""
        return np.asarray(softmax(factor * self.logits, axis=1))

    def surprises(self, factor: float) -> npt.NDArray[np.float64]:
        """Minus the logarithm of the right state's probability [N]."""
        return np.asarray(-log_softmax(factor * self.logits, axis=1)[np.arange(len(self.truth)), self.truth])

    def surprise(self, factor: float) -> float:
        """Mean of :meth:`surprises`; NaN of no pictures."""
        return float(self.surprises(factor).mean()) if len(self.truth) else float("nan")

    def called(self, factor: float, least: float = SURE) -> tuple[float, float]:
        """Share of the pictures whose best state has at least some probability, and how many of those are right; NaN for none."""
        if not len(self.truth):
            return float("nan"), float("nan")
        shares = self.shares(factor)
        made = shares.max(1) >= least
        right = shares.argmax(1) == self.truth
        return float(made.mean()), float(right[made].mean()) if made.any() else float("nan")


def fit_factor(seen: Seen, wide: float = WIDE) -> float:
    """The factor under which the right states are most likely, drawn to 1 where there are few pictures."""
    fitted = minimize_scalar(lambda logarithm: _cost(seen, logarithm, wide), bounds=tuple(np.log(BOUNDS)), method="bounded")
    return float(np.exp(fitted.x))


def sharpest_factor(seen: Seen, wide: float = WIDE) -> float:
    """The upper end of the interval of :func:`fit_factor`'s factor by likelihood (Wilks, 1938): the pictures do not speak against it.

    The more pictures there are, and the more of them are told wrong for sure, the nearer it is to that factor.
    """
    factor = fit_factor(seen, wide)
    most = _cost(seen, np.log(factor), wide) + LEFT_OPEN
    while factor * FINER <= BOUNDS[1] and _cost(seen, np.log(factor * FINER), wide) <= most:
        factor *= FINER
    return factor


def _cost(seen: Seen, logarithm: float, wide: float) -> float:
    """Minus the logarithm of the likelihood of a factor's logarithm, and of what is expected of it before."""
    return float(seen.surprises(float(np.exp(logarithm))).sum()) + 0.5 * (logarithm / wide) ** 2


def look(localizer: Localizer, group: str, count: int, seed: int) -> dict[str, Seen]:
    """What a model says of rendered pictures of a group: by :func:`concept_cam.core.scoring.character_key`.

    Args:
        localizer: The model, without factors of its own.
        group: A name in `WORLDS`.
        count: Pictures.
        seed: Of the pictures.
    """
    world, generator = WORLDS[group], np.random.default_rng(seed)
    questions = build_questions([prompts.load_pack(group)], localizer.backbone.unknown_words)
    asked = [each for each in questions.packs[0].characters if each.call >= 0 and each.name in world.characters]
    concepts = [questions.concepts[each.call] for each in asked]
    logits: dict[str, list[npt.NDArray[np.float64]]] = {character_key(concept): [] for concept in concepts}
    truth: dict[str, list[int]] = {key: [] for key in logits}
    for start in range(0, count, SEEN_AT_ONCE):
        profile = "photographs" if (start // SEEN_AT_ONCE) % 2 else "plain"
        batch = world.sample(min(SEEN_AT_ONCE, count - start), seed, view="whole", start=start, profile=profile)
        rendering = world.render(batch, SIZE)
        images, judgeable = np.ascontiguousarray(rendering.images.permute(0, 2, 3, 1).numpy()), rendering.judgeable.numpy()
        false = generator.random(len(batch)) < FALSE_COLOURS
        pictures = [false_colours(image, generator) if odd else image for image, odd in zip(images, false, strict=True)]
        for row, answers in enumerate(localizer.score(localizer.encode(pictures), concepts)):
            traits = batch.trait(row) if batch.present[row] else {}
            for place, (character, concept) in enumerate(zip(asked, concepts, strict=True)):
                names = [state.name for state in character.states]
                told = character.name in traits and judgeable[row, list(world.characters).index(character.name)]
                if not told or traits[character.name] not in names or (false[row] and character.name in world.colours):
                    continue
                logits[character_key(concept)].append(np.log(answers[place].probabilities[: len(names)]))
                truth[character_key(concept)].append(names.index(traits[character.name]))
    # A character that is never told in these pictures has no rows; as many columns as states all the same.
    columns = {character_key(concept): len(each.states) for each, concept in zip(asked, concepts, strict=True)}
    return {key: Seen(np.array(rows, np.float64).reshape(-1, columns[key]), np.array(truth[key], np.int64)) for key, rows in logits.items()}


def bare(folder: Path) -> Localizer:
    """The model of a folder, without the factors that were fitted before."""
    made = lite.make(folder, str(folder))
    made.model.sharpness = {}
    return Localizer(lite.read(made), rules=Rules())


def write(folder: Path, factors: Mapping[str, float], groups: Collection[str], kept: Collection[str] = ()) -> None:
    """Writes the factors into the model's `config.json`, to two digits, in place of those that the groups had.

    Args:
        folder: The model.
        factors: By :func:`concept_cam.core.scoring.character_key`.
        groups: Those that were fitted: a character of theirs without a factor has none any more. Factors of other groups stay.
        kept: Characters of these groups whose factors stay all the same, as ``fish:barbels``.

    Raises:
        DataError: There are none: what was fitted before stays.
    """
    path = folder / lite.CONFIG
    if not factors:
        raise DataError(
            f"no character was told in {LEAST} pictures, so nothing was fitted and {path} stays as it is: take more --pictures."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    before = content.get("sharpness", {}).items()
    stays = {name: value for name, value in before if name.partition(":")[0] not in groups or name.partition("/")[0] in kept}
    content["sharpness"] = stays | {name: round(value, 2) for name, value in factors.items()}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Reads the command line, fits, measures on other pictures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=existing, required=True, help="the model, whose config.json is changed")
    parser.add_argument("--pictures", type=at_least_one, default=320, help="pictures of each group to fit to")
    parser.add_argument("--held-out", type=at_least_one, default=160, help="pictures of each group to measure on")
    parser.add_argument(
        "--group",
        dest="groups",
        action="append",
        choices=list(WORLDS),
        metavar="GROUP",
        help="a group that is fitted; several times for several; what was fitted of others stays (default: all that the model knows)",
    )
    parser.add_argument(
        "--keep",
        dest="kept",
        action="append",
        default=[],
        metavar="GROUP:CHARACTER",
        help="a character of these groups whose factor stays, for one that is told as it was; several times for several",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    localizer, factors = bare(arguments.folder), {}
    known = localizer.backbone.groups
    if strange := [group for group in arguments.groups or () if group not in known]:
        parser.error(f"the model knows no group {strange[0]!r}: expected one of {', '.join(known) or 'none'}.")
    asked = [group for group in known if group in (arguments.groups or known)]
    told = [f"{group}:{character}" for group in asked for character in WORLDS[group].characters]
    if strange := [name for name in arguments.kept if name not in told]:
        parser.error(f"--keep received {strange[0]!r}: expected one of {', '.join(told)}.")
    if arguments.kept and set(told) == set(arguments.kept):
        parser.error(f"--keep received every character of {', '.join(asked)}: nothing is left to fit.")
    print("| character | pictures | factor | surprise, before and after | called with 0.9, before and after | right of those |")
    print("|---|---|---|---|---|---|")
    for group in asked:
        fitted = look(localizer, group, arguments.pictures, FIT_SEED + 2)
        others = look(localizer, group, arguments.held_out, FIT_SEED + 3)
        for key, seen in fitted.items():
            if key.partition("/")[0] in arguments.kept:
                continue
            if len(seen.truth) < LEAST:
                print(f"| {key.partition('/')[0]} | {len(seen.truth)}, too few | 1 | | | |", flush=True)
                continue
            factors[key] = round(sharpest_factor(seen), 2)
            other = others[key]
            before, after = other.called(1.0), other.called(factors[key])
            surprises = f"{other.surprise(1.0):.3f}, {other.surprise(factors[key]):.3f}"
            called, right = (f"{one:.{digits}f}, {two:.{digits}f}" for one, two, digits in zip(before, after, (2, 3), strict=True))
            print(f"| {key.partition('/')[0]} | {len(seen.truth)} | {factors[key]:.2f} | {surprises} | {called} | {right} |", flush=True)
    write(arguments.folder, factors, asked, arguments.kept)


if __name__ == "__main__":
    run_script(main)
