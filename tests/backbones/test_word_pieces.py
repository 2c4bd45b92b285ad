import json

import pytest
import torch
from torch import nn

from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, WordPieceTower, packed, unpacked
from concept_cam.core.errors import ModelError

tokenizers = pytest.importorskip("tokenizers")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abfinrst", *(f"##{letter}" for letter in "abfinrst"), "fin", "tail", "##tail"]


def tokenizer_text() -> str:
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer.to_str()


@pytest.fixture
def tower() -> WordPieceTower:
    torch.manual_seed(0)
    return WordPieceTower(WordPieceConfig(pieces=len(PIECES), width=16, layers=2, heads=4, hidden=32, context=12)).eval()


def test_a_text_has_unit_length_whatever_it_is_padded_with(tower: WordPieceTower) -> None:
    alone = tower(torch.tensor([[2, 5, 9, 3]]))
    padded = tower(torch.tensor([[2, 5, 9, 3, 0, 0, 0], [2, 5, 6, 7, 8, 9, 3]]))
    assert torch.allclose(alone[0], padded[0], atol=1e-6)
    assert torch.allclose(padded.norm(dim=1), torch.ones(2), atol=1e-6)


def test_layers_are_those_of_torch(tower: WordPieceTower) -> None:
    """A layer equals torch's own post-norm encoder layer with the same weights."""
    ours = tower.layers[0]
    theirs = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True, layer_norm_eps=1e-12).eval()
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.qkv.weight,
            "self_attn.in_proj_bias": ours.qkv.bias,
            "self_attn.out_proj.weight": ours.out.weight,
            "self_attn.out_proj.bias": ours.out.bias,
            "linear1.weight": ours.up.weight,
            "linear1.bias": ours.up.bias,
            "linear2.weight": ours.down.weight,
            "linear2.bias": ours.down.bias,
            "norm1.weight": ours.attention_norm.weight,
            "norm1.bias": ours.attention_norm.bias,
            "norm2.weight": ours.norm.weight,
            "norm2.bias": ours.norm.bias,
        }
    )
    x = torch.randn(2, 5, 16)
    allowed = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    expected = theirs(x, src_key_padding_mask=~allowed)
    assert torch.allclose(ours(x, allowed)[allowed], expected[allowed], atol=1e-5)


def test_stored_weights_give_nearly_the_same_embeddings(tower: WordPieceTower) -> None:
    stored = packed(tower.state_dict())
    assert stored["pieces.weight"].dtype == torch.int8
    assert stored["norm.weight"].dtype == torch.float16
    other = WordPieceTower(tower.config).eval()
    other.load_state_dict(unpacked(stored))
    ids = torch.tensor([[2, 5, 9, 3], [2, 20, 8, 3]])
    assert (tower(ids) * other(ids)).sum(-1).min() > 0.999


def test_a_row_of_zeros_is_stored(tower: WordPieceTower) -> None:
    with torch.no_grad():
        tower.pieces.weight[0] = 0
    assert torch.equal(unpacked(packed(tower.state_dict()))["pieces.weight"][0], torch.zeros(16))


def test_tokens_are_padded_with_zero_and_cut_to_the_context() -> None:
    tokens = WordPieceTokens(tokenizer_text(), context_length=4)
    assert tokens.ids("Fintail") == [2, PIECES.index("fin"), PIECES.index("##tail"), 3]
    batch = tokens.batch(["fin", "fin fin fin fin fin"])["ids"]
    fin = PIECES.index("fin")
    assert batch.tolist() == [[2, fin, 3, 0], [2, fin, fin, fin]]
    assert tokens.unknown_id() is None


def test_tokenizer_files_and_texts_are_read_alike(tmp_path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer_text())), encoding="utf-8")
    assert WordPieceTokens(path, 8).ids("a tail") == WordPieceTokens(tokenizer_text(), 8).ids("a tail")


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ModelError, match="5 heads"):
        WordPieceConfig(pieces=4, width=16, heads=5)
