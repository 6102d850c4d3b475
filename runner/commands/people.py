"""`pipe people` and `pipe token`: who may use the team server, from the machine that it runs on."""

import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from sqlalchemy import Connection

from runner.server import links, people, tokens
from runner.server.passwords import Passwords, check
from runner.server.rights import Grant
from runner.server.serve import open_folder

__all__ = ["add", "add_token", "list_people", "remove", "set_password", "set_roles"]


def add(folder: Path, name: str, roles: Sequence[str], url: str) -> int:
    """Keep a person and print the link by which they choose a password."""
    _, database, _ = open_folder(folder, os.environ)

    def make(connection: Connection) -> str:
        people.add(connection, name, [_grant(role) for role in roles])
        return links.make(connection, name)

    code = database.write_now(make)
    click.echo(f"{name}: give them this link; within a day, and once, they can choose a password by it")
    click.echo(f"  {url.rstrip('/')}/password#{code}")
    return 0


def list_people(folder: Path) -> int:
    """Print everybody with their roles, and how they sign in."""
    _, database, _ = open_folder(folder, os.environ, make=False)
    for person in database.read_now(people.known):
        ways = [way for way, there in (("password", person.password), ("OpenID", person.identity)) if there]
        roles = ", ".join(f"{role}@{scope}" if scope else role for role, scope in person.grants)
        click.echo(f"{person.name}  {roles or 'no role'}  {' and '.join(ways) or 'cannot sign in yet'}")
    return 0


def remove(folder: Path, name: str) -> int:
    """Forget a person: their sessions, tokens and links end at once."""
    _, database, _ = open_folder(folder, os.environ, make=False)
    database.write_now(partial(people.remove, name=name))
    return 0


def set_roles(folder: Path, name: str, roles: Sequence[str]) -> int:
    """Give a person these roles and no others."""
    _, database, _ = open_folder(folder, os.environ, make=False)
    database.write_now(partial(people.set_grants, name=name, granted=[_grant(role) for role in roles]))
    return 0


def set_password(folder: Path, name: str) -> int:
    """Take a new password from the terminal, else from the first line of standard input."""
    _, database, _ = open_folder(folder, os.environ, make=False)
    database.read_now(partial(people.must_find, name=name))
    asked = sys.stdin.isatty()
    password = click.prompt("New password", hide_input=True, confirmation_prompt=True) if asked else _line()
    check(password, name)
    kept = Passwords().hashed_now(password)
    database.write_now(partial(people.set_password, name=name, password=kept))
    return 0


def add_token(folder: Path, name: str, role: str, person: str, days: int) -> int:
    """Make a token for the API and print it; it is not kept."""
    _, database, _ = open_folder(folder, os.environ)
    expires = time.time() + days * 86400 if days else 0.0
    click.echo(database.write_now(lambda c: tokens.make(c, name, person, _grant(role), expires=expires)))
    return 0


def _line() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _grant(words: str) -> Grant:
    """`admin`, or `member@shop` for one project."""
    role, _, scope = words.partition("@")
    return Grant(role, scope)
