"""Which kinds there are: ours, and others found by entry point; imported one by one, broken ones named."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pipeline.describe import describe
from pipeline.errors import PipeError
from pipeline.stage import Stage
from stages import catalog


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    found: list[EntryPoint] = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)
    for function in (catalog._others, catalog.kind):
        function.cache_clear()
    yield found
    for function in (catalog._others, catalog.kind):
        function.cache_clear()


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, catalog.GROUP)


def test_the_kinds_of_this_distribution_are_installed() -> None:
    assert {"checkout", "shell", "maven", "npm", "image", "push", "mail", "probe", "deploy"} <= set(catalog.names())


def test_naming_the_kinds_imports_none_of_them() -> None:
    program = """
import sys
from stages import catalog
assert "probe" in catalog.names() and len(catalog.installed()) >= 9
loaded = {name for name in sys.modules if name.startswith("stages.")} - {"stages.catalog"}
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_loading_a_kind_imports_no_sdk() -> None:
    program = """
import sys
from stages import catalog
for name in ("checkout", "shell", "maven", "npm", "image", "push", "mail", "probe"):
    catalog.kind(name)
heavy = {"docker", "git", "aiohttp", "smtplib", "kubernetes", "requests"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    with pytest.raises(catalog.UnknownKind, match=r"there is no kind 'mavne'; did you mean 'maven'\?"):
        catalog.kind("mavne")


def test_a_kind_that_cannot_be_imported_names_its_entry_point_and_why(entries: list[EntryPoint]) -> None:
    entries.append(entry("terraform", "no_such_module:Terraform"))
    with pytest.raises(PipeError, match=r"'terraform'.*no_such_module:Terraform.*No module named 'no_such_module'"):
        catalog.kind("terraform")


def test_a_kind_must_be_a_stage(entries: list[EntryPoint]) -> None:
    entries.append(entry("odd", "json:dumps"))
    with pytest.raises(catalog.BrokenKind, match="it is no Stage"):
        catalog.kind("odd")


def test_two_kinds_of_one_name_are_refused(entries: list[EntryPoint]) -> None:
    entries += [entry("other", "stages.probe:Probe"), entry("other", "json:dumps")]
    with pytest.raises(catalog.BrokenKind, match=r"stages\.probe:Probe' has that name already"):
        catalog.names()


def test_one_broken_kind_does_not_hide_the_others(entries: list[EntryPoint]) -> None:
    entries += [entry("broken", "no_such_module:X"), entry("other", "stages.probe:Probe")]
    kinds = catalog.installed()
    assert {"broken", "other"} < set(kinds)
    assert issubclass(kinds["other"], Stage)


def test_no_other_distribution_takes_a_name_of_ours(entries: list[EntryPoint]) -> None:
    entries += [entry("push", "json:dumps")]
    with pytest.raises(catalog.BrokenKind, match="pipe has a kind of that name itself"):
        catalog.names()


@pytest.mark.parametrize("name", ["checkout", "shell", "maven", "npm", "image", "push", "mail", "probe"])
def test_every_kind_is_frozen_refuses_unknown_fields_and_describes_its_own(name: str) -> None:
    kind = catalog.kind(name)
    assert kind.model_config.get("frozen")
    assert kind.model_config.get("extra") == "forbid"
    assert kind.__doc__
    assert kind.__doc__.splitlines()[0].endswith(".")
    properties = describe(kind).model_json_schema()["properties"]
    assert [field for field, schema in properties.items() if not schema.get("description")] == []
    outputs = kind.outputs_model().model_json_schema()
    assert outputs["additionalProperties"] is False


@pytest.mark.parametrize("name", ["checkout", "shell", "maven", "npm", "image", "push", "mail", "probe"])
def test_the_page_about_kinds_names_every_field_and_output(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text()
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    kind = catalog.kind(name)
    fields = {*kind.model_fields, *kind.outputs_model().model_fields}
    assert {field for field in fields if f"`{field}`" not in section} == set()
