"""Config files: read with their lines, changed one setting at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dm.environment import Environment
from dm.errors import MachineFailed, Malformed, NotFound, Refused, UsageError
from dm.plumbing.records.config import ProjectFiles, read_config
from dm.plumbing.records.config_edit import (
    check_setting_name,
    edit_config,
    find_setting,
    parse_setting,
    plan_change,
    read_scope,
)
from dm.plumbing.records.toml import read_toml
from dm.plumbing.records.toml_edit import set_tables


def make_environment(home: Path) -> Environment:
    return Environment({"XDG_CONFIG_HOME": str(home / "config")}, home, home, "login1", 42)


def test_a_config_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_config(tmp_path / "no" / "config.toml").table == {}
    (tmp_path / "file").write_text("")
    assert read_config(tmp_path / "file" / "config.toml").table == {}


def test_a_config_file_is_read_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('# mine\ndata = "/d"\n[_HOST."a.b"]\n\ndata = "/e"\n')
    source = read_config(path)
    assert source.table == {"data": "/d", "_HOST": {"a.b": {"data": "/e"}}}
    assert source.find_line is not None
    assert [source.find_line((), "data"), source.find_line(("_HOST", "a.b"), "data")] == [2, 5]


@pytest.mark.parametrize("content", [b'data = "/d"\nscope = \n', b'data = "/d"\nscope = "\xff"\n'])
def test_a_malformed_config_file_is_told_with_its_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(Malformed) as caught:
        read_config(path)
    assert (caught.value.file, caught.value.line) == (path, 2)


def test_a_config_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(MachineFailed) as caught:
        read_config(tmp_path / "config.toml")
    assert caught.value.message == f"cannot read '{tmp_path}/config.toml': is a directory"


@pytest.mark.parametrize(
    ("files", "name", "origin"),
    [
        ({}, None, None),
        ({"pyproject.toml": '[project]\nname = "py"\n', "Project.toml": 'name = "Jl"\n'}, "py",
         "{root}/pyproject.toml:2 [project] name"),
        ({"pyproject.toml": "[tool.x]\n", "Project.toml": 'name = "Jl"\nuuid = "1-2"\n'}, "1-2",
         "{root}/Project.toml:2 uuid"),
        ({"Project.toml": 'name = "Jl"\n'}, "Jl", "{root}/Project.toml:1 name"),
        ({"pyproject.toml": "project = 1\n", "Project.toml": "name = 2\n"}, None, None),
    ],
)  # fmt: skip
def test_the_projects_own_files_name_it(
    tmp_path: Path, files: dict[str, str], name: str | None, origin: str | None
) -> None:
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    found = ProjectFiles(tmp_path)
    for file in files:
        (tmp_path / file).unlink()
    rung = found.find_name()
    assert (None if rung is None else rung.value) == name
    assert (None if rung is None else rung.origin) == (None if origin is None else origin.format(root=tmp_path))


def test_a_malformed_project_file_is_told_when_its_name_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project\n")
    found = ProjectFiles(tmp_path)
    with pytest.raises(Malformed) as caught:
        found.find_name()
    assert (caught.value.file, caught.value.line) == (tmp_path / "pyproject.toml", 1)


# Changing


def test_a_setting_is_changed_and_every_other_line_stays(tmp_path: Path) -> None:
    path = tmp_path / ".datamanifest" / "config.toml"
    path.parent.mkdir()
    text = '# mine\r\ndata = "/d"  # big disk\r\n\r\n[_HOST."a*"]\r\ndata = "/e"\r\nother = 1\r\n'
    path.write_bytes(text.encode())
    path.chmod(0o640)
    environment = make_environment(tmp_path)
    assert edit_config("local", tmp_path, environment, plan_change("data", "/new", host=None))
    assert path.read_bytes() == text.replace('"/d"', '"/new"').encode()
    assert edit_config("local", tmp_path, environment, plan_change("data", None, host="a*"))
    assert path.read_bytes() == text.replace('"/d"', '"/new"').replace('data = "/e"\r\n', "").encode()
    assert path.stat().st_mode & 0o777 == 0o640
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_the_first_setting_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    environment = make_environment(tmp_path)
    change = plan_change("scratch", "/s", host="login*")
    assert edit_config("global", None, environment, change)
    assert not edit_config("global", None, environment, change)
    assert edit_config("global", None, environment, plan_change("_SCOPE.datasets", "me", host=None))
    assert read_config(tmp_path / "config" / "datamanifest" / "config.toml").table == {
        "_HOST": {"login*": {"scratch": "/s"}},
        "_SCOPE": {"datasets": "me"},
    }
    assert edit_config("local", tmp_path, environment, plan_change("datasets_pools", [], host=None))
    assert (tmp_path / ".datamanifest" / "config.toml").read_text() == "datasets_pools = []\n"


def test_a_checkouts_config_that_is_a_link_out_of_the_project_is_not_written(tmp_path: Path) -> None:
    root, own = tmp_path / "project", tmp_path / "own.toml"
    (root / ".datamanifest").mkdir(parents=True)
    (root / ".datamanifest" / "config.toml").symlink_to(own)
    own.write_text("# mine\n")
    environment = Environment({"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path, root, "host", 1)
    with pytest.raises(Refused, match="is a link that leads out of the project, to "):
        edit_config("local", root, environment, plan_change("data", "/new", host=None))
    assert "# mine\n" == own.read_text()


def test_a_change_of_a_manifest_goes_to_its_storage_table() -> None:
    change = plan_change("data", "/d", host="a*", root=("_STORAGE",))
    change.update(plan_change("scope", "team", host=None, root=("_STORAGE",)))
    assert read_toml(set_tables("# top\n[x]\nuri = 'u'\n", change)) == {
        "x": {"uri": "u"},
        "_STORAGE": {"scope": "team", "_HOST": {"a*": {"data": "/d"}}},
    }


def test_a_malformed_file_is_not_edited(tmp_path: Path) -> None:
    path = tmp_path / ".datamanifest" / "config.toml"
    path.parent.mkdir()
    path.write_text("data = \n")
    with pytest.raises(Malformed) as caught:
        edit_config("local", tmp_path, make_environment(tmp_path), plan_change("data", "/d", host=None))
    assert (caught.value.file, caught.value.line) == (path, 1)
    assert path.read_text() == "data = \n"


def test_the_local_config_needs_a_project(tmp_path: Path) -> None:
    environment = make_environment(tmp_path)
    for attempt in (
        lambda: edit_config("local", None, environment, plan_change("data", "/d", host=None)),
        lambda: read_scope("local", None, environment),
    ):
        with pytest.raises(UsageError) as caught:
            attempt()
        assert (caught.value.message, caught.value.hint) == (
            "no project here, so no local config",
            "dm init, or --global",
        )


EDITOR = """
import sys
from pathlib import Path
from dm.environment import Environment
from dm.plumbing.records.config_edit import edit_config, plan_change
root, number = Path(sys.argv[1]), sys.argv[2]
environment = Environment({}, root, root, "h", 1)
for turn in range(3):
    edit_config("local", root, environment, plan_change(f"s{number}_{turn}", "/x", host=None))
