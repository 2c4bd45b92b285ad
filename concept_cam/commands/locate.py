"""``concept-cam locate``: concept queries at the command line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
import numpy as np

from concept_cam.commands.console import PathName, note, print_table, track, warn
from concept_cam.commands.options import (
    RISK,
    WITHOUT_TEXT,
    Number,
    Within,
    build_localizer,
    chosen_settings,
    model_options,
    read_classes,
    resolve,
    setting_options,
    warn_unknown_words,
    warn_unread_places,
)
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConceptCamError, ConfigurationError, ImageError, OutputError, PromptError
from concept_cam.core.placing import LEFT_OF
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.core.tables import escaped
from concept_cam.trust.verdicts import TRUST_VERDICTS

if TYPE_CHECKING:
    from concept_cam.core.results import Localization, Provenance
    from concept_cam.core.settings import Settings
    from concept_cam.localizer import Localizer
    from concept_cam.methods.heads import ClassifierHead, FinerCam
    from concept_cam.trust.conformal import Conformal

LOCATE_COLUMNS = (
    "file_name", "target", "contrast", "score", "probability", "peak_score", "peak_x", "peak_y", "x", "y", "width", "height", "area_frac",
    "place", "verdict", "confidence", "presence", "agreement", "verdict_because", "states", "model",
)  # fmt: skip
"""Columns of the table on stdout, one row per picture and concept."""

NO_STATE = "(none)"
"""A set of states in which there is none; an empty cell says that nothing is promised."""


def _rising(context: click.Context, parameter: click.Parameter, limits: tuple[float, float] | None) -> tuple[float, float] | None:
    """Refuses a colour scale that falls, before any picture is looked at."""
    if limits is not None and limits[0] > limits[1]:
        raise click.BadParameter(f"received {limits[0]:g} and {limits[1]:g}: expected LOW then HIGH.")
    return limits


@click.command(short_help="Show where a concept is in pictures.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--target", "-t", multiple=True, help="What to find, in words. Repeat for several concepts.")
@click.option("--contrast", "-c", multiple=True, help="What to tell it apart from. Repeat; shared by all targets.")
@click.option("--traits", multiple=True, metavar="SPEC", help="Trait pack or file, optionally :character and =state. Repeat.")
@click.option(
    "--classes",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Class-list mode: class names, one per line. Classifiers: names of the classes, where the file or the network holds none.",
)
@click.option("--references", type=click.IntRange(min=1), help="Class-list mode: reference classes, nearest logits.  [default: 3]")
@click.option(
    "--head",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Explain a linear classifier (of fit-head, or a layer's .pth or .safetensors) instead of words: --target and --contrast name "
    "classes, --gamma is alpha (0.6 if not given; 1 with --weighting softmax or hardest), --method the CAM.  [default: the predicted "
    "class, grad-cam]",
)
@click.option("--ranks", metavar="NUMBERS", help="Classifiers: which of the classes of nearest logit are the references.  [default: 1,2,3]")
@click.option(
    "--layer", help="Classifiers: where maps are read, norm1 or last on vision transformers.  [default: the papers', norm1 there]"
)
@click.option("--method", help="Localisation method, see 'concept-cam models --methods'.  [default: direct]")
@model_options
@setting_options
@click.option("--threshold", help="Mask threshold: half-max, otsu, li, yen, zero ... or a number in score units.  [default: half-max]")
@click.option("--min-area", type=Within(min=0), default=0.0, help="Drop regions of fewer pixels (below 1: share of the picture).")
@click.option(
    "--colour-scale",
    "limits",
    type=(Number(), Number()),
    metavar="LOW HIGH",
    callback=_rising,
    help="Fixed colour scale for all overlays, in score units.",
)
@click.option(
    "--upsampling",
    type=click.Choice(["cubic", "bilinear", "edge-aware"]),
    help="How overlays are drawn between cells.  [default: cubic; bilinear for refined maps]",
)
@click.option("--explain", is_flag=True, help="Overlays say whether to trust the map, and what each text contributes at the peak.")
@click.option(
    "--only",
    type=click.Choice(list(TRUST_VERDICTS)),
    metavar="VERDICT",
    help="Keep only maps of this verdict: clear, doubtful, 'not about the prompt' or absent.",
)
@click.option(
    "--careful",
    is_flag=True,
    help="Read each picture again, mirrored and shifted: certificates say how far maps agree. Takes 4 times the time.",
)
@click.option(
    "--trust",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Rules and guarantees that 'concept-cam calibrate' fitted. With -o: inner and outer masks too.",
)
@click.option("--alpha", type=RISK, help="Risk of the guarantees.  [default: 0.1]")
@click.option("--output", "-o", type=PathName(file_okay=False), metavar="DIR", help="Write overlays, masks, scores and JSON here.")
@click.option(
    "--format", "format_", type=click.Choice(["csv", "json", "table"]), default="csv", show_default=True, help="Format on stdout."
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist under --output.")
def locate(
    images: tuple[str, ...],
    target: tuple[str, ...],
    contrast: tuple[str, ...],
    traits: tuple[str, ...],
    classes: str | None,
    references: int | None,
    head: str | None,
    ranks: str | None,
    layer: str | None,
    method: str | None,
    threshold: str | None,
    min_area: float,
    limits: tuple[float, float] | None,
    upsampling: str | None,
    explain: bool,
    only: str | None,
    careful: bool,
    trust: str | None,
    alpha: float | None,
    output: str | None,
    format_: str,
    overwrite: bool,
    **options: Any,
) -> None:
    """Shows where a concept is in pictures, as opposed to its look-alikes.

    Prints one row per picture and concept. SCORE is the cosine of the whole picture along the direction, PROBABILITY the softmax over
    target and contrasts, without what lies around a pack's state, at the model's temperature; peak and box are original pixels of the
    upright picture, half-open, of the region of the peak. VERDICT says whether the map can be trusted: clear, doubtful, not about the
    prompt, or absent; CONFIDENCE how likely its peak lies on the target. "The left fore wing", "the rear dorsal fin" and the like are
    asked for without the place, which is told by how the animal lies: PLACE says which it was, and whose left, or why none was told
    (then there is no region) or read (then it is that of the words as they stand), and neither map is clear. A classifier (--head
    FILE, or --model timm:NAME[,CHECKPOINT] with its own last layer) is asked for its classes instead of words: without --target for
    the predicted one; SCORE is then the contrasted logit. IMAGE may be a folder, which is searched with its subfolders; '-' reads
    paths from standard input, one per line. A picture that is named twice is looked at once.

    \b
    Examples:
      concept-cam locate fish.png -t "a forked tail fin" -c "a rounded tail fin" -o out/
      concept-cam locate photos/ -t "a dorsal fin" -t "a tail fin" --contrast "a fish" --format table
      concept-cam locate fish.png --traits fish:caudal_fin_shape -o out/ --explain
      concept-cam locate fish.png -t "the rear dorsal fin of a fish"
      concept-cam locate photos/ --traits fish:parts --only clear > clear.csv
      concept-cam locate photos/ --traits fish:parts --careful --trust trust.json --alpha 0.1 -o out/
      concept-cam locate fish.png --traits fish:parts --refine guided --look-again -o out/
      concept-cam locate bird.jpg --classes species.txt --model hf-hub:imageomics/bioclip-2 -o out/
      concept-cam locate bird.jpg --head head.safetensors --model dinov2:facebook/dinov2-base --method layer-cam+relu -o out/
      concept-cam locate bird.jpg --model timm:resnet50.a1_in1k,resnet50.safetensors -o out/
      concept-cam locate dog.jpg --model timm:vit_base_patch16_224 -t beagle -c "Walker hound" --method grad-cam+relu -o out/
      find photos -name '*.jpg' | concept-cam locate - -t "a dorsal fin" > fins.csv
    """
    values = resolve({**options, "method": method, "threshold": threshold})
    classifier = head is not None or str(values.get("model") or "").startswith(WITHOUT_TEXT)
    if layer is not None and not classifier:
        raise ConfigurationError("--layer belongs to a classifier: give --head FILE, or --model timm:NAME.")
    question = None if classifier else question_of(target, contrast, traits, classes, references, ranks)
    paths = _each_once(_paths(images))
    if not paths:
        raise ConfigurationError("no picture was given: standard input held no path.")
    check_early(values, output)
    limit = values.get("threshold", DEFAULT_THRESHOLD)
    from concept_cam.trust.kept import opened

    fitted, guarantee = opened(trust, alpha)
    if classifier and (careful or fitted is not None):
        raise ConfigurationError("--careful and --trust are for questions in words; a classifier's maps have certificates of their own.")
    writer = _Writer(output, unique_stems(paths), overwrite, limit, min_area, limits, upsampling, explain, guarantee)
    writer.check()
    asker: _BatchAsker
    if question is None:
        asker = _head_asker(head, target, contrast, traits, classes, references, ranks, layer, values)
        _estimate(values.get("method", "grad-cam"), asker, len(paths))
    else:
        localizer = build_localizer(values, None if fitted is None else fitted.rules)
        if fitted is not None:
            fitted.check(localizer.conditions())
        if question.concepts:
            warn_unread_places(question.concepts)
            warn_unknown_words(localizer, list(question.concepts))
        asker = _WordAsker(localizer, question, values.get("method", "direct"), careful)
    printer = Printer(format_)
    failed = left_out = 0
    for path, answer in track(_all_answers(asker, paths), len(paths)):
        if isinstance(answer, ConceptCamError):
            failed += 1
            warn(f"{answer}")
            continue
        kept = [found for found in answer if only is None or verdict_of(found) == only]
        left_out += len(answer) - len(kept)
        for found in kept:
            printer.row(result_row(path, found, limit, min_area, guarantee))
        if kept or only is None:
            writer.write(path, kept)
    printer.close()
    if left_out:
        note(f"{left_out} maps of another verdict than {only!r} were left out.")
    if failed:
        warn(
            f"{failed} of {len(paths)} pictures could not be used; the others are done."
            if failed < len(paths)
            else "no picture could be used, so there is no answer."
        )
        sys.exit(1)


# -------------------------------------------------------------------------------------------------------------- question


class _Question:
    """What is asked of every picture: fixed concepts, or a class list from which each picture's concept is chosen."""

    def __init__(self, concepts: Sequence[Concept], classes: Sequence[str], target: str | None, references: int) -> None:
        self.concepts, self.classes, self.target, self.references = tuple(concepts), tuple(classes), target, references


