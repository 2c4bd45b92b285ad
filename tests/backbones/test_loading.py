from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from concept_cam import backbones
from concept_cam.backbones import ALIASES, BUNDLED, FAMILIES
from concept_cam.backbones.loading import catalogue, from_open_clip, hub, load, names
from concept_cam.backbones.torchvision_compat import import_open_clip
from concept_cam.core.errors import ConceptCamError, ConfigurationError, ModelError, UnsupportedModelError
from tests.backbones.models import (
    RESNET,
    TEXT,
    VIT,
    open_clip_model,
    pictures,
    randomise,
    relative,
    simple_tokenizer,
    timm_vision,
    transformers_model,
    word_tokenizer,
)

PREPROCESS = {
    "size": 32,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
    "interpolation": "bilinear",
    "resize_mode": "squash",
}


def save_open_clip(folder: Path, model: torch.nn.Module, vision: dict[str, Any], **text: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": {**TEXT, **text}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PREPROCESS}))
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


@pytest.fixture(scope="module")
def vit() -> torch.nn.Module:
    return open_clip_model(VIT)


@pytest.fixture(scope="module")
def folder(vit: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("models") / "vit", vit, VIT)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("prefix", ["local-dir:", ""])
def test_folder(folder: Path, vit: Any, prefix: str) -> None:
    model = load(f"{prefix}{folder}")
    pixels = pictures(model)
    with torch.no_grad():
        assert relative(model.encode_patches(pixels).image, vit.encode_image(pixels)) < 1e-5
    assert model.name == f"{prefix}{folder}"
    assert model.preprocess.mean == (0.5, 0.4, 0.3)
    assert model.preprocess.native == "squash"
    assert model.preprocess.interpolation == "bilinear"
    assert model.preprocess.size == (32, 32)
    assert model.preprocess.stride == (8, 8)
    assert model.context_length == 16
    assert model.logit_scale == pytest.approx(float(vit.logit_scale.detach().exp()))


def test_same_weights_same_hash_and_other_weights_another(folder: Path, vit: torch.nn.Module) -> None:
    assert load(str(folder)).weights_hash == from_open_clip(vit, simple_tokenizer()).weights_hash
    assert from_open_clip(randomise(open_clip_model(VIT), seed=9), simple_tokenizer()).weights_hash != load(str(folder)).weights_hash


def test_dtype_and_device(folder: Path) -> None:
    model = load(str(folder), device="auto" if not torch.cuda.is_available() else "cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    with pytest.raises(ConfigurationError, match="Did you mean 'bfloat16'"):
        load(str(folder), dtype="bfloat")
    with pytest.raises(ConfigurationError, match="unknown device 'gpu'"):
        load(str(folder), device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="CUDA"):
            load(str(folder), device="cuda")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_checkpoint_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vit: Any, suffix: str) -> None:
    open_clip = import_open_clip()
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-vit", {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT})
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save(
            {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in vit.state_dict().items()}},
            file,
        )
    else:
        save_file(dict(vit.state_dict()), file)
    model = load(f"tiny-vit:{file}")
    pixels = pictures(model)
    with torch.no_grad():
        assert relative(model.encode_image(pixels), vit.encode_image(pixels)) < 1e-5


class Payload:
    """Something that a pickled file could smuggle in."""


def test_files_that_hold_more_than_tensors_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Payload()}, file)
    with pytest.raises(ModelError, match="only tensors are read"):
        load(f"ViT-S-32-alt:{file}")


