"""What CI hosts say about a run: each in its own words, and none of them is trusted."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.plan import Trigger
from runner.ci import Said, said
from tests.support.program import host, pipe

COMMIT = "c0ffee" + "0" * 34

JENKINS = {"JENKINS_URL": "https://ci.example/", "BUILD_NUMBER": "12", "BUILD_URL": "https://ci.example/job/shop/12/"}
GITLAB = {
    "GITLAB_CI": "true",
    "CI": "true",
    "CI_PIPELINE_IID": "34",
    "CI_PIPELINE_SOURCE": "push",
    "CI_JOB_URL": "https://git.example/a/shop/-/jobs/9",
    "CI_PROJECT_URL": "https://git.example/a/shop",
    "CI_COMMIT_SHA": COMMIT,
    "CI_COMMIT_TITLE": "mend it",
    "CI_COMMIT_AUTHOR": "Ann <ann@example.com>",
}
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "CI": "true",
    "GITHUB_RUN_NUMBER": "56",
    "GITHUB_RUN_ID": "9988",
    "GITHUB_SERVER_URL": "https://github.example",
    "GITHUB_REPOSITORY": "ann/shop",
    "GITHUB_SHA": COMMIT,
    "GITHUB_ACTOR": "ann",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_REF_TYPE": "branch",
    "GITHUB_REF_NAME": "feature/x",
}


def told(folder: Path, *variables: Mapping[str, str]) -> Said:
    found = said({name: value for each in variables for name, value in each.items()}, folder)
    assert found
    return found


def test_a_terminal_is_no_ci_host(tmp_path: Path) -> None:
    assert said({"PATH": "/bin"}, tmp_path) is None


def test_a_build_of_a_branch_in_jenkins(tmp_path: Path) -> None:
    found = told(
        tmp_path, JENKINS, {"BRANCH_NAME": "feature/x", "GIT_COMMIT": COMMIT, "GIT_URL": "git@git.example:a/shop.git"}
    )
    trigger = Trigger(
        kind="push", branch="feature/x", slug="feature-x", commit=COMMIT, repo="git@git.example:a/shop.git"
    )
    assert found == Said("jenkins", 12, "https://ci.example/job/shop/12/", trigger)


def test_a_change_request_in_jenkins_is_that_of_a_fork_if_jenkins_names_one(tmp_path: Path) -> None:
    change = {
        "BRANCH_NAME": "PR-7",
        "CHANGE_ID": "7",
        "CHANGE_BRANCH": "mend",
        "CHANGE_TARGET": "main",
        "CHANGE_TITLE": "Mend it",
        "CHANGE_AUTHOR": "bob",
        "CHANGE_URL": "https://git.example/a/shop/pull/7",
    }
    ours = told(tmp_path, JENKINS, change).trigger
    assert (ours.kind, ours.number, ours.branch, ours.base, ours.title, ours.author, ours.fork) == (
        "pull_request", "7", "mend", "main", "Mend it", "bob", False,
    )  # fmt: skip
    assert told(tmp_path, JENKINS, change, {"CHANGE_FORK": "bob/shop"}).trigger.fork


@pytest.mark.parametrize(
    ("variables", "kind", "name"),
    [
        ({"TAG_NAME": "v1", "BRANCH_NAME": "v1"}, "tag", "v1"),
        ({"GIT_BRANCH": "origin/main"}, "manual", "main"),
        ({"BRANCH_NAME": "main", "BUILD_CAUSE": "TIMERTRIGGER"}, "cron", "main"),
    ],
)
def test_other_builds_in_jenkins(tmp_path: Path, variables: dict[str, str], kind: str, name: str) -> None:
    found = told(tmp_path, JENKINS, variables).trigger
    assert (found.kind, found.tag or found.branch) == (kind, name)


def test_jenkins_without_a_root_url_is_found_by_its_cookie(tmp_path: Path) -> None:
    assert told(tmp_path, {"CI": "true", "JENKINS_NODE_COOKIE": "x"}).host == "jenkins"


def test_a_pipeline_of_gitlab(tmp_path: Path) -> None:
    found = told(
        tmp_path, GITLAB, {"CI_COMMIT_BRANCH": "main", "CI_REPOSITORY_URL": "https://x:token@git.example/a/shop"}
    )
    trigger = Trigger(
        kind="push", branch="main", slug="main", commit=COMMIT, repo="https://git.example/a/shop",
        title="mend it", author="Ann <ann@example.com>",
    )  # fmt: skip
    assert found == Said("gitlab", 34, "https://git.example/a/shop/-/jobs/9", trigger)
    assert told(tmp_path, GITLAB, {"CI_COMMIT_TAG": "v1"}).trigger.kind == "tag"
    assert told(tmp_path, GITLAB, {"CI_PIPELINE_SOURCE": "schedule", "CI_COMMIT_BRANCH": "main"}).trigger.kind == "cron"


def test_a_merge_request_of_gitlab_is_that_of_a_fork_unless_both_projects_are_one(tmp_path: Path) -> None:
    request = {
        "CI_PIPELINE_SOURCE": "merge_request_event",
        "CI_MERGE_REQUEST_IID": "3",
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "mend",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "CI_MERGE_REQUEST_PROJECT_URL": "https://git.example/a/shop",
        "CI_MERGE_REQUEST_PROJECT_ID": "5",
        "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "5",
    }
    ours = told(tmp_path, GITLAB, request).trigger
    assert (ours.kind, ours.url, ours.fork) == ("pull_request", "https://git.example/a/shop/-/merge_requests/3", False)
    assert told(tmp_path, GITLAB, request, {"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "6"}).trigger.fork


def test_a_run_of_github_and_of_gitea(tmp_path: Path) -> None:
    trigger = Trigger(
        kind="push",
        branch="feature/x",
        slug="feature-x",
        commit=COMMIT,
        repo="https://github.example/ann/shop",
        author="ann",
    )
    assert told(tmp_path, GITHUB) == Said("github", 56, "https://github.example/ann/shop/actions/runs/9988", trigger)
    gitea = told(tmp_path, GITHUB, {"GITEA_ACTIONS": "true"})
    assert (gitea.host, gitea.url) == ("gitea", "https://github.example/ann/shop/actions/runs/56")
    assert told(tmp_path, GITHUB, {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1"}).trigger.tag == "v1"


@pytest.mark.parametrize(
    ("head", "fork"),
    [({"repo": {"full_name": "ann/shop"}}, False), ({"repo": {"full_name": "bob/shop"}}, True), ({"repo": None}, True)],
)
def test_a_pull_request_of_github_is_that_of_a_fork_unless_its_event_says_that_it_is_not(
    tmp_path: Path, head: object, *, fork: bool
) -> None:
    event = tmp_path / "event.json"
    event.write_text(
        json.dumps(
            {
                "pull_request": {
                    "number": 8,
                    "title": "a\n::set-output name=x::y",
                    "user": {"login": "bob"},
                    "head": head,
                }
            }
        )
    )
    request = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_HEAD_REF": "mend", "GITHUB_BASE_REF": "main"}
    found = told(tmp_path, GITHUB, request, {"GITHUB_EVENT_PATH": str(event)}).trigger
    assert (found.number, found.branch, found.base, found.author, found.fork) == ("8", "mend", "main", "bob", fork)
    assert found.title == "a ::set-output name=x::y"
    assert found.url == "https://github.example/ann/shop/pull/8"
    assert told(tmp_path, GITHUB, request, {"GITHUB_EVENT_PATH": "/nope"}).trigger.fork


def test_any_other_ci_host_says_no_more_than_what_is_checked_out(tmp_path: Path) -> None:
    assert told(tmp_path, {"CI": "true"}) == Said("ci")
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert told(tmp_path, {"CI": "true"}).trigger.commit == head.strip()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("BRANCH_NAME", name)
            for name in ("a b", "a..b", "a\nb", "a~1", "a@{1}", "/a", "a.lock", ".a", "a\\b", "a" * 300)
        ),
        *(("GIT_COMMIT", commit) for commit in ("main", "c0ffee", "C" * 40, COMMIT + "\n", "--upload-pack=x")),
        *(("BUILD_NUMBER", number) for number in ("x", "-1", "１２", "²", "9" * 30)),
        *(("BUILD_URL", url) for url in ("javascript:alert(1)", "https://a b", 'https://a/"><script>', "https:///x")),
        *(("GIT_URL", url) for url in ("ext::sh -c x", "--upload-pack=x y", "file;rm")),
    ],
)
def test_a_value_that_is_not_what_it_is_said_to_be_is_left_out_and_told(tmp_path: Path, name: str, value: str) -> None:
    found = told(tmp_path, JENKINS, {name: value})
    assert [note.partition(" ")[0] for note in found.refused] == [name]
    taken = (found.trigger.branch, found.trigger.commit, found.trigger.repo, found.url, str(found.number))
    assert value not in taken


def test_texts_of_strangers_are_one_short_line_that_hides_nothing(tmp_path: Path) -> None:
    title = "\x1b]0;owned\x07 a\r\nb \u202egnp.exe\u2066\udcff " + "x" * 5000
    found = told(tmp_path, JENKINS, {"CHANGE_ID": "1", "CHANGE_TITLE": title}).trigger.title
    assert found.startswith("]0;owned a b gnp.exe x")
    assert len(found) == 200


def test_a_login_in_a_url_is_not_kept(tmp_path: Path) -> None:
    found = told(
        tmp_path,
        JENKINS,
        {"GIT_URL": "https://ann:s3cret@git.example/shop.git", "BUILD_URL": "https://u:p@ci.example/1/"},
    )
    assert (found.trigger.repo, found.url) == ("https://git.example/shop.git", "https://ci.example/1/")


FILE = """name: demo
stages:
  one:
    env: {T: "${trigger.title}", U: "${run.url}"}
    run: printf '%s|%s|%s' "$T" "$U" "$BRANCH_NAME"
