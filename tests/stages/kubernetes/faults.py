"""Faults that a deploy can have, each with what its first line must say and what its evidence must hold.

docs/diagnosis.md is made of them: `python -m tests.stages.kubernetes.faults`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.stages.kubernetes.support import app

__all__ = ["FAULTS", "Fault", "page"]

LOGS = Path(__file__).parent / "logs"
PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "diagnosis.md"


@dataclass(frozen=True)
class Fault:
    """One fault. `{registry}` and `{namespace}` are filled into its texts.

    `said` is in the first line, `holds` in the evidence, `hint` in what to do. `around` are objects that are made
    first, beside the deploy; `lasting` says that waiting longer would not help, so that the wait ends early.
    """

    name: str
    what: str
    text: str
    said: str
    holds: str
    hint: str
    lasting: bool = True
    fields: Mapping[str, Any] = field(default_factory=dict)
    around: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    pull: str = ""
    """The password of a pull secret that is there already."""


SHORT = {"wait": "45s"}
"""For what may still pass: it is told when the wait is over."""


def shell(command: str, **more: Any) -> str:
    return app("web", command, **more)


def crash(name: str, what: str, said: str, holds: str, hint: str, *, log: str = "") -> Fault:
    """A program that writes a recorded log and ends."""
    text = (LOGS / f"{log or name}.txt").read_text()
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "log"}, "data": {"text": text}}
    deployment = app(
        "web",
        "cat /log/text; exit 1",
        container="volumeMounts: [{name: log, mountPath: /log}]",
        pod="volumes: [{name: log, configMap: {name: log}}]",
    )
    both = f"{yaml.safe_dump(config)}---\n{deployment}"
    return Fault(name, what, both, said, holds, hint, fields={"substitute": False})


def image(reference: str, **more: Any) -> str:
    return app("web", **more).replace("image: busybox", f"image: '{reference}'")


def claim(storage_class: str) -> str:
    name = f"storageClassName: {storage_class}, " if storage_class else ""
    return (
        "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\n"
        f"spec: {{{name}accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}\n"
    )


def job(command: str, more: str = "") -> str:
    return f"""
apiVersion: batch/v1
kind: Job
metadata: {{name: move}}
spec:
  backoffLimit: 0
  {more}
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      imagePullSecrets: [{{name: pull}}]
      containers: [{{name: app, image: busybox, command: [sh, -c, {json.dumps(command)}]}}]
