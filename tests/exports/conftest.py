"""The planted runs, made once."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("pyarrow") is None:
    collect_ignore_glob = ["test_*.py"]  # Annotation runs are Parquet data sets: without the extra there is nothing to export.
else:
    from tests.exports.planted import Planted, plant, plant_specimens

    @pytest.fixture(scope="session")
    def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
        """A run over five pictures; nothing may be written into it."""
        return plant(tmp_path_factory.mktemp("planted"))

    @pytest.fixture(scope="session")
    def tray(tmp_path_factory: pytest.TempPathFactory) -> Planted:
        """A run with two specimens and two packs; nothing may be written into it."""
        return plant_specimens(tmp_path_factory.mktemp("tray"))
