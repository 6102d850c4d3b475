"""Where a request comes from: over which connection, from which address, and whether one of our own pages sent it."""

from urllib.parse import urlsplit

from starlette.requests import Request

__all__ = ["address", "elsewhere", "secure"]


def secure(request: Request, url: str) -> bool:
    """Whether the browser speaks https: to us, or to a proxy that stands at our public `url`."""
    public = urlsplit(url)
    through = public.scheme == "https" and request.headers.get("host", "").lower() == public.netloc.lower()
    return through or request.url.scheme == "https"


def address(request: Request) -> str:
    """The client's address; behind a proxy on this machine, what that says of it."""
    return request.client.host if request.client else ""


def elsewhere(request: Request, url: str) -> bool:
    """Whether a browser says that a page of somebody else sent this (OWASP: Fetch Metadata, else the Origin).

    A program that is no browser sends neither, and nothing that would speak for a person by itself.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    scheme = "https" if secure(request, url) else "http"
    return origin is not None and origin.lower() != f"{scheme}://{request.headers.get('host', '')}".lower()
