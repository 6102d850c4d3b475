"""What Prometheus is told: counts out of the database, made when it asks.

Where OpenTelemetry's conventions for CI/CD have a metric, ours has its name and labels, as Prometheus writes them
(https://opentelemetry.io/docs/specs/semconv/cicd/cicd-metrics/).
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Connection, Float, Table, and_, case, cast, func, select

from pipeline.stage import Outcome
from runner.server.database import deliveries, notifications, runs, statuses
from runner.server.outbox import MOST_TRIES
from runner.traces import RESULTS

__all__ = ["exposition"]

_UP_TO = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
"""Upper ends of the durations' buckets, in seconds."""
_ENDS = [*(str(float(end)) for end in _UP_TO), "+Inf"]
_OF_RUN = ["project", "cicd_pipeline_name"]


def exposition(connection: Connection) -> bytes:
    """The page in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Counts(connection))
    return generate_latest(registry)


@dataclass
class _Spread:
    """How many durations end in each bucket, and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * len(_ENDS))
    total: float = 0.0


class _Counts(Collector):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield self._active()
        yield self._ended()
        yield self._durations()
        yield self._oldest_run()
        yield self._deliveries()
        yield self._oldest_delivery()
        yield self._untold("pipe_statuses", "Commit statuses that a forge has not taken.", statuses)
        yield self._untold("pipe_notifications", "Messages that a target has not taken.", notifications)

    def _active(self) -> Metric:
        found = GaugeMetricFamily(
            "cicd_pipeline_run_active",
            "Runs that have no end yet: pending ones wait for their start.",
            labels=[*_OF_RUN, "cicd_pipeline_run_state"],
        )
        columns = (runs.c.project, runs.c.pipeline, case((runs.c.state == "running", "executing"), else_="pending"))
        for *labels, count in self._connection.execute(
            select(*columns, func.count()).where(runs.c.state != "ended").group_by(*columns)
        ):
            found.add_metric(labels, count)
        return found

    def _ended(self) -> Metric:
        labels = ["project", "pipeline", "outcome"]
        found = CounterMetricFamily("pipe_runs_ended", "Runs that have ended.", labels=labels)
        columns = (runs.c.project, runs.c.pipeline, runs.c.outcome)
        wanted = select(*columns, func.count()).where(runs.c.state == "ended").group_by(*columns)
        for *values, count in self._connection.execute(wanted):
            found.add_metric(values, count)
        return found

    def _durations(self) -> Metric:
        found = HistogramMetricFamily(
            "cicd_pipeline_run_duration_seconds",
            "How long runs waited (pending) and ran (executing).",
            labels=[*_OF_RUN, "cicd_pipeline_run_state", "cicd_pipeline_result"],
        )
        lengths = {"pending": runs.c.started - runs.c.created, "executing": runs.c.ended - runs.c.started}
        for state, seconds in lengths.items():
            for (project, pipeline, outcome), spread in self._spreads(seconds).items():
                labels = [project, pipeline, state, RESULTS[Outcome(outcome)]]
                found.add_metric(labels, [*zip(_ENDS, accumulate(spread.counts), strict=True)], spread.total)
        return found

    def _spreads(self, seconds: ColumnElement[float]) -> dict[tuple[str, str, str], "_Spread"]:
        """How durations lie, for each pipeline and outcome."""
        labels = (runs.c.project, runs.c.pipeline, runs.c.outcome)
        bucket = case(*((seconds <= end, index) for index, end in enumerate(_UP_TO)), else_=len(_UP_TO))
        counted = select(*labels, bucket, func.count(), func.sum(cast(seconds, Float)))
        happened = and_(runs.c.state == "ended", runs.c.started > 0)
        found: dict[tuple[str, str, str], _Spread] = defaultdict(_Spread)
        for *of, index, count, total in self._connection.execute(counted.where(happened).group_by(*labels, bucket)):
            spread = found[of[0], of[1], of[2]]
            spread.counts[index] = count
            spread.total += total
        return found

    def _oldest_run(self) -> Metric:
        since = self._least(runs.c.created, runs.c.state == "queued")
        return GaugeMetricFamily("pipe_queue_seconds", "How long the oldest run has waited for its start.", value=since)

    def _oldest_delivery(self) -> Metric:
        since = self._least(deliveries.c.received, deliveries.c.state == "new")
        return GaugeMetricFamily("pipe_inbox_seconds", "How long the oldest delivery has waited for work.", value=since)

    def _least(self, column: ColumnElement[float], which: ColumnElement[bool]) -> float:
        """How long ago the oldest was; 0 when there is none."""
        since = self._connection.execute(select(func.min(column)).where(which)).scalar_one_or_none()
        return max(0.0, time.time() - since) if since else 0.0

    def _deliveries(self) -> Metric:
        found = GaugeMetricFamily("pipe_deliveries", "Deliveries by what became of them.", labels=["project", "state"])
        columns = (deliveries.c.project, deliveries.c.state)
        for *labels, count in self._connection.execute(select(*columns, func.count()).group_by(*columns)):
            found.add_metric(labels, count)
        return found

    def _untold(self, name: str, words: str, table: Table) -> Metric:
        """Always both states, so that an alarm has something to look at."""
        found = GaugeMetricFamily(name, words, labels=["state"])
        for state, which in (("waiting", table.c.tries < MOST_TRIES), ("given_up", table.c.tries >= MOST_TRIES)):
            wanted = select(func.count()).select_from(table).where(table.c.told.is_(False), which)
            found.add_metric([state], self._connection.execute(wanted).scalar_one())
        return found
