"""What deliveries of every forge say, and that nothing in them can break or mislead the reader."""

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.plan import Trigger, slug
from runner.server.payloads import Change, Read, read, redacted
from runner.server.signatures import FORGES, Forge
from tests.runner.server.test_signatures import recorded

FORM = {"content-type": "application/x-www-form-urlencoded; x"}
GITEA = Path(__file__).parent / "gitea"
REPO = "http://127.0.0.1:13000/ci/app.git"
A, B = "a" * 40, "b" * 40
NONE = "0" * 40


def of_gitea(name: str) -> Read:
    return read("gitea", *recorded(GITEA / f"{name}.headers.json"))


def said(forge: Forge, body: Any, **headers: str) -> Read:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read(forge, named, json.dumps(body).encode())


def only(found: Read) -> Trigger:
    assert found.ignored == ""
    (change,) = found.changes
    return change.event.trigger


# -- recorded --------------------------------------------------------------------------------------


def test_the_first_push_to_an_empty_repository_has_a_commit_and_nothing_before_it() -> None:
    (change,) = of_gitea("02-push").changes
    trigger = change.event.trigger
    assert (trigger.kind, trigger.branch, trigger.repo) == ("push", "main", REPO)
    assert (trigger.commit[:7], trigger.title, trigger.author) == ("c3a3b71", "first commit", "ci")
    assert (change.ref, change.before) == ("refs/heads/main", "")


def test_a_push_tells_what_the_branch_was_before() -> None:
    assert of_gitea("03-push").changes[0].before.startswith("c3a3b71")


def test_an_annotated_tag_stands_for_its_commit() -> None:
    trigger = only(of_gitea("04-push"))
    assert (trigger.kind, trigger.tag, trigger.slug, trigger.commit[:7]) == ("tag", "v1.0.0", "v1.0.0", "d6f6e13")


def test_a_pull_request_tells_both_branches() -> None:
    trigger = only(of_gitea("07-pull_request"))
    assert (trigger.kind, trigger.number, trigger.branch, trigger.base) == ("pull_request", "1", "feature/x", "main")
    assert (trigger.slug, trigger.title, trigger.fork, trigger.commit[:7]) == ("feature-x", "Add x", False, "508e257")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("01-create", "create: a push tells of it too, or nothing is there any more"),
        ("10-delete", "delete: a push tells of it too, or nothing is there any more"),
        ("11-pull_request", "the pull request was closed, its commits were not"),
    ],
)
def test_what_starts_nothing_is_said(name: str, why: str) -> None:
    assert of_gitea(name) == Read(ignored=why)


# -- the others ------------------------------------------------------------------------------------


def test_github() -> None:
    push = {
        "ref": "refs/heads/main",
        "before": A,
        "after": B,
        "repository": {"clone_url": "https://github.com/t/a.git"},
        "head_commit": {"id": B, "message": "one\n\ntwo [skip ci]", "url": "u"},
        "pusher": {"name": "ann"},
    }
    found = said("github", push, x_github_event="push")
    trigger = only(found)
    assert (trigger.title, trigger.author, trigger.url) == ("one", "ann", "u")
    assert "[skip ci]" in found.changes[0].event.message
    gone = {**push, "deleted": True, "after": NONE, "head_commit": None}
    assert said("github", gone, x_github_event="push").ignored == "the branch main was deleted"
    assert said("github", {"zen": "x"}, x_github_event="ping").ignored == "a ping: the hook works"
    form = b"payload=" + json.dumps(push).replace('"', "%22").replace(" ", "+").encode()
    headers = {"x-github-event": "push", "content-type": "application/x-www-form-urlencoded"}
    assert only(read("github", headers, form)).branch == "main"


def test_a_pull_request_of_a_fork_or_of_one_that_is_gone_is_a_forks() -> None:
    ours = {"full_name": "t/a"}
    for theirs, fork in (({"full_name": "t/a"}, False), ({"full_name": "x/a"}, True), (None, True)):
        pull = {"head": {"ref": "x", "sha": A, "repo": theirs}, "base": {"ref": "main", "repo": ours}}
        body = {"action": "synchronize", "number": 3, "pull_request": pull}
        assert only(said("github", body, x_github_event="pull_request")).fork is fork


