"""Going on where a transfer stopped: in the same run, and in a later one. Never a stitched file."""

from __future__ import annotations

import os
from email.utils import formatdate
from pathlib import Path

import pytest

from dm.errors import SourceFailed
from dm.plumbing.transport.journal import Journal, journal_path, read_boot_id
from tests.fixtures.fetching import QUICK, digests_of, fetch, make_http_fetcher, measured, names_in
from tests.fixtures.servers import MODIFIED_S, HttpServer, Nginx
from tests.fixtures.sinks import RecordingProgress, RecordingTask

OLD = os.urandom(1 << 20)
NEW = os.urandom(1 << 20)
ONE_TRY = QUICK._replace(retries=0)


def stop_at(server: HttpServer, home: Path, at_bytes: int, **fields: object) -> str:
    """Serve OLD and have a first run broken off after so many bytes; return the URI."""
    uri = server.put("/data", OLD, **fields)
    server.truncate("/data", at_bytes)
    with pytest.raises(SourceFailed):
        fetch(make_http_fetcher(home, ONE_TRY), uri, home / "part")
    server.forget_requests()
    return uri


def ranges(server: HttpServer) -> list[str | None]:
    return [request.range for request in server.received("/data")]


def lying(home: Path) -> bytes:
    return (home / "part" / "data.bin").read_bytes()


def test_a_truncated_body_is_continued_in_the_same_run(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD)
    http_server.truncate("/data", 700_000)
    task = RecordingTask()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", task=task)
    assert OLD == fetched.path.read_bytes()
    assert digests_of(OLD) == measured(fetched)
    assert [None, "bytes=700000-"] == ranges(http_server)
    assert (len(OLD), len(OLD)) == (task.done, task.total)


def test_a_truncated_body_is_told_with_what_came_and_what_should_have(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD)
    http_server.truncate("/data", 700_000)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path, ONE_TRY), uri, tmp_path / "part")
    expected = f"cannot fetch '{uri}': {http_server.host} closed the connection after 700,000 of 1,048,576 bytes"
    assert (expected, "truncated") == (caught.value.message, caught.value.code)
    assert "what has arrived is kept: run it again and it goes on from there" == caught.value.hint
    assert OLD[:700_000] == lying(tmp_path)


def test_tries_that_get_on_are_not_counted(http_server: HttpServer, tmp_path: Path) -> None:
    body = os.urandom(8 << 20)
    uri = http_server.put("/data", body)
    http_server.truncate("/data", (1 << 20) + 5, times=7)
    fetched = fetch(make_http_fetcher(tmp_path, QUICK._replace(retries=1)), uri, tmp_path / "part")
    assert body == fetched.path.read_bytes()
    assert 8 == http_server.count("/data")


def test_tries_that_begin_anew_each_time_are_counted(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", bytes(8 << 20), etag=None, last_modified_s=None)
    http_server.truncate("/data", 2 << 20, times=99)
    with pytest.raises(SourceFailed):
        fetch(make_http_fetcher(tmp_path, QUICK._replace(retries=2)), uri, tmp_path / "part")
    # The first brought something new and counts as one; the two others got no farther.
    assert 3 == http_server.count("/data")
    assert [] == names_in(tmp_path / "part")


def test_a_later_run_asks_for_the_rest_only(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    task = RecordingTask()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", task=task)
    assert OLD == fetched.path.read_bytes()
    assert digests_of(OLD) == measured(fetched)
    assert ["bytes=700000-"] == ranges(http_server)
    assert http_server.routes["/data"].sent_etag == http_server.requests[0].headers["if-range"]
    assert (len(OLD), len(OLD), False) == (task.done, task.total, fetched.from_cache)


def test_without_an_etag_an_old_last_modified_vouches(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, etag=None)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert OLD == fetched.path.read_bytes()
    assert ["bytes=700000-"] == ranges(http_server)
    assert formatdate(MODIFIED_S, usegmt=True) == http_server.requests[0].headers["if-range"]


@pytest.mark.parametrize(
    "fields",
    [
        {"etag": None, "last_modified_s": None},
        {"etag": 'W/"weak"', "last_modified_s": None},
        {"etag": "", "last_modified_s": None},
        {"etag": None, "last_modified_s": 4_000_000_000},
        {"headers": {"Accept-Ranges": "none"}},
        {"content_encoding": "gzip"},
    ],
    ids=["nothing", "weak etag", "empty etag", "modified in the future", "ranges declined", "encoded"],
)
def test_what_cannot_be_vouched_for_begins_anew(
    http_server: HttpServer, tmp_path: Path, fields: dict[str, object]
) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, **fields)
    assert [] == names_in(tmp_path / "part")
    fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert [None] == ranges(http_server)


@pytest.mark.parametrize("if_range", [True, False], ids=["If-Range heeded", "If-Range ignored"])
@pytest.mark.parametrize("fields", [{}, {"etag": None}], ids=["etag", "last-modified"])
def test_other_content_at_the_source_is_never_stitched_to_the_old(
    http_server: HttpServer, tmp_path: Path, if_range: bool, fields: dict[str, object]
) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, if_range=if_range, **fields)
    http_server.change("/data", NEW)
    task = RecordingTask()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", task=task)
    assert NEW == fetched.path.read_bytes()
    assert digests_of(NEW) == measured(fetched)
    assert (len(NEW), len(NEW)) == (task.done, task.total)