"""


def test_the_run_records_what_its_host_said_and_show_tells_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(FILE)
    said_so = {
        **JENKINS,
        "CHANGE_ID": "7",
        "CHANGE_TITLE": "$(touch owned); `touch owned`",
        "CHANGE_BRANCH": "x;touch$IFS-owned",
        "CHANGE_TARGET": "main",
        "CHANGE_AUTHOR": "bob",
        "GIT_COMMIT": COMMIT,
        "BUILD_CAUSE": "x",
    }
    done = pipe(tmp_path, "run", "p.yaml", env=host(**said_so))
    assert done.returncode == 0, done.stderr
    assert "[one] $(touch owned); `touch owned`|https://ci.example/job/shop/12/|x;touch$IFS-owned" in done.stdout
    assert not list(tmp_path.glob("*owned*"))
    shown = pipe(tmp_path, "show", "demo#12").stdout
    assert "branch x;touch$IFS-owned onto main, commit c0ffee000000" in shown
    assert "change request 7, $(touch owned); `touch owned`, by bob" in shown
    assert "https://ci.example/job/shop/12/" in shown
    facts = json.loads(pipe(tmp_path, "show", "demo#12", "--json").stdout)
    assert (facts["url"], facts["trigger"]["number"]) == ("https://ci.example/job/shop/12/", "7")


def test_the_change_request_of_a_fork_gets_no_secrets_in_a_ci_host_either(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: demo\nsecrets: {k: text}\nstages: {one: {run: 'echo $K', secrets: {K: k}}}\n"
    )
    fork = {**JENKINS, "CHANGE_ID": "7", "CHANGE_FORK": "bob", "PIPE_SECRET_K": "correct-horse"}
    done = pipe(tmp_path, "run", "p.yaml", env=host(**fork))
    assert "not in the run of a fork: it gets no secrets" in done.stdout


def test_what_was_not_taken_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("name: demo\nstages: {one: {run: 'true'}}\n")
    done = pipe(tmp_path, "run", "p.yaml", env=host(**JENKINS, BRANCH_NAME="a b"))
    assert (done.returncode, done.stderr) == (0, "pipe: BRANCH_NAME is left out: its value is no ref\n")
