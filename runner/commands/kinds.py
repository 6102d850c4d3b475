"""`pipe kinds` and `pipe schema`: what can stand behind `uses:`."""

import json
from collections.abc import Iterator

import click
from pydantic_core import PydanticUndefined

from pipeline.describe import describe
from pipeline.schema import schema
from pipeline.stage import Outputs, Stage
from stages.catalog import installed, kind, names

__all__ = ["print_schema", "show"]


def show(name: str | None) -> int:
    """Print all kinds with their first sentence, or one with its fields and outputs."""
    if name is None:
        width = max(map(len, names()))
        for each in names():
            click.echo(f"{each:{width}}  {_first_line(kind(each))}")
    else:
        click.echo("\n".join(_described(name, kind(name))))
    return 0


def print_schema() -> int:
    """Print the schema of pipeline files with the installed kinds."""
    click.echo(json.dumps(schema(installed()), indent=2, ensure_ascii=False))
    return 0


def _first_line(of: type[Stage[Outputs]]) -> str:
    return (of.__doc__ or "").strip().partition("\n")[0]


def _described(name: str, of: type[Stage[Outputs]]) -> Iterator[str]:
    yield f"uses: {name}"
    yield f"  {_first_line(of)}"
    yield "with:"
    for field_name, field in describe(of).model_fields.items():
        must = " (required)" if field.is_required() else ""
        default = "" if field.default in (PydanticUndefined, None, "", ()) else f" (default: {field.default})"
        yield f"  {field_name}{must}{default}: {field.description or ''}"
    outputs = describe(of.outputs_model()).model_fields
    if outputs:
        yield "outputs:"
        yield from (f"  {output}: {field.description or ''}".rstrip(": ") for output, field in outputs.items())
