"""`uses: maven`: how it is called, whose local repository it gets, and what its log means."""

import os
from pathlib import Path

import anyio
import pytest

from pipeline.stage import CauseKind, StageErrored, StageFailed
from stages.clients.maven import Lease, Log, lease
from stages.maven import Maven
from tests.support.context import FakeContext

COMPILE = """\
[INFO] Building service-hosp 1.0                                        [10/21]
[ERROR] COMPILATION ERROR :
[ERROR] /w/service-hosp/src/A.java:[81,17] cannot find symbol
  symbol:   class Foo
[ERROR] /w/service-hosp/src/A.java:[81,11] incompatible types: String cannot be converted to int
[INFO] 2 errors
[INFO] BUILD FAILURE
[ERROR] Failed to execute goal org.apache.maven.plugins:maven-compiler-plugin:3.14.1:compile (default-compile) on project service-hosp: Compilation failure: Compilation failure:
[ERROR] /w/service-hosp/src/A.java:[81,17] cannot find symbol
[ERROR]   symbol:   class Foo
[ERROR] /w/service-hosp/src/A.java:[81,11] incompatible types: String cannot be converted to int
[ERROR] -> [Help 1]
[ERROR]
[ERROR] To see the full stack trace of the errors, re-run Maven with the -e switch.
[ERROR] After correcting the problems, you can resume the build with the command
[ERROR]   mvn <args> -rf :service-hosp
"""
TESTS = """\
[ERROR] Tests run: 2, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.1 s <<< FAILURE! - in ATest
[ERROR]   ATest.adds:12 expected: <3> but was: <4>
[ERROR] Tests run: 14, Failures: 1, Errors: 1, Skipped: 0
[ERROR] Failed to execute goal org.apache.maven.plugins:maven-surefire-plugin:3.2.5:test (default-test) on project model: There are test failures.
"""
UNRESOLVED = "[ERROR] Failed to execute goal on project model: Could not resolve dependencies for project a:model:jar:1: x:y:jar:9 was not found in central\n"
NETWORK = "[ERROR] Failed to execute goal on project model: Could not resolve dependencies: Could not transfer artifact x:y:pom:9 from/to central (https://repo): Connect to repo:443 failed: Connection refused -> [Help 1]\n"
NO_POM = "[ERROR] The goal you specified requires a project to execute but there is no POM in this directory (/w).\n"


def read(text: str) -> Log:
    log = Log("/w/")
    for line in text.splitlines():
        log.take(line)
    return log


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (COMPILE, StageFailed, "compilation failed in service-hosp: 2 errors"),
        (TESTS, StageFailed, "tests failed in model: 2 of 14"),
        (UNRESOLVED, StageFailed, "dependencies of model cannot be resolved: Could not resolve"),
        (NO_POM, StageFailed, "mvn ended with exit code 1: The goal you specified requires a project"),
        (NETWORK, StageErrored, "a repository does not answer: Failed to execute goal on project model"),
        ("Error: JAVA_HOME is not defined correctly.\n", StageFailed, "mvn ended with exit code 1: Error: JAVA_HOME"),
        ("", StageFailed, "mvn ended with exit code 1: "),
    ],
)
def test_a_failure_is_told_in_a_few_words(text: str, error: type[Exception], message: str) -> None:
    trouble = read(text).trouble("mvn", 1)
    assert type(trouble) is error
    assert message in str(trouble)


def test_the_compilers_lines_are_the_evidence_each_once_and_without_advice() -> None:
    assert list(read(COMPILE).trouble("mvn", 1).cause.evidence) == [
        "[ERROR] Failed to execute goal org.apache.maven.plugins:maven-compiler-plugin:3.14.1:compile (default-compile) on project service-hosp: Compilation failure: Compilation failure:",
        "[ERROR] service-hosp/src/A.java:[81,17] cannot find symbol",
        "[ERROR]   symbol:   class Foo",
        "[ERROR] service-hosp/src/A.java:[81,11] incompatible types: String cannot be converted to int",
    ]


