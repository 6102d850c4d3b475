"""When pods are registered, by what a registry says of them: tables, and short histories."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import pytest

from pipeline.stage import CauseKind, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.registered_in import InNacos, services_of
from stages.clients.kubernetes.registration import Registration, begin, unregistered
from stages.clients.kubernetes.rollout import Verdict
from stages.clients.kubernetes.scene import Around, Scene
from stages.clients.kubernetes.steady import Sightings
from stages.clients.nacos import Instance, Nacos, read_instances
from tests.stages.test_nacos import recorded
from tests.support.context import FakeContext

WEB = Ref("apps/v1", "StatefulSet", "his", "web")


def pod(number: int, ip: str, *, ready: bool = True, phase: str = "Running", revision: str = "2") -> Object:
    return {
        "metadata": {
            "name": f"web-{number}",
            "uid": f"web-{number}-{revision}",
            "labels": {"controller-revision-hash": revision},
            "ownerReferences": [{"uid": "web"}],
        },
        "spec": {"containers": [{"name": "app", "image": "r/web:2"}]},
        "status": {
            "phase": phase,
            "podIP": ip,
            "podIPs": [{"ip": ip}, {"ip": f"fd00::{number}"}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def at(ip: str, port: int = 80, *, healthy: bool = True, enabled: bool = True) -> Instance:
    return Instance(ip, port, healthy, enabled)


ONE, TWO = pod(1, "10.0.0.1"), pod(2, "10.0.0.2")


@pytest.mark.parametrize(
    ("instances", "old", "port", "missing", "stale"),
    [
        ([at("10.0.0.1"), at("10.0.0.2")], "", 0, [], []),
        ([at("10.0.0.1"), at("fd00::2")], "", 0, [], []),
        ([at("10.0.0.1")], "", 0, ["10.0.0.2, fd00::2 is missing"], []),
        ([], "", 0, ["10.0.0.1, fd00::1 is missing", "10.0.0.2, fd00::2 is missing"], []),
        ([at("10.0.0.1"), at("10.0.0.2", healthy=False)], "", 0, ["there is 10.0.0.2:80 (unhealthy)"], []),
        ([at("10.0.0.1"), at("10.0.0.2", enabled=False)], "", 0, ["there is 10.0.0.2:80 (disabled)"], []),
        ([at("10.0.0.1", 81), at("10.0.0.2", 80)], "", 80, ["there is 10.0.0.1:81 (healthy)"], []),
        ([at("10.0.0.1", 81), at("10.0.0.2", 80)], "", 0, [], []),
        ([at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.9")], "10.0.0.9", 0, [], ["10.0.0.9:80 (healthy)"]),
        ([at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.9", healthy=False)], "10.0.0.9", 0, [], ["10.0.0.9:80 (unhealthy)"]),
        ([at("10.0.0.1"), at("10.0.0.2"), at("192.168.1.7")], "10.0.0.9", 0, [], []),
        ([at("10.0.0.1"), at("10.0.0.2")], "10.0.0.1", 0, [], []),
    ],
)  # fmt: skip
def test_every_new_pod_must_be_there_and_healthy_and_no_old_one_at_all(
    instances: list[Instance], old: str, port: int, missing: list[str], stale: list[str]
) -> None:
    lacking, left = unregistered([ONE, TWO], frozenset([old]), instances, port)
    assert ([words for _, words in lacking], list(map(str, left))) == (missing, stale)


def test_a_pod_that_is_not_ready_need_not_be_there_and_one_that_was_evicted_must_not() -> None:
    starting, evicted = pod(2, "10.0.0.2", ready=False), pod(3, "10.0.0.3", ready=False, phase="Failed")
    old = frozenset(["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    found = [at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3")]
    assert unregistered([ONE, starting, evicted], old, found) == ([], [at("10.0.0.3")])
    assert unregistered([ONE, starting, evicted], old, found[:1]) == ([], [])


@pytest.mark.parametrize(
    ("answer", "missing", "stale"),
    [
        ("unknown", ["10.244.0.9, fd00::1 is missing"], []),
        ("old", ["10.244.0.9, fd00::1 is missing"], ["10.244.0.4:9200 (healthy)"]),
        ("old-unhealthy", [], ["10.244.0.4:9200 (unhealthy)"]),
        ("new", [], []),
        ("new-disabled", ["10.244.0.9, fd00::1 is missing"], []),
    ],
)
def test_what_a_real_server_said_in_a_rollout_is_judged(answer: str, missing: list[str], stale: list[str]) -> None:
    lacking, left = unregistered(
        [pod(1, "10.244.0.9")], frozenset(["10.244.0.4"]), read_instances(recorded(answer)), 9200
    )
    assert ([words for _, words in lacking], list(map(str, left))) == (missing, stale)


# -- which workloads, under which names ------------------------------------------------------------


def manifest(name: str, kind: str = "Deployment") -> Manifest:
    version = "v1" if kind == "Service" else "apps/v1"
    metadata = {"name": name, "namespace": "his"}
    return Manifest({"apiVersion": version, "kind": kind, "metadata": metadata}, "app.yml", 1)


def named(*manifests: Manifest, **fields: Any) -> dict[str, str]:
    given = InNacos(server="nacos", **fields)
    return {str(ref): service for ref, service in services_of(given, manifests).items()}


def test_every_workload_registers_under_its_own_name_unless_the_file_says_more() -> None:
    parts = [manifest("web"), manifest("db", "StatefulSet"), manifest("web", "Service"), manifest("once", "Job")]
    assert named(*parts) == {"Deployment his/web": "web", "StatefulSet his/db": "db"}
    assert named(*parts, workloads=("web",), service="his-web") == {"Deployment his/web": "his-web"}
    assert named(*parts, workloads=("sts/db",)) == {"StatefulSet his/db": "db"}


def test_a_workload_that_is_not_there_is_the_files_mistake() -> None:
    with pytest.raises(StageFailed, match=r"has no workload wbe \(did you mean 'web'\?\)") as error:
        named(manifest("web"), workloads=("wbe",))
    assert error.value.cause.kind is CauseKind.CONFIG
    with pytest.raises(StageFailed, match="no workload whose pods could register"):
        named(manifest("web", "Service"))


# -- a wait ----------------------------------------------------------------------------------------


@dataclass
class FakeNacos:
    """Knows what it is given, or fails with it."""

    known: dict[str, list[Instance]] | Exception = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "Nacos http://n"

    async def instances(self, services: list[str]) -> dict[str, list[Instance]]:
        if isinstance(self.known, Exception):
            raise self.known
        return {service: self.known.get(service, []) for service in services}

    async def services(self) -> list[str]:
        return self.names


class History:
    """The wait for two pods of `web`, look by look, by a clock that stands where it is put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, before: frozenset[str] = frozenset()) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(anyio, "current_time", lambda: self.seconds)
        self.nacos = FakeNacos()
        self.registration = Registration(cast("Nacos", self.nacos), {WEB: "his-web"}, {WEB: before})

    async def look(
        self, known: list[Instance] | Exception, *pods: Object, state: str = "done", after: float = 1
    ) -> Scene:
        self.seconds += after
        self.nacos.known = known if isinstance(known, Exception) else {"his-web": known}
        await self.registration.renew(closer=True)
        return self.judged(*pods, state=state)

    def judged(self, *pods: Object, state: str = "done") -> Scene:
        thing = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "spec": {"replicas": 2},
            "metadata": {"name": "web", "namespace": "his", "uid": "web"},
            "status": {"updateRevision": "2", "updatedReplicas": 2},
        }
        words = Verdict(cast("Any", state), "2 of 2 pods available")
        around = Around([], pods or [ONE, TWO], {}, datetime(2026, 5, 1, tzinfo=UTC), Sightings())
        return self.registration.judged(Scene(thing, words), around)


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> History:
    return History(monkeypatch)


