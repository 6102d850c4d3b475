"""`uses: helm`: install or upgrade a chart, and wait until what it describes is really done."""

import hashlib
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, field_validator

from pipeline.files import Folder
from pipeline.stage import (
    Cause,
    CauseKind,
    Duration,
    Examined,
    Finding,
    Login,
    Outputs,
    PreflightContext,
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
from stages.clients.helm.chart import fingerprint, is_local, laid, missing
from stages.clients.helm.logins import Sources, sources
from stages.clients.helm.program import Helm as Program
from stages.clients.helm.program import NoHelm, find_helm, too_large
from stages.clients.helm.records import History, Recorded, Revision, read_history, this_machine
from stages.clients.helm.release import Release, settled
from stages.clients.helm.rendered import Rendered, read_rendered, with_images
from stages.clients.helm.stuck import pending
from stages.clients.helm.trying import AsHelm, api_versions, assign_release_namespace
from stages.clients.helm.values import values_text
from stages.clients.kubernetes.access import connect, kubeconfig_of
from stages.clients.kubernetes.api import Cluster
from stages.clients.kubernetes.applier import Applier
from stages.clients.kubernetes.apply import check
from stages.clients.kubernetes.beside import look_at_needs
from stages.clients.kubernetes.namespaces import make_namespace
from stages.clients.kubernetes.needs import NeedName, parse_need
from stages.clients.kubernetes.objects import NAMESPACE, is_namespace
from stages.clients.kubernetes.preflight import Intended, examine
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.rights import denied, to_keep_records
from stages.clients.kubernetes.transport import ApiError

__all__ = ["Helm", "HelmOutputs"]

# https://helm.sh/docs/chart_best_practices/conventions/: at most 53 characters, for names are made of it
_RELEASE = re.compile(r"[a-z0-9]([-a-z0-9.]{0,51}[a-z0-9])?")


class HelmOutputs(Outputs):
    """What an upgrade left behind."""

    release: str
    """The release's name."""
    namespace: str
    """Its namespace."""
    revision: int
    """Its revision, as `helm history` has it."""
    chart: str
    """The chart with its version: `web-1.2.3`."""
    app_version: str
    """The version of the application, as the chart says."""
    objects: int
    """How many objects it describes."""


class Helm(Stage[HelmOutputs]):
    """Install or upgrade a Helm chart and wait until what it describes is really done."""

    chart: Annotated[str, Field(min_length=1)]
    """A folder or archive of the workspace, `repository/name`, `oci://…`, or with `repo:` the name alone."""
    release: str
    """The release; installed when it is not there yet."""
    namespace: Annotated[str, Field(min_length=1)]
    """Where it is; made when it is missing."""
    version: str = ""
    """The version of a chart that is not of the workspace; the newest unless said."""
    repo: str = ""
    """The URL of the chart's repository. Without it helm must know the repository by its name."""
    login: SecretName = ""
    """The login to `repo:`, or to the registry of an `oci://` chart."""
    plain_http: bool = False
    """The registry of an `oci://` chart speaks HTTP."""
    values: tuple[str, ...] = ()
    """Files of values; of two that have one value the later one holds."""
    set: Mapping[str, JsonValue] = Field(default_factory=dict)
    """Values by their path, `image.tag`; over those of the files."""
    set_env: Mapping[str, str] = Field(default_factory=dict)
    """Values by their path, each that of a variable of this stage; for secrets that `secrets:` binds."""
    images: tuple[str, ...] = ()
    """`repo:tag` or `repo:tag@sha256:…`; each takes the place of the images of that repository, and must find one."""
    secret: Annotated[str, SecretRef(("file",))] = ""
    """The kubeconfig, as for `deploy`."""
    context: str = ""
    """The kubeconfig's context; its current one unless said."""
    wait: Duration = timedelta(minutes=5)
    """How long the chart's hooks may take, and then the rollout."""
    waits_for: tuple[NeedName, ...] = ()
    """Workloads or Services that the pods need, as for `deploy`: until these are up, a crash is no failure."""
    test: bool = False
    """Run the chart's tests when the rollout is done."""
    on_failure: Literal["keep", "rollback"] = "keep"
    """What happens when it fails: nothing, or the release goes back to its last good revision."""
    stuck_after: Duration = timedelta(minutes=10)
    """After how long without a change a pending revision of somebody else's helm counts as left by a dead one."""
    program: str = "helm"
    """Which helm: a name on PATH, or a path."""

    computes: ClassVar[bool] = False
    pool: ClassVar[tuple[str, int] | None] = ("deploy", 50)
    heavy: ClassVar[tuple[str, ...]] = ("stages.clients.kubernetes.sdk",)

    @field_validator("chart", "version", "repo", "context", "program")
    @classmethod
    def _no_option(cls, text: str) -> str:
        if text.startswith("-"):
            raise ValueError("it must not begin with a dash")
        return text

    @field_validator("release")
    @classmethod
    def _named(cls, name: str) -> str:
        if not is_open(name) and not _RELEASE.fullmatch(name):
            raise ValueError("a release is named by at most 53 small letters, digits, dots and hyphens")
        return name

    @field_validator("namespace")
    @classmethod
    def _namespaced(cls, namespace: str) -> str:
        if not is_open(namespace) and not is_namespace(namespace):
            raise ValueError(f"a namespace is named by {NAMESPACE}")
        return namespace

    # -- before anything runs ----------------------------------------------------------------------

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """See that helm is there and renders the chart as it is in the sources, and what the cluster says to that."""
        try:
            version = await find_helm(ctx, self.program)
        except NoHelm as failure:
            return Examined([doubted(Finding(Severity.FAILS, failure.cause), rewriters(ctx), "installs it")])
        files = await ctx.files()
        if lacking := await ctx.call(missing, self.chart, self.values, files):
            causes = [Cause(CauseKind.CONFIG, each) for each in lacking]
            return Examined([doubted(Finding(Severity.FAILS, each), writers(ctx)) for each in causes])
        with tempfile.TemporaryDirectory(prefix="pipe-helm-") as folder:
            await ctx.call(laid, self.chart, self.values, files, Path(folder))
            async with await self._connect(ctx) as cluster:
                try:
                    return await self._examined(ctx, cluster, version, Folder(Path(folder), Path(folder)))
                except ApiError as error:
                    raise answered_no(error, cluster.transport.credentials) from error

    async def _examined(self, ctx: PreflightContext, cluster: AsHelm, version: str, files: Folder) -> Examined:
        findings = await self._look_at_release(ctx, cluster)
        if any(each.severity is Severity.FAILS for each in findings):
            return Examined(findings)
        try:
            rendered = await self._rendered(ctx, cluster, version, files)
        except StageFailed as failure:
            return Examined([*findings, doubted(Finding(Severity.FAILS, failure.cause), rewriters(ctx), "changes it")])
        if rendered is None:
            cause = Cause(CauseKind.CONFIG, "the chart renders to more than 4 MiB, which is not looked at beforehand")
            return Examined([*findings, Finding(Severity.UNKNOWN, cause)])
        makers = [name for name, kind in ctx.earlier.items() if kind.scripted or "namespace" in kind.model_fields]
        intended = Intended(
            rendered.manifests,
            account=f"{self.secret} {self.context}",
            makers=", ".join(makers),
            editors=rewriters(ctx),
        )
        found = await examine(ctx, cluster, intended)
        needs = [parse_need(text) for text in self.waits_for]
        findings += await look_at_needs(cluster, needs, rendered.manifests, intended.makers)
        said = f"helm {version} renders {self.chart}"
        return Examined([*findings, *found.findings], [said, *found.checked], found.touches)

    async def _look_at_release(self, ctx: PreflightContext, cluster: Cluster) -> list[Finding]:
        """Whether we may keep the release's records, and whether somebody is at it."""
        who = cluster.transport.credentials
        rights = list(to_keep_records(self.namespace))
        refused = await denied(ctx, cluster, f"{self.secret} {self.context}", rights)
        if refused:
            causes = [
                Cause(CauseKind.CONFIG, f"{who} may not {right}: helm keeps its records there") for right in refused
            ]
            return [Finding(Severity.FAILS, cause, source=f"the cluster {cluster.server}") for cause in causes]
        history = await read_history(cluster, self.namespace, self.release)
        found = pending(history, "", await ctx.call(this_machine), self.stuck_after)
        if found is None:
            return []
        message = f"revision {found.revision.number} of {self.release} is {found.revision.status}"
        if found.is_dead(history.now):
            return [Finding(Severity.MAY_FAIL, Cause(CauseKind.CONFIG, f"{message}: it is recovered first"))]
        hint = f"its helm counts as dead at {found.dead_at:%H:%M:%S} UTC"
        return [Finding(Severity.MAY_FAIL, Cause(CauseKind.INFRA, f"{message}: another helm works on it"), hint=hint)]

    # -- running -----------------------------------------------------------------------------------

    async def run(self, ctx: StageContext) -> HelmOutputs:
        """Check everything, upgrade, wait, test; when it goes wrong say why, and go back where that is wanted."""
        version = await find_helm(ctx, self.program)
        files = Folder(ctx.workspace, ctx.root)
        if lacking := await ctx.call(missing, self.chart, self.values, files):
            raise StageFailed(lacking[0], kind=CauseKind.CONFIG, evidence=lacking)
        async with await self._connect(ctx) as cluster:
            try:
                return await self._released(ctx, cluster, version, files)
            except ApiError as error:
                raise answered_no(error, cluster.transport.credentials) from error

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:
        """An upgrade is done if the revision that bears its mark is deployed."""
        try:
            async with await self._connect(ctx) as cluster:
                return settled(await read_history(cluster, self.namespace, self.release), key, intent)
        except (StageErrored, StageFailed, ApiError) as error:
            return Settled("unknown", message=f"'{key}': {error}")

    async def _released(self, ctx: StageContext, cluster: AsHelm, version: str, files: Folder) -> HelmOutputs:
        async def told() -> str:
            return version

        await ctx.tool("helm", told)
        await ctx.tool("kubernetes", cluster.tell_version)
        rendered = await self._rendered(ctx, cluster, version, files)
        await make_namespace(ctx, cluster, self.namespace)
        if rendered:
            ctx.progress(f"checking {len(rendered.manifests)} objects at {cluster.server}")
            for note in (await check(Applier(cluster), rendered.manifests)).notes:
                ctx.log(note)
        with self._sources(ctx) as source:
            release = await self._release(ctx, cluster, await self._program(ctx, cluster, version, source), files)
            before = await release.free()
            try:
                words = [*release.helm.images(self.images), *await self._words(ctx, source, files)]
                said: dict[str, JsonValue] = {"chart": self.chart, "version": self.version}
                revision = await release.recorded(await release.upgrade(words, self._stdin(ctx), before, said))
                manifests = await release.wait_for(revision)
                if self.test:
                    await self._tested(ctx, release)
            except StageFailed as failure:
                raise await self._ended_badly(release, before, failure) from failure
        await release.confirm(revision)
        ctx.log(f"revision {revision.number} of {release} runs")
        return self._outputs(revision, len(manifests))

    def _outputs(self, revision: Recorded, objects: int) -> HelmOutputs:
        chart = {key: str(revision.chart.get(key) or "") for key in ("name", "version", "appVersion")}
        return HelmOutputs(
            release=self.release,
            namespace=self.namespace,
            revision=revision.number,
            chart=f"{chart['name']}-{chart['version']}",
            app_version=chart["appVersion"],
            objects=objects,
        )

    async def _tested(self, ctx: StageContext, release: Release) -> None:
        ctx.progress(f"testing {release}")
        seconds = max(1, round(self.wait.total_seconds()))
        called = await release.helm.call(ctx, "test", "--logs", f"--timeout={seconds}s", "--", self.release)
        if called.exit_code:
            reason = next((line for line in called.lines if line.startswith("Error: ")), "").removeprefix("Error: ")
            message = f"the tests of {release} failed: {reason or f'helm test ended with exit code {called.exit_code}'}"
            raise StageFailed(message, evidence=called.lines)

    async def _ended_badly(self, release: Release, before: History, failure: StageFailed) -> StageFailed:
        """The failure with a word on what the release is now; it has gone back first if that is wanted.

        Only the revision of this stage is judged, and gone back from: of a newer one we know nothing.
        """
        try:
            history = await release.history()
        except (StageErrored, ApiError) as error:
            return _more(failure, f"How {release} is now cannot be told: {error}")
        bad = history.own(release.mark, before)
        if bad is None:
            return failure
        await release.judge(bad, "bad")
        newer = [each for each in history.revisions if each.number > bad.number]
        if newer:
            said = f"Revision {newer[-1].number}, which somebody else has made since revision {bad.number} of ours"
            return _more(failure, f"{said}, stays as it is: nothing is rolled back")
        return _more(failure, await self._went_back(release, history, bad))

    async def _went_back(self, release: Release, history: History, bad: Revision) -> str:
        """What becomes of a release whose newest revision does not run, in a sentence."""
        good = history.last_good(bad.number)
        if good is None:
            return f"Revision {bad.number} stays as it is: there is no good one before it"
        if self.on_failure == "keep":
            way = f"`helm rollback {self.release} {good.number} --namespace {self.namespace}`"
            return f"Revision {bad.number} stays as it is; {way} goes back to the last good one"
        release.ctx.log(f"revision {bad.number} of {release} does not run; going back to revision {good.number}")
        try:
            back = await release.roll_back(history, good)
            await release.wait_for(await release.recorded(back))
        except (StageFailed, StageErrored, ApiError) as error:
            return f"It could not be rolled back to revision {good.number}: {error}"
        await release.judge(back, "good")
        return f"Rolled back to revision {good.number}, which runs again as revision {back.number}"

    # -- what both need ----------------------------------------------------------------------------

    async def _connect(self, ctx: Surroundings) -> AsHelm:
        return AsHelm((await connect(ctx, self.secret, self.context)).transport)

    async def _program(self, ctx: Surroundings, cluster: Cluster, version: str, source: Sources) -> Program:
        config = await ctx.call(kubeconfig_of, ctx, self.secret)
        context, withheld = cluster.transport.context, frozenset(self.set_env.values())
        helm = Program(self.program, version, self.namespace, context, config, source.env, withheld)
        if source.repository:
            await helm.know_repository(ctx, source.repository, self.repo)
        return helm

    async def _release(self, ctx: StageContext, cluster: Cluster, helm: Program, files: Folder) -> Release:
        given: list[JsonValue] = [self.version, self.repo, dict(self.set), dict(self.set_env), list(self.images)]
        content = await ctx.call(fingerprint, self.chart, self.values, files, *given)
        mark = hashlib.sha256(f"{ctx.run.id} {ctx.run.stage} {content}".encode()).hexdigest()[:16]
        machine = await ctx.call(this_machine)
        needs = [parse_need(text) for text in self.waits_for]
        return Release(ctx, cluster, helm, self.release, mark, machine, self.wait, self.stuck_after, needs)

    def _sources(self, ctx: Surroundings) -> AbstractContextManager[Sources]:
        login = ctx.secret(self.login) if self.login else None
        return sources(self.chart, self.repo, login if isinstance(login, Login) else None)

    async def _words(self, ctx: Surroundings, source: Sources, files: Folder) -> list[str]:
        """What helm is told of chart and values, the chart last."""
        local = not self.repo and await ctx.call(is_local, self.chart, files)
        chart = f"{source.repository}/{self.chart}" if source.repository else self.chart
        return [
            *([f"--version={self.version}"] if self.version else []),
            *(["--plain-http"] if self.plain_http else []),
            *(f"--values={files.path / name}" for name in self.values),
            *(["--values=-"] if self.set or self.set_env else []),
            str(files.path / self.chart) if local else chart,
        ]

    def _stdin(self, ctx: Surroundings) -> bytes:
        """What is set. It may be secret, so nobody but helm reads it."""
        unset = [variable for variable in self.set_env.values() if variable not in ctx.env]
        if unset:
            way = "set it in `env:` or bind a secret to it in `secrets:`"
            raise StageFailed(f"set_env: the variable {unset[0]} is not set: {way}", kind=CauseKind.CONFIG)
        return values_text(self.set, {path: ctx.env[variable] for path, variable in self.set_env.items()})

    async def _rendered(self, ctx: Surroundings, cluster: Cluster, version: str, files: Folder) -> Rendered | None:
        """What the chart is going to be, for this cluster; None if that is too much to be looked at."""
        history = await read_history(cluster, self.namespace, self.release)
        kinds = await api_versions(cluster)
        kubernetes = await cluster.tell_version()
        options = [
            *(["--is-upgrade"] if history.newest else []),
            *([f"--kube-version={kubernetes}"] if kubernetes else []),
            *(f"--api-versions={each}" for each in kinds),
            "--include-crds",
            "--no-hooks",
        ]
        with self._sources(ctx) as source:
            helm = await self._program(ctx, cluster, version, source)
            words = await self._words(ctx, source, files)
            ctx.progress(f"rendering {self.chart}")
            words = [*options, *words[:-1], "--", self.release, words[-1]]
            called = await helm.template(ctx, *words, stdin=self._stdin(ctx))
        called.check("helm template")
        if too_large(called):
            return None
        # Helm 4 keeps to itself what its post-renderer has against an image, so that is found here
        rendered = read_rendered(with_images(called.stdout.decode(errors="replace"), self.images))
        await assign_release_namespace(cluster, rendered.manifests, self.namespace)
        return rendered


def _more(failure: StageFailed, words: str) -> StageFailed:
    cause = failure.cause
    return StageFailed(f"{cause.message}. {words}", kind=cause.kind, evidence=cause.evidence, hint=cause.hint)
