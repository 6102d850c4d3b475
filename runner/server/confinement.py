"""Becoming the user of a project, within the limits of a run: what a child does before it is `pipe`.

It is a program of its own and not a function between fork and exec, which a process with threads must not run.
"""

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

__all__ = ["Confinement", "enter"]


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds a child. Without a `uid` it stays who we are."""

    uid: int | None = None
    gid: int = 0
    groups: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    """The control groups that it goes into."""
    processes: int = 0
    """How many processes its user may have; 0: no limit."""
    nice: int = 0

    def around(self, argv: list[str]) -> list[str]:
        """The words that start a program so."""
        if self == Confinement():
            return argv
        words = "from runner.server.confinement import enter; enter()"
        return [sys.executable, "-I", "-c", words, json.dumps(asdict(self)), *argv]


def enter() -> NoReturn:
    """`python -c … CONFINEMENT PROGRAM WORD…`: go in, and become the program."""
    told = json.loads(sys.argv[1])
    for folder in told["cgroups"]:
        Path(folder, "cgroup.procs").write_text("0")
    os.nice(told["nice"])
    if told["uid"] is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core is a file with secrets in it
        if told["processes"]:
            resource.setrlimit(resource.RLIMIT_NPROC, (told["processes"], told["processes"]))
        os.setgroups(told["groups"])
        os.setresgid(told["gid"], told["gid"], told["gid"])
        os.setresuid(told["uid"], told["uid"], told["uid"])
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - no shell is wanted
