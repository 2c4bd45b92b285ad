"""Pictures that come with the package and with scikit-image, with texts that say what they show: for looking a model over.

The photographs are those that scikit-image's wheel holds, so that nothing is downloaded; the fishes are rendered here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from concept_cam.core.errors import DataError
from concept_cam.demo.worlds import WORLDS

__all__ = ["PHOTOGRAPHS", "Captioned", "fishes", "photographs"]

PHOTOGRAPHS: dict[str, dict[str, str]] = {
    "astronaut": {"en": "an astronaut in an orange space suit", "zh": "一名穿橙色太空服的宇航员"},
    "cat": {"en": "a cat", "zh": "一只猫"},
    "coffee": {"en": "a cup of coffee", "zh": "一杯咖啡"},
    "rocket": {"en": "a rocket on its launch pad", "zh": "发射台上的火箭"},
    "horse": {"en": "a horse", "zh": "一匹马"},
    "camera": {"en": "a man with a camera on a tripod", "zh": "一个拿着相机的男人"},
    "coins": {"en": "old coins", "zh": "古代硬币"},
    "brick": {"en": "a brick wall", "zh": "砖墙"},
    "grass": {"en": "grass", "zh": "草地"},
    "gravel": {"en": "gravel", "zh": "碎石"},
    "moon": {"en": "the surface of the moon", "zh": "月球表面"},
    "page": {"en": "a page of printed text", "zh": "一页印刷的文字"},
    "stereo_motorcycle": {"en": "a motorcycle", "zh": "一辆摩托车"},
    "hubble_deep_field": {"en": "galaxies in deep space", "zh": "太空中的星系"},
    "retina": {"en": "the retina of an eye", "zh": "眼睛的视网膜"},
}
"""Function of ``skimage.data`` -> what it shows, by language."""

COLOURS: dict[str, str] = {
    "silver": "银色", "brown": "棕色", "yellow": "黄色", "red": "红色", "blue": "蓝色", "green": "绿色", "black": "黑色",
}  # fmt: skip
"""Colours of the rendered fishes, in Chinese too."""

LEAST = 8
"""Photographs that a comparison needs."""


@dataclass(frozen=True, eq=False)
class Captioned:
    """A picture and what it shows.

    Attributes:
        pixels: uint8 [H, W, 3].
        texts: Language -> text.
    """

    pixels: np.ndarray
    texts: Mapping[str, str]


def photographs() -> list[Captioned]:
    """Returns the photographs that are on this machine.

    Raises:
        DataError: Fewer than are needed: this scikit-image was installed without its pictures.
    """
    from skimage import data

    found = []
    for name, texts in PHOTOGRAPHS.items():
        try:
            picture = getattr(data, name)()
        except Exception:  # Left out of this wheel, and no network: fewer do as well.
            continue
        picture = np.asarray(picture[0] if isinstance(picture, tuple) else picture)
        grey = picture[..., None].repeat(3, axis=2) if picture.ndim == 2 else picture[..., :3]
        pixels = (grey * 255).astype(np.uint8) if grey.dtype == bool else grey
        found.append(Captioned(np.ascontiguousarray(pixels), {lang: _photo(lang, text) for lang, text in texts.items()}))
    if len(found) < LEAST:
        raise DataError(f"only {len(found)} of scikit-image's photographs are here; reinstall scikit-image.")
    return found


def fishes(each: int = 2, size: tuple[int, int] = (192, 288), seed: int = 11) -> list[Captioned]:
    """Renders plain fishes, ``each`` of every colour; a text names the colour.

    Args:
        each: Fishes of a colour.
        size: ``(H, W)`` of the pictures.
        seed: Equal seeds give equal pictures.
    """
    colours = list(COLOURS) * each
    world = WORLDS["fish"]
    specimens = world.twin(world.twin(world.sample(len(colours), seed, view="whole"), "body_colour", colours), "pattern", "plain")
    pictures = world.render(specimens, size).images.permute(0, 2, 3, 1).cpu().numpy()
    texts = [{"en": f"a photo of a {colour} fish", "zh": f"一条{COLOURS[colour]}的鱼的照片"} for colour in colours]
    return [Captioned(np.ascontiguousarray(picture), text) for picture, text in zip(pictures, texts)]


def _photo(language: str, text: str) -> str:
    return f"a photo of {text}" if language == "en" else f"{text}的照片"
