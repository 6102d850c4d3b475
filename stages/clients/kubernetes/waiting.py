"""Waiting until everything that was applied is done, or until it is known why it never will be."""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import NoReturn

import anyio
from anyio.abc import TaskGroup

from pipeline.stage import StageContext, StageErrored, StageFailed
from stages.clients.kubernetes.api import Cluster, Collection
from stages.clients.kubernetes.diagnosis import Patience, Trouble, is_crash
from stages.clients.kubernetes.evidence import look_closer
from stages.clients.kubernetes.excuses import Excuses
from stages.clients.kubernetes.explanation import explain
from stages.clients.kubernetes.hearing import Hearing
from stages.clients.kubernetes.needs import Need, Standing
from stages.clients.kubernetes.objects import Object, Ref, dig, identity
from stages.clients.kubernetes.pods import Family
from stages.clients.kubernetes.refusals import answered_no
from stages.clients.kubernetes.registration import Registration
from stages.clients.kubernetes.remedies import remedy
from stages.clients.kubernetes.rollout import ENDS, LATER, Verdict, end_told, is_generic, is_open, judge
from stages.clients.kubernetes.scene import WITH_PODS, Around, Scene, look
from stages.clients.kubernetes.steady import Sightings
from stages.clients.kubernetes.watching import Mirror

__all__ = ["Allowance", "collections_for", "wait_until_done"]

_TICK = 1.0
_GENERIC_SECONDS = 30.0
_OPEN_SECONDS = 5.0
"""Seconds that a controller which nobody knows has for its first word on a change."""
_SILENT_SECONDS = 15.0
_LATELY = 2.0
"""Seconds in which what was told is as good as new, and in which a cluster that is well answers."""
_LEAST = 1.0
"""Seconds for a look at what may be done already, also when all the time is spent."""
_TOLD_LATE = 5.0
"""Seconds after an object has gone in which an event about it may still come."""
_YOUNG = timedelta(minutes=1)
_OTHERS = 8
"""Objects that were not done either and are named."""
_CLAIM = "PersistentVolumeClaim"
_JOB = "Job"
_POD = ("v1", "Pod")
_REVISIONS = {"Deployment": ("apps/v1", "ReplicaSet"), "DaemonSet": ("apps/v1", "ControllerRevision")}
"""Where it is said which pods are the new ones, if the pods themselves do not."""


@dataclass(slots=True)
class Allowance:
    """How long several waits may take together, in seconds. What is done between them costs nothing of it."""

    seconds: float
    _spent: float = 0.0
    _through: set[str] = field(default_factory=set)
    """The uids of Jobs that have completed, which stay so also when they have deleted themselves since, and of
    objects of kinds that nobody knows, which hold up a deploy once at most."""

    @contextmanager
    def spending(self) -> Iterator[float]:
        """Give the seconds that a wait may take now, and count those that it does."""
        began = anyio.current_time()
        try:
            yield max(self.seconds - self._spent, _LEAST)
        finally:
            self._spent += anyio.current_time() - began

    def is_through(self, thing: Object) -> bool:
        """Whether an earlier wait has found it done for ever."""
        return thing["metadata"]["uid"] in self._through

    def note(self, done: Sequence[Object]) -> None:
        """Keep in mind what need not be looked at again."""
        self._through |= {each["metadata"]["uid"] for each in done if each["kind"] == _JOB or is_generic(each)}


async def wait_until_done(
    ctx: StageContext,
    cluster: Cluster,
    applied: Sequence[Object],
    allowance: Allowance,
    *,
    needs: Sequence[Need] = (),
    registration: Registration | None = None,
) -> None:
    """Wait until every applied object is done.

    Args:
        ctx: where progress and changes are told.
        cluster: the cluster.
        applied: the objects as the cluster returned them from the apply.
        allowance: the limit for all of them together, and for what else it is spent on.
        needs: what their pods need: while one of these is on its way, no crash counts.
        registration: what else has the last word on whether pods are done.

    Raises:
        StageFailed: a permanent reason, at once; or the limit is over. The message names object, pod, container,
            image and reason; the evidence holds events and the last lines of the container's log.
        StageErrored: the limit is over and the cluster has not answered lately.
    """
    looked_at = [thing for thing in applied if _is_open(thing) and not allowance.is_through(thing)]
    if not looked_at:
        return
    pending = {identity(thing): thing for thing in looked_at}
    family = Family(thing["metadata"]["uid"] for thing in applied)
    asked = registration if registration and registration.concerns(pending) else None
    mirror = Mirror(cluster, family.includes)
    async with _meanwhile() as tasks:
        excuses = Excuses(needs, mirror, Patience(), lambda what: tasks.start_soon(mirror.follow, what))
        vigil = _Vigil(ctx, cluster, mirror, pending, family, excuses, asked)
        vigil.follow(tasks)
        await vigil.keep(allowance)
    allowance.note(looked_at)


