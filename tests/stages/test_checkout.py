"""`uses: checkout`: which commit comes, where to, and what goes wrong in which words."""

import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.stage import CauseKind, Login, SecretFile, SecretText, StageErrored, StageFailed
from stages.checkout import Checkout
from stages.clients.git import remote
from stages.clients.git.address import parse_url
from stages.clients.git.command import askpass, environment
from stages.clients.git.trouble import trouble
from tests.support.context import FakeContext

PASSWORD = "s3cret-p4ss"


def git(folder: Path, *words: str) -> str:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *words], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, message: str, **files: str) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "--allow-empty", "-qm", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("ignored\n")
    commit(folder, "First", file="1")
    git(folder, "tag", "-a", "v1", "-m", "one")
    git(folder, "branch", "release/1.0")
    commit(folder, "Second\n\nbody", file="2")
    return folder


def checkout(**fields: object) -> Checkout:
    return Checkout.model_validate(fields)


# -- which commit ----------------------------------------------------------------------------------


async def test_without_a_ref_it_takes_the_head_of_the_remote(ctx: FakeContext, repository: Path) -> None:
    outputs = await checkout(url=str(repository)).run(ctx)
    assert outputs.model_dump() == {
        "commit": git(repository, "rev-parse", "main"),
        "branch": "main",
        "tag": "",
        "dirty": False,
        "subject": "Second",
    }
    assert (ctx.workspace / "file").read_text() == "2"
    assert git(ctx.workspace, "rev-list", "--count", "HEAD") == "1"


@pytest.mark.parametrize(
    ("ref", "branch", "tag"),
    [("release/1.0", "release/1.0", ""), ("v1", "", "v1"), ("refs/tags/v1", "", "v1"), ("COMMIT", "", "")],
)
async def test_a_ref_is_a_branch_a_tag_or_a_commit(
    ctx: FakeContext, repository: Path, ref: str, branch: str, tag: str
) -> None:
    first = git(repository, "rev-parse", "v1^{commit}")
    outputs = await checkout(url=str(repository), ref=ref.replace("COMMIT", first)).run(ctx)
    assert (outputs.commit, outputs.branch, outputs.tag) == (first, branch, tag)
    assert git(ctx.workspace, "rev-parse", "HEAD") == first


async def test_depth_0_brings_the_history_and_all_branches_and_tags(ctx: FakeContext, repository: Path) -> None:
    await checkout(url=str(repository), depth=0).run(ctx)
    assert git(ctx.workspace, "rev-list", "--count", "HEAD") == "2"
    assert git(ctx.workspace, "describe", "--tags").startswith("v1-1-g")
    assert git(ctx.workspace, "rev-parse", "origin/release/1.0")


async def test_a_branch_means_the_same_commit_all_through_a_run(ctx: FakeContext, repository: Path) -> None:
    before = await checkout(url=str(repository), ref="main", into="a").run(ctx)
    commit(repository, "Third", file="3")
    after = await checkout(url=str(repository), ref="main", into="b").run(ctx)
    assert before.commit == after.commit
    assert (ctx.workspace / "b" / "file").read_text() == "2"


