"""What strangers name and write: none of it reaches a shell, an option, a path outside of the workspace or a terminal."""

import json
import subprocess
import unicodedata
from pathlib import Path

import pytest

from tests.support.program import events_of, host, pipe

pytestmark = pytest.mark.slow

ESCAPE = "\x1b[2J\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x07\x9b31m"
SUBJECT = f"Fix {ESCAPE}${{params.x}} $(touch owned) `touch owned` ::error::x %s ##vso[task.complete]"
BRANCHES = [
    "$(touch${IFS}owned)",
    "x;touch${IFS}owned;#",
    "`touch\u00a0owned`",
    "a\"b'c",
    "a&&touch",
    "\u202egnp.exe",
    "x--upload-pack=touch",
]
FILES = [
    "-rf",
    "--upload-pack=touch owned",
    "a\nb",
    f"e{ESCAPE}f",
    "$(touch owned)",
    "sp ace",
    "\u202egnp.exe",
    "'",
    '"',
]
WHO = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *words: str | Path) -> str:
    env = {**host(), **WHO, "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(
        ["git", *words], cwd=folder, env=env, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which everything is named by somebody who means harm."""
    folder = tmp_path_factory.mktemp("source")
    git(folder, "init", "-q", "-b", "main")
    for name in FILES:
        (folder / name).write_text("x")
    (folder / "out").symlink_to("/etc")
    (folder / "up").symlink_to("../../../..")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", SUBJECT)
    for name in BRANCHES:
        git(folder, "branch", "--", name)
        git(folder, "tag", "--", f"v{name}")
    return folder


def run(place: Path, stages: dict[str, object]) -> "subprocess.CompletedProcess[str]":
    (place / "pipe.yaml").write_text(json.dumps({"name": "strange", "stages": stages}))
    return pipe(place, "run", "pipe.yaml", "--no-preflight", env=host(PIPE_CACHE=str(place / "cache")), limit=100)


def checkout(source: Path, **fields: object) -> dict[str, object]:
    return {"uses": "checkout", "with": {"url": source.as_uri(), **fields}}


def ends(place: Path) -> dict[str, str]:
    """Why each stage ended as it did."""
    finished = [event for event in events_of(place, "strange") if event["type"] == "stage.finished"]
    return {each["stage"]: (each.get("cause") or {}).get("message", "") for each in finished}


def unharmed(place: Path, *said: str) -> None:
    assert not list(place.rglob("owned*"))
    for text in said:
        assert not {sign for sign in text if sign != "\n" and unicodedata.category(sign) == "Cc"}


def test_hostile_refs_and_messages_are_words_and_nothing_else(tmp_path: Path, source: Path) -> None:
    stages: dict[str, object] = {}
    for number, ref in enumerate(["main", *BRANCHES, *(f"v{name}" for name in BRANCHES)]):
        written = ref.replace("$", "$$")
        stages[f"c{number}"] = checkout(source, ref=written, into=f"at{number}")
        stages[f"s{number}"] = {
            "needs": f"c{number}",
            "run": """test "$BRANCH_NAME$TAG_NAME" = "$WANTED"; printf '%s\\n' "$BRANCH_NAME$TAG_NAME" "$SUBJECT"; ls""",
            "env": {"SUBJECT": f"${{stages.c{number}.subject}}", "WANTED": written},
            "dir": f"at{number}",
        }
    done = run(tmp_path, stages)
    assert done.returncode == 0, done.stdout + done.stderr
    unharmed(tmp_path, done.stdout, done.stderr, pipe(tmp_path, "show").stdout, pipe(tmp_path, "runs").stdout)
    work = tmp_path / ".pipe" / "strange" / "1" / "work"
    assert set(FILES) <= {path.name for path in (work / "at0").iterdir()}


REFUSED = ["--upload-pack=touch owned", "-x", "a..b", "a b", "refs/heads/\n", "../../etc", "a\x1b[2J", "@{-1}"]


def test_what_git_would_not_take_for_a_ref_is_refused_before_git_is_asked(tmp_path: Path, source: Path) -> None:
    done = run(tmp_path, {f"c{n}": checkout(source, ref=ref, into=f"at{n}") for n, ref in enumerate(REFUSED)})
    assert done.returncode == 1
    assert done.stdout.count("is no name that a branch, tag or commit can have") >= len(REFUSED)
    assert not list((tmp_path / ".pipe" / "strange" / "1" / "work").glob("at*/.git"))
    unharmed(tmp_path, done.stdout, done.stderr)


def test_a_link_of_a_repository_leads_nothing_out(tmp_path: Path, source: Path) -> None:
    stages: dict[str, object] = {
        "first": checkout(source, into="a"),
        "link": {"needs": "first", "run": "ln -s a b; ln -s a c; ln -s a d"},
        "out": {"needs": "link", **checkout(source, into="b/out/x")},
        "up": {"needs": "link", **checkout(source, into="c/up/x")},
        "itself": {"needs": "link", **checkout(source, into="d/out")},
        "dir": {"needs": "link", "run": "true", "dir": "a/out"},
        "cache": {"needs": "link", "run": "true", "cache": "a/up/x"},
    }
    done = run(tmp_path, stages)
    assert done.returncode == 1
    said = ends(tmp_path)
    assert all("lies outside of the workspace" in said[name] for name in ("out", "up", "itself")), said
    assert all("leads out of the workspace" in said[name] for name in ("dir", "cache")), said


SUBMODULES = [
    "ext::sh -c touch% owned",
    "--upload-pack=touch owned",
    "-u./x",
    "file:///etc/passwd",
    "fd::17/x",
    '/x"\n\tupdate = "!touch owned',
]


def test_a_submodule_runs_nothing_and_reads_nothing_of_this_machine(tmp_path: Path) -> None:
    stages: dict[str, object] = {}
    for number, url in enumerate(SUBMODULES):
        source = tmp_path / f"source{number}"
        source.mkdir()
        git(source, "init", "-q", "-b", "main")
        module = f'[submodule "m"]\n\tpath = m\n\turl = "{url}"\n'
        (source / ".gitmodules").write_text(module)
        git(source, "add", ".gitmodules")
        git(source, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},m")
        git(source, "commit", "-qm", "m")
        stages[f"c{number}"] = checkout(source, submodules=True, into=f"at{number}")
    done = run(tmp_path, stages)
    assert done.returncode == 1
    assert all(ends(tmp_path)[name].startswith(("git fetch", "git submodule")) for name in stages), ends(tmp_path)
    unharmed(tmp_path, done.stdout, done.stderr)


def test_a_submodule_goes_through_no_link(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    git(source, "init", "-q", "-b", "main")
    (source / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = way/x\n\turl = {source.as_uri()}\n')
    (source / "way").symlink_to(outside)
    git(source, "add", "-A")
    git(source, "commit", "-qm", "m")
    run(tmp_path, {"c": checkout(source, submodules=True)})
    assert not list(outside.iterdir())
