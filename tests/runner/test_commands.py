"""`pipe plan`, `check`, `init`, `kinds` and `schema` as a user sees them."""

import json
from pathlib import Path

import pytest

from tests.support.program import host, pipe

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
ORIGINAL = [
    "拉取代码",
    "项目编译",
    *(
        f"构建{name}镜像"
        for name in ("hospital-manage", "server-gateway", "service-cmn", "service-hosp", "service-order")
    ),
    *(
        f"构建{name}镜像"
        for name in ("service-oss", "service-sms", "service-statistics", "service-task", "service-user")
    ),
    "推送hospital-manage镜像",
    "service-user - 部署到dev环境",
    "发送确认邮件",
]


def test_the_plan_of_the_example_has_the_originals_stages_and_leaves_in_order(tmp_path: Path) -> None:
    shown = pipe(tmp_path, "plan", EXAMPLES / "shangyitong.pipeline.yaml", "backend").stdout
    places = [shown.index(title) for title in ORIGINAL]
    assert places == sorted(places)
    assert shown.rstrip().endswith("8 stages, 30 parallel leaves")
    assert "git_url = <unset>" in shown


def test_a_plan_starts_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    assert pipe(tmp_path, "plan", EXAMPLES / "backend.yaml").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_a_condition_would_skip(tmp_path: Path) -> None:
    shown = pipe(tmp_path, "plan", EXAMPLES / "backend.yaml", "-p", "only=service-user").stdout
    skipped = [line for line in shown.splitlines() if "skipped: when:" in line]
    assert len(skipped) == 9
    assert shown.count("skipped: needs image, skipped by image[") == 9
    assert shown.count("skipped: needs a value of push[") == 9
    assert "6 stages, 30 parallel leaves, 27 skipped" in shown


def test_a_plan_says_of_a_stage_what_it_waits_for_and_on_which_condition(tmp_path: Path) -> None:
    text = "name: a\nstages:\n  one: {run: x}\n  two: {needs: one, when: stages.one.outcome == 'skipped', run: x}\n"
    (tmp_path / "a.yaml").write_text(text)
    shown = pipe(tmp_path, "plan", "a.yaml").stdout
    assert "  two    shell  needs one; when: stages.one.outcome == 'skipped'\n" in shown


def test_a_plan_as_json_holds_no_value_of_a_secret(tmp_path: Path) -> None:
    env = host(PIPE_SECRET_REGISTRY_USERNAME="robot", PIPE_SECRET_REGISTRY_PASSWORD="correct-horse")
    shown = pipe(tmp_path, "plan", "--json", EXAMPLES / "backend.yaml", env=env).stdout
    assert len(json.loads(shown)["leaves"]) == 32
    assert "correct-horse" not in shown


def test_check_tells_every_problem_of_every_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\nstages:\n  one: {rum: x}\n  two: {needs: tree, run: x}\n")
    (tmp_path / "b.yaml").write_text("name: b\nstagse: {}\n")
    done = pipe(tmp_path, "check", "a.yaml", "b.yaml", EXAMPLES / "backend.yaml")
    assert done.returncode == 2
    for place in ("a.yaml:3:", "a.yaml:4:", "b.yaml:2:1"):
        assert place in done.stderr
    assert "backend.yaml: ok (backend)" in done.stdout


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "backend.yaml").write_text("")
    assert "did you mean 'backend.yaml'?" in pipe(tmp_path, "run", "bakend.yaml").stderr


@pytest.mark.parametrize(
    ("source", "stages"),
    [
        ("yygh-parent", ["checkout", "compile", "image", "push", "deploy"]),
        ("yygh-admin", ["checkout", "site", "image", "push", "deploy"]),
    ],
)
def test_init_writes_a_file_that_pipe_itself_can_plan(tmp_path: Path, source: str, stages: list[str]) -> None:
    for path in (EXAMPLES / "sources" / source).rglob("*"):
        if path.name in ("pom.xml", "package.json", "Dockerfile", "deploy.yml") and "node_modules" not in path.parts:
            copy = tmp_path / path.relative_to(EXAMPLES / "sources" / source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text())
    assert pipe(tmp_path, "init").returncode == 0
    done = pipe(tmp_path, "plan", "--json", "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    found = list(dict.fromkeys(leaf["stage"] for leaf in json.loads(done.stdout)["leaves"]))
    assert found == stages


def test_init_in_a_folder_of_a_repository_counts_paths_from_where_a_checkout_puts_them(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    service = tmp_path / "services" / "web"
    service.mkdir(parents=True)
    for name, text in (("pom.xml", ""), ("Dockerfile", ""), ("package.json", "{}")):
        (service / name).write_text(text)
    assert pipe(service, "init").returncode == 0
    plan = json.loads(pipe(service, "plan", "--json", "pipeline.yaml").stdout)
    by_name = {leaf["stage"]: leaf for leaf in plan["leaves"]}
    assert (by_name["compile"]["dir"], by_name["site"]["dir"]) == ("services/web", "services/web")
    assert by_name["image"]["fields"]["context"] == "services/web"


def test_init_leaves_an_existing_file_alone_and_refuses_an_empty_folder(tmp_path: Path) -> None:
    assert "no pom.xml, package.json or Dockerfile" in pipe(tmp_path, "init").stderr
    (tmp_path / "pipeline.yaml").write_text("mine")
    done = pipe(tmp_path, "init")
    assert (done.returncode, (tmp_path / "pipeline.yaml").read_text()) == (2, "mine")


def test_init_tells_what_it_cannot_read_in_a_line(tmp_path: Path) -> None:
    assert pipe(tmp_path, "init", "nowhere").returncode == 2
    (tmp_path / "package.json").write_text("{bad")
    done = pipe(tmp_path, "init")
    assert (done.returncode, "no valid JSON" in done.stderr, "BUG" in done.stderr) == (2, True, False)


def test_kinds_are_listed_with_what_they_do_and_each_with_its_fields(tmp_path: Path) -> None:
    listed = pipe(tmp_path, "kinds").stdout
    assert {line.split()[0] for line in listed.splitlines()} >= {"checkout", "deploy", "image", "push", "shell"}
    described = pipe(tmp_path, "kinds", "push").stdout
    assert "image (required):" in described
    assert "digest_ref:" in described
    assert "did you mean 'push'?" in pipe(tmp_path, "kinds", "psuh").stderr


def test_the_schema_knows_every_installed_kind(tmp_path: Path) -> None:
    schema = pipe(tmp_path, "schema").stdout
    json.loads(schema)
    for kind in ("checkout", "deploy", "image", "mail", "maven", "npm", "probe", "push"):
        assert f'"{kind}"' in schema
    for inner in ('"const": "ticket"', '"const": "rollback"', "ReleasePart"):
        assert inner not in schema
