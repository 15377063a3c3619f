"""Data that code of the manifest brings: shell commands, fetchers of one's own, fetchers in other languages."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

import dm
from dm.environment import Environment
from tests.fixtures.commands import (
    Ask,
    StartDm,
    assert_one_error,
    default_copy,
    kill,
    list_litter,
    snapshot,
    store_root,
    wait_for,
    write_manifest,
)
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.machine import needs
from tests.fixtures.servers import HttpServer

TRUSTED = {"DATAMANIFEST_TRUST": "1"}

#: A program that writes its second argument to its first and counts its runs.
MAKE = """
import sys
with open("runs.txt", "a") as runs:
    runs.write("run\\n")
print("made it")
with open(sys.argv[1], "w") as file:
    file.write(sys.argv[2])
"""


@pytest.fixture
def make(project: Path) -> str:
    """The beginning of a shell command that runs a script of the project."""
    (project / "make.py").write_text(MAKE)
    return f"{sys.executable} make.py"


def count_runs(project: Path) -> int:
    path = project / "runs.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def write_program(project: Path, name: str, text: str) -> Path:
    path = project / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def open_trusted(home: Home, project: Path) -> dm.Manifest:
    surroundings = Environment.read()._replace(
        variables={**home.variables(), **TRUSTED}, home=home.path, working_folder=project
    )
    return dm.Manifest.open(environment=surroundings)


def test_a_shell_command_makes_a_dataset_that_is_pinned_and_not_made_again(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, make: str
) -> None:
    path = write_manifest(project, f'[a]\nkey = "local/a.txt"\nshell = "{make} $download_path hello"\n')
    answer = ask("fetch", env=TRUSTED)
    copy = default_copy(home, "local/a.txt")
    assert (0, str(copy), 5) == (answer.status, answer.only["path"], answer.only["bytes"])
    assert "hello" == copy.read_text()
    assert 0o444 == copy.stat().st_mode & 0o777
    digest = f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    assert digest == tomllib.loads(path.read_text())["a"]["checksum"]
    before = snapshot(project, home.data)
    assert "unchanged" == ask("fetch", env=TRUSTED).only["status"]
    assert before == snapshot(project, home.data)
    assert 1 == count_runs(project)
    assert 0 == run_dm("verify").returncode
    assert 0 == run_dm("status", "--exit-code").returncode
    assert [] == list_litter(home, project)


def test_bytecode_that_came_with_a_clone_is_not_run(ask: Ask, project: Path, home: Home) -> None:
    import importlib.util
    import py_compile

    (project / "pkg").mkdir()
    source = project / "pkg" / "get.py"
    source.write_text("import sys\nopen(sys.argv[1], 'w').write('hidden')\n")
    # Of the kind that Python runs without a look at the source beside it (PEP 552).
    bytecode = importlib.util.cache_from_source(os.fspath(source))
    py_compile.compile(
        os.fspath(source), bytecode, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, doraise=True
    )
    source.write_text("import sys\nopen(sys.argv[1], 'w').write('as allowed')\n")
    (project / "pkg" / "run.py").write_text("import pkg.get\n")
    write_manifest(project, f'[a]\nkey = "a.txt"\nshell = "{sys.executable} -m pkg.run $download_path"\n')
    answer = ask("fetch", "a", env=TRUSTED)
    assert "as allowed" == Path(answer.only["path"]).read_text()
    assert ["get.py", "run.py"] == sorted(path.name for path in (project / "pkg").glob("*.py"))


def test_without_trust_nothing_runs_and_plain_uris_are_fetched(
    ask: Ask, project: Path, home: Home, make: str, http_server: HttpServer
) -> None:
    uri = http_server.put("/plain.txt", "plain")
    write_manifest(
        project,
        f'[a]\nkey = "local/a.txt"\nshell = "{make} $download_path hello"\n',
        '[b]\nkey = "local/b.txt"\nfetcher = "evil:get"\n',
        f'[plain]\nuri = "{uri}"\n',
    )
    (project / "evil.py").write_text("open('runs.txt', 'w').write('x')\ndef get(download_path): pass\n")
    answer = ask("fetch")
    assert 6 == answer.status
    assert ["untrusted", "untrusted", None] == [each.get("code") for each in answer.outcomes]
    assert f"shell: {make} $download_path hello" in answer.outcomes[0]["message"]
    assert "fetcher: evil:get" in answer.outcomes[1]["message"]
    assert "ok" == answer.outcomes[2]["status"]
    assert 0 == count_runs(project)
    assert [] == list_litter(home, project)


def test_every_variable_reaches_the_command_and_blanks_survive(
    ask: Ask, project: Path, home: Home, tmp_path: Path
) -> None:
    folder = tmp_path / "with blank; $(touch owned) 'q'"
    project.rename(folder)
    write_program(folder, "tell", 'out=$1; shift; for word in "$@"; do echo "$word"; done > "$out"')
    write_manifest(
        folder,
        """[a]
