"""``dm add`` as somebody meets it first: words that are nearly a source, options that do not go together."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
from blake3 import blake3

from tests.fixtures.commands import Ask, assert_one_error, write_manifest
from tests.fixtures.homes import RunDm
from tests.fixtures.servers import HttpServer


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("example.org/data.csv", "did you mean https://example.org/data.csv?"),
        ("zenodo.org/records/1", "did you mean https://zenodo.org/records/1?"),
        ("zenodo.7963133", "did you mean 10.5281/zenodo.7963133?"),
        ("nothing.csv", "a URI begins with its scheme"),
        ("no/such/path", "a URI begins with its scheme"),
    ],
)
def test_a_word_that_is_no_source_is_told_with_what_was_probably_meant(
    run_dm: RunDm, project: Path, source: str, hint: str
) -> None:
    write_manifest(project)
    done = run_dm("add", source)
    assert f"'{source}' is neither a URI, nor a DOI, nor a path that exists" == assert_one_error(done, 2)
    assert done.stderr.splitlines()[1].startswith(f"hint: {hint}")


def test_an_empty_source_is_wrong_usage(run_dm: RunDm, project: Path) -> None:
    write_manifest(project)
    assert "a source is empty" == assert_one_error(run_dm("add", ""), 2)


@pytest.mark.parametrize("checksum", ["md5:123", "12ab", "crc32:12345678", ""])
def test_a_checksum_that_is_none_is_wrong_usage(
    run_dm: RunDm, project: Path, http_server: HttpServer, checksum: str
) -> None:
    write_manifest(project)
    uri = http_server.put("/a.csv", "a")
    assert assert_one_error(run_dm("add", uri, "--checksum", checksum), 2).startswith("--checksum: ")
    assert [] == http_server.requests


@pytest.mark.parametrize("algorithm", ["md5", "sha256", "blake3"])
def test_the_checksum_of_a_file_of_the_projects_own_is_checked_and_kept(
    run_dm: RunDm, ask: Ask, project: Path, algorithm: str
) -> None:
    write_manifest(project)
    data = b"mine"
    (project / "mine.csv").write_bytes(data)
    right = blake3(data).hexdigest() if algorithm == "blake3" else hashlib.new(algorithm, data).hexdigest()
    wrong = right[::-1]
    message = assert_one_error(run_dm("add", "mine.csv", "--checksum", f"{algorithm}:{wrong}"), 4)
    assert message.endswith(f"is not what --checksum says: it is {algorithm}:{right}, not {algorithm}:{wrong}")
    assert 0 == run_dm("add", "mine.csv", "--checksum", f"{algorithm}:{right}").returncode
    document = tomllib.loads((project / "datamanifest.toml").read_text())
    assert {"storage_path": "mine.csv", "checksum": f"{algorithm}:{right}"} == document["mine"]
    assert "ok" == ask("verify", "mine").only["status"]


def test_the_checksum_of_a_folder_of_the_projects_own_is_checked_too(run_dm: RunDm, ask: Ask, project: Path) -> None:
    write_manifest(project)
    (project / "mine").mkdir()
    (project / "mine" / "a").write_bytes(b"a")
    (project / "mine" / "b").write_bytes(b"b")
    right = blake3(b"ab").hexdigest()  # the peers' digest of a folder: its contents one after another
    assert 4 == run_dm("add", "mine", "--checksum", f"blake3:{right[::-1]}").returncode
    assert 0 == run_dm("add", "mine", "--checksum", f"blake3:{right}").returncode
    assert "ok" == ask("verify", "mine").only["status"]


def test_what_stays_where_it_lies_is_not_extracted(run_dm: RunDm, project: Path) -> None:
    write_manifest(project)
    (project / "all.zip").write_bytes(b"PK")
    done = run_dm("add", "all.zip", "--extract")
    message = assert_one_error(done, 2)
    assert "--extract goes with a source that is fetched, and 'all.zip' stays where it lies" == message
    assert f"dm add --extract file://{project}/all.zip" in done.stderr


def test_a_word_that_is_no_source_does_not_hide_what_became_of_the_others(
    ask: Ask, project: Path, http_server: HttpServer
) -> None:
    write_manifest(project)
    answer = ask("add", http_server.put("/a.csv", "a"), "nothing.csv", http_server.put("/b.csv", "b"))
    assert [("a", "ok"), ("nothing.csv", "failed"), ("b", "ok")] == [
        (outcome["name"], outcome["status"]) for outcome in answer.outcomes
    ]
    assert (2, "source-unknown") == (answer.status, answer.outcomes[1]["code"])


@pytest.mark.parametrize("option", ["--dry-run", "--no-fetch"])
def test_a_place_that_is_taken_is_told_before_anything_is_declared(
    run_dm: RunDm, project: Path, http_server: HttpServer, option: str
) -> None:
    write_manifest(project)
    assert 0 == run_dm("add", http_server.put("/d.csv?id=1", "1"), "--name", "one").returncode
    before = (project / "datamanifest.toml").read_bytes()
    second = http_server.put("/d.csv?id=2", "2")
    done = run_dm("add", second, "--name", "two", option)
    assert "'two' and 'one' would land on each other at '127.0.0.1/d.csv'" == assert_one_error(done, 7)
    assert "hint: give it a place of its own with --key" == done.stderr.splitlines()[1]
    assert before == (project / "datamanifest.toml").read_bytes()
    assert 0 == run_dm("add", second, "--name", "two", "--key", "d/2.csv").returncode


def test_a_doi_is_noted_for_a_plain_address(run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer) -> None:
    write_manifest(project)
    assert 0 == run_dm("add", http_server.put("/a.csv", "a"), "--doi", "10.5066/F7AB12CD").returncode
    assert "unchanged" == ask("fetch", "https://doi.org/10.5066/f7ab12cd").only["status"]


def test_a_word_like_a_doi_is_one_and_a_path_is_written_as_such(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    write_manifest(project)
    (project / "10.5281").mkdir()
    (project / "10.5281" / "zenodo.1").write_text("a path")
    variables = {"DATAMANIFEST_ZENODO_URL": http_server.url, "DATAMANIFEST_HTTP_RETRIES": "0"}
    assert "Zenodo has no record '1'" in assert_one_error(run_dm("add", "10.5281/zenodo.1", env=variables), 5)
    assert 0 == run_dm("add", "./10.5281/zenodo.1", env=variables).returncode


def test_a_checksum_of_the_call_that_does_not_fit_is_told_as_that(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    manifest = write_manifest(project)
    before = manifest.read_text()
    done = run_dm("add", http_server.put("/a.csv", "1,2\n"), "--checksum", "md5:" + "0" * 32)
    hint = "hint: nothing was declared; if the source's content is right, correct --checksum or leave it out"
    assert (4, hint) == (done.returncode, done.stderr.splitlines()[-1])
    assert before == manifest.read_text()
