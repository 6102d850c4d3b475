"""Names of images, and what a registry says about them (OCI distribution, by HTTP)."""

import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import anyio
import anyio.to_thread

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed

if TYPE_CHECKING:  # importing it takes longer than a start of pipe may
    from ssl import SSLContext

    from aiohttp import ClientSession

__all__ = ["HUB", "NO_DIGEST", "Insecure", "Reference", "Registry", "check_repository", "check_tag", "parse_reference"]

HUB = "docker.io"
HUB_SERVER = "registry-1.docker.io"
CERTIFICATES = Path("/etc/docker/certs.d")

DOMAIN = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
)
PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

NO_DIGEST = f"sha256:{'0' * 64}"
"""Stands for a digest that is not known yet; nothing has it."""

MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
ANSWER_LIMIT = 30.0
CONNECT_LIMIT = 5.0


# -- names -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reference:
    """An image's name: `repository` as docker writes it, with a tag, a digest or both."""

    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def registry(self) -> str:
        """Host and port of the registry; docker's own when the name has none."""
        first, slash, _ = self.repository.partition("/")
        return first if slash and (set(".:[") & set(first) or first == "localhost") else HUB

    @property
    def path(self) -> str:
        """The repository's name within its registry."""
        first, _, rest = self.repository.partition("/")
        if self.registry == HUB and first != HUB:
            return self.repository if rest else f"library/{self.repository}"
        return rest


def parse_reference(text: str) -> Reference:
    """Take `repository[:tag][@digest]` apart.

    Raises:
        ValueError: docker would not take that name.
    """
    name, _, digest = text.partition("@")
    if "@" in text and not DIGEST.fullmatch(digest):
        raise ValueError(f"'{text}': what follows the @ must be sha256: and 64 digits")
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    check_repository(head)
    if head != name:
        check_tag(tag)
    return Reference(head, tag, digest)


def check_repository(name: str) -> None:
    """Apply docker's rules to a name without a tag.

    Raises:
        ValueError: it breaks one; the message says which.
    """
    reference = Reference(name)
    path = reference.path if name else ""
    if reference.registry != HUB and not DOMAIN.fullmatch(reference.registry):
        raise ValueError(f"'{name}': '{reference.registry}' is no name of a registry")
    if path != path.lower():
        raise ValueError(f"'{name}': the name of an image must be in lower case")
    for part in path.split("/"):
        if not PART.fullmatch(part):
            raise ValueError(f"'{name}': '{part}' is no part of an image's name (a-z, 0-9, single . _ - between them)")
    if len(name) > 255:
        raise ValueError(f"'{name[:40]}…' is longer than 255 characters")


def check_tag(tag: str) -> None:
    """Apply docker's rules to a tag.

    Raises:
        ValueError: it breaks one.
    """
    if not TAG.fullmatch(tag):
        raise ValueError(
            f"'{tag}' is no tag: letters, digits, _ . and - only, 128 at most, not beginning with . or -; "
            "for a branch use ${trigger.slug}"
        )


