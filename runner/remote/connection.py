"""Requests to one server: each with a limit, and every way in which they fail in the user's words."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from pipeline import __version__
from pipeline.errors import PipeError
from runner.remote.tokens import token_for

__all__ = ["Lost", "Server", "connect", "server_url"]

CONNECT_WITHIN, ANSWER_WITHIN = 10.0, 30.0
HEARD_WITHIN = 45.0
"""Seconds without a byte after which a stream is dead: the server says something every fifteen."""
_AWAY = (502, 503, 504)


class Lost(PipeError):
    """The server cannot be reached now; it may be in a moment."""


def server_url(words: str) -> str:
    """The URL of a server, in the one form by which its token is kept.

    Raises:
        PipeError: it is none.
    """
    parts = urlsplit(words.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PipeError(f"'{words}' is no URL of a server: write https://ci.example.com")
    if parts.username or parts.password:
        raise PipeError("a URL of a server holds no name and no password: `pipe login URL` asks for the token")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def connect(words: str, environ: Mapping[str, str]) -> "Server":
    """The server at a URL, with the token that we have for it.

    Raises:
        PipeError: it is no URL, or the file of tokens cannot be read.
    """
    url = server_url(words)
    return Server(url, token_for(url, environ))


class Server:
    """One server; safe to use from several threads."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        self._client = httpx2.Client(
            headers={"User-Agent": f"pipe/{__version__}", **({"Authorization": f"Bearer {token}"} if token else {})},
            timeout=httpx2.Timeout(ANSWER_WITHIN, connect=CONNECT_WITHIN),
        )

    def get(self, *path: str, **query: str | int) -> Any:
        """What a call of the API answers. The parts of the path are quoted.

        Raises:
            Lost: there is no answer now.
            PipeError: the server refuses, or is none of ours.
        """
        return self._json(self._send("GET", path, params={name: value for name, value in query.items() if value}))

    def post(self, *path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The same for a call that does something."""
        return self._json(self._send("POST", path, json=body))

    def text(self, *path: str) -> bytes:
        """What a call answers, as it came."""
        return self._send("GET", path).content

    @contextmanager
    def stream(self, *path: str, after: str = "", **query: str | int | bool) -> Iterator[httpx2.Response]:
        """An answer that comes little by little; raises as `get` does, also while it is read."""
        headers = {"Last-Event-ID": after} if after else {}
        limits = httpx2.Timeout(CONNECT_WITHIN, read=HEARD_WITHIN)
        with (
            self._explained(),
            self._client.stream("GET", self._to(path), params=query, headers=headers, timeout=limits) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise self._refusal(answer)
            if _kind(answer) == "text/html":
                raise self._stranger(answer)
            yield answer

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def _to(self, path: tuple[str, ...]) -> str:
        return "/".join((self.url, "api/v1", *(quote(part, safe="") for part in path)))

    def _send(self, method: str, path: tuple[str, ...], **what: Any) -> httpx2.Response:
        with self._explained():
            answer = self._client.request(method, self._to(path), **what)
        if not answer.is_success:
            raise self._refusal(answer)
        return answer

    def _json(self, answer: httpx2.Response) -> Any:
        if _kind(answer) != "application/json":
            raise self._stranger(answer)
        try:
            return answer.json()
        except ValueError:
            raise self._stranger(answer) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise self._unreachable(error) from error
        except httpx2.TimeoutException as error:
            raise Lost(f"{self.url} does not answer") from error
        except httpx2.TransportError as error:
            raise Lost(f"the connection to {self.url} broke: {error}") from error
        except httpx2.InvalidURL as error:
            raise PipeError(f"'{self.url}' is no URL of a server: {error}") from error

    def _unreachable(self, error: Exception) -> PipeError:
        wrong = next((each for each in _causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None)
        if wrong is not None:
            return PipeError(
                f"the certificate of {self.url} cannot be trusted: {wrong.verify_message}; "
                "if its authority is your own, name the file of that by SSL_CERT_FILE"
            )
        return Lost(f"there is no server at {self.url}: {error}")

    def _refusal(self, answer: httpx2.Response) -> PipeError:
        code, said = answer.status_code, _detail(answer)
        if answer.is_redirect:
            return PipeError(f"{self.url} sends elsewhere: use {answer.headers.get('location', 'that URL')} instead")
        if code in _AWAY:
            return Lost(said or f"{self.url} is not there now ({code})")
        if not said:
            return self._stranger(answer)
        if code == 401:
            known = "does not know this token" if self._token else "wants a token"
            return PipeError(f"{self.url} {known}: `pipe login {self.url}`, or set PIPE_TOKEN")
        if code == 404 and said == "Not Found":
            return PipeError(f"{self.url} does not know this call: {self.versions()}")
        return PipeError(f"{self.url}: {said}")

    def _stranger(self, answer: httpx2.Response) -> PipeError:
        kind = _kind(answer) or "nothing"
        return PipeError(
            f"what answers at {self.url} is no pipe server: {answer.status_code} with {kind}; "
            "is the URL right, and is there a proxy in between?"
        )

    def versions(self) -> str:
        """Which program is at either end, for errors that come from that."""
        try:
            theirs = self._client.get(f"{self.url}/healthz").json()["version"]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            theirs = "of an unknown version"
        return f"the server is pipe {theirs}, this is pipe {__version__}"


def _kind(answer: httpx2.Response) -> str:
    return str(answer.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _detail(answer: httpx2.Response) -> str:
    """What one of our servers says is wrong; empty when it is none."""
    if _kind(answer) not in ("application/problem+json", "application/json"):
        return ""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
