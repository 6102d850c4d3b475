"""Helm 3 and Helm 4, for real: each compiled out of its Go module."""

from pathlib import Path

from sandbox.go_program import GoProgram

__all__ = ["HELM_3", "HELM_4"]

HELM_3 = GoProgram(
    name="helm3",
    version="3.22.0",
    source=Path(__file__).parent / "helm3",
    package="helm.sh/helm/v3/cmd/helm",
    flags=("-trimpath", "-ldflags", "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0"),
    packages=965,
    minutes=3,
    toolchain="1.26.2",
)

HELM_4 = GoProgram(
    name="helm4",
    version="4.3.1",
    source=Path(__file__).parent / "helm4",
    package="helm.sh/helm/v4/cmd/helm",
    flags=("-trimpath", "-ldflags", "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1"),
    packages=1184,
    minutes=4,
    toolchain="1.26.2",
)