@asynccontextmanager
async def _meanwhile() -> AsyncIterator[TaskGroup]:
    """Tasks that end with the body; its verdict is raised as it is, where a task group would wrap it."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except (StageFailed, StageErrored) as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _is_open(thing: Object) -> bool:
    """Whether an answer to an apply leaves a question; of what has pods it always does."""
    return thing["kind"] in WITH_PODS or judge(thing, thing).state != "done" or is_open(thing)


def _unseen(then: Object, words: str) -> Scene:
    return Scene(then, Verdict("waiting", words), seen=False)


def _by_its_answer(then: Object) -> Scene | None:
    """An object that nobody can look at, if nothing is known about its kind and the answer to its apply was well."""
    verdict = judge(then, then)
    return Scene(then, verdict, seen=False) if is_generic(then) and verdict.state == "done" else None


def _deletes_itself(thing: Object) -> bool:
    return thing["kind"] == _JOB and dig(thing, "spec", "ttlSecondsAfterFinished") is not None


def collections_for(things: Sequence[Object]) -> dict[Ref, list[Collection]]:
    """What to follow for each object: its own collection first, then pods and their revisions if it has some."""
    return {identity(thing): list(_collections(identity(thing))) for thing in things}


def _collections(ref: Ref) -> Iterator[Collection]:
    yield Collection(ref.api_version, ref.kind, ref.namespace)
    if ref.kind in WITH_PODS - {"Pod"}:
        yield Collection(*_POD, ref.namespace)
    if ref.kind in _REVISIONS:
        yield Collection(*_REVISIONS[ref.kind], ref.namespace)


@dataclass(slots=True)
class _Watched:
    """For how many seconds an object was seen: what nobody sees proves nothing by time."""

    seconds: float = 0.0
    _last: float | None = None

    def look(self, *, seen: bool) -> None:
        """Count the time since the last look, if it was seen then and now."""
        now = anyio.current_time()
        if seen and self._last is not None:
            self.seconds += now - self._last
        self._last = now if seen else None


@dataclass(slots=True)
class _Vigil:
    """One wait: what is pending, where to look, what was seen and told."""

    ctx: StageContext
    cluster: Cluster
    mirror: Mirror
    pending: dict[Ref, Object]
    family: Family
    excuses: Excuses
    registration: Registration | None = None
    sightings: Sightings = field(default_factory=Sightings)
    told: dict[object, str] = field(default_factory=dict)
    scenes: list[Scene] = field(default_factory=list)
    ended: dict[Ref, Verdict] = field(default_factory=dict)
    """What Jobs have come to that are through."""
    vanished: dict[Ref, float] = field(default_factory=dict)
    """Since when Jobs are gone of which nobody has told how they ended."""
    watched: defaultdict[Ref, _Watched] = field(default_factory=lambda: defaultdict(_Watched))
    unheard: set[Collection] = field(default_factory=set)
    """What could not be looked at when it mattered."""
    total: int = 0
    began: float = field(default_factory=anyio.current_time)
    began_at: datetime = field(init=False)
    """The same by the cluster's clock."""
    hearing: Hearing = field(init=False)
    where: Mapping[Ref, Sequence[Collection]] = field(init=False)

    def __post_init__(self) -> None:
        self.hearing = Hearing(self.cluster)
        self.where = collections_for(list(self.pending.values()))
        self.began_at = self.cluster.now

    def follow(self, tasks: TaskGroup) -> None:
        """Keep copies of all that is looked at, until the tasks are cancelled."""
        for what in {each for some in self.where.values() for each in some}:
            tasks.start_soon(self.mirror.follow, what)
        for namespace in {ref.namespace for ref in self.pending} - {""}:
            tasks.start_soon(self.hearing.listen, namespace)
        for namespace in {ref.namespace for ref in self.pending if ref.kind == _CLAIM}:
            tasks.start_soon(self.hearing.recall, _CLAIM, namespace, LATER, self._young())
        for namespace in {ref.namespace for ref, then in self.pending.items() if _deletes_itself(then)}:
            tasks.start_soon(self.hearing.recall, _JOB, namespace, ENDS)
        if self.registration:
            tasks.start_soon(self.registration.follow)

    def _young(self) -> set[str]:
        """The uids of claims that were made so lately that every word of them is news."""
        since = self.began_at - _YOUNG
        made = (thing["metadata"] for ref, thing in self.pending.items() if ref.kind == _CLAIM)
        return {each["uid"] for each in made if datetime.fromisoformat(each["creationTimestamp"]) > since}

    async def keep(self, allowance: Allowance) -> None:
        """Look, tell and decide until nothing is pending; at the limit say what is."""
        self.total = len(self.pending)
        with allowance.spending() as seconds, anyio.move_on_after(seconds):
            while self.pending:
                await self.mirror.wait(_TICK)
                await self._look()
                self._tell()
                await self._decide()
            return
        await self._too_late(allowance.seconds)

    async def _look(self, *, last: bool = False) -> None:
        self.excuses.patience.look_again()
        self._see()
        if old := self._old_news() | self.unheard:
            await self._renew(old)
            self._see()
        for scene in filter(self._is_heard_of, self.scenes):
            if self._is_done(scene, last=last):
                self.ctx.log(f"{scene.ref}: {scene.verdict.message}")
                del self.pending[scene.ref]
            elif self._patience_with_generic_is_over(scene):
                self.ctx.warn(f"{scene.ref}: {scene.verdict.message}: not waited for any longer")
                del self.pending[scene.ref]
        self.scenes = [scene for scene in self.scenes if scene.ref in self.pending]

    def _see(self) -> None:
        self.excuses.look_again()
        self.scenes = [self._scene(ref, then) for ref, then in self.pending.items()]
        for scene in self.scenes:
            self.watched[scene.ref].look(seen=scene.seen and self._is_heard_of(scene))
        # What happened while it was excused is old when it is no longer.
        self.pending |= {each.ref: each.thing for each in self.scenes if self.excuses.lacking(each.ref)}

    def _old_news(self) -> set[Collection]:
        """What was told of that which time alone is about to decide on: on a dead line no news are no news."""
        decided = [scene.ref for scene in self.scenes if scene.verdict.state == "done" or self._spent(scene)]
        before = anyio.current_time() - _LATELY
        pods = {what for ref in decided for what in self.where[ref] if what.kind == "Pod"}
        generic = {self.where[each.ref][0] for each in self.scenes if self._is_generic_decided(each)}
        old = (pods | generic) - self.mirror.refused.keys()
        return {what for what in old if self.mirror.heard(what) < before}

    def _spent(self, scene: Scene) -> Trouble | None:
        return self.excuses.patience.exhausted(scene.troubles, anyio.current_time())

    def _is_heard_of(self, scene: Scene) -> bool:
        return self.unheard.isdisjoint(self.where[scene.ref])

    async def _renew(self, some: set[Collection]) -> None:
        """Look at collections at once; those that are not answered are unheard, and once those answered late."""
        failed = set[Collection]()

        async def one(what: Collection) -> None:
            if not await self.mirror.renew(what):
                failed.add(what)

        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for what in some:
                tasks.start_soon(one, what)
        if failed:
            self.sightings.forget()
        late = anyio.current_time() - began > _LATELY
        self.unheard = failed | (some - self.unheard if late else set())

    def _scene(self, ref: Ref, then: Object) -> Scene:
        own, *others = self.where[ref]
        if own in self.mirror.refused:
            if answer := _by_its_answer(then):
                return answer
            raise answered_no(self.mirror.refused[own], self.cluster.transport.credentials)
        if silence := next((self.mirror.silent[what][1] for what in self.where[ref] if what in self.mirror.silent), ""):
            # What is known is old: time that passes proves nothing now, and what happened meanwhile comes late.
            self.sightings.forget()
            return _unseen(then, f"the cluster does not answer: {silence}")
        listed = self.mirror.objects(own, since=then["metadata"]["resourceVersion"])
        if listed is None:
            return _by_its_answer(then) or _unseen(then, "it is being looked up")
        now = next((each for each in listed if each["metadata"]["uid"] == then["metadata"]["uid"]), None)
        if now is None:
            return Scene(then, self._gone(ref, then, listed))
        hidden = {what.kind for what in others if what in self.mirror.refused}
        found = {what.kind: self.mirror.objects(what) for what in others if what.kind not in hidden}
        if None in found.values():
            return _unseen(then, "its pods are being looked up")
        pods = None if hidden & {"Pod", "ReplicaSet"} else found.get("Pod")
        revisions = [*(found.get("ReplicaSet") or ()), *(found.get("ControllerRevision") or ())]
        self.family.learn(revisions)
        # What an object lacks in a watch event, its kind, is known from the apply.
        known = {**now, "apiVersion": ref.api_version, "kind": ref.kind}
        # By one reading of the cluster's clock: what was seen for a while is counted in seconds that nobody corrects.
        clock = self.began_at + timedelta(seconds=anyio.current_time() - self.began)
        around = Around(revisions, pods, self.hearing.events, clock, self.sightings)
        scene = look(known, then, around)
        if ref.kind == _JOB and scene.verdict.state != "waiting":
            self.ended[ref] = scene.verdict
        scene = self.excuses.heard(scene, around)
        return self.registration.judged(scene, around) if self.registration else scene

    def _gone(self, ref: Ref, then: Object, listed: Sequence[Object]) -> Verdict:
        """What is to be said of an object that is there no more."""
        if ref.kind == _JOB and (end := self.ended.get(ref) or end_told(self._events_of(then))):
            return end
        replaced = any(each["metadata"]["name"] == ref.name for each in listed)
        if _deletes_itself(then) and not replaced:
            self.vanished.setdefault(ref, anyio.current_time())
            return Verdict("waiting", "it is gone, and nobody has told how it ended")
        how = "replaced by another of that name" if replaced else "deleted"
        return Verdict("failed", f"somebody has {how} while we waited for it")

    def _events_of(self, thing: Object) -> Sequence[Object]:
        return self.hearing.events.get(thing["metadata"]["uid"], ())

    def _is_done(self, scene: Scene, *, last: bool) -> bool:
        if scene.verdict.state != "done":
            return False
        # Who may not look has the answer to the apply, and no more.
        refused = self.where[scene.ref][0] in self.mirror.refused
        return last or refused or not is_open(scene.thing) or self.watched[scene.ref].seconds >= _OPEN_SECONDS

    def _is_generic_decided(self, scene: Scene) -> bool:
        if scene.verdict.state == "done":
            return is_open(scene.thing) and self._is_done(scene, last=False)
        return self._patience_with_generic_is_over(scene)

    def _patience_with_generic_is_over(self, scene: Scene) -> bool:
        waited = self.watched[scene.ref].seconds
        return is_generic(scene.thing) and scene.verdict.state == "waiting" and waited > _GENERIC_SECONDS

    def _tell(self) -> None:
        """Log what has changed; progress names the first that is pending."""
        for scene in self.scenes:
            if scene.verdict.state != "done" and self.told.get(scene.ref) != scene.summary:
                self.told[scene.ref] = scene.summary
                self.ctx.log(f"{scene.ref}: {scene.summary}")
        for what, error in self.mirror.refused.items():
            if what not in self.told:
                self.told[what] = error.message
                self.ctx.log(f"reasons may be missing: {error}")
        if not self.scenes:
            return
        done = self.total - len(self.pending)
        rest = f", {len(self.pending)} pending" if len(self.pending) > 1 else ""
        self.ctx.progress(f"{self.scenes[0].ref.name}: {self.scenes[0].summary}{rest}", done / self.total)

    async def _decide(self) -> None:
        """End the wait when waiting cannot help."""
        for scene in filter(self._is_heard_of, self.scenes):
            trouble = self._spent(scene)
            lacking = self.excuses.lacking(scene.ref)
            if lacking and lacking[0].state == "failed":
                await self._fail_for(lacking[0], scene, "")
            elif scene.verdict.state == "failed":
                found = next(iter(scene.troubles), None)
                await self._fail(scene, found, scene.verdict.message)
            elif trouble is not None:
                await self._fail(scene, trouble, "")
        self._give_up_vanished(_TOLD_LATE)

    async def _too_late(self, seconds: float) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._renew, {each for ref in self.pending for each in self.where[ref]})
            for what in self.excuses.followed:
                tasks.start_soon(self.mirror.renew, what)
            if self.registration:
                tasks.start_soon(partial(self.registration.renew, closer=True))
        await self._look(last=True)
        if not self.pending:
            return
        self._refuse_to_guess()
        by_rank = sorted(self.scenes, key=lambda scene: scene.troubles[0].rank if scene.troubles else 99)
        first = by_rank[0]
        limit = f"not done after {seconds:g} s"
        lacking = self.excuses.lacking(first.ref)
        if lacking and is_crash(first.troubles[0]):
            await self._fail_for(lacking[0], first, limit)
        words = limit if first.troubles else f"{limit}: {first.verdict.message}"
        await self._fail(first, next(iter(first.troubles), None), words)

    def _give_up_vanished(self, after: float) -> None:
        for ref in self.vanished.keys() & self.pending.keys():
            if anyio.current_time() - self.vanished[ref] >= after:
                raise StageErrored(f"{ref}: nobody knows how it ended: it is gone (it has ttlSecondsAfterFinished)")

    def _refuse_to_guess(self) -> None:
        self._give_up_vanished(0)
        now = anyio.current_time()
        for ref in self.pending:
            since, reason = self.mirror.silent.get(self.where[ref][0], (now, ""))
            if now - since > _SILENT_SECONDS:
                raise StageErrored(f"{ref}: nobody knows how it is, for {now - since:.0f} s already: {reason}")
        silence = self.registration.silence if self.registration else ""
        if silence and not any(scene.troubles for scene in self.scenes):
            raise StageErrored(f"{self.scenes[0].ref}: nobody knows whether its pods are registered: {silence}")

    async def _fail_for(self, lacking: Standing, scene: Scene, limit: str) -> None:
        """End red because of what crashing pods wait for, with its evidence; of what is not there theirs is shown."""
        waits = f"its pods crash without {lacking.need}"
        if lacking.scene is None:
            await self._fail(scene, scene.troubles[0], _joined(limit, waits, lacking.words), about=lacking.words)
        trouble = lacking.trouble or next(iter(lacking.scene.troubles), None)
        words = _joined(limit, waits, str(lacking.scene.ref) if trouble else lacking.words)
        await self._fail(lacking.scene, trouble, words, of=scene.ref, about=lacking.words)

    async def _fail(
        self, scene: Scene, trouble: Trouble | None, words: str, *, of: Ref | None = None, about: str = ""
    ) -> NoReturn:
        """End red because of what a scene shows.

        Args:
            scene: what is looked at closer.
            trouble: the trouble in it.
            words: what is said before that.
            of: the object that is not done, if it is not that of the scene.
            about: what the way out is about, if it is not the trouble.
        """
        seen = await look_closer(self.cluster, scene, trouble)
        why = await self.ctx.call(explain, trouble, about or scene.verdict.message, seen)
        others = [f"{each.ref}: {each.summary}" for each in self.scenes if each is not scene]
        more = [f"… and {len(others) - _OTHERS} more"] if len(others) > _OTHERS else []
        evidence = [*others[:_OTHERS], *more, *why.evidence]
        for line in evidence:
            self.ctx.log(line)
        reason = _joined(words, str(trouble or ""))
        hint = remedy("", about) or why.hint
        raise StageFailed(f"{of or scene.ref}: {reason}{why.because}", evidence=evidence, hint=hint)


def _joined(*parts: str) -> str:
    return ": ".join(filter(None, parts))
