from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_cam.backbones.text import OpenClipTokens, TextEncoder, TransformersTokens
from concept_cam.core.errors import ModelError, PromptError
from tests.backbones.models import backbone, simple_tokenizer, word_tokenizer


def encoder(tokens: Any) -> TextEncoder:
    def tower(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        ids = next(iter(inputs.values()))
        return ids.float().sum(dim=1, keepdim=True)

    return TextEncoder(tokens, tower, lambda: torch.device("cpu"))


def test_tokens_are_counted_before_any_truncation() -> None:
    text = encoder(OpenClipTokens(simple_tokenizer(77), 8))
    assert text.count("a fish") == 4
    assert text.count(" ".join(["fish"] * 30)) == 32
    assert text.context_length == 8


def test_the_longest_text_that_fits_is_accepted_and_one_more_is_not() -> None:
    model = backbone("vit")
    fits = " ".join(["fish"] * (model.context_length - 2))
    assert model.count_tokens(fits) == model.context_length
    assert model.encode_text([fits]).shape == (1, model.embed_dim)
    with pytest.raises(PromptError, match=r"has 17 tokens.*at most 16"):
        model.encode_text(["a fish", fits + " fish"])


def test_a_text_that_is_far_too_long_is_named_in_short_and_once(caplog: pytest.LogCaptureFixture) -> None:
    text = encoder(TransformersTokens(word_tokenizer(), 16, "longest"))
    with pytest.raises(PromptError, match=r"has 302 tokens.*at most 16") as error:
        text(["fish " * 300])
    assert len(str(error.value)) < 300
    assert not caplog.records  # the tokenizer's own warning says something else


@pytest.mark.parametrize("kind", ["vit", "transformers-clip", "transformers-siglip"])
@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_empty_text_is_refused(kind: str, prompt: str) -> None:
    with pytest.raises(PromptError, match="empty"):
        backbone(kind).encode_text(["a fish", prompt])


def test_no_text_and_a_bare_string_are_refused() -> None:
    with pytest.raises(PromptError, match="at least one"):
        backbone("vit").encode_text([])
    with pytest.raises(PromptError, match="put it into a list"):
        backbone("vit").encode_text("a fish")


def test_text_of_which_cleaning_leaves_nothing() -> None:
    tokenizer = _wrapped(clean="canonicalize")
    text = encoder(OpenClipTokens(tokenizer, 16))
    assert text(["a fish!"]).shape == (1, 1)
    with pytest.raises(PromptError, match="nothing is left"):
        text(["!?."])


def test_unknown_words_of_a_closed_vocabulary() -> None:
    text = encoder(TransformersTokens(word_tokenizer(), 16, "longest"))
    assert text.unknown_words("a fish with a zebra tail, zebra") == ("zebra",)
    assert encoder(OpenClipTokens(simple_tokenizer(), 16)).unknown_words("a qwrtzp") == ()


def test_count_equals_the_tokens_that_the_tower_reads() -> None:
    tokens = TransformersTokens(word_tokenizer(), 16, "longest")
    batch = tokens.batch(["a forked tail"])
    assert batch["attention_mask"].sum().item() == len(tokens.ids("a forked tail"))
    clips = OpenClipTokens(_wrapped(mode="clips"), 16)
    assert len(clips.ids("a fish")) == 2 + 3


@pytest.mark.parametrize("strip", [False, True])
def test_batches_equal_those_of_open_clips_wrapper(strip: bool) -> None:
    wrapper = _wrapped(clean="lower")
    wrapper.tokenizer.sep_token, wrapper.strip_sep_token = "<bos>", strip
    words = ["A fish", "a bird  with a beak"]
    try:
        own = wrapper(words)
    except AttributeError:
        pytest.skip("this release of open_clip cannot call the tokenizers of transformers 5 itself")
    assert torch.equal(OpenClipTokens(wrapper, 16).batch(words)["text"], own)


def test_many_prompts_are_embedded_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from concept_cam.backbones import text as module

    model = backbone("vit")
    words = ["a fish", "a bird", "a leaf", "a tail", "a fin"]
    whole = model.encode_text(words)
    monkeypatch.setattr(module, "TEXT_BATCH", 2)
    torch.testing.assert_close(model.encode_text(words), whole, rtol=1e-4, atol=1e-5)


def test_text_embeddings_can_be_used_under_autograd() -> None:
    direction = backbone("vit").encode_text(["a fish"])
    weight = torch.ones_like(direction, requires_grad=True)
    (weight * direction).sum().backward()
    torch.testing.assert_close(weight.grad, direction)


def test_tokenizer_that_cannot_count_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be used"):
        OpenClipTokens(lambda texts, context_length=77: torch.zeros(1, 77), 77)


def _wrapped(clean: str = "whitespace", mode: str = "") -> Any:
    """open_clip's wrapper around a tokenizer made here, without its download."""
    from open_clip.tokenizer import HFTokenizer, get_clean_fn

    wrapper = HFTokenizer.__new__(HFTokenizer)
    wrapper.tokenizer = word_tokenizer()
    wrapper.tokenizer.cls_token = "<eos>"
    wrapper.tokenizer_mode, wrapper.context_length, wrapper.strip_sep_token = mode, 16, False
    wrapper.clean_fn = get_clean_fn(clean)
    return wrapper