def test_weights_of_another_model_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load ViT-S-32-alt:.*open_clip_model"):
        load(f"ViT-S-32-alt:{folder / 'open_clip_model.safetensors'}")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"")
    with pytest.raises(ModelError, match="cannot load"):
        load(f"ViT-S-32-alt:{broken}")


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda good: b"", "the file is empty"),
        (lambda good: good[:1000], r"the file ends after 1,000 of [\d,]+ bytes"),
        (lambda good: good[:-1], "the file ends after"),
        (lambda good: _POINTER, "pointer of Git LFS"),
        (lambda good: b"\n<!DOCTYPE html><html>404</html>", "web page"),
    ],
)
def test_what_stands_where_weights_should_be_is_told(tmp_path: Path, folder: Path, content: Any, said: str) -> None:
    damaged = content((folder / "open_clip_model.safetensors").read_bytes())
    file = tmp_path / "weights.safetensors"
    file.write_bytes(damaged)
    for name in (f"ViT-S-32-alt:{file}", f"timm:resnet18,{file}"):
        with pytest.raises(ModelError, match=said):
            load(name)
    transformers_model("clip").save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").write_bytes(damaged)
    for source in (folder, BUNDLED):
        shutil.copytree(source, tmp_path / source.name)
        weights = next((tmp_path / source.name).glob("*.safetensors"))
        weights.write_bytes(damaged)
    for name in ("clip", folder.name, BUNDLED.name):
        with pytest.raises(ModelError, match=said):
            load(str(tmp_path / name))


def test_a_file_that_is_not_read_is_not_to_blame(tmp_path: Path) -> None:
    """A clone of which only the .safetensors was fetched, and whose configuration is wrong, was said to need 'git lfs pull'."""
    transformers_model("clip").save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(_POINTER)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["hidden_size"] = "wide"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="hidden_size") as caught:
        load(f"transformers:{tmp_path}")
    assert "Git LFS" not in str(caught.value)


def test_half_a_file_of_torch_is_told(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(5000)}, file)
    file.write_bytes(file.read_bytes()[:9000])
    with pytest.raises(ModelError, match="the file ends early: it was not copied or downloaded to its end"):
        load(f"ViT-S-32-alt:{file}")


def test_a_table_of_positions_of_another_network_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    for width, kind in ((24, torch.float32), (384, torch.float16)):
        save_file({"visual.positional_embedding": torch.zeros(17, 384, dtype=kind), "positional_embedding": torch.zeros(16, width)}, file)
        with pytest.raises(ModelError, match=r"do not fit this network: their table of positions has other dimensions; name the one"):
            load(f"ViT-S-32-alt:{file}")


def test_random_weights_are_never_used(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    with pytest.raises(ModelError, match="Random weights are never used"):
        load(str(bare))
    with pytest.raises(ModelError, match="architecture without weights"):
        load("ViT-B-16")
    monkeypatch.setattr(names, "BUNDLED", bare)
    with pytest.raises(ModelError, match="bundled model is missing"):
        load("demo")


def test_demo_is_the_bundled_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "BUNDLED", folder)
    model = load()
    assert model.name == "demo"
    assert model.weights_hash == load(str(folder)).weights_hash


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bioclpi", "Did you mean 'bioclip'"),
        ("ViT-B-16/opnai", "Did you mean 'openai'"),
        ("ViT-B-61/openai", "Did you mean 'ViT-B-16/openai'"),
        ("local-dir:/nowhere/at/all", "does not exist"),
        ("ViT-B-16:/nowhere/weights.pt", "does not exist"),
        ("hf-hub:bioclip", "ORGANISATION/NAME"),
        ("ViT-B-32-quickgelu/laion2b_e16", "no weights|not trained with QuickGELU"),
        ("", "unknown model"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("bioclip", "imageomics/bioclip"),
        ("biocap", "imageomics/biocap"),
        ("ViT-B-16/openai", "timm/vit_base_patch16_clip_224.openai"),
        ("hf-hub:someone/something", "someone/something"),
        ("transformers:google/siglip2-base-patch16-224", "google/siglip2-base-patch16-224"),
    ],
)
def test_without_network_the_files_are_named(name: str, repository: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load(name)
    message = str(caught.value)
    assert repository in message
    assert "local-dir:FOLDER" in message
    assert f"models--{repository.replace('/', '--')}" in message
    assert "safetensors" in message


def test_an_empty_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"open_clip_config\.json"):
        load(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="not an open_clip configuration"):
        load(str(tmp_path))


