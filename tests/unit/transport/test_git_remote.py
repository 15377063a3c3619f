"""What a URI says of a repository."""

from __future__ import annotations

import pytest

from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.transport.git.remote import read_remote


@pytest.mark.parametrize(
    ("uri", "way", "host", "port", "user", "path"),
    [
        ("git://h/owner/r.git", "git", "h", None, None, "/owner/r.git"),
        ("git://h:99/a%20b", "git", "h", 99, None, "/a b"),
        ("GIT://H/r", "git", "h", None, None, "/r"),
        ("git://[::1]/r", "git", "::1", None, None, "/r"),
        ("http://h/r.git", "http", "h", None, None, "http://h/r.git"),
        ("https://h:8443/a%20b/r.git/", "http", "h", 8443, None, "https://h:8443/a%20b/r.git"),
        ("git+https://h/r", "http", "h", None, None, "https://h/r"),
        ("git+http://h/r?ref=x", "http", "h", None, None, "http://h/r"),
        ("ssh://h/r.git", "ssh", "h", None, None, "/r.git"),
        ("ssh+git://h:22/r", "ssh", "h", 22, None, "/r"),
        ("git+ssh://h/~ada/r", "ssh", "h", None, None, "~ada/r"),
        ("git@h:owner/r.git", "ssh", "h", None, "git", "owner/r.git"),
        ("git@h:/srv/r.git#v1", "ssh", "h", None, "git", "/srv/r.git"),
        ("git@[::1]:r", "ssh", "::1", None, "git", "r"),
        ("file:///srv/a%20b.git", "file", "", None, None, "/srv/a b.git"),
    ],
)
def test_a_uri_names_a_way_and_a_place(
    uri: str, way: str, host: str, port: int | None, user: str | None, path: str
) -> None:
    remote = read_remote(uri)
    assert (way, host, port, user, path) == (remote.way, remote.host, remote.port, remote.user, remote.path)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://h/r.git", None),
        ("https://h/r.git#v1", "v1"),
        ("https://h/r.git#feature%2Fx", "feature/x"),
        ("https://h/r.git?ref=v1", "v1"),
        ("https://h/r.git?version=v2&ref=v1&format=csv", "v2"),
        ("https://h/r.git?ref=v1#v3", "v3"),
        ("git@h:r.git?ref=v1", "v1"),
        ("git@h:r.git#v1", "v1"),
    ],
)
def test_a_uri_may_name_a_branch_a_tag_or_a_commit(uri: str, expected: str | None) -> None:
    assert expected == read_remote(uri).reference


@pytest.mark.parametrize(
    ("uri", "place"),
    [("git://h/r", "h"), ("git://h:1/r", "h:1"), ("ssh://[::1]:2/r.git", "[::1]:2"), ("git@[::1]:r", "[::1]")],
)
def test_a_place_is_the_host_with_its_port(uri: str, place: str) -> None:
    assert place == read_remote(uri).place


@pytest.mark.parametrize(
    "uri",
    [
        "git@-oProxyCommand=touch evil:r.git",
        "-oProxyCommand=x@h:r.git",
        "git@h:-r.git",
        "git@h:--upload-pack=touch evil/r.git",
        "ssh://-oProxyCommand=evil/r.git",
        "git://-h/r",
    ],
)
def test_what_a_program_would_take_for_an_option_is_refused(uri: str) -> None:
    with pytest.raises(Refused) as caught:
        read_remote(uri)
    fault = "a host, user or path that begins with '-' may be taken for an option"
    assert caught.value.message.endswith(f"': {fault}")
    assert ("option-like", 6) == (caught.value.code, caught.value.exit_status)
    assert "write the path from the root: ssh://host/path" == caught.value.hint


@pytest.mark.parametrize("uri", ["ssh://h/a%0Ab.git", "git://h/a%00b", "git@h:a\tb"])
def test_a_control_character_is_refused(uri: str) -> None:
    with pytest.raises(Refused) as caught:
        read_remote(uri)
    assert caught.value.message.endswith("': its host or path holds a control character")
    assert ("check the 'uri'", "uri-malformed") == (caught.value.hint, caught.value.code)


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("git:///r", "it names no host"),
        ("git://h", "it names no path"),
        ("git@:r", "it names no host or no path"),
        ("git@h:", "it names no host or no path"),
        ("git://h:port/r", "it is not a URI"),
        ("https://[h/r.git", "it is not a URI"),
        ("https://ada:s3cret@h/r.git", "it has a user or password in it"),
        ("ssh://ada@h/r.git", "it has a user or password in it"),
    ],
)
def test_a_uri_that_names_no_repository_is_told_without_secrets(uri: str, fault: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        read_remote(uri)
    assert caught.value.message.endswith(f"': {fault}")
    assert "s3cret" not in caught.value.message
    hint = "write git://host/path, https://host/path.git, ssh://host/path.git or git@host:path.git"
    assert (hint, "uri-malformed") == (caught.value.hint, caught.value.code)


def test_a_query_that_git_does_not_know_is_told_and_not_shown() -> None:
    with pytest.raises(SourceFailed) as caught:
        read_remote("https://h/r.git?ref=v1&access_token=s3cret")
    assert "cannot fetch 'https://h/r.git?…': git knows no 'access_token' in a URI" == caught.value.message
    assert "?ref=… names a branch, a tag or a commit; take the rest away" == caught.value.hint


@pytest.mark.parametrize("scheme", ["s3", "rsync", "ftp"])
def test_a_scheme_that_repositories_are_not_reached_over_is_named(scheme: str) -> None:
    with pytest.raises(DmError) as caught:
        read_remote(f"{scheme}://h/r.git")
    fault = f"a repository is not reached over '{scheme}'"
    assert f"cannot fetch '{scheme}://h/r.git': {fault}" == caught.value.message
    known = "git, http, https, git+http, git+https, ssh, ssh+git, git+ssh, file"
    hint = f"git is spoken over {known}; what is no repository should not end in .git"
    assert ("unknown-scheme", hint, 5) == (caught.value.code, caught.value.hint, caught.value.exit_status)


@pytest.mark.parametrize(
    "uri",
    ["git@$(id):r.git", "git@`id`:r.git", "git@a;id:r.git", "ssh+git://$(id)/r.git", "git+ssh://a%3bid/r.git",
     "git@[::1%$(id)]:r.git", "$(id)@host:r.git", "a b@host:r.git", "git@a b:r.git"],
)  # fmt: skip
def test_a_host_or_user_that_is_more_than_a_name_never_reaches_ssh(uri: str) -> None:
    # ssh gives both to the shell of a ProxyCommand or a Match exec.
    with pytest.raises(Refused, match="is no name of a host or user") as caught:
        read_remote(uri)
    assert ("host-unsafe", 6) == (caught.value.code, caught.value.exit_status)
