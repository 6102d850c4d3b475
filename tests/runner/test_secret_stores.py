"""Secrets out of SOPS files, Vault and Kubernetes: by one declared name, found before anything starts."""

import base64
import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import sandbox
from pipeline.errors import PipeError
from pipeline.plan import Leaf, Plan, RunIdentity, SecretSource
from pipeline.stage import SecretFile, SecretText
from runner.handover import Handed, taken
from runner.hosts import detect
from runner.secret_stores import named
from runner.secret_stores.named import named_stores
from runner.secret_stores.store import Document, secret_in
from runner.secrets import find_secrets
from sandbox.secret_tools import SOPS, RunningVault, vault
from tests.support.program import events_of, host, pipe


def real(test: Callable[..., None]) -> Callable[..., None]:
    """With real programs, which are compiled first where nobody has."""
    marked: Callable[..., None] = pytest.mark.slow(pytest.mark.network(pytest.mark.timeout(1200)(test)))
    return marked


# -- what a document holds -------------------------------------------------------------------------


def docker_config(*registries: str, **login: str) -> bytes:
    return json.dumps({"auths": dict.fromkeys(registries, login)}).encode()


@pytest.mark.parametrize(
    ("document", "kind", "expected"),
    [
        (b"pw\n", "text", Handed(kind="text", value="pw")),
        ({"any": b"pw"}, "text", Handed(kind="text", value="pw")),
        ({"value": b"pw", "note": b"x"}, "text", Handed(kind="text", value="pw")),
        ({"username": b"u", "password": b"p"}, "login", Handed(kind="login", value="p", username="u")),
        (
            {".dockerconfigjson": docker_config("r.example", username="u", password="p")},
            "login",
            Handed(kind="login", value="p", username="u"),
        ),
        (
            {".dockerconfigjson": docker_config("r.example", auth=base64.b64encode(b"u:p:q").decode())},
            "login",
            Handed(kind="login", value="p:q", username="u"),
        ),
        ({"config": b"\0\xff"}, "file", Handed(kind="file", value="AP8=")),
        ({"ssh-privatekey": b"key\n", "known": b"x"}, "ssh", Handed(kind="ssh", value="a2V5Cg==")),
    ],
)
def test_a_document_holds_the_secret_of_the_declared_kind(document: Document, kind: Any, expected: Handed) -> None:
    assert secret_in(document, kind, "x") == expected


@pytest.mark.parametrize(
    ("document", "kind", "why"),
    [
        (b"pw", "login", "x is declared as login: it needs the keys username and password, and has a value without"),
        ({"user": b"u", "pass": b"p"}, "login", "and has pass, user"),
        ({"a": b"1", "b": b"2"}, "text", "it needs one key, or one called value, and has a, b"),
        ({}, "file", "and has none"),
        (b"\xff", "text", "no text in UTF-8; bytes are of the kind file"),
        ({".dockerconfigjson": docker_config("a", "b", auth="eA==")}, "login", "is not the login of one registry"),
        ({".dockerconfigjson": b"[]"}, "login", "is not the login of one registry"),
    ],
)
def test_one_that_does_not_is_told_by_its_keys_and_never_by_a_value(document: Document, kind: Any, why: str) -> None:
    with pytest.raises(PipeError, match=why):
        secret_in(document, kind, "x")


def test_a_file_is_in_memory_alone_and_nobody_elses() -> None:
    secret = taken(Handed(kind="file", value="AP8="))
    assert isinstance(secret, SecretFile)
    assert (secret.path.read_bytes(), secret.path.stat().st_mode & 0o777) == (b"\0\xff", 0o600)


# -- which place is asked --------------------------------------------------------------------------


@dataclass
class Shelf:
    """A store that notes what it was asked for."""

    address: str
    documents: Mapping[str, Document]
    variables: frozenset[str] = frozenset({"SHELF_TOKEN"})
    asked: list[str] = field(default_factory=list)

    def read(self, name: str) -> Document | None:
        self.asked.append(name)
        return self.documents.get(name)


