"""Nobody who left comes back by a file, and importing twice is importing once."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from newsletter import intake, subscriptions
from newsletter.admission import Verdict
from newsletter.errors import UsageError
from newsletter.intake import Import, Report, import_people, suppress_file
from newsletter.model import SubscriptionState
from newsletter.store import subscribers as store
from newsletter.store.engine import open_engine, read, write
from newsletter.store.schema import subscription
from tests.support.ledgers import NOW
from tests.support.lists import SECRET, Reader, add, dump, leave, live_through, mailable, readers

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

HEADER = "email,name,status\n"


@pytest.fixture
def engine(sqlite_engine: Engine) -> Engine:
    """An empty database."""
    return sqlite_engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file for a test to write."""
    return tmp_path / "people.csv"


def bring(
    engine: Engine, file: Path, text: str | None = None, *, apply: bool = True, fields: tuple[str, ...] = ()
) -> Report:
    """Imports a file onto the list ``readers``."""
    if text is not None:
        file.write_text(text, encoding="utf-8")
    order = Import(file=file, list="readers", source="a test", fields=fields)
    return import_people(engine, order, SECRET, now=NOW, apply=apply)


def test_awkward_names_arrive_as_they_were_written(engine: Engine, file: Path) -> None:
    names = {"a@example.org": "O’Brien", "b@example.org": "<b>Zoë</b>", "c@example.org": "李小龙"}
    bring(engine, file, "email,name\n" + "".join(f"{a},{n}\n" for a, n in names.items()))
    assert {address: reader.name for address, reader in readers(engine).items()} == names


def test_first_and_last_name_become_one(engine: Engine, file: Path) -> None:
    bring(engine, file, "Email,First Name,Last Name\na@example.org,Ann,Lee\nb@example.org,,Cher\n")
    assert [reader.name for reader in readers(engine).values()] == ["Ann Lee", "Cher"]


def test_a_preview_says_what_would_happen_and_changes_nothing(engine: Engine, file: Path) -> None:
    before = dump(engine)
    report = bring(engine, file, HEADER + "a@example.org,Ann,active\nb@example.org,,bounced\n", apply=False)
    assert (report.counts[Verdict.NEW], report.counts[Verdict.STOPPED]) == (1, 1)
    assert report.new_list
    assert dump(engine) == before


def test_a_preview_counts_what_applying_then_counts(engine: Engine, file: Path) -> None:
    add(engine, "a@example.org", name="Old")
    leave(engine, "a@example.org")
    add(engine, "b@example.org", name="Old")
    text = (
        HEADER
        + "a@example.org,,active\nb@example.org,New,active\nc@example.org,,spam\nd@example.org,,active\n"
    )
    preview = bring(engine, file, text, apply=False)
    applied = bring(engine, file)
    assert preview.counts == applied.counts
    assert preview.lines == applied.lines


@pytest.mark.parametrize(
    ("status", "state", "suppressed"),
    [
        ("active", "active", ""),
        ("Subscribed", "active", ""),
        ("unsubscribed", "unsubscribed", "unsubscribed"),
        ("Opted-out", "unsubscribed", "unsubscribed"),
        ("opt out", "unsubscribed", "unsubscribed"),
        ("Hard bounce", "active", "bounced"),
        ("abuse", "unsubscribed", "complained"),
        ("bounced", "active", "bounced"),
        ("cleaned", "active", "bounced"),
        ("complained", "unsubscribed", "complained"),
    ],
)
def test_whoever_is_not_active_is_suppressed(
    engine: Engine, file: Path, status: str, state: str, suppressed: str
) -> None:
    bring(engine, file, f"{HEADER}a@example.org,Ann,{status}\n")
    assert readers(engine) == {"a@example.org": Reader("Ann", state, suppressed)}


@pytest.mark.parametrize("status", ["unsubscribed", "bounced", "complained"])
def test_a_file_that_says_no_stops_a_person_who_was_active(engine: Engine, file: Path, status: str) -> None:
    add(engine, "a@example.org")
    report = bring(engine, file, f"{HEADER}A@example.org,,{status}\n")
    assert report.counts[Verdict.STOPPED] == 1
    assert mailable(engine) == set()


