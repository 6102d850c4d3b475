"""Why a pod is not ready, and when waiting is no use any more."""

from typing import Any

import pytest

from stages.clients.kubernetes.diagnosis import (
    Patience,
    Trouble,
    claim_troubles,
    create_troubles,
    is_ready,
    pod_troubles,
)

SPEC = {
    "name": "app",
    "image": "r/web:2",
    "resources": {"limits": {"memory": "64Mi"}},
    "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}},
    "livenessProbe": {"exec": {"command": ["cat", "/alive"]}},
    "startupProbe": {"tcpSocket": {"port": 9}},
}


def pod(
    status: dict[str, Any] | None = None, phase: str = "Pending", init: dict[str, Any] | None = None, **conditions: Any
) -> Any:
    listed = [{"type": name, "status": "False", **given} for name, given in conditions.items()]
    body: dict[str, Any] = {"phase": phase, "conditions": listed}
    if status is not None:
        body["containerStatuses"] = [{"name": "app", "restartCount": 0, "ready": False, **status}]
    if init is not None:
        body["initContainerStatuses"] = [{"name": "prepare", "restartCount": 0, "ready": False, **init}]
    inits = [{"name": "prepare", "image": "r/prepare:1"}]
    return {
        "metadata": {"name": "web-1", "uid": "u1"},
        "spec": {"containers": [SPEC], "initContainers": inits},
        "status": body,
    }


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}, **more}


def ended(code: int, restarts: int = 0, **more: Any) -> dict[str, Any]:
    terminated = {"exitCode": code, "reason": "Error", **more}
    down = {"waiting": {"reason": "CrashLoopBackOff"}} if restarts else {"terminated": terminated}
    return {"state": down, "lastState": {"terminated": terminated}, "restartCount": restarts}


def event(reason: str, message: str, count: int = 1, last: str = "") -> dict[str, Any]:
    return {"reason": reason, "message": message, "type": "Warning", "count": count, "lastTimestamp": last}


RUNNING: dict[str, Any] = {"state": {"running": {}}, "started": True}
NOT_FOUND = 'failed to resolve reference "r/web:2": r/web:2: not found'
DENIED = "pull access denied, repository does not exist or may require authorization"
NO_HOST = "failed to do request: dial tcp: lookup r: no such host"


