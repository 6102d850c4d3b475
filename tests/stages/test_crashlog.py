"""What a program's log says of why it ended: recorded logs of real programs."""

import time
from pathlib import Path

import pytest

from stages.clients.crashlog import complaint, excerpt

LOGS = Path(__file__).parent / "kubernetes" / "logs"


def lines(name: str) -> list[str]:
    return (LOGS / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("log", "said", "hint"),
    [
        ("spring-port", "Web server failed to start. Port 18765 was already in use.", "listening on port 18765"),
        ("spring-bean", "bean of type 'demo.SmsGateway' that could not be found.", "Consider defining a bean"),
        ("spring-datasource", "Failed to configure a DataSource: 'url' attribute is not specified", "on the classpath"),
        ("spring-placeholder", "PlaceholderResolutionException: Could not resolve placeholder 'payment.key'", ""),
        ("spring-refused", "connection refused to http://127.0.0.1:8848/nacos", "http://127.0.0.1:8848/nacos runs"),
        ("spring-unknown-host", "there is no host 'mysql': java.net.UnknownHostException", "check the name 'mysql'"),
        ("spring-mysql-refused", "connection refused: java.net.ConnectException: Connection refused (com.mysql.", ""),
        ("java-cause", 'NullPointerException: Cannot invoke "String.length()" because', ""),
        ("java-heap", "java.lang.OutOfMemoryError: Java heap space", "raise -Xmx"),
        ("java-jar", "Error: Unable to access jarfile /app.jar", ""),
        ("node-server", "Error: Cannot find module 'redis-client' at /app/server.js:1:33", ""),
        ("node-redis", "connection refused to 127.0.0.1:6379", "127.0.0.1:6379 runs"),
        ("node-dns", "there is no host 'redis.invalid'", "check the name"),
        ("node-listen", "its port is in use already: Error: listen EADDRINUSE", "another port"),
        ("node-bad", "TypeError: Cannot read properties of undefined (reading 'url') at /app/bad.js:3:34", ""),
        ("python", "KeyError: 'database' at /app/app.py:3", ""),
        (
            "python-refused",
            "connection refused: ConnectionRefusedError: [Errno 111] Connection refused",
            "listens there",
        ),
        ("go-panic", "panic: assignment to entry in nil map at /app/main.go:3", ""),
        ("go-refused", "connection refused to 127.0.0.1:9200", "127.0.0.1:9200 runs"),
        ("nginx-host", "there is no host 'server-gateway.his.svc.invalid'", "check the name"),
        ("nginx-syntax", 'nginx: directive "listen" is not terminated by ";"', ""),
        ("nginx-rights", 'nginx: mkdir() "/var/lib/nginx/body" failed (13: Permission denied)', ""),
    ],
)
def test_the_reason_is_found_in_what_real_programs_write(log: str, said: str, hint: str) -> None:
    found = complaint(lines(log))
    assert found is not None
    assert found.sure
    assert said in found.message
    assert "\n" not in found.message
    assert hint in found.hint


def test_the_exception_that_ended_a_program_is_told_and_not_one_that_it_went_on_after() -> None:
    before = [
        "WARN java.io.IOException: cache is cold",
        "\tat demo.Cache.read(Cache.java:7)",
    ]
    found = complaint(before + lines("java-cause"))
    assert found is not None
    assert "NullPointerException" in found.message
    assert complaint(before) is not None
    assert "cache is cold" in str(complaint(before))


def test_of_an_unknown_program_the_last_words_are_taken_those_that_tell_of_a_fault_first() -> None:
    found = complaint(["starting", "cannot open /data/ledger.db", "bye for now", ""])
    assert found is not None
    assert (found.message, found.sure) == ("cannot open /data/ledger.db", False)
    last = complaint(["one two", "three four"])
    assert last is not None
    assert last.message == "three four"
    assert complaint([]) is None
    assert complaint(["", " --- "]) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("wget: bad address 'mysql:3306'", "there is no host 'mysql': wget: bad address 'mysql:3306'"),
        ("wget: bad address ':3306'", "wget: bad address ':3306'"),
    ],
)
def test_a_host_is_named_without_its_port_and_only_if_it_has_a_name(said: str, told: str) -> None:
    found = complaint([said])
    assert found is not None
    assert found.message == told


def test_an_excerpt_holds_the_reason_wherever_it_stands_and_how_the_log_ends() -> None:
    after = [f"closing connection {number} of the pool" for number in range(200)]
    shown = excerpt(lines("spring-port") + after, 30)
    assert len(shown) <= 30
    assert "Web server failed to start. Port 18765 was already in use." in shown
    assert shown[-1] == after[-1]


def test_an_excerpt_leaves_out_ornaments_repetitions_and_most_of_a_stack() -> None:
    shown = excerpt(lines("spring-refused"), 60)
    assert not [line for line in shown if "____" in line or not line.strip()]
    assert [line for line in shown if line.startswith("Caused by: java.net.ConnectException")]
    assert len([line for line in shown if line.startswith("\tat ")]) == 10
    assert excerpt(["no database yet"] * 5 + ["giving up"], 9) == ["no database yet  (×5)", "giving up"]


def test_any_lines_are_read() -> None:
    for text in ("at x", "\tat a.B(C.java:1)", "Caused by: a.B", "Traceback (most recent call last):", "Description:"):
        complaint([text])
        complaint([text, "", text])
        excerpt([text] * 3, 2)


@pytest.mark.parametrize("piece", ["a", "aB3+/", "a.", "a:", "1/", '{"k":"v.w",', "lookup a ", "a://"])
def test_a_long_line_is_read_in_time_that_grows_with_its_length(piece: str) -> None:
    """Nothing else runs while a pattern is looked for: a quadratic one of 45 s takes the target's Lease with it."""

    def seconds(length: int) -> float:
        line = (piece * length)[:length] + " connection refused"
        began = time.thread_time()
        complaint([line])
        return time.thread_time() - began

    short = min(seconds(8_000) for _ in range(3))
    assert seconds(8 * 8_000) < 30 * max(short, 0.001)