def question_of(
    target: Sequence[str],
    contrast: Sequence[str],
    traits: Sequence[str],
    classes: str | None = None,
    references: int | None = None,
    ranks: str | None = None,
) -> _Question:
    """Reads what is asked from the options."""
    if ranks is not None:
        raise ConfigurationError("--ranks belongs to a classifier: give --head FILE as well, or use --classes with --references.")
    if classes is not None:
        if contrast or traits or len(target) > 1:
            raise ConfigurationError("--classes chooses the contrasts itself: give it at most one --target and no --contrast or --traits.")
        return _Question((), read_classes(classes), target[0] if target else None, references or 3)
    if references is not None:
        raise ConfigurationError("--references belongs to class-list mode: give --classes FILE as well.")
    if contrast and not target:
        raise ConfigurationError("--contrast belongs to --target TEXT; trait packs bring their own contrasts.")
    if not target and not traits:
        raise ConfigurationError(
            'nothing to find: give --target TEXT (for example --target "a forked tail fin"), --traits SPEC or --classes FILE.'
        )
    from concept_cam import prompts

    concepts = [prompts.concept_of_words(text, contrast) for text in target]
    if traits:
        concepts += prompts.load(list(traits))
    names = [concept.name for concept in concepts]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise PromptError(f"the concept {double[0]!r} is asked for twice.")
    return _Question(concepts, (), None, 3)


