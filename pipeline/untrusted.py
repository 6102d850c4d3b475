"""The plan of a trigger that nobody vouches for: no secret is in it, and nothing outside of the run is changed.

This is the one place that decides it. The rule is that of OWASP's CI/CD risks (CICD-SEC-4, poisoned pipelines): a
stranger's commit may be built and tested, never published, and never with a secret in reach.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from pipeline.draft import Kind, secret_fields
from pipeline.plan import Concurrency, Leaf

__all__ = ["NOT_IN_FORKS", "apart", "withhold"]

NOT_IN_FORKS: Final = "not in the run of a fork"


def withhold(leaf: Leaf, kind: Kind | None) -> Leaf:
    """A leaf as the run of a stranger's commit may have it: without its secrets, or skipped for good.

    A kind that can do without the secrets of its fields loses them and works; any other stage that names a secret
    is skipped, and so is every kind that does not say that it changes nothing outside.
    """
    if leaf.skipped:
        return leaf
    if kind is None or not kind.contained:
        return leaf.model_copy(update={"withheld": f"{NOT_IN_FORKS}: {leaf.uses} changes things outside of it"})
    named = _secret_fields(kind, leaf.fields)
    if leaf.secrets or (named and not kind.secrets_optional):
        wanted = ", ".join(leaf.secret_names)
        return leaf.model_copy(
            update={"withheld": f"{NOT_IN_FORKS}: it gets no secrets, and this stage names {wanted}"}
        )
    fields = {name: value for name, value in leaf.fields.items() if name not in named}
    return leaf.model_copy(update={"fields": fields, "secret_names": ()})


def apart(concurrency: Concurrency | None) -> Concurrency | None:
    """The group of a stranger's run: a name that he chose can neither hold up nor end runs of the project's own."""
    return concurrency and concurrency.model_copy(update={"group": f"forks {concurrency.group}"})


def _secret_fields(kind: Kind, fields: Mapping[str, JsonValue]) -> frozenset[str]:
    """The fields of a leaf that name a secret, themselves or in what they hold."""
    return frozenset(path[0] for path in secret_fields(kind) if fields.get(path[0]))
