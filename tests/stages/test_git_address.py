"""What may reach git as a URL or as the name of a ref."""

import pytest

from stages.clients.git.address import check_ref, is_commit, parse_url


@pytest.mark.parametrize(
    ("url", "scheme", "host", "path"),
    [
        ("https://git.example/a/b.git", "https", "git.example", "a/b.git"),
        ("http://10.0.0.1:8080/a.git", "http", "10.0.0.1:8080", "a.git"),
        ("http://[::1]:8080/a.git", "http", "[::1]:8080", "a.git"),
        ("ssh://git@git.example:2222/a.git", "ssh", "git.example:2222", "a.git"),
        ("git@git.example:team/a.git", "ssh", "git.example", "team/a.git"),
        ("file:///srv/git/a.git", "file", "", "/srv/git/a.git"),
        ("/srv/git/a.git", "file", "", "/srv/git/a.git"),
    ],
)
def test_a_url_is_taken_apart(url: str, scheme: str, host: str, path: str) -> None:
    address = parse_url(url)
    assert (address.scheme, address.host, address.path) == (scheme, host, path)


@pytest.mark.parametrize("url", ["https://joe:hunter2@git.example/a.git", "https://hunter2@git.example/a.git"])
def test_a_login_in_a_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"a login stands in the URL of git.example.*`secrets:`") as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "--upload-pack=touch /tmp/x",
        "-u",
        "ext::sh -c id",
        "ext::id",
        "ftp://git.example/a",
        "git.example/a.git",
        "https://git example/a",
        "https://git.example/a\nb",
        "ssh://-oProxyCommand=id/a",
        "https://-x/a",
        "https://git.example:99999999/a",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|supported|host"):
        parse_url(url)


@pytest.mark.parametrize(
    "ref",
    [
        "main",
        "feature/x",
        "v1.0",
        "é☃",
        "$(id)",
        "a`id`",
        "a|b&c",
        "a'b",
        'x";echo',
        "refs/heads/main",
        "a@b",
        "-x/y"[1:],
    ],
)
def test_names_that_git_takes_are_taken(ref: str) -> None:
    check_ref(ref)


@pytest.mark.parametrize(
    "ref",
    [
        "",
        "-x",
        "--upload-pack=x",
        "a b",
        "a..b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[b",
        "a\\b",
        "a\x00",
        "a//b",
        "/a",
        "a/",
        ".a",
        "a/.b",
        "a.",
        "a.lock",
        "a.lock/b",
        "@",
        "a@{1}",
        "a\nb",
    ],
)
def test_names_that_git_refuses_are_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="is no name that a branch, tag or commit can have"):
        check_ref(ref)


def test_a_commit_is_all_of_its_digits() -> None:
    assert is_commit("a" * 40)
    assert is_commit("0" * 64)
    assert not is_commit("a" * 39)
    assert not is_commit("A" * 40)
