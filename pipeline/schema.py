"""JSON schema of a pipeline file, from the models that check it and the installed kinds: what an editor offers."""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pipeline.describe import describe
from pipeline.draft import APPROVAL, SHELL, Kinds
from pipeline.spec import INHERITED, Approval, Defaults, PipelineSpec, StageSpec, not_built

__all__ = ["schema"]

TITLE: Final = "pipeline file"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE: Final = {"type": "string", "pattern": r"\$\{"}
_SCALAR: Final = ["string", "number", "boolean"]
_FIXED: Final = frozenset({"uses", "run", "needs", "when", "takes"})
"""Keys of a stage that take no `${…}`, so their schema stays as narrow as it is."""
_PLAIN: Final = frozenset({"enum", "const", "required", "type"})
"""Words of JSON schema that hold no schemas."""
_UNFILLED: Final = frozenset({"name", "params", "secrets"})
"""Keys of a pipeline that take none either."""
_LITERAL: Final = frozenset({"ParamSpec", "SecretSpec"})

Schema = dict[str, Any]


def schema(kinds: Kinds) -> Schema:
    """The schema of a file whose stages may be of these kinds, for `# yaml-language-server: $schema=…`."""
    pipeline: Schema = describe(PipelineSpec).model_json_schema(schema_generator=_Generator)
    models: Schema = pipeline.pop("$defs")
    for model in (StageSpec, Defaults):
        _mark_not_built(models[model.__name__], model)
    pipeline = _filled_in(pipeline, _UNFILLED)
    definitions = {name: item if name in _LITERAL else _filled_in(item, _FIXED) for name, item in models.items()}
    definitions["Stage"] = _stage(definitions.pop("StageSpec"), kinds, definitions)
    definitions["Pipeline"] = _without_name(pipeline)
    document: Schema = _closed_maps({"title": TITLE, "$defs": definitions, **_file(pipeline)})
    return {"$schema": DIALECT, **_renamed(document)}


class _Generator(GenerateJsonSchema):
    """Schemas in which a text may look like a number, as it may in YAML, and nothing is null."""

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        return {**super().str_schema(schema), "type": _SCALAR}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Without the default: it is Python's, and the descriptions say it."""
        return self.generate_inner(schema["schema"])

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Without null, which no place of the language takes."""
        return self.generate_inner(schema["schema"])


def _opened(value: Any) -> Any:
    """A schema in which every value that is not any text may be a `${…}` instead."""
    if isinstance(value, list):
        return [_opened(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = {key: item if key in _PLAIN else _opened(item) for key, item in value.items()}
    if "properties" in value:
        inner["properties"] = {key: _opened(item) for key, item in value["properties"].items()}
    narrow = "enum" in value or "pattern" in value or value.get("type") in ("integer", "number", "boolean", "array")
    if not narrow:
        return inner
    description = {"description": inner.pop("description")} if "description" in inner else {}
    return {"anyOf": [inner, _REFERENCE], **description}


def _filled_in(model: Schema, fixed: frozenset[str]) -> Schema:
    """The schema of a model whose values, but for the fixed ones, may be a `${…}`."""
    properties = model["properties"].items()
    return {**model, "properties": {key: item if key in fixed else _opened(item) for key, item in properties}}


def _closed_maps(value: Any) -> Any:
    """A map whose keys follow a pattern has no others."""
    if isinstance(value, list):
        return [_closed_maps(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    inner = {key: _closed_maps(item) for key, item in value.items()}
    return {"additionalProperties": False, **inner} if "patternProperties" in inner else inner


def _file(pipeline: Schema) -> Schema:
    """One pipeline at the top, or several beside what they share; `x-…` keys are nobody's business."""
    shared = {key: pipeline["properties"][key] for key in INHERITED}
    several = {
        "type": "object",
        "description": "Several pipelines, each a run of its own.",
        "additionalProperties": {"$ref": "#/$defs/Pipeline"},
        "minProperties": 1,
    }
    anything = {"^x-": {"description": "Ignored; a place for anchors."}}
    return {
        "description": pipeline["description"],
        "if": {"type": "object", "required": ["pipelines"]},
        "then": {
            "type": "object",
            "properties": {"pipelines": several, **shared},
            "patternProperties": anything,
            "additionalProperties": False,
        },
        "else": {**pipeline, "patternProperties": anything},
    }


def _without_name(pipeline: Schema) -> Schema:
    properties = {key: value for key, value in pipeline["properties"].items() if key != "name"}
    return {**pipeline, "properties": properties, "required": ["stages"]}


def _mark_not_built(target: Schema, model: type[BaseModel]) -> None:
    for key in not_built(model):
        found = target["properties"][key]
        description = f"Not built yet. {found.get('description', '')}".strip()
        target["properties"][key] = {**found, "description": description}


# -- stages ----------------------------------------------------------------------------------------


def _stage(stage: Schema, kinds: Kinds, definitions: Schema) -> Schema:
    """A stage whose `with:` depends on its `uses:`."""
    properties = dict(stage["properties"])
    written = [name for name in kinds if not kinds[name].inner]
    properties["uses"] = {
        "description": properties["uses"]["description"],
        "oneOf": [
            *({"const": name, "description": _first_line(kinds[name])} for name in written),
            {"const": APPROVAL, "description": "Not built yet. Wait for people."},
        ],
    }
    models: dict[str, type[BaseModel]] = {**{name: kinds[name] for name in written}, APPROVAL: Approval}
    fields = {name: _fields(model, definitions) for name, model in models.items()}
    by_kind = [_when_uses(name, found) for name, found in fields.items()]
    if SHELL in fields:
        script = {key: value for key, value in fields[SHELL]["properties"].items() if key not in ("script", "argv")}
        with_ = {"properties": {"with": {**fields[SHELL], "properties": script}}}
        by_kind.append({"if": {"required": ["run"]}, "then": with_})
    return {
        **stage,
        "properties": properties,
        "oneOf": [{"required": ["uses"]}, {"required": ["run"]}],
        "allOf": by_kind,
    }


def _when_uses(name: str, fields: Schema) -> Schema:
    then: Schema = {"properties": {"with": fields}}
    if fields.get("required"):
        then["required"] = ["with"]
    return {"if": {"properties": {"uses": {"const": name}}, "required": ["uses"]}, "then": then}


def _fields(model: type[BaseModel], definitions: Schema) -> Schema:
    found: Schema = describe(model).model_json_schema(schema_generator=_Generator)
    for name, definition in found.pop("$defs", {}).items():
        definitions.setdefault(name, _opened(definition))
    opened: Schema = _opened({key: value for key, value in found.items() if key != "title"})
    return opened


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]


# -- names -----------------------------------------------------------------------------------------


def _renamed(value: Any) -> Any:
    """The definitions under the words of the language: `StageSpec` is a stage, and pydantic's titles go."""
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {_word(key): _renamed_value(key, item) for key, item in value.items() if not _is_title(key, item)}


def _renamed_value(key: str, value: Any) -> Any:
    return f"#/$defs/{_word(value.rpartition('/')[2])}" if key == "$ref" else _renamed(value)


def _word(name: str) -> str:
    return re.sub(r"(?<=[a-z])Spec$", "", name)


def _is_title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str) and value != TITLE
