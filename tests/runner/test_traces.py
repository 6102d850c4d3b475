"""A run as a trace: what a real collector is sent, and that none of it ever matters to the run."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from ulid_transform import ulid_to_bytes

from pipeline.plan import Plan, RunIdentity, Trigger
from pipeline.stage import Cause, CauseKind, Outcome
from runner import events
from runner.events import Record
from runner.telemetry import Parent, parent_of, wanted
from runner.traces import described, spans_of, trace_id
from tests.support.program import events_of, host, pipe
from tests.support.receivers import Heard, http_receiver
from tests.support.runs import probe

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
INFRA = Cause(CauseKind.INFRA, "the registry does not answer", ("connection refused",))
PLAN = Plan(
    pipeline="demo",
    file="demo.yaml",
    run=RunIdentity(id=ULID, number=3),
    trigger=Trigger(kind="push", repo="https://ann:pw@git.example/shop.git", branch="main", commit="c" * 40),
    leaves=(probe("s"),),
)
BEGUN = events.RunStarted(id=ULID, number=3, pipeline="demo")
ENDED = events.RunFinished(Outcome.SUCCEEDED)


def journal(*happened: events.Event) -> list[Record]:
    return [Record(number, 100.0 + number, event) for number, event in enumerate(happened, 1)]


def test_each_attempt_is_a_span_with_its_own_end() -> None:
    root, one, two = spans_of(
        journal(
            BEGUN,
            events.StageStarted("s", 1),
            events.StageRetrying("s", 1, Outcome.ERRORED, INFRA, 1.0),
            events.StageStarted("s", 2),
            events.StageFinished("s", 2, Outcome.SUCCEEDED),
            ENDED,
        ),
        PLAN,
    )
    assert [(span.started, span.ended, span.wrong) for span in (root, one, two)] == [
        (101.0, 106.0, ""),
        (102.0, 103.0, "the registry does not answer"),
        (104.0, 105.0, ""),
    ]
    assert (root.parent, one.parent, two.parent) == (0, root.id, root.id)
    assert one.attributes["error.type"] == "infra"
    assert one.attributes["cicd.pipeline.task.run.result"] == "error"
    assert one.attributes["pipe.stage.kind"] == "probe"
    assert "error.type" not in two.attributes


def test_the_first_cause_is_the_cause_of_the_run() -> None:
    root, _ = spans_of(
        journal(
            BEGUN,
            events.StageStarted("s", 1),
            events.StageFinished("s", 1, Outcome.ERRORED, INFRA),
            events.RunFinished(Outcome.ERRORED),
        ),
        PLAN,
    )
    assert (root.name, root.wrong) == ("RUN demo", INFRA.message)
    assert root.attributes["cicd.pipeline.result"] == "error"
    assert root.attributes["pipe.cause.evidence"] == INFRA.evidence


def test_a_leaf_that_never_started_says_why_in_a_span_without_length() -> None:
    cause = Cause(CauseKind.CONDITION, "when: is false")
    _, skipped = spans_of(journal(BEGUN, events.StageFinished("s", 0, Outcome.SKIPPED, cause), ENDED), PLAN)
    assert skipped.started == skipped.ended
    assert (skipped.attributes["cicd.pipeline.task.run.result"], skipped.wrong) == ("skip", "")


def test_an_attempt_that_died_with_its_engine_is_in_the_trace_of_the_whole_run() -> None:
    root, lost, again = spans_of(
        journal(
            BEGUN,
            events.StageStarted("s", 1),
            events.RunResumed(epoch=2, after=2),
            events.StageLost("s", 1, INFRA),
            events.StageStarted("s", 2),
            events.StageFinished("s", 2, Outcome.SUCCEEDED),
            ENDED,
        ),
        PLAN,
    )
    assert (root.started, root.ended) == (101.0, 107.0)
    assert [lost.attributes["pipe.attempt"], again.attributes["pipe.attempt"]] == [1, 2]


def test_the_same_run_makes_the_same_spans_and_a_rerun_others() -> None:
    first = journal(BEGUN, events.StageStarted("s", 1), events.StageFinished("s", 1, Outcome.SUCCEEDED), ENDED)
    again = (
        events.RunResumed(epoch=2, after=4, reopened=True),
        events.RunReopened({"s": "asked"}),
        events.StageStarted("s", 2),
        events.StageFinished("s", 2, Outcome.SUCCEEDED),
        ENDED,
    )
    rerun = first + [Record(4 + n, 200.0 + n, event) for n, event in enumerate(again, 1)]
    ids = {span.id for span in spans_of(first, PLAN)}
    assert ids == {span.id for span in spans_of(first, PLAN)}
    later = spans_of(rerun, PLAN)
    assert [span.started for span in later] == [201.0, 203.0]
    assert ids.isdisjoint(span.id for span in later)


def test_a_run_without_an_end_has_no_trace() -> None:
    assert spans_of(journal(BEGUN, events.StageStarted("s", 1)), PLAN) == []


def test_a_run_and_its_trace_are_found_by_each_other() -> None:
    assert trace_id(ULID).to_bytes(16) == ulid_to_bytes(ULID)
    assert trace_id("no ULID").bit_length() <= 128


def test_what_a_trace_says_of_the_repository_holds_no_login() -> None:
    about = described(PLAN, "https://ci.example/runs/1")
    assert about["vcs.repository.url.full"] == "https://git.example/shop.git"
    assert (about["vcs.ref.head.name"], about["vcs.ref.head.type"]) == ("main", "branch")
    assert about["cicd.pipeline.run.url.full"] == "https://ci.example/runs/1"
    assert "vcs.change.id" not in about


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"},
    ],
)
def test_traces_are_sent_when_the_standard_variables_name_a_collector(variables: dict[str, str]) -> None:
    assert wanted(variables)
    assert not wanted({**variables, "OTEL_SDK_DISABLED": "True"})
    assert not wanted({**variables, "OTEL_TRACES_EXPORTER": "none"})
    assert not wanted(dict.fromkeys(variables, ""))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", Parent(int("a" * 32, 16), int("b" * 16, 16))),
        (f"00-{'a' * 32}-{'b' * 16}-00", Parent(int("a" * 32, 16), int("b" * 16, 16), sampled=False)),
        (f"01-{'a' * 32}-{'b' * 16}-01-more", Parent(int("a" * 32, 16), int("b" * 16, 16))),
        (f"00-{'0' * 32}-{'b' * 16}-01", None),
        (f"ff-{'a' * 32}-{'b' * 16}-01", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_callers_span_is_read_as_the_standard_says(text: str, found: Parent | None) -> None:
    assert parent_of({"TRACEPARENT": text}) == found


# -- pipe run --------------------------------------------------------------------------------------

TEXT = """name: demo
stages:
  good: {run: "true"}
  bad: {needs: good, run: "echo oh no; exit 3"}
