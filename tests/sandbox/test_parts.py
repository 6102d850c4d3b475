"""How the parts are configured, as far as a mistake would only show on another machine."""

import json
import os
from dataclasses import replace
from pathlib import Path

from sandbox import inside, parts, world
from sandbox.blueprint import Blueprint

PLAN = Blueprint("0123abcd", "/run/pipe", "10.200.0.2", "10.200.0.1", 8080, 2525, ("10.0.0.53",))


def test_a_blueprint_survives_the_way_to_the_first_process(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "blueprint.json")
    assert Blueprint.load(tmp_path / "blueprint.json") == PLAN


def test_nothing_listens_on_all_addresses(tmp_path: Path) -> None:
    parts.configure(PLAN, tmp_path, None)
    said = [word for wave in parts.waves(PLAN) for part in wave for word in part.argv]
    said += [path.read_text() for path in (tmp_path / "etc").rglob("*") if path.is_file()]
    assert not [word for word in said if "0.0.0.0:" in word or "=0.0.0.0" in word or "[::]" in word]


def test_no_password_of_the_registry_reaches_the_engine_or_the_kubelet(tmp_path: Path) -> None:
    parts.configure(PLAN, tmp_path, None)
    assert "auth" not in (tmp_path / "etc/containerd.toml").read_text()
    assert (
        (tmp_path / "etc/certs.d/10.200.0.2:5000/hosts.toml")
        .read_text()
        .startswith('server = "http://10.200.0.2:5000"')
    )
    assert json.loads((tmp_path / "etc/docker.json").read_text())["insecure-registries"] == ["10.200.0.2:5000"]


def test_without_name_servers_the_cluster_still_answers_for_itself(tmp_path: Path) -> None:
    parts.configure(replace(PLAN, nameservers=()), tmp_path, None)
    corefile = (tmp_path / "etc/Corefile").read_text()
    assert "kubernetes cluster.local {" in corefile
    assert "forward" not in corefile


def test_a_process_is_known_by_its_number_and_its_birth() -> None:
    assert world.birth(os.getpid()) == world.birth(os.getpid()) != ""
    assert world.birth(2**22 + 1) == ""


def test_other_file_systems_below_a_folder_are_found_once_each() -> None:
    mounts = """/dev/a / ext4 rw 0 0
/dev/b /var/lib/jenkins ext4 rw 0 0
/dev/c /var/lib/jenkins/deeper ext4 rw 0 0
/dev/d /var/with\\040space ext4 rw 0 0
/dev/e /various ext4 rw 0 0
"""
    assert inside.mounted_below("/var", mounts) == [Path("/var/lib/jenkins"), Path("/var/with space")]
