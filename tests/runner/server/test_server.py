"""A push starts the right run, once, of the right commit; and nothing is lost when the server is killed."""

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from runner.folder import RunFolder
from tests.runner.server.conftest import TEXT, Repository, Server, on_both, sqlite
from tests.support.program import PIPE, host, pipe
from tests.support.wait import until

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(120)]


def log(server: Server, run: dict[str, str], leaf: str = "s") -> str:
    folder = server.folder / ".pipe-server/projects/shop/runs/demo" / str(run["number"])
    return RunFolder(folder).log(leaf, 1).read_text()


@on_both
def test_a_push_starts_a_run_of_its_very_commit(server: Server, repository: Repository) -> None:
    first = repository.commit("two", src__a="two")
    repository.commit("three", src__a="three")
    status, answer = server.push(first)
    assert (status, bool(answer["delivery"])) == (202, True)
    (run,) = server.settled(1)
    assert (run["outcome"], run["commit"], run["found_by"], run["delivery"]) == (
        "succeeded",
        first,
        "hook",
        answer["delivery"],
    )
    assert log(server, run) == f"{first}\ntwo"
    (delivery,) = server.deliveries()
    assert (delivery["state"], delivery["note"]) == ("done", "demo: #1 started")


@on_both
def test_a_delivery_that_comes_twice_starts_one_run(server: Server, repository: Repository) -> None:
    commit = repository.commit("two", src__a="two")
    answers = [server.push(commit, id_="same") for _ in range(3)]
    assert [status for status, _ in answers] == [202, 200, 200]
    assert len({answer["delivery"] for _, answer in answers}) == 1
    server.push(commit, id_="another hook of the same push")
    assert len(server.settled(1)) == 1
    assert [(each["copies"], each["note"]) for each in server.deliveries()] == [
        (2, "demo: #1 started"),
        (0, "demo: #1 runs it already"),
    ]


@on_both
def test_what_is_not_genuine_is_refused_and_can_be_seen(server: Server, repository: Repository) -> None:
    commit = repository.commit("two", src__a="two")
    status, answer = server.push(commit, secret="wrong")
    assert (status, "its signature is wrong" in answer["detail"]) == (401, True)
    assert server.ask("/hooks/shop", b"x" * (27 << 20), X_Gitea_Event="push")[0] == 413
    (delivery,) = server.deliveries()
    assert (delivery["state"], delivery["note"], delivery["size"] > 0) == ("refused", "its signature is wrong", True)
    assert server.runs() == []
    listed = pipe(server.folder, "deliveries", env=server.env).stdout
    assert "refused" in listed
    again = f"/api/v1/deliveries/{delivery['id']}/redeliver"
    status, told = server.ask(again, b"", authorization=f"Bearer {server.token}")
    why = "it was refused (its signature is wrong), so nothing of it was kept: mend that, and have it sent again"
    assert (status, told["detail"]) == (409, why)


@on_both
def test_a_branch_moved_back_and_forth_runs_each_time(server: Server, repository: Repository) -> None:
    one = repository.commit("two", src__a="two")
    server.push(one)
    server.settled(1)
    two = repository.commit("three", src__a="three")
    server.push(two)
    server.settled(2)
    repository.git("reset", "-q", "--hard", one)
    repository.git("push", "-q", "--force", "origin", "HEAD")
    server.push(one)
    assert [run["commit"] for run in server.settled(3)] == [one, two, one]


def test_a_delivery_that_comes_late_releases_nothing_old(server: Server, repository: Repository) -> None:
    one = repository.commit("two", src__a="two")
    two = repository.commit("three", src__a="three")
    server.push(two)
    server.settled(1)
    server.push(one)
    until(lambda: all(each["state"] == "done" for each in server.deliveries()))
    assert "it came late: refs/heads/main has moved on" in server.deliveries()[-1]["note"]
    assert len(server.runs()) == 1


