"""What to do about a trouble of pods, in the words of who wrote the manifest: a table."""

import re

__all__ = ["remedy"]

_REMEDIES: tuple[tuple[str, str, str], ...] = (
    ("image", "there is no such image", "push that tag first, or correct the image in the manifest or in `images:`"),
    (
        "image",
        "names no pull secret",
        "give the pods `imagePullSecrets` and the stage `pull_secret:`, or make the image public",
    ),
    ("image", "there is no pull secret", "name a login in `pull_secret:`, and the secret is made; or make it yourself"),
    ("image", "access denied", "see that the login in the pull secret may read this repository"),
    ("image", "architecture", "build the image for the architecture of the nodes"),
    ("image", "InvalidImageName", "correct the image's name in the manifest: HOST/NAME:TAG in small letters"),
    ("image", "", "see that the node reaches the registry, and that its name is right"),
    (
        "config",
        "configmap|config key|ConfigMap",
        "put that ConfigMap with that key into `manifests:`, or correct its name",
    ),
    ("config", "secret", "make that Secret with that key, or correct its name; `optional: true` if it may be missing"),
    ("config", "run as root|runAsNonRoot", "give the image a numeric USER, or the container `runAsUser`"),
    ("config", "executable file not found|no such file", "correct `command:`: the image has no such program"),
    ("config", "exec format error", "build the image for the architecture of the nodes; a script begins with #!"),
    ("config", "permission denied", "make that file executable in the image (`chmod +x`)"),
    (
        "create",
        "exceeded quota|must specify",
        "ask for less, remove what is not needed, or have the ResourceQuota raised",
    ),
    ("create", "PodSecurity", "change the pod's securityContext as the message says, or the namespace's level"),
    ("create", "usage per|LimitRange", "ask for as much as the LimitRange of the namespace allows"),
    ("create", "service ?account", "put that ServiceAccount into `manifests:`, or correct its name"),
    (
        "create",
        "failed calling webhook",
        "see that the service behind that webhook runs; without it no pod can be made",
    ),
    ("create", "webhook|Policy", "change the pod as that policy asks, or speak to who keeps it"),
    (
        "crash",
        "more memory than its limit",
        "raise `resources.limits.memory`, or have the program use less (Java: -Xmx)",
    ),
    (
        "crash",
        "exit code 0",
        "a Deployment is for what keeps running: use a Job, or keep the process in the foreground",
    ),
    ("crash", "architecture", "build the image for the architecture of the nodes"),
    ("crash", "exit code 137", "something killed it from outside: its node may be short of memory"),
    ("crash", "", "read the log above: the program ends by itself"),
    (
        "probe",
        "connection refused",
        "nothing listens there: compare the probe's port with the program's; a slow start wants a startupProbe",
    ),
    ("probe", "statuscode: 404", "correct the probe's path: the program has no such page"),
    ("probe", "statuscode", "ask that page yourself: the program says that it is not ready"),
    (
        "probe",
        "liveness|startup",
        "give a slow start a startupProbe with a larger failureThreshold, or correct the probe",
    ),
    ("probe", "", "correct the probe, or give the stage more time by `wait:`"),
    (
        "claim",
        "storageclass",
        "name a storage class that the cluster has (`kubectl get storageclass`), or none for its default one",
    ),
    ("claim", "not found", "put that claim into `manifests:`, or correct its name"),
    ("claim", "", "see why the volume is not made: `kubectl describe pvc`"),
    ("volume", "hostPath", "correct the path or the type of the hostPath volume"),
    ("volume", "", "see that the volume is free: another node may still hold it"),
    ("schedule", "Insufficient", "lower `resources.requests`, or give the cluster room"),
    ("schedule", "free ports", "another pod has that hostPort: take another one, or a Service instead"),
    ("schedule", "taint", "give the pod a toleration for that taint, or have it removed"),
    ("schedule", "affinity|selector", "correct `nodeSelector` or the affinity, or label a node so"),
    (
        "registry",
        "is missing",
        "compare the service's `spring.cloud.nacos.discovery` with `registered_in:`; its log says why it is not there",
    ),
    ("registry", "disabled", "somebody has taken it offline in the console: put it online again"),
    ("registry", "unhealthy", "see whether the service still sends its heartbeat: its log says so"),
    ("registry", "there is", "the service is registered on another port: correct `port:` of `registered_in:`"),
    ("registry", "of old pods", "end them so that they deregister (SIGTERM must reach the program), or wait longer"),
    ("", "DeadlineExceeded", "raise the Job's `activeDeadlineSeconds`, or see why it takes so long"),
    ("", "is paused", "`kubectl rollout resume` lets it go on; or take `paused` out of the manifest"),
    ("", "deleted|replaced", "see who else changes these objects, and deploy again"),
    ("", "is scaled to 0", "scale it up, or deploy it with replicas"),
    (
        "",
        "no workload or Service of that name",
        "correct the name in `waits_for:`, or deploy that too; `needs:` puts its stage before this one",
    ),
    ("", "its volume is lost", "see what became of the volume: `kubectl describe pvc`"),
    ("schedule", "Too many pods", "give the cluster room: its nodes hold no more pods"),
)


def remedy(sort: str, words: str) -> str:
    """The way out of a trouble of that sort about which these words are said; empty if none is known."""
    ways = [way for one, pattern, way in _REMEDIES if one == sort and re.search(pattern, words)]
    # each node may refuse a pod for a reason of its own
    return "; or ".join(ways if sort == "schedule" else ways[:1])