"""


QUOTA = "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: none}\nspec: {hard: {pods: '0'}}\n"
RANGE = """---
apiVersion: v1
kind: LimitRange
metadata: {name: small}
spec: {limits: [{type: Container, max: {memory: 16Mi}}]}
"""
POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: "{namespace}"}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}
  validations: [{expression: "has(object.metadata.labels.team)", message: every pod must name its team}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: "{namespace}"}
spec:
  policyName: "{namespace}"
  validationActions: [Deny]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "{namespace}"}}}
"""
WEBHOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: "{namespace}"}
webhooks:
  - name: guard.example.com
    admissionReviewVersions: [v1]
    sideEffects: None
    timeoutSeconds: 2
    clientConfig: {service: {namespace: "{namespace}", name: guard}}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "{namespace}"}}
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: "{namespace}", labels: {only-for: "{namespace}"}}
spec: {taints: [{key: dedicated, value: gpu, effect: NoSchedule}]}
"""
HTTP = "mkdir /www && httpd -f -p 8080 -h /www"

FAULTS: tuple[Fault, ...] = (
    # -- images
    Fault(
        "tag",
        "the tag was never pushed",
        image("{registry}/lib/busybox:nope"),
        "its image cannot be pulled: there is no such image",
        "busybox:nope: not found",
        "push that tag first",
        fields={"images": []},
    ),
    Fault(
        "repository",
        "there is no such repository",
        image("{registry}/lib/nosuch:1"),
        "its image cannot be pulled: there is no such image",
        "nosuch:1: not found",
        "push that tag first",
        fields={"images": []},
    ),
    Fault(
        "no-pull-secret",
        "the registry wants a login, the pod names no pull secret",
        image("{registry}/lib/busybox:1", container="imagePullPolicy: Always").replace(
            "imagePullSecrets: [{name: pull}]", ""
        ),
        "access denied, as the pod names no pull secret",
        "401 Unauthorized",
        "`pull_secret:`",
        fields={"images": [], "pull_secret": ""},
    ),
    Fault(
        "pull-secret-missing",
        "the pull secret that the pod names is not there",
        image("{registry}/lib/busybox:1", container="imagePullPolicy: Always"),
        "access denied, as there is no pull secret pull",
        "FailedToRetrieveImagePullSecret",
        "`pull_secret:`",
        fields={"images": [], "pull_secret": ""},
    ),
    Fault(
        "pull-secret-wrong",
        "the pull secret has a wrong password",
        image("{registry}/lib/busybox:1", container="imagePullPolicy: Always"),
        "access denied to the login in the pull secret pull",
        "401 Unauthorized",
        "may read this repository",
        fields={"images": [], "pull_secret": ""},
        pull="wrong-password",
    ),
    Fault(
        "image-name",
        "the image's name is none",
        image("Not An Image"),
        "its image cannot be used: InvalidImageName",
        "InspectFailed",
        "HOST/NAME:TAG",
        fields={"images": []},
    ),
    Fault(
        "platform",
        "the image is for another architecture only",
        image("{registry}/lib/foreign:1"),
        "its image cannot be pulled: not made for this node's architecture",
        "no match for platform in manifest",
        "build the image for the architecture of the nodes",
        fields={"images": []},
    ),
    # -- what a container needs to begin
    Fault(
        "configmap",
        "a ConfigMap of the environment is missing",
        shell("sleep 99", container="envFrom: [{configMapRef: {name: settings}}]"),
        'it cannot be started: configmap "settings" not found',
        'configmap "settings" not found',
        "put that ConfigMap",
    ),
    Fault(
        "secret",
        "a Secret of the environment is missing",
        shell("sleep 99", container="envFrom: [{secretRef: {name: passwords}}]"),
        'it cannot be started: secret "passwords" not found',
        'secret "passwords" not found',
        "make that Secret",
    ),
    Fault(
        "configmap-key",
        "a key of a ConfigMap is missing",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {other: a}\n---\n"
        + shell("sleep 99", container="env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: url}}}]"),
        "it cannot be started: couldn't find key url in ConfigMap",
        "couldn't find key url in ConfigMap",
        "put that ConfigMap with that key",
    ),
    Fault(
        "secret-key",
        "a key of a Secret is missing",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: passwords}\nstringData: {other: a}\n---\n"
        + shell("sleep 99", container="env: [{name: A, valueFrom: {secretKeyRef: {name: passwords, key: mysql}}}]"),
        "it cannot be started: couldn't find key mysql in Secret",
        "couldn't find key mysql in Secret",
        "make that Secret with that key",
    ),
    Fault(
        "volume-configmap",
        "a ConfigMap of a volume is missing",
        shell(
            "sleep 99",
            container="volumeMounts: [{name: v, mountPath: /v}]",
            pod="volumes: [{name: v, configMap: {name: pages}}]",
        ),
        'a volume cannot be mounted: MountVolume.SetUp failed for volume "v" : configmap "pages" not found',
        'configmap "pages" not found',
        "put that ConfigMap",
    ),
    Fault(
        "volume-secret-key",
        "a key of a Secret's volume is missing",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {other: a}\n---\n"
        + shell(
            "sleep 99",
            container="volumeMounts: [{name: v, mountPath: /v}]",
            pod="volumes: [{name: v, secret: {secretName: keys, items: [{key: tls, path: tls}]}}]",
        ),
        "a volume cannot be mounted:",
        "references non-existent secret key: tls",
        "make that Secret with that key",
    ),
    Fault(
        "command",
        "the image has no such program",
        shell("sleep 99").replace("command: [sh, -c, 'sleep 99']", "command: [serve]"),
        'exec: "serve": executable file not found in $PATH',
        "executable file not found",
        "correct `command:`",
    ),
    Fault(
        "format",
        "the program is of another architecture, or a script without #!",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bin}\ndata: {run: echo up}\n---\n"
        + shell(
            "sleep 99",
            container="volumeMounts: [{name: bin, mountPath: /app}]",
            pod="volumes: [{name: bin, configMap: {name: bin, defaultMode: 0755}}]",
        ).replace("command: [sh, -c, 'sleep 99']", "command: [/app/run]"),
        "exec format error",
        "exec format error",
        "architecture of the nodes",
    ),
    Fault(
        "root",
        "the pod must not run as root, and the image does",
        shell("sleep 99", container="securityContext: {runAsNonRoot: true}"),
        "it cannot be started: container has runAsNonRoot and image will run as root",
        "runAsNonRoot",
        "numeric USER",
    ),
    # -- crashes
    Fault(
        "exit-code",
        "the program ends with an exit code",
        shell("echo starting; echo cannot open /data/ledger.db >&2; exit 3"),
        "it crashed with exit code 3, 3 times so far; its last words: cannot open /data/ledger.db",
        "cannot open /data/ledger.db",
        "read the log",
    ),
    Fault(
        "exit-zero",
        "the program ends well, where it must keep running",
        shell("echo all done"),
        "it ended by itself with exit code 0, but it must keep running",
        "all done",
        "use a Job",
    ),
    Fault(
        "init",
        "an init container fails",
        shell(
            "sleep 99",
            pod="initContainers: [{name: prepare, image: busybox, command: [sh, -c, 'echo no disk; exit 4']}]",
        ),
        "it crashed with exit code 4, 3 times so far; its last words: no disk",
        "log of prepare",
        "read the log",
    ),
    Fault(
        "memory",
        "it uses more memory than its limit",
        shell(
            "echo filling; exec dd if=/dev/zero of=/dev/null bs=64M count=9",
            container="resources: {limits: {memory: 16Mi}}",
        ),
        "for using more memory than its limit of 16Mi, 3 times so far",  # surely or, if its node lost word, most likely
        "filling",
        "raise `resources.limits.memory`",
    ),
    crash(
        "spring-port",
        "Spring Boot: the port is taken",
        "Web server failed to start. Port 18765 was already in use.",
        "APPLICATION FAILED TO START",
        "listening on port 18765",
    ),
    crash(
        "spring-bean",
        "Spring Boot: a bean is missing",
        "required a bean of type 'demo.SmsGateway' that could not be found.",
        "APPLICATION FAILED TO START",
        "defining a bean of type 'demo.SmsGateway'",
    ),
    crash(
        "spring-datasource",
        "Spring Boot: no data source is configured",
        "Failed to configure a DataSource: 'url' attribute is not specified",
        "Reason: Failed to determine a suitable driver class",
        "put it on the classpath",
    ),
    crash(
        "spring-placeholder",
        "Spring Boot: a property has no value",
        "Could not resolve placeholder 'payment.key'",
        "Error creating bean with name 'payment'",
        "read the log",
    ),
    crash(
        "spring-refused",
        "Spring Boot: a service that it calls does not listen",
        "connection refused to http://127.0.0.1:8848/nacos",
        "I/O error on GET request",
        "runs and listens there",
    ),
    crash(
        "spring-unknown-host",
        "Spring Boot with MySQL: the host has no address",
        "there is no host 'mysql': java.net.UnknownHostException: mysql",
        "Communications link failure",
        "check the name 'mysql'",
    ),
    crash(
        "spring-mysql-refused",
        "Spring Boot with MySQL: the database does not listen",
        "connection refused: java.net.ConnectException: Connection refused (com.mysql.cj",
        "Communications link failure",
        "runs and listens there",
    ),
    crash(
        "java-cause",
        "Java: an exception with causes",
        'java.lang.NullPointerException: Cannot invoke "String.length()"',
        "Caused by: java.lang.IllegalStateException: cannot read /data/ledger.db",
        "read the log",
    ),
    crash(
        "java-heap",
        "Java: the heap is full",
        "java.lang.OutOfMemoryError: Java heap space",
        "loading the catalogue",
        "raise -Xmx",
    ),
    crash("java-jar", "Java: there is no such jar", "Unable to access jarfile /app.jar", "/app.jar", "read the log"),
    crash(
        "node-server",
        "Node.js: a module is missing",
        "Error: Cannot find module 'redis-client'",
        "Require stack:",
        "read the log",
    ),
    crash(
        "node-redis",
        "Node.js: Redis does not listen",
        "connection refused to 127.0.0.1:6379",
        "ECONNREFUSED",
        "127.0.0.1:6379 runs and listens",
    ),
    crash(
        "node-bad",
        "Node.js: an error that nobody catches",
        "TypeError: Cannot read properties of undefined (reading 'url') at /app/bad.js:3:34",
        "module.exports = config.database.url;",
        "read the log",
    ),
    crash("python", "Python: an exception", "KeyError: 'database' at /app/app.py:3", "Traceback", "read the log"),
    crash("go-panic", "Go: a panic", "panic: assignment to entry in nil map at /app/main.go:3", "goroutine 1", "read"),
    crash(
        "nginx-host",
        "nginx: an upstream has no address",
        "there is no host 'server-gateway.his.svc.invalid'",
        "host not found in upstream",
        "check the name",
    ),
    crash(
        "nginx-syntax",
        "nginx: its configuration is wrong",
        'directive "listen" is not terminated by ";"',
        "[emerg]",
        "read the log",
    ),
    # -- probes
    Fault(
        "readiness-refused",
        "nothing listens where the readiness probe asks",
        shell(
            "echo up; sleep 99", container="readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}"
        ),
        "its readiness probe (GET :8080/health) does not pass",
        "connection refused",
        "compare the probe's port",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "readiness-404",
        "the page of the readiness probe is not there",
        shell(HTTP, container="readinessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1}"),
        "HTTP probe failed with statuscode: 404",
        "statuscode: 404",
        "correct the probe's path",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "liveness",
        "a liveness probe kills the container again and again",
        shell(
            "echo up; sleep 99",
            container="livenessProbe: {exec: {command: [cat, /alive]}, periodSeconds: 1, failureThreshold: 1}\n"
            "          readinessProbe: {exec: {command: [cat, /ready]}, periodSeconds: 1}",
        ),
        "its liveness probe (run cat /alive) does not pass",
        "/alive",
        "startupProbe",
        lasting=False,
        fields={"wait": "60s"},
    ),
    Fault(
        "startup",
        "a startup probe does not pass in time",
        shell(
            "echo up; sleep 99",
            container="startupProbe: {tcpSocket: {port: 9090}, periodSeconds: 1, failureThreshold: 99}",
        ),
        "its startup probe (connect to port 9090) does not pass",
        "connection refused",
        "compare the probe's port",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "deadline",
        "the progress deadline is over",
        shell("echo up; sleep 99", container="readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}").replace(
            "spec:\n  replicas", "spec:\n  progressDeadlineSeconds: 8\n  replicas", 1
        ),
        "no progress for 8 s",
        "Readiness probe failed",
        "correct the probe",
    ),
    # -- nodes and volumes
    Fault(
        "cpu",
        "no node has so much processor time free",
        shell("sleep 99", container="resources: {requests: {cpu: '900'}}"),
        "no node takes it: 0/",
        "Insufficient cpu",
        "lower `resources.requests`",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "room",
        "no node has so much memory free",
        shell("sleep 99", container="resources: {requests: {memory: 900Gi}}"),
        "Insufficient memory",
        "Insufficient memory",
        "lower `resources.requests`",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "selector",
        "no node has the label that the pod wants",
        shell("sleep 99", pod="nodeSelector: {disk: golden}"),
        "didn't match Pod's node affinity/selector",
        "node affinity/selector",
        "label a node so",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "taint",
        "the node that the pod wants has a taint",
        shell("sleep 99", pod="nodeSelector: {only-for: '{namespace}'}"),
        "untolerated taint",
        "taint",
        "toleration",
        lasting=False,
        fields={**SHORT, "substitute": False},
        around=NODE,
    ),
    Fault(
        "host-port",
        "another pod has the port of the node",
        shell("sleep 99", replicas=2, container="ports: [{containerPort: 80, hostPort: 17345}]"),
        "didn't have free ports for the requested pod ports",
        "free ports",
        "another pod has that hostPort",
        lasting=False,
        fields=SHORT,
    ),
    Fault(
        "storage-class",
        "a claim names a storage class that is not there",
        shell(
            "sleep 99",
            container="volumeMounts: [{name: v, mountPath: /v}]",
            pod="volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]",
        )
        + claim("golden"),
        'PersistentVolumeClaim {namespace}/data: it cannot be bound: storageclass.storage.k8s.io "golden" not found',
        "ProvisioningFailed",
        "name a storage class",
    ),
    Fault(
        "claim",
        "there is no such claim",
        shell(
            "sleep 99",
            container="volumeMounts: [{name: v, mountPath: /v}]",
            pod="volumes: [{name: v, persistentVolumeClaim: {claimName: lost}}]",
        ),
        'persistentvolumeclaim "lost" not found',
        'persistentvolumeclaim "lost" not found',
        "put that claim into `manifests:`",
    ),
    Fault(
        "host-path",
        "the folder of a hostPath volume is not there",
        shell(
            "sleep 99",
            container="volumeMounts: [{name: v, mountPath: /v}]",
            pod="volumes: [{name: v, hostPath: {path: /nowhere, type: Directory}}]",
        ),
        "hostPath type check failed: /nowhere is not a directory",
        "FailedMount",
        "correct the path",
        lasting=False,
        fields=SHORT,
    ),
    # -- rules of the cluster
    Fault(
        "quota",
        "the quota is used up",
        shell("sleep 99") + QUOTA,
        "pods cannot be made:",
        "exceeded quota: none",
        "ResourceQuota",
    ),
    Fault(
        "limit-range",
        "the container may have more than the LimitRange allows",
        shell("sleep 99", container="resources: {limits: {memory: 64Mi}}") + RANGE,
        "maximum memory usage per Container is 16Mi, but limit is 64Mi",
        "maximum memory usage per Container",
        "LimitRange",
    ),
    Fault(
        "pod-security",
        "the pod is not as the namespace's PodSecurity wants it",
        shell("sleep 99", container="securityContext: {privileged: true}"),
        'violates PodSecurity "baseline:latest": privileged',
        "violates PodSecurity",
        "securityContext",
        labels={"pod-security.kubernetes.io/enforce": "baseline"},
    ),
    Fault(
        "policy",
        "an admission policy denies the pod",
        shell("sleep 99"),
        "denied request: every pod must name its team",
        "every pod must name its team",
        "as that policy asks",
        around=POLICY,
    ),
    Fault(
        "webhook",
        "an admission webhook does not answer",
        shell("sleep 99"),
        'failed calling webhook "guard.example.com"',
        'service "guard" not found',
        "the service behind that webhook runs",
        around=WEBHOOK,
    ),
    Fault(
        "account",
        "the service account is not there",
        shell("sleep 99", pod="serviceAccountName: robot"),
        'serviceaccount "robot" not found',
        'serviceaccount "robot" not found',
        "put that ServiceAccount",
    ),
    # -- jobs
    Fault(
        "job",
        "a Job fails",
        job("echo table exists; exit 1"),
        "it has failed: BackoffLimitExceeded: Job has reached the specified backoff limit: ",
        "table exists",
        "read the log",
    ),
    Fault(
        "job-deadline",
        "a Job takes longer than it may",
        job("echo moving; sleep 99", "activeDeadlineSeconds: 4"),
        "it has failed: DeadlineExceeded: Job was active longer than specified deadline",
        "DeadlineExceeded",
        "activeDeadlineSeconds",
    ),
)


def page() -> str:
    """docs/diagnosis.md."""
    rows = [
        f"| {fault.what} | {_cell(fault.said)} | {_cell(fault.holds)} | {'early' if fault.lasting else 'at the limit'} |"
        for fault in FAULTS
    ]
    return INTRODUCTION.format(count=len(FAULTS)) + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return f"`{text.strip().replace('|', chr(92) + '|').replace('{namespace}', 'his')}`"


INTRODUCTION = """# Why a deploy is red

A deploy that fails says one cause first: object, pod, container and image, what is wrong with it, and, if a program ended, what its own log
says of why: the block of Spring Boot, the root of a Java exception, the uncaught error of Node.js or Python, a panic of Go, `[emerg]` of
nginx, the host or port that could not be had; else its last words. Behind it stand the events, the lines of the container's log that
matter (of the time before its last restart too) and what to do. `pipe doctor RUN` shows the same afterwards, from the run's own folder.

Each of these {count} faults is made on a real cluster by `tests/stages/kubernetes/test_real_diagnosis.py`, which compares the first line and
the evidence with this table. *Early*: waiting longer would not help, so the wait ends [when that is sure](deploy.md#when-it-is-red).
*At the limit*: it may still pass, so it is told when `wait` is over, and as progress before.

| fault | the first line says | the evidence holds | told |
| --- | --- | --- | --- |
"""

if __name__ == "__main__":
    PAGE.write_text(page())
