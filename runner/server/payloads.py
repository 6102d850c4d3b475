"""What a delivery says, read from each forge's own JSON into events of the language. Nothing in it is trusted."""

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import JsonValue

from pipeline.plan import Trigger, slug
from pipeline.triggers import Event
from runner.server.signatures import FORM, Forge, Headers, payload_of

__all__ = ["Change", "Read", "named_ref", "read", "redacted"]

LONGEST: Final = 1000
_UNFIT: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
"""What neither a terminal nor a database is to be given."""
_PASSWORDS: Final = re.compile(rb'("(?:password|sign)"\s*:\s*)"(?:[^"\\]|\\.)+"?', re.DOTALL)
_ZEROS: Final = re.compile(r"0{40,64}")
_PINGS: Final = frozenset({"ping", "diagnostics:ping"})


@dataclass(frozen=True, slots=True)
class Change:
    """An event of a repository: what it is, and the full name of the ref that has to be looked at for the truth."""

    event: Event
    ref: str = ""
    before: str = ""
    """The commit that the ref stood at before, if it is told."""
    name: str = ""
    """What tells an event that moves no ref from all others; empty: its delivery does."""
    actor: str = ""
    """Of a fork's pull request: who did what is told, be it its author or somebody else who may push there."""
    fork_url: str = ""
    """Of a fork's pull request: where the fork says to lie."""
    chain: tuple[str, ...] = ()
    """Of the end of a run: the pipelines whose ends led to it and itself, each as `project/pipeline`."""


@dataclass(frozen=True, slots=True)
class Read:
    """The events in a delivery; without any, why there is none."""

    changes: Sequence[Change] = ()
    ignored: str = ""


def read(forge: Forge, headers: Headers, body: bytes) -> Read:
    """The events that a genuine delivery tells of; one may hold several, or none."""
    try:
        found: Any = json.loads(payload_of(headers, body).decode())
    except (ValueError, RecursionError) as error:
        return Read(ignored=f"its body is no JSON: {error}"[:200])
    return _READERS[forge](_Node(found), headers)


def redacted(forge: Forge, headers: Headers, body: bytes) -> bytes:
    """The body as it may be kept: Gitee repeats the hook's password in it."""
    if forge != "gitee":
        return body
    payload = payload_of(headers, body)
    clean = _PASSWORDS.sub(rb'\1"****"', payload)
    return clean if payload is body else FORM + urllib.parse.quote_plus(clean).encode()


class _Node:
    """A part of JSON from a stranger: whatever is asked of it, it answers with the type that was asked for."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __truediv__(self, name: str) -> "_Node":
        return _Node(self.value.get(name) if isinstance(self.value, dict) else None)

    @property
    def text(self) -> str:
        if isinstance(self.value, bool) or not isinstance(self.value, str | int):
            return ""
        return _UNFIT.sub(" ", str(self.value))[:LONGEST]

    @property
    def line(self) -> str:
        """The first line of a text."""
        return _Node(self.value.strip().partition("\n")[0] if isinstance(self.value, str) else "").text[:200]

    @property
    def true(self) -> bool:
        return self.value is True

    @property
    def items(self) -> "Iterator[_Node]":
        yield from map(_Node, self.value if isinstance(self.value, list) else ())

    def __bool__(self) -> bool:
        return bool(self.value)


def _push(ref: str, *, after: str, before: str, repo: str, head: _Node, author: str, url: str) -> Read:
    """A push as most forges tell it: of a branch or of a tag."""
    kind, name = named_ref(ref)
    if not kind:
        return Read(ignored=f"it is about {ref or 'no ref'}, which is neither a branch nor a tag")
    if not after or _ZEROS.fullmatch(after):
        return Read(ignored=f"the {kind} {name} was deleted")
    trigger = Trigger(
        kind="push" if kind == "branch" else "tag",
        repo=repo,
        branch=name if kind == "branch" else "",
        tag=name if kind == "tag" else "",
        slug=slug(name),
        commit=(head / "id").text or after,
        title=(head / "message").line,
        author=author,
        url=(head / "url").text or url,
    )
    known = "" if _ZEROS.fullmatch(before) else before
    return Read([Change(Event(trigger, message=(head / "message").text), ref, known)])


def named_ref(ref: str) -> tuple[Literal["branch", "tag", ""], str]:
    """What a full name of a ref names, and how that is called; of anything else no word and itself."""
    if ref.startswith("refs/heads/"):
        return "branch", ref.removeprefix("refs/heads/")
    return ("tag", ref.removeprefix("refs/tags/")) if ref.startswith("refs/tags/") else ("", ref)


def _pull_request(number: str, trigger: Mapping[str, Any], *, head: str, actor: str, fork_url: str) -> Read:
    """A pull request; `head` is what its forge calls the ref that shows a fork's commit, empty if it has none."""
    if not re.fullmatch("[0-9]{1,18}", number):
        return Read(ignored="it is about a pull request without a number")
    made = Trigger(kind="pull_request", number=number, slug=slug(trigger["branch"]), **trigger)
    if not made.fork:
        return Read([Change(Event(made), f"refs/heads/{made.branch}", actor=actor)])
    ref = head.format(number) if head else ""
    return Read([Change(Event(made), ref, actor=actor, fork_url=fork_url)])


