"""What each kind says about itself before it runs; what needs a real registry or cluster is in test_looks_sandbox."""

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.files import Below, Folder, Laid, has
from pipeline.stage import (
    Cause,
    CauseKind,
    Examined,
    Files,
    Finding,
    Foreseen,
    Severity,
    StageErrored,
    StageFailed,
    doubted,
)
from stages.catalog import kind
from stages.checkout import Checkout, CheckoutOutputs
from stages.clients.docker.dockerfile import bases
from stages.clients.git.tree import CommitFiles
from stages.image import Image, ImageOutputs
from stages.mail import Mail
from stages.maven import Maven
from stages.npm import Npm
from stages.push import Push, PushOutputs
from stages.shell import Shell
from stages.ticket import Ticket, TicketOutputs
from tests.stages.test_checkout import commit, git, repository
from tests.stages.test_mail import accept, server, sink
from tests.support.context import FakeContext

__all__ = ["accept", "repository", "server", "sink"]

kind("probe")


def told(examined: Examined) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.cause.message) for finding in examined.findings]


def programs(ctx: FakeContext, *names: str) -> None:
    folder = ctx.folder / "bin"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    ctx.env["PATH"] = str(folder)
    ctx.env.pop("JAVA_HOME", None)


# -- files -----------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("top.txt", "a/x.yml", "a/b/y.yml"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(name)
    return tmp_path / "tree"


def test_files_of_several_checkouts_lie_where_each_is_put(tree: Path) -> None:
    files = Laid([("one", Folder(tree, tree)), ("two/deep", Folder(tree / "a", tree))])
    assert sorted(files.names()) == [
        *("one/a/b/y.yml", "one/a/x.yml", "one/top.txt"),
        *("two/deep/b/y.yml", "two/deep/x.yml"),
    ]
    assert sorted(files.names("two")) == ["two/deep/b/y.yml", "two/deep/x.yml"]
    assert sorted(files.names("one/a/b")) == ["one/a/b/y.yml"]
    assert files.read("two/deep/x.yml") == b"a/x.yml"
    assert not has(files, "two/x.yml")
    assert list(Below(files, "one/a").names()) == list(Below(Folder(tree, tree), "a").names())


def test_a_link_out_of_a_folder_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tree / "link").symlink_to(tmp_path / "secret")
    assert not has(Folder(tree, tree), "link")


# -- checkout --------------------------------------------------------------------------------------


async def names(ctx: FakeContext, files: Files, below: str) -> list[str]:
    return await ctx.call(lambda: sorted(files.names(below)))


async def test_a_checkout_foresees_the_commit_and_its_files_and_leaves_the_workspace_alone(
    ctx: FakeContext, repository: Path
) -> None:
    (repository / "deploy" / "sub").mkdir(parents=True)
    (repository / "link").symlink_to("deploy/app.yml")
    (repository / "out").symlink_to("/etc/passwd")
    head = commit(repository, "Third", **{"deploy/app.yml": "kind: X", "deploy/sub/b.yml": "b"})
    stage = Checkout(url=repository.as_uri(), ref="main", into="src")
    foreseen = await stage.foresee(ctx)
    assert isinstance(foreseen.outputs, CheckoutOutputs)
    assert (foreseen.outputs.commit, foreseen.outputs.branch, foreseen.folder) == (head, "main", "src")
    assert foreseen.files
    files = await foreseen.files()
    assert await names(ctx, files, "deploy") == ["deploy/app.yml", "deploy/sub/b.yml"]
    assert await names(ctx, files, "deploy/app.yml") == ["deploy/app.yml"]
    assert await names(ctx, files, "nothing") == []
    assert len(await names(ctx, files, "")) == 6
    assert await ctx.call(files.read, "deploy/app.yml") == b"kind: X"
    assert await ctx.call(files.read, "link") == b"kind: X"
    for name in ("out", "nothing", "deploy"):
        assert not await ctx.call(has, files, name)
    assert head[:12] in files.where
    assert list(ctx.workspace.iterdir()) == []
    assert (await stage.preflight(ctx)).checked == [f"refs/heads/main is {head}"]


