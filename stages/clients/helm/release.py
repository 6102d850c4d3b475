"""One release as a stage works on it: freed of dead helms, changed inside of effects, waited for by our rules."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio
from pydantic import JsonValue

from pipeline.stage import CauseKind, Settled, StageContext, StageErrored, StageFailed
from stages.clients.helm.program import Called, Helm
from stages.clients.helm.records import (
    History,
    Promise,
    Recorded,
    Revision,
    labels_of,
    note,
    read_history,
    read_recorded,
    secret_ref,
)
from stages.clients.helm.rendered import read_rendered
from stages.clients.helm.stuck import Pending, pending
from stages.clients.helm.trouble import trouble
from stages.clients.helm.trying import assign_release_namespace
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.manifests import Manifest
from stages.clients.kubernetes.needs import Need
from stages.clients.kubernetes.objects import Object, Ref
from stages.clients.kubernetes.pods import selector
from stages.clients.kubernetes.together import together
from stages.clients.kubernetes.transport import ApiError
from stages.clients.kubernetes.waiting import Allowance, wait_until_done

__all__ = ["Release", "settled"]

_LOOK_EVERY = 2.0
_ON_TOP = timedelta(seconds=30)
"""What a helm may take beyond the time of its hooks, before it is ended."""
_TO_END = timedelta(seconds=15)
"""How long ending it may take, and clocks may differ."""
_HOOK_LOOK = 3.0
_KEEPS = {"StatefulSet", "DaemonSet", "Deployment", "ReplicaSet", "Job"}


@dataclass(frozen=True, slots=True)
class Release:
    """A release of the cluster, and the stage that works on it."""

    ctx: StageContext
    cluster: Cluster
    helm: Helm
    name: str
    mark: str
    """Names this stage of this run and what it is to install."""
    machine: str
    wait: timedelta
    """The limit of Helm's hooks, and that of the rollout."""
    patience: timedelta
    """How long a record that is none of ours may stay pending before its helm counts as dead."""
    needs: Sequence[Need] = ()
    """What its pods need: while one of these is on its way, no crash counts."""

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self.helm.namespace

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    async def history(self) -> History:
        """Its revisions, as they are now."""
        return await read_history(self.cluster, self.namespace, self.name)

    async def recorded(self, revision: Revision) -> Recorded:
        """A revision with all that is recorded of it."""
        return await read_recorded(self.cluster, self.namespace, self.name, revision.number)

    # -- nobody else is at it ----------------------------------------------------------------------

    async def free(self) -> History:
        """Its revisions, once no helm works on it: another one is waited for, and what a dead one left is recovered.

        Raises:
            StageErrored: another helm has worked on it for all of `wait`.
            StageFailed: it could not be recovered.
        """
        deadline = anyio.current_time() + self.wait.total_seconds()
        while True:
            history = await self.history()
            found = pending(history, self.mark, self.machine, self.patience)
            if found is None:
                return history
            if found.is_dead(history.now):
                return await self._recovered(history, found)
            what = f"revision {found.revision.number} of {self} is {found.revision.status}: another helm works on it"
            if anyio.current_time() > deadline:
                until = f"{found.dead_at:%H:%M:%S} UTC"
                raise StageErrored(f"{what}; if its record stays as it is until {until}, that helm counts as dead")
            self.ctx.progress(what)
            await anyio.sleep(_LOOK_EVERY)

    async def _recovered(self, history: History, found: Pending) -> History:
        revision = found.revision
        good = history.last_deployed(revision.number)
        if good is not None:
            await self.roll_back(history, good)
            how = f"rolled back to revision {good.number}, the last that was deployed"
        elif await self._holds(revision):
            await self._forget(revision)
            how = "its record is removed and what it made stays, as pods or data of it are there"
        else:
            await self._uninstall(revision)
            how = "uninstalled, as nothing of it runs"
        stuck = f"{self} was stuck: revision {revision.number} is {revision.status}, and its helm is dead ({found.why})"
        self.ctx.warn(f"{stuck}; {how}")
        after = await self.history()
        if after.newest and after.newest.is_pending:
            raise StageFailed(f"{self} is {after.newest.status} again: somebody else works on it")
        return after

    async def _holds(self, revision: Revision) -> bool:
        """Whether something of a revision runs, or keeps data."""
        things = [thing for _, thing in await self._live(await self.recorded(revision)) if thing]
        if any(thing["kind"] in ("PersistentVolumeClaim", "Pod") for thing in things):
            return True
        for thing in things:
            if thing["kind"] in _KEEPS:
                found, _ = await self.cluster.items(
                    Collection("v1", "Pod", thing["metadata"]["namespace"], selector(thing))
                )
                if any((pod.get("status") or {}).get("phase") == "Running" for pod in found):
                    return True
        return False

    async def _forget(self, revision: Revision) -> None:
        ref = secret_ref(self.namespace, self.name, revision.number)
        async with self.ctx.effect(f"forget revision {revision.number} of {self}", self._intent()) as effect:
            await self.cluster.delete(ref, revision.uid)
            effect.proof({"revision": revision.number})

    async def _uninstall(self, revision: Revision) -> None:
        async with self.ctx.effect(f"helm uninstall {self}", self._intent()) as effect:
            called = await self._timed("uninstall", "--no-hooks", "--", self.name)
            called.check("helm uninstall")
            effect.proof({"revision": revision.number})

    # -- changing it -------------------------------------------------------------------------------

    async def upgrade(
        self, words: Sequence[str], stdin: bytes, history: History, said: Mapping[str, JsonValue]
    ) -> Revision:
        """Install or upgrade it, once for this stage: a revision that an earlier attempt made is taken as it is.

        Args:
            words: what helm is told of chart and values, the chart last.
            stdin: values, for `--values -`.
            history: the release as it is.
            said: what the journal is to know of the chart.

        Raises:
            StageFailed, StageErrored: helm failed, or a hook of the chart, with its reason.
        """
        number = history.newest.number + 1 if history.newest else 1
        promise = Promise(history.now + self._limit + _TO_END, self.machine, self.mark)
        async with self.ctx.effect(f"helm upgrade {self}", {**self._intent(), **said}) as effect:
            revision = history.taken_over_by(self.mark)
            if revision is None:
                labels = ",".join(f"{name}={value}" for name, value in labels_of(number, promise).items())
                run = f"pipe {self.ctx.run.pipeline}#{self.ctx.run.number}"
                options = ["--install", f"--labels={labels}", f"--description={run}", f"--timeout={self._seconds}s"]
                # without any values helm takes those of the revision before, and others were checked
                options += ["--reset-values"]
                called = await self._timed("upgrade", *options, *words[:-1], "--", self.name, words[-1], stdin=stdin)
                revision = await self._result(called, number)
            else:
                self.ctx.log(f"revision {revision.number} of {self} was made by an earlier attempt")
            effect.proof(_proof(revision))
        return revision

    async def _result(self, called: Called, number: int) -> Revision:
        history = await self.history()
        made = history.made_by(self.mark)
        revision = made if made and made.number >= number else None
        if called.exit_code:
            if revision is not None:
                await self._explain_hooks(await self.recorded(revision))
            raise trouble("helm upgrade", called.exit_code, called.lines)
        if revision is None:
            raise StageErrored(f"helm says that {self} is upgraded, but its record is not in {self.namespace}")
        return revision

    async def roll_back(self, history: History, to: Revision) -> Revision:
        """Go back to an earlier revision, which makes a new one. Doing it again is harmless.

        Raises:
            StageFailed, StageErrored: helm failed.
            StageErrored: somebody else works on the release, whose revision is none of ours to undo.
        """
        newest = history.newest or to
        promise = Promise(history.now + self._limit + _TO_END, self.machine, self.mark)
        with suppress(ApiError):
            await note(self.cluster, self._secret(newest), newest.number, undone=promise)
        if others := await self._after(newest):
            raise StageErrored(f"somebody else works on {self}: revision {others[-1].number} is not ours to undo")
        async with self.ctx.effect(f"helm rollback {self}", {**self._intent(), "to": to.number}) as effect:
            called = await self._timed("rollback", f"--timeout={self._seconds}s", "--", self.name, str(to.number))
            called.check("helm rollback")
            made = await self._after(newest)
            if len(made) != 1:
                raise StageErrored(f"{len(made)} revisions of {self} are new, so which one went back cannot be told")
            effect.proof(_proof(made[0]))
        return made[0]

    async def _after(self, revision: Revision) -> list[Revision]:
        """The revisions that are newer than one."""
        return [each for each in (await self.history()).revisions if each.number > revision.number]

    async def confirm(self, revision: Revision) -> None:
        """Note that what a revision describes runs.

        Raises:
            StageFailed: another revision has come after it, and it is that one's objects that were seen to run.
        """
        if newer := await self._after(revision):
            theirs = f"revision {newer[-1].number} of {self}"
            message = f"superseded by {theirs}, which somebody else has made since revision {revision.number} of ours"
            raise StageFailed(message, kind=CauseKind.SUPERSEDED_BY, evidence=[theirs])
        await self.judge(revision, "good")

    async def judge(self, revision: Revision, verdict: str) -> None:
        """Note whether what a revision describes runs, for whoever looks for a good one later."""
        try:
            await note(self.cluster, self._secret(revision), revision.number, verdict=verdict)
        except (ApiError, StageErrored) as error:
            self.ctx.log(f"that revision {revision.number} is {verdict} cannot be noted on its record: {error}")

    async def _timed(self, *words: str, stdin: bytes = b"") -> Called:
        """A call that has ended when it was promised to have."""
        with anyio.move_on_after(self._limit.total_seconds()):
            return await self.helm.call(self.ctx, *words, stdin=stdin)
        seconds = self._limit.total_seconds()
        raise StageFailed(
            f"helm {words[0]} had not ended after {seconds:g} s and was ended; `wait:` gives it more time"
        )

    @property
    def _limit(self) -> timedelta:
        return self.wait + _ON_TOP

    @property
    def _seconds(self) -> int:
        return max(1, round(self.wait.total_seconds()))

    def _secret(self, revision: Revision) -> Ref:
        return secret_ref(self.namespace, self.name, revision.number)

    def _intent(self) -> dict[str, JsonValue]:
        return {"server": self.cluster.server, "release": str(self), "mark": self.mark}

    # -- whether it runs ---------------------------------------------------------------------------

    async def wait_for(self, revision: Recorded) -> list[Manifest]:
        """Wait until everything that a revision describes is done, and return that.

        Raises:
            StageFailed, StageErrored: as `wait_until_done` does.
        """
        live = await self._live(revision)
        gone = [manifest for manifest, thing in live if thing is None and manifest.ref.kind != "Job"]
        if gone:
            raise StageFailed(f"{gone[0].ref} ({gone[0].file}) is not there any more, though helm has written it")
        things = [thing for _, thing in live if thing]
        self.ctx.log(f"revision {revision.number} of {self} is written: {len(things)} objects")
        await wait_until_done(self.ctx, self.cluster, things, Allowance(self.wait.total_seconds()), needs=self.needs)
        return [manifest for manifest, _ in live]

    async def _live(self, revision: Recorded) -> list[tuple[Manifest, Object | None]]:
        """What a revision describes, and what of it is in the cluster."""
        manifests = read_rendered(revision.manifest).manifests
        await assign_release_namespace(self.cluster, manifests, self.namespace)
        found = await together(lambda each: self.cluster.get(each.ref), manifests)
        return list(zip(manifests, found, strict=True))

    async def _explain_hooks(self, revision: Recorded) -> None:
        """Raise why a hook of the chart failed, if one has and is still there to be looked at."""
        for hook in revision.hooks:
            if (hook.get("last_run") or {}).get("phase") == "Failed":
                await self._explain(hook)

    async def _explain(self, hook: Mapping[str, Any]) -> None:
        manifests = read_rendered(str(hook.get("manifest") or "")).hooks
        await assign_release_namespace(self.cluster, manifests, self.namespace)
        things = [thing for thing in await together(lambda each: self.cluster.get(each.ref), manifests) if thing]
        try:
            await wait_until_done(self.ctx, self.cluster, things, Allowance(_HOOK_LOOK))
        except StageFailed as failure:
            when = ", ".join(hook.get("events") or ()) or "chart's"
            reason = str(failure).replace(f"not done after {_HOOK_LOOK:g} s", f"not done after {self._seconds} s")
            raise StageFailed(f"its {when} hook failed: {reason}", evidence=failure.cause.evidence) from failure


def _proof(revision: Revision) -> dict[str, JsonValue]:
    return {"revision": revision.number, "status": revision.status, "record": revision.uid}


def settled(history: History, key: str, intent: Mapping[str, JsonValue]) -> Settled:
    """What became of an intent without proof: an upgrade is done if its revision is deployed.

    Everything else is decided anew by how the release is then, and harmless to repeat.
    """
    made = history.made_by(str(intent.get("mark")))
    if not key.startswith("helm upgrade ") or made is None:
        return Settled("absent", message=f"'{key}' is done again if it is still needed")
    if made.status in ("deployed", "superseded"):
        return Settled("done", _proof(made))
    return Settled("absent", message=f"revision {made.number} is {made.status}")
