"""Which approvals count, for the bytes as they are now; and that nobody slips past them at the freeze."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from newsletter import approval, freezing, model
from newsletter.comparing import snapshot
from newsletter.errors import NotApproved, Refused, UsageError
from newsletter.model import CampaignState, Kind, Role
from newsletter.store import campaigns
from newsletter.store.engine import read
from tests.support.compiled import compiled
from tests.support.ledgers import EMAIL, MESSAGE, NOW, TARGET, counts, open_store, total

BOTH = ("editor", "medical")
KNOWN = compiled()
PRESENTED = approval.Presented(
    issue="2026-12",
    list="readers",
    digest=model.digest([EMAIL]),
    seal={
        "content": {"issues/2026-12/lead.md": "a"},
        "audience": {"list": "readers"},
        "compiled": {"digest": model.digest([EMAIL])},
    },
    snapshot=snapshot(KNOWN.issue, [KNOWN.email], "Research Digest"),
)
EDITED = replace(PRESENTED, seal={**PRESENTED.seal, "content": {"issues/2026-12/lead.md": "b"}})


@pytest.fixture
def engine(tmp_path, database_url):
    engine = open_store(tmp_path, people=3, url=database_url)
    yield engine
    engine.dispose()


def say_yes(engine, role, name="Ann", presented=PRESENTED, now=NOW):
    return approval.approve(engine, presented, Role(role), name, now)


def check(engine, presented=PRESENTED, required=BOTH):
    return read(engine, lambda conn: approval.check(conn, presented, required))


def standing(engine, role, presented=PRESENTED):
    return read(engine, lambda conn: {one.role: one for one in approval.look(conn, presented)})[role]


def freeze(engine, approved, target=TARGET):
    planned = freezing.plan(engine, target)
    return freezing.freeze(
        engine, planned, [EMAIL], MESSAGE, transport="memory", now=NOW, owner="me", approved=approved
    )


def test_every_required_role_must_have_said_yes(engine):
    with pytest.raises(NotApproved, match=r"editor: nobody yet\n    medical: nobody yet"):
        check(engine)
    say_yes(engine, "editor")
    with pytest.raises(NotApproved) as missing:
        check(engine)
    assert "editor" not in str(missing.value)
    assert "newsletter approve 2026-12 --list readers --role medical --by NAME" in missing.value.hint
    say_yes(engine, "medical", "Ben")
    assert check(engine) == ["editor: Ann, 2026-12-01 09:00 UTC", "medical: Ben, 2026-12-01 09:00 UTC"]


def test_where_no_role_is_required_whoever_has_said_yes_is_named_all_the_same(engine):
    assert check(engine, required=()) == []
    say_yes(engine, "medical")
    assert check(engine, required=()) == ["medical: Ann, 2026-12-01 09:00 UTC"]


def test_an_approval_is_void_once_anything_differs_and_says_what(engine):
    say_yes(engine, "editor")
    with pytest.raises(NotApproved, match=r"void since this changed: issues/2026-12/lead\.md") as void:
        check(engine, EDITED, ("editor",))
    assert "newsletter diff 2026-12 --list readers" in void.value.hint


def test_an_approval_counts_again_when_the_change_was_taken_back(engine):
    say_yes(engine, "editor")
    assert not standing(engine, "editor", EDITED).counts
    assert standing(engine, "editor").counts


def test_what_was_changed_can_be_approved_anew(engine):
    say_yes(engine, "editor")
    say_yes(engine, "editor", presented=EDITED)
    assert check(engine, EDITED, ("editor",)) == ["editor: Ann, 2026-12-01 09:00 UTC"]
    assert not standing(engine, "editor").counts  # the last word was about something else


def test_a_withdrawn_approval_does_not_count_nor_does_an_earlier_one(engine):
    say_yes(engine, "editor")
    say_yes(engine, "editor", "Ben")
    taken, begun = approval.withdraw(engine, "2026-12", "readers", Role.EDITOR, NOW + timedelta(minutes=5))
    assert (taken.name, begun) == ("Ben", None)
    with pytest.raises(
        NotApproved, match=r"editor: Ben, 2026-12-01 09:00 UTC, withdrawn 2026-12-01 09:05 UTC"
    ):
        check(engine, required=("editor",))
    with pytest.raises(Refused, match="no approval as editor"):
        approval.withdraw(engine, "2026-12", "readers", Role.EDITOR, NOW)


def test_nobody_withdraws_what_another_person_has_said(engine):
    say_yes(engine, "editor")
    with pytest.raises(Refused, match="not that of Ben"):
        approval.withdraw(engine, "2026-12", "readers", Role.EDITOR, NOW, by="Ben")
    assert standing(engine, "editor").counts


def test_an_approval_for_one_list_is_none_for_another(engine):
    say_yes(engine, "editor")
    with pytest.raises(NotApproved, match=r"the list \(readers, now carers\)"):
        check(engine, PRESENTED.to("carers"), ("editor",))
    say_yes(engine, "editor", presented=PRESENTED.to("carers"))
    assert standing(engine, "editor", PRESENTED.to("carers")).counts
    assert standing(engine, "editor").counts


def test_a_campaign_keeps_who_had_approved_it(engine):
    say_yes(engine, "editor")
    frozen = freeze(engine, partial(approval.check, presented=PRESENTED, required=("editor",)))
    assert frozen.approvals == ("editor: Ann, 2026-12-01 09:00 UTC",)
    assert frozen.digest == PRESENTED.digest


def test_nothing_is_written_for_what_is_not_approved(engine):
    with pytest.raises(NotApproved):
        freeze(engine, partial(approval.check, presented=PRESENTED, required=("editor",)))
    assert read(engine, campaigns.every) == []


def test_whoever_withdraws_while_the_rows_are_written_has_stopped_it(engine):
    """Behind the first look, before the commit that lets copies leave."""
    say_yes(engine, "editor")
    looked = []

    def approved(conn):
        found = approval.check(conn, PRESENTED, ("editor",))
        if not looked:
            approval.withdraw(engine, "2026-12", "readers", Role.EDITOR, NOW)
        looked.append(found)
        return found

    with pytest.raises(NotApproved, match="withdrawn"):
        freeze(engine, approved)
    (left,) = read(engine, campaigns.every)
    assert left.state is CampaignState.PREPARING
    assert freezing.remove(
        engine, left
    )  # nobody holds it: the next freeze takes it over, or cancel takes it away
    assert total(engine) == 0


def test_what_has_begun_cannot_be_approved_and_withdrawing_comes_too_late(engine):
    say_yes(engine, "editor")
    frozen = freeze(engine, partial(approval.check, presented=PRESENTED, required=("editor",)))
    with pytest.raises(Refused, match="2026-12 to readers has begun"):
        say_yes(engine, "medical")
    _, begun = approval.withdraw(engine, "2026-12", "readers", Role.EDITOR, NOW)
    assert begun == frozen
    assert read(engine, lambda conn: campaigns.get(conn, frozen.id)).approvals == frozen.approvals
    assert sum(counts(engine, frozen).values()) == 3


def test_a_rehearsal_stops_no_approving(engine):
    freeze(engine, lambda _: (), replace(TARGET, kind=Kind.REHEARSAL))
    say_yes(engine, "editor")
    assert standing(engine, "editor").counts


def test_a_refusal_names_a_few_of_many_files(engine):
    say_yes(engine, "editor")
    many = {f"templates/{number}.mjml.j2": "x" for number in range(9)}
    changed = replace(PRESENTED, seal={**PRESENTED.seal, "templates": many})
    assert standing(engine, "editor", changed).difference.words.endswith("templates/4.mjml.j2 (new), 4 more")


def test_with_what_to_compare_is_the_newest_that_stands(engine):
    with pytest.raises(UsageError, match="has no approval"):
        approval.last(engine, "2026-12", "readers")
    say_yes(engine, "editor")
    say_yes(engine, "medical", "Ben")
    assert approval.last(engine, "2026-12", "readers").name == "Ben"
    approval.withdraw(engine, "2026-12", "readers", Role.MEDICAL, NOW)
    assert approval.last(engine, "2026-12", "readers").name == "Ann"


@pytest.mark.parametrize("name", ["", "  ", "ann@example.org", "x" * 101])
def test_a_name_is_a_persons_and_no_address(name):
    with pytest.raises(UsageError, match="--by takes the name of a person") as refused:
        approval.name_of(name)
    assert "ann@" not in str(refused.value)


def test_a_name_is_kept_in_one_line():
    assert approval.name_of(" Ann\n Example ") == "Ann Example"
