"""`uses: helm` up to where it needs a cluster; with one it is tried in tests/stages/kubernetes/test_real_helm.py."""

import base64
import gzip
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from pipeline.files import Folder
from pipeline.stage import CauseKind, Severity, StageErrored, StageFailed
from stages.clients.helm.chart import fingerprint, is_local, missing
from stages.clients.helm.logins import sources
from stages.clients.helm.program import Helm as Program
from stages.clients.helm.records import History, Promise, Revision, read_revision
from stages.clients.helm.release import Release, settled
from stages.clients.helm.rendered import read_rendered, with_images
from stages.clients.helm.stuck import pending
from stages.clients.helm.trouble import trouble
from stages.clients.helm.values import values_text
from stages.clients.kubernetes.api import Cluster
from stages.helm import Helm
from tests.support.context import FakeContext

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE, THERE = "aaaaaaaa", "bbbbbbbb"
PATIENCE = timedelta(minutes=10)


def revision(number: int, status: str, **more: Any) -> Revision:
    return Revision(number, status, created=NOW, changed=NOW, uid=f"u{number}", **more)


def history(*revisions: Revision, after: float = 0) -> History:
    return History(revisions, NOW + timedelta(seconds=after))


def promise(seconds: float, machine: str = HERE, mark: str = "mine") -> Promise:
    return Promise(NOW + timedelta(seconds=seconds), machine, mark)


# -- whether a helm is dead ------------------------------------------------------------------------


def is_dead(given: History) -> bool:
    found = pending(given, "mine", HERE, PATIENCE)
    assert found is not None
    return found.is_dead(given.now)


def test_what_has_ended_is_not_pending() -> None:
    assert pending(history(), "mine", HERE, PATIENCE) is None
    assert pending(history(revision(1, "pending-install"), revision(2, "deployed")), "mine", HERE, PATIENCE) is None


@pytest.mark.parametrize(
    ("made", "after", "dead"),
    [
        (promise(300), 1, True),  # an earlier attempt of this very stage, here
        (promise(300, THERE), 1, False),  # the same, but that machine may only be out of reach
        (promise(300, THERE), 301, True),
        (promise(300, HERE, "other"), 299, False),  # another run
        (promise(300, HERE, "other"), 301, True),
        (None, 599, False),  # nobody of us
        (None, 601, True),
    ],
)
def test_a_helm_is_dead_when_its_stage_is_over_its_time_is_or_its_record_is_old(
    made: Promise | None, after: float, *, dead: bool
) -> None:
    assert is_dead(history(revision(4, "pending-upgrade", made=made), after=after)) is dead


def test_of_a_rollback_the_revision_before_says_who_does_it_if_it_came_in_that_time() -> None:
    rollback = revision(5, "pending-rollback", made=promise(-900))  # a label of the revision that it goes back to
    assert not is_dead(history(revision(4, "failed"), rollback, after=1))
    ours = revision(4, "failed", undone=promise(300))
    assert is_dead(history(ours, rollback, after=1))
    long_ago = revision(4, "failed", undone=promise(-300, THERE))
    assert not is_dead(history(long_ago, rollback, after=1))


def test_a_revision_that_we_found_bad_is_not_gone_back_to() -> None:
    given = history(
        revision(1, "superseded"),
        revision(2, "superseded", verdict="good"),
        revision(3, "superseded", verdict="bad"),
        revision(4, "superseded", verdict="open"),
        revision(5, "failed"),
        revision(6, "deployed"),
    )
    assert [(found := given.last_good(number)) and found.number for number in (6, 2, 1)] == [2, 1, None]


