"""Releases on a real cluster: put back as a whole, fenced against older runs, and truthful after any death."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import World
from tests.e2e.fleet import Fleet, engine_of, kill, none_left
from tests.support.wait import until

SLOW = (
    "{name: slow, image: busybox, command: [sh, -c, 'sleep 6; touch /up; sleep 99'],"
    " readinessProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1}}"
)
"""A container that takes a while to be ready."""

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400, func_only=True)]


@pytest.fixture
def fleet(tmp_path: Path, world: World, namespace: str, busybox: str) -> Iterator[Fleet]:
    with none_left():
        yield Fleet(tmp_path / "fleet", world, namespace, busybox)


# -- going back ------------------------------------------------------------------------------------


def test_one_bad_image_puts_every_service_and_its_configuration_back(fleet: Fleet) -> None:
    fleet.write("one").green()
    extra = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\ndata: {a: b}\n"
    job = (
        "---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: move}\nspec:\n  template:\n    spec:\n"
        "      restartPolicy: Never\n      imagePullSecrets: [{name: login}]\n"
        "      containers: [{name: app, image: busybox, command: ['true']}]\n"
    )
    done = fleet.write("two", bad={"sb": fleet.broken}, extra=extra + job).run()
    assert done.returncode == 1
    assert fleet.data() == fleet.greeting("one")
    assert fleet.seen_by_pods() == {name: {"one"} for name in fleet.services}
    names = {item["metadata"]["name"] for item in fleet.world.objects(fleet.namespace, "configmaps")}
    assert "extra" not in names
    assert fleet.outcomes() == {"fleet@3": "complete", "fleet@2": "rolled back", "fleet@1": "complete"}
    (end,) = [
        event for event in fleet.events(number=2) if event["type"] == "stage.finished" and event["stage"] == "release"
    ]
    message = end["cause"]["message"]
    assert message.startswith("deploy[sb] failed: Deployment")
    assert "there is no such image" in message
    assert message.index("no such image") < message.index("rolled back to fleet@1 as fleet@3: 3 deploys put back")
    assert f"Job {fleet.namespace}/move is not undone: what it did stays" in done.stdout
    assert fleet.wrote_no_password()
    assert "hunter2" not in done.stdout


def test_a_release_that_is_to_be_kept_says_how_to_go_back_and_the_command_does(fleet: Fleet) -> None:
    fleet.release = "{on_failure: keep}"
    fleet.write("one").green()
    done = fleet.write("two", bad={"sb": fleet.broken}).run()
    assert done.returncode == 1
    assert "`pipe rollback fleet@1` puts the last good release back" in done.stdout
    assert fleet.data() == fleet.greeting("two")
    assert fleet.outcomes()["fleet@2"] == "partial"
    assert fleet.pipe("rollback", "fleet@1", "-o", "plain").returncode == 0
    assert fleet.data() == fleet.greeting("one")
    assert fleet.outcomes() == {"fleet@3": "complete", "fleet@2": "rolled back", "fleet@1": "complete"}
    newest = fleet.releases()[0]
    assert (newest["run"], newest["restores"]) == ("rollback#1", 1)
    fleet.write("three").green()
    assert fleet.pipe("rollback", "fleet@4", "--service", "sa", "-o", "plain").returncode == 0


LATE = """
---
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {selector: {app: late}, ports: [{port: 3306}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: late}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: late}}
  template:
    metadata: {labels: {app: late}, annotations: {for: GREETING}}
    spec:
      terminationGracePeriodSeconds: 0
      imagePullSecrets: [{name: login}]
      containers:
        - name: app
          image: busybox
          command: [sh, -c, "sleep 75; mkdir /w; echo ok > /w/index.html; httpd -f -p 3306 -h /w"]
          readinessProbe: {tcpSocket: {port: 3306}, periodSeconds: 1}
