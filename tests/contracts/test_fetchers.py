"""What every transport keeps to (dm.plumbing.transport.protocol.Fetcher)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.transport.bucket import BucketFetcher
from dm.plumbing.transport.file import FileFetcher
from dm.plumbing.transport.git.fetcher import GitFetcher
from dm.plumbing.transport.protocol import Fetched, Fetcher
from dm.plumbing.transport.registry import Fetchers, find_fetcher
from dm.plumbing.transport.ssh import SshFetcher
from tests.fixtures.fetching import QUICK, digests_of, fetch, make_environment, make_http_fetcher, measured, names_in
from tests.fixtures.git_servers import GitDaemon, GitHttp, Repository
from tests.fixtures.seaweed import Bucket
from tests.fixtures.servers import HttpServer, Nginx
from tests.fixtures.sinks import RecordingProgress, RecordingTask
from tests.fixtures.sshd import Sshd

BODIES = {"empty": b"", "short": b"a,b\n1,2\n", "long": os.urandom((3 << 20) + 17)}


class Source(NamedTuple):
    """A transport with a place to fetch from: ``put(name, body)`` returns the URI of what it has put there.

    A transport that always gives a folder has the bytes in its file ``file_name``.
    """

    fetcher: Fetcher
    put: Callable[[str, bytes], str]
    missing: str
    file_name: str | None = None

    def find(self, fetched: Fetched) -> Path:
        """The file with the bytes."""
        return fetched.path if self.file_name is None else fetched.path / self.file_name


@contextmanager
def over_http(home: Path) -> Iterator[Source]:
    with HttpServer() as server:
        yield Source(make_http_fetcher(home), lambda name, body: server.put("/" + name, body), server.url + "/none")


@contextmanager
def over_nginx(home: Path) -> Iterator[Source]:
    served = home / "served"
    served.mkdir()
    with Nginx(served) as nginx:

        def put(name: str, body: bytes) -> str:
            (served / name).write_bytes(body)
            return f"{nginx.url}/{name}"

        yield Source(make_http_fetcher(home), put, nginx.url + "/none")


@contextmanager
def from_files(home: Path) -> Iterator[Source]:
    served = home / "served"
    served.mkdir()

    def put(name: str, body: bytes) -> str:
        (served / name).write_bytes(body)
        return (served / name).as_uri()

    yield Source(FileFetcher(), put, (served / "none").as_uri())


@contextmanager
def over_ssh(home: Path) -> Iterator[Source]:
    served = home / "served"
    served.mkdir()
    with Sshd(home) as sshd:

        def put(name: str, body: bytes) -> str:
            (served / name).write_bytes(body)
            return sshd.uri(served / name)

        environment = make_environment(home, PATH=os.environ["PATH"])
        yield Source(SshFetcher(environment, sshd.ssh_command, QUICK), put, sshd.uri(served / "none"))


def in_repositories(home: Path, fetcher: GitFetcher, uri: Callable[[str], str]) -> Source:
    def put(name: str, body: bytes) -> str:
        Repository.create(home / "repositories" / f"{name}.git").commit({"body": body})
        return uri(f"{name}.git")

    return Source(fetcher, put, uri("none.git"), "body")


@contextmanager
def over_git(home: Path) -> Iterator[Source]:
    (home / "repositories").mkdir()
    with GitDaemon(home / "repositories") as daemon:
        yield in_repositories(home, GitFetcher(make_environment(home), QUICK), daemon.uri)


@contextmanager
def over_git_http(home: Path) -> Iterator[Source]:
    (home / "repositories").mkdir()
    with GitHttp(home / "repositories") as server:
        yield in_repositories(home, GitFetcher(make_environment(home), QUICK), server.uri)


@contextmanager
def over_git_ssh(home: Path) -> Iterator[Source]:
    with Sshd(home) as sshd:
        environment = make_environment(home, PATH=os.environ["PATH"])
        fetcher = GitFetcher(environment, QUICK, ssh_command=sshd.ssh_command)
        yield in_repositories(home, fetcher, lambda name: sshd.uri(home / "repositories" / name))


@contextmanager
def from_repositories(home: Path) -> Iterator[Source]:
    fetcher = GitFetcher(make_environment(home), QUICK)
    yield in_repositories(home, fetcher, lambda name: (home / "repositories" / name).as_uri())


@contextmanager
def from_bucket(home: Path, bucket: Bucket) -> Iterator[Source]:
    fetcher = BucketFetcher(make_environment(home, **bucket.variables), QUICK)
    yield Source(fetcher, bucket.put, f"{bucket.uri}none")


@contextmanager
def from_prefixes(home: Path, bucket: Bucket) -> Iterator[Source]:
    fetcher = BucketFetcher(make_environment(home, **bucket.variables), QUICK)

    def put(name: str, body: bytes) -> str:
        bucket.put(f"{name}/body", body)
        return f"{bucket.uri}{name}/"

    yield Source(fetcher, put, f"{bucket.uri}none/", "body")


SOURCES = {
    "http": over_http,
    "nginx": over_nginx,
    "file": from_files,
    "ssh": over_ssh,
    "git": over_git,
    "git-http": over_git_http,
    "git-ssh": over_git_ssh,
    "git-file": from_repositories,
    "bucket": from_bucket,
    "prefix": from_prefixes,
}


@pytest.fixture(params=SOURCES.values(), ids=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    # The server of buckets is shared by all tests of a session.
    shared = (request.getfixturevalue("bucket"),) if request.param in (from_bucket, from_prefixes) else ()
    with request.param(tmp_path, *shared) as made:
        yield made
        made.fetcher.close()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_bytes_arrive_whole_and_measured(source: Source, tmp_path: Path, body: bytes) -> None:
    task = RecordingTask()
    fetched = fetch(source.fetcher, source.put("data", body), tmp_path / "new" / "part", task=task)
    assert tmp_path / "new" / "part" / "data.bin" == fetched.path
    assert body == source.find(fetched).read_bytes()
    assert len(body) == fetched.size_bytes
    assert task.total == task.done
    if source.file_name is None:
        assert (digests_of(body), len(body)) == (measured(fetched), task.done)
    else:
        assert [source.file_name] == names_in(fetched.path)
        assert {} == fetched.digests


def test_what_arrived_is_ours_to_write_and_has_no_other_name(source: Source, tmp_path: Path) -> None:
    about = source.find(fetch(source.fetcher, source.put("data", BODIES["short"]), tmp_path / "part")).stat()
    assert (0o600, 1) == (about.st_mode & 0o700, about.st_nlink)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_same_again_gives_the_same(source: Source, tmp_path: Path, body: bytes) -> None:
    uri = source.put("data", body)
    first = fetch(source.fetcher, uri, tmp_path / "part")
    again = fetch(source.fetcher, uri, tmp_path / "part")
    assert (first.digests, first.size_bytes) == (again.digests, again.size_bytes)
    assert first.revision == again.revision
    assert body == source.find(again).read_bytes()


def test_what_is_not_there_is_a_failed_source_in_one_line_and_leaves_nothing(source: Source, tmp_path: Path) -> None:
    with pytest.raises(SourceFailed) as caught:
        fetch(source.fetcher, source.missing, tmp_path / "part")
    assert caught.value.message.startswith(f"cannot fetch '{source.missing}': ")
    assert (5, 1) == (caught.value.exit_status, len(caught.value.message.splitlines()))
    assert caught.value.hint
    assert [] == names_in(tmp_path / "part")


def test_leftovers_of_something_else_do_not_get_in(source: Source, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    (part / "data.bin").write_bytes(os.urandom(5 << 20))
    mine = tmp_path / "mine"
    os.link(part / "data.bin", mine)
    before = mine.read_bytes()
    fetched = fetch(source.fetcher, source.put("data", BODIES["long"]), part)
    assert BODIES["long"] == source.find(fetched).read_bytes()
    assert before == mine.read_bytes()


def test_a_file_in_the_place_of_the_folder_is_not_overwritten(source: Source, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"mine")
    with pytest.raises(DmError) as caught:
        fetch(source.fetcher, source.put("data", BODIES["short"]), tmp_path / "part")
    assert Refused is type(caught.value)
    assert b"mine" == (tmp_path / "part").read_bytes()


def test_several_threads_fetch_at_once(source: Source, tmp_path: Path) -> None:
    uris = {str(number): source.put(f"data{number}", b"%d" % number * 100_000) for number in range(12)}
    found: dict[str, bytes] = {}
    todo = list(uris)

    def work() -> None:
        with suppress(IndexError):  # another one took the last
            while True:
                name = todo.pop()
                found[name] = source.find(fetch(source.fetcher, uris[name], tmp_path / name)).read_bytes()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: name.encode() * 100_000 for name in uris} == found


def test_nothing_is_said_when_all_is_well(source: Source, tmp_path: Path) -> None:
    progress = RecordingProgress()
    fetch(source.fetcher, source.put("data", BODIES["long"]), tmp_path / "part", progress=progress)
    assert ([], []) == (progress.notes, progress.warnings)


def test_it_serves_the_schemes_that_it_names(source: Source, tmp_path: Path) -> None:
    with Fetchers(make_environment(tmp_path)) as fetchers:
        for scheme in source.fetcher.schemes:
            assert type(source.fetcher) is type(find_fetcher(f"{scheme}:///x", fetchers))


def test_close_may_be_called_twice(source: Source) -> None:
    source.fetcher.close()
    source.fetcher.close()