async def test_files_are_those_of_the_commit_whatever_came_after(ctx: FakeContext, repository: Path) -> None:
    first = await Checkout(url=repository.as_uri(), ref="main").foresee(ctx)
    commit(repository, "Later", file="9")
    later = await Checkout(url=repository.as_uri(), ref="refs/heads/main").foresee(ctx)
    assert first.files
    assert later.files
    contents = [await ctx.call((await files()).read, "file") for files in (first.files, later.files)]
    assert contents == [b"2", b"9"]


async def test_a_ref_that_does_not_exist_will_fail_with_what_is_near(ctx: FakeContext, repository: Path) -> None:
    with pytest.raises(StageFailed, match=r"no branch or tag 'mian'; near: main"):
        await Checkout(url=repository.as_uri(), ref="mian").foresee(ctx)


async def test_a_bare_commit_is_asked_for(ctx: FakeContext, repository: Path) -> None:
    stage = Checkout(url=repository.as_uri(), ref="0" * 40)
    await stage.foresee(ctx)
    with pytest.raises(StageFailed):
        await stage.preflight(ctx)
    there = Checkout(url=repository.as_uri(), ref=git(repository, "rev-parse", "HEAD~1"))
    assert (await there.preflight(ctx)).checked


async def test_the_environment_of_git_does_not_lead_elsewhere(
    ctx: FakeContext, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreseen = await Checkout(url=repository.as_uri(), ref="main").foresee(ctx)
    assert foreseen.files
    files = await foreseen.files()
    assert isinstance(files, CommitFiles)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert await ctx.call(files.read, "file") == b"2"


async def test_a_working_tree_is_read_as_it_is(ctx: FakeContext, repository: Path) -> None:
    (repository / "new.yml").write_text("not committed")
    ctx.env["PIPE_SOURCE_DIR"] = str(repository)
    foreseen = await Checkout().foresee(ctx)
    assert isinstance(foreseen.outputs, CheckoutOutputs)
    assert foreseen.outputs.dirty
    assert foreseen.files
    assert await ctx.call((await foreseen.files()).read, "new.yml") == b"not committed"


# -- image and push --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM a:1\nRUN x", ["a:1"]),
        ("FROM a:1 AS build\nFROM build\nCOPY --from=build /x /x\nCOPY --from=0 /y /y", ["a:1"]),
        ("from --platform=linux/arm64 a\nCOPY --chown=1:1 --from=tools:2 /x /x\n", ["a", "tools:2"]),
        ("ARG V=1\nARG R\nFROM $R/a:${V}", ["r.example/a:1"]),
        ("ARG V=1\nFROM a:${V:-2}\nARG V=9\nFROM b:$V", ["a:1", "b:1"]),
        ("FROM a:${MISSING}\nFROM b:${MISSING:-3}", ["b:3"]),
        ("# syntax=docker/dockerfile:1\nFROM \\\n  a:1 \\\n  AS x\nFROM scratch", ["a:1"]),
        ("FROM a AS one\nFROM b AS two\nFROM c AS three", ["a", "b"]),
        ("", []),
    ],
)
def test_the_images_that_a_dockerfile_builds_on(text: str, found: list[str]) -> None:
    assert bases(text, {"R": "r.example"}, target="two") == found


async def test_names_are_foreseen_and_digests_are_placeholders_that_say_so(ctx: FakeContext) -> None:
    image = await Image(image="r.example/team/app", tag="7").foresee(ctx)
    push = await Push(image="r.example/team/app:7").foresee(ctx)
    assert isinstance(image.outputs, ImageOutputs)
    assert isinstance(push.outputs, PushOutputs)
    assert (image.outputs.ref, set(image.made)) == ("r.example/team/app:7", {"id"})
    assert push.outputs.digest_ref == f"r.example/team/app:7@sha256:{'0' * 64}"
    assert push.made == {"digest", "digest_ref"}


async def test_an_engine_that_does_not_run_is_an_outage_with_its_address(ctx: FakeContext) -> None:
    ctx.env["DOCKER_HOST"] = "unix:///nowhere/docker.sock"
    with pytest.raises(StageErrored, match=r"/nowhere/docker\.sock"):
        await Image(image="r.example/app").preflight(ctx)


# -- tools -----------------------------------------------------------------------------------------


