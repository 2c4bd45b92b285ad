from __future__ import annotations

from training.config import TrainConfig, class_token_config, further_config
from training.pictures import Job
from training.supply import plan


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


def test_a_class_token_model_sees_close_ups_at_its_own_size_and_no_windows_in_place() -> None:
    planned = plan(class_token_config(TrainConfig(steps=40)))
    jobs = [next(planned) for _ in range(40)]
    assert {job.size for job in jobs} == {96}
    assert not any(job.regions for job in jobs)
    assert {job.windows for job in jobs} == {0, TrainConfig().windows}


def test_a_run_that_begins_with_trained_weights_stays_at_the_last_sizes() -> None:
    config = TrainConfig(steps=40, region_share=0.0, reuse=1)
    planned, further = plan(config), plan(further_config(config))
    assert min(next(planned).size for _ in range(8)) < 96
    sizes = {next(further).size for _ in range(40)}
    assert sizes == {size for size, _ in config.phases[-1][1]}
