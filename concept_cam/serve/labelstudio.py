"""A machine-learning backend for Label Studio: predictions by words, read from the task's own labelling configuration.

The words of a label are its ``prompt`` attribute, else its value; what it is told apart from is its ``contrast`` attribute (several texts,
parted by ``|``), else the other labels of the same control::

    <View>
      <Image name="image" value="$image"/>
      <BrushLabels name="mask" toName="image">
        <Label value="tail" prompt="the tail fin of a fish" contrast="the head of a fish|the dorsal fin of a fish"/>
      </BrushLabels>
      <Choices name="caudal_fin_shape" toName="image">
        <Choice value="forked" prompt="a forked tail fin"/> <Choice value="rounded" prompt="a rounded tail fin"/>
      </Choices>
    </View>

Where names are those of a trait pack (``parts: head``, choices named after a character; what ``concept-cam export --to label-studio``
writes) the pack's own phrases are taken; where several packs have them, that of the run or of ``--traits`` is meant, or ``fish/parts:
head``. A text area named ``prompt`` in the same view asks for its words while a person annotates. Choices within choices are refused.

The protocol is Label Studio's: ``GET /health``, ``POST /setup``, ``POST /predict`` with ``tasks`` and ``label_config``.
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

import concept_cam
from concept_cam import prompts
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConceptCamError, DataError, ImageError
from concept_cam.core.regions import Region, decode_rle
from concept_cam.core.results import Localization
from concept_cam.exports.labelstudio import encode_brush
from concept_cam.exports.survey import PACK_SEPARATOR, PART_SEPARATOR
from concept_cam.serve.gallery import UPLOAD_BYTES, GalleryPicture
from concept_cam.serve.questions import AskedQuestion

if TYPE_CHECKING:
    from concept_cam.core.features import PatchFeatures
    from concept_cam.serve.desk import Desk

__all__ = ["Control", "ask_controls", "model_version", "predict", "read_controls"]

MAX_CONFIG = 200_000
MAX_LABELS = 100
MAX_TASKS = 64

_REGION_TAGS = {
    "RectangleLabels": "rectanglelabels",
    "BrushLabels": "brushlabels",
    "PolygonLabels": "polygonlabels",
    "KeyPointLabels": "keypointlabels",
}
"""Controls that mark places, and the type of their results."""


@dataclass(frozen=True)
class Choice:
    """One label or choice of a control.

    Attributes:
        value: Its value in Label Studio.
        words: What is asked for it.
        contrasts: What it is told apart from; ``None`` for the control's other labels.
    """

    value: str
    words: str
    contrasts: tuple[str, ...] | None


@dataclass(frozen=True)
class Control:
    """One control of a labelling configuration that can be filled.

    Attributes:
        name: Its name (``from_name`` of the results).
        to_name: Name of the picture's tag.
        type: Type of its results: ``rectanglelabels``, ``brushlabels``, ``polygonlabels``, ``keypointlabels`` or ``choices``.
        choices: Its labels.
        image: The key of the task's data that holds the picture's address.
        per_region: Whether choices belong to regions, which cannot be filled before there is one.
    """

    name: str
    to_name: str
    type: str
    choices: tuple[Choice, ...]
    image: str
    per_region: bool = False

    @property
    def fillable(self) -> bool:
        """Whether there is something to say: choices of regions come before there is one, and one choice has nothing to be told from."""
        return self.type != "choices" or (not self.per_region and len(self.choices) > 1)


def read_controls(text: str) -> list[Control]:
    """Reads what can be filled from a labelling configuration.

    Raises:
        DataError: It is no configuration, has no picture, or nests choices.
    """
    if len(text) > MAX_CONFIG:
        raise DataError(f"the labelling configuration has {len(text):,} characters, more than {MAX_CONFIG:,}.")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError("the labelling configuration may not define entities.")
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        raise DataError(f"the labelling configuration is no XML: {error}.") from error
    images = {tag.get("name", ""): tag.get("value", "").lstrip("$") for tag in root.iter("Image")}
    if not images:
        raise DataError("the labelling configuration has no Image tag: this backend looks at pictures.")
    controls = []
    for tag in root.iter():
        kind = _REGION_TAGS.get(tag.tag) or ("choices" if tag.tag == "Choices" else "")
        if not kind or tag.get("toName") not in images:
            continue
        child = "Choice" if kind == "choices" else "Label"
        found = tuple(_choice(item) for item in list(tag.iter(child))[:MAX_LABELS] if item.get("value"))
        if found:
            control = Control(
                tag.get("name", ""), tag.get("toName", ""), kind, found, images[tag.get("toName", "")], tag.get("perRegion") == "true"
            )
            if control.fillable:
                _refuse_nested(tag)
            controls.append(control)
    return controls


def _refuse_nested(tag: ET.Element) -> None:
    """Refuses choices within choices: a parent is true wherever one of its own is, so that it cannot be told from them.

    Raises:
        DataError: A choice holds others.
    """
    for outer in tag.iter("Choice"):
        inner = outer.find(".//Choice")
        if inner is not None:
            raise DataError(
                f"the Choices {tag.get('name', '')!r} are nested: {outer.get('value')!r} holds {inner.get('value')!r}, and only choices "
                "of one level can be told apart. Give each level Choices of its own."
            )


def _choice(tag: ET.Element) -> Choice:
    contrast = tag.get("contrast")
    contrasts = None if contrast is None else tuple(text for part in contrast.split("|") if (text := " ".join(part.split())))
    value = tag.get("value") or ""
    words = " ".join((tag.get("prompt") or value.replace("_", " ")).split())
    return Choice(value, words, contrasts)


def _concept(control: Control, choice: Choice, packs: Mapping[str, prompts.Pack], preferred: Collection[str] = ()) -> Concept:
    """Returns a label's question: a pack's where the names are a pack's, else its own words."""
    if choice.contrasts is None and choice.words == choice.value.replace("_", " "):
        known = _pack_concept(control, choice, packs, preferred)
        if known is not None:
            return known
    others = (
        choice.contrasts if choice.contrasts is not None else tuple(other.words for other in control.choices if other.value != choice.value)
    )
    unique = dict.fromkeys(text for text in others if text.casefold() != choice.words.casefold())
    # Words that a person typed may be set against the label's own name.
    name = choice.words if choice.value in unique else choice.value
    return prompts.concept_of_words(choice.words, list(unique), packs.values(), name=name)


