"""`uses: image` and `uses: push` without an engine: what is checked before, sent, and believed."""

import base64
import json
import os
import shutil
import socket
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed
from stages import push as push_module
from stages.clients.docker import Kept, outdated
from stages.clients.docker.build import build_trouble
from stages.clients.docker.context import label_instruction, snapshot
from stages.clients.docker.engine import Engine
from stages.clients.docker.push import push_trouble
from stages.clients.oci import Insecure, Reference, Registry, parse_reference
from stages.image import Image
from stages.push import Push
from tests.support.context import FakeContext

NAME = "reg.example:5000/team/app"
DIGEST = "sha256:" + "d" * 64


class FakeEngine:
    """A docker engine on a Unix socket: `answers` maps the end of a path to a status and a list of items."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "docker.sock"
        self.answers: dict[str, tuple[int, list[Any]]] = {
            "/version": (200, [{"ApiVersion": "1.41"}]),
            "/info": (200, [{"RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": []}}]),
            "/json": (200, [{"Id": "sha256:1", "RepoDigests": []}]),
            "/tag": (201, []),
            "/images/json": (200, [[]]),
        }
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def address_string(self) -> str:
                return "unix"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.asked.append((self.path, dict(self.headers), body))
                path = self.path.partition("?")[0]
                status, items = next(
                    (a for end, a in sorted(fake.answers.items(), key=lambda x: -len(x[0])) if path.endswith(end)),
                    (404, [{"message": "no"}]),
                )
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for item in items:
                    data = (json.dumps(item) + "\r\n").encode()
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")

            do_POST = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        class Server(ThreadingMixIn, UnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """That a client hangs up is what some of these tests are about."""

        self.server = Server(str(self.path), Handler)

    def header(self, end: str, name: str) -> Any:
        headers = next(headers for path, headers, _ in self.asked if path.partition("?")[0].endswith(end))
        value = headers.get(name)
        return value and json.loads(base64.urlsafe_b64decode(value))


@pytest.fixture
def engine(ctx: FakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    config = tmp_path / "config"
    config.mkdir()
    own = base64.b64encode(b"own:own-password").decode()
    (config / "config.json").write_text(json.dumps({"auths": {"reg.example:5000": {"auth": own}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    short = tempfile.mkdtemp()  # the path of a socket has 107 characters at most
    fake = FakeEngine(Path(short))
    ctx.env["DOCKER_HOST"] = f"unix://{fake.path}"
    ctx.secrets = {"reg": Login("joe", "pass")}
    (ctx.workspace / "Dockerfile").write_text("FROM scratch\n")
    thread = threading.Thread(target=fake.server.serve_forever, args=(0.01,))
    thread.start()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()
    thread.join()
    shutil.rmtree(short)


def image(**fields: object) -> Image:
    return Image.model_validate({"image": NAME, "tag": "t1", "keep": 0, **fields})


BUILT = [{"stream": "Step 1/2 : FROM scratch\n"}, {"aux": {"ID": "sha256:1"}}, {"stream": "Successfully built 0bad\n"}]


# -- building --------------------------------------------------------------------------------------


async def test_the_id_is_the_engines_and_not_what_a_step_printed(ctx: FakeContext, engine: FakeEngine) -> None:
    engine.answers["/build"] = (200, BUILT)
    assert (await image().run(ctx)).id == "sha256:1"


async def test_an_error_in_the_stream_fails_the_build(ctx: FakeContext, engine: FakeEngine) -> None:
    error = {"errorDetail": {"code": 7, "message": "The command 'x' returned a non-zero code: 7"}, "error": "x"}
    engine.answers["/build"] = (200, [{"stream": "Step 2/2 : RUN x\n"}, {"stream": "why\n"}, error])
    with pytest.raises(StageFailed, match=r"step 2/2 \(RUN x\): exit code 7") as caught:
        await image().run(ctx)
    assert "why" in caught.value.cause.evidence


async def test_a_stream_that_ends_without_an_image_is_no_success(ctx: FakeContext, engine: FakeEngine) -> None:
    engine.answers["/build"] = (200, [{"stream": "Step 1/2 : FROM scratch\n"}])
    with pytest.raises(StageErrored, match="broke off: the build ended without an image"):
        await image().run(ctx)


async def test_a_named_secret_is_the_only_login_that_a_build_gets(ctx: FakeContext, engine: FakeEngine) -> None:
    engine.answers["/build"] = (200, BUILT)
    await image(secret="reg").run(ctx)
    sent = engine.header("/build", "X-Registry-Config")
    assert list(sent) == ["reg.example:5000"]
    assert (sent["reg.example:5000"]["username"], sent["reg.example:5000"]["password"]) == ("joe", "pass")


async def test_without_a_secret_a_build_gets_the_users_own_logins(ctx: FakeContext, engine: FakeEngine) -> None:
    engine.answers["/build"] = (200, BUILT)
    await image().run(ctx)
    assert engine.header("/build", "X-Registry-Config")["reg.example:5000"]["username"] == "own"


@pytest.mark.parametrize("fields", [{"image": "Team/App"}, {"image": "a b"}, {"tag": "feature/x"}, {"keep": -1}])
def test_names_are_checked_in_the_plan(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        image(**fields)
    image(image="${params.registry}/app", tag="<unset>")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": "none"}, "there is no folder 'none' in the workspace"),
        ({"file": "none"}, "there is no none in '.'; there are: Dockerfile: name it in `file:`"),
        ({"context": ".."}, "lies outside of the workspace"),
        ({"context": "link"}, "lies outside of the workspace"),
        ({"file": "../../secret"}, "lies outside of the workspace"),
        ({"image": "${x}"}, "is no part of an image's name"),
    ],
)
async def test_what_is_missing_is_told_before_an_engine_is_asked(
    ctx: FakeContext, tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    (ctx.workspace / "Dockerfile").touch()
    (ctx.workspace / "link").symlink_to(tmp_path)
    ctx.env["DOCKER_HOST"] = "unix:///nowhere"
    with pytest.raises(StageFailed, match=message) as caught:
        await image(**fields).run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG


@pytest.mark.parametrize(
    ("message", "step", "error", "expected"),
    [
        ("The command '/bin/sh -c x' returned a non-zero code: 3", "Step 2/4 : RUN x", StageFailed, "step 2/4 (RUN x): exit code 3"),
        ("COPY failed: file not found in build context or excluded by .dockerignore: stat target/a.jar: file does not exist", "Step 3/4 : COPY target/a.jar /", StageFailed, "step 3/4 (COPY target/a.jar /): 'target/a.jar' is not in the context"),
        ("pull access denied for reg/x, repository does not exist or may require 'docker login'", "Step 1/4 : FROM reg/x", StageFailed, "the base image reg/x cannot be pulled: there is none of that name"),
        ("manifest for reg/x:1 not found: manifest unknown", "Step 1/4 : FROM --platform=linux/amd64 reg/x:1 AS b", StageFailed, "the base image reg/x:1 is not in its registry"),
        ("Get https://reg/v2/: unauthorized", "Step 1/4 : FROM reg/x", StageFailed, "its registry refuses the login"),
        ("Get https://reg/v2/: dial tcp 10.0.0.1:443: connect: connection refused", "Step 1/4 : FROM reg/x", StageErrored, "the base image reg/x cannot be pulled: Get"),
        ("toomanyrequests: You have reached your pull rate limit", "Step 1/4 : FROM x", StageErrored, "cannot be pulled: toomanyrequests"),
        ("write /x: no space left on device", "Step 2/4 : COPY a b", StageErrored, "step 2/4 (COPY a b): write /x: no space left"),
        ("something else", "Step 2/4 : ENV a", StageFailed, "step 2/4 (ENV a): something else"),
    ],
)  # fmt: skip
def test_what_the_engine_says_of_a_build_is_put_in_words(
    message: str, step: str, error: type[Exception], expected: str
) -> None:
    trouble = build_trouble(message, step, ["tail"])
    assert type(trouble) is error
    assert expected in str(trouble)


def test_a_context_is_a_plain_tar_of_what_dockerignore_leaves(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    for name in ("Dockerfile", "keep/a", "keep/é", "big", "x.log"):
        (tmp_path / name).write_text(name)
    (tmp_path / "keep" / "a").chmod(0o755)
    (tmp_path / ".dockerignore").write_text("# comment\nbig\n*.log\nDockerfile\n")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    with snapshot(tmp_path, tmp_path / "Dockerfile", 'LABEL "a"="b"') as (file, name):
        content = file.read()
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            members = {member.name: member for member in tar.getmembers()}
            sent = tar.extractfile(name)
            assert sent
            assert sent.read() == b'Dockerfile\nLABEL "a"="b"\n'
    assert sorted(members) == [".dockerignore", name, "keep", "keep/a", "keep/é", "link"]
    assert members["link"].linkname == "/etc/passwd"
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}
    assert members["keep/a"].mode == 0o755
    # BuildKit takes a tar in the PAX format for a Dockerfile
    assert b"PAXHEADER" not in content
    assert b"PaxHeader" not in content


@pytest.mark.parametrize(
    ("dockerfile", "labels", "expected"),
    [
        (b"FROM x", {"a": "b", "c.d": "e f"}, 'LABEL "a"="b" "c.d"="e f"'),
        (b"FROM x", {"a": 'q"$x\\\ny'}, r'LABEL "a"="q\"\$x\\ y"'),
        (b"FROM x", {}, ""),
        (b"# escape=`\nFROM x", {"a": "b"}, ""),
        (b"#escape = \\\nFROM x", {"a": "b"}, 'LABEL "a"="b"'),
    ],
)
def test_all_labels_are_one_instruction(dockerfile: bytes, labels: dict[str, str], expected: str) -> None:
    assert label_instruction(dockerfile, labels) == expected


# -- pushing ---------------------------------------------------------------------------------------


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """A registry that has what this says, by tag."""
    there: dict[str, str | None] = {}

    async def digest(self: Registry, path: str, reference: str) -> str | None:
        return there.get(reference)

    async def check(self: Registry, path: str) -> None:
        pass

    monkeypatch.setattr(Registry, "digest", digest)
    monkeypatch.setattr(Registry, "check_login", check)
    monkeypatch.setattr(push_module, "FURTHER_TRIES", (0.0, 0.0))
    return there


PUSHED = [{"status": "Pushed", "id": "1"}, {"aux": {"Tag": "t1", "Digest": DIGEST, "Size": 5}}]


def push(**fields: object) -> Push:
    return Push.model_validate({"image": f"{NAME}:t1", "secret": "reg", **fields})


async def test_a_push_succeeds_when_engine_and_registry_agree(
    ctx: FakeContext, engine: FakeEngine, registry: dict[str, str | None]
) -> None:
    engine.answers["/push"] = (200, PUSHED)
    registry["t1"] = DIGEST
    outputs = await push().run(ctx)
    assert outputs.digest_ref == f"{NAME}:t1@{DIGEST}"
    assert engine.header("/push", "X-Registry-Auth")["username"] == "joe"
    assert ctx.effects[0].intent == {"image": "sha256:1", "repository": NAME, "tag": "t1"}


@pytest.mark.parametrize("there", [None, "sha256:" + "e" * 64])
async def test_a_push_is_not_green_when_the_registry_has_something_else(
    ctx: FakeContext, engine: FakeEngine, registry: dict[str, str | None], there: str | None
) -> None:
    engine.answers["/push"] = (200, PUSHED)
    registry["t1"] = there
    with pytest.raises(StageFailed, match=rf"says it pushed {NAME}:t1 as {DIGEST}, but reg\.example:5000 has"):
        await push().run(ctx)
    assert [effect.value for effect in ctx.effects] == [None]


@pytest.mark.parametrize(
    ("items", "error", "message", "tries"),
    [
        ([{"errorDetail": {"message": "denied: requested access to the resource is denied"}, "error": "x"}], StageFailed, "denies the push of .* to 'joe'", 1),
        ([{"error": "unauthorized: authentication required"}], StageFailed, "denies the push", 1),
        ([{"error": "received unexpected HTTP status: 503 Service Unavailable"}], StageErrored, "broke off: .*503", 3),
        ([{"error": "dial tcp: connect: connection refused"}], StageErrored, "broke off", 3),
        ([{"status": "Pushed", "id": "1"}], StageErrored, "ended without a digest", 3),
        ([{"error": "blob upload invalid"}], StageFailed, "did not take .*: blob upload invalid", 1),
    ],
)  # fmt: skip
async def test_an_error_in_the_stream_fails_the_push(
    ctx: FakeContext,
    engine: FakeEngine,
    registry: dict[str, str | None],
    items: list[Any],
    error: type[Exception],
    message: str,
    tries: int,
) -> None:
    engine.answers["/push"] = (200, items)
    registry["t1"] = DIGEST
    with pytest.raises(error, match=message):
        await push().run(ctx)
    assert len([path for path, _, _ in engine.asked if "/push" in path]) == tries


async def test_layers_are_progress_and_one_line_each(
    ctx: FakeContext, engine: FakeEngine, registry: dict[str, str | None]
) -> None:
    chunks = [
        {"status": "Pushing", "id": layer, "progressDetail": {"current": part, "total": 2_000_000}}
        for part in range(0, 2_000_001, 500_000)
        for layer in ("a", "b")
    ]
    engine.answers["/push"] = (
        200,
        [*chunks, {"status": "Pushed", "id": "a"}, {"status": "Pushed", "id": "b"}, *PUSHED[1:]],
    )
    registry["t1"] = DIGEST
    await push().run(ctx)
    assert ctx.text.count("\n") == 3
    assert ctx.progressed[-1] == ("2 layers, 4 of 4 MB", 1.0)


async def test_an_image_without_any_login_is_pushed_with_the_users_own(
    ctx: FakeContext, engine: FakeEngine, registry: dict[str, str | None]
) -> None:
    engine.answers["/push"] = (200, PUSHED)
    registry["t1"] = DIGEST
    await push(secret="").run(ctx)
    assert engine.header("/push", "X-Registry-Auth")["username"] == "own"


def test_a_denied_push_without_a_login_says_where_to_name_one() -> None:
    trouble = push_trouble("denied", parse_reference(f"{NAME}:t1"), None)
    assert "without a login: name one in `secret:`" in str(trouble)


# -- no engine -------------------------------------------------------------------------------------


async def test_without_an_engine_it_names_the_address_and_the_way_out(ctx: FakeContext, tmp_path: Path) -> None:
    (ctx.workspace / "Dockerfile").touch()
    ctx.env["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"
    message = (
        rf"no docker engine at unix://{tmp_path}/none\.sock: there is no such socket; start it, or set DOCKER_HOST"
    )
    with pytest.raises(StageErrored, match=message):
        await image().run(ctx)
    with pytest.raises(StageErrored, match=message):
        await push().run(FakeContext(tmp_path, env=ctx.env, secrets={"reg": Login("a", "b")}))


async def test_a_socket_that_nobody_listens_on_is_told(ctx: FakeContext, tmp_path: Path) -> None:
    (ctx.workspace / "Dockerfile").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead.sock"))
    ctx.env["DOCKER_HOST"] = f"unix://{tmp_path}/dead.sock"
    with pytest.raises(StageErrored, match="the connection is refused"):
        await image().run(ctx)


async def test_no_permission_on_the_socket_says_what_to_do(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    (ctx.workspace / "Dockerfile").touch()
    ctx.env["DOCKER_HOST"] = "unix:///run/some.sock"

    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    message = r"no permission on /run/some\.sock: add this user to the group 'docker', or set DOCKER_HOST"
    with pytest.raises(StageErrored, match=message):
        await image().run(ctx)


@pytest.mark.parametrize("host", ["nonsense://x", "tcp://"])
async def test_a_docker_host_that_is_none_is_told(ctx: FakeContext, host: str) -> None:
    (ctx.workspace / "Dockerfile").touch()
    ctx.env["DOCKER_HOST"] = host
    with pytest.raises(StageErrored, match=f"no docker engine answers at {host}.*set DOCKER_HOST"):
        await image().run(ctx)


def test_insecure_registries_are_read_from_the_engine(ctx: FakeContext, engine: FakeEngine) -> None:
    config = {
        "IndexConfigs": {"a:1": {"Secure": False}, "b:1": {"Secure": True}},
        "InsecureRegistryCIDRs": ["10.0.0.0/8"],
    }
    engine.answers["/info"] = (200, [{"RegistryConfig": config}])
    assert Engine(ctx.env).insecure() == Insecure(frozenset({"a:1"}), ("10.0.0.0/8",))


# -- old images ------------------------------------------------------------------------------------


def kept(*runs: str, **more: str) -> list[Kept]:
    images = [Kept(f"sha256:{run}", run, frozenset({f"{NAME}:{run}"})) for run in runs]
    return images + [Kept(identity, run) for identity, run in more.items()]


@pytest.mark.parametrize(
    ("runs", "keep", "protect", "expected"),
    [
        ("12345", 3, (), "12"),
        ("12345", 5, (), ""),
        ("54321", 3, (), "21"),
        ("12345", 0, (), "1234"),
        ("12345", 2, (f"{NAME}:1",), "23"),
        ("12345", 2, ("sha256:2",), "13"),
        ("44555", 1, (), "44"),
        ("", 3, (), ""),
        ("1234", 2, (), "123"),
    ],
)
def test_images_of_the_newest_runs_stay(runs: str, keep: int, protect: tuple[str, ...], expected: str) -> None:
    assert [image.run for image in outdated(kept(*runs), "5", keep, protect)] == list(expected)


def test_a_reference_is_a_name_with_a_tag() -> None:
    assert str(Reference(NAME, "t1")) == f"{NAME}:t1"
