"""Hand over every copy of a frozen campaign, and never lose sight of one.

::

    delivery
    pending → claimed → handed → accepted
       │         │         ├→ pending    certainly not taken: 4xx, 421, 429, or cut before the copy was complete
       │         │         ├→ refused    a definite permanent answer about this recipient
       │         │         └→ unknown    no answer, a cut answer, or a process that died with the copy handed
       │         └→ pending (owner dead, campaign resting) | skipped
       └→ skipped (unsubscribed, paused, suppressed, erased or cancelled since the freeze)

    campaign
    preparing → running ⇄ paused(reason) → finished | cancelled

A campaign with a canary runs in three steps: a sample of its copies, a wait, all others. Only ``campaign.canary_*``
knows which step it is, and every change of it is conditional: a kill at any point and two processes come to the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from newsletter import limits, notices, recovery
from newsletter.desk import Desk, Stop, SystemClock
from newsletter.errors import Refused, TransportError, TransportRejected, TransportUnavailable
from newsletter.limits import Limits
from newsletter.model import CampaignState, Kind, Unknown
from newsletter.store import campaigns, canaries, instance, ledger, owners
from newsletter.store.database import RUNBOOK
from newsletter.store.engine import expect_small_commits, in_chunks, many_senders, read, write
from newsletter.store.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine

    from newsletter.desk import Clock, Progress, Round, Sign
    from newsletter.message import Wire, Wires
    from newsletter.model import Campaign, Outcome, Recipient
    from newsletter.notices import Editors
    from newsletter.store.canaries import Held
    from newsletter.transports.base import Transport


logger = logging.getLogger(__name__)


class Because(StrEnum):
    """Why a campaign pauses itself, without a server's words: for logs and for ``notice.because`` of the texts."""

    REJECTED = "rejected"
    REFUSED = "refused"
    OUTAGE = "outage"
    CANARY = "canary"


def begun(engine: Engine, issue: str, list_name: str, kind: Kind, *, again: bool = False) -> Campaign | None:
    """The campaign to go on with (or to find finished); None when a new one is to be planned.

    Raises ``Refused`` when the latest one is paused or was cancelled, or may not be repeated.
    """
    latest = read(engine, lambda conn: campaigns.find(conn, issue, list_name, kind))
    if latest is None or latest.state is CampaignState.PREPARING:
        return None
    if again:
        _refuse_repeating(latest)
        return None
    if latest.state in {CampaignState.PAUSED, CampaignState.CANCELLED}:
        raise _at_rest(latest)
    return latest


def _refuse_repeating(latest: Campaign) -> None:
    if latest.kind is not Kind.REHEARSAL:
        raise Refused(
            f"{latest.label} is a live campaign, and a live issue goes to nobody twice.",
            hint="`--again` repeats rehearsals only. People who joined since get the next issue.",
        )
    if latest.state not in {CampaignState.FINISHED, CampaignState.CANCELLED}:
        raise Refused(
            f"{latest.label} has not ended: it is {latest.state}.",
            hint=f"Go on with it: `{latest.send}`, or end it: `newsletter cancel {latest.arguments}`.",
        )


def _at_rest(latest: Campaign) -> Refused:
    if latest.state is CampaignState.PAUSED:
        hint = f"`newsletter resume {latest.arguments}` lifts the pause; then send again."
        if latest.reason == instance.RESTORED:  # who waits here may have got a copy from the original
            hint = f"Do not resume yet. What to look at first: {RUNBOOK}#a-campaign-that-was-under-way"
        return Refused(f"{latest.label} is paused: {latest.reason}", hint=hint)
    again = " `--again` starts a new rehearsal." if latest.kind is Kind.REHEARSAL else ""
    return Refused(f"{latest.label} was cancelled.", hint=f"A cancelled campaign stays cancelled.{again}")


