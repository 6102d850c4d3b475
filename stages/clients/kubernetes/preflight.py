"""What the cluster would say to a deploy, before there is anything to deploy: rights, dry runs, pods, quotas, storage.

Nothing is written. What lies in a namespace that is not there yet is tried under another name in `default`, where only
what is wrong with the object itself counts.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.stage import Cause, CauseKind, Examined, Finding, PreflightContext, RunInfo, Severity, doubted
from stages.clients.kubernetes.api import Cluster, Collection, Resource
from stages.clients.kubernetes.applier import Applier, OnConflict
from stages.clients.kubernetes.apply import unmet
from stages.clients.kubernetes.inventory import Inventory
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.namespaces import described_namespace, has_namespace
from stages.clients.kubernetes.objects import Object, Ref, dig, pod_specs
from stages.clients.kubernetes.prune import find_surplus, refused_removals
from stages.clients.kubernetes.pull_secret import wanted
from stages.clients.kubernetes.quota import more_pods, shortages
from stages.clients.kubernetes.refusals import has_no_dry_run, of_the_object, refusals
from stages.clients.kubernetes.rights import Right, denied, for_reasons, to_apply, to_keep_secrets
from stages.clients.kubernetes.scaling import leave_replicas
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Intended", "examine"]

_STAND_IN = "default"
_WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job", "ReplicaSet"}
_VOLATILE = ("managedFields", "resourceVersion", "generation")


@dataclass(frozen=True, slots=True)
class Intended:
    """What a deploy intends."""

    manifests: Sequence[Manifest]
    images: Sequence[str] = ()
    keeps_pull_secrets: bool = False
    on_conflict: OnConflict = "fail"
    prunes: Callable[[Cluster, RunInfo], Inventory] | None = None
    """Gives what earlier deploys have applied, if the deploy deletes what is described no more."""
    prunable: Sequence[str] = ()
    """Kinds that are deleted only by an explicit word, and have it."""
    account: str = ""
    """Whose rights are asked for: a name that differs where kubeconfigs do."""
    makers: str = ""
    """Stages before it that may make what is missing in the cluster."""
    editors: str = ""
    """Stages before it that may change the manifests."""


@dataclass(slots=True)
class _Look:
    """One deploy being looked at."""

    ctx: PreflightContext
    cluster: Cluster
    intended: Intended
    applier: Applier
    findings: list[Finding] = field(default_factory=list)
    intends: list[str] = field(default_factory=list)
    """What the deploy will do that its manifests do not say."""
    missing: set[str] = field(default_factory=set)
    """Namespaces that are not there yet."""
    present: dict[Ref, Object | None] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)
    """What is described no more, and a fingerprint of how it is now."""
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Resources that we may not write, and where: a dry run would only say so again."""

    @property
    def source(self) -> str:
        return f"the cluster {self.cluster.server}"

    def tell(self, severity: Severity, message: str, **words: str) -> None:
        self.findings.append(Finding(severity, Cause(CauseKind.CONFIG, message), source=self.source, **words))


async def examine(ctx: PreflightContext, cluster: Cluster, intended: Intended) -> Examined:
    """Look at everything that a deploy needs of the cluster. The objects' namespaces are assigned already.

    Raises:
        StageErrored: the cluster does not answer.
        ApiError: it answers no where it had to answer something.
    """
    scaling = await leave_replicas(cluster, intended.manifests)
    intended = replace(intended, manifests=scaling.manifests)
    applier = Applier(cluster, intended.on_conflict, scaling.scaled)
    look = _Look(ctx, cluster, intended, applier, intends=[*scaling.notes])
    resources = {each.ref: await cluster.resource(each.ref.api_version, each.ref.kind) for each in intended.manifests}
    known = {ref: resource for ref, resource in resources.items() if resource is not None}
    await _look_at_namespaces(look)
    look.present = dict(zip(known, await together(lambda ref: _present(look, ref), known), strict=True))
    await _look_at_rights(look, known)
    tried = [each for each in intended.manifests if _may_try(look, each, known)]
    for findings in await together(lambda each: _try(look, each, resources), tried):
        look.findings += findings
    for findings in await together(lambda each: _try_pod(look, each), intended.manifests):
        look.findings += findings
    look.findings += _twice(intended.manifests, look.source)
    await _look_at_pull_secrets(look)
    await _look_at_storage(look)
    await _look_at_surplus(look)
    checked = [f"{len(tried)} of {len(intended.manifests)} objects tried at {cluster.server}"]
    wanted_by_ref = {each.ref: each.object for each in intended.manifests}
    touches = look.deleted | {
        f"{ref} at {cluster.server}": _fingerprint(thing, wanted_by_ref[ref]) for ref, thing in look.present.items()
    }
    return Examined(look.findings, checked, touches, look.intends)


