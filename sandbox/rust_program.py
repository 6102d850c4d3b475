"""Compile a Rust program out of its crate, once for all checkouts of this user."""

import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from sandbox.cache import bound_to_us, workshop
from sandbox.layout import CACHE, SandboxError
from sandbox.progress import Activity, activity

__all__ = ["RustProgram"]

COMPILE_LIMIT = 3600.0
# A program that runs for the minutes of a test need not be fast: built so, it is there in a fraction of the time.
PROFILE = {
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256",
    "CARGO_PROFILE_RELEASE_DEBUG": "0",
    "CARGO_PROFILE_RELEASE_STRIP": "symbols",
    "CARGO_INCREMENTAL": "0",
}


@dataclass(frozen=True)
class RustProgram:
    """A crate with one program of its name, built with the dependencies that its own lock file names."""

    name: str
    version: str
    crates: int
    """About how many crates are compiled."""
    minutes: int
    """About how long that takes."""

    def cached(self) -> Path:
        """Where the binary is, or will be: the name depends on everything that goes into it."""
        content = (platform.machine(), *(f"{name}={value}" for name, value in sorted(PROFILE.items())))
        digest = hashlib.sha256("\0".join(content).encode())
        return CACHE / f"{self.name}-{self.version}-{digest.hexdigest()[:12]}"

    def ensure(self) -> Path:
        """The binary, compiled first if nobody has.

        Raises:
            SandboxError: there is no cargo, or with the compiler's last words.
        """
        binary = self.cached()
        if not binary.exists():
            if not shutil.which("cargo"):
                raise SandboxError(f"{self.name} is compiled by cargo, which is not there: install Rust")
            with workshop(self.name) as folder:
                if not binary.exists():
                    about = f"{self.name} {self.version}: compiling (first time only, about {self.minutes} minutes)"
                    with activity(about) as news:
                        self._compile(folder, news)
                    (folder / "bin" / self.name).replace(binary)
        return binary

    def _compile(self, folder: Path, news: Activity) -> None:
        log = CACHE / f"{self.name}.log"
        which = [self.name, "--version", f"={self.version}", "--locked", "--root", str(folder), "--no-track"]
        command = ["cargo", "install", *which, "--target-dir", str(folder / "target")]
        compiled = 0
        with log.open("w") as file, _started(command, folder) as compiler:
            limit = Timer(COMPILE_LIMIT, compiler.kill)
            limit.start()
            for line in compiler.stdout or ():
                file.write(line)
                compiled += line.lstrip().startswith("Compiling ")
                news.note = f"{compiled} of about {self.crates} crates" if compiled else line.strip()
            limit.cancel()
        if compiler.returncode:
            tail = "\n".join(log.read_text().splitlines()[-15:])
            raise SandboxError(f"cargo install {self.name} failed, see {log}:\n{tail}")


def _started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        bound_to_us(command),
        cwd=folder,
        env={**os.environ, **PROFILE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
