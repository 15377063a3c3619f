"""Whose bytes are whose: a copy of another source is not handed out, a file of the user's is not taken over."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dm.plumbing.store.disk import DiskStore
from dm.plumbing.store.refs import Ref
from tests.fixtures.commands import Ask, StartDm, default_copy, snapshot, store_root, wait_for, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

ONE, TWO = b"one\n", b"two\n"


def _checksum(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _declare(project: Path, uri: str, *fields: str) -> None:
    write_manifest(project, f'[x]\nuri = "{uri}"\n' + "".join(f"{field}\n" for field in fields))


@pytest.fixture
def uris(http_server: HttpServer) -> tuple[str, str]:
    return http_server.put("/d.csv?id=1", ONE), http_server.put("/d.csv?id=2", TWO)


@pytest.mark.parametrize("field", ["", "skip_checksum = true"])
def test_a_source_that_was_changed_is_fetched_and_the_old_copy_is_not_handed_out(
    run_dm: RunDm, ask: Ask, project: Path, uris: tuple[str, str], field: str
) -> None:
    _declare(project, uris[0], field)
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[1], field)

    assert 3 == run_dm("path", "x").returncode
    assert 0 == ask("fetch").status
    assert TWO == Path(run_dm("path", "x").stdout.strip()).read_bytes()


def test_a_copy_that_was_recorded_for_an_older_checksum_is_not_handed_out(
    run_dm: RunDm, project: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0], f'checksum = "{_checksum(ONE)}"')
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[1], f'checksum = "{_checksum(TWO)}"')

    assert 3 == run_dm("path", "x").returncode
    assert 4 == run_dm("verify", "x").returncode


def test_verify_of_what_only_another_project_fetched_says_that_it_is_not_there(
    run_dm: RunDm, project: Path, tmp_path: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0])
    assert 0 == run_dm("fetch").returncode
    other = tmp_path / "other"
    other.mkdir()
    _declare(other, uris[1])

    assert 3 == run_dm("verify", "x", cwd=other).returncode


@pytest.mark.parametrize("inside", [True, False])
def test_a_file_that_the_user_managed_once_is_neither_marked_nor_deleted(
    run_dm: RunDm, project: Path, tmp_path: Path, uris: tuple[str, str], inside: bool
) -> None:
    mine = (project if inside else tmp_path) / "mine" / "d.csv"
    mine.parent.mkdir()
    mine.write_bytes(ONE)
    checksum = f'checksum = "{_checksum(ONE)}"'
    _declare(project, uris[0], f'local_path = "{mine}"', checksum)
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[0], checksum)
    before = snapshot(mine.parent)

    assert str(mine) == run_dm("path", "x").stdout.strip()
    assert 0 == run_dm("fetch").returncode
    removed = run_dm("rm", "--delete", "x")

    assert (0, True) == (removed.returncode, "stays" in removed.stdout)
    assert before == snapshot(mine.parent)
    assert not (project / ".dm").exists()


def test_a_state_that_names_a_stores_own_files_is_passed_over(
    run_dm: RunDm, home: Home, project: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0], f'checksum = "{_checksum(ONE)}"')
    assert 0 == run_dm("fetch").returncode
    copy = default_copy(home, "127.0.0.1/d.csv")
    state = project / ".datamanifest-state.toml"
    state.write_text(state.read_text().replace(str(copy), str(home.data / "datamanifest" / ".dm" / "format")))

    assert str(copy) == run_dm("path", "x").stdout.strip()
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("rm", "--delete", "x").returncode
    assert (home.data / "datamanifest" / ".dm" / "format").is_file()


def test_a_file_that_the_user_manages_shares_no_bytes_with_an_object(
    run_dm: RunDm, home: Home, project: Path, http_server: HttpServer, uris: tuple[str, str]
) -> None:
    checksum = f'checksum = "{_checksum(ONE)}"'
    elsewhere = http_server.put("/elsewhere.csv", ONE)
    _declare(project, uris[0], checksum, f'[y]\nuri = "{elsewhere}"\nstorage_path = "here/d.csv"\n{checksum}')
    assert 0 == run_dm("fetch", "x").returncode
    assert 0 == run_dm("fetch", "y").returncode
    own = project / "here" / "d.csv"

    assert 1 == own.stat().st_nlink
    own.chmod(0o644)
    own.write_bytes(TWO)
    assert ONE == default_copy(home, "127.0.0.1/d.csv").read_bytes()


def test_what_lies_at_an_untrusted_place_is_not_marked_there(
    run_dm: RunDm, project: Path, tmp_path: Path, uris: tuple[str, str]
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    (place / "d.csv").write_bytes(ONE)
    fields = (f'key = "d.csv"\nstorage_path = "{place}/$key"', f'checksum = "{_checksum(ONE)}"')
    _declare(project, uris[0], *fields)
    before = snapshot(place)

    assert 6 == run_dm("fetch").returncode
    assert before == snapshot(place)

    (place / "d.csv.complete").write_bytes(b"")
    before = snapshot(place)
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("verify").returncode
    assert 0 == run_dm("rm", "--delete", "x").returncode
    assert before == snapshot(place)


@pytest.mark.parametrize(
    "setting",
    [
        'datasets_dir = "{}"',
        'data = "{}"',
        'datacache_dir = "{}"',
        'default = "$x"\nx = "{}"',
        'y = "{}"\n\n[one]\nuri = "https://example.org/one.csv"\nstore = "$y"',
    ],
)
@pytest.mark.parametrize("command", [("dedup",), ("prune", "--grace", "0"), ("verify", "--all", "--repair")])
def test_stores_at_untrusted_places_are_left_as_they_are(
    ask: Ask, project: Path, tmp_path: Path, command: tuple[str, ...], setting: str
) -> None:
    outside = tmp_path / "outside"
    store = DiskStore(outside)
    store.put_blob(b"nobody names this")
    for name in ("a", "b"):
        (outside / "datasets").mkdir(exist_ok=True)
        (outside / "datasets" / name).write_bytes(ONE)
        (outside / "datasets" / f"{name}.complete").touch()
    write_manifest(project, f"[_STORAGE]\n{setting.format(outside)}\n")
    before = snapshot(outside)

    answer = ask(*command)

    refused = [each for each in answer.outcomes if each["name"] == str(outside)]
    assert (6, ["place-untrusted"]) == (answer.status, [each["code"] for each in refused]), answer.stderr
    assert before == snapshot(outside)
    assert 0 == ask(*command, "--root", outside).status


def test_repair_reads_a_store_at_an_untrusted_place_and_leaves_it_as_it_is(
    ask: Ask, home: Home, project: Path, tmp_path: Path, uris: tuple[str, str]
) -> None:
    outside = tmp_path / "outside"
    write_manifest(project, f'[_STORAGE]\ncache = "{outside}"\n\n[x]\nuri = "{uris[0]}"\n')
    assert 0 == ask("fetch").status
    copy = default_copy(home, "127.0.0.1/d.csv")
    digest = DiskStore(outside).ingest(copy, write=False).digest
    # What is a hard link to the damaged object lies outside too.
    other = DiskStore(outside)
    other.put_blob(ONE)
    (outside / "b").hardlink_to(copy)
    other.write_ref("b", Ref(digest, len(ONE), 1))
    copy.chmod(0o644)
    copy.write_bytes(TWO)
    before = snapshot(outside)

    answer = ask("verify", "--repair", "x")

    assert (0, ["mended"]) == (answer.status, [each["code"] for each in answer.outcomes]), answer.stderr
    assert (ONE, before) == (copy.read_bytes(), snapshot(outside))


def test_an_alias_that_names_another_object_leads_to_no_wrong_bytes(
    run_dm: RunDm, home: Home, project: Path, tmp_path: Path, http_server: HttpServer, uris: tuple[str, str]
) -> None:
    checksum = f'checksum = "{_checksum(ONE)}"'
    _declare(project, uris[0], checksum, f'[y]\nuri = "{http_server.put("/e.csv", TWO)}"')
    assert 0 == run_dm("fetch").returncode
    aliases = home.data / "datamanifest" / ".dm" / "aliases" / "sha256"
    right, wrong = (
        aliases / digest[:2] / digest[2:]
        for digest in (hashlib.sha256(ONE).hexdigest(), hashlib.sha256(TWO).hexdigest())
    )
    right.chmod(0o644)
    right.write_bytes(wrong.read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    write_manifest(other, f'[z]\nuri = "{uris[0]}"\nkey = "elsewhere.csv"\n{checksum}\n')

    fetched = run_dm("fetch", cwd=other)

    assert (0, ONE) == (fetched.returncode, Path(run_dm("path", "z", cwd=other).stdout.strip()).read_bytes())
    assert "looking further" in fetched.stderr
    assert 0 == run_dm("verify").returncode
    default_copy(home, "127.0.0.1/d.csv").unlink()
    default_copy(home, "127.0.0.1/d.csv").write_bytes(TWO)
    assert 4 == run_dm("verify", "x").returncode


def test_an_object_that_this_user_fetched_is_not_read_to_be_linked_elsewhere(
    run_dm: RunDm, home: Home, project: Path, uris: tuple[str, str]
) -> None:
    checksum = f'checksum = "{_checksum(ONE)}"'
    _declare(project, uris[0], checksum)
    assert 0 == run_dm("fetch").returncode
    _declare(project, uris[0], 'scope = "two"', checksum)
    (default_copy(home, "127.0.0.1/d.csv")).unlink()

    done = run_dm("fetch", "--json")

    assert (0, True) == (done.returncode, '"message": "linked"' in done.stdout)


def test_a_link_that_leads_nowhere_is_told_and_put_aside_when_asked(
    run_dm: RunDm, ask: Ask, home: Home, project: Path, uris: tuple[str, str]
) -> None:
    _declare(project, uris[0], f'checksum = "{_checksum(ONE)}"')
    copy = default_copy(home, "127.0.0.1/d.csv")
    copy.parent.mkdir(parents=True)
    copy.symlink_to(home.path / "nowhere")

    assert "partial" == ask("status").only["state"]
    assert 6 == run_dm("fetch").returncode
    assert 0 == run_dm("fetch", "--force").returncode
    assert ONE == copy.read_bytes()


@pytest.mark.parametrize("name", ["a$key.csv", "$data", "${x.csv"])
def test_a_file_whose_name_a_manifest_would_expand_is_refused(run_dm: RunDm, project: Path, name: str) -> None:
    manifest = write_manifest(project)
    before = manifest.read_bytes()
    (project / name).write_bytes(ONE)

    refused = run_dm("add", name)

    assert (6, True) == (refused.returncode, f"cannot add '{name}'" in refused.stderr)
    assert before == manifest.read_bytes()


def test_a_file_whose_name_begins_with_a_tilde_is_declared_where_it_lies(run_dm: RunDm, project: Path) -> None:
    write_manifest(project)
    (project / "~x.csv").write_bytes(ONE)

    assert 0 == run_dm("add", "~x.csv", "--name", "x").returncode
    assert str(project / "~x.csv") == run_dm("path", "x").stdout.strip()


def test_two_fetches_to_a_place_of_the_users_ask_once(
    start_dm: StartDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/slow.bin", bytes(400_000), bytes_per_s=800_000)
    _declare(project, uri, 'storage_path = "here/slow.bin"')
    both = [start_dm("fetch"), start_dm("fetch")]

    assert [0, 0] == [wait_for(each)[0] for each in both]
    assert 1 == http_server.count("/slow.bin")
    assert ["slow.bin"] == [path.name for path in (project / "here").iterdir()]


def test_objects_are_not_stored_where_only_a_manifest_says(run_dm: RunDm, project: Path, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    manifest = write_manifest(project, f'[_STORAGE]\ndatasets_dir = "{place}"\n')

    assert 6 == run_dm("hash-object", "-w", manifest).returncode
    assert not place.exists()
    assert 0 == run_dm("hash-object", "-w", "--root", place, manifest).returncode


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_closed_standard_stream_is_no_failure(home: Home, project: Path, uris: tuple[str, str], stream: int) -> None:
    _declare(project, uris[0])
    command = f"exec {sys.executable} -m dm fetch {stream}>&-"

    done = subprocess.run(["sh", "-c", command], cwd=project, env=home.variables(), capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
    assert ONE == default_copy(home, "127.0.0.1/d.csv").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_results_that_cannot_be_written_are_one_error(home: Home, project: Path, uris: tuple[str, str]) -> None:
    _declare(project, uris[0])
    command = [sys.executable, "-m", "dm", "list"]

    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command, cwd=project, env=home.variables(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert (8, "dm: error: cannot write the results: No space left on device\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize("place", [".", "..", "datamanifest.toml"])
def test_force_never_puts_the_project_itself_aside(
    run_dm: RunDm, project: Path, uris: tuple[str, str], place: str
) -> None:
    _declare(project, uris[0], f'storage_path = "$repo/{place}"', f'checksum = "{_checksum(ONE)}"')
    manifest = (project / "datamanifest.toml").read_bytes()

    refused = run_dm("fetch", "--force")

    assert 6 == refused.returncode, refused.stderr
    assert manifest == (project / "datamanifest.toml").read_bytes()


def test_a_copy_in_the_own_scope_is_told_to_stay_there(
    tmp_path: Path, run_dm: RunDm, http_server: HttpServer
) -> None:
    first, second = (http_server.put("/x.txt?id=1", b"one"), http_server.put("/x.txt?id=2", b"two"))
    for name, uri in (("one", first), ("two", second)):
        (tmp_path / name).mkdir()
        assert 0 == run_dm("init", cwd=tmp_path / name).returncode
        assert 0 == run_dm("add", uri, "--name", "x", cwd=tmp_path / name).returncode
    told = run_dm("status", "x", cwd=tmp_path / "two").stdout
    assert "relocated" in told
    [scope] = re.findall('other bytes lie at its location; (scope = ".*") in its entry makes this the location', told)
    manifest = tmp_path / "two" / "datamanifest.toml"
    manifest.write_text(manifest.read_text().replace("[x]\n", f"[x]\n{scope}\n"))
    assert 0 == run_dm("status", "--exit-code", "x", cwd=tmp_path / "two").returncode


def test_a_private_folder_that_leads_out_of_the_project_is_not_written_to(
    tmp_path: Path, run_dm: RunDm, project: Path, uris: tuple[str, str]
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    _declare(project, uris[0])
    (project / ".datamanifest").symlink_to(outside)

    refused = run_dm("fetch")

    assert 6 == refused.returncode, refused.stderr
    assert "is a link that leads out of the project" in refused.stderr
    assert [] == list(outside.iterdir())


@pytest.mark.parametrize("fields", [[], ["skip_checksum = true"]])
@pytest.mark.parametrize("place", [None, "data/x", "data/$key/here"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_force_leaves_a_copy_that_is_what_the_source_gives(
    ask: Ask, home: Home, project: Path, tmp_path: Path, kind: str, place: str | None, fields: list[str]
) -> None:
    source = tmp_path / "source" / "x"
    (source / "sub" if kind == "folder" else source.parent).mkdir(parents=True)
    (source / "sub" / "a" if kind == "folder" else source).write_bytes(ONE)
    fields = [*fields, *([] if place is None else [f'storage_path = "{place}"'])]
    _declare(project, source.as_uri(), *fields)
    assert 0 == ask("fetch").status
    before = snapshot(project / "data", home.data / "datamanifest" / "datasets")

    forced = ask("fetch", "--force")

    assert (0, "unchanged", len(ONE)) == (forced.status, forced.only["status"], forced.only["bytes"]), forced.stderr
    assert before == snapshot(project / "data", home.data / "datamanifest" / "datasets")
    assert ("digest" in forced.only) == (not any("skip_checksum" in field for field in fields))
    assert ask("status").only["state"] == ("skipped" if "skip_checksum = true" in fields else "clean")


@pytest.mark.parametrize("words", [["fetch"], ["fetch", "--force", "x"]])
def test_a_folder_in_which_other_copies_lie_never_makes_room(
    run_dm: RunDm, ask: Ask, project: Path, home: Home, uris: tuple[str, str], tmp_path: Path, words: list[str]
) -> None:
    _declare(project, uris[0])
    assert 0 == run_dm("fetch").returncode
    other = tmp_path / "other"
    other.mkdir()
    _declare(other, uris[1], 'key = "127.0.0.1"')
    before = snapshot(home.data)
    answer = ask("-C", other, *words)
    assert (6, "nested-copies") == (answer.status, answer.only["code"])
    hint = "one copy cannot lie inside another; set a 'key' of its own for one of them"
    assert hint == answer.only["hint"]
    assert before == snapshot(home.data)
    assert "clean" == ask("status").only["state"]
    _declare(other, uris[1], 'key = "127.0.0.2"')
    assert 0 == ask("-C", other, *words).status


@pytest.mark.parametrize("extra", [(), ("--force",)])
def test_what_has_the_name_of_a_marker_and_is_none_is_kept_beside_a_copy_in_no_store_too(
    run_dm: RunDm, project: Path, uris: tuple[str, str], extra: tuple[str, ...]
) -> None:
    _declare(project, uris[0], 'key = "d.csv"', 'storage_path = "alone/my_$key"')
    copy = project / "alone" / "my_d.csv"
    copy.parent.mkdir()
    if extra:
        copy.write_bytes(TWO)
    mine = copy.with_name(f"{copy.name}.complete")
    mine.write_text("not done yet")

    done = run_dm("fetch", *extra)
    assert 6 == done.returncode and str(mine) in done.stderr
    assert ("not done yet", TWO if extra else None) == (mine.read_text(), copy.read_bytes() if copy.exists() else None)





def test_a_store_of_a_later_format_does_not_stop_what_lies_in_others(
    ask: Ask, project: Path, home: Home, uris: tuple[str, str]
) -> None:
    write_manifest(project, f'[a]\nuri = "{uris[0]}"\nkey = "a"\n[b]\nuri = "{uris[1]}"\nkey = "b"\nstore = "$cache"\n')
    assert 0 == ask("fetch").status
    theirs, ours = store_root(home), home.cache / "datamanifest"
    (theirs / ".dm" / "format").write_text("dm store 2\n")

    answer = ask("verify", "--all")
    told = {each["name"]: (each["status"], each.get("code")) for each in answer.outcomes}
    refused, fine = ("failed", "store-format"), ("ok", None)
    expected = {"a": refused, "b": fine, str(theirs): refused, str(ours): fine, "datasets/b": fine}
    assert (7, expected) == (answer.status, told)
    assert str(theirs) in answer.stderr

    (ours / "datasets" / "b").unlink()
    assert 0 == ask("verify", "--repair", "b").status
    assert TWO == (ours / "datasets" / "b").read_bytes()
    with (project / "datamanifest.toml").open("a") as manifest:
        manifest.write(f'[c]\nuri = "{uris[0]}"\nkey = "c"\nstore = "$cache"\nchecksum = "{_checksum(ONE)}"\n')
    assert 0 == ask("fetch", "c").status
    findings = {each["topic"]: each["verdict"] for each in ask("doctor").document["findings"]}
    assert ("problem", "ok") == (findings[f"store {theirs}"], findings[f"store {ours}"])
