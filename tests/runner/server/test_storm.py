"""The server killed two hundred times under twenty runs: none is lost, none runs twice, none runs for ever."""

import random
import time
from collections import Counter

import pytest

from tests.runner.server.conftest import Repository, Server

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