def test_content_that_changes_between_two_tries_is_never_stitched(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD, if_range=False)
    http_server.truncate_and_change("/data", 500_000, NEW[:800_000])
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert NEW[:800_000] == fetched.path.read_bytes()
    assert digests_of(NEW[:800_000]) == measured(fetched)
    assert [None, "bytes=500000-", None] == ranges(http_server)


def test_a_shorter_file_at_the_source_answers_416_and_begins_anew(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, if_range=False)
    http_server.change("/data", NEW[:300_000])
    assert NEW[:300_000] == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert ["bytes=700000-", None] == ranges(http_server)


def test_a_shorter_file_of_the_size_that_is_here_is_not_taken_for_the_same(
    http_server: HttpServer, tmp_path: Path
) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, if_range=False)
    http_server.change("/data", NEW[:700_000])
    assert NEW[:700_000] == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"content_range": "bytes 0-1048575/1048576"},
        {"content_range": "bytes 700001-1048575/1048576"},
        {"content_range": "bytes 700000-1048575/2000000"},
        {"content_range": "bytes 700000-1048576/1048576"},
        {"content_range": "bytes 700000-600000/1048576"},
        {"content_range": "pages 700000-1048575/1048576"},
        {"content_range": "bytes 700000-1048575/1048576", "etag": '"other"'},
        {"content_range": "bytes 700000-1048575/1048576", "content_encoding": "gzip"},
    ],
    ids=["none", "start", "start by one", "total", "end", "order", "unit", "etag", "encoding"],
)
def test_a_part_that_is_not_the_one_asked_for_is_thrown_away(
    http_server: HttpServer, tmp_path: Path, answer: dict[str, str]
) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    http_server.fail("/data", 206, **answer)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert OLD == fetched.path.read_bytes()
    assert digests_of(OLD) == measured(fetched)
    assert ["bytes=700000-", None] == ranges(http_server)


def test_a_server_without_ranges_sends_the_whole_and_the_whole_is_taken(
    http_server: HttpServer, tmp_path: Path
) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, ranges=False)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert OLD == fetched.path.read_bytes()
    assert digests_of(OLD) == measured(fetched)


def test_chunks_of_unknown_length_are_continued_too(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000, chunked=True)
    have = len(lying(tmp_path))
    assert 0 < have <= 700_000
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert OLD == fetched.path.read_bytes()
    assert [f"bytes={have}-"] == ranges(http_server)


def test_chunks_that_had_come_whole_are_complete_at_416(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD, chunked=True)
    fetcher = make_http_fetcher(tmp_path)
    fetch(fetcher, uri, tmp_path / "part")
    http_server.forget_requests()
    again = fetch(fetcher, uri, tmp_path / "part")
    assert OLD == again.path.read_bytes()
    assert digests_of(OLD) == measured(again)
    assert [f"bytes={len(OLD)}-"] == ranges(http_server)


