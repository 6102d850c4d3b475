"""`uses: deploy`: apply manifests to a Kubernetes cluster and wait until the rollout is really done."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from pipeline.files import Folder
from pipeline.stage import (
    FROM_PLAN,
    CauseKind,
    Duration,
    Examined,
    Finding,
    Glob,
    Login,
    Outputs,
    PreflightContext,
    ReleasePart,
    RunInfo,
    SecretName,
    SecretRef,
    Settled,
    Severity,
    Stage,
    StageContext,
    StageErrored,
    StageFailed,
    Surroundings,
    doubted,
    is_open,
    rewriters,
    writers,
)
from stages.clients.kubernetes.access import connect
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.applier import Applier, OnConflict
from stages.clients.kubernetes.apply import Checked, annotate, check, write, written
from stages.clients.kubernetes.beside import look_at_needs, look_at_registry
from stages.clients.kubernetes.config import mark_config
from stages.clients.kubernetes.deploying import Deploying, deploying
from stages.clients.kubernetes.files import choose_manifests
from stages.clients.kubernetes.images import replace_images
from stages.clients.kubernetes.inventory import Book, Inventory, Records
from stages.clients.kubernetes.ledger import Ledger
from stages.clients.kubernetes.manifests import Manifest, read_manifests
from stages.clients.kubernetes.namespaces import assign_namespaces, make_namespaces
from stages.clients.kubernetes.needs import Need, NeedName, parse_need
from stages.clients.kubernetes.objects import NAMESPACE, Object, Ref, dig, is_namespace
from stages.clients.kubernetes.order import CRD, batches, waves
from stages.clients.kubernetes.preflight import Intended, examine
from stages.clients.kubernetes.prune import KeptKind, Pruning
from stages.clients.kubernetes.pull_secret import ensure_pull_secrets
from stages.clients.kubernetes.records import Terms
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.registered_in import InNacos, RegisteredIn, services_of
from stages.clients.kubernetes.registration import begin
from stages.clients.kubernetes.scalars import Variables
from stages.clients.kubernetes.scaling import leave_replicas
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.waiting import Allowance, wait_until_done

__all__ = ["Deploy", "DeployOutputs"]

Wait: TypeAlias = Callable[[Sequence[Object]], Awaitable[None]]


class DeployOutputs(Outputs):
    """What a deploy left behind."""

    objects: int
    """How many objects were applied."""
    namespace: str
    """The namespaces they are in, joined by a comma."""
    revision: str
    """The revision of the Deployment, empty if there is none or more than one."""


class Prune(BaseModel):
    """What may be deleted beyond what `prune: true` deletes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    also: tuple[KeptKind, ...] = ()
    """Kinds that hold others' data: they stay unless they are named here."""


