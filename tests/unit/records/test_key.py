"""Keys, versions, formats and landing paths from URIs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import urlparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dm.errors import Malformed, Refused
from dm.plumbing.records.key import (
    derive_file_names,
    derive_folder_key,
    derive_key,
    find_format,
    find_uri_fault,
    landing_key,
    read_uri,
    strip_secrets,
    suggest_name,
)

KEYS = [
    ("https://Example.COM:8080/a/b.nc?id=1", "example.com/a/b.nc"),
    ("https://example.com/a%20b/c+d.nc", "example.com/a%20b/c+d.nc"),
    ("https://example.com//a//b.nc/", "example.com/a//b.nc"),
    ("https://example.com", "example.com"),
    ("https://example.com/", "example.com"),
    ("https://example.com/#2", "example.com/#2"),
    ("https://example.com/a.zip#2", "example.com/a.zip#2"),
    ("https://example.com/a?version=3", "example.com/a#3"),
    ("https://example.com/a?ref=main", "example.com/a#main"),
    ("https://example.com/a?ref=main&version=v%201", "example.com/a#v 1"),
    ("https://example.com/a?version=3#4", "example.com/a#4"),
    ("https://example.com/a;x=1?y=2", "example.com/a"),
    ("git@github.com:owner/repo.git", "github.com/owner/repo.git"),
    ("git@github.com:owner/repo.git#v2", "github.com/owner/repo.git#v2"),
    ("ssh+git://host/owner/repo.git", "host/owner/repo.git"),
    ("file:///a/b", "a/b"),
    ("file:///a/b/", "a/b"),
    ("s3://b/k", "b/k"),
    ("s3://Bucket/k", "bucket/k"),
    ("relative/path.csv", "relative/path.csv"),
    ("ftp://h/x;type=a", "h/x"),
    ("http://[::1]:80/a", "::1/a"),
]


@pytest.mark.parametrize(("uri", "key"), KEYS, ids=[uri for uri, _ in KEYS])
def test_a_key_is_host_path_and_version(uri: str, key: str) -> None:
    assert key == derive_key(uri)


def test_the_uris_version_beats_the_manifests() -> None:
    assert "h/a#1" == derive_key("https://h/a", "1")
    assert "h/a#2" == derive_key("https://h/a#2", "1")


def test_the_key_of_several_files_is_what_their_folders_share() -> None:
    uris = ["https://H/data/v1/a/x.csv?b=1", "https://other/data/v1/b/y.csv#3", "https://h/data/v1/z.csv"]
    assert "h/data/v1" == derive_folder_key(uris)
    assert ("a/x.csv", "b/y.csv", "z.csv") == derive_file_names(uris)
    assert "h" == derive_folder_key(["https://h/a", "https://h/b"])
    assert "h/d" == derive_folder_key(["https://h/d/only.nc"])
    assert ("only.nc",) == derive_file_names(["https://h/d/only.nc"])


def test_keys_are_those_of_the_python_peer(peer_executable: Path) -> None:
    singles = [uri for uri, _ in KEYS]
    lists = [
        ["https://h/data/v1/a/x.csv", "https://h/data/v1/b/y.csv"],
        ["https://h/a", "https://h/b"],
        ["https://h/d/only.nc"],
        ["https://h/a/b/c.nc", "https://g/a/b/c/d.nc"],
    ]
    program = """
import json, sys
from datamanifest.database import init_dataset_entry
from datamanifest.pipelines import _uri_relative_paths
singles, lists = json.load(sys.stdin)
print(json.dumps([[init_dataset_entry(uri=uri, version="9").key for uri in singles],
                  [[init_dataset_entry(uris=uris).key, *_uri_relative_paths(uris)] for uris in lists]]))
