"""`release:`: which leaves it adds, what they know, and what is refused before anything runs."""

import pytest

from pipeline.plan import NeedWord, Plan, Trigger
from tests.pipeline.fakes import plan, problems

TOP = """
name: his
secrets: {kubeconfig: file}
release: {on_failure: rollback}
stages:
"""
DEPLOY = "with: {manifests: [x], namespace: his, secret: kubeconfig}"
TWO = f"""
  checkout: {{uses: checkout, with: {{url: u}}}}
  migrate: {{needs: checkout, run: x, irreversible: true}}
  deploy: {{needs: migrate, each: [a, b], uses: deploy, {DEPLOY}}}
  smoke: {{needs: deploy, run: x}}
"""


def made(text: str, top: str = TOP) -> Plan:
    return plan(top.strip() + text)


def needs(of: Plan, name: str) -> dict[str, tuple[tuple[str, ...], NeedWord]]:
    return {need.on: (need.leaves, need.word) for need in of.leaf(name).needs}


def test_a_ticket_is_drawn_after_the_checkouts_and_every_deploy_waits_for_it() -> None:
    found = made(TWO)
    assert [leaf.name for leaf in found.leaves] == [
        *("checkout", "migrate", "ticket", "deploy[a]", "deploy[b]", "release", "smoke"),
    ]
    assert needs(found, "ticket") == {"checkout": (("checkout",), NeedWord.OPTIONAL)}
    assert needs(found, "deploy[a]")["ticket"] == (("ticket",), NeedWord.OK)
    part = found.leaf("deploy[a]").fields["release"]
    assert part == {"target": "his", "namespace": "his", "number": {"$": [{"ref": "stages.ticket.number"}]}}
    assert found.leaf("deploy[a]").references["stages.ticket.number"] == ("ticket", "number")


def test_the_release_is_closed_when_its_deploys_and_what_cannot_be_undone_have_ended_however() -> None:
    found = made(TWO)
    assert needs(found, "release") == {
        "deploy": (("deploy[a]", "deploy[b]"), NeedWord.ENDED),
        "migrate": (("migrate",), NeedWord.ENDED),
    }
    last = found.leaf("release")
    assert last.closes
    assert last.fields["on_failure"] == "rollback"
    assert last.fields["parts"] == {name: {"$": [{"ref": f"stages.{name}.end"}]} for name in ("deploy[a]", "deploy[b]")}
    assert last.fields["irreversible"] == {"migrate": {"$": [{"ref": "stages.migrate.end"}]}}
    assert last.secret_names == ("kubeconfig",)


def test_nothing_is_closed_when_no_deploy_began() -> None:
    assert made(TWO).leaf("release").when == "stages.deploy.outcome != 'skipped'"


def test_without_a_checkout_the_ticket_is_drawn_at_the_start() -> None:
    assert made(f"\n  deploy: {{uses: deploy, {DEPLOY}}}\n").leaf("ticket").needs == ()


def test_deploys_that_a_condition_leaves_out_are_no_part() -> None:
    text = TWO.replace("uses: deploy,", "uses: deploy, when: each.name == 'a',")
    found = made(text)
    assert found.leaf("ticket").fields["parts"] == ["deploy[a]"]
    assert "release" not in found.leaf("deploy[b]").fields
    assert [leaf.name for leaf in made(text.replace("'a'", "'c'")).leaves if leaf.stage in ("ticket", "release")] == []


def test_without_release_the_plan_is_what_it_was() -> None:
    found = made(TWO, TOP.replace("release: {on_failure: rollback}\n", ""))
    assert [leaf.name for leaf in found.leaves] == ["checkout", "migrate", "deploy[a]", "deploy[b]", "smoke"]


def test_the_run_of_a_fork_draws_no_number_and_closes_nothing() -> None:
    found = plan(TOP.strip() + TWO, trigger=Trigger(kind="pull_request", fork=True))
    for name in ("ticket", "deploy[a]", "deploy[b]", "release"):
        assert found.leaf(name).never.startswith("not in the run of a fork")