async def test_what_is_done_is_done_only_when_it_is_registered(history: History) -> None:
    assert history.judged().summary == "2 of 2 pods available; Nacos http://n is asked"
    waits = await history.look([at("10.0.0.1")])
    assert waits.verdict.state == "waiting"
    assert waits.summary == (
        "1 of 2 new pods are registered as his-web in Nacos http://n; pod web-2: 10.0.0.2, fd00::2 is missing"
    )
    done = await history.look([at("10.0.0.1"), at("10.0.0.2")])
    assert done.verdict == Verdict("done", "2 of 2 pods available, registered as his-web in Nacos http://n")


async def test_what_is_not_done_by_its_own_words_is_left_as_it_is(history: History) -> None:
    assert (await history.look([], state="waiting")).verdict == Verdict("waiting", "2 of 2 pods available")


async def test_pods_from_before_the_deploy_must_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(monkeypatch, frozenset(["10.0.0.8"]))
    waits = await history.look([at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.8", healthy=False)])
    assert waits.summary == (
        "2 of 2 new pods are registered as his-web in Nacos http://n; 10.0.0.8:80 (unhealthy) of old pods is still there"
    )
    assert (await history.look([at("10.0.0.1"), at("10.0.0.2")])).verdict.state == "done"


async def test_a_pod_that_was_seen_and_is_no_more_must_be_gone_too(history: History) -> None:
    dying = pod(0, "10.0.0.7", revision="1")
    await history.look([], ONE, dying, state="waiting")
    assert (await history.look([at("10.0.0.1")], ONE)).summary == "1 of its 2 new pods have been seen"
    assert (await history.look([at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.7")])).verdict.state == "waiting"


async def test_an_address_that_is_nobodys_pod_is_somebody_elses(history: History) -> None:
    assert (await history.look([at("10.0.0.1"), at("10.0.0.2"), at("192.168.1.7")])).verdict.state == "done"


async def test_the_evidence_is_all_that_is_registered_or_which_services_there_are(history: History) -> None:
    (trouble,) = (await history.look([at("10.0.0.1"), at("172.17.0.2")])).troubles
    assert str(trouble) == (
        "pod web-2, container app, image r/web:2: it is not registered as his-web in Nacos http://n: "
        "10.0.0.2, fd00::2 is missing"
    )
    assert trouble.detail == "Nacos http://n has as his-web: 10.0.0.1:80 (healthy), 172.17.0.2:80 (healthy)"
    history.nacos.names = ["web", "gateway"]
    assert (await history.look([])).troubles[
        0
    ].detail == "Nacos http://n has no service his-web; there are: web, gateway"


async def test_a_registry_that_is_silent_for_long_is_believed_no_more(history: History) -> None:
    both = [at("10.0.0.1"), at("10.0.0.2")]
    await history.look(both)
    down = StageErrored("Nacos http://n does not answer: refused")
    assert (await history.look(down)).verdict.state == "done"
    assert (
        await history.look(down, after=20)
    ).summary == "2 of 2 pods available; Nacos http://n does not answer: refused"
    assert history.registration.silence == "Nacos http://n does not answer: refused"
    assert (await history.look(both)).verdict.state == "done"
    assert history.registration.silence == ""


async def test_a_later_wait_of_the_same_deploy_asks_anew(history: History) -> None:
    await history.look(StageFailed("Nacos http://n refused the login", kind=CauseKind.CONFIG), state="waiting")
    history.seconds += 60
    history.nacos.known = StageErrored("down")
    with anyio.move_on_after(0.05):
        await history.registration.follow()
    assert history.judged().summary == "2 of 2 pods available; down"
    assert history.registration.concerns([WEB])
    assert not history.registration.concerns([replace(WEB, name="api")])


async def test_a_refusal_that_stays_ends_the_wait_whatever_the_pods_do(history: History) -> None:
    refused = StageFailed("Nacos http://n refused the login", kind=CauseKind.CONFIG)
    assert (await history.look(refused, state="waiting")).verdict.state == "waiting"
    await history.look([at("10.0.0.1")], after=8)
    assert (await history.look(refused, state="waiting", after=8)).verdict.state == "waiting", "it had answered since"
    with pytest.raises(StageFailed, match="refused the login"):
        await history.look(refused, state="waiting", after=11)


def test_who_may_not_see_pods_is_told_so(history: History) -> None:
    around = Around([], None, {}, datetime(2026, 5, 1, tzinfo=UTC), Sightings())
    thing = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "his", "uid": "w"},
    }
    scene = history.registration.judged(Scene(thing, Verdict("done", "")), around)
    assert scene.verdict == Verdict("failed", "`registered_in:` compares addresses of pods, and we may not list pods")
    other = replace(scene, thing={**thing, "kind": "Job"})
    assert history.registration.judged(other, around) is other


# -- before the deploy -----------------------------------------------------------------------------


class FakeCluster:
    """Has one workload, and the pods that it is given."""

    def __init__(self, *pods: Object) -> None:
        self.pods = pods

    async def get(self, ref: Ref) -> Object | None:
        return {"spec": {"selector": {"matchLabels": {"app": "web"}}}} if ref.name == "web" else None

    async def items(self, what: Any) -> tuple[list[Object], str]:
        return list(self.pods), "1"


async def test_the_pods_from_before_are_noted_once_for_all_attempts_of_a_run(tmp_path: Any) -> None:
    ctx = FakeContext(tmp_path)
    fields, parts = InNacos(server="nacos"), [manifest("web"), manifest("new")]
    for there in ([ONE], [TWO]):  # the second attempt finds the pods of the first
        found = await begin(ctx, cast("Cluster", FakeCluster(*there)), fields, parts)
        assert {ref.name: sorted(ips) for ref, ips in found.before.items()} == {
            "web": ["10.0.0.1", "fd00::1"],
            "new": [],
        }
