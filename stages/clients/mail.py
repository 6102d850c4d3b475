"""Handing a message to a mail server; it blocks."""

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING, Literal

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed

if TYPE_CHECKING:  # a start of pipe need not wait for it
    import smtplib

__all__ = ["Delivery", "Greeting", "Server", "parse_server"]

LIMIT = 20.0


@dataclass(frozen=True)
class Server:
    """A mail server and how to speak to it."""

    host: str
    port: int
    tls: Literal["auto", "starttls", "ssl", "none"] = "auto"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_server(text: str, tls: Literal["auto", "starttls", "ssl", "none"]) -> Server:
    """Read `host` or `host:port`.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        return Server(text.strip("[]"), 465 if tls == "ssl" else 25, tls)
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"'{text}' is no mail server: write host:port")
    return Server(host.strip("[]"), int(port), tls)


class Delivery:
    """One message to one server; call it in a thread."""

    def __init__(self, server: Server, login: Login | None) -> None:
        self._server = server
        self._login = login
        self._client: smtplib.SMTP | None = None

    def stop(self) -> None:
        """Hang up."""
        if self._client is not None and self._client.sock is not None:
            with contextlib.suppress(OSError):
                self._client.sock.shutdown(socket.SHUT_RDWR)

    def __call__(self, message: EmailMessage) -> dict[str, str]:
        """Deliver, and return the recipients that were refused, with what was said.

        Raises:
            StageFailed: the server refuses the login, the sender or every recipient.
            StageErrored: it does not answer, or has no time for us now.
        """
        with self._explained(), self._connected() as client:
            refused = client.send_message(message)
        return {address: _said({address: answer}) for address, answer in refused.items()}

    def greet(self) -> None:
        """Come as far as a message would be told; raises as a delivery does."""
        with self._explained(), self._connected():
            pass

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        import smtplib

        where = f"the mail server {self._server}"
        try:
            yield
        except smtplib.SMTPRecipientsRefused as error:
            raise StageFailed(f"{where} refuses every recipient: {_said(error.recipients)}") from error
        except smtplib.SMTPAuthenticationError as error:
            user = self._login.username if self._login else ""
            raise StageFailed(f"{where} refused the login '{user}' ({error.smtp_code})") from error
        except smtplib.SMTPResponseException as error:
            said = f"{where} said {error.smtp_code} {_text(error.smtp_error)}"
            raise (StageErrored(said) if error.smtp_code < 500 else StageFailed(said)) from error
        except (OSError, smtplib.SMTPException) as error:
            raise StageErrored(f"{where} does not answer: {error}") from error

    @contextlib.contextmanager
    def _connected(self) -> Iterator["smtplib.SMTP"]:
        import smtplib

        server, name = self._server, socket.gethostname()
        ssl = server.tls == "ssl" or (server.tls == "auto" and server.port == 465)
        kind = smtplib.SMTP_SSL if ssl else smtplib.SMTP
        with kind(server.host, server.port, local_hostname=name, timeout=LIMIT) as client:
            self._client = client
            client.ehlo()
            if not ssl and server.tls != "none":
                self._secure(client)
            if self._login:
                client.login(self._login.username, self._login.password)
            yield client

    def _secure(self, client: "smtplib.SMTP") -> None:
        from ssl import create_default_context

        if client.has_extn("starttls") or self._server.tls == "starttls":
            client.starttls(context=create_default_context())
            client.ehlo()
        elif self._login:
            message = (
                f"the mail server {self._server} would get the password in clear: say `tls: none` if that is meant"
            )
            raise StageFailed(message, kind=CauseKind.CONFIG)


class Greeting:
    """A delivery of nothing; call it in a thread."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self.stop = delivery.stop

    def __call__(self) -> None:
        """See `Delivery.greet`."""
        self._delivery.greet()


def _said(answers: Mapping[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code} {_text(text)}" for address, (code, text) in answers.items())


def _text(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:300]