def test_a_chart_is_no_part_whatever_its_own_release_is_called() -> None:
    chart = "{uses: helm, irreversible: true, with: {release: web, chart: c, namespace: elsewhere, secret: other}}"
    top = TOP.replace("{kubeconfig: file}", "{kubeconfig: file, other: file}")
    found = made(f"{TWO}  chart: {chart}\n", top)
    assert found.leaf("chart").fields["release"] == "web"
    assert "ticket" not in needs(found, "chart")
    assert found.leaf("ticket").fields["parts"] == ["deploy[a]", "deploy[b]"]
    assert found.leaf("ticket").fields["irreversible"] == ["migrate", "chart"]
    alone = problems(f"{top.strip()}\n  chart: {chart}\n")
    assert "`release:` is about deploys, and no stage is one" in alone[0]


OTHER = "{uses: deploy, with: {manifests: [x], namespace: %s, secret: %s}}"
REFUSED = [
    ("a: {run: x}", "`release:` is about deploys, and no stage is one"),
    (f"ticket: {{uses: deploy, {DEPLOY}}}", "a stage 'ticket' is added, and there is one of that name already"),
    (f"a: {OTHER % ('one', 'kubeconfig')}\n  b: {OTHER % ('two', 'kubeconfig')}", "have one `namespace:`, and 'a' and 'b'"),
    (f"a: {OTHER % ('his', 'kubeconfig')}\n  b: {OTHER % ('his', 'other')}", "have one `secret:`, and 'a' and 'b' differ"),
    ("a: {uses: deploy, with: {manifests: [x], secret: kubeconfig}}", "nothing says where the releases are kept"),
    ("a: {uses: deploy, with: {manifests: [x], namespace: n, release: {}}}", "`with:` has no `release:`"),
    ("a: {uses: ticket, with: {target: t, namespace: n}}", "a file cannot use 'ticket'"),
]  # fmt: skip


@pytest.mark.parametrize(("stages", "expected"), REFUSED)
def test_what_cannot_be_one_release_is_refused_with_a_place(stages: str, expected: str) -> None:
    top = TOP.replace("{kubeconfig: file}", "{kubeconfig: file, other: file}").strip()
    assert [text for text in problems(f"{top}\n  {stages}\n") if expected in text and text[0].isdigit()] != []


def test_names_that_parameters_give_are_known_in_the_plan() -> None:
    top = "name: his\nparams: {ns: {default: shop}, t: {default: his}}\nsecrets: {kubeconfig: file}\n"
    fields = "{manifests: [x], namespace: '${params.ns}', secret: kubeconfig}"
    found = plan(f"{top}release: {{target: '${{params.t}}'}}\nstages:\n  a: {{uses: deploy, with: {fields}}}\n")
    assert found.leaf("ticket").fields["namespace"] == "shop"
    assert found.leaf("release").fields["target"] == "his"


def test_a_namespace_that_a_stage_finds_is_too_late_for_a_ticket() -> None:
    find = "find: {run: x, outputs: [ns]}"
    fields = "{manifests: [x], namespace: '${stages.find.ns}', secret: kubeconfig}"
    found = problems(f"{TOP.strip()}\n  {find}\n  a: {{needs: find, uses: deploy, with: {fields}}}\n")
    assert "`namespace:` of 'a' is known only when a stage has ended" in found[0]


def test_a_namespace_of_its_own_lets_deploys_go_to_several() -> None:
    top = TOP.replace("{on_failure: rollback}", "{target: shop, namespace: ops}")
    text = f"\n  a: {OTHER % ('one', 'kubeconfig')}\n  b: {OTHER % ('two', 'kubeconfig')}\n"
    assert made(text, top).leaf("ticket").fields["namespace"] == "ops"
    assert made(text, top).leaf("b").fields["release"] == {
        "target": "shop",
        "namespace": "ops",
        "number": {"$": [{"ref": "stages.ticket.number"}]},
    }


@pytest.mark.parametrize("name", ["His", "his_2", "a" * 51, "-a"])
def test_a_target_is_a_name_that_objects_can_have(name: str) -> None:
    assert "names no target" in "".join(
        problems(
            f"{TOP.strip()}\n  a: {{uses: deploy, {DEPLOY}}}\n".replace("{on_failure", f"{{target: {name}, on_failure")
        )
    )


def test_a_pipeline_whose_name_is_no_target_is_told_how_to_name_one() -> None:
    found = problems(f"{TOP.strip()}\n  a: {{uses: deploy, {DEPLOY}}}\n".replace("name: his", "name: His_CI"))
    assert len(found) == 1
    assert "write `release: {target: NAME}`" in found[0]
