"""TCP proxies on loopback that cut connections, or spoil them in the ways that real hosts do."""

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeAlias

__all__ = ["Fault", "cutting", "flapping"]


@contextmanager
def cutting(port: int, seed: int, most: int) -> Iterator[tuple[int, Callable[[], int]]]:
    """A port that leads to another one; each connection is cut after at most so many bytes of its answers.

    Gives the port, and how many connections were cut so far.
    """
    draw = random.Random(seed)  # noqa: S311 - where it is cut can be repeated
    cuts = [0]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, port, draw, most, cuts), daemon=True)
        thread.start()
        yield listener.getsockname()[1], lambda: cuts[0]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _accept(listener: socket.socket, port: int, draw: random.Random, most: int, cuts: list[int]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with suppress(OSError):
                server = socket.create_connection(("127.0.0.1", port))
                threading.Thread(target=_forward, args=(client, server), daemon=True).start()
                threading.Thread(target=_cut, args=(server, client, draw.randrange(most), cuts), daemon=True).start()
                continue
            client.close()  # nobody is there


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _cut(source: socket.socket, target: socket.socket, left: int, cuts: list[int]) -> None:
    with suppress(OSError):
        while data := source.recv(min(65536, left)) if left else b"":
            target.sendall(data)
            left -= len(data)
    cuts[0] += not left
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


Fault: TypeAlias = str | int
"""`reset` and `silence` at the first request, an answer of HTTP as `503 Busy`, or how many bytes of the real one pass."""


@contextmanager
def flapping(port: int, faults: Sequence[Fault]) -> Iterator[tuple[int, Callable[[], int]]]:
    """A port that leads to another one; each connection has the next of the faults, and none when they are used up.

    `""` is no fault. Gives the port, and how many connections there were so far.
    """
    left, seen, done = list(faults), [0], threading.Event()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                fault = left.pop(0) if left else ""
                seen[0] += 1
                threading.Thread(target=_spoil, args=(client, port, fault, done), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], lambda: seen[0]
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _spoil(client: socket.socket, port: int, fault: Fault, done: threading.Event) -> None:
    with client, suppress(OSError):
        if fault == "" or isinstance(fault, int):
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_forward, args=(client, server), daemon=True).start()
            _cut(server, client, fault if isinstance(fault, int) else 1 << 40, [0])
            return
        client.recv(65536)
        if fault == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault == "silence":
            done.wait(60)
        else:
            more = 'WWW-Authenticate: Basic realm="git"\r\n' if fault.startswith("401") else ""
            client.sendall(f"HTTP/1.1 {fault}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
