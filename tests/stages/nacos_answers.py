"""Real answers of a server that speaks Nacos' API, in the states that a deploy meets.

`python -m tests.stages.nacos_answers` writes them anew, by the sandbox's rnacos.
"""

import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sandbox.nacos import RunningNacos, nacos

__all__ = ["states"]

FOLDER = Path(__file__).parent / "nacos"
LIST, SERVICES = "/ns/instance/list?healthyOnly=false&serviceName=web", "/ns/service/list?pageNo=1&pageSize=500"
OLD, NEW = ("10.244.0.4", 9200), ("10.244.0.9", 9200)


def states(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Each state by its name, with the status and the body of the answer; it takes a minute."""
    with nacos(folder) as server:
        yield "unknown", *_asked(server, LIST)
        server.register(*OLD, "web", metadata='{"preserved.register.source": "SPRING_CLOUD"}')
        yield "old", *_asked(server, LIST)
        yield "old-unhealthy", *_until(server, b'"healthy":false')
        yield "new", *_until(server, b"", without=OLD[0].encode())
        server.call("PUT", "/ns/instance", ip=NEW[0], port=str(NEW[1]), serviceName="web", enabled="false")
        yield "new-disabled", *_asked(server, LIST)
        yield "other-group", *_asked(server, f"{LIST}&groupName=HIS&namespaceId=prod")
        yield "services", *_asked(server, SERVICES)
        yield "services-none", *_asked(server, f"{SERVICES}&groupName=HIS&namespaceId=prod")
    (folder / "guarded").mkdir()
    with nacos(folder / "guarded", guarded=True) as server:
        yield "no-login", *_asked(server, LIST)
        yield "wrong-login", *_asked(server, "/auth/login", b"username=pipe&password=wrong")
        yield "login", *_asked(server, "/auth/login", f"username={server.username}&password={server.password}".encode())


def _until(server: RunningNacos, part: bytes, without: bytes = b"none") -> tuple[int, bytes]:
    """The first answer with this in it and without that; meanwhile only the new instance says that it is well."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        server.register(*NEW, "web")
        status, body = _asked(server, LIST)
        if part in body and without not in body:
            return status, body
        time.sleep(1)
    raise TimeoutError(f"no such answer within a minute, but {body.decode()}")


def _asked(server: RunningNacos, path: str, form: bytes | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{server.url}/v1{path}", form)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name, status, body in states(Path(temporary)):
            (FOLDER / f"{name}.{status}").write_bytes(body)
            print(name, status, body.decode())
