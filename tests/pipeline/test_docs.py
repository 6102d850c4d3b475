"""The pages for users say only what is true: their examples are files, traps get the messages that are named."""

import re
from pathlib import Path

import pytest

from pipeline.spec import PipelineSpec, StageSpec, not_built
from tests.pipeline.fakes import plan, problems

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "language.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE + (DOCS / "server.md").read_text(), re.DOTALL)
TRAPS = re.findall(r"^\| `(.*)` \| (.*) \|$", PAGE.partition("## Traps")[2], re.MULTILINE)


@pytest.mark.parametrize("text", EXAMPLES, ids=[text.strip().splitlines()[0] for text in EXAMPLES])
def test_every_example_is_a_file_that_makes_a_plan(text: str) -> None:
    assert plan(text, unset="placeholder").leaves


@pytest.mark.parametrize(("written", "said"), TRAPS, ids=[written for written, _ in TRAPS])
def test_every_trap_gets_the_message_that_the_page_names(written: str, said: str) -> None:
    does = "" if written.startswith("run:") else "    run: x\n"
    text = f"name: a\nparams: {{x: {{default: y}}}}\nstages:\n  other: {{run: x}}\n  s:\n{does}    {written}\n"
    assert any(said in problem for problem in problems(text)), problems(text)


def test_the_page_lists_what_is_not_built() -> None:
    section = PAGE.partition("## Not built yet")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`([a-z_]+)`", section))
    assert listed == not_built(PipelineSpec) | not_built(StageSpec)


def test_the_page_explains_every_key_of_a_stage() -> None:
    explained = set(re.findall(r"`(\w+)`", PAGE))
    missing = {field.alias or name for name, field in StageSpec.model_fields.items()} - explained
    assert missing == set()
