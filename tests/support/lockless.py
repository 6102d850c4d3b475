"""A program on a file system without locks, as NFS may be: here the kernel answers every flock(2) of it with an error.

`python lockless.py ENOLCK PROGRAM WORD…`. The filter is one of seccomp(2), and holds for all that the program starts.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

FLOCK = {"x86_64": 73, "aarch64": 32}
"""The numbers of the system call."""

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def main() -> None:
    name, *argv = sys.argv[1:]
    answer = _ERRNO | getattr(errno, name)
    rules = ((_LOAD, 0, 0, 0), (_JUMP_IF_EQUAL, 0, 1, FLOCK[platform.machine()]), (_RETURN, 0, 0, answer))
    code = b"".join(struct.pack("HBBI", *rule) for rule in (*rules, (_RETURN, 0, 0, _ALLOW)))
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, program, 0, 0):
        sys.exit(77)
    os.execvp(argv[0], argv)  # noqa: S606 - as it was called


if __name__ == "__main__":
    main()
