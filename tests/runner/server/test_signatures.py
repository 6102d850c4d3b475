"""Who sent a delivery and whether it is genuine: the forges' own vectors, recorded deliveries, and every way to cheat."""

import base64
import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import pytest

from runner.server.signatures import FORGES, Forge, forge_of, key_of, refusal

RECORDED = sorted((Path(__file__).parent / "gitea").glob("*.headers.json"))
NOW = 1_700_000_000.0


def recorded(path: Path) -> tuple[dict[str, str], bytes]:
    headers = {name.lower(): value for name, value in json.loads(path.read_text()).items()}
    return headers, path.with_name(path.name.replace(".headers.json", ".body")).read_bytes()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.partition(".")[0])
def test_recorded_deliveries_of_gitea_are_its_own_and_genuine(path: Path) -> None:
    headers, body = recorded(path)
    assert forge_of(headers) == "gitea"
    assert refusal("gitea", headers, body, "topsecret", NOW) == ""
    assert refusal("gitea", headers, body, "other", NOW) == "its signature is wrong"
    assert refusal("gitea", headers, body + b" ", "topsecret", NOW) == "its signature is wrong"
    assert key_of("gitea", headers, body) == headers["x-gitea-delivery"]


GITHUB = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
GITLAB = {
    "webhook-id": "msg_1",
    "webhook-timestamp": "1700000000",
    "webhook-signature": "v1,a8ac61Jas6Pa8y0qcho+hBA3BwAKpj6mJJH3K9ZhrF0=",
}
WHSEC = "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q="
GITEE = {
    "x-gitee-token": "2D978FIy4DMMTbiN80zQkNH1Eq/kMBt3gL6OnWfGzzY=",
    "x-gitee-timestamp": "1576754827988",
}
GITEE_AT = 1576754827.0
HELLO = b"Hello, World!"


def changed(headers: Mapping[str, str], **more: str) -> dict[str, str]:
    return {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}


VECTORS: list[tuple[Forge, Mapping[str, str], bytes, str, float, str]] = [
    ("github", GITHUB, HELLO, "It's a Secret to Everybody", NOW, ""),
    ("github", GITHUB, b"Hello, World?", "It's a Secret to Everybody", NOW, "its signature is wrong"),
    ("github", {}, HELLO, "s", NOW, "it is not signed: there is no x-hub-signature-256"),
    ("github", {"x-hub-signature": "sha1=0"}, HELLO, "s", NOW, "it is not signed: there is no x-hub-signature-256"),
    ("github", {"x-hub-signature-256": "sha256="}, HELLO, "s", NOW, "its signature is wrong"),
    ("gitlab", GITLAB, b'{"object_kind":"push"}', WHSEC, NOW, ""),
    ("gitlab", changed(GITLAB, webhook_signature=f"v1,AAAA {GITLAB['webhook-signature']}"), b'{"object_kind":"push"}', WHSEC, NOW, ""),
    ("gitlab", GITLAB, b'{"object_kind":"pish"}', WHSEC, NOW, "its signature is wrong"),
    ("gitlab", GITLAB, b'{"object_kind":"push"}', WHSEC, NOW + 301, "its time is 301 s away from ours"),
    ("gitlab", GITLAB, b"{}", "whsec_!", NOW, "the hook's secret is no whsec_ key"),
    ("gitlab", {"x-gitlab-token": "right"}, b"{}", "right", NOW, ""),
    ("gitlab", {"x-gitlab-token": "wrong"}, b"{}", "right", NOW, "its X-Gitlab-Token is wrong"),
    ("gitlab", {}, b"{}", "right", NOW, "it has no X-Gitlab-Token: the hook in the forge has no secret"),
    ("gitee", GITEE, b"{}", "this is secret", GITEE_AT, ""),
    ("gitee", changed(GITEE, x_gitee_token="2D978FIy4DMMTbiN80zQkNH1Eq%2FkMBt3gL6OnWfGzzY%3D"), b"{}", "this is secret", GITEE_AT, ""),
    ("gitee", GITEE, b"{}", "other", GITEE_AT, "its X-Gitee-Token is wrong"),
    ("gitee", GITEE, b"{}", "this is secret", GITEE_AT + 700, "its time is 699 s away from ours"),
    ("gitee", {"x-gitee-token": "pass"}, b"{}", "pass", NOW, ""),
    ("gitee", {}, b"{}", "pass", NOW, "it has no X-Gitee-Token: the hook in the forge has no password"),
    ("gitea", {"x-gitea-signature": ""}, b"{}", "s", NOW, "it is not signed: the hook in the forge has no secret"),
    ("bitbucket", {"x-hub-signature": GITHUB["x-hub-signature-256"]}, HELLO, "It's a Secret to Everybody", NOW, ""),
    ("bitbucket", {}, HELLO, "s", NOW, "it is not signed: there is no x-hub-signature"),
    ("generic", {"authorization": "Bearer right"}, b"{}", "right", NOW, ""),
    ("generic", {"authorization": "Bearer rigth"}, b"{}", "right", NOW, "its bearer token is wrong"),
    ("generic", {"x-signature-256": GITHUB["x-hub-signature-256"]}, HELLO, "It's a Secret to Everybody", NOW, ""),
    ("generic", {}, b"{}", "s", NOW, "it is not signed: send webhook-signature, X-Signature-256 or Authorization: Bearer"),
]  # fmt: skip


