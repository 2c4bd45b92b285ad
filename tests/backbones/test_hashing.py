from __future__ import annotations

import torch

from concept_cam.backbones.hashing import hash_weights


def test_order_does_not_matter_but_names_shapes_types_and_values_do() -> None:
    a, b = torch.arange(6.0).reshape(2, 3), torch.ones(2, dtype=torch.bfloat16)
    known = hash_weights({"a": a, "b": b})
    assert known == hash_weights({"b": b, "a": a})
    assert len(known) == 16
    assert int(known, 16) >= 0
    others = [
        {"a": a, "c": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a, "b": b.double()},
        {"a": a + torch.eye(2, 3) * 1e-6, "b": b},
        {"a": a},
    ]
    assert len({known, *map(hash_weights, others)}) == 6


def test_the_same_numbers_in_half_the_space_are_the_same_weights() -> None:
    values = torch.tensor([0.5, -3.0, 1024.0])
    assert hash_weights({"a": values}) == hash_weights({"a": values.half()}) == hash_weights({"a": values.bfloat16()})


def test_any_tensor_can_be_hashed() -> None:
    state = {
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0),
        "view": torch.arange(9.0).reshape(3, 3).T,
        "int": torch.tensor([1]),
    }
    assert hash_weights(state) == hash_weights({**state, "view": state["view"].contiguous()})