# -- namespaces and rights -------------------------------------------------------------------------


async def _look_at_namespaces(look: _Look) -> None:
    for name in sorted({each.ref.namespace for each in look.intended.manifests} - {""}):
        if await has_namespace(look.cluster, name):
            continue
        look.missing.add(name)
        manifest = described_namespace(name, look.intended.manifests, look.ctx.run.id)
        try:
            await look.cluster.apply(manifest.object, dry_run=True)
        except ApiError as error:
            found = [replace(each, source=look.source) for each in refusals(manifest, error)]
            look.findings += [doubted(each, look.intended.makers, "makes the namespace") for each in found]


async def _present(look: _Look, ref: Ref) -> Object | None:
    if ref.namespace in look.missing:
        return None
    try:
        return await look.cluster.get(ref)
    except ApiError as error:
        if error.status in (401, 403):
            return {"metadata": {}, "kind": ref.kind}  # there or not, nobody tells us
        raise


async def _look_at_rights(look: _Look, known: Mapping[Ref, Resource]) -> None:
    intended = look.intended
    objects = {ref: (resource, look.present[ref]) for ref, resource in known.items()}
    needed = dict.fromkeys(to_apply(objects))
    namespaces = sorted({ref.namespace for ref in known} - {""})
    if intended.keeps_pull_secrets:
        secrets = wanted(intended.manifests, intended.images)
        needed |= dict.fromkeys(to_keep_secrets(sorted({ref.namespace for ref in secrets})))
    useful = [right for right in for_reasons(namespaces) if right not in needed]
    refused = await denied(look.ctx, look.cluster, intended.account, [*needed, *useful])
    for right, reason in refused.items():
        said = f": {reason}" if reason else ""
        who = look.cluster.transport.credentials
        if right in needed:
            look.forbidden |= {(right.resource, right.namespace)} if right.verb in ("patch", "create") else set()
            look.tell(Severity.FAILS, f"{who} may not {right}{said}", about=_about(right, known), hint=_GIVE)
    if missing := [right for right in refused if right not in needed]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        message = (
            f"{look.cluster.transport.credentials} may not {missing[0]}{more}: reasons of a failure may be missing"
        )
        look.tell(Severity.UNKNOWN, message, hint=_GIVE)


_GIVE = "give the account of this kubeconfig that right, or use another kubeconfig"


def _about(right: Right, known: Mapping[Ref, Resource]) -> str:
    names = [
        str(ref)
        for ref, resource in known.items()
        if (resource.plural, ref.namespace) == (right.resource, right.namespace)
    ]
    return names[0] if len(names) == 1 else ""


# -- objects ---------------------------------------------------------------------------------------


def _may_try(look: _Look, manifest: Manifest, known: Mapping[Ref, Resource]) -> bool:
    resource = known.get(manifest.ref)
    return resource is None or (resource.plural, manifest.ref.namespace) not in look.forbidden


async def _try(look: _Look, manifest: Manifest, resources: Mapping[Ref, Resource | None]) -> list[Finding]:
    """What the cluster says to an object."""
    ref, intended = manifest.ref, look.intended
    if resources[ref] is None:
        return [_unknown(manifest, "its definition is part of this deploy", look.source)]
    stand_in = ref.namespace in look.missing
    tried = await look.applier.check(_renamed(manifest) if stand_in else manifest)
    look.intends += [*tried.words_left, *tried.words_taken]
    if isinstance(error := tried.answer, ApiError):
        if has_no_dry_run(error):
            return [_unknown(manifest, error.message, look.source)]
        if stand_in and error.status in (403, 409):
            return [_unknown(manifest, f"the namespace {ref.namespace} is not there yet", look.source)]
        if need := unmet(error, manifest, intended.manifests):
            return [_unknown(manifest, f"it needs {need}, which is part of this deploy", look.source)]
        found = [replace(each, source=look.source) for each in refusals(manifest, error)]
        if "not found" in error.message:
            found = [doubted(each, intended.makers, "makes that") for each in found]
        return [doubted(each, intended.editors, "changes it") for each in found]
    return []


def _renamed(manifest: Manifest) -> Manifest:
    """The same object where nothing of that name is."""
    ref, metadata = manifest.ref, manifest.object["metadata"]
    name = "pipe-preflight-" + hashlib.sha256(f"{ref.kind} {ref.name}".encode()).hexdigest()[:12]
    return replace(manifest, object={**manifest.object, "metadata": {**metadata, "name": name, "namespace": _STAND_IN}})


