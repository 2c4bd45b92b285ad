"""Tables of ``photographs.py`` and ``lcam_causes.py``, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click
import numpy as np
from photograph_bench import FORMS, GROUPS, group_of
from photograph_lcam import KEEPS
from photograph_steps import AREA_FORMS, TOP

from concept_cam.evaluation.metrics.intervals import Interval, mean_interval, paired_difference


def cell(found: Interval, sign: bool = False) -> str:
    """An estimate with its interval."""
    form = "{:+.3f}" if sign else "{:.3f}"
    if np.isnan(found.low):
        return form.format(found.value)
    return f"{form.format(found.value)} [{form.format(found.low)}, {form.format(found.high)}]"


def column(rows: Sequence[dict[str, Any]], value: str, **where: Any) -> np.ndarray:
    """One value of the rows that agree, in the order of pictures."""
    return np.array([row[value] for row in rows if all(row[key] == wanted for key, wanted in where.items())])


def print_faithfulness(rows: Sequence[dict[str, Any]], title: str) -> None:
    """Relative drop, its parts, and paired differences from the plain form."""
    for fill in dict.fromkeys(row["fill"] for row in rows):
        pictures = len({row["picture"] for row in rows})
        click.echo(f"\n{title}, {pictures} photographs, top {TOP:.0%} of pixels become the {fill}\n")
        click.echo(
            "| base | form | relative drop | class's own drop | logit margin | relative drop - plain | margin - plain "
            "|\n|---|---|---|---|---|---|---|"
        )
        for base in dict.fromkeys(row["base"] for row in rows):
            for form in FORMS:
                where = {"base": base, "form": form, "fill": fill}
                cells = [cell(mean_interval(column(rows, value, **where))) for value in ("relative", "target", "margin")]
                for value in ("relative", "margin"):
                    plain_ = column(rows, value, **{**where, "form": "plain"})
                    cells.append("" if form == "plain" else cell(paired_difference(column(rows, value, **where), plain_), sign=True))
                click.echo(f"| {base} | {form} | {' | '.join(cells)} |")


def print_groups(rows: Sequence[dict[str, Any]], fill: str) -> None:
    """Where the contrast helps: the same difference within groups of alike classes, all classes of the network in the head."""
    click.echo("\nWithin groups of alike classes: relative drop of a form less that of the plain form\n")
    click.echo(
        "| group | photographs | base | mean of 3, gamma .6 | nearest, gamma 1 | margin: mean of 3, gamma .6 |\n|---|---|---|---|---|---|"
    )
    for group in (*GROUPS, "other"):
        part = [row for row in rows if group_of(row["label"]) == group and row["fill"] == fill]
        count = len({row["picture"] for row in part})
        if count < 5:
            continue
        for base in ("grad-cam", "layer-cam"):
            plain_ = {value: column(part, value, base=base, form="plain") for value in ("relative", "margin")}
            cells = [
                cell(paired_difference(column(part, "relative", base=base, form=form), plain_["relative"]), sign=True)
                for form in ("mean of 3, gamma .6", "nearest, gamma 1")
            ]
            cells.append(
                cell(paired_difference(column(part, "margin", base=base, form="mean of 3, gamma .6"), plain_["margin"]), sign=True)
            )
            click.echo(f"| {group} | {count} | {base} | {' | '.join(cells)} |")


def print_areas(rows: Sequence[dict[str, Any]]) -> None:
    """Deletion and insertion."""
    click.echo(f"\nDeletion (lower is better) and insertion (higher is better), {len({row['picture'] for row in rows})} photographs\n")
    click.echo("| base | form | deletion | insertion | deletion - plain | insertion - plain |\n|---|---|---|---|---|---|")
    for base in dict.fromkeys(row["base"] for row in rows):
        for form in AREA_FORMS:
            cells = [cell(mean_interval(column(rows, value, base=base, form=form))) for value in ("deletion", "insertion")]
            for value in ("deletion", "insertion"):
                plain_ = column(rows, value, base=base, form="plain")
                cells.append(
                    "" if form == "plain" else cell(paired_difference(column(rows, value, base=base, form=form), plain_), sign=True)
                )
            click.echo(f"| {base} | {form} | {' | '.join(cells)} |")


def print_drops(rows: Sequence[dict[str, Any]], title: str) -> None:
    """L-CAM's table."""
    click.echo(
        f"\n{title}, {len({row['picture'] for row in rows})} photographs: average drop AD (lower is better) and increase IC (higher) in "
        "%, at the share of pixels shown\n"
    )
    click.echo(
        "| method | " + " | ".join(f"AD {keep:.0%} | IC {keep:.0%}" for keep in KEEPS) + " |\n" + "|---" * (1 + 2 * len(KEEPS)) + "|"
    )
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for keep in KEEPS:
            for value in ("drop", "increase"):
                found = mean_interval(column(rows, value, method=method, keep=keep))
                cells.append(f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]")
        click.echo(f"| {method} | {' | '.join(cells)} |")


