"""Which crashes are excused by what pods need: tables and short histories of what the cluster says."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import anyio
import pytest

from stages.clients.kubernetes.api import Collection
from stages.clients.kubernetes.diagnosis import Patience
from stages.clients.kubernetes.excuses import Excuses
from stages.clients.kubernetes.needs import Need, collections_of, meant, parse_need
from stages.clients.kubernetes.scene import Around, Scene, look
from stages.clients.kubernetes.steady import Sightings
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.watching import Mirror

NOW = datetime(2026, 5, 1, 12, 0, 0, tzinfo=UTC)
LONG_AGO = "2026-05-01T11:00:00Z"


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("mysql", Need("mysql")),
        ("svc/mysql", Need("mysql", "Service")),
        ("statefulset/mysql", Need("mysql", "StatefulSet")),
        ("StatefulSets/mysql", Need("mysql", "StatefulSet")),
        ("deploy/nacos", Need("nacos", "Deployment")),
        ("job/import", Need("import", "Job")),
    ],
)
def test_a_need_is_a_name_or_a_kind_and_a_name_as_kubectl_takes_it(text: str, need: Need) -> None:
    assert parse_need(text) == need


@pytest.mark.parametrize("text", ["", "/x", "svc/", "secret/x", "a/b/c"])
def test_what_names_no_need_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="write NAME or KIND/NAME, with one of the kinds deployment, statefulset"):
        parse_need(text)


# -- a namespace -----------------------------------------------------------------------------------


def workload(name: str, kind: str = "StatefulSet", replicas: int = 1, ready: int = 0, **status: Any) -> Any:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "his", "uid": name, "generation": 1},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": name}}, "spec": {}}},
        "status": {
            "observedGeneration": 1,
            "updateRevision": "1",
            **dict.fromkeys(("replicas", "updatedReplicas"), replicas),
            **dict.fromkeys(("readyReplicas", "availableReplicas"), ready),
            **status,
        },
    }


def service(name: str, **selector: str) -> Any:
    metadata = {"name": name, "namespace": "his", "uid": f"svc-{name}"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": selector}}


def pod(owner: str, state: dict[str, Any], restarts: int = 0, revision: str = "1") -> Any:
    running = "running" in state
    status = {"name": "app", "ready": running, "restartCount": restarts, "state": state}
    labels = {"controller-revision-hash": revision, "app": owner}
    return {
        "metadata": {
            "name": f"{owner}-0", "uid": f"{owner}-0", "labels": labels, "ownerReferences": [{"uid": owner}],
        },
        "spec": {"containers": [{"name": "app", "image": "r/app:1"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if running else "False"}],
            "containerStatuses": [status],
        },
    }  # fmt: skip


RUNNING = {"running": {"startedAt": LONG_AGO}}
PULLING = {"waiting": {"reason": "ErrImagePull", "message": "r/app:1: not found"}}
STARTING = {"waiting": {"reason": "ContainerCreating"}}


def crashed(owner: str, times: int) -> Any:
    made = pod(owner, {"waiting": {"reason": "CrashLoopBackOff"}}, restarts=times - 1)
    made["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error"}}
    return made


@dataclass
class FakeMirror:
    """What is known of a namespace: lists by kind."""

    things: dict[str, list[Any]] = field(default_factory=dict)
    refused: dict[Collection, ApiError] = field(default_factory=dict)

    def objects(self, what: Collection) -> list[Any] | None:
        return self.things.get(what.kind, [])


class History:
    """One deploy's wait for the pods of `web`, look by look, by a clock that stands where it is put."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *needs: str) -> None:
        self.seconds = 0.0
        monkeypatch.setattr(anyio, "current_time", lambda: self.seconds)
        self.mirror, self.patience = FakeMirror(), Patience()
        self.followed: list[Collection] = []
        wanted = [parse_need(text) for text in needs]
        self.excuses = Excuses(wanted, cast("Mirror", self.mirror), self.patience, self.followed.append)
        self.around = Around([], [], {}, NOW, Sightings())

    def look(self, web: Any, *pods: Any, after: float = 1, **things: Any) -> Scene:
        """Look at `web`, the Deployment's pod, while there are these things and pods beside it."""
        self.seconds += after
        self.mirror.things = {**things, "Pod": list(pods)}
        self.excuses.look_again()
        thing = workload("web")
        return self.excuses.heard(look(thing, thing, replace(self.around, pods=[web])), self.around)

    def spent(self, scene: Scene) -> bool:
        """Whether the crashes end the wait."""
        return self.patience.exhausted(scene.troubles, self.seconds) is not None

    @property
    def lacking(self) -> list[tuple[str, str]]:
        stood = self.excuses.lacking(look(workload("web"), workload("web"), self.around).ref)
        return [(str(each.need), each.state) for each in stood]


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> History:
    return History(monkeypatch, "mysql")


