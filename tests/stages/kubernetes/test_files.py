"""Which files are manifests."""

from pathlib import Path

import pytest

from pipeline.files import Folder
from pipeline.stage import StageFailed
from stages.clients.kubernetes.files import choose_manifests

FILES = ("web/deploy/app.yml", "web/deploy/sub/more.yaml", "web/deploy/README.md", "web/x.json", "db/deploy/db.yml")


def _find(patterns: list[str], base: Path, root: Path) -> dict[str, str]:
    return choose_manifests(patterns, Folder(base, root))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "work"


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["web/deploy/**"], ["web/deploy/app.yml", "web/deploy/sub/more.yaml"]),
        (["web/deploy/*"], ["web/deploy/app.yml"]),
        (["web/**/*.yaml"], ["web/deploy/sub/more.yaml"]),
        (["**/deploy/**/app.yml"], ["web/deploy/app.yml"]),
        (["./web/x.json"], ["web/x.json"]),
        (["[!w]*/**"], ["db/deploy/db.yml"]),
        (["web/deploy/*.yml"], ["web/deploy/app.yml"]),
        (["*/deploy/*.yml"], ["db/deploy/db.yml", "web/deploy/app.yml"]),
        (["**/*.yml", "!db/**"], ["web/deploy/app.yml"]),
        (["**/*.yml", "!**/deploy/*", "db/deploy/*"], ["db/deploy/db.yml"]),
        (["web/x.json", "db/deploy/db.yml"], ["db/deploy/db.yml", "web/x.json"]),
        (["web/deploy/README.md"], ["web/deploy/README.md"]),
        (["web/deploy/ap[op].y?l"], ["web/deploy/app.yml"]),
    ],
)
def test_patterns_start_at_the_folder_and_the_last_match_wins(
    base: Path, patterns: list[str], found: list[str]
) -> None:
    assert _find(patterns, base, base) == {name: name for name in found}


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["nothing/**"], "matches nothing/**"),
        (["deploy/**"], "matches deploy/**"),
        (["web/deploy"], "web/deploy is a folder, its files are web/deploy/**"),
        (["web/deploy/*.md"], "files that are no .yaml, .yml or .json: web/deploy/README.md"),
        (["[z-a]/*"], "'[z-a]/*' is no glob"),
        (["../secret.yml"], "leaves the stage's folder"),
        (["/etc/passwd"], "leaves the stage's folder"),
    ],
)
def test_a_set_that_finds_nothing_or_leaves_the_folder_is_an_error(base: Path, patterns: list[str], said: str) -> None:
    with pytest.raises(StageFailed) as caught:
        _find(patterns, base, base)
    assert said in str(caught.value)


def test_a_link_out_of_the_workspace_is_refused(base: Path) -> None:
    (base.parent / "outside.yml").write_text("x")
    (base / "link.yml").symlink_to(base.parent / "outside.yml")
    with pytest.raises(StageFailed, match="leaves the workspace"):
        _find(["link.yml"], base, base)


def test_a_file_that_is_no_text_is_refused(base: Path) -> None:
    (base / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StageFailed, match=r"binary\.yml is no UTF-8 text"):
        _find(["binary.yml"], base, base)


def test_a_byte_order_mark_and_windows_lines_do_not_matter(base: Path) -> None:
    (base / "windows.yml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert _find(["windows.yml"], base, base) == {"windows.yml": "a: 1\nb: 2\n"}
