"""The server at rest, under a storm of deliveries, and followed by many. Prints lines; nothing else may run."""

import asyncio
import hashlib
import hmac
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.crowd import first_log
from bench.measure import Ratio
from runner.events import RunFinished, StageFinished
from runner.folder import RunFolder

PIPE = Path(sys.executable).with_name("pipe")
DELIVERIES, WITHIN = 5000, 10.0
CONNECTIONS = 40
LARGE = 30 << 20
CLIENTS, PAIRS, PUSHES = 300, 20, 20
PIPELINE = """name: shop
params: {go: {default: ""}}
triggers: {push: {}}
stages:
  gate: {run: 'echo here; until test -z "$GO" -o -e "$GO"; do sleep 0.05; done', env: {GO: "${params.go}"}}
  one: {needs: gate, each: [a, b, c, d], run: "for i in $(seq 20); do echo $i; sleep 0.02; done"}
  two: {needs: one, each: [a, b, c, d], run: "for i in $(seq 20); do echo $i; sleep 0.02; done"}
  three: {needs: two, each: [a, b, c, d], run: "for i in $(seq 20); do echo $i; sleep 0.02; done"}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Served:
    """A server on a folder with one project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        bare = folder / "shop.git"
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", bare], check=True)
        added = subprocess.run(
            [PIPE, "projects", "add", "shop", f"file://{bare}", "--forge", "gitea", "--no-check"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        self.secret = added.stdout.split()[-1].encode()
        before = time.perf_counter()
        self.process = subprocess.Popen([PIPE, "serve", "--port", str(self.port)], cwd=folder, stderr=-3)
        while not self._answers():
            time.sleep(0.01)
        self.started = time.perf_counter() - before

    @cached_property
    def token(self) -> str:
        argv = [str(PIPE), "token", "bench", "--role", "admin"]
        made = subprocess.run(argv, cwd=self.folder, check=True, capture_output=True, text=True)
        return str(made.stdout).strip()

    def ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/{path}", data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read())

    def commit(self, **files: str) -> str:
        """Commit these files on the main branch; the commit."""
        tree = self.folder / "tree"
        if not tree.exists():
            subprocess.run(["git", "clone", "-q", self.folder / "shop.git", tree], check=True, capture_output=True)
        for name, text in files.items():
            (tree / name.replace("_yaml", ".yaml")).write_text(text)
        for words in ("checkout -q -B main", "add -A", "commit -qm x", "push -q origin main"):
            argv = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", *words.split()]
            subprocess.run(argv, cwd=tree, check=True, capture_output=True)
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True
        ).stdout.strip()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                return b"200" in connection.recv(100)
        except OSError:
            return False

    def memory(self) -> float:
        """MiB, now and at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def request(self, number: int, *, wrong: bool, size: int = 0) -> bytes:
        body = json.dumps({"ref": "refs/heads/main", "after": f"{number:040x}", "pad": "x" * size}).encode()
        signed = hmac.new(b"other" if wrong else self.secret, body, hashlib.sha256).hexdigest()
        head = (
            f"POST /hooks/shop HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nX-Gitea-Event: push\r\n"
            f"X-Gitea-Delivery: d{number}\r\nX-Gitea-Signature: {signed}\r\n\r\n"
        )
        return head.encode() + body


async def storm(served: Served) -> tuple[list[float], Counter[int], float]:
    """Send them all, paced over ten seconds; how long each answer took, and what it was."""
    draw = random.Random(1)  # noqa: S311
    requests: list[bytes] = []
    for number in range(DELIVERIES):
        copy = number and draw.random() < 0.2
        requests.append(served.request(draw.randrange(number) if copy else number, wrong=draw.random() < 0.05))
    waits: list[float] = []
    answers: Counter[int] = Counter()
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    began = time.perf_counter()

    async def pace() -> None:
        for number, request in enumerate(requests):
            due = began + WITHIN * number / DELIVERIES
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            queue.put_nowait((due, request))

    async def send() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        while True:
            due, request = await queue.get()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            waits.append(time.perf_counter() - due)
            answers[int(head.split()[1])] += 1
            queue.task_done()

    senders = [asyncio.create_task(send()) for _ in range(CONNECTIONS)]
    await pace()
    await queue.join()
    took = time.perf_counter() - began
    for sender in senders:
        sender.cancel()
    return waits, answers, took


async def large(served: Served) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(served.request(0, wrong=False, size=LARGE))
    try:
        return int((await reader.readuntil(b"\r\n")).split()[1])
    finally:
        writer.close()


def followed(served: Served, clients: int) -> float:
    """Seconds of a run from its first stage's end to its own, with so many clients on its stream."""
    go = served.folder / "go"
    go.unlink(missing_ok=True)
    made = served.ask("projects/shop/runs", {"pipeline": "shop", "params": {"go": str(go)}})
    folder = RunFolder(served.folder / f".pipe-server/projects/shop/runs/shop/{made['number']}")
    while not folder.log("gate", 1).exists():
        time.sleep(0.01)
    argv = [sys.executable, "-m", "bench.crowd", str(served.port), served.token, made["run"], str(clients)]
    crowd = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert crowd.stdout is not None
    assert crowd.stdout.readline() == "ready\n"
    go.touch()
    while folder.ended() is None:
        time.sleep(0.1)
    ended = crowd.stdout.read()
    crowd.wait(60)
    assert int(ended.split()[0]) == clients, ended
    while served.ask(f"runs/{made['run']}")["state"] != "ended":
        time.sleep(0.1)
    times = {(type(each.event), getattr(each.event, "stage", "")): each.time for each in folder.records()}
    return times[RunFinished, ""] - times[StageFinished, "gate"]


def pushed(served: Served, number: int) -> float:
    """Seconds from a forge's hook to the first line of a log at a client of the stream."""
    commit = served.commit(README=str(number))
    began = time.perf_counter()
    body = json.dumps({"ref": "refs/heads/main", "after": commit}).encode()
    signed = hmac.new(served.secret, body, hashlib.sha256).hexdigest()
    headers = {"X-Gitea-Event": "push", "X-Gitea-Delivery": f"p{number}", "X-Gitea-Signature": signed}
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}/hooks/shop", body, headers)
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
    while not (rows := [row for row in served.ask("runs?limit=1") if row["commit"] == commit]):
        time.sleep(0.02)
    asyncio.run(first_log(served.port, served.token, rows[0]["id"]))
    took = time.perf_counter() - began
    while served.ask(f"runs/{rows[0]['id']}")["state"] != "ended":
        time.sleep(0.1)
    return took