def test_gitlab() -> None:
    project = {"git_http_url": "https://gl/t/a.git", "web_url": "https://gl/t/a"}
    push = {
        "object_kind": "push",
        "ref": "refs/heads/main",
        "before": A,
        "after": B,
        "checkout_sha": B,
        "user_username": "ann",
        "project": project,
        "commits": [{"id": A, "message": "old"}, {"id": B, "message": "new\n", "url": "u"}],
    }
    trigger = only(said("gitlab", push))
    assert (trigger.commit, trigger.title, trigger.repo, trigger.url) == (B, "new", project["git_http_url"], "u")
    assert said("gitlab", {**push, "checkout_sha": None}).ignored == "the branch main was deleted"
    assert only(said("gitlab", {**push, "object_kind": "tag_push", "ref": "refs/tags/v1"})).tag == "v1"
    merge = {
        "iid": 7,
        "action": "update",
        "oldrev": A,
        "source_branch": "x",
        "target_branch": "main",
        "source_project_id": 1,
        "target_project_id": 2,
        "last_commit": {"id": B, "message": "m"},
        "title": "t",
    }
    found = only(said("gitlab", {"object_kind": "merge_request", "object_attributes": merge, "project": project}))
    assert (found.number, found.commit, found.base, found.fork) == ("7", B, "main", True)
    labels = {"object_kind": "merge_request", "object_attributes": {**merge, "oldrev": None}}
    assert said("gitlab", labels).ignored == "the merge request had 'update', its commits did not change"


def test_gitee_and_its_password_in_the_body() -> None:
    push = {
        "hook_name": "push_hooks",
        "ref": "refs/heads/master",
        "before": A,
        "after": B,
        "password": "hush",
        "sign": "s",
        "repository": {"clone_url": "https://gitee.com/t/a.git"},
        "head_commit": {"id": B, "message": "改"},
        "sender": {"login": "ann"},
    }
    trigger = only(said("gitee", push))
    assert (trigger.branch, trigger.title, trigger.author) == ("master", "改", "ann")
    kept = json.loads(redacted("gitee", {}, json.dumps(push).encode()))
    assert (kept["password"], kept["sign"], kept["ref"]) == ("****", "****", "refs/heads/master")
    form = b"payload=" + urllib.parse.quote_plus(json.dumps(push)).encode()
    shown = redacted("gitee", FORM, form)
    assert only(read("gitee", FORM, shown)).branch == "master"
    assert b"hush" not in shown


@pytest.mark.parametrize(
    "text", ['{"password":"hush","title":"\\ud83d"}', '{"password" : "a\\"hush', '[{"sign":"hush"}]']
)
def test_whatever_gitee_sends_its_password_is_not_kept(text: str) -> None:
    kept = redacted("gitee", {}, text.encode())
    assert b"hush" not in kept
    assert b'"****"' in kept


def test_bitbucket_tells_of_several_changes_at_once() -> None:
    new = {"type": "branch", "name": "main", "target": {"hash": B, "message": "m\n"}}
    tag = {"type": "tag", "name": "v1", "target": {"hash": A}}
    gone = {"new": None, "old": {"type": "branch", "name": "x"}, "closed": True}
    body = {"push": {"changes": [{"new": new, "old": None}, {"new": tag}, gone]}, "repository": {"full_name": "t/a"}}
    found = said("bitbucket", body, x_event_key="repo:push")
    assert [(c.event.trigger.kind, c.event.trigger.commit) for c in found.changes] == [("push", B), ("tag", A)]
    assert found.changes[0].event.trigger.repo == "https://bitbucket.org/t/a"
    only_gone = {"push": {"changes": [gone]}}
    assert said("bitbucket", only_gone, x_event_key="repo:push").ignored == "the branch x was deleted"


def test_bitbucket_data_center() -> None:
    change = {"ref": {"id": "refs/heads/main"}, "fromHash": A, "toHash": B, "type": "UPDATE"}
    repo = {"links": {"clone": [{"name": "ssh", "href": "s"}, {"name": "http", "href": "https://bb/scm/t/a.git"}]}}
    body = {"changes": [change], "repository": repo, "actor": {"name": "ann"}}
    trigger = only(said("bitbucket", body, x_event_key="repo:refs_changed"))
    assert (trigger.commit, trigger.repo, trigger.author) == (B, "https://bb/scm/t/a.git", "ann")


