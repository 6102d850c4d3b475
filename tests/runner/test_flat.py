"""What a stage writes costs disk, within the limit of its log, and no memory: however much it is, and whatever it is."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.program import PIPE, host

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECRET = "correct-horse-battery"


def peak(folder: Path, command: str) -> float:
    """The MiB that the largest process of a run had at its peak; its console is read by somebody."""
    text = (
        f"name: demo\nsecrets: {{t: text}}\nstages:\n  s: {{secrets: {{T: t}}, log: 8Mi, run: {json.dumps(command)}}}\n"
    )
    (folder / "pipeline.yaml").write_text(text)
    with subprocess.Popen(
        [PIPE, "run", "pipeline.yaml", "-o", "plain"],
        cwd=folder,
        env=host(PIPE_SECRET_T=SECRET),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as run:
        _, status, usage = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        assert run.returncode == 0, run.stderr and run.stderr.read()
    return usage.ru_maxrss / 1024


LOGS = {
    "a line of 1 GiB": "head -c 1G /dev/zero | tr '\\0' x",
    "a line of 1 GiB that is a bar": "yes '█░ 50 %' | tr '\\n' '\\r' | head -c 1G",
    "300 MiB that are no text": "head -c 300M /dev/urandom",
    "a secret again and again": 'yes "$T" | head -c 300M',
}


@pytest.mark.parametrize("command", LOGS.values(), ids=list(LOGS))
def test_memory_is_that_of_a_run_of_one_line(tmp_path: Path, command: str) -> None:
    assert peak(tmp_path, command) < 1.3 * peak(tmp_path, "echo one")
    log = max((tmp_path / ".pipe/demo/1/logs").glob("*.log"))
    assert log.stat().st_size < 11 << 20
    assert "bytes were dropped here" in log.read_bytes().decode("utf-8", "replace")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_memory_is_the_same_for_a_log_of_10_gb(tmp_path: Path) -> None:
    lines = "yes 'a line of the log with some words in it to fill it up' | head -c 10G"
    assert peak(tmp_path, lines) < 1.3 * peak(tmp_path, "echo one")


def test_eight_stages_at_once_tear_no_line_lose_none_and_keep_their_order(tmp_path: Path) -> None:
    each = 40_000
    script = f'for word in of this stage; do seq -f "%g $word and no other" 1 {each}; done'
    stages = "".join(f"  s{n}: {{run: {json.dumps(script)}}}\n" for n in range(8))
    (tmp_path / "pipeline.yaml").write_text(f"name: demo\nstages:\n{stages}")
    argv = [str(PIPE), "run", "pipeline.yaml", "-o", "plain", "-j", "8"]
    shown = subprocess.run(argv, cwd=tmp_path, env=host(), capture_output=True, text=True, check=True).stdout
    expected = [f"{n} {word} and no other" for word in ("of", "this", "stage") for n in range(1, each + 1)]
    lines: dict[str, list[str]] = {}
    for line in shown.splitlines():
        prefix, _, text = line.partition(" ")
        lines.setdefault(prefix, []).append(text)
    for number in range(8):
        assert [text for text in lines[f"[s{number}]"] if text.endswith("no other")] == expected
