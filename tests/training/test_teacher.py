import pytest
import torch

from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTower
from examples.training.teacher import from_bert


def test_a_bert_encoder_is_read_exactly() -> None:
    """The renamed tensors give the mean-pooled output of the transformers library's own BERT."""
    pytest.importorskip("transformers")
    from concept_cam.backbones.torchvision_compat import prepare_torchvision

    prepare_torchvision()
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    bert = BertModel(
        BertConfig(
            vocab_size=20,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=16,
            layer_norm_eps=1e-12,
        ),
        add_pooling_layer=False,
    ).eval()
    tower = WordPieceTower(WordPieceConfig(pieces=20, width=24, layers=2, heads=3, hidden=40, context=16)).eval()
    tower.load_state_dict(from_bert(bert.state_dict()))
    ids = torch.tensor([[2, 5, 9, 7, 3], [2, 5, 3, 0, 0]])
    mask = ids != 0
    with torch.no_grad():
        hidden = bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        assert torch.allclose(tower(ids), torch.nn.functional.normalize(mean, dim=-1), atol=1e-5)
