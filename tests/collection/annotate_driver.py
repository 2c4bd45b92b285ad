"""Runs an annotation with the planted backbone in a process of its own, to be killed: INPUT OUTPUT WORKERS SECONDS_PER_BATCH."""

from __future__ import annotations

import sys
import time
from typing import Any

from concept_cam.collection.annotation import Interrupted, annotate
from concept_cam.localizer import Localizer
from tests.colour_world import PACK
from tests.planted import PlantedBackbone


class SlowBackbone(PlantedBackbone):
    """Takes its time, so that there is a middle to be killed in."""

    delay = 0.0

    def encode_patches(self, *arguments: Any, **named: Any) -> Any:
        time.sleep(self.delay)
        return super().encode_patches(*arguments, **named)


def main(inputs: str, output: str, workers: str, delay: str) -> None:
    backbone = SlowBackbone(64, 8)
    backbone.delay = float(delay)
    try:
        annotate(
            inputs, output, PACK, localizer=Localizer(backbone), resume=True, workers=int(workers), batch_size=4, part_pictures=7,
            progress=lambda progress: print(progress.done, flush=True),
        )  # fmt: skip
    except Interrupted:
        sys.exit(130)


if __name__ == "__main__":
    main(*sys.argv[1:])