async def test_a_tool_that_is_missing_will_fail_unless_a_script_may_install_it(ctx: FakeContext) -> None:
    programs(ctx, "java")
    assert told(await Maven().preflight(ctx)) == [(Severity.FAILS, "there is no program 'mvn'")]
    ctx.earlier = {"setup": kind("shell")}
    finding = (await Maven().preflight(ctx)).findings[0]
    assert (finding.severity, finding.hint) == (
        Severity.MAY_FAIL,
        "well if setup installs it; else install it, or put its folder on PATH",
    )


async def test_maven_comes_with_the_sources_or_from_path_and_needs_java(ctx: FakeContext) -> None:
    programs(ctx, "java")
    (ctx.workspace / "mvnw").write_text("")
    assert told(await Maven().preflight(ctx)) == []
    (ctx.folder / "bin" / "java").unlink()
    assert told(await Maven().preflight(ctx)) == [(Severity.FAILS, "there is no program 'java'")]
    assert told(await Maven(jdk="/opt/jdk").preflight(ctx)) == [
        (Severity.FAILS, "there is no program '/opt/jdk/bin/java'")
    ]


@pytest.mark.parametrize(
    ("content", "fields", "found"),
    [
        ('{"scripts": {"build": "x"}}', {"target": "build"}, []),
        ('{"scripts": {"build": "x"}}', {"target": "biuld"}, ["package.json has no script 'biuld'"]),
        ('{"scripts": {}}', {"install": "ci"}, ["`npm ci` needs a package-lock.json, and there is none"]),
        (None, {}, ["there is no package.json in"]),
    ],
)
async def test_npm_knows_its_package_before_it_runs(
    ctx: FakeContext, content: str | None, fields: dict[str, Any], found: list[str]
) -> None:
    programs(ctx, "npm", "node")
    if content is not None:
        (ctx.workspace / "package.json").write_text(content)
    examined = await Npm.model_validate(fields).preflight(ctx)
    assert len(examined.findings) == len(found)
    for finding, message in zip(examined.findings, found, strict=True):
        assert finding.cause.message.startswith(message)
        assert finding.severity is Severity.FAILS


def test_only_what_will_fail_is_doubted_and_its_own_way_out_is_kept() -> None:
    cause = Cause(CauseKind.CONFIG, "there is no x")
    fails, unknown = Finding(Severity.FAILS, cause, hint="add it"), Finding(Severity.UNKNOWN, cause)
    assert doubted(fails, "generate") == Finding(
        Severity.MAY_FAIL, cause, hint="well if generate makes it; else add it"
    )
    assert doubted(fails, "") == fails
    assert doubted(unknown, "generate") == unknown


async def test_what_a_stage_before_may_make_is_not_said_to_be_missing(ctx: FakeContext) -> None:
    programs(ctx, "npm", "node")
    ctx.earlier = {"generate": kind("shell")}
    assert [finding.severity for finding in (await Npm().preflight(ctx)).findings] == [Severity.MAY_FAIL]


@pytest.mark.network
async def test_a_mail_server_is_greeted_and_told_nothing(ctx: FakeContext, server: Any, sink: Any) -> None:
    assert (await Mail(to="a@b.c", server=server).preflight(ctx)).checked == [f"the mail server {server} answers"]
    assert sink.messages == []


@pytest.mark.network
async def test_a_mail_server_that_is_down_is_an_outage(ctx: FakeContext) -> None:
    with pytest.raises(StageErrored, match=r"the mail server 127\.0\.0\.1:1 does not answer"):
        await Mail(to="a@b.c", server="127.0.0.1:1", secret="").preflight(ctx)
    with pytest.raises(StageFailed, match="no mail server is known"):
        await Mail(to="a@b.c").preflight(ctx)


async def test_a_kind_that_has_nothing_to_look_at_says_nothing(ctx: FakeContext) -> None:
    stage = Shell(script="true")
    assert (await stage.preflight(ctx), await stage.foresee(ctx)) == (Examined(), Foreseen())
    assert os.listdir(ctx.workspace) == []  # noqa: PTH208


# -- ticket ----------------------------------------------------------------------------------------


async def test_a_ticket_is_foreseen_so_that_the_deploys_of_a_release_are_looked_at(ctx: FakeContext) -> None:
    foreseen = await Ticket.model_validate({"target": "his", "namespace": "his"}).foresee(ctx)
    assert isinstance(foreseen.outputs, TicketOutputs)
    assert foreseen.made == {"number", "name"}