@pytest.mark.parametrize(
    "headers",
    [{}, {"content_range": "bytes */1048577"}, {"content_range": "bytes */1048576", "etag": '"other"'}],
    ids=["no size", "another size", "another version"],
)
def test_a_416_that_does_not_confirm_begins_anew(
    http_server: HttpServer, tmp_path: Path, headers: dict[str, str]
) -> None:
    uri = http_server.put("/data", OLD, chunked=True)
    fetcher = make_http_fetcher(tmp_path)
    fetch(fetcher, uri, tmp_path / "part")
    http_server.forget_requests()
    http_server.fail("/data", 416, **headers)
    again = fetch(fetcher, uri, tmp_path / "part")
    assert digests_of(OLD) == measured(again)
    assert [f"bytes={len(OLD)}-", None] == ranges(http_server)


def test_a_whole_file_that_was_not_published_is_confirmed_by_its_last_byte(
    http_server: HttpServer, tmp_path: Path
) -> None:
    uri = http_server.put("/data", OLD)
    fetcher = make_http_fetcher(tmp_path)
    fetch(fetcher, uri, tmp_path / "part")
    http_server.forget_requests()
    again = fetch(fetcher, uri, tmp_path / "part")
    assert (OLD, True) == (again.path.read_bytes(), again.from_cache)
    assert digests_of(OLD) == measured(again)
    assert [f"bytes={len(OLD) - 1}-"] == ranges(http_server)


def test_a_whole_file_whose_source_changed_is_fetched_anew(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD)
    fetcher = make_http_fetcher(tmp_path)
    fetch(fetcher, uri, tmp_path / "part")
    http_server.change("/data", NEW)
    again = fetch(fetcher, uri, tmp_path / "part")
    assert (NEW, False) == (again.path.read_bytes(), again.from_cache)


def test_a_part_of_another_source_is_not_used(http_server: HttpServer, tmp_path: Path) -> None:
    stop_at(http_server, tmp_path, 700_000)
    other = http_server.put("/other", NEW, etag=http_server.routes["/data"].sent_etag)
    assert NEW == fetch(make_http_fetcher(tmp_path), other, tmp_path / "part").path.read_bytes()
    assert [None] == [request.range for request in http_server.received("/other")]


