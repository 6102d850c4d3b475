"""Who sent a delivery, whether it is genuine, and by which key it is known. Only its raw bytes are looked at.

The rules are those of each forge's documentation: GitHub "validating webhook deliveries", Gitea and Forgejo "webhooks",
GitLab "webhooks", Gitee "WebHook", Bitbucket "manage webhooks", and www.standardwebhooks.com.
"""

import base64
import binascii
import hashlib
import hmac
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from ulid_transform import ulid_now

__all__ = [
    "FORGES",
    "FORM",
    "UNSIGNED_BODY",
    "Forge",
    "Headers",
    "forge_of",
    "is_secret",
    "key_of",
    "payload_of",
    "refusal",
]

Forge: TypeAlias = Literal["github", "gitlab", "gitee", "gitea", "bitbucket", "generic"]
FORGES: Final[tuple[Forge, ...]] = ("github", "gitlab", "gitee", "gitea", "bitbucket", "generic")
Headers: TypeAlias = Mapping[str, str]
"""Names in small letters."""

TOLERANCE: Final = 300.0
"""Seconds that a signed time may be away from ours."""
GITEE_TOLERANCE: Final = 600.0
FORM: Final = b"payload="
UNSIGNED_BODY: Final = " sha256:"
"""Stands in a key between what is signed and the digest of a body that is not."""

_MARKS: Final[tuple[tuple[str, Forge], ...]] = (
    # Gitea sends GitHub's headers too, so the most special one decides
    ("x-forgejo-event", "gitea"),
    ("x-gitea-event", "gitea"),
    ("x-gogs-event", "gitea"),
    ("x-gitlab-event", "gitlab"),
    ("x-gitee-event", "gitee"),
    ("x-event-key", "bitbucket"),
    ("x-github-event", "github"),
)


def forge_of(headers: Headers) -> Forge:
    """Which forge sent it, by its own headers; `generic` when no forge did."""
    return next((forge for mark, forge in _MARKS if mark in headers), "generic")


def key_of(forge: Forge, headers: Headers, body: bytes) -> str:
    """What tells a delivery from every other one of its hook; a redelivery has the same, if its sender names it."""
    names = {
        "github": ("x-github-delivery",),
        "gitea": ("x-forgejo-delivery", "x-gitea-delivery", "x-gogs-delivery"),
        "gitlab": ("idempotency-key", "webhook-id"),
        "bitbucket": ("x-request-uuid", "x-request-id"),
        "gitee": (),
        "generic": ("webhook-id",),
    }[forge]
    given = next((headers[name] for name in names if headers.get(name)), "")
    if given:
        return given[:200]
    if "x-gitee-timestamp" in headers:
        # the signature of Gitee does not cover the body, so the body is part of the key
        return f"{headers['x-gitee-timestamp'][:20]}{UNSIGNED_BODY}{hashlib.sha256(body).hexdigest()}"
    return ulid_now()  # a sender that names no delivery means each


def refusal(forge: Forge, headers: Headers, body: bytes, secret: str, now: float) -> str:
    """Why a delivery is not genuine; empty if it is. Every comparison takes the same time whatever it finds."""
    if not secret:
        return "its hook has no secret"
    return _CHECKS[forge](headers, body, secret, now)


def is_secret(text: str) -> bool:
    """Whether deliveries can be signed with it."""
    try:
        return bool(_key(text))
    except ValueError:  # no base64
        return False


def _key(secret: str) -> bytes:
    """The key of Standard Webhooks that a secret stands for."""
    named = secret.startswith("whsec_")
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True) if named else secret.encode()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def _hex(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _prefixed(name: str) -> Callable[[Headers, bytes, str, float], str]:
    """The check of a header `sha256=<hex>` over the body."""

    def check(headers: Headers, body: bytes, secret: str, now: float) -> str:  # noqa: ARG001
        given = headers.get(name, "")
        if not given:
            return f"it is not signed: there is no {name}"
        return "" if _same(given, f"sha256={_hex(secret, body)}") else "its signature is wrong"

    return check


def _gitea(headers: Headers, body: bytes, secret: str, now: float) -> str:  # noqa: ARG001
    names = ("x-forgejo-signature", "x-gitea-signature", "x-gogs-signature")
    given = next((headers[name] for name in names if headers.get(name)), "")
    if not given:
        return "it is not signed: the hook in the forge has no secret"
    # unlike GitHub's it is of the JSON, also where that comes in a form
    return "" if _same(given, _hex(secret, payload_of(headers, body))) else "its signature is wrong"


def payload_of(headers: Headers, body: bytes) -> bytes:
    """The JSON of a body, which may be the field `payload` of a form."""
    if body.startswith(FORM) and "urlencoded" in headers.get("content-type", ""):
        return urllib.parse.unquote_to_bytes(body.removeprefix(FORM).partition(b"&")[0].replace(b"+", b" "))
    return body


def _gitlab(headers: Headers, body: bytes, secret: str, now: float) -> str:
    if "webhook-signature" in headers:
        return _standard(headers, body, secret, now)
    given = headers.get("x-gitlab-token", "")
    if not given:
        return "it has no X-Gitlab-Token: the hook in the forge has no secret"
    return "" if _same(given, secret) else "its X-Gitlab-Token is wrong"


def _gitee(headers: Headers, body: bytes, secret: str, now: float) -> str:  # noqa: ARG001
    given, stamp = headers.get("x-gitee-token", ""), headers.get("x-gitee-timestamp", "")
    if not given:
        return "it has no X-Gitee-Token: the hook in the forge has no password"
    if _same(given, secret):
        return ""
    if not stamp.isdecimal() or len(stamp) > 15:
        return "its X-Gitee-Token is wrong"
    if abs(now - int(stamp) / 1000) > GITEE_TOLERANCE:
        return f"its time is {abs(now - int(stamp) / 1000):.0f} s away from ours"
    signed = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
    plain = urllib.parse.unquote(given) if "%" in given else given
    return "" if _same(plain, base64.b64encode(signed).decode()) else "its X-Gitee-Token is wrong"


def _standard(headers: Headers, body: bytes, secret: str, now: float) -> str:
    """Standard Webhooks: `v1,<base64>` over id, time and body; several may be given while secrets change."""
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not name or not stamp.isdecimal() or len(stamp) > 12:
        return "it has no webhook-id or webhook-timestamp"
    if abs(now - int(stamp)) > TOLERANCE:
        return f"its time is {abs(now - int(stamp)):.0f} s away from ours"
    try:
        key = _key(secret)
    except binascii.Error:
        return "the hook's secret is no whsec_ key"
    signed = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(signed).decode()}"
    given = headers.get("webhook-signature", "").split()
    return "" if any([_same(each, expected) for each in given[:10]]) else "its signature is wrong"  # noqa: C419


def _generic(headers: Headers, body: bytes, secret: str, now: float) -> str:
    if "webhook-signature" in headers:
        return _standard(headers, body, secret, now)
    if "x-signature-256" in headers:
        return _prefixed("x-signature-256")(headers, body, secret, now)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return "" if _same(token.strip(), secret) else "its bearer token is wrong"
    return "it is not signed: send webhook-signature, X-Signature-256 or Authorization: Bearer"


_CHECKS: Final[Mapping[Forge, Callable[[Headers, bytes, str, float], str]]] = {
    "github": _prefixed("x-hub-signature-256"),
    "gitea": _gitea,
    "gitlab": _gitlab,
    "gitee": _gitee,
    "bitbucket": _prefixed("x-hub-signature"),
    "generic": _generic,
}
