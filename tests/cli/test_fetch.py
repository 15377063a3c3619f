"""``dm add``, ``dm fetch`` and ``dm rm`` where all goes well: what is there, what is recorded, what is asked for."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path

import pytest
from blake3 import blake3

from tests.fixtures.archives import FORMATS, make_archive, read_tree
from tests.fixtures.commands import (
    Ask,
    assert_one_error,
    default_copy,
    list_litter,
    snapshot,
    store_root,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

FILES = [("one.txt", b"1"), ("deep/two.txt", b"22"), ("deep/er/three.txt", b"")]


def read_toml(path: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads(path.read_text())


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_add_declares_fetches_and_pins(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    data = os.urandom(100_000)
    uri = http_server.put("/sub/sst.nc?id=7", data)
    write_manifest(project)
    answer = ask("add", uri, "--name", "sst")
    place = default_copy(home, "127.0.0.1/sub/sst.nc")
    digest = f"blake3:{blake3(data).hexdigest()}"
    expected = {"name": "sst", "status": "ok", "path": str(place), "state": "clean", "digest": digest, "bytes": 100_000}
    assert expected == answer.only
    assert data == place.read_bytes()
    assert b"" == place.with_name("sst.nc.complete").read_bytes()
    assert {"uri": uri, "checksum": f"sha256:{sha256_of(data)}"} == read_toml(project / "datamanifest.toml")["sst"]
    record = read_toml(project / ".datamanifest-state.toml")["datasets"]["127.0.0.1/sub/sst.nc"]
    assert {"storage_path": str(place), "sha256": sha256_of(data)} == record
    assert 0o444 == place.stat().st_mode & 0o777
    assert [] == list_litter(home, project)


def test_fetching_again_asks_for_nothing_and_changes_nothing(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    write_manifest(project, *(f'[d{n}]\nuri = "{http_server.put(f"/{n}.txt", str(n))}"\n' for n in range(5)))
    assert 0 == ask("fetch").status
    before = snapshot(project, home.data)
    http_server.forget_requests()
    answer = ask("fetch")
    assert ["unchanged"] * 5 == [each["status"] for each in answer.outcomes]
    assert 5 == run_dm("fetch").stdout.count("unchanged d")
    assert [] == http_server.requests
    assert before == snapshot(project, home.data)


def test_a_pinned_entry_is_not_rewritten_and_comments_stay(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "a")
    text = f"""# mine
[_META]
schema = 1

[_UNKNOWN.x]
y = [1,  2]

[open]  # this one is pinned by fetch
uri = "{uri}"   # odd   spacing
colour = "blue"

