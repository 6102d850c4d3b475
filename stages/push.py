"""`uses: push`: bring an image into its registry, and see by digest that it is there."""

import random
from collections.abc import Mapping
from typing import ClassVar

import anyio
from pydantic import JsonValue, field_validator

from pipeline.stage import (
    CauseKind,
    Examined,
    Foreseen,
    Login,
    Outputs,
    PreflightContext,
    SecretName,
    Settled,
    Stage,
    StageContext,
    StageErrored,
    StageFailed,
    Surroundings,
    is_open,
)
from stages.clients.docker import Engine
from stages.clients.docker import Push as EnginePush
from stages.clients.oci import NO_DIGEST, Reference, Registry, check_tag, parse_reference

__all__ = ["Push", "PushOutputs"]

FURTHER_TRIES = (2.0, 8.0)
"""Seconds before another try, each times 0.5 to 1.5; the engine itself has tried each layer five times by then."""


class PushOutputs(Outputs):
    """What the registry has now."""

    ref: str
    """`repository:tag`."""
    digest: str
    """The manifest's digest, sha256:…, as the registry gives it."""
    digest_ref: str
    """`repository:tag@sha256:…`: exactly this image, whatever the tag means later."""


class Push(Stage[PushOutputs]):
    """Push an image, and prove by digest that the registry has it."""

    pool: ClassVar[tuple[str, int] | None] = ("push", 10)
    heavy: ClassVar[tuple[str, ...]] = ("docker", "aiohttp")

    image: str
    """`repository:tag` or `repository:tag@sha256:…` of an image in the docker engine."""
    tag: str = ""
    """Another tag to give it and push it under."""
    secret: SecretName = ""
    """The login to the registry. Empty: what the user's own docker configuration has."""

    @field_validator("image")
    @classmethod
    def _named(cls, image: str) -> str:
        if not is_open(image):
            parse_reference(image)
        return image

    @field_validator("tag")
    @classmethod
    def _tagged(cls, tag: str) -> str:
        if tag and not is_open(tag):
            check_tag(tag)
        return tag

    async def foresee(self, ctx: PreflightContext) -> Foreseen:  # noqa: ARG002
        """Everything but the digest."""
        target = self._target()
        full = Reference(target.repository, target.tag, NO_DIGEST)
        outputs = PushOutputs(ref=str(target), digest=NO_DIGEST, digest_ref=str(full))
        return Foreseen(outputs, frozenset({"digest", "digest_ref"}))

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """See that the login may push to the repository, and what its tag names now."""
        target = self._target()
        registry = await self._registry(ctx, self._engine(ctx, target), target)
        await registry.check_push(target.path)
        there = await registry.digest(target.path, target.tag)
        return Examined(checked=[f"may push to {target.repository}"], touches={str(target): there or "absent"})

    async def run(self, ctx: StageContext) -> PushOutputs:
        """See that the registry takes the login, push, and read the digest back."""
        source, target = self._source(), self._target()
        engine = self._engine(ctx, target)
        image = await _local(ctx, engine, source)
        registry = await self._registry(ctx, engine, target)
        await registry.check_login(target.path)
        digest = await _push_patiently(ctx, engine, registry, target, image)
        ctx.log(f"{registry.name} has {target} as {digest}")
        full = Reference(target.repository, target.tag, digest)
        return PushOutputs(ref=str(target), digest=digest, digest_ref=str(full))

    async def settle(self, ctx: StageContext, key: str, intent: Mapping[str, JsonValue]) -> Settled:
        """Done if the tag in the registry is the image that was meant; absent if it is not."""
        target = Reference(str(intent["repository"]), str(intent["tag"]))
        engine = self._engine(ctx, target)
        try:
            registry = await self._registry(ctx, engine, target)
            there = await registry.digest(target.path, target.tag)
            found = await ctx.call(engine.image, str(intent["image"]))
        except (StageErrored, StageFailed) as error:
            return Settled("unknown", message=f"nobody can say whether '{key}' took place: {error}")
        known = {str(name) for name in (found or {}).get("RepoDigests") or ()}
        if there and f"{target.repository}@{there}" in known:
            return Settled("done", {"digest": there})
        return Settled("absent")

    async def gone(self, ctx: StageContext, outputs: Outputs) -> str:
        """Whether the registry still has what was pushed, by its digest."""
        if not isinstance(outputs, PushOutputs):
            return ""
        target = parse_reference(outputs.ref)
        registry = await self._registry(ctx, self._engine(ctx, target), target)
        there = await registry.digest(target.path, outputs.digest)
        return "" if there else f"the registry {registry.name} has no {outputs.digest_ref} any more"

    def _source(self) -> Reference:
        try:
            return parse_reference(self.image)
        except ValueError as error:
            raise StageFailed(f"image: {error}", kind=CauseKind.CONFIG) from None

    def _target(self) -> Reference:
        source = self._source()
        return Reference(source.repository, self.tag or source.tag or "latest")

    def _engine(self, ctx: Surroundings, target: Reference) -> Engine:
        if not self.secret:
            return Engine(ctx.env)
        login = ctx.secret(self.secret)
        return Engine(ctx.env, {target.registry: login} if isinstance(login, Login) else {})

    async def _registry(self, ctx: Surroundings, engine: Engine, target: Reference) -> Registry:
        name = target.registry
        login = engine.logins.get(name) if engine.logins is not None else await ctx.call(engine.stored_login, name)
        insecure = await ctx.call(engine.insecure)
        return Registry(name, login, insecure=insecure.allows(name), secret=self.secret)


async def _local(ctx: StageContext, engine: Engine, source: Reference) -> str:
    name = f"{source.repository}@{source.digest}" if source.digest else str(source)
    found = await ctx.call(engine.image, name)
    if found is None:
        message = f"the docker engine at {engine.host} has no image {name}: was it built there, and is it still?"
        raise StageFailed(message, kind=CauseKind.CONFIG)
    return str(found["Id"])


async def _push_patiently(ctx: StageContext, engine: Engine, registry: Registry, target: Reference, image: str) -> str:
    for pause in FURTHER_TRIES:
        try:
            return await _push(ctx, engine, registry, target, image)
        except StageErrored as error:
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311 - only keeps ten pushes apart
            ctx.log(f"{error}; again in {wait:.0f} s")
            await anyio.sleep(wait)
    return await _push(ctx, engine, registry, target, image)


async def _push(ctx: StageContext, engine: Engine, registry: Registry, target: Reference, image: str) -> str:
    intent: dict[str, JsonValue] = {"image": image, "repository": target.repository, "tag": target.tag}
    async with ctx.effect(f"push {target}", intent) as effect:
        digest = str((effect.proven or {}).get("digest", ""))
        if not digest or await registry.digest(target.path, target.tag) != digest:
            await ctx.call(engine.tag, image, target)
            digest = await ctx.call(EnginePush(engine, target, ctx.log, ctx.progress))
            await _verify(registry, target, digest)
        effect.proof({"digest": digest})
    return digest


async def _verify(registry: Registry, target: Reference, digest: str) -> None:
    there = await registry.digest(target.path, target.tag)
    if there != digest:
        has = f"has {there}" if there else "has nothing"
        raise StageFailed(
            f"the docker engine says it pushed {target} as {digest}, but {registry.name} {has} under that tag"
        )
