"""What an engine is asked for, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from concept_cam import annotate
from concept_cam.collection.engines import ENGINES, check_engine
from concept_cam.collection.indexing import build_index
from concept_cam.core.errors import ConfigurationError


@pytest.mark.parametrize("engine", list(ENGINES))
def test_an_engine_without_an_address_is_as_it_is(engine: str) -> None:
    check_engine(engine, None)


def test_an_address_is_for_the_engine_that_asks_it() -> None:
    check_engine("ray", "auto")


@pytest.mark.parametrize("blank", ["", " "])
@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_blank_address_is_no_cluster_of_ones_own(engine: str, blank: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"ray_address is '{blank}': expected the address of a Ray cluster, .* leave it out"):
        check_engine(engine, blank)


@pytest.mark.parametrize("run", [annotate, build_index])
def test_an_address_that_nobody_would_ask_is_refused_before_the_pictures_are_read(run: object, tmp_path: Path) -> None:
    asked = ["fish"] if run is annotate else []
    with pytest.raises(ConfigurationError, match="ray_address is 'auto' and the engine 'local', which asks no cluster: choose the engine"):
        run(tmp_path / "nowhere", tmp_path / "out", *asked, ray_address="auto")  # type: ignore[operator]
    assert not (tmp_path / "out").exists()
