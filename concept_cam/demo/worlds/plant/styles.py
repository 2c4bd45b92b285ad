"""How photographs of leaves differ from the plain world, and what states go together in kinds of plants. Tables only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from concept_cam.demo.worlds.draws import Style

STATE_WEIGHTS: Final[dict[str, tuple[float, ...]]] = {
    "leaf_shape": (0.5, 0.7, 1, 1.2, 1.2, 0.9, 1, 0.8),
    "leaf_division": (2.6, 1, 1, 1),
}
"""Weights of the states where they are not alike, in the order of the characters' states."""


def _kind(weight: float, **states: str) -> tuple[float, Mapping[str, Mapping[str, float]]]:
    """A kind of plants: character -> the usual states, the likeliest first."""
    tastes = {name: {state: 1.0 / (k + 1) for k, state in enumerate(text.split())} for name, text in states.items()}
    return weight, {f"leaf_{name}": taste for name, taste in tastes.items()}


KINDS: Final[Sequence[tuple[float, Mapping[str, Mapping[str, float]]]]] = (
    # Maples, oaks, ivies.
    _kind(1.5, shape="round heart_shaped", margin="lobed", division="simple", venation="palmate", arrangement="opposite alternate"),
    _kind(1.2, shape="elliptic ovate", margin="lobed", division="simple", venation="pinnate", arrangement="alternate"),
    # Beeches, elms, cherries; limes; willows.
    _kind(2.0, shape="ovate elliptic", margin="serrate crenate wavy", division="simple", venation="pinnate", arrangement="alternate"),
    _kind(1.2, shape="heart_shaped", margin="serrate entire", division="simple", venation="palmate netted", arrangement="alternate"),
    _kind(1.2, shape="lanceolate linear", margin="entire serrate", division="simple", venation="pinnate", arrangement="alternate opposite"),
    # Hollies; evergreens.
    _kind(0.8, shape="elliptic ovate", margin="spiny", division="simple", surface="glossy matt", arrangement="alternate"),
    _kind(
        1.2, shape="elliptic ovate round", margin="entire", division="simple", surface="glossy", arrangement="alternate opposite whorled"
    ),
    # Grasses and lilies; conifers.
    _kind(0.9, shape="linear lanceolate", margin="entire", division="simple", venation="parallel", arrangement="alternate rosette"),
    _kind(0.5, shape="needle", margin="entire", division="simple", arrangement="alternate whorled"),
    # Roses, ashes; chestnuts, lupins; clovers, strawberries.
    _kind(1.3, shape="elliptic ovate lanceolate", margin="serrate entire", division="pinnate", arrangement="alternate opposite"),
    _kind(0.9, shape="lanceolate elliptic", margin="serrate entire", division="palmate", arrangement="opposite alternate"),
    _kind(0.9, shape="round elliptic ovate", margin="entire serrate crenate", division="trifoliate", arrangement="alternate rosette"),
    # Mints and sages; plantains, primroses; arums.
    _kind(1.0, shape="ovate lanceolate", margin="crenate serrate", division="simple", surface="wrinkled hairy", arrangement="opposite"),
    _kind(
        0.8,
        shape="ovate elliptic round",
        margin="entire crenate wavy",
        division="simple",
        venation="parallel pinnate",
        arrangement="rosette",
    ),
    _kind(0.5, shape="arrow_shaped", margin="entire wavy", division="simple", venation="pinnate netted", surface="glossy matt"),
)
"""Weight, and character -> state -> weight, of kinds of plants that photographs show. A character left out is drawn as usual."""

_PHOTOGRAPH: Final = Style(
    ranges={
        "exposure.blur": (0.0, 1.15),
        "exposure.gain": (0.68, 1.3),
        "exposure.noise": (0.0, 1.2),
        "exposure.saturation": (0.6, 1.2),
        "balance.warm": (-1.25, 1.25),
        "shadow.strength": (0.0, 0.85),
        "light.vignette": (0.0, 1.15),
        "light.fall": (0.0, 1.5),
        "sun.ambient": (0.25, 0.75),
        "camera.share": (0.35, 1.0),
        "camera.tight_share": (0.14, 0.14),
        "camera.cut_share": (0.25, 0.25),
        "leaf.bitten_share": (0.3, 0.3),
        "ground.soft": (0.0, 0.8),
        "leaf.spots": (0.9, 3.0),
        "view.tilt": (0.0, 1.0),
        "plant.shoots": (0.55, 0.55),
    },
    chances={"kind.followed": 0.6, "jpeg": 0.5, "motion": 0.06},
    weights={"several": (0.86, 0.07, 0.04, 0.03), "object0": (5.0, 0.8, 0.6, 0.3, 0.6, 0.9, 0.7, 0.3)},
    scenes={"herbarium": 1.5, "plain": 1.5, "ground": 1.3, "growing": 3.0},
)

STYLES: Final[dict[str, Style]] = {"plain": Style(), "photograph": _PHOTOGRAPH}
"""Style -> what it draws otherwise."""

PROFILES: Final[dict[str, dict[str, float]]] = {"plain": {"plain": 1.0}, "photographs": {"plain": 0.2, "photograph": 0.8}}
"""Profile -> shares of the styles."""