"""
NEEDY = (
    "{name: needy, image: busybox, command: [sh, -c,"
    " 'wget -q -O /dev/null http://$LATE_SERVICE_HOST:3306/ || exit 1; sleep 3600']}"
)
"""A container that ends when what it needs does not answer."""


@pytest.mark.long
def test_a_rollback_waits_for_what_its_pods_need_as_the_deploy_did(fleet: Fleet) -> None:
    fleet.services, fleet.terms = ("sa", "sb"), "waits_for: [late]\n      substitute: false"
    fleet.write("one", bad={"sb": NEEDY}, extra=LATE.replace("GREETING", "one")).green()
    fleet.write("two", bad={"sa": fleet.broken, "sb": NEEDY}, extra=LATE.replace("GREETING", "two"))
    done = fleet.run()
    assert done.returncode == 1
    assert "rolled back to fleet@1 as fleet@3: 2 deploys put back" in done.stdout
    log = (fleet.folder / ".pipe/fleet/2/logs/release.1.log").read_text()
    assert "waiting for late (" in log
    assert fleet.outcomes()["fleet@3"] == "complete", done.stdout


def test_one_service_alone_goes_back_and_the_others_stay(fleet: Fleet) -> None:
    fleet.write("one").green()
    fleet.write("two").green()
    done = fleet.pipe("rollback", "fleet@1", "--service", "sb", "-o", "plain")
    assert done.returncode == 0, done.stdout
    assert fleet.data() == {**fleet.greeting("two"), "sb": fleet.greeting("one")["sb"]}
    state = fleet.releases()[0]["state"]
    assert state == {"deploy[sa]": 2, "deploy[sb]": 1, "deploy[sc]": 2}
    said = fleet.pipe("diff", "fleet@2", "fleet@3").stdout
    assert f"ConfigMap {fleet.namespace}/sb: data.greeting: two → one" in said
    assert f"Secret {fleet.namespace}/sb: key password: changed" in said
    assert "hunter2" not in said
    assert "/sa" not in said


def test_what_cannot_be_undone_keeps_a_release_from_going_back_by_itself(fleet: Fleet) -> None:
    fleet.before = "  migrate: {run: 'true', irreversible: true}"
    fleet.needs = "needs: migrate"
    fleet.write("one").green()
    done = fleet.write("two", bad={"sb": fleet.broken}).run()
    assert done.returncode == 1
    assert (
        "It is not rolled back: between here and fleet@1 lies what cannot be undone: migrate in fleet@2" in done.stdout
    )
    assert fleet.data() == fleet.greeting("two")
    refused = fleet.pipe("rollback", "fleet@1", "-o", "plain")
    assert refused.returncode == 1
    assert "between here and fleet@1 lies what cannot be undone: migrate in fleet@2" in refused.stdout
    assert fleet.pipe("rollback", "fleet@1", "--past-irreversible", "-o", "plain").returncode == 0
    assert fleet.data() == fleet.greeting("one")


def test_a_first_release_that_fails_stays_for_a_look(fleet: Fleet) -> None:
    done = fleet.write("one", bad={"sb": fleet.broken}).run()
    assert done.returncode == 1
    assert "there is no good release before it to go back to" in done.stdout
    assert fleet.data() == fleet.greeting("one")
    assert fleet.outcomes() == {"fleet@1": "partial"}


def test_a_rollback_that_was_killed_is_finished_by_resume(fleet: Fleet) -> None:
    fleet.write("one").green()
    fleet.write("two", bad={"sb": fleet.broken})
    process = fleet.start()
    fleet.until_event(2, type="effect.intended", stage="release", key="apply workloads")
    kill(process)
    assert set(fleet.outcomes()) == {"fleet@1", "fleet@2", "fleet@3"}
    done = fleet.pipe("resume", "fleet#2", "-o", "plain")
    assert done.returncode == 1
    assert fleet.data() == fleet.greeting("one")
    assert fleet.seen_by_pods() == {name: {"one"} for name in fleet.services}
    assert fleet.outcomes() == {"fleet@3": "complete", "fleet@2": "rolled back", "fleet@1": "complete"}
    assert "rolled back to fleet@1 as fleet@3" in done.stdout


def test_a_rollback_by_command_that_was_killed_is_finished_by_resume(fleet: Fleet) -> None:
    fleet.write("one").green()
    fleet.write("two").green()
    process = fleet.start("rollback", "fleet@1", "-o", "plain")
    fleet.until_event(1, pipeline="rollback", type="effect.intended", key="apply configuration")
    kill(process)
    assert fleet.outcomes()["fleet@3"] == "partial: it is running, or died"
    done = fleet.pipe("resume", "rollback#1", "-o", "plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert fleet.data() == fleet.greeting("one")
    assert fleet.outcomes() == {"fleet@3": "complete", "fleet@2": "complete, undone by @3", "fleet@1": "complete"}


def test_a_run_that_was_rolled_back_deploys_no_part_of_it_again_but_all_as_a_new_release(fleet: Fleet) -> None:
    fleet.write("one").green()
    fleet.write("two", bad={"sb": fleet.broken})
    assert fleet.run().returncode == 1
    fleet.write("two")
    again = fleet.pipe("rerun", "fleet#2", "--failed", "-o", "plain")
    assert again.returncode == 1
    assert "was rolled back, so nothing more of it is deployed" in again.stdout
    assert fleet.data() == fleet.greeting("one")
    assert fleet.pipe("rerun", "fleet#2", "--from", "ticket", "-o", "plain").returncode == 0
    assert fleet.data() == fleet.greeting("two")
    assert fleet.outcomes()["fleet@4"] == "complete"


# -- cancel and death ------------------------------------------------------------------------------


def test_a_cancelled_run_leaves_a_partial_release_that_says_what_is_missing(fleet: Fleet) -> None:
    fleet.write("one").green()
    slow = "{name: slow, image: busybox, command: [sleep, '99'], readinessProbe: {exec: {command: ['false']}}}"
    fleet.write("two", bad={"sb": slow, "sc": slow})
    process = fleet.start()
    fleet.until_event(2, type="effect.proven", stage="deploy[sb]", key="apply workloads")
    fleet.until_event(2, type="effect.proven", stage="deploy[sc]", key="apply workloads")
    fleet.until_event(2, type="stage.finished", stage="deploy[sa]")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - began < 12
    newest = fleet.releases()[0]
    assert (newest["release"], newest["outcome"]) == ("fleet@2", "partial")
    assert newest["message"] == "cancelled; missing: deploy[sb], deploy[sc]"
    assert newest["state"] == {"deploy[sa]": 2, "deploy[sb]": 1, "deploy[sc]": 1}
    assert "`pipe rollback fleet@1` puts the last good release back" in fleet.said
    assert fleet.pipe("rollback", "-o", "plain").returncode == 0
    assert fleet.data() == fleet.greeting("one")


def test_a_run_that_is_cancelled_between_two_deploys_leaves_a_partial_release_too(fleet: Fleet) -> None:
    more = f"{{manifests: [more.yml], namespace: {fleet.namespace}, secret: kubeconfig}}"
    fleet.before = f"  smoke: {{needs: deploy, run: 'sleep 60'}}\n  more: {{needs: smoke, uses: deploy, with: {more}}}"
    fleet.services = ("sa",)
    fleet.write("one")
    (fleet.folder / "more.yml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n")
    process = fleet.start()
    fleet.until_event(1, type="stage.started", stage="smoke")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    (release,) = fleet.releases()
    assert (release["outcome"], release["message"]) == ("partial", "cancelled; missing: more")
    assert release["state"] == {"deploy[sa]": 1}


def test_a_run_that_died_in_the_middle_is_a_release_that_says_so(fleet: Fleet) -> None:
    fleet.write("one").green()
    slow = "{name: slow, image: busybox, command: [sleep, '99'], readinessProbe: {exec: {command: ['false']}}}"
    fleet.write("two", bad={"sb": slow})
    process = fleet.start()
    fleet.until_event(2, type="effect.proven", stage="deploy[sb]", key="apply workloads")
    kill(process)
    assert fleet.outcomes() == {"fleet@2": "partial: it is running, or died", "fleet@1": "complete"}
    assert fleet.pipe("rollback", "-o", "plain").returncode == 0
    assert fleet.data() == fleet.greeting("one")
    assert fleet.outcomes()["fleet@2"] == "rolled back"


# -- the fence -------------------------------------------------------------------------------------


def test_of_two_runs_that_race_the_newer_commit_stays(fleet: Fleet) -> None:
    _race(fleet, rounds=3)


@pytest.mark.long
@pytest.mark.timeout(3000, func_only=True)
def test_of_two_runs_that_race_the_newer_commit_stays_twenty_times(fleet: Fleet) -> None:
    _race(fleet, rounds=20)


def _race(fleet: Fleet, rounds: int) -> None:
    """Two engines with folders of their own; the old run has drawn its number before the new one begins.

    The old one is held up before its deploys: until the new one is done, or has drawn, or has just begun, and so on.
    """
    old = Fleet(fleet.folder.parent / "old", fleet.world, fleet.namespace, fleet.image)
    old.before = "  hold: {run: 'while [ ! -e go ]; do sleep 0.05; done'}"
    old.needs = "needs: hold"
    fleet.write("zero").green()
    for at in range(rounds):
        go = old.folder / "go"
        go.unlink(missing_ok=True)
        drawn = len(fleet.releases())
        slow = old.write(f"old-{at}").start()
        _until_drawn(fleet, drawn + 1)
        new = fleet.write(f"new-{at}").start()
        if at % 3 == 0:
            assert new.wait(300) == 0, fleet.said
        elif at % 3 == 1:
            _until_drawn(fleet, drawn + 2)
        else:
            time.sleep(at * 0.1)
        go.touch()
        codes = slow.wait(300), new.wait(300)
        assert codes[1] == 0, fleet.said
        assert fleet.data() == fleet.greeting(f"new-{at}"), (at, codes)
        assert codes[0] == 1 or at % 3, "an older commit went over a newer one"
    assert "superseded by fleet#" in old.said


def _until_drawn(fleet: Fleet, count: int) -> None:
    until(lambda: len(fleet.releases()) >= count, limit=120)


@pytest.mark.parametrize("after", [0.0, 0.15, 0.3])
def test_an_engine_that_stood_still_writes_nothing_behind_a_newer_run(fleet: Fleet, after: float) -> None:
    """It is stopped in the middle of its writes; what it had not written then it never writes."""
    fleet.services = ("sa",)
    many = "".join(
        f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: many-{at}}}\ndata: {{by: BY}}\n" for at in range(60)
    )
    old = Fleet(fleet.folder.parent / "old", fleet.world, fleet.namespace, fleet.image, ("sa",))
    alone = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: zz-only-old}\ndata: {a: b}\n"
    old.write("old", extra=many.replace("BY", "old") + alone)
    process = old.start()
    old.until_event(1, type="effect.intended", key="apply configuration")
    time.sleep(after)
    engine = engine_of(process)
    os.kill(engine, signal.SIGSTOP)
    try:
        fleet.write("new", extra=many.replace("BY", "new")).green()
        before = _versions(fleet)
    finally:
        os.kill(engine, signal.SIGCONT)
    assert process.wait(60) == 1
    assert "superseded by fleet#1" in old.said
    afterwards = _versions(fleet)
    assert {name: before.get(name) for name in afterwards} == afterwards
    assert fleet.data() == fleet.greeting("new")


def _versions(fleet: Fleet) -> dict[str, str]:
    """Every object of the deploys with its content's mark: which run wrote it."""
    found = {}
    for kind in ("configmaps", "deployments"):
        for item in fleet.world.objects(fleet.namespace, kind):
            metadata = item["metadata"]
            if run := (metadata.get("annotations") or {}).get("pipe-ci/run"):
                found[f"{kind}/{metadata['name']}"] = run + str(item.get("data"))
    return found