def test_cached_hub_model_needs_no_network(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached", lambda repository, file: folder / file if (folder / file).is_file() else None)
    model = load("bioclip")
    assert model.name == "hf-hub:imageomics/bioclip"
    assert model.encode_text(["a fish"]).shape == (1, 24)
    listed = {entry.name: entry.cached for entry in catalogue()}
    assert listed["bioclip"]
    assert "ViT-B-16/openai" in listed


def test_tokenizer_files_missing_beside_the_weights(tmp_path: Path, vit: torch.nn.Module) -> None:
    folder = save_open_clip(tmp_path / "hf-tokenizer", vit, VIT, hf_tokenizer_name="someone/words")
    with pytest.raises(ModelError, match="needs the files of the tokenizer 'someone/words'"):
        load(str(folder))


def test_tokenizer_from_the_folder(tmp_path: Path, vit: torch.nn.Module) -> None:
    folder = save_open_clip(tmp_path / "hf-tokenizer", vit, VIT, hf_tokenizer_name="someone/words")
    word_tokenizer().save_pretrained(folder)
    model = load(str(folder))
    assert model.count_tokens("a forked tail") == 5
    assert model.unknown_words("a forked tail on the elephant") == ("on", "elephant")


# ---------------------------------------------------------------------------------------- BioCAP: two visual projectors


@pytest.mark.parametrize("config_key", [True, False])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_biocap_layout(tmp_path: Path, config_key: bool, suffix: str) -> None:
    """BioCAP's training code stores ``visual.caption_proj``, ``logit_scale_caption`` and, in the configuration, ``dual_projector``."""
    model: Any = open_clip_model(VIT)
    vision = {**VIT, "dual_projector": True} if config_key else VIT
    folder = save_open_clip(tmp_path / "biocap", model, vision)
    state = dict(model.state_dict())
    caption = torch.randn(state["visual.proj"].shape, generator=torch.Generator().manual_seed(5))
    state |= {"visual.caption_proj": caption, "logit_scale_caption": torch.tensor(3.0)}
    if suffix == "safetensors":
        save_file(state, folder / "open_clip_model.safetensors")
    else:
        (folder / "open_clip_model.safetensors").unlink()
        torch.save({"state_dict": state}, folder / "open_clip_pytorch_model.bin")
    loaded = load(str(folder))
    pixels = pictures(loaded)
    with torch.no_grad():
        before = model.visual.ln_post(model.visual.transformer(model.visual._embeds(pixels)))[:, 0]
    features = loaded.encode_patches(pixels, "vanilla")
    assert relative(features.image, before @ caption) < 1e-5
    assert relative(loaded.encode_image(pixels), before @ caption) < 1e-5
    assert loaded.logit_scale == pytest.approx(float(torch.tensor(3.0).exp()))
    with torch.no_grad():
        assert relative(loaded.encode_text(["a fish"]), model.encode_text(simple_tokenizer()(["a fish"]))) < 1e-5
        taxonomic = model.encode_image(pixels)
    assert relative(features.image, taxonomic) > 0.1


# --------------------------------------------------------------------------------------------------------- transformers


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
@pytest.mark.parametrize("form", ["transformers:{}", "{}", "local-dir:{}"])
def test_transformers_folder(tmp_path: Path, kind: str, form: str) -> None:
    inner = transformers_model(kind)
    inner.save_pretrained(tmp_path)  # type: ignore[operator]
    word_tokenizer(siglip=kind != "clip").save_pretrained(tmp_path)
    settings = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1.0, 1.0, 1.0], "resample": 2}
    size = {"clip": {"shortest_edge": 32}, "siglip": {"height": 32, "width": 32}, "siglip2": None}[kind]
    names = {
        "clip": "CLIPImageProcessor",
        "siglip": "SiglipImageProcessor",
        "siglip2": "Siglip2ImageProcessor",
    }
    stored = {**settings, "image_processor_type": names[kind], **({"size": size} if size else {"max_num_patches": 16})}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
    model = load(form.format(tmp_path))
    assert model.preprocess.mean == (0.1, 0.2, 0.3)
    assert model.preprocess.interpolation == "bilinear"
    assert model.preprocess.native == {"clip": "shortest", "siglip": "squash", "siglip2": "naflex"}[kind]
    assert model.preprocess.size == (32, 32)
    assert model.context_length == 16
    pixels = pictures(model)
    assert relative(model.encode_patches(pixels).image, model.encode_image(pixels)) < 1e-5