@pytest.mark.parametrize("order", [("active", "unsubscribed"), ("unsubscribed", "active")])
def test_no_wins_wherever_it_stands_in_the_file(engine: Engine, file: Path, order: tuple[str, str]) -> None:
    between = "".join(f"x{number}@example.org,,active\n" for number in range(intake.CHUNK))
    report = bring(engine, file, f"{HEADER}a@example.org,,{order[0]}\n{between}A@EXAMPLE.org,,{order[1]}\n")
    assert "a@example.org" not in mailable(engine)
    assert report.counts[Verdict.REPEATED] == 1


@pytest.mark.parametrize(
    "said",
    ["w@example.org,,opt out by phone", "W@example.org,,", "w@example.org,,unsubscribed,x", "w@example.org,",
     '"w"@example.org,,unsubscribed', 'w@example.org,"A" B,unsubscribed', "W <w@example.org>,,unsubscribed"],
    ids=range(7),
)  # fmt: skip
def test_a_row_that_may_be_a_no_keeps_a_person_out(engine: Engine, file: Path, said: str) -> None:
    report = bring(engine, file, f"{HEADER}w@example.org,,active\na@example.org,,active\n{said}\n")
    assert mailable(engine) == {"a@example.org"}
    line = next(line for line in report.lines if line.number == 2)
    assert line.verdict is Verdict.BAD
    assert line.why == "line 4 says something about this address that could not be understood"


def test_a_clear_no_beside_an_unclear_one_is_a_no(engine: Engine, file: Path) -> None:
    bring(engine, file, HEADER + "a@example.org,,active\na@example.org,,huh\na@example.org,,bounced\n")
    assert readers(engine)["a@example.org"].suppressed == "bounced"


def test_a_shifted_address_is_not_printed(engine: Engine, file: Path) -> None:
    report = bring(engine, file, HEADER + "x,Ann,anna.secret@example.org\na@secret’dom.org,,active\n")
    assert "secret" not in str(report.lines)
    assert [line.why for line in report.lines] == [
        "the status 'a…@e…org' is none of active, unsubscribed, bounced and complained",
        "The part after the @-sign is invalid (Codepoint U+2019 is not allowed)",
    ]


def swallowing(between: int) -> str:
    inner = "".join(f"r{number}@example.org,,active\n" for number in range(between))
    return f'{HEADER}"a@example.org,Anna,active\n{inner}b@example.org,"Berta",active\nc@example.org,,active\n'


def test_rows_that_a_quotation_mark_swallows_are_counted_and_named(engine: Engine, file: Path) -> None:
    report = bring(engine, file, swallowing(200), apply=False)
    [line] = [line for line in report.lines if line.verdict is Verdict.BAD]
    assert (line.number, line.last) == (2, 203)
    assert line.why.endswith("so nobody in them was read")
    assert (report.counts[Verdict.BAD], report.counts[Verdict.NEW], report.hidden) == (202, 1, 0)


@pytest.mark.parametrize(
    "text",
    [
        swallowing(1),
        HEADER + 'c@example.org,,active\n"a@example.org,Anna,active\nb@example.org,,active\n',
        'email,name\nc@example.org,C\na@example.org,"Anna\nb@example.org,Berta\n',
        'email,name\n"a@example.org,Anna\nb@example.org,Berta\nd@example.org,Bar 5",D\nc@example.org,C\n',
        'email,name,note\na@example.org,Anna,"oh\nb@example.org,Berta,\nd@example.org,Dora,fine"\n',
    ],
    ids=range(5),
)
def test_an_import_that_would_lose_rows_to_a_quotation_mark_changes_nothing(
    engine: Engine, file: Path, text: str
) -> None:
    before = dump(engine)
    with pytest.raises(
        UsageError, match=r"people\.csv, lines \d to \d: .* nobody in them can be read"
    ) as error:
        bring(engine, file, text)
    assert "Mend the quotation marks in line" in error.value.hint
    assert dump(engine) == before