class Deploy(Stage[DeployOutputs]):
    """Apply manifests to Kubernetes and wait until the rollout is really done."""

    manifests: Annotated[tuple[Glob, ...], Field(min_length=1)]
    """Which files; of those that wildcards find, the `.yaml`, `.yml` and `.json` ones."""
    images: tuple[str, ...] = ()
    """`repo:tag` or `repo:tag@sha256:…`; each takes the place of the images of that repository, and must find one."""
    namespace: str = ""
    """For the objects that name none; made when it is missing."""
    secret: Annotated[str, SecretRef(("file",))] = ""
    """The kubeconfig. Without it `PIPE_KUBECONFIG` names one, or the pod that we run in has a service account."""
    context: str = ""
    """The kubeconfig's context; its current one unless said."""
    pull_secret: SecretName = ""
    """The registry login that the `imagePullSecrets` of the pods are made of where they are missing."""
    on_conflict: OnConflict = "fail"
    """A field that somebody else owns: `fail`, `force` (it is taken) or `ignore` (it is left as it is)."""
    prune: bool | Prune = False
    """Delete what earlier deploys of this stage have applied and no manifest describes any more."""
    wait: Duration = timedelta(minutes=5)
    """How long may be waited for the rollout, all waves together."""
    waits_for: tuple[NeedName, ...] = ()
    """Workloads or Services that the pods need, `name` or `kind/name`: until these are up, a crash is no failure."""
    registered_in: RegisteredIn | None = None
    """The registry that must know every new pod as healthy, and no old one, before the deploy is done."""
    substitute: bool | tuple[str, ...] = True
    """Which variables manifests may use: all, none, or these alone."""
    annotations: Mapping[str, str] = Field(default_factory=dict)
    """Put on every object."""
    release: Annotated[ReleasePart | None, FROM_PLAN] = None
    """The release that this deploy is a part of."""

    computes: ClassVar[bool] = False
    pool: ClassVar[tuple[str, int] | None] = ("deploy", 50)
    heavy: ClassVar[tuple[str, ...]] = ("stages.clients.kubernetes.sdk",)

    @field_validator("namespace")
    @classmethod
    def _named(cls, namespace: str) -> str:
        if namespace and not is_open(namespace) and not is_namespace(namespace):
            raise ValueError(f"a namespace is named by {NAMESPACE}")
        return namespace

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """Ask the cluster what it would say, with the manifests as they are in the sources."""
        files = await ctx.files()
        try:
            texts = await ctx.call(choose_manifests, self.manifests, files)
        except StageFailed as failure:
            return Examined([doubted(Finding(Severity.FAILS, failure.cause), writers(ctx))])
        try:
            manifests = await ctx.call(self._manifests, ctx, texts)
        except StageFailed as failure:
            return Examined([doubted(Finding(Severity.FAILS, failure.cause), rewriters(ctx))])
        makers = [name for name, kind in ctx.earlier.items() if kind.scripted or issubclass(kind, Deploy)]
        intended = Intended(
            manifests,
            self.images,
            keeps_pull_secrets=bool(self.pull_secret),
            prunes=self._inventory if self.prune else None,
            prunable=self._prunable,
            on_conflict=self.on_conflict,
            account=f"{self.secret} {self.context}",
            makers=", ".join(makers),
            editors=rewriters(ctx),
        )
        async with await connect(ctx, self.secret, self.context) as cluster:
            try:
                await assign_namespaces(cluster, manifests, self.namespace)
            except StageFailed as failure:
                return Examined([doubted(Finding(Severity.FAILS, failure.cause), intended.makers or intended.editors)])
            try:
                examined = await examine(ctx, cluster, intended)
                return await self._examine_beside(ctx, cluster, intended, examined)
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error

    async def _examine_beside(
        self, ctx: PreflightContext, cluster: Cluster, intended: Intended, examined: Examined
    ) -> Examined:
        manifests, makers = intended.manifests, intended.makers
        findings = await look_at_needs(cluster, self._needs, manifests, makers)
        registry = await look_at_registry(ctx, self._nacos, manifests, makers) if self._nacos else Examined()
        return replace(
            examined,
            findings=[*examined.findings, *findings, *registry.findings],
            checked=[*examined.checked, *registry.checked],
        )

    async def run(self, ctx: StageContext) -> DeployOutputs:
        """Read and check everything, then write, then wait."""
        manifests = await ctx.call(self._read, ctx)
        async with await connect(ctx, self.secret, self.context) as cluster:
            try:
                async with deploying(ctx, cluster, self.release) if self.release else nullcontext() as part:
                    await self._deploy(ctx, cluster, manifests, part)
                    return await _outputs(cluster, manifests)
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:
        """Whether the intended objects bear the mark of this run. Applying again is harmless, so a part is none."""
        try:
            async with await connect(ctx, self.secret, self.context) as cluster:
                return await written(cluster, ctx.run.id, intent)
        except (StageErrored, StageFailed, ApiError) as error:
            return Settled("unknown", message=f"'{key}': {error}")

    def _read(self, ctx: StageContext) -> list[Manifest]:
        """What the files say, variables and images in place; nothing outside is touched or asked."""
        return self._manifests(ctx, choose_manifests(self.manifests, Folder(ctx.workspace, ctx.root)))

    def _manifests(self, ctx: Surroundings, texts: Mapping[str, str]) -> list[Manifest]:
        manifests = read_manifests(texts, self._variables(ctx))
        replace_images([manifest.object for manifest in manifests], self.images)
        annotate(manifests, ctx.run.id, self.annotations)
        mark_config([manifest.object for manifest in manifests], self.namespace)
        # what is wrong with these is refused before anything is asked or written
        waves(manifests)
        if self._nacos:
            services_of(self._nacos, manifests)
        return manifests

    def _variables(self, ctx: Surroundings) -> Variables:
        if isinstance(self.substitute, bool):
            return Variables(ctx.manifest_env, None if self.substitute else frozenset())
        return Variables(ctx.manifest_env, frozenset(self.substitute))

    @property
    def _needs(self) -> Sequence[Need]:
        return [parse_need(text) for text in self.waits_for]

    @property
    def _terms(self) -> Terms:
        return Terms(on_conflict=self.on_conflict, waits_for=self.waits_for, wait=self.wait.total_seconds())

    @property
    def _nacos(self) -> InNacos | None:
        return self.registered_in.nacos if self.registered_in else None

    async def _deploy(
        self, ctx: StageContext, cluster: Cluster, manifests: list[Manifest], part: Deploying | None
    ) -> None:
        await assign_namespaces(cluster, manifests, self.namespace)
        ctx.progress(f"checking {len(manifests)} objects at {cluster.server}")
        await make_namespaces(ctx, cluster, manifests)
        scaling = await leave_replicas(cluster, manifests)
        applier = Applier(cluster, self.on_conflict, scaling.scaled)
        checked = await check(applier, scaling.manifests)
        for note in (*scaling.notes, *checked.notes):
            ctx.log(note)
        pruning = await self._pruning(ctx, cluster, checked)
        if part:
            applier.guard = part.guard(checked.seen)
            stayed = pruning.surplus.stayed if pruning else ()
            await part.begin(checked.manifests, applier.guard, self._terms, stayed)
        if pruning:
            await pruning.begin(checked.manifests)
        registration = await begin(ctx, cluster, self._nacos, checked.manifests) if self._nacos else None
        allowance = Allowance(self.wait.total_seconds())
        wait = partial(wait_until_done, ctx, cluster, allowance=allowance, needs=self._needs, registration=registration)
        applied = await self._apply(ctx, applier, checked.manifests, wait)
        await ctx.tool("kubernetes", cluster.tell_version)
        await wait(applied)
        if pruning:
            await pruning.end(applied, applier.guard.ensure if applier.guard else None)

    async def _pruning(self, ctx: StageContext, cluster: Cluster, checked: Checked) -> Pruning | None:
        if not self.prune:
            return None
        inventory = self._inventory(cluster, ctx.run)
        return await Pruning.prepare(ctx, cluster, inventory, checked, self._prunable)

    def _inventory(self, cluster: Cluster, run: RunInfo) -> Inventory:
        """Where it is known what earlier deploys of this stage have applied."""
        if self.release:
            return Records(Ledger.of(cluster, self.release), run.stage, self.release.number)
        if not self.namespace:
            message = "`prune:` needs `namespace:`, where it is kept what was applied, or `release:` of the pipeline"
            raise StageFailed(message, kind=CauseKind.CONFIG)
        return Book(cluster, self.namespace, run)

    @property
    def _prunable(self) -> Sequence[str]:
        return self.prune.also if isinstance(self.prune, Prune) else ()

    async def _apply(
        self, ctx: StageContext, applier: Applier, manifests: Sequence[Manifest], wait: Wait
    ) -> list[Object]:
        cluster = applier.cluster
        if self.pull_secret:
            login = ctx.secret(self.pull_secret)
            if applier.guard:
                await applier.guard.ensure()
            if isinstance(login, Login):
                await ensure_pull_secrets(ctx, cluster, manifests, self.images, login)
        applied: list[Object] = []
        ordered = waves(manifests)
        for at, (wave, members) in enumerate(ordered, 1):
            of_wave = f" of wave {wave}" if len(ordered) > 1 else ""
            objects = await self._apply_wave(ctx, applier, members, of_wave, wait)
            applied += objects
            if at < len(ordered):
                ctx.log(f"wave {wave}: {len(objects)} objects applied; the next one begins when they are done")
                await wait(objects)
        ctx.log(f"{len(applied)} objects applied to {cluster.server}")
        return applied

    async def _apply_wave(
        self, ctx: StageContext, applier: Applier, manifests: Sequence[Manifest], of_wave: str, wait: Wait
    ) -> list[Object]:
        applied: list[Object] = []
        for name, batch in batches(manifests):
            ctx.progress(f"applying {name}{of_wave}")
            objects = await write(ctx, applier, f"{name}{of_wave}", batch)
            applied += objects
            await wait([each for each in objects if each["kind"] == CRD])
        return applied


async def _outputs(cluster: Cluster, manifests: list[Manifest]) -> DeployOutputs:
    namespaces = sorted({manifest.ref.namespace for manifest in manifests} - {""})
    deployments = [manifest.ref for manifest in manifests if manifest.ref.kind == "Deployment"]
    revision = await _revision(cluster, deployments[0]) if len(deployments) == 1 else ""
    return DeployOutputs(objects=len(manifests), namespace=",".join(namespaces), revision=revision)


async def _revision(cluster: Cluster, deployment: Ref) -> str:
    """The Deployment's revision, empty if it cannot be read: what is rolled out stays so."""
    try:
        found = await cluster.get(deployment)
    except (ApiError, StageErrored):
        return ""
    return dig(found, "metadata", "annotations", "deployment.kubernetes.io/revision") or ""