def _foreign(theirs: "_Node", ours: "_Node", *names: str) -> bool:
    """Whether a head lies in another repository than its base. In doubt it does: all that is told must agree."""
    told = [((theirs / name).text, (ours / name).text) for name in names]
    return not any(one and one == other for one, other in told) or any(one != other for one, other in told)


# -- the forges ------------------------------------------------------------------------------------

_UPDATED: Final = frozenset({"opened", "open", "reopened", "reopen", "synchronize", "synchronized", "ready_for_review"})


def _github(body: _Node, headers: Headers) -> Read:
    """GitHub, and Gitea with its family, which took its format over."""
    names = ("x-forgejo-event", "x-gitea-event", "x-gogs-event", "x-github-event")
    what = next((headers[name] for name in names if name in headers), "")
    repo, sender = body / "repository", body / "sender"
    if what == "push":
        return _push(
            (body / "ref").text,
            after=(body / "after").text,
            before=(body / "before").text,
            repo=(repo / "clone_url").text,
            head=body / "head_commit",
            author=(body / "pusher" / "login").text or (body / "pusher" / "name").text or (sender / "login").text,
            url=(body / "compare").text or (body / "compare_url").text,
        )
    if what in ("pull_request", "pull_request_sync"):
        return _github_pull(body, repo, sender)
    return Read(ignored=_no_interest(what))


def _github_pull(body: _Node, repo: _Node, sender: _Node) -> Read:
    action, pull, changes = (body / "action").text, body / "pull_request", body / "changes"
    head, base = pull / "head", pull / "base"
    moved = action == "edited" and (changes / "base" or changes / "ref")  # to another base, as GitHub and Gitea say it
    if action not in _UPDATED and not moved:
        return Read(ignored=f"the pull request was {action or 'changed'}, its commits were not")
    return _pull_request(
        (body / "number").text,
        {
            "repo": (repo / "clone_url").text,
            "branch": (head / "ref").text,
            "commit": (head / "sha").text,
            "base": (base / "ref").text,
            "title": (pull / "title").text,
            "author": (pull / "user" / "login").text,
            "url": (pull / "html_url").text,
            "fork": _foreign(head / "repo", base / "repo", "full_name", "id"),
        },
        head="refs/pull/{}/head",
        actor=(sender / "login").text,
        fork_url=(head / "repo" / "clone_url").text,
    )


def _no_interest(what: str) -> str:
    if what in _PINGS:
        return "a ping: the hook works"
    if what in ("create", "delete"):
        return f"{what}: a push tells of it too, or nothing is there any more"
    return f"{what or 'an event without a name'}: nothing starts by it"