def _paths(images: Sequence[str]) -> Iterator[str]:
    for image in images:
        if image == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        elif os.path.isdir(image):
            yield from _pictures_in(image)
        else:
            yield image


def _each_once(paths: Iterator[str]) -> list[str]:
    """Drops the pictures that were named before, as one in a folder that is named too: they would have the same output files."""
    named = list(paths)
    found: dict[str, str] = {}
    for path in named:
        found.setdefault(os.path.normcase(os.path.abspath(path)), path)
    if len(found) < len(named):
        note(f"{len(named) - len(found)} of {len(named)} names are of pictures named before; each picture is looked at once.")
    return list(found.values())


def _pictures_in(folder: str) -> Iterator[str]:
    """The pictures of a folder and of those within it, as `annotate` finds them."""
    from concept_cam.collection.inputs import open_collection

    found = [item.source for item in open_collection(folder, layout="folder").items()]
    if not found:
        raise ConfigurationError(f"the folder {folder!r} holds no picture.")
    yield from (os.path.join(folder, source) for source in found)


def check_early(values: dict[str, Any], output: str | None) -> None:
    """Finds wrong options before a model is loaded, which can take minutes."""
    from concept_cam.core.regions import parse_threshold

    parse_threshold(values.get("threshold", DEFAULT_THRESHOLD))
    if output is not None:
        from concept_cam.core.files import make_directory

        make_directory(output)


