"""Where we run: what this host gives to processes, and what it says about the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.plan import Trigger
from runner.ci import said
from runner.guardian import SWEEPER
from runner.handover import Received

__all__ = ["Host", "detect"]

_NEVER_PASSED = frozenset({"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", SWEEPER})


@dataclass(frozen=True, slots=True)
class Host:
    """A terminal, our own server, or one of `runner.ci`. `number` is the run's number if the host counts, else None."""

    name: str
    environ: Mapping[str, str]
    number: int | None = None
    run: str = ""
    """The run's id, if the host gave one."""
    trigger: Trigger = field(default_factory=Trigger)
    given: Received | None = None
    """The secrets that it handed over; None: they come from variables and files."""
    url: str = ""
    """Its page about the run, if it has one."""
    notes: tuple[str, ...] = ()
    """What of its words was not taken."""

    @property
    def sweeps(self) -> bool:
        """Whether it aborts us by ending each of our processes by itself, children first."""
        return SWEEPER in self.environ

    def source(self) -> dict[str, str]:
        """What `checkout` takes for the run's own source on our server: a repository and the very commit in it."""
        trigger = self.trigger
        named = {
            "PIPE_SOURCE": trigger.repo,
            # a branch of a fork is none of the repository, whatever it is called
            "PIPE_SOURCE_REF": "" if trigger.fork else trigger.branch or trigger.tag,
            "PIPE_SOURCE_COMMIT": trigger.commit,
            "PIPE_SOURCE_FROM": self.environ.get("PIPE_SERVER_FROM", ""),
            "PIPE_SOURCE_HEAD": self.environ.get("PIPE_SERVER_HEAD", ""),
            "PIPE_SOURCE_STRANGE": "" if trigger.trusted else "1",
        }
        return {name: value for name, value in named.items() if value or name == "PIPE_SOURCE_REF"}

    def base(self) -> dict[str, str]:
        """The environment that every process starts from: all of the host's but secrets.

        Our own interpreter's settings stay out, or they would break a stage's Python. So does the cookie by which
        Jenkins would find the processes of a stage before it finds us; it ends them as our descendants all the same.
        """
        return {
            name: value
            for name, value in self.environ.items()
            if name not in _NEVER_PASSED
            and not name.startswith(("PIPE_SECRET_", "PIPE_SERVER_"))
            and not (name == "PIPE_STORE" and self.name == "server")  # a pipe in a stage has runs of its own
        }


def detect(environ: Mapping[str, str], given: Received | None = None) -> Host:
    """Which host this is, by the variables that it sets; `given` are the secrets that it handed over."""
    if told := environ.get("PIPE_SERVER_TRIGGER"):
        number = int(environ.get("PIPE_SERVER_NUMBER", "0")) or None
        trigger = Trigger.model_validate_json(told)
        return Host("server", environ, number, environ.get("PIPE_SERVER_RUN", ""), trigger, given)
    if found := said(environ, Path.cwd()):
        return Host(
            found.host, environ, found.number, trigger=found.trigger, given=given, url=found.url, notes=found.refused
        )
    return Host("terminal", environ, given=given)