def test_an_attempt_answers_for_the_revision_that_it_made_or_took_over_and_for_no_other() -> None:
    def own(before: History, now: History) -> int | None:
        found = now.own("mine", before)
        return found.number if found else None

    ours, bad = revision(5, "deployed", made=promise(9)), revision(5, "deployed", made=promise(9), verdict="bad")
    four, theirs = history(revision(4, "deployed")), revision(6, "deployed", made=promise(9, mark="other"))
    assert own(four, history(ours)) == 5
    assert own(four, history(ours, theirs)) == 5  # somebody else came meanwhile
    assert own(history(ours), history(ours)) == 5  # an earlier attempt made it
    assert own(history(bad, revision(6, "deployed")), history(bad, revision(6, "deployed"))) is None  # it went back
    assert own(history(bad), history(bad, revision(6, "failed", made=promise(9)))) == 6
    assert own(history(), history()) is None


def test_an_upgrade_is_settled_by_the_revision_that_bears_its_mark() -> None:
    intent = {"mark": "mine"}
    key = "helm upgrade his/web"
    assert settled(history(revision(1, "deployed")), key, intent).state == "absent"
    assert settled(history(revision(1, "pending-upgrade", made=promise(9))), key, intent).state == "absent"
    assert settled(history(revision(1, "failed", made=promise(9))), key, intent).state == "absent"
    done = settled(history(revision(1, "deployed", made=promise(9))), key, intent)
    assert (done.state, done.proof["revision"]) == ("done", 1)
    assert settled(history(revision(1, "deployed", made=promise(9))), "helm rollback his/web", intent).state == "absent"


# -- records ---------------------------------------------------------------------------------------


def secret(number: int, labels: dict[str, str], record: Any = None) -> dict[str, Any]:
    packed = gzip.compress(json.dumps(record or {"manifest": "a: b"}).encode())
    metadata = {
        "namespace": "his",
        "name": f"sh.helm.release.v1.web.v{number}",
        "uid": "u",
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "managedFields": [{"time": "2026-03-01T12:00:09Z"}],
        "labels": {"version": str(number), "status": "deployed", **labels},
    }
    return {"metadata": metadata, "data": {"release": base64.b64encode(base64.b64encode(packed)).decode()}}


def test_labels_that_helm_carried_over_from_another_revision_say_nothing() -> None:
    labels = {"pipe-ci/made": promise(60).label(4), "pipe-ci/verdict": "4.good", "pipe-ci/undone": "4.x"}
    own, carried = read_revision(secret(4, labels)), read_revision(secret(5, labels))
    assert (own.made, own.verdict, own.undone) == (promise(60), "good", None)
    assert (carried.made, carried.verdict) == (None, "")
    assert own.changed == NOW + timedelta(seconds=9)


def test_a_secret_that_is_no_record_is_named() -> None:
    broken = secret(4, {})
    broken["metadata"]["labels"]["version"] = "x"
    with pytest.raises(StageErrored, match=r"his/sh\.helm\.release\.v1\.web\.v4 is no record"):
        read_revision(broken)


# -- values and images -----------------------------------------------------------------------------


def test_paths_become_nested_values_and_later_ones_hold() -> None:
    text = values_text({"image.tag": "1.10", "replicas": 2, "a\\.b": None}, {"image.tag": "2"})
    assert json.loads(text) == {"image": {"tag": "2"}, "replicas": 2, "a.b": None}
    assert values_text({}) == b""


def test_what_is_set_stays_as_the_author_wrote_it_when_a_secret_is_put_beside_it() -> None:
    given: dict[str, Any] = {"db": {"user": "u"}}
    text = values_text(given, {"db.password": "hunter2"})
    assert json.loads(text) == {"db": {"user": "u", "password": "hunter2"}}
    assert given == {"db": {"user": "u"}}  # so no secret gets into the name of what is installed


@pytest.mark.parametrize("path", ["hosts[0]", "a..b", ""])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(StageFailed, match="is no path such as"):
        values_text({path: 1})


def test_a_path_into_a_value_is_refused() -> None:
    with pytest.raises(StageFailed, match="leads into a value"):
        values_text({"image": "x", "image.tag": "1"})


