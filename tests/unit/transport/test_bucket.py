"""Objects and prefixes of object stores, from a real S3 server (SeaweedFS on loopback)."""

from __future__ import annotations

import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest

from dm.environment import Environment
from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.transport.bucket import BucketFetcher
from dm.plumbing.transport.bucket.address import BucketAddress
from dm.plumbing.transport.bucket.backend import Found
from dm.plumbing.transport.bucket.faults import find_fault
from dm.plumbing.transport.bucket.names import make_folder
from dm.plumbing.transport.bucket.services import SERVICES, build_options, load_class
from dm.plumbing.transport.journal import Journal
from dm.plumbing.transport.registry import Fetchers, find_fetcher
from tests.fixtures.archives import read_tree
from tests.fixtures.fetching import QUICK, digests_of, fetch, make_environment, measured, names_in
from tests.fixtures.relay import Relay
from tests.fixtures.seaweed import Bucket
from tests.fixtures.servers import HttpServer
from tests.fixtures.sinks import RecordingProgress, RecordingTask

MIB = 1 << 20


@pytest.fixture
def make_fetcher(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., BucketFetcher]:
    """A fetcher in an environment of these variables only, closed when the test is over."""

    def make(variables: dict[str, str]) -> BucketFetcher:
        fetcher = BucketFetcher(make_environment(tmp_path, **variables), QUICK)
        request.addfinalizer(fetcher.close)
        return fetcher

    return make


