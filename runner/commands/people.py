"""`pipe people`, `pipe token` and `pipe audit`: who may use the team server, from the machine that it runs on."""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial

import click

from runner.server import administration, audit, people, tokens
from runner.server.audit import machine
from runner.server.layout import Place
from runner.server.passwords import Passwords, check
from runner.server.rights import Grant
from runner.server.serve import open_folder
from runner.sinks.view import plain_text

__all__ = [
    "add",
    "add_token",
    "invite",
    "list_audit",
    "list_people",
    "list_tokens",
    "remove",
    "revoke_token",
    "set_password",
    "set_roles",
]


def add(place: Place, name: str, roles: Sequence[str], url: str) -> int:
    """Keep a person and print the link by which they choose a password."""
    _, database, _ = open_folder(place, os.environ)
    granted = [Grant.read(role) for role in roles]
    code = database.write_now(lambda c: administration.add_person(c, machine(), name, granted))
    _print_link(name, url, code)
    return 0


def invite(place: Place, name: str, url: str) -> int:
    """Print a new link; the password that there is stays until it is used."""
    _, database, _ = open_folder(place, os.environ, make=False)
    _print_link(name, url, database.write_now(lambda c: administration.invite(c, machine(), name)))
    return 0


def list_people(place: Place) -> int:
    """Print everybody with their roles, and how they sign in."""
    _, database, _ = open_folder(place, os.environ, make=False)
    for person in database.read_now(people.known):
        ways = [way for way, there in (("password", person.password), ("OpenID", person.identity)) if there]
        roles = ", ".join(map(str, person.grants))
        click.echo(f"{person.name}  {roles or 'no role'}  {' and '.join(ways) or 'cannot sign in yet'}")
    return 0


def remove(place: Place, name: str) -> int:
    """Forget a person: their sessions, tokens and links end at once."""
    _, database, _ = open_folder(place, os.environ, make=False)
    database.write_now(lambda c: administration.remove_person(c, machine(), name))
    return 0


def set_roles(place: Place, name: str, roles: Sequence[str]) -> int:
    """Give a person these roles and no others."""
    _, database, _ = open_folder(place, os.environ, make=False)
    granted = [Grant.read(role) for role in roles]
    database.write_now(lambda c: administration.change_roles(c, machine(), name, granted))
    return 0


def set_password(place: Place, name: str) -> int:
    """Take a new password from the terminal, else from the first line of standard input."""
    _, database, _ = open_folder(place, os.environ, make=False)
    database.read_now(partial(people.must_find, name=name))
    asked = sys.stdin.isatty()
    password = click.prompt("New password", hide_input=True, confirmation_prompt=True) if asked else _line()
    check(password, name)
    kept = Passwords().hashed_now(password)
    database.write_now(lambda c: administration.change_password(c, machine(), name, kept))
    return 0


def add_token(place: Place, name: str, role: str, person: str, days: int) -> int:
    """Make a token for the API and print it; it is not kept."""
    _, database, _ = open_folder(place, os.environ)
    expires = time.time() + days * 86400 if days else 0.0
    grant = Grant.read(role)
    click.echo(
        database.write_now(lambda c: administration.make_token(c, machine(), name, person, grant, expires=expires))
    )
    return 0


def list_tokens(place: Place) -> int:
    """Print the tokens: whose they are, what they may do, and when they were used."""
    _, database, _ = open_folder(place, os.environ, make=False)
    for token in database.read_now(tokens.known):
        over = 0 < token.expires < time.time()
        ends = ("expired" if over else f"until {_when(token.expires)}") if token.expires else "until it is revoked"
        used = f"used {_when(token.used)}" if token.used else "never used"
        click.echo(
            f"{token.id}  {plain_text(token.name)}  {token.person or 'a program'}  {token.grant}  {ends}  {used}"
        )
    return 0


def revoke_token(place: Place, id_: str) -> int:
    """Forget a token."""
    _, database, _ = open_folder(place, os.environ, make=False)
    database.write_now(lambda c: administration.revoke_token(c, machine(), id_))
    return 0


def list_audit(place: Place, most: int) -> int:
    """Print the newest lines of the audit log, the last one at the end."""
    _, database, _ = open_folder(place, os.environ, make=False)
    for line in reversed(database.read_now(partial(audit.lines, before=0, limit=most))):
        words = (
            f"{line.who or '(nobody)'} by {line.by}",
            line.address,
            line.action,
            line.what,
            line.project,
            line.detail,
        )
        click.echo("  ".join([_when(line.at), *(plain_text(word) for word in words if word)]))
    return 0


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _print_link(name: str, url: str, code: str) -> None:
    click.echo(f"{name}: give them this link; within a day, and once, they can choose a password by it")
    click.echo(f"  {url.rstrip('/')}/password#{code}")


def _line() -> str:
    return sys.stdin.readline().rstrip("\r\n")
