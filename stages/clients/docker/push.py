"""A push by the engine: its events, and what they mean when it fails."""

from collections.abc import Callable, Mapping

from pipeline.stage import CauseKind, Login, StageErrored, StageFailed
from stages.clients.docker.engine import DENIED, TEMPORARY, Engine, Event, Progress, Streaming, as_auth
from stages.clients.oci import Reference

__all__ = ["Push", "push_trouble"]


class Push(Streaming):
    """One push; call it in a thread."""

    def __init__(self, engine: Engine, reference: Reference, log: Callable[[bytes], None], progress: Progress) -> None:
        super().__init__(engine)
        self._reference = reference
        self._log = log
        self._progress = progress
        self._digest = ""
        self._layers: dict[str, tuple[int, int]] = {}

    def __call__(self) -> str:
        """Push, and return the digest that the engine says the registry has now.

        Raises:
            StageFailed: the registry denies it.
            StageErrored: no engine, no network, or no digest at the end.
        """
        login = (self._engine.logins or {}).get(self._reference.registry)
        auth = {"auth_config": as_auth(self._reference.registry, login)} if login else {}
        if self._engine.logins is not None and not login:
            auth = {"auth_config": {}}
        with self._connect() as client:
            repository, tag = self._reference.repository, self._reference.tag
            for event in client.push(repository, tag, stream=True, decode=True, **auth):
                self._take(event)
        if not self._digest:
            raise StageErrored(f"the push of {self._reference} ended without a digest: nobody can say what was pushed")
        return self._digest

    def _take(self, event: Event) -> None:
        if "error" in event or "errorDetail" in event:
            message = str((event.get("errorDetail") or {}).get("message") or event.get("error"))
            raise push_trouble(message, self._reference, self._engine.logins)
        if "aux" in event:
            self._digest = str((event["aux"] or {}).get("Digest") or self._digest)
        layer, status = str(event.get("id") or ""), str(event.get("status") or "")
        if detail := event.get("progressDetail"):
            self._moved(layer, int(detail.get("current") or 0), int(detail.get("total") or 0))
        elif status and status not in {"Preparing", "Waiting"}:
            self._log((f"{layer}: {status}\n" if layer else f"{status}\n").encode())

    def _moved(self, layer: str, current: int, total: int) -> None:
        self._layers[layer] = (current, max(current, total))
        done = sum(part for part, _ in self._layers.values())
        size = sum(whole for _, whole in self._layers.values())
        text = f"{len(self._layers)} layers, {done / 1e6:.0f} of {size / 1e6:.0f} MB"
        self._progress(text, done / size if size else None)


def push_trouble(message: str, reference: Reference, logins: Mapping[str, Login] | None) -> StageFailed | StageErrored:
    """The error for an event that ended a push."""
    registry = reference.registry
    login = (logins or {}).get(registry)
    if TEMPORARY.search(message):
        return StageErrored(f"the push of {reference} to {registry} broke off: {message}", evidence=[message])
    if DENIED.search(message):
        who = f"to '{login.username}'" if login else "without a login: name one in `secret:`"
        return StageFailed(f"the registry {registry} denies the push of {reference} {who}", evidence=[message])
    if "does not exist" in message:
        text = f"the docker engine has no image {reference}"
        return StageFailed(text, kind=CauseKind.CONFIG, evidence=[message])
    return StageFailed(f"the registry {registry} did not take {reference}: {message}", evidence=[message])
