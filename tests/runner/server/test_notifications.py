"""People are told once of what they asked for, by receivers that are really there, and by nobody else's leave."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from pipeline.errors import PipeError
from pipeline.stage import Cause, CauseKind, Outcome
from runner import events
from runner.events import Record
from runner.server import targets
from runner.server.announcements import announce, announce_end
from runner.server.courier import Message, inert, look_at, send
from runner.server.database import notifications, runs
from runner.server.messages import message_on, short_ref
from runner.server.outbox import MOST_TRIES, after
from runner.state import RunState, fold
from tests.runner.server.conftest import free_port
from tests.runner.server.office import Office
from tests.support.program import host, pipe
from tests.support.receivers import Heard, http_receiver, mail_receiver
from tests.support.wait import until

NASTY = "x](http://evil) @all <!channel> <script>alert(1)</script>"


# -- which messages are written --------------------------------------------------------------------


def test_each_target_gets_one_message_for_an_end_that_it_asked_for(office: Office) -> None:
    office.target("all", "json://a", "ended")
    office.target("both", "json://a", "failed", "ended")
    office.target("green", "json://a", "fixed")
    office.target("red", "json://a", "failed")
    one, two, three, four = (office.ended(each) for each in ("succeeded", "timed-out", "succeeded", "cancelled"))
    assert office.written() == [
        (one, "ended", "all"),
        (one, "ended", "both"),
        (two, "failed", "all"),
        (two, "failed", "both"),
        (two, "failed", "red"),
        (three, "fixed", "all"),
        (three, "fixed", "both"),
        (three, "fixed", "green"),
        (four, "ended", "all"),
        (four, "ended", "both"),
    ]


def test_an_end_that_is_told_again_writes_nothing_new(office: Office) -> None:
    office.target("red", "json://a", "failed")
    run = office.ended("failed")
    office.database.write_now(lambda c: announce_end(c, run))
    assert len(office.written()) == 1


@pytest.mark.parametrize("between", ["cancelled", "skipped"])
def test_what_says_nothing_does_not_hide_that_it_was_red(office: Office, between: str) -> None:
    office.target("green", "json://a", "fixed")
    office.ended("failed")
    office.ended(between)
    fixed = office.ended("succeeded")
    office.ended("succeeded")
    assert office.written() == [(fixed, "fixed", "green")]


def test_another_branch_or_a_bare_commit_fixes_nothing(office: Office) -> None:
    office.target("green", "json://a", "fixed")
    office.ended("failed")
    office.ended("succeeded", ref="refs/heads/other")
    office.ended("failed", ref="")
    office.ended("succeeded", ref="")
    assert office.written() == []


def test_an_older_run_that_ends_late_fixes_nothing(office: Office) -> None:
    office.target("green", "json://a", "fixed")
    office.ended("failed")
    slow, quick = office.begun(), office.begun()
    office.end(quick, "failed")
    office.end(slow, "succeeded")
    assert office.written() == []


def test_a_wait_for_approval_is_told_to_those_who_asked_for_it(office: Office) -> None:
    office.target("all", "json://a", "ended")
    office.target("waits", "json://a", "waiting", "failed")
    run = office.begun()
    office.database.write_now(lambda c: announce(c, run, "waiting"))
    assert office.written() == [(run, "waiting", "waits")]


# -- what they say ---------------------------------------------------------------------------------


def row(office: Office, id_: str) -> Any:
    return office.database.read_now(lambda c: c.execute(select(runs).where(runs.c.id == id_)).one())


def journal(*happened: events.Event) -> RunState:
    return fold(Record(number, 10.0 + number, event) for number, event in enumerate(happened, 1))


def test_a_message_names_the_cause_its_evidence_and_the_page(office: Office) -> None:
    run = row(office, office.ended("failed"))
    cause = Cause(CauseKind.USER, "pod hosp-1 is in CrashLoopBackOff", ("exit code 1", "no such\nhost", "3", "4"))
    state = journal(
        events.StageFinished("lint", 1, Outcome.FAILED, cause, allowed=True),
        events.StageFinished("deploy[hosp]", 1, Outcome.FAILED, cause),
    )
    message = message_on(run, "failed", state, "https://ci.example/runs/1")
    assert message.title == "failed: shop backend#1 (main)"
    first, *rest = message.body.splitlines()
    assert first == "deploy[hosp]: pod hosp-1 is in CrashLoopBackOff"
    assert rest[:3] == ["  exit code 1", "  no such ⏎ host", "  3"]
    assert "commit: cccccccccccc by Ann" in rest
    assert rest[-1] == "https://ci.example/runs/1"
    assert message.sort == "failure"


def test_a_run_without_a_journal_is_told_by_what_the_server_noted(office: Office) -> None:
    run = row(office, office.ended("errored", note="it could not be started: no file\nmore"))
    message = message_on(run, "failed", RunState(), "")
    assert message.body.splitlines()[:2] == ["it could not be started: no file", "  more"]


def test_names_from_outside_are_one_line_and_hide_nothing(office: Office) -> None:
    ref = "refs/heads/a\u202egnp.exe"
    run = row(office, office.ended("failed", ref=ref, note="x\x1b[2J" + "y" * 1000))
    message = message_on(run, "failed", RunState(), "")
    assert message.title == "failed: shop backend#1 (agnp.exe)"
    assert len(message.body.splitlines()[0]) == 300
    assert "\x1b" not in message.body


def test_refs_are_written_as_people_write_them() -> None:
    assert [short_ref(ref) for ref in ("refs/heads/a/b", "refs/tags/v1", "refs/pull/3/head", "")] == [
        "a/b",
        "tag v1",
        "refs/pull/3/head",
        "",
    ]


def test_nothing_in_a_message_is_a_mention_or_a_link_in_a_chat() -> None:
    made = inert(NASTY)
    assert not any(sign in made for sign in ("@all", "<!", "<s", "](")), made
    assert made.replace("\N{WORD JOINER}", "") == NASTY


# -- handing over ----------------------------------------------------------------------------------


@pytest.mark.network
def test_a_webhook_is_told_exactly_and_once(office: Office, hook: Heard) -> None:
    office.target("hook", f"json://127.0.0.1:{hook.port}/path", "failed")
    with office.telling() as wake:
        office.ended("failed", note=NASTY)
        wake()
        until(lambda: office.standing("hook").waiting == 0)
    (told,) = hook.json()
    assert (told["title"], told["type"]) == ("failed: shop backend#1 (main)", "failure")
    assert told["message"].splitlines()[0] == NASTY
    assert "https://ci.example/runs/run001" in told["message"]


@pytest.mark.slow
@pytest.mark.network
def test_what_is_not_taken_is_tried_again_and_says_why_without_its_url(office: Office, hook: Heard) -> None:
    hook.answers = [503, 404]
    office.target("hook", f"json://user:passw0rd@127.0.0.1:{hook.port}/s3cret-path", "failed")
    with office.telling() as wake:
        office.ended("failed")
        wake()
        until(lambda: "503" in office.standing("hook").note)
        office.hurry()
        wake()
        until(lambda: "404" in office.standing("hook").note)
        note = office.standing("hook").note
        office.hurry()
        wake()
        until(lambda: office.standing("hook").waiting == 0)
    assert len(hook.bodies) == 3
    assert not any(secret in note for secret in ("passw0rd", "s3cret", "127.0.0.1"))


@pytest.mark.slow
@pytest.mark.network
def test_a_receiver_that_hangs_holds_up_nobody_else(office: Office, hook: Heard) -> None:
    with http_receiver() as deaf:
        deaf.hangs.set()
        office.target("deaf", f"json://127.0.0.1:{deaf.port}/?rto=100", "failed")
        office.target("hook", f"json://127.0.0.1:{hook.port}/", "failed")
        with office.telling() as wake:
            for _ in range(3):
                office.ended("failed")
                wake()
            until(lambda: len(hook.bodies) == 3)
            assert office.standing("deaf").note == ""  # it is still being asked
        assert len(deaf.bodies) == 1
    assert [told["title"] for told in hook.json()] == [f"failed: shop backend#{n} (main)" for n in (1, 2, 3)]


@pytest.mark.slow
@pytest.mark.network
def test_a_message_is_given_up_with_a_note_and_can_be_tried_again(office: Office, hook: Heard) -> None:
    office.target("hook", f"json://127.0.0.1:{hook.port}/", "failed")
    office.ended("failed")
    last = after(MOST_TRIES - 1, "error=500")
    office.database.write_now(lambda c: c.execute(update(notifications).values(last)))
    standing = office.standing("hook")
    assert (standing.waiting, standing.given_up, standing.note) == (0, 1, "error=500")
    with office.telling() as wake:
        wake()
        wake()
        assert hook.bodies == []
        assert office.database.write_now(lambda c: targets.again(c, "shop", "hook")) == 1
        wake()
        until(lambda: hook.bodies)


def test_pauses_grow_and_end() -> None:
    def pause(tries: int) -> float:
        due = after(tries, "no")["due"]
        assert isinstance(due, float)
        return round(due - time.time())

    assert [pause(tries) for tries in (0, 1, 2, 19)] == [5, 10, 20, 900]


@pytest.mark.network
@pytest.mark.slow
async def test_what_apprise_says_of_a_failure_is_told_without_the_url() -> None:
    note = await send(f"json://user:passw0rd@127.0.0.1:{free_port()}/", Message("t", "b"))
    assert ("***" in note, "127.0.0.1" in note) == (True, False)


@pytest.mark.network
async def test_a_mail_arrives_as_plain_text_with_its_subject(office: Office) -> None:
    with mail_receiver(free_port()) as box:
        url = f"mailto://127.0.0.1:{box.port}/?mode=insecure&from=pipe@ci.example&to=team@shop.example"
        assert await send(url, Message("failed: 分支 <b>", f"{NASTY}\n\nhttps://ci.example/runs/1", "failure")) == ""
    (mail,) = box.messages
    assert (mail["subject"], mail["to"]) == ("failed: 分支 <b>", "team@shop.example")
    body = mail.get_body(("plain",))
    assert body is not None
    assert body.get_content().splitlines()[0] == NASTY


@pytest.mark.slow
@pytest.mark.network
async def test_a_chat_gets_its_own_form_and_no_markup(hook: Heard) -> None:
    url = f"mmost://127.0.0.1:{hook.port}/{'c' * 26}"
    assert await send(url, Message("failed: x @all", NASTY, "failure")) == ""
    (told,) = hook.json()
    assert hook.paths == [f"/hooks/{'c' * 26}"]
    assert not any(sign in told["text"] for sign in ("@all", "<!", "<script", "]("))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("mailtos://user:password@smtp.example.com?to=team@example.com", "E-Mail"),
        (f"dingtalk://SEC{'b' * 30}@{'a' * 64}", "DingTalk"),
        ("wecombot://abcdef01-2345-6789-abcd-ef0123456789", "WeCom Bot"),
        ("feishu://abcdef01-2345-6789-abcd-ef0123456789", "Feishu"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "Slack"),
        ("jsons://user:password@hooks.example.com/path", "JSON"),
    ],
)
async def test_the_services_of_the_documentation_are_known(url: str, service: str) -> None:
    assert (await look_at(url)).service == service


@pytest.mark.slow
@pytest.mark.parametrize(
    "url", ["", "x", "bogus://a", "slack://a", "json://a json://b", "json://a,json://b", "syslog://"]
)
async def test_what_is_no_receiver_is_refused(url: str) -> None:
    look = await look_at(url)
    assert look.service == ""
    assert look.note


@pytest.mark.slow
async def test_everything_that_is_wrong_with_a_target_is_told_at_once() -> None:
    with pytest.raises(PipeError) as refused:
        await targets.check("a b", "bogus://passw0rd", ["faild"])
    text = str(refused.value)
    assert all(words in text for words in ("'a b' is no name", "no event 'faild'", "no URL that apprise knows"))
    assert "passw0rd" not in text


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.slow
def test_targets_are_added_tried_listed_and_removed(tmp_path: Path, hook: Heard) -> None:
    url = f"json://user:passw0rd@127.0.0.1:{hook.port}/"
    pipe(tmp_path, "projects", "add", "shop", "https://git.example/shop.git", "--no-check")
    added = pipe(tmp_path, "notify", "add", "shop", "ops", "--on", "failed,fixed", env=host(PIPE_NOTIFY_URL=url))
    assert (added.returncode, added.stderr) == (0, "")
    assert "shop: ops (JSON) is told of: failed, fixed" in added.stdout
    again = pipe(tmp_path, "notify", "add", "shop", "ops", "--on", "failed", env=host(PIPE_NOTIFY_URL=url))
    assert (again.returncode, again.stderr) == (2, "'shop' has a target 'ops' already: remove it first\n")
    assert pipe(tmp_path, "notify", "test", "shop", "ops").stdout == "ops: taken\n"
    assert json.loads(hook.bodies[0])["title"] == "test: shop"
    hook.answers = [403]
    refused = pipe(tmp_path, "notify", "test", "shop", "ops")
    assert (refused.returncode, "error=403" in refused.stderr) == (1, True)
    assert pipe(tmp_path, "notify", "list", "shop").stdout == "ops  JSON  failed,fixed\n"
    assert pipe(tmp_path, "notify", "remove", "shop", "ops").returncode == 0
    missing = pipe(tmp_path, "notify", "remove", "shop", "ops")
    assert (missing.returncode, "no target 'ops'" in missing.stderr) == (2, True)
    kept = b"".join(path.read_bytes() for path in (tmp_path / ".pipe-server").glob("server.db*"))
    assert b"passw0rd" not in kept
