"""Projects take turns: a hundred runs of one do not stand before the first of another."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update

from runner.server.database import Database, runs
from runner.server.dispatcher import MOST_WAITING, _claim


def queued(connection: Connection, project: str, count: int, since: float, *, grouped: bool = False) -> None:
    for n in range(count):
        row = {
            "id": f"{project}{n}",
            "project": project,
            "place": project,
            "pipeline": "p",
            "number": n + 1,
            "event": str(n),
        }
        rest = {
            "found_by": "call",
            "ref": "",
            "commit": "",
            "file_commit": "",
            "trigger": "{}",
            "params": "{}",
            "state": "queued",
        }
        connection.execute(insert(runs).values(**row, **rest, created=since + n, grouped=grouped))


def started(database: Database, slots: int, turns: int) -> list[str]:
    """The projects whose runs were started, in order; each turn ends the run that has been under way the longest."""
    order: list[str] = []
    under_way: list[str] = []
    last: dict[str, int] = {}
    for _ in range(turns):
        for row in database.write_now(lambda c: _claim(c, "one", slots - len(under_way), last)):
            order.append(str(row.project))
            under_way.append(str(row.id))
            last[str(row.project)] = len(order)
        over = update(runs).where(runs.c.id == under_way.pop(0)).values(state="ended")
        database.write_now(lambda c, over=over: c.execute(over))  # type: ignore[misc]
    return order


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_a_hundred_runs_of_one_project_do_not_hold_up_another(tmp_path: Path, slots: int) -> None:
    database = Database(tmp_path / "server.db")
    for project, count, since in (("many", 100, 0.0), ("few", 3, 1000.0), ("one", 1, 2000.0)):
        database.write_now(lambda c, p=project, n=count, s=since: queued(c, p, n, s))  # type: ignore[misc]
    order = started(database, slots, 12)
    assert set(order[:3]) == {"many", "few", "one"}
    assert Counter(order[:7])["few"] == 3
    database.close()


def test_those_that_would_only_wait_for_their_turn_in_a_group_wait_in_the_queue(tmp_path: Path) -> None:
    database = Database(tmp_path / "server.db")
    database.write_now(lambda c: queued(c, "many", 50, 0.0, grouped=True))
    database.write_now(lambda c: queued(c, "other", 1, 100.0))

    def claimed() -> list[str]:
        return [str(row.id) for row in database.write_now(lambda c: _claim(c, "one", 20, {}))]

    first = claimed()
    assert len([id_ for id_ in first if id_.startswith("many")]) == MOST_WAITING
    assert "other0" in first
    waits = update(runs).where(runs.c.id.in_(first[1:]), runs.c.grouped).values(note="waits for many#1")
    database.write_now(lambda c: c.execute(waits))
    assert len(claimed()) == 1, "there is room for one more that waits"
    database.close()
