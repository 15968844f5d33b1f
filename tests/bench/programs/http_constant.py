"""One request again and again, made beforehand, over kept connections: what the API's stand-in can take."""

from __future__ import annotations

import http.client
import json
import threading

from measured import measured
from order import TOLD, email, people

what, batch = email(), TOLD["batch"]
person = people()[0]
each = {
    "to": [{"email": person["address"]}],
    "substitutions": {f"@@{key}@@": person[key] for key in ("name", "unsubscribe_url", "preferences_url")},
    "headers": {
        "List-Unsubscribe": person["unsubscribe_url"],
        "Message-ID": person["message_id"],
    },
    "custom_args": {"delivery": person["message_id"]},
}
content = [{"type": "text/plain", "value": what["text"]}, {"type": "text/html", "value": what["html"]}]


def request(count: int) -> bytes:
    """With so many people in it."""
    return json.dumps({"personalizations": [each] * count, "content": content}).encode()


sizes = [min(batch, TOLD["messages"] - done) for done in range(0, TOLD["messages"], batch)]
bodies = {size: request(size) for size in set(sizes)}


def work() -> None:
    """Until nothing is left."""
    connection = http.client.HTTPSConnection("127.0.0.1", TOLD["port"])
    while sizes:
        try:
            size = sizes.pop()
        except IndexError:  # another thread was quicker
            break
        connection.request("POST", "/v3/mail/send", bodies[size], {"Content-Type": "application/json"})
        connection.getresponse().read()
    connection.close()


with measured():
    threads = [threading.Thread(target=work) for _ in range(TOLD["connections"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
