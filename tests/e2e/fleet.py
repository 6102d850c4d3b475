"""A fleet of small services that only deploys: a ConfigMap, a Secret and a Deployment each, as one release."""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import World
from tests.support.program import PIPE, pipe
from tests.support.wait import until

__all__ = ["Fleet"]

PIPELINE = """
name: fleet
secrets: {{kubeconfig: file, registry: login}}
release: {release}
stages:
{before}
  deploy:
    {needs}
    each: [{services}]
    uses: deploy
    with:
      manifests: ["${{each.name}}.yml"]
      images: ["{image}"]
      namespace: {namespace}
      secret: kubeconfig
      pull_secret: registry
      wait: 2m
      {terms}
"""

SERVICE = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {{greeting: {greeting}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{password: {password}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      imagePullSecrets: [{{name: login}}]
      containers:
        - name: app
          image: busybox
          command: [sh, -c, {command}]
          envFrom: [{{configMapRef: {{name: {name}}}}}, {{secretRef: {{name: {name}}}}}]
          resources: {{requests: {{cpu: 2m, memory: 4Mi}}}}
          readinessProbe: {{exec: {{command: ["true"]}}, periodSeconds: 1, timeoutSeconds: 10}}
{more}
"""

FOREVER = "sleep 3600"


_STARTED: list["subprocess.Popen[bytes]"] = []


@contextmanager
def none_left() -> Iterator[None]:
    """End the runs that a test which failed has left under way: the next one would meet them in its cluster."""
    try:
        yield
    finally:
        for process in _STARTED:
            process.terminate()
        for process in _STARTED:
            process.wait(30)
        _STARTED.clear()


@dataclass
class Fleet:
    """Services in a folder; `write` says what the next run deploys, and `data` what is in the cluster."""

    folder: Path
    world: World
    namespace: str
    image: str
    services: tuple[str, ...] = ("sa", "sb", "sc")
    release: str = "{on_failure: rollback}"
    before: str = ""
    needs: str = ""
    terms: str = ""
    """Another line of what the deploys are told."""
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.env = self.world.env()

    def write(self, greeting: str, *, bad: Mapping[str, str] | None = None, extra: str = "") -> "Fleet":
        """Services that greet so; `bad` gives some of them another container, `extra` objects go with the first."""
        text = PIPELINE.format(
            release=self.release,
            before=self.before,
            needs=self.needs,
            terms=self.terms,
            services=", ".join(self.services),
            image=self.image,
            namespace=self.namespace,
        )
        (self.folder / "pipeline.yaml").write_text(text)
        for name in self.services:
            more = (bad or {}).get(name, "")
            service = SERVICE.format(
                name=name,
                greeting=greeting,
                password=password(name, greeting),
                command=json.dumps(FOREVER),
                more=f"        - {more}" if more else "",
            )
            (self.folder / f"{name}.yml").write_text(service + (extra if name == self.services[0] else ""))
        return self

    @property
    def broken(self) -> str:
        """A container whose image does not exist."""
        return f"{{name: bad, image: {self.world.sandbox.registry}/lib/nosuch:9}}"

    def pipe(self, *words: str, limit: float = 300) -> subprocess.CompletedProcess[str]:
        return pipe(self.folder, *words, env=self.env, limit=limit)

    def run(self) -> subprocess.CompletedProcess[str]:
        return self.pipe("run", "pipeline.yaml", "-o", "plain")

    def green(self) -> None:
        done = self.run()
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A run under way; its engine is a child of the process."""
        argv = [str(PIPE), *(words or ("run", "pipeline.yaml", "-o", "plain"))]
        with (self.folder / "out.txt").open("ab") as out:
            _STARTED.append(subprocess.Popen(argv, cwd=self.folder, env=self.env, stdout=out, stderr=out))
        return _STARTED[-1]

    @property
    def said(self) -> str:
        """What started runs have printed."""
        return (self.folder / "out.txt").read_text()

    # -- what is there -----------------------------------------------------------------------------

    def data(self) -> dict[str, tuple[str, str]]:
        """Each service with the greeting of its ConfigMap and the password of its Secret."""
        config = {item["metadata"]["name"]: item for item in self.world.objects(self.namespace, "configmaps")}
        secret = {item["metadata"]["name"]: item for item in self.world.objects(self.namespace, "secrets")}
        return {
            name: (
                config[name]["data"]["greeting"],
                base64.b64decode(secret[name]["data"]["password"]).decode(),
            )
            for name in self.services
        }

    def greeting(self, text: str) -> dict[str, tuple[str, str]]:
        """What `data` is when every service greets so."""
        return {name: (text, password(name, text)) for name in self.services}

    def seen_by_pods(self) -> dict[str, set[str]]:
        """The greeting that the running pods of each service were started with."""
        found: dict[str, set[str]] = {}
        for pod in self.world.objects(self.namespace, "pods"):
            metadata = pod["metadata"]
            name = metadata["labels"].get("app", "")
            if name and not metadata.get("deletionTimestamp") and pod["status"]["phase"] == "Running":
                said = self.world.kubectl("-n", self.namespace, "exec", metadata["name"], "-c", "app", "--", "env")
                found.setdefault(name, set()).update(
                    line.partition("=")[2] for line in said.splitlines() if line.startswith("greeting=")
                )
        return found

    def releases(self) -> list[dict[str, Any]]:
        """What `pipe releases --json` says, the newest first."""
        done = self.pipe("releases", "fleet", "-n", self.namespace, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def outcomes(self) -> dict[str, str]:
        return {each["release"]: each["outcome"] for each in self.releases()}

    def events(self, pipeline: str = "fleet", number: int = 1) -> list[dict[str, Any]]:
        folder = self.folder / ".pipe" / pipeline / str(number)
        lines = [line for path in sorted(folder.glob("events.*.jsonl")) for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines if line.endswith("}")]

    def until_event(self, number: int, *, pipeline: str = "fleet", **wanted: str) -> None:
        """Wait for an event of a run whose fields begin so."""

        def there() -> bool:
            try:
                events = self.events(pipeline, number)
            except FileNotFoundError:
                return False
            return any(
                all(str(event.get(key, "")).startswith(text) for key, text in wanted.items()) for event in events
            )

        until(there, limit=90)

    def wrote_no_password(self) -> bool:
        """Whether no file of any run holds the data of a Secret, in clear or as Kubernetes writes it."""
        needles = [b"hunter2", base64.b64encode(b"hunter2")[:8]]
        files = [path for path in (self.folder / ".pipe").rglob("*") if path.is_file()]
        assert files
        return not any(needle in path.read_bytes() for path in files for needle in needles)


def password(name: str, greeting: str) -> str:
    return f"hunter2-{name}-{greeting}"


def engine_of(process: subprocess.Popen[bytes]) -> int:
    """The engine that a guardian has started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: children.read_text().split(), limit=20)
    return int(children.read_text().split()[0])


def kill(process: subprocess.Popen[bytes]) -> None:
    """End an engine and its guardian as a power cut would."""
    os.kill(engine_of(process), signal.SIGKILL)
    process.kill()
    process.wait(20)
