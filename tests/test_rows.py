"""Files of people as spreadsheets and providers write them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from newsletter.errors import Unfinished, UsageError
from newsletter.rows import LONGEST_CELL, choose_columns, field_name, open_sheet

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "email,name\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file for a test to write."""
    return tmp_path / "people.csv"


def cells(file: Path, data: bytes | str) -> list[tuple[str, ...]]:
    """The rows of a file with this content, all of which must be readable."""
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    rows = list(open_sheet(file).rows())
    assert not [row.problem for row in rows if row.problem]
    return [row.cells for row in rows]


def problem(file: Path, data: bytes | str) -> tuple[int, str]:
    """Line and words of the one bad row; one good row must follow it."""
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    bad, good = open_sheet(file).rows()
    assert good.cells == ("b@example.org", "B")
    return bad.line, bad.problem


def refusal(file: Path, data: bytes) -> str:
    file.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        list(open_sheet(file).rows())
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_usual_way_of_writing_a_table_is_read(
    file: Path, encoding: str, separator: str, end: str
) -> None:
    lines = [("email", "name"), ("zoe@example.org", "Zoë O’Brien"), ("m@example.org", "Müller")]
    text = "".join(separator.join(line) + end for line in lines)
    assert cells(file, text.encode(encoding)) == lines[1:]


def test_names_that_only_utf8_can_write_arrive_whole(file: Path) -> None:
    assert cells(file, HEADER + "l@example.org,李小龙\n") == [("l@example.org", "李小龙")]


def test_a_quoted_cell_keeps_its_separators_and_quotation_marks(file: Path) -> None:
    assert cells(file, HEADER + '"a@example.org","O""Brien, Ann"\n') == [("a@example.org", 'O"Brien, Ann')]


def test_blanks_around_cells_and_blank_lines_do_not_count(file: Path) -> None:
    found = cells(file, "\n email , name \n\n a@example.org ,\xa0Ann \n,\n\n")
    assert found == [("a@example.org", "Ann")]


def test_lines_are_counted_as_an_editor_counts_them(file: Path) -> None:
    file.write_text('email,note\n\n"a@example.org","two\nlines"\nb@example.org,x\n', encoding="utf-8")
    assert [row.line for row in open_sheet(file).rows()] == [3, 5]


def test_empty_cells_at_the_end_are_a_spreadsheets_habit(file: Path) -> None:
    assert cells(file, HEADER + "a@example.org,Ann,,\n") == [("a@example.org", "Ann")]


@pytest.mark.parametrize(
    "line", ["a@example.org", "a@example.org,Ann,unsubscribed"], ids=["too few", "too many"]
)
def test_a_ragged_row_is_not_guessed_at(file: Path, line: str) -> None:
    where, words = problem(file, f"{HEADER}{line}\nb@example.org,B\n")
    assert where == 2
    assert "cells where the first line has 2" in words


def test_a_stray_quotation_mark_spoils_one_row(file: Path) -> None:
    where, words = problem(file, HEADER + '"a"@example.org,A\nb@example.org,B\n')
    assert where == 2
    assert "quotation mark" in words


def test_a_huge_cell_spoils_one_row(file: Path) -> None:
    where, words = problem(file, f"{HEADER}a@example.org,{'x' * (LONGEST_CELL + 1)}\nb@example.org,B\n")
    assert where == 2
    assert "too long" in words


def test_a_quotation_mark_that_never_closes_names_the_lines_it_swallowed(file: Path) -> None:
    file.write_text(HEADER + 'a@example.org,"A\nb@example.org,B\nc@example.org,C\n', encoding="utf-8")
    [row] = open_sheet(file).rows()
    assert (row.line, row.last) == (2, 4)
    assert "opened and not closed" in row.problem


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n \n,,\n", "is empty"),
        ("email\na@example.org\n".encode("utf-16"), "UTF-16"),
        ("email\na@example.org\n".encode("utf-16-le"), "NUL bytes"),
        (b"email\na@exa\0mple.org\n", "NUL bytes"),
        (b"PK\x03\x04 a workbook", "spreadsheet"),
        (b"email\na\x81\x8d@example.org\n", "neither UTF-8 nor Windows-1252"),
        (b'email,"na"me\n', "line 1"),
    ],
)
def test_a_file_that_is_no_table_of_text_is_one_clear_error(file: Path, data: bytes, words: str) -> None:
    assert words in refusal(file, data)