def plan(**kinds: Any) -> Plan:
    wanted = tuple(name for name in kinds if name != "spare")
    leaf = Leaf(name="a", stage="a", uses="shell", secret_names=wanted, timeout=timedelta(minutes=1))
    secrets = {name: SecretSource(kind=kind) for name, kind in kinds.items()}
    return Plan(pipeline="p", file="f", run=RunIdentity(id="1", number=1), secrets=secrets, leaves=(leaf,))


@pytest.fixture
def shelves(monkeypatch: pytest.MonkeyPatch) -> list[Shelf]:
    there = [Shelf("shelf:1", {"token": b"first"}), Shelf("shelf:2", {"token": b"second", "git": b"x", "spare": b"x"})]
    monkeypatch.setattr(named, "named_stores", lambda _: there)
    return there


def test_the_first_place_that_has_it_wins_and_stores_come_last(shelves: list[Shelf], tmp_path: Path) -> None:
    environ = {"PIPE_SECRETS": "…", "PIPE_SECRET_GIT": "of the environment"}
    found = find_secrets(plan(token="text", git="text", spare="text"), detect(environ), tmp_path)
    assert found.values == {"token": SecretText("first"), "git": SecretText("of the environment")}
    assert found.origins == {"token": "token in shelf:1", "git": "PIPE_SECRET_GIT in the environment"}
    assert [shelf.asked for shelf in shelves] == [["token"], []]


@pytest.mark.usefixtures("shelves")
def test_what_opens_a_store_is_no_variable_of_a_stage(tmp_path: Path) -> None:
    found = find_secrets(plan(token="text"), detect({"PIPE_SECRETS": "…", "SHELF_TOKEN": "x"}), tmp_path)
    assert {"SHELF_TOKEN", "PIPE_SECRET_TOKEN"} <= found.variables


@pytest.mark.usefixtures("shelves")
def test_one_that_is_nowhere_is_told_with_every_place(tmp_path: Path) -> None:
    places = f"neither PIPE_SECRET_KEY_FILE in the environment nor in {tmp_path}/secrets.env nor key in shelf:1 nor key"
    with pytest.raises(PipeError, match=rf"secret 'key' was not found: {places} in shelf:2 \(wanted by a\)"):
        find_secrets(plan(key="file"), detect({"PIPE_SECRETS": "…"}), tmp_path)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("keepass:x", "'keepass:x' is no place of secrets; there are sops:…, vault:…, kubernetes:…"),
        ("sops", "'sops' is no place of secrets"),
        ("vault:", "write vault:MOUNT/PATH"),
        ("vault:secret/shop", "vault:secret/shop: set VAULT_ADDR"),
        ("kubernetes:", "write kubernetes:NAMESPACE"),
        ("sops:'a", "PIPE_SECRETS: No closing quotation"),
    ],
)
def test_a_place_that_cannot_be_is_refused(words: str, why: str) -> None:
    with pytest.raises(PipeError, match=why):
        named_stores({"PIPE_SECRETS": words})


ONE = "name: one\nsecrets: {token: text}\nstages: {a: {run: 'echo $T', secrets: {T: token}}}\n"
FILE = """
name: shop
secrets: {git: login, token: text, kubeconfig: file, spare: text}
stages:
  a: {run: 'echo "$U $T ${SOPS_AGE_KEY-none} $(cat $K)"; stat -c %a $K', secrets: {U: git.username, T: token, K: kubeconfig}}
"""


