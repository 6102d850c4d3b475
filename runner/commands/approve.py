"""`pipe approve --server`: letting the commits of forks run on a server, from anywhere."""

import os

import click

from pipeline.plan import Trigger
from runner.remote.connection import connect
from runner.remote.runs import ServerRuns
from runner.sinks.view import plain_text

__all__ = ["approve", "asked"]


def approve(run: str, server: str) -> int:
    """Let the commit of a fork run; without a run, print those that wait.

    Raises:
        PipeError: there is no such run, it does not wait, or the caller may not let it.
    """
    known = ServerRuns(connect(server, os.environ))
    if not run:
        for row in known.waiting():
            trigger = Trigger.model_validate(row["trigger"])
            click.echo(asked(row["id"], row["project"], f"{row['pipeline']}#{row['number']}", row["commit"], trigger))
        return 0
    found = known.find(run)
    found.approve()
    click.echo(f"{found.name} may start")
    return 0


def asked(id_: str, project: str, name: str, commit: str, trigger: Trigger) -> str:
    """A line on a run that waits for approval."""
    about = f"pull request {trigger.number} of {trigger.author} for {trigger.base}: {trigger.title}"
    return plain_text(f"{id_}  {project}  {name}  {commit[:12]}  {about}")
