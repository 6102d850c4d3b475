"""One server: it takes the folder for itself, opens the doors, and works until it is told to end."""

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import uvicorn
from sqlalchemy import URL, Connection, inspect

from pipeline.errors import PipeError
from pipeline.plan import Limits
from runner.cgroups import Group, NoGroup, named
from runner.ownership import HEARTBEAT, Ownership, Taken
from runner.server import links, openid, people
from runner.server.children import NO_BOUNDS, Bounds, Children
from runner.server.connections import shown, url_of
from runner.server.database import Database
from runner.server.desk import Desk
from runner.server.dispatcher import LOST_AFTER, Dispatcher
from runner.server.doors import Doors
from runner.server.feedback import Feedback
from runner.server.fleet import Fleet, identity, others_alive, prove
from runner.server.following import Followers
from runner.server.housekeeping import keep_house
from runner.server.layout import Layout, Place
from runner.server.looks import until_next
from runner.server.notifications import Notifier
from runner.server.projects import find, known, strange
from runner.server.registry import Registry
from runner.server.sealing import Seal
from runner.server.tracing import Tracer
from runner.server.users import Users, hindrance, users
from runner.server.web import application

__all__ = ["Options", "open_folder", "serve"]

TAKES_WITHIN = 60.0
"""Seconds after which the kernel cuts a client that takes nothing of what it asked for; it may come again."""


@dataclass(frozen=True, slots=True)
class Options:
    """The words of `pipe serve`."""

    place: Place
    host: str = "127.0.0.1"
    port: int = 8080
    url: str = ""
    """How people reach it; for links in statuses."""
    slots: int = 4
    """How many runs are under way at once."""
    poll_every: float = 60.0
    passed_on: tuple[str, ...] = ()
    """Further variables of this process that runs see."""
    uids: str = ""
    """Whom runs are started as: `200000-200999`, a user, `none` for the server's own; empty: a range if that works."""
    groups: tuple[str, ...] = ()
    """Further groups of those users."""
    bounds: Bounds = NO_BOUNDS
    mirror: bool = False
    """Runs report by `--mirror` even where they are the server's own user."""
    peer_url: str = ""
    """How other servers on the same database reach this one; by default where it listens."""
    lost_after: float = LOST_AFTER
    """Seconds without a sign of life after which the runs of another server are given up."""

    @property
    def public(self) -> str:
        """The beginning of links, without a slash at its end."""
        return self.url.rstrip("/") or f"http://{self.host}:{self.port}"


_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")


def open_folder(place: Place, environ: Mapping[str, str], *, make: bool = True) -> tuple[Layout, Database, Seal]:
    """What commands and the server itself work with; the folder is made (0700) when it is not there.

    Raises:
        PipeError: it cannot be made or read, the database does not answer, or secrets are sealed with another key.
    """
    layout = Layout(place.folder.absolute())
    try:
        if not make and not (layout.database.exists() or place.database):
            raise PipeError(f"there is no server in {layout.folder}: on its machine, give its folder by --state")
        _make(layout.folder)
        database = Database(_address(layout, place), partial(_in_use, layout=layout))
        seal = Seal(layout.folder, environ)
    except OSError as error:
        raise PipeError(f"cannot use {error.filename or place.folder}: {error.strerror}") from error
    database.read_now(partial(prove, seal=seal))
    return layout, database, seal


def _make(folder: Path) -> None:
    os.umask(0o077)  # the folder itself may be open to the users of projects
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _address(layout: Layout, place: Place) -> Path | URL:
    return url_of(place.database) if place.database else layout.database


def _in_use(connection: Connection, layout: Layout) -> str:
    """Who else works with the database, and would do so on a schema that it does not know."""
    owner = Ownership(layout.folder).owner()
    if owner and owner.alive() and owner.pid != os.getpid():
        return f"{owner.what or 'the server'}, {owner},"
    joined = inspect(connection).has_table("servers")
    return others_alive(connection, identity(layout)) if joined else ""


