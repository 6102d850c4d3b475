"""`uses: mail`: what is sent, to whom, and what a mail server's answers mean."""

import socket
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from pydantic import ValidationError

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed
from sandbox import Sandbox
from stages.clients.mail import parse_server
from stages.mail import Mail
from tests.support.context import FakeContext


class Sink:
    """Keeps messages; refuses recipients whose name begins with `no`, and all mail when it is told to."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], EmailMessage]] = []
        self.answer = "250 kept"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if address.startswith("no"):
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        message = message_from_bytes(envelope.content.replace(b"\r\n", b"\n"), policy=policy.default)
        self.messages.append((envelope.rcpt_tos, message))
        return self.answer


def accept(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    return AuthResult(success=(data.login, data.password) == (b"joe", b"right"), handled=False)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def server(sink: Sink) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(sink, hostname="127.0.0.1", port=port, authenticator=accept, auth_require_tls=False)
    controller.start()
    yield f"127.0.0.1:{port}"
    controller.stop()


def mail(**fields: object) -> Mail:
    return Mail.model_validate({"to": "team@example.com", "sender": "pipe@example.com", **fields})


@pytest.mark.network
async def test_a_mail_is_sent_to_all_recipients(ctx: FakeContext, server: str, sink: Sink) -> None:
    ctx.env["PIPE_SMTP"] = server
    await mail(to="a@example.com, Bee <b@example.com>", subject="医院 #7 succeeded", body="Grüße\n").run(ctx)
    ((recipients, message),) = sink.messages
    assert recipients == ["a@example.com", "b@example.com"]
    assert (message["Subject"], message["From"], message["Auto-Submitted"]) == (
        "医院 #7 succeeded",
        "pipe@example.com",
        "auto-generated",
    )
    assert message.get_content() == "Grüße\n"


@pytest.mark.network
async def test_without_subject_and_text_it_says_which_run_it_is(ctx: FakeContext, server: str, sink: Sink) -> None:
    ctx.env |= {"BRANCH_NAME": "main", "GIT_COMMIT": "c" * 40}
    await Mail.model_validate({"to": ["a@example.com"], "server": server}).run(ctx)
    ((_, message),) = sink.messages
    assert message["Subject"] == "sample #7"
    assert message.get_content() == f"Run: sample #7 ({ctx.run.id})\nBranch: main\nCommit: {'c' * 40}\n"


@pytest.mark.network
async def test_a_line_break_in_a_subject_makes_no_header(ctx: FakeContext, server: str, sink: Sink) -> None:
    await mail(server=server, subject="x\r\nBcc: victim@example.com\r\n\r\nbody").run(ctx)
    ((recipients, message),) = sink.messages
    assert recipients == ["team@example.com"]
    assert message["Bcc"] is None
    assert message["Subject"] == "x Bcc: victim@example.com body"


@pytest.mark.parametrize("address", ["x", "a@b\r\nBcc: c@d", "a b@c", "<a@b", "a@b, c@d\n", "@", "a@b>x"])
async def test_what_is_no_address_is_refused(ctx: FakeContext, address: str) -> None:
    ctx.env["PIPE_SMTP"] = "127.0.0.1:1"
    for fields in ({"to": [address]}, {"sender": address}):
        with pytest.raises(StageFailed, match="is no mail address"):
            await mail(**fields).run(ctx)
    assert ctx.effects == []


@pytest.mark.parametrize("to", ["", " , ", []])
def test_somebody_must_get_it(to: object) -> None:
    with pytest.raises(ValidationError, match="there is no recipient"):
        mail(to=to)


@pytest.mark.network
async def test_it_logs_in_when_a_secret_is_named(tmp_path: Path, server: str, sink: Sink) -> None:
    ctx = FakeContext(tmp_path, secrets={"mail": Login("joe", "right"), "wrong": Login("joe", "wrong")})
    await mail(server=server, secret="mail", tls="none").run(ctx)
    assert len(sink.messages) == 1
    with pytest.raises(StageFailed, match=r"the mail server 127\.0\.0\.1:\d+ refused the login 'joe' \(535\)"):
        await mail(server=server, secret="wrong", tls="none").run(ctx)


@pytest.mark.network
async def test_a_password_is_not_sent_in_clear_unless_that_is_said(tmp_path: Path, server: str, sink: Sink) -> None:
    ctx = FakeContext(tmp_path, secrets={"mail": Login("joe", "right")})
    with pytest.raises(StageFailed, match="would get the password in clear: say `tls: none`"):
        await mail(server=server, secret="mail").run(ctx)
    assert sink.messages == []


@pytest.mark.network
async def test_a_server_that_is_down_is_one_line(ctx: FakeContext) -> None:
    with pytest.raises(StageErrored, match=r"^the mail server 127\.0\.0\.1:1 does not answer: .*refused$"):
        await mail(server="127.0.0.1:1").run(ctx)


@pytest.mark.network
async def test_recipients_that_are_refused_are_named(ctx: FakeContext, server: str, sink: Sink) -> None:
    await mail(server=server, to="a@example.com, nobody@example.com").run(ctx)
    assert "refused a recipient: nobody@example.com: 550 nobody of that name" in ctx.text
    assert len(sink.messages) == 1
    with pytest.raises(StageFailed, match=r"refuses every recipient: no@example\.com: 550"):
        await mail(server=server, to="no@example.com").run(ctx)


@pytest.mark.network
@pytest.mark.parametrize(("answer", "error"), [("451 later", StageErrored), ("554 spam", StageFailed)])
async def test_an_answer_says_whether_to_try_again(
    ctx: FakeContext, server: str, sink: Sink, answer: str, error: type[Exception]
) -> None:
    sink.answer = answer
    with pytest.raises(error, match=f"said {answer}"):
        await mail(server=server).run(ctx)


@pytest.mark.network
async def test_a_mail_that_was_sent_is_not_sent_again(ctx: FakeContext, server: str, sink: Sink) -> None:
    stage = mail(server=server, subject="once")
    await stage.run(ctx)
    (effect,) = ctx.effects
    ctx.proven = {effect.key: effect.value or {}}
    await stage.run(ctx)
    assert len(sink.messages) == 1
    settled = await stage.settle(ctx, effect.key, {})
    assert (settled.state, "it is sent again" in settled.message) == ("unknown", True)


async def test_without_a_server_it_says_where_to_name_one(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match="give `server:` or set PIPE_SMTP") as caught:
        await mail().run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("mail.example", "mail.example", 25), ("mail.example:2525", "mail.example", 2525), ("[::1]:25", "::1", 25)],
)
def test_a_server_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    server = parse_server(text, "auto")
    assert (server.host, server.port) == (host, port)
    assert parse_server("mail.example", "ssl").port == 465
    with pytest.raises(ValueError, match="write host:port"):
        parse_server("mail.example:x", "auto")


@pytest.mark.sandbox
async def test_the_sandbox_keeps_what_is_sent(real: FakeContext, world: Sandbox) -> None:
    await mail(server=world.smtp, subject=real.run.id, body="hello").run(real)
    kept = [path for path in world.mail_dir.glob("*.eml") if real.run.id.encode() in path.read_bytes()]
    assert len(kept) == 1
    assert b"X-Rcpt-To: team@example.com" in kept[0].read_bytes()
    kept[0].unlink()
