from __future__ import annotations

import io
import re

from concept_cam.collection.progress import Progress, ProgressLine, Tracker, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_plain_lines() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream, every=0.0)
    line(Progress(3, 12, 1, 1.5, 2.0))
    line(Progress(4, None, 0, 2.0, 2.0))
    line.close()
    assert stream.getvalue() == "3/12 (25 %) pictures, 2.0 images/s, 00:04 left, 1 errors\n4 pictures, 2.0 images/s\n"


def test_a_terminal_gets_one_line_with_a_bar() -> None:
    stream = Terminal()
    line = ProgressLine(stream)
    line(Progress(6, 12, 0, 3.0, 2.0))
    line(Progress(7, 12, 0, 3.1, 2.0))  # too soon to be drawn
    line.close()
    assert stream.getvalue().count("\r") == 1
    assert "[############            ]" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_the_rate_is_of_this_session() -> None:
    tracker = Tracker(lambda: 100, done=50, errors=2)
    progress = tracker.add(8, 1)
    assert (progress.done, progress.errors) == (58, 3)
    assert progress.rate >= 8 / max(progress.seconds, 1e-9) * 0.5
    assert progress.seconds_left is not None
    assert re.match(r"58/100", str(progress))
    assert (clock(59.6), clock(3723), clock(None)) == ("01:00", "1:02:03", "?")
