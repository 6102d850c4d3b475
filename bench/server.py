"""The server under a storm of deliveries, and when nothing happens. Prints lines; nothing else may run meanwhile."""

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
from collections import Counter
from pathlib import Path

PIPE = Path(sys.executable).with_name("pipe")
DELIVERIES, WITHIN = 5000, 10.0
CONNECTIONS = 40
LARGE = 30 << 20


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Served:
    """A server on a folder with one project."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        bare = folder / "shop.git"
        subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
        added = subprocess.run(
            [PIPE, "projects", "add", "shop", f"file://{bare}", "--forge", "gitea"],
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


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
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
