"""The sections of docs/performance.md: each measures, checks its bounds and says what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench import cold_build, peers, signing
from tests.bench.measure import Contender, in_turn, median, run
from tests.bench.sinks import sink
from tests.bench.tables import Bound, comparison
from tests.bench.workshop import nodemailer, peers_python, python

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.measure import Rounds
    from tests.bench.sinks import Sink
    from tests.bench.workshop import Workshop

OURS = "newsletter"
NODEMAILER = "nodemailer, pooled"
KEPT = "nodemailer, pooled, `maxMessages: Infinity`"
SMTPLIB = "smtplib + `EmailMessage`, one connection"
SOURCE = "*smtp-source, constant message*"
CONSTANT = "*constant message, pipelined, uvloop*"
HEADROOM = 1.5
"""The sink must take so many times more than ours sends, else it would be the sink that is measured."""
BIG, SMALL, GROWTH = 96, 16, 1_000_000
MB = 1024 * 1024


@dataclass(frozen=True)
class Made:
    """A section's text, and whether everything in it held."""

    text: str
    kept: bool = True


@dataclass(frozen=True)
class Section:
    """``word`` chooses it."""

    word: str
    title: str
    make: Callable[[Workshop], Made]


def _told(intro: str, costs: Rounds, ours: str, bounds: Sequence[Bound], unit: str = "msg") -> Made:
    verdicts = [bound.verdict(costs) for bound in bounds]
    lines = [intro, "", *comparison(costs, ours, unit), "", *(line for line, _ in verdicts)]
    return Made("\n".join(lines), all(kept for _, kept in verdicts))


# --- SMTP ------------------------------------------------------------------------------------------------------------


def smtp(shop: Workshop) -> Made:
    """Ten connections, as shipped."""
    contenders = [
        shop.ours(OURS, 10_000),
        shop.peer(NODEMAILER, 800, nodemailer()),
        shop.peer(KEPT, 800, nodemailer(), kept=True),
        shop.peer(SMTPLIB, 300, python("smtplib_one")),
        shop.peer("aiosmtplib, 10 connections", 300, peers_python("aiosmtplib_pool")),
        shop.peer("Django's mail backend", 400, peers_python("django_backend")),
        *_references(shop),
    ]
    with sink("smtp_sink") as there:
        costs = in_turn(contenders, there, shop.rounds)
    people = contenders[0].messages
    freeze = shop.frozen(people, pictures=False).seconds
    bounds = [
        Bound(OURS, NODEMAILER, "rate", 10),
        Bound(OURS, NODEMAILER, "cpu_per_1000", 8),
        Bound(OURS, SMTPLIB, "rate", 15),
        Bound(CONSTANT, OURS, "rate", HEADROOM),
    ]
    taken = 1000 * median(costs[CONSTANT], "sink_cpu") / costs[CONSTANT][0].messages
    intro = (
        "Ten connections, plain text, one copy handed per connection: what is shipped. In italics what the sink can"
        f" take; it needs {taken:.2f} s of CPU for 1,000 messages, on a core that the senders can't have meanwhile."
        f" Freezing these {people:,}, which comes before and is not counted, took {freeze:.1f} s."
    )
    return _told(intro, costs, OURS, bounds)


def _references(shop: Workshop) -> list[Contender]:
    constant = shop.peer(CONSTANT, 20_000, peers_python("smtp_constant"))
    source = peers.smtp_source()
    if not source:
        print("  smtp-source is not here (run .ci/smtp-sink): its row is left out")
        return [constant]

    def command(there: Sink, count: int) -> list[str]:
        message = shop.peers_folder(pictures=False) / "message.eml"
        switches = f"-s 10 -d -m {count} -F {message} -f digest@example.org -t reader@example.org"
        return [*source, *switches.split(), f"127.0.0.1:{there.port}"]

    return [constant, Contender(SOURCE, shop.count(10_000), command)]


def connections(shop: Workshop) -> Made:
    """More of them gather more marks in a commit."""
    more = "newsletter, 50 connections"
    contenders = [
        shop.ours(more, 10_000, connections=50),
        shop.peer(NODEMAILER, 600, nodemailer()),
        shop.peer("nodemailer, pooled, 50 connections", 600, nodemailer(), connections=50),
    ]
    with sink("smtp_sink") as there:
        costs = in_turn(contenders, there, shop.rounds)
    bounds = [Bound(more, NODEMAILER, "rate", 25, must=False)]
    intro = "The same over fifty connections: a commit then carries the marks of more copies."
    return _told(intro, costs, more, bounds)


