"""What the user already has and wants to be used."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sandbox.layout import Layout, SandboxError


@dataclass(frozen=True)
class Given:
    """What the user already has and wants to be used, by the variables of the caller's environment."""

    engine: str = ""
    kubeconfig: str = ""
    registry: str = ""
    registry_user: str = ""
    registry_password: str = ""

    @property
    def everything(self) -> bool:
        """Whether nothing is left that needs namespaces."""
        return all((self.engine, self.kubeconfig, self.registry))

    @classmethod
    def read(cls, variables: Mapping[str, str], layout: Layout) -> "Given":
        """Return what `variables` say; raises SandboxError for a registry without its login."""
        if variables.get("PIPE_SANDBOX") == str(layout.state):
            return cls()
        names = ("DOCKER_HOST", "PIPE_KUBECONFIG", "PIPE_REGISTRY", "PIPE_REGISTRY_USER", "PIPE_REGISTRY_PASSWORD")
        given = cls(*(variables.get(name, "") for name in names))
        if given.registry and not (given.registry_user and given.registry_password):
            raise SandboxError("PIPE_REGISTRY is set, so PIPE_REGISTRY_USER and PIPE_REGISTRY_PASSWORD must be, too")
        if not given.registry:  # a login without its registry is not ours to use
            given = replace(given, registry_user="", registry_password="")
        if given.kubeconfig and not Path(given.kubeconfig).is_file():
            raise SandboxError(f"PIPE_KUBECONFIG is set to {given.kubeconfig}, which is no file")
        return given
