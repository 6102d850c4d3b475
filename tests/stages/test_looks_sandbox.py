"""What the real registry and docker engine say before anything is built, and that they keep nothing of it."""

import json
import urllib.request
from base64 import b64encode
from uuid import uuid4

import pytest

from pipeline.stage import Severity, StageErrored, StageFailed
from sandbox import Sandbox
from stages.catalog import kind
from stages.image import Image
from stages.push import Push
from tests.support.context import FakeContext

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(120, func_only=True)]


@pytest.fixture
def repository(world: Sandbox) -> str:
    return f"{world.registry}/looks/{uuid4().hex[:12]}"


def catalog(world: Sandbox) -> list[str]:
    pair = b64encode(f"{world.registry_user}:{world.registry_password}".encode()).decode()
    request = urllib.request.Request(f"http://{world.registry}/v2/_catalog?n=1000")
    request.add_header("Authorization", f"Basic {pair}")
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        found: list[str] = json.loads(answer.read())["repositories"]
    return found


def stored(world: Sandbox, repository: str) -> list[str]:
    """Everything that the registry keeps of a repository on its disk."""
    name = repository.partition("/")[2]
    return [str(path) for path in (world.state / "registry").rglob(f"{name}/*")]


async def test_the_right_to_push_is_told_and_the_registry_keeps_nothing(
    real: FakeContext, world: Sandbox, repository: str
) -> None:
    examined = await Push(image=f"{repository}:1", secret="registry").preflight(real)
    assert (examined.findings, examined.checked) == ((), [f"may push to {repository}"])
    assert examined.touches == {f"{repository}:1": "absent"}
    assert repository.partition("/")[2] not in catalog(world)
    assert stored(world, repository) == []


async def test_a_wrong_password_is_told_with_the_secret(real: FakeContext, world: Sandbox, repository: str) -> None:
    with pytest.raises(StageFailed, match=r"refused the login 'pipe' of the secret 'wrong' \(401\)"):
        await Push(image=f"{repository}:1", secret="wrong").preflight(real)


async def test_a_registry_that_is_down_is_an_outage(real: FakeContext) -> None:
    with pytest.raises(StageErrored, match=r"the registry 127\.0\.0\.1:1 does not answer"):
        await Push(image="127.0.0.1:1/x:1", secret="registry").preflight(real)


@pytest.mark.parametrize(
    ("base", "severity"),
    [
        ("busybox:1", None),
        ("REGISTRY/no/such:1", Severity.FAILS),
        ("127.0.0.1:1/out/of/reach:1", Severity.UNKNOWN),  # the engine may reach it
    ],
)
async def test_a_base_image_is_looked_for_in_the_engine_and_in_its_registry(
    real: FakeContext, world: Sandbox, repository: str, base: str, severity: Severity | None
) -> None:
    base = base.replace("REGISTRY", world.registry)
    (real.workspace / "Dockerfile").write_text(f"FROM {base}\n")
    examined = await Image(image=repository, secret="registry").preflight(real)
    assert [(each.about, each.severity) for each in examined.findings] == ([(base, severity)] if severity else [])


async def test_a_dockerfile_that_is_not_in_the_sources_fails_or_only_may_when_a_stage_before_could_make_it(
    real: FakeContext, repository: str
) -> None:
    (finding,) = (await Image(image=repository, context="app").preflight(real)).findings
    assert (finding.severity, finding.cause.message) == (Severity.FAILS, "there is no app/Dockerfile in the sources")
    real.earlier = {"compile": kind("maven")}
    (finding,) = (await Image(image=repository, context="app").preflight(real)).findings
    assert finding.severity is Severity.MAY_FAIL
