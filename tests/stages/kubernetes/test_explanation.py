"""One cause out of events and logs: the sentence, the proof, the way out."""

from pathlib import Path
from typing import Any

import pytest

from stages.clients.kubernetes.diagnosis import Trouble
from stages.clients.kubernetes.explanation import Seen, explain
from stages.clients.kubernetes.remedies import remedy
from tests.stages.kubernetes.faults import FAULTS, PAGE, page

LOGS = Path(__file__).parent / "logs"
SPRING = (LOGS / "spring-port.txt").read_text().splitlines()


def trouble(sort: str, message: str = "m") -> Trouble:
    return Trouble(sort, "web-1", "u1", message, "app", "r/web:2", detail="")


def event(reason: str, message: str, type_: str = "Warning", count: int = 1) -> Any:
    return {"reason": reason, "message": message, "type": type_, "count": count}


def test_a_crash_is_told_by_the_programs_own_words_of_whichever_life_has_them() -> None:
    found = explain(trouble("crash"), "", Seen(container="app", before=SPRING, now=["starting again"]))
    assert found.because == ": Web server failed to start. Port 18765 was already in use."
    assert found.hint.startswith("Identify and stop the process")
    titles = [line for line in found.evidence if line.startswith("---")]
    assert titles[0].startswith("--- log of app before its last restart, ")
    assert titles[1] == "--- log of app, 1 of its last 1 lines ---"
    assert "APPLICATION FAILED TO START" in found.evidence


def test_a_log_that_both_lives_share_comes_once() -> None:
    found = explain(trouble("crash"), "", Seen(container="app", before=SPRING, now=SPRING))
    assert len([line for line in found.evidence if line.startswith("---")]) == 1


def test_last_words_are_told_of_a_crash_and_not_of_a_program_that_runs() -> None:
    log = ["up and well"]
    assert explain(trouble("crash"), "", Seen(container="app", now=log)).because == "; its last words: up and well"
    assert explain(trouble("probe"), "", Seen(container="app", now=log)).because == ""
    refused = explain(trouble("probe"), "", Seen(container="app", now=["dial tcp mysql:3306: connection refused"]))
    assert refused.because.startswith("; its log says: connection refused to mysql:3306")


PROBE = "it runs, but its readiness probe (GET :8080/health) does not pass: HTTP probe failed with statuscode: 404"
PATH = "correct the probe's path: the program has no such page"
GOOD = [f"GET /orders {number} 200" for number in range(100)]
STACK = ["WARN java.io.IOException: cache is cold", "\tat demo.Cache.read(Cache.java:7)"]


@pytest.mark.parametrize(
    "old",
    [
        ["connection refused to redis:6379, retrying", "connected"],
        STACK,
        ["Error: connect ECONNREFUSED redis:6379", "    at TCPConnectWrap (/app/net.js:1:1) {", "  errno: -111", "}"],
        [*STACK, "Error: dial tcp redis:6379: connection refused"],
    ],
)
def test_what_a_program_that_runs_complained_of_once_is_no_cause(old: list[str]) -> None:
    found = explain(trouble("probe", PROBE), "", Seen(container="app", now=[*old, *GOOD]))
    assert (found.because, found.hint) == ("", PATH)
    assert explain(trouble("probe", PROBE), "", Seen(container="app", now=[*old, "started"])).because == ""


@pytest.mark.parametrize(
    "last",
    [
        ["ERROR dial tcp redis:6379: connection refused", "retrying in 5 s", '"GET /health" 503 "kube-probe/1.34"'],
        [*STACK, *GOOD, "ERROR dial tcp redis:6379: connection refused", ""],
        ["Error: connect ECONNREFUSED redis:6379", "    at TCPConnectWrap (/app/net.js:1:1) {", "  errno: -111", "}"],
    ],
)
def test_what_it_complains_of_at_the_end_is_told_behind_what_the_probe_says(last: list[str]) -> None:
    found = explain(trouble("probe", PROBE), "", Seen(container="app", now=[*GOOD, *last]))
    assert found.because.startswith("; its log says: connection refused to redis:6379")
    assert found.hint == f"{PATH}; and see that redis:6379 runs and listens there before this starts"


@pytest.mark.parametrize("sort", ["gate", "starting", "registry"])
def test_of_any_trouble_of_a_program_that_runs_only_what_it_complains_of_now_is_told(sort: str) -> None:
    said = ["dial tcp redis:6379: connection refused"]
    assert explain(trouble(sort), "", Seen(container="app", now=[*said, "connected"])).because == ""
    assert explain(trouble(sort), "", Seen(container="app", now=["up", *said])).because.startswith("; its log says: ")


def test_the_way_out_of_a_probe_goes_by_what_the_probe_got_and_not_by_the_log() -> None:
    asked = PROBE.replace("404", "503")
    found = explain(trouble("probe", asked), "", Seen(container="app", now=["dial tcp redis:6379: connection refused"]))
    assert found.hint.startswith("ask that page yourself")


def test_events_that_warn_are_evidence_with_how_often_and_a_log_that_is_gone_is_none() -> None:
    events = [event("Pulled", "fine", "Normal"), event("BackOff", "Back-off\n restarting", count=4)]
    found = explain(trouble("crash"), "", Seen(events, "app", now=["unable to retrieve container logs for x"]))
    assert found.evidence == ("event BackOff (4 times): Back-off restarting",)


def test_a_claim_that_is_not_bound_says_why_for_the_pod_that_waits_for_it() -> None:
    events = [event("ProvisioningFailed", 'storageclass "golden" not found')]
    found = explain(trouble("claim", "no node takes it"), "", Seen(claims={"data": events}))
    assert found.because == '; PersistentVolumeClaim data: storageclass "golden" not found'
    assert "storage class" in found.hint


def test_what_could_not_be_read_is_said() -> None:
    assert explain(None, "", Seen(missing="the cluster is gone")).evidence == (
        "there may be more: the cluster is gone",
    )
    assert "activeDeadlineSeconds" in explain(None, "it has failed: DeadlineExceeded", Seen()).hint


@pytest.mark.parametrize(
    ("words", "ways"),
    [
        ("0/1 nodes are available: 1 Insufficient cpu.", 1),
        ("0/2: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {a: b}", 2),
    ],
)
def test_each_reason_of_a_node_has_its_way_out(words: str, ways: int) -> None:
    assert len(remedy("schedule", words).split("; or ")) == ways
    assert remedy("nothing", words) == ""


def test_the_page_about_faults_is_made_of_the_faults_that_are_tried() -> None:
    assert PAGE.read_text() == page()
    assert len(FAULTS) >= 30
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
