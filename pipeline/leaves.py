"""One leaf of a stage: its names resolved, its fields judged by its kind, its condition decided if it can be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from pydantic import JsonValue

from pipeline import conditions
from pipeline.draft import WAITING, Draft, Kind, as_map, secret_fields
from pipeline.errors import Place, nearest
from pipeline.expressions import ExpressionError, Fault, Form, bind, fill, is_open, names, scalar_text, shown
from pipeline.fanout import Item, leaf_name
from pipeline.linking import Links
from pipeline.plan import Cache, Leaf, Limits, Need, Retry
from pipeline.scope import ROOTS, Binding, Scope, UnknownName, contains_unset
from pipeline.shape import Complaint, judge, open_in
from pipeline.source import Map, Text
from pipeline.spec import PipelineSpec, StageSpec
from pipeline.values import Report, Use, Value, entries, misplaced, place_at, read_value

__all__ = ["Leaves"]


_HYPHEN: Final = "names have no hyphens: here `-` is minus"
_TEXTS: Final = ("title", "env", "secrets", "dir")


@dataclass
class _Found:
    """What the names in one leaf stand for."""

    known: dict[str, Form] = field(default_factory=dict)
    references: dict[str, tuple[str, str]] = field(default_factory=dict)
    types: dict[str, conditions.Type] = field(default_factory=dict)

    def take(self, name: str, binding: Binding, target: tuple[str, str] | None) -> None:
        """Note what a name stands for."""
        self.types[name] = binding.type
        if binding.form is not None:
            self.known[name] = binding.form
        elif target:
            self.references[name] = target


@dataclass(frozen=True)
class _Condition:
    """What is left of a `when:`."""

    when: str = ""
    values: Mapping[str, JsonValue] = field(default_factory=dict)
    references: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    skipped: str = ""


@dataclass(frozen=True)
class Leaves:
    """Makes the leaves of one pipeline."""

    spec: PipelineSpec
    node: Map
    scope: Scope
    links: Links
    env: Mapping[str, Form]
    report: Report

    def make(self, draft: Draft, item: Item | None, needs: tuple[Need, ...]) -> Leaf:
        """The leaf for one item of `each`; without an item as much of it is checked as does not depend on one."""
        found = _Found()
        forms = {key: self._bound(draft, item, key, value, found) for key, value in draft.values.items()}
        self._check_scripts(draft)
        spec = self._settled(draft, forms)
        condition = self._condition(draft, item)
        fields = as_map(forms.get("with", {}))
        secrets = {**self._bindings(draft, spec), **self._fields(draft, fields)}
        name = leaf_name(draft.name, item.key if item else "")
        return Leaf(
            name=name,
            stage=draft.name,
            key=item.key if item else "",
            title=spec.title,
            uses=draft.kind_name,
            fields=fields,
            references=found.references,
            needs=needs,
            when=condition.when,
            when_values=dict(condition.values),
            when_references=dict(condition.references),
            skipped=condition.skipped,
            env={**self.env, **_texts(as_map(forms.get("env", {})))},
            secrets=dict(spec.secrets),
            secret_names=tuple(dict.fromkeys(secrets.values())),
            dir=spec.dir,
            timeout=spec.timeout or (draft.kind.default_timeout if draft.kind else "1h"),
            silence=spec.silence,
            resources=Limits(memory=spec.resources.memory, cpu=spec.resources.cpu) if spec.resources else None,
            retry=Retry(times=spec.retry.times, on=spec.retry.on, wait=spec.retry.wait) if spec.retry else Retry(),
            allow_failure=spec.allow_failure,
            fail_fast=spec.fail_fast,
            pools=self._pools(draft, spec),
            computes=bool(draft.kind and draft.kind.computes),
            workspace=spec.workspace,
            outputs=spec.outputs,
            artifacts=spec.artifacts,
            junit=spec.reports.junit if spec.reports else (),
            log=spec.log,
            cache=tuple(Cache(**each.model_dump()) for each in spec.cache),
            place=f"{draft.place.file}:{draft.place.line}",
        )

    # -- names -------------------------------------------------------------------------------------

    def resolve(self, draft: Draft, item: Item | None, name: str) -> tuple[Binding, tuple[str, str] | None]:
        """What a name stands for in a leaf, and where its value will come from if it has to wait.

        Raises:
            UnknownName: nothing.
        """
        root = name.partition(".")[0]
        if root == "each":
            return self.links.each(draft, item, name), None
        if root == "stages":
            binding, target = self.links.stage(draft, item, name)
            return binding, (target.source, target.output) if target else None
        binding = self.scope.find(name, last=draft.last)
        return binding, ("", "outcome") if name == "run.outcome" else None

    def _bound(self, draft: Draft, item: Item | None, key: str, value: Value, found: _Found) -> Form:
        for use in value.uses:
            self._take(draft, item, key, use, found)
        try:
            return bind(value.form, found.known)
        except ExpressionError as error:
            place = next((use.place for use in value.uses if f"{{{use.name}}}" in str(error)), draft.place_of(key))
            self.report.add(place, str(error))
            return shown(value.form)

    def _take(self, draft: Draft, item: Item | None, key: str, use: Use, found: _Found) -> None:
        try:
            binding, target = self.resolve(draft, item, use.name)
        except UnknownName as error:
            self.report.add(use.place, str(error), error.hint)
            return
        if fault := misplaced(use, binding.type, text=key in _TEXTS):
            self.report.add(use.place, fault)
        if _waits(use.name) and key not in WAITING:
            message = f"`{key}:` is fixed in the plan, and `{use.name}` is known only when a stage has ended"
            self.report.add(use.place, message, "values of other stages can go into `with:` and `env:`")
        else:
            found.take(use.name, binding, target)

    def _check_scripts(self, draft: Draft) -> None:
        """A script is never filled in; one that names what there is expects to be."""
        for use in self._uses_in_scripts(draft):
            if use.name.partition(".")[0] in ROOTS:
                variable = use.name.rpartition(".")[2].upper()
                self.report.add(
                    use.place,
                    f"a script is not filled in: `${{{use.name}}}` would reach it as it stands here",
                    f'write `env: {{{variable}: "${{{use.name}}}"}}` and in the script `${variable}`',
                )

    @staticmethod
    def _uses_in_scripts(draft: Draft) -> Iterator[Use]:
        for node in draft.scripts.values():
            if not isinstance(node, Text) or "${" in node.value:
                yield from read_value(node, Report()).uses

    # -- the stage's own keys ----------------------------------------------------------------------

    def _settled(self, draft: Draft, forms: Mapping[str, Form]) -> StageSpec:
        """The stage's keys with what was filled in: values without names were judged when the file was read."""
        filled = {key: form for key, form in forms.items() if key != "with" and draft.values[key].changed}
        if not filled:
            return draft.spec
        shaped = judge(StageSpec, {key: shown(form) for key, form in filled.items()}, open_in(filled))
        for complaint in shaped.complaints:
            if not contains_unset(shown(filled.get(str(complaint.path[0])))):
                self.report.complain(draft.node, complaint, draft.place)
        changed = {name: getattr(shaped.model, name) for name in shaped.model.model_fields_set} if shaped.model else {}
        return draft.spec.model_copy(update=changed)

    def _pools(self, draft: Draft, spec: StageSpec) -> tuple[str, ...]:
        declared = dict(entries(self.node.get("limits")))
        entry = draft.entry("limits")
        for index, pool in enumerate(spec.limits):
            if pool not in declared and not contains_unset(pool) and "${" not in pool:
                hint = nearest(pool, declared) or f"declare how many may hold it: `limits: {{{pool}: 4}}`"
                place = place_at(entry.value, (index,), entry.place) if entry else draft.place
                self.report.add(place, f"unknown pool '{pool}'", hint)
        kind_pool = draft.kind.pool if draft.kind else None
        return tuple(dict.fromkeys([*spec.limits, *([kind_pool[0]] if kind_pool else [])]))

    def _bindings(self, draft: Draft, spec: StageSpec) -> dict[str, str]:
        """Variable → secret, of those that `secrets:` binds and the pipeline declares."""
        found = {}
        for variable, written in spec.secrets.items():
            if "${" in written or contains_unset(written):
                continue
            node = draft.node.get("secrets", variable)
            place = node.place if node else draft.place_of("secrets")
            if name := self._binding(written, place):
                found[variable] = name
        return found

    def _binding(self, written: str, place: Place) -> str:
        declared = dict(entries(self.node.get("secrets")))
        head, _, part = written.rpartition(".")
        name = head if part in ("username", "password") and written not in declared else written
        if name not in declared:
            self.report.add(place, f"the secret '{name}' is not declared", nearest(name, declared))
            return ""
        spec = self.spec.secrets.get(name)
        if spec and spec.kind == "login" and name == written:
            self.report.add(place, f"'{name}' is a login", f"write `{name}.username` or `{name}.password`")
        elif spec and spec.kind != "login" and name != written:
            self.report.add(place, f"'{name}' is a secret of kind {spec.kind}, it has no {part}", f"write `{name}`")
        return name

    # -- the kind's fields -------------------------------------------------------------------------

    def _fields(self, draft: Draft, fields: Mapping[str, Form]) -> dict[str, str]:
        """Let the kind judge its fields; returns the secrets that they name."""
        if draft.kind is None or draft.fields_node is None:
            return {}
        values = as_map(shown(dict(fields)))
        shaped = judge(draft.kind, values, open_in(dict(fields)))
        for complaint in map(partial(_for_kind, draft.kind_name), shaped.complaints):
            if not contains_unset(values.get(str(complaint.path[0])) if complaint.path else values):
                self.report.complain(draft.fields_node, complaint, draft.fields_place)
        return dict(self._secret_fields(draft, draft.kind, fields))

    def _secret_fields(self, draft: Draft, kind: Kind, fields: Mapping[str, Form]) -> Iterator[tuple[str, str]]:
        for path, allowed in secret_fields(kind).items():
            form = _form_at(fields, path)
            if not form:
                continue
            node = draft.fields_node.get(*path) if draft.fields_node else None
            place = node.place if node else draft.fields_place
            if any(map(_waits, names(form))):
                self.report.add(place, f"`{path[-1]}:` names a secret, which is fixed in the plan")
            for name in _names(form):
                if self._permitted(place, path[-1], name, allowed):
                    yield f"with.{'.'.join(path)}.{name}", name

    def _permitted(self, place: Place, key: str, name: str, allowed: tuple[str, ...]) -> bool:
        declared = dict(entries(self.node.get("secrets")))
        if name not in declared:
            hint = nearest(name, declared) or f"declare it: `secrets: {{{name}: {allowed[0]}}}`"
            self.report.add(place, f"the secret '{name}' is not declared", hint)
            return False
        spec = self.spec.secrets.get(name)
        if spec and spec.kind not in allowed:
            wanted = " or ".join(allowed)
            self.report.add(place, f"`{key}:` takes a secret of kind {wanted}, and '{name}' is of kind {spec.kind}")
        return True

    # -- the condition -----------------------------------------------------------------------------

    def _condition(self, draft: Draft, item: Item | None) -> _Condition:
        entry = draft.entry("when")
        if entry is None or not isinstance(entry.value, Text):
            return _Condition()
        node, text, found = entry.value, entry.value.value, _Found()
        known = [self._condition_name(draft, item, node, use, found) for use in conditions.uses(text)]
        sound = all(known)
        faults = conditions.check(text, found.types) if sound else conditions.check_syntax(text)
        if faults and (start := text.find("${")) >= 0:
            faults = (Fault(start, 2, "a condition is not filled in: its names stand without `${}`"),)
        for fault in faults:
            hint = _HYPHEN if text[max(0, fault.start - 1) : fault.start] == "-" else fault.hint
            self.report.add(node.at(fault.start, fault.length), fault.message, hint)
        return _decided(text, found) if sound and not faults else _Condition(when=text)

    def _condition_name(self, draft: Draft, item: Item | None, node: Text, use: conditions.Use, found: _Found) -> bool:
        try:
            binding, target = self.resolve(draft, item, use.name)
        except UnknownName as error:
            hint = error.hint
            if node.value[use.end : use.end + 1] == "-":
                hint = _HYPHEN
            self.report.add(node.at(use.start, use.end - use.start), str(error), hint)
            return False
        found.take(use.name, binding, target)
        return True


