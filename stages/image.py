"""`uses: image`: build an image with a docker engine."""

import posixpath
from functools import partial
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from pipeline.stage import (
    Cause,
    CauseKind,
    Examined,
    Finding,
    Foreseen,
    Login,
    Outputs,
    PreflightContext,
    SecretName,
    Severity,
    Stage,
    StageContext,
    StageErrored,
    StageFailed,
    Surroundings,
    doubted,
    is_open,
    writers,
)
from stages.clients.docker import Build, BuildRequest, Engine, dockerfile, prune
from stages.clients.oci import HUB, NO_DIGEST, Reference, Registry, check_repository, check_tag, parse_reference

__all__ = ["Image", "ImageOutputs"]


class ImageOutputs(Outputs):
    """The image that was built."""

    ref: str
    """`repository:tag`, as `push` takes it."""
    id: str
    """The image's id in the engine, sha256:…"""
    repository: str
    """Its name without the tag, registry included."""
    tag: str
    """Its tag."""


class Image(Stage[ImageOutputs]):
    """Build an image from a Dockerfile, in the docker engine that DOCKER_HOST names."""

    computes: ClassVar[bool] = True
    contained: ClassVar[bool] = True
    heavy: ClassVar[tuple[str, ...]] = ("docker",)

    image: str
    """Name without a tag, with its registry: `registry.example:5000/team/app`."""
    tag: str = "latest"
    """The tag."""
    context: str = "."
    """The folder that the Dockerfile's COPY sees, without what its .dockerignore names."""
    file: str = "Dockerfile"
    """The Dockerfile, relative to the context."""
    args: dict[str, str] = Field(default_factory=dict)
    """Build arguments (ARG). They stay in the image's history: no place for secrets."""
    target: str = ""
    """The stage of a multi-stage Dockerfile to stop at."""
    pull: bool = False
    """Ask the registry for newer base images, even if the engine has them."""
    platform: str = ""
    """The platform to build for: `linux/arm64`. Empty: the engine's own."""
    secret: SecretName = ""
    """A login for a private FROM in the registry of `image`; with it the user's own logins are not used."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels beside those that say which run made it."""
    keep: int = Field(default=5, ge=0)
    """Of how many runs of this pipeline to keep the images of this name; 0: of all. Those in use stay."""

    @field_validator("image")
    @classmethod
    def _named(cls, image: str) -> str:
        if not is_open(image):
            check_repository(image)
        return image

    @field_validator("tag")
    @classmethod
    def _tagged(cls, tag: str) -> str:
        if not is_open(tag):
            check_tag(tag)
        return tag

    async def foresee(self, ctx: PreflightContext) -> Foreseen:  # noqa: ARG002
        """The name; the id is made by the build."""
        reference = self._reference()
        outputs = ImageOutputs(ref=str(reference), id=NO_DIGEST, repository=self.image, tag=self.tag)
        return Foreseen(outputs, frozenset({"id"}))

    async def preflight(self, ctx: PreflightContext) -> Examined:
        """See that the engine answers, the Dockerfile is in the sources, and its base images can be had."""
        engine = self._engine(ctx, self._reference())
        await ctx.shared(f"docker {engine.host}", partial(ctx.call, engine.version))
        name = posixpath.normpath(f"{self.context}/{self.file}")
        try:
            text = await ctx.call((await ctx.files()).read, name)
        except FileNotFoundError:
            return Examined([self._without(name, writers(ctx))], [f"docker at {engine.host} answers"])
        bases = dockerfile.bases(text.decode(errors="replace"), self.args, self.target)
        found = [await self._look_for(ctx, engine, base, name) for base in bases]
        return Examined([each for each in found if each], [f"docker at {engine.host} answers", f"{name} is there"])

    def _without(self, name: str, makers: str) -> Finding:
        cause = Cause(CauseKind.CONFIG, f"there is no {name} in the sources")
        hint = "name the folder in `context:` and the Dockerfile in `file:`"
        return doubted(Finding(Severity.FAILS, cause, hint=hint), makers)

    async def _look_for(self, ctx: PreflightContext, engine: Engine, base: str, place: str) -> Finding | None:
        """What is wrong with a base image: neither the engine nor its registry has it.

        It is the engine that will fetch it, perhaps by a mirror or a way that we have not: an outage between us and the
        registry tells nothing, and neither does what docker.io has not.
        """
        try:
            reference = parse_reference(base)
        except ValueError as error:
            return Finding(Severity.FAILS, Cause(CauseKind.CONFIG, str(error)), place=place)
        source = f"the registry {reference.registry}"
        key = f"base {engine.host} {base} {self.pull} {self.secret}"
        try:
            if await ctx.shared(key, partial(self._had, ctx, engine, reference)):
                return None
        except StageErrored as error:
            return Finding(Severity.UNKNOWN, error.cause, place=place, about=base)
        except StageFailed as failure:
            return Finding(Severity.MAY_FAIL, failure.cause, place=place, about=base, source=source)
        makers = [name for name, kind in ctx.earlier.items() if issubclass(kind, Image) or kind.scripted]
        sure = not makers and reference.registry != HUB
        cause = Cause(CauseKind.CONFIG, "the base image is neither in the engine nor in its registry")
        hint = f"well if {makers[0]} makes it" if makers else "correct the name, or push that image"
        severity = Severity.FAILS if sure else Severity.MAY_FAIL
        return Finding(severity, cause, place=place, about=base, source=source, hint=hint)

    async def _had(self, ctx: PreflightContext, engine: Engine, base: Reference) -> bool:
        name = f"{base.repository}@{base.digest}" if base.digest else f"{base.repository}:{base.tag or 'latest'}"
        if not self.pull and await ctx.call(engine.image, name) is not None:
            return True
        login = (engine.logins or {}).get(base.registry)
        if engine.logins is None:
            login = await ctx.call(engine.stored_login, base.registry)
        insecure = (await ctx.call(engine.insecure)).allows(base.registry)
        registry = Registry(base.registry, login, insecure=insecure, secret=self.secret)
        return await registry.digest(base.path, base.digest or base.tag or "latest") is not None

    async def run(self, ctx: StageContext) -> ImageOutputs:
        """Build, then let old images go."""
        reference = self._reference()
        context, dockerfile = await ctx.call(_places, ctx.root, ctx.workspace / self.context, self.file)
        request = BuildRequest(
            context=context,
            dockerfile=dockerfile,
            reference=reference,
            args=self.args,
            labels=self.labels | _labels(ctx, self.image),
            target=self.target,
            platform=self.platform,
            pull=self.pull,
        )
        image = await ctx.call(Build(self._engine(ctx, reference), request, ctx.log, ctx.progress))
        ctx.log(f"built {reference}: {image}")
        await ctx.tool("docker", partial(ctx.call, self._engine(ctx, reference).version))
        await self._tidy(ctx)
        return ImageOutputs(ref=str(reference), id=image, repository=self.image, tag=self.tag)

    async def gone(self, ctx: StageContext, outputs: Outputs) -> str:
        """Whether the engine still has the image."""
        if not isinstance(outputs, ImageOutputs):
            return ""
        engine = Engine(ctx.env, {})
        found = await ctx.call(engine.image, outputs.id)
        return "" if found else f"the docker engine at {engine.host} has no image {outputs.ref} any more"

    def _reference(self) -> Reference:
        try:
            check_repository(self.image)
            check_tag(self.tag)
        except ValueError as error:
            raise StageFailed(str(error), kind=CauseKind.CONFIG) from None
        return Reference(self.image, self.tag)

    def _engine(self, ctx: Surroundings, reference: Reference) -> Engine:
        if not self.secret:
            return Engine(ctx.env)
        login = ctx.secret(self.secret)
        return Engine(ctx.env, {reference.registry: login} if isinstance(login, Login) else {})

    async def _tidy(self, ctx: StageContext) -> None:
        if not self.keep:
            return
        try:
            count = await ctx.call(prune, ctx.env, ctx.run, self.image, self.keep)
        except StageErrored as error:
            ctx.log(f"warning: images of older runs stay: {error}")
            return
        if count:
            ctx.log(f"removed {count} images of {self.image}, older than the last {self.keep} runs")


