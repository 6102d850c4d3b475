"""What a CI host shows folded: its marks around the lines of a stage, and no way for those lines to give it orders.

Sources: GitHub, "Workflow commands" (`::group::`, `::stop-commands::`), which the runners of Gitea and Forgejo obey
too; GitLab, "Custom collapsible sections".
"""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping

from runner.ci import host_of

__all__ = ["Groups", "Ungrouped", "groups_for"]


class Groups(ABC):
    """The marks of one host. One group is open at a time, as no host can interleave them."""

    interleaves = False
    """Whether lines of several stages may be mixed as they come."""

    def __init__(self) -> None:
        self._title = ""

    def enter(self, title: str) -> str:
        """What has to be written before lines of this group."""
        if title == self._title:
            return ""
        before = self.leave()
        self._title = title
        return before + self._begin(title)

    def leave(self) -> str:
        """What has to be written before lines of no group."""
        if not self._title:
            return ""
        self._title = ""
        return self._end()

    def close(self) -> str:
        """What has to be written after the last line."""
        return self.leave()

    @abstractmethod
    def _begin(self, title: str) -> str:
        """The mark that opens a group."""

    @abstractmethod
    def _end(self) -> str:
        """The mark that closes it."""


class Ungrouped(Groups):
    """No marks: lines of all stages as they come."""

    interleaves = True

    def _begin(self, title: str) -> str:  # noqa: ARG002
        return ""

    def _end(self) -> str:
        return ""


class _Commands(Groups):
    """`::group::`, and between our own commands a stop to all others, which only a word that nobody can guess ends."""

    def __init__(self) -> None:
        super().__init__()
        self._token = ""

    def enter(self, title: str) -> str:
        return super().enter(title) if self._token else self._command("") + super().enter(title)

    def leave(self) -> str:
        return super().leave() if self._token else self._command("") + super().leave()

    def close(self) -> str:
        """Close the group, and let whatever comes after us give commands again."""
        last = self.leave() + f"::{self._token}::\n"
        self._token = ""
        return last

    def _begin(self, title: str) -> str:
        escaped = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        return self._command(f"::group::{escaped}\n")

    def _end(self) -> str:
        return self._command("::endgroup::\n")

    def _command(self, command: str) -> str:
        """A command of ours between the end of one stop and the next, which has another word."""
        go = f"::{self._token}::\n" if self._token else ""
        self._token = f"pipe-{os.urandom(16).hex()}"
        return f"{go}{command}::stop-commands::{self._token}\n"


class _Sections(Groups):
    """GitLab's sections; no line of a stage can be taken for one, as none keeps its escapes."""

    def __init__(self) -> None:
        super().__init__()
        self._number = 0

    def _begin(self, title: str) -> str:
        self._number += 1
        return f"{self._mark('start')}{title}\n"

    def _end(self) -> str:
        return f"{self._mark('end')}\n"

    def _mark(self, what: str) -> str:
        return f"\x1b[0Ksection_{what}:{int(time.time())}:pipe_{self._number}\r\x1b[0K"


def groups_for(environ: Mapping[str, str]) -> Groups:
    """The marks of the host that these variables belong to."""
    match host_of(environ):
        case "github" | "gitea":
            return _Commands()
        case "gitlab":
            return _Sections()
    return Ungrouped()
