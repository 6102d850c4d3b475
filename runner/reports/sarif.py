"""`problems.sarif`: what compilers complained of, as SARIF 2.1.0 (OASIS), a run of it for each tool."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import IO
from urllib.parse import quote

from pydantic import JsonValue

from pipeline import __version__
from runner.problems import Problem
from runner.sinks.closing import problems_of
from runner.sinks.view import RunView, plain_text

__all__ = ["write_problems"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def write_problems(file: IO[str], view: RunView, mask: Callable[[str], str]) -> None:
    """Write everything that was found in a run."""
    found = [(leaf.name, problem) for leaf in view.state.leaves.values() for problem in problems_of(leaf)]
    found.sort(key=lambda each: each[1].tool)
    runs = [_run(tool, group, mask) for tool, group in groupby(found, lambda each: each[1].tool)]
    json.dump({"$schema": SCHEMA, "version": "2.1.0", "runs": runs}, file, indent=1)


def _run(tool: str, found: Iterable[tuple[str, Problem]], mask: Callable[[str], str]) -> dict[str, JsonValue]:
    results: list[JsonValue] = [_result(leaf, problem, mask) for leaf, problem in found]
    properties: JsonValue = {"foundBy": f"pipe {__version__}"}
    return {"tool": {"driver": {"name": tool, "properties": properties}}, "results": results}


def _result(leaf: str, problem: Problem, mask: Callable[[str], str]) -> dict[str, JsonValue]:
    region: dict[str, JsonValue] = dict(_region(problem))
    uri = quote(mask(problem.file).removeprefix("./"), safe="/:")
    place: JsonValue = {"artifactLocation": {"uri": uri}, **({"region": region} if region else {})}
    result: dict[str, JsonValue] = {
        "level": problem.level,
        "message": {"text": plain_text(mask(problem.message)) or "(no message)"},
        "locations": [{"physicalLocation": place}],
        "properties": {"stage": leaf},
    }
    return {"ruleId": mask(problem.rule), **result} if problem.rule else result


def _region(problem: Problem) -> Iterator[tuple[str, JsonValue]]:
    """Lines and columns count from 1; there is no other number of one."""
    if problem.line > 0:
        yield "startLine", problem.line
        if problem.column > 0:
            yield "startColumn", problem.column