async def _try_pod(look: _Look, manifest: Manifest) -> list[Finding]:
    """What admission says to one pod of a workload: quota, limits, PodSecurity, service account, priority."""
    ref, thing = manifest.ref, manifest.object
    if ref.kind not in _WORKLOADS or ref.namespace in look.missing:
        return []
    right = Right("create", "", "pods", ref.namespace)
    if await denied(look.ctx, look.cluster, look.intended.account, [right]):
        who = look.cluster.transport.credentials
        cause = Cause(CauseKind.CONFIG, f"{who} may not {right}: quota, limits and pod security cannot be tried")
        return [Finding(Severity.UNKNOWN, cause, source=look.source)]
    template = dig(thing, "spec", "template")
    metadata, spec = dig(template, "metadata") or {}, dig(template, "spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return []  # the workload's own dry run says that, with its own fields
    metadata = {key: value for key, value in metadata.items() if key in ("labels", "annotations")}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**metadata, "generateName": "pipe-preflight-", "namespace": ref.namespace},
        "spec": {**spec, **({"restartPolicy": "Never"} if ref.kind == "Job" else {})},
    }
    if not pod_specs_of(pod):
        return []
    present = look.present.get(ref)
    try:
        admitted = await look.cluster.create(pod, dry_run=True)
    except ApiError as error:
        return _refused_pod(look, manifest, error, running=present is not None)
    count = more_pods(thing, present if present and "spec" in present else None)
    lines = list(shortages(await _quotas(look, ref.namespace), admitted, count)) if count > 1 else []
    return [_finding(manifest, Severity.FAILS, "its pods do not fit: " + line, look.source, _ROOM) for line in lines]


def pod_specs_of(pod: Object) -> list[Object]:
    """The pod's own spec, if it has containers."""
    return list(pod_specs(pod["spec"]))


_ROOM = "raise the quota, or ask for less in `resources:`"


def _refused_pod(look: _Look, manifest: Manifest, error: ApiError, *, running: bool) -> list[Finding]:
    if of_the_object(error) and not has_no_dry_run(error):
        return []  # the workload's own dry run says that, with its own fields
    if has_no_dry_run(error) or error.status not in (403, 404):
        return [_unknown(manifest, f"a pod of it cannot be tried: {error.message}", look.source)]
    if unmet(error, manifest, look.intended.manifests):
        return []
    quota = "exceeded quota" in error.message or "failed quota" in error.message
    # one that runs may give way to the new pod before that has to fit
    severity = Severity.MAY_FAIL if quota and running else Severity.FAILS
    finding = _finding(
        manifest, severity, f"its pods are refused: {error.message}", look.source, _ROOM if quota else ""
    )
    if "not found" in error.message:
        finding = doubted(finding, look.intended.makers, "makes that")
    return [doubted(finding, look.intended.editors, "changes it")]


async def _quotas(look: _Look, namespace: str) -> Sequence[Object]:
    async def ask() -> Sequence[Object]:
        try:
            return (await look.cluster.items(Collection("v1", "ResourceQuota", namespace)))[0]
        except ApiError as error:
            if error.status in (401, 403):
                return ()
            raise

    return await look.ctx.shared(f"quotas {look.cluster.server} {look.intended.account} {namespace}", ask)


def _twice(manifests: Sequence[Manifest], source: str) -> Iterator[Finding]:
    """Node ports that two services of one deploy want."""
    taken: defaultdict[tuple[int, str], list[Manifest]] = defaultdict(list)
    for manifest in manifests:
        if manifest.ref.kind == "Service":
            for port in _mappings(manifest.object, "ports"):
                number, protocol = port.get("nodePort"), port.get("protocol") or "TCP"
                if number and isinstance(number, int) and isinstance(protocol, str):
                    taken[number, protocol].append(manifest)
    for (number, _), users in taken.items():
        if len(users) > 1:
            message = f"the node port {number} is wanted by {users[0].ref} ({users[0].place}) too"
            yield _finding(users[1], Severity.FAILS, message, source, "give one of them another port")


