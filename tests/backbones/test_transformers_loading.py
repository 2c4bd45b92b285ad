"""Folders of the transformers library as people have them: weights, tokenizer, preprocessing; and what is said where one is unreadable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from concept_cam.backbones import load
from concept_cam.backbones.loading import from_transformers
from concept_cam.backbones.loading.transformers_pictures import processor_settings
from concept_cam.backbones.torchvision_compat import import_transformers
from concept_cam.core.errors import ModelError, UnsupportedModelError
from concept_cam.pictures.reading import Picture
from concept_cam.pictures.resizing import naflex_size, prepare
from tests.backbones.models import WORDS, needed, own_embedding, pictures, randomise, relative, transformers_model, word_tokenizer

FOLDERS = {
    "clip": ("transformers-clip", "CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "metaclip_2": ("metaclip-2", "CLIPImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}),
    "altclip": ("altclip", "CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    "chinese_clip": ("chinese-clip", "ChineseCLIPImageProcessor", {"size": {"height": 32, "width": 32}, "do_center_crop": False}),
    "siglip": ("transformers-siglip", "SiglipImageProcessor", {"size": {"height": 32, "width": 32}}),
    "siglip2": ("transformers-siglip", "Siglip2ImageProcessor", {"max_num_patches": 16, "patch_size": 8}),
    "tipsv2": ("tipsv2", "Tipsv2ImageProcessor", {"size": {"height": 32, "width": 32}}),
    "align": (
        "align",
        "EfficientNetImageProcessor",
        {"do_center_crop": True, "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False, "include_top": False},
    ),
    "dinov2_with_registers": (
        "dinov2",
        "BitImageProcessor",
        {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "image_mean": [0.485, 0.456, 0.406]},
    ),
    "dinov3_vit": ("dinov3", "DINOv3ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "radio": ("radio", "CLIPImageProcessor", {"size": {"height": 32, "width": 32}, "do_center_crop": False, "do_normalize": False}),
}
"""Model type -> family, image processor and its settings, as published but for the size."""


def photograph(height: int = 60, width: int = 90) -> np.ndarray:
    generator = np.random.default_rng(0)
    rough = generator.integers(0, 255, (6, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC))


def save_folder(kind: str, folder: Path) -> tuple[Any, Any]:
    """Writes a folder as the library does; returns its model and its image processor."""
    model: Any = transformers_model(kind)
    family, processor_class, settings = FOLDERS[kind]
    processor = needed(processor_class)(**settings)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if family not in ("dinov2", "dinov3", "radio"):
        word_tokenizer(siglip="siglip" in kind).save_pretrained(folder)
    return model, processor


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_read_as_its_library_reads_it(kind: str, tmp_path: Path) -> None:
    """Weights, family, and pixels: our preparation against the folder's own image processor."""
    model, processor = save_folder(kind, tmp_path)
    loaded = load(str(tmp_path))
    assert loaded.family == FOLDERS[kind][0]
    pixels = pictures(loaded)
    assert relative(loaded.encode_image(pixels), own_embedding(f"transformers-{kind}", model, pixels)) < 1e-5
    picture = photograph()
    own = processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    ours = prepare(Picture(picture), loaded.preprocess, "native").batch
    if kind == "siglip2":
        rows, columns = ours.shape[2] // 8, ours.shape[3] // 8
        own = own[:, : rows * columns].reshape(1, rows, columns, 8, 8, 3).permute(0, 5, 1, 3, 2, 4).reshape(ours.shape)
    assert own.shape == ours.shape
    # The library's resizing of tensors and Pillow's differ by a step of 8-bit values here and there, more where it resizes in floats.
    step = float(1 / 255 / min(loaded.preprocess.std))
    assert float((own - ours).abs().mean()) < 1.5 * step
    assert float((own - ours).abs().max()) < 8 * step


def test_naflex_sizes_are_the_processors_own() -> None:
    from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches as own

    generator = np.random.default_rng(0)
    for height, width, cells in [(1, 1, 4), (3000, 10, 256), (10, 3000, 256), *generator.integers(1, 900, (300, 3)).tolist()]:
        assert naflex_size((height, width), (16, 16), cells) == own(height, width, 16, cells)


