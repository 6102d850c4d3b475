"""Who may do what: roles as sets of verbs, and the one answer to "may they do this, in that project"."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

__all__ = ["ADMIN", "MEMBER", "ROLES", "Grant", "Verb", "may", "reach", "within"]


class Verb(StrEnum):
    """Everything that a role can allow."""

    VIEW = "view"
    RUN = "run"
    CANCEL = "cancel"
    APPROVE = "approve"
    REDELIVER = "redeliver"
    MANAGE_PROJECTS = "manage projects"
    MANAGE_PEOPLE = "manage people"
    MANAGE_TOKENS = "manage tokens"
    AUDIT = "read the audit log"


class Grant(NamedTuple):
    """A role, and the project in which it holds; an empty scope is everything."""

    role: str
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.role}@{self.scope}" if self.scope else self.role

    @classmethod
    def read(cls, words: str) -> "Grant":
        """`admin`, or `member@shop` for one project."""
        return cls(*words.split("@", 1))


ADMIN, MEMBER = "admin", "member"
ROLES: Mapping[str, frozenset[Verb]] = {
    ADMIN: frozenset(Verb),
    MEMBER: frozenset({Verb.VIEW, Verb.RUN, Verb.CANCEL, Verb.APPROVE}),
}


def may(grants: Iterable[Grant], verb: Verb, project: str = "") -> bool:
    """Whether grants allow something in a project; without one, whether they allow it everywhere."""
    return any(grant.scope in ("", project) and verb in ROLES.get(grant.role, ()) for grant in grants)


def reach(grants: Iterable[Grant], verb: Verb) -> frozenset[str] | None:
    """The projects in which grants allow something; None when that is every project."""
    scopes = {grant.scope for grant in grants if verb in ROLES.get(grant.role, ())}
    return None if "" in scopes else frozenset(scopes)


def within(grant: Grant, grants: Iterable[Grant]) -> bool:
    """Whether somebody with `grants` can do everything that `grant` allows."""
    held = tuple(grants)
    return all(may(held, verb, grant.scope) for verb in ROLES.get(grant.role, ()))
