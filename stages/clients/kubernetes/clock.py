"""The cluster's clock, by the `Date` of its answers: ours may be minutes off."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Clock"]


@dataclass(slots=True)
class Clock:
    """What one server says the time is; until it has said so, ours.

    A `Date` has whole seconds (RFC 9110, section 5.6.7) and was made at some moment of its request. What we take the
    time for is changed only when an answer proves it wrong, so it runs evenly, and follows a clock that is set.
    """

    _ahead: float | None = None
    """Seconds since 1970 by the cluster's clock, less those of `time.monotonic()`."""

    def hear(self, date: str | None, asked: float) -> None:
        """Take in the `Date` of an answer that has just come; `asked`: when, by `time.monotonic()`."""
        answered = time.monotonic()
        try:
            said = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        earliest, latest = said - answered, said + 1 - asked
        self._ahead = earliest if self._ahead is None else min(max(self._ahead, earliest), latest)

    @property
    def now(self) -> datetime:
        """The time, by the cluster's clock."""
        if self._ahead is None:
            return datetime.now(UTC)
        return datetime.fromtimestamp(time.monotonic() + self._ahead, UTC)
