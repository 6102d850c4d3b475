"""What people see: safe lines, a tree that fits the screen, a run that no reader can hold up."""

import io
import threading
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.plan import Leaf, Plan, RunIdentity
from pipeline.stage import Cause, CauseKind, Outcome
from runner import events
from runner.events import Event, Record
from runner.folder import RunFolder
from runner.sinks.groups import Ungrouped
from runner.sinks.plain import Plain
from runner.sinks.sink import Renderer, Sink
from runner.sinks.tree import clock, rows
from runner.sinks.tty import Tty, fitting
from runner.sinks.view import KeptLogs, LogFile, LogReader, RunView, clean, cleaned, plain_text


def plan(*names: str) -> Plan:
    leaves = [
        Leaf(
            name=name,
            stage=name.partition("[")[0],
            key=name.partition("[")[2].rstrip("]"),
            uses="probe",
            timeout=timedelta(hours=1),
        )
        for name in names
    ]
    return Plan(pipeline="demo", file="x.yaml", run=RunIdentity(id="01X", number=7), leaves=tuple(leaves))


def view(tmp_path: Path, *happened: Event, of: Plan | None = None) -> RunView:
    made = RunView(of or plan("a", "b"), KeptLogs(RunFolder(tmp_path)))
    for seq, event in enumerate(happened, 1):
        made.state.apply(Record(seq, 100.0 + seq, event))
    return made


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain", "plain"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"a\x1b[2J\x1b[Hb", "ab"),
        (b"\x1b]0;title\x07x", "x"),
        (b"\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b]52;c;ZWNobw==\x07x", "x"),
        (b"10%\r50%\r100%", "100%"),
        (b"ends with cr\r", "ends with cr"),
        (b"a\x00b\x07c\x08d", "abcd"),
        (b"\xff\xfe", "��"),
        ("\u009b2Jx".encode(), "2Jx"),
        (b"a\xc2\xc2\x9b\x9b2Jb\xc2\x00\x9b2J", "a\ufffd\ufffd2Jb2J"),
        ("项目编译".encode(), "项目编译"),
    ],
)
def test_a_log_line_cannot_drive_the_terminal(raw: bytes, shown: str) -> None:
    assert clean(raw) == shown


def test_lines_are_shown_when_they_are_whole_and_the_last_one_at_the_end(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    reader = LogReader(LogFile(log))
    assert reader.lines() == ""
    log.write_bytes(b"one\ntw")
    assert reader.lines() == "one\n"
    with log.open("ab") as file:
        file.write(b"o\nthree")
    assert reader.lines() == "two\n"
    assert list(reader.end()) == ["three\n"]


def test_a_line_that_never_ends_is_cut_and_not_kept_in_memory(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"x" * 3_000_000)
    shown = list(LogReader(LogFile(log)).end())
    assert "".join(shown).replace("\n", "") == "x" * 3_000_000
    assert all(each.endswith("x\n") for each in shown)
    assert max(map(len, shown)) < 400_000


@given(st.lists(st.binary(max_size=200), max_size=30), st.booleans())
@settings(max_examples=60)
def test_whatever_comes_in_whatever_pieces_the_lines_shown_are_those_of_the_whole(
    pieces: list[bytes],
    hurried: bool,  # noqa: FBT001 - hypothesis gives it by its place
) -> None:
    with TemporaryDirectory() as folder:
        log = Path(folder) / "x.log"
        reader = LogReader(LogFile(log))
        shown = ""
        for piece in pieces:
            with log.open("ab") as file:
                file.write(piece)
            shown += "" if hurried else reader.lines()
        shown += "".join(reader.end())
    whole = b"".join(pieces)
    assert shown == clean(whole if whole.endswith(b"\n") or not whole else whole + b"\n")


def test_a_backlog_is_read_in_blocks_not_at_once(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"x" * 999 + b"\n" + b"y\n" * 3_000_000)
    blocks = list(LogReader(LogFile(log)).end())
    assert max(map(len, blocks)) <= 1 << 20
    assert "".join(blocks).count("\n") == 3_000_001


def test_several_lines_are_cleaned_as_each_of_them_is() -> None:
    lines = [b"plain", b"\x1b]0;an open title", b"10%\r50%\r", b"\xc2\x9b2Jx", b"a\tb", b"\xff", b""]
    assert clean(b"\n".join(lines)) == "\n".join(map(clean, lines))
    assert [clean(line) for line in lines] == ["plain", "", "50%", "2Jx", "a    b", "�", ""]


def test_words_from_outside_cannot_forge_a_line_or_drive_the_terminal() -> None:
    assert plain_text("no\x1b[2J\n[two] succeeded") == "no ⏎ [two] succeeded"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (12.4, "12s"), (59.6, "1m 00s"), (184, "3m 04s"), (3720, "1h 02m")],
)
def test_times_read_as_people_say_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_fan_out_is_one_row_with_its_worst_outcome_and_its_leaves_below(tmp_path: Path) -> None:
    of = plan("image[a]", "image[b]")
    shown = view(
        tmp_path,
        events.RunStarted(pipeline="demo", number=7),
        events.StageStarted("image[a]", 1),
        events.StageStarted("image[b]", 1),
        events.StageFinished("image[a]", 1, Outcome.SUCCEEDED),
        events.StageFinished("image[b]", 1, Outcome.FAILED, Cause(CauseKind.USER, "no such file")),
        of=of,
    )
    run, stage, first, second = rows(shown, 200.0)
    assert (run.name, stage.name, stage.outcome) == ("demo#7", "image  1/2", Outcome.FAILED)
    assert (first.note, second.note) == ("", "no such file")