@pytest.mark.parametrize(
    "text",
    [
        'email,note\na@example.org,"Frau A\nEhemann, b@example.org"\nc@example.org,\n',
        'email,name,note\na@example.org,"Dr.\nVera\nMuster",\nc@example.org,,\n',
        'email,name,note\na@example.org,A,"two\nlines",x\nc@example.org,,\n',
        HEADER + 'c@example.org,,active\n"a@example.org,Anna\nb",active\n',
    ],
    ids=range(4),
)
def test_one_row_that_can_not_be_read_keeps_back_no_other(engine: Engine, file: Path, text: str) -> None:
    report = bring(engine, file, text)
    assert "c@example.org" in mailable(engine)
    assert "b@example.org" not in mailable(engine)
    assert report.counts[Verdict.BAD] in {0, 2, 3}


def test_a_cell_of_several_lines_is_no_fault(engine: Engine, file: Path) -> None:
    note = '"one, at b@example.org, two,\nwrite to c@example.org, please, again\n\nthree"'
    text = f'email,name,note\na@example.org,Ann,{note}\nnobody,,"one\ntwo"\n'
    report = bring(engine, file, text)
    assert mailable(engine) == {"a@example.org"}
    assert [(line.number, line.last) for line in report.lines if line.verdict is Verdict.BAD] == [(6, 6)]


def test_a_complaint_or_a_bounce_in_a_row_of_another_list_counts_for_all(engine: Engine, file: Path) -> None:
    said = {"a": "active", "b": "bounced", "c": "complained", "d": "unsubscribed", "e": "pending"}
    rows = "".join(
        f"{one}@example.org,active,readers\n{one}@example.org,{said[one]},events\n" for one in said
    )
    bring(engine, file, "email,status,list\n" + rows)
    assert mailable(engine) == {"a@example.org", "d@example.org", "e@example.org"}


def test_whoever_is_on_a_break_is_on_it_on_a_new_list_too(engine: Engine, file: Path) -> None:
    until = NOW + timedelta(days=90)
    for address in ("a@example.org", "b@example.org"):
        add(engine, address, "friends")
    first = select(func.min(subscription.c.id)).scalar_subquery()
    paused = update(subscription).where(subscription.c.id == first)
    write(engine, lambda conn: conn.execute(paused.values(state="paused", paused_until=until)))
    bring(engine, file, "email\na@example.org\nb@example.org\nc@example.org\n")
    assert mailable(engine) == {"b@example.org", "c@example.org"}
    ends = select(subscription.c.paused_until).where(subscription.c.state == "paused")
    assert read(engine, lambda conn: list(conn.scalars(ends))) == [until, until]


@pytest.mark.parametrize(
    ("column", "called"), [("email\na@example.org\n", ""), ("email,name\na@example.org,Ann\n", "Ann")]
)
def test_nobody_is_called_what_a_stranger_typed(engine: Engine, file: Path, column: str, called: str) -> None:
    add(engine, "a@example.org", "friends", name="Silly Cow")
    write(engine, lambda conn: conn.execute(update(subscription).values(state="pending")))
    bring(engine, file, column)
    assert readers(engine)["a@example.org"].name == called


LISTS = (
    '"email","name","list","status"\n"a@example.org","Ann","Readers","active"\n"a@example.org","Ann","events","active"\n'
    '"b@example.org","Bob","events","active"\n"b@example.org","Bob","readers","bounced"\n'
    '"c@example.org","Cem","events","unsubscribed"\n"c@example.org","Cem","readers","active"\n'
    '"d@example.org","Dee","","active"\n'
)


def test_of_a_file_with_several_lists_only_the_wanted_one_counts(engine: Engine, file: Path) -> None:
    report = bring(engine, file, LISTS)
    assert mailable(engine) == {"a@example.org", "c@example.org"}
    assert report.others == {"events": 3, "(none)": 1}
    assert report.counts[Verdict.REPEATED] == 0


def test_a_column_that_names_only_other_lists_is_said_and_can_be_ignored(engine: Engine, file: Path) -> None:
    before, text = dump(engine), "email,List\na@example.org,events\nb@example.org,x@example.org\n"
    with pytest.raises(
        UsageError, match=r"nobody for the list readers: its column List names events, x…@e…org\."
    ) as e:
        bring(engine, file, text)
    assert '--map "List=ignore"' in e.value.hint
    assert dump(engine) == before
    order = Import(file=file, list="readers", source="a test", mapping={"List": "ignore"})
    assert import_people(engine, order, SECRET, now=NOW, apply=True).counts[Verdict.NEW] == 2


