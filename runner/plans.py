"""Reading the plan of a run back from its folder."""

from pydantic import ValidationError

from pipeline.errors import PipeError
from pipeline.plan import Plan
from runner.folder import RunFolder

__all__ = ["read_plan"]


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
