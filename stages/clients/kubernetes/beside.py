"""What a deploy relies on beside its own objects, looked at before it begins: what pods need, and their registry."""

from collections.abc import Mapping, Sequence

import anyio

from pipeline.stage import Cause, CauseKind, Examined, Finding, PreflightContext, Severity, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.needs import KINDS, Need
from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.registered_in import InNacos, services_of
from stages.clients.kubernetes.scene import WITH_PODS
from stages.clients.kubernetes.transport import ApiError

__all__ = ["look_at_needs", "look_at_registry"]

_SECONDS = 3.0
"""How long a registry may take to answer: what else was found must not be lost with it."""


async def look_at_needs(
    cluster: Cluster, needs: Sequence[Need], manifests: Sequence[Manifest], makers: str
) -> list[Finding]:
    """What is needed and is not there, nor part of the deploy. `makers`: stages before that may make it."""
    namespaces = sorted({each.ref.namespace for each in manifests if each.ref.kind in WITH_PODS})
    described = [manifest.ref for manifest in manifests]
    source = f"the cluster {cluster.server}"
    findings = []
    for namespace in namespaces:
        for need in needs:
            if any(need.matches(ref) and ref.namespace == namespace for ref in described):
                continue
            there = await _there(cluster, need, namespace)
            if there is None:
                cause = Cause(CauseKind.CONFIG, f"{cluster.transport.credentials} may not see whether {need} is there")
                findings.append(Finding(Severity.UNKNOWN, cause, source=source))
            elif not there:
                message = f"`waits_for:` names {need}, and {namespace} has no workload or Service of that name"
                hint = f"well if {makers} makes it" if makers else "correct the name, or see that it is deployed too"
                findings.append(Finding(Severity.MAY_FAIL, Cause(CauseKind.CONFIG, message), source=source, hint=hint))
    return findings


async def _there(cluster: Cluster, need: Need, namespace: str) -> bool | None:
    """Whether there is something of that name; None if we may not look everywhere."""
    blind = False
    for kind in [need.kind] if need.kind else KINDS:
        try:
            if await cluster.get(Ref(KINDS[kind], kind, namespace, need.name)):
                return True
        except ApiError as error:
            if error.status not in (401, 403):
                raise
            blind = True
    return None if blind else False


async def look_at_registry(
    ctx: PreflightContext, fields: InNacos, manifests: Sequence[Manifest], makers: str
) -> Examined:
    """Whether the registry answers and takes the login. `makers`: stages before that may bring it up."""
    nacos = fields.client(ctx)
    services = sorted(set(services_of(fields, manifests).values()))
    found: Mapping[str, object] | None = None
    try:
        with anyio.move_on_after(_SECONDS):
            found = await nacos.instances(services)
    except StageFailed as failure:
        severity = Severity.MAY_FAIL if makers else Severity.FAILS
        hint = f"well if {makers} mends it" if makers else failure.cause.hint
        return Examined([Finding(severity, failure.cause, source=nacos.url, hint=hint)])
    except StageErrored as error:
        hint = f"well if {makers} starts it" if makers else "name it as this machine reaches it, and see that it runs"
        return Examined([Finding(Severity.MAY_FAIL, error.cause, source=nacos.url, hint=hint)])
    if found is None:
        cause = Cause(CauseKind.INFRA, f"Nacos {nacos.url}: no answer within {_SECONDS:g} s")
        return Examined([Finding(Severity.UNKNOWN, cause, source=nacos.url)])
    known = sum(map(bool, found.values()))
    return Examined(checked=[f"{nacos} knows {known} of {len(found)} services"])