# --------------------------------------------------------------------------------------------------------------- answers


class _BatchAsker(Protocol):
    """Answers the command's question for a batch of pictures."""

    settings: Settings

    def __call__(self, pictures: list[Any]) -> list[Sequence[Localization]]: ...


def _all_answers(asker: _BatchAsker, paths: Sequence[str]) -> Iterator[tuple[str, Sequence[Localization] | ConceptCamError]]:
    """Answers batch by batch."""
    step = max(1, asker.settings.batch_size)
    for start in range(0, len(paths), step):
        yield from _answers(asker, paths[start : start + step])


def _answers(asker: _BatchAsker, paths: Sequence[str]) -> Iterator[tuple[str, Sequence[Localization] | ConceptCamError]]:
    """Answers one batch of pictures; a bad picture yields its error and does not stop the others."""
    from concept_cam.pictures.reading import read_image

    pictures: list[Any] = []
    outcomes: dict[int, Sequence[Localization] | ConceptCamError] = {}
    for position, path in enumerate(paths):
        try:
            pictures.append((position, read_image(path, max_pixels=asker.settings.max_pixels)))
        except ImageError as error:
            outcomes[position] = error
    try:
        outcomes.update(zip([position for position, _ in pictures], asker([picture for _, picture in pictures])))
    except ImageError:
        # One picture of the batch broke the model's output: find out which.
        for position, picture in pictures:
            try:
                outcomes[position] = asker([picture])[0]
            except ImageError as error:
                outcomes[position] = error
    for position, path in enumerate(paths):
        yield path, outcomes[position]


class _WordAsker:
    """Asks an image-text model in words."""

    def __init__(self, localizer: Localizer, question: _Question, method: str, careful: bool = False) -> None:
        self.settings = localizer.settings
        self._localizer, self._question, self._method, self._careful = localizer, question, method, careful

    def __call__(self, pictures: list[Any]) -> list[Sequence[Localization]]:
        localizer, question, method = self._localizer, self._question, self._method
        if not pictures:
            return []
        if not question.classes:
            return list(localizer.locate_all(pictures, question.concepts, method=method, careful=self._careful))
        features = localizer.encode(pictures)
        chosen = [localizer.class_concept(item, question.classes, question.target, references=question.references) for item in features]
        return [
            localizer.locate_all([picture], [concept], method=method, careful=self._careful)[0]
            for picture, concept in zip(pictures, chosen)
        ]


