"""No cell of an export is a formula, and an import gets back exactly what was exported."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsletter.formulas import shield, unshield

DANGEROUS = "=+-@＝＋－＠"
texts = st.text() | st.text(st.sampled_from(DANGEROUS + "\t\r\n';,\" x\u00a0\u3000"), max_size=12)


@given(texts)
def test_exactly_what_was_put_in_front_is_taken_back(text: str) -> None:
    assert unshield(shield(text)) == text
    assert unshield(shield(shield(text))) == shield(text)


@given(texts)
def test_no_cell_begins_like_a_formula_even_where_a_spreadsheet_splits_it(text: str) -> None:
    assert not shield(text).startswith(("\t", "\r", "\n"))
    for cell in re.split("[;\t\r\n]", shield(text)):
        assert not cell.lstrip(' "\u00a0\u3000').startswith(tuple(DANGEROUS)), cell


@pytest.mark.parametrize(
    "text", ["O'Brien", "'t Hooft", "Zoë", "", "Anne-Marie", "a=b", "李小龙", "'", "10%"]
)
def test_names_stay_as_they_are(text: str) -> None:
    assert shield(text) == unshield(text) == text


@pytest.mark.parametrize("text", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "＝1", " =1", "'=1"])
def test_formulas_become_text(text: str) -> None:
    assert shield(text) == f"'{text}"


@pytest.mark.parametrize(("text", "cell"), [("a;=1", "a;'=1"), ('a;"=1', "a;'\"=1")])
def test_a_cell_that_begins_inside_a_cell_becomes_text_too(text: str, cell: str) -> None:
    assert shield(text) == cell
