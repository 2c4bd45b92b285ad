import hashlib
from collections import defaultdict

import numpy as np
import pytest

from concept_cam.core.errors import DataError
from concept_cam.demo.worlds import WORLDS
from concept_cam.demo.worlds.family import World
from concept_cam.evaluation import datasets
from concept_cam.evaluation.datasets import synthetic
from concept_cam.evaluation.datasets.samples import Sample

COUNT = 12


SIZES = defaultdict(lambda: (176, 176), fish=(96, 144), beetle=(256, 256))
"""Of beetles larger pictures: the shape of antennae is not asked where it cannot be seen."""


@pytest.fixture(scope="module", params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return WORLDS[request.param]


@pytest.fixture(scope="module")
def samples(world: World) -> list[Sample]:
    return list(datasets.load("synthetic", count=COUNT, size=SIZES[world.name], world=world.name))


def test_every_world_has_its_part() -> None:
    assert set(synthetic.BENCHMARKS) == set(WORLDS)
    with pytest.raises(DataError, match="unknown world 'atlantis'"):
        datasets.load("synthetic", world="atlantis")
    with pytest.raises(DataError, match="does not have the option 'world'"):
        datasets.load("folder:.", world="fish")
    assert len({datasets.load("synthetic", world=name).name for name in WORLDS}) == len(WORLDS)


def test_the_benchmark_is_versioned() -> None:
    for name, own in synthetic.BENCHMARKS.items():
        assert datasets.load("synthetic", limit=3, world=name).version == own.version
        assert datasets.load("synthetic", seed=5, world=name).version != own.version
        assert datasets.load("synthetic", size=(9, 9), world=name).version != own.version
        assert len(datasets.load("synthetic", world=name)) == own.count
    with pytest.raises(DataError, match="at least one picture"):
        datasets.load("synthetic", count=0)


ASKED = {
    ("fish", "3"): (16, 16, 16, 16, 16, 14, 16, 16, 15, 16, 16),
    ("lepidoptera", "1"): (13, 5, 16, 15, 11, 16, 11, 16, 16, 13, 9),
    ("beetle", "2"): (13, 10, 16, 4, 9, 7, 10, 7, 4, 5, 13, 11),
    ("plant", "3"): (8, 6, 12, 7, 5, 12),
}
"""Group and version -> how many of the first 16 pictures each character is asked of."""


def test_a_version_asks_what_it_asked(world: World) -> None:
    """Where this fails, the pictures or their questions have changed: the version is raised."""
    own = synthetic.BENCHMARKS[world.name]
    made = world.render(world.sample(16, synthetic.SEED, view="whole"), own.size)
    assert tuple(made.judgeable.sum(0).tolist()) == ASKED[world.name, own.version]


def test_the_pictures_do_not_depend_on_how_many_are_made(samples: list[Sample], world: World) -> None:
    few = list(datasets.load("synthetic", count=2, size=SIZES[world.name], world=world.name))
    assert [sample.name for sample in few] == [sample.name for sample in samples[:2]]
    for one, other in zip(few, samples):
        assert (one.image == other.image).all()
        assert [q.concept.name for q in one.questions] == [q.concept.name for q in other.questions]


def test_pictures_differ(samples: list[Sample]) -> None:
    assert len({hashlib.sha256(np.ascontiguousarray(sample.image)).hexdigest() for sample in samples}) == COUNT


def test_masks_lie_in_the_host(samples: list[Sample]) -> None:
    for sample in samples:
        for question in sample.questions:
            if question.mask is None:
                assert not question.present
                continue
            mask, host = question.mask(), question.host()
            assert mask.shape == sample.image.shape[:2]
            assert mask.any()
            assert (host | ~mask).all()


def test_questions_name_true_states(samples: list[Sample], world: World) -> None:
    kinds = {(question.kind, question.trait) for sample in samples for question in sample.questions}
    assert {trait for kind, trait in kinds if kind == "presence"} == set(world.presences)
    assert {trait for kind, trait in kinds if kind == "state"} == set(world.characters) - set(world.presences)
    for sample in samples:
        for question in sample.questions:
            if question.kind == "state":
                assert len(question.concept.contrasts) >= len(world.characters[question.trait]) - 1


def test_twins_differ_only_where_they_say(samples: list[Sample], world: World) -> None:
    twins = [(sample, question) for sample in samples for question in sample.questions if question.twin is not None]
    assert len(twins) >= COUNT - 2
    assert len({question.trait for _, question in twins}) >= min(6, len(world.characters) - 2)
    inside, outside = [], []
    for sample, question in twins:
        change = np.abs(sample.image.astype(int) - question.twin().astype(int)).max(axis=2)
        difference = question.difference()
        assert difference.any()
        assert not difference.all()
        inside.append(change[difference].mean())
        outside.append(change[~difference].mean())
    assert np.mean(inside) > 5 * np.mean(outside)
