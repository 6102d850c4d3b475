"""The variables that a stage's processes see, by who gives them; later ones win."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from pipeline.plan import Trigger
from pipeline.stage import Exported, Outputs, RunInfo, Stage
from runner.hosts import Host
from runner.process import MARK
from runner.secrets import Secrets

__all__ = ["exported", "of_host", "of_pipe", "of_run"]


def of_host(host: Host, secrets: Secrets) -> dict[str, str]:
    """The host's own variables, without those that a secret came from."""
    return {name: value for name, value in host.base().items() if name not in secrets.variables}


def of_run(info: RunInfo, trigger: Trigger, workspace: Path) -> dict[str, str]:
    """What Jenkins calls by these names too; unset when unknown."""
    known = {
        "BUILD_NUMBER": str(info.number),
        "JOB_NAME": info.pipeline,
        "WORKSPACE": str(workspace),
        "BRANCH_NAME": trigger.branch,
        "TAG_NAME": trigger.tag,
        "GIT_COMMIT": trigger.commit,
    }
    return {name: value for name, value in known.items() if value}


def of_pipe(info: RunInfo, outputs: Path) -> dict[str, str]:
    """Ours, which no file can set."""
    return {
        "CI": "true",
        "PIPE_RUN_ID": info.id,
        "PIPE_RUN_NUMBER": str(info.number),
        "PIPE_PIPELINE": info.pipeline,
        "PIPE_STAGE": info.stage,
        "PIPE_ATTEMPT": str(info.attempt),
        "PIPE_OUTPUT": str(outputs),
        MARK: f"{info.id}/{info.stage}/{info.attempt}",
    }


def exported(kind: type[Stage[Outputs]], outputs: Mapping[str, JsonValue]) -> dict[str, str]:
    """The variables that a leaf's outputs give to stages needing it; empty outputs give none."""
    found: dict[str, str] = {}
    for name, field in kind.outputs_model().model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Exported) and (value := outputs.get(name)):
                found[mark.variable] = str(value)
    return found
