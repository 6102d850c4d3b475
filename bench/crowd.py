"""Many clients of one stream, as a process of its own: `python -m bench.crowd PORT TOKEN RUN HOW_MANY`.

Prints `ready` when each has heard something, and at the end how many heard the run end, and how many bytes in all.
"""

import asyncio
import sys

__all__ = ["first_log"]


async def follow(port: int, token: str, run: str, heard: asyncio.Event) -> tuple[bool, int]:
    """Read a stream to its end: whether that was the run's, and its size."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ask = f"GET /api/v1/runs/{run}/events?logs=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(ask.encode())
    size, last = 0, b""
    while block := await reader.read(1 << 16):
        size += len(block)
        last = (last + block)[-400:]
        if b"id: " in block:
            heard.set()
        if b"event: end" in last:
            break
    writer.close()
    return b"event: end" in last, size


async def first_log(port: int, token: str, run: str) -> None:
    """Return when the first line of a log came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    ask = f"GET /api/v1/runs/{run}/events?logs=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(ask.encode())
    await reader.readuntil(b"event: log")
    writer.close()


async def main(port: int, token: str, run: str, count: int) -> None:
    heard = [asyncio.Event() for _ in range(count)]
    clients = [asyncio.create_task(follow(port, token, run, event)) for event in heard]
    for event in heard:
        await event.wait()
    print("ready", flush=True)
    ends = await asyncio.gather(*clients)
    print(sum(end for end, _ in ends), sum(size for _, size in ends), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
