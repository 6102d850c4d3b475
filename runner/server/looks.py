"""When things that wait for news look anyway: all in the same moment.

To wake an idle machine costs more than a look. Many looks at once cost little more than one.
"""

import time

__all__ = ["until_next"]


def until_next(every: float) -> float:
    """Seconds until the next look of those that look every so many seconds, a divisor of a minute."""
    return every - time.time() % every