@pytest.mark.parametrize(("forge", "headers", "body", "secret", "now", "why"), VECTORS)
def test_a_delivery_is_genuine_only_as_its_forge_signs(
    forge: Forge, headers: Mapping[str, str], body: bytes, secret: str, now: float, why: str
) -> None:
    assert refusal(forge, headers, body, secret, now) == why


@pytest.mark.parametrize("forge", FORGES)
def test_nothing_is_genuine_for_a_hook_without_a_secret(forge: Forge) -> None:
    empty = hmac.new(b"", b"{}", hashlib.sha256).hexdigest()
    names = (
        "x-gitea-signature",
        "x-gitlab-token",
        "x-gitee-token",
        "authorization",
        "x-hub-signature",
        "x-hub-signature-256",
    )
    signed = dict.fromkeys(names, "") | {"x-hub-signature-256": f"sha256={empty}", "x-gitea-signature": empty}
    assert refusal(forge, signed, b"{}", "", NOW) == "its hook has no secret"


@pytest.mark.parametrize("forge", FORGES)
def test_headers_that_are_no_ascii_are_refused_and_break_nothing(forge: Forge) -> None:
    names = (
        "x-hub-signature-256",
        "x-hub-signature",
        "x-gitea-signature",
        "x-gitlab-token",
        "x-gitee-token",
        "authorization",
    )
    assert refusal(forge, dict.fromkeys(names, "Bearer é\udcff"), b"{}", "s", NOW)


def test_several_bodies_under_one_signature_of_gitee_are_different_deliveries() -> None:
    assert key_of("gitee", GITEE, b"a") != key_of("gitee", GITEE, b"b")
    assert key_of("gitee", GITEE, b"a") == key_of("gitee", GITEE, b"a")


def test_a_sender_that_names_no_delivery_means_each() -> None:
    assert key_of("generic", {}, b"{}") != key_of("generic", {}, b"{}")
    assert key_of("generic", {"webhook-id": "x"}, b"{}") == "x"


@pytest.mark.parametrize(
    ("header", "forge"),
    [
        ("x-github-event", "github"),
        ("x-gitlab-event", "gitlab"),
        ("x-gitee-event", "gitee"),
        ("x-event-key", "bitbucket"),
        ("x-other", "generic"),
    ],
)
def test_a_forge_is_known_by_its_own_header(header: str, forge: Forge) -> None:
    assert forge_of({header: "push"}) == forge


def test_a_signature_in_base64_is_no_hex() -> None:
    made = base64.b64encode(hmac.new(b"s", b"{}", hashlib.sha256).digest()).decode()
    assert refusal("github", {"x-hub-signature-256": f"sha256={made}"}, b"{}", "s", NOW) == "its signature is wrong"


def test_gitea_signs_the_json_also_where_it_comes_in_a_form() -> None:
    text = b'{"ref": "refs/heads/a b"}'
    body = b"payload=" + urllib.parse.quote_plus(text).encode()
    form = "application/x-www-form-urlencoded"
    signed = {"x-gitea-signature": hmac.new(b"s", text, hashlib.sha256).hexdigest(), "content-type": form}
    assert refusal("gitea", signed, body, "s", 0.0) == ""
    assert refusal("gitea", {**signed, "content-type": "application/json"}, body, "s", 0.0) == "its signature is wrong"
    assert refusal("gitea", signed, body + b"x", "s", 0.0) == "its signature is wrong"
