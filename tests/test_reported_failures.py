"""What other senders were reported to do wrong, each as a test of ours. The numbers are those of public reports.

Real ledger, real transports, servers on loopback. Several of the same kind stand where their module is tested:
Ghost #30169 in test_trouble, Mautic #3669 in cli/test_following, killed processes in test_kill.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import insert, update

from newsletter import freezing, recovery, sending
from newsletter.errors import Refused, TransportRejected, TransportUnavailable
from newsletter.model import (
    Accepted,
    CampaignState,
    DeliveryState,
    Kind,
    NotTaken,
    SubscriptionState,
    Unknown,
)
from newsletter.model import Refused as RefusedCopy
from newsletter.store import campaigns, listing, preparing
from newsletter.store.engine import read, write
from newsletter.store.ledger import Ledger
from newsletter.store.schema import campaign, list_, subscription
from newsletter.transports.memory import MemoryTransport
from newsletter.transports.sendgrid import SendGridSettings, SendGridTransport
from newsletter.transports.smtp import SmtpTransport
from newsletter.transports.smtp_session import SmtpSettings
from tests.support import ledgers
from tests.support.ledgers import EMAIL, MESSAGE, NOW, RETRY, TARGET, WIRE, TestClock, bury, conduct
from tests.support.sendgrid_server import KEY, Say, sendgrid_server
from tests.support.smtp_server import Cut, Hang, Late, ScriptedServer, Taken

PEOPLE = 12
EVERYONE = [f"p{number}@example.org" for number in range(1, PEOPLE + 1)]


@pytest.fixture
def engine(tmp_path, database_url):
    engine = ledgers.open_store(tmp_path, people=PEOPLE, url=database_url)
    yield engine
    engine.dispose()


def send(engine, transport, campaign=None, **how):
    campaign = campaign or ledgers.freeze(engine)
    return sending.run(engine, campaign, transport, WIRE, conduct(**how))


def smtp(server, lanes=1):
    return SmtpTransport(
        SmtpSettings("127.0.0.1", server.port, security="none", lanes=lanes, timeout=5), dot_timeout=0.5
    )


def sendgrid(server, batch=PEOPLE):
    return SendGridTransport(SendGridSettings(KEY, server.url, batch=batch, lanes=1, timeout=5))


def addressees(transport):
    return [
        line
        for message in transport.messages
        for line in message.decode().split("\r\n")
        if line[:4] == "To: "
    ]


def test_a_crash_after_fetching_skips_nobody_as_in_listmonk_3022(engine):
    campaign = ledgers.freeze(engine)
    handed = Ledger(engine, campaign.id, "zombie", retry=RETRY).step([], 1, NOW)  # and 11 fetched beside it
    bury(engine, "zombie")
    assert recovery.recover(engine, "me", NOW) == recovery.Recovered(freed=PEOPLE - 1, unknown=1)
    transport = MemoryTransport()
    send(engine, transport, campaign)
    assert len(transport.messages) == PEOPLE - 1
    states = ledgers.rows(engine, campaign)
    assert states.pop(handed[0].address) is DeliveryState.UNKNOWN
    assert set(states.values()) == {DeliveryState.ACCEPTED}


def test_a_restart_while_waiting_finishes_nothing_that_is_open_as_in_listmonk_2278(engine):
    stopping = threading.Event()

    def later(recipient, number):
        if number == PEOPLE:
            stopping.set()  # the machine goes down while everyone waits for their next try
        return NotTaken(recipient.delivery, "450 slow down")

    campaign = send(engine, MemoryTransport(answer=later), stopping=stopping)
    assert campaign.state is CampaignState.RUNNING
    assert not write(engine, lambda conn: campaigns.finish(conn, campaign.id, NOW))
    after = send(engine, rest := MemoryTransport(), campaign, clock=TestClock(NOW + timedelta(minutes=1)))
    assert (after.state, len(rest.messages)) == (CampaignState.FINISHED, PEOPLE)


def test_a_server_that_hangs_up_after_a_few_gets_nobody_a_second_copy_as_in_listmonk_2313(engine):
    with ScriptedServer() as server:
        for number in range(1, 3 * PEOPLE):
            server.push("MAIL", Late("421 4.7.0 too many messages") if number % 4 == 0 else "250 2.1.0 Ok")
        ended = send(engine, smtp(server, lanes=2))
        arrived = [message.recipient for message in server.messages]
    assert sorted(arrived) == sorted(EVERYONE)
    assert ended.state is CampaignState.FINISHED


def test_twenty_pauses_repeat_nobody_as_in_listmonk_2070(engine):
    campaign, book = ledgers.freeze(engine), []

    def pause(recipient, _number):
        book.append(recipient.address)
        write(engine, lambda conn: campaigns.pause(conn, campaign.id, "by hand"))
        return Accepted(recipient.delivery)

    for _ in range(20):
        write(engine, lambda conn: campaigns.resume(conn, campaign.id))
        ended = send(engine, MemoryTransport(answer=pause, lanes=2), campaign)
    assert sorted(book) == sorted(EVERYONE)
    assert ended.state is CampaignState.PAUSED or ended.state is CampaignState.FINISHED


def test_other_settings_in_the_middle_lose_nobody_as_in_listmonk_2591(engine):
    stopping = threading.Event()

    def stop(recipient, number):
        if number == 5:
            stopping.set()
        return Accepted(recipient.delivery)

    campaign = send(engine, first := MemoryTransport(answer=stop), stopping=stopping)
    second = MemoryTransport(lanes=4, window=3)
    ended = send(engine, second, campaign, retry=(timedelta(seconds=1),))
    assert ended.state is CampaignState.FINISHED
    assert len({*addressees(first), *addressees(second)}) == PEOPLE
    assert len(first.messages) + len(second.messages) == PEOPLE


def test_a_quota_in_the_middle_pauses_and_later_only_the_rest_is_sent_as_in_listmonk_2616(engine):
    with sendgrid_server(*[Say(202, "", {"X-Message-Id": "x"})] * 2, Say(403, "quota")) as server:
        ended = send(engine, sendgrid(server, batch=4))
        assert ended.state is CampaignState.PAUSED
        assert "403" in ended.reason
        assert ledgers.counts(engine, ended) == {DeliveryState.ACCEPTED: 8, DeliveryState.PENDING: 4}
        write(engine, lambda conn: campaigns.resume(conn, ended.id))
        assert send(engine, sendgrid(server, batch=4), ended).state is CampaignState.FINISHED
        assert server.addresses() == EVERYONE[8:]


def prepare_and_die(engine):
    """A process that died in its freeze; returns the campaign it has left."""
    content = preparing.Content([EMAIL], MESSAGE.to_dict(), "memory")
    made = write(engine, lambda conn: preparing.create(conn, TARGET, content, mine="zombie", now=NOW))
    bury(engine, "zombie")
    return made


def test_a_crash_between_planning_and_starting_is_made_good_as_in_ghost_27822(engine):
    prepare_and_die(engine)
    assert sending.begun(engine, TARGET.issue, TARGET.list, TARGET.kind) is None
    transport = MemoryTransport()
    assert send(engine, transport).state is CampaignState.FINISHED
    assert len(transport.messages) == PEOPLE


def test_a_crash_while_recipients_are_gathered_drops_no_tail_as_in_ghost_30230(engine):
    made = prepare_and_die(engine)
    look = partial(preparing.changes, campaign_id=made, target=TARGET, only=None, after=0, limit=5)
    write(engine, lambda conn: conn.execute(update(campaign).values(owner="me")))
    put = partial(preparing.apply, campaign_id=made, target=TARGET, wanted=read(engine, look), mine="me")
    assert write(engine, put)
    write(engine, lambda conn: conn.execute(update(campaign).values(owner="zombie")))
    send(engine, transport := MemoryTransport())
    assert len(transport.messages) == PEOPLE


@pytest.mark.parametrize("vague", [False, True])
def test_one_bad_address_does_not_fail_its_batch_as_in_ghost_11393(engine, vague):
    with sendgrid_server() as server:
        server.bad, server.vague = {EVERYONE[6]}, vague
        ended = send(engine, sendgrid(server))
        assert sorted(server.addresses()) == sorted(set(EVERYONE) - server.bad)
    states = ledgers.rows(engine, ended)
    assert states.pop(EVERYONE[6]) is DeliveryState.REFUSED
    assert set(states.values()) == {DeliveryState.ACCEPTED}


def test_a_reader_in_two_segments_gets_one_as_in_mautic_11763(engine):
    second = {"subscriber_id": 1, "list_id": 2, "state": SubscriptionState.ACTIVE, "since": NOW}
    write(engine, lambda conn: conn.execute(insert(list_).values(id=2, name="carers", created_at=NOW)))
    write(engine, lambda conn: conn.execute(insert(subscription).values(second)))
    send(engine, MemoryTransport())
    assert freezing.plan(engine, replace(TARGET, list="carers")).recipients == 0


def test_one_permanent_refusal_repeats_nobody_else_as_in_mautic_7226(engine):
    def refuse_third(recipient, _number):
        if recipient.address == EVERYONE[2]:
            return RefusedCopy(recipient.delivery, "554 no")
        return Accepted(recipient.delivery)

    transport = MemoryTransport(answer=refuse_third, lanes=3)
    campaign = send(engine, transport)
    assert campaign.state is CampaignState.FINISHED
    send(engine, again := MemoryTransport(), campaign)
    assert (len(transport.messages), again.messages) == (PEOPLE - 1, [])


@pytest.mark.parametrize("said", [Cut, Hang, "25", "nonsense"])
def test_a_lost_reply_makes_no_second_copy_as_in_postal_3016(engine, said):
    with ScriptedServer({"dot": [Taken(said)]}) as server:
        campaign = send(engine, smtp(server))
        assert Counter(message.recipient for message in server.messages).most_common(1)[0][1] == 1
        assert len(server.messages) == PEOPLE
    assert ledgers.counts(engine, campaign) == {DeliveryState.ACCEPTED: PEOPLE - 1, DeliveryState.UNKNOWN: 1}


def test_two_workers_never_pull_the_same_message_as_in_postal_198(engine):
    campaign = ledgers.freeze(engine)
    one, two = (Ledger(engine, campaign.id, name, retry=RETRY) for name in ("me", "zombie"))
    pulled = [book.step([], 3, NOW) for book in (one, two) * 3]
    seqs = [row.seq for window in pulled for row in window]
    assert len(seqs) == len(set(seqs))


def test_only_what_was_certainly_not_taken_is_tried_again_as_in_pimalaya_46(engine):
    """A retry around the whole SMTP transaction repeats copies whose acceptance was merely not heard."""
    with ScriptedServer({"DATA": [Cut], "dot": [Taken(Cut)]}) as server:
        campaign = send(engine, smtp(server))
        arrived = [message.recipient for message in server.messages]
    assert sorted(arrived) == sorted(EVERYONE)
    states = ledgers.rows(engine, campaign)
    assert states.pop(EVERYONE[1]) is DeliveryState.UNKNOWN  # cut after its dot: never again
    assert set(states.values()) == {
        DeliveryState.ACCEPTED
    }  # the first one, cut before its message, among them


def test_list_unsubscribe_is_never_encoded_nor_folded_as_in_odoo_289182_and_nodemailer_1654(engine):
    send(engine, transport := MemoryTransport())
    for number, message in enumerate(transport.messages, 1):
        lines = message.decode("ascii").split("\r\n")
        assert f"List-Unsubscribe: <https://news.example.org/u/{number}>" in lines
        assert "List-Unsubscribe-Post: List-Unsubscribe=One-Click" in lines


def test_nobody_sees_anybody_elses_address_as_in_argus_532(engine):
    send(engine, transport := MemoryTransport())
    for message, mine in zip(transport.messages, EVERYONE, strict=True):
        assert mine.encode() in message
        assert not any(other.encode() in message for other in EVERYONE if other not in mine)
    with sendgrid_server() as server:
        rehearsal = ledgers.freeze(engine, replace(TARGET, kind=Kind.REHEARSAL))
        send(engine, sendgrid(server), rehearsal)
        assert all(len(one["to"]) == 1 for one in server.requests[0]["personalizations"])


def test_a_provider_that_takes_small_batches_is_a_setting_as_in_ghost_15725(engine):
    with sendgrid_server() as server:
        send(engine, sendgrid(server, batch=5))
        assert [len(body["personalizations"]) for body in server.requests] == [5, 5, 2]


def test_an_outage_charges_nobody_and_loses_nobody_as_in_listmonk_1931(engine):
    def down_for_a_while(recipient, number):
        return (
            TransportUnavailable("connection refused") if 4 <= number <= 5 else Accepted(recipient.delivery)
        )

    transport = MemoryTransport(answer=down_for_a_while)
    ended = send(engine, transport)
    assert (ended.state, len(transport.messages)) == (CampaignState.FINISHED, PEOPLE)
    found = read(engine, lambda conn: list(listing.every(conn, ended.id)))
    assert {row.tries for row in found} == {1}


def test_a_policy_refusal_pauses_instead_of_burning_the_list_as_in_listmonk_2616(engine):
    transport = MemoryTransport(answer=lambda _one, _number: TransportRejected("550 5.7.1 not authenticated"))
    ended = send(engine, transport)
    assert (ended.state, ended.reason) == (CampaignState.PAUSED, "550 5.7.1 not authenticated")
    assert ledgers.counts(engine, ended) == {DeliveryState.PENDING: PEOPLE}


def test_an_unknown_copy_is_never_sent_by_running_again_as_in_django_newsletter(engine):
    """There, an exception in the middle mails the whole list again."""

    def no_answer(recipient, number):
        return Unknown(recipient.delivery, "no answer") if number == 4 else Accepted(recipient.delivery)

    campaign = send(engine, first := MemoryTransport(answer=no_answer))
    send(engine, second := MemoryTransport(), campaign)
    assert (len(first.messages), second.messages) == (PEOPLE, [])
    with pytest.raises(Refused, match="goes to nobody twice"):
        sending.begun(engine, TARGET.issue, TARGET.list, TARGET.kind, again=True)
