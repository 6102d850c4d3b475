"""The description of the API is true: a client that a generator made of it starts, follows and cancels a run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from tests.runner.server.conftest import Repository, Server
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(180)]

CLIENT = """
import sys
from made.client import AuthenticatedClient
from made.api.default import cancel_run, follow_run, get_log, get_run, list_leaves, list_pipelines, list_runs, start_run
from made.models import Problem, Start, StartParams

url, token = sys.argv[1:]
with AuthenticatedClient(base_url=url, token=token, timeout=60) as client:
    assert [(each.name, each.params) for each in list_pipelines.sync("shop", client=client)] == [("demo", ["word"])]
    params = StartParams.from_dict({"word": "generated"})
    run = start_run.sync("shop", client=client, body=Start(pipeline="demo", params=params)).run
    with client.get_httpx_client().stream("GET", f"/api/v1/runs/{run}/events?logs=true") as stream:
        for line in stream.iter_lines():
            if '"text": "saying generated' in line:
                break
    assert [leaf.outcome for leaf in list_leaves.sync(run, client=client)] == ["running"]
    assert get_log.sync(run, "say", client=client) == "saying generated\\n"
    cancel_run.sync(run, client=client)
    told = follow_run.sync(run, client=client)
    assert "event: run.finished" in told and told.rstrip().rpartition("\\n")[0].endswith("event: end"), told
    ended = get_run.sync(run, client=client)
    assert (ended.state.value, ended.outcome, ended.params.to_dict()) == ("ended", "cancelled", {"word": "generated"})
    assert [each.id for each in list_runs.sync(client=client, limit=1)] == [run]
    wrong = start_run.sync("shop", client=client, body=Start(pipeline="demi"))
    assert isinstance(wrong, Problem) and "no pipeline 'demi'" in wrong.detail, wrong
    print("done")
"""


def described(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/api/v1/openapi.json")
    return found


def test_the_description_is_sound_and_names_every_call_and_error(server: Server) -> None:
    found = described(server)
    validate(found)
    calls = [call for path in found["paths"].values() for call in path.values()]
    assert len({call["operationId"] for call in calls}) == len(calls)
    for call in calls:
        assert call["description"], call
        assert {"401", "404", "422"} <= call["responses"].keys(), call
        for status, answer in call["responses"].items():
            kinds = {"application/problem+json"} if status >= "4" else answer.get("content", {}).keys()
            assert answer.get("content", {}).keys() == (kinds if status != "204" else set()), (call, status)


def test_a_generated_client_starts_follows_and_cancels_a_run(
    server: Server, repository: Repository, tmp_path: Path
) -> None:
    text = (
        'name: demo\nparams: {word: {}}\nstages: {say: {run: "echo saying $W; sleep 60", env: {W: "${params.word}"}}}\n'
    )
    repository.commit("two", pipeline_yaml=text)
    (tmp_path / "openapi.json").write_text(json.dumps(described(server)))
    generate = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--meta", "none"]
    made = subprocess.run(
        [*generate, "--path", "openapi.json", "--output-path", "made", "--fail-on-warning"],
        cwd=tmp_path,
        env={"PATH": str(Path(sys.executable).parent), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    (tmp_path / "use.py").write_text(CLIENT)
    argv = [sys.executable, "use.py", f"http://127.0.0.1:{server.port}", server.token]
    used = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (used.stdout, used.returncode) == ("done\n", 0), used.stderr


def test_every_error_is_a_problem_with_its_reason(server: Server) -> None:
    signed = {"authorization": f"Bearer {server.token}"}
    asked: list[tuple[str, bytes | None, int, str]] = [
        ("/api/v1/runs/none", None, 404, "there is no such thing"),
        ("/api/v1/nothing", None, 404, "Not Found"),
        ("/api/v1/runs?limit=0", None, 422, "query.limit: Input should be greater than or equal to 1"),
        ("/api/v1/projects/shop/runs", b"{", 422, "body"),
        ("/api/v1/projects/shop/runs", b"x" * (2 << 20), 413, "larger than 1 MiB"),
        ("/api/v1/runs/none/cancel", b"", 404, "there is no such thing"),
    ]
    for path, body, status, why in asked:
        got, said = server.ask(path, body, content_type="application/json", **signed)
        assert (got, said["status"], why in said["detail"]) == (status, status, True), said
        assert said.keys() == {"type", "title", "status", "detail"}


def test_a_log_can_be_asked_for_by_attempt_and_place(server: Server, repository: Repository) -> None:
    retried = 'name: demo\ntriggers: {push: {}}\nstages:\n  s: {run: "echo try $PIPE_ATTEMPT; exit 1", retry: {times: 1, on: user, wait: 10ms}}\n  quiet: {run: "true"}\n'
    server.push(repository.commit("two", pipeline_yaml=retried))
    (run,) = server.settled(1)

    def log(words: str) -> str:
        url = f"http://127.0.0.1:{server.port}/api/v1/runs/{run['id']}/logs/{words}"
        argv = ["curl", "-sf", "-H", f"Authorization: Bearer {server.token}", url]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout

    asked = ("s", "s?attempt=1", "s?attempt=1&offset=4", "s?offset=-2", "s?offset=99", "s?follow=true", "quiet")
    assert [log(words) for words in asked] == ["try 2\n", "try 1\n", "1\n", "2\n", "", "try 2\n", ""]
    for words in ("s?attempt=3", "other"):
        status, _ = server.ask(f"/api/v1/runs/{run['id']}/logs/{words}", authorization=f"Bearer {server.token}")
        assert status == 404


def test_a_place_that_is_none_is_refused(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two"))
    until(server.runs)
    path = f"/api/v1/runs/{server.runs()[0]['id']}/events"
    status, said = server.ask(path, authorization=f"Bearer {server.token}", last_event_id="x")
    assert (status, said["detail"]) == (400, "'x' is no place in the events of a run")