class _HeadAsker:
    """Asks a linear classifier on a frozen tower: Finer-CAM in its original form."""

    def __init__(self, cam: FinerCam, targets: Sequence[str], options: dict[str, Any]) -> None:
        self.settings = cam.settings
        self.cam, self._targets, self._options = cam, targets, options
        self._refiner: Any = None

    def __call__(self, pictures: list[Any]) -> list[Sequence[Localization]]:
        if not pictures:
            return []
        from concept_cam.refine import load_refiner, refine_each

        found = self.cam.explain_all(pictures, list(self._targets) or [None], **self._options)
        device = self.cam.backbone.device
        refiner = self._refiner = self._refiner or load_refiner(self.settings.refine, device)
        if refiner is None:
            return list(found)
        refined = [refine_each(answers, refiner, device) for answers in found]
        return [[replace(answer, provenance=self._says(answer.provenance)) for answer in answers] for answers in refined]

    def _says(self, provenance: Provenance) -> Provenance:
        return replace(provenance, settings={**provenance.settings, "refine": self.settings.refine})


def _head_asker(
    head: str | None,
    targets: Sequence[str],
    contrast: Sequence[str],
    traits: Sequence[str],
    classes: str | None,
    references: int | None,
    ranks: str | None,
    layer: str | None,
    values: dict[str, Any],
) -> _HeadAsker:
    if traits or references is not None:
        raise ConfigurationError("a classifier explains its classes: give no --traits, and --ranks instead of --references.")
    from concept_cam.methods import require_followed

    require_followed("a classifier's map", (), chosen_settings(values))  # Before a model is loaded.
    if contrast and ranks is not None:
        raise ConfigurationError("give the reference classes either by name (--contrast) or by rank (--ranks).")
    try:
        chosen = [int(part) for part in (ranks or "1,2,3").split(",")]
    except ValueError as error:
        raise ConfigurationError(f"--ranks takes whole numbers such as 1,2,3, received {ranks!r}.") from error
    from concept_cam.commands.fit import load_tower, read_as_trained
    from concept_cam.methods.heads import ClassifierHead, FinerCam

    names = None if classes is None else read_classes(classes)
    # Names given for a head that holds none, such as a plain .pth.
    classifier = None if head is None else ClassifierHead.load(head, names)
    options = {
        "references": list(contrast) or None,
        "ranks": chosen,
        "alpha": values.get("gamma"),
        "aggregation": values.get("weighting", "uniform"),
        "base": values.get("method", "grad-cam"),
    }
    if classifier is not None:
        _known(classifier, (*targets, *contrast))  # Names what is wrong before a model is loaded.
    backbone, settings = load_tower(values)
    if classifier is None:
        classifier = ClassifierHead.of(backbone)
        classifier = classifier if names is None else classifier.named(names)
        _known(classifier, (*targets, *contrast))
    settings = read_as_trained(classifier, backbone, settings, values)
    return _HeadAsker(FinerCam(backbone, classifier, settings, layer=layer), targets, options)


def _known(classifier: ClassifierHead, names: Sequence[str]) -> None:
    for name in names:
        classifier.index(name)


def _estimate(method: str, asker: _HeadAsker, count: int) -> None:
    """Says what a method will take that runs the tower many times a picture."""
    from concept_cam.methods.perturbation import expected_passes

    found = expected_passes(method, asker.cam.backbone, asker.settings)
    if found is not None:
        passes, seconds = found
        note(
            f"{method}: at most {passes:,} forward passes a picture, about {passes * seconds:.0f} s here, "
            f"{passes * seconds * count:.0f} s in all"
            + ("; 'score-cam:128' takes 128" if method.startswith("score-cam") and passes > 256 else "")
        )


def _rounded(value: float, digits: int) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def verdict_of(found: Localization) -> str | None:
    """Returns the verdict of a map's certificate; ``None`` for methods that have none."""
    return None if found.certify is None else found.certificate.verdict


def place_in_words(found: Localization) -> str | None:
    """Returns how the place that was asked for was told, or why it could not be; ``None`` where none was asked for."""
    place = found.place
    if place is None:
        return None
    if not place.resolved:
        unread = found.concept.where is not None and found.concept.where.unread
        return f"{'not read' if unread else 'not told'}: {place.reason}"
    return f"{place.where}, {LEFT_OF[place.left_of].partition(':')[0]}" if place.left_of else f"{place.where}: {place.reason}"


