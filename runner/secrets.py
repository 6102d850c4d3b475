"""Where the values of declared secrets come from; they stay in this process until an attempt needs one."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan, SecretSource
from pipeline.stage import Login, Secret, SecretFile, SecretText

__all__ = ["Secrets", "find_secrets", "search_secrets"]

_KEY_MATERIAL = re.compile(
    r"[A-Za-z0-9+/=_-]{24,}"
    r"|(?<=-----\n)[^-\n]{8,}"
    r"|(?i:(?<=password)|(?<=token)|(?<=secret)|(?<=passwd)|(?<=pass)|(?<=pwd)|(?<=key))[\"']?\s*[:=>]\s*[\"']?([^\s\"'<]{4,})"
)
"""What is secret in a file of several lines: keys, and what stands behind `password`, `token`, `secret` or `key`.

Masking its every line would mask `apiVersion: v1` in all logs.
"""

_PARTS = {"text": ("",), "login": ("_USERNAME", "_PASSWORD"), "file": ("_FILE",), "ssh": ("_FILE",)}


@dataclass(frozen=True, slots=True)
class Secrets:
    """The values of a plan's secrets, by declared name. Files are named, not read."""

    values: Mapping[str, Secret]
    variables: frozenset[str]
    """Host variables that a value came from or could have come from: no process gets them."""

    def get(self, name: str) -> Secret:
        """The value of a declared secret. Raises KeyError when no leaf names it."""
        return self.values[name]

    def texts(self) -> Iterable[str]:
        """All texts that must never be seen."""
        for value in self.values.values():
            match value:
                case SecretText():
                    yield value.value
                case Login():
                    yield value.password
                case SecretFile():
                    text = value.path.read_text(errors="replace").strip()
                    if len(text.splitlines()) == 1:
                        yield text
                    yield from (match[1] or match[0] for match in _KEY_MATERIAL.finditer(text))


def find_secrets(plan: Plan, environ: Mapping[str, str], store: Path, *, last_only: bool = False) -> Secrets:
    """Find every secret that a leaf of the plan wants: host variables first, then `secrets.env` in the store.

    `last_only`: nothing but `finally` will run, so only what that wants must be there.

    Raises:
        PipeError: some are missing, each on one line with the places that were tried and the stages that
            want it; or `secrets.env` may be read by others.
    """
    found, missing = search_secrets(plan, environ, store, last_only=last_only)
    if missing:
        raise PipeError("\n".join(missing))
    return found


def search_secrets(
    plan: Plan, environ: Mapping[str, str], store: Path, *, last_only: bool = False
) -> tuple[Secrets, tuple[str, ...]]:
    """The secrets that are there, and a line on each that is not; raises PipeError if a source cannot be read."""
    wanted = _wanted((*plan.leaves, *plan.finally_))
    needed = _wanted(plan.finally_) if last_only else wanted
    file = store / "secrets.env"
    places = (environ, _read(file))
    values: dict[str, Secret] = {}
    variables: set[str] = set()
    missing: list[str] = []
    for name, source in plan.secrets.items():
        names = _variables(name, source)
        variables.update(names)
        if name not in wanted:
            continue
        found = next((place for place in places if all(place.get(n) for n in names)), None)
        if found is None and name in needed:
            missing.append(_missing(name, names, file, needed[name]))
        elif found is not None:
            values[name] = _value(name, source, [found[n] for n in names])
    return Secrets(values, frozenset(variables)), tuple(missing)


def _wanted(leaves: Iterable[Leaf]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for leaf in leaves:
        for name in () if leaf.never else leaf.secret_names:
            stages = wanted.setdefault(name, [])
            if leaf.stage not in stages:
                stages.append(leaf.stage)
    return wanted


def _variables(name: str, source: SecretSource) -> tuple[str, ...]:
    if source.env:
        return source.env
    stem = "PIPE_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    return tuple(stem + part for part in _PARTS[source.kind])


def _missing(name: str, names: tuple[str, ...], file: Path, stages: list[str]) -> str:
    want = f"wanted by {', '.join(stages)}"
    return f"secret '{name}' was not found: neither {' and '.join(names)} in the environment nor in {file} ({want})"


def _value(name: str, source: SecretSource, texts: list[str]) -> Secret:
    if source.kind == "login":
        return Login(*texts)
    if source.kind == "text":
        return SecretText(texts[0])
    path = Path(texts[0]).expanduser()
    if not (path.is_file() and os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)):
        raise PipeError(f"secret '{name}': the file {path} does not exist or cannot be read")
    return SecretFile(path)


def _read(file: Path) -> dict[str, str]:
    """`NAME=value` lines; the value is everything after the `=`, one pair of quotes around it is taken off."""
    if not file.exists():
        return {}
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PipeError(f"{file} may be read by others: run `chmod 600 {file}`")
    values: dict[str, str] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip().removeprefix("export ").strip(), value.strip()
        if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise PipeError(f"{file}:{number}: write NAME=value")
        quoted = re.fullmatch(r"""(['"])(.*)\1""", value)
        if value[:1] in ("'", '"') and not quoted:
            raise PipeError(f"{file}:{number}: the value of {name} begins with a quote and does not end with it")
        values[name] = quoted[2] if quoted else value
    return values
