"""`uses: mail`: tell people how a run went."""

import re
import socket
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import BeforeValidator, JsonValue, field_validator

from pipeline.stage import (
    CauseKind,
    Examined,
    Login,
    NoOutputs,
    PreflightContext,
    SecretName,
    Settled,
    Stage,
    StageContext,
    StageFailed,
    Surroundings,
)
from stages.clients.mail import Delivery, Greeting, Server, parse_server

__all__ = ["Mail"]

SUBJECT_LIMIT = 500
PLAIN = r"(?P<user>[^\s<>@,;:\"()\\]+)@(?P<domain>[^\s<>@,;:\"()\\]+)"
ADDRESS = re.compile(rf"{PLAIN}|(?P<name>[^<>@,;]*)<{PLAIN.replace('?P<', '?P<named_')}>")


def _recipients(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Mail(Stage[NoOutputs]):
    """Send a mail by SMTP."""

    to: Annotated[str | tuple[str, ...], BeforeValidator(_recipients)]
    """The recipients: a list, or a text with commas between them."""
    subject: str = ""
    """One line. Empty: the pipeline and the number of the run."""
    body: str = ""
    """The text. Empty: which run it is, and of which commit."""
    sender: str = ""
    """The address it comes from. Empty: PIPE_MAIL_FROM, else `pipe@` this machine."""
    server: str = ""
    """`host:port` of the mail server. Empty: PIPE_SMTP."""
    secret: SecretName = ""
    """The login to the mail server, if it wants one."""
    tls: Literal["auto", "starttls", "ssl", "none"] = "auto"
    """`auto`: TLS from the start on port 465, else STARTTLS where the server has it."""

    @field_validator("to")
    @classmethod
    def _somebody(cls, to: tuple[str, ...]) -> tuple[str, ...]:
        if not to:
            raise ValueError("there is no recipient")
        return to

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """See that the server answers and takes the login; nothing is sent."""
        server, login = self._server(ctx), ctx.secret(self.secret) if self.secret else None
        delivery = Delivery(server, login if isinstance(login, Login) else None)
        await ctx.call(Greeting(delivery))
        return Examined(checked=[f"the mail server {server} answers"])

    async def run(self, ctx: StageContext) -> NoOutputs:
        """Send it, once a run even if the stage is tried again."""
        server, login = self._server(ctx), ctx.secret(self.secret) if self.secret else None
        message = self._message(ctx)
        delivery = Delivery(server, login if isinstance(login, Login) else None)
        intent: dict[str, JsonValue] = {"message": str(message["Message-ID"])}
        async with ctx.effect(f"mail {message['To']}: {message['Subject']}"[:300], intent) as effect:
            if effect.proven is None:
                refused = await ctx.call(delivery, message)
                for said in refused.values():
                    ctx.log(f"warning: the mail server refused a recipient: {said}")
            effect.proof(intent)
        ctx.log(f"sent '{message['Subject']}' to {message['To']} by {server}")
        return NoOutputs()

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:  # noqa: ARG002
        """Nobody can ask a mail server; a second mail with the same Message-ID does little harm."""
        return Settled("unknown", message=f"nobody can say whether '{key}' took place; it is sent again")

    def _server(self, ctx: Surroundings) -> Server:
        text = self.server or ctx.env.get("PIPE_SMTP", "")
        if not text:
            raise StageFailed("no mail server is known: give `server:` or set PIPE_SMTP", kind=CauseKind.CONFIG)
        try:
            return parse_server(text, self.tls)
        except ValueError as error:
            raise StageFailed(f"server: {error}", kind=CauseKind.CONFIG) from None

    def _message(self, ctx: StageContext) -> EmailMessage:
        run = ctx.run
        sender = self.sender or ctx.env.get("PIPE_MAIL_FROM") or f"pipe@{socket.gethostname()}"
        subject = " ".join((self.subject or f"{run.pipeline} #{run.number}").split())[:SUBJECT_LIMIT]
        message = EmailMessage()
        message["From"] = _address(sender, "sender")
        message["To"] = [_address(one, "to") for one in self.to]
        message["Subject"] = subject
        message["Date"] = formatdate(localtime=True)
        identity = sha256(f"{run.id} {run.stage} {self.to} {subject}".encode()).hexdigest()[:32]
        message["Message-ID"] = f"<{identity}@pipe>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(self.body or _summary(ctx))
        return message


def _address(text: str, field: str) -> Address:
    match = ADDRESS.fullmatch(text.strip())
    if match is None or not text.isprintable():
        raise StageFailed(f"{field}: {text!r} is no mail address", kind=CauseKind.CONFIG)
    user, domain = match["user"] or match["named_user"], match["domain"] or match["named_domain"]
    return Address((match["name"] or "").strip().strip('"'), user, domain)


def _summary(ctx: StageContext) -> str:
    known = {
        "Run": f"{ctx.run.pipeline} #{ctx.run.number} ({ctx.run.id})",
        "Branch": ctx.env.get("BRANCH_NAME") or ctx.env.get("TAG_NAME", ""),
        "Commit": ctx.env.get("GIT_COMMIT", ""),
        "See": ctx.env.get("BUILD_URL", ""),
    }
    return "".join(f"{name}: {value}\n" for name, value in known.items() if value)
