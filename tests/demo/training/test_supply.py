from __future__ import annotations

from concept_cam.demo.training.config import TrainConfig
from concept_cam.demo.training.pictures import Job
from concept_cam.demo.training.supply import plan


def test_the_plan_is_deterministic_and_pictures_never_repeat() -> None:
    config = TrainConfig(steps=40, reuse=1)

    def jobs() -> list[Job]:
        planned = plan(config)
        return [next(planned) for _ in range(40)]

    first = jobs()
    assert first == jobs()
    assert {job.size for job in first[:10] if not job.regions} <= {64, 96}
    assert {job.size for job in first[30:] if not job.regions} <= {96, 128, 160}
    assert {job.size for job in first if job.regions} == set(TrainConfig().region_sizes)
    assert any(job.windows for job in first)
    ends = [job.start + job.count for job in first]
    assert [job.start for job in first[1:]] == ends[:-1]