def contents(folder: Path) -> dict[str, bytes | None]:
    """Relative name -> bytes, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in paths}


# one object -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5000, 4 * MIB, 4 * MIB + 1, 21 * MIB + 17])
def test_an_object_arrives_whole(bucket: Bucket, make_fetcher: Any, tmp_path: Path, size: int) -> None:
    body = os.urandom(size)
    task = RecordingTask()
    fetched = fetch(make_fetcher(bucket.variables), bucket.put("a/b.nc", body), tmp_path / "part", task=task)
    assert digests_of(body) == measured(fetched)
    assert body == fetched.path.read_bytes()
    assert (size, size, size) == (fetched.size_bytes, task.done, task.total)


@pytest.mark.parametrize("key", ["with blank.csv", "ünï/çø.csv", "a+b&c=d.csv", "100%.csv", "50%25.csv", "it's.csv"])
def test_a_key_is_taken_as_it_stands(bucket: Bucket, make_fetcher: Any, tmp_path: Path, key: str) -> None:
    uri = bucket.put(key, key.encode())
    assert key.encode() == fetch(make_fetcher(bucket.variables), uri, tmp_path / "part").path.read_bytes()


def test_percent_escapes_are_decoded_where_nothing_has_the_key_as_it_stands(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    fetcher = make_fetcher(bucket.variables)
    bucket.put("a b?.csv", b"decoded")
    assert b"decoded" == fetch(fetcher, f"{bucket.uri}a%20b%3F.csv", tmp_path / "1").path.read_bytes()
    bucket.put("a%20b%3F.csv", b"as it stands")
    assert b"as it stands" == fetch(fetcher, f"{bucket.uri}a%20b%3F.csv", tmp_path / "2").path.read_bytes()


def test_query_and_fragment_are_no_part_of_the_key(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    uri = bucket.put("a.csv", b"1")
    assert b"1" == fetch(make_fetcher(bucket.variables), f"{uri}?format=csv#v2", tmp_path / "part").path.read_bytes()


def test_what_everybody_may_read_is_read_without_credentials(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    uri = bucket.server.put("public", "open.csv", b"open")
    progress = RecordingProgress()
    fetched = fetch(make_fetcher(bucket.server.anonymous), uri, tmp_path / "part", progress=progress)
    assert (b"open", [], []) == (fetched.path.read_bytes(), progress.notes, progress.warnings)


def test_what_everybody_may_read_is_read_where_the_credentials_are_refused_and_that_is_told(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    uri = bucket.server.put("public", "open.csv", b"open")
    progress = RecordingProgress()
    variables = {**bucket.variables, "AWS_ACCESS_KEY_ID": "of-another-service"}
    fetched = fetch(make_fetcher(variables), uri, tmp_path / "part", progress=progress)
    assert b"open" == fetched.path.read_bytes()
    assert [f"'{uri}' may be read by everybody: the credentials that were found are not used"] == progress.notes


def test_credentials_come_from_the_files_of_the_home_that_the_environment_names(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    uri = bucket.put("a.csv", b"1")
    (tmp_path / ".aws").mkdir()
    keys = {name: bucket.variables[f"AWS_{name.upper()}"] for name in ("access_key_id", "secret_access_key")}
    lines = "".join(f"aws_{name} = {value}\n" for name, value in keys.items())
    (tmp_path / ".aws" / "credentials").write_text(f"[lab]\n{lines}")
    variables = {**bucket.server.anonymous, "AWS_PROFILE": "lab"}
    assert b"1" == fetch(make_fetcher(variables), uri, tmp_path / "part").path.read_bytes()


def test_the_process_s_own_variables_are_not_looked_at(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**bucket.variables, "AWS_PROFILE": "none", "AWS_DEFAULT_REGION": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_fetcher(bucket.server.anonymous), bucket.put("a.csv", b"1"), tmp_path / "part")
    assert "access-denied" == caught.value.code
    assert caught.value.message.endswith(" wants credentials, and none were found")


# resuming ---------------------------------------------------------------------------------------------------------


def break_off(bucket: Bucket, make_fetcher: Any, uri: str, folder: Path, *, after: int) -> int:
    """Begin to fetch and end it when the server has sent ``after`` bytes; return how many it had sent in the end."""
    with Relay(bucket.server.port) as relay:
        relay.stall_total_at = after
        fetcher = make_fetcher({**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"})
        failures: list[BaseException] = []

        def work() -> None:
            try:
                fetch(fetcher, uri, folder)
            except DmError as error:
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        assert relay.stalled.wait(60)
        fetcher.close()
        thread.join(60)
        assert not thread.is_alive()
        assert [("interrupted", "interrupted")] == [(error.code, str(error)) for error in failures]
        return relay.sent_bytes


def test_a_transfer_that_was_ended_goes_on_where_it_was(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    body = os.urandom(60 * MIB)
    uri = bucket.put("big.bin", body)
    part = tmp_path / "part"
    break_off(bucket, make_fetcher, uri, part, after=35 * MIB)
    kept = (part / "data.bin").stat().st_size
    assert kept >= 35 * MIB - 5 * 4 * MIB  # what was on its way is lost, and no more
    with Relay(bucket.server.port) as relay:
        variables = {**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"}
        task = RecordingTask()
        fetched = fetch(make_fetcher(variables), uri, part, task=task)
        assert relay.sent_bytes < len(body) - kept + MIB // 4
    assert digests_of(body) == measured(fetched)
    assert (len(body), len(body)) == (task.done, task.total)


def test_an_object_that_changed_meanwhile_is_fetched_whole(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    body = os.urandom(40 * MIB)
    uri = bucket.put("big.bin", body)
    break_off(bucket, make_fetcher, uri, tmp_path / "part", after=25 * MIB)
    bucket.put("big.bin", body[::-1])
    fetched = fetch(make_fetcher(bucket.variables), uri, tmp_path / "part")
    assert digests_of(body[::-1]) == measured(fetched)
    assert body[::-1] == fetched.path.read_bytes()


def test_an_object_that_changes_while_it_is_fetched_is_never_stitched(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    old, new = os.urandom(40 * MIB), os.urandom(30 * MIB)
    uri = bucket.put("big.bin", old)
    task = RecordingTask()
    with Relay(bucket.server.port) as relay:
        relay.stall_total_at = 10 * MIB
        fetcher = make_fetcher({**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"})

        def change() -> None:
            assert relay.stalled.wait(60)
            bucket.put("big.bin", new)
            relay.stall_total_at = None
            relay.go.set()

        thread = threading.Thread(target=change)
        thread.start()
        fetched = fetch(fetcher, uri, tmp_path / "part", task=task)
        thread.join()
        fetcher.close()
    assert digests_of(new) == measured(fetched)
    assert (len(new), len(new)) == (task.done, task.total)


def test_a_whole_one_that_is_still_here_is_confirmed_by_its_last_byte(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    uri = bucket.put("a.bin", os.urandom(6 * MIB))
    fetch(make_fetcher(bucket.variables), uri, tmp_path / "part")
    with Relay(bucket.server.port) as relay:
        variables = {**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"}
        assert fetch(make_fetcher(variables), uri, tmp_path / "part").from_cache
        assert relay.sent_bytes < 10_000


@pytest.mark.parametrize("what", ["total", "source"])
def test_a_journal_of_something_else_counts_for_nothing(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path, what: str
) -> None:
    body = os.urandom(6 * MIB)
    uri = bucket.put("a.bin", body)
    fetch(make_fetcher(bucket.variables), uri, tmp_path / "part")
    path = tmp_path / "part" / "data.bin.resume.tmp"
    journal = Journal.read(path)
    assert journal is not None
    journal._replace(**{what: len(body) + 1 if what == "total" else "0"}).write(path)
    (tmp_path / "part" / "data.bin").write_bytes(b"x" * len(body))
    assert digests_of(body) == measured(fetch(make_fetcher(bucket.variables), uri, tmp_path / "part"))


# a prefix ---------------------------------------------------------------------------------------------------------

TREE = {"a.csv": b"1", "deep/b.csv": b"22", "deep/er/c.csv": b"", "z.bin": os.urandom(5 * MIB)}


def put_tree(bucket: Bucket, prefix: str, files: dict[str, bytes]) -> str:
    for name, body in files.items():
        bucket.put(f"{prefix}/{name}", body)
    return f"{bucket.uri}{prefix}/"


@pytest.mark.parametrize("slash", ["/", ""], ids=["with a slash", "without"])
def test_a_prefix_becomes_a_folder(bucket: Bucket, make_fetcher: Any, tmp_path: Path, slash: str) -> None:
    uri = put_tree(bucket, "set", TREE).rstrip("/") + slash
    bucket.put("set2/other.csv", b"of another prefix")
    task = RecordingTask()
    fetched = fetch(make_fetcher(bucket.variables), uri, tmp_path / "part", task=task)
    assert tmp_path / "part" / "data.bin" == fetched.path
    assert {**TREE, "deep": None, "deep/er": None} == contents(fetched.path)
    size = sum(map(len, TREE.values()))
    assert ({}, size, size, size) == (fetched.digests, fetched.size_bytes, task.done, task.total)
    assert {0o600} == {path.stat().st_mode & 0o711 for path in fetched.path.rglob("*") if path.is_file()}


def test_a_whole_bucket_is_a_prefix(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    put_tree(bucket, "set", {"a.csv": b"1"})
    fetched = fetch(make_fetcher(bucket.variables), bucket.uri.rstrip("/"), tmp_path / "part")
    assert {"set": None, "set/a.csv": b"1"} == contents(fetched.path)


def test_markers_of_folders_become_folders(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    uri = put_tree(bucket, "set", {"a.csv": b"1", "empty/": b"", "full/": b"", "full/b.csv": b"2"})
    bucket.put("set/", b"")
    fetched = fetch(make_fetcher(bucket.variables), uri, tmp_path / "part")
    assert {"a.csv": b"1", "empty": None, "full": None, "full/b.csv": b"2"} == contents(fetched.path)


def test_more_objects_than_one_page_of_a_listing_holds(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    files = {f"{number:04}.txt": b"%d" % number for number in range(1013)}
    uri = put_tree(bucket, "many", files)
    assert files == contents(fetch(make_fetcher(bucket.variables), uri, tmp_path / "part").path)


def test_a_prefix_goes_on_file_by_file(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    files = {f"{number}.bin": os.urandom(5 * MIB) for number in range(12)}
    uri = put_tree(bucket, "set", files)
    break_off(bucket, make_fetcher, uri, tmp_path / "part", after=50 * MIB)
    work = tmp_path / "part" / "data.bin.d" / "prefix"
    whole = sum(path.stat().st_size for path in (work / "files").rglob("*"))
    assert whole > 0
    with Relay(bucket.server.port) as relay:
        variables = {**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"}
        task = RecordingTask()
        fetched = fetch(make_fetcher(variables), uri, tmp_path / "part", task=task)
        assert relay.sent_bytes <= 60 * MIB - whole + MIB
    assert files == contents(fetched.path)
    assert (60 * MIB, 60 * MIB) == (task.done, task.total)


def test_what_is_kept_of_a_prefix_is_what_its_source_still_has(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    uri = put_tree(bucket, "set", TREE)
    fetcher = make_fetcher(bucket.variables)
    fetched = fetch(fetcher, uri, tmp_path / "part")
    (fetched.path / "a.csv").write_bytes(b"X")  # of the same size, and not what came
    bucket.put("set/deep/b.csv", b"33")
    bucket.remove("set/z.bin")
    bucket.put("set/new.csv", b"4")
    again = fetch(fetcher, uri, tmp_path / "part")
    assert {
        "a.csv": b"1",
        "deep": None,
        "deep/b.csv": b"33",
        "deep/er": None,
        "deep/er/c.csv": b"",
        "new.csv": b"4",
    } == (contents(again.path))
    assert not again.from_cache
    assert fetch(fetcher, uri, tmp_path / "part").from_cache


def test_an_object_in_the_place_of_a_prefix_and_back(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    fetcher = make_fetcher(bucket.variables)
    put_tree(bucket, "set", {"a.csv": b"1"})
    assert {"a.csv": b"1"} == contents(fetch(fetcher, f"{bucket.uri}set", tmp_path / "part").path)
    bucket.remove("set/a.csv")
    bucket.put("set", b"an object")
    assert b"an object" == fetch(fetcher, f"{bucket.uri}set", tmp_path / "part").path.read_bytes()
    bucket.remove("set")
    put_tree(bucket, "set", {"b.csv": b"2"})
    assert {"b.csv": b"2"} == contents(fetch(fetcher, f"{bucket.uri}set", tmp_path / "part").path)


def test_a_file_that_has_another_name_too_is_not_taken_for_ours(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    uri = put_tree(bucket, "set", {"a.csv": b"1"})
    fetcher = make_fetcher(bucket.variables)
    path = fetch(fetcher, uri, tmp_path / "part").path / "a.csv"
    os.link(path, tmp_path / "mine")
    fetched = fetch(fetcher, uri, tmp_path / "part")
    assert (1, 1) == (path.stat().st_nlink, (tmp_path / "mine").stat().st_nlink)
    assert {"a.csv": b"1"} == contents(fetched.path)


def test_memory_stays_bounded(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    body = os.urandom(25 * MIB)
    uri = put_tree(bucket, "set", {f"{number}.bin": body for number in range(8)})
    del body
    fetcher = make_fetcher(bucket.variables)
    fetch(fetcher, bucket.put("warm", b"1"), tmp_path / "warm")
    tracemalloc.start()
    try:
        fetch(fetcher, uri, tmp_path / "part")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * MIB, peak  # of 200 MiB; 32 MiB are pieces, and as much the library's while it joins them


# keys that are no paths -------------------------------------------------------------------------------------------


def listed(*keys: str) -> list[Found]:
    return [Found(f"p/{key}", 0 if key.endswith("/") else 1, "v", is_folder=key.endswith("/")) for key in keys]


@pytest.mark.parametrize(
    ("keys", "named", "fault"),
    [
        (["../x"], "p/../x", "it has the part '..'"),
        (["a/../../x"], "p/a/../../x", "it has the part '..'"),
        (["./x"], "p/./x", "it has the part '.'"),
        (["/etc/passwd"], "p//etc/passwd", "it has the part ''"),
        (["a//b"], "p/a//b", "it has the part ''"),
        (["../"], "p/../", "it has the part '..'"),
        (["//"], "p///", "it has the part ''"),
        (["a\0b"], "p/a\\x00b", "it has a control character"),
        (["a\nb"], "p/a\\nb", "it has a control character"),
        (["a\x9bb"], "p/a\\x9bb", "it has a control character"),
        (["a\ud800"], "p/a\\ud800", "it is not text"),
        (["x" * 256], "p/" + "x" * 256, "a part is longer than 255 bytes"),
        (["a", "a/b"], "p/a", "it is an object and a folder of others"),
        (["a/b", "a/b/c/d"], "p/a/b", "it is an object and a folder of others"),
        (["a", "a/"], "p/a", "it is an object and a folder of others"),
        (["\u00fc.csv", "u\u0308.csv"], "p/u\u0308.csv", "'p/\u00fc.csv' is the same name"),
        (["\u00fc/a.csv", "u\u0308/b.csv"], "p/u\u0308", "'p/\u00fc' is the same name"),
    ],
)
def test_a_key_that_cannot_be_a_path_is_refused_by_name(keys: list[str], named: str, fault: str) -> None:
    address = BucketAddress.parse("s3://bucket/p/")
    with pytest.raises(Refused) as caught:
        make_folder(address, "p/", listed(*keys))
    assert f"cannot fetch 's3://bucket/p/': the key '{named}' cannot be a path: {fault}" == caught.value.message
    assert (6, "key-unsafe") == (caught.value.exit_status, caught.value.code)


def test_a_key_that_ends_in_a_slash_and_holds_data_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        make_folder(BucketAddress.parse("s3://bucket/p/"), "p/", [Found("p/a/", 3, "v")])
    assert "the key 'p/a/' cannot be a path: it ends in '/' and holds data" in caught.value.message


def test_one_hostile_key_of_a_listing_stops_all_before_anything_is_fetched(
    make_fetcher: Any, tmp_path: Path, http_server: HttpServer
) -> None:
    keys = "".join(
        f"<Contents><Key>{quote(key)}</Key><Size>3</Size><ETag>&quot;1&quot;</ETag></Contents>"
        for key in ("p/good.csv", "p/../../evil.csv")
    )
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>"
    http_server.put("/bucket?list-type=2&prefix=p%2F&encoding-type=url", body, content_type="application/xml")
    variables = {"AWS_ENDPOINT_URL": http_server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(Refused) as caught:
        fetch(make_fetcher(variables), "s3://bucket/p/", tmp_path / "part")
    assert "the key 'p/../../evil.csv' cannot be a path: it has the part '..'" in caught.value.message
    assert "nothing was fetched; name the objects that you need by themselves, in 'uris'" == caught.value.hint
    assert 1 == len(http_server.requests)
    assert [] == names_in(tmp_path / "part")


# faults -----------------------------------------------------------------------------------------------------------


def failure(fetcher: BucketFetcher, uri: str, folder: Path) -> DmError:
    with pytest.raises(DmError) as caught:
        fetch(fetcher, uri, folder)
    assert 1 == len(caught.value.message.splitlines())
    assert [] == names_in(folder)
    return caught.value


def said(error: DmError) -> tuple[str, str | None, str, int]:
    return error.message, error.hint, error.code, error.exit_status


def test_no_such_object(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    error = failure(make_fetcher(bucket.variables), f"{bucket.uri}none.csv", tmp_path / "part")
    message = f"cannot fetch '{bucket.uri}none.csv': there is no object 'none.csv' in the bucket '{bucket.name}'"
    assert (message, "check the 'uri': keys are case-sensitive", "no-such-object", 5) == said(error)
    error = failure(make_fetcher(bucket.variables), f"{bucket.uri}none/", tmp_path / "part")
    assert (
        f"cannot fetch '{bucket.uri}none/': nothing lies below 'none/' in the bucket '{bucket.name}'" == error.message
    )
    error = failure(make_fetcher(bucket.variables), bucket.uri, tmp_path / "part")
    assert f"cannot fetch '{bucket.uri}': the bucket '{bucket.name}' is empty" == error.message


@pytest.mark.parametrize("rest", ["/a.csv", "/a/", "/"])
def test_no_such_bucket(bucket: Bucket, make_fetcher: Any, tmp_path: Path, rest: str) -> None:
    error = failure(make_fetcher(bucket.variables), f"s3://no-such-bucket{rest}", tmp_path / "part")
    where = f"S3 at 127.0.0.1:{bucket.server.port}"
    message = f"cannot fetch 's3://no-such-bucket{rest}': {where} has no bucket 'no-such-bucket'"
    assert (message, "check the 'uri', and that it is this service that has it", "no-such-bucket", 5) == said(error)


@pytest.mark.parametrize(
    ("name", "word"), [("AWS_ACCESS_KEY_ID", "InvalidAccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch")]
)
def test_wrong_credentials_are_told_from_missing_ones_and_never_shown(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path, name: str, word: str
) -> None:
    uri = bucket.put("a.csv", b"1")
    error = failure(make_fetcher({**bucket.variables, name: "WRONGWRONG"}), uri, tmp_path / "part")
    where = f"S3 at 127.0.0.1:{bucket.server.port}"
    assert f"cannot fetch '{uri}': {where} refuses the credentials that were found ({word})" == error.message
    assert (
        "wrong, expired, or without a right to this bucket: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "AWS_PROFILE or ~/.aws/credentials"
    ) == error.hint
    assert ("access-denied", 5) == (error.code, error.exit_status)
    assert "WRONGWRONG" not in f"{error.message}{error.hint}"


def test_missing_credentials_are_told(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    uri = bucket.put("a.csv", b"1")
    error = failure(make_fetcher(bucket.server.anonymous), uri, tmp_path / "part")
    where = f"S3 at 127.0.0.1:{bucket.server.port}"
    assert (
        f"cannot fetch '{uri}': {where} wants credentials, and none were found",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or ~/.aws/credentials",
        "access-denied",
        5,
    ) == said(error)


def test_a_profile_that_is_not_there_is_a_matter_of_credentials(
    bucket: Bucket, make_fetcher: Any, tmp_path: Path
) -> None:
    variables = {**bucket.server.anonymous, "AWS_PROFILE": "none"}
    error = failure(make_fetcher(variables), f"{bucket.uri}a.csv", tmp_path / "part")
    assert ("access-denied", 5) == (error.code, error.exit_status)


def test_a_server_that_cannot_be_reached(make_fetcher: Any, tmp_path: Path, bucket: Bucket) -> None:
    variables = {**bucket.variables, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
    assert (
        "cannot fetch 's3://bucket/a.csv': cannot connect to S3 at 127.0.0.1:1",
        "is it up, and can it be reached from this machine? AWS_ENDPOINT_URL says where S3 is",
        "cannot-connect",
        5,
    ) == said(failure(make_fetcher(variables), "s3://bucket/a.csv", tmp_path / "part"))


def test_passing_faults_are_tried_again(make_fetcher: Any, tmp_path: Path, http_server: HttpServer) -> None:
    body = os.urandom(300_000)
    http_server.put("/bucket/a.bin", body)
    http_server.fail("/bucket/a.bin", 503, times=2)
    variables = {"AWS_ENDPOINT_URL": http_server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    fetched = fetch(make_fetcher(variables), "s3://bucket/a.bin", tmp_path / "part")
    assert digests_of(body) == measured(fetched)
    assert 4 == http_server.count("/bucket/a.bin")


def test_a_server_that_stays_in_trouble(make_fetcher: Any, tmp_path: Path, http_server: HttpServer) -> None:
    http_server.put("/bucket/a.bin", b"1")
    http_server.fail("/bucket/a.bin", 503, times=99)
    variables = {"AWS_ENDPOINT_URL": http_server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    error = failure(make_fetcher(variables), "s3://bucket/a.bin", tmp_path / "part")
    message = f"cannot fetch 's3://bucket/a.bin': S3 at {http_server.host} failed: it answered 503"
    assert (message, "try again later", "service-failed", 5) == said(error)
    assert QUICK.retries + 1 == http_server.count("/bucket/a.bin")


def test_close_ends_a_transfer_that_hangs(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    uri = bucket.put("a.bin", os.urandom(8 * MIB))
    break_off(bucket, make_fetcher, uri, tmp_path / "part", after=MIB)


def test_close_ends_a_prefix_that_hangs(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    uri = put_tree(bucket, "set", {f"{number}.bin": os.urandom(2 * MIB) for number in range(10)})
    break_off(bucket, make_fetcher, uri, tmp_path / "part", after=MIB)


def test_after_close_nothing_is_fetched(bucket: Bucket, make_fetcher: Any, tmp_path: Path) -> None:
    fetcher = make_fetcher(bucket.variables)
    fetcher.close()
    assert ("interrupted", "run it again", "interrupted", 5) == said(
        failure(fetcher, f"{bucket.uri}a.csv", tmp_path / "part")
    )


class Answered(Exception):
    """As botocore raises what a service answered."""

    def __init__(self, word: str, status: int) -> None:
        super().__init__(word)
        self.response = {"Error": {"Code": word}, "ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Answered("NoSuchKey", 404), "absent"),
        (Answered("404", 404), "absent"),
        (Answered("NoSuchBucket", 404), "no-bucket"),
        (Answered("AccessDenied", 403), "denied"),
        (Answered("ExpiredToken", 400), "denied"),
        (Answered("InvalidObjectState", 403), "archived"),
        (Answered("PreconditionFailed", 412), "changed"),
        (Answered("InvalidRange", 416), "changed"),
        (Answered("SlowDown", 503), "passing"),
        (Answered("InternalError", 500), "passing"),
        (Answered("PermanentRedirect", 301), "failed"),
        (FileNotFoundError("x"), "absent"),
        (FileExistsError("x"), "changed"),
        (PermissionError("x"), "denied"),
        (OSError("Forbidden: b/x\n"), "denied"),
        (TimeoutError(), "passing"),
        (ConnectionRefusedError(), "unreachable"),
        (ValueError("x"), "failed"),
    ],
)
def test_what_libraries_raise_is_told_apart(error: Exception, expected: str) -> None:
    assert expected == find_fault(error).kind


@pytest.mark.parametrize(
    ("error", "message", "hint", "code"),
    [
        (
            Answered("InvalidObjectState", 403),
            "the object is archived and has to be restored first (InvalidObjectState)",
            "ask the bucket's owner to restore it",
            "object-archived",
        ),
        (
            Answered("PreconditionFailed", 412),
            "the object changed while it was fetched",
            "wait until whoever writes it is done, then try again",
            "source-changing",
        ),
        (
            Answered("PermanentRedirect", 301),
            "S3 refused the request: PermanentRedirect (301)",
            "check the 'uri'",
            "request-failed",
        ),
    ],
)
def test_rare_faults_in_words(tmp_path: Path, error: Exception, message: str, hint: str, code: str) -> None:
    from dm.plumbing.transport.bucket.faults import explain

    address = BucketAddress.parse("s3://bucket/a.csv")
    found = explain(find_fault(error), address, SERVICES["s3"], make_environment(tmp_path), anonymous=False)
    assert (f"cannot fetch 's3://bucket/a.csv': {message}", hint, code, 5) == said(found)


# schemes, extras, options -----------------------------------------------------------------------------------------


def test_the_registry_imports_no_library_until_one_is_needed() -> None:
    import subprocess

    code = (
        "import sys, dm.plumbing.transport.registry; "
        "print([name for name in ('fsspec', 's3fs', 'asyncio', 'dm.plumbing.transport.bucket') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


@pytest.mark.parametrize("scheme", [*sorted(SERVICES), "adl"])
def test_the_registry_knows_every_scheme(tmp_path: Path, scheme: str) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers:
        assert BucketFetcher is type(find_fetcher(f"{scheme}://bucket/key", fetchers))
        assert find_fetcher("s3://bucket/key", fetchers) is find_fetcher(f"{scheme}://bucket/key", fetchers)


@pytest.mark.parametrize(
    ("scheme", "module", "package", "command"),
    [
        ("s3", "s3fs", "s3fs", "pip install 'dm[s3]'"),
        ("gs", "gcsfs.core", "gcsfs", "pip install 'dm[gcs]'"),
        ("gcs", "gcsfs.core", "gcsfs", "pip install 'dm[gcs]'"),
        ("az", "adlfs", "adlfs", "pip install 'dm[azure]'"),
        ("abfs", "adlfs", "adlfs", "pip install 'dm[azure]'"),
        ("abfss", "adlfs", "adlfs", "pip install 'dm[azure]'"),
        ("gdrive", "gdrive_fsspec", "gdrive-fsspec", "pip install gdrive-fsspec"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    make_fetcher: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    module: str,
    package: str,
    command: str,
) -> None:
    monkeypatch.delitem(sys.modules, SERVICES[scheme].module, raising=False)  # of an earlier test
    monkeypatch.setitem(sys.modules, module, None)
    fetcher = make_fetcher({"AZURE_STORAGE_ACCOUNT_NAME": "lab"})
    error = failure(fetcher, f"{scheme}://bucket/a.csv", tmp_path / "part")
    message = f"cannot fetch '{scheme}://bucket/a.csv': it needs {package}, which is not installed"
    assert (message, command, "extra-missing", 5) == said(error)


def test_a_service_that_is_no_more_is_told(make_fetcher: Any, tmp_path: Path) -> None:
    error = failure(make_fetcher({}), "adl://store/a.csv", tmp_path / "part")
    message = "cannot fetch 'adl://store/a.csv': the service behind 'adl' was switched off in February 2024"
    hint = "name the data where it was moved to, such as az://container/path"
    assert (message, hint, "scheme-retired", 5) == said(error)


@pytest.mark.parametrize(("uri", "named"), [("s3://", "bucket"), ("gs:///key", "bucket"), ("az://", "container")])
def test_a_uri_without_a_bucket(make_fetcher: Any, tmp_path: Path, uri: str, named: str) -> None:
    error = failure(make_fetcher({}), uri, tmp_path / "part")
    scheme = uri.partition(":")[0]
    assert (f"cannot fetch '{uri}': it names no {named}", f"write {scheme}://{named}/key", "uri-malformed", 5) == (
        said(error)
    )


def test_azure_without_an_account(make_fetcher: Any, tmp_path: Path) -> None:
    error = failure(make_fetcher({}), "az://container/a.csv", tmp_path / "part")
    message = "cannot fetch 'az://container/a.csv': nothing says which storage account has 'container'"
    hint = "set AZURE_STORAGE_ACCOUNT_NAME, or write az://ACCOUNT.blob.core.windows.net/container/a.csv"
    assert (message, hint, "no-account", 5) == said(error)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b/k/x.nc", ("b", "k/x.nc", None, None, False)),
        ("s3://b/k/", ("b", "k/", None, None, True)),
        ("s3://b", ("b", "", None, None, True)),
        ("s3://b/k?versionId=abc&format=nc#2", ("b", "k", "abc", None, False)),
        ("gs://b/k?generation=17", ("b", "k", "17", None, False)),
        ("az://c/k?versionid=2024", ("c", "k", "2024", None, False)),
        ("az://lab.blob.core.windows.net/c/k/x", ("c", "k/x", None, "lab", False)),
        ("abfss://lab.dfs.core.windows.net/c/k/", ("c", "k/", None, "lab", True)),
        ("s3://lab.blob.core.windows.net/c", ("lab.blob.core.windows.net", "c", None, None, False)),
    ],
)
def test_a_uri_is_read(uri: str, expected: tuple[str, str, str | None, str | None, bool]) -> None:
    address = BucketAddress.parse(uri)
    assert expected == (address.bucket, address.key, address.version, address.account, address.is_prefix)


COMMON = {"skip_instance_cache": True, "use_listings_cache": False}


@pytest.mark.parametrize(
    ("scheme", "variables", "expected"),
    [
        ("s3", {}, {"anon": False}),
        (
            "s3",
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b", "AWS_DEFAULT_REGION": "eu-north-1"},
            {"anon": False, "endpoint_url": "http://b", "client_kwargs": {"region_name": "eu-north-1"}},
        ),
        (
            "s3",
            {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t"},
            {"anon": False, "key": "k", "secret": "s", "token": "t"},
        ),
        ("gs", {}, {"access": "read_only"}),
        (
            "gcs",
            {"STORAGE_EMULATOR_HOST": "localhost:9", "GOOGLE_CLOUD_PROJECT": "p"},
            {"access": "read_only", "endpoint_url": "http://localhost:9", "project": "p"},
        ),
        ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "lab"}, {"anon": False, "account_name": "lab"}),
        (
            "abfs",
            {"AZURE_STORAGE_ACCOUNT_NAME": "lab", "AZURE_STORAGE_ACCOUNT_KEY": "k", "AZURE_STORAGE_ANON": "true"},
            {"anon": True, "account_name": "lab", "account_key": "k"},
        ),
        ("az", {"AZURE_STORAGE_SAS_TOKEN": "sv=1"}, {"anon": False, "sas_token": "?sv=1"}),
        (
            "abfss",
            {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=lab;AccountKey=aw==;"},
            {"anon": False, "account_name": "lab", "connection_string": "AccountName=lab;AccountKey=aw=="},
        ),
        ("gdrive", {"AWS_ACCESS_KEY_ID": "k"}, {}),
    ],
)
def test_libraries_are_told_what_the_environment_holds(
    tmp_path: Path, scheme: str, variables: dict[str, str], expected: dict[str, Any]
) -> None:
    environment = make_environment(tmp_path, **variables)
    assert {**COMMON, **expected} == build_options(scheme, environment, account=None, anonymous=False)


def test_google_is_asked_as_often_as_the_options_say(tmp_path: Path) -> None:
    place = "/storage/v1/b/lab/o/a%2Fx.csv"
    described = '{"name": "a/x.csv", "size": "5", "generation": "7"}'
    with HttpServer() as server:
        server.put(place, described, content_type="application/json")
        data = f"/download{place}?alt=media&generation=7"
        server.put(data, b"1,2,3")
        server.fail(place, 503)
        server.drop(data)
        environment = make_environment(tmp_path, STORAGE_EMULATOR_HOST=server.url)
        fetcher = BucketFetcher(environment, QUICK)
        try:
            assert b"1,2,3" == fetch(fetcher, "gs://lab/a/x.csv", tmp_path / "1").path.read_bytes()
        finally:
            fetcher.close()
        server.forget_requests()
        server.fail(place, 503, times=99)
        fetcher = BucketFetcher(environment, QUICK._replace(retries=1))
        try:
            with pytest.raises(SourceFailed) as caught:
                fetch(fetcher, "gs://lab/a/x.csv", tmp_path / "2")
        finally:
            fetcher.close()
        assert ("service-failed", 2) == (caught.value.code, len(server.requests))


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("s3", {"anon": True}),
        ("gs", {"access": "read_only", "token": "anon"}),
        ("az", {"anon": True, "account_name": "lab"}),
    ],
)
def test_as_everybody_no_credentials_are_given(tmp_path: Path, scheme: str, expected: dict[str, Any]) -> None:
    environment = make_environment(
        tmp_path, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", AZURE_STORAGE_ACCOUNT_KEY="k"
    )
    account = "lab" if scheme == "az" else None
    assert {**COMMON, **expected} == build_options(scheme, environment, account=account, anonymous=True)


_LAB = {
    "AZURE_STORAGE_ACCOUNT_NAME": "lab",
    "AZURE_STORAGE_ACCOUNT_KEY": "a2V5",
    "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x",
}
_LAB_STRING = {
    "AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://lab.example.org;SharedAccessSignature=sv=1&sig=x"
}


@pytest.mark.parametrize("variables", [_LAB, _LAB_STRING, {"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"}])
@pytest.mark.parametrize("anonymous", [False, True])
def test_keys_and_tokens_of_one_azure_account_are_not_sent_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], anonymous: bool
) -> None:
    for name, value in variables.items():  # adlfs by itself looks here
        monkeypatch.setenv(name, value)
    system = make_azure(make_environment(tmp_path, **variables), "other", anonymous=anonymous)
    assert "https://other.blob.core.windows.net/" == system.service_client.url
    assert (None, None, None) == (system.account_key, system.sas_token, system.connection_string)
    assert anonymous == (system.service_client.credential is None)


def test_as_everybody_no_key_of_the_processs_variables_is_sent_to_azure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**_LAB, **_LAB_STRING}.items():
        monkeypatch.setenv(name, value)
    for variables, url in ((_LAB, "https://lab.blob.core.windows.net/"), (_LAB_STRING, "https://lab.example.org/")):
        system = make_azure(make_environment(tmp_path, **variables), None, anonymous=True)
        assert (url, None) == (system.service_client.url, system.service_client.credential)


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        (_LAB, "https://lab.blob.core.windows.net/"),
        (_LAB_STRING, "https://lab.example.org/?sv=1&sig=x"),
        ({**_LAB, "AZURE_STORAGE_ACCOUNT_KEY": ""}, "https://lab.blob.core.windows.net/?sv=1&sig=x"),
    ],
)
@pytest.mark.parametrize("account", [None, "lab", "LAB"])
def test_an_azure_account_is_asked_with_its_own_key_or_token(
    tmp_path: Path, variables: dict[str, str], url: str, account: str | None
) -> None:
    client = make_azure(make_environment(tmp_path, **variables), account, anonymous=False).service_client
    assert url == client.url.lower()
    assert ("?" in url) == (not hasattr(client.credential, "account_key"))


def make_azure(environment: Environment, account: str | None, *, anonymous: bool) -> Any:
    """The file system that asks an account of Azure; nothing is asked yet."""
    options = build_options("az", environment, account=account, anonymous=anonymous)
    return load_class(SERVICES["az"], "az://container/key")(**options)


@pytest.mark.parametrize("account", ["", "a.b", "evil.example:1", "evil.example%2f", "a b"])
def test_an_account_that_cannot_be_one_is_no_part_of_a_host(account: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        BucketAddress.parse(f"az://{account}.blob.core.windows.net/c/k")
    assert "uri-malformed" == caught.value.code


@pytest.mark.parametrize(("kind", "given"), [("service_account", True), ("external_account", False)])
def test_a_key_file_of_google_is_given_where_gcsfs_reads_its_kind(tmp_path: Path, kind: str, given: bool) -> None:
    path = tmp_path / "key.json"
    path.write_text(f'{{"type": "{kind}"}}')
    environment = make_environment(tmp_path, GOOGLE_APPLICATION_CREDENTIALS="key.json")
    assert given == ("token" in build_options("gs", environment, account=None, anonymous=False))


# any file system of fsspec ----------------------------------------------------------------------------------------


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Any:
    """fsspec's own file system in memory, in the place of the library that serves ``gdrive``."""
    from fsspec.implementations.memory import MemoryFileSystem

    class Drive(MemoryFileSystem):  # type: ignore[misc]
        protocol = "gdrive"
        store: dict[str, Any] = {}  # noqa: RUF012  # as its base has it
        pseudo_dirs = [""]  # noqa: RUF012

    module = ModuleType("gdrive_fsspec")
    module.GoogleDriveFileSystem = Drive  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdrive_fsspec", module)
    return Drive(skip_instance_cache=True)


