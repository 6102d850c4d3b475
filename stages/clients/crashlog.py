"""What a program wrote of why it ended: the block that matters in its log, in one sentence; pure functions of lines.

Known are the logs of Spring Boot, Java, Node.js, Python, Go and nginx; of others the last words are taken.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from stages.clients.unreachable import in_plain_words

__all__ = ["Complaint", "complaint", "excerpt", "last_complaint"]

_LONGEST = 300
_BLOCK = 24
_FRAMES = 2
"""Frames that are shown of a stack trace's every part."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why a program ended, by its own log.

    `message` is one line; `start` and `end` bound the lines that say it; `hint` is the way out, if one is known;
    `sure` is False when these are only its last words.
    """

    message: str
    start: int
    end: int
    hint: str = ""
    sure: bool = True


def complaint(lines: Sequence[str]) -> Complaint | None:
    """What the log says of why the program ended; None if it says nothing at all."""
    for reader in _READERS:
        if found := reader(lines):
            return replace(found, message=_short(found.message))
    return None


def last_complaint(lines: Sequence[str]) -> Complaint | None:
    """What a program that runs complains of now; None if it has written of anything else since."""
    begin = 0
    while (found := complaint(lines[begin:])) and found.sure:
        start, end = begin + found.start, begin + found.end
        if not any(map(_is_ordinary, lines[end:])):
            return replace(found, start=start, end=end)
        begin = end
    return None


def excerpt(lines: Sequence[str], most: int) -> list[str]:
    """The lines worth reading, at most `most`: the complaint, wherever it stands, and how the log ends.

    Long stack traces, repetitions, empty lines and ornaments are left out.
    """
    found = complaint(lines)
    useful = _useful(lines)
    if found is None or not found.sure:
        return useful[-most:]
    block = _useful(lines[found.start : found.end])[: min(_BLOCK, most)]
    after = _last(_useful(lines[found.end :]), most - len(block))
    before = _last(_useful(lines[: found.start]), most - len(block) - len(after))
    return [*before, *block, *after]


def _last(lines: list[str], most: int) -> list[str]:
    return lines[-most:] if most > 0 else []


def _short(text: str) -> str:
    whole = " ".join(text.split())
    return whole if len(whole) <= _LONGEST else f"{whole[: _LONGEST - 1]}…"


_JAVA_FRAME = re.compile(r"\s+at [\w.$/<>@-]+\([^)]*\)")
_FRAME = re.compile(r"\s+at .+[:(]|\s+\.{3} \d+ (common frames omitted|more)")
_WORD = re.compile(r"[^\W_]")


def _useful(lines: Sequence[str]) -> list[str]:
    found: list[str] = []
    frames = repeats = 0
    for line in (each.rstrip() for each in lines):
        frames = frames + 1 if _FRAME.match(line) else 0
        if frames > _FRAMES or not _WORD.search(line):
            continue
        if found and line == _last_of(found, repeats):
            repeats += 1
            found[-1] = f"{line}  (×{repeats + 1})"
            continue
        repeats = 0
        found.append(line)
    return found


def _last_of(found: Sequence[str], repeats: int) -> str:
    return found[-1].removesuffix(f"  (×{repeats + 1})") if repeats else found[-1]


def _told(message: str, start: int, end: int, hint: str = "") -> Complaint:
    """A complaint, in our words where it is about a host or a port."""
    plain = None if hint else in_plain_words([message])
    return Complaint(plain[0], start, end, plain[1]) if plain else Complaint(message, start, end, hint)


# -- Spring Boot -----------------------------------------------------------------------------------


def _spring(lines: Sequence[str]) -> Complaint | None:
    """The report of a FailureAnalyzer: a description and, mostly, an action.

    https://docs.spring.io/spring-boot/reference/features/spring-application.html#features.spring-application.startup-failure
    """
    starts = [at for at, line in enumerate(lines) if line.strip() == "APPLICATION FAILED TO START"]
    if not starts:
        return None
    start = starts[-1]
    described = _section(lines, start, "Description:")
    action = _section(lines, start, "Action:")
    end = max([start + 1, *(at + 1 for at, _ in (*described, *action))])
    words = " ".join(text for _, text in described)
    return _told(words or "the application failed to start", start, end, " ".join(text for _, text in action))


def _section(lines: Sequence[str], start: int, title: str) -> list[tuple[int, str]]:
    """The lines below a title, up to the next title or to the end of the report; a description may have paragraphs."""
    at = next((at for at in range(start, len(lines)) if lines[at].strip() == title), None)
    if at is None:
        return []
    found: list[tuple[int, str]] = []
    for place in range(at + 1, len(lines)):
        text = lines[place].strip()
        if text == "Action:" or _LOG_LINE.match(text) or (found and not text and title == "Action:"):
            break
        if text:
            found.append((place, text))
    return found


_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")

# -- Java ------------------------------------------------------------------------------------------

_THROWABLE = re.compile(
    r"(?P<how>Caused by: |Suppressed: |Exception in thread \"[^\"]*\" )?"
    r"(?P<type>(?:[a-z_]\w*\.)+[A-Z][\w$]*)(?:: (?P<said>.*))?$"
)
_TOLD_TYPE = re.compile(r"[\s:](?P<type>(?:[a-z_]\w*\.)+[A-Z][\w$]*(?:Exception|Error))(?:: (?P<said>.*))?$")
_HEADER_WITHIN = 6
_FATAL = re.compile(r'Application run failed|Exception in thread "main"')


@dataclass(frozen=True, slots=True)
class _Link:
    """One exception of a chain: where it stands, and its first frame."""

    at: int
    how: str
    type: str
    said: str
    frame: str
    end: int

    def __str__(self) -> str:
        return f"{self.type}: {self.said}" if self.said else self.type


def _java(lines: Sequence[str]) -> Complaint | None:
    """The chain that ended the program, else the first one: what it says at its root."""
    chains = _chains(lines)
    if not chains:
        return None
    fatal = [chain for chain in chains if _FATAL.search(" ".join(lines[max(0, chain[0].at - 3) : chain[0].at + 1]))]
    chain = (fatal or chains)[0]
    start, end = chain[0].at, chain[-1].end
    texts = [str(link) for link in chain]
    if plain := in_plain_words(texts):
        return Complaint(plain[0], start, end, plain[1])
    root = chain[-1]
    hint = "raise -Xmx and the memory limit of the container" if root.type.endswith("OutOfMemoryError") else ""
    return Complaint(f"{root} {root.frame}".strip(), start, end, hint)


def _chains(lines: Sequence[str]) -> list[list[_Link]]:
    chains: list[list[_Link]] = []
    for at, line in enumerate(lines):
        if not _JAVA_FRAME.match(line) or (at and _JAVA_FRAME.match(lines[at - 1])):
            continue
        link = _link(lines, at)
        if link is None or link.how.startswith("Suppressed"):
            continue
        if link.how.startswith("Caused") and chains:
            chains[-1].append(link)
        else:
            chains.append([link])
    return chains


def _link(lines: Sequence[str], frame: int) -> _Link | None:
    """The exception that the frames from a line on belong to; its message may have several lines."""
    end = frame
    while end < len(lines) and _FRAME.match(lines[end]):
        end += 1
    for at in range(frame - 1, max(-1, frame - 1 - _HEADER_WITHIN), -1):
        match = _THROWABLE.match(lines[at]) or _TOLD_TYPE.search(lines[at])
        if match:
            groups = match.groupdict()
            said, place = (match["said"] or "").strip(), _JAVA_FRAME.match(lines[frame])
            return _Link(at, groups.get("how") or "", match["type"], said, place[0].strip() if place else "", end)
        if _JAVA_FRAME.match(lines[at]):
            return None
    return None


def _jvm(lines: Sequence[str]) -> Complaint | None:
    pattern = re.compile(r"Error: (Unable to access jarfile|Could not find or load main class|.*\bclass\b|.*\bJVM\b)")
    for at, line in enumerate(lines):
        if pattern.match(line) or line.startswith(
            ("Error occurred during initialization of VM", "Unrecognized VM opt")
        ):
            more = lines[at + 1] if line.endswith("of VM") and at + 1 < len(lines) else ""
            return Complaint(f"{line} {more}".strip(), at, at + 2 if more else at + 1)
    return None


# -- Node.js, Python, Go, nginx --------------------------------------------------------------------

_NODE = re.compile(r"(?:Uncaught )?(?P<type>[A-Z]\w*Error|Error)(?: \[\w+\])?: (?P<said>.+)")
_NODE_FRAME = re.compile(r"    at (?:.* \()?(?P<place>/[^)]+:\d+:\d+)\)?")


def _node(lines: Sequence[str]) -> Complaint | None:
    if not any(line.startswith("    at ") for line in lines):
        return None
    heads = [at for at, line in enumerate(lines) if _NODE.match(line) and _has_frames(lines, at)]
    if not heads:
        return None
    ended = any(line.startswith("Node.js v") for line in lines)
    start = heads[-1] if ended else heads[0]
    end = next(
        (at for at in range(start, len(lines)) if lines[at].startswith("Node.js v")), _end_of_error(lines, start)
    )
    own = next((match for match in map(_NODE_FRAME.match, lines[start:end]) if match), None)
    place = f" at {own['place']}" if own else ""
    first = max(0, start - 4) if start >= 4 and lines[start - 1] == "" else start
    return _told(lines[start] + place, first, end)


def _end_of_error(lines: Sequence[str], start: int) -> int:
    """Behind the frames of an error and its fields: what follows is written by a program that has gone on."""
    first = next(at for at in range(start, len(lines)) if lines[at].startswith("    at "))
    return next((at for at in range(first, len(lines)) if lines[at][:1] not in ("", " ", "\t", "}")), len(lines))


def _has_frames(lines: Sequence[str], at: int) -> bool:
    return any(line.startswith("    at ") for line in lines[at + 1 : at + 12])


def _python(lines: Sequence[str]) -> Complaint | None:
    starts = [at for at, line in enumerate(lines) if line.startswith("Traceback (most recent call last):")]
    if not starts:
        return None
    start = starts[-1]
    inner = range(start + 1, len(lines))
    end = next((at for at in inner if lines[at] and not lines[at].startswith((" ", "\t"))), None)
    if end is None:
        return None
    places = [line.strip() for line in lines[start:end] if line.startswith('  File "')]
    place = re.match(r'File "(.+)", line (\d+)', places[-1]) if places else None
    return _told(lines[end] + (f" at {place[1]}:{place[2]}" if place else ""), start, end + 1)


def _go(lines: Sequence[str]) -> Complaint | None:
    for at, line in enumerate(lines):
        if line.startswith(("panic: ", "fatal error: ")):
            place = next((each.split()[0] for each in lines[at + 1 : at + 12] if re.match(r"\t/\S+\.go:\d+", each)), "")
            return _told(f"{line} at {place}" if place else line, at, min(len(lines), at + 8))
    return None


def _nginx(lines: Sequence[str]) -> Complaint | None:
    for at, line in enumerate(lines):
        if match := re.search(r"\[emerg\] (?:\d+#\d+: )?(.+)", line):
            return _told(f"nginx: {match[1]}", at, at + 1)
    return None


def _network(lines: Sequence[str]) -> Complaint | None:
    """The last line that tells of a host or a port that could not be had."""
    for at in range(len(lines) - 1, -1, -1):
        if plain := in_plain_words([lines[at]]):
            return Complaint(plain[0], at, at + 1, plain[1])
    return None


_WRONG = re.compile(r"\b(fatal|error|panic|cannot|failed|denied|invalid|not found|no such|exception)\b", re.IGNORECASE)


_STILL = re.compile(
    r"\b(retry|retries|retrying|reconnect\w*|again|attempts?|timed? ?out|timeout|kube-probe)\b", re.IGNORECASE
)
"""Of what a line tells that is no news: that it is tried again, or that a probe has asked."""


def _is_ordinary(line: str) -> bool:
    """Whether a line tells that a program has gone on to something else."""
    if not _WORD.search(line) or _FRAME.match(line):
        return False
    return not (_STILL.search(line) or _WRONG.search(line) or _TOLD_TYPE.search(line) or in_plain_words([line]))


def _last_words(lines: Sequence[str]) -> Complaint | None:
    useful = [at for at, line in enumerate(lines) if _WORD.search(line)]
    wrong = [at for at in useful[-8:] if _WRONG.search(lines[at])]
    if not useful:
        return None
    at = (wrong or useful)[-1]
    return Complaint(lines[at].strip(), at, at + 1, sure=False)


_READERS: tuple[Callable[[Sequence[str]], Complaint | None], ...] = (
    _spring,
    _java,
    _jvm,
    _node,
    _python,
    _go,
    _nginx,
    _network,
    _last_words,
)
