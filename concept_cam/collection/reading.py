"""First stage of an annotation, in worker processes: a picture of a collection becomes small, model-sized crops. Loads no torch.

A photograph of 20 megapixels decodes to 60 MB; what the model sees of it is 150 kB. Shrinking where it is decoded keeps the pipes to the
model's process narrow. The result equals preparing the whole picture at once, value for value, for every resize policy.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from concept_cam.collection.inputs.entries import Entries
from concept_cam.collection.inputs.items import Item, Specimen
from concept_cam.collection.inputs.specimens import read_specimen_mask
from concept_cam.collection.measures import Frame
from concept_cam.core.errors import ImageError, reason_of
from concept_cam.core.shapes import decode_rle
from concept_cam.pictures.limits import byte_limit
from concept_cam.pictures.pages import FirstPageWarning
from concept_cam.pictures.reading import read_image
from concept_cam.pictures.resizing import shrink, shrunk_size

if TYPE_CHECKING:
    from concept_cam.collection.plan import Plan
    from concept_cam.pictures.reading import Picture
    from concept_cam.pictures.resizing import Prepared

__all__ = ["SPECIMEN_PREFIX", "Crop", "Loaded", "load_item", "prepare_crop"]

CLOSER = 2
"""How many pixels are kept along one of those that the model sees, where a map is refined or a part read again."""

SPECIMEN_PREFIX = "specimen "
"""Start of the reason when one specimen of several, not the whole picture, cannot be used."""


@dataclass(frozen=True)
class Crop:
    """One specimen, or the whole picture, ready for the model.

    Attributes:
        pixels: uint8 [H', W', 3] RGB; shrunk to what the model will see of it where the resize policy allows.
        hidden: bool [H', W'], True where nothing may be read (already painted over), or ``None``.
        size: ``(H, W)`` of the crop, original pixels.
        frame: Where it lies in the whole picture.
        number: Number of the specimen.
        box: ``(x, y, width, height)`` of the specimen; ``None`` for a whole picture.
        specimen: What the input says of it.
        entry: Where its features stand in the index that they come from; ``None`` for what is still to be encoded.
        closer: uint8 [H'', W'', 3], the same at a finer size, for maps that are refined and for a second look; ``None`` where neither is
            asked for.
    """

    pixels: np.ndarray
    hidden: np.ndarray | None
    size: tuple[int, int]
    frame: Frame
    number: int
    box: tuple[int, int, int, int] | None
    specimen: Specimen
    entry: int | None = None
    closer: np.ndarray | None = None

    @property
    def closest(self) -> np.ndarray:
        """The finest pixels at hand, uint8 [H'', W'', 3]."""
        return self.pixels if self.closer is None else self.closer


@dataclass(frozen=True)
class Loaded:
    """A picture that was read, or why it could not be.

    Attributes:
        item: The picture, without its payload.
        sha256: Of its encoded bytes.
        crops: What is to be annotated.
        errors: Why the picture, or a specimen of it, cannot be used.
        notes: What is to be noticed of it though it can be used; said where the model is, which may be another process.
        first_page: Whether its file has further pages or frames, which are not read; said once for the whole run.
    """

    item: Item
    sha256: str = ""
    crops: tuple[Crop, ...] = ()
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first_page: bool = False

    def say(self) -> None:
        """Says as warnings what is to be noticed."""
        for note in self.notes:
            warnings.warn(note, UserWarning, stacklevel=2)


@dataclass(frozen=True)
class _Nothing:
    """Stands for a payload that was read already, so that it is not sent back."""

    def read(self, max_bytes: int = 0) -> Any:
        raise ImageError("this payload was read before.")


def load_item(item: Item, plan: Plan) -> Loaded:
    """Reads, checks, masks, crops and shrinks one picture; whatever is wrong with it is in the answer, never raised.

    A picture of several specimens of which one cannot be used gives the others and one error.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        loaded = _load(item, plan)
    told = [warning for warning in said if issubclass(warning.category, UserWarning)]
    notes = tuple(_named(str(warning.message), item) for warning in told if not issubclass(warning.category, FirstPageWarning))
    return replace(loaded, notes=notes, first_page=len(notes) < len(told)) if told else loaded


