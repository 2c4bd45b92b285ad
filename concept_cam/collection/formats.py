"""Which number format a tower is fastest in on this machine, found by trying, with maps that stay the same within a tolerance."""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from concept_cam.backbones.int8 import INT8
from concept_cam.backbones.machine import least_seconds, remembered
from concept_cam.backbones.precision import WORTH, computes_in_bfloat16
from concept_cam.collection.run_folder import DTYPE_FILE
from concept_cam.core.errors import ConceptCamError, ImageError
from concept_cam.core.quiet import quiet
from concept_cam.localizer import Localizer
from concept_cam.pictures.limits import byte_limit
from concept_cam.trust.probes import NEUTRAL

if TYPE_CHECKING:
    from concept_cam.collection.inputs.items import Item
    from concept_cam.core.settings import Settings
    from concept_cam.pictures.resizing import Prepared

__all__ = ["FEW", "TOLERANCE", "Choice", "Tried", "fastest", "shared"]

TOLERANCE = 0.999
"""Least median correlation of a format's maps with those of float32."""

FEW = 200
"""For fewer pictures no tower is exported: making an int8 one takes as long as encoding some dozens."""

SAMPLE = 2
"""Pictures that formats are tried on."""

_ROUNDS = 3


@dataclass(frozen=True)
class Tried:
    """What came of a format.

    Attributes:
        gain: How many times as fast as float32.
        agreement: Median correlation of its maps with those of float32.
        lowest: Lowest such correlation.
        error: Why it could not be tried; empty where it was.
    """

    gain: float = 0.0
    agreement: float = 0.0
    lowest: float = 0.0
    error: str = ""

    @property
    def good(self) -> bool:
        """Whether it is worth using."""
        return not self.error and self.gain >= WORTH and self.agreement >= TOLERANCE


@dataclass(frozen=True)
class Choice:
    """The number format of a tower, and why.

    Attributes:
        dtype: A name of :data:`concept_cam.core.settings.DTYPES`.
        tried: What came of each other format than float32.
    """

    dtype: str
    tried: Mapping[str, Tried] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for people."""
        if self.dtype in self.tried:
            own = self.tried[self.dtype]
            return f"the tower computes in {self.dtype}, {own.gain:.1f} times as fast as float32; maps correlate by {own.agreement:.4f}."
        others = "; ".join(
            f"{name}: {tried.error or f'{tried.gain:.1f} times as fast, maps correlate by {tried.agreement:.4f}'}"
            for name, tried in self.tried.items()
        )
        return f"the tower computes in {self.dtype}{f' ({others})' if others else ''}."

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {"dtype": self.dtype, "tried": {name: asdict(tried) for name, tried in self.tried.items()}}

    @classmethod
    def of(cls, tried: Mapping[str, Tried]) -> Choice:
        """Chooses the fastest format whose maps stay nearly the same."""
        good = [name for name, found in tried.items() if found.good]
        return cls(max(good, key=lambda name: tried[name].gain, default="float32"), dict(tried))


def fastest(
    model: str, device: str, settings: Settings | None, items: Iterable[Item], count: Callable[[], int | None]
) -> tuple[Localizer, Choice]:
    """Loads a model in the number format that it is fastest in on this machine.

    On a GPU that is bfloat16 where the GPU has it. On a CPU the tower itself is tried on two pictures of the collection in each format that
    is possible: bfloat16 where the processor is fast in it, and int8 where the extra ``[int8]`` is installed and there are pictures
    enough. What was found is remembered for this tower on this machine.

    Args:
        model: Model name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        settings: How pictures are read and scored.
        items: The collection; the first pictures are read.
        count: Counts it; ``None`` where that is unknown, which counts as many.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not device.startswith("cpu"):
        dtype = "bfloat16" if computes_in_bfloat16(device) else "float32"
        return Localizer.from_pretrained(model, device=device, dtype=dtype, settings=settings), Choice(dtype)
    plain = Localizer.from_pretrained(model, device=device, settings=settings)
    names = ["bfloat16"] if computes_in_bfloat16(device) else []
    if plain.backbone.transformer is not None and importlib.util.find_spec("onnxruntime") is not None:
        known = count()
        if known is None or known >= FEW:
            names.append(INT8)
    loaded = {"float32": plain}

    def load(name: str) -> Localizer:
        return Localizer.from_pretrained(model, device=device, dtype=name, settings=settings)

    def measure() -> dict[str, Any]:
        pictures = _sample(plain, items)
        found: dict[str, Tried] = {}
        for name in names:
            try:
                loaded[name] = load(name)
                found[name] = compared(plain, loaded[name], pictures)
            except (ConceptCamError, RuntimeError) as error:
                found[name] = Tried(error=str(error).splitlines()[0])
        return {name: asdict(tried) for name, tried in found.items()}

    if not names:
        return plain, Choice("float32")
    what = {"tower": plain.backbone.weights_hash, "formats": names, **_read_as(plain)}
    tried = remembered(what, torch.device("cpu"), measure)
    choice = Choice.of({name: Tried(**tried[name]) for name in names})
    return loaded.get(choice.dtype) or load(choice.dtype), choice


