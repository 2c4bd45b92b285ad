"""One reader for every table: a quote costs its own line at most, and a tab table has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from concept_cam.core.errors import DataError
from concept_cam.core.tables import BadRow, entries_of, is_table, plain_name, read_header, rows_of


def read(tmp_path: Path, text: str, name: str = "t.csv") -> list[tuple[int, list[str] | None]]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    return [(line, None if isinstance(row, BadRow) else list(row.values())) for line, row in entries_of(str(path))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Meant: commas, doubled quotes and lines within quotes.
        ('a,b\n1.jpg,"x, y"\n2.jpg,"a ""q"" b"\n', [(2, ["1.jpg", "x, y"]), (3, ["2.jpg", 'a "q" b'])]),
        ('a,b\n1.jpg,"two\nlines, all"\n2.jpg,z\n', [(2, ["1.jpg", "two\nlines, all"]), (4, ["2.jpg", "z"])]),
        ('a,b,c\n1.jpg,x,"at the\nend"', [(2, ["1.jpg", "x", "at the\nend"])]),
        ('a,b\r\n1.jpg,""\r\n"2.jpg",y\r\n', [(2, ["1.jpg", ""]), (3, ["2.jpg", "y"])]),
        # Not meant: they cost their own line, and nothing where the text can be read as it stands.
        ('a,b\n1.jpg,"open\n2.jpg,y\n3.jpg,z\n', [(2, None), (3, ["2.jpg", "y"]), (4, ["3.jpg", "z"])]),
        ('a,b\n1.jpg,"open\n2.jpg,y\n3.jpg,"fine, too"\n', [(2, None), (3, ["2.jpg", "y"]), (4, ["3.jpg", "fine, too"])]),
        ('a,b\n1.jpg,"open\n2.jpg,y\n3.jpg,lens '
         '5"\n4.jpg,k\n', [(2, None), (3, ["2.jpg", "y"]), (4, ["3.jpg", 'lens 5"']), (5, ["4.jpg", "k"])]),
        ('a,b\n1.jpg,"Big" fish\n2.jpg,5" lens\n', [(2, ["1.jpg", '"Big" fish']), (3, ["2.jpg", '5" lens'])]),
        # Cells beyond the header belong to no column; empty ones are what spreadsheets leave.
        ("a,b\n1.jpg,x,,\n2.jpg,y,lost\n3.jpg\n", [(2, ["1.jpg", "x"]), (3, None), (4, ["3.jpg", ""])]),
        ("a;b;\n1.jpg;x;\n\n2.jpg;y, z;\n", [(2, ["1.jpg", "x"]), (4, ["2.jpg", "y, z"])]),
    ],
)  # fmt: skip
def test_quotes_of_comma_separated_tables(tmp_path: Path, text: str, expected: list[tuple[int, list[str] | None]]) -> None:
    assert read(tmp_path, text) == expected


@pytest.mark.parametrize("name", ["t.tsv", "t.tab", "t.txt", "t.csv"])
def test_tab_tables_have_no_quotes(tmp_path: Path, name: str) -> None:
    text = 'id\tfile\ttitle\n1\tp1.jpg\t"type\n2\tp2.jpg\t"Big" and "small"\n3\tp3.jpg\tplain\n'
    rows = [(2, ["1", "p1.jpg", '"type']), (3, ["2", "p2.jpg", '"Big" and "small"']), (4, ["3", "p3.jpg", "plain"])]
    assert read(tmp_path, text, name) == rows
    # A writer that quotes its header (R) quotes its cells.
    assert read(tmp_path, '"file"\t"title"\n"p1.jpg"\t"with a\ttab"\n', name) == [(2, ["p1.jpg", "with a\ttab"])]


def test_many_stray_quotes_stay_cheap(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f'{number}.jpg,"open {number}\n' for number in range(20_000))
    found = read(tmp_path, text)
    assert len(found) == 20_000
    assert all(row is None for _, row in found)


def test_strict_readers_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,2\n3,"4\n5,6\n')
    with pytest.raises(DataError, match=r"t\.csv.*line 3.*quote"):
        list(rows_of(str(tmp_path / "t.csv")))
    for content in (b"\xff\xfea\0,", b"", b"a,a\n", b"\xe9,b\n1,2\n"):
        (tmp_path / "bad.csv").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.csv"):
            read_header(str(tmp_path / "bad.csv"))
    with pytest.raises(DataError, match="no file"):
        read_header(str(tmp_path))
    with pytest.raises(DataError, match="not there"):
        read_header(str(tmp_path / "none.csv"))


def test_unicode_text_of_spreadsheets(tmp_path: Path) -> None:
    (tmp_path / "u.txt").write_bytes('file\ttitle\r\né鱼.jpg\t"type\r\n'.encode("utf-16"))
    assert [list(row.values()) for _, row in rows_of(str(tmp_path / "u.txt"))] == [["é鱼.jpg", '"type']]


def test_a_text_file_is_a_table_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "multimedia.txt"
    for text, expected in (
        ("gbifID\tidentifier\n1\tp.jpg\n", True),
        ("ac:accessURI,dc:title\nhttps://x.org/1.jpg,t\n", True),
        ("identifier\np1.jpg\n", True),
        ("p1.jpg\np2.jpg\n", False),
        ("photo 1, left.jpg\nphoto 2, right.jpg\n", False),
    ):
        path.write_text(text)
        assert is_table(str(path), ("path", "accessURI", "identifier")) is expected, text
    assert plain_name("ac:accessURI") == plain_name("access_uri") == "accessuri"
