"""What a user sees while it takes its time."""

import os
import pty
import re
import sys
from contextlib import suppress
from time import sleep

import pytest

from sandbox import progress


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENT_FOR", 0.05)
    monkeypatch.setattr(progress, "HEARTBEAT", 0.05)


def test_what_is_quick_is_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.activity("quick"):
        pass
    assert capsys.readouterr().err == ""


def test_what_takes_long_beats_and_says_its_end(hasty: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.activity("compiling") as news:
        news.note = "412 packages"
        sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "compiling … 0 s, 412 packages"
    assert len(lines) > 3
    assert lines[-1] == "compiling: done in 0 s"


def test_a_failure_is_not_called_done(hasty: None, capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(ZeroDivisionError), progress.activity("compiling"):
        sleep(0.1)
        _ = 1 / 0
    assert "done" not in capsys.readouterr().err


def test_on_a_terminal_there_is_one_live_line_and_whole_lines_pass_it(
    hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pty.openpty()
    monkeypatch.setattr(os, "get_terminal_size", lambda descriptor: os.terminal_size((20, 25)))
    with os.fdopen(reader, "rb", 0) as screen, os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        seen = ""
        with progress.activity("compiling a great deal"):
            while "compiling" not in seen:
                seen += screen.read(1000).decode()
            progress.say("whole")
        while "done" not in seen:
            seen += screen.read(1000).decode()
    live, _, rest = seen.partition("\r\x1b[2Kwhole\r\n")
    assert set(live.split("\r\x1b[2K")) == {"", "compiling a great d"}
    assert re.search(r"compiling a great deal: done in \d+ s\r\n$", rest)
