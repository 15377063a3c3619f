"""Commands of tests are forked from a process that has its imports done: they behave as commands that are started."""

from __future__ import annotations

import os
import pkgutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import dm
from tests.fixtures.commands import default_copy, write_manifest
from tests.fixtures.forks import ForkServer, run_fresh
from tests.fixtures.homes import COMMAND_TIMEOUT_S, Home, RunInterpreter, make_home
from tests.fixtures.servers import HttpServer

RunBoth = Callable[..., tuple[tuple[int, str, str], tuple[int, str, str]]]

SURROUNDINGS = """
import locale, os, resource, signal, sys, threading
print(__name__, sys.argv, sys.path, sys.flags.safe_path if "-P" in sys.argv else "")
print(sorted(os.environ.items()), os.getcwd(), sorted(os.listdir("/proc/self/fd"))[:-1])
print([(stream.encoding, stream.errors, stream.line_buffering, stream.isatty()) for stream in
       (sys.stdin, sys.stdout, sys.stderr)], locale.setlocale(locale.LC_ALL), sys.getfilesystemencodeerrors())
print([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)])
print(threading.active_count(), os.umask(0), resource.getrlimit(resource.RLIMIT_NOFILE), repr(sys.stdin.read()))
"""
#: Ends of a program: what it prints last and how it goes.
ENDS = {
    "nothing more": "print('a')",
    "a status": "import sys; print('a'); sys.exit(3)",
    "a status beyond a byte": "import sys; sys.exit(259)",
    "none": "import sys; sys.exit(None)",
    "a text": "import sys; sys.exit('bad')",
    "a signal": "import os; os.kill(os.getpid(), 15)",
    "Ctrl-C": "raise KeyboardInterrupt",
    "at once, nothing flushed": "import os; print('a'); os._exit(4)",
    "a thread that goes on": "import threading; threading.Timer(0.05, print, 'b').start()",
    "what was registered": "import atexit; atexit.register(print, 'b'); print('a')",
    "output that cannot be written": "import os; print('a'); os.close(1)",
    "bytes that are no text": "print('\\udcff\\r')",
}


@pytest.fixture
def run_both(tmp_path: Path, fork_server: ForkServer) -> RunBoth:
    """Run Python forked and fresh, in the same state of home and project: status, stdout and stderr of both."""

    def run(
        *arguments: str,
        prepare: Callable[[Home, Path], object] = lambda *_: None,
        input: str | None = None,
        **variables: str,
    ) -> tuple[tuple[int, str, str], tuple[int, str, str]]:
        found = []
        for start in (fork_server.run, run_fresh):
            home, project = make_home(tmp_path / "home"), tmp_path / "project"
            project.mkdir()
            prepare(home, project)
            env = {**home.variables(), **variables}
            done = start(arguments, cwd=project, env=env, input=input, timeout=COMMAND_TIMEOUT_S)
            found.append((done.returncode, done.stdout, done.stderr))
            for folder in (home.path, project):
                subprocess.run(["chmod", "-R", "u+w", folder], check=True)
                subprocess.run(["rm", "-rf", folder], check=True)
        return found[0], found[1]

    return run


@pytest.mark.parametrize(
    "arguments",
    [["-c", SURROUNDINGS, "x"], ["-P", "-c", SURROUNDINGS, "-P", "y z"], ["./sub/program.py", "x"], ["-m", "program"]],
    ids=["code", "safe", "script", "module"],
)
def test_a_forked_process_sees_what_a_fresh_one_sees(arguments: Sequence[str], run_both: RunBoth) -> None:
    def prepare(_home: Home, project: Path) -> None:
        (project / "sub").mkdir()
        for folder in (project, project / "sub"):
            (folder / "program.py").write_text(SURROUNDINGS + "print(__file__, __package__, __spec__ is None)")

    forked, fresh = run_both(*arguments, prepare=prepare, input="a\nb é", A="b é", EMPTY="")
    assert fresh == forked
    assert 0 == fresh[0], fresh


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_process_ends_as_a_fresh_one_ends(end: str, run_both: RunBoth) -> None:
    forked, fresh = run_both("-c", ENDS[end])
    if "Traceback" in fresh[2]:  # the frames above the program's are the server's
        forked, fresh = [(*each[:2], each[2].rpartition("\n  ")[2]) for each in (forked, fresh)]
    assert fresh == forked


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["fetch", "--json"],
        ["fetch", "no-such"],
        ["status", "-v"],
        ["verify", "--json"],
        ["show", "a"],
        ["path", "b"],
        ["no-such-command"],
        ["--help"],
        ["prune", "--dry-run"],
        ["hash-object", "a.csv"],
        ["-C", "no-such-folder", "list"],
    ],
    ids=" ".join,
)
def test_a_forked_command_answers_as_a_fresh_one_does(
    words: list[str], run_both: RunBoth, http_server: HttpServer
) -> None:
    uri = http_server.put("/a.csv", b"1,2\n")

    def prepare(home: Home, project: Path) -> None:
        (project / "a.csv").write_bytes(b"1,2\n")
        write_manifest(project, f'[a]\nkey = "a.csv"\nuri = "{uri}"\n', '[b]\nkey = "b.csv"\nuri = "file:///no/such"\n')
        copy = default_copy(home, "a.csv")
        copy.parent.mkdir(parents=True)
        copy.write_bytes(b"3,4\n")
        os.utime(copy, (1e9, 1e9))

    forked, fresh = run_both("-m", "dm", *words, prepare=prepare)
    assert fresh == forked


def test_what_python_reads_at_its_start_is_given_to_a_fresh_one(run_interpreter: RunInterpreter) -> None:
    script = "import sys; print(sys.stdout.encoding, sys.flags.optimize, sys.flags.utf8_mode)"
    assert "utf-8 0 0\n" == run_interpreter("-c", script).stdout
    env = {"PYTHONIOENCODING": "latin-1", "PYTHONOPTIMIZE": "2", "PYTHONUTF8": "1"}
    assert "iso8859-1 2 1\n" == run_interpreter("-c", script, env=env).stdout
    assert "1\n" == run_interpreter("-O", "-c", "import sys; print(sys.flags.optimize)").stdout


@pytest.mark.fresh_process
def test_a_test_can_ask_for_fresh_processes(run_interpreter: RunInterpreter) -> None:
    assert "False\n" == run_interpreter("-c", "import sys; print('dm.values' in sys.modules)").stdout


def test_state_of_one_forked_process_is_not_seen_by_the_next(run_interpreter: RunInterpreter) -> None:
    change = "import dm.values, os; dm.values.left = 1; os.environ['LEFT'] = '1'; os.chdir('/'); os.umask(0o77)"
    look = "import dm.values, os; print(hasattr(dm.values, 'left'), 'LEFT' in os.environ, os.getcwd(), os.umask(0))"
    before = run_interpreter("-c", look).stdout
    assert 0 == run_interpreter("-c", change).returncode
    assert before == run_interpreter("-c", look).stdout


def test_every_module_can_be_the_first_to_be_imported(run_interpreter: RunInterpreter) -> None:
    names = [each.name for each in pkgutil.walk_packages(dm.__path__, "dm.") if not each.name.endswith("__main__")]
    script = """
import importlib, os, sys
for name in [name for name in sys.modules if name.partition(".")[0] == "dm"]:
    del sys.modules[name]
for name in sys.argv[1:]:
    if os.fork() == 0:
        importlib.import_module(name)
        os._exit(0)
    if os.wait()[1]:
        print(name)
"""
    done = run_interpreter("-c", script, *names)
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert len(names) > 100
