"""What a server tells of its runs by itself: messages, links, badges, metrics and traces, to real receivers."""

import json
import urllib.error
import urllib.request
from email.message import Message
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from ulid_transform import ulid_to_bytes

from tests.runner.server.conftest import Repository, Server
from tests.support.program import host, pipe
from tests.support.receivers import Heard
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(120)]

RED = """name: demo
triggers: {push: {branches: [main]}}
stages: {s: {run: "echo '<script>'; exit 3"}}
"""
GREEN = RED.replace("exit 3", "true")


@pytest.fixture
def told(server: Server, hook: Heard) -> Server:
    """A server that tells the receiver of red, fixed and all other ends."""
    new = {"name": "ops", "url": f"json://user:passw0rd@127.0.0.1:{hook.port}/", "events": ["failed", "fixed"]}
    status, made = api(server, "/api/v1/projects/shop/targets", new)
    assert (status, made["service"]) == (201, "JSON"), made
    server.stop()
    server.start("--url", "https://ci.example/")
    return server


def api(server: Server, path: str, body: object = None, method: str = "POST") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def fetch(server: Server, path: str, **headers: str) -> tuple[int, str, Message]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", None, named)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_red_and_fixed_are_told_once_with_cause_and_link(told: Server, repository: Repository, hook: Heard) -> None:
    for number, text in enumerate((GREEN, RED, GREEN, GREEN), 1):
        told.push(repository.commit(f"{number}", pipeline_yaml=text.replace("true", f"true {number}")))
        runs = told.settled(number)
    until(lambda: len(hook.bodies) == 2)
    red, fixed = hook.json()
    assert red["title"] == "failed: shop demo#2 (main)"
    assert red["message"].splitlines()[0] == "s: the script ended with exit code 3"
    assert f"https://ci.example/runs/{runs[1]['id']}" in red["message"].splitlines()
    assert (fixed["title"], fixed["type"]) == ("fixed: shop demo#3 (main)", "success")
    told.stop()
    told.start()
    told.settled(4)
    assert len(hook.bodies) == 2


def test_a_server_that_was_killed_tells_when_it_is_back(told: Server, repository: Repository, hook: Heard) -> None:
    hook.answers = [503]
    told.push(repository.commit("red", pipeline_yaml=RED))
    told.settled(1)
    until(lambda: len(hook.bodies) == 1)
    told.kill()
    told.start()
    until(lambda: len(hook.bodies) == 2)
    until(lambda: told.get("/api/v1/projects/shop/targets")[0]["waiting"] == 0)


def test_targets_are_managed_by_the_api_and_their_urls_stay_secret(told: Server, hook: Heard) -> None:
    place = "/api/v1/projects/shop/targets"
    (target,) = told.get(place)
    assert (target["name"], target["service"], target["events"]) == ("ops", "JSON", ["failed", "fixed"])
    assert "passw0rd" not in json.dumps(target)
    assert api(told, f"{place}/ops/test") == (200, {"taken": True, "note": ""})
    hook.answers = [401]
    status, tried = api(told, f"{place}/ops/test")
    assert (status, tried["taken"], "error=401" in tried["note"]) == (200, False, True)
    status, refused = api(told, place, {"name": "x", "url": "bogus://passw0rd", "events": ["failed", "no"]})
    assert (status, "passw0rd" in json.dumps(refused)) == (422, False)
    assert api(told, "/api/v1/projects/other/targets", method="GET")[0] == 404
    assert api(told, f"{place}/ops", method="DELETE") == (204, None)
    assert told.get(place) == []
    assert told.ask(place)[0] == 401
    kept = b"".join(path.read_bytes() for path in (told.folder / ".pipe-server").glob("server.db*"))
    assert b"passw0rd" not in kept + (told.folder / "server.err").read_bytes()


def test_whom_a_project_tells_is_for_those_who_manage_it(told: Server) -> None:
    place = "/api/v1/projects/shop/targets"
    pipe(told.folder, "projects", "add", "other", "https://git.example/other.git", "--no-check")
    asked = {}
    for role in ("member@shop", "member@other", "admin@shop"):
        bearer = f"Bearer {pipe(told.folder, 'token', role, '--role', role).stdout.split()[-1]}"
        calls = [(place, None), (f"{place}/ops/test", b"")]
        asked[role] = [told.ask(path, body, authorization=bearer)[0] for path, body in calls]
        assert (fetch(told, "/badges/shop/demo.svg", Authorization=bearer)[0] == 200) == role.endswith("@shop")
    assert asked == {"member@shop": [200, 403], "member@other": [404, 404], "admin@shop": [200, 200]}


