"""What a cluster can be asked, in plain dicts; paths come from its own discovery."""

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

import anyio

from pipeline.stage import CauseKind, StageFailed
from stages.clients.kubernetes.objects import NAMESPACE, Object, Ref, identity, is_namespace
from stages.clients.kubernetes.transport import ApiError, Request, Transport, Unreachable, cut, transport_errors

__all__ = ["FIELD_MANAGER", "Applied", "Cluster", "Collection", "Resource", "UnknownKind"]

FIELD_MANAGER = "pipe"
_MANAGED = ("fieldManager", FIELD_MANAGER)
_VERSION = re.compile(r"([a-z0-9][-a-z0-9.]*/)?v[a-z0-9]+")
_HEARTBEAT = 70.0
"""Seconds after which a watch that says nothing is dead: a server sends a bookmark about every minute."""
_LOG_BYTES = 262_144
_LOG_WIDTH = 2_000
"""Of a log's line: nobody reads more, and every reader of logs takes as long as they are."""
_WARNING = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')


class UnknownKind(StageFailed):
    """The cluster has no such kind."""

    def __init__(self, ref: Ref) -> None:
        super().__init__(f"the cluster knows no {ref.kind} of {ref.api_version}", kind=CauseKind.CONFIG)


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is called in paths (`deployments`), and whether its objects live in namespaces."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """The path of one object, or of all when there is no name.

        Raises:
            StageFailed: (config) a name is none that Kubernetes gives, and would lead to another path.
        """
        if self.namespaced and namespace and not is_namespace(namespace):
            raise StageFailed(f"'{namespace}' is no name of a namespace: {NAMESPACE}", kind=CauseKind.CONFIG)
        # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#path-segment-names
        if name in (".", "..") or "/" in name or "%" in name:
            raise StageFailed(f"'{name}' is no name of a {self.kind}: / and % are in none", kind=CauseKind.CONFIG)
        inside = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        return f"{_root(self.api_version)}{inside}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")


@dataclass(frozen=True, slots=True)
class Collection:
    """Objects of one kind in one namespace, all or those that a selector names."""

    api_version: str
    kind: str
    namespace: str
    labels: str = ""
    fields: str = ""

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """The selectors as query parameters."""
        pairs = (("labelSelector", self.labels), ("fieldSelector", self.fields))
        return tuple((name, value) for name, value in pairs if value)

    def __str__(self) -> str:
        return self.kind + (f" in {self.namespace}" if self.namespace else "")


@dataclass(frozen=True, slots=True)
class Applied:
    """What the cluster made of an applied object, and what it warns of."""

    object: Object
    warnings: tuple[str, ...] = ()


# What a server calls its kinds does not change while a process lives; new kinds are looked up again.
_DISCOVERED: dict[tuple[str, str], dict[str, Resource]] = {}


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster and who we are there. Use as `async with`; every method raises what `Transport.send` does."""

    transport: Transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await self.transport.close()

    @property
    def server(self) -> str:
        """Its address."""
        return self.transport.server

    @property
    def account(self) -> str:
        """Who we are there."""
        return self.transport.account

    @property
    def now(self) -> datetime:
        """The time by its own clock, as far as it has told: by that the times on its objects are meant."""
        return self.transport.clock.now

    async def tell_version(self) -> str:
        """Which Kubernetes it is, empty if we may not know."""
        try:
            answer = await self._json(Request("GET", "/version", "read its version"))
        except ApiError:
            return ""
        return str(answer.get("gitVersion", ""))

    async def resource(self, api_version: str, kind: str) -> Resource | None:
        """How the cluster calls a kind, None if it has no such kind.

        Raises:
            StageFailed: (config) it is no API version at all.
        """
        if not _VERSION.fullmatch(api_version):
            raise StageFailed(f"'{api_version}' is no API version such as apps/v1", kind=CauseKind.CONFIG)
        key = (self.server, api_version)
        if kind not in _DISCOVERED.get(key, {}):
            _DISCOVERED[key] = await self._discover(api_version)
        return _DISCOVERED[key].get(kind)

    async def served(self, ref: Ref) -> Ref | None:
        """The same object by a version of its group that the cluster serves; None if it has no such kind any more.

        Versions go while objects stay: what was written as policy/v1beta1 is read as policy/v1.
        """
        if await self.resource(ref.api_version, ref.kind):
            return ref
        for version in await self._versions(ref) if ref.group else ():
            if await self.resource(version, ref.kind):
                return replace(ref, api_version=version)
        return None

    async def get(self, ref: Ref) -> Object | None:
        """An object, None if there is none."""
        try:
            return await self._json(Request("GET", await self._path(ref), f"get {ref}"))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def items(self, what: Collection) -> tuple[list[Object], str]:
        """The objects of a collection, and the resource version that a watch goes on from."""
        answer = await self._json(Request("GET", await self._path_of(what), f"list {what}", what.query))
        found = [{"apiVersion": what.api_version, "kind": what.kind, **each} for each in answer.get("items") or ()]
        return found, answer["metadata"]["resourceVersion"]

    async def version(self, what: Collection) -> str:
        """The resource version that a collection has now, without what is in it."""
        path, query = await self._path_of(what), (("limit", "1"), *what.query)
        answer = await self._json(Request("GET", path, f"list {what}", query))
        return str(answer["metadata"]["resourceVersion"])

    async def watch(self, what: Collection, version: str, seconds: int) -> AsyncGenerator[Object, None]:
        """Events `{type, object}` after a resource version, for at most `seconds` (70 when the line is dead).

        Bookmarks are among them (https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks).

        Raises:
            ApiError: also for an `ERROR` event inside the stream, so that 410 comes in one form.
        """
        action = f"watch {what}"
        words = (("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version))
        query = (*words, ("timeoutSeconds", str(seconds)), *what.query)
        path = await self._path_of(what)
        answer = await self.transport.send(Request("GET", path, action, query, seconds=seconds + 5, stream=True))
        try:
            while line := await self._next_line(answer.response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code") or 500), event["object"], action)
                yield event
        except transport_errors() as error:
            raise self.transport.broken(error) from error
        except json.JSONDecodeError as error:
            raise Unreachable(self.server, "the watch was cut") from error
        finally:
            cut(answer.response)

    async def _next_line(self, content: Any) -> bytes:
        try:
            with anyio.fail_after(_HEARTBEAT):
                line: bytes = await content.readline()
        except TimeoutError as error:
            raise Unreachable(self.server, f"a watch said nothing for {_HEARTBEAT:g} s") from error
        return line

    async def apply(
        self, thing: Object, *, dry_run: bool = False, force: bool = False, manager: str = FIELD_MANAGER
    ) -> Applied:
        """Server-side apply; unknown fields are refused, and without `force` fields that others own.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/
        """
        ref = identity(thing)
        words = (("fieldManager", manager), ("force", str(force).lower()), ("fieldValidation", "Strict"))
        query = (*words, *([("dryRun", "All")] if dry_run else []))
        path = await self._path(ref)
        answer = await self.transport.send(
            Request("PATCH", path, f"patch {ref}", query, thing, "application/apply-patch+yaml")
        )
        warnings = [_WARNING.match(line) for line in answer.headers.getall("Warning", ())]
        return Applied(json.loads(answer.data), tuple(match[1] for match in warnings if match))

    async def create(self, thing: Object, *, dry_run: bool = False) -> Object:
        """Make an object that must not exist yet; ApiError 409 if it does."""
        version, kind, metadata = thing["apiVersion"], thing["kind"], thing["metadata"]
        ref = Ref(version, kind, metadata.get("namespace") or "", metadata.get("name") or "")
        path = await self._path(Ref(ref.api_version, ref.kind, ref.namespace, ""))
        query = (_MANAGED, *([("dryRun", "All")] if dry_run else []))
        return await self._json(Request("POST", path, f"create {ref}", query, thing))

    async def ask(self, request: Request) -> Object:
        """The answer to a question that no object of the cluster is."""
        return await self._json(request)

    async def replace(self, thing: Object) -> Object:
        """Put an object in the place of the version that its `resourceVersion` names; else ApiError 409."""
        ref = identity(thing)
        return await self._json(Request("PUT", await self._path(ref), f"update {ref}", (_MANAGED,), thing))

    async def merge(self, ref: Ref, changes: Object) -> Object:
        """Change some fields of an object, whatever the others are: a JSON merge patch (RFC 7386)."""
        content = "application/merge-patch+json"
        path = await self._path(ref)
        return await self._json(Request("PATCH", path, f"patch {ref}", (_MANAGED,), changes, content))

    async def delete(self, ref: Ref, uid: str = "", version: str = "", *, dry_run: bool = False) -> None:
        """Delete an object, its dependants in the background; fine if there is none.

        `uid`: this very one, `version`: as it was then; else ApiError 409.
        """
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if only := {name: value for name, value in (("uid", uid), ("resourceVersion", version)) if value}:
            body["preconditions"] = only
        if dry_run:
            body["dryRun"] = ["All"]
        try:
            await self._json(Request("DELETE", await self._path(ref), f"delete {ref}", body=body))
        except ApiError as error:
            if error.status != 404:
                raise

    async def log(self, pod: Ref, container: str, *, previous: bool, lines: int) -> list[str]:
        """The last lines of a container's log, or of its incarnation before, fewer if they are long; empty if none."""
        path = f"{await self._path(pod)}/log"
        while True:
            words = (("container", container), ("previous", str(previous).lower()), ("tailLines", str(lines)))
            query = (*words, ("limitBytes", str(_LOG_BYTES)))
            try:
                answer = await self.transport.send(Request("GET", path, f"read the log of {pod}", query))
            except ApiError:
                return []
            # A log that is cut lacks its end, where the reason stands.
            if lines == 1 or len(answer.data) < _LOG_BYTES:
                break
            lines //= 2
        text: str = answer.data.decode(errors="replace")
        return [_narrow(line) for line in text.splitlines()[-lines:]]

    async def _discover(self, api_version: str) -> dict[str, Resource]:
        try:
            answer = await self._json(Request("GET", _root(quote(api_version)), f"look up {api_version}"))
        except ApiError as error:
            if error.status == 404:
                return {}
            raise
        return {
            each["kind"]: Resource(api_version, each["kind"], each["name"], each["namespaced"])
            for each in answer.get("resources") or ()
            if "/" not in each["name"]
        }

    async def _versions(self, ref: Ref) -> list[str]:
        """The versions of an object's group, the one that the cluster prefers first; none if it has no such group."""
        try:
            group = await self._json(Request("GET", _root(quote(ref.group)), f"look up {ref.group}"))
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        found = [group.get("preferredVersion") or {}, *(group.get("versions") or ())]
        return [each["groupVersion"] for each in found if each]

    async def _path_of(self, what: Collection) -> str:
        return await self._path(Ref(what.api_version, what.kind, what.namespace, ""))

    async def _path(self, ref: Ref) -> str:
        resource = await self.resource(ref.api_version, ref.kind)
        if resource is None:
            raise UnknownKind(ref)
        return resource.path(ref.namespace, ref.name)

    async def _json(self, request: Request) -> Object:
        answer = await self.transport.send(request)
        try:
            found: Object = json.loads(answer.data)
        except ValueError:
            reason = f"{self.server} answers, but not as Kubernetes does: no JSON for '{request.action}'"
            raise StageFailed(reason, kind=CauseKind.CONFIG) from None
        return found


def _narrow(line: str) -> str:
    return line if len(line) <= _LOG_WIDTH else f"{line[:_LOG_WIDTH]}…"


def _root(api_version: str) -> str:
    return "/api/v1" if api_version == "v1" else f"/apis/{api_version}"