def test_paths_compare_with_the_last_run_and_not_with_the_commit_before(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two"))
    server.settled(1)
    repository.commit("in src", src__a="three")
    server.push(repository.commit("elsewhere", README="x"))
    assert len(server.settled(2)) == 2
    server.push(repository.commit("elsewhere again", README="y"))
    until(lambda: all(each["state"] == "done" for each in server.deliveries()))
    assert server.deliveries()[-1]["note"] == "demo: none of the 1 changed files is in `paths:`"


def test_what_no_hook_told_is_found_by_looking(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two"))
    server.settled(1)
    server.stop()
    missed = repository.commit("while nobody listened", src__a="three")
    repository.git("tag", "v1")
    repository.git("push", "-q", "origin", "v1")
    server.start("--poll", "1")
    runs = server.settled(3)
    assert {(run["ref"], run["commit"], run["found_by"]) for run in runs[1:]} == {
        ("refs/heads/main", missed, "poll"),
        ("refs/tags/v1", missed, "poll"),
    }
    server.push(missed)
    until(lambda: server.deliveries()[-1]["state"] == "done")
    assert (len(server.runs()), server.deliveries()[-1]["note"]) == (3, "demo: #2 runs it already")


def test_more_tags_at_once_than_a_forge_tells_of_are_found_by_looking(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(*) from refs") == [(2,)])
    commit = repository.commit("two", src__a="two", pipeline_yaml=TEXT.replace("branches: [main]", "branches: [none]"))
    names = [f"v{number}" for number in range(1, 6)]
    for name in names:
        repository.git("tag", name)
    repository.git("push", "-q", "origin", "--tags")
    found = {(run["ref"], run["commit"], run["found_by"], run["outcome"]) for run in server.settled(5)}
    assert found == {(f"refs/tags/{name}", commit, "poll", "succeeded") for name in names}


def test_a_push_whose_delivery_is_too_large_is_found_by_looking(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(*) from refs") == [(2,)])
    commit = repository.commit("two", src__a="two")
    body = json.dumps({"ref": "refs/heads/main", "after": commit, "pad": "x" * (26 << 20)}).encode()
    assert server.deliver(body, id_="large")[0] == 413
    (run,) = server.settled(1)
    assert (run["commit"], run["found_by"]) == (commit, "poll")


def test_a_new_project_that_nothing_happens_in_is_quiet(server: Server) -> None:
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(*) from refs") == [(2,)])
    subprocess.run(["sleep", "2.5"], check=True)
    assert [line for line in (server.folder / "server.err").read_text().splitlines() if "shop:" in line] == []


def test_what_was_there_before_the_project_starts_nothing(server: Server, repository: Repository) -> None:
    repository.git("push", "-q", "origin", "HEAD:refs/heads/old")
    server.push(repository.commit("two", src__a="two"))
    assert len(server.settled(1)) == 1


def test_a_repository_that_does_not_answer_is_asked_again(server: Server, repository: Repository) -> None:
    commit = repository.commit("two", src__a="two")
    away = repository.bare.rename(repository.bare.with_name("away.git"))
    server.push(commit)
    until(lambda: "tried again in 5 s" in server.deliveries()[0]["note"])
    away.rename(repository.bare)
    assert server.settled(1)[0]["commit"] == commit


def test_a_file_that_is_wrong_is_told_with_its_places(server: Server, repository: Repository) -> None:
    server.push(repository.commit("oops", pipeline_yaml="name: demo\nstages: {a: {rum: x}}\n"))
    until(lambda: server.deliveries()[-1]["state"] == "done")
    assert "pipeline.yaml:2:14: unknown key 'rum'" in server.deliveries()[-1]["note"]


SLOW = TEXT.replace('run: "git', 'run: "touch /FLAG; until test -e /GO; do sleep 0.1; done; git')


def slow(server: Server) -> str:
    return SLOW.replace("/FLAG", str(server.folder / "began")).replace("/GO", str(server.folder / "go"))


@on_both
def test_runs_live_on_when_the_server_is_killed_and_are_found_again(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two", pipeline_yaml=slow(server)))
    until((server.folder / "began").exists)
    server.kill()
    server.start()
    (run,) = server.runs()
    assert run["state"] == "running"
    server.ask(f"/api/v1/runs/{run['id']}/cancel", b"", authorization=f"Bearer {server.token}")
    (run,) = server.settled(1)
    assert (run["outcome"], run["number"]) == ("cancelled", 1)


def kill_engine(server: Server) -> None:
    """Of the run that is under way; it would end well from here."""
    until((server.folder / "began").exists)
    (run,) = server.runs()
    (server.folder / "go").touch()
    os.kill(int(Path(f"/proc/{run['pid']}/task/{run['pid']}/children").read_text().split()[0]), signal.SIGKILL)


def lose_copy(server: Server) -> None:
    for copy in (server.folder / ".pipe-server/projects/shop").glob("repository-*.git"):
        copy.rename(server.folder / "lost.git")


def test_a_run_whose_engine_died_goes_on_by_itself(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two", pipeline_yaml=slow(server)))
    kill_engine(server)
    (run,) = server.settled(1)
    assert (run["outcome"], run["revived"]) == ("succeeded", 1)


def start_with_a_secret(server: Server, repository: Repository) -> str:
    """A run that has one, and goes on with it alone; its commit."""
    words: list[str | Path] = [PIPE, "secrets", "set", "shop", "token"]
    subprocess.run(words, input="hunter-token", cwd=server.folder, env=server.env, text=True, check=True)
    text = slow(server).replace("stages:", "secrets: {token: text}\nstages:")
    commit = repository.commit("two", src__a="two", pipeline_yaml=text.replace("run:", "secrets: {T: token}, run:"))
    server.push(commit)
    until((server.folder / "began").exists)
    return commit


def test_a_run_is_gone_on_with_though_the_copy_is_lost_and_no_ref_leads_to_its_commit(
    server: Server, repository: Repository
) -> None:
    start_with_a_secret(server, repository)
    lose_copy(server)
    repository.git("reset", "-q", "--hard", "HEAD~1")
    repository.commit("another two", src__a="other")
    kill_engine(server)
    run = server.settled(1)[0]
    assert (run["outcome"], run["revived"], run["note"]) == ("succeeded", 1, "")


def test_a_run_whose_repository_does_not_answer_waits_to_be_gone_on_with_and_says_so(
    server: Server, repository: Repository
) -> None:
    start_with_a_secret(server, repository)
    lose_copy(server)
    away = repository.bare.rename(repository.bare.with_name("away"))
    kill_engine(server)
    until(lambda: "its engine died, and what it declares cannot be read: " in server.runs()[0]["note"])
    assert server.runs()[0]["state"] == "running"
    away.rename(repository.bare)
    (run,) = server.settled(1)
    assert (run["revived"], run["note"].startswith("its engine died")) == (1, False)


def test_a_run_whose_commit_is_nowhere_any_more_says_how_to_go_on_with_it(
    server: Server, repository: Repository
) -> None:
    commit = start_with_a_secret(server, repository)
    lose_copy(server)
    repository.git("reset", "-q", "--hard", "HEAD~1")
    repository.commit("another two", src__a="other")
    subprocess.run(["git", "-C", repository.bare, "gc", "-q", "--prune=now"], check=True)
    kill_engine(server)
    run = server.settled(1)[0]
    assert run["outcome"] == "errored"
    assert f"{server.url} has no commit {commit[:12]} any more" in run["note"]
    assert f"`pipe resume {server.folder}/.pipe-server/projects/shop/runs/demo/1` goes on with it" in run["note"]


def test_a_run_that_cannot_begin_says_why(server: Server, repository: Repository) -> None:
    text = TEXT.replace("stages:", "secrets: {token: text}\nstages:").replace(
        "needs: co,", "needs: co, secrets: {T: token},"
    )
    server.push(repository.commit("two", src__a="two", pipeline_yaml=text))
    (run,) = server.settled(1)
    assert (run["outcome"], "secret 'token' was not found" in run["note"]) == ("errored", True)


def test_a_second_server_on_one_folder_is_refused_with_the_name_of_the_first(server: Server) -> None:
    done = pipe(server.folder, "serve", "--port", "1")
    assert done.returncode == 2
    assert f"belongs to pipe serve on 127.0.0.1:{server.port}, process" in done.stderr


def test_without_a_token_the_api_says_nothing(server: Server) -> None:
    for path in ("/api/v1/runs", "/api/v1/deliveries", "/api/v1/runs/x/events"):
        assert server.ask(path)[0] == 401
        assert server.ask(path, authorization="Bearer wrong")[0] == 401
    assert server.ask("/api/v1/openapi.json")[0] == 200


@on_both
def test_prometheus_is_told_how_many_runs_and_deliveries_there_are(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two"))
    server.push("x", secret="wrong")
    server.settled(1)
    argv = ["curl", "-s", "-H", f"Authorization: Bearer {server.token}", f"http://127.0.0.1:{server.port}/metrics"]
    page = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    assert 'pipe_runs_ended_total{outcome="succeeded",pipeline="demo",project="shop"} 1.0' in page
    assert 'pipe_deliveries{project="shop",state="refused"} 1.0' in page
    assert "pipe_queue_seconds 0.0" in page
    assert server.ask("/metrics")[0] == 401


def test_the_events_of_a_run_are_a_stream_that_goes_on_where_it_was_left(
    server: Server, repository: Repository
) -> None:
    server.push(repository.commit("two", src__a="two"))
    (run,) = server.settled(1)
    argv = ["curl", "-sN", "-H", f"Authorization: Bearer {server.token}"]
    url = f"http://127.0.0.1:{server.port}/api/v1/runs/{run['id']}/events"
    whole = subprocess.run([*argv, url], capture_output=True, text=True, timeout=20, check=True).stdout
    ids = [int(line.removeprefix("id: ")) for line in whole.splitlines() if line.startswith("id: ")]
    assert ids == list(range(1, len(ids) + 1))
    assert whole.endswith('event: end\ndata: {"state": "ended", "outcome": "succeeded", "note": ""}\n\n')
    rest = subprocess.run(
        [*argv, "-H", "Last-Event-ID: 3", url], capture_output=True, text=True, timeout=20, check=True
    )
    assert rest.stdout == whole[whole.index("id: 4\n") :]


def test_a_generic_hook_starts_what_its_conditions_say_on_the_main_branch(
    server: Server, repository: Repository
) -> None:
    text = TEXT.replace("webhook: {}", "webhook: {when: body.go}")
    commit = repository.commit("two", src__a="two", pipeline_yaml=text)
    for body in ({"go": False}, {"go": True}):
        status, _ = server.ask("/hooks/shop", json.dumps(body).encode(), authorization=f"Bearer {server.secret}")
        assert status == 202
    (run,) = server.settled(1)
    assert (run["commit"], run["trigger"]["kind"], run["trigger"]["branch"]) == (commit, "webhook", "main")
    assert server.deliveries()[0]["note"] == "demo: `when: body.go` is false"


@on_both
def test_the_end_of_a_run_starts_what_waits_for_it(server: Server, repository: Repository) -> None:
    text = """pipelines:
  base: {triggers: {push: {}}, stages: {s: {run: "true"}}}
  next: {triggers: {pipeline: {name: base}}, stages: {s: {run: "true"}}}
  other: {triggers: {pipeline: {name: base, outcome: failed}}, stages: {s: {run: "true"}}}
"""
    commit = repository.commit("two", pipeline_yaml=text)
    server.push(commit)
    runs = server.settled(2)
    assert [(run["pipeline"], run["commit"], run["found_by"]) for run in runs] == [
        ("base", commit, "hook"),
        ("next", commit, "run"),
    ]


def test_a_time_that_came_while_nobody_was_there_is_made_up_for_once(server: Server, repository: Repository) -> None:
    text = TEXT.replace("triggers: {", "triggers: {cron: {at: '* * * * *'}, ")
    server.push(repository.commit("two", src__a="two", pipeline_yaml=text))
    server.settled(1)
    until(lambda: sqlite(server, "select count(*) from times") == [(1,)])
    server.stop()
    sqlite(server, "update times set looked = looked - 600")
    server.start()
    runs = server.settled(2)
    assert [(run["found_by"], run["trigger"]["kind"], run["ref"]) for run in runs[1:2]] == [
        ("clock", "cron", "refs/heads/main")
    ]
    assert len(runs) <= 3, "of ten minutes the last one alone"


def test_a_forge_that_calls_its_repository_otherwise_is_understood(server: Server, repository: Repository) -> None:
    commit = repository.commit("two", src__a="two")
    server.push(commit, repo="http://inside.example:3000/team/shop.git")
    assert server.settled(1)[0]["outcome"] == "succeeded"


def test_a_delivery_from_before_a_force_push_releases_nothing(server: Server, repository: Repository) -> None:
    one = repository.commit("two", src__a="two")
    server.push(one, id_="first")
    server.settled(1)
    repository.git("reset", "-q", "--hard", "HEAD~1")
    server.push(repository.commit("another two", src__a="another two"))
    server.settled(2)
    server.push(one, id_="again")
    until(lambda: all(each["state"] == "done" for each in server.deliveries()))
    assert "it came late" in server.deliveries()[-1]["note"]
    assert len(server.runs()) == 2


def test_what_a_failed_run_should_have_built_is_still_new(server: Server, repository: Repository) -> None:
    server.push(repository.commit("good", src__a="good"))
    text = TEXT.replace("cat src/src/a", "exit 1")
    server.push(repository.commit("bad", src__a="bad", pipeline_yaml=text))
    runs = server.settled(2)
    assert [(run["outcome"], run["note"]) for run in runs] == [
        ("succeeded", ""),
        ("failed", "s: the script ended with exit code 1"),
    ]
    server.push(repository.commit("elsewhere", README="x"))
    assert len(server.settled(3)) == 3


STRANGE = [
    {"ref": "refs/heads/\ud800", "after": "a" * 40},
    {"ref": "refs/heads/" + "x" * 5000, "after": "a" * 40},
    {"ref": "refs/heads/../../x", "after": "HEAD"},
    {"ref": "refs/heads/--upload-pack=x", "after": "--help"},
    {"ref": ["refs/heads/main"], "after": {"a": 1}},
    [],
    None,
]


@on_both
def test_no_delivery_of_a_stranger_ends_the_server(server: Server, repository: Repository) -> None:
    for number, body in enumerate(STRANGE):
        assert server.deliver(json.dumps(body).encode(), id_=str(number))[0] == 202
    commit = repository.commit(
        "two", src__a="two", pipeline_yaml=TEXT.replace("[main]", '["*a*a*a*a*a*a*a*a*a*a*b", main]')
    )
    server.push(commit)
    assert server.settled(1)[0]["commit"] == commit


def test_a_run_works_in_a_folder_of_its_own(server: Server, repository: Repository) -> None:
    text = "name: demo\ntriggers: {push: {}}\nstages: {s: {run: 'pwd; ls -A; touch left'}}\n"
    for number in (1, 2):
        server.push(repository.commit(f"n{number}", pipeline_yaml=text, src__a=str(number)))
        run = server.settled(number)[-1]
        assert log(server, run) == f"{server.folder}/.pipe-server/projects/shop/scratch/{run['id']}\n"
    assert not list((server.folder / ".pipe-server/projects/shop/scratch").iterdir())


def test_the_server_keeps_its_folder_to_itself(server: Server) -> None:
    assert (server.folder / ".pipe-server").stat().st_mode & 0o077 == 0
    assert (server.folder / ".pipe-server/setup-link").stat().st_mode & 0o077 == 0
    assert (server.folder / ".pipe-server/key").stat().st_mode & 0o077 == 0


def test_a_run_that_waits_can_be_cancelled(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--runs", "1")
    repository.commit("two", src__a="two", pipeline_yaml=slow(server))
    named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
    made = [server.ask("/api/v1/projects/shop/runs", b'{"pipeline": "demo"}', **named)[1]["run"] for _ in range(2)]
    until((server.folder / "began").exists)
    assert server.ask(f"/api/v1/runs/{made[1]}/cancel", b"", **named)[0] == 202
    (server.folder / "go").touch()
    assert [run["outcome"] for run in server.settled(2)] == ["succeeded", "cancelled"]


@on_both
def test_a_run_that_waits_for_its_group_takes_no_place(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--runs", "2")
    text = f"""pipelines:
  group: {{concurrency: {{group: g}}, stages: {{s: {{run: "until test -e {server.folder}/go; do sleep 0.1; done"}}}}}}
  free: {{stages: {{s: {{run: "true"}}}}}}
"""
    repository.commit("two", pipeline_yaml=text)
    named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
    for name in ("group", "group", "group", "free"):
        assert server.ask("/api/v1/projects/shop/runs", json.dumps({"pipeline": name}).encode(), **named)[0] == 201
    until(lambda: server.runs()[3]["state"] == "ended")
    assert "waits for group#" in "".join(run["note"] for run in server.runs())
    (server.folder / "go").touch()
    assert [run["outcome"] for run in server.settled(4)] == ["succeeded"] * 4


def test_a_folder_of_another_run_under_the_same_number_is_not_its_result(
    server: Server, repository: Repository
) -> None:
    commit = repository.commit("two", src__a="two")
    named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
    store = server.folder / ".pipe-server/projects/shop/runs"
    (server.folder / "p.yaml").write_text("name: demo\nstages: {s: {run: 'true'}}\n")
    assert pipe(server.folder, "run", "p.yaml", env=host(PIPE_STORE=str(store))).returncode == 0
    server.ask("/api/v1/projects/shop/runs", b'{"pipeline": "demo"}', **named)
    (run,) = server.settled(1)
    assert (run["number"], run["commit"], run["outcome"]) == (2, commit, "succeeded")


def test_the_leaves_of_a_run_say_how_they_are(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two", pipeline_yaml=TEXT.replace("cat src/src/a", "exit 3")))
    (run,) = server.settled(1)
    leaves = {leaf["name"]: (leaf["outcome"], leaf["cause"]) for leaf in server.get(f"/api/v1/runs/{run['id']}/leaves")}
    assert leaves == {"co": ("succeeded", ""), "s": ("failed", "the script ended with exit code 3")}


def test_nobody_sends_a_large_body_without_a_hook(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/api/v1/projects/shop/runs"
    argv = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "@-", url]
    done = subprocess.run(argv, input=b"x" * (2 << 20), capture_output=True, timeout=20, check=False)
    assert done.stdout == b"413"


def test_wrong_words_are_refused_before_anything_is_kept(server: Server) -> None:
    wrong = {
        ("projects", "add", "typo", "shop.git"): "'shop.git'",
        ("projects", "add", "typo", "https://u:pw@git.example/a.git"): "PIPE_GIT_PASSWORD",
        ("projects", "add", "typo", "https://git.example/a.git", "--forge", "gitlba"): "did you mean 'gitlab'?",
        ("projects", "remove", "shp"): "did you mean 'shop'?",
        ("serve", "--port", str(server.port), "--state", "elsewhere"): f"cannot listen at 127.0.0.1:{server.port}",
        ("deliveries", "--state", "nowhere"): "there is no server in",
        ("secrets", "list", "shop", "--server", "https://ci"): "`pipe secrets list` has no --server: it works on the",
        ("audit", "--server", "https://ci/"): "from elsewhere there are the pages of https://ci, and its API",
    }
    for words, why in wrong.items():
        done = pipe(server.folder, *words)
        assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert pipe(server.folder, "projects", "list").stdout.startswith("shop  generic")


def test_the_first_push_to_an_empty_repository_is_found(tmp_path: Path, server: Server) -> None:
    bare, tree = tmp_path / "new.git", tmp_path / "new"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
    assert pipe(server.folder, "projects", "add", "new", f"file://{bare}").returncode == 0
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(*) from refs where project = 'new'") != [(0,)])
    subprocess.run(["git", "clone", "-q", bare, tree], check=True, capture_output=True)
    made = Repository(bare, tree)
    made.git("checkout", "-q", "-b", "main")
    made.commit("first", pipeline_yaml="name: demo\ntriggers: {push: {}}\nstages: {s: {run: 'true'}}\n")
    assert server.settled(1)[0]["found_by"] == "poll"


@on_both
def test_somebody_can_start_a_run_with_parameters(server: Server, repository: Repository) -> None:
    text = TEXT.replace("stages:", "params: {word: {default: x, choices: [x, y]}}\nstages:").replace(
        "cat src/src/a", 'echo $W", env: {W: "${params.word}"}, title: "x'
    )
    repository.commit("two", src__a="two", pipeline_yaml=text)
    old = repository.git("rev-parse", "HEAD")
    repository.commit("three", src__a="three")

    def start(**body: object) -> tuple[int, Any]:
        named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
        return server.ask("/api/v1/projects/shop/runs", json.dumps(body).encode(), **named)

    status, made = start(pipeline="demo", ref=old, params={"word": "y"})
    assert (status, made["number"]) == (201, 1)
    (run,) = server.settled(1)
    assert (run["id"], run["outcome"], run["commit"], run["found_by"]) == (made["run"], "succeeded", old, "call")
    assert log(server, run) == f"{old}\ny\n"
    for body, why in (
        ({"pipeline": "dmo"}, "did you mean 'demo'?"),
        ({"pipeline": "demo", "params": {"wrd": "y"}}, "there is no parameter 'wrd'"),
        ({"pipeline": "demo", "params": {"word": "z"}}, "'z' is none of x, y"),
        ({"pipeline": "demo", "params": {"word": "a\0b"}}, ""),
        ({"pipeline": "demo", "parms": {}}, "parms"),
        ({"pipeline": "demo", "ref": "nowhere"}, "there is no branch, tag or commit 'nowhere'"),
    ):
        status, answer = start(**body)
        assert (status, why in str(answer["detail"])) == (422, True), answer


def test_a_branch_is_run_as_it_stood_at_one_of_its_commits_and_at_no_other(
    server: Server, repository: Repository
) -> None:
    old = repository.commit("two", pipeline_yaml=TEXT.replace("cat src/src/a", "echo of $BRANCH_NAME"))
    repository.commit("three", src__a="three")
    repository.git("checkout", "-q", "-b", "side")
    foreign = repository.commit("four", src__a="four")

    def start(ref: str) -> tuple[int, Any]:
        named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
        body = json.dumps({"pipeline": "demo", "ref": ref}).encode()
        return server.ask("/api/v1/projects/shop/runs", body, **named)

    for ref in (f"main@{old}", f"main@{old[:10]}", f"refs/heads/main@{old}"):
        assert start(ref)[0] == 201
    runs = server.settled(3)
    assert {(run["commit"], run["trigger"]["branch"], run["outcome"]) for run in runs} == {(old, "main", "succeeded")}
    assert log(server, runs[0]) == f"{old}\nof main\n"
    for ref, why in (
        (f"main@{foreign}", f"main has no commit {foreign}"),
        (f"main@{'0' * 40}", f"main has no commit {'0' * 40}"),
        (f"nope@{old}", "there is no branch 'nope'"),
        ("main@{1}", "there is no branch, tag or commit 'main@{1}'"),
    ):
        status, answer = start(ref)
        assert (status, why in str(answer["detail"])) == (422, True), answer


@on_both
@pytest.mark.parametrize("number", range(4))
def test_no_delivery_is_lost_when_the_server_is_killed_at_any_moment(
    server: Server, repository: Repository, number: int
) -> None:
    commits = [repository.commit(f"n{n}", src__a=f"n{n}") for n in range(3)]
    taken = []
    for commit in commits:
        status, answer = server.push(commit, id_=commit)
        assert status == 202
        taken.append(answer["delivery"])
        if number:  # 0: within a millisecond of its answer
            subprocess.run(["sleep", str(0.15 * number)], check=True)
        server.kill()
        server.start()
    runs = server.settled(1, limit=60)
    until(lambda: all(each["state"] == "done" for each in server.deliveries()))
    assert [each["id"] for each in server.deliveries()] == taken
    assert runs[-1]["commit"] == commits[-1]
    assert {run["outcome"] for run in server.settled(1)} == {"succeeded"}
    assert len({run["commit"] for run in server.runs()}) == len(server.runs())


def test_a_server_that_is_told_to_end_ends_and_leaves_runs_alone(server: Server, repository: Repository) -> None:
    server.push(repository.commit("two", src__a="two", pipeline_yaml=slow(server)))
    until((server.folder / "began").exists)
    assert server.stop() == 0
    (server.folder / "go").touch()
    run = RunFolder(server.folder / ".pipe-server/projects/shop/runs/demo/1")
    until(lambda: run.ended() is not None)
    server.start()
    assert server.settled(1)[0]["outcome"] == "succeeded"


# -- the door --------------------------------------------------------------------------------------


def of_gitee(server: Server, stamp: int) -> dict[str, str]:
    signed = hmac.new(server.secret.encode(), f"{stamp}\n{server.secret}".encode(), hashlib.sha256).digest()
    token = base64.b64encode(signed).decode()
    return {"x_gitee_event": "Push Hook", "x_gitee_token": token, "x_gitee_timestamp": str(stamp)}


def test_a_signature_that_does_not_cover_the_body_is_good_for_one_body(server: Server) -> None:
    headers = of_gitee(server, int(time.time() * 1000))
    assert server.ask("/hooks/shop", b'{"ref": "refs/heads/x"}', **headers)[0] == 202
    assert server.ask("/hooks/shop", b'{"ref": "refs/heads/x"}', **headers)[0] == 200
    status, told = server.ask("/hooks/shop", b'{"ref": "refs/heads/main"}', **headers)
    assert (status, "came with another body before" in told["detail"]) == (401, True)
    assert server.ask("/hooks/shop", b"{}", **of_gitee(server, int(time.time() * 1000) + 1))[0] == 202


def test_slow_senders_of_large_bodies_close_the_door_for_nobody(server: Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    for each in idle:
        each.sendall(b"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n{")
    body = json.dumps({"pad": "x" * (2 << 20)}).encode()
    assert server.deliver(body, id_="large")[0] == 202
    for each in idle:
        each.close()


def test_what_the_poll_found_cannot_be_worked_again(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(*) from refs") == [(2,)])
    repository.commit("two", src__a="two")
    server.settled(1)
    (found,) = [each for each in server.deliveries() if each["forge"] == "poll"]
    named = {"authorization": f"Bearer {server.token}"}
    status, told = server.ask(f"/api/v1/deliveries/{found['id']}/redeliver", b"", **named)
    why = "nobody sent it, looking at the repository found it: start a run of that ref instead"
    assert (status, told["detail"]) == (409, why)


def test_a_tag_of_no_commit_is_found_once(server: Server, repository: Repository) -> None:
    server.stop()
    server.start("--poll", "1")
    until(lambda: sqlite(server, "select count(*) from refs") == [(2,)])
    repository.git("tag", "blob", repository.git("hash-object", "-w", "src/a"))
    repository.git("push", "-q", "origin", "blob")
    until(lambda: len(server.deliveries()) == 1)
    commit = repository.commit("two", src__a="two")
    (run,) = server.settled(1)
    assert (len(server.deliveries()), run["commit"]) == (2, commit)


# -- a project that comes back ---------------------------------------------------------------------


def test_a_project_that_is_added_again_with_another_repository_knows_nothing_of_the_former(
    server: Server, repository: Repository, tmp_path: Path
) -> None:
    former = repository.git("rev-parse", "HEAD")
    server.call("/api/v1/projects/shop/runs", pipeline="demo")
    server.settled(1)
    other = Repository(tmp_path / "other.git", tmp_path / "other")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", other.bare], check=True)
    subprocess.run(["git", "clone", "-q", other.bare, other.tree], check=True, capture_output=True)
    other.git("checkout", "-q", "-b", "main")
    newer = other.commit("another", pipeline_yaml=TEXT, src__a="other")
    assert pipe(server.folder, "projects", "remove", "shop").returncode == 0
    server.add(url=f"file://{other.bare}")
    named = {"Content_Type": "application/json", "authorization": f"Bearer {server.token}"}
    wanted = json.dumps({"pipeline": "demo", "ref": former}).encode()
    until(lambda: server.ask("/api/v1/projects/shop/runs", wanted, **named)[0] == 422)
    server.call("/api/v1/projects/shop/runs", pipeline="demo")
    assert server.settled(2)[-1]["commit"] == newer
