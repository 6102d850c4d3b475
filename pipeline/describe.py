"""What fields are for: the texts below them in the source of a model, read only by who shows them.

pydantic can do this when it makes a class, but that reads and parses the source at every start of the program.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel

__all__ = ["describe"]


@cache
def describe(model: type[BaseModel]) -> type[BaseModel]:
    """Give the fields of a model, and of all models in them, their descriptions; returns it."""
    for inner in _models_in(model):
        describe(inner)
    texts = {name: text for base in reversed(model.__mro__) for name, text in _texts(base)}
    for name, field in model.model_fields.items():
        field.description = field.description or texts.get(name)
    model.model_rebuild(force=True)
    return model


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        yield from _found_in(field.annotation)


def _found_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _found_in(part)


def _texts(cls: type) -> Iterator[tuple[str, str]]:
    """Field and text, for every text that stands right below a field in the source of a class."""
    if not issubclass(cls, BaseModel) or cls is BaseModel:
        return
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # made without a source, as generic classes are
        return
    for field, text in pairwise(body.body if isinstance(body, ast.ClassDef) else ()):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as said)):
                yield name, inspect.cleandoc(said)
