"""Redraw the module tables of docs/architecture.md from the modules' own first sentences."""

import re

from tests.test_house import MODULES, PACKAGES, ROOT, dotted, first_sentence


def table(package: str) -> str:
    rows = [
        f"| `{dotted(path)}` | {first_sentence(path).replace('|', chr(92) + '|')} |"
        for path in MODULES
        if dotted(path).split(".")[0] == package and path.name != "__init__.py"
    ]
    return "\n".join(["| module | owns |", "| --- | --- |", *rows]) + "\n"


def main() -> None:
    drawing = ROOT / "docs" / "architecture.md"
    text = drawing.read_text()
    for package in PACKAGES:
        heading = rf"(### `{package}/`[^\n]*\n\n)(?:\| module.*?\n(?=\n))"
        found = re.search(heading, text, re.DOTALL)
        if found:
            text = text.replace(found[0], found[1] + table(package))
    drawing.write_text(text)


if __name__ == "__main__":
    main()