[pinned]
sha256 = "{sha256_of(b"b").upper()}"
uri = "{http_server.put("/b.txt", "b")}"
# the end
"""
    (project / "datamanifest.toml").write_text(text)
    assert 0 == run_dm("fetch").returncode
    after = (project / "datamanifest.toml").read_text()
    new = f'checksum = "sha256:{sha256_of(b"a")}"\n'
    assert 1 == after.count(new)
    assert text == after.replace(new, "")


@pytest.mark.parametrize("archive_format", FORMATS)
def test_an_archive_becomes_a_folder(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer, archive_format: str
) -> None:
    uri = http_server.put(f"/a.{archive_format}", make_archive(archive_format, FILES))
    write_manifest(project)
    answer = ask("add", uri, "--extract", "--name", "a")
    landing = "a" if archive_format in ("zip", "tar", "tar.gz") else f"a.{archive_format}.d"
    place = default_copy(home, "127.0.0.1") / landing
    assert (str(place), [landing]) == (answer.only["path"], os.listdir(place.parent))
    found = {name: content for name, (mode, content) in read_tree(place).items() if mode == "100644"}
    assert {**dict(FILES), ".complete": b""} == found
    contents = b"".join(data for _, data in [("one.txt", b"1"), ("deep/two.txt", b"22"), ("deep/er/three.txt", b"")])
    entry = read_toml(project / "datamanifest.toml")["a"]
    assert (f"sha256:{sha256_of(contents)}", answer.only["digest"]) == (entry["checksum"], entry["digest"])
    assert f"{answer.only['digest']}\n" == run_dm("hash-object", place).stdout
    assert [] == list_litter(home, project)
    assert "unchanged" == ask("fetch").only["status"]
    assert 1 == http_server.count(f"/a.{archive_format}")


def test_the_publishers_checksum_of_an_archive_is_held(ask: Ask, project: Path, http_server: HttpServer) -> None:
    data = make_archive("zip", FILES)
    uri = http_server.put("/a.zip", data)
    write_manifest(project)
    answer = ask("add", uri, "--extract", "--name", "a", "--checksum", f"sha256:{sha256_of(data)}")
    assert 0 == answer.status
    entry = read_toml(project / "datamanifest.toml")["a"]
    assert (f"sha256:{sha256_of(data)}", answer.only["digest"]) == (entry["checksum"], entry["digest"])
    assert (0, "clean") == (ask("verify", "a").status, ask("status", "a").only["state"])


def test_a_list_of_uris_becomes_one_folder(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    uris = [http_server.put(f"/set/{name}", name) for name in ("x/1.txt", "x/2.txt", "y.txt")]
    write_manifest(project, f"[many]\nuris = {uris}\n")
    answer = ask("fetch")
    place = default_copy(home, "127.0.0.1/set")
    assert (0, str(place)) == (answer.status, answer.only["path"])
    found = {name: content for name, (_, content) in read_tree(place).items() if content is not None}
    assert {"x/1.txt": b"x/1.txt", "x/2.txt": b"x/2.txt", "y.txt": b"y.txt", ".complete": b""} == found
    assert [] == list_litter(home, project)


def test_a_path_in_the_project_is_declared_where_it_lies(ask: Ask, project: Path, home: Home) -> None:
    write_manifest(project)
    (project / "data").mkdir()
    (project / "data" / "mine.csv").write_text("1,2\n")
    before = (project / "data" / "mine.csv").stat()
    answer = ask("add", "data/mine.csv")
    assert (0, str(project / "data/mine.csv")) == (answer.status, answer.only["path"])
    entry = read_toml(project / "datamanifest.toml")[answer.only["name"]]
    assert {"storage_path": "data/mine.csv", "checksum": f"sha256:{sha256_of(b'1,2' + bytes([10]))}"} == entry
    now = (project / "data" / "mine.csv").stat()
    assert (before.st_mode, before.st_mtime_ns, before.st_nlink) == (now.st_mode, now.st_mtime_ns, now.st_nlink)
    assert ["mine.csv"] == [path.name for path in (project / "data").iterdir()]
    assert not store_root(home).exists()
    name = answer.only["name"]
    assert (0, 0) == (ask("fetch").status, ask("verify", name).status)
    (project / "data" / "mine.csv").write_text("1,3\n")
    assert 4 == ask("verify", name).status
    assert "1,3\n" == (project / "data" / "mine.csv").read_text()


def test_a_path_outside_becomes_a_file_uri_with_a_note(
    run_dm: RunDm, project: Path, tmp_path: Path, home: Home
) -> None:
    write_manifest(project)
    source = tmp_path / "with blank.txt"
    source.write_text("user's own")
    source.chmod(0o664)
    done = run_dm("add", "../with blank.txt", "--name", "x")
    assert 0 == done.returncode and "bound to this machine" in done.stderr
    assert "file://" + str(source).replace(" ", "%20") == read_toml(project / "datamanifest.toml")["x"]["uri"]
    assert (0o664, 1) == (source.stat().st_mode & 0o777, source.stat().st_nlink)
    # The store's bytes are not the user's: a later edit of theirs is none of the copy.
    copy = Path(run_dm("path", "x").stdout.strip())
    source.write_text("edited")
    assert "user's own" == copy.read_text()


@pytest.mark.parametrize("source", ["nothing/here.txt", "."])
def test_what_cannot_be_declared_is_not(run_dm: RunDm, project: Path, source: str) -> None:
    path = write_manifest(project)
    before = path.read_bytes()
    done = run_dm("add", source)
    assert done.returncode in (2, 6)
    assert before == path.read_bytes()


def test_no_fetch_only_declares(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(project)
    assert 0 == ask("add", uri, "--no-fetch", "--name", "a", "--format", "csv").status
    assert {"uri": uri, "format": "csv"} == read_toml(project / "datamanifest.toml")["a"]
    assert [] == http_server.requests
    assert "missing" == ask("status", "a").only["state"]


def test_a_name_that_is_taken_is_not_taken_over(
    run_dm: RunDm, ask: Ask, project: Path, http_server: HttpServer
) -> None:
    first, second = http_server.put("/a.txt", "a"), http_server.put("/b.txt", "b")
    path = write_manifest(project)
    assert 0 == ask("add", first, "--name", "a").status
    before = path.read_bytes()
    assert "'a' is declared already" in assert_one_error(run_dm("add", first, "--name", "a"), 6)
    assert "the name 'a' stands for other data" in assert_one_error(run_dm("add", second, "--name", "a"), 6)
    assert f"choose another with --name for '{second}'" == ask("add", second, "--name", "a").only["hint"]
    assert before == path.read_bytes() and 0 == http_server.count("/b.txt")
    assert 0 == ask("add", second, "--name", "a", "--overwrite").status
    assert {"uri": second, "checksum": f"sha256:{sha256_of(b'b')}"} == read_toml(path)["a"]


def test_several_sources_are_all_tried(ask: Ask, project: Path, http_server: HttpServer) -> None:
    good, other = http_server.put("/good.txt", "good"), http_server.put("/other.txt", "other")
    path = write_manifest(project)
    answer = ask("add", good, f"{http_server.url}/gone.txt", other)
    assert (5, ["ok", "failed", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    assert {"_META", "good", "other"} == set(read_toml(path))


@pytest.mark.parametrize("delete", [False, True])
def test_rm_takes_the_entry_out_and_bytes_only_when_asked(
    ask: Ask, project: Path, home: Home, http_server: HttpServer, delete: bool
) -> None:
    path = write_manifest(project)
    before = path.read_text()
    place = Path(ask("add", http_server.put("/a.txt", "a"), "--name", "a").only["path"])
    whole = snapshot(project, home.data)
    options = ["--delete"] if delete else []
    assert 0 == ask("rm", "a", "--dry-run", *options).status
    assert whole == snapshot(project, home.data)
    assert 0 == ask("rm", "a", *options).status
    assert before.strip() == path.read_text().strip()
    assert {} == read_toml(project / ".datamanifest-state.toml").get("datasets", {})
    assert (not delete, not delete) == (place.exists(), place.with_name("a.txt.complete").exists())
    objects = [each for each in (store_root(home) / ".dm" / "objects").rglob("*") if each.is_file()]
    assert 1 == len(objects)
    assert 3 == ask("rm", "a").status


def test_rm_with_delete_keeps_what_another_entry_uses(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(project, f'[a]\nuri = "{uri}"\n', f'[b]\nuri = "{uri}"\n')
    ask("fetch")
    answer = ask("rm", "a", "--delete")
    assert 0 == answer.status and "'b' uses it" in answer.only["message"]
    assert "clean" == ask("status", "b").only["state"]


def test_rm_with_delete_of_an_entry_without_a_source_removes_nothing(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer
) -> None:
    write_manifest(
        project, '[empty]\ndescription = "nothing yet"\n', f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n'
    )
    assert 0 == run_dm("fetch", "a").returncode
    before = snapshot(home.data)
    run_dm("rm", "empty", "--delete")
    assert before == snapshot(home.data)


def test_dry_run_changes_nothing(ask: Ask, run_dm: RunDm, project: Path, home: Home, http_server: HttpServer) -> None:
    write_manifest(
        project,
        f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n',
        f'[b]\nuri = "{http_server.put("/b.txt", "b")}"\n',
    )
    ask("fetch", "a")
    (project / ".datamanifest-state.toml").unlink()
    before, requests = snapshot(project, home.data), len(http_server.requests)
    answer = ask("fetch", "--dry-run")
    assert (0, ["unchanged", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    assert "would be fetched" == answer.outcomes[1]["message"]
    assert "would be fetched" in run_dm("fetch", "--dry-run").stdout
    assert "would be fetched" == ask("fetch", "--dry-run", "--force", "a").only["message"]
    assert requests == len(http_server.requests)
    assert before == snapshot(project, home.data)


def test_fail_fast_stops_at_the_first_failure(ask: Ask, project: Path, http_server: HttpServer) -> None:
    tables = [f'[d{n}]\nuri = "{http_server.url}/gone{n}"\n' for n in range(6)]
    write_manifest(project, *tables)
    answer = ask("fetch", "--fail-fast", "--jobs", "1")
    assert 5 == answer.status
    assert "failed" == answer.outcomes[0]["status"]
    assert {"skipped"} == {each["status"] for each in answer.outcomes[3:]}
    assert {"not-tried"} == {each["code"] for each in answer.outcomes[3:]}
    assert len({request.path for request in http_server.requests}) < 4
    assert ["failed"] * 6 == [each["status"] for each in ask("fetch").outcomes]


def test_a_missing_checksum_is_filled_in_after_a_run_that_was_not_recorded(
    ask: Ask, project: Path, http_server: HttpServer
) -> None:
    text = f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n'
    path = write_manifest(project, text)
    before = path.read_bytes()
    ask("fetch")
    pinned = path.read_bytes()
    # As if the run had been killed between publishing and recording.
    path.write_bytes(before)
    (project / ".datamanifest-state.toml").unlink()
    assert "unchanged" == ask("fetch").only["status"]
    assert pinned == path.read_bytes()
    assert 1 == http_server.count("/a.txt")
    assert "clean" == ask("status").only["state"]


def test_html_for_another_format_is_warned_of(run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    write_manifest(project)
    uri = http_server.put_page("/login.nc")
    done = run_dm("add", uri, "--name", "login")
    assert "text/html" in done.stderr and "login" in done.stderr
    assert "warning" in done.stderr


def test_the_listing_of_a_folder_is_not_taken_for_the_file(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    path = write_manifest(project)
    before = path.read_bytes()
    uri = http_server.put_listing("/folder/")
    assert "folder" in assert_one_error(run_dm("add", uri, "--name", "x"), 5)
    assert before == path.read_bytes()


def test_skipped_datasets_are_told_and_left_alone(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(
        project,
        f'[mine]\nuri = "{uri}"\nskip_download = true\n',
        f'[lazy]\nuri = "{uri}#2"\nlazy_access = true\n',
    )
    for command in ("fetch", "verify", "status"):
        assert ["skipped"] * 2 == [each["status"] for each in ask(command).outcomes]
    assert [] == http_server.requests


def test_without_checksum_the_copy_stands_alone(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\nskip_checksum = true\n')
    place = Path(ask("fetch").only["path"])
    assert "a" == place.read_text()
    assert not (store_root(home) / ".dm" / "objects").exists() or not any(
        each.is_file() for each in (store_root(home) / ".dm" / "objects").rglob("*")
    )
    assert ("skipped", "skipped") == (ask("verify", "a").only["status"], ask("status", "a").only["state"])
    assert "unchanged" == ask("fetch").only["status"]
    assert "checksum" not in read_toml(project / "datamanifest.toml")["a"]


def test_nothing_to_fetch_from_is_exit_5(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nkey = "x/y"\n')
    assert "it has no 'uri', 'shell' or 'fetcher'" in assert_one_error(run_dm("fetch"), 5)


def test_an_unknown_scheme_is_never_skipped(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nuri = "gopher://example.com/a"\n')
    message = assert_one_error(run_dm("fetch"), 5)
    assert "gopher" in message


NAMES = ["with blank", "sla/sh", "dot.ted.name", "ünïcode ☃", "'quoted'", 'dou"ble', "new\nline", "-dash", "[x]", "a#b"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind(ask: Ask, run_dm: RunDm, project: Path, http_server: HttpServer, name: str) -> None:
    uri = http_server.put("/dir/a.txt", "a")
    write_manifest(project)
    assert (0, name) == (lambda answer: (answer.status, answer.only["name"]))(ask("add", uri, "--name", name))
    assert name in read_toml(project / "datamanifest.toml")
    assert 0 == ask("fetch", "--", name).status
    assert "clean" == ask("status", "--", name).only["state"]
    assert 0 == run_dm("verify", "--", name).returncode
    assert [name] == [each["name"] for each in ask("list").outcomes]
    assert 2 == len(run_dm("list").stdout.splitlines())
    assert 0 == run_dm("show", "--", name).returncode
    assert name in run_dm("resolve-name", "--", name).stdout
    assert 0 == ask("rm", "--", name).status
    assert {"_META"} == set(read_toml(project / "datamanifest.toml"))


@pytest.mark.parametrize("key", ["with blank/a b.txt", "ünï/☃.txt", "a.b.c/.hidden", "per%20cent", "q'u\"ote$(x)`y`;"])
def test_keys_of_any_kind(ask: Ask, project: Path, home: Home, http_server: HttpServer, key: str) -> None:
    uri = http_server.put("/a.txt", "a")
    quoted = key.replace('"', '\\"')
    write_manifest(project, f'[a]\nuri = "{uri}"\nkey = "{quoted}"\n')
    assert str(default_copy(home, key)) == ask("fetch").only["path"]
    assert "a" == default_copy(home, key).read_text()
    assert ("clean", 0) == (ask("status").only["state"], ask("verify", "a").status)


def test_an_archive_that_was_added_as_a_file_becomes_its_folder_when_it_is_declared_anew(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    data = make_archive("tar.gz", FILES)
    uri = http_server.put("/a.tar.gz", data)
    write_manifest(project)
    assert 0 == ask("add", uri, "--name", "a").status
    answer = ask("add", uri, "--name", "a", "--extract", "--overwrite")
    place = default_copy(home, "127.0.0.1/a")
    assert (0, str(place)) == (answer.status, answer.only["path"])
    assert place.is_dir()
    assert (0, "clean") == (ask("verify", "a").status, ask("status", "a").only["state"])


def test_an_archive_and_its_folder_are_two_datasets_though_they_have_one_key(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.tar.gz", make_archive("tar.gz", FILES))
    write_manifest(project)
    places = {"folder": str(default_copy(home, "127.0.0.1/a")), "file": str(default_copy(home, "127.0.0.1/a.tar.gz"))}
    for name, *words in (("folder", "--extract"), ("file",)):
        assert places[name] == ask("add", uri, "--name", name, *words).only["path"]
    for _ in range(2):
        answer = ask("fetch")
        assert places == {outcome["name"]: outcome["path"] for outcome in answer.outcomes}
        assert "" == answer.stderr.replace("2 datasets: 2 unchanged\n", "")
    assert ["clean", "clean"] == [outcome["state"] for outcome in ask("status").outcomes]


def test_the_archives_checksum_is_no_proof_for_the_archive_in_place_of_its_folder(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    data = make_archive("tar.gz", FILES)
    uri = http_server.put("/a.tar.gz", data)
    write_manifest(project)
    assert 0 == ask("add", uri, "--name", "a").status
    manifest = project / "datamanifest.toml"
    manifest.write_text(manifest.read_text() + "extract = true\n")
    answer = ask("fetch")
    assert (0, str(default_copy(home, "127.0.0.1/a"))) == (answer.status, answer.only["path"])


def test_a_folder_that_only_its_archive_can_prove_is_fetched_anew_and_stays(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    data = make_archive("tar.gz", FILES)
    uri = http_server.put("/a.tar.gz", data)
    write_manifest(project)
    assert 0 == ask("add", uri, "--name", "a", "--extract").status
    before = read_tree(default_copy(home, "127.0.0.1/a"))
    for entry, state in (("[a]", "unpinned"), ("[b]", "untracked")):  # as another project's it has no record here
        if state == "untracked":
            (project / ".datamanifest-state.toml").unlink()
        write_manifest(project, f'{entry}\nuri = "{uri}"\nextract = true\nchecksum = "sha256:{sha256_of(data)}"\n')
        told = ask("status").only
        name = told["name"]
        assert state == told["state"]
        assert f"dm fetch {name} holds it against its archive anew, dm pin {name} accepts what is there" == told["hint"]
        answer = ask("fetch", name)
        assert (0, "unchanged") == (answer.status, answer.only["status"])
        assert "clean" == ask("status").only["state"]
    assert before == read_tree(default_copy(home, "127.0.0.1/a"))


def test_the_way_out_of_a_place_that_is_taken_works_when_nothing_is_declared_yet(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.csv", b"1,2\n")
    write_manifest(project)
    place = default_copy(home, "127.0.0.1/a.csv")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"mine")
    answer = ask("add", uri)
    hint = "move it away, or dm fetch --force a puts it aside and fetches"
    assert (6, f"with --no-fetch it is declared all the same; then {hint}") == (answer.status, answer.only["hint"])
    assert 0 == ask("add", uri, "--no-fetch").status
    assert (0, b"1,2\n") == (ask("fetch", "--force", "a").status, place.read_bytes())
