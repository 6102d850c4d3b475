"""Mail that is kept and not delivered."""

import smtplib
import socket
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller

from sandbox.mail_sink import Sink

pytestmark = pytest.mark.network


def test_every_message_is_a_file_with_its_envelope_in_front(tmp_path: Path) -> None:
    controller = Controller(Sink(tmp_path), hostname="127.0.0.1", port=0)
    controller.port = _free_port()
    controller.start()
    try:
        with smtplib.SMTP("127.0.0.1", controller.port, timeout=5) as client:
            client.sendmail(
                "from@pipe.invalid", ["a@pipe.invalid", "hidden@pipe.invalid"], "Subject: one\r\n\r\nbody\r\n"
            )
            client.sendmail("from@pipe.invalid", ["a@pipe.invalid"], "Subject: two\r\n\r\nbody\r\n")
    finally:
        controller.stop()
    first, second = sorted(tmp_path.glob("*.eml"))
    assert "X-Rcpt-To: hidden@pipe.invalid\n" in first.read_text()
    assert "Subject: one" in first.read_text()
    assert "Subject: two" in second.read_text()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