def test_check_says_where_each_is_found_and_never_what(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(FILE)
    env = host(PIPE_SECRET_GIT_USERNAME="ci", PIPE_SECRET_GIT_PASSWORD="hidden-word")
    done = pipe(tmp_path, "secrets", "check", "shop.yaml", env=env)
    assert done.returncode == 1
    assert (
        "✓ git         login  PIPE_SECRET_GIT_USERNAME and PIPE_SECRET_GIT_PASSWORD in the environment  (a)"
        in done.stdout
    )
    assert "✗ token       text   missing: neither PIPE_SECRET_TOKEN in the environment nor in " in done.stdout
    assert "· spare       text   no stage wants it" in done.stdout
    assert "hidden-word" not in done.stdout + done.stderr
    told = pipe(tmp_path, "secrets", "check", "--json", "shop.yaml", env=env)
    outcomes = {each["name"]: each["outcome"] for each in map(json.loads, told.stdout.splitlines())}
    assert outcomes == {"git": "found", "token": "missing", "kubeconfig": "missing", "spare": "unwanted"}


# -- a SOPS file -----------------------------------------------------------------------------------

# made for these tests; it opens nothing else
AGE_KEY = "AGE-SECRET-KEY-1JG8XVR0XXTJ80WHCRW7FZKVXLY6KRZYE3CWZFEEQNF3RSPK6KR3QYACLZV"
AGE_RECIPIENT = "age1060s8ug5urwvmrh88pl5jrmg8uhr6esrz86kc9l52n6nek537pgqwcg6dk"
KEPT = {"git": {"username": "ci", "password": "pw"}, "token": "correct-horse-battery", "kubeconfig": "a: of-one-line\n"}


@pytest.fixture
def sops(tmp_path: Path) -> dict[str, str]:
    """A pipeline beside an encrypted file, and the environment that opens it."""
    program = SOPS.ensure()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sops").symlink_to(program)
    (tmp_path / "shop.yaml").write_text(FILE)
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(KEPT))
    command: list[str | Path] = [
        program,
        "--encrypt",
        "--age",
        AGE_RECIPIENT,
        "--output",
        tmp_path / "kept.json",
        plain,
    ]
    subprocess.run(command, check=True, env=host(), timeout=30)
    plain.unlink()
    env = host(PIPE_SECRETS="sops:kept.json", SOPS_AGE_KEY=AGE_KEY)
    return {**env, "PATH": f"{tmp_path}/bin:{env['PATH']}"}


@real
def test_a_run_takes_its_secrets_from_a_sops_file(tmp_path: Path, sops: dict[str, str]) -> None:
    done = pipe(tmp_path, "run", "shop.yaml", env=sops)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ci **** none ****\n" in done.stdout
    assert "600" in done.stdout
    assert "correct-horse" not in json.dumps(events_of(tmp_path, "shop"))
    checked = pipe(tmp_path, "secrets", "check", "shop.yaml", env=sops)
    assert (checked.returncode, "✓ token       text   token in sops:kept.json  (a)" in checked.stdout) == (0, True)


@real
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"SOPS_AGE_KEY": ""}, "sops:kept.json: sops says "),
        ({"PIPE_SECRETS": "sops:other.json"}, "sops:other.json: there is no file "),
        ({"PATH": "/nowhere"}, "sops:kept.json: there is no program sops: install it"),
    ],
)
def test_a_file_that_cannot_be_opened_is_one_line_and_nothing_starts(
    tmp_path: Path, sops: dict[str, str], change: dict[str, str], why: str
) -> None:
    done = pipe(tmp_path, "run", "shop.yaml", env={**sops, **change})
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".pipe" / "shop").exists()


