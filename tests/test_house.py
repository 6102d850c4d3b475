"""The house is as the drawing says, and heavy imports stay where they are needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("pipeline", "stages", "runner")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def first_sentence(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_every_module_opens_with_a_sentence_on_what_it_owns(path: Path) -> None:
    assert first_sentence(path).endswith((".", ":"))


def test_the_drawing_lists_every_module_with_its_own_sentence() -> None:
    drawn = dict(
        re.findall(
            r"^\| `((?:pipeline|stages|runner)\.[\w.]+)` \| (.*) \|$",
            (ROOT / "docs" / "architecture.md").read_text(),
            re.MULTILINE,
        )
    )
    built = {dotted(path): first_sentence(path).replace("|", "\\|") for path in MODULES if path.name != "__init__.py"}
    assert drawn == built, "run `python -m tests.draw`"


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["run", "--help"]])
def test_help_imports_no_client_and_no_graph_library(words: list[str]) -> None:
    call = f"import sys; sys.argv[1:] = {words!r}\ntry:\n    from runner.cli import main; main()\nfinally:\n    print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"docker", "kubernetes", "git", "networkx", "aiohttp", "rich", "anyio", "pydantic"}
    assert heavy & set(shown.stdout.splitlines()[-1].split()) == set()


def test_the_examples_describe_ten_services_in_at_most_seventy_lines() -> None:
    assert len((ROOT / "examples" / "backend.yaml").read_text().splitlines()) <= 70


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    place = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", place.read_text()):
        if "://" not in target:
            assert (place.parent / target).exists(), target
