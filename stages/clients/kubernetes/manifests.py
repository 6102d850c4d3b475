"""Manifests: the text of YAML files to objects with their places, variables replaced after parsing.

Because a variable is put into a scalar that is already parsed, no value can add or change YAML.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.objects import Object, Ref, dig, identity
from stages.clients.kubernetes.scalars import PLAIN, Loader, Variables, plain

__all__ = ["Manifest", "read_manifests", "written_twice"]

_STRING = "tag:yaml.org,2002:str"
_TYPED = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")} | {PLAIN}
_MERGE = "<<"

# Kubernetes takes nothing but text here, so a variable stays text whatever its value looks like.
_TEXT_BELOW = {"annotations", "args", "command", "data", "env", "labels", "matchLabels", "nodeSelector", "selector"}
_TEXT_AT = {"name", "namespace", "stringData", "image"} | _TEXT_BELOW

_TEXTS = ("name", "namespace")
_MAPPINGS = ("annotations", "labels")

_MAX_DEPTH = 200
_MAX_NODES = 200_000


class _GaveUpError(Exception):
    """The rest of the file is not read; why is among the problems."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as it is to be applied, and where it is written; line 0 is for those that pipe makes up."""

    object: Object
    file: str
    line: int

    @property
    def ref(self) -> Ref:
        """Which object it describes."""
        return identity(self.object)

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file


def read_manifests(texts: Mapping[str, str], variables: Variables) -> list[Manifest]:
    """Read the objects of all files, in order: several documents a file, `List` kinds unfolded.

    Args:
        texts: the text of each file by the name that messages show.
        variables: what `$NAME` stands for.

    Raises:
        StageFailed: (config) with everything that is wrong as evidence: YAML errors, variables without
            a value, documents that are no object, the same object twice, each `file:line:column`.
    """
    readers = [_File(name, text, variables) for name, text in texts.items()]
    manifests = [manifest for reader in readers for manifest in reader.objects()]
    problems = [problem for reader in readers for problem in reader.problems]
    problems += [] if problems else written_twice(manifests)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StageFailed(problems[0] + more, kind=CauseKind.CONFIG, evidence=problems)
    return manifests


def written_twice(manifests: Sequence[Manifest]) -> Iterator[str]:
    """What is wrong with every manifest whose object another one before it describes: both places."""
    seen: dict[tuple[str, str, str, str], Manifest] = {}
    for manifest in manifests:
        ref = manifest.ref
        first = seen.setdefault((ref.group, ref.kind, ref.namespace, ref.name), manifest)
        if first is not manifest:
            yield f"{manifest.place}: {ref} is written twice, first at {first.place}"