def test_evidence_has_a_limit() -> None:
    assert len(read("".join(f"[ERROR] {number}\n" for number in range(5000))).errors) == 60


# -- local repositories ----------------------------------------------------------------------------


def downloaded(repository: Path, name: str = "a-1.jar", content: str = "jar") -> Path:
    folder = repository / "org" / "x" / "a" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    with (folder / "_remote.repositories").open("a") as origins:
        origins.write(f"#comment\n{name}>central=\n")
    return folder


def test_two_leases_at_once_are_two_repositories(tmp_path: Path) -> None:
    first, second = lease(tmp_path, tmp_path), lease(tmp_path, tmp_path)
    assert first.repository != second.repository
    first.release()
    third = lease(tmp_path, tmp_path)
    assert third.repository == first.repository
    second.release()
    third.release()


def test_the_first_repository_begins_with_what_the_user_has_downloaded(tmp_path: Path) -> None:
    own = downloaded(tmp_path / ".m2" / "repository")
    (own / "a-1.jar.part").write_text("half")
    (own / "installed-1.jar").write_text("mine")
    with (own / "_remote.repositories").open("a") as origins:
        origins.write("installed-1.jar>=\n")
    leased = lease(tmp_path / "cache", tmp_path)
    leased.release()
    assert sorted(path.name for path in (leased.repository / "org/x/a/1").iterdir()) == [
        "_remote.repositories",
        "a-1.jar",
    ]
    assert (leased.repository / "org/x/a/1/a-1.jar").stat().st_ino == (own / "a-1.jar").stat().st_ino
    assert (leased.repository / "org/x/a/1/_remote.repositories").stat().st_ino != (
        own / "_remote.repositories"
    ).stat().st_ino


def test_a_new_repository_begins_as_the_fullest_of_the_others(tmp_path: Path) -> None:
    first = lease(tmp_path, tmp_path / "home")
    downloaded(first.repository)
    second = lease(tmp_path, tmp_path / "home")
    assert (second.repository / "org/x/a/1/a-1.jar").read_text() == "jar"
    for leased in (first, second):
        leased.release()


async def test_many_at_once_never_share_a_repository(tmp_path: Path) -> None:
    leases: list[Lease] = []

    async def one() -> None:
        leases.append(await anyio.to_thread.run_sync(lease, tmp_path, tmp_path / "home"))

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(one)
    assert len({leased.repository for leased in leases}) == 8
    for leased in leases:
        leased.release()


# -- calling it ------------------------------------------------------------------------------------


def fake_maven(ctx: FakeContext, script: str, name: str = "bin/mvn") -> None:
    path = ctx.folder / name if name.startswith("bin") else ctx.workspace / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    ctx.env["PATH"] = f"{ctx.folder}/bin:{os.environ['PATH']}"
    ctx.env["HOME"] = str(ctx.folder)


async def test_it_runs_its_goals_in_batch_mode_with_a_repository_of_its_own(ctx: FakeContext) -> None:
    fake_maven(ctx, 'printf "%s\\n" "$@"')
    await Maven().run(ctx)
    repository = ctx.cache / "repositories" / "0"
    assert ctx.text.split() == [
        "-B",
        "-V",
        f"-Dmaven.repo.local={repository}",
        "clean",
        "package",
        "-Dmaven.test.skip=true",
    ]
    assert ("junit", "**/surefire-reports/*.xml") in ctx.published


async def test_goals_may_be_a_text_or_a_list(ctx: FakeContext) -> None:
    fake_maven(ctx, 'shift 3; printf "%s|" "$@"')
    await Maven.model_validate({"goals": "verify -Dx='a b'"}).run(ctx)
    await Maven.model_validate({"goals": ["verify", "-Dx=c d"]}).run(ctx)
    assert ctx.text == "verify|-Dx=a b|verify|-Dx=c d|"