def _labels(ctx: StageContext, repository: str) -> dict[str, str]:
    run, commit = ctx.run, ctx.env.get("GIT_COMMIT", "")
    labels = {
        "pipe.run": run.id,
        "pipe.pipeline": run.pipeline,
        "pipe.number": str(run.number),
        "pipe.stage": run.stage,
        "pipe.image": repository,
    }
    return labels | ({"pipe.commit": commit, "org.opencontainers.image.revision": commit} if commit else {})


def _places(root: Path, context: Path, file: str) -> tuple[Path, Path]:
    """The context and the Dockerfile, both inside the workspace and there."""
    root, context = root.resolve(), context.resolve()
    dockerfile = (context / file).resolve()
    for path in (context, dockerfile):
        if not path.is_relative_to(root):
            raise StageFailed(f"{path} lies outside of the workspace {root}", kind=CauseKind.CONFIG)
    shown = context.relative_to(root)
    if not context.is_dir():
        raise StageFailed(f"there is no folder '{shown}' in the workspace to build from", kind=CauseKind.CONFIG)
    if not dockerfile.is_file():
        near = ", ".join(sorted(path.name for path in context.glob("*ockerfile*"))[:5])
        hint = f"; there are: {near}" if near else ""
        raise StageFailed(f"there is no {file} in '{shown}'{hint}: name it in `file:`", kind=CauseKind.CONFIG)
    return context, dockerfile