def _trust_columns(found: Localization, guarantee: Conformal | None) -> dict[str, Any]:
    certificate = None if found.certify is None else found.certificate
    states = None if guarantee is None else guarantee.guarantee(found).states
    shares = {
        name: None if certificate is None or (value := getattr(certificate, name)) is None else round(value, 4)
        for name in ("confidence", "presence", "agreement")
    }
    return {
        "verdict": None if certificate is None else certificate.verdict,
        **shares,
        "verdict_because": None if certificate is None else certificate.reason,
        "states": None if states is None else " | ".join(states) or NO_STATE,
    }


def result_row(
    path: str, found: Localization, threshold: str | float, min_area: float, guarantee: Conformal | None = None
) -> dict[str, Any]:
    # Where the place that is meant cannot be told there is a map, but no region.
    # Areas about the smallest are measured exactly, so that the row has a region where the files have one.
    resolution = "original" if min_area else "model"
    region = found.region_of_peak(threshold, min_area=min_area, resolution=resolution) if found.told else None
    row: dict[str, Any] = {
        "file_name": path,
        "target": found.concept.name,
        "contrast": " | ".join(found.concept.contrast_names),
        "score": round(found.score, 6) if found.score == found.score else None,
        "probability": None if found.probability is None else round(found.probability, 6),
        "peak_score": _rounded(found.peak_score, 6),
        "peak_x": _rounded(found.peak[0], 2),
        "peak_y": _rounded(found.peak[1], 2),
        "x": None, "y": None, "width": None, "height": None, "area_frac": None,
        "place": place_in_words(found),
        **_trust_columns(found, guarantee),
        "model": found.provenance.model,
    }  # fmt: skip
    if region is not None:
        height, width = found.geometry.original
        row.update(
            x=region.box[0], y=region.box[1], width=region.width, height=region.height, area_frac=round(region.area / (height * width), 6)
        )
    return row


# ---------------------------------------------------------------------------------------------------------------- output


class Printer:
    """Prints rows in the format asked for; CSV rows appear as they are found."""

    def __init__(self, format_: str) -> None:
        self._format = format_
        self._rows: list[dict[str, Any]] = []
        if format_ == "csv":
            click.echo(",".join(LOCATE_COLUMNS))

    def row(self, row: dict[str, Any]) -> None:
        if self._format == "csv":
            buffer = io.StringIO()
            cells = {name: "" if value is None else escaped(value) for name, value in row.items()}
            csv.DictWriter(buffer, LOCATE_COLUMNS, lineterminator="\n").writerow(cells)
            click.echo(buffer.getvalue(), nl=False)
        else:
            self._rows.append(row)

    def close(self) -> None:
        if self._format == "json":
            click.echo(json.dumps(self._rows, ensure_ascii=False, indent=1))
        elif self._format == "table":
            names = [name for name in LOCATE_COLUMNS if name not in ("model", "contrast", "verdict_because")]
            print_table([[_cell(row[name]) for name in names] for row in self._rows], names)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _digest(text: str) -> str:
    # File names may hold bytes that are not UTF-8.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def slug(text: str, length: int = 60) -> str:
    """Turns any text into a part of a file name that every file system takes; letters of all scripts are kept."""
    clean = re.sub(r"[^\w=.+-]+", "-", text, flags=re.UNICODE).strip("-. ")
    if not clean or len(clean.encode("utf-8")) > length:
        digest = _digest(text)
        while len(clean.encode("utf-8")) > length - 9:
            clean = clean[:-1]
        clean = f"{clean}-{digest}".strip("-")
    return clean


def unique_stems(paths: Sequence[str]) -> dict[str, str]:
    """Gives every path an output stem of its own: its stem where that is unique, else with as many parent folders as it takes."""
    stems = {path: slug(Path(path).stem, 120) for path in dict.fromkeys(paths)}
    for depth in range(1, 12):
        counts: dict[str, int] = {}
        for stem in stems.values():
            counts[stem.casefold()] = counts.get(stem.casefold(), 0) + 1
        double = [path for path, stem in stems.items() if counts[stem.casefold()] > 1]
        if not double:
            return stems
        for path in double:
            parts = Path(path).absolute().parts[1:-1][-depth:]
            stems[path] = slug("_".join((*parts, Path(path).name)), 120)
    return {path: f"{stem}-{_digest(path)}" for path, stem in stems.items()}