def test_an_efficientnet_processor_is_one_mean_and_one_deviation() -> None:
    """Every combination that a processor can say, against its own pixels."""
    transformers = import_transformers()
    white = np.full((40, 40, 3), 255, np.uint8)
    grey = np.full((40, 40, 3), 51, np.uint8)
    for offset in (False, True):
        for normal in (False, True):
            for top in (False, True):
                processor = transformers.EfficientNetImageProcessor(
                    size={"height": 16, "width": 16}, do_center_crop=False, rescale_factor=1 / (127.5 if offset else 255),
                    rescale_offset=offset, do_normalize=normal, include_top=top, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6],
                )  # fmt: skip
                found = processor_settings(processor, "some model")
                for picture, value in ((white, 1.0), (grey, 0.2)):
                    own = processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"][0, :, 8, 8]
                    ours = (value - torch.tensor(found["mean"])) / torch.tensor(found["std"])
                    torch.testing.assert_close(own, ours, rtol=1e-4, atol=1e-4)


def test_an_fg_clip_is_read_without_its_own_code(tmp_path: Path) -> None:
    """Its folder says CLIP's model type, names code of its own and holds further tensors; the code never runs."""
    model: Any = transformers_model("clip")
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    state = load_file(tmp_path / "model.safetensors")
    state["text_filip_projection.weight"] = torch.randn(24, 32)
    state["text_model.embeddings.position_embedding_res.weight"] = torch.randn(20, 32)
    state["logit_scale_finegraind"] = torch.tensor(1.0)
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('the code of the folder ran')")
    config |= {"architectures": ["FGCLIPModel"], "auto_map": {"AutoModel": "modeling_own.FGCLIPModel", "AutoConfig": "modeling_own.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(str(tmp_path))
    assert (loaded.family, loaded.default_attention) == ("fg-clip", "value+residual+ffn")
    pixels = pictures(loaded)
    assert relative(loaded.encode_image(pixels), own_embedding("transformers-clip", model, pixels)) < 1e-5
    with torch.no_grad():  # Its published dense features, restated.
        vision, layer = model.vision_model, model.vision_model.encoder.layers[-1]
        x = vision(pixels, output_hidden_states=True).hidden_states[-2]
        x = x + layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(x)))
        x = x + layer.mlp(layer.layer_norm2(x))
        dense = model.visual_projection(vision.post_layernorm(x))[:, 1:]
    torch.testing.assert_close(loaded.encode_patches(pixels).patches.flatten(1, 2), dense, rtol=1e-4, atol=1e-5)


