from __future__ import annotations

import torch
from torch import nn

from concept_cam.backbones.hashing import hash_model, hash_weights


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


def test_constants_beside_the_weights_are_part_of_a_model() -> None:
    model = nn.Linear(2, 3)
    weights = hash_weights(model.state_dict())
    assert hash_model(model) == weights

    class WithConstants(nn.Linear):
        constants: dict[str, float | str]

    other = WithConstants(2, 3)
    other.load_state_dict(model.state_dict())
    found = {weights}
    for constants in ({"floor": 0.01, "kind": "a"}, {"floor": 0.02, "kind": "a"}, {"floor": 0.01, "kind": "b"}):
        other.constants = constants
        assert hash_model(other) == hash_weights(model.state_dict(), dict(reversed(constants.items())))
        found.add(hash_model(other))
    other.constants = {}
    assert hash_model(other) == weights
    assert len(found) == 4
