"""http(s): what an answer has to be, what is tried again, where it may lead."""

from __future__ import annotations

import gzip
import os
import socket
import threading
import time
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Refused, SourceFailed
from dm.plumbing.transport.web import HttpOptions
from tests.fixtures.fetching import (
    QUICK,
    SILENCES_S,
    digests_of,
    fetch,
    make_http_fetcher,
    measured,
    names_in,
)
from tests.fixtures.machine import MakeTmpfs
from tests.fixtures.servers import HttpServer
from tests.fixtures.sinks import RecordingProgress, RecordingTask

LONG = bytes(range(256)) * 8192  # 2 MiB
SHORT = b"station,temperature\nA,3.5\n"


def test_a_body_arrives_as_it_is_with_both_digests_and_its_type(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data.csv", SHORT, content_type="text/csv")
    task = RecordingTask()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", file_name="data.csv", task=task)
    assert tmp_path / "part" / "data.csv" == fetched.path
    assert SHORT == fetched.path.read_bytes()
    assert digests_of(SHORT) == measured(fetched)
    assert (len(SHORT), "text/csv", False) == (fetched.size_bytes, fetched.content_type, fetched.from_cache)
    assert (len(SHORT), len(SHORT)) == (task.done, task.total)


@pytest.mark.parametrize("fields", [{}, {"chunked": True}, {"until_close": True}], ids=["length", "chunks", "close"])
@pytest.mark.parametrize("body", [b"", b"x", LONG], ids=["empty", "one byte", "long"])
def test_every_way_to_end_a_body_gives_the_same_bytes(
    http_server: HttpServer, tmp_path: Path, body: bytes, fields: dict[str, bool]
) -> None:
    uri = http_server.put("/data", body, **fields)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert body == fetched.path.read_bytes()
    assert digests_of(body) == measured(fetched)


def test_many_files_share_one_connection(http_server: HttpServer, tmp_path: Path) -> None:
    fetcher = make_http_fetcher(tmp_path)
    for number in range(10):
        body = b"" if number == 3 else b"%d" % number
        fetch(fetcher, http_server.put(f"/{number}", body), tmp_path / "part", file_name=str(number))
    http_server.fail("/9", 404)
    with pytest.raises(SourceFailed):
        fetch(fetcher, http_server.url + "/9", tmp_path / "other")
    fetch(fetcher, http_server.url + "/9", tmp_path / "other")
    assert 1 == http_server.count_connections()


def test_a_kept_connection_that_the_server_dropped_is_asked_again_over_a_new_one(
    http_server: HttpServer, tmp_path: Path
) -> None:
    fetcher = make_http_fetcher(tmp_path, HttpOptions(retries=0))
    fetch(fetcher, http_server.put("/first", SHORT), tmp_path / "part", file_name="first")
    uri = http_server.put("/second", LONG)
    http_server.drop("/second", times=1)
    assert digests_of(LONG) == measured(fetch(fetcher, uri, tmp_path / "part", file_name="second"))
    assert (2, 2) == (http_server.count("/second"), http_server.count_connections())


def test_silence_on_a_kept_connection_is_told_with_the_time_waited(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"

        def answer_once_each() -> None:
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):  # the other side may have given up
                    if not connection.recv(10_000):
                        return
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
                    while connection.recv(10_000):
                        pass

        thread = threading.Thread(target=answer_once_each)
        thread.start()
        try:
            for silence_s in SILENCES_S:
                fetcher = make_http_fetcher(tmp_path, QUICK._replace(retries=0, read_timeout_s=silence_s))
                with suppress(SourceFailed):
                    fetch(fetcher, f"http://{host}/first", tmp_path / "part", file_name="first")
                    break
                fetcher.close()
            with pytest.raises(SourceFailed) as caught:
                fetch(fetcher, f"http://{host}/second", tmp_path / "part", file_name="second")
        finally:
            fetcher.close()
            socket.create_connection(server.getsockname()).close()  # nothing more comes
            thread.join()
    expected = f"cannot fetch 'http://{host}/second': {host} gave no answer within {silence_s:g} s"
    assert expected == caught.value.message


def test_threads_share_one_fetcher(http_server: HttpServer, tmp_path: Path) -> None:
    bodies = {f"/{number}": os.urandom(1000 + 100_000 * (number % 5)) for number in range(40)}
    uris = {path: http_server.put(path, body) for path, body in bodies.items()}
    fetcher = make_http_fetcher(tmp_path)
    found: dict[str, bytes] = {}
    todo = list(uris)

    def work() -> None:
        with suppress(IndexError):  # another one took the last
            while True:
                path = todo.pop()
                found[path] = fetch(fetcher, uris[path], tmp_path / path[1:]).path.read_bytes()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == found


def test_no_encoding_is_asked_for(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", SHORT)
    fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    headers = http_server.requests[0].headers
    assert ("identity", "dm") == (headers["accept-encoding"], headers["user-agent"])


def test_an_encoded_answer_is_stored_as_sent_with_a_warning(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data.csv", SHORT, content_encoding="gzip")
    progress = RecordingProgress()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", progress=progress)
    assert gzip.compress(SHORT, mtime=0) == fetched.path.read_bytes()
    assert [
        f"{http_server.host} sent '{uri}' encoded as gzip although that was declined: it is stored as it was sent"
    ] == progress.warnings


def test_a_gz_file_that_the_server_calls_encoded_stays_packed_without_a_word(
    http_server: HttpServer, tmp_path: Path
) -> None:
    uri = http_server.put("/data.csv.gz", SHORT, content_encoding="gzip")
    progress = RecordingProgress()
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", progress=progress)
    assert gzip.compress(SHORT, mtime=0) == fetched.path.read_bytes()
    assert [] == progress.warnings


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (404, "Not Found", "check the 'uri': the file was moved, renamed or removed"),
        (410, "Gone", "check the 'uri': the file was moved, renamed or removed"),
        (401, "Unauthorized", "a login for '127.0.0.1' goes into ~/.netrc; or ask its keeper for access"),
        (403, "Forbidden", "a login for '127.0.0.1' goes into ~/.netrc; or ask its keeper for access"),
        (407, "Proxy Authentication Required", "the proxy wants a login: http://user:password@proxy in https_proxy"),
        (400, "Bad Request", "open the 'uri' in a browser to see what the server has to say"),
        (204, "No Content", "open the 'uri' in a browser to see what the server has to say"),
        (206, "Partial Content", "open the 'uri' in a browser to see what the server has to say"),
        (304, "Not Modified", "open the 'uri' in a browser to see what the server has to say"),
    ],
)
def test_an_answer_that_is_no_file_fails_at_once_and_leaves_nothing(
    http_server: HttpServer, tmp_path: Path, status: int, reason: str, hint: str
) -> None:
    uri = http_server.put("/data.nc", SHORT)
    http_server.fail("/data.nc", status, times=9)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert f"cannot fetch '{uri}': {http_server.host} answered {status} {reason}" == caught.value.message
    assert (hint, f"http-{status}", 5) == (caught.value.hint, caught.value.code, caught.value.exit_status)
    assert (1, []) == (http_server.count("/data.nc"), names_in(tmp_path / "part"))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_what_may_pass_is_tried_again(http_server: HttpServer, tmp_path: Path, status: int) -> None:
    uri = http_server.put("/data", SHORT)
    http_server.fail("/data", status, times=3)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert (SHORT, 4) == (fetched.path.read_bytes(), http_server.count("/data"))


def test_after_the_last_try_the_error_says_how_many_there_were(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", SHORT)
    http_server.fail("/data", 500, times=99)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert f"cannot fetch '{uri}': {http_server.host} answered 500 Internal Server Error (4 tries)" == str(caught.value)
    assert "the server is in trouble, or busy: try again later" == caught.value.hint
    assert (4, []) == (http_server.count("/data"), names_in(tmp_path / "part"))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed_up_to_the_cap_and_told(http_server: HttpServer, tmp_path: Path, form: str) -> None:
    uri = http_server.put("/data", SHORT)
    wanted = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    http_server.fail("/data", 429, retry_after=wanted)
    progress = RecordingProgress()
    fetcher = make_http_fetcher(tmp_path, QUICK._replace(retry_after_max_s=1.0))
    fetched = fetch(fetcher, uri, tmp_path / "part", progress=progress)
    assert SHORT == fetched.path.read_bytes()
    told = f"{http_server.host} answered 429 Too Many Requests; trying again in 1 s (1 of 3)"
    assert [told] == progress.notes


@pytest.mark.parametrize("wanted", ["0", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_retry_after_that_is_past_or_senseless_does_not_hold_up(
    http_server: HttpServer, tmp_path: Path, wanted: str
) -> None:
    uri = http_server.put("/data", SHORT)
    http_server.fail("/data", 503, retry_after=wanted)
    assert SHORT == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()


def test_a_dropped_connection_is_tried_again_and_then_named(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", SHORT)
    http_server.drop("/data", times=3)
    assert SHORT == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()
    http_server.drop("/data", times=4)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part2")
    assert f"cannot fetch '{uri}': {http_server.host} dropped the connection (4 tries)" == caught.value.message
    assert ("try again later", "connection-dropped") == (caught.value.hint, caught.value.code)


def test_a_server_that_is_silent_is_named_with_the_time_waited(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", LONG, pause_at=100_000, etag=None, last_modified_s=None)
    for silence_s in SILENCES_S:
        fetcher = make_http_fetcher(tmp_path, QUICK._replace(retries=0, read_timeout_s=silence_s))
        with pytest.raises(SourceFailed) as caught:
            fetch(fetcher, uri, tmp_path / "part")
        if "gave no answer" not in caught.value.message:
            break
    assert f"cannot fetch '{uri}': {http_server.host} was silent for {silence_s:g} s" == caught.value.message
    assert [] == names_in(tmp_path / "part")


def test_a_server_that_never_answers_is_named_with_the_time_waited(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        host = f"127.0.0.1:{deaf.getsockname()[1]}"
        fetcher = make_http_fetcher(tmp_path, QUICK._replace(retries=1, read_timeout_s=0.05))
        with pytest.raises(SourceFailed) as caught:
            fetch(fetcher, f"http://{host}/data", tmp_path / "part")
    assert f"cannot fetch 'http://{host}/data': {host} gave no answer within 0.05 s (2 tries)" == caught.value.message


def test_a_host_that_refuses_connections_is_named(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"  # kept: nobody else listens there
        with pytest.raises(SourceFailed) as caught:
            fetch(make_http_fetcher(tmp_path), f"http://{host}/data", tmp_path / "part")
    expected = f"cannot fetch 'http://{host}/data': cannot connect to {host}: connection refused (3 tries)"
    assert expected == caught.value.message
    assert f"is {host} up, and can it be reached from this machine?" == caught.value.hint


def test_a_host_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), "http://no.such.host.invalid/data", tmp_path / "part")
    assert "no.such.host.invalid" in caught.value.message
    assert "unknown-host" == caught.value.code


def test_tls_to_a_server_without_it_fails_at_once(http_server: HttpServer, tmp_path: Path) -> None:
    uri = f"https://{http_server.host}/data"
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert f"cannot fetch '{uri}': no secure connection to {http_server.host}: " in caught.value.message
    assert "tls-failed" == caught.value.code
    assert "check the clock and the certificates of this machine; SSL_CERT_FILE names a bundle of your own" == (
        caught.value.hint
    )


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://", "the URI 'http://' names no host"),
        ("http://[::1/x", "cannot read the URI 'http://[::1/x'"),
        ("http://a:99999/x", "cannot read the URI 'http://a:99999/x'"),
    ],
)
def test_a_uri_that_cannot_be_read_is_shown(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert message == caught.value.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(http_server: HttpServer, tmp_path: Path, status: int) -> None:
    http_server.put("/there/data", SHORT)
    uri = http_server.redirect("/here", "there/data", status=status)
    assert SHORT == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://example.org/x", "javascript:alert(1)", "FILE:/etc/passwd", "data:,x"]
)
def test_a_redirect_that_leaves_http_is_refused(http_server: HttpServer, tmp_path: Path, location: str) -> None:
    uri = http_server.redirect("/here", location)
    with pytest.raises(Refused) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    expected = f"cannot fetch '{uri}': {http_server.host} redirects to '{location}', which is not http or https"
    assert (expected, 6, "redirect-unsafe") == (caught.value.message, caught.value.exit_status, caught.value.code)
    assert (
        "a server may not choose what is read here; if you trust that place, name it as the 'uri' yourself"
        == caught.value.hint
    )
    assert [] == names_in(tmp_path / "part")


def test_ten_redirects_are_followed_and_no_more(http_server: HttpServer, tmp_path: Path) -> None:
    for number in range(11):
        http_server.redirect(f"/{number}", f"/{number + 1}")
    http_server.put("/11", SHORT)
    fetcher = make_http_fetcher(tmp_path)
    assert SHORT == fetch(fetcher, http_server.url + "/1", tmp_path / "part").path.read_bytes()
    with pytest.raises(SourceFailed) as caught:
        fetch(fetcher, http_server.url + "/0", tmp_path / "part")
    assert f"cannot fetch '{http_server.url}/11': more than 10 redirects" == caught.value.message
    assert "open the 'uri' in a browser to see where it leads" == caught.value.hint


def test_an_error_after_a_redirect_names_both_ends(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.redirect("/here", "/gone")
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    expected = f"cannot fetch '{uri}': {http_server.host} answered 404 Not Found for '{http_server.url}/gone'"
    assert expected == caught.value.message


def test_logins_come_from_netrc_and_go_to_their_own_host_only(http_server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password pa:ss\n")
    http_server.put("/data", SHORT, login=("ada", "pa:ss"))
    with HttpServer() as other:
        other.put("/data", SHORT)
        # The other server is another host: the same address by another name.
        elsewhere = f"http://localhost:{other.port}/data"
        fetcher = make_http_fetcher(tmp_path)
        assert SHORT == fetch(fetcher, http_server.url + "/data", tmp_path / "one").path.read_bytes()
        fetch(fetcher, http_server.redirect("/away", elsewhere), tmp_path / "two")
        assert "authorization" not in other.requests[0].headers
    assert "authorization" in http_server.received("/away")[0].headers


def test_a_login_goes_over_https_and_not_over_http_once_https_was_used(
    http_server: HttpServer, certificate: Path, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password pw\n")
    http_server.put("/data", SHORT)
    with HttpServer(certificate) as encrypted:
        uri = encrypted.put("/data", SHORT, login=("ada", "pw"))
        fetcher = make_http_fetcher(tmp_path, SSL_CERT_FILE=str(certificate))
        assert SHORT == fetch(fetcher, uri, tmp_path / "one").path.read_bytes()
        down = encrypted.redirect("/down", f"{http_server.url}/data")
        assert SHORT == fetch(fetcher, down, tmp_path / "two").path.read_bytes()
    assert [False] == ["authorization" in each.headers for each in http_server.requests]


def test_a_certificate_that_nobody_vouches_for_is_an_error(certificate: Path, tmp_path: Path) -> None:
    with HttpServer(certificate) as encrypted:
        uri = encrypted.put("/data", SHORT)
        with pytest.raises(SourceFailed) as caught:
            fetch(make_http_fetcher(tmp_path), uri, tmp_path / "one")
    assert "certificate" in caught.value.message and [] == encrypted.requests


def test_netrc_can_lie_where_the_variable_says(http_server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "logins").write_text("machine 127.0.0.1 login ada password pass\n")
    uri = http_server.put("/data", SHORT, login=("ada", "pass"))
    fetcher = make_http_fetcher(tmp_path, NETRC=str(tmp_path / "logins"))
    assert SHORT == fetch(fetcher, uri, tmp_path / "one").path.read_bytes()


def test_a_proxy_is_used_and_left_out_as_the_variables_say(http_server: HttpServer, tmp_path: Path) -> None:
    with HttpServer() as proxy:
        proxy.put("/data", b"through the proxy")
        direct = http_server.put("/data", b"direct")
        variables = {"http_proxy": f"http://ada:pa%3Ass@{proxy.host}"}
        through = fetch(make_http_fetcher(tmp_path, **variables), direct, tmp_path / "one")
        around = fetch(make_http_fetcher(tmp_path, **variables, no_proxy="127.0.0.1"), direct, tmp_path / "two")
        assert b"through the proxy" == through.path.read_bytes()
        assert b"direct" == around.path.read_bytes()
        assert [direct] == [request.target for request in proxy.requests]
        assert "Basic YWRhOnBhOnNz" == proxy.requests[0].headers["proxy-authorization"]


def test_a_proxy_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]  # kept: nobody else listens there
        fetcher = make_http_fetcher(tmp_path, HTTP_PROXY=f"http://ada:secret@127.0.0.1:{port}")
        with pytest.raises(SourceFailed) as caught:
            fetch(fetcher, "http://example.invalid/data", tmp_path / "part")
    expected = (
        f"cannot fetch 'http://example.invalid/data': cannot reach the proxy 'http://127.0.0.1:{port}': "
        "connection refused (3 tries)"
    )
    assert (expected, "check http_proxy, https_proxy and no_proxy") == (caught.value.message, caught.value.hint)


def test_a_proxy_of_an_unknown_kind_is_an_error_that_names_it(tmp_path: Path) -> None:
    fetcher = make_http_fetcher(tmp_path, all_proxy="socks5://ada:secret@127.0.0.1:1080")
    with pytest.raises(SourceFailed) as caught:
        fetch(fetcher, "http://example.invalid/data", tmp_path / "part")
    expected = "cannot use the proxy 'socks5://127.0.0.1:1080': only http and https proxies are known"
    assert (expected, "set http_proxy, https_proxy or no_proxy") == (caught.value.message, caught.value.hint)


def test_a_web_page_where_data_was_expected_is_kept_with_a_warning(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put_page("/data.nc")
    progress = RecordingProgress()
    fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", expected_format="nc", progress=progress)
    assert [
        f"'{uri}' answered with a web page (text/html) where 'nc' was expected: is it a login or an error page?"
    ] == progress.warnings


@pytest.mark.parametrize(("expected_format", "file_name"), [("html", "x.nc"), (None, "page.html"), (None, "page")])
def test_a_web_page_that_was_expected_is_no_reason_to_warn(
    http_server: HttpServer, tmp_path: Path, expected_format: str | None, file_name: str
) -> None:
    uri = http_server.put_page("/page")
    progress = RecordingProgress()
    fetch(
        make_http_fetcher(tmp_path),
        uri,
        tmp_path / "part",
        expected_format=expected_format,
        file_name=file_name,
        progress=progress,
    )
    assert [] == progress.warnings


@pytest.mark.parametrize("path", ["/folder/", "/folder"])
def test_the_listing_of_a_folder_is_an_error(http_server: HttpServer, tmp_path: Path, path: str) -> None:
    http_server.put_listing("/folder/")
    uri = http_server.url + path
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", expected_format="nc")
    expected = f"cannot fetch '{uri}': {http_server.host} sent the listing of a folder, not a file"
    assert (expected, "folder-listing") == (caught.value.message, caught.value.code)
    assert "name the file itself, or each of them in 'uris'" == caught.value.hint
    assert [] == names_in(tmp_path / "part")


def test_a_page_at_a_folder_is_taken_whole_when_a_page_was_asked_for(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.put_page("/site/", title="Our data " * 10_000)
    uri = http_server.redirect("/site", "/site/", status=301)
    fetched = fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part", expected_format="html")
    assert http_server.routes["/site/"].body == fetched.path.read_bytes()
    assert digests_of(fetched.path.read_bytes()) == measured(fetched)


def test_a_folder_that_may_not_be_listed_says_so(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.redirect("/folder", "/folder/", status=301)
    http_server.put("/folder/", b"")
    http_server.fail("/folder/", 403)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part")
    assert "this is a folder that may not be listed: name the file itself" == caught.value.hint


def test_a_path_with_blanks_and_umlauts_is_sent_escaped(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.put("/sea%20surface/f%C3%BCr%20alle.nc?v=1", SHORT)
    uri = http_server.url + "/sea surface/für alle.nc?v=1#2.0"
    assert SHORT == fetch(make_http_fetcher(tmp_path), uri, tmp_path / "part").path.read_bytes()


def test_a_token_in_the_query_is_sent_and_not_told(http_server: HttpServer, tmp_path: Path) -> None:
    http_server.put("/data?token=abc", SHORT)
    http_server.fail("/data?token=abc", 404)
    with pytest.raises(SourceFailed) as caught:
        fetch(make_http_fetcher(tmp_path), http_server.url + "/data?token=abc", tmp_path / "part")
    expected = f"cannot fetch '{http_server.url}/data?…': {http_server.host} answered 404 Not Found"
    assert expected == caught.value.message


def test_close_ends_what_is_under_way_and_leaves_it_to_be_resumed(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", LONG, pause_at=1_000_000)
    fetcher = make_http_fetcher(tmp_path, HttpOptions(read_timeout_s=300))
    errors: list[SourceFailed] = []

    def work() -> None:
        try:
            fetch(fetcher, uri, tmp_path / "part")
        except SourceFailed as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    http_server.routes["/data"].paused.wait()
    fetcher.close()
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert [f"cannot fetch '{uri}': interrupted"] == [error.message for error in errors]
    assert "interrupted" == errors[0].code


def test_close_ends_a_wait_between_two_tries(http_server: HttpServer, tmp_path: Path) -> None:
    uri = http_server.put("/data", SHORT)
    http_server.fail("/data", 503, times=9, retry_after="300")
    fetcher = make_http_fetcher(tmp_path, HttpOptions(retry_after_max_s=300))
    noted = threading.Event()

    class Sink(RecordingProgress):
        def note(self, text: str) -> None:
            noted.set()

    errors: list[str] = []

    def work() -> None:
        try:
            fetch(fetcher, uri, tmp_path / "part", progress=Sink())
        except SourceFailed as error:
            errors.append(error.message)

    thread = threading.Thread(target=work)
    thread.start()
    assert noted.wait(60)
    fetcher.close()
    thread.join(timeout=60)
    assert [f"cannot fetch '{uri}': interrupted (2 tries)"] == errors


def test_a_disk_that_is_too_small_says_so_before_the_transfer(
    http_server: HttpServer, tmp_path: Path, small_tmpfs: MakeTmpfs
) -> None:
    disk = small_tmpfs(4 << 20)
    uri = http_server.put("/data", bytes(16 << 20), pause_at=8 << 20)
    with pytest.raises(MachineFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, disk / "part")
    path = disk / "part" / "data.bin"
    assert f"cannot reserve 16,777,216 bytes for '{path}': disk full" == caught.value.message
    assert (8, "disk-full") == (caught.value.exit_status, caught.value.code)
    assert [] == names_in(disk / "part")


def test_a_disk_that_fills_up_on_the_way_is_an_error_of_this_machine(
    http_server: HttpServer, tmp_path: Path, small_tmpfs: MakeTmpfs
) -> None:
    disk = small_tmpfs(1 << 20)
    uri = http_server.put("/data", LONG, chunked=True, etag=None, last_modified_s=None)
    with pytest.raises(MachineFailed) as caught:
        fetch(make_http_fetcher(tmp_path), uri, disk / "part")
    assert f"cannot write '{disk / 'part' / 'data.bin'}': disk full" == caught.value.message
    assert [] == names_in(disk / "part")