def test_a_badge_is_shown_to_whom_the_project_allows(server: Server, repository: Repository) -> None:
    place = "/badges/shop/demo.svg?branch=main"
    assert fetch(server, place)[0] == 404
    assert fetch(server, "/badges/other/demo.svg")[0] == 404
    token = {"Authorization": f"Bearer {server.token}"}
    assert "unknown" in fetch(server, place, **token)[1]
    assert pipe(server.folder, "projects", "badge", "shop", "--public").returncode == 0
    until(lambda: fetch(server, place)[0] == 200)
    server.push(repository.commit("red", pipeline_yaml=RED))
    server.settled(1)
    status, svg, headers = fetch(server, place)
    picture = ET.fromstring(svg)  # noqa: S314
    assert (status, picture.get("role"), picture.get("aria-label")) == (200, "img", "demo: failing")
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("image/svg+xml", "no-cache")
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert fetch(server, place, If_None_Match=headers["ETag"])[0] == 304
    assert "unknown" in fetch(server, "/badges/shop/demo.svg?branch=other")[1]
    server.push(repository.commit("green", pipeline_yaml=GREEN))
    server.settled(2)
    assert "passing" in fetch(server, place, If_None_Match=headers["ETag"])[1]


def test_the_metrics_are_what_prometheus_reads(told: Server, repository: Repository, hook: Heard) -> None:
    hook.answers = [503] * 50
    for number, text in enumerate((RED, GREEN), 1):
        told.push(repository.commit(f"{number}", pipeline_yaml=text))
        told.settled(number)
    until(lambda: hook.bodies)
    _, page, _ = fetch(told, "/metrics", Authorization=f"Bearer {told.token}")
    families = {family.name: family for family in text_string_to_metric_families(page)}
    durations = families["cicd_pipeline_run_duration_seconds"]
    assert durations.type == "histogram"
    counts = {
        (sample.labels["cicd_pipeline_run_state"], sample.labels["cicd_pipeline_result"]): sample.value
        for sample in durations.samples
        if sample.name.endswith("_count")
    }
    assert counts == {(state, result): 1.0 for state in ("pending", "executing") for result in ("failure", "success")}
    ended = {sample.labels["outcome"]: sample.value for sample in families["pipe_runs_ended"].samples}
    assert ended == {"failed": 1.0, "succeeded": 1.0}
    untold = {sample.labels["state"]: sample.value for sample in families["pipe_notifications"].samples}
    assert untold == {"waiting": 2.0, "given_up": 0.0}
    assert {"cicd_pipeline_run_active", "pipe_inbox_seconds", "pipe_queue_seconds", "pipe_statuses"} <= set(families)


def test_runs_of_a_server_are_traced_with_their_page(server: Server, repository: Repository, hook: Heard) -> None:
    server.stop()
    of_our_own = {"TRACEPARENT": f"00-{'a' * 32}-{'b' * 16}-01"}
    server.env = host(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{hook.port}", **of_our_own)
    hook.answers = [400]
    server.start("--url", "https://ci.example")
    server.push(repository.commit("red", pipeline_yaml=RED))
    (run,) = server.settled(1)
    until(lambda: len(hook.bodies) == 2, 40)
    assert hook.bodies[0] == hook.bodies[1]
    request = ExportTraceServiceRequest()
    request.ParseFromString(hook.bodies[1])
    (sent,) = request.resource_spans
    about = {each.key: each.value.string_value for each in sent.resource.attributes}
    assert about["cicd.pipeline.run.url.full"] == f"https://ci.example/runs/{run['id']}"
    assert (about["vcs.ref.head.name"], about["vcs.ref.head.revision"]) == ("main", run["commit"])
    assert {span.trace_id for span in sent.scope_spans[0].spans} == {ulid_to_bytes(run["id"])}
    server.stop()
    server.start()
    server.settled(1)
    assert len(hook.bodies) == 2