def test_transformers_weights_that_do_not_fill_the_model(tmp_path: Path) -> None:
    inner = transformers_model("clip")
    inner.save_pretrained(tmp_path)  # type: ignore[operator]
    word_tokenizer().save_pretrained(tmp_path)
    state = {name: value for name, value in inner.state_dict().items() if "visual_projection" not in name}
    save_file(
        {name: value.contiguous() for name, value in state.items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match=r"visual_projection\.weight"):
        load(str(tmp_path))


def test_transformers_model_of_another_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UnsupportedModelError, match=r"'bert'.*transformers-clip"):
        load(f"transformers:{tmp_path}")


# ---------------------------------------------------------------------------------------------------- families, registry


def test_towers_without_a_map_name_those_that_have_one() -> None:
    vision = timm_vision("vit_relpos_small_patch16_224", "avg", 224)
    model = open_clip_model(vision, custom_text=True)
    with pytest.raises(UnsupportedModelError, match=r"VisionTransformerRelPos.*open_clip-vit,.*timm-spatial"):
        from_open_clip(model, simple_tokenizer(), name="relpos")
    with pytest.raises(ModelError, match="expected an open_clip model"):
        from_open_clip(torch.nn.Linear(1, 1), simple_tokenizer())


def test_resnet_from_a_folder(tmp_path: Path) -> None:
    model: Any = open_clip_model(RESNET)
    loaded = load(str(save_open_clip(tmp_path / "resnet", model, RESNET)))
    pixels = pictures(loaded)
    with torch.no_grad():
        assert relative(loaded.encode_patches(pixels).image, model.encode_image(pixels)) < 1e-5


def test_families_name_their_module_and_strategy() -> None:
    from importlib import import_module

    from concept_cam.core.attention_names import ATTENTION_NAMES

    for family in FAMILIES.values():
        assert import_module(family.target.partition(":")[0]).__doc__
        assert callable(family.load())
        assert family.auto in ATTENTION_NAMES
        assert family.reason
    assert set(ALIASES) == {"bioclip", "bioclip-2", "biotrove-clip", "biocap"}


def test_listing_names_loads_no_model_library() -> None:
    import subprocess

    code = (
        "import sys, concept_cam.backbones, concept_cam.core.attention_names; print([n for n in ('torch', 'open_clip', 'timm', "
        "'transformers') if n in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_load_of_the_package_is_the_same_function(folder: Path) -> None:
    assert backbones.load(str(folder)).weights_hash == load(str(folder)).weights_hash
    assert issubclass(ModelError, ConceptCamError)


# ------------------------------------------------------------------------------------- how pictures are prepared for a file


def _weights_file(path: Path, model: torch.nn.Module) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in model.state_dict().items()}, path)
    return path


def _published_as(monkeypatch: pytest.MonkeyPatch, architecture: str, **tags: dict[str, Any]) -> None:
    """Makes open_clip know a tiny architecture and what its published weights say."""
    open_clip = import_open_clip()
    config = {"embed_dim": 24, "vision_cfg": VIT, "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, f"{architecture}-quickgelu", {**config, "quick_gelu": True})
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, architecture, tags)


OPENAI = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
SQUASHED = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}


def _read(preprocess: Any) -> dict[str, Any]:
    return {
        "mean": preprocess.mean,
        "std": preprocess.std,
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.native,
    }