def test_a_cut_character_at_the_very_end_is_noticed(file: Path) -> None:
    file.write_bytes(b"email,name\na@example.org,Zo" + "ë".encode()[:1])
    assert open_sheet(file).encoding == "cp1252"


def test_one_wrong_byte_does_not_garble_a_whole_file(file: Path) -> None:
    text = HEADER.encode() + "a@example.org,Zoë\n".encode() + b"b@example.org,M\xfcller\n"
    assert "UTF-8 in some places and not in others: see line 3" in refusal(file, text)
    assert "see line 2" in refusal(
        file, HEADER.encode() + "M\xfcller, Zoë\n".encode("cp1252") + "é\n".encode()
    )


@pytest.mark.parametrize(
    "name", ["Weiß’ Erben", "Groß\xa0", "Strauß–Müller", "Zoë", "JOSÉ\xa0A", "„MENÜ“"], ids=range(6)
)
def test_a_file_of_windows_is_read_as_it_was_meant(file: Path, name: str) -> None:
    text = f"{HEADER}a@example.org,{name}\nb@example.org,Jürgen\nc@example.org,Zoë\n"
    assert cells(file, text.encode("cp1252"))[0] == ("a@example.org", name.strip())


def test_separators_inside_quotes_do_not_count(file: Path) -> None:
    found = cells(file, '"Name, Vorname, Titel";"E-Mail"\n"Lee, Ann";a@example.org\n')
    assert found == [("Lee, Ann", "a@example.org")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_line_in_which_excel_names_the_separator_is_no_header(file: Path, separator: str) -> None:
    text = f'sep={separator}\r\nemail{separator}name\r\na@example.org{separator}"Lee, A; B"\r\n'
    assert cells(file, text) == [("a@example.org", "Lee, A; B")]
    assert open_sheet(file).header == ("email", "name")
    assert [row.line for row in open_sheet(file).rows()] == [3]


def test_a_folder_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        open_sheet(tmp_path)


def test_a_plain_list_has_no_header(file: Path) -> None:
    assert cells(file, "a@example.org\nb@example.org\n") == [("a@example.org",), ("b@example.org",)]


# A file that is not what it was


def changed(file: Path, data: str) -> None:
    file.write_text(data, encoding="utf-8")


def test_a_file_that_was_cut_while_it_was_read_is_not_taken_for_a_short_one(file: Path) -> None:
    changed(file, HEADER + "a@example.org,A\n" * 20_000)
    rows = open_sheet(file).rows()
    next(rows)
    os.truncate(file, 200_000)
    with pytest.raises(Unfinished, match=r"people\.csv was changed while it was read") as error:
        list(rows)
    assert "when the file is complete" in error.value.hint


def test_a_file_that_was_written_anew_is_noticed_before_a_row_of_it_is_read(file: Path) -> None:
    changed(file, HEADER + "a@example.org,A\n")
    sheet = open_sheet(file)
    changed(file, "name,email\nA,a@example.org\n")
    for reading in (sheet.rows(), sheet.glance()):
        with pytest.raises(Unfinished, match="was changed"):
            next(reading)  # type: ignore[call-overload]


def test_another_file_in_its_place_is_noticed(file: Path) -> None:
    changed(file, HEADER + "a@example.org,A\n")
    sheet = open_sheet(file)
    other = file.with_name("other.csv")
    changed(other, HEADER + "b@example.org,B\n")
    os.utime(other, ns=(0, sheet.stamp.changed))
    other.replace(file)
    with pytest.raises(Unfinished, match="was changed"):
        list(sheet.rows())


def test_a_file_that_is_gone_is_no_bug(file: Path) -> None:
    changed(file, HEADER + "a@example.org,A\n")
    sheet = open_sheet(file)
    file.unlink()
    with pytest.raises(Unfinished, match="can't be read any more: No such file"):
        list(sheet.rows())


def test_a_pipe_is_refused_instead_of_waited_for(file: Path) -> None:
    os.mkfifo(file)
    with pytest.raises(UsageError, match="it is a pipe, a device or a folder") as error:
        open_sheet(file)
    assert error.value.hint == "Save it to a file first."


# Columns


def header(file: Path, *columns: str) -> Path:
    file.write_text(",".join(columns) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "email", ["email", "Email Address", "E-mail", "E-Mail-Address", "EMAIL", "email_address"]
)
def test_the_column_of_addresses_is_known_by_many_names(file: Path, email: str) -> None:
    columns = choose_columns(open_sheet(header(file, "x", email)), {}, ())
    assert columns.places == {"email": 1}
    assert columns.ignored == ("x",)


def test_names_and_status_are_known_too(file: Path) -> None:
    sheet = open_sheet(header(file, "First Name", "Surname", "Status", "e-mail", "Full Name"))
    assert choose_columns(sheet, {}, ()).places == {"first": 0, "last": 1, "status": 2, "email": 3, "name": 4}


@pytest.mark.parametrize(
    ("columns", "mapping", "places"),
    [
        (("email", "Vorname", "Name"), {}, {"first": 1, "last": 2}),
        (("email", "Name", "Surname"), {}, {"first": 1, "last": 2}),
        (("email", "Rufname", "Name"), {"Rufname": "first"}, {"first": 1, "last": 2}),
        (("email", "Vorname", "Nachname", "Name"), {}, {"first": 1, "last": 2}),
        (("email", "Rufname", "Full name"), {"Rufname": "first"}, {"first": 1}),
        (("email", "Vorname", "Name"), {"Name": "name"}, {"first": 1, "name": 2}),
        (("email", "Vorname", "Name"), {"Vorname": "ignore"}, {"name": 2}),
    ],
)
def test_a_column_name_beside_half_a_name_is_the_other_half(
    file: Path, columns: tuple[str, ...], mapping: dict[str, str], places: dict[str, int]
) -> None:
    assert choose_columns(open_sheet(header(file, *columns)), mapping, ()).places == {"email": 0} | places


def test_a_column_can_be_ignored_and_one_without_a_name_is_not_mentioned(file: Path) -> None:
    sheet = open_sheet(header(file, "email", "List", "Status", "", ""))
    columns = choose_columns(sheet, {"list": "ignore", "status": "ignore"}, ())
    assert columns.places == {"email": 0}
    assert columns.ignored == ("List", "Status")


def test_what_the_caller_says_wins(file: Path) -> None:
    sheet = open_sheet(header(file, "email", "Mail", "Notes"))
    columns = choose_columns(sheet, {"mail": "email"}, ())
    assert columns.places == {"email": 1}
    assert columns.ignored == ("email", "Notes")


def test_a_status_that_is_kept_as_a_field_still_counts(file: Path) -> None:
    columns = choose_columns(open_sheet(header(file, "email", "Status")), {}, ("status",))
    assert columns.places["status"] == 1
    assert columns.fields == {"status": 1}


@pytest.mark.parametrize(
    ("columns", "mapping", "fields", "words"),
    [
        (("mail", "name"), {}, (), "has no column `email`; it has: mail, name"),
        (("email", "E-mail"), {}, (), "two columns for `email`"),
        (("email", "x"), {"y": "name"}, (), "no column 'y'"),
        (("email", "x"), {"x": "nom"}, (), "--map knows no 'nom'"),
        (("email", "x", "y"), {"x": "name", "y": "name"}, (), "two columns that they are `name`"),
        (("email", "town"), {}, ("Twon",), "no column 'Twon'"),
        (("email", "town", "Town"), {}, ("TOWN",), "2 columns called 'TOWN'"),
        (("email", "name"), {}, ("name",), "has a meaning already"),
        (("email", "2nd"), {}, ("2nd",), "gives no name for a merge tag"),
        (("a@example.org", "Ann"), {}, (), "has no header"),
    ],
)
def test_columns_that_do_not_fit_are_one_clear_error(
    file: Path, columns: tuple[str, ...], mapping: dict[str, str], fields: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        choose_columns(open_sheet(header(file, *columns)), mapping, fields)
    assert words in str(caught.value)


def test_a_column_becomes_the_name_of_a_merge_tag() -> None:
    assert field_name(" Home Town ") == "home_town"
    assert field_name("Clinic-No. 2") == "clinic_no_2"
