"""Signing in by an OpenID provider: authorization code with PKCE, and everything about its answer checked.

OpenID Connect Core 1.0 (3.1), RFC 7636 (PKCE), RFC 9207 (issuer in the answer).
"""

import hmac
import re
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from pipeline.errors import PipeError, hinted
from runner.server.rights import ROLES, Grant

__all__ = ["Attempt", "Identity", "Provider", "Settings", "settings"]

LIMIT = 10.0
"""Seconds for each answer of the provider."""
KEPT = 3600.0
"""Seconds that what the provider says about itself is used."""
LEEWAY = 60
"""Seconds that its clock may differ from ours."""
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Signatures by a key that the provider alone has."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Which provider, what we are to it, and what its claims mean here."""

    issuer: str
    client: str
    secret: str = ""
    label: str = "OpenID"
    scope: str = "openid profile email"
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    roles: Mapping[str, Grant] = field(default_factory=dict)
    """The role of each group; empty: everybody whom the provider knows is a member."""

    def granted(self, groups: frozenset[str]) -> tuple[Grant, ...] | None:
        """The roles of somebody who is in these groups; None when groups mean nothing here."""
        return tuple(sorted({self.roles[name] for name in groups & self.roles.keys()})) if self.roles else None


_OPTIONAL = {
    "label": "PIPE_OIDC_LABEL",
    "scope": "PIPE_OIDC_SCOPE",
    "name_claim": "PIPE_OIDC_NAME_CLAIM",
    "groups_claim": "PIPE_OIDC_GROUPS_CLAIM",
}


def settings(environ: Mapping[str, str]) -> Settings | None:
    """What the environment says, `PIPE_OIDC_…`; None when it names no issuer.

    Raises:
        PipeError: everything that is wrong with it.
    """
    issuer = environ.get("PIPE_OIDC_ISSUER", "").strip()
    if not issuer:
        return None
    roles, problems = _roles(environ.get("PIPE_OIDC_ROLES", ""))
    parts = urlsplit(issuer)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")):
        problems.append(f"PIPE_OIDC_ISSUER: '{issuer}' does not begin with https://")
    if not environ.get("PIPE_OIDC_CLIENT_ID"):
        problems.append("PIPE_OIDC_CLIENT_ID is missing: the name under which the provider knows this server")
    secret, file = environ.get("PIPE_OIDC_CLIENT_SECRET", ""), environ.get("PIPE_OIDC_CLIENT_SECRET_FILE", "")
    if file:
        try:
            secret = Path(file).read_text().strip()
        except OSError as error:
            problems.append(f"PIPE_OIDC_CLIENT_SECRET_FILE: cannot read {file}: {error.strerror}")
    if problems:
        raise PipeError("\n".join(problems))
    told = {name: environ[variable] for name, variable in _OPTIONAL.items() if environ.get(variable)}
    return Settings(issuer, environ["PIPE_OIDC_CLIENT_ID"], secret, roles=roles, **told)


def _roles(text: str) -> tuple[dict[str, Grant], list[str]]:
    """`group=role; group=role@project`, and what is wrong with it; a group's own name may have `=` and `,` in it."""
    roles: dict[str, Grant] = {}
    problems = []
    for entry in filter(None, (each.strip() for each in text.split(";"))):
        group, _, words = entry.rpartition("=")
        grant = Grant.read(words.strip())
        if not group or grant.role not in ROLES:
            problems.append(hinted(f"PIPE_OIDC_ROLES: '{entry}' is not GROUP=ROLE", grant.role, ROLES))
        roles[group.strip()] = grant
    return roles, problems


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to sign in, which the browser carries sealed: what its answer has to match, and where to go then."""

    state: str
    nonce: str
    verifier: str
    until: float
    to: str = "/"
    connects: str = ""
    """The digest of the session whose person wants to be known by this identity too."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says it is: `id` is issuer and subject, and never another person's."""

    id: str
    name: str
    groups: frozenset[str]


