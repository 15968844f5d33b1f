"""Hosted pictures are fetched once before anything is frozen."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from newsletter import hosting
from newsletter.errors import Refused
from newsletter.message import picture_url
from newsletter.model import Picture
from tests.support.ledgers import EMAIL, MESSAGE

PICTURE = Picture("images/scan.png", "image/png", b"\x89PNG picture bytes", 10, 10, "A scan")


class Host(BaseHTTPRequestHandler):
    answers: dict[str, tuple[int, bytes]]

    def do_GET(self):
        status, body = self.answers.get(self.path, (404, b""))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args):
        """Keeps the test's output clean."""


@pytest.fixture
def host():
    handler = type("Answers", (Host,), {"answers": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def hosted(host):
    email = replace(EMAIL, pictures=(PICTURE,))
    message = replace(MESSAGE, images_url=f"http://127.0.0.1:{host.server_port}")
    path = picture_url(email, message, PICTURE).removeprefix(message.images_url)
    return email, message, path


def test_a_picture_in_place_is_fine(host):
    email, message, path = hosted(host)
    host.RequestHandlerClass.answers[path] = (200, PICTURE.data)
    hosting.verify([email], message)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, b""), "the server answers 404"),
        ((200, b"other"), "other bytes than the picture in the issue"),
        ((302, b""), "the server answers 302"),
    ],
)
def test_a_picture_that_readers_would_not_see_refuses_the_send(host, answer, said):
    email, message, path = hosted(host)
    host.RequestHandlerClass.answers |= {path: answer, "/elsewhere": (200, PICTURE.data)}
    with pytest.raises(Refused, match=said):
        hosting.verify([email], message)


def test_a_host_that_is_down_refuses_the_send(host):
    email, message, _ = hosted(host)
    with pytest.raises(Refused, match="refused"):
        hosting.verify([email], replace(message, images_url="http://127.0.0.1:9"))


def test_embedded_pictures_need_no_host():
    hosting.verify([replace(EMAIL, pictures=(PICTURE,))], MESSAGE)
