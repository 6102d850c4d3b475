"""What a CI host says about the run, in its variables: Jenkins, GitLab, GitHub, Gitea and others.

Nothing in it is trusted: whoever opens a change request chooses its title, its author's name and the names of its
branches. Each value has to look like what it is said to be, or it is left out and that is told; none of them is ever
put into a script.

Sources: CoreEnvironmentContributor of Jenkins, BranchNameContributor of branch-api; GitLab, "Predefined CI/CD
variables"; GitHub, "Variables reference", whose names Gitea and Forgejo took over; git-check-ref-format(1).
"""

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.plan import Trigger, slug

__all__ = ["Said", "host_of", "said"]

Kind = Literal["manual", "push", "tag", "pull_request", "cron", "pipeline", "webhook"]

LONGEST_TEXT = 200
LONGEST_EVENT = 4 << 20
"""Bytes of the largest file that tells of an event which is read."""

_UNFIT = re.compile("[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]+")
"""Controls, what turns the direction of writing or cannot be seen, and bytes that were no text."""
_NO_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]|\.\.|@\{|//|^/|/$|\.$|^@$|(^|/)\.|\.lock(/|$)")
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_NUMBER = re.compile("[0-9]{1,18}")
_PAGE = re.compile(r"(https?://)(?:[^\s/@?#]*@)?([^\s/@?#\"'<>\\]+[^\s\"'<>\\]*)", re.IGNORECASE | re.ASCII)
_REPOSITORY = re.compile(r"(?:ssh://|git://)?[\w.-]+@?[\w.-]*:?[\w./~+-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Said:
    """What a host says of the run: its number if the host counts, the page where it is shown, and why it exists."""

    host: str
    number: int | None = None
    url: str = ""
    trigger: Trigger = field(default_factory=Trigger)
    refused: tuple[str, ...] = ()
    """What was left out, and why; the values themselves are not repeated."""


def said(environ: Mapping[str, str], folder: Path) -> Said | None:
    """What the CI host that these variables belong to says of a run in this folder; None where there is none."""
    host = host_of(environ)
    if not host:
        return None
    told = _Told(environ)
    number, url, trigger = _HOSTS[host][1](told)
    trigger["commit"] = trigger.get("commit") or _checked_out(folder)
    trigger["slug"] = slug(trigger.get("branch") or trigger.get("tag") or "")
    return Said(host, int(number) if number else None, url, Trigger(**trigger), tuple(told.refused))


def host_of(environ: Mapping[str, str]) -> str:
    """The name of the CI host that these variables belong to; empty where there is none."""
    return next((host for host, (here, _) in _HOSTS.items() if any(map(environ.get, here))), "")


class _Told:
    """The variables of a host, each asked for as what it ought to be; what does not look like that is empty."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.refused: list[str] = []

    def raw(self, name: str) -> str:
        return self._environ.get(name, "")

    def text(self, *names: str) -> str:
        """The first that is set, as one line."""
        return fit(next(filter(None, map(self.raw, names)), ""))

    def ref(self, name: str, *, without: str = "") -> str:
        """The short name of a branch or tag, as git would take it."""
        value = self.raw(name).removeprefix(without)
        return self._checked(name, value, len(value) <= LONGEST_TEXT and not _NO_REF.search(value), "ref")

    def commit(self, name: str) -> str:
        value = self.raw(name)
        return self._checked(name, value, bool(_COMMIT.fullmatch(value)), "commit")

    def number(self, name: str) -> str:
        value = self.raw(name)
        return self._checked(name, value, bool(_NUMBER.fullmatch(value)), "number")

    def page(self, name: str, after: str = "") -> str:
        """A URL for people, without a login in it; with `after` of something below it."""
        found = _PAGE.fullmatch(value := self.raw(name))
        self._checked(name, value, bool(found), "http or https URL")
        return found[1] + found[2].rstrip("/" if after else "") + after if found else ""

    def repository(self, name: str) -> str:
        """A URL that git takes; a login in one over http is left out."""
        value = self.raw(name)
        if value.lower().startswith("http"):
            return self.page(name)
        return self._checked(name, value, bool(_REPOSITORY.fullmatch(value)), "URL of a repository")

    def _checked(self, name: str, value: str, good: bool, what: str) -> str:  # noqa: FBT001
        if value and not good:
            self.refused.append(f"{name} is left out: its value is no {what}")
        return value if good else ""


def fit(text: str) -> str:
    """A text of a stranger as one line that hides nothing and is not long."""
    return _UNFIT.sub(" ", text[: 4 * LONGEST_TEXT]).strip()[:LONGEST_TEXT]


Read = tuple[str, str, dict[str, Any]]
"""Number, page and the fields of the trigger."""


# -- Jenkins ---------------------------------------------------------------------------------------

_JENKINS_CAUSES: Final[Mapping[str, Kind]] = {
    "MANUALTRIGGER": "manual",
    "SCMTRIGGER": "push",
    "TIMERTRIGGER": "cron",
    "UPSTREAMTRIGGER": "pipeline",
    "REMOTETRIGGER": "webhook",
}


def _jenkins(told: _Told) -> Read:
    """A build. Who started it Jenkins does not say: that of a branch counts as a push unless BUILD_CAUSE is set."""
    trigger: dict[str, Any] = {"repo": told.repository("GIT_URL"), "commit": told.commit("GIT_COMMIT")}
    if number := told.number("CHANGE_ID"):
        trigger |= {
            "kind": "pull_request",
            "number": number,
            "branch": told.ref("CHANGE_BRANCH"),
            "base": told.ref("CHANGE_TARGET"),
            "title": told.text("CHANGE_TITLE"),
            "author": told.text("CHANGE_AUTHOR_DISPLAY_NAME", "CHANGE_AUTHOR"),
            "url": told.page("CHANGE_URL"),
            "fork": bool(told.raw("CHANGE_FORK")),
        }
    elif told.raw("TAG_NAME"):
        trigger |= {"kind": "tag", "tag": told.ref("TAG_NAME")}
    else:
        branch = told.ref("BRANCH_NAME")
        cause = _JENKINS_CAUSES.get(told.raw("BUILD_CAUSE"), "push" if branch else "manual")
        trigger |= {"kind": cause, "branch": branch or told.ref("GIT_BRANCH", without="origin/")}
    return told.number("BUILD_NUMBER"), told.page("BUILD_URL"), trigger


# -- GitLab ----------------------------------------------------------------------------------------

_GITLAB_SOURCES: Final[Mapping[str, Kind]] = {
    "push": "push",
    "schedule": "cron",
    "pipeline": "pipeline",
    "parent_pipeline": "pipeline",
    "trigger": "webhook",
    "api": "webhook",
}


def _gitlab(told: _Told) -> Read:
    trigger: dict[str, Any] = {
        "kind": _GITLAB_SOURCES.get(told.raw("CI_PIPELINE_SOURCE"), "manual"),
        "repo": told.page("CI_PROJECT_URL"),  # CI_REPOSITORY_URL holds the password of the run
        "commit": told.commit("CI_COMMIT_SHA"),
        "title": told.text("CI_COMMIT_TITLE"),
        "author": told.text("CI_COMMIT_AUTHOR", "GITLAB_USER_NAME"),
    }
    if number := told.number("CI_MERGE_REQUEST_IID"):
        here, theirs = told.raw("CI_MERGE_REQUEST_PROJECT_ID"), told.raw("CI_MERGE_REQUEST_SOURCE_PROJECT_ID")
        trigger |= {
            "kind": "pull_request",
            "number": number,
            "branch": told.ref("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"),
            "base": told.ref("CI_MERGE_REQUEST_TARGET_BRANCH_NAME"),
            "title": told.text("CI_MERGE_REQUEST_TITLE"),
            "url": told.page("CI_MERGE_REQUEST_PROJECT_URL", f"/-/merge_requests/{number}"),
            "fork": here != theirs,
        }
    elif told.raw("CI_COMMIT_TAG"):
        trigger["tag"] = told.ref("CI_COMMIT_TAG")
        trigger["kind"] = "tag" if trigger["kind"] == "push" else trigger["kind"]
    else:
        trigger["branch"] = told.ref("CI_COMMIT_BRANCH")
    page = told.page("CI_JOB_URL") or told.page("CI_PIPELINE_URL")
    return told.number("CI_PIPELINE_IID"), page, trigger


# -- GitHub, and Gitea and Forgejo, which speak as it does --------------------------------------------

_GITHUB_EVENTS: Final[Mapping[str, Kind]] = {
    "push": "push",
    "schedule": "cron",
    "workflow_run": "pipeline",
    "workflow_call": "pipeline",
    "repository_dispatch": "webhook",
}


def _github(told: _Told) -> Read:
    """A run of Actions; the event's own file is read for what no variable says: title, author, whose commit it is."""
    kind: Kind = _GITHUB_EVENTS.get(told.raw("GITHUB_EVENT_NAME"), "manual")
    repo = told.page("GITHUB_SERVER_URL", "/" + fit(told.raw("GITHUB_REPOSITORY")))
    trigger: dict[str, Any] = {
        "kind": kind,
        "repo": repo,
        "commit": told.commit("GITHUB_SHA"),
        "author": told.text("GITHUB_ACTOR"),
    }
    if told.raw("GITHUB_EVENT_NAME") in ("pull_request", "pull_request_target"):
        trigger |= _github_request(told, repo)
    elif told.raw("GITHUB_REF_TYPE") == "tag":
        trigger |= {"kind": "tag" if kind == "push" else kind, "tag": told.ref("GITHUB_REF_NAME")}
    else:
        trigger["branch"] = told.ref("GITHUB_REF_NAME")
    page = told.page("GITHUB_SERVER_URL", f"/{fit(told.raw('GITHUB_REPOSITORY'))}/actions/runs/{_github_run(told)}")
    return told.number("GITHUB_RUN_NUMBER"), page, trigger


def _github_run(told: _Told) -> str:
    """What a run's page is called by: Gitea's by its number."""
    return told.number("GITHUB_RUN_NUMBER" if told.raw("GITEA_ACTIONS") else "GITHUB_RUN_ID")


def _github_request(told: _Told, repo: str) -> dict[str, Any]:
    request = _child(_event(told.raw("GITHUB_EVENT_PATH")), "pull_request")
    head = _child(_child(request, "head"), "repo").get("full_name")
    number = str(request.get("number", ""))
    known = bool(_NUMBER.fullmatch(number))
    return {
        "kind": "pull_request",
        "number": number if known else "",
        "branch": told.ref("GITHUB_HEAD_REF"),
        "base": told.ref("GITHUB_BASE_REF"),
        "title": fit(str(request.get("title", ""))),
        "author": fit(str(_child(request, "user").get("login", ""))) or told.text("GITHUB_ACTOR"),
        "url": f"{repo}/pull/{number}" if repo and known else "",
        # in doubt it is a stranger's
        "fork": not head or head != told.raw("GITHUB_REPOSITORY"),
    }


def _event(place: str) -> Mapping[str, Any]:
    """The event as its host wrote it down; empty when it cannot be read."""
    try:
        with Path(place).open("rb") as file:
            found = json.loads(file.read(LONGEST_EVENT))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _child(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = parent.get(name)
    return found if isinstance(found, dict) else {}


# -- any other -------------------------------------------------------------------------------------


def _other(_: _Told) -> Read:
    return "", "", {}


_HOSTS: Final[Mapping[str, tuple[tuple[str, ...], Callable[[_Told], Read]]]] = {
    "jenkins": (("JENKINS_URL", "JENKINS_NODE_COOKIE"), _jenkins),
    "gitlab": (("GITLAB_CI",), _gitlab),
    "gitea": (("GITEA_ACTIONS", "FORGEJO_ACTIONS"), _github),
    "github": (("GITHUB_ACTIONS",), _github),
    "ci": (("CI",), _other),
}
"""Each with the variables that only it sets, those that pose as another first."""


def _checked_out(folder: Path) -> str:
    """The commit that lies in the folder, as Jenkins' scripted pipelines do not tell it; empty if none does."""
    # the workspace may belong to another user than we are
    safe = ("-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
    argv = ["git", *safe, "rev-parse", "--verify", "--quiet", "HEAD^{commit}"]
    try:
        found = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found if _COMMIT.fullmatch(found) else ""