def test_a_column_of_anything_else_fills_no_memory(engine: Engine, file: Path) -> None:
    text = "email,list\na@example.org,readers\n" + "".join(
        f"b@example.org,{number}\n" for number in range(99)
    )
    report = bring(engine, file, text)
    assert (len(report.others), report.others.total()) == (intake.SHOWN + 1, 99)


def test_the_worst_of_several_rows_gives_the_reason(engine: Engine, file: Path) -> None:
    rows = "".join(f"a@example.org,,{status}\n" for status in ("bounced", "complained", "unsubscribed"))
    bring(engine, file, HEADER + rows)
    assert readers(engine)["a@example.org"].suppressed == "complained"


def test_a_no_after_a_bounce_is_recorded_as_the_persons_word(engine: Engine, file: Path) -> None:
    live_through(engine, "a@example.org", "bounced")
    bring(engine, file, HEADER + "a@example.org,,unsubscribed\n")
    assert readers(engine)["a@example.org"] == Reader("", "unsubscribed", "bounced")


def test_a_no_counts_even_when_the_name_beside_it_is_unfit(engine: Engine, file: Path) -> None:
    report = bring(engine, file, f"{HEADER}a@example.org,{'x' * 201},unsubscribed\n")
    assert report.counts[Verdict.STOPPED] == 1
    assert readers(engine)["a@example.org"] == Reader("", "unsubscribed", "unsubscribed")


def test_the_first_of_two_rows_gives_the_name(engine: Engine, file: Path) -> None:
    bring(engine, file, "email,name\nzoe@example.org,Zoë\nZOE@example.org,Zed\n")
    assert [reader.name for reader in readers(engine).values()] == ["Zoë"]


def test_importing_again_changes_nothing(engine: Engine, file: Path) -> None:
    text = (
        HEADER
        + "a@example.org,Ann,active\nb@example.org,Bob,unsubscribed\nc@example.org,,bounced\nbad,,active\n"
    )
    assert bring(engine, file, text).changes == 3
    before = dump(engine)
    again = bring(engine, file)
    assert (again.changes, again.counts[Verdict.UNCHANGED]) == (0, 3)
    assert dump(engine) == before


def test_a_new_name_is_a_change_and_an_empty_one_is_not(engine: Engine, file: Path) -> None:
    bring(engine, file, "email,name\na@example.org,Ann\nb@example.org,Bob\n")
    report = bring(engine, file, "email,name\na@example.org,Anna\nb@example.org,\n")
    assert (report.counts[Verdict.CHANGED], report.counts[Verdict.UNCHANGED]) == (1, 1)
    assert "Ann → Anna" in report.lines[0].why
    assert [reader.name for reader in readers(engine).values()] == ["Anna", "Bob"]


def test_a_report_quotes_no_custom_field_and_no_address(engine: Engine, file: Path) -> None:
    bring(engine, file, "email,name,town\na@example.org,Ann,Leeds\n", fields=("town",))
    report = bring(engine, file, "email,name,town\na@example.org,ann@example.org,EDSS 4\n", fields=("town",))
    assert report.lines[0].why == "name: Ann → a…@e…org, other town"


def test_whoever_is_put_on_a_second_list_under_another_name_is_shown_with_it(
    engine: Engine, file: Path
) -> None:
    add(engine, "a@example.org", "friends", name="Anna")
    text = "email,name\na@example.org,Annabel\n"
    for apply in (False, True):
        report = bring(engine, file, text, apply=apply)
        assert [(line.verdict, line.why) for line in report.lines] == [(Verdict.NEW, "name: Anna → Annabel")]


@pytest.mark.parametrize("past", ["left all", "bounced", "erased"])
def test_a_complaint_in_a_file_weighs_more_than_what_was_known(engine: Engine, file: Path, past: str) -> None:
    live_through(engine, "a@example.org", past)
    known = dict(readers(engine))
    assert bring(engine, file, HEADER + "a@example.org,,complained\n").counts[Verdict.STOPPED] == 1
    assert bring(engine, file).changes == 0
    [found] = read(engine, lambda conn: list(store.suppressions(conn)))
    assert found.reason == "complained"
    assert readers(engine).keys() == known.keys(), "nobody was put there by it"


