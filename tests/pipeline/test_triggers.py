"""Which event starts which pipeline, with which parameters, and what is said when it starts none."""

import pytest

from pipeline.errors import InvalidPipeline
from pipeline.model import read
from pipeline.plan import Trigger
from pipeline.source import load
from pipeline.triggers import Decision, Event, decide, repositories_followed
from stages.catalog import installed

REPO = "https://git.example/team/shop.git"


def decided(triggers: str, event: Event, *, params: str = "{}", variables: dict[str, str] | None = None) -> Decision:
    text = f"name: a\ntriggers: {triggers}\nparams: {params}\nstages: {{s: {{run: x}}}}\n"
    spec = read(load(text, "f.yaml"), installed()).pipelines["a"].spec
    return decide(spec, event, repo=REPO, variables=variables or {})


def push(
    branch: str = "main", message: str = "", paths: list[str] | None = None, repo: str = "", title: str = ""
) -> Event:
    return Event(Trigger(kind="push", branch=branch, repo=repo, commit="c1", author="ann", title=title), message, paths)


def pull(base: str = "main", *, fork: bool = False, message: str = "", title: str = "") -> Event:
    return Event(Trigger(kind="pull_request", branch="topic", base=base, fork=fork, title=title), message)


def tag(name: str, message: str = "") -> Event:
    return Event(Trigger(kind="tag", tag=name), message)


def ended(pipeline: str, outcome: str) -> Event:
    return Event(Trigger(kind="pipeline"), pipeline=pipeline, outcome=outcome)


def hook(body: object, **headers: str) -> Event:
    return Event(Trigger(kind="webhook"), body=body, headers=headers)  # type: ignore[arg-type]


CASES: list[tuple[str, Event, str]] = [
    ("{push: {}}", push("any"), ""),
    ("{push: {branches: [main]}}", push(), ""),
    ("{push: {branches: [main]}}", push("dev"), "the branch dev is not in main"),
    ("{push: {branches: ['release/*']}}", push("release/1"), ""),
    ("{push: {branches: ['release/*']}}", push("release/1/x"), "the branch release/1/x is not in release/*"),
    ("{push: {branches: ['**', '!wip/**']}}", push("wip/a"), "the branch wip/a is not in **, !wip/**"),
    ("{push: [{branches: [a]}, {branches: [b]}]}", push("b"), ""),
    ("{push: [{branches: [a]}, {branches: [b]}]}", push("c"), "the branch c is not in a; the branch c is not in b"),
    ("{push: {paths: ['src/**']}}", push(paths=["src/a/b.py", "README"]), ""),
    ("{push: {paths: ['src/**', '!**/*.md']}}", push(paths=["src/x.md"]), "none of the 1 changed files is in `paths:`"),
    ("{push: {paths: ['src/**']}}", push(paths=None), ""),
    ("{push: {}}", push(message="fix [CI skip] it"), "the head commit's message says [CI skip]"),
    ("{push: {}}", push(message="[no ci] x"), "the head commit's message says [no ci]"),
    ("{push: {}}", push(message="[Skip Actions] x"), "the head commit's message says [Skip Actions]"),
    ("{push: {}}", push(message="x [actions skip]"), "the head commit's message says [actions skip]"),
    (
        "{push: {}}",
        push(message="x\n\n\nSigned-off-by: a\nskip-checks: true\n"),
        "the head commit's message says skip-checks: true",
    ),
    ("{push: {}}", push(message="x\n\nskip-checks: true is a trailer\n\nbye"), ""),
    ("{push: {}}", push(message="skip-checks: true"), ""),
    ("{push: {}}", push(message="skip ci, no ci"), ""),
    ("{pull_request: {}}", pull(title="WIP [skip ci]"), "the title of the pull request says [skip ci]"),
    ("{push: {}}", push(title="a [skip ci] that is no head commit's"), ""),
    ("{push: {}}", tag("v1"), "it has no `tag:` trigger"),
    ("{tag: {tags: ['v*']}}", tag("v1.2", "[skip ci]"), ""),
    ("{tag: {tags: ['v*']}}", tag("x"), "the tag x is not in v*"),
    ("{pull_request: {branches: [main]}}", pull(), ""),
    ("{pull_request: {branches: [main]}}", pull("dev"), "the branch dev is not in main"),
    ("{pull_request: {}}", pull(fork=True), "pull requests of forks are not taken (`forks: true`)"),
    ("{pull_request: {forks: true}}", pull(fork=True), ""),
    ("{pull_request: {}}", pull(message="[skip ci]"), "the head commit's message says [skip ci]"),
    ("{pipeline: {name: base}}", ended("base", "succeeded"), ""),
    ("{pipeline: {name: base}}", ended("base", "failed"), "it waits for base succeeded"),
    ("{pipeline: {name: base, outcome: failed}}", ended("base", "failed"), ""),
    ("{webhook: {when: body.kind == 'go'}}", hook({"kind": "go"}), ""),
    ("{webhook: {when: body.kind == 'go'}}", hook({"kind": "no"}), "`when: body.kind == 'go'` is false"),
    ("{webhook: {when: \"headers['x-me'] == 'y'\"}}", hook({}, **{"x-me": "y"}), ""),
    (
        "{webhook: {when: body.kind == 'go'}}",
        hook({}),
        "`when: body.kind == 'go'` cannot be decided: body has no 'kind'",
    ),
    (
        "{webhook: {when: \"headers['x-me'] == 'y'\"}}",
        hook({}),
        "`when: headers['x-me'] == 'y'` cannot be decided: headers has no 'x-me'",
    ),
    (
        "{webhook: {when: body.a.b == 1}}",
        hook(None),
        "`when: body.a.b == 1` cannot be decided: a field is asked of something that has none",
    ),
]


