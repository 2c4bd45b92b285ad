from __future__ import annotations

import re

from concept_cam.core.progress import Progress, Tracker, clock


def test_progress_reads_as_a_line() -> None:
    assert str(Progress(3, 12, 1, 1.5, 2.0)) == "3/12 (25 %) pictures, 2.0/s, 00:04 left, 1 errors"
    assert str(Progress(4, None, 0, 2.0, 2.0)) == "4 pictures, 2.0/s"
    assert str(Progress(4, 8, 0, 2.0, 2.0, "steps", "loss 0.125")) == "4/8 (50 %) steps, 2.0/s, 00:02 left, loss 0.125"


def test_the_rate_is_of_this_session() -> None:
    tracker = Tracker(lambda: 100, done=50, errors=2)
    progress = tracker.add(8, 1)
    assert (progress.done, progress.errors) == (58, 3)
    assert progress.rate >= 8 / max(progress.seconds, 1e-9) * 0.5
    assert progress.seconds_left is not None
    assert re.match(r"58/100", str(progress))
    assert (clock(59.6), clock(3723), clock(None)) == ("01:00", "1:02:03", "?")