def _read_as(localizer: Localizer) -> dict[str, Any]:
    settings = localizer.settings
    return {"size": settings.size, "attention": settings.attention, "resize": settings.resize, "views": localizer.views}


def _sample(localizer: Localizer, items: Iterable[Item]) -> list[Prepared]:
    """The first pictures of a collection that can be read; noise where there is none."""
    found: list[Prepared] = []
    for item in islice(items, 5 * SAMPLE):
        with suppress(Exception):  # what is wrong with a picture is said when it is annotated
            raw = item.payload.read(byte_limit(localizer.settings.max_pixels))
            found.append(localizer.prepare(raw.content))
        if len(found) == SAMPLE:
            break
    if not found:
        height, width = localizer.preprocess.default_size
        found.append(localizer.prepare(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)))
    return found


@quiet(graph=False)
def compared(plain: Localizer, other: Localizer, pictures: Sequence[Prepared]) -> Tried:
    """Times a localizer against one in float32 and compares their maps of neutral words, and of contrasts between such words.

    Args:
        plain: In float32.
        other: The same model in another format.
        pictures: Inputs of the model.

    Raises:
        ImageError: The other format gives NaN.
    """
    with torch.inference_mode():
        seconds = least_seconds(
            [lambda localizer=localizer: localizer.encode_prepared(pictures[:1], steady=True) for localizer in (plain, other)],  # type: ignore[misc]
            plain.backbone.device,
            _ROUNDS,
        )
        texts = plain.embed_texts([(word,) for word in NEUTRAL])
        along = torch.cat([texts, texts[1:] - texts[:-1]])
        found: list[float] = []
        for picture in pictures:
            one, two = (
                F.normalize(localizer.encode_prepared([picture], steady=True)[0].patches.flatten(0, 1), dim=-1) @ along.T
                for localizer in (plain, other)
            )
            seen = torch.from_numpy(picture.valid.ravel())
            found += [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(one[seen].T, two[seen].T)]
    values = np.array(found)
    values = values[np.isfinite(values)]  # flat maps have none
    if not values.size:
        raise ImageError("its maps are flat.")
    return Tried(seconds[0] / seconds[1], float(np.median(values)), float(values.min()))


def shared(choice: Choice, folder: Path) -> str:
    """Returns the number format that all shards of a run use: this one, unless another task has chosen before.

    Args:
        choice: What was found here.
        folder: The run's folder, above those of its shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DTYPE_FILE
    own = folder / f".dtype.{uuid.uuid4().hex}.partial"
    own.write_text(json.dumps({"dtype": choice.dtype}), encoding="utf-8")
    try:
        os.link(own, path)  # fails where it is there: the first task decides
    except OSError:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(path.read_text(encoding="utf-8"))["dtype"])
        os.replace(own, path)  # a file system without links, or a damaged file
    finally:
        with suppress(OSError):
            own.unlink()
    return choice.dtype
