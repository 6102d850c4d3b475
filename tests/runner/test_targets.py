"""Where `pipe releases` and its like look for a target: as somebody says, or as a run knows."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import JsonValue

from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan, RunIdentity, SecretSource
from runner.commands.targets import Place, Where, place_of, split_release
from runner.store import Store
from tests.support.program import pipe


@pytest.mark.parametrize(("words", "expected"), [("his@12", ("his", 12)), ("his", ("his", 0)), ("a-b@1", ("a-b", 1))])
def test_a_release_is_a_target_and_a_number(words: str, expected: tuple[str, int]) -> None:
    assert split_release(words) == expected


@pytest.mark.parametrize("words", ["his#12", "his@", "@3", "his@0", "his@x", "His@1", ""])
def test_what_is_no_release_is_told_how_one_looks(words: str) -> None:
    with pytest.raises(PipeError, match=r"is no release: write TARGET@NUMBER, as in his@12"):
        split_release(words)


def released(
    store: Store,
    target: str,
    namespace: str,
    pipeline: str = "shop",
    by: str = "kubeconfig",
) -> None:
    """A run in the store that drew a number for a target."""
    number, folder = store.take(pipeline, None)
    fields: dict[str, JsonValue] = {"target": target, "namespace": namespace, "secret": by, "context": "prod"}
    names = (by,) if by else ()
    leaf = Leaf(name="ticket", stage="ticket", uses="ticket", fields=fields, secret_names=names, timeout="5m")
    plan = Plan(
        pipeline=pipeline,
        file="f.yaml",
        run=RunIdentity(id="01J", number=number),
        secrets={"kubeconfig": SecretSource(kind="file")},
        leaves=(leaf,),
    )
    folder.write_plan(plan.model_dump_json(by_alias=True))


NOTHING = Where()


def place(folder: Path, target: str = "", where: Where = NOTHING, **environ: str) -> Place:
    return place_of(target, where, environ, Store({}, folder))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "kubeconfig"
    path.write_text("x")
    return str(path)


def test_the_newest_run_that_released_something_says_where(tmp_path: Path, kubeconfig: str) -> None:
    released(Store({}, tmp_path), "his", "hospital")
    found = place(tmp_path, PIPE_SECRET_KUBECONFIG_FILE=kubeconfig)
    assert (found.target, found.namespace, found.context, found.secret) == ("his", "hospital", "prod", "kubeconfig")
    assert found.kubeconfig == Path(kubeconfig)


def test_of_several_targets_the_named_one_is_looked_for(tmp_path: Path, kubeconfig: str) -> None:
    released(Store({}, tmp_path), "his", "hospital")
    released(Store({}, tmp_path), "shop", "market", pipeline="other")
    assert place(tmp_path, "his", PIPE_SECRET_KUBECONFIG_FILE=kubeconfig).namespace == "hospital"
    assert place(tmp_path, "elsewhere", PIPE_KUBECONFIG=kubeconfig).namespace == ""


def test_what_the_caller_names_wins(tmp_path: Path, kubeconfig: str) -> None:
    released(Store({}, tmp_path), "his", "hospital")
    said = Where("other", kubeconfig=kubeconfig)
    found = place(tmp_path, "his", said, PIPE_KUBECONFIG="/elsewhere", PIPE_SECRET_KUBECONFIG_FILE="/nowhere")
    assert (found.namespace, found.secret, found.context) == ("other", "", "prod"), "its context is the run's"
    assert found.kubeconfig == Path(kubeconfig)


def test_the_way_back_goes_to_the_cluster_of_the_run_whatever_the_shell_names(tmp_path: Path, kubeconfig: str) -> None:
    released(Store({}, tmp_path), "his", "hospital")
    found = place(tmp_path, "his", PIPE_KUBECONFIG="/staging", PIPE_SECRET_KUBECONFIG_FILE=kubeconfig)
    assert (found.kubeconfig, found.context) == (Path(kubeconfig), "prod")
    with pytest.raises(PipeError, match=r"'kubeconfig' was not found: .*\n--kubeconfig PATH names the same cluster"):
        place(tmp_path, "his", PIPE_KUBECONFIG="/staging")


def test_of_a_run_that_named_no_secret_the_context_holds_and_the_kubeconfig_is_the_shells(tmp_path: Path) -> None:
    released(Store({}, tmp_path), "his", "hospital", by="")
    found = place(tmp_path, PIPE_KUBECONFIG="/shells")
    assert (found.kubeconfig, found.context, found.secret) == (Path("/shells"), "prod", "")


def test_a_rollback_that_was_told_its_kubeconfig_says_nothing_about_the_next_one(
    tmp_path: Path, kubeconfig: str
) -> None:
    released(Store({}, tmp_path), "his", "hospital")
    done = pipe(tmp_path, "rollback", "his", "--kubeconfig", kubeconfig, "-o", "plain", env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 1
    assert f"the kubeconfig {kubeconfig} is wrong" in done.stdout
    (leaf,) = json.loads((tmp_path / ".pipe/rollback/1/plan.json").read_text())["leaves"]
    assert (leaf["fields"]["kubeconfig"], leaf["fields"]["context"]) == (kubeconfig, "prod")
    next_ = place(tmp_path, "his", PIPE_SECRET_KUBECONFIG_FILE=kubeconfig)
    assert (next_.kubeconfig, next_.secret) == (Path(kubeconfig), "kubeconfig")


def test_a_secret_of_the_run_that_is_not_here_is_told_by_name(tmp_path: Path) -> None:
    released(Store({}, tmp_path), "his", "hospital")
    with pytest.raises(PipeError, match="secret 'kubeconfig' was not found: neither PIPE_SECRET_KUBECONFIG_FILE"):
        place(tmp_path, "his")


CALLS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "no cluster": (("releases",), "no cluster is named: set PIPE_KUBECONFIG"),
    "a run and a release": (("diff", "his@1", "his#2"), "'his#2' is no release"),
    "two targets": (("diff", "his@1", "shop@2"), "two releases of one target can be compared"),
    "an empty path": (("releases", "--kubeconfig", ""), "--kubeconfig is empty"),
    "nobody's home": (("releases", "--kubeconfig", "~no-such-user/x"), "~no-such-user/x: Could not determine home"),
    "no number": (("diff", "his@1", "his"), "two releases of one target can be compared"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_call_is_one_line_and_starts_nothing(tmp_path: Path, call: str) -> None:
    words, expected = CALLS[call]
    done = pipe(tmp_path, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".pipe").exists()


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\n")
    done = pipe(tmp_path, "releases", "his", "-n", "x", env={"PIPE_KUBECONFIG": "config", "PATH": "/usr/bin:/bin"})
    assert done.returncode == 2
    assert "the kubeconfig that PIPE_KUBECONFIG names is wrong" in done.stderr
