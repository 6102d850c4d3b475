"""Whole files and the plans they must make. `python -m tests.pipeline.test_golden` writes the plans anew."""

import json
from pathlib import Path

import pytest

from pipeline.model import read
from pipeline.plan import RunIdentity, Trigger
from pipeline.resolve import resolve
from pipeline.source import load
from tests.pipeline.fakes import KINDS

FOLDER = Path(__file__).parent.parent / "golden"
FILES = sorted(FOLDER.glob("*.yaml"))


def plans(path: Path) -> str:
    """Every pipeline of a file as a plan, host variables unset."""
    file = read(load(path, path.name), KINDS)
    made = {
        name: resolve(
            file,
            name,
            run=RunIdentity(id="01GOLDEN", number=12, previous="succeeded"),
            trigger=Trigger(kind="push", branch="main", slug="main", commit="c0ffee"),
            params={},
            host_env={"REGISTRY": "registry.local:5000"},
            unset="placeholder",
            kinds=KINDS,
        ).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for name in file.pipelines
    }
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_makes_the_plan_it_always_made(path: Path) -> None:
    assert plans(path) == path.with_suffix(".plan.json").read_text()


def test_the_back_end_is_six_stages_and_thirty_leaves_in_the_original_order_with_its_titles() -> None:
    (plan,) = json.loads((FOLDER / "backend.plan.json").read_text()).values()
    leaves = [*plan["leaves"], *plan["finally"]]
    titles = list(dict.fromkeys(leaf["title"].replace(leaf.get("key", ""), "…") for leaf in leaves if leaf.get("key")))
    assert list(dict.fromkeys(leaf["stage"] for leaf in leaves)) == [
        "checkout",
        "compile",
        "image",
        "push",
        "deploy",
        "mail",
    ]
    assert sum("key" in leaf for leaf in leaves) == 30
    assert titles == ["构建…镜像", "推送…镜像", "… - 部署到dev环境"]
    assert [leaf["title"] for leaf in leaves if "key" not in leaf] == ["拉取代码", "项目编译", "发送确认邮件"]


if __name__ == "__main__":
    for golden in FILES:
        golden.with_suffix(".plan.json").write_text(plans(golden))
