"""`newsletter serve` as a process: real sockets, slow ones too, signals, several processes, and what it prints."""

from __future__ import annotations

import http.client
import os
import re
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from newsletter import config, wiring
from newsletter.store.engine import open_engine, read
from newsletter.store.schema import subscription
from newsletter.web import guard, serving
from tests.support.databases import holder
from tests.support.publisher import crowd, publisher
from tests.support.served import Served
from tests.support.served import serving as served_by
from tests.support.site import Site
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.publisher import Publisher

DEADLINE = 30.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = publisher(tmp_path_factory.mktemp("served") / "press")
    folder.import_people(crowd(60))
    with served_by(folder) as running:
        yield running


def test_it_says_what_it_serves_and_that_letters_reach_nobody(served: Served) -> None:
    assert served.said.startswith("Serving https://news.example.org from http://127.0.0.1:")
    assert "Letters to readers are written to .newsletter/outbox/letters/ and reach nobody." in served.said


def test_one_click_over_a_real_socket(served: Served) -> None:
    number = served.numbers()[0]
    assert served.unsubscribe(number) == 200
    assert served.numbers("state = 'unsubscribed'") == [number]


def test_everybody_who_was_told_so_is_unsubscribed(served: Served) -> None:
    numbers, told = served.numbers()[1:41], list[int]()

    def leave(some: list[int]) -> None:
        told.extend(number for number in some if served.unsubscribe(number) == 200)

    threads = [threading.Thread(target=leave, args=(numbers[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(told) == set(numbers) <= set(served.numbers("state = 'unsubscribed'"))


def test_who_signs_up_gets_a_letter_from_the_same_process(served: Served) -> None:
    assert served.ask("POST", "/subscribe", "email=fresh%40example.org")[0] == 200
    letters = served.folder.root / ".newsletter" / "outbox" / "letters"
    wait_for(lambda: any(letters.glob("*.eml")), served.process)
    [letter] = letters.glob("*.eml")
    token = re.findall(rb"/c/([\w-]{40})", letter.read_bytes().replace(b"=\r\n", b"").replace(b"=\n", b""))[0]
    assert served.ask("GET", f"/c/{token.decode()}")[0] == 200
    assert served.ask("POST", f"/c/{token.decode()}", "x=1")[0] == 200
    assert len(served.numbers("state = 'active' AND source = ''")) == 1


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes(served: Served) -> None:
    head = b"POST /subscribe HTTP/1.1\r\nHost: news.example.org\r\nContent-Length: 99999999999\r\n\r\n"
    assert served.raw(head).startswith(b"HTTP/1.1 413 ")


def test_a_body_in_chunks_that_never_ends_is_cut(served: Served) -> None:
    head = b"POST /subscribe HTTP/1.1\r\nHost: news.example.org\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert served.raw(head + b"4000\r\n" + b"x" * 0x4000 + b"\r\n1\r\nx\r\n").startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: news.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: news.example.org\r\nX: " + b"x" * 40_000,
        b"POST / HTTP/1.1\r\nHost: news.example.org\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
    ],
)
def test_what_is_no_http_is_refused_with_the_guarding_headers(served: Served, data: bytes) -> None:
    answer = served.raw(data)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in answer
    assert b"cache-control: no-store" in answer


def test_a_port_that_is_taken_is_an_error_that_says_where_to_change_it(served: Served) -> None:
    done = served.folder.newsletter("serve", "--port", str(served.port), check=False)
    assert done.returncode == 2
    assert "can't listen on 127.0.0.1 port" in done.stderr
    assert "under [web]" in done.stderr


def test_the_log_stays_empty_whatever_is_asked_for(tmp_path: Path) -> None:
    """``serving_`` looks at it in the end."""
    folder = publisher(tmp_path / "press")
    folder.import_people(crowd(1))
    with served_by(folder) as running:
        running.unsubscribe(running.numbers()[0])
        running.ask("GET", "/u/SECRET?email=reader@example.org", X_Forwarded_For="203.0.113.9")
        running.ask("POST", "/subscribe", "email=someone%40example.org&name=Zo%C3%AB")
        running.ask("GET", "/subscribe", Connection="Upgrade", Upgrade="websocket")
        running.raw(b"GET /u/SECRET HTTP/9\r\n\r\n")
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        running.ask("POST", "/subscribe", "--x\r\nreader@example.org\r\n\r\n--x--\r\n", **broken)


def test_an_old_database_or_several_processes_on_sqlite_are_one_clear_error(tmp_path: Path) -> None:
    folder = publisher(tmp_path / "press", "[web]\nworkers = 2\n")
    done = folder.newsletter("serve", check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 2
    assert "web.workers = 2, and SQLite takes one process only" in done.stderr


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ('[sending]\ntransport = "smtp"\n', "Letters to readers wait"),
        ('[sending]\ntransport = "smtp"\nmode = "allowlist"\n', "all others are dropped"),
        ('[sending]\ntransport = "smtp"\nmode = "live"\n', "leave through smtp"),
    ],
)
def test_it_says_at_the_start_whether_letters_leave(tmp_path: Path, extra: str, words: str) -> None:
    from newsletter import config
    from newsletter.cli.serving import _letters

    folder = publisher(tmp_path / "press", extra)
    assert words in _letters(config.load(folder.root, {}))


def test_a_template_that_can_not_be_used_keeps_letters_back_and_not_the_pages(tmp_path: Path) -> None:
    from newsletter import config
    from newsletter.cli.serving import _letters

    folder = publisher(tmp_path / "press")
    (folder.root / "templates").mkdir()
    (folder.root / "templates" / "letter.mjml.j2").write_text("<mjml><mj-body>{{ nothing }}</mj-body></mjml>")
    said = _letters(config.load(folder.root, {}))
    assert said.startswith("Letters to readers wait: The templates can't be used")


# More connections than there is room for


def test_more_connections_than_files_may_be_open_stop_neither_letters_nor_the_next_reader(
    tmp_path: Path,
) -> None:
    """``served_by`` looks in the end whether anything was logged."""
    folder = publisher(tmp_path / "press")
    folder.import_people(crowd(1))
    with served_by(folder, within="ulimit -S -n 64 && ulimit -H -n 256") as running:
        assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (256, 256)
        with ExitStack() as stack:
            plugs = [stack.enter_context(_half_a_request(running.port)) for _ in range(400)]
            wait_for(lambda: sum(map(_is_open, plugs)) <= serving.room(256), running.process)
            held = [plug for plug in plugs if _is_open(plug)][-1]
            held.settimeout(DEADLINE)
            held.sendall(b"Host: news.example.org\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: held.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 200 ")  # so the database could be read
            _sign_up_elsewhere(folder)
            letters = folder.root / ".newsletter" / "outbox" / "letters"
            wait_for(lambda: any(letters.glob("*.eml")), running.process)
        wait_for(lambda: _until_told(running, running.numbers()[0]), running.process)


def test_who_comes_while_the_server_is_busy_waits_in_the_queue(served: Served) -> None:
    os.kill(served.process.pid, signal.SIGSTOP)  # as busy as can be
    try:
        with ExitStack() as stack:
            for _ in range(20 * serving.AT_ONCE):
                stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE))
    finally:
        os.kill(served.process.pid, signal.SIGCONT)
    assert served.ask("GET", "/healthz")[0] == 200


