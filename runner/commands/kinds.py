"""`pipe kinds` and `pipe schema`: what can stand behind `uses:`."""

import json
from collections.abc import Iterator
from datetime import timedelta

import click
from pydantic_core import PydanticUndefined

from pipeline.describe import describe
from pipeline.schema import schema
from pipeline.stage import FROM_PLAN, Outputs, Stage, duration_text
from stages.catalog import installed, kind, names

__all__ = ["print_schema", "show"]


def show(name: str | None) -> int:
    """Print all kinds with their first sentence, or one with its fields and outputs."""
    if name is None:
        written = [each for each in names() if not kind(each).inner]
        width = max(map(len, written))
        for each in written:
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
    fields = {name: field for name, field in describe(of).model_fields.items() if FROM_PLAN not in field.metadata}
    for field_name, field in fields.items():
        must = " (required)" if field.is_required() else ""
        default = _as_written(field.default)
        given = f" (default: {default})" if default else ""
        yield f"  {field_name}{must}{given}: {field.description or ''}"
    outputs = describe(of.outputs_model()).model_fields
    if outputs:
        yield "outputs:"
        yield from (f"  {output}: {field.description or ''}".rstrip(": ") for output, field in outputs.items())


def _as_written(default: object) -> str:
    """A default as a file would say it; empty when there is none to speak of."""
    match default:
        case bool():
            return "true" if default else "false"
        case timedelta():
            return duration_text(default) if default else ""
        case tuple():
            return " ".join(map(str, default))
        case None:
            return ""
    return "" if default is PydanticUndefined else str(default)
