"""What Prometheus is told: counts out of the database, made when it asks."""

import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from runner.server.database import deliveries, runs, statuses

__all__ = ["exposition"]

_OF_RUN = ("project", "pipeline", "outcome")


def exposition(connection: Connection) -> bytes:
    """The page in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Counts(connection))
    return generate_latest(registry)


class _Counts(Collector):
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def collect(self) -> list[Metric]:
        """All of them."""
        return [self._runs(), self._ended(), self._oldest(), self._deliveries(), self._untold()]

    def _runs(self) -> Metric:
        found = GaugeMetricFamily("pipe_runs", "Runs that have no end yet.", labels=["project", "state"])
        open_ = select(runs.c.project, runs.c.state, func.count()).where(runs.c.state != "ended")
        for project, state, count in self._connection.execute(open_.group_by(runs.c.project, runs.c.state)):
            found.add_metric([project, state], count)
        return found

    def _ended(self) -> Metric:
        found = CounterMetricFamily(
            "pipe_runs_ended", "Runs that have ended.", labels=["project", "pipeline", "outcome"]
        )
        columns = (runs.c.project, runs.c.pipeline, runs.c.outcome)
        for *labels, count in self._connection.execute(
            select(*columns, func.count()).where(runs.c.state == "ended").group_by(*columns)
        ):
            found.add_metric(labels, count)
        return found

    def _oldest(self) -> Metric:
        oldest = select(func.min(runs.c.created)).where(runs.c.state == "queued")
        since = self._connection.execute(oldest).scalar_one_or_none()
        waited = time.time() - since if since else 0.0
        return GaugeMetricFamily(
            "pipe_queue_seconds", "How long the oldest run has waited for its start.", value=waited
        )

    def _deliveries(self) -> Metric:
        found = GaugeMetricFamily("pipe_deliveries", "Deliveries by what became of them.", labels=["project", "state"])
        columns = (deliveries.c.project, deliveries.c.state)
        for *labels, count in self._connection.execute(select(*columns, func.count()).group_by(*columns)):
            found.add_metric(labels, count)
        return found

    def _untold(self) -> Metric:
        waiting = select(func.count()).select_from(statuses).where(statuses.c.told.is_(False), statuses.c.tries > 0)
        count = self._connection.execute(waiting).scalar_one()
        return GaugeMetricFamily("pipe_statuses_refused", "Statuses that a forge has not taken yet.", value=count)
