"""Plans that somebody approved: kept in a file, and refused when what they stand on is not what it was."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from pipeline import __version__
from pipeline.errors import PipeError
from pipeline.plan import Plan
from runner.commands.live import Looked, look
from runner.commands.load import Call, open_call
from runner.hosts import Host
from runner.mask import Masker
from runner.secrets import not_found
from runner.store import Store

__all__ = ["SavedPlan", "SavedPlans", "approved", "read", "save"]

MOST_TOLD = 20


class SavedPlan(BaseModel):
    """One pipeline: its plan, and what it was made on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: Plan
    params: dict[str, str]
    """The words of `-p`."""
    facts: dict[str, JsonValue]
    """The commits that branches meant; they are what runs."""
    touches: dict[str, str]
    """What it would change outside, and a fingerprint of how that was."""


class SavedPlans(BaseModel):
    """A file that `pipe plan --save` wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    pipe: str
    made: float
    file: str
    """Where the pipeline file was."""
    beside: str
    """The same path as seen from this one's folder: both may have come to another machine together."""
    pipelines: tuple[SavedPlan, ...]


def save(path: Path, call: Call, looked: Sequence[Looked]) -> None:
    """Write what was looked at.

    Raises:
        PipeError: it cannot be written, or would hold a secret.
    """
    plans = tuple(
        SavedPlan(
            plan=one.plan, params=dict(call.params[one.plan.pipeline]), facts=one.facts, touches=one.report.touches
        )
        for one in looked
    )
    file = call.path.absolute()
    beside = os.path.relpath(file, path.absolute().parent)
    saved = SavedPlans(pipe=__version__, made=round(time.time(), 3), file=str(file), beside=beside, pipelines=plans)
    text = saved.model_dump_json(by_alias=True, exclude_defaults=True, indent=1)
    masker = Masker()
    for one in looked:
        for secret in one.secrets.texts():
            masker.add(secret)
    if masker.mask_text(text) != text:
        raise PipeError(f"not saved to {path}: a secret stands in the plan itself; declare it in `secrets:`")
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise PipeError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path) -> SavedPlans:
    """Read it back.

    Raises:
        PipeError: there is no such file, or `pipe plan --save` did not write it.
    """
    try:
        return SavedPlans.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PipeError(f"--plan {path}: {error.strerror}") from error
    except ValidationError:
        raise PipeError(f"--plan {path} is no file that this version of `pipe plan --save` wrote") from None


def approved(path: Path, host: Host, store: Store) -> tuple[Call, Mapping[str, Mapping[str, JsonValue]]]:
    """The call of a saved plan and, for each pipeline, the facts that it stands on.

    Raises:
        PipeError: something is not as it was: the file, a parameter, a commit, an object that would be changed, an
            image; all of it at once. Nothing was started.
    """
    saved = read(path)
    names = [one.plan.pipeline for one in saved.pipelines]
    words = [f"{one.plan.pipeline}.{name}={value}" for one in saved.pipelines for name, value in one.params.items()]
    call = open_call(_file(path, saved), names, words, host)
    plans = [call.plan(one.plan.pipeline, one.plan.run) for one in saved.pipelines]
    drifted = [line for one, plan in zip(saved.pipelines, plans, strict=True) for line in _plan_drift(one.plan, plan)]
    if not drifted:
        looked = look(call, store, plans)
        drifted = [line for one, now in zip(saved.pipelines, looked, strict=True) for line in _outside_drift(one, now)]
    if drifted:
        more = [f"and {len(drifted) - MOST_TOLD} more"] if len(drifted) > MOST_TOLD else []
        told = "\n  ".join([*drifted[:MOST_TOLD], *more])
        raise PipeError(f"{path} was approved for another state of things; plan again:\n  {told}")
    return call, {one.plan.pipeline: one.facts for one in saved.pipelines}


def _file(path: Path, saved: SavedPlans) -> str:
    """The pipeline file: the one that lies as it lay when the plan was saved, else the very one."""
    beside = os.path.normpath(path.absolute().parent / saved.beside)
    return beside if Path(beside).is_file() else saved.file


def _plan_drift(before: Plan, now: Plan) -> Iterator[str]:
    """What is different in the plan itself: only what enters it can make it so."""
    if _content(before) == _content(now):
        return
    name, told = before.pipeline, False
    for param in sorted({*before.params, *now.params}):
        was, is_ = before.params.get(param), now.params.get(param)
        if was != is_:
            told = True
            yield f"{name}: the parameter {param} was {json.dumps(was)}, and is {json.dumps(is_)}"
    if before.digest != now.digest:
        told = True
        yield f"{name}: the file {now.file} is not what {before.file} was"
    if before.trigger != now.trigger:
        told = True
        yield f"{name}: another event starts it"
    if not told:
        yield f"{name}: this version of pipe makes another plan of the same file"


def _content(plan: Plan) -> dict[str, object]:
    """What a plan says, from wherever its file was named."""
    place = {"__all__": {"place"}}
    return plan.model_dump(exclude={"file": True, "leaves": place, "finally_": place})


def _outside_drift(saved: SavedPlan, now: Looked) -> Iterator[str]:
    name = saved.plan.pipeline
    yield from (f"{name}: {text}" for text in not_found(now.missing))
    for key in sorted({*saved.facts, *now.facts}):
        was, is_ = saved.facts.get(key), now.facts.get(key)
        if was != is_:
            yield f"{name}: {key} was {_commit(was)}, and is {_commit(is_)}"
    for key in sorted({*saved.touches, *now.report.touches}):
        before, after = saved.touches.get(key, "not part of it"), now.report.touches.get(key, "could not be looked at")
        if before != after:
            yield f"{name}: {key} was {before}, and is {after}"


def _commit(value: JsonValue) -> str:
    return str(value.get("commit")) if isinstance(value, dict) else "not known" if value is None else str(value)
