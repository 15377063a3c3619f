"""Edits of a manifest's file: whole, one at a time, nothing lost."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from dm.errors import MachineFailed, Malformed, NotFound, Refused
from dm.plumbing.records.edit import EditOptions, edit_manifest
from dm.plumbing.records.manifest import Manifest

TEXT = '# mine\n[b]\nuri = "https://h/b"  # note\nsha256 = "{}"\n\n[a]\nuri = "https://h/a"\n'.format("1" * 64)
CHECKSUM = "sha256:" + "2" * 64


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "datamanifest.toml"
    path.write_text(TEXT)
    return path


def set_checksum(_manifest: Manifest) -> Mapping[str, Mapping[str, object] | None]:
    return {"a": {"checksum": CHECKSUM}}


def test_an_edit_writes_the_file_and_gives_the_manifest_as_it_then_is(manifest: Path) -> None:
    edited = edit_manifest(manifest, set_checksum)
    assert TEXT + f'checksum = "{CHECKSUM}"\n' == manifest.read_text()
    assert (CHECKSUM, manifest) == (str(edited.datasets["a"].checksum), edited.path)
    assert 8 == edited.find_line(("a",), "checksum")
    assert dict(Manifest.read(manifest).document) == dict(edited.document)


def test_the_older_spelling_goes_when_a_checksum_is_written(manifest: Path) -> None:
    edit_manifest(manifest, lambda _: {"b": {"checksum": CHECKSUM}})
    assert {"uri": "https://h/b", "checksum": CHECKSUM} == tomllib.loads(manifest.read_text())["b"]
    assert TEXT.replace('sha256 = "' + "1" * 64, f'checksum = "{CHECKSUM}') == manifest.read_text()


def test_a_replaced_entry_loses_the_fields_that_are_not_named(manifest: Path) -> None:
    edit_manifest(manifest, lambda _: {"b": {"uri": "https://h/c"}}, EditOptions(replace=True))
    assert {"uri": "https://h/c"} == tomllib.loads(manifest.read_text())["b"]
    assert manifest.read_text().startswith('# mine\n[b]\nuri = "https://h/c"  # note\n\n[a]\n')


def test_entries_are_added_and_removed(manifest: Path) -> None:
    edited = edit_manifest(manifest, lambda _: {"b": None, "c": {"uri": "https://h/c"}, "absent": None})
    assert ["a", "c"] == list(edited.datasets)
    assert '# mine\n\n[a]\nuri = "https://h/a"\n\n[c]\nuri = "https://h/c"\n' == manifest.read_text()


def test_nothing_is_written_when_nothing_changes(manifest: Path) -> None:
    before = manifest.stat()
    for changes in ({}, {"a": {"uri": "https://h/a"}}, {"absent": None}):
        edit_manifest(manifest, lambda _, changes=changes: changes)  # type: ignore[misc]
        edit_manifest(manifest, lambda _, changes=changes: changes, EditOptions(canonical=True))  # type: ignore[misc]
    after = manifest.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_canonical_edit_writes_the_whole_file_in_canonical_form(manifest: Path) -> None:
    edited = edit_manifest(manifest, set_checksum, EditOptions(canonical=True))
    lines = [
        "[a]",
        f'checksum = "{CHECKSUM}"',
        'uri = "https://h/a"',
        "",
        "[b]",
        f'sha256 = "{"1" * 64}"',
        'uri = "https://h/b"',
        "",
    ]
    assert "\n".join(lines) == manifest.read_text() == edited.text
    assert 3 == edited.find_line(("a",), "uri")


def test_the_checkouts_private_folder_ignores_itself(manifest: Path) -> None:
    edit_manifest(manifest, set_checksum)
    private = manifest.parent / ".datamanifest"
    assert {".gitignore", "manifest.lock"} == {entry.name for entry in private.iterdir()}
    assert "*\n" == (private / ".gitignore").read_text()
    assert {"datamanifest.toml", ".datamanifest"} == {entry.name for entry in manifest.parent.iterdir()}


def test_a_symlink_is_edited_where_it_points(manifest: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    link = project / "datamanifest.toml"
    link.symlink_to("../datamanifest.toml")
    edited = edit_manifest(link, set_checksum)
    assert ("../datamanifest.toml", link, project) == (os.readlink(link), edited.path, edited.project_root)
    assert CHECKSUM in manifest.read_text()
    assert ["datamanifest.toml"] == [entry.name for entry in project.iterdir()]


def test_mode_and_owner_are_kept(manifest: Path) -> None:
    manifest.chmod(0o640)
    owner = (12345, 12345) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(manifest, *owner)
    edit_manifest(manifest, set_checksum)
    status = manifest.stat()
    assert (0o640, *owner) == (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def test_a_read_only_manifest_is_not_replaced(manifest: Path) -> None:
    manifest.chmod(0o444)
    with pytest.raises(MachineFailed) as caught:
        edit_manifest(manifest, set_checksum)
    assert f"cannot write '{manifest}': it is read-only" == caught.value.message
    assert ("chmod u+w it, or ask its owner", 8) == (caught.value.hint, caught.value.exit_status)
    assert TEXT == manifest.read_text()


def test_a_missing_manifest_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        edit_manifest(tmp_path / "no.toml", set_checksum)
    assert f"no manifest '{tmp_path}/no.toml'" == caught.value.message
    assert [] == list(tmp_path.iterdir())


def test_an_edit_that_would_make_the_manifest_malformed_is_not_written(manifest: Path) -> None:
    with pytest.raises(Malformed) as caught:
        edit_manifest(manifest, lambda _: {"a": {"extract": "yes"}})
    assert f"{manifest}:8: dataset 'a': 'extract' must be true or false, not a string" == caught.value.message
    assert TEXT == manifest.read_text()


def test_a_change_may_refuse_and_nothing_is_written(manifest: Path) -> None:
    def change(_manifest: Manifest) -> Mapping[str, Mapping[str, object] | None]:
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        edit_manifest(manifest, change)
    assert TEXT == manifest.read_text()


def test_a_malformed_manifest_is_not_touched(manifest: Path) -> None:
    manifest.write_text("[a\n")
    with pytest.raises(Malformed):
        edit_manifest(manifest, set_checksum)
    assert "[a\n" == manifest.read_text()


def test_an_edit_is_made_again_on_what_a_peer_wrote_meanwhile(manifest: Path) -> None:
    """The peers take no lock: they rename a new file over the manifest while we are at work."""
    seen = []

    def change(before: Manifest) -> Mapping[str, Mapping[str, object] | None]:
        seen.append(list(before.datasets))
        if len(seen) < 3:
            staged = manifest.with_name("peer.tmp")
            staged.write_text(manifest.read_text() + f'\n[peer{len(seen)}]\nuri = "https://h/p{len(seen)}"\n')
            os.replace(staged, manifest)
        return {"ours": {"uri": "https://h/o"}}

    edited = edit_manifest(manifest, change)
    assert [["b", "a"], ["b", "a", "peer1"], ["b", "a", "peer1", "peer2"]] == seen
    expected = ["b", "a", "peer1", "peer2", "ours"]
    assert expected == list(edited.datasets) == list(tomllib.loads(manifest.read_text()))


def test_a_file_that_never_comes_to_rest_is_given_up(manifest: Path) -> None:
    count = 0

    def change(_before: Manifest) -> Mapping[str, Mapping[str, object] | None]:
        nonlocal count
        count += 1
        manifest.write_text(TEXT + f"# {count}\n")
        return {"ours": {"uri": "https://h/o"}}

    with pytest.raises(MachineFailed) as caught:
        edit_manifest(manifest, change)
    assert f"cannot write '{manifest}': another program keeps changing it" == caught.value.message
    assert TEXT + f"# {count}\n" == manifest.read_text()


def test_eight_processes_that_add_at_once_leave_eight_entries_each(manifest: Path) -> None:
    program = """
import sys
from pathlib import Path
from dm.plumbing.records.edit import edit_manifest
path, number = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
for turn in range(5):
    edit_manifest(path, lambda manifest: {f"d{number}-{turn}": {"uri": f"https://h/{number}/{turn}"}})
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(manifest), str(number)],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        )
        for number in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [0] * 8 == [process.wait(timeout=120) for process in processes]
    expected = {"a", "b", *(f"d{number}-{turn}" for number in range(8) for turn in range(5))}
    assert expected == set(tomllib.loads(manifest.read_text()))
    assert manifest.read_text().startswith(TEXT)