def serve(options: Options, environ: Mapping[str, str]) -> int:
    """Serve until SIGINT or SIGTERM. Runs that are under way live on, and are found again at the next start.

    Raises:
        PipeError: the folder, the address or the settings cannot be used, or another server has the folder.
    """
    found = openid.settings(environ)
    provider = openid.Provider(found, options.public) if found else None
    with _owned(options) as beat:
        layout, database, seal = open_folder(options.place, environ)
        try:
            if not database.read_now(people.administered):
                _invite(options, layout, database)
            for name in database.read_now(known):
                database.read_now(partial(find, seal=seal, name=name))
            _tell_of_projects_to_come(found, database)
            with _listening(options.host, options.port) as listener:
                fleet = Fleet(database, layout, options.peer_url or _peer_url(options))
                registry = Registry(database, seal, layout, fleet)
                children = _children(options, registry)
                database.write_now(partial(fleet.join, seal=seal))
                anyio.run(_serve, options, registry, children, provider, beat, listener)
                with suppress(PipeError):  # without it, the others wait until our lease has run out
                    database.write_now(fleet.leave)
        finally:
            database.close()
    return 0


@contextmanager
def _owned(options: Options) -> Iterator["_Beat"]:
    """Have the folder, which one server alone can."""
    folder = options.place.folder.absolute()
    try:
        _make(folder)
        ownership = Ownership(folder)
        epoch = ownership.claim(f"pipe serve on {options.host}:{options.port}")
    except Taken as taken:
        raise PipeError(f"{folder} belongs to {taken.owner.what or 'a server'}, {taken.owner}") from None
    except OSError as error:
        raise PipeError(f"cannot use {error.filename or folder}: {error.strerror}") from error
    try:
        yield _Beat(ownership, epoch)
    finally:
        ownership.release(epoch)


def _peer_url(options: Options) -> str:
    """Where this server listens, as others on its network may say it."""
    host = socket.gethostname() if options.host in ("0.0.0.0", "::", "") else options.host  # noqa: S104 - not bound here
    return f"http://{f'[{host}]' if ':' in host else host}:{options.port}"


def _children(options: Options, registry: Registry) -> Children:
    known_users = _users(options, registry.layout)
    mirror = _own_url(options) if known_users or options.mirror else ""
    return Children(registry, known_users, _held(options.bounds), options.passed_on, mirror)


def _users(options: Options, layout: Layout) -> Users | None:
    """Whom runs are started as; None, and said: all of them as the server's own user.

    Raises:
        PipeError: what was asked for cannot be.
    """
    for file in layout.folder.iterdir():
        if file.is_file():
            file.chmod(0o600)
    layout.folder.chmod(0o700)
    wanted = users(options.uids, options.groups)
    why = hindrance(wanted, layout) if wanted else "--uids none"
    if why and options.uids not in ("", "none"):
        raise PipeError(f"--uids {options.uids}: {why}")
    if why:
        sys.stderr.write(f"pipe: projects are not isolated, their runs are the server's own user: {why}\n")
        return None
    if wanted and not wanted.apart:
        sys.stderr.write(f"pipe: projects are not isolated from each other, all runs are {options.uids}\n")
    return wanted