def test_a_folder_with_its_own_code_is_refused_without_running_it(tmp_path: Path) -> None:
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('the code of the folder ran')")
    stored = {"model_type": "fgclip2", "auto_map": {"AutoModel": "modeling_own.Model", "AutoConfig": "modeling_own.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UnsupportedModelError, match=r"FG-CLIP 2 comes with code of its own.*never run.*Families"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**stored, "model_type": "somebodys_own"}))
    with pytest.raises(UnsupportedModelError, match=r"does not know the model type 'somebodys_own'.*never run"):
        load(str(tmp_path))


def test_an_older_library_says_which_release_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.backbones.loading import transformers as loading

    monkeypatch.setitem(loading.SINCE, "of_tomorrow", "99.1")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of_tomorrow"}))
    with pytest.raises(UnsupportedModelError, match=r"it is there since 99\.1: pip install 'transformers>=99\.1'"):
        load(str(tmp_path))


def test_the_length_of_texts_is_the_towers_and_the_tokenizers() -> None:
    """RoBERTa's table begins behind the padding's place; BERT towers were asked with the tokenizer's limit; ALIGN with 64 tokens."""
    for kind, limit in (("altclip", 16), ("chinese_clip", 12), ("tipsv2", 16), ("metaclip_2", 16), ("align", 12)):
        model = from_transformers(transformers_model(kind), word_tokenizer(12 if kind in ("chinese_clip", "align") else 16))
        assert model.context_length == limit
        longest = " ".join(["fin"] * (limit - 2))
        assert model.count_tokens(longest) == limit
        assert torch.isfinite(model.encode_text([longest])).all()


@pytest.mark.parametrize("kind", ["tipsv2", "chinese_clip", "altclip", "align"])
def test_padding_of_texts_does_not_matter(kind: str) -> None:
    model = from_transformers(transformers_model(kind), word_tokenizer())
    short, long = "a fish", " ".join(WORDS[:10])
    together = model.encode_text([short, long])
    assert relative(together[:1], model.encode_text([short])) < 1e-5


def test_max_pooling_of_align_has_no_map() -> None:
    transformers = import_transformers()
    vision = {"width_coefficient": 0.1, "depth_coefficient": 0.1, "pooling_type": "max"}
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20, "intermediate_size": 16}
    model = randomise(transformers.AlignModel(transformers.AlignConfig(text_config=text, vision_config=vision, projection_dim=32)))
    with pytest.raises(UnsupportedModelError, match=r"pools its map by 'max'.*Families"):
        from_transformers(model, word_tokenizer())


@pytest.mark.parametrize(
    ("form", "kind", "pooling"),
    [
        ("dinov3", "dinov3_vit", "mean"),
        ("dinov3-cls", "dinov3_vit", "cls"),
        ("dinov2-cls", "dinov2_with_registers", "cls"),
        ("radio", "radio", "mean"),
    ],
)
def test_feature_towers_by_name(form: str, kind: str, pooling: str, tmp_path: Path) -> None:
    model, _ = save_folder(kind, tmp_path)
    loaded = load(f"{form}:{tmp_path}")
    pixels = pictures(loaded)
    with torch.no_grad():
        out = model(pixels)
    prefix = 1 + (model.config.num_register_tokens if kind != "radio" else 0)
    mean = out.features.mean(dim=1) if kind == "radio" else out.last_hidden_state[:, prefix:].mean(dim=1)
    own = mean if pooling == "mean" else out.last_hidden_state[:, 0]
    assert relative(loaded.encode_image(pixels), own) < 1e-5
    assert relative(loaded.encode_patches(pixels).image, own) < 1e-5
    assert loaded.default_attention == ("kk" if pooling == "cls" else "vanilla")
    other = "radio" if form != "radio" else "dinov3"
    with pytest.raises(ModelError, match="is for the model types"):
        load(f"{other}:{tmp_path}")


@pytest.mark.parametrize(
    ("kind", "stack"), [("clip", "vision_model.encoder.layers"), ("clip", "text_model.encoder.layers"), ("dinov2_with_registers", "")]
)
def test_weights_with_more_layers_than_the_configuration_are_refused(kind: str, stack: str, tmp_path: Path) -> None:
    """The library drops the further layers and would read a shorter network; heads of other tasks are dropped rightly."""
    from safetensors.torch import load_file, save_file

    model, _ = save_folder(kind, tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    first = stack or "encoder.layer"
    have = len(model.get_submodule(first))
    prefix = "" if stack else f"{model.base_model_prefix}."  # As a classifier's file has it.
    harmless = {
        "classifier.weight": torch.zeros(2, 2),
        "text_model.embeddings.position_ids": torch.arange(4)[None],
        "head.0.bias": torch.zeros(2),
    }
    state = {prefix + key: value for key, value in state.items()} | harmless
    save_file(state, file, {"format": "pt"})
    load(str(tmp_path))
    further = {key.replace(f"{first}.0.", f"{first}.{have}."): value.clone() for key, value in state.items() if f"{first}.0." in key}
    save_file({**state, **further}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"config\.json does not have: it says {have} in '{first}'.*{first}\.{have}\..*, and \d+ more as"):
        load(str(tmp_path))


def test_libraries_advice_that_does_not_hold_here_is_not_passed_on(tmp_path: Path) -> None:
    """Of pickled objects, which torch offers to load regardless, and of shapes, for which the library blames a setting nobody set."""
    from safetensors.torch import load_file, save_file

    save_folder("clip", tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    save_file({**state, "visual_projection.weight": torch.zeros(3, 4)}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"other shapes than config\.json says") as caught:
        load(str(tmp_path))
    assert "ignore_mismatched_sizes" not in str(caught.value)
    file.unlink()
    torch.save({**state, "more": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled objects.*not loaded.*Convert the tensors to model\.safetensors") as caught:
        load(str(tmp_path))
    assert "torch.load" not in str(caught.value)


def test_a_folder_is_loaded_without_bars_that_quiet_commands_would_show(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from concept_cam.backbones.torchvision_compat import import_transformers

    save_folder("dinov2_with_registers", tmp_path)
    capfd.readouterr()
    load(f"dinov2:{tmp_path}")
    assert "Loading weights" not in capfd.readouterr().err
    assert import_transformers().utils.logging.is_progress_bar_enabled()  # the library's own users see them as before
