"""Handing one message to one receiver, in a process of its own: what hangs there can be ended, and costs us no memory.

apprise knows the receivers. Its threads cannot be stopped and outlive its own limits, hence the process; it gets
everything by stdin, since others can read its arguments and its environment.
"""

import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio

from runner.process import NoProgramError, execute

__all__ = ["Look", "Message", "inert", "look_at", "main", "send"]

WITHIN = 30.0
"""Seconds that one message may take, from the start of the process to its end."""
_ARGV = [sys.executable, "-P", "-c", "from runner.server.courier import main; main()"]
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
_OURS_ALONE = frozenset({"dbus", "glib", "gnome", "kde", "macosx", "qt", "syslog", "windows"})
"""Services that are this machine itself: nobody would see the message."""
_EXACT = frozenset({"json", "jsons", "xml", "xmls", "form", "forms", "mailto", "mailtos"})
"""Programs, and mail as text: nothing in a message is markup to them."""
_MARKUP = re.compile(r"(?<=[@<])(?=\S)|(?<=\])(?=\()")
_WORD_JOINER = "\N{WORD JOINER}"


@dataclass(frozen=True, slots=True)
class Message:
    """What is told: plain text. `sort` is info, success, warning or failure; receivers choose a colour by it."""

    title: str
    body: str
    sort: str = "info"


@dataclass(frozen=True, slots=True)
class Look:
    """What a URL addresses, or what is wrong: never with a part of the URL in it."""

    service: str = ""
    note: str = ""


async def look_at(url: str) -> Look:
    """Which service a URL addresses. Nobody is asked."""
    return Look(**await _ask({"url": url}))


async def send(url: str, message: Message) -> str:
    """Hand a message over once; what went wrong, empty if it was taken. No part of the URL is in it.

    One whose process is ended after thirty seconds may have been taken all the same.
    """
    found = await _ask({"url": url, "message": asdict(message)})
    return found["note"]


async def _ask(request: dict[str, Any]) -> dict[str, str]:
    said = bytearray()
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    words = json.dumps(request).encode()
    try:
        with anyio.fail_after(WITHIN):
            ended = await execute(
                _ARGV, cwd=Path("/"), env=env, stdin=words, stdout=said.extend, stderr=bytearray().extend
            )
    except TimeoutError:
        return {"note": f"it did not answer within {WITHIN:g} s"}
    except NoProgramError as error:
        return {"note": str(error)}
    try:
        found: dict[str, str] = json.loads(said)
    except ValueError:
        return {"note": f"its process ended with {ended.exit_code} and said nothing"}
    return found


# -- in the process --------------------------------------------------------------------------------


def main() -> None:
    """Read a request from stdin, answer on stdout."""
    request = json.load(sys.stdin)
    try:
        answer = _handle(request["url"].strip(), request.get("message"))
    except ModuleNotFoundError as error:
        answer = {"note": f"there is no {error.name}: notifications need the extra `pipe-ci[server]`"}
    except Exception as error:  # noqa: BLE001 - its text may hold the URL
        answer = {"note": f"it cannot be told: {type(error).__name__}"}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # threads of apprise that still wait would hold us up


def _handle(url: str, message: dict[str, str] | None) -> dict[str, str]:
    import apprise

    # our name, and no pictures that a reader would load from elsewhere
    ours = apprise.AppriseAsset(app_id="pipe", app_desc="pipe", app_url="", image_url_mask=False, image_url_logo=False)
    box = apprise.Apprise(asset=ours)
    scheme = url.partition("://")[0].lower()
    if scheme in _OURS_ALONE:
        return {"note": f"{scheme}:// is this machine itself"}
    if not _is_one(url) or not box.add(url):
        return {"note": "it is no URL that apprise knows; docs/server.md shows how services are written"}
    if message is None:
        return {"service": str(box[0].service_name), "note": ""}
    shown = str if scheme in _EXACT else inert
    said = box.notify(
        title=shown(message["title"]),
        body=shown(message["body"]),
        notify_type=message["sort"],
        body_format=apprise.NotifyFormat.TEXT,  # it is escaped where the receiver reads HTML
    )
    return {"note": "" if said else _reason(url, said)}


def _is_one(url: str) -> bool:
    """Several in a row would be several receivers with one verdict."""
    return url.count("://") == 1 and not re.search(r"\s", url)


def inert(text: str) -> str:
    """Text that names nobody (`@all`) and links nothing (`[x](y)`) in a chat: an invisible joiner parts the signs."""
    return _MARKUP.sub(_WORD_JOINER, text)


def _reason(url: str, said: Any) -> str:
    """Why it was not taken, without any part of the URL."""
    lines = [entry.message for result in said.results for entry in result.logs()]
    text = " ".join(lines[-1].split()) if lines else "it was not taken, and apprise does not say why"
    parts = {part for whole in (url, unquote(url)) for part in re.split(r"[/:@?&=,+]", whole)}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, "***") if len(part) >= 4 else text
    return text[:300]