def _waits(name: str) -> bool:
    """Whether a name has no value before a stage has ended."""
    return name.startswith("stages.") or name == "run.outcome"


def _for_kind(kind: str, complaint: Complaint) -> Complaint:
    """A field that a kind misses is its own business, not the file's."""
    if not complaint.missing or complaint.path:
        return complaint
    return replace(complaint, message=f"{complaint.message}: kind '{kind}' needs it")


def _decided(text: str, found: _Found) -> _Condition:
    """What is left of a sound condition: nothing if it is true, and itself if it cannot be decided now."""
    closed = {name: form for name, form in found.known.items() if not is_open(form) and not contains_unset(form)}
    values = {name: fill(form, str) for name, form in closed.items()}
    open_ = _Condition(text, values, found.references)
    if set(found.types) - set(values):
        return open_
    try:
        return _Condition() if conditions.evaluate(text, values) else _Condition(skipped=text)
    except conditions.ConditionError:
        return open_


def _texts(env: Mapping[str, Form]) -> dict[str, Form]:
    """Variables as texts; what cannot be one was reported, and what is open becomes one when it is filled."""
    return {name: _text(form, name) for name, form in env.items()}


def _text(form: Form, name: str) -> Form:
    return form if isinstance(form, dict | list) or form is None else scalar_text(form, name)


def _form_at(fields: Mapping[str, Form], path: tuple[str, ...]) -> Form:
    """What is written at a path; None if nothing is."""
    here: Form = dict(fields)
    for key in path:
        here = as_map(here).get(key)
    return here


def _names(form: Form) -> Iterator[str]:
    """The texts of a field that names one secret or several, as far as they are known."""
    for value in form if isinstance(form, list) else [form]:
        if isinstance(value, str) and value and not contains_unset(value):
            yield value