def _own_url(options: Options) -> str:
    """How processes of this machine reach us."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)  # noqa: S104 - not to be bound to
    return f"http://{f'[{host}]' if ':' in host else host}:{options.port}"


def _held(bounds: Bounds) -> Bounds:
    """The bounds of runs; raises PipeError if this host cannot hold them."""
    if bounds.memory:
        try:
            Group(named("probe", "", os.getpid()), Limits(memory=bounds.memory)).close()
        except NoGroup as reason:
            raise PipeError(f"--run-memory cannot be held to here: {reason}") from None
    return bounds


def _invite(options: Options, layout: Layout, database: Database) -> None:
    """Make the link for the first administrator: on the screen of who starts the server, else in a file of theirs.

    It never goes into a log, and until it was used nobody but this machine is let in.

    Raises:
        PipeError: the server is to listen where others reach it.
    """
    if options.host not in _THIS_MACHINE:
        raise PipeError(
            f"there is no administrator yet, so this server may not listen at {options.host}: start it without --host, "
            "open the link that it tells, and start it again; or make one here: pipe people add NAME --role admin "
            "and pipe people password NAME"
        )
    link = f"{options.public}/setup#{database.write_now(partial(links.make, person=links.FIRST))}"
    if sys.stderr.isatty():
        sys.stderr.write(f"pipe: there is no administrator yet; this link makes one, once, within a day: {link}\n")
        return
    layout.setup_link.touch(mode=0o600)
    layout.setup_link.write_text(f"{link}\n")
    sys.stderr.write(f"pipe: there is no administrator yet; the link that makes one is in {layout.setup_link}\n")


def _tell_of_projects_to_come(settings: openid.Settings | None, database: Database) -> None:
    scopes = dict.fromkeys(grant.scope for grant in settings.roles.values() if grant.scope) if settings else ()
    for line in database.read_now(partial(strange, names=scopes)):
        sys.stderr.write(f"pipe: PIPE_OIDC_ROLES: {line}; what holds in it holds as soon as there is one\n")


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # accepted connections have it from here
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(TAKES_WITHIN * 1000))
        made.bind(address)
    except OSError as error:
        raise PipeError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return made


@dataclass(frozen=True, slots=True)
class _Beat:
    ownership: Ownership
    epoch: int

    async def keep(self, lost: Callable[[], None]) -> None:
        """Say that we live; `lost` is called when another server has taken the folder over."""
        self.ownership.forget(self.epoch)
        while not self.ownership.lost(self.epoch):
            self.ownership.beat(self.epoch)
            await anyio.sleep(until_next(HEARTBEAT))
        sys.stderr.write("pipe: another server has taken the folder over\n")
        lost()


class _Web(uvicorn.Server):
    """The web server without signal handlers of its own: it would end this process before the rest has ended."""

    def __init__(self, config: uvicorn.Config, followers: Followers) -> None:
        super().__init__(config)
        self._followers = followers
        self._ended = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end; ten looks a second, as they are the default, would be most of what an idle server does."""
        await self._ended.wait()

    def end(self) -> None:
        """Answer what has been asked, then end."""
        self.should_exit = self._followers.closed = True
        self._ended.set()

    async def obey_signals(self) -> None:
        """End at the first signal; a second one ends what is still answered."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            async for _ in received:
                self.force_exit = self.should_exit
                self.end()


def _calling(*calls: Callable[[], None]) -> Callable[[], None]:
    """All of them as one."""

    def call() -> None:
        for each in calls:
            each()

    return call


@dataclass(frozen=True, slots=True)
class _Parts:
    """What works beside the web server, and what wakes it."""

    works: tuple[Callable[[], Awaitable[None]], ...]
    """Each until it is cancelled."""
    came_in: Callable[[], None]
    """A delivery waits for work."""
    started: Callable[[], None]
    """A run waits for its start."""


def _parts(options: Options, registry: Registry, children: Children) -> _Parts:
    """All of them, each woken by what the others, and other servers, have to tell."""
    layout, database, fleet = registry.layout, registry.database, registry.fleet
    dispatcher = Dispatcher(registry, children, options.slots, options.lost_after)
    started = _calling(dispatcher.wake, fleet.tell)
    desk = Desk(database, registry, started, options.poll_every)
    feedback = Feedback(database, registry, options.url)
    notifier = Notifier(registry, options.url)
    tracer = Tracer(database, layout, fleet, options.url)
    told = _calling(*(part.wake for part in (desk, dispatcher, feedback, notifier, tracer)))
    dispatcher.ended = _calling(told, fleet.tell)
    beside = (fleet.talk, partial(fleet.listen, told), partial(keep_house, database, layout, fleet))
    works = (*beside, desk.work, dispatcher.work, feedback.work, notifier.work, tracer.work)
    return _Parts(works, _calling(desk.wake, fleet.tell), started)


def _web(options: Options, doors: Doors) -> _Web:
    config = uvicorn.Config(
        application(doors),
        options.host,
        options.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
        limit_concurrency=500,
    )
    return _Web(config, doors.followers)


async def _serve(
    options: Options,
    registry: Registry,
    children: Children,
    provider: openid.Provider | None,
    beat: _Beat,
    listener: socket.socket,
) -> None:
    layout, database = registry.layout, registry.database
    parts = _parts(options, registry, children)
    web = _web(options, Doors(database, registry, layout, parts.came_in, parts.started, options.public, provider))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.outlast, partial(registry.fleet.beat, web.end))
        for work in parts.works:
            tasks.start_soon(database.outlast, work)
        for work in (database.mend, web.obey_signals, partial(beat.keep, web.end)):
            tasks.start_soon(work)
        sys.stderr.write(f"pipe: serving {_where(options, layout)} at {options.public}\n")
        await web.serve([listener])
        tasks.cancel_scope.cancel()


def _where(options: Options, layout: Layout) -> str:
    url = options.place.database
    return f"{layout.folder} on {shown(url_of(url))}" if url else str(layout.folder)