def test_anything_else_is_a_webhook_whose_private_headers_are_left_out() -> None:
    found = said("generic", {"a": [1]}, x_me="y", authorization="Bearer s")
    event = found.changes[0].event
    assert (event.trigger.kind, event.body, dict(event.headers)) == ("webhook", {"a": [1]}, {"x-me": "y"})


# -- strangers -------------------------------------------------------------------------------------


def test_a_name_becomes_one_that_an_image_tag_can_have() -> None:
    assert [slug(name) for name in ("feature/x", "v1.0_a-b", "中/文", "-.x.-", "a" * 200)] == [
        "feature-x", "v1.0_a-b", "", "x", "a" * 128,
    ]  # fmt: skip


def test_control_characters_of_a_title_cannot_reach_a_terminal() -> None:
    body = {"ref": "refs/heads/a", "after": A, "head_commit": {"message": "\x1b[2Jhi\x07"}}
    assert only(said("github", body, x_github_event="push")).title == " [2Jhi "


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["ref", "after", "repository", "head_commit", "pull_request", "action", "push", "changes", "new",
                         "project", "object_kind", "object_attributes", "hook_name", "id", "name"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
EVENTS = st.sampled_from(["push", "pull_request", "repo:push", "repo:refs_changed", "pr:opened", "pullrequest:created"])


@given(st.sampled_from(FORGES), JSON, EVENTS)
def test_no_json_of_a_stranger_breaks_the_reader(forge: Forge, body: Any, what: str) -> None:
    said(forge, body, x_github_event=what, x_event_key=what)


@given(st.sampled_from(FORGES), st.binary(max_size=50))
def test_no_bytes_of_a_stranger_break_the_reader(forge: Forge, body: bytes) -> None:
    read(forge, FORM, body)
    read(forge, {}, body)
    redacted(forge, FORM, body)
    redacted(forge, {}, body)


def test_json_that_is_nested_without_end_is_refused() -> None:
    assert "no JSON" in read("github", {}, b"[" * 100_000).ignored


# -- pull requests of forks ------------------------------------------------------------------------


def pull(forge: Forge, body: Any, **headers: str) -> Change:
    found = said(forge, body, **headers)
    assert found.ignored == ""
    (change,) = found.changes
    assert change.event.trigger.fork is True
    return change


def test_every_forge_tells_where_the_head_of_a_fork_is_and_who_moved_it() -> None:
    theirs = {"full_name": "eve/a", "id": 2, "clone_url": "https://h/eve/a.git"}
    ours = {"full_name": "t/a", "id": 1}
    hub = {"action": "opened", "number": 3, "sender": {"login": "bob"}, "pull_request": {
        "head": {"ref": "x", "sha": A, "repo": theirs}, "base": {"ref": "main", "repo": ours}, "user": {"login": "eve"}}}  # fmt: skip
    gitee = {**hub, "hook_name": "merge_request_hooks", "action": "open"}
    merge = {"iid": 4, "action": "open", "source_branch": "x", "target_branch": "main", "source_project_id": 2, "author_id": 9,
             "target_project_id": 1, "last_commit": {"id": A}, "source": {"git_http_url": theirs["clone_url"]}}  # fmt: skip
    lab = {"object_kind": "merge_request", "object_attributes": merge, "user": {"username": "bob", "id": 8}}
    page = {"links": {"html": {"href": "https://bitbucket.org/eve/a"}}, "full_name": "eve/a", "uuid": "2"}
    cloud = {"actor": {"nickname": "bob"}, "pullrequest": {"id": 5, "author": {"nickname": "eve"},
             "source": {"branch": {"name": "x"}, "commit": {"hash": A[:12]}, "repository": page},
             "destination": {"branch": {"name": "main"}, "repository": {"full_name": "t/a", "uuid": "1"}}}}  # fmt: skip
    clone = {"links": {"clone": [{"name": "http", "href": "https://bb/scm/~eve/a.git"}]}, "id": 2}
    center = {"actor": {"name": "bob"}, "pullRequest": {"id": 6, "author": {"user": {"name": "eve"}},
              "fromRef": {"displayId": "x", "latestCommit": A, "repository": clone},
              "toRef": {"displayId": "main", "repository": {"id": 1}}}}  # fmt: skip
    found = [
        pull("github", hub, x_github_event="pull_request"),
        pull("gitea", hub, x_gitea_event="pull_request_sync"),
        pull("gitee", gitee),
        pull("gitlab", lab),
        pull("bitbucket", cloud, x_event_key="pullrequest:created"),
        pull("bitbucket", center, x_event_key="pr:opened"),
    ]
    assert [(each.ref, each.fork_url) for each in found] == [
        ("refs/pull/3/head", "https://h/eve/a.git"),
        ("refs/pull/3/head", "https://h/eve/a.git"),
        ("refs/pull/3/head", "https://h/eve/a.git"),
        ("refs/merge-requests/4/head", "https://h/eve/a.git"),
        ("", "https://bitbucket.org/eve/a"),
        ("refs/pull-requests/6/from", "https://bb/scm/~eve/a.git"),
    ]
    people = [(each.event.trigger.author, each.actor) for each in found]
    assert people == [("eve", "bob")] * 3 + [("", "bob")] + [("eve", "bob")] * 2, "GitLab names no author but who acts"


MISSING: list[tuple[Forge, dict[str, Any], dict[str, str]]] = [
    ("github", {"action": "opened", "number": 1, "pull_request": {}}, {"x_github_event": "pull_request"}),
    ("gitlab", {"object_kind": "merge_request", "object_attributes": {"action": "open", "iid": 1}}, {}),
    ("gitee", {"hook_name": "merge_request_hooks", "action": "open", "number": 1}, {}),
    ("bitbucket", {"pullrequest": {"id": 1}}, {"x_event_key": "pullrequest:created"}),
    ("bitbucket", {"pullRequest": {"id": 1}}, {"x_event_key": "pr:opened"}),
]


@pytest.mark.parametrize(("forge", "body", "headers"), MISSING)
def test_where_it_is_not_told_whose_a_head_is_it_is_a_strangers(
    forge: Forge, body: dict[str, Any], headers: dict[str, str]
) -> None:
    pull(forge, body, **headers)


RETARGETED: list[tuple[Forge, dict[str, Any], dict[str, str], bool]] = [
    ("github", {"action": "edited", "number": 1, "changes": {"base": {"ref": {"from": "x"}}}}, {"x_github_event": "pull_request"}, True),
    ("github", {"action": "edited", "number": 1, "changes": {"title": {"from": "x"}}}, {"x_github_event": "pull_request"}, False),
    ("gitea", {"action": "edited", "number": 1, "changes": {"ref": {"from": "x"}}}, {"x_gitea_event": "pull_request"}, True),
    ("gitlab", {"object_kind": "merge_request", "changes": {"target_branch": {}}, "object_attributes": {"action": "update", "iid": 1}}, {}, False),
    ("gitlab", {"object_kind": "merge_request", "changes": {"target_branch": {"previous": "x"}}, "object_attributes": {"action": "update", "iid": 1}}, {}, True),
    ("gitee", {"hook_name": "merge_request_hooks", "action": "update", "action_desc": "target_branch_changed", "number": 1}, {}, True),
    ("gitee", {"hook_name": "merge_request_hooks", "action": "update", "action_desc": "update_label", "number": 1}, {}, False),
    ("bitbucket", {"previousTarget": {"id": "refs/heads/x"}, "pullRequest": {"id": 1, "toRef": {"id": "refs/heads/y"}}}, {"x_event_key": "pr:modified"}, True),
    ("bitbucket", {"previousTarget": {"id": "refs/heads/y"}, "pullRequest": {"id": 1, "toRef": {"id": "refs/heads/y"}}}, {"x_event_key": "pr:modified"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("forge", "body", "headers", "taken"), RETARGETED)
def test_a_pull_request_that_gets_another_base_is_taken_anew(
    forge: Forge, body: dict[str, Any], headers: dict[str, str], *, taken: bool
) -> None:
    assert bool(said(forge, body, **headers).changes) is taken


@pytest.mark.parametrize("number", [None, "", "7/../8", "*", "-1", "７", True, {}])
def test_a_pull_request_without_a_number_leads_to_no_ref(number: Any) -> None:
    body = {"action": "opened", "number": number, "pull_request": {}}
    assert said("github", body, x_github_event="pull_request").ignored == "it is about a pull request without a number"