def test_a_newer_run_that_waited_goes_on_when_the_older_one_has_gone_back(fleet: Fleet) -> None:
    fleet.write("one").green()
    older = Fleet(fleet.folder.parent / "older", fleet.world, fleet.namespace, fleet.image)
    failing = older.write("two", bad={"sb": older.broken, "sc": SLOW}).start()
    older.until_event(1, type="effect.proven", key="apply workloads")
    fleet.write("three").green()
    assert failing.wait(60) == 1, older.said
    assert "rolled back to fleet@1" in older.said
    assert fleet.data() == fleet.greeting("three")
    fleet.write("four", bad={"sc": fleet.broken})
    assert fleet.run().returncode == 1
    assert fleet.data() == fleet.greeting("three")


def test_another_holder_is_waited_for_and_named(fleet: Fleet) -> None:
    other = Fleet(fleet.folder.parent / "other", fleet.world, fleet.namespace, fleet.image)
    first = other.write("first", bad={"sa": SLOW}).start()
    other.until_event(1, type="effect.proven", key="apply workloads")
    fleet.write("second").green()
    assert first.wait(60) == 0, other.said
    waited = [event["text"] for event in fleet.events() if event["type"] == "stage.progressed"]
    assert any(text.startswith("waiting for fleet#1 on ") for text in waited)
    assert fleet.data() == fleet.greeting("second")
    assert fleet.outcomes() == {"fleet@2": "complete", "fleet@1": "complete"}


def test_pods_start_again_when_only_their_configuration_changes(fleet: Fleet) -> None:
    fleet.write("one").green()
    assert fleet.seen_by_pods()["sa"] == {"one"}
    fleet.write("two").green()
    assert fleet.seen_by_pods() == {name: {"two"} for name in fleet.services}
