"""A throw-away world to run against: docker engine, registry, git host, mail sink and a real Kubernetes."""

from sandbox.layout import SandboxError
from sandbox.lifecycle import Sandbox, ensure, running

__all__ = ["Sandbox", "SandboxError", "ensure", "running"]