def crowds(place: Path) -> None:
    """What followers cost."""
    served = Served(place)
    served.commit(pipeline_yaml=PIPELINE)
    waits = sorted(pushed(served, number) for number in range(PUSHES))
    print(f"hook to first log line at a client: median {waits[PUSHES // 2]:.2f} s, worst {waits[-1]:.2f} s (goal 2)")
    before = served.memory()
    pairs = [(followed(served, CLIENTS), followed(served, 0)) for _ in range(PAIRS)]
    ratio = Ratio.of([many for many, _ in pairs], [none for _, none in pairs], 1.1)
    print(f"{CLIENTS} clients on one run: {ratio.ours:.2f} s beside {ratio.theirs:.2f} s without, ", end="")
    print(f"ratio {ratio.median:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] (goal: 1 inside, below 1.1); ", end="")
    print(f"{served.memory():.0f} MiB at most (goal 300), {before:.0f} before")
    served.process.terminate()
    served.process.wait(20)


def main() -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        crowds(Path(place))
    if sys.argv[1:] == ["crowds"]:
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        served = Served(Path(place))
        print(f"start to first answer: {served.started:.2f} s (goal 2)")
        time.sleep(8)
        before, memory = served.cpu(), served.memory()
        time.sleep(60)
        share = (served.cpu() - before) / 60 * 100
        print(f"idle: {share:.2f} % of a core over 60 s (goal 0.2), {memory:.0f} MiB (goal 120)")
        waits, answers, took = asyncio.run(storm(served))
        waits.sort()
        p99, worst = waits[int(len(waits) * 0.99)], waits[-1]
        print(f"{DELIVERIES} deliveries in {took:.1f} s: p99 {p99:.2f} s (goal 1), worst {worst:.2f} s")
        print(f"  answers {dict(answers)}")
        print(f"a body of 30 MiB: {asyncio.run(large(served))}; at most {served.memory():.0f} MiB of memory")
        served.process.terminate()
        served.process.wait(20)


if __name__ == "__main__":
    main()