class Provider:
    """One OpenID provider, as one of its clients sees it."""

    def __init__(self, settings: Settings, url: str) -> None:
        """`url` is how people reach this server; the provider has to know `URL/login/openid/callback`."""
        self.settings = settings
        self._callback = f"{url}/login/openid/callback"
        self._metadata: tuple[float, dict[str, Any]] = (0.0, {})
        self._trusted: ssl.SSLContext | None = None

    async def begin(self, to: str, connects: str = "") -> tuple[str, Attempt]:
        """Where to send a browser, and what to remember meanwhile.

        Raises:
            PipeError: the provider does not answer, or not as one.
        """
        metadata = await self._about()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with self._client(metadata) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return url, Attempt(state, nonce, verifier, time.time() + 600, to, connects)

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> Identity:
        """Who somebody is who came back from the provider with this query.

        Raises:
            PipeError: the provider or the person said no, or something does not match what was asked.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise PipeError("the answer belongs to another attempt: sign in again")
        metadata = await self._about()
        says = metadata.get("authorization_response_iss_parameter_supported", False)
        if answer.get("iss", "" if says else self.settings.issuer) != self.settings.issuer:
            raise PipeError("the answer comes from another provider")
        if "code" not in answer:
            said = answer.get("error_description") or answer.get("error") or "nothing"
            raise PipeError(f"{self.settings.label} says: {said[:300]}")
        import httpx2
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        try:
            async with self._client(metadata) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=answer["code"], code_verifier=attempt.verifier
                )
                claims = await self._claims(client, metadata, token, attempt.nonce)
        except (AuthlibBaseError, JoseError, ValueError, KeyError, TypeError) as error:
            raise PipeError(f"the answer of {self.settings.label} is not sound: {error}"[:300]) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise PipeError(f"{self.settings.label} does not answer: {error}"[:300]) from error
        return self._identity(claims)

    async def _claims(self, client: Any, metadata: Mapping[str, Any], token: Any, nonce: str) -> dict[str, Any]:
        """What is said about the person: by the signed token, and beside it by the provider itself."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        named = set(metadata.get("id_token_signing_alg_values_supported", ["RS256"]))
        registry = JWSRegistry(algorithms=[each for each in ALGORITHMS if each in named], strict_check_header=False)
        keys = await client.request("GET", metadata["jwks_uri"], withhold_token=True)
        known = KeySet.import_key_set(keys.raise_for_status().json())
        decoded = jwt.decode(token["id_token"], known, registry=registry)
        wanted = {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client},
            "nonce": {"essential": True, "value": nonce},
        }
        params = {"nonce": nonce, "client_id": self.settings.client, "access_token": token.get("access_token")}
        signed = CodeIDToken(decoded.claims, decoded.header, wanted, params)
        signed.validate(leeway=LEEWAY)
        more: dict[str, Any] = {}
        if endpoint := metadata.get("userinfo_endpoint"):
            more = (await client.get(endpoint)).raise_for_status().json()
            if more.get("sub") != signed["sub"]:
                raise PipeError(f"{self.settings.label} speaks of two different people")
        return {**more, **signed}

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        subject = claims["sub"]
        told = next(_names(claims, self.settings.name_claim, "email", "sub"), "")
        name = re.sub(r"[^a-z0-9._@-]", "-", told.lower()).lstrip("._@-")[:64]
        found = _claim(claims, self.settings.groups_claim)
        groups = frozenset(each for each in found if isinstance(each, str)) if isinstance(found, list) else frozenset()
        return Identity(f"{self.settings.issuer} {subject}", name, groups)

    async def _about(self) -> dict[str, Any]:
        """What the provider says about itself (OpenID Connect Discovery 1.0, 4)."""
        if self._trusted is None:
            self._trusted = await anyio.to_thread.run_sync(_load)
        until, found = self._metadata
        if time.monotonic() < until:
            return found
        import httpx2

        url = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            async with httpx2.AsyncClient(timeout=LIMIT, trust_env=False, verify=self._trusted) as client:
                found = (await client.get(url)).raise_for_status().json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise PipeError(f"{self.settings.label} does not answer at {url}: {error}") from error
        if not isinstance(found, dict) or found.get("issuer") != self.settings.issuer:
            raise PipeError(f"{url} speaks for another issuer than PIPE_OIDC_ISSUER says")
        self._metadata = time.monotonic() + KEPT, found
        return found

    def _client(self, metadata: Mapping[str, Any]) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        ways = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        way = "client_secret_basic" if "client_secret_basic" in ways else "client_secret_post"
        return AsyncOAuth2Client(
            self.settings.client,
            self.settings.secret,
            token_endpoint_auth_method=way if self.settings.secret else "none",
            scope=self.settings.scope,
            redirect_uri=self._callback,
            code_challenge_method="S256",
            timeout=LIMIT,
            trust_env=False,
            verify=self._trusted,
        )


def _load() -> ssl.SSLContext:
    """Read what is only needed when somebody signs in so, libraries and certificates; in a thread, for it blocks."""
    import httpcore2  # noqa: F401 - else read by the first client
    from authlib.integrations.httpx_client import AsyncOAuth2Client  # noqa: F401
    from authlib.oidc.core import CodeIDToken  # noqa: F401
    from joserfc import jwk, jws, jwt  # noqa: F401

    return ssl.create_default_context()


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by dots in what claims hold (`realm_access.roles`)."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _names(claims: Mapping[str, Any], *paths: str) -> Iterator[str]:
    for path in paths:
        found = _claim(claims, path)
        if isinstance(found, str) and found:
            yield found
