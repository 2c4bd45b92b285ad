"""Ontology tables: reading them with the noise they come with, and comparing every shipped id where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from concept_cam import prompts
from concept_cam.core.errors import DataError
from concept_cam.prompts import ontology

TABLE = (
    "id\tlabel\tsynonyms\n"
    "PATO:0001206\tserrated\tserrate [exact]|saw-toothed [related]\n"
    'AISM:0000032\t"antenna {creation_date=""2020-11-11""}"\t\n'
    "PO:0000001\tembryo\tembri&#243n (Spanish, exact) [exact]|germ (broad) [broad]\n"
    "PATO:0000001\tquality\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "some.tsv").write_text(TABLE, encoding="utf-8")
    return tmp_path


def test_tables_are_read(folder: Path) -> None:
    tables = ontology.read_tables(folder)
    assert tables["PATO:0001206"] == ontology.Term("PATO:0001206", "serrated", ("serrate",))
    assert tables["AISM:0000032"].label == "antenna"
    assert tables["PO:0000001"].exact == ("embrión",)
    assert tables["PATO:0000001"] == ontology.Term("PATO:0000001", "quality")


def test_synonyms_without_a_scope_are_exact_and_a_mark_at_the_start_is_no_name(tmp_path: Path) -> None:
    """As prompts/README.md describes a table, and as a spreadsheet saves it."""
    row = "PATO:0000573\ttall thing\thigh|elevated (of a thing)| towering [EXACT] |lofty [related]|up [broad]|sky-high (narrow) [narrow]|\n"
    (tmp_path / "a.tsv").write_text("\ufeffid\tlabel\tsynonyms\n" + row, encoding="utf-8")
    assert ontology.read_tables(tmp_path)["PATO:0000573"].exact == ("high", "elevated (of a thing)", "towering")


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ontology table"):
        ontology.read_tables(tmp_path)
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected the columns id, label and synonyms"):
        ontology.read_tables(tmp_path)


def test_every_term_of_a_pack_is_visited() -> None:
    pack = prompts.load_pack("fish")
    visited = {".".join(path): term for path, _, term in ontology.terms(pack)}
    text = prompts.available()["fish"].read_text(encoding="utf-8")
    assert len(visited) == text.count(' id: "')
    assert visited["characters.caudal_fin_shape.states.emarginate.quality"].id == "PATO:0002234"
    assert visited["characters.parts.states.eye.entity"].label == "eye"


def test_differences_are_named(folder: Path) -> None:
    pack = prompts.load_pack("plant")
    serrate = prompts.load_pack("plant").character("leaf_margin").state("serrate")
    assert serrate.quality == prompts.Quality("serrated", "PATO:0001206", "synonym")
    differences = {mismatch.path for mismatch in ontology.compare(pack, ontology.read_tables(folder))}
    # The small table knows this one term of the pack: it is verified, the others are not.
    assert ("characters", "leaf_margin", "states", "serrate", "quality", "match") not in differences
    assert ("characters", "leaf_margin", "entity", "id") in differences
    assert len(differences) == sum(term.id != "PATO:0001206" for _, _, term in ontology.terms(pack))


@pytest.mark.skipif(
    "CONCEPT_CAM_ONTOLOGIES" not in os.environ,
    reason="set CONCEPT_CAM_ONTOLOGIES to a folder of ontology label tables",
)
@pytest.mark.parametrize("name", sorted(prompts.available()))
def test_every_shipped_id_is_in_the_tables(name: str) -> None:
    tables = ontology.read_tables(Path(os.environ["CONCEPT_CAM_ONTOLOGIES"]))
    assert ontology.compare(prompts.load_pack(name), tables) == []
