"""One pipeline of a file laid out as leaves, as far as what is known allows.

Checking a file and making a plan of it are this one pass: to check it nothing is given, and what depends on a
parameter stays open; for a plan everything is given, and only what waits for other stages stays open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import JsonValue

from pipeline.draft import Draft, Kinds, as_map, draft, expand_each
from pipeline.errors import Place, nearest
from pipeline.expressions import ExpressionError, Form, bind, shown
from pipeline.fanout import SINGLE, FanOutError, Item, expand, split_need
from pipeline.graph import Reach, cycles
from pipeline.leaves import Leaves
from pipeline.linking import Links
from pipeline.plan import Leaf, Need, RunIdentity, Trigger
from pipeline.releasing import Releasing
from pipeline.scope import Binding, Scope, UnknownName, contains_unset, type_of
from pipeline.shape import judge, keys, open_in
from pipeline.source import List, Map, Node, Text
from pipeline.spec import Bounds, PipelineSpec
from pipeline.triggers import check_triggers
from pipeline.values import Report, Value, entries, misplaced, place_at, read_value

__all__ = ["Given", "Layout"]


@dataclass(frozen=True)
class Given:
    """What a plan is made for. Params that are missing here are not known yet."""

    run: RunIdentity | None = None
    trigger: Trigger | None = None
    params: Mapping[str, JsonValue] | None = None

    def fixed(self, pipeline: str) -> dict[str, Form]:
        """The names outside of params, vars and stages that are known."""
        found: dict[str, Form] = {"pipeline.name": pipeline}
        if self.run:
            found |= {f"run.{name}": value for name, value in self.run.model_dump().items()}
        if self.trigger:
            found |= {f"trigger.{name}": value for name, value in self.trigger.model_dump().items()}
        return found


class Layout:
    """The leaves of one pipeline; what is wrong is in the report."""

    def __init__(self, name: str, node: Map, spec: PipelineSpec, kinds: Kinds, given: Given, report: Report) -> None:
        self.leaves: list[Leaf] = []
        self.spec = spec
        self.drafts: dict[str, Draft] = {}
        self._name = name
        self._node = node
        self._report = report
        self._given = given
        self._scope = self._make_scope()
        self._env = as_map(self._bound(node.get("env"), text=True))
        check_triggers(node, spec, self._scope, report)
        self._draft_all(kinds)
        self._needs = {name: self._stage_needs(made) for name, made in self.drafts.items()}
        self._check_cycles()
        reach = Reach(self._needs)
        self._check_takes(reach)
        self._links = Links(self.drafts, reach)
        self.bounds = self._find_bounds()
        self.pools = self._pool_sizes()
        self._lay_out()
        self._release(kinds)

    @property
    def last(self) -> frozenset[str]:
        """The stages in `finally`."""
        return frozenset(name for name, made in self.drafts.items() if made.last)

    def _find_bounds(self) -> Bounds:
        """What the file says that holds the run back, with its names filled in."""
        found = {key: entry for key, entry in entries(self._node) if key in keys(Bounds)}
        forms = {key: self._bound(entry.value, text=key != "limits") for key, entry in found.items()}
        shaped = judge(Bounds, as_map(shown(dict(forms))), open_in(dict(forms)))
        for complaint in shaped.complaints:
            if not contains_unset(shown(forms.get(str(complaint.path[0])))):
                self._report.complain(self._node, complaint, self._node.place)
        return shaped.model or Bounds()

    def _pool_sizes(self) -> dict[str, int]:
        """All pools with their sizes: those of the kinds in use, and over them those of the file."""
        found = dict(made.kind.pool for made in self.drafts.values() if made.kind and made.kind.pool)
        return {**found, **self.bounds.limits}

    def _release(self, kinds: Kinds) -> None:
        """Add the leaves that make one release of the deploys."""
        entry = self._node.entries.get("release")
        if entry is None or self.bounds.release is None:
            return
        trigger = self._given.trigger or Trigger()
        releasing = Releasing(self._name, self.bounds.release, trigger, self.drafts, kinds, self._report, entry.place)
        self.leaves = releasing.extended(self.leaves)

    # -- names of the pipeline ---------------------------------------------------------------------

    def _make_scope(self) -> Scope:
        params = {name: self._param(name) for name, _ in entries(self._node.get("params"))}
        variables = dict(entries(self._node.get("vars")))
        self._scope = scope = Scope(params, self._given.fixed(self._name), {}, tuple(variables))
        for name, entry in variables.items():
            value = read_value(entry.value, self._report)
            known = self._known(value)
            form = self._bind(value, known, entry.place)
            scope.variables[name] = Binding(type_of(form, {name: found.type for name, found in known.items()}), form)
        return scope

    def _param(self, name: str) -> Binding:
        spec = self.spec.params.get(name)
        given = self._given.params
        return Binding(spec.type if spec else "any", given.get(name) if given is not None else None)

    def _known(self, value: Value, *, text: bool = False) -> dict[str, Binding]:
        """What the names of a value outside of any stage stand for."""
        found: dict[str, Binding] = {}
        for use in value.uses:
            try:
                found[use.name] = binding = self._outside(use.name)
            except UnknownName as error:
                self._report.add(use.place, str(error), error.hint)
            else:
                if fault := misplaced(use, binding.type, text=text):
                    self._report.add(use.place, fault)
        return found

    def _outside(self, name: str) -> Binding:
        if name.partition(".")[0] in ("each", "stages"):
            raise UnknownName(f"`{name}` is known only in the values of a stage")
        return self._scope.find(name)

    def _bound(self, node: Node | None, *, text: bool = False) -> Form:
        if node is None:
            return {}
        value = read_value(node, self._report)
        return self._bind(value, self._known(value, text=text), node.place)

    def _bind(self, value: Value, known: Mapping[str, Binding], place: Place) -> Form:
        try:
            return bind(value.form, {name: found.form for name, found in known.items() if found.form is not None})
        except ExpressionError as error:
            place = next((use.place for use in value.uses if f"{{{use.name}}}" in str(error)), place)
            self._report.add(place, str(error))
            return shown(value.form)

    # -- stages ------------------------------------------------------------------------------------

    def _draft_all(self, kinds: Kinds) -> None:
        for key, specs in (("stages", self.spec.stages), ("finally", self.spec.finally_)):
            for name, entry in entries(self._node.get(key)):
                if name in self.drafts:
                    line = self.drafts[name].place.line
                    self._report.add(entry.key.place, f"'{name}' is the name of a stage in line {line} already")
                    continue
                made = draft(name, entry, specs.get(name), kinds, self._report, last=key == "finally")
                self.drafts[name] = made
                self._expand(made)

    def _expand(self, made: Draft) -> None:
        each = made.values.pop("each", None)
        if each:
            expand_each(made, self._bind(each, self._known(each), made.place_of("each")), self._report)

    def _stage_needs(self, made: Draft) -> list[str]:
        """The stages that a stage needs; what is wrong with their names is reported."""
        found: list[str] = []
        for written in made.spec.needs:
            stage, _ = split_need(written)
            if fault := self._need_fault(made, written, self.drafts.get(stage)):
                self._report.add(self._need_place(made, written), *fault)
            else:
                found.append(stage)
        return found

    def _need_fault(self, made: Draft, written: str, other: Draft | None) -> tuple[str, ...]:
        """What is wrong with a need, and a hint if there is one."""
        stage, _ = split_need(written)
        if other is None:
            return f"'{made.name}' needs '{written}', which is no stage", nearest(stage, self._siblings(made))
        if other.last and not made.last:
            return (f"'{stage}' is in `finally`, which starts after all stages have ended",)
        if made.last and not other.last:
            return (f"`finally` starts when '{stage}' has ended: leave the need out",)
        return ()

    def _siblings(self, made: Draft) -> list[str]:
        return [name for name, other in self.drafts.items() if other.last == made.last and other is not made]

    def _check_takes(self, reach: Reach) -> None:
        for made in self.drafts.values():
            for taken in made.spec.takes:
                if not reach.waits(made.name, taken):
                    hint = (
                        f"add '{taken}' to `needs:`" if taken in self.drafts else nearest(taken, self._siblings(made))
                    )
                    message = f"`takes:` names '{taken}', which is no need of '{made.name}'"
                    self._report.add(made.place_of("takes"), message, hint)

    def _need_place(self, made: Draft, written: str) -> Place:
        entry = made.entry("needs")
        if entry is None:
            return made.place
        if isinstance(entry.value, Map):
            return place_at(entry.value, (written,), entry.place, at_key=True)
        items = entry.value.items if isinstance(entry.value, List) else ()
        found = (item.place for item in items if isinstance(item, Text) and item.value == written)
        return next(found, entry.place)

    def _check_cycles(self) -> None:
        for cycle in cycles(self._needs):
            made = self.drafts[cycle[0]]
            path = " → ".join([*cycle, cycle[0]])
            on = cycle[1 % len(cycle)]
            written = next(need for need in made.spec.needs if split_need(need)[0] == on)
            message = f"'{cycle[0]}' needs itself" if len(cycle) == 1 else f"stages need each other in a circle: {path}"
            self._report.add(self._need_place(made, written), message)

    # -- leaves ------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        """Make all leaves; those of a stage whose items are not known yet are checked and left out."""
        make = Leaves(self.spec, self._node, self._scope, self._links, self._env, self._report).make
        for made in self.drafts.values():
            if made.items is None:
                make(made, None, ())
            for item in made.items or ():
                needs = tuple(self._leaf_needs(made, item))
                self.leaves.append(make(made, item if made.fanned_out else SINGLE, needs))
        self._check_values_are_waited_for()
        self._check_folders()

    def _leaf_needs(self, made: Draft, item: Item) -> Iterator[Need]:
        for written, words in made.spec.needs.items():
            other = self.drafts.get(split_need(written)[0])
            if other is None or other.last != made.last:
                continue
            try:
                need = expand(written, words, item, made.items or (), other.items)
            except FanOutError as error:
                self._report.add(self._need_place(made, written), str(error), error.hint)
            else:
                if need:
                    yield need

    def _check_values_are_waited_for(self) -> None:
        """A leaf may need another stage and still not wait for the very leaf whose value it names."""
        if any(made.items is None for made in self.drafts.values()):
            return
        known = {leaf.name for leaf in self.leaves}
        reach = Reach({leaf.name: [on for need in leaf.needs for on in need.leaves] for leaf in self.leaves})
        for leaf in self.leaves:
            made = self.drafts[leaf.stage]
            for source, output in {*leaf.references.values(), *leaf.when_references.values()}:
                stage = source.partition("[")[0]
                same_wave = source in known and self.drafts[stage].last == made.last
                if same_wave and not reach.waits(leaf.name, source):
                    message = f"'{leaf.name}' names `stages.{source}.{output}` and does not wait for it"
                    self._report.add(made.place, message, f"to wait for every leaf write `needs: {{{stage}: all}}`")

    def _check_folders(self) -> None:
        """Stages that fill a folder of the workspace from outside: no two of them the same one."""
        taken: list[tuple[PurePosixPath, Leaf]] = []
        for leaf in self.leaves:
            folder = self._filled(leaf)
            if folder is None:
                continue
            for other, earlier in taken:
                if folder.is_relative_to(other) or other.is_relative_to(folder):
                    made = self.drafts[leaf.stage]
                    where = f"'{leaf.name}' checks out into '{folder}', and '{earlier.name}' into '{other}'"
                    self._report.add(made.fields_place, where, "give each a folder of its own by `into:`")
                    break
            taken.append((folder, leaf))

    def _filled(self, leaf: Leaf) -> PurePosixPath | None:
        """The folder that a leaf fills; None if it fills none, may not run, or it is not known which."""
        kind = self.drafts[leaf.stage].kind
        if kind is None or "into" not in kind.model_fields:
            return None
        into = leaf.fields.get("into", kind.model_fields["into"].default)
        undecided = leaf.skipped or leaf.when or leaf.workspace == "copy" or "${" in leaf.dir
        if undecided or not isinstance(into, str) or contains_unset(leaf.dir + into):
            return None
        return PurePosixPath(leaf.dir or ".") / into