def print_things(rows: Sequence[dict[str, Any]]) -> None:
    """Localisation."""
    click.echo(
        f"\nThings with masks: {len({(row['picture'], row['thing']) for row in rows})} things in {len({row['picture'] for row in rows})} "
        "photographs\n"
    )
    click.echo("| map | questions | pointing | AUROC |\n|---|---|---|---|")
    for method in dict.fromkeys(row["method"] for row in rows):
        part = [row for row in rows if row["method"] == method]
        units = [row["picture"] for row in part]
        cells = [cell(mean_interval([row[value] for row in part], units)) for value in ("pointing", "auroc")]
        click.echo(f"| {method} | {len(part)} | {' | '.join(cells)} |")


def print_alike(found: Mapping[str, Any]) -> None:
    """Heads on alike classes."""
    for group, facts in found["groups"].items():
        right = ", ".join(f"{name} {value:.2f}" for name, value in facts.items() if "right" in name)
        click.echo(f"* {group}: {facts['classes']} classes; {right}")
    for value, title in (("relative", "relative drop within the head"), ("margin", "drop of the logit less the mean of the three nearest")):
        click.echo(f"\nHeads on alike classes: {title}\n")
        click.echo("| head | classes | base | plain | " + " | ".join(f"{form}, less plain" for form in list(FORMS)[1:]) + " |")
        click.echo("|---" * (4 + len(FORMS) - 1) + "|")
        for head in dict.fromkeys(row["head"] for row in found["rows"]):
            for group in (*found["groups"], "all"):
                for base in dict.fromkeys(row["base"] for row in found["rows"]):
                    part = [row for row in found["rows"] if row["head"] == head and row["base"] == base and group in (row["group"], "all")]
                    units = [row["picture"] for row in part if row["form"] == "plain"]
                    plain_ = column(part, value, form="plain")
                    cells = [cell(mean_interval(plain_, units))]
                    for form in list(FORMS)[1:]:
                        cells.append(cell(paired_difference(column(part, value, form=form), plain_, units), sign=True))
                    click.echo(f"| {head} | {group} | {base} | {' | '.join(cells)} |")


def print_errors(rows: Sequence[dict[str, Any]]) -> None:
    """Wrong first guesses: by groups of classes, and the pairs of classes that come up most."""
    whole = [row for row in rows if row["whole"]]
    columns = "photographs | windows | likeness of the two maps | p of the guess | p of the truth |\n|---|---|---|---|---|---|"
    click.echo(
        f"\n{len(whole)} wrong first guesses on photographs, {len(rows) - len(whole)} on windows of them; on photographs the true class is "
        f"second in {sum(row['second'] for row in whole)}.\n"
    )
    click.echo(f"| predicted, true | {columns}")

    def line(title: str, part: Sequence[dict[str, Any]]) -> None:
        units = [row["picture"] for row in part]
        cells = [cell(mean_interval([row[value] for row in part], units)) for value in ("likeness", "p_predicted", "p_true")]
        seen = sum(row["whole"] for row in part)
        click.echo(f"| {title} | {seen} | {len(part) - seen} | {' | '.join(cells)} |")

    def kind(row: dict[str, Any]) -> str:
        first, second = row["groups"]
        return "both other" if first == second == "other" else f"both {first}" if first == second else "different groups"

    for name, _ in Counter(kind(row) for row in rows).most_common():
        line(name, [row for row in rows if kind(row) == name])
    click.echo(f"\n| pair of classes | {columns}")

    def pair(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(sorted((row["predicted"], row["true"])))

    for names, count in Counter(pair(row) for row in rows).most_common(15):
        if count > 1:
            line(" and ".join(names), [row for row in rows if pair(row) == names])