@dataclass(slots=True)
class _File:
    """One file being read; `problems` grows on the way."""

    name: str
    text: str
    variables: Variables
    problems: list[str] = field(default_factory=list)
    nodes: int = 0

    def objects(self) -> Iterator[Manifest]:
        """The objects of all documents; those with a problem are left out."""
        try:
            self._check_depth()
            for node in yaml.compose_all(self.text, Loader=Loader):
                yield from self._document(node)
        except _GaveUpError:
            return
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = ", ".join(part for part in (error.context, error.problem) if part)
            self._problem(mark, f"this is no YAML: {what}{self._hint(mark)}")
        except (yaml.YAMLError, RecursionError) as error:
            self.problems.append(f"{self.name}: this is no YAML: {' '.join(str(error).split())}")

    def _hint(self, mark: Any) -> str:
        """In `{a: ${B}}` the variable's brace closes the mapping."""
        line = self.text.splitlines()[mark.line : mark.line + 1] if mark else []
        return '; put variables in quotes here: "${NAME}"' if line and "${" in line[0] else ""

    def _check_depth(self) -> None:
        """Refuse endless nesting by the flat stream of events: composing it would overflow the C stack."""
        depth = 0
        for event in yaml.parse(self.text, Loader=Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                self._problem(event.start_mark, "too many levels")
                raise _GaveUpError

    def _document(self, node: yaml.Node) -> Iterator[Manifest]:
        before = len(self.problems)
        value = self._value(node, depth=0)
        if value is None or len(self.problems) > before:
            return
        items = value.get("items") if isinstance(value, dict) else None
        if isinstance(items, list) and str(value.get("kind")).endswith("List"):
            written = _written(node, "items")
            nodes = written.value if isinstance(written, yaml.SequenceNode) else [node] * len(items)
            for item, item_node in zip(items, nodes, strict=True):
                yield from self._object(item, item_node)
        else:
            yield from self._object(value, node)

    def _object(self, value: object, node: yaml.Node) -> Iterator[Manifest]:
        missing = _missing(value)
        if missing:
            self._problem(node.start_mark, f"this is no Kubernetes object: {missing}")
        elif isinstance(value, dict) and not self._is_odd(value, node):
            yield Manifest(value, self.name, node.start_mark.line + 1)

    def _is_odd(self, value: Object, node: yaml.Node) -> bool:
        """Note every part of the metadata that is not what Kubernetes takes there."""
        odd = [(key, _odd(key, value["metadata"].get(key))) for key in (*_TEXTS, *_MAPPINGS)]
        wrong = [(key, problem) for key, problem in odd if problem]
        for key, problem in wrong:
            mark = _written(node, "metadata", key).start_mark
            self._problem(mark, f"`metadata.{key}` of this {value['kind']} {problem}")
        return bool(wrong)

    def _value(self, node: yaml.Node, depth: int, key: str = "", *, text: bool = False) -> Any:
        self.nodes += 1
        if depth > _MAX_DEPTH or self.nodes > _MAX_NODES:
            self._problem(node.start_mark, "too large once its aliases are unfolded")
            raise _GaveUpError
        text = text or key in _TEXT_BELOW
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth, text=text)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, depth + 1, text=text) for child in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, text=text or key in _TEXT_AT)
        raise TypeError(node)

    def _mapping(self, node: yaml.MappingNode, depth: int, *, text: bool) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, child in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node.start_mark, "a key must be text")
                continue
            if key_node.tag == PLAIN and key_node.value == _MERGE:
                merged = self._merge(child, depth) | merged
                continue
            key = _key(self._scalar(key_node, text=False))
            if key in result:
                self._problem(key_node.start_mark, f"the key '{key}' stands twice in one mapping")
            result[key] = self._value(child, depth + 1, key, text=text)
        return merged | result

    def _merge(self, node: yaml.Node, depth: int) -> dict[str, Any]:
        """What `<<` takes over (https://yaml.org/type/merge.html): of several maps the first wins."""
        value = self._value(node, depth + 1)
        maps = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in maps):
            self._problem(node.start_mark, "`<<` takes over a mapping, and this is none")
            return {}
        return {key: item for each in reversed(maps) for key, item in each.items()}

    def _scalar(self, node: yaml.ScalarNode, *, text: bool) -> str | int | float | bool | None:
        if node.tag not in _TYPED | {_STRING}:
            self._problem(node.start_mark, f"the tag {node.tag} means nothing to Kubernetes")
        self._check(node)
        replaced = self.variables.replace(node.value)
        if node.tag not in _TYPED:
            return replaced
        if replaced == node.value:
            return plain(replaced)
        alone = None if text else self.variables.alone(node.value)
        return replaced if alone is None else alone

    def _check(self, node: yaml.ScalarNode) -> None:
        """Note every variable of a scalar that has no value, at its own place in the file."""
        if not any(self.variables.unset(node.value)):
            return
        start, end = node.start_mark.index, node.end_mark.index
        for name, offset in self.variables.unset(self.text[start:end]):
            at = start + offset
            line = self.text.count("\n", 0, at) + 1
            column = at - self.text.rfind("\n", 0, at)
            near = difflib.get_close_matches(name, self.variables.values, 1)
            hint = f"; did you mean ${near[0]}?" if near else "; set it in `env:` of the pipeline or the stage"
            self.problems.append(f"{self.name}:{line}:{column}: the variable ${name} is not set{hint}")

    def _problem(self, mark: Any, message: str) -> None:
        place = f"{self.name}:{mark.line + 1}:{mark.column + 1}" if mark else self.name
        self.problems.append(f"{place}: {message}")


def _key(value: object) -> str:
    """A key as JSON has it: `yes: 1` is the key `true`, as for kubectl."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _missing(value: object) -> str:
    if not isinstance(value, dict):
        return "a mapping is expected here"
    for key in ("apiVersion", "kind"):
        if not isinstance(value.get(key), str) or not value[key]:
            return f"`{key}` is missing"
    if dig(value, "metadata", "name") in (None, ""):
        return f"`metadata.name` of this {value['kind']} is missing; `generateName` is of no use to an apply"
    return ""


def _odd(key: str, value: object) -> str:
    """What is wrong with a part of the metadata, and the way out; empty if nothing is."""
    if value is None or isinstance(value, str if key in _TEXTS else dict):
        return ""
    if key in _TEXTS:
        return "must be text: put it in quotes" if isinstance(value, (int, float)) else "must be text"
    return "must be a mapping: write each below it as `NAME: VALUE`"


def _written(node: yaml.Node, *path: str) -> yaml.Node:
    """Where the value at a path of keys is written; as far as it is, for a merge or a variable may hide a part."""
    for key in path:
        children = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next((child for name, child in children if name.value == key), None)
        if found is None:
            return node
        node = found
    return node
