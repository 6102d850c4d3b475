"""`registered_in:`: in which registry the pods of a deploy have to be known, and under which names."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from pipeline.errors import nearest
from pipeline.stage import CauseKind, Login, SecretName, StageFailed, Surroundings, is_open
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.needs import NeedName, parse_need
from stages.clients.kubernetes.objects import Ref
from stages.clients.nacos import Nacos, server_url

__all__ = ["InNacos", "RegisteredIn", "services_of"]

_REGISTER = ("Deployment", "StatefulSet", "DaemonSet")


def _address(text: str) -> str:
    if not is_open(text):
        server_url(text)
    return text


class InNacos(BaseModel):
    """Where and as what pods have to be registered."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    server: Annotated[str, Field(min_length=1), AfterValidator(_address)]
    """`HOST:PORT` or URL of the Nacos server, as this machine reaches it; its context path is `/nacos` unless said."""
    namespace: str = ""
    """The id of the Nacos namespace; `public` unless said."""
    group: str = "DEFAULT_GROUP"
    """The group of the service."""
    service: str = ""
    """The name of the service; that of the workload unless said."""
    workloads: tuple[NeedName, ...] = ()
    """Whose pods register, by `name` or `kind/name`: every Deployment, StatefulSet and DaemonSet unless said."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port that has to be registered; any unless said."""
    secret: SecretName = ""
    """The login to the Nacos server, if it wants one."""

    def client(self, ctx: Surroundings) -> Nacos:
        """A client of that server, with the secret's login."""
        login = ctx.secret(self.secret) if self.secret else None
        given = login if isinstance(login, Login) else None
        return Nacos(server_url(self.server), self.namespace, self.group, given, self.secret)


class RegisteredIn(BaseModel):
    """The registry in which services find each other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nacos: InNacos
    """A Nacos server."""


def services_of(fields: InNacos, manifests: Iterable[Manifest]) -> dict[Ref, str]:
    """Under which name the pods of each workload of a deploy have to be registered.

    Raises:
        StageFailed: (config) there is no such workload.
    """
    refs = [manifest.ref for manifest in manifests if manifest.ref.kind in _REGISTER]
    wanted = [parse_need(text) for text in fields.workloads]
    for need in wanted:
        if not any(need.matches(ref) for ref in refs):
            names = [ref.name for ref in refs]
            message = f"registered_in: this deploy has no workload {need} ({nearest(need.name, names)})"
            raise StageFailed(message, kind=CauseKind.CONFIG)
    if not refs:
        message = f"registered_in: this deploy has no workload whose pods could register ({', '.join(_REGISTER)})"
        raise StageFailed(message, kind=CauseKind.CONFIG)
    chosen = [ref for ref in refs if not wanted or any(need.matches(ref) for need in wanted)]
    return {ref: fields.service or ref.name for ref in chosen}