def many_crashes(history: History, *pods: Any, **things: Any) -> Scene:
    """A minute and more of crashes."""
    for times in range(1, 8):
        scene = history.look(crashed("web", times), *pods, after=20, **things)
        assert not history.spent(scene)
    return scene


def ends(history: History, *pods: Any, **things: Any) -> bool:
    """Whether three crashes within a minute end the wait."""
    return [history.spent(history.look(crashed("web", n), *pods, after=20, **things)) for n in (1, 2, 3)][-1]


def test_without_a_need_three_crashes_and_half_a_minute_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(monkeypatch)
    assert ends(history)
    assert history.followed == []


def test_nothing_is_asked_for_before_the_first_crash(history: History) -> None:
    history.look(pod("web", STARTING))
    assert history.followed == []
    history.look(crashed("web", 1))
    assert history.followed == collections_of([Need("mysql")], "his")


def test_while_a_need_is_on_its_way_crashes_do_not_count_and_the_line_says_for_whom(history: History) -> None:
    scene = many_crashes(history, pod("mysql", STARTING), StatefulSet=[workload("mysql")])
    assert scene.summary == (
        "0 of 1 pods ready; waiting for mysql (StatefulSet his/mysql: 0 of 1 pods ready; "
        "pod mysql-0: it is not started: ContainerCreating), without which pod web-0 crashes"
    )
    assert history.lacking == [("mysql", "coming")]


@pytest.mark.parametrize(
    ("things", "words"),
    [
        ({}, "there is no workload or Service of that name"),
        ({"Deployment": [workload("mysql", "Deployment", 0)]}, "Deployment his/mysql: it is scaled to 0"),
        ({"Service": [service("mysql", app="db")]}, "Service his/mysql: no pod behind it is ready"),
        (
            {"Service": [service("mysql", app="db")], "StatefulSet": [workload("db")]},
            "StatefulSet his/db: 0 of 1 pods available",
        ),
    ],
)
def test_what_somebody_may_still_bring_up_is_waited_for(
    history: History, things: dict[str, list[Any]], words: str
) -> None:
    assert f"waiting for mysql ({words})" in many_crashes(history, **things).summary


@pytest.mark.parametrize(
    "things",
    [
        {"StatefulSet": [workload("mysql", ready=1)]},
        {"StatefulSet": [workload("mysql", replicas=3, ready=1)]},
        {"Service": [service("mysql", app="mysql")]},
        {"Service": [service("mysql", app="mysql")], "StatefulSet": [workload("mysql-primary")]},
    ],
)
def test_a_need_with_a_pod_that_serves_excuses_nothing(history: History, things: dict[str, list[Any]]) -> None:
    assert ends(history, pod("mysql", RUNNING), **things)


def test_a_service_that_leads_out_of_the_cluster_excuses_nothing(history: History) -> None:
    outside = {"Service": [service("mysql")]}
    assert ends(history, **outside)


def test_a_pod_of_an_older_revision_serves_as_well(history: History) -> None:
    old, new = pod("mysql", RUNNING, revision="0"), pod("mysql", PULLING)
    history.look(crashed("web", 3), old, new, StatefulSet=[workload("mysql", replicas=2, ready=1)])
    assert history.lacking == []


def test_a_need_that_fails_is_the_cause(history: History) -> None:
    scene = history.look(crashed("web", 5), pod("mysql", PULLING), StatefulSet=[workload("mysql")])
    assert history.lacking == [("mysql", "failed")]
    (lost,) = history.excuses.lacking(scene.ref)
    assert lost.trouble is not None
    assert "there is no such image" in lost.trouble.message


def test_a_need_that_only_crashes_makes_no_progress(history: History) -> None:
    mysql = {"StatefulSet": [workload("mysql")]}
    found = []
    for times in range(1, 5):
        history.look(crashed("web", 9), crashed("mysql", times), after=20, **mysql)
        found.append(history.lacking[0][1])
    assert found == ["coming", "coming", "failed", "failed"]


def test_when_the_need_is_up_crashes_count_anew(history: History) -> None:
    mysql = {"StatefulSet": [workload("mysql")]}
    many_crashes(history, pod("mysql", STARTING), **mysql)
    up = pod("mysql", RUNNING)
    for times in (7, 8, 9):
        fresh = history.look(crashed("web", times), up, after=20, **mysql)
        assert not history.spent(fresh)
    assert fresh.troubles[0].message == ("it crashed with exit code 1, 9 times so far, 2 of them since mysql is up")
    assert history.spent(history.look(crashed("web", 10), up, after=20, **mysql)), "3 crashes, and half a minute"


