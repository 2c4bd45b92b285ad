"""The examples of the groups, and what is asked of which model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from concept_cam.commands import example
from concept_cam.core.concept import Concept
from concept_cam.core.regions import DEFAULT_THRESHOLD
from concept_cam.demo.worlds import ROOMS
from concept_cam.localizer import Localizer
from tests.planted import PlantedBackbone


class Asked:
    """Answers every question with where it is red, and remembers what it was asked."""

    def __init__(self, **says: Any) -> None:
        self.backbone, self.names, self.inner = SimpleNamespace(**says), [], Localizer(PlantedBackbone())

    def locate_all(self, pictures: list[np.ndarray], concepts: list[Any]) -> list[list[Any]]:
        self.names += [concept.name for concept in concepts]
        return self.inner.locate_all(pictures, [Concept("red", name=concept.name) for concept in concepts])


def test_every_group_beside_fish_has_an_example_that_is_seen_again() -> None:
    assert {"fish", *example.GROUPS} == set(ROOMS)
    for name, group in example.GROUPS.items():
        picture = example.render_group(name)
        assert picture.shape == (*example.EXAMPLE_SIZE, 3)
        assert np.array_equal(picture, example.render_group(name))
        assert all(question.startswith(f"{name}:") for question in group.questions)


@pytest.mark.parametrize(
    ("says", "asked"),
    [({}, list(example.GROUPS)), ({"groups": ("fish", "beetle")}, ["beetle"]), ({"groups": ()}, [])],
)
def test_only_what_a_model_may_know_is_asked(says: dict[str, Any], asked: list[str]) -> None:
    """A model that does not say what it was trained on is asked about all groups."""
    localizer = Asked(**says)
    sheet, answers = example.draw_groups(localizer)  # type: ignore[arg-type]
    expected = [question.split(":", 1)[1] for name in asked for question in example.GROUPS[name].questions]
    assert localizer.names == expected
    assert [answer.concept.name for answer in answers] == expected
    panel = answers[0].overlay(threshold=DEFAULT_THRESHOLD, title="").width if answers else example.EXAMPLE_SIZE[1]
    columns = 4 if answers else 3
    assert sheet.width >= columns * min(panel, example.EXAMPLE_SIZE[1]) * 0.9
