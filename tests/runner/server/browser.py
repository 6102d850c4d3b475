"""What a browser does, and no more: it keeps cookies, says where a request comes from, and sends forms."""

import http.client
import re
from dataclasses import dataclass, field
from urllib.parse import urlencode


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def to(self) -> str:
        return self.headers.get("Location", "")


@dataclass
class Browser:
    """One browser with one server."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = ""

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        """One request; what the server gives as cookie is kept, and the token of a page too."""
        named = {name.replace("_", "-"): value for name, value in headers.items() if value}
        if self.cookies:
            named["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, named)
            found = connection.getresponse()
            answer = Answer(found.status, found.headers, found.read().decode())
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies.pop(name, None)
            if value.strip('"'):
                self.cookies[name] = value
        if found_csrf := re.search(r'<meta name="csrf" content="(\w+)">', answer.text):
            self.csrf = found_csrf[1]
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, Accept="text/html", **headers)

    def send(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """Send a form of the page that is open."""
        said = {"Sec_Fetch_Site": "same-origin", "Origin": f"http://127.0.0.1:{self.port}", **headers}
        encoded = "application/x-www-form-urlencoded"
        return self.ask(
            "POST",
            path,
            urlencode({"csrf": self.csrf, **fields}),
            Content_Type=encoded,
            Host=f"127.0.0.1:{self.port}",
            **said,
        )

    def sign_in(self, name: str, password: str) -> Answer:
        answer = self.send("/login", {"name": name, "password": password})
        self.get("/account")
        return answer
