"""Where the keys of a TOML file stand."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from newsletter.toml_lines import find, key_lines
from tests.support.issues import to_toml

TEXT = """\
# a = 1
top = "x = 1 # no comment" # b = 2
'quoted key'."deep" = 1
long = '''
inside = 1
[inside]
'''
longer = \"\"\"
inside = 1 \\\"\"\"
inside = 2
\"\"\"
list = [
  "inside = 1",
]
[ a . b ]
c.d = 1
[[e]]
f = 1
[[e]]
f = 2
[e.g]
h = 1
"""


def test_keys_are_found_and_what_stands_inside_values_is_not():
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        "top": 2, "quoted key.deep": 3, "long": 4, "longer": 8, "list": 12,
        "a.b": 15, "a.b.c.d": 16, "e.1": 17, "e.1.f": 18, "e.2": 19, "e.2.f": 20, "e.g": 21, "e.g.h": 22,
    }  # fmt: skip


def test_what_has_no_line_is_found_through_what_is_around_it():
    lines = key_lines("[a]\nb = { c = 1 }\n")
    assert [find(lines, path) for path in ("a.b.c", "a.x", "y.z")] == [2, 1, None]


KEYS = st.sampled_from(["a", "b-c", "d_e"])
TABLES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: (
        st.dictionaries(KEYS, inner, max_size=3)
        | st.lists(st.dictionaries(KEYS, inner, max_size=2), max_size=2)
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, TABLES, max_size=3))
def test_every_line_that_is_told_holds_the_key(table):
    text = to_toml(table)
    tomllib.loads(text)
    lines = text.split("\n")
    for path, number in key_lines(text).items():
        name = [part for part in path.split(".") if not part.isdigit()][-1]
        assert name in lines[number - 1]
