"""Fetchers in R and Julia: called with their values as they are, through the language's own interpreter.

R is the real one. Julia is not, here: a stand-in on PATH records how it was called, so that what is held of Julia is
the call, not what Julia makes of it.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from dm.errors import Malformed, SourceFailed
from dm.plumbing.transport.command import Stopped
from dm.plumbing.transport.runtimes import find_module_file, find_runtime, run_foreign
from dm.values import Binding, Permission
from tests.fixtures.machine import needs

#: Everything that a shell, R or a command line could take for its own.
NASTY = "a 'b' \"c\" \\d $HOME `id` %0A {é} ~+~ -e x"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project root whose name needs care."""
    folder = tmp_path / f"root {NASTY.replace('/', '')}"
    (folder / "stage").mkdir(parents=True)
    return folder


@pytest.fixture
def r() -> str:
    return needs("Rscript")


def write_r(root: Path, code: str, name: str = "get") -> None:
    (root / f"{name}.R").write_text(code, encoding="utf-8")


def call(
    root: Path,
    ref: str,
    *args: object,
    language: str = "r",
    kwargs: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    variables: Mapping[str, str] | None = None,
    **settings: object,
) -> Path:
    """Call a fetcher of the project and return its download path."""
    path = root / "stage" / "the data.txt"
    binding = Binding(ref, args, kwargs or {}, f"[sst] _LANG.{language}.fetcher")
    options: dict[str, object] = {"should_stop": lambda: False, "permission": Permission(None), **settings}
    run_foreign(
        language,
        binding,
        download_path=path,
        context=context or {},
        project_root=root,
        variables=dict(os.environ) if variables is None else variables,
        **options,  # type: ignore[arg-type]
    )
    return path


# R: how it is called


def test_r_gets_the_download_path_and_what_it_names_of_the_context(root: Path, r: str) -> None:
    write_r(root, "get <- function(download_path, key, uri) writeLines(c(key, uri, getwd()), download_path)")
    context = {"uri": "https://x.org/a b", "key": NASTY, "version": "2", "doi": None}
    path = call(root, "get:get", context=context)
    assert [NASTY, "https://x.org/a b", str(root)] == path.read_text(encoding="utf-8").splitlines()


def test_r_gets_the_whole_context_where_it_takes_dots(root: Path, r: str) -> None:
    write_r(root, "get <- function(path, ...) writeLines(deparse(names(list(...))), path)")
    context = {"key": "k", "doi": None, "requires_paths": ["/a b", "/c"]}
    path = call(root, "get:get", language="R", context=context)
    assert 'c("project_root", "key", "requires_paths")\n' == path.read_text()


def test_r_takes_the_download_path_first_whatever_its_name_is(root: Path, r: str) -> None:
    write_r(root, "get <- function(to) writeLines('x', to)\nlast <- function(a = 1, download_path) get(download_path)")
    assert "x\n" == call(root, "get:get").read_text()
    assert "x\n" == call(root, "get:last").read_text()


