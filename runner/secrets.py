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
from runner.handover import Received

__all__ = ["Secrets", "find_secrets", "look_up", "read_file", "search_secrets", "variables"]

_KEY_MATERIAL = re.compile(
    r"[A-Za-z0-9+/=_-]{24,}"
    r"|(?<=-----\n)[^-\n]{8,}"
    r"|(?i:(?<=password)|(?<=token)|(?<=secret)|(?<=passwd)|(?<=pass)|(?<=pwd)|(?<=key))[\"']?\s*[:=>]\s*[\"']?([^\s\"'<]{4,})"
)
"""What is secret in a file of several lines: keys, and what stands behind `password`, `token`, `secret` or `key`.

Masking its every line would mask `apiVersion: v1` in all logs.
"""

_ON_SERVER = "the server keeps none of that name for the project, see `pipe secrets set`"

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


def find_secrets(
    plan: Plan, environ: Mapping[str, str], store: Path, given: Received | None = None, *, last_only: bool = False
) -> Secrets:
    """Find every secret that a leaf of the plan wants: host variables first, then `secrets.env` in the store.

    `given`: the server has handed secrets over; they come from nowhere else then.
    `last_only`: nothing but `finally` will run, so only what that wants must be there.

    Raises:
        PipeError: some are missing, each on one line with the places that were tried and the stages that
            want it; or `secrets.env` may be read by others.
    """
    found, missing = search_secrets(plan, environ, store, given, last_only=last_only)
    if missing:
        raise PipeError("\n".join(missing))
    return found


def search_secrets(
    plan: Plan, environ: Mapping[str, str], store: Path, given: Received | None = None, *, last_only: bool = False
) -> tuple[Secrets, tuple[str, ...]]:
    """The secrets that are there, and a line on each that is not; raises PipeError if a source cannot be read."""
    wanted = _wanted((*plan.leaves, *plan.finally_))
    needed = _wanted(plan.finally_) if last_only else wanted
    file = store / "secrets.env"
    places = () if given else (environ, read_file(file))
    values: dict[str, Secret] = {}
    missing: list[str] = []
    for name in (name for name in plan.secrets if name in wanted):
        source = plan.secrets[name]
        found = given.secret(name, source.kind) if given else look_up(name, source, places)
        if found is not None:
            values[name] = found
        elif name in needed:
            tried = f"neither {' and '.join(variables(name, source))} in the environment nor in {file}"
            want = f"wanted by {', '.join(needed[name])}"
            missing.append(f"secret '{name}' was not found: {_ON_SERVER if given else tried} ({want})")
    hidden = frozenset(each for name, source in plan.secrets.items() for each in variables(name, source))
    return Secrets(values, hidden), tuple(missing)


def look_up(name: str, source: SecretSource, places: Iterable[Mapping[str, str]]) -> Secret | None:
    """A declared secret from the first place that has all of its variables; None if none has.

    Raises:
        PipeError: it is a file that cannot be read.
    """
    names = variables(name, source)
    found = next((place for place in places if all(place.get(n) for n in names)), None)
    return _value(name, source, [found[n] for n in names]) if found else None


def _wanted(leaves: Iterable[Leaf]) -> dict[str, list[str]]:
    wanted: dict[str, list[str]] = {}
    for leaf in leaves:
        for name in () if leaf.never else leaf.secret_names:
            stages = wanted.setdefault(name, [])
            if leaf.stage not in stages:
                stages.append(leaf.stage)
    return wanted


def variables(name: str, source: SecretSource) -> tuple[str, ...]:
    """The host variables that a declared secret comes from."""
    if source.env:
        return source.env
    stem = "PIPE_SECRET_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()
    return tuple(stem + part for part in _PARTS[source.kind])


def _value(name: str, source: SecretSource, texts: list[str]) -> Secret:
    if source.kind == "login":
        return Login(*texts)
    if source.kind == "text":
        return SecretText(texts[0])
    path = Path(texts[0]).expanduser()
    if not (path.is_file() and os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)):
        raise PipeError(f"secret '{name}': the file {path} does not exist or cannot be read")
    return SecretFile(path)


def read_file(file: Path, *, ours_alone: bool = False) -> dict[str, str]:
    """`NAME=value` lines; the value is everything after the `=`, one pair of quotes around it is taken off.

    `ours_alone`: others may write beside the file, so it has to be our own and no link.

    Raises:
        PipeError: a line is wrong, or others can have made it or can read it.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW | os.O_NONBLOCK if ours_alone else 0))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise PipeError(f"{file}: {error.strerror}") from error
    with os.fdopen(descriptor) as lines:
        about = os.fstat(descriptor)
        if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise PipeError(f"{file} may be read by others: run `chmod 600 {file}`")
        if ours_alone and (about.st_uid != os.geteuid() or not stat.S_ISREG(about.st_mode)):
            raise PipeError(f"{file} is not the server's own: somebody else has made it")
        return _parsed(lines.read(), file)


def _parsed(text: str, file: Path) -> dict[str, str]:
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
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