def test_every_architecture_with_published_weights_says_how_its_files_are_read() -> None:
    """For each architecture of open_clip: what all of its published weights agree on, and nothing asked but where they disagree."""
    from concept_cam.backbones.loading.published import read_like

    open_clip = import_open_clip()
    open_questions = set()
    for architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        own = [open_clip.pretrained.get_pretrained_cfg(architecture, tag) for tag in tags]
        like = read_like(architecture)
        for key in OPENAI:
            said = {tuple(config[key]) if isinstance(config[key], (list, tuple)) else config[key] for config in own}
            assert (key in like.unsure) == (len(said) > 1)
            assert (like.config[key] in said) if said else key not in like.config
        open_questions |= {architecture} if like.unsure else set()
    # Cases by name, as their cards state them.
    for architecture in ("ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "ViT-SO400M-14-SigLIP2"):
        assert dict(read_like(architecture).config) == {**SQUASHED, "interpolation": "bicubic"}
    assert dict(read_like("PE-Core-T-16-384").config) == SQUASHED
    assert dict(read_like("MobileCLIP-S1").config) | {"resize_mode": ""} == {
        "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear", "resize_mode": "",
    }  # fmt: skip
    assert read_like("ViT-L-14-CLIPA").config["mean"] == (0.485, 0.456, 0.406)
    assert read_like("ViT-H-14-378").config["resize_mode"] == "squash"
    assert read_like("ViT-B-16").config == OPENAI
    assert open_questions <= {"ViT-L-14", "ViT-H-14", "ViT-H-14-quickgelu"}


def test_a_weights_file_is_read_as_its_architecture_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vit: Any) -> None:
    _published_as(monkeypatch, "tiny-squashed", a=SQUASHED, b=SQUASHED)
    model = load(f"tiny-squashed:{_weights_file(tmp_path / 'w.safetensors', vit)}")
    assert _read(model.preprocess) == SQUASHED
    assert "published with tiny-squashed (a, b)" in str(model.preprocess)


def test_where_published_weights_disagree_the_user_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vit: Any) -> None:
    from concept_cam.localizer import Localizer

    _published_as(monkeypatch, "tiny-two", many=OPENAI, more=OPENAI, one={**OPENAI, "resize_mode": "squash"})
    file = _weights_file(tmp_path / "w.safetensors", vit)
    with pytest.raises(
        ConfigurationError, match=r"resize mode shortest \(many, more\); squash \(one\).*ARCHITECTURE/TAG:FILE.*--resize-mode"
    ):
        Localizer.from_pretrained(f"tiny-two:{file}", device="cpu")
    assert Localizer.from_pretrained(f"tiny-two:{file}", device="cpu", resize_mode="squash").preprocess.native == "squash"
    assert Localizer.from_pretrained(f"tiny-two/one:{file}", device="cpu").preprocess.native == "squash"
    assert Localizer.from_pretrained(f"tiny-two/many:{file}", device="cpu").preprocess.native == "shortest"
    with pytest.raises(ModelError, match=r"no weights .onne.*Did you mean .one"):
        load(f"tiny-two/onne:{file}")


def test_both_forms_are_named_where_the_activation_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, vit: Any
) -> None:
    _published_as(monkeypatch, "tiny-gelu", openai={**OPENAI, "quick_gelu": True}, laion=OPENAI)
    file = _weights_file(tmp_path / "w.safetensors", vit)
    with pytest.warns(UserWarning, match="QuickGELU") as caught:
        plain = load(f"tiny-gelu:{file}")
    message = str(caught[0].message)
    assert f"'tiny-gelu:{file}'" in message
    assert f"'tiny-gelu-quickgelu:{file}'" in message
    recwarn.clear()
    quick, tagged, other = (load(f"{name}:{file}") for name in ("tiny-gelu-quickgelu", "tiny-gelu/openai", "tiny-gelu/laion"))
    assert not [warning for warning in recwarn if "QuickGELU" in str(warning.message)]
    pixels = pictures(plain)
    assert relative(quick.encode_image(pixels), plain.encode_image(pixels)) > 1e-4
    assert torch.equal(tagged.encode_image(pixels), quick.encode_image(pixels))
    assert torch.equal(other.encode_image(pixels), plain.encode_image(pixels))


