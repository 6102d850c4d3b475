"""`run:`: what the shell is told, and what its end means."""

import anyio
import pytest
from pydantic import ValidationError

from pipeline.stage import CauseKind, ScriptMark, StageFailed
from stages.shell import ARGUMENT_LIMIT, Shell
from tests.support.context import FakeContext


async def test_a_script_stops_at_the_first_command_that_fails(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match="the script ended with exit code 1"):
        await Shell(script="echo one\nfalse\necho two").run(ctx)
    assert ctx.text == "one\n"


async def test_an_argument_list_is_started_without_a_shell(ctx: FakeContext) -> None:
    await Shell(argv=("printf", "%s|", "$HOME", "a b", "*")).run(ctx)
    assert ctx.text == "$HOME|a b|*|"


async def test_bash_fails_when_a_part_of_a_pipe_fails(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match="exit code 1"):
        await Shell.model_validate({"script": "false | cat", "shell": "bash"}).run(ctx)
    await Shell(script="false | cat").run(ctx)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("size", [0, ARGUMENT_LIMIT, 3 << 20])
async def test_messages_of_the_shell_name_the_line_of_the_script(ctx: FakeContext, shell: str, size: int) -> None:
    script = f"# {'x' * size}\necho start\nno_such_program_here\n"
    with pytest.raises(StageFailed, match="exit code 127: a program in it was not found"):
        await Shell.model_validate({"script": script, "shell": shell}).run(ctx)
    assert "start\n" in ctx.text
    assert " 3:" in ctx.text.replace("line 3:", " 3:")


@pytest.mark.parametrize("size", [0, ARGUMENT_LIMIT])
@pytest.mark.parametrize("shell", ["sh", "bash"])
async def test_a_script_finds_nothing_on_its_standard_input(ctx: FakeContext, shell: str, size: int) -> None:
    script = f": {'x' * size}\ncat\nif [ -e /dev/fd/3 ]; then echo open; fi\necho end"
    await Shell.model_validate({"script": script, "shell": shell}).run(ctx)
    assert ctx.text == "end\n"


async def test_a_script_may_begin_with_a_dash(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match="exit code 127"):
        await Shell(script="-x").run(ctx)


async def test_dollar_signs_reach_the_shell_as_they_are(ctx: FakeContext) -> None:
    await Shell(script='x=1; echo "$x ${x} $$" | grep -c "^1 1 [0-9]"').run(ctx)
    assert ctx.text == "1\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "the script ended with exit code 3"),
        ("kill -9 $$", r"exit code 137 \(SIGKILL: often for lack of memory\)"),
        ("kill -15 $$", r"exit code 143 \(SIGTERM\)"),
        ("./plain", "exit code 126: a program in it is not executable"),
    ],
)
async def test_an_exit_code_is_explained(ctx: FakeContext, script: str, message: str) -> None:
    (ctx.workspace / "plain").write_text("echo")
    with pytest.raises(StageFailed, match=message):
        await Shell(script=script).run(ctx)


async def test_a_missing_program_is_a_mistake_of_the_file(ctx: FakeContext) -> None:
    with pytest.raises(StageFailed, match="there is no program 'no_such_program_here'") as caught:
        await Shell(argv=("no_such_program_here",)).run(ctx)
    assert caught.value.cause.kind is CauseKind.CONFIG


async def test_a_cancel_ends_the_shell_and_its_children(ctx: FakeContext) -> None:
    with anyio.move_on_after(0.3):
        await Shell(script="(sleep 1; echo late > late) & sleep 30").run(ctx)
    await anyio.sleep(1.0)
    assert not (ctx.workspace / "late").exists()


@pytest.mark.parametrize("fields", [{}, {"script": "  \n"}, {"script": "true", "argv": ["true"]}, {"argv": []}])
def test_exactly_one_of_script_and_program_must_be_given(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="give a script, or a list"):
        Shell.model_validate(fields)


def test_its_texts_are_marked_as_scripts_so_that_nothing_is_substituted_in_them() -> None:
    for name in ("script", "argv"):
        assert any(isinstance(mark, ScriptMark) for mark in Shell.model_fields[name].metadata)
