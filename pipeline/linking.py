"""What `stages.S…` and `each.X` stand for in one leaf of one stage."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.draft import Draft
from pipeline.errors import nearest
from pipeline.expressions import is_open
from pipeline.fanout import Item, leaf_name
from pipeline.graph import Reach
from pipeline.scope import Binding, UnknownName, type_of

__all__ = ["Links", "Target"]

_REFERENCE: Final = re.compile(r"stages\.(?P<stage>\w+)(?:\[(?P<key>.+)\])?(?:\.(?P<output>\w+))?")


@dataclass(frozen=True, slots=True)
class Target:
    """The leaf that gives a value (or the stage, for its outcome as a whole), and the name of its output."""

    source: str
    output: str


@dataclass(frozen=True)
class Links:
    """The stages of a pipeline as they see each other."""

    drafts: Mapping[str, Draft]
    reach: Reach
    """Which stage waits for which."""

    def each(self, draft: Draft, item: Item | None, name: str) -> Binding:
        """What `each.X` is in a leaf; without an item it is not known yet.

        Raises:
            UnknownName: the entry of `each` has no such field, or the stage has no `each`.
        """
        field = name.partition(".")[2]
        if not draft.fanned_out:
            raise UnknownName(f"`{name}`: the stage '{draft.name}' has no `each:`")
        if item is None:
            return Binding("any")
        if field not in item.fields:
            raise UnknownName(f"unknown name `{name}`: '{item.key}' has no '{field}'", nearest(field, item.fields))
        form = item.fields[field]
        return Binding(type_of(form, {}), None if is_open(form) else form)

    def stage(self, draft: Draft, item: Item | None, name: str) -> tuple[Binding, Target | None]:
        """The type of `stages.S.OUT` and what gives it; without a target that is not known yet.

        Raises:
            UnknownName: no such stage, leaf or output, or one that this stage does not wait for.
        """
        match = _REFERENCE.fullmatch(name)
        if match is None:
            raise UnknownName(f"`{name}` is no name", "write `stages.NAME.OUTPUT`")
        other, output = self._other(draft, match["stage"], name), match["output"]
        if output is None:
            known = _outputs(other)
            hint = nearest("", known) if len(known) > 1 else f"write `stages.{other.name}.outcome`"
            raise UnknownName(f"`{name}` names no output of '{other.name}'", hint)
        binding = _output(other, output)
        source = _source(draft, item, other, match["key"], output)
        return binding, Target(source, output) if source else None

    def _other(self, draft: Draft, stage: str, name: str) -> Draft:
        other = self.drafts.get(stage)
        if other is None:
            raise UnknownName(f"unknown stage '{stage}' in `{name}`", nearest(stage, self.drafts))
        if other.last and not draft.last:
            raise UnknownName(f"`{name}`: '{stage}' is in `finally`, which starts after all stages have ended")
        if other.last == draft.last and not self.reach.waits(draft.name, stage):
            raise UnknownName(
                f"`{name}`: '{draft.name}' does not need '{stage}'",
                f"its values are known only to stages that need it: add '{stage}' to `needs:`",
            )
        return other


def _outputs(other: Draft) -> list[str]:
    return [*(other.outputs or ()), "outcome"]


def _output(other: Draft, output: str) -> Binding:
    if output == "outcome":
        return Binding("text")
    if other.outputs is None:
        return Binding("any")
    if output not in other.outputs:
        raise UnknownName(f"'{other.name}' has no output '{output}'", nearest(output, _outputs(other)))
    return Binding(other.outputs[output])


def _source(draft: Draft, item: Item | None, other: Draft, key: str | None, output: str) -> str | None:
    """The leaf that is meant; None as long as the leaves are not known."""
    if other.items is None:
        return None
    keys = [each.key for each in other.items]
    if key is not None:
        if key not in keys:
            raise UnknownName(f"'{other.name}' has no leaf '{key}'", nearest(key, filter(None, keys)))
        return leaf_name(other.name, key)
    if not other.fanned_out:
        return other.name
    if item is None:
        return None
    if item.key and all(own.key in keys for own in draft.items or ()):
        return leaf_name(other.name, item.key)
    if output == "outcome":
        return other.name
    raise UnknownName(
        f"'{other.name}' is fanned out, and '{draft.name}' is not fanned out alike: which leaf is meant?",
        f"write `stages.{other.name}[{keys[0]}].{output}`",
    )
