"""Splitting a collection over several jobs: shard ``i`` of ``n``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from concept_cam.core.errors import ConfigurationError

__all__ = ["Shard", "parse_shard"]


@dataclass(frozen=True)
class Shard:
    """One of several jobs.

    Attributes:
        index: Which, 1 to ``count``.
        count: How many there are.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ConfigurationError(
                f"shard {self.index}/{self.count} does not exist: the first is 1/{self.count}, the last {self.count}/{self.count}."
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def folder(self) -> str:
        """Name of the shard's own folder inside the run's."""
        return f"shard-{self.index:05d}-of-{self.count:05d}"

    def holds(self, image_key: str) -> bool:
        """Tells whether a picture belongs to this shard: by its key, so that it does not depend on the order or on other pictures."""
        return int(image_key[:12], 16) % self.count == self.index - 1


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """Reads ``"i/n"`` (from ``1/n`` to ``n/n``), or ``"slurm"``: the task of a Slurm job array.

    Args:
        text: The option's value.
        environment: Environment variables; this process's by default.

    Raises:
        ConfigurationError: Neither, or ``slurm`` outside a job array.
    """
    variables = os.environ if environment is None else environment
    if text == "slurm":
        try:
            task, first, count = (int(variables[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "COUNT"))
        except (KeyError, ValueError) as error:
            raise ConfigurationError(
                f"--shard slurm reads the variables of a Slurm job array, but {error} is not set: start the job with sbatch --array=1-N, "
                "or give i/n."
            ) from None
        step = int(variables.get("SLURM_ARRAY_TASK_STEP", "1"))
        return Shard((task - first) // step + 1, count)
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if not found:
        raise ConfigurationError(f"cannot read the shard {text!r}: expected i/n, such as 1/8 for the first of eight, or slurm.")
    return Shard(int(found[1]), int(found[2]))