def _load(item: Item, plan: Plan) -> Loaded:
    bare = replace(item, payload=_Nothing())
    try:
        if isinstance(item.payload, Entries):
            return _entries(bare, item.payload)
        raw = item.payload.read(byte_limit(plan.settings.max_pixels))
        digest = hashlib.sha256(raw.digest_of).hexdigest()
        picture = read_image(raw.content, max_pixels=plan.settings.max_pixels, reduce=partial(_reduction, item, plan))
        size = raw.original or picture.whole or picture.size
        hidden = plan.ignored.mask(item, size) if plan.ignored is not None else None
        specimens = plan.specimens(item) or (Specimen(),)
    except Exception as error:  # whatever it is, it is this picture's
        return Loaded(bare, errors=(_without_name(reason_of(error), item),))
    crops, errors = [], []
    for number, specimen in enumerate(specimens):
        try:
            crops.append(_crop(picture, size, hidden, specimen, number, plan))
        except Exception as error:
            reason = reason_of(error)
            errors.append(f"{SPECIMEN_PREFIX}{number}: {reason}" if len(specimens) > 1 else reason)
            continue
        if (note := _beyond(specimen, size)) is not None:
            errors.append(f"{SPECIMEN_PREFIX}{number}: {note}")
    return Loaded(bare, digest, tuple(crops), tuple(errors))


SPARE = 2
"""A JPEG is decoded smaller only where this many times as many pixels as the model sees are left along each side: then what the decoder
averages hardly differs from what resizing would.
"""


def _reduction(item: Item, plan: Plan, size: tuple[int, int]) -> int:
    """Returns by how much a picture of ``size`` may be decoded smaller; see :data:`concept_cam.collection.plan.DECODING`."""
    specimens = plan.specimens(item) or (Specimen(),)
    if plan.decoding == "exact" or plan.ignored is not None or any(specimen.mask is not None for specimen in specimens):
        return 1  # masks are painted on the pixels that they were drawn on
    try:
        boxes = [_pixel_box(specimen, None, size) for specimen in specimens]
    except ImageError:
        return 1  # said where the specimen is cut out
    factors = []
    for _, _, width, height in boxes:
        target = shrunk_size((height, width), plan.preprocess, plan.settings.resize, plan.settings.size)
        factors.append(1.0 if target is None else min(height / target[0], width / target[1]) / SPARE)
    return next((factor for factor in (8, 4, 2) if min(factors) >= factor), 1)


def _entries(item: Item, entries: Entries) -> Loaded:
    """The crops of a picture whose features are kept already; their pixels are not needed."""
    nothing = np.zeros((1, 1, 3), dtype=np.uint8)
    crops = []
    for entry in entries.found:
        frame = Frame(entry.left, entry.top, entry.size)
        hidden = None if entry.hidden is None else decode_rle(json.loads(entry.hidden))
        height, width = entry.geometry.original
        crops.append(Crop(nothing, hidden, (height, width), frame, entry.number, entry.box, Specimen(columns=item.columns), entry.position))
    return Loaded(item, entries.sha256, tuple(crops))


def _without_name(text: str, item: Item) -> str:
    """The readers call bytes 'the given bytes'; in a list of errors the picture is named beside."""
    return text.replace("the given bytes", "the file" if item.path else "the entry")


def _named(text: str, item: Item) -> str:
    """Returns a note with the picture's name: the readers do not know whose bytes they are given."""
    name = repr(item.source)
    found = text.replace("the given bytes", name)
    return found if name in found else f"{name}: {found}"


def _crop(
    picture: Picture,
    size: tuple[int, int],
    hidden: np.ndarray | None,
    specimen: Specimen,
    number: int,
    plan: Plan,
) -> Crop:
    outside: np.ndarray | None = None
    if specimen.mask is not None:
        mask = read_specimen_mask(specimen.mask, size)
        if not mask.any():
            raise ImageError("the specimen's mask is empty.")
        outside = ~mask
    box = _pixel_box(specimen, outside, size)
    left, top, width, height = box
    hide = None
    for layer in (hidden, outside):
        if layer is not None:
            own = layer[top : top + height, left : left + width]
            hide = own if hide is None else hide | own
    if hide is not None and hide.all():
        raise ImageError("everything that could be read is under the --ignore mask.")
    part: tuple[float, float, float, float] | None = None
    if picture.reduction > 1:
        small, part = _cut_reduced(picture, box)
        small_hidden = None
    else:
        small, small_hidden = _cut(picture.pixels, size, box, hide)
    if hide is not None and small_hidden is not None:
        small = small.copy()
        small[small_hidden] = np.round(np.array(plan.preprocess.mean) * 255).clip(0, 255).astype(np.uint8)
    settings = plan.settings
    original = (height, width) if part is not None else None
    small = np.ascontiguousarray(small)
    shrunk = shrink(small, plan.preprocess, settings.resize, settings.size, original, part)
    whole = specimen.box is None and specimen.mask is None
    return Crop(
        shrunk,
        small_hidden,
        (height, width),
        Frame(left, top, size),
        number,
        None if whole else box,
        specimen,
        closer=_closer(small, shrunk, part) if plan.closer else None,
    )


