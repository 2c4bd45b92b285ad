"""Items of one size go through the model together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

__all__ = ["batches_of_one_size"]


def batches_of_one_size(sizes: Sequence[Hashable], most: int) -> Iterator[list[int]]:
    """Yields the numbers of items in batches of one size, in the order in which each size appears first.

    Args:
        sizes: Size of every item.
        most: Items of a batch.
    """
    groups: dict[Hashable, list[int]] = {}
    for position, size in enumerate(sizes):
        groups.setdefault(size, []).append(position)
    for positions in groups.values():
        for start in range(0, len(positions), most):
            yield positions[start : start + most]