# -- a Vault ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVault]:
    with vault(tmp_path_factory.mktemp("vault")) as running:
        for name, value in KEPT.items():
            data = value if isinstance(value, dict) else {"value": value}
            running.call("POST", f"secret/data/shop/{name}", {"data": data})
        running.call("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        running.call("POST", "old/shop/token", {"value": "old"})
        yield running


@pytest.fixture
def opened(tmp_path: Path, running: RunningVault) -> dict[str, str]:
    (tmp_path / "shop.yaml").write_text(FILE.replace("SOPS_AGE_KEY", "VAULT_TOKEN"))
    more = {"PIPE_SECRETS": "vault:secret/shop", "VAULT_ADDR": running.url, "VAULT_TOKEN": running.token}
    return host(**more, HOME=str(tmp_path))


@real
def test_a_run_takes_its_secrets_from_a_vault(tmp_path: Path, opened: dict[str, str]) -> None:
    done = pipe(tmp_path, "run", "shop.yaml", env=opened)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ci **** none ****\n" in done.stdout
    assert "correct-horse" not in json.dumps(events_of(tmp_path, "shop"))


@real
def test_a_vault_of_version_1_and_the_token_of_a_login_work_too(
    tmp_path: Path, opened: dict[str, str], running: RunningVault
) -> None:
    (tmp_path / ".vault-token").write_text(running.token + "\n")
    (tmp_path / "one.yaml").write_text(ONE)
    env = {**opened, "PIPE_SECRETS": "vault:old/shop", "VAULT_TOKEN": ""}
    done = pipe(tmp_path, "secrets", "check", "one.yaml", env=env)
    assert (done.returncode, "✓ token  text   token in vault:old/shop  (a)" in done.stdout) == (0, True), done


@real
def test_a_role_logs_in_and_sees_what_its_policy_lets_it_see(
    tmp_path: Path, opened: dict[str, str], running: RunningVault
) -> None:
    policy = 'path "secret/data/shop/token" { capabilities = ["read"] }'
    running.call("POST", "sys/policies/acl/shop", {"policy": policy})
    running.call("POST", "sys/auth/approle", {"type": "approle"})
    running.call("POST", "auth/approle/role/ci", {"token_policies": ["shop"]})
    role = running.call("GET", "auth/approle/role/ci/role-id")["data"]["role_id"]
    word = running.call("POST", "auth/approle/role/ci/secret-id", {})["data"]["secret_id"]
    env = {**opened, "VAULT_TOKEN": "", "VAULT_ROLE_ID": role, "VAULT_SECRET_ID": word}
    (tmp_path / "one.yaml").write_text(ONE)
    assert pipe(tmp_path, "secrets", "check", "one.yaml", env=env).returncode == 0
    refused = pipe(tmp_path, "secrets", "check", "shop.yaml", env=env)
    assert refused.returncode == 2
    assert f"vault:secret/shop: reading shop/git at {running.url}: permission denied" in refused.stderr


@real
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"VAULT_TOKEN": ""}, "nothing says who asks: set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID"),
        ({"VAULT_TOKEN": "wrong"}, "permission denied"),
        ({"VAULT_ADDR": "http://127.0.0.1:9"}, "http://127.0.0.1:9: cannot be reached"),
        ({"PIPE_SECRETS": "vault:secret/other"}, "secret 'token' was not found: neither PIPE_SECRET_TOKEN in the env"),
    ],
)
def test_a_vault_that_does_not_answer_with_it_is_one_line_each(
    tmp_path: Path, opened: dict[str, str], change: dict[str, str], why: str
) -> None:
    done = pipe(tmp_path, "run", "shop.yaml", env={**opened, **change})
    assert (done.returncode, why in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


# -- Secrets of a cluster --------------------------------------------------------------------------


@pytest.fixture
def namespace() -> Iterator[tuple[str, dict[str, str]]]:
    """A namespace of the real cluster with the secrets in it, and an environment that names both."""
    kubeconfig = str(sandbox.ensure().kubeconfig)
    name = f"secrets-{secrets.token_hex(4)}"

    def kubectl(*words: str) -> None:
        command = ["kubectl", f"--kubeconfig={kubeconfig}", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    kubectl("create", "namespace", name)
    login = ("--from-literal=username=ci", "--from-literal=password=pw")
    kubectl("-n", name, "create", "secret", "generic", "git", "--type=kubernetes.io/basic-auth", *login)
    for key in ("token", "kubeconfig"):
        kubectl("-n", name, "create", "secret", "generic", key, f"--from-literal=any={KEPT[key]}")
    yield name, host(PIPE_SECRETS=f"kubernetes:{name}", PIPE_KUBECONFIG=kubeconfig)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.sandbox
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_takes_its_secrets_from_a_namespace(tmp_path: Path, namespace: tuple[str, dict[str, str]]) -> None:
    name, env = namespace
    (tmp_path / "shop.yaml").write_text(FILE)
    done = pipe(tmp_path, "run", "shop.yaml", env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ci **** none ****\n" in done.stdout
    away = pipe(tmp_path, "run", "shop.yaml", env={**env, "PIPE_SECRETS": f"kubernetes:{name}-not"})
    assert (away.returncode, f"nor git in kubernetes:{name}-not (wanted by a)" in away.stderr) == (2, True)
    nobody = pipe(tmp_path, "run", "shop.yaml", env={**env, "PIPE_KUBECONFIG": ""})
    assert (nobody.returncode, f"kubernetes:{name}: no cluster is named" in nobody.stderr) == (2, True)