def _pack_concept(control: Control, choice: Choice, packs: Mapping[str, prompts.Pack], preferred: Collection[str]) -> Concept | None:
    if control.type == "choices":
        name, state = control.name, choice.value
    else:
        name, _, state = choice.value.partition(PART_SEPARATOR)
    head, separator, tail = name.partition(PACK_SEPARATOR)
    character = tail if separator else name
    found = [
        pack
        for pack in packs.values()
        if (not separator or pack.name == head)
        and any(item.name == character and state in [known.name for known in item.states] for item in pack.characters)
    ]
    # "parts: head" is in several packs: those of the run or of --traits come first, else the name says nothing.
    chosen = [pack for pack in found if pack.name in preferred] or found
    return prompts.concepts(chosen[0], character, state)[0] if len(chosen) == 1 else None


def ask_controls(
    desk: Desk, features: PatchFeatures, entry: GalleryPicture, controls: Sequence[Control]
) -> Iterator[tuple[Control, Choice, Localization, tuple[Region, ...]]]:
    """Asks every label of every control of one encoded picture; yields the answers and, for places, their regions.

    Of choices only the likeliest is yielded. What a pack says is left out where the picture does not show what the pack is about.
    """
    for control in controls:
        if not control.fillable:
            continue
        if control.type == "choices":
            asked = [(choice, _concept(control, choice, desk.packs, desk.preferred)) for choice in control.choices]
            if any(desk.host_is_missing(features, concept) for _, concept in asked):
                continue
            answers = [(choice, desk.answer(entry, features, AskedQuestion(concept)).found) for choice, concept in asked]
            best = max(answers, key=lambda pair: pair[1].probability if pair[1].probability is not None else pair[1].score)
            yield control, *best, ()
            continue
        for choice in control.choices:
            concept = _concept(control, choice, desk.packs, desk.preferred)
            if desk.host_is_missing(features, concept):
                continue
            answer = desk.answer(entry, features, AskedQuestion(concept))
            yield control, choice, answer.found, answer.regions


def predict(desk: Desk, data: Mapping[str, Any]) -> dict[str, Any]:
    """Answers Label Studio's ``/predict``.

    Args:
        desk: What answers.
        data: ``tasks``, ``label_config`` and optionally ``params.context`` with the words that a person typed.

    Returns:
        ``{"results": [...]}``, one prediction per task in order; a task whose picture cannot be read has an empty one that says why.

    Raises:
        DataError: The request is not Label Studio's.
    """
    tasks, config = data.get("tasks"), data.get("label_config")
    if not isinstance(tasks, list) or not isinstance(config, str):
        raise DataError("expected Label Studio's request: tasks (a list) and label_config (text).")
    if len(tasks) > MAX_TASKS:
        raise DataError(f"at most {MAX_TASKS} tasks per request, received {len(tasks)}.")
    controls = read_controls(config)
    params = data.get("params")
    words = _typed_words(params.get("context") if isinstance(params, Mapping) else None)
    if words:
        controls = [_for_words(control, words) for control in controls if control.type != "choices"]
    return {"results": [_prediction(desk, task, controls) for task in tasks]}


def _typed_words(context: Any) -> str:
    """Returns what a person typed into a text area of the view while annotating."""
    if not isinstance(context, Mapping) or not isinstance(context.get("result"), list):
        return ""
    for result in reversed(context["result"]):
        value = result.get("value") if isinstance(result, Mapping) else None
        if isinstance(value, Mapping) and result.get("type") == "textarea":
            text = value.get("text")
            found = " ".join(text) if isinstance(text, list) else str(text or "")
            return " ".join(found.split())[:300]
    return ""


