import hashlib

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.demo.worlds.fish.traits import CHARACTERS, PRESENCE_CHARACTERS
from concept_cam.evaluation import datasets
from concept_cam.evaluation.datasets import synthetic
from concept_cam.evaluation.datasets.samples import Sample

COUNT = 12


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return list(datasets.load("synthetic", count=COUNT, size=(96, 144)))


def test_the_benchmark_is_versioned() -> None:
    assert datasets.load("synthetic", limit=3).version == synthetic.VERSION
    assert datasets.load("synthetic", seed=5).version != synthetic.VERSION
    with pytest.raises(DataError, match="at least one picture"):
        datasets.load("synthetic", count=0)


def test_the_pictures_do_not_depend_on_how_many_are_made(samples: list[Sample]) -> None:
    few = list(datasets.load("synthetic", count=2, size=(96, 144)))
    assert [sample.name for sample in few] == [sample.name for sample in samples[:2]]
    for one, other in zip(few, samples):
        assert (one.image == other.image).all()
        assert [q.concept.name for q in one.questions] == [q.concept.name for q in other.questions]


def test_pictures_differ(samples: list[Sample]) -> None:
    assert len({hashlib.sha256(np.ascontiguousarray(sample.image)).hexdigest() for sample in samples}) == COUNT


def test_masks_lie_in_the_fish(samples: list[Sample]) -> None:
    for sample in samples:
        for question in sample.questions:
            if question.mask is None:
                assert not question.present
                continue
            mask, host = question.mask(), question.host()
            assert mask.shape == sample.image.shape[:2]
            assert mask.any()
            assert (host | ~mask).all()


def test_questions_name_true_states(samples: list[Sample]) -> None:
    kinds = {(question.kind, question.trait) for sample in samples for question in sample.questions}
    assert {trait for kind, trait in kinds if kind == "presence"} == set(PRESENCE_CHARACTERS)
    assert {trait for kind, trait in kinds if kind == "state"} == set(CHARACTERS) - set(PRESENCE_CHARACTERS)
    for sample in samples:
        for question in sample.questions:
            if question.kind == "state":
                assert len(question.concept.contrasts) == len(CHARACTERS[question.trait]) - 1


def test_twins_differ_only_where_they_say(samples: list[Sample]) -> None:
    twins = [(sample, question) for sample in samples for question in sample.questions if question.twin is not None]
    assert len(twins) >= COUNT - 2
    assert len({question.trait for _, question in twins}) >= 6
    inside, outside = [], []
    for sample, question in twins:
        change = np.abs(sample.image.astype(int) - question.twin().astype(int)).max(axis=2)
        difference = question.difference()
        assert difference.any()
        assert not difference.all()
        inside.append(change[difference].mean())
        outside.append(change[~difference].mean())
    assert np.mean(inside) > 5 * np.mean(outside)
