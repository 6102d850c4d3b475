"""What one sandbox consists of: its addresses, and which parts are its own rather than the user's."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

REGISTRY_PORT = 5000
APISERVER_PORT = 6443
# The state folder's path inside the namespaces: short, and the same in every checkout.
INSIDE = Path("/run/pipe")


@dataclass(frozen=True)
class Blueprint:
    """Everything the first process has to know; `gateway` is None without namespaces of its own."""

    identity: str
    home: str
    node: str
    gateway: str | None
    git_port: int
    smtp_port: int
    nameservers: tuple[str, ...] = ()
    engine: bool = True
    cluster: bool = True
    registry: bool = True

    @property
    def isolated(self) -> bool:
        """Whether it runs in namespaces of its own."""
        return self.gateway is not None

    @property
    def folder(self) -> Path:
        """The state folder as the parts see it."""
        return Path(self.home)

    @property
    def registry_address(self) -> str:
        """The registry's name for docker, the cluster and the user alike."""
        return f"{self.node}:{REGISTRY_PORT}"

    def save(self, path: Path) -> None:
        """Write it down for the first process."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Blueprint":
        """Read what `save` wrote."""
        values = json.loads(path.read_text())
        return cls(**{**values, "nameservers": tuple(values["nameservers"])})