def _gitlab(body: _Node, headers: Headers) -> Read:
    what = (body / "object_kind").text or (body / "event_name").text
    project = body / "project"
    repo, author = (project / "git_http_url").text, (body / "user_username").text
    if what in ("push", "tag_push"):
        commits = list((body / "commits").items)
        after = (body / "checkout_sha").text or (body / "after").text
        head = next((each for each in commits if (each / "id").text == after), _Node({"id": after}))
        gone = not (body / "checkout_sha")
        return _push(
            (body / "ref").text,
            after="" if gone else after,
            before=(body / "before").text,
            repo=repo,
            head=head,
            author=author,
            url=(project / "web_url").text,
        )
    if what == "merge_request":
        return _gitlab_merge(body, repo)
    return Read(ignored=_no_interest(what or headers.get("x-gitlab-event", "")))


def _gitlab_merge(body: _Node, repo: str) -> Read:
    merge = body / "object_attributes"
    action = (merge / "action").text
    moved = action == "update" and (merge / "oldrev" or body / "changes" / "target_branch")
    if action not in _UPDATED and not moved:
        return Read(ignored=f"the merge request had '{action}', its commits did not change")
    actor, author = (body / "user" / "username").text, (merge / "author_id").text
    ends = {side: _Node({"id": (merge / f"{side}_project_id").value}) for side in ("source", "target")}
    return _pull_request(
        (merge / "iid").text,
        {
            "repo": repo,
            "branch": (merge / "source_branch").text,
            "commit": (merge / "last_commit" / "id").text,
            "base": (merge / "target_branch").text,
            "title": (merge / "title").text,
            "author": actor if author and author == (body / "user" / "id").text else "",
            "url": (merge / "url").text,
            "fork": _foreign(ends["source"], ends["target"], "id"),
        },
        head="refs/merge-requests/{}/head",
        actor=actor,
        fork_url=(merge / "source" / "git_http_url").text,
    )


def _gitee(body: _Node, headers: Headers) -> Read:
    what = (body / "hook_name").text
    repo = (body / "repository") or (body / "project")
    clone = (repo / "clone_url").text or (repo / "git_http_url").text
    if what in ("push_hooks", "tag_push_hooks"):
        return _push(
            (body / "ref").text,
            after="" if (body / "deleted").true else (body / "after").text,
            before=(body / "before").text,
            repo=clone,
            head=body / "head_commit",
            author=(body / "sender" / "login").text or (body / "user_name").text,
            url=(body / "compare").text,
        )
    if what == "merge_request_hooks":
        return _gitee_pull(body, clone)
    return Read(ignored=_no_interest(what or headers.get("x-gitee-event", "")))


def _gitee_pull(body: _Node, repo: str) -> Read:
    action, pull = (body / "action").text, body / "pull_request"
    if action not in _UPDATED and (body / "action_desc").text not in ("source_branch_changed", "target_branch_changed"):
        return Read(ignored=f"the pull request had '{action}', its commits did not change")
    head, base = pull / "head", pull / "base"
    return _pull_request(
        (body / "number").text or (body / "iid").text,
        {
            "repo": repo,
            "branch": (body / "source_branch").text or (head / "ref").text,
            "commit": (head / "sha").text,
            "base": (body / "target_branch").text or (base / "ref").text,
            "title": (body / "title").text,
            "author": (pull / "user" / "login").text,
            "url": (pull / "html_url").text,
            "fork": _foreign(head / "repo", base / "repo", "full_name", "id"),
        },
        head="refs/pull/{}/head",
        actor=(body / "sender" / "login").text,
        fork_url=(head / "repo" / "clone_url").text,
    )


def _bitbucket(body: _Node, headers: Headers) -> Read:
    what = headers.get("x-event-key", "")
    if what == "repo:push":
        return _joined([_cloud_push(each, body) for each in (body / "push" / "changes").items])
    if what == "repo:refs_changed":
        return _joined([_center_push(each, body) for each in (body / "changes").items])
    if what in ("pullrequest:created", "pullrequest:updated"):
        return _cloud_pull(body)
    if what in ("pr:opened", "pr:from_ref_updated") or (what == "pr:modified" and _retargeted(body)):
        return _center_pull(body)
    return Read(ignored=_no_interest(what))