async def test_maven_and_its_java_are_facts_of_the_run(ctx: FakeContext) -> None:
    fake_maven(
        ctx,
        "echo 'Apache Maven 3.8.7'; echo 'Java version: 17.0.13, vendor: Debian'; echo '[INFO] x'; echo 'Java 21 is required'",
    )
    await Maven().run(ctx)
    assert ctx.facts == {"tool maven": "Maven 3.8.7, Java 17.0.13"}


async def test_the_wrapper_of_the_workspace_is_preferred(ctx: FakeContext) -> None:
    fake_maven(ctx, "echo installed")
    fake_maven(ctx, "echo wrapper", "mvnw")
    await Maven().run(ctx)
    assert ctx.text == "wrapper\n"


async def test_settings_and_jdk_are_looked_for(ctx: FakeContext) -> None:
    fake_maven(ctx, 'echo "$JAVA_HOME $4 $5"')
    (ctx.workspace / "s.xml").touch()
    (ctx.workspace / "jdk" / "bin").mkdir(parents=True)
    (ctx.workspace / "jdk" / "bin" / "java").touch()
    await Maven(settings="s.xml", jdk="jdk").run(ctx)
    assert ctx.text == f"{ctx.workspace}/jdk -s {ctx.workspace}/s.xml\n"
    with pytest.raises(StageFailed, match=r"settings: there is no no\.xml") as caught:
        await Maven(settings="no.xml").run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG
    with pytest.raises(StageFailed, match="jdk: there is no none/bin/java"):
        await Maven(jdk="none").run(ctx)


async def test_without_maven_it_says_what_is_missing(ctx: FakeContext) -> None:
    ctx.env["PATH"] = str(ctx.folder)
    with pytest.raises(StageFailed, match="there is no program 'mvn': install it") as caught:
        await Maven().run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG


async def test_its_output_is_logged_and_its_modules_are_progress(ctx: FakeContext) -> None:
    fake_maven(ctx, "echo '[INFO] Building service-cmn 1.0   [5/10]'; echo '[ERROR] no' >&2; exit 1")
    with pytest.raises(StageFailed, match="mvn ended with exit code 1: no"):
        await Maven().run(ctx)
    assert "Building service-cmn" in ctx.text
    assert ctx.progressed == [("Building service-cmn [5/10]", 0.4)]


async def test_a_cancel_ends_it_and_gives_the_repository_back(ctx: FakeContext) -> None:
    fake_maven(ctx, "sleep 30")
    with anyio.move_on_after(0.5):
        await Maven().run(ctx)
    leased = await anyio.to_thread.run_sync(lease, ctx.cache / "repositories", ctx.folder)
    assert leased.repository.name == "0"
    leased.release()


# -- the real one ----------------------------------------------------------------------------------

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>test</groupId><artifactId>broken</artifactId><version>1</version>
<properties><maven.compiler.release>17</maven.compiler.release>
<project.build.sourceEncoding>UTF-8</project.build.sourceEncoding></properties>
<build><plugins><plugin><artifactId>maven-compiler-plugin</artifactId><version>3.14.1</version></plugin></plugins></build>
</project>
"""


@pytest.mark.sandbox
@pytest.mark.timeout(300)
async def test_a_real_compile_error_is_told_with_the_compilers_lines(ctx: FakeContext) -> None:
    (ctx.workspace / "pom.xml").write_text(POM)
    source = ctx.workspace / "src/main/java/A.java"
    source.parent.mkdir(parents=True)
    source.write_text("class A { Foo foo; }\n")
    with pytest.raises(StageFailed, match="compilation failed in broken: 1 error") as caught:
        await Maven().run(ctx)
    assert "[ERROR] src/main/java/A.java:[1,11] cannot find symbol" in caught.value.cause.evidence
    source.write_text("class A { }\n")
    await Maven().run(ctx)
    assert (ctx.workspace / "target/broken-1.jar").exists()