uri = "https://example.org/x y/a.nc?b=1;c"
key = "odd key/$HOME/a'b.txt"
version = "v1"
doi = "10.1/x"
format = "txt"
branch = "main"
shell = '''./tell $download_path $project_root $uri $key $version $doi $format $branch $nothing "a $key"'''
""",
    )
    answer = ask("fetch", cwd=folder, env=TRUSTED)
    assert 0 == answer.status, answer
    key = "odd key/$HOME/a'b.txt"
    expected = [str(folder), "https://example.org/x y/a.nc?b=1;c", key, "v1", "10.1/x", "txt", "main", "$nothing"]
    assert [*expected, f"a {key}"] == default_copy(home, key).read_text().splitlines()
    assert not (folder / "owned").exists()


def test_the_name_to_write_to_ends_like_the_data(ask: Ask, project: Path, home: Home) -> None:
    write_manifest(
        project,
        '[a]\nuri = "https://example.org/a.nc#v2"\nshell = "sh -c \'basename $0 > $0\' $download_path"\n',
        '[z]\nkey = "h/b.zip"\nextract = true\nshell = "cp b.zip $download_path"\n',
    )
    with zipfile.ZipFile(project / "b.zip", "w") as archive:
        archive.writestr("one.txt", "1")
    assert 0 == ask("fetch", env=TRUSTED).status
    assert "a.nc\n" == default_copy(home, "example.org/a.nc#v2").read_text()
    assert "1" == (default_copy(home, "h/b") / "one.txt").read_text()
    assert "digest" in tomllib.loads((project / "datamanifest.toml").read_text())["z"]
    assert [] == list_litter(home, project)


def test_a_command_that_fails_is_told_with_its_last_words(run_dm: RunDm, project: Path, home: Home) -> None:
    program = write_program(project, "fail", "echo first >&2; echo second; echo the end >&2; exit 3")
    path = write_manifest(project, '[a]\nkey = "local/a.txt"\nshell = "$project_root/fail $download_path"\n')
    before = path.read_bytes()
    done = run_dm("fetch", env=TRUSTED)
    assert (5, "") == (done.returncode, done.stdout)
    assert [
        "a: first",
        "a: second",
        f"dm: error: cannot fetch 'a': its shell command '{program}' ended with status 3: the end",
        f"hint: it was run in '{project}'; -v shows all that it says",
    ] == done.stderr.splitlines()
    assert before == path.read_bytes()
    assert [] == list_litter(home, project)
    told = run_dm("-v", "fetch", env=TRUSTED).stderr.splitlines()
    assert ["a: first", "a: second", "a: the end"] == told[:3]


@pytest.mark.parametrize(
    ("shell", "status", "code", "told"),
    [
        ("no-such-program-here x", 5, "program-missing", "cannot run 'no-such-program-here': "),
        ("true 'x", 7, "shell-malformed", "{manifest}:6: dataset 'a': cannot read 'shell': no closing quotation"),
        ("true", 5, "left-nothing", "cannot fetch 'a': its code ended well and left nothing at its path"),
        (
            "cp make.py $download_path.csv",
            5,
            "left-nothing",
            "cannot fetch 'a': its code ended well and left nothing at its path; beside it lies 'a.txt.csv'",
        ),
        ("ln -s /etc/passwd $download_path", 6, "special-file", "cannot take in what the code of 'a' left at its path"),
        ("mkfifo $download_path", 6, "special-file", "cannot take in what the code of 'a' left at its path"),
        ("sh -c 'mkdir $0 && ln -s ../../x $0/y' $download_path", 6, "link-leaves", "the link 'y' leads out of it"),
        ("sh -c 'mkdir $0 && mkfifo $0/y' $download_path", 6, "special-file", "cannot take in "),
        ("sh -c 'kill -9 $$'", 5, "shell-failed", "cannot fetch 'a': its shell command 'sh' ended with signal 9"),
    ],
)
def test_what_a_command_may_not_do_is_told_and_leaves_nothing(
    ask: Ask, project: Path, home: Home, make: str, shell: str, status: int, code: str, told: str
) -> None:
    path = write_manifest(project, f'[a]\nkey = "local/a.txt"\nshell = """{shell}"""\n')
    before = path.read_bytes()
    answer = ask("fetch", env=TRUSTED)
    assert (status, code) == (answer.status, answer.only["code"])
    assert told.format(manifest=path) in answer.only["message"]
    assert before == path.read_bytes()
    assert not default_copy(home, "local/a.txt").exists()
    assert [] == list_litter(home, project)


def test_a_folder_of_code_keeps_its_modes_and_links_and_loses_set_uid(ask: Ask, project: Path, home: Home) -> None:
    write_program(
        project,
        "tree",
        'mkdir -p "$1/sub" && echo x > "$1/sub/run" && chmod 4755 "$1/sub/run" && ln -s sub/run "$1/link"',
    )
    write_manifest(project, '[a]\nkey = "local/a"\nshell = "./tree $download_path"\n')
    assert 0 == ask("fetch", env=TRUSTED).status
    copy = default_copy(home, "local/a")
    assert 0o555 == (copy / "sub/run").stat().st_mode & 0o7777
    assert "sub/run" == os.readlink(copy / "link")
    assert {"checksum", "digest"} < set(tomllib.loads((project / "datamanifest.toml").read_text())["a"])
    assert "clean" == ask("verify").only["state"]


def test_a_file_that_code_only_links_stays_its_owners(ask: Ask, project: Path, home: Home) -> None:
    mine = project / "mine.txt"
    mine.write_text("mine")
    write_manifest(project, '[a]\nkey = "local/a.txt"\nshell = "ln mine.txt $download_path"\n')
    assert 0 == ask("fetch", env=TRUSTED).status
    assert mine.stat().st_mode & 0o200
    assert 1 == mine.stat().st_nlink
    mine.write_text("changed")
    assert "mine" == default_copy(home, "local/a.txt").read_text()


def test_what_code_made_is_held_against_the_contract(ask: Ask, project: Path, home: Home, make: str) -> None:
    path = write_manifest(
        project, f'[a]\nkey = "local/a.txt"\nshell = "{make} $download_path hello"\nchecksum = "md5:{"0" * 32}"\n'
    )
    before = path.read_bytes()
    answer = ask("fetch", env=TRUSTED)
    assert (4, "checksum-mismatch") == (answer.status, answer.only["code"])
    assert before == path.read_bytes()
    assert not default_copy(home, "local/a.txt").exists()
    assert [] == list_litter(home, project)


def test_skip_checksum_and_force_work_with_code(ask: Ask, project: Path, home: Home, make: str) -> None:
    write_manifest(
        project,
        f'[a]\nkey = "local/a.txt"\nshell = "{make} $download_path hello"\nskip_checksum = true\n',
        f'[b]\nkey = "local/b.txt"\nshell = "{make} $download_path hello"\n',
    )
    assert [0, 0] == [ask("fetch", env=TRUSTED).status for _ in range(2)]
    assert 2 == count_runs(project)
    default_copy(home, "local/b.txt").chmod(0o644)
    default_copy(home, "local/b.txt").write_text("other")
    assert (4, "copy-damaged") == ((answer := ask("fetch", "b", env=TRUSTED)).status, answer.only["code"])
    assert "dm fetch --force b puts it aside and fetches again" == answer.only["hint"]
    assert "ok" == ask("fetch", "--force", "b", env=TRUSTED).only["status"]
    assert "hello" == default_copy(home, "local/b.txt").read_text()
    assert "unchanged" == ask("fetch", "--force", "b", env=TRUSTED).only["status"]
    assert 4 == count_runs(project)


# fetchers of one's own


FETCHERS = '''
import subprocess

def conventional(download_path, key, uris, requires_paths, entry, *, version, missing="default"):
    print("chatty")
    subprocess.run(["echo", "chattier"], check=True)
    with open(download_path, "w") as file:
        file.write(repr((key, uris, requires_paths, entry["doi"], version, missing)))

def everything(**given):
    with open(given["download_path"], "w") as file:
        file.write(" ".join(sorted(given)))

def explicit(*words, to, flags):
    with open(to, "w") as file:
        file.write(repr((words, flags)))

def broken(download_path):
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise ValueError("no such year\\nand more") from error

def leave():
    raise SystemExit(3)

def hang(download_path):
    import time
    open("started", "w").close()
    while True:
        time.sleep(0.05)

number = 3
'''


def write_fetchers(project: Path, *tables: str) -> Path:
    (project / "mine.py").write_text(FETCHERS)
    return write_manifest(project, *tables)


def test_an_own_fetcher_is_called_by_convention_or_as_the_manifest_says(
    ask: Ask, project: Path, home: Home, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.txt", "from the server")
    write_fetchers(
        project,
        f'[a]\nuri = "{uri}"\nversion = "v1"\ndoi = "10.1/a"\nfetcher = "mine:conventional"\n',
        '[b]\nkey = "local/b.txt"\nfetcher = "mine:everything"\n',
        '[c]\nkey = "local/c.txt"\n_LANG.python.fetcher = { ref = "mine:explicit",'
        ' args = ["$key", 3, "${format}", "$x"],'
        ' kwargs = { to = "$download_path", flags = ["<$key>", { k = "$key" }] } }\n'
        'fetcher = "mine:broken"\n',
    )
    answer = ask("fetch", env=TRUSTED)
    assert 0 == answer.status, answer
    assert {"chatty", "chattier"} <= set(answer.stderr.split())
    expected = ("127.0.0.1/a.txt#v1", [uri], [], "10.1/a", "v1", "default")
    assert repr(expected) == default_copy(home, "127.0.0.1/a.txt#v1").read_text()
    names = "branch doi download_path entry format key project_root requires_paths uri uris version"
    assert names == default_copy(home, "local/b.txt").read_text()
    called = (("local/c.txt", 3, "txt", "$x"), ["<local/c.txt>", {"k": "local/c.txt"}])
    assert repr(called) == default_copy(home, "local/c.txt").read_text()
    assert [] == http_server.requests
    assert [] == list_litter(home, project)


@pytest.mark.parametrize(
    ("ref", "code", "told"),
    [
        ("mine:broken", "fetcher-failed", "its fetcher mine:broken raised ValueError: no such year"),
        ("mine:leave", "fetcher-failed", "its fetcher mine:leave raised SystemExit: 3"),
        ("mine:nothing", "binding-broken", "cannot use 'mine:nothing' ([a] fetcher): there is no 'nothing' in it"),
        ("mine:number", "binding-broken", "cannot use 'mine:number' ([a] fetcher): it is no function"),
        ("no_such_module:get", "binding-broken", "cannot use 'no_such_module:get' ([a] fetcher): "),
        ("mine:explicit", "binding-broken", "its fetcher mine:explicit: a fetcher asks for 'to', which it is not "),
        ("mine", "binding-broken", "cannot use 'mine' ([a] fetcher): it is not of the form 'module:function'"),
    ],
)
def test_a_broken_fetcher_is_an_error_and_its_uri_is_not_asked(
    ask: Ask, project: Path, home: Home, http_server: HttpServer, ref: str, code: str, told: str
) -> None:
    uri = http_server.put("/a.txt", "from the server")
    write_fetchers(project, f'[a]\nuri = "{uri}"\nfetcher = "{ref}"\nshell = "touch fell-through"\n')
    answer = ask("fetch", env=TRUSTED)
    assert (5, code) == (answer.status, answer.only["code"])
    assert told in answer.only["message"]
    assert "\n" not in answer.only["message"]
    assert [] == http_server.requests
    assert not (project / "fell-through").exists()
    assert [] == list_litter(home, project)


def test_what_a_fetcher_raises_is_the_cause_of_the_error(run_dm: RunDm, project: Path, home: Home) -> None:
    write_fetchers(project, '[a]\nkey = "local/a.txt"\nfetcher = "mine:broken"\n')
    with open_trusted(home, project) as manifest:
        with pytest.raises(dm.SourceFailed) as caught:
            manifest.fetch("a")
        assert isinstance(caught.value.__cause__, ValueError)
        assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
        outcome = manifest.fetch("a", check=False)
        assert outcome.error is not None and isinstance(outcome.error.__cause__, ValueError)
        with pytest.raises(dm.Failed) as several:
            manifest.fetch(["a"])
        assert isinstance(several.value.__cause__, dm.SourceFailed)
    message = assert_one_error(run_dm("fetch", env=TRUSTED), 5)
    assert "cannot fetch 'a': its fetcher mine:broken raised ValueError: no such year" == message
    told = run_dm("fetch", "--debug", env=TRUSTED).stderr.partition("Traceback")[2]
    positions = [told.index(text) for text in ("ZeroDivisionError: ", "ValueError: no such year", "SourceFailed: ")]
    assert sorted(positions) == positions
    assert 'mine.py", line' in told


def test_a_fetcher_may_fetch_what_another_fetcher_brings(ask: Ask, project: Path, home: Home) -> None:
    (project / "nested.py").write_text(
        "import dm\n"
        "def outer(download_path):\n"
        "    text = open(dm.fetch('inner')).read()\n"
        "    open(download_path, 'w').write(f'outer of {text}')\n"
        "def inner(download_path):\n"
        "    open(download_path, 'w').write('inner')\n"
    )
    write_manifest(
        project,
        '[outer]\nkey = "outer.txt"\nfetcher = "nested:outer"\n',
        '[inner]\nkey = "inner.txt"\nfetcher = "nested:inner"\n',
    )
    assert 0 == ask("fetch", "outer", env=TRUSTED).status
    assert "outer of inner" == default_copy(home, "outer.txt").read_text()
    declared = tomllib.loads((project / "datamanifest.toml").read_text())
    assert ["checksum", "checksum"] == [[*declared[name]][-1] for name in ("outer", "inner")]


def test_code_brings_data_of_a_manifest_in_memory_only_when_it_is_trusted(project: Path, home: Home) -> None:
    code = "from pathlib import Path\ndef get(download_path, version):\n    Path(download_path).write_text(version)\n"
    (project / "memory.py").write_text(code)
    tables = {"a": {"key": "a.txt", "version": "v7", "fetcher": "memory:get", "storage_path": "own/a.txt"}}
    surroundings = Environment.read()._replace(variables=home.variables(), home=home.path, working_folder=project)
    with dm.Manifest.of(tables, project_root=project, environment=surroundings) as manifest:
        with pytest.raises(dm.Refused) as caught:
            manifest.fetch("a")
        assert "untrusted" == caught.value.code
    with dm.Manifest.of(tables, project_root=project, environment=surroundings, trust=True) as manifest:
        assert project / "own/a.txt" == manifest.fetch("a").path
    assert "v7" == (project / "own/a.txt").read_text()
    assert (project / "own/a.txt").stat().st_mode & 0o200  # the user's own
    assert [] == list_litter(home, project)


def test_own_before_shell_before_uri(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    uri = http_server.put("/x", "uri")
    (project / "own.py").write_text("def get(download_path):\n    open(download_path, 'w').write('own')\n")
    write_program(project, "sh-get", 'printf shell > "$1"')
    shell, own = 'shell = "./sh-get $download_path"', 'fetcher = "own:get"'
    foreign = '_LANG.klingon.fetcher = "x:get"'
    write_manifest(
        project,
        f'[a]\nkey = "a"\nuri = "{uri}"\n{shell}\n{own}\n{foreign}\n',
        f'[b]\nkey = "b"\nuri = "{uri}"\n{shell}\n{foreign}\n',
        f'[c]\nkey = "c"\nuri = "{uri}"\n{foreign}\n',
        f'[d]\nkey = "d"\n_LANG.shell.fetcher = "./sh-get $download_path"\n{foreign}\n',
    )
    assert 0 == ask("fetch", env=TRUSTED).status
    assert ["own", "shell", "uri", "shell"] == [default_copy(home, name).read_text() for name in "abcd"]


# other languages


def test_a_fetcher_in_r_makes_a_dataset(ask: Ask, project: Path, home: Home) -> None:
    needs("Rscript")
    (project / "mine.R").write_text(
        'get <- function(download_path, key) writeLines(paste("by R:", key), download_path)\n'
        "fail <- function(download_path) stop('no such year')\n"
        'explicit <- function(to, words) writeLines(words, to)\n'
    )
    write_manifest(
        project,
        '[a]\nkey = "local/a.txt"\n_LANG.r.fetcher = "mine:get"\n',
        '[b]\nkey = "local/b.txt"\n_LANG.r.fetcher = "mine:fail"\n',
        '[c]\nkey = "local/c.txt"\n_LANG.r.fetcher = { ref = "mine:explicit", args = ["$download_path"],'
        ' kwargs = { words = ["$key", "x y"] } }\n',
    )
    answer = ask("fetch", env=TRUSTED)
    assert ["ok", "failed", "ok"] == [each["status"] for each in answer.outcomes], answer
    assert "by R: local/a.txt\n" == default_copy(home, "local/a.txt").read_text()
    assert "local/c.txt\nx y\n" == default_copy(home, "local/c.txt").read_text()
    assert (5, "fetcher-failed") == (answer.status, answer.outcomes[1]["code"])
    assert "no such year" in answer.outcomes[1]["message"]
    assert [] == list_litter(home, project)
    assert "unchanged" == ask("fetch", "a", env=TRUSTED).only["status"]


def test_a_language_without_a_runtime_is_passed_over_with_a_note(run_dm: RunDm, project: Path) -> None:
    write_manifest(project, '[a]\nkey = "a"\n_LANG.klingon.fetcher = "x:get"\n_LANG.r.fetcher = "x:get"\n')
    done = run_dm("fetch", env={**TRUSTED, "PATH": "/nowhere"})
    assert 5 == done.returncode
    assert [
        "'a': no runtime for klingon here; passing over it",
        "'a': no runtime for r here; passing over it",
        "dm: error: cannot fetch 'a': its only source is a fetcher in klingon and r, for which there is no runtime "
        "here",
        "hint: install klingon and r, or add a 'uri', 'shell' or 'fetcher'",
    ] == done.stderr.splitlines()


def test_delegation_is_switched_by_the_manifest_and_over_it_by_the_call(
    ask: Ask, project: Path, home: Home
) -> None:
    program = write_program(
        project,
        "datamanifest-klingon",
        'echo "$@" > "$(dirname "$0")/called"; mkdir -p "$6/local" && printf qapla > "$6/local/$2.txt"',
    )
    path = f"{project}:{os.environ['PATH']}"
    write_manifest(
        project,
        '[a]\nkey = "local/a.txt"\n_LANG.klingon.fetcher = "x:get"\n',
        '[b]\nkey = "local/b.txt"\ndelegate = false\n_LANG.klingon.fetcher = "x:get"\n',
    )
    surroundings = {**TRUSTED, "PATH": path}
    answer = ask("fetch", "--no-delegate", env=surroundings)
    told = "cannot fetch 'a': its only source is a fetcher in klingon, and --no-delegate is given"
    assert ([told], 5) == ([answer.outcomes[0]["message"]], answer.status)
    assert not (project / "called").exists()
    answer = ask("fetch", env=surroundings)
    assert ["ok", "failed"] == [each["status"] for each in answer.outcomes], answer
    assert "not-delegated" == answer.outcomes[1]["code"]
    assert "qapla" == default_copy(home, "local/a.txt").read_text()
    called = (project / "called").read_text().split()
    assert ["fetch", "a", "--datasets-toml", str(project / "datamanifest.toml"), "--datasets-folder"] == called[:5]
    assert 0 == ask("fetch", "--delegate", env=surroundings).status
    assert "qapla" == default_copy(home, "local/b.txt").read_text()
    assert [] == list_litter(home, project)
    assert program.exists()


# at once, interrupted, killed


def test_two_fetches_at_once_run_a_command_once(start_dm: StartDm, project: Path, home: Home) -> None:
    write_program(project, "slow", 'echo run >> runs.txt; sleep 1; printf x > "$1"')
    write_manifest(project, '[a]\nkey = "local/a.txt"\nshell = "./slow $download_path"\n')
    started = [start_dm("fetch", env=TRUSTED) for _ in range(3)]
    assert [0, 0, 0] == [wait_for(process)[0] for process in started]
    assert 1 == count_runs(project)
    assert [] == list_litter(home, project)


def wait_until(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends between the two
        return False


def test_ctrl_c_ends_the_command_with_its_children_and_releases_locks(
    start_dm: StartDm, ask: Ask, project: Path, home: Home
) -> None:
    write_program(project, "slow", 'sleep 600 & echo $! > child.new; echo $$ > own; mv child.new child; wait')
    write_manifest(project, '[a]\nkey = "local/a.txt"\nshell = "./slow $download_path"\n')
    process = start_dm("fetch", env=TRUSTED)
    wait_until(project / "child", process)
    process.send_signal(signal.SIGINT)
    assert 130 == wait_for(process)[0]
    assert not is_running(int((project / "own").read_text()))
    assert not is_running(int((project / "child").read_text()))
    assert [] == list_litter(home, project)
    write_program(project, "slow", 'printf x > "$1"')
    assert 0 == ask("fetch", env=TRUSTED).status


def test_ctrl_c_ends_dm_also_when_a_fetcher_hangs(start_dm: StartDm, project: Path, home: Home) -> None:
    write_fetchers(
        project,
        '[a]\nkey = "local/a.txt"\nfetcher = "mine:hang"\n',
        '[b]\nkey = "local/b.txt"\nfetcher = "mine:hang"\n',  # waits for its turn
    )
    process = start_dm("fetch", env=TRUSTED)
    wait_until(project / "started", process)
    process.send_signal(signal.SIGINT)
    assert 130 == wait_for(process)[0]
    assert [] == list_litter(home, project)


def test_after_a_kill_in_the_middle_of_a_command_the_next_run_makes_the_dataset(
    start_dm: StartDm, ask: Ask, project: Path, home: Home
) -> None:
    # It goes on without dm, and writes to a path that nobody looks at any more.
    write_program(project, "slow", 'echo half > "$1"; echo $$ > pid.new; mv pid.new pid; sleep 600; echo late >> "$1"')
    write_manifest(project, '[a]\nkey = "local/a.txt"\nshell = "./slow $download_path"\n')
    process = start_dm("fetch", env=TRUSTED)
    wait_until(project / "pid", process)
    kill(process)
    try:
        write_program(project, "slow", 'printf whole > "$1"')
        assert 0 == ask("fetch", env=TRUSTED).status
        assert "whole" == default_copy(home, "local/a.txt").read_text()
        assert [] == list_litter(home, project)
        assert [] == [*(store_root(home) / ".dm" / "partial").iterdir()]
    finally:
        os.killpg(int((project / "pid").read_text()), signal.SIGKILL)


def test_fail_fast_lets_a_running_command_end(ask: Ask, project: Path, home: Home) -> None:
    write_program(project, "slow", 'touch begun; sleep 1; printf x > "$1"')
    write_program(project, "fail", "while ! [ -e begun ]; do sleep 0.01; done; exit 1")
    write_manifest(
        project,
        '[a]\nkey = "local/a"\nshell = "./slow $download_path"\n',
        '[b]\nkey = "local/b"\nshell = "./fail"\n',
        '[c]\nkey = "local/c"\nrequires = ["a"]\nshell = "./slow $download_path"\n',
    )
    answer = ask("fetch", "--fail-fast", env=TRUSTED)
    assert (5, ["ok", "failed", "skipped"]) == (answer.status, [each["status"] for each in answer.outcomes])
    assert "not-tried" == answer.outcomes[2]["code"]
    assert "x" == default_copy(home, "local/a").read_text()
