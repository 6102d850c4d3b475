"""`release:`: the deploys of a pipeline as one thing. A leaf before them draws a ticket, one after them closes it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from pipeline.draft import Draft, Kind, Kinds, field_marks
from pipeline.errors import Place
from pipeline.expressions import TAG, is_open, names
from pipeline.graph import Reach
from pipeline.plan import Leaf, Need, NeedWord, Retry, Trigger
from pipeline.spec import Release
from pipeline.stage import FROM_PLAN
from pipeline.values import Report

__all__ = ["Releasing"]

TICKET: Final = "ticket"
RELEASE: Final = "release"
_FIELD: Final = "release"
"""The field that a kind has whose stages are parts of a release."""
_NUMBER: Final[JsonValue] = {TAG: [{"ref": "stages.ticket.number"}]}
_STUBBORN: Final = Retry(times=5)


@dataclass(frozen=True)
class Releasing:
    """What `release:` of one pipeline asks for."""

    pipeline: str
    spec: Release
    trigger: Trigger
    drafts: Mapping[str, Draft]
    kinds: Kinds
    report: Report
    place: Place

    def extended(self, leaves: Sequence[Leaf]) -> list[Leaf]:
        """The leaves with those that `release:` adds; what is wrong is reported, and nothing added then.

        The ticket is drawn when the commit is known, so that tickets are in the order of commits. Everything of
        the release waits for it, and the last leaf waits for everything of the release.
        """
        parts = [leaf for leaf in leaves if self._is_part(leaf)]
        if any(made.items is None for made in self.drafts.values()) or not self._is_sound(parts):
            return list(leaves)
        common = self._common(parts)
        if self.report.problems or any(map(is_open, common.values())):
            return list(leaves)
        ticket = self._ticket(leaves, parts, common)
        last = self._last(leaves, parts, common)
        part: JsonValue = {"target": self._target, "namespace": common["namespace"], "number": _NUMBER}
        joined = {leaf.name: _joined(leaf, part) for leaf in parts}
        first, end = leaves.index(parts[0]), leaves.index(parts[-1]) + 1
        before, among, after = leaves[:first], leaves[first:end], leaves[end:]
        return [*before, ticket, *(joined.get(leaf.name, leaf) for leaf in among), last, *after]

    @property
    def _target(self) -> str:
        return self.spec.target or self.pipeline

    def _is_part(self, leaf: Leaf) -> bool:
        return _deploys(self.drafts[leaf.stage].kind) and not leaf.skipped

    def _is_sound(self, parts: Sequence[Leaf]) -> bool:
        stages = [made for made in self.drafts.values() if _deploys(made.kind)]
        if not stages:
            self._wrong("`release:` is about deploys, and no stage is one")
        if any(made.last for made in stages):
            self._wrong("a deploy in `finally` cannot be part of a release")
        for name in (TICKET, RELEASE):
            if name in self.drafts:
                self._wrong(f"with `release:` a stage '{name}' is added, and there is one of that name already")
        if self.spec.target is None:
            try:
                Release(target=self.pipeline)
            except ValueError:
                hint = "write `release: {target: NAME}`, in small letters, digits and hyphens"
                self._wrong(
                    f"the target of releases has the pipeline's name, and '{self.pipeline}' cannot be one", hint
                )
        return bool(parts) and not self.report.problems

    def _wrong(self, message: str, hint: str = "") -> None:
        self.report.add(self.place, message, hint)

    # -- where the release goes --------------------------------------------------------------------

    def _common(self, parts: Sequence[Leaf]) -> dict[str, JsonValue]:
        """The fields by which every part reaches the same cluster, and the namespace that keeps the releases."""
        names = [name for name in self.kinds[TICKET].model_fields if name in self._kind(parts[0]).model_fields]
        found = {name: self._agreed(name, parts) for name in names if name != "namespace"}
        found["namespace"] = self.spec.namespace or self._agreed("namespace", parts)
        if not found["namespace"]:
            self._wrong("nothing says where the releases are kept", "write `release: {namespace: NAME}`")
        return found

    def _agreed(self, name: str, parts: Sequence[Leaf]) -> JsonValue:
        first = self._field(parts[0], name)
        other = next((leaf for leaf in parts if self._field(leaf, name) != first), None)
        way = "write `release: {namespace: NAME}`" if name == "namespace" else "a release goes to one cluster"
        if other is not None:
            message = f"the deploys of one release have one `{name}:`, and '{parts[0].name}' and '{other.name}' differ"
            self._wrong(message, way)
        elif any(open_.startswith("stages.") for open_ in names(first)):
            self._wrong(f"`{name}:` of '{parts[0].name}' is known only when a stage has ended", way)
        return first

    def _field(self, leaf: Leaf, name: str) -> JsonValue:
        default: JsonValue = self._kind(leaf).model_fields[name].default
        return leaf.fields.get(name, default)

    def _kind(self, leaf: Leaf) -> Kind:
        return self.kinds[leaf.uses]

    # -- the two leaves ----------------------------------------------------------------------------

    def _ticket(self, leaves: Sequence[Leaf], parts: Sequence[Leaf], common: Mapping[str, JsonValue]) -> Leaf:
        reach = Reach({leaf.name: [on for need in leaf.needs for on in need.leaves] for leaf in leaves})
        sources = [leaf for leaf in leaves if self._checks_out(leaf)]
        awaited = [leaf for leaf in sources if any(reach.waits(part.name, leaf.name) for part in parts)]
        fields: dict[str, JsonValue] = {
            "target": self._target,
            **common,
            "parts": [leaf.name for leaf in parts],
            "irreversible": [leaf.name for leaf in self._irreversible(leaves)],
            "why": _why(self.trigger),
            "by": self.trigger.author,
        }
        return self._leaf(TICKET, fields, needs=tuple(_needs(awaited, NeedWord.OPTIONAL)))

    def _last(self, leaves: Sequence[Leaf], parts: Sequence[Leaf], common: Mapping[str, JsonValue]) -> Leaf:
        marked = self._irreversible(leaves)
        allowed: list[JsonValue] = [leaf.name for leaf in parts if leaf.allow_failure]
        fields: dict[str, JsonValue] = {
            "target": self._target,
            **common,
            "number": _NUMBER,
            "on_failure": self.spec.on_failure,
            "parts": {leaf.name: _end(leaf) for leaf in parts},
            "allowed": allowed,
            "irreversible": {leaf.name: _end(leaf) for leaf in marked},
        }
        ends = {f"stages.{leaf.name}.end": (leaf.name, "end") for leaf in (*parts, *marked)}
        stages = list(dict.fromkeys(leaf.stage for leaf in parts))
        return self._leaf(
            RELEASE,
            fields,
            needs=tuple(_needs([*parts, *marked], NeedWord.ENDED)),
            references={"stages.ticket.number": (TICKET, "number"), **ends},
            when=" || ".join(f"stages.{stage}.outcome != 'skipped'" for stage in stages),
            when_references={f"stages.{stage}.outcome": (stage, "outcome") for stage in stages},
            closes=True,
        )

    def _irreversible(self, leaves: Sequence[Leaf]) -> list[Leaf]:
        return [leaf for leaf in leaves if self.drafts[leaf.stage].spec.irreversible and not leaf.skipped]

    def _leaf(self, name: str, fields: Mapping[str, JsonValue], **options: object) -> Leaf:
        secret = fields.get("secret")
        return Leaf.model_validate(
            {
                "name": name,
                "stage": name,
                "uses": name,
                "fields": fields,
                "secret_names": (secret,) if secret else (),
                "timeout": self.kinds[name].default_timeout,
                "retry": _STUBBORN,
                "place": f"{self.place.file}:{self.place.line}",
                **options,
            }
        )

    def _checks_out(self, leaf: Leaf) -> bool:
        kind = self.drafts[leaf.stage].kind
        return kind is not None and "into" in kind.model_fields and not leaf.skipped


def _deploys(kind: Kind | None) -> bool:
    """Whether a kind's stages are parts of a release; a field of that name may be the stage's own."""
    return kind is not None and FROM_PLAN in field_marks(kind).get(_FIELD, ())


def _joined(leaf: Leaf, part: JsonValue) -> Leaf:
    """A deploy as a part of the release: it waits for the ticket and knows it."""
    return leaf.model_copy(
        update={
            "fields": {**leaf.fields, _FIELD: part},
            "references": {**leaf.references, "stages.ticket.number": (TICKET, "number")},
            "needs": (*leaf.needs, Need(on=TICKET, leaves=(TICKET,))),
        }
    )


def _end(leaf: Leaf) -> JsonValue:
    return {TAG: [{"ref": f"stages.{leaf.name}.end"}]}


def _needs(leaves: Iterable[Leaf], word: NeedWord) -> Iterator[Need]:
    """One need a stage."""
    by_stage: dict[str, list[str]] = {}
    for leaf in leaves:
        by_stage.setdefault(leaf.stage, []).append(leaf.name)
    for stage, found in by_stage.items():
        yield Need(on=stage, leaves=tuple(dict.fromkeys(found)), word=word, group=len(found) > 1)


def _why(trigger: Trigger) -> str:
    """Why the run exists, in a few words."""
    where = trigger.tag or trigger.branch
    words = trigger.kind.replace("_", " ") + (f" to {where}" if where and trigger.kind == "push" else "")
    words += f" {where}" if where and trigger.kind != "push" else ""
    return f"{words}: {trigger.title}" if trigger.title else words