def _mappings(thing: Object, key: str) -> list[Object]:
    """The mappings in a list of a spec; whatever is something else the dry run of the whole object refuses."""
    found = dig(thing, "spec", key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


# -- what pods need --------------------------------------------------------------------------------


async def _look_at_pull_secrets(look: _Look) -> None:
    if look.intended.keeps_pull_secrets:
        return
    for ref, registries in wanted(look.intended.manifests, look.intended.images).items():
        try:
            there = ref.namespace not in look.missing and await look.cluster.get(ref) is not None
        except ApiError as error:
            if error.status not in (401, 403):
                raise
            look.tell(Severity.UNKNOWN, f"{look.cluster.transport.credentials} may not read {ref}", about=str(ref))
            continue
        if not there:
            images = ", ".join(registries)
            message = f"pods name this pull secret, and it is not there: images of {images} are pulled without a login"
            look.tell(
                Severity.MAY_FAIL, message, about=str(ref), hint="give the stage `pull_secret:`, or make the Secret"
            )


async def _look_at_storage(look: _Look) -> None:
    claims = [claim for manifest in look.intended.manifests for claim in _claims(look, manifest)]
    if not claims:
        return
    classes = await _names_of(look, "storage.k8s.io/v1", "StorageClass")
    volumes = await _names_of(look, "v1", "PersistentVolume")
    described = {
        name
        for each in look.intended.manifests
        if each.ref.kind == "PersistentVolume" and isinstance(name := dig(each.object, "spec", "storageClassName"), str)
    }
    described |= {each.ref.name for each in look.intended.manifests if each.ref.kind == "StorageClass"}
    if classes is None:
        look.tell(Severity.UNKNOWN, f"{look.cluster.transport.credentials} may not list storage classes")
        return
    ready = {dig(each, "spec", "storageClassName") for each in volumes or ()} | described
    names = {each["metadata"]["name"] for each in classes}
    for manifest, spec in claims:
        name = spec.get("storageClassName")
        if not isinstance(name, str | None):
            continue  # the dry run of the whole object says that
        if name and name not in names | ready:
            message = f"there is no storage class '{name}'; there are: {', '.join(sorted(names)) or 'none'}"
            sure = Severity.FAILS if volumes is not None else Severity.MAY_FAIL
            finding = _finding(manifest, sure, message, look.source, "name one of them, or have it made")
            finding = doubted(finding, look.intended.makers, "makes that")
            look.findings.append(doubted(finding, look.intended.editors, "changes it"))
        elif name is None and not any(map(_is_default, classes)) and not spec.get("volumeName"):
            message = "it names no storage class, and the cluster has no default one: it is bound only if a volume fits"
            look.findings.append(_finding(manifest, Severity.MAY_FAIL, message, look.source, "name a storage class"))


def _claims(look: _Look, manifest: Manifest) -> Iterator[tuple[Manifest, Object]]:
    """The claims for storage that an object makes and that are not there yet."""
    if look.present.get(manifest.ref) is not None:
        return
    if manifest.ref.kind == "PersistentVolumeClaim":
        specs = [dig(manifest.object, "spec")]
    else:
        specs = [dig(each, "spec") for each in _mappings(manifest.object, "volumeClaimTemplates")]
    for spec in specs:
        if isinstance(spec, dict):
            yield manifest, spec


def _is_default(storage_class: Object) -> bool:
    return bool(dig(storage_class, "metadata", "annotations", "storageclass.kubernetes.io/is-default-class") == "true")


async def _names_of(look: _Look, version: str, kind: str) -> Sequence[Object] | None:
    """All objects of a kind; None if we may not list them."""

    async def ask() -> Sequence[Object] | None:
        try:
            return (await look.cluster.items(Collection(version, kind, "")))[0]
        except ApiError as error:
            if error.status in (401, 403):
                return None
            raise

    return await look.ctx.shared(f"all {kind} {look.cluster.server} {look.intended.account}", ask)


async def _look_at_surplus(look: _Look) -> None:
    if not look.intended.prunes:
        return
    entries = await look.intended.prunes(look.cluster, look.ctx.run).entries()
    there = [thing for thing in look.present.values() if thing]
    surplus = await find_surplus(look.cluster, entries, look.intended.manifests, there, look.intended.prunable)
    for manifest, error in await refused_removals(look.cluster, surplus):
        look.findings += [replace(each, source=look.source) for each in refusals(manifest, error)]
    look.intends += surplus.intends
    look.deleted |= {f"{ref} at {look.cluster.server}": _fingerprint(thing, {}) for ref, thing in surplus.going.items()}


# -- words -----------------------------------------------------------------------------------------


def _finding(manifest: Manifest, severity: Severity, message: str, source: str, hint: str = "") -> Finding:
    cause = Cause(CauseKind.CONFIG, message)
    return Finding(severity, cause, place=manifest.place, about=str(manifest.ref), source=source, hint=hint)


def _unknown(manifest: Manifest, message: str, source: str) -> Finding:
    return _finding(manifest, Severity.UNKNOWN, message, source)


def _fingerprint(thing: Object | None, manifest: Object) -> str:
    """How an object is now, without what changes by itself or by an autoscaler; of a Secret never its content."""
    if thing is None:
        return "absent"
    metadata = thing["metadata"]
    if not metadata:
        return "unreadable"
    if thing.get("kind") == "Secret":
        return f"{metadata['uid']}/{metadata['resourceVersion']}"
    kept = {key: value for key, value in metadata.items() if key not in _VOLATILE}
    content = {**{key: value for key, value in thing.items() if key != "status"}, "metadata": kept}
    if isinstance(thing.get("spec"), dict) and dig(manifest, "spec", "replicas") is None:
        content["spec"] = {key: value for key, value in thing["spec"].items() if key != "replicas"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
