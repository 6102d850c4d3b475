"""Where a target is: in which cluster and namespace its releases are kept, as somebody says or as a run knows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan, SecretSource
from pipeline.stage import SecretFile
from runner.hosts import detect
from runner.plans import read_plan
from runner.secrets import find_secrets
from runner.store import Store

__all__ = ["Place", "Where", "place_of", "split_release"]

_VARIABLE = "PIPE_KUBECONFIG"
_RELEASE = re.compile(r"(?P<target>[a-z0-9-]+)(?:@(?P<number>[1-9][0-9]*))?")


@dataclass(frozen=True, slots=True)
class Where:
    """What a call says about the place: empty is not said, and of the kubeconfig None."""

    namespace: str = ""
    context: str = ""
    kubeconfig: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A target as far as it is known; an empty namespace is looked for in the cluster."""

    target: str
    namespace: str
    kubeconfig: Path
    label: str
    """What messages call the kubeconfig."""
    context: str = ""
    secret: str = ""
    """The name of the secret that the kubeconfig is; empty: it is none."""
    source: SecretSource | None = None


def split_release(words: str) -> tuple[str, int]:
    """`his@12` or `his`: the target and the number, 0 if there is none.

    Raises:
        PipeError: it is neither.
    """
    match = _RELEASE.fullmatch(words)
    if match is None:
        raise PipeError(f"'{words}' is no release: write TARGET@NUMBER, as in his@12")
    return match["target"], int(match["number"] or 0)


def place_of(target: str, where: Where, environ: Mapping[str, str], store: Store) -> Place:
    """Where a target is; without a name that of the newest run that released something.

    The kubeconfig that nobody names is that of this run, by its secret; where it had none, and where no run is known,
    `PIPE_KUBECONFIG` names it.

    Raises:
        PipeError: nothing says where, or the run's kubeconfig is not here.
    """
    plan, leaf = next(_released(store, target), (None, None))
    known = {name: str(value) for name, value in leaf.fields.items()} if leaf else {}
    place = partial(
        Place,
        target=target or known.get("target", ""),
        namespace=where.namespace or known.get("namespace", ""),
        context=where.context or known.get("context", ""),
    )
    if where.kubeconfig is not None:
        return place(kubeconfig=_typed(where.kubeconfig), label=f"the kubeconfig {where.kubeconfig}")
    if plan and leaf and (secret := known.get("secret")):
        found, label = _secret(plan, leaf, secret, environ, store), f"the kubeconfig of secret '{secret}'"
        return place(kubeconfig=found, label=label, secret=secret, source=plan.secrets[secret])
    if named := environ.get(_VARIABLE):
        return place(kubeconfig=_typed(named), label=f"the kubeconfig that {_VARIABLE} names")
    raise PipeError(f"no cluster is named: set {_VARIABLE} to the path of a kubeconfig, or add --kubeconfig PATH")


def _typed(path: str) -> Path:
    if not path:
        raise PipeError("--kubeconfig is empty: it takes the path of a kubeconfig")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise PipeError(f"{path}: {error}") from error


def _released(store: Store, target: str) -> Iterator[tuple[Plan, Leaf]]:
    """The runs with a release to the target, the newest first, each with the leaf that draws its number.

    A rollback that was told its kubeconfig says nothing about the next one.
    """
    for _, _, folder in store.runs():
        try:
            plan = read_plan(folder)
        except PipeError:
            continue
        for leaf in plan.leaves:
            says = leaf.uses == "ticket" or (leaf.uses == "rollback" and leaf.fields.get("secret"))
            if says and target in ("", leaf.fields.get("target")):
                yield plan, leaf


def _secret(plan: Plan, leaf: Leaf, name: str, environ: Mapping[str, str], store: Store) -> Path:
    only = plan.model_copy(update={"leaves": (leaf,), "finally_": ()})
    try:
        value = find_secrets(only, detect(environ), store.path).get(name)
    except PipeError as error:
        raise PipeError(f"{error}\n--kubeconfig PATH names the same cluster without it") from error
    if not isinstance(value, SecretFile):
        raise PipeError(f"the secret '{name}' is no file, so it is no kubeconfig")
    return value.path
