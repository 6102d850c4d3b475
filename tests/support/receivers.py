"""Receivers of messages on loopback: they keep what they are told, and answer as they are bidden."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

__all__ = ["Heard", "Mailbox", "http_receiver", "mail_receiver"]


@dataclass
class Heard:
    """What an HTTP receiver was sent; `answers` are the status codes of the next answers, then 200."""

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    hangs: threading.Event = field(default_factory=threading.Event)
    """While it is set nobody is answered."""

    def json(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]


@contextmanager
def http_receiver() -> Iterator[Heard]:
    """A real HTTP server that takes every POST."""
    heard, over = Heard(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            heard.paths.append(self.path)
            heard.headers.append(dict(self.headers))
            while heard.hangs.is_set() and not over.wait(0.05):
                pass
            status = heard.answers.pop(0) if heard.answers else 200
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    heard.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield heard
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Mailbox:
    """The messages that a mail server took."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
        self.messages.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


@contextmanager
def mail_receiver(port: int) -> Iterator[Mailbox]:
    """A real SMTP server that takes every message."""
    box = Mailbox(port)
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