RENDERED = """---
# Source: web/templates/app.yaml
apiVersion: v1
kind: Pod
metadata: {name: web}  # ümläut
spec:
  containers:
  - {name: app, image: web:1, env: [], env: []}
  - name: side
    image: "r.example/x/side:1"   # stays here
---
# Source: web/templates/job.yaml
apiVersion: v1
kind: Pod
metadata: {name: hook, annotations: {"helm.sh/hook": test}}
spec: {containers: [{name: t, image: web:1}]}
"""


def test_images_are_replaced_where_they_stand_and_nothing_else_is_touched() -> None:
    new = "r:5000/team/web:2@sha256:" + "0" * 64
    # a hook keeps its image, whichever Helm it is
    assert with_images(RENDERED, [new]) == RENDERED.replace("image: web:1", f'image: "{new}"', 1)


def test_rendered_objects_know_their_templates_and_hooks_are_apart() -> None:
    rendered = read_rendered(RENDERED)
    assert [(each.ref.name, each.place) for each in rendered.manifests] == [("web", "web/templates/app.yaml")]
    assert [each.ref.name for each in rendered.hooks] == ["hook"]


def test_a_chart_may_render_to_an_empty_list() -> None:
    text = "apiVersion: v1\nkind: List\nitems: []\n---\n"
    assert [each.ref.name for each in read_rendered(text + RENDERED).manifests] == ["web"]


def test_a_namespace_that_is_no_text_is_refused_with_its_template() -> None:
    with pytest.raises(StageFailed, match=r"web/templates/app\.yaml renders to .* metadata\.namespace must be text"):
        read_rendered(RENDERED.replace("{name: web}", "{name: web, namespace: {a: b}}"))


# -- its words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ('looks like "https://x" is not a valid chart repository or cannot be reached: failed to fetch https://x/index.yaml : 401 Unauthorized', StageFailed, "the chart repository https://x refuses the login"),
        ('looks like "https://x" is not a valid chart repository or cannot be reached: failed to fetch https://x/index.yaml : 404 Not Found', StageFailed, "there is no chart repository at https://x"),
        ('looks like "https://x" is not a valid chart repository or cannot be reached: error unmarshaling JSON: while decoding JSON', StageFailed, "is no index of charts"),
        ('looks like "http://127.0.0.1:40381/404" is not a valid chart repository or cannot be reached: error unmarshaling JSON', StageFailed, "is no index of charts"),
        ('looks like "https://x" is not a valid chart repository or cannot be reached: dial tcp: lookup x: no such host', StageErrored, "no such host"),
        ("UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress", StageErrored, "another helm works on this release"),
        ("INSTALLATION FAILED: execution error at (web/templates/a.yaml:1:3): a host is needed", StageFailed, "the chart refuses its values at web/templates/a.yaml:1:3: a host is needed"),
        ('GET "http://r/v2/charts/web/tags/list": basic credential not found', StageFailed, "the registry wants a login; give it by `login:`"),
        ("repo bitnami not found", StageFailed, "give its URL by `repo:`"),
    ],
)  # fmt: skip
def test_what_helm_says_is_told_by_whose_turn_it_is(line: str, kind: type[Exception], said: str) -> None:
    error = trouble("helm upgrade", 1, ["something else", f"Error: {line}"])
    assert isinstance(error, kind)
    assert said in str(error)


# -- the kind --------------------------------------------------------------------------------------

FIELDS: dict[str, Any] = {"chart": "./chart", "release": "web", "namespace": "his"}


@pytest.mark.parametrize(
    "fields", [{"release": "Web_1"}, {"chart": "--help"}, {"namespace": ""}, {"on_failure": "x"}, {"wait": 5}]
)
def test_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Helm.model_validate({**FIELDS, **fields})


