"""`run:`: a script for a shell, or a program with its arguments."""

import signal
from typing import Annotated, ClassVar, Literal, Self

from pydantic import model_validator

from pipeline.stage import Completed, NoOutputs, Script, ScriptMark, Stage, StageContext, StageFailed

__all__ = ["Shell"]

SHELLS = {"sh": ("/bin/sh", "-e"), "bash": ("bash", "-eo", "pipefail")}

ARGUMENT_LIMIT = 65536
"""Longer scripts come by standard input: Linux takes no argument of more than 128 KiB."""

SOURCE_STDIN = "exec 3<&0 </dev/null; . /dev/fd/3"
CLOSE_SOURCE = "exec 3<&-; "


class Shell(Stage[NoOutputs]):
    """Run a script in a shell, or one program without a shell."""

    computes: ClassVar[bool] = True
    contained: ClassVar[bool] = True
    starts_processes: ClassVar[bool] = True
    scripted: ClassVar[bool] = True

    script: Script = ""
    """Text for the shell, which stops at the first command that fails. `run: TEXT` sets it."""
    argv: Annotated[tuple[str, ...], ScriptMark()] = ()
    """A program and its arguments, started as they are. `run: [PROGRAM, …]` sets it."""
    shell: Literal["sh", "bash"] = "sh"
    """`sh` is `/bin/sh -e`; `bash` is `bash -eo pipefail`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.script.strip()) == bool(self.argv):
            raise ValueError("give a script, or a list of a program and its arguments, and it must not be empty")
        return self

    async def run(self, ctx: StageContext) -> NoOutputs:
        """Run it; its own exit code decides."""
        if self.argv:
            _check(self.argv[0], await ctx.exec(self.argv, check=False))
        else:
            _check("the script", await self._script(ctx))
        return NoOutputs()

    async def _script(self, ctx: StageContext) -> Completed:
        # `$0` is the stage's name: shells begin their messages with it, then the line within the script
        shell, name = [*SHELLS[self.shell], "-c", "--"], ctx.run.stage
        script = self.script.encode()
        if len(script) <= ARGUMENT_LIMIT:
            return await ctx.exec([*shell, self.script, name], check=False)
        return await ctx.exec([*shell, SOURCE_STDIN, name], stdin=CLOSE_SOURCE.encode() + script, check=False)


def _check(what: str, ended: Completed) -> None:
    code = ended.exit_code
    if code:
        raise StageFailed(f"{what} ended with exit code {code}{_meaning(code)}")


def _meaning(code: int) -> str:
    if code == 126:
        return ": a program in it is not executable"
    if code == 127:
        return ": a program in it was not found"
    if code - 128 in set(signal.Signals):
        name = signal.Signals(code - 128).name
        return f" ({name}{': often for lack of memory' if code == 137 else ''})"
    return ""
