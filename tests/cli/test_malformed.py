"""Documents that are malformed: one clear line with file and line, exit 7, for every command that opens a project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.fixtures.commands import Ask, assert_one_error, snapshot, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

#: Every command that opens a project; the names are of a dataset that may or may not be there.
COMMANDS = [
    ["status"], ["fetch"], ["fetch", "a"], ["verify"], ["list"], ["path", "a"], ["show", "a"], ["rm", "a"],
    ["add", "https://example.invalid/x"], ["resolve-name", "a"], ["resolve-path", "a"], ["resolve-config"],
    ["read-manifest"], ["read-state"], ["write-state"], ["list-objects"], ["count-objects"], ["list-refs"],
    ["config", "list"], ["config", "get", "scope"], ["doctor"], ["hash-object", "-w", "datamanifest.toml"],
]  # fmt: skip


class Broken(NamedTuple):
    """A manifest or config file that is wrong, and what the error says."""

    text: str
    line: int
    says: str
    #: config files: which one
    config: str = ""


BROKEN = {
    "malformed": Broken('[_META]\nschema = 1\n[a\nuri = "x"\n', 3, ""),
    "twice": Broken('[a]\nuri = "https://e.x/a"\n\n[a]\nuri = "https://e.x/b"\n', 4, ""),
    "unclosed": Broken('[a]\nuri = "https://e.x/a\n', 2, ""),
    "stray key": Broken('colour = "blue"\n[a]\nuri = "https://e.x/a"\n', 1, "'colour'"),
    "schema 99": Broken('[_META]\nschema = 99\n', 2, "99"),
    "schema text": Broken('[_META]\nschema = "1"\n', 2, "schema"),
    "uri number": Broken('[_META]\nschema = 1\n[a]\nuri = 5\n', 4, "uri"),
    "uris text": Broken('[a]\nuris = "x"\n', 2, "uris"),
    "extract text": Broken('[a]\nuri = "https://e.x/a.zip"\n\nextract = "yes"\n', 4, "extract"),
    "both": Broken('[a]\nuri = "https://e.x/a"\nuris = ["https://e.x/b"]\n', 3, "uri"),
    "checksum": Broken('[a]\nuri = "https://e.x/a"\nchecksum = "sha256:12"\n', 3, "sha256:12"),
    "algorithm": Broken('[a]\nuri = "https://e.x/a"\nchecksum = "crc32:12345678"\n', 3, "crc32"),
    "digest": Broken('[a]\nuri = "https://e.x/a"\ndigest = "sha256:' + "0" * 64 + '"\n', 3, "digest"),
    "store and storage_path": Broken('[a]\nuri = "https://e.x/a"\nstore = "$data"\nstorage_path = "x/$key"\n', 3, "st"),
    "bare store": Broken('[a]\nuri = "https://e.x/a"\nstore = "data"\n', 3, "$data"),
    "config malformed": Broken('scope = "x"\nbig = [1,\n', 2, "", "user"),
    "config local malformed": Broken('scope == "x"\n', 1, "", "local"),
}  # fmt: skip


def put(broken: Broken, project: Path, home: Home) -> Path:
    if not broken.config:
        path = project / "datamanifest.toml"
    else:
        write_manifest(project, '[a]\nuri = "https://e.x/a"\n')
        path = (home.config / "datamanifest" if broken.config == "user" else project / ".datamanifest") / "config.toml"
        path.parent.mkdir()
    path.write_text(broken.text)
    return path


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named_with_file_and_line(run_dm: RunDm, project: Path, home: Home, name: str) -> None:
    broken = BROKEN[name]
    path = put(broken, project, home)
    before = snapshot(project, home.path)
    done = run_dm("status")
    message = assert_one_error(done, 7)
    assert message.startswith(f"{path}:{broken.line}: "), message
    assert broken.says in done.stderr
    assert before == snapshot(project, home.path)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", ["malformed", "schema 99", "config malformed"])
def test_every_command_says_the_same(run_dm: RunDm, project: Path, home: Home, name: str, command: list[str]) -> None:
    broken = BROKEN[name]
    path = put(broken, project, home)
    before = snapshot(project, home.path)
    assert assert_one_error(run_dm(*command), 7).startswith(f"{path}:{broken.line}: ")
    assert before == snapshot(project, home.path)


def test_a_malformed_document_is_a_document_of_ours_too(ask: Ask, project: Path, home: Home) -> None:
    path = put(BROKEN["malformed"], project, home)
    answer = ask("fetch")
    assert (7, []) == (answer.status, answer.outcomes)
    assert answer.document["error"]["message"].startswith(f"{path}:3: ")


@pytest.mark.parametrize("field", ["storage_path", "store"])
def test_an_undefined_symbol_is_named_with_where_it_was_used(
    run_dm: RunDm, project: Path, http_server: HttpServer, field: str
) -> None:
    uri = http_server.put("/a.txt", "a")
    value = "$nowhere/$key" if field == "storage_path" else "$nowhere"
    path = write_manifest(project, f'[a]\nuri = "{uri}"\n\n{field} = "{value}"\n')
    for command in ("fetch", "status", "path", "resolve-path"):
        done = run_dm(command, "a")
        message = assert_one_error(done, 7)
        assert "$nowhere" in message and field in message, message
        assert f"{path}:7: " in message, message
    assert 0 == http_server.count("/a.txt")
    assert ["datamanifest.toml"] == os.listdir(project)
    assert 0 == run_dm("list").returncode


def test_a_symbol_that_reaches_itself_is_an_error(run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    path = write_manifest(
        project, '[_STORAGE]\none = "$two/x"\ntwo = "$one/y"\n', f'[a]\nuri = "{uri}"\nstore = "$one"\n'
    )
    message = assert_one_error(run_dm("fetch"), 7)
    assert "one" in message and "two" in message and str(path) in message, message
    assert 0 == http_server.count("/a.txt")


def test_a_setting_of_the_wrong_type_is_named_with_its_file(ask: Ask, project: Path, home: Home) -> None:
    path = home.config / "datamanifest" / "config.toml"
    path.parent.mkdir()
    path.write_text("# mine\nscope = 5\n")
    write_manifest(project, '[a]\nuri = "https://e.x/a"\n')
    for command in ("status", "fetch", "path"):
        answer = ask(command, "a")
        told = answer.only if answer.outcomes else answer.document["error"]
        assert 7 == answer.status
        assert told["message"].startswith(f"{path}:2: ") and "scope" in told["message"], told


def test_one_bad_entry_does_not_stop_the_others(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(project, f'[bad]\nuri = "{uri}"\nkey = "x"\nstore = "$nowhere"\n', f'[good]\nuri = "{uri}"\n')
    for command in ("fetch", "status", "verify"):
        answer = ask(command)
        assert (7, ["failed", "ok"]) == (
            answer.status,
            ["failed" if each["status"] == "failed" else "ok" for each in answer.outcomes],
        )


def test_malformed_state_is_dropped_not_believed(ask: Ask, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", "a")}"\n')
    (project / ".datamanifest-state.toml").write_text('[datasets."127.0.0.1/a.txt"]\nstorage_path = 5\n')
    assert "missing" == ask("status").only["state"]
    assert 0 == ask("fetch").status
    assert "clean" == ask("status").only["state"]


def test_validate_reports_file_line_field_and_the_nearest_name(run_dm: RunDm, ask: Ask, project: Path) -> None:
    path = write_manifest(project, '[a]\nuri = "https://e.x/a"\nchecksun = "x"\n', "[b]\nuri = 5\n")
    done = run_dm("validate")
    assert (1, "") == (done.returncode, done.stderr)
    assert any(line.startswith(f"{path}:6: ") and "checksun" in line and "checksum" in line
               for line in done.stdout.splitlines()), done.stdout  # fmt: skip
    assert any(line.startswith(f"{path}:9: ") for line in done.stdout.splitlines()), done.stdout
    answer = ask("validate")
    assert 1 == answer.status
    assert {"file", "line", "field", "message", "hint"} == set(answer.document["findings"][0])
    write_manifest(
        project,
        '[a]\nkey = "a"\nrequires = ["b", "c"]\nshell = "true"\nchecksun = "x"\n',
        "[b]\nkey = \"b\"\nrequires = [\"a\"]\nshell = \"sh -c 'x\"\n",
        '[d]\nrequires = ["a"]\n',
    )
    done = run_dm("validate")
    assert [
        "6: 'a.requires': 'requires' goes round in a circle: a -> b -> a",
        "6: 'a.requires': cannot follow 'requires': no dataset 'c'",
        "8: 'a.checksun': 'checksun' is not a known name; the nearest is 'checksum'",
        "12: 'b.requires': 'requires' goes round in a circle: b -> a -> b",
        "13: 'b.shell': cannot read 'shell': no closing quotation",
        "15: 'd': it has no key, and no 'uri' to derive one from",
    ] == [line.removeprefix(f"{path}:").partition(" (")[0] for line in done.stdout.splitlines()]
    path.write_text("[a\n")
    done = run_dm("validate")
    assert 1 == done.returncode and done.stdout.startswith(f"{path}:1: ")
    write_manifest(project, '[a]\nuri = "https://e.x/a"\n')
    assert (0, []) == (run_dm("validate").returncode, ask("validate").document["findings"])
    assert 3 == run_dm("validate", "gone/datamanifest.toml").returncode