LOOK_AGAIN = timedelta(seconds=1)
"""How often a sender that has nothing to do looks whether another one has died."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """How one process sends."""

    sign: Sign
    retry: Sequence[timedelta]
    owner: str  # of ``store.owners.own``
    only: frozenset[bytes] | None = None
    limits: Limits = field(default_factory=Limits)
    stop_refused: float | None = None  # the share of refused copies at which the campaign pauses
    editors: Editors | None = None  # who is told when the campaign needs a person
    ledger: Callable[..., Ledger] = Ledger  # the drill sends with one that kills its own process
    clock: Clock = field(default_factory=SystemClock)
    stopping: Stop = field(default_factory=Stop)  # set it: no further copy is handed
    notice: Callable[[str], None] = lambda _sentence: None  # told when the process has to wait
    told: Callable[[Progress], None] = lambda _progress: (
        None
    )  # told how far it is, ten times a second at most


def run(
    engine: Engine, campaign: Campaign, transport: Transport, wire: Wire | Wires, conduct: Conduct
) -> Campaign:
    """Hands over until the campaign is finished, rests, or the next try is too far away; returns it as it then is.

    The caller is ``conduct.owner`` (``store.owners.own``) and has run ``recovery.recover``. ``finished`` is only said
    when no row is open; a campaign returned as ``running`` has rows that wait, or was stopped. Where several processes
    send, each stays until the campaign rests, and takes up what a dead one has left.

    Raises ``Refused`` when another process has taken this one for dead, or when the clock jumps back, and
    ``DatabaseError``; nothing leaves after that.
    """
    return _Run(engine, campaign, transport, wire, conduct).until_done()


class _Run:
    """One process's work on one campaign: rounds of lanes, with waits between them."""

    def __init__(
        self, engine: Engine, campaign: Campaign, transport: Transport, wire: Wire | Wires, conduct: Conduct
    ) -> None:
        self._engine = engine
        self._id = campaign.id
        self._transport = transport
        self._wire = wire
        self._conduct = conduct
        self._clock = conduct.clock
        self._book = conduct.ledger(
            engine, self._id, conduct.owner, retry=conduct.retry, only=conduct.only, limits=conduct.limits
        )
        self._desk = Desk(
            self._book,
            conduct.sign,
            conduct.clock,
            conduct.stopping,
            stop_refused=conduct.stop_refused,
            told=conduct.told,
            notice=conduct.notice,
        )
        self._most_lanes = transport.lanes  # fewer, once the provider has asked for fewer
        self._shared = many_senders(engine)
        self._held: Held | None = None  # the canary, while the rest is held back
        self._accepted = 0
        self._why = ""  # of the last outage, in words
        self._failures = 0  # rounds in a row that ended because the provider could not be reached

    def until_done(self) -> Campaign:
        expect_small_commits(self._engine)
        try:
            while (again := self._round()) is not None and self._wait_until(again):
                pass
        finally:
            self._book.release()
            in_chunks(self._engine, partial(campaigns.sweep, now=self._clock.now()))
        if instance.advance(self._engine, self._finish):
            self._log_end()
        return self._campaign()

    def _finish(self, conn: Connection) -> bool:
        """With the end, in one commit, the notice of copies that nobody knows of."""
        now, editors = self._clock.now(), self._conduct.editors
        finished = campaigns.finish(conn, self._id, now)
        ended = campaigns.get(conn, self._id)
        if editors and (finished or ended.state is CampaignState.CANCELLED):
            notices.tell_doubts(conn, editors, ended, now)
        return finished

    def _log_end(self) -> None:
        counts = read(self._engine, lambda conn: campaigns.counts(conn, self._id))
        ended = self._campaign()
        began = ended.started_at or ended.created_at
        span = (ended.finished_at or began) - began
        numbers = {state.value: number for state, number in counts.items()}
        self._log("campaign finished", **numbers, seconds=round(span.total_seconds()))

    def _log(self, event: str, **facts: object) -> None:
        logger.info(event, extra={"facts": {**self._campaign().facts, **facts}})

    def _round(self) -> datetime | None:
        """Runs lanes until none has work; returns when the next round should begin, None if there is none."""
        probing, trusted, lanes = self._failures > 0, self._accepted > 0, self._lanes()
        done = self._desk.work(self._transport, self._wire, lanes, probing=probing, trusted=trusted)
        self._book.release()
        self._raise_bugs(done.errors)
        if self._rejected(done) or self._conduct.stopping.is_set() or (due := self._due()) is None:
            return None
        self._accepted += done.accepted
        if 0 < done.turned_away < lanes:  # the others were welcome
            self._most_lanes = lanes - done.turned_away
            self._conduct.notice(f"the server wants fewer connections: {self._most_lanes} from now on")
        if outage := _outage(done):
            return self._after_outage(outage, due, progressed=done.accepted > 0)
        self._failures, self._why = 0, ""
        return self._unless_stuck(due, idle=not done.handed)

    def _unless_stuck(self, due: datetime, *, idle: bool) -> datetime | None:
        """Something is due and yet nothing left: it fell due just now, or another sender is claiming it."""
        now = self._clock.now()
        if idle and due <= now:
            return now + LOOK_AGAIN
        canary = self._held is not None and self._held.until is not None  # a wait that somebody has asked for
        return None if due - now > limits.PATIENCE and not canary else due

    def _due(self) -> datetime | None:
        """When the next copy may be tried; soon, while other senders have the rest in hand."""
        if self._shared:
            recovery.recover(self._engine, self._conduct.owner, self._clock.now())
        if not self._heed_canary():
            return None
        mine, others = read(self._engine, self._outlook)
        soon = self._clock.now() + LOOK_AGAIN
        return soon if others else mine

    def _heed_canary(self) -> bool:
        """Takes the next step of a campaign that holds its rest back; False when the canary has failed.

        It is looked at when each of the sample has had a try, and again when the rest is due.
        """
        self._held = held = read(self._engine, lambda conn: canaries.find(conn, self._id))
        if held is None:
            return True
        now = self._clock.now()
        due, tried = held.until is not None and held.until <= now, not held.untried
        if (due or tried) and self._has_failed(held, due=due):
            self._pause(_words_of_canary(held), Because.CANARY, canaries.fail)
            return False
        if due:
            self._release(held)
        elif tried and held.until is None:
            until = (held.answered_at or now) + held.wait
            write(self._engine, lambda conn: canaries.wait(conn, self._id, until))
            self._held = replace(held, until=until)
        return True

    def _has_failed(self, held: Held, *, due: bool) -> bool:
        """Who asks us to come back later has not refused anything before the rest is due, and accepted nothing then."""
        waiting = held.again + held.untried
        accepted, failures = held.accepted + (0 if due else waiting), held.failures + (waiting if due else 0)
        return limits.canary_failed(accepted, failures, self._conduct.stop_refused)

    def _release(self, held: Held) -> None:
        if write(self._engine, lambda conn: canaries.release(conn, self._id)):
            self._log("canary released", copies=held.copies, accepted=held.accepted)

    def _outlook(self, conn: Connection) -> tuple[datetime | None, bool]:
        if not owners.is_living(conn, self._conduct.owner):
            raise recovery.taken_over()
        others = ledger.held_by_others(conn, self._id, self._conduct.owner)
        return ledger.next_due(conn, self._id), others

    def _lanes(self) -> int:
        """No more connections than there is work for: some relays allow few. One, after an outage, to try it."""
        lanes, window = (1 if self._failures else self._most_lanes), self._transport.window
        now = self._clock.now()
        due = read(self._engine, lambda conn: ledger.due_rows(conn, self._id, now, most=lanes * window))
        return ceil(due / window)

    @staticmethod
    def _raise_bugs(failed: Sequence[BaseException]) -> None:
        for error in failed:
            if not isinstance(error, TransportError):
                raise error

    def _rejected(self, done: Round) -> bool:
        rejection = next((error for error in done.errors if isinstance(error, TransportRejected)), None)
        if rejection is not None:
            self._pause(_words_of(rejection), Because.REJECTED)
            return True
        refusals = self._refusals(done)
        if refusals is not None:
            self._pause(_words_of(refusals), Because.REFUSED, _after_refusals)
        return refusals is not None

    def _refusals(self, done: Round) -> TransportRejected | None:
        """So many that they are about us, or about the list."""
        if done.denied:
            said = f"the provider refused {done.refused} copies in a row, the last with: {done.last_refusal}"
            return TransportRejected(said, hint="If that is about us, mend it before you go on")
        if self._desk.too_many_refused:
            return TransportRejected(
                f"{self._desk.progress.refused} copies were refused and {self._desk.progress.accepted} accepted,"
                f" which is more than stop_refused allows; the last with: {done.last_refusal}",
                hint="Look at them before you go on: `newsletter deliveries … --state refused`",
            )
        return None

    def _after_outage(
        self, outage: TransportUnavailable, due: datetime, *, progressed: bool
    ) -> datetime | None:
        """Waits with the schedule's patience, then asks a person.

        A provider that never answered in this process is a wrong setting more often than an outage: asks at once.
        """
        now, self._why = self._clock.now(), str(outage).rstrip(".")
        if outage.until is not None and outage.until - now <= limits.PATIENCE:
            return outage.until  # it answered, and said when: no failure
        self._failures = 1 if progressed else self._failures + 1
        retry = limits.retry_at(self._failures, self._conduct.retry, now)
        if not self._accepted or retry is None or max(due, retry) - now > limits.PATIENCE:
            self._pause(_words_of(outage), Because.OUTAGE)
            return None
        return max(due, retry)

    def _pause(
        self,
        reason: str,
        because: Because,
        act: Callable[[Connection, int, str], bool] = campaigns.pause,
    ) -> None:
        """The pause and the notice of it are one commit: told once, whatever is killed and whoever else pauses."""
        editors, now = self._conduct.editors, self._clock.now()

        def work(conn: Connection) -> bool:
            paused = act(conn, self._id, reason)
            if paused and editors:
                notices.tell_paused(conn, editors, campaigns.get(conn, self._id), because, now)
            return paused

        if write(self._engine, work):
            self._log("campaign paused", reason=because.value)

    def _wait_until(self, when: datetime) -> bool:
        """Waits; False when the campaign came to rest or the process was asked to stop meanwhile."""
        if when - self._clock.now() > LOOK_AGAIN:
            self._conduct.notice(self._words_of_wait(when))
        while self._may_go_on() and not self._was_released() and self._clock.now() < when:
            self._clock.wait(min(1.0, (when - self._clock.now()).total_seconds()))
        return self._may_go_on()

    def _words_of_wait(self, when: datetime) -> str:
        if self._held is not None and self._held.until == when:
            return f"canary: {self._held.accepted:,} accepted; the rest leaves at {local_time(when, self._clock.now())}"
        because = f" ({self._why})" if self._why else ""
        return f"waiting until {when.astimezone():%H:%M:%S} for the next try{because}"

    def _may_go_on(self) -> bool:
        return not self._conduct.stopping.is_set() and self._campaign().state is CampaignState.RUNNING

    def _was_released(self) -> bool:
        """Sooner than expected, by a person's word."""
        return self._held is not None and self._campaign().canary_copies is None

    def _campaign(self) -> Campaign:
        return read(self._engine, lambda conn: campaigns.get(conn, self._id))


