"""`pipe init`: a first pipeline for the repository that somebody stands in."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.errors import PipeError

__all__ = ["init"]

FILE = "pipeline.yaml"
_PASSED_OVER = frozenset({"node_modules", "target", "dist", "build", "vendor"})
_DEEPEST = 4


@dataclass(frozen=True, slots=True)
class _Found:
    """What a repository has that a pipeline can build."""

    name: str
    maven: str
    """The folder of pom.xml, `.` for the root of the repository, empty if there is none."""
    npm: str
    """The folder of package.json in the same way."""
    npm_builds: bool
    contexts: tuple[str, ...]
    """Folders with a Dockerfile."""
    manifests: bool
    """Every context, or the repository, has a `deploy/` folder of manifests."""


def init(folder: str) -> int:
    """Write `pipeline.yaml` and say what was found.

    Raises:
        PipeError: there is one already, or nothing was found that could be built.
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise PipeError(f"there is no folder {root}")
    target = root / FILE
    if target.exists():
        raise PipeError(f"{target} is there already; it was left as it is")
    found = _look(root, _repository(root))
    if not (found.maven or found.npm or found.contexts):
        raise PipeError(
            f"{root} has no pom.xml, package.json or Dockerfile: write {FILE} by hand, see docs/language.md"
        )
    target.write_text("\n".join(_text(found)) + "\n")
    click.echo(f"wrote {target}: {', '.join(_what(found))}\nnext: pipe plan {os.path.relpath(target)}")
    return 0


def _repository(folder: Path) -> Path:
    """The root of the git repository that a folder is in: what a checkout brings, and paths are counted from."""
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), folder)


def _look(folder: Path, root: Path) -> _Found:
    files = list(_files(folder, 0))
    contexts = sorted({_relative(f.parent, root) for f in files if f.name == "Dockerfile"})
    packages = sorted((f for f in files if f.name == "package.json"), key=lambda f: len(f.parts))
    scripts = _scripts(packages[0]) if packages else {}
    return _Found(
        name=re.sub(r"[^A-Za-z0-9._-]", "-", folder.name).lstrip("._-") or "pipeline",
        maven=_relative(folder, root) if (folder / "pom.xml").is_file() else "",
        npm=_relative(packages[0].parent, root) if packages else "",
        npm_builds="build" in scripts,
        contexts=tuple(contexts),
        manifests=bool(contexts) and all((root / context / "deploy").is_dir() for context in contexts),
    )


def _scripts(package: Path) -> dict[str, object]:
    try:
        found = json.loads(package.read_text())
    except ValueError as error:
        raise PipeError(f"{package}: no valid JSON: {error}") from error
    scripts = found.get("scripts", {}) if isinstance(found, dict) else {}
    return scripts if isinstance(scripts, dict) else {}


def _files(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if depth < _DEEPEST and not entry.name.startswith(".") and entry.name not in _PASSED_OVER:
                yield from _files(entry, depth + 1)
        else:
            yield entry


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _what(found: _Found) -> Iterator[str]:
    if found.maven:
        yield "Maven"
    if found.npm:
        yield f"npm in {found.npm}"
    if found.contexts:
        yield f"{len(found.contexts)} image{'s' if len(found.contexts) > 1 else ''}"
    if found.manifests:
        yield "manifests"


def _text(found: _Found) -> Iterator[str]:
    yield f"name: {found.name}"
    if found.contexts:
        yield "params:"
        yield "  registry: {env: REGISTRY, description: where images are pushed}"
        secrets = "registry: login, kubeconfig: file" if found.manifests else "registry: login"
        yield f"secrets: {{{secrets}}}"
        yield "vars:"
        yield "  tag: build-${run.number}"
        yield "  services:"
        for context in found.contexts:
            yield f"    - {{name: {_service(context, found)}, path: {context}}}"
    yield "stages:"
    yield "  checkout: {uses: checkout}"
    yield from _builds(found)
    if found.contexts:
        yield from _images(found, [need for need, there in (("compile", found.maven), ("site", found.npm)) if there])


def _namespace(name: str) -> str:
    """A name for a namespace that Kubernetes takes: a DNS label."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].rstrip("-") or "default"


def _service(context: str, found: _Found) -> str:
    return found.name if context == "." else context.rpartition("/")[2]


def _builds(found: _Found) -> Iterator[str]:
    if found.maven:
        yield "  compile:"
        yield "    needs: checkout"
        yield "    uses: maven"
        if found.maven != ".":
            yield f"    dir: {found.maven}"
        yield "    with: {goals: clean package}"
    if found.npm:
        yield "  site:"
        yield "    needs: checkout"
        yield "    uses: npm"
        if found.npm != ".":
            yield f"    dir: {found.npm}"
        if found.npm_builds:
            yield "    with: {target: build}"


def _images(found: _Found, built: Sequence[str]) -> Iterator[str]:
    yield "  image:"
    yield f"    needs: [{', '.join(built or ['checkout'])}]"
    yield "    each: ${vars.services}"
    yield "    uses: image"
    yield '    with: {context: "${each.path}", image: "${params.registry}/${each.name}", tag: "${vars.tag}"}'
    yield "  push:"
    yield "    needs: image"
    yield "    each: ${vars.services}"
    yield "    uses: push"
    yield '    with: {image: "${stages.image.ref}", secret: registry}'
    yield "    retry: 2"
    if found.manifests:
        yield "  deploy:"
        yield "    needs: {push: all}"
        yield "    each: ${vars.services}"
        yield "    uses: deploy"
        yield (
            '    with: {manifests: ["${each.path}/deploy/**"], images: ["${stages.push.digest_ref}"], '
            f"namespace: {_namespace(found.name)}, secret: kubeconfig, pull_secret: registry}}"
        )