def _joined(reads: Sequence[Read]) -> Read:
    changes = [change for each in reads for change in each.changes]
    reasons = "; ".join(each.ignored for each in reads if each.ignored)
    return Read(changes, "" if changes else reasons or "it tells of no change")


def _cloud_push(change: _Node, body: _Node) -> Read:
    new, old = change / "new", change / "old"
    told = new or old
    kind = "tags" if (told / "type").text == "tag" else "heads"
    target = new / "target"
    return _push(
        f"refs/{kind}/{(told / 'name').text}",
        after=(target / "hash").text,
        before=(old / "target" / "hash").text,
        repo=_cloud_url(body / "repository"),
        head=_Node({"message": (target / "message").text}),
        author=(body / "actor" / "nickname").text,
        url=(change / "links" / "html" / "href").text,
    )


def _cloud_url(repo: _Node) -> str:
    page = (repo / "links" / "html" / "href").text
    return page or f"https://bitbucket.org/{(repo / 'full_name').text}"


def _cloud_pull(body: _Node) -> Read:
    pull = body / "pullrequest"
    source, target = pull / "source", pull / "destination"
    return _pull_request(
        (pull / "id").text,
        {
            "repo": _cloud_url(body / "repository"),
            "branch": (source / "branch" / "name").text,
            "commit": (source / "commit" / "hash").text,
            "base": (target / "branch" / "name").text,
            "title": (pull / "title").text,
            "author": (pull / "author" / "nickname").text,
            "url": (pull / "links" / "html" / "href").text,
            "fork": _foreign(source / "repository", target / "repository", "full_name", "uuid"),
        },
        head="",
        actor=(body / "actor" / "nickname").text,
        fork_url=_cloud_url(source / "repository"),
    )


def _center_push(change: _Node, body: _Node) -> Read:
    return _push(
        (change / "ref" / "id").text,
        after="" if (change / "type").text == "DELETE" else (change / "toHash").text,
        before=(change / "fromHash").text,
        repo=_center_url(body / "repository"),
        head=_Node({}),
        author=(body / "actor" / "name").text,
        url="",
    )


def _center_url(repo: _Node) -> str:
    links = ((each / "href").text for each in (repo / "links" / "clone").items if (each / "name").text == "http")
    return next(links, "")


def _retargeted(body: _Node) -> bool:
    before, now = body / "previousTarget" / "id", body / "pullRequest" / "toRef" / "id"
    return bool(before) and before.text != now.text


def _center_pull(body: _Node) -> Read:
    pull = body / "pullRequest"
    source, target = pull / "fromRef", pull / "toRef"
    return _pull_request(
        (pull / "id").text,
        {
            "repo": _center_url(target / "repository"),
            "branch": (source / "displayId").text,
            "commit": (source / "latestCommit").text,
            "base": (target / "displayId").text,
            "title": (pull / "title").text,
            "author": (pull / "author" / "user" / "name").text,
            "fork": _foreign(source / "repository", target / "repository", "id"),
        },
        head="refs/pull-requests/{}/from",
        actor=(body / "actor" / "name").text,
        fork_url=_center_url(source / "repository"),
    )


def _generic(body: _Node, headers: Headers) -> Read:
    """Whatever it is, `when:` and `values:` of a `webhook:` trigger read it; secrets in headers are left out."""
    shown = {name: value for name, value in headers.items() if name not in _PRIVATE}
    found: JsonValue = body.value
    return Read([Change(Event(Trigger(kind="webhook"), body=found, headers=shown))])


_PRIVATE: Final = frozenset({"authorization", "cookie", "x-gitlab-token", "x-gitee-token", "proxy-authorization"})

_READERS: Final[Mapping[Forge, Callable[[_Node, Headers], Read]]] = {
    "github": _github,
    "gitea": _github,
    "gitlab": _gitlab,
    "gitee": _gitee,
    "bitbucket": _bitbucket,
    "generic": _generic,
}
