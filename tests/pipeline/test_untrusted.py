"""What is left of a plan when a stranger's commit is to run: nothing with a secret, nothing that changes the outside."""

import pytest

from pipeline.model import read
from pipeline.plan import Leaf, Plan, RunIdentity, Trigger
from pipeline.resolve import resolve
from pipeline.source import load
from stages.catalog import installed, kind, names

TEXT = """name: shop
secrets: {git: login, registry: login, kubeconfig: file, token: text}
concurrency: {group: "release ${trigger.branch}", busy: supersede}
stages:
  checkout: {uses: checkout, with: {url: "https://git.example/a.git", secret: git}}
  build: {needs: checkout, run: make}
  signed: {needs: checkout, run: make sign, secrets: {T: token}}
  image: {needs: build, uses: image, with: {image: r/a, tag: x}}
  private: {needs: build, uses: image, with: {image: r/b, tag: x, secret: registry}}
  push: {needs: image, uses: push, with: {image: "${stages.image.ref}", secret: registry}}
  public: {needs: image, uses: push, with: {image: "${stages.image.ref}"}}
  deploy: {needs: push, uses: deploy, with: {manifests: [x], namespace: a, secret: kubeconfig}}
  never: {needs: build, when: "!trigger.fork", run: x, secrets: {T: token}}
finally:
  mail: {uses: mail, with: {to: a@b.example, subject: x}}
"""


def plan(*, fork: bool) -> Plan:
    trigger = Trigger(kind="pull_request", branch="master", fork=fork)
    run = RunIdentity(id="01", number=1)
    given = {"params": {}, "host_env": {}, "kinds": installed()}
    return resolve(read(load(TEXT, "f.yaml"), installed()), "shop", run=run, trigger=trigger, unset="error", **given)  # type: ignore[arg-type]


def never(made: Plan) -> dict[str, str]:
    return {leaf.name: leaf.never for leaf in (*made.leaves, *made.finally_) if leaf.never}


def test_stages_that_reach_out_or_name_a_secret_are_skipped_with_the_reason() -> None:
    outside = "not in the run of a fork: {} changes things outside of it"
    secret = "not in the run of a fork: it gets no secrets, and this stage names {}"
    assert never(plan(fork=True)) == {
        "signed": secret.format("token"),
        "private": secret.format("registry"),
        "push": outside.format("push"),
        "public": outside.format("push"),
        "deploy": outside.format("deploy"),
        "never": "when: !trigger.fork",
        "mail": outside.format("mail"),
    }


def test_a_run_of_ones_own_keeps_everything() -> None:
    assert never(plan(fork=False)) == {}


def test_no_secret_is_left_in_the_plan_of_a_stranger() -> None:
    def running(made: Plan) -> list[Leaf]:
        return [leaf for leaf in (*made.leaves, *made.finally_) if not leaf.never]

    assert [
        (leaf.name, leaf.secret_names, leaf.secrets) for leaf in running(plan(fork=True)) if leaf.secret_names
    ] == []
    assert "secret" not in plan(fork=True).leaf("checkout").fields
    assert plan(fork=False).leaf("checkout").fields["secret"] == "git"


def test_a_name_that_a_stranger_chose_cannot_end_runs_of_the_same_group() -> None:
    ours, theirs = plan(fork=False).concurrency, plan(fork=True).concurrency
    assert ours
    assert theirs
    assert (ours.group, theirs.group) == ("release master", "forks release master")


@pytest.mark.parametrize("name", names())
def test_a_kind_reaches_out_unless_it_says_that_it_does_not(name: str) -> None:
    assert kind(name).contained is (name in ("checkout", "shell", "maven", "npm", "image"))
