"""Where the server keeps what on its disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layout", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server keeps what it knows: its folder, and the URL of a PostgreSQL, or none for a file in the folder."""

    folder: Path
    database: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The server's folder: its database, and for each project a place with runs, files, consoles and a copy of git.

    A project's place is called like it, unless another one of that name was there before: nothing is taken over.
    """

    folder: Path

    @property
    def database(self) -> Path:
        """What the server itself knows."""
        return self.folder / "server.db"

    @property
    def setup_link(self) -> Path:
        """The link by which the first administrator is made, when nobody was there to read it."""
        return self.folder / "setup-link"

    @property
    def identity(self) -> Path:
        """Who the server of this folder is, among those that share a database."""
        return self.folder / "server-id"

    def place(self, place: str) -> Path:
        """Everything of one project."""
        return self.folder / "projects" / place

    def scratch(self, place: str, run: str) -> Path:
        """Where a run works that checks nothing out; removed when it has ended."""
        return self.place(place) / "scratch" / run

    def home(self, place: str) -> Path:
        """The home of the user that its runs are, where they are somebody else than the server."""
        return self.place(place) / "home"

    def temporary(self, place: str) -> Path:
        """What is `/tmp` to its runs then: there, others could see what they leave."""
        return self.place(place) / "tmp"

    def store(self, place: str) -> Path:
        """The runs of a project, each in its folder; `secrets.env` beside them is read by the server alone."""
        return self.place(place) / "runs"

    def copy(self, place: str, run: str) -> Path:
        """The files of a run as it reports them itself; where there is this folder, they are read from nowhere else."""
        return self.place(place) / "copies" / run

    def work(self, place: str, pipeline: str, number: int) -> Path:
        """The folder in which a run of this machine works."""
        return self.store(place) / pipeline / str(number)

    def shown(self, place: str, pipeline: str, number: int, run: str) -> Path:
        """Where a run is read: what it has reported, else the folder in which it works."""
        copy = self.copy(place, run)
        return copy if copy.is_dir() else self.work(place, pipeline, number)

    def file(self, place: str, commit: str, path: str) -> Path:
        """The pipeline file as it was at a commit."""
        return self.place(place) / "files" / commit / path

    def console(self, place: str, run: str) -> Path:
        """What a run's process said."""
        return self.place(place) / f"{run}.console"

    def repository(self, place: str, url: str) -> Path:
        """The bare copy of the repository at an address."""
        return self.place(place) / f"repository-{_digest(url)}.git"

    def strangers(self, place: str, url: str) -> Path:
        """Beside it, what forks have in their pull requests."""
        return self.place(place) / f"strangers-{_digest(url)}.git"

    def copies(self) -> frozenset[Path]:
        """Both of all projects, and those that are just being made."""
        kinds = ("repository", "strangers")
        return frozenset(path for kind in kinds for path in (self.folder / "projects").glob(f"*/{kind}-*.git*"))

    def strangers_cache(self, place: str) -> Path:
        """Where the kinds of stages keep what runs of forks left for later ones."""
        return self.place(place) / "strangers-cache"


def _digest(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:12]