def test_settings_stand_in_place_of_what_the_checkpoint_says(folder: Path) -> None:
    from concept_cam.localizer import Localizer

    chosen = {"mean": "0.1,0.2,0.3", "std": 0.25, "interpolation": "nearest", "resize_mode": "longest"}
    localizer = Localizer.from_pretrained(str(folder), device="cpu", **chosen)
    assert _read(localizer.preprocess) == {
        "mean": (0.1, 0.2, 0.3), "std": (0.25, 0.25, 0.25), "interpolation": "nearest", "resize_mode": "longest",
    }  # fmt: skip
    white = localizer.prepare(torch.full((3, 32, 32), 255, dtype=torch.uint8).permute(1, 2, 0).numpy())
    torch.testing.assert_close(white.pixels[:, 0, 0], torch.tensor([3.6, 3.2, 2.8]))
    assert localizer.with_settings(gamma=0.5).preprocess == localizer.preprocess
    assert localizer.provenance("direct", "kk", "pad").to_dict()["mean"] == [0.1, 0.2, 0.3]
    with pytest.raises(ConfigurationError, match="divided by 255"):
        localizer.with_settings(mean=(123.7, 116.3, 103.5))
    with pytest.raises(ConfigurationError, match="above 0"):
        localizer.with_settings(std=(0.0, 1, 1))
    with pytest.raises(ConfigurationError, match="Did you mean 'bilinear'"):
        localizer.with_settings(interpolation="bilinera")


def test_a_preprocess_block_in_the_folders_configuration(tmp_path: Path, vit: Any) -> None:
    folder = save_open_clip(tmp_path / "own", vit, VIT)
    file = folder / "open_clip_config.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "preprocess": {"mean": 0.5, "resize-mode": "longest"}}))
    assert _read(load(str(folder)).preprocess) == {
        "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "interpolation": "bilinear", "resize_mode": "longest",
    }  # fmt: skip
    file.write_text(json.dumps({**stored, "preprocess": {"men": 0.5}}))
    with pytest.raises(ModelError, match="Did you mean 'mean'"):
        load(str(folder))
    file.write_text(json.dumps({**stored, "preprocess": {"mean": [1, 2]}}))
    with pytest.raises(ModelError, match="three numbers"):
        load(str(folder))


# ---------------------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_the_identity_of_weights_does_not_depend_on_the_number_format(tmp_path: Path, folder: Path, kind: str) -> None:
    if kind == "transformers":
        folder = tmp_path
        transformers_model("clip").save_pretrained(folder)  # type: ignore[operator]
        word_tokenizer().save_pretrained(folder)
    hashes = {load(str(folder), dtype=dtype).weights_hash for dtype in ("float32", "bfloat16", "float16")}
    assert len(hashes) == 1


def test_a_transformers_folder_without_its_tokenizer_is_explained(tmp_path: Path) -> None:
    transformers_model("clip").save_pretrained(tmp_path)  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"needs the files of its tokenizer \(tokenizer\.json"):
        load(f"transformers:{tmp_path}")
    with pytest.raises(ModelError, match="does not exist"):
        load(f"transformers:{tmp_path}/nothing/here")


# ------------------------------------------------------------------------------------------------------------- the registry


def make_toy(folder: Path, name: str) -> Any:
    """What a family of one's own gives: a model with its weights, its text tower, and how pictures are prepared."""
    from safetensors.torch import load_file

    from concept_cam.backbones.made import Made
    from concept_cam.backbones.text import OpenClipTokens, TextEncoder

    model: Any = open_clip_model(VIT)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    tokens = OpenClipTokens(simple_tokenizer(), 16)
    text = TextEncoder(tokens, lambda inputs: model.encode_text(inputs["text"]), lambda: next(model.parameters()).device)
    return Made(name, model, text, {"mean": (0.1, 0.2, 0.3)}, "stored in config.json")