async def test_a_host_that_gives_no_single_commits_is_asked_for_the_branch(
    ctx: FakeContext, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = git(repository, "rev-parse", "HEAD~1")
    ctx.facts[f"git file://{repository} main"] = {"commit": old, "ref": "refs/heads/main"}
    real, asked = remote.Remote._fetch_once, list[list[str]]()

    async def refusing(self: remote.Remote, options: list[str], refs: list[str], folder: Path) -> tuple[int, list[str]]:
        asked.append([*options, *refs])
        if refs[0] == old:
            return 128, ["error: Server does not allow request for unadvertised object " + old]
        return await real(self, options, refs, folder)

    monkeypatch.setattr(remote.Remote, "_fetch_once", refusing)
    assert (await checkout(url=str(repository), ref="main").run(ctx)).commit == old
    assert asked == [["--depth=1", old], ["refs/heads/main"]]


# -- the run's own source --------------------------------------------------------------------------


async def test_without_a_url_it_takes_the_repository_of_the_pipeline_file(ctx: FakeContext, repository: Path) -> None:
    (repository / "sub").mkdir()
    (repository / "file").write_text("changed")
    ctx.env["PIPE_SOURCE"] = str(repository / "sub")
    outputs = await checkout().run(ctx)
    assert (outputs.branch, (ctx.workspace / "file").read_text()) == ("main", "2")
    assert "that are not committed are not part of this run" in ctx.text


async def test_without_a_url_and_a_repository_it_says_what_to_do(ctx: FakeContext, tmp_path: Path) -> None:
    ctx.env["PIPE_SOURCE"] = str(tmp_path)
    with pytest.raises(StageFailed, match=r"is in no git repository; --source DIR takes a folder as it is"):
        await checkout().run(ctx)


async def test_a_working_tree_is_copied_without_what_git_ignores(ctx: FakeContext, repository: Path) -> None:
    for name in ("file", "new", "ignored"):
        (repository / name).write_text("now")
    (repository / "link").symlink_to("file")
    (repository / ".pipe").mkdir()
    (repository / ".pipe" / "x").touch()
    ctx.env["PIPE_SOURCE_DIR"] = str(repository)
    outputs = await checkout(url="https://git.example/a.git").run(ctx)
    assert outputs.commit == git(repository, "rev-parse", "HEAD") + "-dirty"
    assert (outputs.dirty, outputs.branch) == (True, "main")
    assert sorted(path.name for path in ctx.workspace.iterdir()) == [".gitignore", "file", "link", "new"]
    assert (ctx.workspace / "link").is_symlink()
    await checkout().run(ctx)


async def test_a_folder_without_a_repository_is_copied_as_it_is(ctx: FakeContext, tmp_path: Path) -> None:
    (tmp_path / "plain" / "a").mkdir(parents=True)
    (tmp_path / "plain" / "a" / "b").write_text("x")
    ctx.env["PIPE_SOURCE_DIR"] = str(tmp_path / "plain")
    outputs = await checkout(into="here").run(ctx)
    assert (outputs.commit, outputs.dirty) == ("dirty", True)
    assert (ctx.workspace / "here" / "a" / "b").read_text() == "x"


# -- the folder ------------------------------------------------------------------------------------


async def test_a_second_attempt_finds_the_folder_clean(ctx: FakeContext, repository: Path) -> None:
    stage = checkout(url=str(repository), into="app")
    await stage.run(ctx)
    (ctx.workspace / "app" / "file").write_text("broken")
    (ctx.workspace / "app" / "left").write_text("over")
    (ctx.workspace / "app" / ".git" / "index.lock").touch()
    await stage.run(ctx)
    assert (ctx.workspace / "app" / "file").read_text() == "2"
    assert not (ctx.workspace / "app" / "left").exists()


async def test_somebody_elses_repository_is_left_alone(ctx: FakeContext, repository: Path) -> None:
    git(ctx.workspace, "init", "-q")
    commit(ctx.workspace, "Mine", mine="x")
    with pytest.raises(StageFailed, match="holds a git repository that no checkout made"):
        await checkout(url=str(repository)).run(ctx)
    assert git(ctx.workspace, "log", "--format=%s") == "Mine"


async def test_files_that_were_there_before_are_never_lost(ctx: FakeContext, repository: Path) -> None:
    (ctx.workspace / "mine").write_text("x")
    stage = checkout(url=str(repository))
    await stage.run(ctx)
    await stage.run(ctx)
    assert (ctx.workspace / "mine").read_text() == "x"


async def test_a_file_in_the_way_is_named_and_not_overwritten(ctx: FakeContext, repository: Path) -> None:
    (ctx.workspace / "file").write_text("mine")
    for _ in range(2):
        with pytest.raises(StageFailed, match="would be overwritten") as caught:
            await checkout(url=str(repository)).run(ctx)
        assert "file" in " ".join(caught.value.cause.evidence)
    assert (ctx.workspace / "file").read_text() == "mine"


@pytest.mark.parametrize("into", ["/tmp", "../x", "a/../../x"])
def test_a_folder_outside_of_the_workspace_is_refused(into: str) -> None:
    with pytest.raises(ValidationError, match="it must be a folder in the workspace"):
        checkout(into=into)


async def test_a_link_that_leads_out_of_the_workspace_is_refused(
    ctx: FakeContext, repository: Path, tmp_path: Path
) -> None:
    (ctx.workspace / "link").symlink_to(tmp_path)
    with pytest.raises(StageFailed, match="lies outside of the workspace"):
        await checkout(url=str(repository), into="link/x").run(ctx)


# -- what goes wrong -------------------------------------------------------------------------------


async def test_a_missing_branch_names_those_that_are_near(ctx: FakeContext, repository: Path) -> None:
    with pytest.raises(StageFailed, match=r"git ls-remote .*no branch or tag 'relaese/1\.0'; near: release/1\.0"):
        await checkout(url=str(repository), ref="relaese/1.0").run(ctx)


async def test_an_abbreviated_commit_is_told_to_be_too_short(ctx: FakeContext, repository: Path) -> None:
    with pytest.raises(StageFailed, match="a commit needs all of its 40 digits"):
        await checkout(url=str(repository), ref=git(repository, "rev-parse", "--short", "HEAD")).run(ctx)


async def test_a_commit_that_is_not_there_is_named(ctx: FakeContext, repository: Path) -> None:
    with pytest.raises(StageFailed, match=f"there is no commit {'a' * 40}"):
        await checkout(url=str(repository), ref="a" * 40).run(ctx)


async def test_a_missing_repository_is_named(ctx: FakeContext, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"git ls-remote /.*: there is no repository '/.*/nowhere'"):
        await checkout(url=str(tmp_path / "nowhere")).run(ctx)


async def test_an_empty_repository_is_told(ctx: FakeContext, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "empty")
    with pytest.raises(StageFailed, match="the repository is empty"):
        await checkout(url=str(tmp_path / "empty")).run(ctx)


async def test_a_host_that_refuses_connections_is_named_at_once(ctx: FakeContext) -> None:
    with pytest.raises(StageErrored, match=r"git ls-remote 127\.0\.0\.1:1: it does not answer: Failed to connect"):
        await checkout(url="http://127.0.0.1:1/a.git").run(ctx)


async def test_a_host_that_never_answers_has_a_limit(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LOOKUP_LIMIT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(StageErrored, match=f"git ls-remote 127.0.0.1:{port}: it does not answer: nothing heard"):
            await checkout(url=f"http://127.0.0.1:{port}/a.git").run(ctx)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("lines", "secret", "error", "message"),
    [
        (["fatal: Authentication failed for 'http://h/a/'"], "git", StageFailed, "the login of the secret 'git' was refused"),
        (["fatal: unable to access 'http://h/a/': The requested URL returned error: 403"], "git", StageFailed, "refused"),
        (["error: unable to read askpass response from '/x'", "fatal: could not read Username for 'http://h': terminal prompts disabled"], "", StageFailed, "it wants a login: declare one"),
        (["fatal: could not read Username for 'http://other': terminal prompts disabled"], "git", StageFailed, "another host"),
        (["remote: Not Found", "fatal: repository 'http://h/a/' not found"], "git", StageFailed, "there is no repository 'a'"),
        (["fatal: unable to access 'http://h/a/': Could not resolve host: h"], "", StageErrored, "no host has the name 'h'"),
        (["fatal: unable to access 'http://h/a/': The requested URL returned error: 503"], "", StageErrored, "it does not answer: The requested URL returned error: 503"),
        (["git@h: Permission denied (publickey).", "fatal: Could not read from remote repository."], "key", StageFailed, "the ssh key of the secret 'key' was refused"),
        (["Host key verification failed.", "fatal: Could not read from remote repository."], "key", StageFailed, "another key"),
        (["fatal: unable to access 'https://h/a/': SSL certificate problem: self-signed certificate"], "", StageFailed, "GIT_SSL_CAINFO"),
        (["fatal: something new"], "", StageErrored, "fatal: something new"),
        ([], "", StageErrored, "it did not say why"),
    ],
)  # fmt: skip
def test_what_git_says_is_put_in_words(lines: list[str], secret: str, error: type[Exception], message: str) -> None:
    found = trouble("fetch", parse_url("http://h/a"), lines, secret)
    assert type(found) is error
    assert str(found).startswith("git fetch h: ")
    assert message in str(found)


def test_a_url_that_is_none_is_refused_in_the_plan() -> None:
    with pytest.raises(ValidationError, match="a login stands in the URL"):
        checkout(url=f"https://joe:{PASSWORD}@git.example/a.git")
    checkout(url="${params.base}/a.git")
    checkout(url="<unset>/a.git")


async def test_a_ref_that_git_would_take_for_an_option_is_refused(ctx: FakeContext, repository: Path) -> None:
    with pytest.raises(StageFailed, match="is no name that a branch") as caught:
        await checkout(url=str(repository), ref="--upload-pack=touch x").run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG
    assert ctx.runs == []


# -- how git is run --------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SecretText(PASSWORD), Login("joe", PASSWORD)])
async def test_a_password_is_in_no_argument_and_in_no_file(
    tmp_path: Path, repository: Path, secret: SecretText | Login
) -> None:
    ctx = FakeContext(tmp_path, secrets={"git": secret})
    await checkout(url=str(repository), secret="git").run(ctx)
    assert ctx.runs
    assert not any(PASSWORD in word for run in ctx.runs for word in run.argv)
    for path in [*ctx.workspace.rglob("*"), *ctx.cache.rglob("*")]:
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path
    assert PASSWORD not in ctx.text


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Username for 'https://h:1': ", "joe"),
        ("Password for 'https://joe@h:1': ", PASSWORD),
        ("Username for 'http://h:1': ", None),
        ("Username for 'https://h:12': ", None),
        ("Password for 'https://joe@evil': ", None),
        ("Password for 'https://joe@evil/h:1': ", None),
        ("Enter passphrase for key '/x': ", None),
    ],
)
def test_a_login_is_given_to_its_own_host_alone(tmp_path: Path, prompt: str, answer: str | None) -> None:
    program = askpass(tmp_path)
    env = environment(parse_url("https://h:1/a.git"), Login("joe", PASSWORD), program)
    done = subprocess.run([program, prompt], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ((f"{answer}\n", 0) if answer else ("", 1))


async def test_git_runs_without_hooks_prompts_and_the_hosts_own_settings(ctx: FakeContext, repository: Path) -> None:
    ctx.env |= {"GIT_DIR": "/nowhere", "GIT_TRACE_CURL": "1", "GIT_SSH_COMMAND": "false"}
    await checkout(url=str(repository), ref="main").run(ctx)
    for run in ctx.runs:
        line = " ".join(run.argv)
        assert "-u GIT_DIR" in line
        assert "-u GIT_TRACE_CURL" in line
        assert "-c core.hooksPath=/dev/null" in line
        assert "-c protocol.ext.allow=never" in line
        assert (run.env["GIT_TERMINAL_PROMPT"], run.env["GIT_ALLOW_PROTOCOL"]) == ("0", "file:https:ssh")
        assert run.env["GIT_CONFIG_GLOBAL"] == "/dev/null"
    fetched = next(run.argv for run in ctx.runs if "fetch" in run.argv)
    assert fetched[fetched.index("--end-of-options") + 1] == f"file://{repository}"
    looked_up = next(run.argv for run in ctx.runs if "ls-remote" in run.argv)
    assert "refs/heads/main" in looked_up


async def test_an_ssh_key_is_used_alone_and_asks_nothing(tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path, secrets={"key": SecretFile(tmp_path / "a key")})
    environment = await remote.Remote(ctx, parse_url("git@git.example:a.git"), "key")._make_environment()
    command = environment["GIT_SSH_COMMAND"]
    assert f"-i '{tmp_path}/a key' -o IdentitiesOnly=yes" in command
    assert "BatchMode=yes" in command
    assert "StrictHostKeyChecking=accept-new" in command


async def test_hooks_of_a_repository_do_not_run(ctx: FakeContext, repository: Path, tmp_path: Path) -> None:
    stage = checkout(url=str(repository))
    await stage.run(ctx)
    hook = ctx.workspace / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    await stage.run(ctx)
    assert not (tmp_path / "ran").exists()


async def test_progress_is_told_and_not_logged(ctx: FakeContext, repository: Path) -> None:
    commit(repository, "Many", **{f"f{number}": "x" * number for number in range(200)})
    await checkout(url=str(repository)).run(ctx)
    assert any(text.startswith("receiving objects") or "objects" in text for text, _ in ctx.progressed)
    assert "%" not in ctx.text


async def test_submodules_come_when_asked_for(ctx: FakeContext, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    git(tmp_path / "part", "init", "-q", "-b", "main")
    commit(tmp_path / "part", "Part", part="p")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{tmp_path}/part", "part")
    commit(repository, "With a part")
    await checkout(url=str(repository), into="without").run(ctx)
    await checkout(url=str(repository), into="with", submodules=True).run(ctx)
    assert not (ctx.workspace / "without" / "part" / "part").exists()
    assert (ctx.workspace / "with" / "part" / "part").read_text() == "p"


@pytest.mark.parametrize(
    "address", ["file://{}/part", "ext::sh -c touch% pwned", "ssh://git@127.0.0.1:1/part", "-u./x"]
)
async def test_submodules_of_a_stranger_lead_to_what_anybody_may_read_alone(
    ctx: FakeContext, repository: Path, tmp_path: Path, address: str
) -> None:
    (tmp_path / "part").mkdir()
    git(tmp_path / "part", "init", "-q", "-b", "main")
    commit(tmp_path / "part", "Part", part="p")
    git(repository, "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{tmp_path}/part", "part")
    (repository / ".gitmodules").write_text(f'[submodule "part"]\n\tpath = part\n\turl = {address.format(tmp_path)}\n')
    commit(repository, "With a part from elsewhere")
    ctx.env["PIPE_SOURCE_STRANGE"] = "1"
    with pytest.raises(StageErrored) as caught:
        await checkout(url=str(repository), submodules=True).run(ctx)
    assert re.search("transport '.*' not allowed|disallowed submodule url", "\n".join(caught.value.cause.evidence))
    assert not (ctx.workspace / "part" / "part").exists()
    assert not list(tmp_path.rglob("pwned"))


# -- a pull request of a fork ----------------------------------------------------------------------


def forked(repository: Path, tmp_path: Path) -> tuple[Path, str]:
    """A bare base that shows a stranger's commit as a pull request alone, and that commit."""
    bare = tmp_path / "base.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    git(repository, "checkout", "-q", "-b", "topic")
    head = commit(repository, "Theirs", file="theirs")
    git(repository, "push", "-q", str(bare), f"{head}:refs/pull/7/head")
    return bare, head


async def test_the_commit_of_a_pull_request_is_found_by_the_ref_that_leads_to_it(
    ctx: FakeContext, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, head = forked(repository, tmp_path)
    ctx.env |= {"PIPE_SOURCE": bare.as_uri(), "PIPE_SOURCE_REF": "", "PIPE_SOURCE_COMMIT": head}
    ctx.env |= {"PIPE_SOURCE_HEAD": "refs/pull/7/head", "PIPE_SOURCE_STRANGE": "1"}
    asked: list[list[str]] = []

    async def refuse_single_commits(self: remote.Remote, options: object, refs: list[str], folder: Path) -> object:
        asked.append(list(refs))
        if refs == [head]:
            return 128, ["error: Server does not allow request for unadvertised object"]
        return await fetch(self, options, refs, folder)  # type: ignore[arg-type]

    fetch = remote.Remote._fetch_once
    monkeypatch.setattr(remote.Remote, "_fetch_once", refuse_single_commits)
    outputs = await checkout().run(ctx)
    assert (outputs.commit, outputs.branch, (ctx.workspace / "file").read_text()) == (head, "", "theirs")
    assert asked == [[head], ["refs/pull/7/head"]]


async def test_the_commit_of_a_fork_that_its_base_does_not_show_comes_from_the_fork(
    ctx: FakeContext, repository: Path, tmp_path: Path
) -> None:
    bare, head = forked(repository, tmp_path)
    git(bare, "update-ref", "-d", "refs/pull/7/head")
    ctx.env |= {"PIPE_SOURCE": "https://git.example/base.git", "PIPE_SOURCE_REF": "", "PIPE_SOURCE_COMMIT": head}
    ctx.env |= {"PIPE_SOURCE_FROM": repository.as_uri(), "PIPE_SOURCE_HEAD": "refs/heads/topic"}
    outputs = await checkout(url="https://git.example/base", into="a").run(ctx)
    assert (outputs.commit, outputs.branch) == (head, "topic")
    other = await checkout(url=bare.as_uri(), into="b").run(ctx)
    assert other.branch == "main", "what is not the event's own repository comes from where it says"