@pytest.mark.parametrize(("triggers", "event", "why"), CASES)
def test_an_event_starts_what_its_triggers_say_and_else_it_is_said_why_not(
    triggers: str, event: Event, why: str
) -> None:
    found = decided(triggers, event)
    assert (found.starts, found.why) == (not why, why)


@pytest.mark.parametrize(
    ("repo", "meant"),
    [
        (REPO, True),
        ("ssh://git@git.example/team/shop", True),
        ("git@git.example:team/shop.git", True),
        ("https://joe:x@GIT.example/Team/Shop.git/", True),
        ("ssh://git@git.example:2222/team/shop", True),
        ("https://git.example/team/other", False),
    ],
)
def test_a_repository_is_the_same_by_whatever_way_it_is_reached(repo: str, *, meant: bool) -> None:
    assert decided("{push: {}}", push(repo=repo)).starts is meant


def test_another_repository_is_named_with_params_that_have_defaults() -> None:
    triggers, params = (
        "{push: {repo: '${params.url}', branches: [\"${params.b}\"]}}",
        "{url: {env: U, default: x/y}, b: {default: main}}",
    )
    other = push(repo="https://git.example/team/base")
    assert decided(triggers, other, params=params).why == "it is for x/y"
    assert decided(triggers, other, params=params, variables={"U": "https://git.example/team/base"}).starts


def test_a_trigger_gives_parameters_from_the_event_and_a_webhook_from_its_body() -> None:
    params = "{who: {default: x}, deep: {type: bool, default: false}, some: {type: list, default: []}}"
    found = decided("{push: {params: {who: 'by ${trigger.author}', deep: true, some: [a, b]}}}", push(), params=params)
    assert found.params == {"who": "by ann", "deep": "true", "some": "a,b"}
    values = "{webhook: {values: {who: body.user.name, deep: body.n > 1, some: 'body.names'}}}"
    found = decided(values, hook({"user": {"name": "bob"}, "n": 2, "names": ["c", "d"]}), params=params)
    assert found.params == {"who": "bob", "deep": "true", "some": "c,d"}


def test_a_value_that_a_body_does_not_have_is_named_and_a_parameter_must_be_declared() -> None:
    values = "{webhook: {values: {who: body.name}}}"
    assert decided(values, hook({}), params="{who: {default: x}}").why == "`body.name` has no value: body has no 'name'"
    with pytest.raises(InvalidPipeline, match="there is no parameter 'who'"):
        decided(values, hook({}))


def test_pipelines_that_start_each_other_without_end_are_refused() -> None:
    text = """pipelines:
  a: {triggers: {pipeline: {name: b}}, stages: {s: {run: x}}}
  b: {triggers: {pipeline: [{name: other}, {name: a, outcome: failed}]}, stages: {s: {run: x}}}
"""
    with pytest.raises(InvalidPipeline, match="`triggers:` go round for ever: a waits for b waits for a"):
        read(load(text, "f.yaml"), installed())


def test_a_pipeline_of_another_repository_with_the_same_name_is_no_circle() -> None:
    text = "name: a\ntriggers: {pipeline: {name: a, repo: https://git.example/team/base}}\nstages: {s: {run: x}}\n"
    spec = read(load(text, "f.yaml"), installed()).pipelines["a"].spec
    assert list(repositories_followed(spec)) == [("https://git.example/team/base", "a")]


SHORT = [
    ("push: [main]", "`push:` must be a map or a list of maps: write `push: {branches: [main]}`"),
    ("push: main", "`push:` must be a map or a list of maps: write `push: {branches: [main]}`"),
    ("push: true", "`push:` must be a map or a list of maps: write `push: {}`"),
    ("tag: v*", '`tag:` must be a map or a list of maps: write `tag: {tags: ["v*"]}`'),
    (
        "pull_request: [main, dev]",
        "`pull_request:` must be a map or a list of maps: write `pull_request: {branches: [main, dev]}`",
    ),
    ("pipeline: [a, b]", "`pipeline:` must be a map or a list of maps: write `pipeline: [{name: a}, {name: b}]`"),
    ("cron: '0 2 * * *'", '`cron:` must be a map or a list of maps: write `cron: {at: "0 2 * * *"}`'),
    ("webhook: true", "`webhook:` must be a map or a list of maps: write `webhook: {}`"),
    ("push: {branches: 'v*'}", "`branches:` must be a list, not 'v*'"),
]


@pytest.mark.parametrize(("written", "said"), SHORT)
def test_whoever_writes_a_trigger_in_short_is_shown_how_it_is_written(written: str, said: str) -> None:
    with pytest.raises(InvalidPipeline) as caught:
        decided(f"{{{written}}}", push())
    assert [problem.message for problem in caught.value.problems] == [said]


@pytest.mark.parametrize("written", ["push", "[push]"])
def test_whoever_names_triggers_alone_is_shown_how_they_are_written(written: str) -> None:
    with pytest.raises(InvalidPipeline, match=r"`triggers:` must be a map: write `triggers: {push: {}}`"):
        decided(written, push())
