"""A manifest that is not yours runs nothing on your machine before you allowed what it runs."""

from __future__ import annotations

import json
import os
import pickle
import pty
import select
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from dm.plumbing.records.plain import quote
from dm.porcelain.cli.app import PLUMBING, PORCELAIN
from dm.porcelain.cli.trust import reveal
from tests.fixtures.commands import NO_RETRIES, Ask, StartDm, assert_one_error, snapshot, wait_for, write_manifest
from tests.fixtures.forks import run_fresh
from tests.fixtures.homes import COMMAND_TIMEOUT_S, Home, RunDm, RunInterpreter
from tests.fixtures.machine import needs, needs_root
from tests.fixtures.servers import HttpServer
from tests.fixtures.users import let_others_in, run_as_other_user

TRUSTED = {"DATAMANIFEST_TRUST": "1"}
SHELL = f"[a]\nkey = \"a\"\nshell = \"{sys.executable} -c 'open(\\\"$download_path\\\", \\\"w\\\")' x\"\n"


class RunPython(Protocol):
    """Runs a script in the project, with `dm` imported, and returns what it prints."""

    def __call__(self, script: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str: ...


@pytest.fixture
def run_python(run_interpreter: RunInterpreter) -> RunPython:
    def run(script: str, *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        code = (
            "import dm, sys\nfrom dm.errors import DmError\ntry:\n    "
            + "\n    ".join(script.splitlines())
            + "\nexcept DmError as error:\n    print(error.exit_status, error.code, error.message, '|', error.hint)\n"
        )
        done = run_interpreter("-P", "-c", code, cwd=cwd, env=env)
        assert 0 == done.returncode, done.stderr
        return done.stdout.strip()

    return run


def find_records(home: Home) -> list[Path]:
    return sorted((home.config / "datamanifest" / "trust").glob("*.toml"))


# the command ----------------------------------------------------------------------------------------------------------


def test_a_manifest_that_runs_nothing_asks_nothing(ask: Ask, project: Path, home: Home, run_dm: RunDm) -> None:
    write_manifest(project, '[a]\nuri = "https://example.org/a"\n')
    answer = ask("trust")
    assert (0, "unchanged", "nothing") == (answer.status, answer.only["status"], answer.document["trust"]["state"])
    assert "datamanifest.toml: runs no code and writes to no place outside\n" == run_dm("trust").stdout
    assert [] == find_records(home)


def test_a_manifest_that_runs_nothing_is_trusted_where_that_is_said(ask: Ask, project: Path, home: Home) -> None:
    """What its results' folders hold may still be somebody else's."""
    write_manifest(project, '[a]\nuri = "https://example.org/a"\n')
    answer = ask("trust", "--yes")
    assert (0, "ok", "trusted from now on") == (answer.status, answer.only["status"], answer.only["message"])
    assert 1 == len(find_records(home))
    assert "unchanged" == ask("trust", "--yes").only["status"]


def test_without_a_terminal_it_shows_everything_and_refuses(
    run_dm: RunDm, ask: Ask, project: Path, home: Home
) -> None:
    (project / "get.py").write_text("x")
    write_manifest(project, '[a]\nkey = "a"\nshell = "python get.py"\n')
    done = run_dm("trust")
    assert 6 == done.returncode
    assert "      a: python get.py\n" in done.stdout
    assert "      get.py: blake3:" in done.stdout
    assert (
        "dm: error: 'datamanifest.toml' is not trusted, and there is no terminal to ask on\n"
        "hint: dm trust --show shows what it would run, dm trust --yes allows it\n"
    ) == done.stderr
    answer = ask("trust")
    assert (6, "untrusted", "new") == (answer.status, answer.only["code"], answer.document["trust"]["state"])
    assert ["shell", "files", "file"] == list(dict.fromkeys(each["kind"] for each in answer.document["trust"]["added"]))
    assert [] == find_records(home)


def test_many_refusals_say_the_way_out_once(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nkey = "a"\nshell = "ls"\n[b]\nkey = "b"\nshell = "ls"\n')
    lines = run_dm("fetch").stderr.splitlines()
    assert (2, 1) == tuple(sum(line.startswith(word) for line in lines) for word in ("dm: error: ", "hint: "))


def test_changes_of_one_kind_stand_below_one_heading(run_dm: RunDm, project: Path) -> None:
    text = '[a]\nkey = "a"\nshell = "ls a"\n[b]\nkey = "b"\nshell = "ls b"\n'
    write_manifest(project, text)
    run_dm("trust", "--yes")
    write_manifest(project, text.replace("ls ", "ls -l "))
    assert (
        "  changed: commands\n"
        "      a\n        was ls a\n        now ls -l a\n"
        "      b\n        was ls b\n        now ls -l b\n"
    ) in run_dm("trust").stdout


def test_show_says_the_same_and_is_exit_0(run_dm: RunDm, ask: Ask, project: Path, home: Home) -> None:
    write_manifest(project, '[a]\nkey = "a"\nshell = "ls"\n')
    done = run_dm("trust", "--show")
    assert (0, "") == (done.returncode, done.stderr)
    assert "      a: ls\n" in done.stdout
    assert done.stdout.endswith("datamanifest.toml: not trusted\n")
    document = ask("trust", "--show").document["trust"]
    assert ("new", False) == (document["state"], document["given"])
    assert {"kind": "shell", "name": "a", "text": "ls"} in document["parts"]
    assert document["parts"] == document["added"]
    assert [] == document["changed"] == document["removed"]
    assert [] == find_records(home)


def test_yes_allows_what_it_shows_and_says_so(run_dm: RunDm, project: Path, home: Home) -> None:
    write_manifest(project, '[a]\nkey = "a"\nshell = "ls"\n')
    done = run_dm("trust", "--yes")
    assert 0 == done.returncode
    assert "      a: ls\n" in done.stdout
    assert done.stdout.endswith(f"-> {project}/datamanifest.toml [trusted from now on]\n")
    assert 1 == len(find_records(home))
    assert "datamanifest.toml: trusted\n" == run_dm("trust").stdout


def test_the_next_question_is_about_the_difference(run_dm: RunDm, ask: Ask, project: Path) -> None:
    (project / "pkg").mkdir()
    for name in ("__init__.py", "a.py", "b.py"):
        (project / "pkg" / name).write_text("")
    kept = '[kept]\nkey = "kept"\nshell = "echo kept"\n[f]\nkey = "f"\nfetcher = "pkg.a:run"\n'
    write_manifest(project, kept + '[old]\nkey = "old"\nshell = "ls old"\n[c]\nkey = "c"\nshell = "ls c"\n')
    run_dm("trust", "--yes")
    (project / "pkg" / "a.py").write_text("x = 1")
    (project / "pkg" / "b.py").unlink()
    (project / "pkg" / "c.py").write_text("")
    write_manifest(project, kept + '[new]\nkey = "new"\nshell = "ls new"\n[c]\nkey = "c"\nshell = "ls d"\n')
    done = run_dm("trust")
    assert 6 == done.returncode
    assert f"{project}/datamanifest.toml has changed since you allowed it:\n" in done.stdout
    for lines in (
        "  new: commands\n      new: ls new\n",
        "  changed: commands\n      c\n        was ls c\n        now ls d\n",
        "  gone: commands\n      old: ls old\n",
        "  new: their contents\n      pkg/c.py: blake3:",
        "  changed: their contents\n      pkg/a.py\n        was blake3:",
        "  gone: their contents\n      pkg/b.py: blake3:",
        " more as allowed (dm trust --show lists them)\n",
    ):
        assert lines in done.stdout, done.stdout
    assert "echo kept" not in done.stdout
    assert "echo kept" in run_dm("trust", "--show").stdout
    document = ask("trust", "--show").document["trust"]
    assert "changed" == document["state"]
    assert {"kind": "shell", "name": "new", "text": "ls new"} in document["added"]
    assert {"kind": "shell", "name": "c", "text": "ls d", "was": "ls c"} in document["changed"]
    assert {"kind": "shell", "name": "old", "text": "ls old"} in document["removed"]


def test_revoke_takes_the_answer_back(run_dm: RunDm, ask: Ask, project: Path, home: Home) -> None:
    write_manifest(project, SHELL)
    run_dm("trust", "--yes")
    assert 0 == run_dm("fetch").returncode
    assert run_dm("trust", "--revoke").stdout.endswith("[not trusted any more]\n")
    assert [] == find_records(home)
    assert "untrusted" == ask("fetch", "--force").only["code"]
    assert "datamanifest.toml: it was not trusted\n" == run_dm("trust", "--revoke").stdout


@pytest.mark.parametrize("words", [["--yes", "--show"], ["--show", "--revoke"], ["--yes", "--revoke"]])
def test_contradicting_options_are_wrong_usage(run_dm: RunDm, project: Path, words: list[str]) -> None:
    write_manifest(project)
    assert "--yes, --show and --revoke exclude each other" == assert_one_error(run_dm("trust", *words), 2)


def test_with_json_nothing_is_asked(ask: Ask, project: Path) -> None:
    write_manifest(project, SHELL)
    answer = ask("trust")
    assert (6, "untrusted") == (answer.status, answer.only["code"])


HIDING = [
    "\x1b[2K\r\x1b[1A",  # takes a line back
    "\r",
    "\n",
    "\x08\x08",
    "\u202e",  # turns the rest around
    "\u2066\u2069\u200f\u061c",
    "\u200b\u200d\ufeff\u2060",  # no width
    "\u00ad\u3164\u115f\u2800\uffa0",  # no ink
    "\ufe0f\u0301\u20dd",  # on top of another
    "\U000e0041",  # tags
    "\u2028\u2029\x85",
]


@pytest.mark.parametrize("text", HIDING, ids=ascii)
def test_no_character_of_a_manifest_can_hide_a_line(run_dm: RunDm, project: Path, text: str) -> None:
    name, command = f"n{text}n", f"ls {text} evil"
    write_manifest(project, f'[{quote(name)}]\nkey = "a"\nshell = {quote(command)}\nversion = {quote(text)}\n')
    (project / "evil").write_text("x")
    shown = run_dm("trust", "--show").stdout
    assert not {each for each in text if not each.isascii() or not each.isprintable()} & set(shown) - {"\n"}
    lines = [line for line in shown.splitlines() if "evil" in line and "ls" in line]
    assert 1 == len(lines)
    assert lines[0].isprintable()
    assert lines[0].endswith(f"{reveal(name)}: {reveal(command)}")


def test_what_is_plain_is_shown_as_it_is() -> None:
    assert "python get.py --città 'größe' 海面" == reveal("python get.py --città 'größe' 海面")


def test_a_file_name_that_is_not_utf_8_is_shown_and_told(run_dm: RunDm, ask: Ask, project: Path) -> None:
    (project / "pkg").mkdir()
    (project / "pkg" / "__init__.py").write_text("")
    with open(os.fsencode(project) + b"/pkg/\xff.py", "w") as file:
        file.write("")
    write_manifest(project, '[f]\nkey = "f"\nfetcher = "pkg:run"\n')
    parts = ask("trust", "--yes").document["trust"]["parts"]
    assert ["cGtnL/8ucHk="] == [part["name_b64"] for part in parts if "name_b64" in part]
    assert "pkg/\\udcff.py" in run_dm("trust", "--show").stdout
    assert "trusted" == ask("trust").document["trust"]["state"]


# at the terminal ------------------------------------------------------------------------------------------------------


class Terminal:
    """`dm trust` with a terminal of its own."""

    def __init__(self, home: Home, project: Path, *words: str) -> None:
        self.main, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dm", "trust", *words],
            cwd=project,
            env=home.variables(),
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self.seen = b""

    def read_until(self, words: bytes) -> str:
        until_s = time.monotonic() + COMMAND_TIMEOUT_S
        while words not in self.seen and time.monotonic() < until_s:
            if not select.select([self.main], [], [], 1)[0]:
                continue
            try:
                self.seen += os.read(self.main, 65536)
            except OSError:  # the other end is closed
                break
        assert words in self.seen, self.seen
        return self.seen.decode().replace("\r\n", "\n")

    def write(self, data: bytes) -> None:
        os.write(self.main, data)

    def finish(self) -> int:
        status = self.process.wait(timeout=COMMAND_TIMEOUT_S)
        os.close(self.main)
        return status


QUESTION = b"[y/N] "


@pytest.mark.parametrize(("said", "status"), [("y", 0), ("YES", 0), ("n", 6), ("", 6), ("x", 6), ("\x04", 6)])
def test_it_asks_at_the_terminal_and_only_yes_is_yes(home: Home, project: Path, said: str, status: int) -> None:
    write_manifest(project, '[a]\nkey = "a"\nshell = "ls"\n[b]\nuri = "https://example.org/b.pkl"\n')
    terminal = Terminal(home, project)
    shown = terminal.read_until(QUESTION)
    assert "      a: ls\n" in shown
    assert "May this manifest do so on this machine: commands: 1, pickle data: 1? [y/N] " in shown
    terminal.write(said.encode() + (b"" if said == "\x04" else b"\n"))
    if status == 0:
        terminal.read_until(b"[trusted from now on]")
    else:
        terminal.read_until(b"'datamanifest.toml' is not trusted: nothing of it runs")
    assert status == terminal.finish()
    assert (status == 0) == bool(find_records(home))


def test_what_was_typed_before_the_question_is_no_answer(home: Home, project: Path) -> None:
    write_manifest(project, SHELL)
    terminal = Terminal(home, project)
    terminal.write(b"y\ny\ny\n")
    terminal.read_until(QUESTION)
    terminal.write(b"\n")
    assert 6 == terminal.finish()
    assert [] == find_records(home)


def test_what_changes_while_the_question_stands_is_not_allowed(
    home: Home, project: Path, run_dm: RunDm, ask: Ask
) -> None:
    (project / "get.py").write_text("good")
    write_manifest(project, '[a]\nkey = "a"\nshell = "python get.py"\n')
    terminal = Terminal(home, project)
    terminal.read_until(QUESTION)
    (project / "get.py").write_text("evil")
    write_manifest(project, '[a]\nkey = "a"\nshell = "python get.py --evil"\n')
    terminal.write(b"y\n")
    assert 0 == terminal.finish()
    document = ask("trust", "--show").document["trust"]
    assert "changed" == document["state"]
    assert {"shell", "files", "file"} == {part["kind"] for part in document["changed"]}
    assert "untrusted" == ask("fetch").only["code"]


# a run that is given trust --------------------------------------------------------------------------------------------


def test_a_run_with_trust_runs_and_records_nothing(run_dm: RunDm, project: Path, home: Home) -> None:
    write_manifest(project, SHELL)
    assert 0 == run_dm("fetch", "--trust").returncode
    assert 0 == run_dm("fetch", "--force", env=TRUSTED).returncode
    assert [] == find_records(home)
    assert 6 == run_dm("fetch", "--force").returncode
    told = run_dm("trust", "--show", env=TRUSTED).stdout
    assert told.endswith("datamanifest.toml: not trusted; this run trusts it (DATAMANIFEST_TRUST)\n")


def test_add_takes_trust_for_places_outside(
    run_dm: RunDm, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    uri, outside = http_server.put("/a.txt", b"a"), tmp_path / "outside"
    write_manifest(project, f'[_STORAGE]\nbig = "{outside}"\n')
    words = ["add", uri, "--store", "$big"]
    message = assert_one_error(run_dm(*words), 6)
    assert message.startswith("cannot write 'a': ")
    assert not outside.exists()
    assert 0 == run_dm(*words, "--trust").returncode
    assert [b"a"] == [path.read_bytes() for path in outside.rglob("a.txt") if ".dm" not in path.parts]


@pytest.mark.parametrize("value", ["0", "true", "yes", "2"])
def test_the_variable_is_1_or_nothing(run_dm: RunDm, project: Path, value: str) -> None:
    write_manifest(project, SHELL)
    assert 6 == run_dm("fetch", env={"DATAMANIFEST_TRUST": value}).returncode


def test_python_gives_trust_to_a_session(run_python: RunPython, project: Path, home: Home) -> None:
    write_manifest(project, SHELL)
    assert run_python("dm.fetch('a')").startswith("6 untrusted cannot fetch 'a': it would run shell: ")
    assert "ok" == run_python("print(dm.Manifest.open(trust=True).fetch('a').status)")
    tables = "{'a': {'key': 'b', 'shell': 'cp datamanifest.toml $download_path'}}"
    told = run_python(f"dm.Manifest.of({tables}).fetch('a')")
    assert "a manifest in memory, which is not trusted | if all of it is yours, pass trust=True" in told
    assert "ok" == run_python(f"print(dm.Manifest.of({tables}, trust=True).fetch('a').status)")
    assert "unchanged" == run_python("print(dm.fetch('a', force=True).status)", env=TRUSTED)
    assert [] == find_records(home)


# the owner ------------------------------------------------------------------------------------------------------------


def put_pickle(server: HttpServer) -> str:
    return server.put("/value.pkl", pickle.dumps({"x": 1}))


def test_what_an_owner_adds_by_dm_needs_no_further_word(
    run_dm: RunDm, ask: Ask, run_python: RunPython, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = put_pickle(http_server)
    assert 0 == run_dm("init").returncode
    assert 1 == len(find_records(home))
    assert 0 == run_dm("add", uri).returncode
    assert "{'x': 1}" == run_python("print(dm.load('value'))")
    assert "trusted" == ask("trust").document["trust"]["state"]
    with (project / "datamanifest.toml").open("a") as file:
        file.write("\n[by_hand]\nkey = 'x'\nshell = 'ls'\n")
    assert run_python("dm.load('value')").startswith("6 untrusted ")
    assert 0 == run_dm("add", uri, "--name", "again", "--version", "2").returncode
    document = ask("trust", "--show").document["trust"]
    assert {"by_hand", "again"} == {part["name"] for part in document["added"] if part["kind"] in ("shell", "pickle")}


def test_a_checksum_that_fetch_fills_in_keeps_trust(
    run_dm: RunDm, ask: Ask, run_python: RunPython, project: Path, http_server: HttpServer
) -> None:
    write_manifest(project, f'[value]\nuri = "{put_pickle(http_server)}"\n' + SHELL)
    assert 0 == run_dm("trust", "--yes").returncode
    assert 0 == run_dm("fetch").returncode
    assert "checksum" in (project / "datamanifest.toml").read_text()
    assert "trusted" == ask("trust").document["trust"]["state"]
    assert "{'x': 1}" == run_python("print(dm.load('value'))")
    assert 0 == run_dm("rm", "a").returncode
    assert "trusted" == ask("trust").document["trust"]["state"]


def test_a_clone_of_ones_own_project_asks_again(
    run_dm: RunDm, run_python: RunPython, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    uri = put_pickle(http_server)
    run_dm("init")
    run_dm("add", uri)
    shutil.copytree(project, tmp_path / "clone")
    assert run_python("dm.load('value')", cwd=tmp_path / "clone").startswith("6 untrusted ")
    assert "" == run_python("dm.load('value')")


def test_a_home_folder_that_is_a_project_is_told_that_it_cannot_be_trusted(run_dm: RunDm, home: Home) -> None:
    done = run_dm("init", cwd=home.path)
    assert 0 == done.returncode
    assert "which lies in the project: a clone could bring it along; dm trust will ask" in done.stderr
    with (home.path / "datamanifest.toml").open("a") as file:
        file.write(SHELL)
    assert 6 == run_dm("trust", "--yes", cwd=home.path).returncode


# places outside -------------------------------------------------------------------------------------------------------


def test_a_place_outside_is_refused_shown_allowed_and_asked_for_again(
    run_dm: RunDm, ask: Ask, project: Path, tmp_path: Path, http_server: HttpServer
) -> None:
    uri, outside = http_server.put("/a.txt", b"a"), tmp_path / "outside"
    path = write_manifest(project, f'[a]\nuri = "{uri}"\nstorage_path = "{outside}/$key"\n')
    only = ask("fetch").only
    assert "place-untrusted" == only["code"]
    assert "dm trust shows it and asks; or set the place in your own config: dm config set --global" == only["hint"]
    assert not outside.exists()
    assert f"      {outside}: {outside}\n" in run_dm("trust", "--yes").stdout
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("verify").returncode
    path.write_text(path.read_text().replace(f"{outside}/", f"{outside}2/"))
    assert "place-untrusted" == ask("fetch", "--force").only["code"]


def test_plumbing_writes_to_a_store_outside_that_was_allowed(
    run_dm: RunDm, project: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    write_manifest(project, f'[_STORAGE]\ndatasets_dir = "{outside}"\n')
    (project / "x.txt").write_text("x")
    done = run_dm("hash-object", "-w", "x.txt")
    assert "cannot write to" in assert_one_error(done, 6)
    assert "hint: dm trust shows it and asks; or say that it is wanted: --root" in done.stderr
    assert 0 == run_dm("trust", "--yes").returncode
    assert 0 == run_dm("hash-object", "-w", "x.txt").returncode
    assert (outside / ".dm").is_dir()


# a hostile clone ------------------------------------------------------------------------------------------------------


class Clone:
    """A clone that runs something wherever it finds a way; whatever runs leaves a file in ``canaries``."""

    def __init__(self, base: Path, home: Home) -> None:
        self.root = base / "clone"
        self.canaries = base / "canaries"
        self.programs = base / "programs"
        self.outside = base / "outside"
        self.home = home
        for folder in (self.root, self.canaries, self.programs):
            folder.mkdir()

    def sing(self, name: str) -> str:
        """Python that leaves a canary, one word for a shell."""
        return f"open({str(self.canaries / name)!r},'w').close()"

    def touch(self, name: str) -> str:
        return f"touch {self.canaries / name}"

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def write_program(self, name: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{self.touch('program-' + name)}\n")
        path.chmod(0o755)

    def variables(self) -> dict[str, str]:
        return {"PATH": f"{self.programs}:{os.environ['PATH']}", **NO_RETRIES}

    def run_dm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `dm` in the clone as pip installs it: a script, whose folder is the first place of imports.

        (``python -m dm`` would let Python import the clone's ``dm`` before any line of ours runs: docs/trust.md.)
        """
        return self.run_script("import sys\nfrom dm.__main__ import main\nsys.exit(main())\n", *words)

    def run_script(self, text: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program of Python in the clone, started for this: what is imported already cannot be taken over."""
        script = self.programs.parent / "bin" / "dm"
        script.parent.mkdir(exist_ok=True)
        script.write_text(text)
        return run_fresh(
            [str(script), *words],
            cwd=self.root,
            env={**self.home.variables(), **self.variables()},
            timeout=COMMAND_TIMEOUT_S,
        )

    def heard(self) -> list[str]:
        return sorted(path.name for path in self.canaries.iterdir())


@pytest.fixture
def clone(tmp_path: Path, home: Home, http_server: HttpServer) -> Clone:
    """The most hostile clone that its writer could think of."""
    clone = Clone(tmp_path, home)
    for name in ("Rscript", "julia", "datamanifest", "datamanifest-cobol", "datamanifest-julia", "make", "direnv"):
        clone.write_program(name)
    # modules: those that bindings name, those that dm and Python import, those that tools pick up
    for name in ("evil", "conftest", "sitecustomize", "usercustomize", "setup", "click", "json", "tomllib", "pandas"):
        clone.write(f"{name}.py", clone.sing(f"import-{name}") + "\ndef run(*a, **k): " + clone.sing(f"call-{name}"))
    for name in ("dm", "numpy", "rich", "evilpkg"):
        clone.write(f"{name}/__init__.py", clone.sing(f"package-{name}"))
    clone.write("evil.pth", "import os; " + clone.sing("pth"))
    clone.write("get.sh", f"#!/bin/sh\n{clone.touch('script')}\n", 0o755)
    for name in (".envrc", ".profile", ".bashrc"):
        clone.write(name, clone.touch(name))
    clone.write("Makefile", f"all:\n\t{clone.touch('makefile')}\n")
    clone.write(".Rprofile", f"system('{clone.touch('rprofile')}')")
    clone.write("get.R", f"system('{clone.touch('r')}')")
    clone.write("get.jl", f"run(`{clone.touch('julia')}`)")
    clone.write("pyproject.toml", '[project]\nname = "x"\n[tool.pytest.ini_options]\naddopts = "-p evil"\n')
    # a checkout's Git folder is not cloned, but archives bring them along
    hook = f"#!/bin/sh\n{clone.touch('hook')}\n"
    for name in ("post-checkout", "pre-commit", "fsmonitor-watchman"):
        clone.write(f".git/hooks/{name}", hook, 0o755)
    clone.write(
        ".git/config",
        f'[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "{clone.touch("fsmonitor")}"\n'
        f'\tsshCommand = "{clone.touch("ssh-command")}"\n\tpager = "{clone.touch("pager")}"\n'
        f'[credential]\n\thelper = "!{clone.touch("credential")}"\n'
        f'[alias]\n\tstatus = "!{clone.touch("alias")}"\n[filter "x"]\n\tsmudge = "{clone.touch("smudge")}"\n',
    )
    clone.write(".git/HEAD", "ref: refs/heads/main\n")
    clone.write(".gitattributes", "* filter=x\n")
    # what belongs to the user, forged
    clone.write(".datamanifest/config.toml", f'ssh_command = "{clone.touch("config-ssh")}"\ntrust = "1"\n')
    clone.write(".datamanifest-state.toml", "[_META]\nschema = 5\n")
    real, plain = clone.root / "datamanifest.toml", http_server.put("/plain.csv", b"a,b\n")
    clone.write(
        "datamanifest.toml",
        "[_META]\nschema = 1\n"
        f'[_STORAGE]\nssh_command = "{clone.touch("storage-ssh")}"\ntrust = "1"\nDATAMANIFEST_TRUST = "1"\n'
        f'outside = "{clone.outside}"\n'
        '[_LOADERS]\ncsv = "evil:run"\n[_LANG.python.loaders]\ntxt = "evilpkg.deep:run"\n'
        '[_SAVERS]\nevil = "evil:run"\n[_LANG.python.savers]\nworse = "evilpkg.deep:run"\n'
        f'[_LANG.julia]\nincludes = ["get.jl"]\n'
        f'[shell]\nkey = "shell.txt"\nshell = "{clone.touch("shell")}"\n'
        f'[script]\nkey = "script.txt"\nshell = "./get.sh"\n'
        f'[older]\nkey = "older.txt"\n[older._LANG.shell]\nfetcher = "{clone.touch("older-shell")}"\n'
        '[fetcher]\nkey = "fetcher.txt"\nfetcher = "evil:run"\n'
        '[explicit]\nkey = "explicit.txt"\nfetcher = { ref = "os:system", args = ["'
        + clone.touch("os-system")
        + '"] }\n[pythonic]\nkey = "pythonic.txt"\npython = "evil:run"\n'
        '[julia]\nkey = "julia.txt"\n[julia._LANG.julia]\nfetcher = "get:run"\n'
        '[r]\nkey = "r.txt"\n[r._LANG.r]\nfetcher = "get:run"\n'
        '[peer]\nkey = "peer.txt"\ndelegate = true\n[peer._LANG.cobol]\nfetcher = "GET:RUN"\n'
        '[loader]\nuri = "http://127.0.0.1:9/loader.csv"\nloader = "evil:run"\n'
        '[opened]\nuri = "s3://bucket/opened.csv"\nlazy_access = true\nloader = "evil:run"\n'
        f'[pickle]\nuri = "{http_server.put("/evil.pkl", make_evil_pickle(clone))}"\n'
        f'[plain]\nuri = "{plain}"\n'
        f'[place]\nuri = "{http_server.put("/place.txt", b"x")}"\nstore = "$outside"\n'
        f'[absolute]\nuri = "{http_server.put("/absolute.txt", b"x")}"\nstorage_path = "{clone.outside}/x/$key"\n'
        f'[ssh]\nuri = "ssh://-oProxyCommand={clone.touch("proxy").replace(" ", "%20")}/x"\n'
        f'[git]\nuri = "ssh+git://-oProxyCommand={clone.touch("git-proxy").replace(" ", "%20")}/x.git"\n'
        f'[ext]\nuri = "ext::sh -c {clone.touch("ext").replace(" ", "% ")}"\nkey = "ext"\n'
        f'[needs]\nkey = "needs.txt"\nrequires = ["shell"]\nshell = "{clone.touch("needs")}"\n',
    )
    text = real.read_text()
    record = f'[_META]\nschema = 1\nmanifest = "{real}"\nproject_root = "{clone.root}"\nallowed = "x"\n'
    record += f"[shell]\nshell = {quote(clone.touch('shell'))}\n"
    name = hash_of_path(real)
    for folder in (".datamanifest/trust", ".config/datamanifest/trust", "datamanifest/trust", "trust"):
        clone.write(f"{folder}/{name}.toml", record, 0o600)
    assert text == real.read_text()
    return clone


def hash_of_path(path: Path) -> str:
    from dm.plumbing.hashing import blake3_of

    return blake3_of(os.fsencode(path)).hex()


class _Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def make_evil_pickle(clone: Clone) -> bytes:
    return pickle.dumps(_Evil(clone.touch("pickle")))


#: Arguments for each command of `dm`, tried one after another in the hostile clone.
COMMAND_LINES: dict[str, list[list[str]]] = {
    "init": [[], ["new"]],
    "add": [["datamanifest.toml", "--name", "self"], ["{plain}", "--name", "more"], ["./get.sh", "--no-fetch"]],
    "rm": [["more"], ["place", "--delete"]],
    "fetch": [[], ["--force"], ["shell"], ["needs"], ["--dry-run"], ["--delegate", "peer"], ["--jobs", "1"]],
    "status": [[], ["shell"], ["--exit-code"]],
    "verify": [
        [], ["plain"], ["--quick"], ["--all", "--repair"], ["--repair", "shell", "plain"], ["evil.run/ab", "--repair"]
    ],
    "pin": [["plain"], ["shell"]],
    "unlock": [["plain"], ["shell"]],
    "lock": [["plain"]],
    "refresh": [[]],
    "dedup": [["--dry-run"], []],
    "prune": [["--dry-run"], ["--grace", "0", "--gone"]],
    "list": [[], ["--kind", "all"]],
    "path": [["plain"], ["shell"], ["evil.run/ab"]],
    "show": [["shell"], ["pickle"], ["place"], ["peer"], ["evil.run/ab"]],
    "delete": [["evil.run/ab", "--dry-run"], ["evil.run/ab"]],
    "config": [["list"], ["get", "ssh_command"], ["get", "trust"]],
    "trust": [[], ["--show"], ["--revoke"]],
    "validate": [[], ["datamanifest.toml"]],
    "doctor": [[]],
    "demo": [[]],
    "hash-object": [["evil.py"], ["-w", "evil.py"]],
    "hash-params": [[]],
    "cat-object": [["blake3:{plain_id}"]],
    "ls-tree": [["blake3-tree:" + "0" * 64]],
    "checkout-object": [["blake3:{plain_id}", "out.txt"]],
    "list-objects": [[]],
    "count-objects": [[]],
    "list-refs": [[]],
    "update-ref": [["x", "blake3:{plain_id}"]],
    "resolve-name": [["shell"]],
    "resolve-path": [["shell"], ["place", "--explain"]],
    "resolve-config": [[], ["ssh_command"]],
    "read-manifest": [[]],
    "read-state": [[]],
    "write-state": [[]],
    "fetch-uri": [["{plain}", "fetched.csv"], ["ssh://-oProxyCommand=x/x", "fetched"]],
    "publish": [["missing.txt", "published"]],
    "verify-path": [["evil.py"]],
}


def list_command_lines(clone: Clone) -> Iterator[list[str]]:
    assert set(COMMAND_LINES) == {*PORCELAIN, *PLUMBING}, "a command is not tried on the hostile clone"
    from dm.plumbing.hashing import blake3_of

    plain = next(line for line in (clone.root / "datamanifest.toml").read_text().splitlines() if "plain.csv" in line)
    values = {"plain": plain.split('"')[1], "plain_id": blake3_of(b"a,b\n").hex()}
    yield ["--version"]
    yield ["--help"]
    for name, variants in COMMAND_LINES.items():
        for words in variants:
            yield [name, *(word.format(**values) for word in words)]


def test_a_hostile_clone_runs_nothing_on_any_command(clone: Clone) -> None:
    before = snapshot(clone.root)
    for words in list_command_lines(clone):
        done = clone.run_dm(*words)
        assert [] == clone.heard(), words
        assert done.returncode in (0, 1, 2, 3, 4, 5, 6, 7), (words, done.stderr)
        assert "Traceback" not in done.stderr, (words, done.stderr)
        assert not clone.outside.exists(), words
    after = snapshot(clone.root)
    code = {name: found for name, found in before.items() if name.endswith((".py", ".sh", ".pth", ".R", ".jl"))}
    assert code == {name: after[name] for name in code}
    assert [] == [name for name in after if "__pycache__" in name]


def test_the_same_clone_runs_it_all_for_who_trusts_it(clone: Clone) -> None:
    """The canaries above can sing."""
    clone.run_dm("fetch", "--trust")
    expected = {"shell", "script", "older-shell", "import-evil", "call-evil", "os-system"}
    assert expected | {"program-Rscript", "program-julia", "program-datamanifest-cobol"} <= set(clone.heard())


def test_a_hostile_clone_runs_nothing_when_help_is_asked_for(clone: Clone) -> None:
    lines = [[name, "--help"] for name in COMMAND_LINES]
    script = "import json, sys\nfrom dm.porcelain.cli.app import run\n"
    script += "sys.exit(any([run(line) for line in json.loads(sys.argv[1])]))\n"
    done = clone.run_script(script, json.dumps(lines))
    assert (0, "") == (done.returncode, done.stderr)
    assert all(f"Usage: dm {name} " in done.stdout for name in COMMAND_LINES)
    assert [] == clone.heard()


@pytest.mark.fresh_process
def test_a_hostile_clone_runs_nothing_for_other_tools_and_python(clone: Clone, run_python: RunPython) -> None:
    names = ["shell", "script", "older", "fetcher", "explicit", "pythonic", "julia", "r", "peer", "loader", "opened"]
    calls = "for call in dm.load, dm.fetch, dm.status:\n    try:\n        call({name!r}); print()\n"
    calls += "    except DmError as error:\n        print(error.exit_status, error.code)"
    for name in [*names, "pickle", "plain", "place", "absolute", "needs"]:
        told = run_python(calls.format(name=name), cwd=clone.root, env=clone.variables())
        assert [] == clone.heard(), name
        if name in names and name not in ("loader", "opened"):
            assert ["6 untrusted"] * 2 == told.splitlines()[:2], (name, told)
    answering = "from dm.porcelain.cli.peer import main\nsys.argv = ['datamanifest-dm', 'fetch', 'shell', "
    run_python(
        f"{answering}'--datasets-toml', 'datamanifest.toml']\ntry:\n    main()\nexcept SystemExit:\n    pass",
        cwd=clone.root,
        env=clone.variables(),
    )
    assert [] == clone.heard()


def test_plain_data_of_a_hostile_clone_is_fetched_all_the_same(clone: Clone) -> None:
    done = clone.run_dm("fetch", "--json")
    by_name = {outcome["name"]: outcome for outcome in json.loads(done.stdout)["outcomes"]}
    assert 6 == done.returncode
    assert ["ok", "ok"] == [by_name[name]["status"] for name in ("plain", "pickle")]
    code = ["shell", "script", "older", "fetcher", "explicit", "pythonic", "julia", "r", "peer"]
    assert dict.fromkeys(code, "untrusted") == {name: by_name[name]["code"] for name in code}
    assert ["place-untrusted"] * 2 == [by_name[name]["code"] for name in ("place", "absolute")]
    assert all("dm trust" in by_name[name]["hint"] for name in code)
    assert [] == clone.heard()


# each kind, refused and allowed ---------------------------------------------------------------------------------------

CANARY = "open('canary', 'w').close()\n"
WRITE = f"def run(download_path, **_):\n    {CANARY}    open(download_path, 'w').close()\n"
KINDS = {
    "shell": ("fetch", '[x]\nkey = "x.txt"\nshell = "sh get.sh $download_path"\n'),
    "fetcher": ("fetch", '[x]\nkey = "x.txt"\nfetcher = "own:run"\n'),
    "package": ("fetch", '[x]\nkey = "x.txt"\nfetcher = "pkg.own:run"\n'),
    "r": ("fetch", '[x]\nkey = "x.txt"\n[x._LANG.r]\nfetcher = "get:run"\n'),
    "julia": ("fetch", '[x]\nkey = "x.txt"\n[x._LANG.julia]\nfetcher = "get:run"\n'),
    "peer": ("fetch", '[x]\nkey = "x.txt"\n[x._LANG.cobol]\nfetcher = "GET:RUN"\n'),
    "loader": ("load", '[x]\nuri = "{uri}"\nloader = "own:load"\n'),
    "format-loader": ("load", '[_LOADERS]\ntxt = "own:load"\n[x]\nuri = "{uri}"\n'),
    "pickle": ("load", '[x]\nuri = "{pickle}"\n'),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_refused_then_allowed_then_asked_for_again(
    run_dm: RunDm, ask: Ask, run_python: RunPython, project: Path, tmp_path: Path, http_server: HttpServer, kind: str
) -> None:
    if kind == "r":
        needs("Rscript")
    way, table = KINDS[kind]
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("julia", "datamanifest-cobol"):
        (programs / name).write_text("#!/bin/sh\ntouch canary\nexit 3\n")
        (programs / name).chmod(0o755)
    variables = {"PATH": f"{programs}:{os.environ['PATH']}"}
    (project / "get.sh").write_text('touch canary "$1"\n')
    (project / "own.py").write_text(WRITE + f"def load(path):\n    {CANARY}")
    (project / "pkg").mkdir()
    (project / "pkg" / "own.py").write_text(WRITE)
    (project / "get.R").write_text(
        "run <- function(download_path) { file.create('canary'); file.create(download_path) }\n"
    )
    (project / "get.jl").write_text("")
    uri, evil = http_server.put("/x.txt", b"x"), http_server.put("/x.pkl", pickle.dumps(_Evil("touch canary")))
    write_manifest(project, table.replace("{uri}", uri).replace("{pickle}", evil))
    canary = project / "canary"

    def go() -> str:
        if way == "fetch":
            only = ask("fetch", "x", "--force", env=variables).only
            return f"{only.get('code', 'ok')} {only.get('message', '')}"
        return run_python("dm.load('x')", env=variables).removeprefix("6 ") or "ok"

    told = go()
    assert told.startswith("untrusted "), told
    assert not canary.exists()
    assert 0 == run_dm("trust", "--yes").returncode
    told = go()
    assert canary.exists(), told
    assert told.startswith("ok") or kind in ("julia", "peer"), told
    canary.unlink()
    with (project / "datamanifest.toml").open("a") as file:
        file.write('\n[other]\nkey = "other"\nshell = "true"\n')
    told = go()
    assert told.startswith("untrusted ") and "has changed since you allowed it" in told, told
    assert not canary.exists()


def test_show_and_doctor_say_whether_it_is_trusted(run_dm: RunDm, ask: Ask, project: Path) -> None:
    write_manifest(project, SHELL)
    assert ask("show", "a").document["dataset"]["trusted"] is False
    assert "that you have not allowed\n         hint: dm trust shows it\n" in run_dm("doctor").stdout
    run_dm("trust", "--yes")
    assert ask("show", "a").document["dataset"]["trusted"] is True
    assert "you allowed the code that it names" in run_dm("doctor").stdout
    assert "its code runs unasked" in run_dm("doctor", env=TRUSTED).stdout
    write_manifest(project, '[b]\nuri = "https://example.org/b"\n')
    assert ask("show", "b").document["dataset"]["trusted"] is None
    assert "allowed" not in run_dm("doctor").stdout


@pytest.mark.fresh_process
@pytest.mark.parametrize("words", [["status"], ["list"], ["verify"], ["fetch"]])
def test_a_manifest_without_code_costs_nothing(
    run_python: RunPython, project: Path, http_server: HttpServer, words: list[str]
) -> None:
    write_manifest(project, f'[a]\nuri = "{http_server.put("/a.txt", b"a")}"\n')
    run_python("dm.fetch('a')")
    told = run_python(
        "opened = []\n"
        "sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == 'open' else None)\n"
        f"from dm.porcelain.cli.app import run\nstatus = run({words!r})\n"
        "print(status, [name for name in sys.modules if 'trust_parts' in name or name.endswith('pinned')])\n"
        "print([path for path in opened if '/datamanifest/trust' in path])\n"
    )
    assert ["0 []", "[]"] == told.splitlines()[-2:]


# at once, and other users ---------------------------------------------------------------------------------------------


def test_answers_at_once_all_succeed_and_leave_one_record(
    start_dm: StartDm, ask: Ask, project: Path, home: Home
) -> None:
    write_manifest(project, SHELL)
    for status, _, errors in [wait_for(each) for each in [start_dm("trust", "--yes") for _ in range(6)]]:
        assert 0 == status, errors
    assert 1 == len(find_records(home))
    assert "trusted" == ask("trust").document["trust"]["state"]


OTHERS_VIEW = """
import sys
from pathlib import Path
from dm.environment import Environment
from dm.errors import DmError
from dm.porcelain.project import Project
from dm.progress import SilentProgress
class Heard(SilentProgress):
    def warn(self, text): print("warning:", text)
manifest, home = Path(sys.argv[1]), Path(sys.argv[2])
variables = {f"XDG_{name}_HOME": str(home) for name in ("CONFIG", "DATA", "CACHE")}
environment = Environment(variables, home, manifest.parent, "host", 1)
try:
    Project.open(environment, manifest_path=manifest, progress=Heard()).demand_trust("fetch 'a'", "shell: x")
    print("allowed")
except DmError as error:
    print(error.code)
"""


@pytest.mark.other_users
def test_what_one_user_allowed_is_not_allowed_by_another(
    run_dm: RunDm, project: Path, home: Home, tmp_path: Path
) -> None:
    needs_root()
    path = write_manifest(project, SHELL)
    assert 0 == run_dm("trust", "--yes").returncode
    let_others_in(project)
    let_others_in(home.config / "datamanifest")
    for each in (project, path):
        each.chmod(0o755)
    others = tmp_path / "others"
    others.mkdir(mode=0o755)
    modules = "dm.porcelain.project, dm.plumbing.records.trust, dm.plumbing.hashing, dm.plumbing.fs.lock, tomllib"
    told, errors = run_as_other_user(OTHERS_VIEW, str(path), str(others), modules=modules)
    assert "untrusted\n" == told, errors
    # also when they look at the first one's records, as with sudo that keeps the environment
    told, errors = run_as_other_user(OTHERS_VIEW, str(path), str(home.config), modules=modules)
    assert told.startswith("warning: cannot read '") and told.endswith("untrusted\n"), (told, errors)
    assert 1 == told.count("warning: ")


def test_a_damaged_record_is_told_once_and_nothing_runs(run_dm: RunDm, project: Path, home: Home) -> None:
    write_manifest(project, SHELL, SHELL.replace("[a]", "[b]").replace('"a"', '"b"'))
    run_dm("trust", "--yes")
    (record,) = find_records(home)
    record.write_text("]]")
    done = run_dm("fetch")
    assert 6 == done.returncode
    assert 1 == done.stderr.count("the manifest is not trusted\n"), done.stderr
    assert 0 == run_dm("trust", "--yes").returncode
    assert 0 == run_dm("fetch").returncode


def test_records_name_what_was_allowed(run_dm: RunDm, project: Path, home: Home) -> None:
    (project / "get.py").write_text("x")
    path = write_manifest(project, '[a]\nkey = "a"\nshell = "python get.py"\n')
    run_dm("trust", "--yes")
    (record,) = find_records(home)
    document = tomllib.loads(record.read_text())
    head = document["_META"]
    assert (1, str(path), str(project)) == (head["schema"], head["manifest"], head["project_root"])
    assert {"a": "python get.py"} == document["shell"]
    assert {"get.py"} == set(document["file"])