SHOW = """
describe <- function(x) {
  texts <- if (is.numeric(x)) format(x, digits = 17) else x
  if (!is.list(x)) return(paste0(typeof(x), ":", paste(texts, collapse = "|")))
  names <- if (is.null(names(x))) "" else paste0(names(x), "=")
  paste0("list(", paste0(names, vapply(x, describe, ""), collapse = ", "), ")")
}
get <- function(path, x, ...) writeLines(describe(x), path)
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NASTY, f"character:{NASTY}"),
        ("two\nlines\r\n%", "character:two\nlines\r\n%"),
        ("", "character:"),
        (3, "integer:3"),
        (-(2**31) + 1, "integer:-2147483647"),
        (2**40, "double:1099511627776"),
        (0.1, "double:0.10000000000000001"),
        (float("inf"), "double:Inf"),
        (float("-inf"), "double:-Inf"),
        (float("nan"), "double:NaN"),
        (True, "logical:TRUE"),
        (False, "logical:FALSE"),
        (datetime.date(2020, 2, 1), "character:2020-02-01"),
        (["a", "b c"], "character:a|b c"),
        ([1, 2], "integer:1|2"),
        ([1, 2.5], "double:1.0|2.5"),
        ([1, "x"], "list(integer:1, character:x)"),
        ([[1, 2], [3]], "list(integer:1|2, integer:3)"),
        ([], "list()"),
        ({"a": 1, "b c": {"d": ["x"]}}, "list(a=integer:1, b c=list(d=character:x))"),
    ],
    ids=repr,
)
def test_r_gets_every_kind_of_value(root: Path, r: str, value: object, expected: str) -> None:
    write_r(root, SHOW)
    path = call(root, "get:get", str(root / "stage" / "the data.txt"), kwargs={"x": value})
    assert expected + "\n" == path.read_bytes().decode("utf-8")


def test_r_gets_its_arguments_and_nothing_else(root: Path, r: str) -> None:
    write_r(root, "get <- function(...) writeLines(deparse(list(...)), 'stage/the data.txt')")
    path = call(root, "get:get", "p", 1, kwargs={"n": "$kept"}, context={"key": "not passed"})
    assert 'list("p", 1L, n = "$kept")\n' == path.read_text()


def test_r_calls_the_function_of_an_installed_package(root: Path, r: str) -> None:
    path = call(root, "utils:write.csv", {"a": [1, 2]}, kwargs={"file": str(root / "stage" / "the data.txt")})
    assert '"","a"\n"1",1\n"2",2\n' == path.read_text()


def test_r_finds_a_file_in_a_folder_before_a_package_of_that_name(root: Path, r: str) -> None:
    (root / "scripts").mkdir()
    write_r(root, "sd <- function(path) writeLines('of the folder', path)", "scripts/stats")
    write_r(root, "sd <- function(path) writeLines('of the project', path)", "stats")
    assert "of the folder\n" == call(root, "scripts/stats:sd").read_text()
    assert "of the project\n" == call(root, "stats:sd").read_text()


def test_r_code_may_source_other_files_and_mask_what_the_caller_uses(root: Path, r: str) -> None:
    write_r(root, "whole <- function() 'from beside'\ncat <- quit <- tryCatch <- function(...) 'masked'", "parts")
    write_r(root, "source('parts.R')\nget <- function(path) writeLines(whole(), path)")
    assert "from beside\n" == call(root, "get:get").read_text()


def test_r_may_leave_a_folder(root: Path, r: str) -> None:
    write_r(root, "get <- function(p) { dir.create(p); for (n in c('a', 'é x')) writeLines(n, file.path(p, n)) }")
    path = call(root, "get:get")
    assert ["a", "é x"] == sorted(each.name for each in path.iterdir())


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_r_keeps_the_bytes_of_a_path_in_every_locale(root: Path, r: str, locale: str) -> None:
    write_r(root, "get <- function(download_path, key) file.create(paste0(download_path, key))")
    path = call(root, "get:get", context={"key": "-é 東"}, variables={**os.environ, "LC_ALL": locale})
    assert ["the data.txt-é 東"] == [each.name for each in path.parent.iterdir()]


def test_r_reads_no_profile_environment_or_workspace_of_the_project(root: Path, r: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".Renviron").write_text("FROM_HOME=yes\n")
    (root / ".Renviron").write_text("FROM_PROJECT=yes\n")
    (root / ".Rprofile").write_text("writeLines('profile', 'ran')\n")
    write_r(root, "make <- function(p) { old <- 1; save(old, file = '.RData') }", "make")
    write_r(root, "get <- function(p) writeLines(c(Sys.getenv(c('FROM_HOME', 'FROM_PROJECT')), exists('old')), p)")
    variables = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    call(root, "make:make", variables=variables)
    assert (root / ".RData").exists()
    assert "yes\n\nFALSE\n" == call(root, "get:get", variables=variables).read_text()
    assert not (root / "ran").exists()


def test_what_r_prints_is_told_line_by_line_and_goes_nowhere_else(
    root: Path, r: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_r(root, "get <- function(p) { print('chatter'); message('more'); warning('careful'); file.create(p) }")
    lines: list[str] = []
    call(root, "get:get", take_line=lines.append)
    assert ['[1] "chatter"', "more"] == lines[:2]
    assert any("careful" in line for line in lines[2:])
    assert ("", "") == tuple(capfd.readouterr())


def test_nothing_of_the_call_stays_beside_the_data(root: Path, r: str) -> None:
    write_r(root, "get <- function(p) writeLines(paste(list.files('stage'), file.info(Sys.glob('stage/*'))$mode), p)")
    path = call(root, "get:get")
    assert "the data.txt.call 600\n" == path.read_text()
    assert [path] == list(path.parent.iterdir())


def test_what_a_killed_run_left_of_its_call_is_replaced_and_never_followed(root: Path, r: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (root / "stage" / "the data.txt.call").symlink_to(victim)
    write_r(root, "get <- function(p) writeLines('x', p)")
    assert "x\n" == call(root, "get:get").read_text()
    assert "mine" == victim.read_text()


# R: how it fails


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("get <- function(p) stop('no such\n  station: é')", "no such station: é"),
        ("get <- function(p) sum('a')", "invalid 'type' (character) of argument"),
        ("get <- function(p) nothere + 1", "object 'nothere' not found"),
        ("get <- function(p) { cat('on the way'); quit(status = 3) }", "on the way"),
        ("get <- function(p) quit(status = 3)", "it ended with status 3"),
    ],
)
def test_an_error_of_r_is_exit_5_with_its_last_words(root: Path, r: str, code: str, message: str) -> None:
    write_r(root, code)
    with pytest.raises(SourceFailed) as caught:
        call(root, "get:get")
    assert f"'get:get' ([sst] _LANG.r.fetcher) failed in R: {message}" == caught.value.message
    assert ("fetcher-failed", 5) == (caught.value.code, caught.value.exit_status)
    assert [] == list((root / "stage").iterdir())


def test_an_error_of_r_is_told_with_the_calls_that_led_to_it(root: Path, r: str) -> None:
    write_r(root, "deeper <- function(n) if (n > 0) deeper(n - 1) else stop('here')\nget <- function(p) deeper(1)")
    lines: list[str] = []
    with pytest.raises(SourceFailed):
        call(root, "get:get", take_line=lines.append)
    assert ["  in deeper(1)", "  in deeper(n - 1)", '  in stop("here")', "here"] == lines


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("get:nothere", "'{root}/get.R' defines no function 'nothere'"),
        ("get:value", "'{root}/get.R' defines no function 'value'"),
        ("nosuchpackage:get", "there is no file 'nosuchpackage.R' in the project and no R package 'nosuchpackage'"),
        ("utils:nothere", "'nothere' is not an exported object from 'namespace:utils'"),
        ("datasets:cars", "'cars' of R package 'datasets' is no function"),
        ("broken:get", 'could not find function "stopp"'),
    ],
)
def test_a_function_of_r_that_cannot_be_had_is_a_broken_binding(root: Path, r: str, ref: str, message: str) -> None:
    write_r(root, "value <- 1")
    write_r(root, "stopp()", "broken")
    with pytest.raises(SourceFailed) as caught:
        call(root, ref)
    expected = message.format(root=root)
    assert f"cannot use '{ref}' ([sst] _LANG.r.fetcher): {expected}" == caught.value.message
    assert "binding-broken" == caught.value.code


def test_a_file_of_r_that_cannot_be_parsed_is_a_broken_binding_with_its_line(root: Path, r: str) -> None:
    write_r(root, "x <- 1\nget <- function( {\n")
    with pytest.raises(SourceFailed, match=r":2:18: unexpected") as caught:  # R cuts a long path in front of it
        call(root, "get:get")
    assert "binding-broken" == caught.value.code


def test_r_ends_when_the_run_stops(root: Path, r: str) -> None:
    write_r(root, "get <- function(p) { writeLines(as.character(Sys.getpid()), 'pid'); Sys.sleep(600) }")
    stop = threading.Event()

    def watch() -> None:
        while not (root / "pid").exists() or not (root / "pid").read_text().endswith("\n"):
            time.sleep(0.01)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    with pytest.raises(Stopped):
        call(root, "get:get", should_stop=stop.is_set)
    with pytest.raises(ProcessLookupError):
        os.kill(int((root / "pid").read_text()), 0)
    assert [] == list((root / "stage").iterdir())


# Refs, values and languages that are none


@pytest.mark.parametrize("ref", ["get", "get:", ":get", "../get:f", "/get:f", "a//b:f", ""])
def test_a_ref_that_names_no_function_is_malformed(root: Path, r: str, ref: str) -> None:
    with pytest.raises(Malformed) as caught:
        call(root, ref)
    assert f"'{ref}' ([sst] _LANG.r.fetcher) names no function" == caught.value.message
    assert 'write "module:function"' in (caught.value.hint or "")


def test_a_value_with_a_nul_is_malformed(root: Path, r: str) -> None:
    with pytest.raises(Malformed, match="a value holds a NUL character"):
        call(root, "get:get", "a\0b")


@pytest.mark.parametrize(("language", "program"), [("julia", "julia"), ("R", "Rscript"), ("cobol", "cobol")])
def test_a_missing_runtime_is_exit_5_and_named(root: Path, tmp_path: Path, language: str, program: str) -> None:
    variables = {"PATH": str(tmp_path / "empty")}
    assert find_runtime(language, variables) is None
    with pytest.raises(SourceFailed) as caught:
        call(root, "get:get", language=language, variables=variables)
    expected = f"cannot run 'get:get' ([sst] _LANG.{language}.fetcher): no {program} on PATH"
    assert (expected, "runtime-missing") == (caught.value.message, caught.value.code)
    assert "PATH" in (caught.value.hint or "")


def test_the_file_of_a_module_lies_below_the_project_root(root: Path) -> None:
    write_r(root, "")
    (root / "get.jl").touch()
    (root / "folder.R").mkdir()
    assert root / "get.R" == find_module_file("R", "get", root)
    assert root / "get.jl" == find_module_file("julia", "get", root)
    assert [None] * 4 == [find_module_file("r", module, root) for module in ("folder", "none", "../get", "get.R")]
    assert find_module_file("cobol", "get", root) is None


# Julia, by a stand-in


@pytest.fixture
def julia(tmp_path: Path) -> dict[str, str]:
    """The variables of an environment where ``julia`` writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "julia"
    program.write_text(
        f"""#!{sys.executable}
import json, os, sys
call = open(os.environ["DATAMANIFEST_CALL"], encoding="utf-8").read().splitlines()
record = {{"words": sys.argv[1:], "folder": os.getcwd(), "call": call}}
json.dump(record, open({str(tmp_path / "record.json")!r}, "w"))
print("chatter", flush=True)
words = os.environ.get("SAY", "").encode()
sys.stderr.buffer.write(words)
sys.exit(int(os.environ.get("STATUS", "0")))
"""
    )
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(tmp_path)}


