"""A TCP proxy on loopback that cuts connections."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["cutting"]


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
