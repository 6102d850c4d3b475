"""`uses: image` and `uses: push` with a real engine and a real registry."""

import base64
import json
import os
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.stage import Login, StageErrored, StageFailed
from sandbox import Sandbox
from stages.clients.docker import Engine, prune
from stages.image import Image, ImageOutputs
from stages.push import Push
from tests.support.context import FakeContext

pytestmark = pytest.mark.sandbox


def dockerfile(ctx: FakeContext, *lines: str, folder: str = ".") -> None:
    path = ctx.workspace / folder / "Dockerfile"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(("FROM busybox:1", *lines)) + "\n")


@pytest.fixture
def name(world: Sandbox, real: FakeContext) -> str:
    return f"{world.registry}/test/{real.run.pipeline}"


def image(name: str, **fields: object) -> Image:
    return Image.model_validate({"image": name, "tag": "t1", **fields})


async def built(ctx: FakeContext, name: str, **fields: object) -> ImageOutputs:
    dockerfile(ctx, f"RUN echo {name} > /file")
    return await image(name, **fields).run(ctx)


def registry(world: Sandbox, path: str) -> tuple[int, str]:
    """Status and digest that the registry answers, asked past our own client."""
    connection = HTTPConnection(world.registry, timeout=10)
    login = base64.b64encode(f"{world.registry_user}:{world.registry_password}".encode()).decode()
    accept = "application/vnd.docker.distribution.manifest.v2+json"
    connection.request("HEAD", f"/v2/{path}", headers={"Authorization": f"Basic {login}", "Accept": accept})
    answer = connection.getresponse()
    connection.close()
    return answer.status, answer.getheader("Docker-Content-Digest", "")


# -- building --------------------------------------------------------------------------------------


async def test_an_image_is_built_and_says_which_run_made_it(real: FakeContext, name: str, docker: Any) -> None:
    real.env["GIT_COMMIT"] = "c" * 40
    (real.workspace / "data").write_text("hello")
    dockerfile(real, "ARG GREETING", "COPY data /data", 'RUN echo "$GREETING"')
    outputs = await image(name, args={"GREETING": "good morning"}, labels={"own": "x $HOME"}).run(real)
    found = docker.inspect_image(f"{name}:t1")
    assert outputs == ImageOutputs(ref=f"{name}:t1", id=found["Id"], repository=name, tag="t1")
    labels = found["Config"]["Labels"]
    assert (
        labels
        | {
            "own": "x $HOME",
            "pipe.run": real.run.id,
            "pipe.pipeline": real.run.pipeline,
            "pipe.number": "7",
            "pipe.stage": "stage",
            "pipe.commit": "c" * 40,
            "org.opencontainers.image.revision": "c" * 40,
        }
        == labels
    )
    assert "good morning" in real.text
    assert "Step 4/" in real.text
    assert any(text.startswith("Step 3/") for text, _ in real.progressed)


async def test_the_output_of_a_build_is_live(real: FakeContext, name: str) -> None:
    dockerfile(real, "RUN echo early; sleep 3; echo late")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(image(name).run, real)
        with anyio.fail_after(20):
            while "\nearly" not in real.text:
                await anyio.sleep(0.05)
        assert "\nlate" not in real.text