def read_record(tmp_path: Path) -> dict[str, list[str]]:
    record: dict[str, list[str]] = json.loads((tmp_path / "record.json").read_text())
    return record


def test_julia_runs_the_fixed_script_in_the_project_root_with_the_call_in_a_file(
    root: Path, tmp_path: Path, julia: dict[str, str]
) -> None:
    (root / "get.jl").touch()
    path = call(root, "get:Inner.get", language="julia", context={"key": "k%\nx"}, variables=julia)
    record = read_record(tmp_path)
    assert (["--startup-file=no"], str(root)) == (record["words"][:-1], record["folder"])
    script = Path(record["words"][-1])
    assert "call_fetcher.jl" == script.name and script.is_file()
    expected = {"module": "get", "name": "Inner.get", "download_path": str(path), "file": str(root / "get.jl")}
    lines = ["t6"]
    for name, text in expected.items():
        lines += [f"s{name}", "s" + text.replace("%", "%25")]
    lines += ["sexplicit", "b0", "scontext", "t2", "sproject_root", "s" + str(root).replace("%", "%25")]
    assert [*lines, "skey", "sk%25%0Ax"] == record["call"]


def test_julia_gets_arguments_and_the_projects_own_environment(
    root: Path, tmp_path: Path, julia: dict[str, str]
) -> None:
    (root / "Project.toml").touch()
    call(root, "Pkg.Sub:get", "p", 2, language="Julia", kwargs={"n": [1.5, True]}, variables=julia)
    record = read_record(tmp_path)
    assert ["--startup-file=no", f"--project={root}"] == record["words"][:-1]
    at = record["call"].index("sexplicit")
    arguments = ["sargs", "l2", "sp", "i2", "skwargs", "t1", "sn", "l2", "f1.5", "b1"]
    assert ["sexplicit", "b1", *arguments] == record["call"][at:]
    assert "sfile" not in record["call"]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (81, "binding-broken", "cannot use 'm:f' ([sst] _LANG.julia.fetcher): UndefVarError: m"),
        (82, "fetcher-failed", "'m:f' ([sst] _LANG.julia.fetcher) failed in Julia: UndefVarError: m"),
        (1, "fetcher-failed", "'m:f' ([sst] _LANG.julia.fetcher) failed in Julia: UndefVarError: m"),
    ],
)
def test_how_julia_ended_is_told(root: Path, julia: dict[str, str], status: int, code: str, message: str) -> None:
    variables = {**julia, "STATUS": str(status), "SAY": "trace\nUndefVarError: m\n"}
    with pytest.raises(SourceFailed) as caught:
        call(root, "m:f", language="julia", variables=variables)
    assert (message, code) == (caught.value.message, caught.value.code)