def test_however_fast_it_crashes_then_half_a_minute_is_left_from_when_the_need_was_up(history: History) -> None:
    mysql = {"StatefulSet": [workload("mysql")]}
    many_crashes(history, pod("mysql", STARTING), **mysql)
    for times in (8, 9, 10, 10):
        assert not history.spent(history.look(crashed("web", times), pod("mysql", RUNNING), after=3, **mysql))


def test_a_need_that_goes_down_again_excuses_again(history: History) -> None:
    mysql = {"StatefulSet": [workload("mysql")]}
    history.look(crashed("web", 2), pod("mysql", RUNNING), after=40, **mysql)
    history.look(crashed("web", 3), pod("mysql", STARTING), after=40, **mysql)
    assert not history.spent(history.look(crashed("web", 4), pod("mysql", RUNNING), after=40, **mysql))


@pytest.mark.parametrize("state", [PULLING, {"waiting": {"reason": "InvalidImageName"}}])
def test_only_a_crash_is_excused(history: History, state: dict[str, Any]) -> None:
    assert history.spent(history.look(pod("web", state)))
    assert history.followed == []


def test_a_crash_beside_a_missing_image_excuses_only_itself(history: History) -> None:
    both = crashed("web", 5)
    both["spec"]["containers"].append({"name": "side", "image": "r/side:1"})
    both["status"]["containerStatuses"].append({"name": "side", "ready": False, "restartCount": 0, "state": PULLING})
    scene = history.look(both, StatefulSet=[workload("mysql")])
    assert history.spent(scene)
    assert "no such image" in scene.summary


def test_a_missed_deadline_while_a_need_was_down_is_old_when_it_is_up(history: History) -> None:
    missed = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "lastUpdateTime": "12:00"}
    before = workload("web", "Deployment", updatedReplicas=0)
    now = workload("web", "Deployment", updatedReplicas=0, conditions=[missed])
    for each in (before, now):
        each["spec"]["template"]["spec"] = {"containers": []}
    owner = {"metadata": {"name": "s", "uid": "s", "ownerReferences": [{"uid": "web"}]}, "spec": now["spec"]}
    around = Around([owner], [crashed("s", 4)], {}, NOW, Sightings())
    assert look(now, before, around).verdict.state == "failed"
    assert history.excuses.heard(look(now, before, around), around).verdict.state == "waiting"


# -- several needs ---------------------------------------------------------------------------------


def test_a_need_that_crashes_is_excused_by_another_one_that_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart nacos crashes until mysql is up, and services crash until nacos is."""
    history = History(monkeypatch, "nacos", "mysql")
    both = {"StatefulSet": [workload("mysql"), workload("nacos")]}
    for times in range(1, 9):
        history.look(crashed("web", 9), crashed("nacos", times), pod("mysql", STARTING), after=20, **both)
        assert history.lacking == [("nacos", "coming"), ("mysql", "coming")]
    for times, state in ((9, "coming"), (10, "coming"), (11, "failed")):
        history.look(crashed("web", 9), crashed("nacos", times), pod("mysql", RUNNING), after=40, **both)
        assert history.lacking == [("nacos", state)], "counted anew from when mysql was up"


def test_two_needs_that_crash_do_not_excuse_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(monkeypatch, "nacos", "mysql")
    both = {"StatefulSet": [workload("mysql"), workload("nacos")]}
    for times in range(1, 5):
        history.look(crashed("web", 9), crashed("nacos", times), crashed("mysql", times), after=20, **both)
    assert {state for _, state in history.lacking} == {"failed"}


def test_what_waits_is_no_excuse_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(monkeypatch, "web")
    web = {"StatefulSet": [workload("web")]}
    assert ends(history, crashed("web", 3), **web)


def test_a_need_that_we_may_not_look_for_excuses_nothing(history: History) -> None:
    forbidden = ApiError(403, {"message": "no"}, "list StatefulSet in his")
    history.mirror.refused = {Collection("apps/v1", "StatefulSet", "his"): forbidden}
    assert ends(history)


def test_a_name_means_a_workload_before_a_service_and_a_kind_only_itself() -> None:
    things = {"Deployment": [workload("a", "Deployment")], "Service": [service("a", app="b")], "DaemonSet": []}
    assert [each["kind"] for each in meant(Need("a"), things)] == ["Deployment"]
    assert [each["kind"] for each in meant(Need("a", "Service"), things)] == ["Service"]
    assert meant(Need("a", "DaemonSet"), things) == []


def test_before_it_is_known_what_there_is_nothing_is_decided_and_nothing_excused(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unknown:
        unknown.setattr(FakeMirror, "objects", lambda self, what: None)
        assert not history.spent(history.look(crashed("web", 5)))
        assert history.lacking == []
    assert ends(history, pod("mysql", RUNNING), StatefulSet=[workload("mysql", ready=1)])
