"""``concept-cam calibrate``: when to make a call, when to trust a map, and what may be promised, from labelled pictures."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from concept_cam.commands.console import PathName, note, track, warn
from concept_cam.commands.options import RISK, build_localizer, model_options, resolve, setting_options
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.files import check_file
from concept_cam.core.settings import SETTING_NAMES
from concept_cam.pictures.endings import PICTURE_SUFFIXES
from concept_cam.pictures.folders import walk

if TYPE_CHECKING:
    from concept_cam.evaluation.guarantees import Observed
    from concept_cam.trust.conformal import Conformal
    from concept_cam.trust.rules import Rules

_OF_DATA = ("images", "host", "traits", "limit", "without", "alphas", "config", "model", "device", "dtype", *SETTING_NAMES)
_OF_CALLS = ("labels", "accuracy", "confidence", "least")


@click.command(short_help="Fit abstention limits, rules of trust and guarantees.")
@click.argument("labelled", type=PathName(), metavar="CALLS|DATA")
@click.option(
    "--labels",
    "-l",
    type=PathName(exists=True, dir_okay=False),
    metavar="FILE",
    help="CALLS: CSV table, CVAT 1.1 XML or Label Studio JSON; by default the column true_state of CALLS.",
)
@click.option(
    "--accuracy",
    type=RISK,
    help="CALLS: share of calls that are to be right.  [default: 0.9]",
)
@click.option(
    "--confidence",
    type=RISK,
    help="CALLS: how sure to be of that (one-sided bound).  [default: 0.8]",
)
@click.option("--least", type=click.IntRange(min=1), help="CALLS: labelled calls that a limit of its own needs.  [default: 15]")
@click.option("--images", type=PathName(file_okay=False), metavar="DIR", help="DATA: folder of the pictures.")
@click.option("--traits", metavar="PACK", help="DATA: trait pack whose parts and states the labels name.")
@click.option("--host", metavar="NOUN", help="DATA: noun of the subject.  [default: the pack's]")
@click.option("--limit", type=click.IntRange(min=1), help="DATA: use at most this many pictures.")
@click.option(
    "--without",
    type=PathName(exists=True, file_okay=False),
    metavar="DIR",
    help="DATA: pictures without the subject, from which presence is learnt.",
)
@click.option(
    "--alpha",
    "alphas",
    multiple=True,
    type=RISK,
    help="DATA: risk of the guarantees. Repeat.  [default: 0.05, 0.1, 0.2]",
)
@model_options
@setting_options
@click.option("--output", "-o", required=True, type=PathName(dir_okay=False), metavar="FILE", help="Limits (YAML), or trust (JSON).")
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def calibrate(labelled: str, output: str, overwrite: bool, **options: Any) -> None:
    """Learns from labelled pictures when to make a call, when to trust a map, and what may be promised.

    CALLS is the folder of an annotation run, or a CSV table with file_name, character, state and probability (and true_state, when it holds
    the labels itself): the limits below which no call is made are fitted, from about fifty labelled pictures, for  annotate --calibration.
    Rows whose abstained_because is no_host or absent are left out, and counted: no limit decides about those.

    DATA is a set of pictures with masks that people drew: coco:FILE, cvat:FILE, labelstudio:FILE or folder:DIR (of DIR/images/NAME.jpg and
    DIR/masks/NAME__PART.png: 255 the part, 0 not, 128 neither). Its maps are compared with the masks, and the file says for
    locate --trust  (1) the rules of this model's certificates, where enough maps were right and enough wrong; (2) by split-conformal risk
    control, for each part and character apart: a height above which an expected share of at most ALPHA of a mask is wrong, a margin within
    which the part lies with a probability of 1 - ALPHA, and sets of states that hold the right one with 1 - ALPHA. They hold for this
    model, these settings, and pictures like the labelled ones. A guarantee at 0.05 needs at least 19 labelled pictures of a part, at 0.1
    nine; fifty to a few hundred make it useful.

    \b
    Examples:
      concept-cam calibrate run/ --labels annotations.xml -o limits.yaml
      concept-cam calibrate run/ --labels labels.csv --accuracy 0.95 -o limits.yaml
      concept-cam calibrate calls.csv -o limits.yaml
      concept-cam calibrate folder:drawn/ --traits fish --without others/ -o trust.json
      concept-cam calibrate cvat:annotations.xml --images photos/ --traits fish -o trust.json
      concept-cam calibrate coco:parts.json --images photos/ --traits fish --without others/ --alpha 0.1 -o trust.json
    """
    from concept_cam.evaluation.datasets import LOADERS

    name, colon, _ = labelled.partition(":")
    if not Path(labelled).exists() and (colon or name in LOADERS):
        _refuse(options, _OF_CALLS, "CALLS", labelled)
        check_file(output, overwrite=overwrite)  # Before minutes of work.
        _from_masks(labelled, output, overwrite, options)
    else:
        _refuse(options, _OF_DATA, "DATA", labelled)
        _from_calls(labelled, output, overwrite, **{name: options[name] for name in _OF_CALLS})


def _refuse(options: dict[str, Any], names: tuple[str, ...], form: str, given: str) -> None:
    for name in names:
        if options.get(name) not in (None, ()):
            flag = "--alpha" if name == "alphas" else f"--{name.replace('_', '-')}"
            raise ConfigurationError(f"{flag} belongs to {form}, and {given!r} is not: see  concept-cam calibrate --help.")


# ----------------------------------------------------------------------------------------------------------------- calls


def _from_calls(
    calls: str, output: str, overwrite: bool, labels: str | None, accuracy: float | None, confidence: float | None, least: int | None
) -> None:
    from concept_cam.evaluation import calibration

    if not Path(calls).exists():
        raise DataError(f"{calls!r} does not exist: expected the folder of a run, a CSV table of calls, or a data set such as cvat:FILE.")
    if labels is None and not calls.lower().endswith(calibration.TABLES):
        raise ConfigurationError("a run needs labels: give --labels FILE (CSV, CVAT XML or Label Studio JSON).")
    said, facts = calibration.read_calls(calls)
    truth = calibration.read_truth(labels or calls)
    wanted = accuracy or 0.9
    found = calibration.calibrate(said, truth, wanted, confidence or 0.8, least or 15, facts)
    if unknown := calibration.strangers(said, truth):
        pictures = len({label.file_name for label in truth})
        warn(
            f"{len(unknown)} of {pictures} labelled pictures have no call and count for nothing, the first {unknown[0]!r}. Check the names."
        )
    if held := calibration.undecided(said, truth):
        calls = "1 labelled call is" if held == 1 else f"{held} labelled calls are"
        note(f"{calls} left out, about which no limit decides: no host is shown, or the part is absent")
    found.save(output, overwrite=overwrite)
    skipped = sum(label.reviewed is False for label in truth) if any(label.reviewed for label in truth) else 0
    if skipped:
        note(f"{skipped} labels are not marked as reviewed and were left out; {len(truth) - skipped} count")
    click.echo("character,measure,limit,labelled,kept,accuracy,expected_accuracy,expected_kept,pooled,plain_accuracy")
    for name, limit in found.limits.items():
        value = "none" if limit.value is None else f"{limit.value:.4f}"
        # What no labelled call says is left empty.
        shares = ["" if math.isnan(share) else f"{share:.3f}" for share in (limit.accuracy, limit.expected_accuracy, limit.expected_kept)]
        plain = "" if math.isnan(limit.plain_accuracy) else f"{limit.plain_accuracy:.3f}"
        pooled = "yes" if limit.pooled else "no"
        click.echo(",".join([name, limit.measure, value, str(limit.labelled), str(limit.kept), *shares, pooled, plain]))
    unreached = [name for name, limit in found.limits.items() if limit.value is None]
    if unreached:
        warn(f"no limit reaches {wanted:g} for {', '.join(unreached)}: make no calls, label more, or lower --accuracy.")


# ----------------------------------------------------------------------------------------------------------------- masks


def _from_masks(spec: str, output: str, overwrite: bool, options: dict[str, Any]) -> None:
    from concept_cam.evaluation import datasets
    from concept_cam.evaluation.guarantees import fit_guarantees, fit_trust, observe, without
    from concept_cam.localizer import Localizer
    from concept_cam.trust.kept import Trust
    from concept_cam.trust.rules import KINDS, Rules

    names = ("images", "host", "traits")
    data = datasets.load(spec, limit=options["limit"], **{name: options[name] for name in names})
    if options["without"] is not None:
        others = [Path(path) for path in walk(options["without"], PICTURE_SUFFIXES)]
        if not others:
            raise DataError(f"the folder {options['without']!r} holds no picture.")
        data = without(data, others)
    given = {name: value for name, value in options.items() if name not in (*names, *_OF_CALLS, "limit", "without", "alphas")}
    shipped = build_localizer(resolve(given))
    localizer = Localizer(shipped.backbone, shipped.settings, Rules())
    observed, errors = observe(data, localizer, lambda samples: track(samples, len(data)))
    for problem in errors:
        warn(problem)
    if not observed:
        raise DataError(f"{spec}: nothing could be measured; no mask of a part, and no state, was found.")
    facts = localizer.conditions()
    # What was measured: questions of a pack are about its host, whatever the data set calls its subject.
    asked = (item.judged.facts.host for item in observed if item.judged is not None)
    hosts = tuple(dict.fromkeys(str(host) for host in (*asked, data.facts.get("host")) if host))
    rules: Rules | None = None
    guarantees: tuple[Conformal, ...] = ()
    problems = []
    try:
        rules = fit_trust(observed, facts, hosts=hosts)
    except DataError as error:
        problems.append(f"no rules of trust were fitted: {error}")
    try:
        guarantees = fit_guarantees(observed, options["alphas"] or (0.05, 0.1, 0.2), facts)
    except DataError as error:
        problems.append(f"nothing can be promised: {error}")
    if rules is None and not guarantees:
        raise DataError(" ".join(problems))
    for problem in problems:
        warn(problem)
    Trust(rules, guarantees).save(output, overwrite=overwrite)
    _print_rules(rules, observed)
    _print_guarantees(guarantees, observed)
    if rules is not None and (rest := [name for kind, name in KINDS.items() if kind not in rules.kinds]):
        fitted = " and ".join(name for kind, name in KINDS.items() if kind in rules.kinds)
        stay = "stay with the model's own rules" if shipped.rules.under(facts).fits else "have no confidence and no presence"
        note(f"concept-cam: the rules are for {fitted}; {' and '.join(rest)} {stay}")
    if options["traits"] is not None:
        _name_strangers(options["traits"], observed)
    note(f"concept-cam: wrote {output}; use it with  concept-cam locate --trust {output}")
    if errors:
        warn(f"{len(errors)} pictures could not be used; the others count.")
        sys.exit(1)


def _name_strangers(pack: str, observed: list[Observed]) -> None:
    """Says which parts were asked for in words of their own, for the pack has none of their name."""
    asked = {}
    for item in observed:
        if item.judged is not None and item.judged.facts.kind == "part" and ":" not in item.judged.facts.target:
            asked[item.trait.removeprefix("parts=")] = item.judged.phrase
    if asked:
        named = ", ".join(f"{name!r} as {phrase!r}" for name, phrase in asked.items())
        warn(f"not parts of the pack {pack!r}, and asked for in words of their own: {named}. Check the names of the masks.")


def _print_rules(rules: Rules | None, observed: list[Observed]) -> None:
    if rules is None:
        return
    from concept_cam.trust.rules import judge
    from concept_cam.trust.verdicts import CLEAR

    click.echo("kind,maps,right,clear_limit,clear,right_among_clear")
    for kind, fit in rules.fits.items():
        own = [item.judged for item in observed if item.judged is not None and rules.fit_of(item.judged.facts) is fit]
        clear = [item for item in own if judge(item.found, item.facts, rules).verdict == CLEAR]
        right = f"{sum(item.right for item in clear) / len(clear):.3f}" if clear else ""
        limit = f"{fit.clear:.3f}" if fit.clear <= 1 else "none"
        click.echo(f"{kind},{len(own)},{sum(item.right for item in own)},{limit},{len(clear)},{right}")


def _print_guarantees(guarantees: tuple[Conformal, ...], observed: list[Observed]) -> None:
    if not guarantees:
        return
    import numpy as np

    from concept_cam.trust.conformal import MASK_LEVELS

    click.echo("alpha,part_or_character,labelled,inner_height,inner_share_of_picture,outer_margin,state_probability")
    for found in guarantees:
        for name, count in found.labelled.items():
            inner, outer, state = found.inner.get(name), found.outer.get(name), found.states.get(name)
            sizes = [item.size for item in observed if item.trait == name and item.size is not None]
            share = ""
            if inner is not None:
                level = None if math.isinf(inner) else int(np.argmin(np.abs(MASK_LEVELS - inner)))
                share = "0" if level is None else f"{np.mean([size[level] for size in sizes]):.4f}"
            shown = ["" if value is None else "none" if math.isinf(value) else f"{value:.4f}" for value in (inner, outer, state)]
            click.echo(",".join([f"{found.alpha:g}", name, str(count), shown[0], share, *shown[1:]]))
