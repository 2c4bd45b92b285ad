from __future__ import annotations

from concept_cam.core.grouping import batches_of_one_size


def test_batches_hold_one_size_each_and_every_item_once() -> None:
    sizes = [(2, 3), (4, 4), (2, 3), (2, 3), (4, 4), (1, 1)]
    found = list(batches_of_one_size(sizes, 2))
    assert found == [[0, 2], [3], [1, 4], [5]]
    assert sorted(number for batch in found for number in batch) == list(range(6))
    assert list(batches_of_one_size([], 2)) == []
