"""A shop of ten small services: an image and a manifest each, and one pipeline that releases them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.conftest import World
from tests.support.program import events_of, pipe

__all__ = ["FOREVER", "SERVICES", "Shop"]

SERVICES = [f"service-{letter}" for letter in "abcdefghij"]

PIPELINE = """
name: shop
params: {registry: {env: REGISTRY}, org: {env: ORG}, namespace: {env: NAMESPACE}}
secrets: {registry: login, kubeconfig: file}
vars:
  services: [SERVICES]
stages:
  image:
    each: ${vars.services}
    uses: image
    with: {context: "${each.name}", image: "${params.registry}/${params.org}/${each.name}", tag: "r${run.number}"}
  push:
    needs: image
    each: ${vars.services}
    uses: push
    with: {image: "${stages.image.ref}", secret: registry}
  deploy:
    needs: {push: all}
    each: ${vars.services}
    uses: deploy
    with:
      manifests: ["${each.name}/deploy.yml"]
      images: ["${stages.push.digest_ref}"]
      namespace: ${params.namespace}
      secret: kubeconfig
      pull_secret: registry
      wait: 60s
"""

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      imagePullSecrets: [{{name: login}}]
      containers:
        - name: app
          image: {name}
          command: [sh, -c, {command}]
          resources: {{requests: {{cpu: 5m, memory: 8Mi}}}}
{extra}
"""
FOREVER = "sleep 3600"


class Shop:
    """Ten services in a folder, each an image and a manifest."""

    def __init__(self, folder: Path, world: World, namespace: str, services: list[str]) -> None:
        self.folder = folder
        self.env = world.env(ORG=namespace, NAMESPACE=namespace)
        self.services = services
        (folder / "pipeline.yaml").write_text(PIPELINE.replace("SERVICES", ", ".join(services)))
        for name in services:
            self.service(name)

    def service(self, name: str, command: str = FOREVER, extra: str = "", dockerfile: str = "") -> None:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        (place / "Dockerfile").write_text(dockerfile or f"FROM busybox:1\nRUN echo {name} > /name\n")
        (place / "deploy.yml").write_text(MANIFEST.format(name=name, command=json.dumps(command), extra=extra))

    def run(self, **env: str) -> subprocess.CompletedProcess[str]:
        return pipe(self.folder, "run", "pipeline.yaml", env={**self.env, **env}, limit=240)

    def finished(self) -> dict[str, dict[str, Any]]:
        return {e["stage"]: e for e in events_of(self.folder, "shop") if e["type"] == "stage.finished"}

    def outcomes(self, stage: str) -> list[str]:
        return [e["outcome"] for name, e in self.finished().items() if name.startswith(f"{stage}[")]
