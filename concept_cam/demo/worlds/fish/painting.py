"""Paint fishes: outlines to coverage, coverage to part masks, and colours under light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from concept_cam.demo.worlds.draws import Draws, Float
from concept_cam.demo.worlds.fish.anatomy import PLATE, Anatomy
from concept_cam.demo.worlds.fish.traits import CHARACTERS
from concept_cam.demo.worlds.sampling import Reading, lookup, reading, texture
from concept_cam.demo.worlds.textures import TEXTURE_KINDS, Atlas

TWO_PI = 2 * np.pi

Numbers = Callable[[str], torch.Tensor]

_PALETTE: dict[str, tuple[tuple[float, float, float], ...]] = {
    "silver": ((0.33, 0.37, 0.41), (0.64, 0.67, 0.69), (0.90, 0.90, 0.88)),
    "brown": ((0.22, 0.15, 0.10), (0.43, 0.30, 0.18), (0.72, 0.61, 0.46)),
    "yellow": ((0.56, 0.46, 0.10), (0.86, 0.72, 0.16), (0.95, 0.89, 0.56)),
    "red": ((0.42, 0.09, 0.07), (0.76, 0.19, 0.13), (0.93, 0.66, 0.58)),
    "blue": ((0.07, 0.13, 0.36), (0.16, 0.33, 0.68), (0.62, 0.73, 0.88)),
    "green": ((0.11, 0.21, 0.08), (0.25, 0.44, 0.17), (0.70, 0.76, 0.50)),
    "black": ((0.05, 0.05, 0.06), (0.11, 0.11, 0.12), (0.27, 0.26, 0.25)),
}
"""Colours of back, flank and belly, sRGB."""


@dataclass(frozen=True)
class Coat:
    """Colours and light of B fishes: name -> float32 [B] or [B, 3]."""

    numbers: dict[str, Float]
    colours: dict[str, Float]
    pattern: npt.NDArray[np.str_]


@dataclass(frozen=True)
class Ingredients:
    """What `paint` needs of b fishes: numbers [b, 1, 1], colours [b, 3, 1, 1], shape tables [b, N], how they read the skin
    texture, and which patterns and whether barbels, far fins and fishes that are not seen flat from their side occur among them.
    """

    numbers: dict[str, torch.Tensor]
    colours: dict[str, torch.Tensor]
    tables: dict[str, torch.Tensor]
    skin: Reading
    patterns: tuple[str, ...]
    barbels: bool
    far: bool
    posed: bool = False


@dataclass(frozen=True)
class Painted:
    """A painted fish before it is put into its scene.

    Attributes:
        rgb: float32 [b, 3, H, W], colour where there is fish.
        cover: float32 [b, H, W] in [0, 1], how much the fish hides of what lies behind.
        solid: float32 [b, H, W] in [0, 1], coverage of body and fins as a shadow caster.
        parts: name -> float32 [b, H, W] coverage of each part.
    """

    rgb: torch.Tensor
    cover: torch.Tensor
    solid: torch.Tensor
    parts: dict[str, torch.Tensor]


def _apart(rgb: Float, ground: Float, least: float | Float) -> Float:
    """Colours [B, 3] made lighter or darker until they differ from the ground [B, 3] by `least` in brightness."""
    own, other = rgb.mean(axis=1), ground.mean(axis=1)
    lighter = np.where(other < 0.22, True, np.where(other > 0.75, False, own > other))
    wanted = np.where(lighter, np.maximum(own, other + least), np.minimum(own, np.maximum(other - least, 0.02)))
    return np.asarray(np.clip(rgb * (wanted / np.maximum(own, 0.02))[:, None], 0, 1), dtype=np.float32)


def coat(draws: Draws, states: npt.NDArray[np.int64], facing: Float, angle: Float, ground: Float) -> Coat:
    """Colours, pattern and light of every fish; `ground` [B, 3] is the colour from which it has to be told apart."""
    names = list(CHARACTERS)
    hue = np.array(CHARACTERS["body_colour"])[states[:, names.index("body_colour")]]
    pattern = np.array(CHARACTERS["pattern"])[states[:, names.index("pattern")]]
    palette = np.array([_PALETTE[str(name)] for name in hue], dtype=np.float32).reshape(-1, 3, 3)
    jitter = np.stack([draws(f"coat.{c}", 0.90, 1.10) for c in "rgb"], axis=1)
    value = draws("coat.value", 0.82, 1.15)
    grey = palette.mean(axis=2, keepdims=True)
    palette = grey + (palette - grey) * draws("coat.saturation", 0.60, 1.05)[:, None, None]
    palette = np.clip(palette * jitter[:, None, :] * value[:, None, None], 0, 1)
    back, flank, belly = palette[:, 0], _apart(palette[:, 1], ground, 0.07), palette[:, 2]
    contrast = draws("coat.countershade", 0.35, 1.1)[:, None]
    back, belly = flank + contrast * (back - flank), flank + contrast * (belly - flank)
    # Many fishes of any colour have a white belly; none in the plain style, which has what the palette says.
    pale_belly = belly + (np.array([0.88, 0.86, 0.82]) - belly) * draws("coat.pale_share", 0.5, 1.0)[:, None]
    belly = np.where(draws.chance("coat.pale", 0.0)[:, None], pale_belly.astype(np.float32), belly)
    # Markings are darker than the flank; on dark fishes, and now and then on others, they are lighter.
    dark_fish = flank.mean(axis=1) < 0.22
    light_mark = dark_fish | (draws.chance("pattern.light", 0.25) & (flank.mean(axis=1) < 0.42))
    strength = draws("pattern.strength", 0.62, 0.95)[:, None]
    pale = np.array([0.88, 0.85, 0.74], dtype=np.float32)
    mark = np.where(light_mark[:, None], flank + (pale - flank) * strength, flank * (1 - strength))
    fin_dark = draws("fin.dark", 0.40, 1.0)[:, None]
    tint_pick = draws.choice("fin.tint", (0.42, 0.26, 0.14, 0.18))
    tints = np.array([[1, 1, 1], [0.50, 0.12, 0.12], [0.85, 0.62, 0.25], [0.22, 0.20, 0.22]], dtype=np.float32)
    tint_share = np.where(tint_pick > 0, draws("fin.tint_share", 0.25, 0.95), 0.0)[:, None]
    fin = 0.45 * back + 0.55 * flank
    fin = (fin * (1 - tint_share) + tints[tint_pick] * tint_share) * fin_dark
    fin = _apart(fin, ground, 0.16)
    # Towards its margin a fin may take another colour: blood, black or a pale hem.
    rim_pick = draws.choice("fin.rim", (0.45, 0.25, 0.18, 0.12))
    rims = np.array([[0, 0, 0], [0.42, 0.08, 0.10], [0.10, 0.09, 0.10], [0.85, 0.80, 0.74]], dtype=np.float32)
    rim_share = np.where(rim_pick > 0, draws("fin.rim_share", 0.3, 0.9), 0.0)[:, None]
    rim = _apart(fin + (rims[rim_pick] - fin) * rim_share, ground, 0.12)
    # Wet skin glitters; strong rays stand out of a thin membrane.
    wet, bony = draws.chance("coat.wet", 0.25), draws.chance("fin.bony", 0.35)
    iris_pick = draws.choice("eye.iris", (0.4, 0.25, 0.1, 0.25))
    irises = np.array([[0.75, 0.68, 0.40], [0.72, 0.73, 0.72], [0.70, 0.25, 0.15], [0.20, 0.17, 0.13]], dtype=np.float32)
    numbers = {
        **sunlight(draws, facing, angle),
        "gloss": draws("coat.gloss", 0.0, 1.0) ** 2 * 0.55,
        "gloss_place": draws("coat.gloss_place", 0.1, 0.65),
        "gloss_width": draws("coat.gloss_width", 4.0, 25.0),
        "glint": draws("coat.glint", 0.0, 1.0) ** 2 * 0.5 + 0.6 * wet,
        "sheen": np.maximum(draws("coat.sheen", 0.0, 0.0), 0.0),
        "sheen_place": draws("coat.sheen_place", -0.2, 0.75),
        "sheen_width": draws("coat.sheen_width", 1.6, 6.0),
        "back_edge": draws("coat.back_edge", 0.0, 0.45),
        "belly_edge": draws("coat.belly_edge", -0.10, 0.60),
        "edge_soft": draws("coat.edge_soft", 1.2, 4.0),
        "edge_wander": draws("coat.edge_wander", 0.0, 0.28),
        "blush": draws("coat.blush") ** 3 * 0.5,
        "fin_edge": draws("fin.edge", 0.0, 0.55),
        "fin_flesh": np.maximum(draws("fin.flesh", 0.0, 0.0), 0.0),
        "fin_pale": draws("fin.pale", 0.0, 0.0),
        "blotch": draws("coat.blotch", 0.02, 0.11),
        "grain": draws("coat.grain", 0.02, 0.07),
        "scales": draws("coat.scales", 0.0, 0.16) * draws.chance("coat.scaly", 0.75),
        "scale_rate": draws("coat.scale_rate", 34.0, 62.0),
        "head_dark": draws("head.dark", 0.72, 1.05),
        "operculum_dark": draws("operculum.dark", 0.45, 0.85),
        "cheek_dark": draws("cheek.dark", -0.2, 0.4),
        "line_dark": draws("line.dark", -0.5, 0.75),
        "mark_rate": draws("pattern.rate", 0.0, 1.0),
        "mark_phase": draws("pattern.phase", 0.0, 6.28),
        "mark_wobble": draws("pattern.wobble", 0.2, 0.9),
        "mark_sharp": draws("pattern.sharp", 1.5, 4.0),
        "mark_fade": draws("pattern.fade", 0.0, 0.8),
        "skin_rate": draws("skin.rate", 460.0, 820.0),
        "skin_u": draws("skin.u", 0.0, 3.0),
        "skin_v": draws("skin.v", 0.0, 3.0),
        "fin_opaque": draws("fin.opaque", 0.55, 0.98),
        "ray_soft": draws("fin.ray_soft", 0.14, 0.42) * np.where(bony, 1.8, 1.0),
        "ray_spiny": draws("fin.ray_spiny", 0.35, 0.70),
        "iris_dark": draws("eye.dark", 0.5, 1.0),
        "pupil": draws("eye.pupil", 0.48, 0.68),
        "barbel_dark": draws("barbel.dark", 0.15, 0.9),
        "mouth_dark": draws("mouth.dark", 0.06, 0.35),
    }
    # A pale line shows on dark fishes, a dark one on the rest; none is too faint to be seen.
    faint = np.sign(numbers["line_dark"] + 1e-6) * np.maximum(np.abs(numbers["line_dark"]), 0.28)
    numbers["line_dark"] = np.where(dark_fish, -np.abs(faint) * 1.6, faint)
    pectoral = fin * draws("pectoral.tone", 0.75, 1.3)[:, None]
    # Barbels have the skin's colour, or are dark; in photographs some are red with blood and some pale.
    barbel_tints = np.array([[0, 0, 0], [0.50, 0.12, 0.12], [0.80, 0.70, 0.62]], dtype=np.float32)
    barbel_pick = draws.choice("barbel.tint", (1.0, 0.0, 0.0))
    barbel = flank * (1 - numbers["barbel_dark"][:, None])
    barbel = barbel + (barbel_tints[barbel_pick] - barbel) * np.where(barbel_pick > 0, draws("barbel.tint_share", 0.4, 0.9), 0.0)[:, None]
    barbel = _apart(barbel, ground, draws("barbel.apart", 0.18, 0.18))
    colours = {
        "back": back,
        "flank": flank,
        "belly": belly,
        "mark": mark,
        "fin": fin,
        "fin_rim": rim,
        "pectoral": pectoral,
        "iris": irises[iris_pick] * numbers["iris_dark"][:, None],
        "barbel": barbel,
        "spot": np.stack([draws(f"eye_spot.{c}", 0.02, 0.08) for c in "rgb"], axis=1),
        "spot_ring": np.array([[0.92, 0.88, 0.70], [0.90, 0.55, 0.20], [0.93, 0.93, 0.93]], dtype=np.float32)[
            draws.choice("eye_spot.ring", (0.5, 0.25, 0.25))
        ],
    }
    f32 = np.float32
    return Coat(
        {k: v.astype(f32) for k, v in numbers.items()},
        {k: v.astype(f32) for k, v in colours.items()},
        pattern,
    )


def sunlight(draws: Draws, facing: Float, angle: Float) -> dict[str, Float]:
    """Light of the scene on fishes that lie as `facing` and `angle` say: name -> float32 [B]."""
    # Light comes mostly from above the picture; in fish coordinates it turns with the fish.
    sun = draws("light.direction", -np.pi, np.pi)
    sun = np.where(draws.chance("light.above", 0.7), 0.35 * sun, sun)
    lean = draws("light.lean", 0.15, 0.75)
    light_x, light_y = np.sin(sun) * lean, np.cos(sun) * lean
    return {
        "light_u": -facing * (light_x * np.cos(angle) - light_y * np.sin(angle)),
        "light_v": light_x * np.sin(angle) + light_y * np.cos(angle),
        "light_z": np.sqrt(1 - lean**2),
        "ambient": draws("light.ambient", 0.42, 0.68),
        "diffuse": draws("light.diffuse", 0.45, 0.75),
    }


def coat_numbers(anatomy: Anatomy, coat: Coat, scale: Float) -> dict[str, Float]:
    """The per-picture numbers that `paint` needs: name -> float32 [B]."""
    return {
        **anatomy.values,
        **coat.numbers,
        **{f"has.{name}": flags.astype(np.float32) for name, flags in anatomy.present.items()},
        **{f"is.{name}": (coat.pattern == name).astype(np.float32) for name in PATTERNS},
        "scale": scale,
    }


def skin_reading(coat: Coat, scale: Float, rows: slice, atlas: Atlas, device: torch.device) -> Reading:
    """How the fishes in `rows` read the skin texture."""
    kinds = np.full(len(scale[rows]), TEXTURE_KINDS.index("skin"))
    return reading(atlas, kinds, coat.numbers["skin_rate"][rows], scale[rows], device)


def paint(what: Ingredients, texels: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> Painted:
    """Paint fishes at body coordinates (u, v), float32 [b, H, W]."""
    device, px = u.device, what.numbers["scale"]
    a = c = what.numbers.__getitem__
    rgb_of, table = what.colours.__getitem__, what.tables.__getitem__

    def cover(distance: torch.Tensor) -> torch.Tensor:
        """Coverage from a signed distance in standard lengths: an edge one pixel wide."""
        return (distance * px).add_(0.5).clamp_(0, 1)

    parts: dict[str, torch.Tensor] = {}
    upper, lower = lookup(table("upper"), u), lookup(table("lower"), u)
    seen_as = _rolled(u, v, upper, lower, lookup(table("width"), u), a) if what.posed else _flat(v, upper, lower)
    above, below = seen_as.above, seen_as.below
    body = cover(torch.minimum(-torch.maximum(seen_as.over, seen_as.under), torch.minimum(u, 1.012 - u)))

    # Median fins: a height over the outline, read along the leaning rays.
    w_dorsal = u - a("dorsal_slant") * above
    height = lookup(table("dorsal"), w_dorsal)
    w_ventral = u - a("ventral_slant") * below
    depth = lookup(table("ventral"), w_ventral)
    if seen_as.fins is None:
        dorsal_side, ventral_side = cover(_fin_distance(height, above)), cover(_fin_distance(depth, below))
    else:
        # Foreshortened; a fin that stands on the near side of the body begins at its root.
        dorsal_side, ventral_side = (
            cover(_fin_distance(high, off, 0.03 - 0.027 * near) * squeezed.abs())
            for high, off, near, squeezed in (
                (height, above, a("pose.back"), seen_as.fins[0]),
                (depth, below, a("pose.belly"), seen_as.fins[1]),
            )
        )
    is_adipose = _step(w_dorsal - a("adipose_from"))
    is_anal = _step(w_ventral - a("anal_from"))

    # Caudal fin: a fan whose rays end at a margin.
    x = (u - 0.975) / a("caudal_length")
    inside = x.clamp(0.0, 1.6)
    bow = a("caudal_power")
    grow = torch.lerp(inside.sqrt(), inside, (bow - 0.5) * 2)
    across = v - a("caudal_tilt") * (u - 1.0)
    spread = a("caudal_spread")
    if what.posed:
        # Twisted or folded: each lobe is foreshortened by itself.
        across = across - a("pose.curl") * (u - 1.0) * (u - 1.0)
        spread = spread * torch.lerp(a("pose.tail_low"), a("pose.tail_up"), _step(across))
    half = torch.addcmul(a("caudal_base"), spread - a("caudal_base"), grow)
    if what.posed:
        half = half.clamp(min=0.008)
    t = across / half
    margin = lookup(table("caudal"), t * 0.5 + 0.5)
    reach = torch.minimum((margin - x) * a("caudal_length"), (1.0 - t.abs()) * half)
    on_caudal = _step(x)
    caudal = cover(reach) * on_caudal

    outside = 1.0 - body
    dorsal_seen, ventral_seen = dorsal_side * outside, ventral_side * outside
    skin_seen = body
    if what.posed:
        on_back, on_belly = dorsal_side * a("pose.back"), ventral_side * a("pose.belly")
        dorsal_seen, ventral_seen = torch.maximum(dorsal_seen, on_back), torch.maximum(ventral_seen, on_belly)
        skin_seen = body * (1.0 - torch.maximum(on_back, on_belly))
    parts["caudal_fin"] = caudal * outside
    parts["adipose_fin"] = dorsal_seen * is_adipose
    parts["dorsal_fin"] = dorsal_seen - parts["adipose_fin"]
    parts["anal_fin"] = ventral_seen * is_anal
    parts["pelvic_fin"] = ventral_seen - parts["anal_fin"]

    # Fin rays: one phase per pixel, whichever fin it is on.
    second = _step(w_dorsal - (a("dorsal_second_start") - 0.02))
    start = torch.lerp(a("dorsal_start"), a("dorsal_second_start"), second)
    phase_dorsal = (w_dorsal - start) * torch.lerp(a("dorsal_rate"), a("dorsal_second_rate"), second)
    on_top = _step(dorsal_side)
    phase = torch.lerp(w_ventral * a("ventral_rate"), phase_dorsal, on_top)
    phase = torch.lerp(phase, t * a("caudal_rays"), on_caudal)
    # Rays closer than two pixels cannot be seen apart: they fade.
    seen_dorsal = (1.6 - 3.2 * a("dorsal_rate") / px).clamp(0, 1)
    seen_ventral = (1.6 - 3.2 * a("ventral_rate") / px).clamp(0, 1)
    seen_caudal = (1.6 - 1.6 * a("caudal_rays") / (half * px)).clamp(0, 1)
    spiny = a("spiny")
    wave = torch.cos(phase * TWO_PI)
    seen = torch.lerp(torch.lerp(seen_ventral, seen_dorsal, on_top), seen_caudal, on_caudal)
    soft_rays = wave * c("ray_soft") * seen
    spine = ((wave * 2.4 - 1.4).clamp_(0, 1) - 0.3) * c("ray_spiny")
    fleshy = on_top * is_adipose
    ray = torch.lerp(soft_rays, spine, on_top * (1.0 - on_caudal) * spiny) * (1.0 - fleshy)

    skin = texture(texels, what.skin, u + c("skin_u"), v + c("skin_v"))
    blotch, medium, fine, spots = skin

    # The body as a rounded solid.
    span = (upper - lower).clamp(min=1e-3)
    if seen_as.turned is None or seen_as.screen is None:
        s = screen = ((2 * v - upper - lower) / span).clamp_(-1, 1)
    else:
        # From here on, v is the height of the point of the skin that is seen, and s its place between belly and back.
        s, screen = seen_as.turned, seen_as.screen
        v_seen, v = v, 0.5 * (upper + lower + span * s)
    round_z = (1.0 - screen * screen).clamp_(min=0.02).sqrt_()
    light = torch.addcmul(screen * c("light_v"), round_z, c("light_z")).add_((0.45 - u) * 0.5 * c("light_u")).clamp_(min=0)
    shade = torch.addcmul(c("ambient"), light, c("diffuse"))

    # Head, gill cover (the plate behind the cheek; its rim is the operculum line), lateral line.
    edge = a("operculum") + a("operculum_bulge") * (1.0 - 1.6 * s * s) - u
    head = cover(edge) * body
    trunk_share = 1.0 - cover(edge)
    off_rim = _step(0.82 - s.abs())
    line_width = torch.maximum(torch.full_like(px, 0.0045), 0.75 / px)
    operculum = (1.0 - edge.abs() / line_width).clamp_(0, 1) * off_rim
    cheek = (1.0 - (edge - PLATE * a("operculum")).abs() / line_width).clamp_(0, 1) * off_rim
    line_s = a("line_height") + a("line_arch") * (1.0 - u) * (1.0 - u)
    before_tail = _step(0.985 - u)
    line_width_v = torch.maximum(torch.full_like(px, 0.0035), 0.6 / px)
    off_line = (s - line_s).abs() * span * 0.5
    lateral = (1.0 - off_line / line_width_v).clamp_(0, 1) * trunk_share * before_tail

    # Colour: back, flank, belly; then markings.
    border = torch.addcmul(s, blotch, c("edge_wander"))
    to_back = ((border - c("back_edge")) * c("edge_soft")).clamp_(0, 1)
    to_belly = ((-border - c("belly_edge")) * c("edge_soft")).clamp_(0, 1)
    flank = rgb_of("flank")
    rgb = torch.addcmul(flank, to_back[:, None], rgb_of("back") - flank)
    rgb = rgb.addcmul_(to_belly[:, None], rgb_of("belly") - flank)
    for name in what.patterns:
        marks = _MARKS[name](u, s, blotch, medium, spots, c).mul_(c(f"is.{name}") * (0.25 + 0.75 * trunk_share))
        rgb = rgb + marks[:, None] * (rgb_of("mark") - rgb)

    # Blood under the skin, strongest on head and belly.
    red = (medium * 0.5 + 0.55 - 0.8 * s - 0.6 * trunk_share).clamp_(0, 1) * c("blush")
    rgb = rgb * (1.0 - red[:, None] * torch.tensor([0.10, 0.55, 0.50], device=device).view(1, 3, 1, 1))

    # Tone: everything that only brightens or darkens.
    rate = c("scale_rate") * TWO_PI
    scale_seen = (1.5 - 2.6 * c("scale_rate") / px).clamp(0, 1) * c("scales")
    rows_of_scales = torch.sin((u + v) * rate) * torch.sin((u - v) * rate)
    tone = 1.0 + c("blotch") * blotch + c("grain") * (medium + fine)
    tone = tone + rows_of_scales * scale_seen * trunk_share
    tone = tone * torch.lerp(torch.ones_like(px), c("head_dark"), 1.0 - trunk_share)
    tone = tone * (1.0 - operculum * c("operculum_dark")) * (1.0 - cheek * c("cheek_dark"))
    tone = tone * (1.0 - lateral * c("line_dark"))
    # Behind the gill cover lies its shadow.
    tone = tone * (1.0 - 0.22 * (1.0 + edge * 28).clamp_(0, 1) * trunk_share)
    shade = shade * tone
    off_gloss = screen - c("gloss_place")
    gloss = c("gloss") / (1.0 + c("gloss_width") * off_gloss * off_gloss) * (0.6 + 0.5 * medium).clamp_(0, 2)
    glint = (0.8 * medium + 0.4 * fine + 0.7 * blotch - 1.5).clamp_(0, 1) * c("glint") * round_z
    shine = gloss + glint
    if what.posed:
        # Wet skin mirrors a lamp as broad patches along the ridge that faces it.
        off_sheen = (screen - c("sheen_place") + 0.16 * blotch) * c("sheen_width")
        patches = (0.5 + 0.55 * blotch + 0.12 * medium).clamp_(0, 1)
        shine = shine + c("sheen") * (1.0 - off_sheen * off_sheen).clamp_(min=0) * patches
    rgb = torch.addcmul(shine[:, None], rgb, shade[:, None])

    # Fins behind the body.
    fin_cover = torch.maximum(caudal, torch.maximum(dorsal_side, ventral_side))
    # Fins darken or pale towards their margins.
    out_there = torch.maximum(x.clamp(0, 1) * on_caudal, (torch.maximum(above, below) * 9.0).clamp(0, 1) * (1.0 - on_caudal))
    fin_tone = (1.0 - c("fin_edge") * out_there + ray + 1.5 * c("grain") * medium + 0.12 * blotch) * (c("ambient") + 0.62 * c("diffuse"))
    fin_rgb = torch.lerp(rgb_of("fin"), rgb_of("fin_rim"), out_there[:, None]) * fin_tone[:, None]
    fleshy_body = rgb_of("back") * 0.9 * shade[:, None]
    fin_rgb = torch.lerp(fin_rgb, fleshy_body, fleshy[:, None])
    thick = c("fin_opaque") + 0.5 * ray.abs() - 0.12 * (x.clamp(0, 1) * on_caudal)
    if what.posed:
        # The skin of the stalk may reach onto the tail, farthest in its middle: what is left of the fin's own colour is a crescent.
        flesh = ((c("fin_flesh") * (1.0 - 0.6 * t.abs()) - x) * 8.0).clamp_(0, 1) * on_caudal
        pale = torch.tensor([0.86, 0.78, 0.74], device=device).view(1, 3, 1, 1)
        stalk = torch.lerp(0.5 * (flank + rgb_of("belly")), pale, c("fin_pale")[:, None])
        fin_rgb = torch.lerp(fin_rgb, stalk * fin_tone[:, None], flesh[:, None])
        thick = thick + flesh
    fin_alpha = fin_cover * torch.maximum(thick, fleshy).clamp_(0.3, 1)
    total = torch.maximum(body, fin_alpha)
    behind = body
    if what.posed:
        behind = body * (1.0 - torch.maximum(on_back, on_belly) * torch.maximum(thick, fleshy).clamp(0.3, 1))
        skin_v, v = v, v_seen
    rgb = torch.lerp(fin_rgb, rgb, behind[:, None])
    solid = torch.maximum(body, fin_cover)

    # Pectoral fins: fans, the far one behind the body, the near one over the flank.
    fan, fan_rays = _fan(u - a("pectoral_u"), v - a("pectoral_v"), a("pectoral_angle"), a, table("pectoral"), px)
    fan_light = c("ambient") + 0.7 * c("diffuse")
    fan_opaque = 0.5 + 0.45 * c("fin_opaque")
    if what.posed:
        fan = fan * torch.lerp(outside, torch.ones_like(body), a("pose.near_front"))
    pectoral = fan
    if what.far:
        far, far_rays = _fan(u - a("pectoral_u"), v - a("far_v"), a("far_angle"), a, table("pectoral"), px)
        shown = torch.lerp(outside, torch.ones_like(body), a("pose.far_front")) if what.posed else outside
        far = far * shown * a("has.far")
        far_tone = (0.8 + far_rays * c("ray_soft") + c("grain") * medium) * fan_light
        rgb = torch.lerp(rgb, rgb_of("pectoral") * far_tone[:, None], far[:, None])
        total = torch.maximum(total, far * fan_opaque)
        pectoral = torch.maximum(fan, far)
    fan_tone = (0.78 + fan_rays * c("ray_soft") + c("grain") * medium) * fan_light
    fan_alpha = fan * fan_opaque
    rgb = torch.lerp(rgb, rgb_of("pectoral") * fan_tone[:, None], fan_alpha[:, None])
    total = torch.maximum(total, fan_alpha)
    solid = torch.maximum(solid, pectoral)
    parts["pectoral_fin"] = pectoral
    not_pectoral = 1.0 - (pectoral if what.posed else fan)
    if what.posed:
        # What is drawn on the skin is hidden where a fin lies over it.
        not_pectoral = not_pectoral * (1.0 - torch.maximum(on_back, on_belly))
        body, v = skin_seen, skin_v

    # Eye spot, on fishes that have one.
    dx, dy = u - a("eye_spot_u"), v - a("eye_spot_v")
    radius = a("eye_spot_radius")
    off = torch.sqrt(dx * dx + dy * dy)
    spot = cover(radius - off) * (a("has.eye_spot") * body)
    spot_core = cover(0.68 * radius - off) * (a("has.eye_spot") * body)
    rgb = torch.lerp(rgb, rgb_of("spot_ring") * shade[:, None], spot[:, None])
    rgb = torch.lerp(rgb, rgb_of("spot") + 0.3 * gloss[:, None], spot_core[:, None])

    # Mouth: a gape that narrows from the lips into the head.
    dx, dy = u - a("mouth_u"), v - a("mouth_v")
    cos, sin = torch.cos(a("mouth_angle")), torch.sin(a("mouth_angle"))
    gape_along, gape_across = dx * cos + dy * sin, dy * cos - dx * sin
    gape_left = 1.0 - gape_along / a("mouth_length")
    gape_half = torch.maximum(0.5 * a("mouth_open") * gape_left, 0.7 / px)
    from_gape = torch.minimum(gape_half - gape_across.abs(), torch.minimum(gape_left * a("mouth_length"), gape_along + 0.012))
    mouth = cover(from_gape) * body
    lips = cover(from_gape + torch.maximum(0.010 + 0 * px, 1.2 / px)) * body
    rgb = rgb * (1.0 + 0.28 * (lips - mouth))[:, None]
    inner = flank * c("mouth_dark")[:, None] * torch.tensor([1.3, 0.7, 0.65], device=device).view(1, 3, 1, 1)
    rgb = torch.lerp(rgb, inner, mouth[:, None])

    # Eye.
    dx, dy = u - a("eye_u"), v - a("eye_v")
    radius = a("eye_radius")
    off = torch.sqrt(dx * dx + dy * dy)
    eye = cover(radius - off) * body
    pupil = cover(c("pupil") * radius - off)
    ring = cover(1.22 * radius - off) * body
    sparkle = cover(0.26 * radius - torch.sqrt((dx - 0.25 * radius) ** 2 + (dy - 0.3 * radius) ** 2))
    rgb = rgb * (1.0 - 0.35 * (ring - eye))[:, None]
    eye_rgb = rgb_of("iris") * ((1.0 - 0.93 * pupil) * c("ambient") * 1.5)[:, None] + (0.85 * sparkle)[:, None]
    rgb = torch.lerp(rgb, eye_rgb, eye[:, None])

    # Barbels, in front of everything.
    barbels = torch.zeros_like(u)
    if what.barbels:
        if what.posed:
            mirrored = _barbels(u, a("pose.mirror_v") - v_seen, px, a) * a("pose.both_barbels")
            barbels = torch.maximum(_barbels(u, v_seen, px, a), mirrored) * a("has.barbels")
        else:
            barbels = _barbels(u, v, px, a) * a("has.barbels")
        tone = (c("ambient") + 0.6 * c("diffuse"))[:, None]
        rgb = torch.lerp(rgb, rgb_of("barbel") * tone, barbels[:, None])
        total = torch.maximum(total, barbels)
        solid = torch.maximum(solid, 0.7 * barbels)
    parts["barbels"] = barbels

    parts["head"] = head * not_pectoral
    parts["trunk"] = body * trunk_share * not_pectoral
    parts["eye"], parts["mouth"] = eye, lips
    plate = torch.minimum(edge, PLATE * a("operculum") - edge)
    parts["operculum"] = cover(plate) * off_rim * body * not_pectoral
    # As wide as a person's outline of it would be.
    on_line = cover(torch.maximum(0.012 + 0 * px, 1.2 / px) - off_line) * trunk_share * before_tail
    parts["lateral_line"] = on_line * body * not_pectoral
    parts["eye_spot"] = spot
    return Painted(rgb, total, solid, parts)


def _fan(
    du: torch.Tensor,
    dv: torch.Tensor,
    angle: torch.Tensor,
    a: Numbers,
    margin: torch.Tensor,
    px: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coverage of a pectoral fin rooted at (0, 0) that points backwards and down by `angle`, and the wave of its rays."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    along = (du * cos - dv * sin) / a("pectoral_length")
    half = a("pectoral_spread") * (0.2 + 0.8 * along.clamp(0, 1.3))
    t = (du * sin + dv * cos) / half
    inside = torch.minimum((lookup(margin, t * 0.5 + 0.5) - along) * a("pectoral_length"), (1.0 - t.abs()) * half)
    cover = (inside * px + 0.5).clamp_(0, 1) * _step(along + 0.02)
    return cover, torch.cos(t * 28.0) * (1.6 - 7.0 / (half * px)).clamp_(0, 1)


def _step(x: torch.Tensor) -> torch.Tensor:
    """1 where x > 0, else 0, as float: comparisons and products with their truth values are slow on a CPU."""
    return (x * 1e6).clamp_(0, 1)


def _fin_distance(height: torch.Tensor, above: torch.Tensor, root: float | torch.Tensor = 0.03) -> torch.Tensor:
    """Signed distance into a median fin of the given height; none where there is no fin, nor more than `root` inside the body."""
    return torch.minimum(torch.minimum(height - above, above + root), (height - 0.003) * 10)


@dataclass(frozen=True)
class _Seen:
    """How the cross-sections of the bodies are seen, float32 [b, H, W] each.

    Attributes:
        over: height over the outline that is seen.
        under: depth under it.
        above: height over the root of the fins of the back, along the fins.
        below: depth under the root of the fins of the belly, along the fins.
        screen: place between the lower (-1) and the upper outline (1) that are seen; None where it is `turned`.
        turned: place between belly (-1) and back (1) of the point of the skin that is seen; None for a fish seen from its side.
        fins: foreshortening of the fins of the back and of the belly; None for a fish seen from its side.
    """

    over: torch.Tensor
    under: torch.Tensor
    above: torch.Tensor
    below: torch.Tensor
    screen: torch.Tensor | None = None
    turned: torch.Tensor | None = None
    fins: tuple[torch.Tensor, torch.Tensor] | None = None


def _flat(v: torch.Tensor, upper: torch.Tensor, lower: torch.Tensor) -> _Seen:
    """A fish seen from its side."""
    above, below = v - upper, lower - v
    return _Seen(above, below, above, below)


def _rolled(
    u: torch.Tensor,
    v: torch.Tensor,
    upper: torch.Tensor,
    lower: torch.Tensor,
    width: torch.Tensor,
    a: Numbers,
) -> _Seen:
    """A fish rolled about its long axis: see `poses`, of which this is the formula for pixels."""
    cos, sin = a("pose.cos"), a("pose.sin")
    middle = (upper + lower) * (0.5 * cos)
    rise, side = (upper - lower).clamp(min=1e-3) * (0.5 * cos), width * sin
    radius = torch.addcmul(rise * rise, side, side).clamp_(min=1e-8).sqrt_()
    off = v - middle
    screen = (off / radius).clamp_(-1, 1)
    towards = (1.0 - screen * screen).clamp_(min=0).sqrt_()
    turned = ((side * towards + rise * screen) / radius).clamp_(-1, 1)
    dorsal = torch.lerp(a("pose.dorsal"), a("pose.adipose"), _step(u - 0.79))
    ventral = torch.lerp(a("pose.pelvic"), a("pose.anal"), _step(u - 0.585))
    return _Seen(
        off - radius,
        -off - radius,
        (off - rise) / dorsal,
        (-off - rise) / ventral,
        screen,
        turned,
        (dorsal, ventral),
    )


def _striped(
    u: torch.Tensor,
    s: torch.Tensor,
    blotch: torch.Tensor,
    medium: torch.Tensor,
    spots: torch.Tensor,
    n: Numbers,
) -> torch.Tensor:
    wobble = 0.5 * n("mark_wobble") * medium + n("mark_phase")
    return (torch.sin(s * ((1.1 + 1.3 * n("mark_rate")) * TWO_PI) + wobble) * n("mark_sharp") + 0.2).clamp_(0, 1)


def _barred(
    u: torch.Tensor,
    s: torch.Tensor,
    blotch: torch.Tensor,
    medium: torch.Tensor,
    spots: torch.Tensor,
    n: Numbers,
) -> torch.Tensor:
    wobble = 0.7 * n("mark_wobble") * blotch + n("mark_phase")
    wave = torch.sin((u + 0.04 * s) * ((5.0 + 5.0 * n("mark_rate")) * TWO_PI) + wobble)
    return (wave * n("mark_sharp") + 0.1).clamp_(0, 1) * (1.0 + n("mark_fade") * (s - 0.3)).clamp_(0.15, 1)


def _spotted(
    u: torch.Tensor,
    s: torch.Tensor,
    blotch: torch.Tensor,
    medium: torch.Tensor,
    spots: torch.Tensor,
    n: Numbers,
) -> torch.Tensor:
    value = ((0.35 * n("mark_rate") - 0.18 - spots) * (2.0 * n("mark_sharp"))).clamp_(0, 1)
    return value * (1.0 + 1.2 * n("mark_fade") * (s - 0.1)).clamp_(0, 1)


def _mottled(
    u: torch.Tensor,
    s: torch.Tensor,
    blotch: torch.Tensor,
    medium: torch.Tensor,
    spots: torch.Tensor,
    n: Numbers,
) -> torch.Tensor:
    return ((blotch + 0.35 * medium) * (0.8 * n("mark_sharp"))).clamp_(0, 1)


_MARKS = {"striped": _striped, "barred": _barred, "spotted": _spotted, "mottled": _mottled}
PATTERNS = tuple(_MARKS)


def _barbels(u: torch.Tensor, v: torch.Tensor, px: torch.Tensor, a: Numbers) -> torch.Tensor:
    cover = torch.zeros_like(u)
    dx, dy = u - a("barbel_u"), v - a("barbel_v")
    for k in range(3):
        cos, sin = torch.cos(a(f"barbel{k}_angle")), torch.sin(a(f"barbel{k}_angle"))
        length = a(f"barbel{k}_length")
        along, across = -(dx * cos + dy * sin), dx * sin - dy * cos
        share = along / length
        centre = (share * share * a(f"barbel{k}_curl") + 0.06 * torch.sin(share * 5.0)) * length
        half = torch.maximum(a("barbel_width") * (1.0 - 0.75 * share), 0.55 / px)
        distance = torch.minimum(half - (across - centre).abs(), torch.minimum(along + 0.004, length - along))
        cover = torch.maximum(cover, (distance * px + 0.5).clamp(0, 1))
    return cover