"""


def test_eight_editors_at_once_lose_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    editors = [
        subprocess.Popen([sys.executable, "-c", EDITOR, str(tmp_path), str(number)], env=environment)
        for number in range(8)
    ]
    assert [editor.wait(timeout=300) for editor in editors] == [0] * 8
    table = read_config(tmp_path / ".datamanifest" / "config.toml").table
    assert set(table) == {f"s{number}_{turn}" for number in range(8) for turn in range(3)}


def test_what_one_file_says_is_found_by_name_and_host(tmp_path: Path) -> None:
    environment = make_environment(tmp_path)
    for host, value in ((None, "/d"), ("a*", "/e")):
        edit_config("global", None, environment, plan_change("data", value, host=host))
    source = read_scope("global", None, environment)
    assert [find_setting(source, "data", host).value for host in (None, "a*")] == ["/d", "/e"]
    with pytest.raises(NotFound) as caught:
        find_setting(source, "dat", None)
    assert (caught.value.message, caught.value.hint) == (f"'dat' is not set in '{source.path}'", "did you mean 'data'?")
    with pytest.raises(NotFound) as caught:
        find_setting(source, "scope", "a*")
    assert caught.value.message == f"'scope' is not set in _HOST.\"a*\" of '{source.path}'"
    assert caught.value.hint is None
    assert read_scope("local", tmp_path, environment).table == {}


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("dataset_dir", "unknown field 'dataset_dir'", "the nearest is 'datasets_dir'"),
        ("scop", "unknown field 'scop'", "the nearest is 'scope'"),
        ("_SCOPE.dataset", "unknown field '_SCOPE.dataset'", "the nearest is '_SCOPE.datasets'"),
        ("scratsh", "unknown field 'scratsh'", "the nearest is 'scratch'"),
        ("my folder", "unknown field 'my folder'", "a folder of your own has a name of letters, digits and '_'"),
        ("_HOST", "unknown field '_HOST'", "a folder of your own has a name of letters, digits and '_'"),
        ("key", "unknown field 'key'", "a folder of your own has a name of letters, digits and '_'"),
        ("9x", "unknown field '9x'", "a folder of your own has a name of letters, digits and '_'"),
        ("", "unknown field ''", "a folder of your own has a name of letters, digits and '_'"),
        ("a\n", "unknown field 'a\\n'", "a folder of your own has a name of letters, digits and '_'"),
    ],
)
def test_a_name_that_is_no_field_is_refused_with_the_nearest(name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_setting_name(name, "global", symbols=["scratch"])
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_fields_and_folders_of_ones_own_are_accepted() -> None:
    for name in ("data", "_SCOPE.cached", "_PREFIX.datasets", "lock_stale_age", "bigdisk", "scratch"):
        check_setting_name(name, "project", symbols=["scratch"])
    check_setting_name("ssh_command", "global")


@pytest.mark.parametrize("scope", ["local", "project"])
def test_a_personal_field_is_refused_where_it_would_not_be_read(scope: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_setting_name("ssh_command", scope)  # type: ignore[arg-type]
    assert caught.value.message == "'ssh_command' is read from the environment and the user's config only"
    assert caught.value.hint == "dm config set --global ssh_command …"


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("data", ["/d"], "/d"),
        ("bigdisk", ["$data/x"], "$data/x"),
        ("scope", [""], ""),
        ("canonical", ["yes"], True),
        ("lock_stale_age", ["60"], 60),
        ("lock_stale_age", ["0.5"], 0.5),
        ("jobs", ["4"], 4),
        ("archive_max_bytes", ["1048576"], 1048576),
        ("archive_max_bytes", ["1.5 GiB"], "1.5 GiB"),
        ("datasets_pools", [], []),
        ("datasets_pools", ["/a", "/b"], ["/a", "/b"]),
        ("link", ["reflink", "copy"], ["reflink", "copy"]),
    ],
)
def test_words_become_values_of_the_fields_type(name: str, words: list[str], value: object) -> None:
    assert parse_setting(name, words) == value
    assert type(parse_setting(name, words)) is type(value)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("data", ["a", "b"], "'data' takes one value, not 2"),
        ("data", [], "'data' takes one value, not 0"),
        ("data", [""], "'data' must be a string that is not empty, not ''"),
        ("jobs", ["many"], "'jobs' must be a whole number from 1, not 'many'"),
        ("link", ["symlink"], "'link' must be a list of 'reflink', 'hardlink', 'copy', not 'symlink'"),
        ("archive_max_bytes", ["5 parsecs"], "'archive_max_bytes' must be a number of bytes, or one with a unit as in"
         " '10GB', not '5 parsecs'"),
    ],
)  # fmt: skip
def test_words_that_are_no_value_are_refused(name: str, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_setting(name, words)
    assert caught.value.message == message
