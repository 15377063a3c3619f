"""Data that is opened where it lies: object stores, http, files of this machine."""

from __future__ import annotations

import gc
import os
import pickle
import sys
from pathlib import Path

import pytest

from dm.errors import MachineFailed, SourceFailed
from dm.plumbing.transport.bucket import open_in_place, open_mapping
from tests.fixtures.fetching import make_environment
from tests.fixtures.homes import Home, RunInterpreter
from tests.fixtures.relay import Relay
from tests.fixtures.seaweed import Bucket
from tests.fixtures.servers import HttpServer, Nginx

MIB = 1 << 20


def said(error: SourceFailed) -> tuple[str, str | None, str, int]:
    return error.message, error.hint, error.code, error.exit_status


def test_an_object_is_read_in_parts_and_nothing_else_of_it_moves(bucket: Bucket, tmp_path: Path) -> None:
    body = os.urandom(40 * MIB)
    uri = bucket.put("big.nc", body)
    with Relay(bucket.server.port) as relay:
        variables = {**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"}
        with open_in_place(uri, make_environment(tmp_path, **variables)) as file:
            assert body[:10] == file.read(10)
            assert 30 * MIB == file.seek(30 * MIB)
            assert body[30 * MIB : 30 * MIB + 100] == file.read(100)
            assert len(body) == file.seek(0, os.SEEK_END)
            assert b"" == file.read()
        del file
        gc.collect()
        assert relay.sent_bytes < 16 * MIB


def test_what_everybody_may_read_needs_no_credentials(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.server.put("public", "open.csv", b"1,2\n")
    with open_in_place(uri, make_environment(tmp_path, **bucket.server.anonymous)) as file:
        assert b"1,2\n" == file.read()


def test_two_sessions_do_not_share_credentials(bucket: Bucket, tmp_path: Path) -> None:
    uri = bucket.put("a.csv", b"1")
    with open_in_place(uri, make_environment(tmp_path, **bucket.variables)) as file:
        assert b"1" == file.read()
    with pytest.raises(SourceFailed) as caught:
        open_in_place(uri, make_environment(tmp_path, **bucket.server.anonymous))
    assert "access-denied" == caught.value.code


def test_a_prefix_is_a_mapping(bucket: Bucket, tmp_path: Path) -> None:
    for name, body in (("a", b"1"), ("deep/b", b"22")):
        bucket.put(f"set/{name}", body)
    mapping = open_mapping(f"{bucket.uri}set/", make_environment(tmp_path, **bucket.variables))
    assert {"a": b"1", "deep/b": b"22"} == dict(mapping)
    assert "none" not in mapping


def test_zarr_is_read_where_it_lies(bucket: Bucket, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    written = zarr.create_array(str(tmp_path / "x.zarr"), shape=(10,), chunks=(4,), dtype="i4")
    written[:] = range(10)
    for path in (tmp_path / "x.zarr").rglob("*"):
        if path.is_file():
            bucket.put(f"x.zarr/{path.relative_to(tmp_path / 'x.zarr')}", path.read_bytes())
    uris = [f"{bucket.uri}x.zarr/", (tmp_path / "x.zarr").as_uri()]
    for uri in uris:
        mapping = open_mapping(uri, make_environment(tmp_path, **bucket.variables))
        assert list(range(10)) == zarr.open_array(mapping, mode="r")[:].tolist()


def test_a_file_of_a_web_server_is_read_in_parts(tmp_path: Path) -> None:
    body = os.urandom(20 * MIB)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.nc").write_bytes(body)
    with Nginx(tmp_path / "served") as nginx:
        with open_in_place(f"{nginx.url}/a.nc", make_environment(tmp_path)) as file:
            file.seek(15 * MIB)
            assert body[15 * MIB : 15 * MIB + 5] == file.read(5)
        assert all("bytes=" in line for line in nginx.requests if line.startswith("GET"))
        with pytest.raises(SourceFailed) as caught:
            open_in_place(f"{nginx.url}/none.nc", make_environment(tmp_path))
    message = f"cannot open '{nginx.url}/none.nc': the server has no such file"
    assert (message, "check the 'uri'", "no-such-object", 5) == said(caught.value)


def test_a_web_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed) as caught:
        open_in_place("http://127.0.0.1:1/a.nc", make_environment(tmp_path))
    hint = "is it up, and can it be reached from this machine?"
    message = "cannot open 'http://127.0.0.1:1/a.nc': cannot connect to the server"
    assert (message, hint, "cannot-connect", 5) == said(caught.value)


def test_a_web_server_that_wants_a_login(tmp_path: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.csv", b"1", login=("ada", "pw"))
    with pytest.raises(SourceFailed) as caught:
        open_in_place(uri, make_environment(tmp_path))
    message = f"cannot open '{uri}': the server refuses access"
    assert (message, "a login goes into ~/.netrc", "access-denied", 5) == said(caught.value)


def test_a_login_of_netrc_opens_what_wants_one(tmp_path: Path, http_server: HttpServer) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password pw\n")
    environment = make_environment(tmp_path)
    with open_in_place(http_server.put("/a.csv", b"1", login=("ada", "pw")), environment) as file:
        assert b"1" == pickle.loads(pickle.dumps(file)).read(), "also in a worker of dask, which gets it pickled"
    with HttpServer() as other:
        # The same address by another name is another host.
        uri = http_server.redirect("/away.csv", f"http://localhost:{other.port}{other.put('/b.csv', b'2')[-6:]}")
        with open_in_place(uri, environment) as file:
            assert b"2" == file.read()
        assert {None} == {each.headers.get("authorization") for each in other.requests}


@pytest.mark.fresh_process
def test_no_login_goes_over_http_once_https_was_used(
    run_interpreter: RunInterpreter, home: Home, certificate: Path, http_server: HttpServer
) -> None:
    (home.path / ".netrc").write_text("machine 127.0.0.1 login ada password pw\n")
    http_server.put("/a.csv", b"1")
    with HttpServer(certificate) as encrypted:
        encrypted.redirect("/a.csv", f"{http_server.url}/a.csv")
        encrypted.put("/b.csv", b"2", login=("ada", "pw"))
        script = (
            "import sys\nfrom dm.environment import Environment\n"
            "from dm.plumbing.transport.bucket import open_in_place\n"
            "for uri in sys.argv[1:]:\n    print(open_in_place(uri, Environment.read()).read())\n"
        )
        uris = [f"{encrypted.url}/a.csv", f"{encrypted.url}/b.csv", f"{http_server.url}/a.csv"]
        done = run_interpreter("-c", script, *uris, env={"SSL_CERT_FILE": str(certificate)})
        assert ("b'1'\nb'2'\nb'1'\n", 0) == (done.stdout, done.returncode), done.stderr
        assert all("authorization" in each.headers for each in encrypted.requests)
    sent = ["authorization" in each.headers for each in http_server.requests]
    assert sorted(sent) == sent and {False, True} == set(sent), "where http was asked for it is sent over http"


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "a b.csv").write_bytes(b"1")
    with open_in_place((tmp_path / "a b.csv").as_uri(), make_environment(tmp_path)) as file:
        assert b"1" == file.read()
    with pytest.raises(MachineFailed):
        open_in_place((tmp_path / "none.csv").as_uri(), make_environment(tmp_path))


def test_faults_in_words(bucket: Bucket, tmp_path: Path) -> None:
    environment = make_environment(tmp_path, **bucket.variables)
    bucket.put("set/a.csv", b"1")
    with pytest.raises(SourceFailed) as caught:
        open_in_place(f"{bucket.uri}none.csv", environment)
    message = f"cannot open '{bucket.uri}none.csv': there is no object 'none.csv' in the bucket '{bucket.name}'"
    assert (message, "check the 'uri': keys are case-sensitive", "no-such-object", 5) == said(caught.value)
    with pytest.raises(SourceFailed) as caught:
        open_in_place(f"{bucket.uri}set", environment)
    message, hint = f"cannot open '{bucket.uri}set': it is a folder", "name a file, or a format that is a folder (zarr)"
    assert (message, hint, "not-a-file", 5) == said(caught.value)
    with pytest.raises(SourceFailed) as caught:
        open_in_place("gopher://h/x", environment)
    known = "abfs, abfss, az, file, gcs, gdrive, gs, http, https, s3"
    assert ("cannot open 'gopher://h/x': nothing opens 'gopher'", f"known are {known}", "unknown-scheme", 5) == (
        said(caught.value)
    )


@pytest.mark.parametrize(
    ("uri", "module", "package", "command"),
    [
        ("https://h/x", "fsspec.implementations.http", "fsspec and aiohttp", "pip install 'dm[lazy]'"),
        ("s3://b/x", "s3fs", "s3fs", "pip install 'dm[s3]'"),
        ("gs://b/x", "gcsfs.core", "gcsfs", "pip install 'dm[gcs]'"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, module: str, package: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for open_it in (open_in_place, open_mapping):
        with pytest.raises(SourceFailed) as caught:
            open_it(uri, make_environment(tmp_path))
        message = f"cannot open '{uri}': it needs {package}, which is not installed"
        assert (message, command, "extra-missing", 5) == said(caught.value)


@pytest.mark.fresh_process
def test_what_the_libraries_log_is_no_line_on_stderr_unless_the_user_sets_up_logging(
    run_interpreter: RunInterpreter,
) -> None:
    script = (
        "import logging\nimport dm.plumbing.transport.bucket\n"
        "say = logging.getLogger('gcsfs.retry').error, logging.getLogger('azure.identity').warning\n"
        "for each in say:\n    each('before')\n"
        "logging.basicConfig(format='%(name)s %(message)s')\n"
        "for each in say:\n    each('after')\n"
    )
    assert "gcsfs.retry after\nazure.identity after\n" == run_interpreter("-c", script).stderr
