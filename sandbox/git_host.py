"""Bare repositories over smart HTTP with basic authentication: a small web server around `git http-backend`."""

import base64
import hmac
import os
import shutil
import subprocess
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import unquote

USER = "pipe"
BLOCK = 65536


class Handler(BaseHTTPRequestHandler):
    """Hands a request to `git http-backend` as a CGI program does, body and answer streamed."""

    protocol_version = "HTTP/1.1"
    timeout = 120
    folder: Path
    password: str

    def do_GET(self) -> None:
        """Answer a ref advertisement, or a file of the dumb protocol."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a fetch or a push."""
        self._serve()

    def _serve(self) -> None:
        self.close_connection = True
        if not self._authorized():
            self._refuse()
            return
        with subprocess.Popen(
            ["git", "http-backend"], env=self._environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as backend:
            self._send_body(cast("BinaryIO", backend.stdin))
            self._send_answer(cast("BinaryIO", backend.stdout))

    def _authorized(self) -> bool:
        expected = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
        return hmac.compare_digest(self.headers.get("Authorization", "").encode(), f"Basic {expected}".encode())

    def _refuse(self) -> None:
        self.send_response(HTTPStatus.UNAUTHORIZED)
        self.send_header("WWW-Authenticate", 'Basic realm="pipe sandbox"')
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def _environment(self) -> dict[str, str]:
        path, _, query = self.path.partition("?")
        return {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(path),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": USER,
            "REMOTE_ADDR": self.client_address[0],
        }

    def _send_body(self, backend: BinaryIO) -> None:
        try:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                self._copy_chunks(backend)
            else:
                self._copy(backend, int(self.headers.get("Content-Length") or 0))
            backend.close()
        except BrokenPipeError:
            # It refuses a request before it has read all of it; its answer says why.
            self.log_message("the body was not read to its end")

    def _copy_chunks(self, backend: BinaryIO) -> None:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            self._copy(backend, size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _copy(self, backend: BinaryIO, size: int) -> None:
        while size and (block := self.rfile.read(min(size, BLOCK))):
            backend.write(block)
            size -= len(block)

    def _send_answer(self, backend: BinaryIO) -> None:
        headers = [line.partition(":") for line in iter(lambda: backend.readline().decode().strip(), "")]
        status = next((value for name, _, value in headers if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, _, value in headers:
            if name != "Status":
                self.send_header(name, value.strip())
        self.send_header("Connection", "close")
        self.end_headers()
        shutil.copyfileobj(backend, self.wfile, BLOCK)


def serve(address: str, port: int, folder: Path, password: str) -> ThreadingHTTPServer:
    """Return a server, listening but not yet answering, for the bare repositories in `folder`."""
    handler = type("Host", (Handler,), {"folder": folder, "password": password})
    return ThreadingHTTPServer((address, port), handler)


def main() -> None:
    """Run as `python -m sandbox.git_host ADDRESS PORT FOLDER PASSWORD-FILE`."""
    address, port, folder, password = sys.argv[1:5]
    serve(address, int(port), Path(folder), Path(password).read_text().strip()).serve_forever()


if __name__ == "__main__":
    main()