def window(shop: Workshop) -> Made:
    """Four copies handed at once."""
    four = "newsletter, window of four"
    contenders = [
        shop.ours(four, 10_000, window=4),
        shop.ours("newsletter, window of one", 10_000),
        shop.peer(NODEMAILER, 600, nodemailer()),
    ]
    with sink("smtp_sink") as there:
        costs = in_turn(contenders, there, shop.rounds)
    intro = (
        "Ten connections with four copies handed to each at once. It is not what we ship, because a kill can then leave"
        " five copies of each connection unknown instead of two; it shows what the small doubt costs."
    )
    return _told(intro, costs, four, [])


def latency(shop: Workshop) -> Made:
    """A relay that is not next door."""
    contenders = [
        shop.ours(OURS, 1500),
        shop.peer(NODEMAILER, 300, nodemailer()),
        shop.peer(KEPT, 300, nodemailer(), kept=True),
    ]
    with sink("smtp_sink", delay=0.020) as there:
        costs = in_turn(contenders, there, shop.rounds)
    intro = "Ten connections to a sink whose every reply leaves 20 ms after what it answers; commands may be pipelined."
    return _told(intro, costs, OURS, [Bound(OURS, NODEMAILER, "rate", 3.5)])


def tls(shop: Workshop) -> Made:
    """As mail really travels."""
    contenders = [
        shop.ours(OURS, 6000),
        shop.peer(NODEMAILER, 600, nodemailer()),
        shop.peer("aiosmtplib, 10 connections", 300, peers_python("aiosmtplib_pool")),
    ]
    with sink("smtp_sink", certificate=shop.root / "authority") as there:
        costs = in_turn(contenders, there, shop.rounds)
    intro = "Ten connections, TLS from the first byte, the certificate verified; both ends share the machine."
    return _told(intro, costs, OURS, [])


def pictures(shop: Workshop) -> Made:
    """Inside the mail."""
    contenders = [
        shop.ours(OURS, 4000, pictures=True),
        shop.peer(NODEMAILER, 400, nodemailer(), pictures=True),
        shop.peer(SMTPLIB, 150, python("smtplib_one"), pictures=True),
    ]
    with sink("smtp_sink") as there:
        costs = in_turn(contenders, there, shop.rounds)
    size = median(costs[OURS], "size") / 1000
    intro = f"100 kB of pictures inside the mail: {size:.0f} kB on the wire. Ten connections, plain text."
    return _told(intro, costs, OURS, [])


def ledger(shop: Workshop) -> Made:
    """What the truth costs."""
    bare = "the transport alone, no ledger"
    contenders = [shop.ours(OURS, 10_000), shop.ours(bare, 10_000, how="bare")]
    with sink("smtp_sink") as there:
        costs = in_turn(contenders, there, shop.rounds)
    pairs = list(zip(costs[OURS], costs[bare], strict=True))
    share = [1 - median([b], "cpu_per_1000") / median([a], "cpu_per_1000") for a, b in pairs]
    wall = [1 - a.rate / b.rate for a, b in pairs]
    intro = (
        "The same transport, threads, links and readers, fed once by the ledger and once by a plain list. Claiming,"
        f" marking, settling and limiting take {_share(share)} of the CPU and {_share(wall)} of the time; the rest of"
        " both is building and writing messages."
    )
    return _told(intro, costs, OURS, [])


