"""Numbers of bytes, as people write and read them."""

import re

__all__ = ["bytes_of", "size"]

_SIZE = re.compile(r"([0-9]{1,9})(Mi|Gi|Ti)")
_SCALES = {"Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def bytes_of(text: str) -> int | None:
    """The bytes that `500Mi` or `10Gi` means; None if it means nothing."""
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _SCALES[match[2]] if match else None


def size(number: float) -> str:
    """A number of bytes: `12.3 MiB`."""
    if number < 1024:
        return f"{number:.0f} B"
    units = iter(("KiB", "MiB", "GiB"))
    unit = next(units)
    while (number := number / 1024) >= 1024 and unit != "GiB":
        unit = next(units)
    return f"{number:.1f} {unit}"
