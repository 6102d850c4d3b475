"""The connection to an engine: where it is, which logins it is given, and what is wrong when it does not answer."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pipeline.stage import Login, StageErrored
from stages.clients.oci import HUB, Insecure, Reference

if TYPE_CHECKING:  # importing it takes longer than a start of pipe may
    from docker import APIClient
    from docker.tls import TLSConfig
    from requests import Response

__all__ = ["DENIED", "TEMPORARY", "Engine", "Event", "Progress", "Streaming", "as_auth", "causes"]

DEFAULT_HOST = "unix:///var/run/docker.sock"
ANSWER_LIMIT = 120
CONNECT_LIMIT = 10
HUB_KEY = "https://index.docker.io/v1/"

Event: TypeAlias = Mapping[str, Any]
"""One item of the engine's stream, of whatever shape this engine gives it."""
Progress: TypeAlias = Callable[[str, float | None], None]

TEMPORARY = re.compile(
    r"i/o timeout|connection refused|connection reset|no such host|no route to host|network is unreachable"
    r"|TLS handshake|toomanyrequests|Too Many Requests|\bEOF\b|(?:status|code):? 5\d\d|server misbehaving"
    r"|Temporary failure|context deadline exceeded|request canceled|server gave HTTP response to HTTPS client",
    re.IGNORECASE,
)
DENIED = re.compile(r"unauthorized|denied|no basic auth credentials|authentication required|forbidden", re.IGNORECASE)


# What an engine says of itself does not change while a process lives, and ten pushes at once would ask ten times.
_VERSIONS: dict[str, str] = {}
_INSECURE: dict[str, Insecure] = {}
_ASKING = threading.Lock()


class Engine:
    """The engine that an environment names, and the logins that it is given with each request."""

    def __init__(self, env: Mapping[str, str], logins: Mapping[str, Login] | None = None) -> None:
        """`logins` maps registries to logins; None means those in the user's own docker configuration."""
        self.host = env.get("DOCKER_HOST") or DEFAULT_HOST
        self.logins = logins
        self._env = env

    @contextlib.contextmanager
    def connect(self) -> Iterator["APIClient"]:
        """A connection of its own.

        Raises:
            StageErrored: nobody answers, or the engine broke off; it names the address and the way out.
        """
        from docker import APIClient
        from docker.errors import DockerException
        from docker.utils import kwargs_from_env
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError

        client: APIClient | None = None
        try:
            _knock(self.host)
            # not empty: docker-py would take this process's own environment instead
            tls = kwargs_from_env({"DOCKER_HOST": self.host, **self._env}).get("tls", False)
            ssh = self.host.startswith("ssh://")
            client = APIClient(
                base_url=self.host,
                version=_VERSIONS.get(self.host, "auto"),
                timeout=CONNECT_LIMIT,
                tls=cast("TLSConfig", tls),
                use_ssh_client=ssh,
            )
            client.timeout = ANSWER_LIMIT
            _VERSIONS[self.host] = client.api_version
            self._give_logins(client)
            yield client
        except (DockerException, RequestException, HTTPError, OSError) as error:
            if client is None:
                raise _unreachable(self.host, error) from error
            raise _broken(self.host, error) from error
        finally:
            if client is not None:
                client.close()

    def _give_logins(self, client: "APIClient") -> None:
        if self.logins is None:
            return
        from docker.auth import AuthConfig

        auths = {_key(name): as_auth(name, login) for name, login in self.logins.items()}
        # docker-py has no public way to send a login without also sending all of the user's own
        vars(client)["_auth_configs"] = AuthConfig({"auths": auths})

    def insecure(self) -> Insecure:
        """Which registries this engine speaks to without a trusted certificate; asked once a process."""
        with _ASKING:
            if self.host not in _INSECURE:
                _INSECURE[self.host] = self._insecure()
            return _INSECURE[self.host]

    def _insecure(self) -> Insecure:
        with self.connect() as client:
            found = client.info().get("RegistryConfig") or {}
        hosts = (name for name, index in (found.get("IndexConfigs") or {}).items() if not index.get("Secure", True))
        return Insecure(frozenset(hosts), tuple(found.get("InsecureRegistryCIDRs") or ()))

    def stored_login(self, registry: str) -> Login | None:
        """The login for a registry in the user's own docker configuration, if there is one."""
        from docker.auth import load_config
        from docker.errors import DockerException

        try:
            found = load_config().resolve_authconfig(None if registry == HUB else registry)
        except DockerException as error:
            raise StageErrored(f"the docker configuration cannot be read: {error}") from error
        # a credential program answers in capitals
        words = {name.lower(): str(value) for name, value in (found or {}).items()}
        return Login(words.get("username", ""), words["password"]) if words.get("password") else None

    def version(self) -> str:
        """Of the engine; empty if it does not say."""
        with self.connect() as client:
            found: Mapping[str, Any] = client.version()
            return str(found.get("Version", ""))

    def image(self, name: str) -> Mapping[str, Any] | None:
        """What the engine knows of an image; None when it has none of that name."""
        from docker.errors import ImageNotFound, NotFound

        with self.connect() as client:
            try:
                found: Mapping[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]
            except (ImageNotFound, NotFound):
                return None
            return found

    def tag(self, image: str, reference: Reference) -> None:
        """Give an image another name."""
        with self.connect() as client:
            client.tag(image, reference.repository, reference.tag)


