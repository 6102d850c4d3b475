"""Put folders into bare repositories on the git host, one commit for each change of their content."""

import os
import subprocess
import tempfile
from pathlib import Path

from sandbox.layout import HERE, SandboxError, locked

BRANCH = "master"
AUTHOR = "pipe sandbox"
MAIL = "sandbox@pipe.invalid"
FIRST_COMMIT = "2025-01-01T00:00:00Z"


def repository(name: str) -> Path:
    """Return the folder of the bare repository `name`, which any git command may be pointed at."""
    return HERE.state / "git" / f"{name}.git"


def sources() -> list[Path]:
    """Return the folders that are published by default."""
    return sorted(path for path in (HERE.checkout / "examples" / "sources").glob("*") if path.is_dir())


def publish(source: Path, name: str | None = None) -> str:
    """Make the head of branch master of repository `name` (default: the folder's) a snapshot of `source`.

    Returns the commit's id, which is the same as before if the content is. Files that the folder's own
    .gitignore names are left out. Raises SandboxError if there is no such folder or git fails.
    """
    if not source.is_dir():
        raise SandboxError(f"{source} is no folder")
    bare = repository(name or source.resolve().name)
    with locked(bare.parent / f".{bare.name}.lock", limit=60):
        if not (bare / "HEAD").exists():
            _create(bare)
        with tempfile.NamedTemporaryFile(prefix="pipe-index-") as index:
            Path(index.name).unlink()
            try:
                return _snapshot(bare, source, index.name)
            finally:
                Path(index.name).touch()


def _create(bare: Path) -> None:
    _git(bare.parent, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}", bare.name)
    _git(bare, "config", "http.receivepack", "true")


def _snapshot(bare: Path, source: Path, index: str) -> str:
    _git(bare, f"--work-tree={source.resolve()}", "add", "--all", ".", index=index, at=source)
    tree = _git(bare, "write-tree", index=index)
    head = _git(bare, "for-each-ref", "--format=%(objectname)", f"refs/heads/{BRANCH}")
    if head and _git(bare, "rev-parse", f"{head}^{{tree}}") == tree:
        return head
    parents = ["-p", head] if head else []
    commit = _git(bare, "commit-tree", *parents, "-m", f"Snapshot of {source.resolve().name}", tree)
    _git(bare, "update-ref", f"refs/heads/{BRANCH}", commit, head or "0" * 40)
    return commit


def _git(bare: Path, *arguments: str, index: str = "", at: Path | None = None) -> str:
    """Run git on `bare` with a fixed author and clock and without the user's configuration; return its output."""
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _identity()}
    place = {"GIT_DIR": str(bare)} if (bare / "HEAD").exists() else {}
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        **({"GIT_INDEX_FILE": index} if index else {}),
        **place,
        **who,
    }
    done = subprocess.run(
        ["git", *arguments], cwd=at or bare, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise SandboxError(f"git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _identity() -> tuple[tuple[str, str], ...]:
    return (("NAME", AUTHOR), ("EMAIL", MAIL), ("DATE", FIRST_COMMIT))