def test_a_person_known_from_another_list_is_new_here_once(engine: Engine, file: Path) -> None:
    add(engine, "a@example.org", "friends")
    assert bring(engine, file, "email,name\na@example.org,Ann\n").counts[Verdict.NEW] == 1
    assert bring(engine, file).changes == 0
    assert readers(engine)["a@example.org"].name == "Ann"


def test_only_named_columns_are_kept(engine: Engine, file: Path) -> None:
    text = "email,Home Town,diagnosis\na@example.org,Leeds,secret\nb@example.org,,secret\n"
    report = bring(engine, file, text, fields=("Home Town",))
    assert report.ignored == ("diagnosis",)
    fields = read(engine, lambda conn: [dict(person.fields) for _, person in store.people(conn)])
    assert fields == [{"home_town": "Leeds"}, {}]
    assert "secret" not in str(dump(engine))


def test_a_later_field_joins_the_others(engine: Engine, file: Path) -> None:
    bring(engine, file, "email,town\na@example.org,Leeds\n", fields=("town",))
    report = bring(engine, file, "email,clinic\na@example.org,North\n", fields=("clinic",))
    assert report.counts[Verdict.CHANGED] == 1
    [fields] = read(engine, lambda conn: [dict(person.fields) for _, person in store.people(conn)])
    assert fields == {"town": "Leeds", "clinic": "North"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("zoe.example.org,Zoë,active", "@-sign"),
        (",Zoë,active", "address"),
        ("zoe@example.org,Zoë,maybe", "the status 'maybe'"),
        ("zoe@example.org,Zoë,", "the status ''"),
        ('zoe@example.org,"Z\nBcc: x@example.org",active', "control character"),
        ("zoe@example.org,Zoë \u202e gnorw,active", "hidden character"),
        (f"zoe@example.org,{'z' * 201},active", "201 characters"),
        ("zoe@example.org,Zoë", "has 2 cells"),
    ],
)
def test_a_bad_row_is_named_without_its_address_and_stops_no_other(
    engine: Engine, file: Path, row: str, words: str
) -> None:
    report = bring(engine, file, f"{HEADER}a@example.org,Ann,active\n{row}\nb@example.org,Bob,active\n")
    [line] = [line for line in report.lines if line.verdict is Verdict.BAD]
    assert line.number == 3
    assert words in line.why
    assert "zoe" not in str(report.lines)
    assert mailable(engine) == {"a@example.org", "b@example.org"}


def test_a_report_names_the_first_few_and_counts_the_rest(engine: Engine, file: Path) -> None:
    report = bring(engine, file, "email\n" + "".join(f"r{number}@example.org\n" for number in range(1234)))
    assert report.counts[Verdict.NEW] == 1234
    assert (len(report.lines), report.hidden) == (intake.SHOWN, 1234 - intake.SHOWN)
    assert len(mailable(engine)) == 1234


def test_each_person_has_a_consent_that_says_where_it_came_from(engine: Engine, file: Path) -> None:
    bring(engine, file, HEADER + "a@example.org,,active\nb@example.org,,unsubscribed\n")
    for address, act in (("a@example.org", "imported"), ("b@example.org", "unsubscribed")):
        [said] = subscriptions.look_up(engine, address, SECRET).consents
        assert (said.at, said.list, said.act, said.source) == (NOW, "readers", act, "a test")


def test_a_list_name_must_fit_a_command_line(engine: Engine, file: Path) -> None:
    file.write_text("email\n", encoding="utf-8")
    order = Import(file=file, list="My readers", source="")
    with pytest.raises(UsageError, match="can't be a list's name"):
        import_people(engine, order, SECRET, now=NOW, apply=True)


# Nobody comes back