class _Writer:
    """Writes the files of each picture under the output folder; nothing is overwritten unasked."""

    def __init__(
        self,
        output: str | None,
        stems: dict[str, str],
        overwrite: bool,
        threshold: str | float,
        min_area: float,
        limits: tuple[float, float] | None,
        upsampling: str | None,
        explain: bool = False,
        guarantee: Conformal | None = None,
    ) -> None:
        self._explain, self._guarantee = explain, guarantee
        self._folder = Path(output) if output is not None else None
        self._stems, self._overwrite = stems, overwrite
        self._threshold, self._min_area, self._limits, self._upsampling = threshold, min_area, limits, upsampling

    def check(self) -> None:
        """Refuses an output folder that holds results of these pictures, before any work is done.

        Raises:
            OutputError: A picture's JSON file is already there.
        """
        if self._folder is None or self._overwrite:
            return
        there = [stem for stem in self._stems.values() if (self._folder / f"{stem}.json").exists()]
        if there:
            raise OutputError(
                f"{str(self._folder)!r} already holds results for {len(there)} of these pictures (for example {there[0]}.json). "
                "Use --overwrite, or choose another --output."
            )

    def write(self, path: str, answers: Sequence[Localization]) -> None:
        if self._folder is None:
            return
        from concept_cam.core.files import write_file
        from concept_cam.core.results import json_bytes, png_bytes

        stem = self._stems[path]
        names = _unique_slugs([found.concept.name for found in answers])
        results = []
        for name, found in zip(names, answers):
            base = self._folder / f"{stem}__{name}"
            outlined = self._threshold if found.told else None
            overlay = found.overlay(limits=self._limits, threshold=outlined, upsampling=self._upsampling, explain=self._explain)
            mask = _black_and_white(_mask(found, self._threshold, self._min_area))
            write_file(base.with_name(base.name + ".overlay.png"), png_bytes(overlay), overwrite=self._overwrite)
            write_file(base.with_name(base.name + ".mask.png"), png_bytes(mask), overwrite=self._overwrite)
            write_file(base.with_name(base.name + ".scores.npz"), found.to_npz(), overwrite=self._overwrite)
            content = found.to_dict(self._threshold, min_area=self._min_area)
            if self._guarantee is not None:
                promised = self._guarantee.guarantee(found)
                content["guarantee"] = promised.to_dict()
                for kind, mask in (("inner", promised.inner), ("outer", promised.outer)):
                    if mask is not None:
                        write_file(base.with_name(f"{base.name}.{kind}.png"), png_bytes(_black_and_white(mask)), overwrite=self._overwrite)
            results.append(content)
        payload = json_bytes({"file_name": path, "results": results})
        write_file(self._folder / f"{stem}.json", payload, overwrite=self._overwrite)


def _unique_slugs(names: Sequence[str]) -> list[str]:
    slugs = [slug(name) for name in names]
    folded = [text.casefold() for text in slugs]
    return [f"{text}-{_digest(name)}" if folded.count(text.casefold()) > 1 else text for text, name in zip(slugs, names)]


def _mask(found: Localization, threshold: str | float, min_area: float) -> np.ndarray:
    """The pixels of the regions that the row and the JSON file speak of, bool [H, W]."""
    from concept_cam.core.regions import decode_rle

    if found.told and not min_area:
        return found.mask(threshold)
    mask = np.zeros(found.geometry.original, dtype=bool)
    for region in found.regions(threshold, min_area=min_area) if found.told else ():
        mask |= decode_rle(region.rle)
    return mask


def _black_and_white(mask: Any) -> Any:
    from PIL import Image

    return Image.fromarray(mask.astype("uint8") * 255)
