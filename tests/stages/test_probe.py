"""`uses: probe`: each knob does what it says."""

from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pipeline.stage import Cause, CauseKind, Login, SecretText, StageErrored, StageFailed
from stages.probe import Probe
from tests.support.context import FakeContext


def probe(**fields: object) -> Probe:
    return Probe.model_validate(fields)


async def test_without_knobs_it_succeeds_at_once(ctx: FakeContext) -> None:
    outputs = await probe(output="x").run(ctx)
    assert outputs.model_dump() == {"value": "x", "attempt": 1}


async def test_it_logs_text_and_numbered_lines(ctx: FakeContext) -> None:
    await probe(log="hello", lines=2500).run(ctx)
    lines = ctx.text.splitlines()
    assert (lines[0], lines[1], lines[-1], len(lines)) == ("hello", "line 1", "line 2500", 2501)


async def test_it_writes_a_secret_to_the_log(tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path, secrets={"a": SecretText("s3cret"), "b": Login("u", "p4ss")})
    await probe(secret="a").run(ctx)
    await probe(secret="b").run(ctx)
    assert ctx.text == "s3cret\nu p4ss\n"


@pytest.mark.parametrize(
    ("fields", "error", "message", "cause"),
    [
        ({"fail": "no"}, StageFailed, "no", CauseKind.USER),
        ({"fail": "no", "cause": "config"}, StageFailed, "no", CauseKind.CONFIG),
        ({"exit_code": 4}, StageFailed, "ended with exit code 4", CauseKind.USER),
        ({"error": "away"}, StageErrored, "away", CauseKind.INFRA),
        ({"fail_times": 1}, StageErrored, "attempt 1 was told to fail", CauseKind.INFRA),
    ],
)
async def test_it_ends_as_told(
    ctx: FakeContext,
    fields: dict[str, object],
    error: type[StageFailed] | type[StageErrored],
    message: str,
    cause: CauseKind,
) -> None:
    with pytest.raises(error) as caught:
        await probe(evidence=["line"], **fields).run(ctx)
    found: Cause = vars(caught.value)["cause"]
    assert found == Cause(cause, message, ("line",))


async def test_it_fails_in_the_first_attempts_only(ctx: FakeContext) -> None:
    stage = probe(fail="no", fail_times=2)
    for attempt in (1, 2):
        ctx.run = replace(ctx.run, attempt=attempt)
        with pytest.raises(StageFailed):
            await stage.run(ctx)
    ctx.run = replace(ctx.run, attempt=3)
    assert (await stage.run(ctx)).attempt == 3


async def test_it_breaks_like_a_bug(ctx: FakeContext) -> None:
    with pytest.raises(RuntimeError):
        await probe(crash=True).run(ctx)


async def test_it_goes_on_after_a_cancel_for_as_long_as_it_was_told(ctx: FakeContext) -> None:
    start = anyio.current_time()
    with anyio.move_on_after(0.05):
        await probe(sleep="10s", ignore_cancel="300ms").run(ctx)
    assert 0.3 <= anyio.current_time() - start < 2


async def test_it_makes_its_effects_and_proves_them(ctx: FakeContext) -> None:
    await probe(effects=2, effect_file="made").run(ctx)
    assert [(effect.key, effect.value) for effect in ctx.effects] == [
        ("probe 1", {"number": 1, "attempt": 1}),
        ("probe 2", {"number": 2, "attempt": 1}),
    ]
    assert (ctx.workspace / "made").read_text() == "stage 1\nstage 2\n"


async def test_an_effect_that_is_proven_is_not_made_again(tmp_path: Path) -> None:
    ctx = FakeContext(tmp_path, proven={"probe 1": {"number": 1, "attempt": 1}})
    await probe(effects=2, effect_file="made").run(ctx)
    assert (ctx.workspace / "made").read_text() == "stage 2\n"
    assert ctx.effects[0].value == {"number": 1, "attempt": 1}


async def test_it_settles_as_told(ctx: FakeContext) -> None:
    assert (await probe().settle(ctx, "probe 1", {})).state == "unknown"
    assert (await probe(settles="done").settle(ctx, "probe 1", {})).proof == {"settled": True}


async def test_it_looks_into_the_file_of_its_changes(ctx: FakeContext) -> None:
    looking = probe(settles="file", effect_file="made")
    assert (await looking.settle(ctx, "probe 1", {"number": 1})).state == "absent"
    (ctx.workspace / "made").write_text("stage 1\n")
    assert (await looking.settle(ctx, "probe 1", {"number": 1})).state == "done"
    assert (await looking.settle(ctx, "probe 2", {"number": 2})).state == "absent"