POOL = [f"{name}@example.org" for name in ("ann", "bob", "cem", "dee", "eva", "fay")]
PAST = st.sampled_from(["nothing", "active", "left", "left all", "bounced", "manual", "erased"])
ROWS = st.lists(
    st.tuples(
        st.sampled_from(POOL),
        st.booleans(),
        st.sampled_from(["active", "active", "unsubscribed", "bounced", "complained", "what?"]),
        st.sampled_from(["", "Ann", "O’Brien", "<b>Zoë</b>", "李小龙"]),
    ),
    max_size=25,
)


def as_csv(rows: list[tuple[str, bool, str, str]]) -> str:
    lines = [f"{a.upper() if loud else a},{name},{status}\n" for a, loud, status, name in rows]
    return HEADER + "".join(lines)


@given(pasts=st.lists(PAST, min_size=len(POOL), max_size=len(POOL)), rows=ROWS)
def test_no_mixture_of_rows_revives_anyone_and_twice_is_once(
    empty_file: Path, pasts: list[str], rows: list[tuple[str, bool, str, str]]
) -> None:
    work = shutil.copy(empty_file, empty_file.with_name("work.db"))
    engine = open_engine(f"sqlite:///{work}")
    for address, past in zip(POOL, pasts, strict=True):
        live_through(engine, address, past)
    gone = {a for a, past in zip(POOL, pasts, strict=True) if past not in {"nothing", "active"}}
    stopped = {a for a, _, status, _ in rows if status in {"unsubscribed", "bounced", "complained"}}
    asked = {a for a, _, status, _ in rows if status == "active"}
    asked -= {a for a, _, status, _ in rows if status == "what?"}
    were = mailable(engine)
    file = empty_file.with_name("rows.csv")
    bring(engine, file, as_csv(rows))
    assert mailable(engine) == (were | asked) - gone - stopped
    once = dump(engine)
    assert bring(engine, file).changes == 0
    assert dump(engine) == once
    engine.dispose()


def test_a_paused_or_waiting_person_is_not_woken_by_a_file(engine: Engine, file: Path) -> None:
    for state in (SubscriptionState.PAUSED, SubscriptionState.PENDING):
        if not readers(engine):
            add(engine, "zoe@example.org")
        write(engine, lambda conn, state=state: conn.execute(update(subscription).values(state=state)))
        report = bring(engine, file, "email,name\nzoe@example.org,Zoë\n")
        assert report.counts[Verdict.NEW] == 0
        if state is SubscriptionState.PENDING:
            assert report.refused == {"asked to join, and has not confirmed yet": 1}
        assert readers(engine)["zoe@example.org"].state == state


def test_counts_tell_active_from_active_but_suppressed(engine: Engine, file: Path) -> None:
    bring(
        engine,
        file,
        HEADER
        + "a@example.org,,active\nb@example.org,,active\nc@example.org,,bounced\nd@example.org,,unsubscribed\n",
    )
    assert read(engine, store.counts) == {"readers": {"active": 2, "suppressed": 1, "unsubscribed": 1}}


# Suppressions


@pytest.mark.parametrize(
    "text", ["a@example.org\nB@example.org\n", "Email Address,x\na@example.org,\nb@example.org,\n"]
)
def test_a_file_of_addresses_is_suppressed(engine: Engine, file: Path, text: str) -> None:
    for address in ("a@example.org", "b@example.org", "c@example.org"):
        add(engine, address)
    file.write_text(text, encoding="utf-8")
    report = suppress_file(engine, file, SECRET, source="a test", now=NOW)
    assert report.counts[Verdict.STOPPED] == 2
    assert mailable(engine) == {"c@example.org"}
    again = suppress_file(engine, file, SECRET, source="a test", now=NOW)
    assert (again.changes, again.counts[Verdict.UNCHANGED]) == (0, 2)


def test_reasons_are_kept_and_a_list_of_active_people_is_noticed(engine: Engine, file: Path) -> None:
    file.write_text(
        "email,reason\na@example.org,Bounced\nb@example.org,moved\nc@example.org,active\nd,\nA@example.org,\n",
        encoding="utf-8",
    )
    report = suppress_file(engine, file, SECRET, source="a test", now=NOW)
    assert [line.number for line in report.lines] == [4, 5]
    assert report.counts[Verdict.REPEATED] == 1
    found = read(engine, lambda conn: sorted(one.reason for one in store.suppressions(conn)))
    assert found == ["bounced", "manual"]
