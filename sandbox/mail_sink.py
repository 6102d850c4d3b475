"""An SMTP server that keeps every message as a file and delivers none."""

import sys
from itertools import count
from pathlib import Path
from threading import Event
from time import time_ns

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session


class Sink:
    """Writes messages into a folder, in the order of their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count(1)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802, ARG002
        """Keep a message; its envelope goes in front, for the recipients that no header names."""
        head = f"X-Mail-From: {envelope.mail_from}\r\n" + "".join(f"X-Rcpt-To: {one}\r\n" for one in envelope.rcpt_tos)
        name = f"{time_ns()}-{next(self._numbers)}.eml"
        hidden = self._folder / f".{name}"
        hidden.write_bytes(head.encode() + (envelope.original_content or b""))
        hidden.replace(self._folder / name)
        return "250 kept"


def main() -> None:
    """Run as `python -m sandbox.mail_sink ADDRESS PORT FOLDER`."""
    address, port, folder = sys.argv[1:4]
    Controller(Sink(Path(folder)), hostname=address, port=int(port)).start()
    Event().wait()


if __name__ == "__main__":
    main()