# -- registries ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Insecure:
    """Which registries may be spoken to without a trusted certificate, by the docker engine's own settings."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")

    def allows(self, registry: str) -> bool:
        """Whether the engine would speak plain HTTP to that registry."""
        if registry in self.hosts or registry.partition(":")[0] == "localhost":
            return True
        try:
            address = ip_address(registry.rpartition(":")[0].strip("[]") or registry)
        except ValueError:
            return False
        return any(address in ip_network(network, strict=False) for network in self.networks)


Trust: TypeAlias = "SSLContext | bool"


@dataclass(frozen=True, slots=True)
class _Answer:
    """A registry's answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """One registry, spoken to with one login or none."""

    def __init__(self, name: str, login: Login | None, *, insecure: bool, secret: str = "") -> None:
        self.name = name
        self._login = login
        self._insecure = insecure
        self._secret = secret
        self._base = ""
        self._trust: Trust = True
        self._tokens: dict[str, str] = {}

    async def check_login(self, path: str) -> None:
        """See that the registry answers and takes the login for writing to a repository.

        Raises:
            StageFailed: it refuses the login.
            StageErrored: it does not answer.
        """
        async with self._session() as session:
            answer = await self._get(session, "GET", "/v2/", f"repository:{path}:pull,push")
            if answer.status not in {200, 404}:
                raise self._unexpected(answer.status, "the login")

    async def check_push(self, path: str) -> None:
        """See that the login may write to a repository, without writing: what is offered can never be stored.

        It is a manifest that is none, under a digest that is not its own. A registry decides first whether one may
        write at all, and then refuses it (OCI distribution, "pushing manifests").

        Raises:
            StageFailed: it may not, or there is no such repository and none is made.
            StageErrored: the registry does not answer, or not as registries do.
        """
        async with self._session() as session:
            target = f"/v2/{path}/manifests/{NO_DIGEST}"
            answer = await self._get(session, "PUT", target, f"repository:{path}:pull,push", right=f"push to {path}")
            codes = _codes(answer.body)
            if answer.status == 404 and "NAME_UNKNOWN" in codes:
                message = f"the registry {self.name} has no repository {path}, and makes none by a push"
                raise StageFailed(message, kind=CauseKind.CONFIG)
            if answer.status == 405:
                raise StageFailed(f"the registry {self.name} takes no pushes: it is read-only", kind=CauseKind.CONFIG)
            if answer.status == 429 or answer.status >= 500:
                raise self._unexpected(answer.status, f"the right to push to {path}")

    async def digest(self, path: str, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names; None when the registry has no such thing.

        Raises:
            StageFailed: it refuses the login.
            StageErrored: it does not answer, or not as registries do.
        """
        async with self._session() as session:
            answer = await self._get(session, "HEAD", f"/v2/{path}/manifests/{reference}", f"repository:{path}:pull")
            if answer.status == 404:
                return None
            digest = answer.headers.get("Docker-Content-Digest", "")
            if answer.status != 200 or not DIGEST.fullmatch(digest):
                raise self._unexpected(answer.status, f"{path}:{reference}")
            return digest

    # -- below -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _session(self) -> AsyncIterator["ClientSession"]:
        self._trust = await anyio.to_thread.run_sync(self._make_trust)
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT, connect=CONNECT_LIMIT)
        headers = {"Accept": ", ".join(MANIFESTS)}
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True, headers=headers) as session:
            try:
                yield session
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = str(error) or f"nothing heard for {CONNECT_LIMIT:g} s"
                raise StageErrored(f"the registry {self.name} does not answer: {reason}") from error

    async def _get(self, session: "ClientSession", method: str, path: str, scope: str, right: str = "") -> "_Answer":
        """An answer, with the login if one is asked for. `right`: what is refused when it is not the login."""
        base = await self._find_base(session)
        headers = {"Authorization": f"Bearer {self._tokens[scope]}"} if scope in self._tokens else {}
        answer = await self._ask(session, method, base + path, headers)
        if answer.status != 401:
            return answer
        challenge = answer.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("bearer"):
            self._tokens[scope] = await self._token(session, dict(CHALLENGE.findall(challenge)), scope)
            headers = {"Authorization": f"Bearer {self._tokens[scope]}"}
            answer = await self._ask(session, method, base + path, headers)
        elif self._login:
            answer = await self._ask(session, method, base + path, self._basic())
        if answer.status in {401, 403}:
            known = right and (answer.status == 403 or scope in self._tokens)
            raise self._denied(answer.status, right) if known else self._refused(answer.status)
        return answer

    async def _ask(
        self, session: "ClientSession", method: str, url: str, headers: Mapping[str, str] | None = None
    ) -> "_Answer":
        body = b"{}" if method == "PUT" else None
        sent = {**(headers or {}), **({"Content-Type": MANIFESTS[2]} if body else {})}
        async with session.request(method, url, headers=sent, data=body, ssl=self._trust) as answer:
            return _Answer(answer.status, answer.headers, await answer.read())

    async def _token(self, session: "ClientSession", challenge: Mapping[str, str], scope: str) -> str:
        realm = challenge.get("realm", "")
        if not realm.startswith("https://") and not (self._insecure and realm.startswith("http://")):
            raise StageErrored(f"the registry {self.name} sends logins to '{realm}', which is no https address")
        query = {"service": challenge.get("service", ""), "scope": scope}
        async with session.get(realm, params=query, headers=self._basic(), ssl=self._trust) as answer:
            if answer.status in {401, 403}:
                raise self._refused(answer.status)
            if answer.status != 200:
                raise self._unexpected(answer.status, f"a token from {realm}")
            found = await answer.json(content_type=None)
        return str(found.get("token") or found.get("access_token") or "")

    async def _find_base(self, session: "ClientSession") -> str:
        """Https, or for a registry that the engine trusts without it the first scheme that answers."""
        import aiohttp

        host = HUB_SERVER if self.name == HUB else self.name
        if not self._base and self._insecure:
            try:
                await self._ask(session, "GET", f"https://{host}/v2/")
                self._base = f"https://{host}"
            except (aiohttp.ClientConnectorSSLError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                self._base = f"http://{host}"
        self._base = self._base or f"https://{host}"
        return self._base

    def _basic(self) -> dict[str, str]:
        if self._login is None:
            return {}
        pair = f"{self._login.username}:{self._login.password}".encode()
        return {"Authorization": f"Basic {b64encode(pair).decode()}"}

    def _make_trust(self) -> Trust:
        from ssl import create_default_context

        import aiohttp as _  # noqa: F401 - the first import takes 200 ms, here it is in a thread

        if self._insecure:
            return False
        authority = CERTIFICATES / self.name / "ca.crt"
        return create_default_context(cafile=str(authority)) if authority.exists() else True

    def _refused(self, status: int) -> StageFailed:
        if self._login is None:
            message = f"the registry {self.name} wants a login ({status}): declare one and name it in `secret:`"
            return StageFailed(message, kind=CauseKind.CONFIG)
        named = f" of the secret '{self._secret}'" if self._secret else ""
        return StageFailed(f"the registry {self.name} refused the login '{self._login.username}'{named} ({status})")

    def _denied(self, status: int, right: str) -> StageFailed:
        who = f"the login '{self._login.username}'" if self._login else "who has no login"
        named = f" of the secret '{self._secret}'" if self._secret else ""
        return StageFailed(
            f"{who}{named} may not {right} in the registry {self.name} ({status})", kind=CauseKind.CONFIG
        )

    def _unexpected(self, status: int, what: str) -> StageErrored:
        return StageErrored(f"the registry {self.name} answered {status} when asked for {what}")


def _codes(body: bytes) -> set[str]:
    """The error codes in a registry's answer (OCI distribution, "error codes")."""
    try:
        errors = json.loads(body).get("errors") or ()
        return {str(error.get("code", "")) for error in errors}
    except (ValueError, AttributeError, TypeError):
        return set()
