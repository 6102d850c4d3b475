"""Reading a run back from its folder: its plan, and what has become of it."""

from pydantic import ValidationError

from pipeline.errors import PipeError
from pipeline.plan import Plan
from runner.folder import RunFolder
from runner.state import RunState, fold

__all__ = ["read_plan", "read_run"]


def read_plan(folder: RunFolder) -> Plan:
    """The plan of a run.

    Raises:
        PipeError: it never began, or something has spoiled it.
    """
    try:
        return Plan.model_validate_json(folder.plan.read_bytes())
    except FileNotFoundError:
        raise PipeError(f"the run in {folder.path} never began: it has no {folder.plan.name}") from None
    except ValidationError as error:
        raise PipeError(f"{folder.plan} is spoiled: {error.errors()[0]['msg']}") from None


def read_run(folder: RunFolder) -> tuple[Plan, RunState]:
    """The plan of a run and what has become of it; raises PipeError as `read_plan` does."""
    plan = read_plan(folder)
    try:
        return plan, fold(folder.records())
    except ValueError as error:
        raise PipeError(f"a journal in {folder.path} is spoiled: {error}") from None