def test_a_new_family_is_one_file_and_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder names its family; the registry does the rest: by folder, as the bundled model, in any number format."""
    from concept_cam.backbones import Family

    model = open_clip_model(VIT)
    _weights_file(tmp_path / "model.safetensors", model)
    (tmp_path / "config.json").write_text(json.dumps({"family": "toy"}))
    # As its own file would define them; `read` is the one of a family that is there, for the model is of its kind.
    entry = Family("concept_cam.backbones.open_clip_vit:read", "a toy", "kk", "", ("folder:toy",), maker=f"{__name__}:make_toy")
    monkeypatch.setitem(FAMILIES, "toy", entry)
    monkeypatch.setattr(names, "BUNDLED", tmp_path)
    loaded = [load(form) for form in (str(tmp_path), f"local-dir:{tmp_path}", "demo")]
    half = load("demo", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert {backbone.weights_hash for backbone in (*loaded, half)} == {from_open_clip(model, simple_tokenizer()).weights_hash}
    pixels = pictures(loaded[0])
    for backbone in loaded:
        assert torch.equal(backbone.encode_patches(pixels).patches, loaded[0].encode_patches(pixels).patches)
        assert backbone.preprocess.mean == (0.1, 0.2, 0.3)
        assert "stored in config.json" in str(backbone.preprocess)
        assert backbone.encode_text(["a fish"]).shape == (1, 24)
    (tmp_path / "config.json").write_text(json.dumps({"family": "tyo"}))
    with pytest.raises(ModelError, match=r"unknown family in .*'tyo'.*Did you mean 'toy'"):
        load(str(tmp_path))


# ---------------------------------------------------------------------------------------------- damaged configurations


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_type": "clip", ', "cannot be read as JSON"),
        ("\x00\xff", "cannot be read as JSON"),
        ("[1, 2]", r"expected a JSON object, received \[1, 2\]"),
        ("{}", "it has no 'model_type'"),
        ('{"model_type": ["clip"]}', r"expected a text as 'model_type', received \[\"clip\"\]"),
        ('{"model_type": "clip", "vision_config": {"hidden_size": "x"}}', r"hidden_size.*\bint\b"),
    ],
)
def test_a_damaged_config_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=said) as caught:
        load(f"transformers:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_never_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    own = {"AutoModel": "own.Model", "AutoConfig": "own.Config"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "my_own_clip", "auto_map": own}))
    (tmp_path / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    with pytest.raises(UnsupportedModelError, match=r"'my_own_clip'.*is never run.*'concept-cam models'") as caught:
        load(f"transformers:{tmp_path}")
    assert len(str(caught.value)) < 1000
    assert not ran.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"model_cfg":', "cannot be read as JSON"),
        ("[]", "expected an object with an object 'model_cfg'"),
        ('{"model_cfg": {"embed_dim": 24, "vision_cfg": 3}}', "expected an object as 'vision_cfg'.*received 3"),
        ('{"model_cfg": {"embed_dim": "many", "vision_cfg": {}, "text_cfg": {}}}', "expected a whole number as 'embed_dim'.*\"many\""),
        ('{"model_cfg": {"embed_dim": 24, "vision_cfg": {}}}', "expected an object as 'text_cfg'.*received null"),
    ],
)
def test_a_damaged_open_clip_configuration_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(text)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=f"not an open_clip configuration: .*{said}"):
        load(str(tmp_path))


def test_weights_of_another_network_and_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"blocks.0.weight": torch.zeros(2), "visual.proj": torch.zeros(3, 4)}, file)
    fits = r"do not fit this network: \d+ tensors are missing \(such as '.*'\), 1 tensors are foreign \(such as 'blocks\.0\.weight'\)"
    with pytest.raises(ModelError, match=rf"{fits}, 1 tensors have another shape \(such as 'visual\.proj'\); name"):
        load(f"ViT-B-32-quickgelu:{file}")
    with pytest.raises(ModelError, match=r"the folder '.*nowhere' does not exist"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"is a file: name the network"):
        load(str(file))