"""


@pytest.fixture
def collector() -> Iterator[Heard]:
    with http_receiver() as heard:
        yield heard


def sent(collector: Heard) -> tuple[dict[str, Any], dict[str, Sent]]:
    """What the collector was told: the resource, and the spans by their names."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(collector.bodies[0])
    (resource_spans,) = request.resource_spans
    about = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
    return about, {span.name: span for scope in resource_spans.scope_spans for span in scope.spans}


def traced(folder: Path, collector: Heard, **more: str) -> Any:
    (folder / "demo.yaml").write_text(TEXT)
    endpoint = f"http://127.0.0.1:{collector.port}"
    return pipe(folder, "run", "demo.yaml", env=host(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **more), limit=40)


@pytest.mark.network
@pytest.mark.slow
def test_a_collector_is_sent_the_run_and_its_attempts(tmp_path: Path, collector: Heard) -> None:
    done = traced(tmp_path, collector, OTEL_SERVICE_NAME="ci", OTEL_EXPORTER_OTLP_HEADERS="x-key=k")
    assert (done.returncode, done.stderr) == (1, "")
    assert (collector.paths, collector.headers[0]["x-key"]) == (["/v1/traces"], "k")
    about, spans = sent(collector)
    run = events_of(tmp_path, "demo")[0]["id"]
    assert about["service.name"] == "ci"
    assert (about["cicd.pipeline.name"], about["cicd.pipeline.run.id"]) == ("demo", run)
    root, good, bad = spans["RUN demo"], spans["good"], spans["bad"]
    assert root.trace_id == good.trace_id == ulid_to_bytes(run)
    assert root.kind == Sent.SPAN_KIND_SERVER
    assert root.parent_span_id == b""
    assert good.parent_span_id == bad.parent_span_id == root.span_id
    assert (bad.status.code, good.status.code) == (Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET)
    assert bad.status.message == "the script ended with exit code 3"
    assert root.start_time_unix_nano <= good.start_time_unix_nano <= good.end_time_unix_nano <= root.end_time_unix_nano


@pytest.mark.network
@pytest.mark.slow
def test_a_run_belongs_to_the_span_of_its_caller(tmp_path: Path, collector: Heard) -> None:
    traced(tmp_path, collector, TRACEPARENT=f"00-{'a' * 32}-{'b' * 16}-01")
    _, spans = sent(collector)
    assert {span.trace_id.hex() for span in spans.values()} == {"a" * 32}
    assert spans["RUN demo"].parent_span_id.hex() == "b" * 16
    traced(tmp_path, collector, TRACEPARENT=f"00-{'a' * 32}-{'b' * 16}-00")
    assert len(collector.bodies) == 1


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "refuses", "is not there"])
def test_a_collector_that_fails_changes_nothing_of_a_run(tmp_path: Path, collector: Heard, how: str) -> None:
    if how == "hangs":
        collector.hangs.set()
    elif how == "refuses":
        collector.answers = [400]
    else:
        collector.port = 1
    begun = time.monotonic()
    done = traced(tmp_path, collector)
    assert done.returncode == 1
    assert done.stderr.startswith("pipe: the trace of demo was not taken: ")
    ended = events_of(tmp_path, "demo")[-1]
    assert (ended["type"], ended["outcome"]) == ("run.finished", "failed")
    assert time.monotonic() - begun < 30


def test_nothing_is_imported_for_traces_that_nobody_wants(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text('name: demo\nstages: {s: {run: "true"}}\n')
    call = """import sys; sys.argv[1:] = ["run", "demo.yaml"]
from runner.cli import main
main()
print("loaded:", *(name for name in sys.modules if name.startswith("opentelemetry")))
"""
    argv = [sys.executable, "-c", call]
    said = subprocess.run(argv, cwd=tmp_path, env=host(), capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "loaded:"
