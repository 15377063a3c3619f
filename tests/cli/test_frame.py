"""What every command shares: options before it, exits, the split of stdout and stderr, the JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.commands import Ask, assert_one_error, default_copy, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer


def test_version_is_one_line(run_dm: RunDm) -> None:
    done = run_dm("--version")
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("dm ") and 1 == done.stdout.count("\n")


def test_help_lists_the_two_layers_apart(run_dm: RunDm) -> None:
    done = run_dm("--help")
    assert 0 == done.returncode
    porcelain, _, plumbing = done.stdout.partition("Plumbing")
    assert "Porcelain" in porcelain
    assert "  fetch " in porcelain and "  fetch-uri " in plumbing and "  fetch-uri " not in porcelain


def test_every_command_has_help(run_dm: RunDm) -> None:
    listed = run_dm("--help").stdout.partition("Porcelain")[2].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and not line.startswith("   ")]
    assert len(names) > 25
    for name in ("fetch", "config", "write-state"):
        assert name in names
        done = run_dm(name, "--help")
        assert (0, "") == (done.returncode, done.stderr)
        assert done.stdout.startswith("Usage: dm")


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["fetsh"], "there is no command 'fetsh'", "did you mean fetch"),
        (["remove", "a"], "there is no command 'remove'", "did you mean rm or delete or prune?"),
        (["fetch", "--jbos", "2"], "no such option '--jbos'", "dm fetch --help"),
        (["fetch", "--jobs", "many"], "'many' is not a valid integer", "dm fetch --help"),
        (["fetch", "--jobs", "0"], "0 is not in the range 1<=x<=256", "dm fetch --help"),
        (["--force", "fetch"], "no such option '--force'", "the options of a command stand after it"),
        (["--versoin"], "'--version'", "the options of a command stand after it"),
        (["path"], "missing argument 'NAME'", "dm path --help"),
        (["add"], "missing argument", "dm add --help"),
        (["-C", "nowhere", "status"], "cannot change to 'nowhere': No such file or directory", None),
        (["--color", "loud", "status"], "'loud' is not one of", "dm --help"),
        (["hash-object"], "give either paths, --stdin or --stdin-paths", "dm hash-object --help"),
        (["add", "--name", "x", "a", "b"], "--name goes with one source, not with 2", None),
        (["update-ref", "x", "-d", "y"], "give DIGEST and PATH", "dm update-ref --help"),
    ],
)
def test_wrong_usage_is_exit_2_in_one_line(run_dm: RunDm, arguments: list[str], error: str, hint: str | None) -> None:
    done = run_dm(*arguments)
    assert error in assert_one_error(done, 2)
    if hint is not None:
        assert f"hint: {hint}" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["fetch", "--jbos", "--json"], ["-C", "nowhere", "status", "--json"], ["path", "--json"]],
)
def test_wrong_usage_is_a_document_too(run_dm: RunDm, arguments: list[str]) -> None:
    done = run_dm(*arguments)
    document = json.loads(done.stdout)
    assert (2, 2, "usage") == (done.returncode, document["exit"], document["error"]["code"])
    assert [] == document["outcomes"]
    assert document["error"]["message"] in done.stderr


def test_no_manifest_is_exit_3_and_says_how_to_start(run_dm: RunDm, project: Path) -> None:
    done = run_dm("status")
    assert f"no manifest in '{project}' or above it" == assert_one_error(done, 3)
    assert "hint: dm init" in done.stderr


def test_no_manifest_is_a_document_too(ask: Ask) -> None:
    answer = ask("fetch")
    assert 3 == answer.status
    assert {"code", "message", "hint"} == set(answer.document["error"])
    assert ("fetch", "manifest-missing") == (answer.document["command"], answer.document["error"]["code"])


def test_results_go_to_stdout_and_all_else_to_stderr(run_dm: RunDm, http_server: HttpServer, project: Path) -> None:
    good, bad = http_server.put("/good.txt", "good"), http_server.url + "/bad.txt"
    write_manifest(project, f'[good]\nuri = "{good}"\n', f'[bad]\nuri = "{bad}"\n')
    done = run_dm("fetch")
    assert 5 == done.returncode
    assert 1 == done.stdout.count("\n") and done.stdout.startswith("ok        good (4 B) -> ")
    assert "dm: error: 'bad': " in done.stderr or "dm: error: cannot" in done.stderr
    assert "2 datasets: 1 ok, 1 failed" in done.stderr and "failed: bad" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_quiet_leaves_results_and_errors(run_dm: RunDm, http_server: HttpServer, project: Path) -> None:
    good, bad = http_server.put("/good.txt", "good"), http_server.url + "/bad.txt"
    write_manifest(project, f'[good]\nuri = "{good}"\n', f'[bad]\nuri = "{bad}"\n')
    done = run_dm("-q", "fetch")
    assert 1 == done.stdout.count("\n")
    assert all(line.startswith(("dm: error: ", "hint: ")) for line in done.stderr.splitlines()), done.stderr


def test_color_is_for_terminals_unless_asked_for(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nuri = "https://example.invalid/a"\n')
    assert "\x1b" not in run_dm("status").stdout
    assert "\x1b[33mmissing" in run_dm("--color", "always", "status").stdout
    assert "\x1b" not in run_dm("--color", "never", "status").stdout


def test_relative_folder_and_manifest_are_taken_from_there(
    run_dm: RunDm, ask: Ask, http_server: HttpServer, project: Path, tmp_path: Path, home: Home
) -> None:
    uri = http_server.put("/a.txt", "a")
    (project / "deep" / "er").mkdir(parents=True)
    write_manifest(project, f'[a]\nuri = "{uri}"\n')
    write_manifest(project / "deep", f'[b]\nuri = "{uri}"\n', name="other.toml")
    assert ["a"] == [each["name"] for each in ask("list", cwd=project / "deep" / "er").outcomes]
    assert ["a"] == [each["name"] for each in ask("-C", "project", "list", cwd=tmp_path).outcomes]
    assert ["b"] == [each["name"] for each in ask("--manifest", "deep/other.toml", "list").outcomes]
    assert ["b"] == [each["name"] for each in ask("-C", "deep", "--manifest", "other.toml", "list").outcomes]
    answer = ask("-C", "project/deep", "--manifest", "other.toml", "fetch", cwd=tmp_path)
    assert (0, "ok") == (answer.status, answer.only["status"])
    assert (project / "deep" / ".datamanifest-state.toml").exists()
    assert not (project / ".datamanifest-state.toml").exists()
    variables = {"DATAMANIFEST_TOML": "deep/other.toml"}
    assert ["b"] == [each["name"] for each in ask("list", env=variables).outcomes]
    done = run_dm("--manifest", "deep/gone.toml", "list")
    assert "gone.toml" in assert_one_error(done, 3)


def test_a_name_that_does_not_exist_names_the_nearest(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[temperature]\nuri = "https://example.invalid/t"\n', "[wind]\nskip_download = true\n")
    for command in ("fetch", "path", "show", "verify", "status", "rm", "resolve-name", "resolve-path"):
        done = run_dm(command, "temprature")
        assert "'temprature'" in assert_one_error(done, 3)
        assert "temperature" in done.stderr.splitlines()[-1], command
    assert "[temperature]" in (project / "datamanifest.toml").read_text()


def test_an_ambiguous_name_is_exit_3_with_the_candidates(run_dm: RunDm, project: Path) -> None:
    write_manifest(
        project,
        '[a]\nuri = "https://example.invalid/a"\naliases = ["both"]\n',
        '[b]\nuri = "https://example.invalid/b"\naliases = ["both"]\n',
    )
    done = run_dm("path", "both")
    message = assert_one_error(done, 3)
    assert "both" in message and "'a'" in done.stderr and "'b'" in done.stderr


def test_aliases_and_dois_name_a_dataset(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nuri = "https://example.invalid/a"\naliases = ["first"]\ndoi = "10.1000/182"\n')
    for identifier in ("a", "first", "10.1000/182"):
        assert "a\n" == run_dm("resolve-name", identifier).stdout


def test_a_reader_that_leaves_is_no_error_of_ours(home: Home, project: Path, run_dm: RunDm) -> None:
    tables = [f'[name{number}]\nuri = "https://example.invalid/{number}"\n' for number in range(4000)]
    write_manifest(project, *tables)
    command = f'"{sys.executable}" -m dm list | head -n 1'
    done = subprocess.run(
        ["sh", "-c", command], cwd=project, env=home.variables(), capture_output=True, text=True, check=False
    )
    assert ("NAME", "") == (done.stdout.split()[0], done.stderr)


def test_debug_shows_where_an_error_comes_from(run_dm: RunDm) -> None:
    assert "Traceback" not in run_dm("status").stderr
    done = run_dm("--debug", "status")
    assert 3 == done.returncode
    assert "Traceback" in done.stderr and "dm: error: no manifest" in done.stderr


def test_several_failures_end_with_the_gravest(ask: Ask, http_server: HttpServer, project: Path, home: Home) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(
        project,
        f'[gone]\nuri = "{http_server.url}/gone.txt"\n',
        f'[wrong]\nuri = "{uri}"\nchecksum = "sha256:{"0" * 64}"\n',
        f'[unsafe]\nuri = "{uri}"\nkey = "../out"\n',
        f'[fine]\nuri = "{http_server.put("/fine.txt", "fine")}"\n',
    )
    answer = ask("fetch")
    assert 4 == answer.status
    assert {"gone": "failed", "wrong": "failed", "unsafe": "failed", "fine": "ok"} == {
        each["name"]: each["status"] for each in answer.outcomes
    }
    assert default_copy(home, "127.0.0.1/fine.txt").read_text() == "fine"
    assert 6 == ask("fetch", "gone", "unsafe").status
    assert 5 == ask("fetch", "gone", "nobody").status


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["fetch"], "no datasets declared (dm add URI declares one)"),
        (["refresh"], "no datasets declared (dm add URI declares one)"),
        (["list"], "no datasets declared (dm add URI declares one)"),
        (["verify"], "nothing to verify"),
    ],
)
def test_a_command_that_finds_nothing_to_do_says_so(
    run_dm: RunDm, project: Path, arguments: list[str], told: str
) -> None:
    write_manifest(project)
    done = run_dm(*arguments)
    assert (0, "", f"{told}\n") == (done.returncode, done.stdout, done.stderr)
    assert "" == run_dm("-q", *arguments).stderr


def test_what_was_read_lately_is_told_to_need_no_reading(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", b"a")}"\n')
    assert 0 == run_dm("fetch").returncode
    done = run_dm("verify", "--older-than", "30d")
    told = "nothing to verify: all of it was read within that time\n"
    assert (0, "", told) == (done.returncode, done.stdout, done.stderr)


def test_a_summary_counts_datasets_where_they_are_and_items_elsewhere(
    run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uris = [http_server.put(f"/{name}.txt", name) for name in "ab"]
    write_manifest(project, "".join(f'[d{index}]\nuri = "{uri}"\n' for index, uri in enumerate(uris)))
    assert "2 datasets: 2 ok\n" == run_dm("fetch").stderr
    assert "2 datasets: 2 ok\n" == run_dm("verify").stderr
    assert "5 items: 5 ok\n" == run_dm("verify", "--all").stderr  # the two, the store, its two copies


def test_flags_are_shown_as_they_are_written(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nuri = "https://example.org/a.zip"\nextract = true\n')
    shown = run_dm("show", "a").stdout
    assert "  extract: true\n" in shown and "user_managed: false\n" in shown


def test_what_the_locale_has_no_character_for_is_escaped(
    home: Home, run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "a")
    write_manifest(project, f'["größe"]\nuri = "{uri}"\n')
    assert 0 == run_dm("fetch").returncode
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for words, shown in ((["list"], b"\\u2026"), (["status", "-v"], b"gr\\xf6\\xdfe"), (["verify"], b"gr\\xf6\\xdfe")):
        done = subprocess.run(
            [sys.executable, "-m", "dm", *words],
            cwd=project,
            env={**home.variables(), **plain},
            capture_output=True,
            check=False,
        )
        assert (0, b"") == (done.returncode, done.stderr)
        assert shown in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(run_dm: RunDm, shell: str) -> None:
    script = run_dm(env={"_DM_COMPLETE": f"{shell}_source"})
    assert 0 == script.returncode and f"{shell}_complete" in script.stdout
    for words, word, expected in (("dm sta", "sta", "status"), ("dm fetch --fo", "--fo", "--force")):
        # fish hands over the word itself, the others its number.
        place = word if shell == "fish" else str(len(words.split()) - 1)
        asked = {"_DM_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": place}
        assert expected in run_dm(env=asked).stdout