def test_a_file_system_that_is_not_a_service_we_know_serves_an_object(
    drive: Any, make_fetcher: Any, tmp_path: Path
) -> None:
    body = os.urandom(9 * MIB)
    drive.pipe("/shared/a.nc", body)
    fetched = fetch(make_fetcher({}), "gdrive://shared/a.nc", tmp_path / "part")
    assert digests_of(body) == measured(fetched)
    error = failure(make_fetcher({}), "gdrive://shared/none.nc", tmp_path / "none")
    message = "cannot fetch 'gdrive://shared/none.nc': there is no object 'none.nc' in the bucket 'shared'"
    assert (message, "no-such-object") == (error.message, error.code)


def test_a_file_system_that_is_not_a_service_we_know_serves_a_prefix(
    drive: Any, make_fetcher: Any, tmp_path: Path
) -> None:
    for name, body in TREE.items():
        drive.pipe(f"/shared/set/{name}", body)
    drive.mkdir("/shared/set/empty")
    fetched = fetch(make_fetcher({}), "gdrive://shared/set", tmp_path / "part")
    assert {**TREE, "deep": None, "deep/er": None, "empty": None} == contents(fetched.path)
    assert read_tree(fetched.path)


def test_where_no_version_can_be_asked_for_the_object_is_looked_at_again(
    drive: Any, make_fetcher: Any, tmp_path: Path
) -> None:
    old, new = os.urandom(9 * MIB), os.urandom(9 * MIB)
    drive.pipe("/shared/a.nc", old)
    read = type(drive).cat_file
    changes = [new]

    def change_once(self: Any, path: str, **words: Any) -> Any:
        data = read(self, path, **words)
        if changes:
            drive.pipe("/shared/a.nc", changes.pop())
        return data

    type(drive).cat_file = change_once
    fetched = fetch(make_fetcher({}), "gdrive://shared/a.nc", tmp_path / "part")
    assert digests_of(new) == measured(fetched)