def test_a_part_without_a_journal_is_not_used(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    journal_path(tmp_path / "part" / "data.bin").unlink()
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert [None] == ranges(http_server)


@pytest.mark.parametrize("size", [0, 1 << 21], ids=["empty", "longer than the whole"])
def test_a_part_of_an_impossible_size_is_not_used(http_server: HttpServer, tmp_path: Path, size: int) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    os.truncate(tmp_path / "part" / "data.bin", size)
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert [None] == ranges(http_server)


def test_a_part_that_has_another_name_elsewhere_is_not_written_to(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    os.link(tmp_path / "part" / "data.bin", tmp_path / "object")
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert OLD[:700_000] == (tmp_path / "object").read_bytes()


def test_a_link_in_the_place_of_the_part_is_not_followed(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    part = tmp_path / "part" / "data.bin"
    part.rename(tmp_path / "mine")
    part.symlink_to(tmp_path / "mine")
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert OLD[:700_000] == (tmp_path / "mine").read_bytes()


def test_bytes_of_before_a_restart_count_as_far_as_they_were_flushed(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    path = journal_path(tmp_path / "part" / "data.bin")
    text = path.read_text().replace(read_boot_id(), "another start of this machine")
    path.write_text(text.replace('"flushed": 0', '"flushed": 400000'))
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert ["bytes=400000-"] == ranges(http_server)


def test_a_long_transfer_flushes_now_and_then_and_writes_down_how_far(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD)
    http_server.truncate("/data", 700_000)
    with pytest.raises(SourceFailed):
        fetch(make_http_fetcher(tmp_path, ONE_TRY._replace(flush_every_s=0)), uri, tmp_path / "part")
    journal = Journal.read(journal_path(tmp_path / "part" / "data.bin"))
    assert journal is not None
    assert (700_000, len(OLD)) == (journal.flushed, journal.total)


def test_bytes_of_before_a_restart_that_were_not_flushed_do_not_count(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    path = journal_path(tmp_path / "part" / "data.bin")
    path.write_text(path.read_text().replace(read_boot_id(), "another start of this machine"))
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert [None] == ranges(http_server)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 1, "source": "x"}',
        b'{"format": 1, "source": "x", "validator": "a\\r\\nEvil: 1", "total": 1, "boot": "", "flushed": 0}',
        b'{"format": 1, "source": "x", "validator": 1, "total": 1, "boot": "", "flushed": 0}',
        b'{"format": 1, "source": "x", "validator": "\\"a\\"", "total": "1", "boot": "", "flushed": 0}',
        b'{"format": 1, "source": "x", "validator": "\\"a\\"", "total": 1, "boot": "", "flushed": null}',
    ],
)
def test_a_journal_that_says_nothing_usable_is_dropped(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(text)
    assert None is Journal.read(path)


def test_a_journal_reads_back_as_it_was_written(tmp_path: Path) -> None:
    journal = Journal("source", '"etag"', None, "", 7)
    journal.write(tmp_path / "journal")
    assert journal._replace(boot=read_boot_id()) == Journal.read(tmp_path / "journal")


def test_a_journal_names_no_uri(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.put("/data?token=hush", OLD)
    http_server.truncate("/data?token=hush", 700_000)
    with pytest.raises(SourceFailed):
        fetch(make_http_fetcher(tmp_path, ONE_TRY), http_server.url + "/data?token=hush", tmp_path / "part")
    assert "hush" not in journal_path(tmp_path / "part" / "data.bin").read_text()


def test_a_short_body_leaves_no_journal(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD[:1000])
    http_server.truncate("/data", 500)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert OLD[:1000] == fetched.path.read_bytes()
    assert digests_of(OLD[:1000]) == measured(fetched)
    assert ["data.bin"] == names_in(tmp_path / "part")


def test_a_failure_of_the_server_keeps_the_part_for_later(http_server: HttpServer, tmp_path: Path) -> None:
    uri = stop_at(http_server, tmp_path, 700_000)
    http_server.fail("/data", 503, times=99)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert "what has arrived is kept: run it again and it goes on from there" == caught.value.hint
    assert OLD[:700_000] == lying(tmp_path)


def test_an_interrupt_keeps_the_part_for_later(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", OLD)

    class Interrupting(RecordingTask):
        def advance(self, amount: int) -> None:
            super().advance(amount)
            if self.done > 500_000:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", task=Interrupting())
    have = len(lying(tmp_path))
    assert OLD[:have] == lying(tmp_path)
    http_server.forget_requests()
    assert OLD == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    assert [f"bytes={have}-"] == ranges(http_server)


def test_space_is_reserved_beyond_the_end_that_the_file_shows(http_server: HttpServer, tmp_path: Path) -> None:
    body = os.urandom(9 << 20)
    uri = http_server.put("/data", body)
    http_server.truncate("/data", 5 << 20)
    with pytest.raises(SourceFailed):
        fetch(make_http_fetcher(tmp_path, ONE_TRY), uri, tmp_path / "part")
    assert 5 << 20 == (tmp_path / "part" / "data.bin").stat().st_size
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert digests_of(body) == measured(fetched)


def test_a_real_nginx_continues_and_notices_a_change(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "data").write_bytes(OLD)
    os.utime(served / "data", (MODIFIED_S, MODIFIED_S))
    part = tmp_path / "part" / "data.bin"
    fetcher = make_http_fetcher(tmp_path)
    with Nginx(served) as nginx:
        fetch(fetcher, nginx.url + "/data", part.parent)
        os.truncate(part, 600_000)
        assert digests_of(OLD) == measured(fetch(fetcher, nginx.url + "/data", part.parent))
        os.truncate(part, 600_000)
        (served / "data").write_bytes(NEW)
        changed = fetch(fetcher, nginx.url + "/data", part.parent, progress=RecordingProgress())
        assert (NEW, digests_of(NEW)) == (changed.path.read_bytes(), measured(changed))
        fetch(fetcher, nginx.url + "/data", part.parent)
        asked = [line.split() for line in nginx.requests]
    assert ["200", "206", "200", "206"] == [line[2] for line in asked]
    assert ["-", "bytes=600000-", "bytes=600000-", f"bytes={len(NEW) - 1}-"] == [line[3] for line in asked]