def _for_words(control: Control, words: str) -> Control:
    """Returns a control whose first label is asked for with the words that were typed; ``target; contrast | contrast``."""
    target, _, rest = words.partition(";")
    contrasts = tuple(text.strip() for text in rest.split("|") if text.strip())
    return replace(control, choices=(replace(control.choices[0], words=target.strip(), contrasts=contrasts),))


def _prediction(desk: Desk, task: Any, controls: Sequence[Control]) -> dict[str, Any]:
    version = model_version(desk)
    results: list[dict[str, Any]] = []
    scores: list[float] = []
    try:
        if not isinstance(task, Mapping) or not isinstance(task.get("data"), Mapping):
            raise DataError("a task has no data.")
        if not any(control.fillable for control in controls):
            raise DataError(
                f"the labelling configuration has nothing that can be filled: expected {', '.join(_REGION_TAGS)} with a Label, or Choices "
                "with at least two that are not those of a region, whose toName is the name of an Image."
            )
        seen: dict[str, tuple[GalleryPicture, PatchFeatures]] = {}
        for control in controls:
            if control.image not in seen:
                entry = find_picture(desk, str(task["data"].get(control.image, "")), str(task["data"].get("source") or ""))
                seen[control.image] = (entry, desk.features(entry)[0])
        by_image = {image: [control for control in controls if control.image == image] for image in seen}
        for image, own in by_image.items():
            entry, features = seen[image]
            for control, choice, found, regions in ask_controls(desk, features, entry, own):
                height, width = found.geometry.original
                head = {
                    "from_name": control.name,
                    "to_name": control.to_name,
                    "type": control.type,
                    "original_width": width,
                    "original_height": height,
                }
                score = found.probability if found.probability is not None else float(np.clip(found.score, 0, 1))
                if control.type == "choices":
                    scores.append(score)
                    results.append({**head, "value": {"choices": [choice.value]}, "score": score})
                for number, region in enumerate(regions[:1]):
                    scores.append(score)
                    identity = {"id": f"{control.name}-{choice.value}-{number}", "image_rotation": 0}
                    results.append(
                        {**head, **identity, "value": _value(control.type, choice.value, region, (height, width)), "score": score}
                    )
    except ConceptCamError as error:
        return {"result": [], "score": 0.0, "model_version": version, "error": str(error)}
    return {"result": results, "score": float(np.mean(scores)) if scores else 0.0, "model_version": version}


def _value(kind: str, label: str, region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """Returns a region as Label Studio states it: percent of the picture, or a brush's run lengths."""
    across, down = 100 / size[1], 100 / size[0]
    if kind == "brushlabels":
        return {"format": "rle", "rle": encode_brush(decode_rle(region.rle)), kind: [label]}
    if kind == "rectanglelabels":
        x0, y0, x1, y1 = region.box
        return {"x": x0 * across, "y": y0 * down, "width": (x1 - x0) * across, "height": (y1 - y0) * down, "rotation": 0, kind: [label]}
    if kind == "polygonlabels":
        return {"points": [[float(x) * across, float(y) * down] for x, y in region.polygon()], "closed": True, kind: [label]}
    return {"x": region.peak[0] * across, "y": region.peak[1] * down, "width": 0.75, kind: [label]}


def find_picture(desk: Desk, address: str, source: str = "") -> GalleryPicture:
    """Returns the picture that a task means, of those that are served: by ``source``, by local-storage address, by name; or a ``data:``
    URI.

    Nothing is fetched from any other host, and no path of a task reaches the file system: names are looked up among the served ones.

    Raises:
        ImageError: It is none of them.
    """
    if address.startswith("data:"):
        _, _, payload = address.partition(";base64,")
        if len(payload) > UPLOAD_BYTES * 4 // 3 + 4:
            raise ImageError("the picture in the task is too large.")
        try:
            return desk.gallery.add(base64.b64decode(payload, validate=True), "task")
        except (binascii.Error, ValueError) as error:
            raise ImageError(f"the picture in the task is no base64: {error}.") from error
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d", [""])[0]
    names = [source, unquote(local), address, unquote(parts.path).lstrip("/")]
    for name in filter(None, names):
        entry = desk.gallery.by_source(name)
        if entry is not None:
            return entry
    # Label Studio puts "<eight hexadecimal digits>-" before the name of an uploaded file.
    # A name that was not quoted may hold a # or a %.
    bases = {re.sub(r"^[0-9a-f]{8}-", "", name.rsplit("/", 1)[-1]) for name in (unquote(local or parts.path), address)} - {""}
    matches = [entry for entry in desk.gallery.wholes if entry.source.rsplit("/", 1)[-1] in bases]
    if len(matches) == 1:
        return matches[0]
    raise ImageError(
        f"the task's picture {address[:120]!r} is not among the {len(desk.gallery.wholes)} that are "
        f"served{' (its name is there twice)' if matches else ''}: serve "
        "the folder that the tasks were made from; nothing is fetched from other hosts."
    )


def model_version(desk: Desk) -> str:
    """Returns what predictions are marked with: model, weights and version of the package."""
    backbone = desk.localizer.backbone
    return f"{backbone.name}-{backbone.weights_hash[:8]} (concept-cam {concept_cam.__version__})"