"""
    python = peer_executable.parent / "python"
    result = subprocess.run(
        [python, "-c", program],
        input=json.dumps([singles, lists]),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    ours = [
        [derive_key(uri, "9") for uri in singles],
        [[derive_folder_key(uris), *derive_file_names(uris)] for uris in lists],
    ]
    assert json.loads(result.stdout) == ours


@pytest.mark.parametrize(
    ("uris", "message"),
    [
        (
            ["https://h/a?id=1", "https://h/a?id=2"],
            "'https://h/a?id=1' and 'https://h/a?id=2' would both be the file 'a'",
        ),
        (["https://h/d/a", "https://h/d/a/b"], "'https://h/d/a' and 'https://h/d/a/b' would both be the file 'a/b'"),
    ],
    ids=["equal", "nested"],
)
def test_files_of_one_dataset_that_lie_on_each_other_are_named(uris: list[str], message: str) -> None:
    with pytest.raises(Malformed) as caught:
        derive_file_names(uris)
    assert message == caught.value.message
    assert "make them datasets of their own, each with a 'key'" == caught.value.hint


def test_a_file_name_that_leaves_its_folder_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        derive_file_names(["https://h/d/x.nc", "https://h/d/../../x"])
    assert "unsafe key '../../x': it has the part '..'" == caught.value.message
    with pytest.raises(Refused):
        derive_file_names(["https://h/", "https://h/a"])


@pytest.mark.parametrize(
    ("key", "landing"),
    [
        ("h/a.zip", "h/a"),
        ("h/a.tar.gz", "h/a"),
        ("h/a.tar", "h/a"),
        ("h/a.tgz", "h/a.tgz.d"),
        ("h/a.tar.xz", "h/a.tar.xz.d"),
        ("h/a.zip#2", "h/a.zip#2.d"),
        ("h/a", "h/a.d"),
    ],
)
def test_an_extracted_archive_lands_in_a_folder_beside_its_key(key: str, landing: str) -> None:
    assert landing == landing_key(key, extract=True)
    assert key == landing_key(key, extract=False)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("h/a.nc", "nc"),
        ("h/a.tar.gz#2", "tar.gz"),
        ("h/a.tar.zst", "tar.zst"),
        ("h.org/a", None),
        ("h/.hidden", None),
        ("h/a.", None),
        ("h/a.b.csv", "csv"),
        ("h/.tar.gz", "gz"),
    ],
)
def test_the_format_is_the_keys_extension(key: str, expected: str | None) -> None:
    assert expected == find_format(key)


def test_the_uri_may_name_the_format() -> None:
    assert "nc" == read_uri("https://h/get?format=nc&id=1").format
    assert read_uri("https://h/get?format=").format is None


USER_HTTP = "take the user and password out of it and put them into ~/.netrc"
USER_SSH = "take the user out of it and set it in ~/.ssh/config (git@host:owner/repo.git may stay)"


@pytest.mark.parametrize(
    ("uri", "message", "hint"),
    [
        ("https://me:secret@h/a", "has a user or password in it, which a manifest must not hold", USER_HTTP),
        ("http://token@h/a", "has a user or password in it, which a manifest must not hold", USER_HTTP),
        ("ssh://me@h/a", "has a user or password in it, which a manifest must not hold", USER_SSH),
        ("me@h:a/b", "has a user or password in it, which a manifest must not hold", USER_SSH),
        ("https://h/a\nb", "has a control character: 'https://h/a\\nb'", "write it percent-encoded"),
        ("https://h/a\x9bb", "has a control character: 'https://h/a\\x9bb'", "write it percent-encoded"),
        ("https://[::1/a", "is not a URI: 'https://[::1/a'", "check its host; an IPv6 address stands in brackets"),
        ("", "is empty", "remove it, or name the source"),
    ],
)
def test_what_a_manifests_uri_may_not_hold(uri: str, message: str, hint: str) -> None:
    assert (message, hint) == find_uri_fault(uri)


@pytest.mark.parametrize(
    "uri", ["https://h/a@b", "https://h/?mail=a@b", "git@h:o/r.git", "s3://b/a[1]@x", "http://[::1]/a", "data/a@b.csv"]
)
def test_an_at_sign_elsewhere_is_no_user(uri: str) -> None:
    assert find_uri_fault(uri) is None


def test_a_uri_that_cannot_be_split_is_malformed() -> None:
    with pytest.raises(Malformed) as caught:
        read_uri("https://[::1/a")
    assert "'https://[::1/a' is not a URI: invalid IPv6 URL" == caught.value.message


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://h/data/sst.nc?x=1#2", "sst"),
        ("https://h/data/my%20file.tar.gz", "my file"),
        ("git@github.com:owner/repo.git", "repo"),
        ("https://h/data/", "data"),
        ("https://h/", "h"),
        ("file:///", "data"),
        ("data/table.v2.csv", "table.v2"),
        (".hidden", ".hidden"),
    ],
)
def test_a_name_is_suggested_from_the_last_part(source: str, name: str) -> None:
    assert name == suggest_name(source)


def test_secrets_are_taken_out_of_a_uri_and_nothing_else() -> None:
    assert "https://h/a?id=1&x=%20#f" == strip_secrets("https://u:p@h/a?id=1&Token=abc&x=%20&X-Amz-Signature=s#f")
    for plain in ("https://h/a?id=1", "https://h/a?b=&c", "s3://b/k?", "https://[::1/a"):
        assert plain == strip_secrets(plain)


@given(
    st.sampled_from(["http://", "https://", "HTTP://", "https:/", "https://ex.org/"]),
    st.text(alphabet="ab.A/:#%;?@[] \\&=\té", max_size=14),
)
def test_a_plain_uri_is_read_as_the_standard_library_reads_it(head: str, tail: str) -> None:
    uri = head + tail
    try:
        read = read_uri(uri)
        parts = urlparse(uri)
    except (Malformed, ValueError):
        return
    version = parts.fragment or None
    if not parts.query:
        assert (read.scheme, read.host, read.path, read.version) == (
            parts.scheme,
            parts.hostname or "",
            parts.path.rstrip("/"),
            version,
        )
