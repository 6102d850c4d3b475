"""Image archives, and whose packages go into them."""

import json
import tarfile
from io import BytesIO
from pathlib import Path

from sandbox import archive, images

DEB822 = """# the distribution
Types: deb
URIs: http://mirror.invalid/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb-src
URIs: http://mirror.invalid/debian
Suites: bookworm
Components: main

Enabled: no
Types: deb
URIs: http://mirror.invalid/off
Suites: bookworm
Components: main
"""


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return path


def test_sources_are_the_distributions_own_in_either_format(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text("# a comment\ndeb [arch=amd64] http://old.invalid/debian bookworm main\n")
    (folder / "debian.sources").write_text(DEB822)
    (folder / "vendor.list").write_text("deb http://vendor.invalid/apt vendor-bookworm main\n")
    signed = "[signed-by=/usr/share/keyrings/debian.gpg]"
    assert images.sources("bookworm", tmp_path) == [
        "deb [arch=amd64] http://old.invalid/debian bookworm main",
        f"deb {signed} http://mirror.invalid/debian bookworm main",
        f"deb {signed} http://mirror.invalid/debian bookworm-updates main",
    ]


def test_the_difference_of_two_trees_is_what_is_new_or_changed(tmp_path: Path) -> None:
    lower = _tar(tmp_path / "lower.tar", {"same": b"1", "changed": b"1"})
    upper = _tar(tmp_path / "upper.tar", {"same": b"1", "changed": b"2", "new": b"3"})
    archive.difference(upper, lower, tmp_path / "result.tar")
    with tarfile.open(tmp_path / "result.tar") as result:
        assert result.getnames() == ["changed", "new"]


def test_a_shared_layer_is_stored_once_and_every_image_is_labelled(tmp_path: Path) -> None:
    layer = _tar(tmp_path / "layer.tar", {"file": b"1"})
    pair = [archive.Image("a:1", (layer,), {"Cmd": ["a"]}), archive.Image("b:1", (layer,), {"Cmd": ["b"]})]
    archive.write(tmp_path / "archive.tar", pair)
    with tarfile.open(tmp_path / "archive.tar") as result:
        names = result.getnames()
        manifest = json.load(result.extractfile("manifest.json") or BytesIO())
        config = json.load(result.extractfile(manifest[1]["Config"]) or BytesIO())
    assert sum(name.endswith("layer.tar") for name in names) == 1
    assert [one["RepoTags"] for one in manifest] == [["a:1"], ["b:1"]]
    assert config["config"] == {"Labels": {"pipe.sandbox": "base"}, "Cmd": ["b"]}
    assert len(config["rootfs"]["diff_ids"]) == 1
