"""The server at the worst of times: killed two hundred times, and in a storm of deliveries. Nothing is lost or repeated."""

import random
import time
import urllib.error
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.runner.server.conftest import Repository, Server, sqlite

pytestmark = [pytest.mark.network, pytest.mark.long, pytest.mark.timeout(1200)]

KILLS, RUNS = 200, 20
TEXT = """name: demo
triggers: {push: {}}
stages:
  a: {run: "echo begin $BUILD_NUMBER a >> LEDGER; sleep 2; echo end $BUILD_NUMBER a >> LEDGER"}
  b: {needs: a, each: [x, y], run: "echo begin $BUILD_NUMBER b >> LEDGER; sleep 1; echo end $BUILD_NUMBER b >> LEDGER"}
"""


def test_two_hundred_kills_of_the_server_lose_no_run_and_repeat_no_stage(
    server: Server, repository: Repository
) -> None:
    ledger = server.folder / "ledger"
    text = TEXT.replace("LEDGER", str(ledger))
    draw = random.Random(1)  # noqa: S311 - a seed, not a secret
    server.stop()
    server.start("--runs", str(RUNS))
    sent = 0
    for kill in range(KILLS):
        if sent < RUNS and kill % 5 == 0:
            sent += 1
            commit = repository.commit(f"n{sent}", pipeline_yaml=text, src__a=str(sent))
            assert server.push(commit, id_=commit)[0] == 202
        time.sleep(draw.uniform(0, 0.4))
        server.kill()
        server.start("--runs", str(RUNS))
    runs = server.settled(RUNS, limit=300)
    assert [run["outcome"] for run in runs] == ["succeeded"] * RUNS
    assert [run["number"] for run in runs] == list(range(1, RUNS + 1))
    made = Counter(ledger.read_text().splitlines())
    wanted = {
        f"{what} {n} {stage}": times
        for n in range(1, RUNS + 1)
        for what in ("begin", "end")
        for stage, times in (("a", 1), ("b", 2))
    }
    assert made == wanted


DELIVERIES, BRANCHES, PER_SECOND = 1000, 20, 500
STORM = "name: demo\ntriggers: {push: {}}\nstages: {s: {run: 'true'}}\n"


def test_a_storm_of_deliveries_loses_none_and_starts_one_run_for_each_push(
    server: Server, repository: Repository
) -> None:
    """A thousand in two seconds: a fifth comes twice, a twentieth is not genuine, a hundredth has 30 MB."""
    repository.commit("base", pipeline_yaml=STORM)
    server.push(repository.git("rev-parse", "HEAD"))
    server.settled(1)
    before = memory(server)
    commits = {}
    for number in range(BRANCHES):
        repository.git("checkout", "-q", "-B", f"b{number}")
        commits[f"refs/heads/b{number}"] = repository.commit(f"n{number}", src__a=str(number))
    began = time.monotonic()

    def send(number: int) -> tuple[str, int, str]:
        time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        kind, id_, ref = plan[number]
        if kind == "large":
            return kind, refused(server, id_), ""
        status, answer = server.push(commits[ref], ref=ref, id_=id_, secret="wrong" if kind == "wrong" else "")
        return kind, status, answer.get("delivery", "")

    plan = planned(random.Random(1), list(commits))  # noqa: S311 - a seed, not a secret
    with ThreadPoolExecutor(32) as senders:
        answers = list(senders.map(send, range(DELIVERIES)))
    assert {status for kind, status, _ in answers if kind == "wrong"} == {401}
    assert {status for kind, status, _ in answers if kind == "large"} == {413}
    assert {status for kind, status, _ in answers if kind in ("good", "again")} <= {200, 202}
    runs = server.settled(1 + BRANCHES, limit=900)
    taken = {id_ for _, status, id_ in answers if status in (200, 202)}
    kept = sqlite(server, "select id from deliveries where state = 'done'")
    assert taken <= {str(id_) for (id_,) in kept}
    assert Counter(run["commit"] for run in runs[1:]) == Counter(commits.values())
    assert {(run["outcome"], run["note"]) for run in runs} == {("succeeded", "")}
    assert memory(server) < before + 120, "two bodies of 26 MiB are held at once, and no more"


def planned(draw: random.Random, refs: list[str]) -> list[tuple[str, str, str]]:
    """What is sent: of which kind, under which id, about which branch."""
    plan: list[tuple[str, str, str]] = []
    for number in range(DELIVERIES):
        kind = draw.choices(["good", "again", "wrong", "large"], [74, 20, 5, 1])[0]
        earlier = plan[draw.randrange(number)][1:] if number and kind == "again" else None
        plan.append((kind, *(earlier or (f"d{number}", draw.choice(refs)))))
    return plan


def refused(server: Server, id_: str) -> int:
    """What becomes of 30 MB; whoever is still sending when they are refused may see no more than the end."""
    try:
        return server.deliver(b"x" * (30 << 20), id_=id_)[0]
    except (urllib.error.URLError, ConnectionError):
        return 413


def memory(server: Server) -> float:
    """MiB, at most so far."""
    assert server.process
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024
