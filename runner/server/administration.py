"""Changes of people, tokens and projects, each with its line in the audit log, for pages, API and commands."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from pipeline.errors import PipeError
from runner.handover import Handed
from runner.server import forks, housekeeping, links, people, projects, secrets, sessions, targets, tokens
from runner.server.audit import Actor, note
from runner.server.database import runs
from runner.server.housekeeping import Keep, What
from runner.server.projects import Project
from runner.server.rights import ADMIN, MEMBER, Grant
from runner.server.sealing import Seal
from runner.server.targets import Standing

__all__ = [
    "add_person",
    "add_project",
    "add_target",
    "approve",
    "change_password",
    "change_project",
    "change_roles",
    "connect",
    "enter",
    "invite",
    "keep",
    "known_by",
    "leave",
    "leave_others",
    "make_token",
    "remove_person",
    "remove_project",
    "remove_secret",
    "remove_target",
    "revoke_token",
    "set_secret",
    "set_up",
    "show_badge",
]


def add_person(connection: Connection, actor: Actor, name: str, granted: Iterable[Grant]) -> str:
    """Keep a person, and return the code of the link by which they choose a password.

    Raises:
        PipeError: the name is none, somebody has it, or there is no such role or project.
    """
    granted = tuple(granted)
    people.check(connection, granted)
    people.add(connection, name, granted)
    note(connection, actor, "add person", name, detail=_words(granted))
    return links.make(connection, name)


def invite(connection: Connection, actor: Actor, name: str) -> str:
    """The code of a new link by which a person chooses a password.

    Raises:
        PipeError: there is no such person.
    """
    people.must_find(connection, name)
    note(connection, actor, "make link", name)
    return links.make(connection, name)


def set_up(connection: Connection, name: str, password: str, address: str) -> None:
    """Make the first administrator; `password` is a hash.

    Raises:
        PipeError: the name is none, or somebody has it.
    """
    people.add(connection, name, [Grant(ADMIN)], password=password)
    note(connection, Actor(name, "link", address), "set up", name, detail=ADMIN)


def known_by(connection: Connection, address: str, identity: str, name: str, granted: tuple[Grant, ...] | None) -> str:
    """The person whom an OpenID provider knows by `identity`; one who comes for the first time is added.

    `granted` are the roles that the provider's word gives, which are taken over at every sign-in, or None when it gives
    none and a newcomer becomes a member. The answer is empty when nothing is granted to them any more.

    Raises:
        PipeError: the name is none, or belongs to somebody who signs in otherwise.
    """
    person = people.find_identity(connection, identity)
    actor = Actor(person.name if person else name, "openid", address)
    if granted == ():
        if person and person.grants:
            _change_roles(connection, actor, person.name, ())
        return ""
    if person is None:
        if people.find(connection, name):
            raise PipeError(
                f"there is a person '{name}' here who signs in otherwise: if that is you, sign in so, "
                "and connect the accounts on your account page"
            )
        people.add(connection, name, granted or [Grant(MEMBER)], identity=identity)
        note(connection, actor, "add person", name, detail=_words(granted or [Grant(MEMBER)]))
    elif granted is not None and set(granted) != set(person.grants):
        _change_roles(connection, actor, person.name, granted)
    return actor.who


def connect(connection: Connection, actor: Actor, identity: str) -> None:
    """Let a person be known by an identity of an OpenID provider too.

    Raises:
        PipeError: it is another person's.
    """
    people.set_identity(connection, actor.who, identity)
    note(connection, actor, "connect identity", actor.who, detail=identity)


def change_roles(connection: Connection, actor: Actor, name: str, granted: Iterable[Grant]) -> None:
    """Give a person these roles and no others.

    Raises:
        PipeError: there is no such person, role or project, or nobody would be left who can give roles.
    """
    granted = tuple(granted)
    people.check(connection, granted)
    _change_roles(connection, actor, name, granted)


def _change_roles(connection: Connection, actor: Actor, name: str, granted: tuple[Grant, ...]) -> None:
    before = people.must_find(connection, name).grants
    people.set_grants(connection, name, granted)
    note(connection, actor, "change roles", name, detail=f"{_words(before)} → {_words(granted)}")


def change_password(connection: Connection, actor: Actor, name: str, password: str, *, stays: str = "") -> None:
    """Keep the hash of a new password; every session of the person ends but that with the digest `stays`."""
    people.set_password(connection, name, password, stays=stays)
    note(connection, actor, "change password", name)


def remove_person(connection: Connection, actor: Actor, name: str) -> None:
    """Forget a person with everything that opens a door for them.

    Raises:
        PipeError: there is no such person, or nobody would be left who can give roles.
    """
    people.remove(connection, name)
    note(connection, actor, "remove person", name)


def enter(connection: Connection, actor: Actor, before: str = "") -> str:
    """Begin a session, under a new id whatever session the browser had before: the id."""
    sessions.end(connection, sessions.digest_of(before))
    note(connection, actor, "sign in", actor.who)
    return sessions.begin(connection, actor.who, actor.address)


def leave(connection: Connection, actor: Actor, digest: str) -> None:
    """End a session."""
    sessions.end(connection, digest)
    note(connection, actor, "sign out", actor.who)


def leave_others(connection: Connection, actor: Actor, stays: str) -> None:
    """End every session of a person but that with the digest `stays`."""
    sessions.end_others(connection, actor.who, stays)
    note(connection, actor, "sign out elsewhere", actor.who)


def make_token(
    connection: Connection, actor: Actor, name: str, person: str, grant: Grant, *, expires: float = 0.0
) -> str:
    """Make a token and return it, this once; one without a person belongs to a program.

    Raises:
        PipeError: it has no name, there is no such role or project, or it may do more than its person.
    """
    token = tokens.make(connection, name, person, grant, expires=expires)
    whose = f"{grant} of {person}" if person else f"{grant} of a program"
    note(connection, actor, "make token", name, project=grant.scope, detail=whose)
    return token


def revoke_token(connection: Connection, actor: Actor, id_: str) -> None:
    """Forget a token.

    Raises:
        PipeError: there is none of that id.
    """
    token = tokens.must_find(connection, id_)
    tokens.revoke(connection, id_)
    note(connection, actor, "revoke token", token.name, project=token.grant.scope, detail=f"{token.grant}")


def add_project(connection: Connection, actor: Actor, seal: Seal, project: Project) -> Project:
    """Keep a new project; one without a hook secret gets a random one.

    Raises:
        PipeError: what is wrong with it, all at once, or there is one of that name.
    """
    made = projects.add(connection, seal, project)
    note(connection, actor, "add project", made.name, project=made.name, detail=made.url)
    return made


def remove_project(connection: Connection, actor: Actor, name: str) -> bool:
    """Forget a project; false if there is none."""
    gone = projects.remove(connection, name)
    if gone:
        note(connection, actor, "remove project", name, project=name)
    return gone


def change_project(
    connection: Connection,
    actor: Actor,
    name: str,
    *,
    trusted: Sequence[str] | None = None,
    followers: Sequence[str] | None = None,
) -> None:
    """Say anew who may do more than others in a project; None leaves it as it is.

    Raises:
        PipeError: a name that no author or project can have.
    """
    if projects.change(connection, name, trusted=trusted, followers=followers):
        told = {"trusted": trusted, "followers": followers}
        words = "; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in told.items() if names is not None)
        if words:
            note(connection, actor, "change project", name, project=name, detail=words)


def show_badge(connection: Connection, actor: Actor, name: str, *, public: bool) -> bool:
    """Let everybody see the badges of a project, or nobody without a token; false if there is no such project."""
    there = projects.show_badge(connection, name, public=public)
    if there:
        note(
            connection, actor, "change project", name, project=name, detail=f"public badge: {'yes' if public else 'no'}"
        )
    return there


def add_target(connection: Connection, actor: Actor, seal: Seal, project: str, url: str, target: Standing) -> None:
    """Keep a target that was found right.

    Raises:
        PipeError: there is no such project, or it has a target of that name.
    """
    targets.add(connection, seal, project, url, target)
    note(connection, actor, "add target", target.name, project=project, detail=target.service)


def remove_target(connection: Connection, actor: Actor, project: str, name: str) -> bool:
    """Forget a target and what it was still to be told; false if there is none."""
    gone = targets.remove(connection, project, name)
    if gone:
        note(connection, actor, "remove target", name, project=project)
    return gone


def set_secret(connection: Connection, actor: Actor, seal: Seal, project: str, name: str, secret: Handed) -> None:
    """Keep a secret of a project in the place of the former one.

    Raises:
        PipeError: the name is none, or there is no such project.
    """
    secrets.put(connection, seal, project, name, secret)
    note(connection, actor, "set secret", name, project=project, detail=secret.kind)


def remove_secret(connection: Connection, actor: Actor, project: str, name: str) -> bool:
    """Forget a secret of a project; false if there is none."""
    gone = secrets.remove(connection, project, name)
    if gone:
        note(connection, actor, "remove secret", name, project=project)
    return gone


def keep(connection: Connection, actor: Actor, project: str, what: What, wanted: Keep) -> None:
    """Say anew how many runs of a project, or logs of them, stay and for how long."""
    housekeeping.keep(connection, project, what, wanted)
    note(connection, actor, f"keep {what}", project, project=project, detail=f"{wanted.count}, {wanted.days} days")


def approve(connection: Connection, actor: Actor, run: str) -> str:
    """Let a run of a fork start that waits for it; why not, empty if it may."""
    why = forks.approve(connection, run, actor.who)
    if not why:
        found = connection.execute(select(runs.c.project, runs.c.pipeline, runs.c.number).where(runs.c.id == run)).one()
        note(connection, actor, "approve run", run, project=found.project, detail=f"{found.pipeline}#{found.number}")
    return why


def _words(granted: Iterable[Grant]) -> str:
    return ", ".join(sorted(map(str, granted))) or "no role"