def test_a_tree_larger_than_the_screen_keeps_what_runs_and_what_failed(tmp_path: Path) -> None:
    of = plan(*(f"work[{n:02}]" for n in range(40)))
    happened: list[Event] = [events.RunStarted(pipeline="demo", number=7)]
    happened += [events.StageStarted(f"work[{n}]", 1) for n in (31, 35)]
    happened += [events.StageFinished("work[31]", 1, Outcome.FAILED, Cause(CauseKind.USER, "no"))]
    kept = fitting(list(rows(view(tmp_path, *happened, of=of), 200.0)), 10)
    names = [row.name for row in kept]
    assert len(kept) == 10
    assert {"demo#7", "work[31]", "work[35]"} <= set(names)
    assert names[-1] == "… and 33 more"


def test_a_screen_never_gets_more_rows_than_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "12")
    out = io.StringIO()
    tty = Tty(out, colour=False)
    shown = view(tmp_path, events.RunStarted(pipeline="demo", number=7), of=plan(*(f"s{n}" for n in range(50))))
    tty.record(shown, Record(1, 100.0, events.RunStarted()))
    tty.frame(101.0)
    lines = out.getvalue().partition("\r")[2].partition("\x1b[J")[0].replace("\x1b[K", "").splitlines()
    assert len(lines) == 10
    assert max(map(len, lines)) <= 60


class _Stuck(Renderer):
    period = 0.01

    def record(self, view: RunView, record: Record) -> None:
        raise BrokenPipeError

    def frame(self, now: float) -> bool:
        return False

    def finish(self) -> None:
        return


def test_a_sink_that_fails_ends_itself_and_nothing_else(tmp_path: Path) -> None:
    sink = Sink(_Stuck())
    sink.start()
    tell = sink.reader(view(tmp_path))
    for seq in range(1000):
        tell(Record(seq, time.time(), events.RunStarted()))
    sink.stop()
    assert isinstance(sink.failure, BrokenPipeError)


class _Slow(Renderer):
    """Shows a word now and then, much longer in all than anybody waits for one."""

    period = 0.01

    def __init__(self, words: int) -> None:
        self.left = words
        self.go_on = threading.Event()

    def record(self, view: RunView, record: Record) -> None:
        return

    def frame(self, now: float) -> bool:
        return False

    def finish(self) -> None:
        while self.left and not self.go_on.wait(0.05):
            self.left -= 1
            self.moved = time.monotonic()


def test_a_console_that_is_read_gets_everything_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.sinks.sink.LAST_WORDS", 0.5)
    slow = _Slow(words=20)
    sink = Sink(slow)
    sink.start()
    assert sink.stop()
    assert slow.left == 0


def test_after_a_cancel_and_for_one_that_stands_still_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.sinks.sink.LAST_WORDS", 0.3)
    slow = _Slow(words=1_000)
    sink = Sink(slow)
    sink.start()
    assert not sink.stop(hurried=True)
    assert slow.left
    slow.go_on.set()


def test_a_frame_shows_a_block_of_every_log_and_says_whether_there_may_be_more(tmp_path: Path) -> None:
    shown = view(tmp_path, events.RunStarted(pipeline="demo", number=7), of=plan("a", "b"))
    out = io.StringIO()
    plain = Plain(out, Ungrouped())
    for leaf in ("a", "b"):
        log = shown.logs.folder.log(leaf, 1)  # type: ignore[attr-defined]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"x" * 99 + b"\n" + b"y\n" * (1 << 20))
        plain.record(shown, Record(1, 100.0, events.StageStarted(leaf, 1)))
    assert plain.frame(101.0)
    assert {"[a] y", "[b] y"} <= set(out.getvalue().splitlines())
    while plain.frame(102.0):
        pass
    told = out.getvalue().splitlines()
    assert (told.count("[a] y"), told.count("[b] y")) == (1 << 20, 1 << 20)


@given(st.text(alphabet="aé語😀", min_size=1, max_size=40), st.integers(20_000, 90_000))
@settings(max_examples=30)
def test_a_line_without_an_end_is_cut_between_characters(word: str, size: int) -> None:
    text = word * (200_000 // len(word.encode()))
    data = text.encode()
    shown = list(cleaned(data[start : start + size] for start in range(0, len(data), size)))
    assert "".join(shown).replace("\n", "") == text
    assert len(shown) > 1


def test_text_that_turns_the_order_of_what_follows_does_not_reach_a_terminal() -> None:
    assert clean("a\u202eb\u2066c\u200fd".encode()) == "abcd"