def _share(found: Sequence[float]) -> str:
    ordered = sorted(found)
    middle, least, most = ordered[len(ordered) // 2], ordered[0], ordered[-1]
    return f"{middle:.0%} ({least:.0%}–{most:.0%})"


# --- DKIM ------------------------------------------------------------------------------------------------------------


def dkim(shop: Workshop) -> Made:
    """Signing, and sending signed."""
    keys = signing.Keys(shop.root / "keys")
    made = [_signatures(shop, keys, kind) for kind in signing.KINDS]
    rsa = "newsletter, RSA-2048"
    contenders = [
        shop.ours(rsa, 3000, extra=keys.section("rsa")),
        shop.ours("newsletter, Ed25519", 3000, extra=keys.section("ed25519")),
        shop.peer("nodemailer, RSA-2048", 400, nodemailer(), dkim=keys.for_nodemailer()),
    ]
    with sink("smtp_sink") as there:
        costs = in_turn(contenders, there, shop.rounds)
    made.append(_told("Sending signed, ten connections, plain text:", costs, rsa, []))
    return Made("\n\n".join(one.text for one in made), all(one.kept for one in made))


def _signatures(shop: Workshop, keys: signing.Keys, kind: str) -> Made:
    costs = signing.rounds_of(shop, keys, kind)
    mine, theirs = costs
    bounds = [Bound(mine, theirs, "cpu_per_1000", 8)] if kind == "rsa" else []
    intro = (
        f"{signing.KINDS[kind]} signatures over the same message, relaxed/relaxed, one thread, nothing sent:"
    )
    return _told(intro, costs, mine, bounds, unit="signatures")


# --- SendGrid --------------------------------------------------------------------------------------------------------


def sendgrid(shop: Workshop) -> Made:
    """Requests alone, and with the ledger."""
    certificate = shop.root / "api"
    with sink("http_sink", certificate=certificate) as there:
        env = {"SSL_CERT_FILE": there.authority}
        many = in_turn(_many(shop, env), there, shop.rounds)
        single = in_turn(_single(shop, env), there, shop.rounds)
    bounds = [Bound(ALONE, HELPERS, "rate", 5), Bound(POSTED, ALONE, "rate", HEADROOM)]
    first = _told(SENDGRID, many, ALONE, bounds)
    second = _told("One recipient in a request:", single, ALONE, [])
    return Made(f"{first.text}\n\n{second.text}", first.kept)


SENDGRID = """`mail/send` over TLS to a local API that answers 202 after the whole body, four connections; *msg* are
recipients. *Requests alone* have no ledger and get each reader's links ready-made, as the helpers do. Those are the
`Mail` helpers of the sendgrid package as its documentation shows them, from four threads; the package opens a
connection for each request. In italics what the API can take.

A thousand recipients in a request, the content once and substitutions for each:"""
ALONE, HELPERS = "newsletter, requests alone", "`Mail` helpers"
POSTED = "*constant requests, http.client*"
API = {"transport": "sendgrid", "connections": 4, "check": False}


def _many(shop: Workshop, env: dict[str, str]) -> list[Contender]:
    return [
        shop.ours(ALONE, 100_000, how="ready", batch=1000, env=env, **API),
        shop.ours("newsletter, with the ledger", 20_000, batch=1000, env=env, **API),
        shop.ours("newsletter, with the ledger, 50 in a request (shipped)", 20_000, env=env, **API),
        shop.api(HELPERS, 20_000, "sendgrid_helpers", batch=1000, env=env),
        shop.api(POSTED, 200_000, "http_constant", batch=1000, env=env),
    ]


def _single(shop: Workshop, env: dict[str, str]) -> list[Contender]:
    return [
        shop.ours(ALONE, 4000, how="ready", batch=1, env=env, **API),
        shop.ours("newsletter, with the ledger", 4000, batch=1, env=env, **API),
        shop.api(HELPERS, 400, "sendgrid_helpers", batch=1, env=env),
        shop.api(POSTED, 8000, "http_constant", batch=1, env=env),
    ]


# --- memory ----------------------------------------------------------------------------------------------------------


def memory(shop: Workshop) -> Made:
    """Of the sending process at its greatest."""
    lines = ["| recipients | memory at most, MB | msg/s | CPU, s per 1,000 |", "|--:|--:|--:|--:|"]
    peaks = []
    with sink("smtp_sink") as there:
        for people in (10_000, GROWTH):
            one = shop.ours(OURS, people)
            cost = run(one, there, one.messages)
            peaks.append(cost.memory / MB)
            row = f"| {cost.messages:,} | {peaks[-1]:.1f} | {cost.rate:,.0f} | {cost.cpu_per_1000:.3g} |"
            print(f"  {row}", flush=True)
            lines.append(row)
    kept = peaks[1] <= BIG and peaks[1] - peaks[0] <= SMALL
    verdict = (
        f"At one million at most {BIG} MB, and at most {SMALL} MB more than at ten thousand:"
        f" {peaks[1]:.1f} MB, {peaks[1] - peaks[0]:+.1f} MB" + ("" if kept else " **MISSED**")
    )
    intro = "A whole send over ten connections to the sink, of a process that opens a frozen campaign; MB of 1,048,576."
    return Made("\n".join([intro, "", *lines, "", f"- {verdict}"]), kept)


SECTIONS = (
    Section("build", "A cold build against mjml", lambda shop: Made(*cold_build.compare(shop.root))),
    Section("smtp", "Ten connections", smtp),
    Section("connections", "Fifty connections", connections),
    Section("window", "A window of four", window),
    Section("ledger", "The ledger's share", ledger),
    Section("latency", "20 ms away", latency),
    Section("tls", "Over TLS", tls),
    Section("dkim", "Signed with DKIM", dkim),
    Section("pictures", "With pictures", pictures),
    Section("sendgrid", "SendGrid", sendgrid),
    Section("memory", "Memory", memory),
)
