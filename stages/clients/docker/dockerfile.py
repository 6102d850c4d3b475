"""Which images a Dockerfile builds on, read from its text; no more of it is understood than that needs."""

import re
from collections.abc import Iterator, Mapping

__all__ = ["bases"]

_FROM = re.compile(r"FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*", re.IGNORECASE)
_ARG = re.compile(r"ARG\s+(?P<name>\w+)(?:=(?P<value>.*))?", re.IGNORECASE)
_COPY = re.compile(r"(?:COPY|ADD)\s+(?:--\S+\s+)*?--from=(?P<image>\S+)\s", re.IGNORECASE)
_VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\})")
_SCRATCH = "scratch"


def bases(text: str, args: Mapping[str, str], target: str = "") -> list[str]:
    """The images that must be had before a build, in their order, each once.

    `args` are build arguments; a name that depends on one without a value is left out: nobody can tell it.
    `target` is the stage to stop at. The rules are those of the Dockerfile reference: only an ARG in front of the
    first FROM counts there, and the name of an earlier stage is no image.
    """
    known = dict(args)
    stages: list[str] = []
    found: list[str] = []
    for line in _lines(text):
        if match := _ARG.fullmatch(line):
            if not stages and match["name"] not in args and match["value"] is not None:
                known[match["name"]] = _filled(match["value"].strip().strip("\"'"), known)
        elif match := _FROM.fullmatch(line):
            if target and stages and target.lower() == stages[-1]:
                break
            found += _image(match["image"], known, stages)
            stages.append((match["name"] or "").lower())
        elif match := _COPY.match(line):
            found += [] if match["image"].isdigit() else _image(match["image"], known, stages)
    return list(dict.fromkeys(found))


def _image(written: str, known: Mapping[str, str], stages: list[str]) -> list[str]:
    image = _filled(written, known)
    ours = image.lower() in stages or image.lower() == _SCRATCH
    return [] if ours or "$" in image else [image]


def _filled(text: str, known: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        given = known.get(match["plain"] or match["name"]) or match["default"]
        return match[0] if given is None else given

    return _VARIABLE.sub(value, text)


def _lines(text: str) -> Iterator[str]:
    """Instructions, each on one line, without comments."""
    whole = ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            continue
        whole += line.rstrip()
        if whole.endswith(("\\", "`")):
            whole = whole[:-1] + " "
        else:
            yield whole.strip()
            whole = ""
    yield whole.strip()