def _half_a_request(port: int) -> socket.socket:
    plug = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    with suppress(ConnectionError):  # closed already
        plug.sendall(b"GET /healthz HTTP/1.1\r\n")
    plug.setblocking(False)
    return plug


def _is_open(plug: socket.socket) -> bool:
    try:
        return bool(plug.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def _sign_up_elsewhere(folder: Publisher) -> None:
    """As another process of ours would note it in the same database."""
    settings = config.load(folder.root, {})
    engine = wiring.open_store(settings)
    pages = Site(settings, engine)
    assert pages.post("/subscribe", {"email": "fresh@example.org"}).status == 200
    pages.group.close()
    engine.dispose()


@pytest.mark.parametrize(
    ("descriptors", "most"), [(10, 16), (256, 48), (1024, 816), (524_288, serving.MOST_CONNECTIONS)]
)
def test_there_is_room_for_what_the_database_and_letters_leave(descriptors: int, most: int) -> None:
    assert serving.room(descriptors) == most


# Slowness and the end, with short times


@contextmanager
def patient(
    seconds: float = DEADLINE, header_seconds: float = DEADLINE, drain_seconds: float = DEADLINE
) -> Iterator[int]:
    """A server in this process whose patience is short; its application says what it was sent."""
    with patient_server(seconds, header_seconds, drain_seconds) as (_, port):
        yield port


@contextmanager
def patient_server(
    seconds: float, header_seconds: float, drain_seconds: float
) -> Iterator[tuple[serving.Server, int]]:
    """The same, to look into it."""
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse

    from newsletter.web.guard import Bounded

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)

    bounded = Bounded(app, seconds=seconds, problem=lambda status: PlainTextResponse("problem", status))
    listening, started = serving.listen("127.0.0.1", 0), threading.Event()
    server = serving.make(bounded, started.set, header_seconds=header_seconds, drain_seconds=drain_seconds)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert started.wait(DEADLINE)
        yield server, listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def raw(port: int, *pieces: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as plug:
        for piece in pieces:
            plug.sendall(piece)
        return b"".join(iter(lambda: plug.recv(65536), b""))


def test_headers_or_a_body_that_do_not_come_to_an_end_are_not_waited_for() -> None:
    with patient(seconds=0.3, header_seconds=0.3) as port:
        assert raw(port) == b""  # not a byte: nobody to tell
        assert raw(port, b"GET / HTTP/1.1\r\nHost: a\r\nX: ").startswith(b"HTTP/1.1 408 ")
        body = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"
        assert raw(port, body).startswith(b"HTTP/1.1 408 ")


def test_a_second_request_that_does_not_come_to_an_end_is_not_waited_for_either() -> None:
    with patient(seconds=DEADLINE, header_seconds=0.3) as port:
        first = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = raw(port, first + first[:10])
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in answer


def test_bytes_that_drip_in_do_not_prolong_the_wait() -> None:
    with patient(seconds=DEADLINE, header_seconds=0.4) as port:
        answer = bytearray()
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as plug:
            plug.settimeout(0.02)
            plug.sendall(b"GET / HTTP/1.1\r\nX: ")
            until = time.monotonic() + DEADLINE
            while time.monotonic() < until:
                try:
                    plug.sendall(b"x")
                    got = plug.recv(65536)
                except TimeoutError:
                    continue
                except OSError:
                    break
                answer += got
                if not got:
                    break
            else:
                pytest.fail("it waited for ever")
        assert not answer or answer.startswith(b"HTTP/1.1 408 ")


def test_who_asks_again_and_again_and_takes_no_answer_is_cut_off() -> None:
    body = b"x" * guard.LARGEST_BODY
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with patient(drain_seconds=0.3) as port, socket.create_connection(("127.0.0.1", port)) as plug:
        plug.settimeout(DEADLINE)
        with pytest.raises(ConnectionError):
            plug.sendall(request * 2_000)  # more than the kernel keeps


def test_an_answer_that_is_not_taken_does_not_hold_a_connection_that_is_told_to_close() -> None:
    body = b"x" * guard.LARGEST_BODY
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    with patient_server(DEADLINE, DEADLINE, drain_seconds=0.3) as (server, port), socket.socket() as plug:
        for listening in server.servers[0].sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the least that there is
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        plug.connect(("127.0.0.1", port))
        plug.sendall(head + body)
        wait_for(lambda: server.server_state.total_requests == 1)
        wait_for(lambda: not server.server_state.connections)


def test_what_is_being_written_when_the_server_is_told_to_stop_is_written_and_answered(
    tmp_path: Path,
) -> None:
    folder = publisher(tmp_path / "press")
    folder.import_people(crowd(1))
    url = f"sqlite:///{tmp_path}/press/.newsletter/newsletter.db"
    with served_by(folder) as running, ThreadPoolExecutor() as pool:
        [number] = running.numbers()
        other = holder(url)  # it has the write lock
        at_rest = _threads(running.process.pid)
        answer = pool.submit(running.unsubscribe, number)
        # The thread that writes begins with the first write: so the request has come.
        wait_for(lambda: _threads(running.process.pid) > at_rest, running.process)
        running.stop()
        wait_for(lambda: not _listens(running.port), running.process)
        other.communicate()
        assert answer.result(DEADLINE) == 200
        assert running.numbers("state = 'unsubscribed'") == [number]


def _threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
    except OSError:
        return False
    return True


# Several processes


@pytest.mark.parametrize("workers", [3])
def test_several_processes_serve_postgresql_and_one_that_dies_is_replaced(
    tmp_path: Path, postgresql_url: str, workers: int
) -> None:
    environ = {"DATABASE_URL": postgresql_url}
    folder = publisher(tmp_path / "press", f"[web]\nworkers = {workers}\n", environ)
    folder.import_people(crowd(30))
    engine = open_engine(postgresql_url)

    def left() -> set[int]:
        query = select(subscription.c.id).where(subscription.c.state == "unsubscribed")
        return read(engine, lambda conn: set(conn.scalars(query)))

    numbers = read(engine, lambda conn: list(conn.scalars(select(subscription.c.id))))
    with served_by(folder) as running:
        assert [running.unsubscribe(number) for number in numbers[:15]] == [200] * 15
        children = _children(running.process.pid)
        assert len(children) >= workers
        victim = next(child for child in children if _is_worker(child))
        _kill(victim)
        wait_for(lambda: victim not in _children(running.process.pid), running.process)
        told = {number for number in numbers[15:] if _until_told(running, number)}
        counted = running.ask("GET", "/metrics")[1]
    assert told | set(numbers[:15]) == set(numbers) == left()
    total = re.findall(r'requests_total\{route="/u",status="200"\} (\d+)', counted)
    assert int(total[0]) >= len(numbers)  # of all processes together, the dead one too
    engine.dispose()


def _until_told(running: Served, number: int) -> bool:
    """A reader's mail program tries again when the connection was cut by a dying process."""
    for _ in range(5):
        try:
            return running.unsubscribe(number) == 200
        except (OSError, http.client.HTTPException):
            continue
    return False


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_worker(pid: int) -> bool:
    return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
