"""`uses: helm` with real Helm 3 and Helm 4, on a real cluster, with a small chart of ours."""

import base64
import gzip
import json
import secrets
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline.stage import CauseKind, Login, Severity, StageErrored, StageFailed
from sandbox.helm import HELM_3, HELM_4
from stages.clients.helm.records import History, Revision, read_history, read_recorded, secret_ref
from stages.clients.helm.release import Release
from stages.clients.kubernetes.objects import Ref
from stages.clients.kubernetes.transport import Request, Transport
from stages.helm import Helm, HelmOutputs
from tests.stages.kubernetes.support import World
from tests.support.context import FakeContext
from tests.support.program import PIPE, host, pipe
from tests.support.strike import strike

pytestmark = [pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: '7'\n",
    "values.yaml": "image: busybox\ncommand: sleep 3600\npassword: none\n"
    "hook: ''\nhookImage: HOOKIMAGE\ntest: 'true'\nlevel: info\n",
    "templates/app.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {level: {{ .Values.level | quote }}, password: {{ .Values.password | quote }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      terminationGracePeriodSeconds: 1
      imagePullSecrets: [{name: pull}]
      containers:
        - name: app
          image: {{ .Values.image }}   # what `images:` replaces
          command: [sh, -c, {{ .Values.command | quote }}]
          env: [{name: LEVEL, value: {{ .Values.level }}}]
""",
    "templates/hook.yaml": """
{{- if .Values.hook }}
apiVersion: batch/v1
kind: Job
metadata: {name: {{ .Release.Name }}-hook, annotations: {helm.sh/hook: "pre-install,pre-upgrade"}}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      imagePullSecrets: [{name: pull}]
      containers: [{name: hook, image: {{ .Values.hookImage | quote }}, command: [sh, -c, {{ .Values.hook | quote }}]}]
{{- end }}
""",
    "templates/tests/test.yaml": """
apiVersion: v1
kind: Pod
metadata: {name: {{ .Release.Name }}-test, annotations: {helm.sh/hook: test}}
spec:
  restartPolicy: Never
  imagePullSecrets: [{name: pull}]
  containers: [{name: test, image: HOOKIMAGE, command: [sh, -c, {{ .Values.test | quote }}]}]
""",
}


@pytest.fixture(scope="session", params=[HELM_3, HELM_4], ids=["helm3", "helm4"])
def program(request: pytest.FixtureRequest) -> Path:
    built: Path = request.param.ensure()
    return built


class Chart:
    """A release in a namespace of its own, and a stage for it."""

    def __init__(self, world: World, namespace: str, program: Path) -> None:
        self.world, self.namespace, self.program = world, namespace, program

    def stage(self, **fields: Any) -> Helm:
        common = {"chart": "./chart", "release": "web", "namespace": self.namespace, "secret": "kubeconfig"}
        more = {"images": [self.world.image], "program": str(self.program), "wait": "60s"}
        return Helm.model_validate({**common, **more, **fields})

    def context(self, run: str = "", attempt: int = 1) -> FakeContext:
        ctx = self.world.context(run)
        ctx.run = replace(ctx.run, attempt=attempt)
        ctx.env["HOME"] = str(ctx.folder)
        for name, text in CHART.items():
            file = ctx.workspace / "chart" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("HOOKIMAGE", self.world.image))
        return ctx

    async def up(self, ctx: FakeContext | None = None, **fields: Any) -> HelmOutputs:
        return await self.stage(**fields).run(ctx or self.context())

    async def fails(self, ctx: FakeContext | None = None, **fields: Any) -> StageFailed:
        with pytest.raises(StageFailed) as caught:
            await self.up(ctx, **fields)
        return caught.value

    async def history(self) -> History:
        async with self.world.cluster() as cluster:
            return await read_history(cluster, self.namespace, "web")

    async def statuses(self) -> list[str]:
        return [each.status for each in (await self.history()).revisions]

    async def level(self) -> str:
        found = await self.world.get("ConfigMap", self.namespace, "web")
        return str(found["data"]["level"])


@pytest.fixture
async def chart(world: World, namespace: str, program: Path) -> Chart:
    auth = base64.b64encode(f"{world.login.username}:{world.login.password}".encode()).decode()
    config = json.dumps({"auths": {world.image.split("/")[0]: {"auth": auth}}})
    async with world.cluster() as cluster:
        await cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        await cluster.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "type": "kubernetes.io/dockerconfigjson",
                "metadata": {"name": "pull", "namespace": namespace},
                "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
            }
        )
    return Chart(world, namespace, program)


async def test_a_chart_is_installed_upgraded_and_tested_and_its_values_stay_out_of_arguments(chart: Chart) -> None:
    ctx = chart.context()
    ctx.env["DB_PASSWORD"] = "hunter2-hunter2"
    ctx.env |= {"HELM_KUBECONTEXT": "nowhere", "HELM_KUBEAPISERVER": "https://127.0.0.1:1", "HELM_NAMESPACE": "x"}
    (ctx.workspace / "prod.yaml").write_text("level: warn\n")
    fields = {
        "values": ["prod.yaml"],
        "set_env": {"password": "DB_PASSWORD"},
        "test": True,
        "set": {"test": "echo all is well"},
    }
    outputs = await chart.up(ctx, **fields)
    assert outputs == HelmOutputs(
        release="web", namespace=chart.namespace, revision=1, chart="web-1.2.3", app_version="7", objects=2
    )
    assert "all is well" in ctx.text
    assert not any("hunter2" in word for run in ctx.runs for word in (*run.argv, *run.env.values()))
    assert "hunter2" not in ctx.text
    found = await chart.world.get("ConfigMap", chart.namespace, "web")
    assert found["data"] == {"level": "warn", "password": "hunter2-hunter2"}
    (effect,) = ctx.effects
    history = await chart.history()
    assert effect.value == {"revision": 1, "status": "deployed", "record": history.revisions[0].uid}
    assert (await chart.up(set={"level": "debug"})).revision == 2
    assert await chart.level() == "debug"
    assert [(each.status, each.verdict) for each in (await chart.history()).revisions] == [
        ("superseded", "good"),
        ("deployed", "good"),
    ]


async def test_a_bad_image_ends_red_with_the_reason_and_the_release_goes_back(chart: Chart) -> None:
    await chart.up()
    bad = chart.world.image.replace("busybox:1", "busybox:nope")
    error = await chart.fails(set={"level": "debug"}, images=[bad], on_failure="rollback")
    assert "there is no such image" in str(error)
    assert "Rolled back to revision 1, which runs again as revision 3" in str(error)
    assert await chart.level() == "info"
    history = await chart.history()
    assert [each.verdict for each in history.revisions] == ["good", "bad", "good"]
    # what was judged bad is nothing to go back to, whatever Helm calls it
    assert history.last_good(3) == history.revisions[0]


async def test_a_revision_that_somebody_else_has_made_meanwhile_is_neither_judged_nor_rolled_back(chart: Chart) -> None:
    error = await failing_beside_an_upgrade(chart, test="sleep 20; exit 1", on_failure="rollback")
    assert "Revision 3, which somebody else has made since revision 2 of ours, stays as it is" in str(error)
    assert [each.verdict for each in (await chart.history()).revisions] == ["good", "bad", ""]


async def test_a_revision_that_somebody_else_has_replaced_meanwhile_is_not_taken_for_what_runs(chart: Chart) -> None:
    error = await failing_beside_an_upgrade(chart, test="sleep 20")
    assert error.cause.kind is CauseKind.SUPERSEDED_BY
    assert "superseded by revision 3 of " in str(error)
    assert "good" not in [each.verdict for each in (await chart.history()).revisions][1:]


async def failing_beside_an_upgrade(chart: Chart, test: str, **fields: Any) -> StageFailed:
    """How revision 2 fails when somebody else makes revision 3 while its tests run."""
    await chart.up()
    ctx, errors = chart.context(), list[StageFailed]()

    async def upgrade() -> None:
        errors.append(await chart.fails(ctx, test=True, set={"test": test}, **fields))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(upgrade)
        while "testing" not in "".join(text for text, _ in ctx.progressed):
            await anyio.sleep(0.2)
        values = f"level=debug,image={chart.world.image}"
        command = ["upgrade", "web", str(ctx.workspace / "chart"), "-n", chart.namespace, "--set", values]
        kubeconfig = ["--kubeconfig", str(chart.world.kubeconfig)]
        await anyio.run_process([str(chart.program), *command, *kubeconfig])
    newest = (await chart.history()).newest
    assert newest is not None
    assert newest.status == "deployed"
    assert await chart.level() == "debug"
    return errors[0]


async def test_an_attempt_that_takes_over_the_revision_of_an_earlier_one_answers_for_it(
    chart: Chart, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chart.up()
    run, crashing = f"RUN{secrets.token_hex(6)}", {"command": "exit 3", "level": "debug"}

    async def silent(*_: Any) -> None:
        raise StageErrored("the cluster is silent")

    with monkeypatch.context() as patch:
        patch.setattr(Release, "wait_for", silent)
        with pytest.raises(StageErrored):
            await chart.up(chart.context(run), set=crashing, on_failure="rollback")
    error = await chart.fails(chart.context(run, 2), set=crashing, on_failure="rollback")
    assert "Rolled back to revision 1, which runs again as revision 3" in str(error)
    assert [each.verdict for each in (await chart.history()).revisions] == ["good", "bad", "good"]
    assert await chart.level() == "info"


async def test_a_release_that_somebody_changes_right_before_the_rollback_is_left_alone(
    chart: Chart, monkeypatch: pytest.MonkeyPatch
) -> None:
    await chart.up()
    judge = Release.judge

    async def late(self: Release, revision: Revision, verdict: str) -> None:
        await judge(self, revision, verdict)
        await self.helm.call(self.ctx, "rollback", "--", self.name, "1")

    monkeypatch.setattr(Release, "judge", late)
    error = await chart.fails(set={"command": "exit 3"}, on_failure="rollback")
    assert "could not be rolled back to revision 1: somebody else works on" in str(error)
    assert await chart.statuses() == ["superseded", "superseded", "deployed"]


async def test_looking_whether_a_release_is_free_reads_no_record(chart: Chart, monkeypatch: pytest.MonkeyPatch) -> None:
    await chart.up()
    sizes, send = list[int](), Transport.send

    async def counted(self: Transport, request: Request) -> Any:
        answer = await send(self, request)
        if "list the records" in request.action:
            sizes.append(len(answer.data))
        return answer

    monkeypatch.setattr(Transport, "send", counted)
    (revision,) = (await chart.history()).revisions
    assert (revision.verdict, len(sizes)) == ("good", 1)
    async with chart.world.cluster() as cluster:
        whole = await cluster.get(secret_ref(chart.namespace, "web", 1))
        recorded = await read_recorded(cluster, chart.namespace, "web", 1)
    assert whole is not None
    assert sizes[0] < len(json.dumps(whole)) - len(whole["data"]["release"]) + 500
    assert "kind: Deployment" in recorded.manifest


async def test_a_crash_that_stays_says_what_goes_back(chart: Chart) -> None:
    await chart.up()
    error = await chart.fails(set={"command": "echo no database >&2; exit 3"})
    assert "exit code 3" in str(error)
    assert "no database" in "\n".join(error.cause.evidence)
    assert f"`helm rollback web 1 --namespace {chart.namespace}` goes back" in str(error)


async def test_a_crash_for_want_of_what_the_chart_waits_for_is_no_failure_before_the_wait_is_over(chart: Chart) -> None:
    error = await chart.fails(set={"command": "echo no database >&2; exit 3"}, waits_for=["mysql"], wait="40s")
    assert "not done after 40 s: its pods crash without mysql: there is no workload or Service of that" in str(error)
    assert "no database" in "\n".join(error.cause.evidence)
    assert "correct the name in `waits_for:`" in error.cause.hint


async def test_a_hook_that_fails_is_told_with_its_own_last_words(chart: Chart) -> None:
    error = await chart.fails(set={"hook": "echo the migration is broken; exit 4"})
    assert "hook failed: Job" in str(error)
    assert "the migration is broken" in "\n".join(error.cause.evidence)
    assert "there is no good one before it" in str(error)
    assert await chart.statuses() == ["failed"]


async def test_tests_of_a_chart_that_fail_are_red_with_their_log(chart: Chart) -> None:
    error = await chart.fails(test=True, set={"test": "echo nobody answers; exit 1"})
    assert "the tests of" in str(error)
    assert "nobody answers" in "\n".join(error.cause.evidence)


async def test_what_the_cluster_refuses_is_told_before_anything_is_written(chart: Chart) -> None:
    ctx = chart.context()
    file = ctx.workspace / "chart/templates/app.yaml"
    file.write_text(file.read_text().replace("matchLabels: {app: ", "matchLabels: {app: x"))
    error = await chart.fails(ctx)
    assert "selector" in str(error)
    assert "web/templates/app.yaml" in "\n".join(error.cause.evidence)
    assert await chart.statuses() == []


async def test_an_image_for_no_container_is_refused_by_name(chart: Chart) -> None:
    error = await chart.fails(images=["r.example/a/wab:1"])
    assert "r.example/a/wab:1 is used by no container; images present: busybox" in str(error)


# -- a helm that died ------------------------------------------------------------------------------


async def leave_pending(chart: Chart, *, run: str = "", secret: Path) -> None:
    """Have a helm die in the middle: it is killed while the hook of the chart sleeps."""
    ctx = chart.context(run)
    command = [str(chart.program), "upgrade", "--install", "web", str(ctx.workspace / "chart"), "-n", chart.namespace]
    command += ["--set", "hook=sleep 300", "--set", f"image={chart.world.image}", "--kubeconfig", str(secret)]
    helm = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(status.startswith("pending-") for status in await chart.statuses()):
            assert helm.poll() is None
    finally:
        helm.kill()
        helm.wait(10)


async def test_an_upgrade_that_a_dead_helm_left_is_rolled_back_and_then_done(chart: Chart) -> None:
    await chart.up()
    await leave_pending(chart, secret=chart.world.kubeconfig)
    assert await chart.statuses() == ["deployed", "pending-upgrade"]
    with pytest.raises(StageErrored, match=r"pending-upgrade: another helm works on it; .* counts as dead"):
        await chart.up(wait="3s")
    ctx = chart.context()
    assert (await chart.up(ctx, stuck_after="1s", set={"level": "debug"})).revision == 4
    (warning,) = ctx.warned
    assert "was stuck: revision 2 is pending-upgrade" in warning
    assert "rolled back to revision 1" in warning
    assert (await chart.statuses())[-1] == "deployed"
    assert await chart.level() == "debug"


async def test_an_install_of_which_nothing_runs_is_uninstalled_and_then_done(chart: Chart) -> None:
    await leave_pending(chart, secret=chart.world.kubeconfig)
    assert await chart.statuses() == ["pending-install"]
    ctx = chart.context()
    await chart.up(ctx, stuck_after="1s")
    assert "uninstalled, as nothing of it runs" in ctx.warned[0]
    assert await chart.statuses() == ["deployed"]


async def test_of_an_install_that_runs_only_the_record_is_removed(chart: Chart) -> None:
    await chart.up()
    before = await chart.world.get("Deployment", chart.namespace, "web", "apps/v1")
    secret = Ref("v1", "Secret", chart.namespace, "sh.helm.release.v1.web.v1")
    async with chart.world.cluster() as cluster:
        found = await cluster.get(secret)
        await cluster.merge(
            secret,
            {"metadata": {"labels": {"status": "pending-install", "pipe-ci/made": None}}, "data": _pending(found)},
        )
    ctx = chart.context()
    await chart.up(ctx, stuck_after="1s")
    assert "its record is removed and what it made stays" in ctx.warned[0]
    after = await chart.world.get("Deployment", chart.namespace, "web", "apps/v1")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def _pending(secret: Any) -> dict[str, str]:
    """The record of an install that has not ended."""
    record = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(secret["data"]["release"]))))
    record["info"]["status"] = "pending-install"
    return {"release": base64.b64encode(base64.b64encode(gzip.compress(json.dumps(record).encode()))).decode()}


async def test_an_upgrade_without_proof_is_settled_by_its_record_and_never_repeated(chart: Chart) -> None:
    run = f"RUN{secrets.token_hex(6)}"
    first = chart.context(run)
    assert (await chart.up(first)).revision == 1
    (effect,) = first.effects
    answer = await chart.stage().settle(chart.context(run, 2), effect.key, effect.intent)
    assert (answer.state, answer.proof) == ("done", effect.value)
    again = chart.context(run, 2)
    assert (await chart.up(again)).revision == 1
    assert "was made by an earlier attempt" in again.text
    assert await chart.statuses() == ["deployed"]
    # another run, or the same with other values, is another upgrade
    assert (await chart.up(chart.context(run, 3), set={"level": "debug"})).revision == 2


PIPELINE = """
pipelines:
  charts:
    secrets: {kubeconfig: file}
    stages:
      web:
        uses: helm
        with:
          chart: ./chart
          release: web
          namespace: NAMESPACE
          program: PROGRAM
          secret: kubeconfig
          images: [IMAGE]
          set: {hook: sleep 5, level: debug}
"""


@pytest.mark.parametrize("moment", ["in the middle of the upgrade", "while the rollout is waited for"])
async def test_a_run_that_is_killed_goes_on_and_neither_repeats_nor_loses_its_upgrade(
    chart: Chart, moment: str
) -> None:
    await chart.up()
    ctx = chart.context()
    text = PIPELINE.replace("NAMESPACE", chart.namespace).replace("PROGRAM", str(chart.program))
    (ctx.workspace / "pipeline.yaml").write_text(text.replace("IMAGE", chart.world.image))
    env = host(HOME=str(ctx.folder), PIPE_SECRET_KUBECONFIG_FILE=str(chart.world.kubeconfig))
    wanted = "pending-upgrade" if moment == "in the middle of the upgrade" else "deployed"
    with subprocess.Popen([PIPE, "run", "pipeline.yaml"], cwd=ctx.workspace, env=env, stdout=-3, stderr=-3) as run:
        while (await chart.statuses())[1:] != [wanted]:
            assert run.poll() is None
            await anyio.sleep(0.2)
        strike(run, "engine")
        assert run.wait(20) == 1

    done = pipe(ctx.workspace, "resume", env=env, limit=120)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert await chart.level() == "debug"
    statuses = await chart.statuses()
    if wanted == "deployed":
        assert statuses == ["superseded", "deployed"]
        assert "was made by an earlier attempt" in done.stdout
    else:
        assert statuses == ["superseded", "pending-upgrade", "superseded", "deployed"]
        assert "an earlier attempt of this stage started it, and is over); rolled back to revision 1" in done.stdout


# -- beforehand ------------------------------------------------------------------------------------


async def test_beforehand_the_chart_is_rendered_and_tried_and_nothing_is_written(chart: Chart) -> None:
    examined = await chart.stage().preflight(chart.context())
    assert [each for each in examined.findings if each.severity is Severity.FAILS] == []
    assert any("renders ./chart" in each for each in examined.checked)
    assert any("2 of 2 objects tried" in each for each in examined.checked)
    assert await chart.statuses() == []


async def test_beforehand_a_chart_that_refuses_its_values_is_told_with_its_words(chart: Chart) -> None:
    ctx = chart.context()
    (ctx.workspace / "chart/templates/need.yaml").write_text('{{ required "a host is needed" .Values.host }}\n')
    (finding,) = (await chart.stage().preflight(ctx)).findings
    assert finding.severity is Severity.FAILS
    assert "a host is needed" in finding.cause.message


# -- a chart repository ----------------------------------------------------------------------------


class _Charts(SimpleHTTPRequestHandler):
    """A folder of charts behind a password."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"me:hunter2-hunter2").decode():
            self.send_error(401)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def repository(chart: Chart, tmp_path: Path) -> Iterator[str]:
    """The URL of a chart repository with our chart."""
    sources, folder = chart.context(), tmp_path / "charts"
    for words in (["package", "chart", "-d", str(folder)], ["repo", "index", str(folder)]):
        subprocess.run([chart.program, *words], cwd=sources.workspace, check=True, capture_output=True)
    (folder / "odd").mkdir()
    (folder / "odd" / "index.yaml").write_text("<html>welcome</html>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Charts, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def test_a_chart_comes_out_of_a_repository_by_a_login_that_no_argument_has(chart: Chart, repository: str) -> None:
    def context(password: str) -> FakeContext:
        ctx = chart.context()
        ctx.secrets = {**ctx.secrets, "charts": Login("me", password)}
        return ctx

    fields = {"chart": "web", "repo": repository, "login": "charts"}
    ctx = context("hunter2-hunter2")
    assert (await chart.up(ctx, **fields)).chart == "web-1.2.3"
    assert not any("hunter2" in word for run in ctx.runs for word in (*run.argv, *run.env.values()))
    wrong = await chart.fails(context("not-it"), **fields)
    assert f"the chart repository {repository} refuses the login" in str(wrong)
    odd = await chart.fails(context("hunter2-hunter2"), **{**fields, "repo": f"{repository}/odd"})
    assert "is no index of charts" in str(odd)
    nowhere = await chart.fails(context("hunter2-hunter2"), **{**fields, "repo": f"{repository}/nowhere"})
    assert f"there is no chart repository at {repository}/nowhere" in str(nowhere)


# -- a registry ------------------------------------------------------------------------------------


@pytest.fixture
def in_registry(chart: Chart, tmp_path: Path) -> str:
    """Our chart in the sandbox's registry, which wants a login and speaks HTTP."""
    sources, config = chart.context(), tmp_path / "registry.json"
    login, registry = chart.world.login, chart.world.registry
    auth = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    config.write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    where = f"oci://{registry}/charts-{secrets.token_hex(4)}"
    for words in (
        ["package", "chart", "-d", str(tmp_path)],
        ["push", str(tmp_path / "web-1.2.3.tgz"), where, "--plain-http", f"--registry-config={config}"],
    ):
        subprocess.run([chart.program, *words], cwd=sources.workspace, check=True, capture_output=True)
    return f"{where}/web"


async def test_a_chart_comes_out_of_a_registry_by_a_login_that_no_argument_has(chart: Chart, in_registry: str) -> None:
    ctx = chart.context()
    fields: dict[str, Any] = {"chart": in_registry, "login": "registry", "plain_http": True}
    outputs = await chart.up(ctx, **fields, version="1.2.3", test=True, set={"hook": "echo moved", "test": "echo well"})
    assert (outputs.chart, outputs.revision) == ("web-1.2.3", 1)
    assert "well" in ctx.text
    password = chart.world.login.password
    assert not any(password in word for run in ctx.runs for word in (*run.argv, *run.env.values()))
    assert (await chart.up(**fields, set={"level": "debug"})).revision == 2
    examined = await chart.stage(**fields).preflight(chart.context())
    assert [each for each in examined.findings if each.severity is Severity.FAILS] == []


async def test_a_registry_that_gives_no_chart_is_told_by_whose_turn_it_is(chart: Chart, in_registry: str) -> None:
    fields: dict[str, Any] = {"chart": in_registry, "login": "registry", "plain_http": True}
    ctx = chart.context()
    ctx.secrets = {**ctx.secrets, "registry": Login(chart.world.login.username, "not-it")}
    assert "the registry refuses the login" in str(await chart.fails(ctx, **fields))
    assert "the registry wants a login" in str(await chart.fails(**{**fields, "login": ""}))
    missing = await chart.fails(**{**fields, "version": "9.9.9"})
    assert "9.9.9" in str(missing)
    assert "not found" in str(missing)
    assert await chart.statuses() == []


async def test_the_image_of_a_hook_is_set_by_a_value_and_pinned_as_it_was_pushed(chart: Chart) -> None:
    with urllib.request.urlopen(_manifest(chart.world), timeout=20) as answer:  # noqa: S310
        pinned = f"{chart.world.image}@{answer.headers['Docker-Content-Digest']}"
    await chart.up(set={"hook": "echo moved", "hookImage": pinned})
    async with chart.world.cluster() as cluster:
        hooks = (await read_recorded(cluster, chart.namespace, "web", 1)).hooks
    (hook,) = [each for each in hooks if each["name"] == "web-hook"]
    assert f'image: "{pinned}"' in str(hook["manifest"])
    assert (hook["last_run"] or {})["phase"] == "Succeeded"


def _manifest(world: World) -> urllib.request.Request:
    auth = base64.b64encode(f"{world.login.username}:{world.login.password}".encode()).decode()
    headers = {
        "Authorization": f"Basic {auth}",
        "Accept": "application/vnd.docker.distribution.manifest.v2+json",
    }
    url = f"http://{world.registry}/v2/lib/busybox/manifests/1"
    return urllib.request.Request(url, headers=headers, method="HEAD")
