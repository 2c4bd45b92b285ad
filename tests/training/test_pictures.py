from __future__ import annotations

import numpy as np
import pytest
import torch
from training.pictures import Job, gather, make_twins, render_job

from concept_cam.demo import captions as writing
from concept_cam.demo import world


def test_twins_differ_from_their_originals_in_one_state() -> None:
    specimens = world.sample(24, 5)
    twins = make_twins(specimens, np.random.default_rng(0))
    assert ((twins.states != specimens.states).sum(1) == 1).all()
    assert (twins.focus == specimens.focus).all()


@pytest.mark.parametrize(("windows", "regions", "pictures"), [(0, 0, 6), (2, 0, 18), (0, 4, 6)])
def test_jobs_are_reproducible_and_consistent(windows: int, regions: int, pictures: int) -> None:
    job = Job(64, 6, 100, 2, windows, regions)
    first, again = render_job(job), render_job(job)
    assert first.images.shape == (pictures, 3, 64, 64)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.boxes, again.boxes)
    assert first.boxes.shape == (pictures, regions, 4)
    assert len(first.regions) == pictures * regions
    for facts, same in ((first.facts, again.facts), (first.regions, again.regions)):
        assert all((getattr(facts, name) == getattr(same, name)).all() for name in writing.FACT_FIELDS)
        assert not (facts.visible & ~facts.in_frame).any()
    one = first[pictures - 1]
    assert torch.equal(one.images[0], first.images[-1])
    assert gather([first[i] for i in range(pictures)]).boxes.equal(first.boxes)
