"""``dm`` with object stores, end to end, against a real S3 server on loopback."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import pytest

from tests.fixtures.archives import make_archive
from tests.fixtures.commands import (
    NO_RETRIES,
    Ask,
    StartDm,
    assert_one_error,
    default_copy,
    kill,
    list_litter,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.relay import Relay
from tests.fixtures.seaweed import Bucket

MIB = 1 << 20
TREE = {"a.csv": b"1", "deep/b.csv": b"22", "deep/er/c.csv": b""}
#: A server that nobody listens at: whoever asks fails.
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", **NO_RETRIES}


def read_entry(project: Path, name: str) -> dict[str, object]:
    entry: dict[str, object] = tomllib.loads((project / "datamanifest.toml").read_text())[name]
    return entry


def put_tree(bucket: Bucket, prefix: str, files: dict[str, bytes] = TREE) -> str:
    for name, body in files.items():
        bucket.put(f"{prefix}/{name}", body)
    return f"{bucket.uri}{prefix}/"


def files_in(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".complete"}


def test_an_object_is_added_pinned_verified_and_not_asked_for_again(
    ask: Ask, project: Path, home: Home, bucket: Bucket
) -> None:
    body = os.urandom(5 * MIB)
    uri = bucket.put("raw/sst.nc", body)
    write_manifest(project)
    answer = ask("add", uri, env=bucket.variables)
    place = default_copy(home, f"{bucket.name}/raw/sst.nc")
    assert (0, "ok", str(place)) == (answer.status, answer.only["status"], answer.only["path"])
    assert body == place.read_bytes()
    checksum = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert {"uri": uri, "checksum": checksum} == read_entry(project, "sst")
    assert "unchanged" == ask("fetch", env=NOWHERE).only["status"]
    assert "ok" == ask("verify", env=NOWHERE).only["status"]
    assert [] == list_litter(home, project)


def test_a_prefix_is_added_as_a_folder_pinned_verified_and_not_asked_for_again(
    ask: Ask, project: Path, home: Home, bucket: Bucket
) -> None:
    uri = put_tree(bucket, "set")
    write_manifest(project)
    answer = ask("add", uri, "--name", "set", env=bucket.variables)
    place = default_copy(home, f"{bucket.name}/set")
    assert (0, "ok", str(place)) == (answer.status, answer.only["status"], answer.only["path"])
    assert TREE == files_in(place)
    entry = read_entry(project, "set")
    assert uri == entry["uri"]
    assert str(entry["digest"]).startswith("blake3-tree:")
    assert "unchanged" == ask("fetch", env=NOWHERE).only["status"]
    assert "ok" == ask("verify", env=NOWHERE).only["status"]
    assert [] == list_litter(home, project)


def test_an_archive_in_a_bucket_is_unpacked(ask: Ask, project: Path, home: Home, bucket: Bucket) -> None:
    uri = bucket.put("data.tar.gz", make_archive("tar.gz", [("one.txt", b"1")]))
    write_manifest(project)
    assert 0 == ask("add", uri, "--extract", env=bucket.variables).status
    assert {"one.txt": b"1"} == files_in(default_copy(home, f"{bucket.name}/data"))


def test_several_objects_become_one_folder(ask: Ask, project: Path, home: Home, bucket: Bucket) -> None:
    uris = [bucket.put(f"set/{name}", body) for name, body in TREE.items()]
    write_manifest(project, f"[set]\nuris = {uris!r}\n")
    assert 0 == ask("fetch", env=bucket.variables).status
    assert TREE == files_in(default_copy(home, f"{bucket.name}/set"))


def test_bytes_that_are_not_what_was_declared_leave_nothing(
    run_dm: RunDm, project: Path, home: Home, bucket: Bucket
) -> None:
    uri = bucket.put("a.csv", b"other bytes")
    write_manifest(project, f'[a]\nuri = "{uri}"\nchecksum = "sha256:{"0" * 64}"\n')
    for _ in range(2):
        done = run_dm("fetch", "-q", env=bucket.variables)
        assert "'a' is not what the manifest declares" in assert_one_error(done, 4)
    assert not default_copy(home, f"{bucket.name}/a.csv").exists()
    assert [] == list_litter(home, project)


def test_a_folder_that_is_not_what_was_declared_leaves_nothing(
    run_dm: RunDm, project: Path, home: Home, bucket: Bucket
) -> None:
    uri = put_tree(bucket, "set")
    write_manifest(project, f'[set]\nuri = "{uri}"\ndigest = "blake3-tree:{"0" * 64}"\n')
    assert "'set' is not what the manifest declares" in assert_one_error(run_dm("fetch", "-q", env=bucket.variables), 4)
    assert not default_copy(home, f"{bucket.name}/set").exists()
    assert [] == list_litter(home, project)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "TOPSECRET"}, "refuses the credentials that were found (SignatureDoesNotMatch)"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "wants credentials, and none were found"),
    ],
)
def test_without_the_right_credentials_nothing_is_registered(
    run_dm: RunDm, project: Path, home: Home, bucket: Bucket, wrong: dict[str, str], said: str
) -> None:
    uri = bucket.put("a.csv", b"1")
    before = write_manifest(project).read_bytes()
    done = run_dm("add", uri, env={**bucket.variables, **wrong})
    assert said in assert_one_error(done, 5)
    assert "TOPSECRET" not in done.stderr
    assert before == (project / "datamanifest.toml").read_bytes()
    assert [] == list_litter(home, project)


def test_no_such_bucket_and_no_such_object(run_dm: RunDm, project: Path, bucket: Bucket) -> None:
    write_manifest(project)
    done = run_dm("add", "s3://no-such-bucket/a.csv", env=bucket.variables)
    assert "has no bucket 'no-such-bucket'" in assert_one_error(done, 5)
    done = run_dm("add", f"{bucket.uri}none.csv", env=bucket.variables)
    assert "there is no object 'none.csv' in the bucket" in assert_one_error(done, 5)


def test_a_user_in_a_bucket_s_uri_is_refused(run_dm: RunDm, project: Path, bucket: Bucket) -> None:
    write_manifest(project)
    done = run_dm("add", f"s3://key:TOPSECRET@{bucket.name}/a.csv", env=bucket.variables)
    assert 0 != done.returncode
    assert "user or password" in done.stderr


def start_and_kill(start_dm: StartDm, bucket: Bucket, *words: str, after: int) -> None:
    """Run a command and end it with SIGKILL when the server has sent so many bytes."""
    with Relay(bucket.server.port) as relay:
        relay.stall_total_at = after
        url = f"http://127.0.0.1:{relay.port}"
        process = start_dm(*words, env={**bucket.variables, "AWS_ENDPOINT_URL": url})
        assert relay.stalled.wait(120), process.communicate()
        kill(process)


def fetch_counting(ask: Ask, bucket: Bucket) -> int:
    """``dm fetch``; how many bytes the server sent for it."""
    with Relay(bucket.server.port) as relay:
        variables = {**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"}
        assert 0 == ask("fetch", env=variables).status
        return relay.sent_bytes


def size_of_partials(home: Home) -> int:
    partial = home.data / "datamanifest" / ".dm" / "partial"
    return sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())


def test_a_killed_fetch_of_an_object_goes_on_where_it_was(
    ask: Ask, start_dm: StartDm, project: Path, home: Home, bucket: Bucket
) -> None:
    body = os.urandom(60 * MIB)
    uri = bucket.put("big.bin", body)
    write_manifest(project, f'[big]\nuri = "{uri}"\n')
    start_and_kill(start_dm, bucket, "fetch", after=40 * MIB)
    kept = size_of_partials(home)
    assert kept >= 40 * MIB - 5 * 4 * MIB
    assert not default_copy(home, f"{bucket.name}/big.bin").exists()
    assert fetch_counting(ask, bucket) <= len(body) - kept + MIB
    assert body == default_copy(home, f"{bucket.name}/big.bin").read_bytes()
    assert [] == list_litter(home, project)


def test_after_a_kill_an_object_that_changed_is_fetched_whole(
    ask: Ask, start_dm: StartDm, project: Path, home: Home, bucket: Bucket
) -> None:
    body = os.urandom(40 * MIB)
    uri = bucket.put("big.bin", body)
    write_manifest(project, f'[big]\nuri = "{uri}"\n')
    start_and_kill(start_dm, bucket, "fetch", after=25 * MIB)
    bucket.put("big.bin", body[::-1])
    assert 0 == ask("fetch", env=bucket.variables).status
    assert body[::-1] == default_copy(home, f"{bucket.name}/big.bin").read_bytes()


def test_a_killed_fetch_of_a_prefix_goes_on_file_by_file(
    ask: Ask, start_dm: StartDm, project: Path, home: Home, bucket: Bucket
) -> None:
    files = {f"{number}.bin": os.urandom(5 * MIB) for number in range(12)}
    uri = put_tree(bucket, "set", files)
    write_manifest(project, f'[set]\nuri = "{uri}"\n')
    start_and_kill(start_dm, bucket, "fetch", after=50 * MIB)
    kept = sum(path.stat().st_size for path in home.data.rglob("*.d/prefix/files/*"))
    assert kept > 0
    assert not default_copy(home, f"{bucket.name}/set").exists()
    assert fetch_counting(ask, bucket) <= 60 * MIB - kept + MIB
    assert files == files_in(default_copy(home, f"{bucket.name}/set"))
    assert [] == list_litter(home, project)


@pytest.mark.parametrize("command", ["fetch", "fetch-uri"])
def test_an_interrupt_ends_a_fetch_that_hangs_in_a_word(
    start_dm: StartDm, project: Path, bucket: Bucket, command: str
) -> None:
    import signal

    uri = put_tree(bucket, "set", {f"{number}.bin": os.urandom(2 * MIB) for number in range(10)})
    write_manifest(project, f'[set]\nuri = "{uri}"\n')
    with Relay(bucket.server.port) as relay:
        relay.stall_total_at = 2 * MIB
        words = ["fetch"] if command == "fetch" else ["fetch-uri", uri, "copy"]
        process = start_dm(*words, env={**bucket.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{relay.port}"})
        assert relay.stalled.wait(120)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert 130 == process.returncode, stderr
    assert "Traceback" not in stderr and "never" not in stderr


def test_an_uri_is_fetched_without_a_manifest(run_dm: RunDm, tmp_path: Path, bucket: Bucket) -> None:
    uri = bucket.put("a.csv", b"1,2\n")
    done = run_dm("fetch-uri", uri, tmp_path / "a.csv", env=bucket.variables)
    assert (0, f"sha256:{hashlib.sha256(b'1,2' + chr(10).encode()).hexdigest()}\n") == (done.returncode, done.stdout)
    uri = put_tree(bucket, "set")
    done = run_dm("fetch-uri", uri, tmp_path / "set", env=bucket.variables)
    assert (0, TREE) == (done.returncode, files_in(tmp_path / "set"))
    assert done.stdout.startswith("blake3-tree:")


def test_a_status_imports_no_library_of_a_service(run_dm: RunDm, project: Path, bucket: Bucket) -> None:
    write_manifest(project, f'[a]\nuri = "{bucket.uri}a.csv"\n')
    done = run_dm("status", env={"PYTHONPROFILEIMPORTTIME": "1", **NOWHERE})
    assert "dm.porcelain" in done.stderr
    assert "fsspec" not in done.stderr and "dm.plumbing.transport.bucket" not in done.stderr