async def test_a_long_silence_is_no_reason_to_hang_up(
    real: FakeContext, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.clients.docker.engine.CONNECT_LIMIT", 1)
    monkeypatch.setattr("stages.clients.docker.engine.ANSWER_LIMIT", 1)
    dockerfile(real, "RUN sleep 4")
    await image(name).run(real)


async def test_what_dockerignore_names_stays_out(real: FakeContext, name: str) -> None:
    (real.workspace / "big").mkdir()
    (real.workspace / "big" / "file").write_text("x")
    (real.workspace / "link").symlink_to("/etc/passwd")
    (real.workspace / ".dockerignore").write_text("# comment\nbig\n")
    dockerfile(real, "COPY . /all", "RUN ls -A /all | tr '\\n' ' '; readlink /all/link")
    await image(name).run(real)
    assert " .dockerignore Dockerfile link /etc/passwd" in " ".join(real.text.split())


async def test_what_pipe_adds_to_a_context_is_not_copied(real: FakeContext, name: str) -> None:
    dockerfile(real, "COPY . /all", "RUN ls -A /all | tr '\\n' '|'")
    await image(name).run(real)
    assert "\nDockerfile|" in real.text
    real.logged.clear()
    real.run = replace(real.run, id=real.run.id[::-1])
    await image(name).run(real)
    assert real.text.count("Using cache") == 2


async def test_the_stage_to_stop_at_is_labelled_too(real: FakeContext, name: str, docker: Any) -> None:
    (real.workspace / "Dockerfile").write_text("FROM busybox:1 AS first\nFROM first\nRUN false\n")
    await image(name, target="first").run(real)
    assert docker.inspect_image(f"{name}:t1")["Config"]["Labels"]["pipe.run"] == real.run.id


async def test_a_dockerfile_may_lie_outside_of_the_context(real: FakeContext, name: str) -> None:
    (real.workspace / "dist").mkdir()
    (real.workspace / "dist" / "page").write_text("x")
    dockerfile(real, "COPY page /page", folder="docker")
    await image(name, context="dist", file="../docker/Dockerfile").run(real)


async def test_a_step_that_fails_fails_the_stage_with_its_last_lines(real: FakeContext, name: str, docker: Any) -> None:
    dockerfile(real, "RUN echo the reason; exit 3")
    with pytest.raises(StageFailed, match=r"step 2/\d+ \(RUN echo the reason; exit 3\): exit code 3") as caught:
        await image(name).run(real)
    assert "the reason" in caught.value.cause.evidence
    assert docker.images(name) == []


async def test_a_missing_file_of_a_copy_is_named(real: FakeContext, name: str) -> None:
    dockerfile(real, "COPY target/app.jar /app.jar")
    with pytest.raises(
        StageFailed, match=r"\(COPY target/app\.jar /app\.jar\): 'target/app\.jar' is not in the context"
    ):
        await image(name).run(real)


async def test_an_instruction_that_docker_does_not_know_is_named(real: FakeContext, name: str) -> None:
    dockerfile(real, "COPPY a b")
    with pytest.raises(StageFailed, match=r"does not take the build.*line 2.*COPPY"):
        await image(name).run(real)


async def test_a_base_image_that_is_not_there_is_named(real: FakeContext, name: str, world: Sandbox) -> None:
    base = f"{world.registry}/lib/nothing:9"
    (real.workspace / "Dockerfile").write_text(f"FROM {base}\n")
    with pytest.raises(StageFailed, match=rf"the base image {base} is not in its registry"):
        await image(name, secret="registry").run(real)


async def test_a_base_image_that_needs_a_login_is_named(real: FakeContext, name: str, world: Sandbox) -> None:
    base = f"{world.registry}/lib/nothing:9"
    (real.workspace / "Dockerfile").write_text(f"FROM {base}\n")
    with pytest.raises(StageFailed, match=rf"the base image {base} cannot be pulled: its registry refuses the login"):
        await image(name, secret="wrong").run(real)


async def test_a_base_image_of_a_registry_that_is_down_is_no_fault_of_the_file(real: FakeContext, name: str) -> None:
    (real.workspace / "Dockerfile").write_text("FROM 127.0.0.1:1/nothing:1\n")
    with pytest.raises(StageErrored, match=r"the base image 127\.0\.0\.1:1/nothing:1 cannot be pulled: .*refused"):
        await image(name).run(real)


async def test_a_login_opens_a_private_base_image(real: FakeContext, name: str, docker: Any) -> None:
    base = f"{name}-base"
    await built(real, base)
    await Push(image=f"{base}:t1", secret="registry").run(real)
    docker.remove_image(f"{base}:t1", force=True)
    (real.workspace / "Dockerfile").write_text(f"FROM {base}:t1\n")
    await image(name, secret="registry").run(real)
    docker.remove_image(f"{base}:t1")


async def test_a_cancel_ends_the_build_and_its_container(real: FakeContext, name: str, docker: Any) -> None:
    dockerfile(real, f"RUN echo started; sleep 60; echo {name}")
    start = time.monotonic()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(image(name).run, real)
        while "\nstarted" not in real.text:
            await anyio.sleep(0.05)
        cancelled = time.monotonic()
        tasks.cancel_scope.cancel()
    assert time.monotonic() - cancelled < 3, time.monotonic() - start
    with anyio.fail_after(10):
        while any(name in container["Command"] for container in docker.containers(all=True)):
            await anyio.sleep(0.1)


async def test_ten_builds_and_pushes_at_once(real: FakeContext, world: Sandbox, name: str) -> None:
    async def one(number: int) -> None:
        folder = f"s{number}"
        dockerfile(real, f"RUN head -c 1000000 /dev/urandom > /blob; echo {number}", folder=folder)
        outputs = await image(f"{name}-{number}", context=folder).run(real)
        pushed = await Push(image=outputs.ref, secret="registry").run(real)
        path = outputs.repository.partition("/")[2]
        assert await anyio.to_thread.run_sync(registry, world, f"{path}/manifests/t1") == (200, pushed.digest)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(one, number)


# -- old images ------------------------------------------------------------------------------------


async def test_images_of_older_runs_go_unless_somebody_uses_them(real: FakeContext, name: str, docker: Any) -> None:
    runs = [f"{real.run.id[:-1]}{number}" for number in range(6)]
    for number, run in enumerate(runs):
        real.run = replace(real.run, id=run, number=number)
        dockerfile(real, f"RUN echo {number} > /number")
        await image(name, tag=f"r{number}", keep=0).run(real)
    container = docker.create_container(f"{name}:r0", "true")
    docker.tag(f"{name}:r0", name, "alias")
    protected = docker.inspect_image(f"{name}:r1")["Id"]
    try:
        removed = prune(real.env, real.run, name, keep=2, protect=[protected])
        left = sorted(tag for found in docker.images(name) for tag in found["RepoTags"])
        assert left == [f"{name}:{tag}" for tag in ("alias", "r0", "r1", "r4", "r5")]
        assert removed == 2
    finally:
        docker.remove_container(container)
    real.run = replace(real.run, id=real.run.id[::-1])
    await image(name, tag="r9", keep=1).run(real)
    assert [found["RepoTags"] for found in docker.images(name)] == [[f"{name}:r9"]]


# -- pushing ---------------------------------------------------------------------------------------


async def test_a_push_says_the_digest_that_the_registry_has(real: FakeContext, name: str, world: Sandbox) -> None:
    await built(real, name)
    outputs = await Push(image=f"{name}:t1", secret="registry").run(real)
    path = name.partition("/")[2]
    assert registry(world, f"{path}/manifests/t1") == (200, outputs.digest)
    assert (outputs.ref, outputs.digest_ref) == (f"{name}:t1", f"{name}:t1@{outputs.digest}")
    (effect,) = real.effects
    assert (effect.key, effect.value) == (f"push {name}:t1", {"digest": outputs.digest})
    assert world.registry_password not in real.text


async def test_an_image_gets_another_tag_by_its_digest(real: FakeContext, name: str, world: Sandbox) -> None:
    await built(real, name)
    first = await Push(image=f"{name}:t1", secret="registry").run(real)
    second = await Push(image=first.digest_ref, tag="latest", secret="registry").run(real)
    assert second.digest_ref == f"{name}:latest@{first.digest}"
    assert registry(world, f"{name.partition('/')[2]}/manifests/latest") == (200, first.digest)


async def test_ten_pushes_with_a_wrong_password_each_say_so_at_once(
    real: FakeContext, name: str, world: Sandbox
) -> None:
    await built(real, name)
    reasons: list[str] = []

    async def one() -> None:
        try:
            await Push(image=f"{name}:t1", secret="wrong").run(real)
        except StageFailed as failure:
            reasons.append(str(failure))

    start = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(one)
    login = f"'{world.registry_user}' of the secret 'wrong'"
    assert reasons == [f"the registry {world.registry} refused the login {login} (401)"] * 10
    assert time.monotonic() - start < 10
    assert real.effects == []
    assert registry(world, f"{name.partition('/')[2]}/manifests/t1")[0] == 404


async def test_the_users_own_logins_are_not_used_when_a_secret_is_named(
    real: FakeContext, name: str, world: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = base64.b64encode(f"{world.registry_user}:{world.registry_password}".encode()).decode()
    own = tmp_path / "config.json"
    own.write_text(json.dumps({"auths": {world.registry: {"auth": login}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    before = own.read_bytes()
    await built(real, name)
    with pytest.raises(StageFailed, match="refused the login"):
        await Push(image=f"{name}:t1", secret="wrong").run(real)
    (real.workspace / "Dockerfile").write_text(f"FROM {world.registry}/lib/nothing:9\n")
    with pytest.raises(StageFailed, match="its registry refuses the login"):
        await image(name, secret="wrong").run(real)
    await Push(image=f"{name}:t1").run(real)
    assert own.read_bytes() == before


async def test_without_any_login_it_says_that_one_is_wanted(
    real: FakeContext, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    await built(real, name)
    with pytest.raises(StageFailed, match=r"wants a login \(401\): declare one and name it in `secret:`"):
        await Push(image=f"{name}:t1").run(real)


async def test_an_image_that_nobody_built_is_named(real: FakeContext, name: str) -> None:
    with pytest.raises(
        StageFailed, match=rf"the docker engine at unix://\S+ has no image {name}:t1: was it built there"
    ):
        await Push(image=f"{name}:t1", secret="registry").run(real)


async def test_a_registry_that_is_down_is_told_at_once(real: FakeContext) -> None:
    name = f"127.0.0.1:1/test/{real.run.pipeline}"
    await built(real, name)
    start = time.monotonic()
    with pytest.raises(StageErrored, match=r"the registry 127\.0\.0\.1:1 does not answer: .*"):
        await Push(image=f"{name}:t1", secret="registry").run(real)
    assert time.monotonic() - start < 5


async def test_a_proven_push_is_not_repeated(real: FakeContext, name: str) -> None:
    await built(real, name)
    outputs = await Push(image=f"{name}:t1", secret="registry").run(real)
    real.proven = {f"push {name}:t1": {"digest": outputs.digest}}
    real.logged.clear()
    assert await Push(image=f"{name}:t1", secret="registry").run(real) == outputs
    assert "The push refers to" not in real.text
    assert real.effects[-1].value == {"digest": outputs.digest}


async def test_a_push_whose_proof_is_missing_is_settled_by_the_registry(real: FakeContext, name: str) -> None:
    outputs = await built(real, name)
    stage = Push(image=f"{name}:t1", secret="registry")
    intent = {"image": outputs.id, "repository": name, "tag": "t1"}
    assert (await stage.settle(real, f"push {name}:t1", intent)).state == "absent"
    pushed = await stage.run(real)
    settled = await stage.settle(real, f"push {name}:t1", intent)
    assert (settled.state, settled.proof) == ("done", {"digest": pushed.digest})
    await built(real, name, labels={"another": "image"})
    await stage.run(real)
    assert (await stage.settle(real, f"push {name}:t1", intent)).state == "absent"
    real.secrets = {"registry": Login("x", "y")}
    assert (await stage.settle(real, f"push {name}:t1", intent)).state == "unknown"


# -- engines ---------------------------------------------------------------------------------------


def test_a_user_without_permission_on_the_socket_is_told_what_to_do(world: Sandbox) -> None:
    engine = Engine({"DOCKER_HOST": world.docker_host})
    engine.image("none")  # what it imports may lie where only root can read
    os.seteuid(65534)
    try:
        with pytest.raises(StageErrored, match=r"no permission on .*: add this user to the group 'docker'"):
            engine.image("none")
    finally:
        os.seteuid(0)


def test_the_engine_says_which_registries_it_does_not_ask_for_a_certificate(world: Sandbox) -> None:
    insecure = Engine({"DOCKER_HOST": world.docker_host}).insecure()
    assert insecure.allows(world.registry)
    assert insecure.allows("127.0.0.1:5000")
    assert not insecure.allows("registry.example:5000")
