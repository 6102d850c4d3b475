"""Write images as `docker load` and `ctr images import` take them, without a docker engine."""

import hashlib
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
LABELS = {"pipe.sandbox": "base"}
EPOCH = "2025-01-01T00:00:00Z"


@dataclass(frozen=True)
class Image:
    """A name, the layers (tar files, lowest first) and the configuration in docker's words."""

    name: str
    layers: tuple[Path, ...]
    config: Mapping[str, Any] = field(default_factory=dict)


def write(path: Path, images: Iterable[Image]) -> None:
    """Write all `images` into the archive `path`; a layer that several share is stored once."""
    manifest: list[dict[str, Any]] = []
    digests: dict[Path, str] = {}
    with tarfile.open(path, "w") as archive:
        for image in images:
            for layer in image.layers:
                if layer not in digests:
                    digests[layer] = _digest(layer)
                    archive.add(layer, f"{digests[layer]}/layer.tar")
            hashes = [digests[layer] for layer in image.layers]
            name = _add(archive, json.dumps(_configuration(image, hashes)).encode())
            layers = [f"{one}/layer.tar" for one in hashes]
            manifest.append({"Config": name, "RepoTags": [image.name], "Layers": layers})
        _add(archive, json.dumps(manifest).encode(), "manifest.json")


def difference(upper: Path, lower: Path, result: Path) -> None:
    """Write into `result` what the file tree of the tar `upper` has on top of that of `lower`."""
    with tarfile.open(lower) as tar:
        known = {member.name: _essence(tar, member) for member in tar}
    with tarfile.open(upper) as tar, tarfile.open(result, "w", format=tarfile.PAX_FORMAT) as layer:
        for member in tar:
            if known.get(member.name) != _essence(tar, member):
                layer.addfile(member, tar.extractfile(member) if member.isreg() else None)


def _essence(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[object, ...]:
    file = tar.extractfile(member) if member.isreg() else None
    content = hashlib.sha256(file.read()).digest() if file else b""
    return (member.type, member.mode, member.uid, member.gid, member.linkname, content)


def _configuration(image: Image, hashes: list[str]) -> dict[str, Any]:
    return {
        "architecture": ARCHITECTURE[platform.machine()],
        "os": "linux",
        "created": EPOCH,
        "config": {"Labels": LABELS, **image.config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one}" for one in hashes]},
        "history": [{"created": EPOCH, "created_by": "pipe sandbox"} for _ in hashes],
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(archive: tarfile.TarFile, content: bytes, name: str = "") -> str:
    entry = tarfile.TarInfo(name or f"{hashlib.sha256(content).hexdigest()}.json")
    entry.size = len(content)
    archive.addfile(entry, BytesIO(content))
    return entry.name
