"""Ask the parts of a sandbox, from outside or inside, whether they work."""

import http.client
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox.blueprint import APISERVER_PORT, Blueprint

LIMIT = 3.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float = LIMIT) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def listening(address: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((address, port), LIMIT).close()
    except OSError:
        return False
    return True


def connectable(path: Path) -> bool:
    """Whether something accepts connections on the Unix socket `path`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(LIMIT)
            client.connect(str(path))
    except OSError:
        return False
    return True


def status(connection: http.client.HTTPConnection, path: str) -> int:
    """Return the HTTP status of a GET, 0 if there is no answer."""
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


class Cluster:
    """The little of the Kubernetes API that the sandbox itself needs, as its administrator."""

    def __init__(self, node: str, pki: Path) -> None:
        self._node = node
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def connection(self) -> http.client.HTTPSConnection:
        """Return a connection that is not open yet."""
        return http.client.HTTPSConnection(self._node, APISERVER_PORT, context=self._tls, timeout=LIMIT)

    def ready(self) -> bool:
        """Whether the API server says that it is."""
        return status(self.connection(), "/readyz") == http.client.OK

    def get(self, path: str) -> dict[str, Any]:
        """Return an object, empty if there is none or no answer."""
        answer = self._call("GET", path)
        return {} if answer.get("kind") == "Status" else answer

    def create(self, path: str, thing: dict[str, Any]) -> dict[str, Any]:
        """Make `thing` and return the answer: the thing, a Status, or empty if there is none."""
        return self._call("POST", path, json.dumps(thing))

    def node_ready(self) -> bool:
        """Whether the one node takes pods."""
        node = self.get("/api/v1/nodes/sandbox")
        conditions = node.get("status", {}).get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _call(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        connection = self.connection()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return answer


def outside(blueprint: Blueprint, state: Path, sockets: Path) -> dict[str, Callable[[], bool]]:
    """Return a question for each thing of the sandbox that its users see."""
    node, git, smtp = blueprint.node, blueprint.git_port, blueprint.smtp_port
    questions: dict[str, Callable[[], bool]] = {
        "git-host": lambda: status(http.client.HTTPConnection(node, git, timeout=LIMIT), "/") == 401,
        "mail-sink": lambda: listening(node, smtp),
    }
    if blueprint.registry:
        port = int(blueprint.registry_address.partition(":")[2])
        questions["registry"] = lambda: status(http.client.HTTPConnection(node, port, timeout=LIMIT), "/v2/") == 401
    if blueprint.engine:
        questions["dockerd"] = lambda: status(UnixConnection(sockets / "docker.sock"), "/_ping") == 200
    if blueprint.cluster:
        cluster = Cluster(node, state / "pki")
        questions["kube-apiserver"] = cluster.ready
        questions["kubelet"] = cluster.node_ready
    return questions