def local_time(when: datetime, now: datetime) -> str:
    """``10:05`` by this machine's clock, with the day when that is another one."""
    here = when.astimezone()
    return f"{here:%H:%M}" if here.date() == now.astimezone().date() else f"{here:%Y-%m-%d %H:%M}"


def _after_refusals(conn: Connection, campaign_id: int, reason: str) -> bool:
    """What a canary is to find out was found out: who resumes has decided about the rest as well."""
    return canaries.fail(conn, campaign_id, reason) or campaigns.pause(conn, campaign_id, reason)


def _words_of(error: TransportError) -> str:
    return ". ".join(part.strip(". ") for part in (str(error), error.hint) if part)


def _words_of_canary(held: Held) -> str:
    said = {
        "accepted": held.accepted,
        "refused": held.refused,
        "unknown": held.unknown,
        "not taken so far": held.again + held.untried,
    }
    answers = ", ".join(f"{number:,} {word}" for word, number in said.items() if number)
    return f"of the canary of {held.copies:,}, {answers}: the rest is held back, and resuming sends it"


SOONEST = datetime.min.replace(tzinfo=UTC)


def _outage(done: Round) -> TransportUnavailable | None:
    silence = "the provider gave no answer to several copies in a row"
    found = [error for error in done.errors if isinstance(error, TransportUnavailable)]
    if found:
        return max(found, key=lambda error: error.until or SOONEST)
    return TransportUnavailable(silence) if done.closed and done.doubt else None


def proof(transport: Transport, wire: Wire | Wires, copies: Sequence[Recipient]) -> list[Outcome]:
    """Hands over test copies outside the ledger, through the same transport, and returns what was said of each."""
    settled: list[Outcome] = []
    transport.run(wire, iter([[copy] for copy in copies]), settled.extend)
    answered = {outcome.delivery for outcome in settled}
    return settled + [Unknown(copy.delivery, "no answer") for copy in copies if copy.delivery not in answered]