async def test_without_helm_the_way_out_is_told(ctx: FakeContext) -> None:
    stage = Helm.model_validate({**FIELDS, "program": "no-such-helm"})
    with pytest.raises(
        StageFailed, match=r"there is no program 'no-such-helm'.*any Helm from 3\.13 on will do"
    ) as caught:
        await stage.run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG
    (finding,) = (await stage.preflight(ctx)).findings
    assert finding.severity is Severity.FAILS


async def test_a_call_gets_no_variable_that_leads_elsewhere_nor_one_whose_value_is_set(ctx: FakeContext) -> None:
    program = ctx.folder / "helm"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    ctx.env |= {"HELM_KUBECONTEXT": "b", "HELM_KUBETOKEN": "t", "HELM_NAMESPACE": "x", "HELM_CACHE_HOME": "/c"}
    ctx.env |= {"DB_PASSWORD": "hunter2", "KUBECONFIG": "/elsewhere", "OTHER": "o"}
    withheld = ["DB_PASSWORD", "KUBECONFIG", "PATH"]
    helm = Program(str(program), "v3.22.0", "his", "a", ctx.folder / "config", withheld=withheld)
    called = await helm.call(ctx, "upgrade", capture=True)
    found = dict(line.split("=", 1) for line in called.stdout.decode().splitlines())
    assert not found.keys() & {"HELM_KUBECONTEXT", "HELM_KUBETOKEN", "HELM_NAMESPACE", "DB_PASSWORD"}
    kept = {"HELM_CACHE_HOME": "/c", "OTHER": "o", "KUBECONFIG": str(ctx.folder / "config"), "PATH": ctx.env["PATH"]}
    assert found.items() >= kept.items()
    assert ctx.runs[0].argv[-5:] == ("upgrade", "--namespace", "his", "--kube-context", "a")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Client: v2.11.0", "is Helm v2.11.0"),
        ("v3.9.0", "is Helm v3.9.0"),
        ("v5.0.1", "is Helm v5.0.1"),
        ("?", "Helm 2"),
    ],
)
async def test_a_helm_of_another_age_is_refused(ctx: FakeContext, said: str, why: str) -> None:
    program = ctx.folder / "helm"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    with pytest.raises(StageFailed, match=why):
        await Helm.model_validate({**FIELDS, "program": str(program)}).run(ctx)


async def test_a_chart_and_values_that_are_not_there_are_told_together(ctx: FakeContext) -> None:
    program = ctx.folder / "helm"
    program.write_text("#!/bin/sh\necho v3.22.0\n")
    program.chmod(0o755)
    (ctx.workspace / "prod.yaml").write_text("a: b\n")
    with pytest.raises(StageFailed, match=r"there is no chart in \./chart") as caught:
        await Helm.model_validate({**FIELDS, "program": str(program), "values": ["prd.yaml"]}).run(ctx)
    assert "prd.yaml" in caught.value.cause.evidence[1]
    assert "prod.yaml" in caught.value.cause.evidence[1]


def test_a_chart_and_values_outside_of_the_stages_folder_are_refused(ctx: FakeContext) -> None:
    (found,) = missing("../web", ["a.yaml"], Folder(ctx.workspace, ctx.root))
    assert "../web leads out of the stage's folder" in found
    assert not is_local("oci://r.example/web", Folder(ctx.workspace, ctx.root))


def test_what_is_installed_has_another_name_when_a_file_changes_and_hidden_ones_do_not_count(ctx: FakeContext) -> None:
    files = Folder(ctx.workspace, ctx.root)

    def name(given: str = "") -> str:
        return fingerprint(".", ["prod.yaml"], files, given)

    (ctx.workspace / "Chart.yaml").write_text("name: web\n")
    (ctx.workspace / "prod.yaml").write_text("a: 1\n")
    first = name()
    (ctx.workspace / ".pipe").mkdir()
    (ctx.workspace / ".pipe" / "events.1.jsonl").write_text("{}")
    assert name() == first
    assert name("other") != first
    (ctx.workspace / "prod.yaml").write_text("a: 2\n")
    assert name() != first