def _knock(host: str) -> None:
    """Raise OSError when nobody listens on a Unix socket: docker-py would leave its own one open."""
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(CONNECT_LIMIT)
            door.connect(host.removeprefix("unix://"))


def _key(registry: str) -> str:
    return HUB_KEY if registry == HUB else registry


def as_auth(registry: str, login: Login) -> dict[str, str]:
    """A login as docker-py takes it."""
    return {"username": login.username, "password": login.password, "serveraddress": _key(registry)}


def _unreachable(host: str, error: Exception) -> StageErrored:
    chain = causes(error)
    where = host.removeprefix("unix://")
    out = "start it, or set DOCKER_HOST to the address of one"
    if any(isinstance(link, PermissionError) for link in chain):
        return StageErrored(f"no permission on {where}: add this user to the group 'docker', or set DOCKER_HOST")
    if any(isinstance(link, FileNotFoundError) for link in chain):
        return StageErrored(f"no docker engine at {host}: there is no such socket; {out}")
    if any(isinstance(link, ConnectionRefusedError) for link in chain):
        return StageErrored(f"no docker engine at {host}: the connection is refused; {out}")
    reason = str(error).removeprefix("Error while fetching server API version: ")
    return StageErrored(f"no docker engine answers at {host}: {reason}; {out}")


def _broken(host: str, error: Exception) -> StageErrored:
    explained = getattr(error, "explanation", None)
    if explained:
        return StageErrored(f"the docker engine at {host} refused a request: {explained}")
    return StageErrored(f"the docker engine at {host} broke off: {error}")


def causes(error: BaseException) -> list[BaseException]:
    """An error and all that is behind it; urllib3 keeps causes in its arguments."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(found) < 50:
        link = waiting.pop()
        if isinstance(link, BaseException) and link not in found:
            found.append(link)
            waiting += [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
    return found


class Streaming:
    """A long request whose answer is a stream of events; `stop` ends it from another thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._response: Response | None = None
        self._stopped = False

    def stop(self) -> None:
        """Close the stream: the engine then gives up what it is doing."""
        from docker.types import CancellableStream

        self._stopped = True
        if self._response is not None:
            with contextlib.suppress(Exception):  # it may end by itself meanwhile, in any of its layers
                CancellableStream(iter(()), self._response).close()

    @contextlib.contextmanager
    def _connect(self) -> Iterator["APIClient"]:
        with self._engine.connect() as client:
            client.hooks["response"] = [self._remember]
            # a silent RUN step is no reason to hang up; the stage has a limit of its own
            vars(client)["timeout"] = None
            try:
                yield client
            finally:
                if self._response is not None:
                    self._response.close()

    def _remember(self, response: "Response", *_: object, **__: object) -> None:
        self._response = response
        if self._stopped:
            self.stop()
