"""Compile a Go program out of its module, once for all checkouts of this user."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from sandbox.cache import bound_to_us, workshop
from sandbox.layout import CACHE, SandboxError
from sandbox.progress import Activity, activity

__all__ = ["GoProgram"]

OLDEST_GO_THAT_FETCHES_NEWER = (1, 21)
COMPILE_LIMIT = 1500.0


@dataclass(frozen=True)
class GoProgram:
    """A program: where its module is, how it is built, and what is known of how long that takes."""

    name: str
    version: str
    source: Path
    """A folder with go.mod, go.sum and, for a program of ours, its source."""
    package: str
    flags: tuple[str, ...]
    packages: int
    """About how many packages are compiled."""
    minutes: int
    toolchain: str
    """A version of the compiler that can build it, for machines whose own is too old to fetch a newer one."""
    cgo: bool = False
    """Parts of it are C, so a C compiler is needed too."""

    def cached(self) -> Path:
        """Where the binary is, or will be: the name depends on everything that goes into it."""
        digest = hashlib.sha256("\0".join((*self.flags, platform.machine())).encode())
        for file in sorted(self.source.iterdir()):
            digest.update(file.read_bytes())
        return CACHE / f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"

    def ensure(self) -> Path:
        """The binary, compiled first if nobody has.

        Raises:
            SandboxError: with the compiler's last words.
        """
        binary = self.cached()
        if not binary.exists():
            with workshop(self.name) as folder:
                if not binary.exists():
                    for file in self.source.iterdir():
                        shutil.copy(file, folder)
                    about = f"{self.name} {self.version}: compiling (first time only, about {self.minutes} minutes)"
                    with activity(about) as news:
                        self._compile(folder, news)
                    (folder / "program").replace(binary)
        return binary

    def _compile(self, folder: Path, news: Activity) -> None:
        log = CACHE / f"{self.name}.log"
        command = [self._go(folder), "build", "-v", *self.flags, "-o", "program", self.package]
        packages = 0
        with log.open("w") as file, _started(command, folder, cgo=self.cgo) as compiler:
            limit = Timer(COMPILE_LIMIT, compiler.kill)
            limit.start()
            for line in compiler.stdout or ():
                file.write(line)
                packages += not line.startswith("go: ")
                news.note = f"{packages} of about {self.packages} packages" if packages else line.strip()
            limit.cancel()
        if compiler.returncode:
            tail = "\n".join(log.read_text().splitlines()[-15:])
            raise SandboxError(f"go build of {self.name} failed, see {log}:\n{tail}")

    def module(self, path: str) -> Path:
        """The folder of a module that the program is made of, fetched if it is not there."""
        with workshop(f"{self.name}-module") as folder:
            shutil.copy(self.source / "go.mod", folder)
            shutil.copy(self.source / "go.sum", folder)
            return Path(_output([self._go(folder), "list", "-m", "-f", "{{.Dir}}", path], folder))

    def _go(self, folder: Path) -> str:
        """A go command that can build it: the machine's, or a newer one out of the Go modules."""
        words = _output(["go", "env", "GOVERSION"], folder.parent).removeprefix("go").split(".")
        if (int(words[0]), int(words[1])) >= OLDEST_GO_THAT_FETCHES_NEWER:
            return "go"
        return _newer_go(folder, self.toolchain)


def _started(command: list[str], folder: Path, *, cgo: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        bound_to_us(command),
        cwd=folder,
        env={**_environment(), **({"CGO_ENABLED": "1"} if cgo else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _environment() -> Mapping[str, str]:
    return {**os.environ, "GOWORK": "off", "GOFLAGS": "-buildvcs=false -mod=mod"}


def _newer_go(folder: Path, version: str) -> str:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    toolchain = f"golang.org/toolchain@v0.0.1-go{version}.linux-{arch}"
    with activity("go: fetching a newer compiler"):
        module = json.loads(_output(["go", "mod", "download", "-json", toolchain], folder.parent))
    tools = Path(module["Dir"])
    # A module's files are stored without their executable bit.
    for program in (*(tools / "bin").iterdir(), *(tools / "pkg" / "tool").rglob("*")):
        program.chmod(0o755)
    return str(tools / "bin" / "go")


def _output(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        bound_to_us(command), cwd=folder, env=_environment(), capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SandboxError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout.strip()