def test_a_login_lies_in_memory_and_is_gone_afterwards() -> None:
    from pipeline.stage import Login

    with sources("web", "https://charts.example", Login("me", "hunter2")) as source:
        path = source.env["HELM_REPOSITORY_CONFIG"]
        with open(path) as file:  # noqa: PTH123 - as Helm opens it
            (known,) = json.load(file)["repositories"]
        assert (known["name"], known["password"]) == (source.repository, "hunter2")
    with pytest.raises(FileNotFoundError), open(path):  # noqa: PTH123
        pass


async def test_an_upgrade_takes_no_values_of_the_revision_before_and_other_calls_have_no_such_option(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = ctx.folder / "helm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    helm = Program(str(program), "v3.22.0", "his")
    cluster = SimpleNamespace(server="https://cluster.example")
    found = Release(ctx, cast("Cluster", cluster), helm, "web", "mine", HERE, timedelta(minutes=1), PATIENCE)
    first = history(revision(1, "deployed"))
    seen = [history(*first.revisions, revision(2, "deployed", made=promise(9))), first]
    seen.append(history(*first.revisions, revision(2, "deployed")))

    async def read(*_: object) -> History:
        return seen.pop(0)

    async def note(*_: object, **__: object) -> None:
        pass

    monkeypatch.setattr("stages.clients.helm.release.read_history", read)
    monkeypatch.setattr("stages.clients.helm.release.note", note)
    await found.upgrade(["--values=-", "./chart"], b"{}", first, {})
    await found.roll_back(first, first.revisions[0])
    upgrade, rollback = (run.argv for run in ctx.runs)
    assert "--reset-values" in upgrade
    assert upgrade[-4:] == ("--values=-", "--", "web", "./chart")
    assert "--reset-values" not in rollback


def renderer(ctx: FakeContext, said: str) -> str:
    """A helm that renders, but with the cluster only if there is nothing that it says to that."""
    program = ctx.folder / "helm"
    program.write_text(f"""#!/bin/sh
case "$*" in *--dry-run=server*) if [ -n "{said}" ]; then echo "{said}" >&2; exit 1; fi; echo looked;; *) echo blind;; esac
""")
    program.chmod(0o755)
    return str(program)


MISSING = "Error: unable to build kubernetes objects from release manifest: resource mapping not found"
TAKEN = "Error: unable to continue with install: ConfigMap c exists and cannot be imported"


@pytest.mark.parametrize(
    ("version", "said", "rendered", "calls"),
    [
        ("v3.13.0", "", "looked", 1),
        ("v4.3.1", "", "looked", 1),
        ("v4.3.1", MISSING, "blind", 2),
        ("v4.3.1", TAKEN, "blind", 2),
        ("v4.3.1", "Error: execution error at (web/templates/a.yaml:1:3): unable to continue with install: x", "", 1),
        ("v3.22.0", MISSING, "", 1),
    ],
)
async def test_templates_look_up_what_the_cluster_has_unless_helm_demands_more_of_it_than_to_render(
    ctx: FakeContext, version: str, said: str, rendered: str, calls: int
) -> None:
    helm = Program(renderer(ctx, said), version, "his", "a", ctx.folder / "config")
    called = await helm.template(ctx, "--no-hooks", "--", "web", "./chart", stdin=b"{}")
    assert called.stdout.decode().strip() == rendered
    assert (called.exit_code == 0) is bool(rendered)
    assert len(ctx.runs) == calls
    for run in ctx.runs:
        assert run.env["KUBECONFIG"] == str(ctx.folder / "config")
        assert run.argv[2:6] == ("--namespace", "his", "--kube-context", "a")
        assert run.argv[-4:] == ("--no-hooks", "--", "web", "./chart")
        assert run.stdin == b"{}"