@pytest.mark.parametrize(
    ("status", "events", "sort", "said", "grace"),
    [
        (waiting("InvalidImageName", "bad"), [], "image", "InvalidImageName: bad", 0),
        (waiting("ErrImagePull", NOT_FOUND), [], "image", "there is no such image (ErrImagePull)", 0),
        (
            waiting("ErrImagePull", "401 Unauthorized"),
            [],
            "image",
            "access denied, as the pod names no pull secret (ErrImagePull)",
            5,
        ),
        (waiting("ErrImagePull", "no match for platform in manifest: not found"), [], "image", "architecture", 0),
        (waiting("ImagePullBackOff", "Back-off pulling"), [event("Failed", NOT_FOUND)], "image", "no such image", 0),
        (waiting("ImagePullBackOff", "Back-off pulling"), [event("Failed", NO_HOST)], "image", "no such host", 45),
        (waiting("ErrImagePull", NO_HOST), [], "image", "no such host", 45),
        (waiting("CreateContainerConfigError", 'configmap "c" not found'), [], "config", 'configmap "c" not found', 20),
        (waiting("CreateContainerConfigError", "couldn't find key k"), [], "config", "couldn't find key k", 20),
        (
            ended(128, 1, reason="StartError", message="exec: serve: not found"),
            [],
            "config",
            "exec: serve: not found",
            5,
        ),
        (waiting("CreateContainerError", "name in use"), [], "config", "name in use", 20),
        (waiting("ContainerCreating"), [], "starting", "ContainerCreating", None),
        (
            waiting("ContainerCreating"),
            [event("FailedMount", 'MountVolume.SetUp failed for volume "v" : secret "s" not found')],
            "config",
            'secret "s" not found',
            20,
        ),
        (
            waiting("ContainerCreating"),
            [event("FailedMount", "references non-existent secret key: k")],
            "config",
            "non-existent secret key",
            20,
        ),
        (waiting("ContainerCreating"), [event("FailedAttachVolume", "timed out")], "volume", "timed out", None),
        (ended(3), [], "crash", "it crashed with exit code 3, 1 time so far", None),
        (ended(3, 1), [], "crash", "it crashed with exit code 3, 2 times so far", None),
        (ended(3, 2), [], "crash", "it crashed with exit code 3, 3 times so far", 30),
        (ended(0, 2), [], "crash", "ended by itself with exit code 0", 30),
        (
            ended(137, 3, reason="OOMKilled"),
            [],
            "crash",
            "it was killed for using more memory than its limit of 64Mi, 4 times so far",
            30,
        ),
        (
            ended(137, 3),
            [],
            "crash",
            "it was killed (exit code 137), most likely for using more memory than its limit of 64Mi, 4 times so far",
            30,
        ),
        (ended(1, 2, message="exec format error"), [], "crash", "(exec format error)", 30),
        ({**ended(3, 5), "state": {"running": {}}}, [], "crash", "5 times so far", None),
        (RUNNING, [], "probe", "its readiness probe (GET :8080/health) does not pass yet", None),
        (
            RUNNING,
            [event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")],
            "probe",
            "GET :8080/health) does not pass: Readiness probe failed: HTTP probe failed with statuscode: 503",
            None,
        ),
        ({**RUNNING, "started": False}, [], "probe", "startup probe (connect to port 9)", None),
        (
            ended(137, 4),
            [
                event("Killing", "Container app failed liveness probe, will be restarted"),
                event("Unhealthy", "Liveness probe failed: cat: /alive"),
                event("Unhealthy", "Readiness probe failed: refused"),
            ],
            "probe",
            "restarted 4 times, as its liveness probe (run cat /alive) does not pass: Liveness probe failed: cat: /alive",
            None,
        ),
    ],
)
def test_a_container_in_trouble_says_what_and_how_long_it_may_last(
    status: dict[str, Any], events: list[Any], sort: str, said: str, grace: float | None
) -> None:
    first = pod_troubles(pod(status), events)[0]
    assert (first.sort, first.grace) == (sort, grace)
    assert said in first.message
    assert first.pod == "web-1"


def test_who_has_no_limit_of_memory_is_not_said_to_have_used_more() -> None:
    killed = pod(ended(137, 3))
    killed["spec"]["containers"] = [{key: value for key, value in SPEC.items() if key != "resources"}]
    assert "it crashed with exit code 137, 4 times so far" in pod_troubles(killed, [])[0].message


def test_a_ready_or_finished_pod_is_in_no_trouble() -> None:
    assert pod_troubles(pod(RUNNING, Ready={"status": "True"}), [event("Unhealthy", "old")]) == []
    assert pod_troubles(pod(ended(0), "Succeeded"), []) == []
    assert is_ready(pod(Ready={"status": "True"}))


def test_a_job_counts_its_failures_itself() -> None:
    assert pod_troubles(pod(ended(1, 5)), [], may_end=True)[0].grace is None
    assert pod_troubles(pod(ended(0)), [], may_end=True)[0].sort == "starting"


@pytest.mark.parametrize(
    ("init", "sort", "said"),
    [
        ({"state": {"running": {}}}, "starting", "has not ended yet"),
        (ended(4, 2), "crash", "exit code 4"),
        (waiting("ErrImagePull", NOT_FOUND), "image", "no such image"),
    ],
)
def test_an_init_container_is_named_and_may_take_its_time(init: dict[str, Any], sort: str, said: str) -> None:
    first = pod_troubles(pod(waiting("PodInitializing"), init=init), [])[0]
    assert (first.sort, first.container, first.image) == (sort, "prepare", "r/prepare:1")
    assert said in first.message


@pytest.mark.parametrize(
    ("status", "sort", "said", "grace"),
    [
        ({**RUNNING, "started": False}, "probe", "it runs, but its startup probe (connect to port 9)", None),
        (RUNNING, "probe", "it runs, but its readiness probe (GET :8080/health) does not pass yet", None),
        (ended(0, 2), "crash", "ended by itself with exit code 0, but it must keep running, 3 times so far", 30),
        (ended(4, 2), "crash", "exit code 4", 30),
        (waiting("PodInitializing"), "starting", "it is starting", None),
    ],
)
def test_a_sidecar_among_the_init_containers_must_keep_running(
    status: dict[str, Any], sort: str, said: str, grace: float | None
) -> None:
    made = pod(waiting("PodInitializing"), init=status)
    made["spec"]["initContainers"] = [{**SPEC, "name": "prepare", "restartPolicy": "Always"}]
    first = pod_troubles(made, [])[0]
    assert (first.sort, first.grace) == (sort, grace)
    assert said in first.message


def test_an_init_container_that_ended_well_is_no_trouble() -> None:
    done = {"state": {"terminated": {"exitCode": 0}}, "ready": True}
    first = pod_troubles(pod(waiting("ErrImagePull", NOT_FOUND), init=done), [])[0]
    assert first.container == "app"


UNMOUNTED = event("FailedMount", 'MountVolume.SetUp failed for volume "v" : secret "s" not found')


@pytest.mark.parametrize(
    ("made", "later"),
    [
        (pod(waiting("ContainerCreating"), PodReadyToStartContainers={"status": "True"}), []),
        (pod(waiting("PodInitializing"), init=RUNNING), []),
        (pod(waiting("PodInitializing"), init={"state": {"terminated": {"exitCode": 0}}, "ready": True}), []),
        (pod(waiting("PodInitializing"), init=ended(3, 1)), []),
        (pod(waiting("ContainerCreating")), [event("Pulling", "Pulling image")]),
        (pod(waiting("ErrImagePull")), [event("Pulling", "Pulling image"), event("Failed", "no such host")]),
        (pod(waiting("ContainerCreating")), [event("Started", "Started container")]),
    ],
)
def test_a_mount_that_has_succeeded_since_is_no_trouble(made: Any, later: list[Any]) -> None:
    assert "mounted" not in str([each.message for each in pod_troubles(made, [UNMOUNTED, *later])])


def test_a_mount_that_failed_last_is_a_trouble() -> None:
    made = pod(waiting("ContainerCreating"), PodReadyToStartContainers={"status": "False"})
    assert "mounted" in pod_troubles(made, [event("Pulled", "of before"), UNMOUNTED])[0].message


@pytest.mark.parametrize(
    ("made", "sort", "said"),
    [
        (pod(PodScheduled={"message": "0/1 nodes: Insufficient cpu"}), "schedule", "no node takes it: 0/1 nodes"),
        (
            pod(phase="Failed") | {"status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}},
            "ended",
            "Evic",
        ),
        (pod(), "starting", "it is starting"),
        (
            pod({**RUNNING, "ready": True}, ContainersReady={"status": "True"}, Ready={"message": "gate shut"}),
            "gate",
            "it is not ready: gate shut",
        ),
    ],
)
def test_a_pod_in_trouble_without_a_container(made: Any, sort: str, said: str) -> None:
    first = pod_troubles(made, [])[0]
    assert first.sort == sort
    assert said in first.message
    assert first.container == ""
    assert first.grace is None


def test_the_likeliest_cause_comes_first_and_names_everything() -> None:
    found = pod_troubles(pod(waiting("ErrImagePull", NOT_FOUND), PodScheduled={"message": "x"}), [])
    assert [trouble.sort for trouble in found] == ["image", "schedule"]
    assert str(found[0]).startswith("pod web-1, container app, image r/web:2: its image cannot be pulled")
    assert found[0].detail == NOT_FOUND


CUT_OFF = 'Post "https://10.0.0.1:6443/api/v1/namespaces/his/pods": dial tcp 10.0.0.1:6443: connect: connection refused'
WEBHOOK = 'Internal error occurred: failed calling webhook "w": failed to call webhook: Post "https://w": no such host'


@pytest.mark.parametrize(
    ("conditions", "events", "said", "grace"),
    [
        ([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}], [], "exceeded quota", 20),
        ([], [event("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "baseline"')], "PodSecurity", 5),
        ([], [event("FailedCreate", 'admission webhook "w" denied the request: no')], "denied the request", 5),
        ([], [event("FailedCreate", "error looking up service account a/b")], "service account", 20),
        ([], [event("FailedCreate", f"Error creating: {WEBHOOK}")], "failed calling webhook", 20),
        ([], [event("FailedCreate", f"Error creating: {CUT_OFF}")], "connection refused", None),
        ([{"type": "ReplicaFailure", "status": "True", "message": CUT_OFF}], [], "connection refused", None),
    ],
)
def test_pods_that_cannot_be_made_are_a_trouble_of_their_owner(
    conditions: list[Any], events: list[Any], said: str, grace: float | None
) -> None:
    owner = {"metadata": {"uid": "rs"}, "status": {"conditions": conditions}}
    (found,) = create_troubles(owner, events)
    assert said in str(found)
    assert (found.grace, found.pod) == (grace, "")
    assert create_troubles({"metadata": {"uid": "rs"}}, []) == []
    all_there = {**owner, "spec": {"replicas": 2}, "status": {"replicas": 2}}
    assert create_troubles(all_there, events) == [], "they were made in the end"


REFUSED = event("FailedCreate", "exceeded quota: q")


def test_an_old_refusal_is_over_when_a_pod_was_made_later() -> None:
    owner, made = {"metadata": {"uid": "s"}}, event("SuccessfulCreate", "create Pod web-0")
    assert create_troubles(owner, [REFUSED, made]) == []
    assert create_troubles(owner, [made, REFUSED])


@pytest.mark.parametrize(
    ("kind", "status", "told"),
    [
        ("Job", {}, True),
        ("Job", {"failed": 1}, True),
        ("Job", {"active": 1}, False),
        ("Job", {"succeeded": 1}, False),
        ("DaemonSet", {"desiredNumberScheduled": 0, "currentNumberScheduled": 0}, True),
        ("DaemonSet", {"desiredNumberScheduled": 3, "currentNumberScheduled": 2}, True),
        ("DaemonSet", {"desiredNumberScheduled": 3, "currentNumberScheduled": 3}, False),
    ],
)
def test_a_refusal_says_nothing_of_who_has_its_pods(kind: str, status: dict[str, Any], told: bool) -> None:  # noqa: FBT001
    owner = {"kind": kind, "metadata": {"uid": "o"}, "spec": {}, "status": status}
    assert bool(create_troubles(owner, [REFUSED])) is told


def trouble(sort: str, grace: float | None, uid: str = "u") -> Trouble:
    return Trouble(sort, "p", uid, "m", "c", grace=grace)


def test_patience_runs_from_the_first_sight_and_ends_with_the_grace() -> None:
    patience = Patience()
    assert patience.exhausted([trouble("config", 30)], 100) is None
    assert patience.exhausted([trouble("config", 30)], 129) is None
    assert patience.exhausted([trouble("config", 30)], 130) == trouble("config", 30)
    assert patience.exhausted([trouble("config", 30, "other")], 131) is None
    assert patience.exhausted([trouble("image", 0)], 131) == trouble("image", 0)


def test_crashes_are_counted_from_the_first_even_while_it_runs_between_them() -> None:
    patience = Patience()
    assert patience.exhausted([trouble("crash", None)], 0) is None
    assert patience.exhausted([], 10) is None
    assert patience.exhausted([trouble("crash", 30)], 15) is None
    assert patience.exhausted([trouble("crash", 30)], 31) == trouble("crash", 30)


@pytest.mark.parametrize("sort", ["create", "config", "claim"])
def test_what_was_over_for_a_look_counts_anew(sort: str) -> None:
    patience = Patience()
    for now, shown in ((0, True), (10, True), (15, False), (40, True)):
        patience.look_again()
        assert patience.exhausted([trouble(sort, 20)] if shown else [], now) is None
    patience.look_again()
    assert patience.exhausted([trouble(sort, 20)], 60) == trouble(sort, 20)


def test_a_crash_that_is_hidden_for_a_look_goes_on() -> None:
    patience = Patience()
    for now, shown in ((0, [trouble("crash", None)]), (10, [])):
        patience.look_again()
        assert patience.exhausted(shown, now) is None
    patience.look_again()
    assert patience.exhausted([trouble("crash", 30)], 31) == trouble("crash", 30)


def test_what_might_pass_by_itself_counts_from_when_it_does_not_any_more() -> None:
    patience = Patience()
    for now, grace in ((0, None), (60, 20), (79, 20)):
        patience.look_again()
        assert patience.exhausted([trouble("create", grace)], now) is None
    assert patience.exhausted([trouble("create", 20)], 80)


def test_a_quota_is_no_reason_to_end_while_older_pods_make_room() -> None:
    owner = {"metadata": {"uid": "rs"}}
    assert create_troubles(owner, [REFUSED], making_room=True)[0].grace is None
    assert create_troubles(owner, [REFUSED], making_room=False)[0].grace == 20
    forbidden = event("FailedCreate", 'pods "x" is forbidden: violates PodSecurity "baseline"')
    assert create_troubles(owner, [forbidden], making_room=True)[0].grace == 5


def test_what_may_pass_never_exhausts_patience_and_the_likeliest_cause_is_told() -> None:
    patience = Patience()
    assert patience.exhausted([trouble("probe", None)], 0) is None
    assert patience.exhausted([trouble("probe", None)], 9999) is None
    assert patience.exhausted([trouble("crash", 0), trouble("image", 0)], 0) == trouble("image", 0)


def with_pull_secret() -> Any:
    named = pod(waiting("ErrImagePull", "401 Unauthorized"))
    named["spec"]["imagePullSecrets"] = [{"name": "pull"}]
    return named


def without_secret(count: int, last: str) -> dict[str, Any]:
    return event("FailedToRetrieveImagePullSecret", "Unable to retrieve pull", count, last)


def denied(count: int, last: str) -> dict[str, Any]:
    return event("Failed", "Failed to pull image: 401 Unauthorized", count, last)


EARLY, LATE = "2026-01-01T00:00:10Z", "2026-01-01T00:00:22Z"


@pytest.mark.parametrize(
    ("events", "said", "grace"),
    [
        ([], "to the login in the pull secret pull", 45),
        ([denied(1, EARLY)], "to the login in the pull secret pull", 45),
        ([denied(2, LATE)], "to the login in the pull secret pull", 0),
        ([event("Failed", "503 Service Unavailable", 4, LATE), denied(1, EARLY)], "to the login in", 45),
        ([without_secret(1, EARLY)], "as there is no pull secret pull", 20),
        ([without_secret(1, EARLY), denied(1, EARLY)], "as there is no pull secret pull", 20),
        ([without_secret(3, LATE), denied(2, LATE)], "as there is no pull secret pull", 20),
        ([without_secret(2, "2026-01-01T00:00:20Z"), denied(2, LATE)], "as there is no pull secret pull", 20),
        # the node has heard of it since: the second denial was the first of that login
        ([without_secret(1, EARLY), denied(2, LATE)], "to the login in the pull secret pull", 45),
        ([without_secret(1, EARLY), denied(3, LATE)], "to the login in the pull secret pull", 0),
    ],
)
def test_a_pull_is_denied_for_good_when_the_node_had_the_login_twice(
    events: list[dict[str, Any]], said: str, grace: float
) -> None:
    found = pod_troubles(with_pull_secret(), events)[0]
    assert said in found.message
    assert found.grace == grace


def test_a_claim_that_nobody_provides_for_is_told_before_the_pod_that_waits_for_it() -> None:
    claim = {"metadata": {"uid": "c"}}
    (found,) = claim_troubles(claim, [event("ProvisioningFailed", 'storageclass.storage.k8s.io "golden" not found')])
    assert (found.sort, found.grace) == ("claim", 20)
    assert claim_troubles(claim, [event("ProvisioningFailed", "the store is busy")])[0].grace is None
    assert claim_troubles(claim, []) == []
    unbound = {"message": "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."}
    assert pod_troubles(pod(PodScheduled=unbound), [])[0].sort == "claim"