def _closer(pixels: np.ndarray, shrunk: np.ndarray, part: tuple[float, float, float, float] | None) -> np.ndarray:
    """Returns the pixels at :data:`CLOSER` times the size at which the model sees them, or as they are where that is not fewer.

    Args:
        pixels: uint8 [H, W, 3].
        shrunk: uint8 [H', W', 3], what the model sees.
        part: What of the pixels is the crop, where a picture was decoded smaller.
    """
    rows, columns = (min(have, CLOSER * seen) for have, seen in zip(pixels.shape[:2], shrunk.shape[:2]))
    if (rows, columns) == pixels.shape[:2] and part is None:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BICUBIC, box=part))


def _beyond(specimen: Specimen, size: tuple[int, int]) -> str | None:
    """Says where a box reaches past the picture's edge by more than a pixel, which rounding explains; the specimen is read as far as the
    picture goes.
    """
    if specimen.box is None:
        return None
    x, y, width, height = specimen.box
    if min(x, y) >= -1 and x + width <= size[1] + 1 and y + height <= size[0] + 1:
        return None
    return (
        f"the box x={x:g} y={y:g} width={width:g} height={height:g} reaches past the edge of the upright picture of {size[1]} x "
        f"{size[0]} pixels; "
        "it was read as far as the picture goes."
    )


def _pixel_box(specimen: Specimen, outside: np.ndarray | None, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The specimen's box in whole pixels, inside the picture."""
    if specimen.box is not None:
        x, y, width, height = specimen.box
        left, top = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
        right, bottom = min(size[1], int(np.ceil(x + width))), min(size[0], int(np.ceil(y + height)))
        if right <= left or bottom <= top:
            raise ImageError(
                f"the box x={x:g} y={y:g} width={width:g} height={height:g} lies outside the upright picture of {size[1]} x "
                f"{size[0]} pixels."
            )
        return left, top, right - left, bottom - top
    if outside is not None:
        rows, columns = np.flatnonzero(~outside.all(axis=1)), np.flatnonzero(~outside.all(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
    return 0, 0, size[1], size[0]


def _cut(
    pixels: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int], hide: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Cuts the box out of the stored pixels, which may be fewer than the original's, and brings the mask to their size."""
    stored = pixels.shape[0], pixels.shape[1]
    left, top, width, height = box
    if stored != size:
        scale_y, scale_x = stored[0] / size[0], stored[1] / size[1]
        first_row, first_column = int(top * scale_y), int(left * scale_x)
        last_row = max(first_row + 1, round((top + height) * scale_y))
        last_column = max(first_column + 1, round((left + width) * scale_x))
        small = pixels[first_row:last_row, first_column:last_column]
    else:
        small = pixels[top : top + height, left : left + width]
    if hide is None or not hide.any():
        return small, None
    if hide.shape != small.shape[:2]:
        rows = np.minimum(
            ((np.arange(small.shape[0]) + 0.5) * hide.shape[0] / small.shape[0]).astype(int),
            hide.shape[0] - 1,
        )
        columns = np.minimum(
            ((np.arange(small.shape[1]) + 0.5) * hide.shape[1] / small.shape[1]).astype(int),
            hide.shape[1] - 1,
        )
        hide = hide[rows][:, columns]
    return small, hide


def _cut_reduced(picture: Picture, box: tuple[int, int, int, int]) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Cuts a box in original pixels out of a picture that was decoded smaller: the pixels that hold it, and where in them it lies."""
    left, top, width, height = (side / picture.reduction for side in box)
    top, left = top + picture.start[0], left + picture.start[1]
    first_row, first_column = int(top), int(left)
    pixels = picture.pixels[first_row : math.ceil(top + height), first_column : math.ceil(left + width)]
    return pixels, (left - first_column, top - first_row, left - first_column + width, top - first_row + height)


def prepare_crop(crop: Crop, plan: Plan) -> Prepared:
    """Second half of the resize policy, in the model's process: normalises and pads; the geometry is that of the original crop.

    Cells that are mostly under an ``--ignore`` mask are not valid: the model never attends to them.
    """
    from concept_cam.collection.measures import cell_coverage
    from concept_cam.pictures.reading import Picture
    from concept_cam.pictures.resizing import prepare, squash

    height, width = crop.pixels.shape[:2]
    policy = plan.settings.resize
    if policy == "aspect":  # the worker has resized it to the target, so that what is left is what "squash" does at that size
        prepared = squash(crop.pixels, plan.preprocess, (height, width))
    else:
        prepared = prepare(Picture(crop.pixels), plan.preprocess, policy, plan.settings.size)
    geometry = prepared.geometry
    scale = geometry.scale[0] * height / crop.size[0], geometry.scale[1] * width / crop.size[1]
    geometry = replace(geometry, policy=policy, original=crop.size, scale=scale)
    valid = prepared.valid
    if crop.hidden is not None:
        readable = valid & (cell_coverage(crop.hidden, geometry) <= 0.5)
        # A model must see something; what is left of a nearly covered picture is at most a sliver of single cells.
        valid = readable if readable.any() else valid
    return replace(prepared, geometry=geometry, valid=valid)
