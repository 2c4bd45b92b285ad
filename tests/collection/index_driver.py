"""Makes an index with the planted backbone in a process of its own, to be killed: INPUT OUTPUT WORKERS SECONDS_PER_BATCH."""

from __future__ import annotations

import sys

from concept_cam.collection.indexing import build_index
from concept_cam.localizer import Localizer
from tests.collection.annotate_driver import SlowBackbone


def main(inputs: str, output: str, workers: str, delay: str) -> None:
    backbone = SlowBackbone(64, 8)
    backbone.delay = float(delay)
    build_index(
        inputs, output, localizer=Localizer(backbone), resume=True, workers=int(workers), batch_size=4, part_pictures=7,
        progress=lambda progress: print(progress.done, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
