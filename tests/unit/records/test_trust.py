"""What a manifest would run, what the user allowed of it, and the permission that comes of it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from dm.environment import Environment
from dm.errors import DmError, MachineFailed, Refused
from dm.plumbing.formats.loaders import find_loader as find_built_in_loader
from dm.plumbing.records import trust as trust_module
from dm.plumbing.records.location import Location
from dm.plumbing.records.manifest import Manifest
from dm.plumbing.records.opening import open_places
from dm.plumbing.records.trust import Record, Trust, TrustStore, is_given, keep_trust, permit_own
from dm.plumbing.records.trust_parts import KINDS, Part, Parts
from dm.progress import SilentProgress
from dm.values import Permission


class Listener(SilentProgress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Desk:
    """A project with a user beside it."""

    def __init__(self, base: Path) -> None:
        self.root = base / "project"
        self.root.mkdir()
        self.path = self.root / "datamanifest.toml"
        self.heard = Listener()
        self.environment = Environment(
            {"XDG_CONFIG_HOME": str(base / "config"), "XDG_DATA_HOME": str(base / "data")}, base, self.root, "host", 1
        )
        self.store = TrustStore(self.environment, progress=self.heard)

    def write(self, text: str) -> None:
        self.path.write_text("[_META]\nschema = 1\n" + text)

    def open(self, text: str | None = None, **options: Any) -> Trust:
        if text is not None:
            self.write(text)
        manifest = Manifest.read(self.path)
        return Trust(manifest, open_places(manifest, self.environment), store=self.store, **options)

    def parts(self, text: str) -> list[tuple[str, str, str]]:
        return [tuple(part) for part in self.open(text).list_parts() if part.kind not in ("files", "file")]

    def allow(self) -> None:
        trust = self.open()
        self.store.allow(self.path, trust.list_parts())

    def record(self) -> Path:
        return self.store.path_of(self.path)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def demand(trust: Trust) -> Permission:
    return trust.demand("fetch 'sst'", "shell: python get.py")


def refusal(trust: Trust) -> Refused:
    with pytest.raises(Refused) as caught:
        demand(trust)
    assert ("untrusted", 6) == (caught.value.code, caught.value.exit_status)
    return caught.value


SHELL = '[sst]\nkey = "sst"\nshell = "python get.py"\n'

# parts ----------------------------------------------------------------------------------------------------------------


def test_a_manifest_of_plain_uris_has_no_parts(desk: Desk) -> None:
    trust = desk.open('[sst]\nuri = "https://example.org/sst.nc"\nchecksum = "md5:d41d8cd98f00b204e9800998ecf8427e"\n')
    assert [] == trust.list_parts()
    assert not trust.is_needed()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[a]\nkey = "a"\nshell = "python get.py"\n', ("shell", "a", "python get.py")),
        ('[a]\nkey = "a"\n[a._LANG.shell]\nfetcher = "sh get.sh"\n', ("shell", "a", "sh get.sh")),
        ('[a]\nkey = "a"\nfetcher = "mod:get"\n', ("fetcher", "a", "mod:get")),
        ('[a]\nkey = "a"\npython = "mod:get"\n', ("fetcher", "a", "mod:get")),
        ('[a]\nkey = "a"\n[a._LANG.python]\nfetcher = "mod:get"\n', ("fetcher", "a", "mod:get")),
        ('[a]\nkey = "a"\nfetcher = { ref = "m:f", args = [1, "x"] }\n', ("fetcher", "a", "m:f(1, 'x')")),
        ('[a]\nkey = "a"\nfetcher = { ref = "m:f", kwargs = { b = 2 } }\n', ("fetcher", "a", "m:f(b=2)")),
        ('[a]\nkey = "a"\n[a._LANG.julia]\nfetcher = "Mod:get"\n', ("foreign", "a (julia)", "Mod:get")),
        ('[a]\nkey = "a"\n[a._LANG.r]\nfetcher = "mod:get"\n', ("foreign", "a (r)", "mod:get")),
        ('[a]\nkey = "a"\nloader = "mod:read"\n', ("loader", "a", "mod:read")),
        ('[a]\nkey = "a"\n[a._LANG.python]\nloader = "mod:read"\n', ("loader", "a", "mod:read")),
        ('[_LOADERS]\nCSV = "mod:read"\n', ("format-loader", "csv", "mod:read")),
        ('[_LANG.python.loaders]\nnc = "mod:read"\n', ("format-loader", "nc", "mod:read")),
        ('[_SAVERS]\nCSV = "mod:write"\n', ("format-saver", "csv", "mod:write")),
        ('[_LANG.python.savers]\nnc = "mod:write"\n', ("format-saver", "nc", "mod:write")),
        (
            '[_SAVERS]\nnc = { ref = "m:f", args = ["$value", "$path", 3] }\n',
            ("format-saver", "nc", "m:f('$value', '$path', 3)"),
        ),
        ('[a]\nuri = "https://x.org/a.pkl"\n', ("pickle", "a", "https://x.org/a.pkl (no checksum)")),
        ('[a]\nuri = "https://x.org/a"\nformat = "PICKLE"\n', ("pickle", "a", "https://x.org/a (no checksum)")),
        ('[a]\nkey = "a"\nfetcher = 5\n', ("code", "a", "{'fetcher': 5, 'python': None, '_LANG': None}")),
        ('[a]\nkey = "a"\nloader = [1]\n', ("code", "a (loader)", "[1]")),
        ("[_SAVERS]\ncsv = 5\n", ("code", "[_SAVERS]", "{'_SAVERS': {'csv': 5}, '_LANG': None}")),
        ("[_LOADERS]\ncsv = 5\n", ("code", "[_LOADERS]", "{'_LOADERS': {'csv': 5}, '_LANG': None}")),
    ],
)
def test_each_way_to_name_code_is_a_part(desk: Desk, text: str, expected: tuple[str, str, str]) -> None:
    try:
        assert [expected] == desk.parts(text)
    except DmError as error:
        # the manifest refuses it when it is read: nothing runs
        assert "malformed" in error.code or "wrong" in error.code, error


def test_a_malformed_loader_does_not_hide_the_ones_before_it(desk: Desk) -> None:
    parts = desk.parts('[_LOADERS]\ncsv = "mod:read"\nnc = 5\n')
    assert ("format-loader", "csv", "mod:read") in parts
    assert "code" in [kind for kind, _, _ in parts]


def test_a_table_of_another_language_is_a_part_where_its_fetchers_may_run(desk: Desk) -> None:
    top = '[_LANG.julia]\nincludes = ["evil.jl"]\n'
    assert [] == desk.parts(top)
    parts = desk.parts(top + '[a]\nkey = "a"\n[a._LANG.julia]\nfetcher = "Mod:get"\n')
    assert ("code", "[_LANG.julia]", "{'includes': ['evil.jl']}") in parts


def test_what_a_command_gets_from_the_manifest_is_part_of_it(desk: Desk) -> None:
    text = '[a]\nuri = "https://x.org/a#2"\ndoi = "10.1/x"\nbranch = "main"\nshell = "get $version ${branch} $uri"\n'
    (part,) = desk.parts(text)
    expected = "get $version ${branch} $uri   [$branch = 'main', $uri = 'https://x.org/a#2', $version = '2']"
    assert ("shell", "a", expected) == part


def test_the_data_that_a_command_is_given_is_part_of_it(desk: Desk) -> None:
    parts = desk.parts(
        '[a]\nkey = "a"\nrequires = ["b"]\nshell = "sh $path_b"\n'
        '[b]\nuri = "https://x.org/b"\nchecksum = "md5:d41d8cd98f00b204e9800998ecf8427e"\n'
    )
    contract = "md5:d41d8cd98f00b204e9800998ecf8427e"
    assert [("shell", "a", f"sh $path_b   [requires 'b': https://x.org/b ({contract})]")] == parts


def test_places_outside_are_parts_whoever_sets_them(desk: Desk, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    expected = [("place", str(outside), str(outside))]
    assert expected == desk.parts(f'[a]\nuri = "https://x.org/a"\nstorage_path = "{outside}/$key"\n')
    assert expected == desk.parts(f'[_STORAGE]\nbig = "{outside}"\n[a]\nuri = "https://x.org/a"\nstore = "$big"\n')
    assert expected == desk.parts(f'[_STORAGE]\nunused = "{outside}"\n')
    assert expected == desk.parts(f'[_STORAGE]\ndatasets_dir = "{outside}"\n')
    (desk.root / ".datamanifest").mkdir()
    (desk.root / ".datamanifest" / "config.toml").write_text(f'data = "{outside}"\n')
    assert expected == desk.parts("")


def test_places_that_the_user_names_are_no_parts(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "config" / "datamanifest").mkdir(parents=True)
    (tmp_path / "config" / "datamanifest" / "config.toml").write_text(f'big = "{tmp_path / "outside"}"\n')
    assert [] == desk.parts('[a]\nuri = "https://x.org/a"\nstore = "$big"\n')


def test_a_place_has_where_it_really_is_in_it(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (desk.root / "data").symlink_to(tmp_path / "real")
    parts = desk.parts('[a]\nuri = "https://x.org/a"\nstorage_path = "data/$key"\n')
    assert [("place", str(desk.root / "data"), str(tmp_path / "real"))] == parts


def test_words_of_commands_are_pinned_wherever_they_stand(desk: Desk) -> None:
    for name in ("a.sh", "b.py", "c.cfg", "d.sh", "e-2.py", "mod.py", "Makefile", ".Rprofile", "x.R"):
        (desk.root / name).write_text("x")
    commands = [
        "sh a.sh",
        "python $project_root/b.py",
        "run --config=c.cfg",
        "bash -c 'cd . && ./d.sh $key'",
        "python e-$version.py",
        "python -m mod",
        "make data",
        "Rscript x.R",
    ]
    text = "".join(
        f"[d{number}]\nkey = 'd{number}'\nversion = '2'\nshell = \"{command}\"\n"
        for number, command in enumerate(commands)
    )
    files = {part.name for part in desk.open(text).list_parts() if part.kind == "file"}
    assert {"a.sh", "b.py", "c.cfg", "d.sh", "e-2.py", "mod.py", "Makefile", ".Rprofile", "x.R"} == files


@pytest.mark.parametrize(
    "fields",
    [
        "shell = \"sh -c './get.sh;ls'\"",
        "shell = \"sh -c 'ls>x;cat<get.sh'\"",
        'shell = "sh -c \'echo $(cat get.sh)\'"',
        'shell = "run --files=other,get.sh"',
        'shell = "run @get.sh"',
        'shell = "make -fget.sh"',
        'key = "get.sh"\nshell = "sh $key"',
        'uri = "https://get.sh"\nshell = "sh $key"',
        'uri = "https://x.org/a#get.sh"\nshell = "sh $version"',
        'doi = "$branch.sh"\nbranch = "no"\nuri = "https://x.org/a?format=get.sh"\nshell = "sh ${format}"',
        'fetcher = { ref = "runpy:run_path", args = ["$project_root/get.sh"] }',
        'loader = { ref = "runpy:run_path", kwargs = { paths = { one = ["get.sh"] } } }',
        '[a._LANG.julia]\nfetcher = { ref = "Mod:get", args = ["get.sh"] }',
        '[_LOADERS]\nnc = { ref = "subprocess:run", args = [["sh", "get.sh"]] }',
        '[_SAVERS]\nnc = { ref = "subprocess:run", args = [["sh", "get.sh", "$value", "$path"]] }',
    ],
)
def test_a_file_that_a_command_or_an_argument_names_in_any_way_is_pinned(desk: Desk, fields: str) -> None:
    (desk.root / "get.sh").write_text("x")
    parts = desk.open(f"[a]\n{fields}\n").list_parts()
    assert ["get.sh"] == [part.name for part in parts if part.kind == "file"]


@pytest.mark.parametrize("command", ["python -m gzip x", "python -Im gzip", "python3 -mgzip", "sh -c 'python -m gzip'"])
def test_python_m_finds_the_projects_files_before_the_standard_library(desk: Desk, command: str) -> None:
    for name in ("gzip.py", "random.py", "json/__init__.py", "data/x.csv"):
        (desk.root / name).parent.mkdir(exist_ok=True)
        (desk.root / name).write_text("x")
    parts = desk.open(f'[a]\nkey = "a"\nshell = "{command}"\n').list_parts()
    assert ["gzip.py", "json/__init__.py", "random.py"] == [part.name for part in parts if part.kind == "file"]
    assert ["python module gzip (-m)"] == [part.name for part in parts if part.name.startswith("python module ")]


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import own", ["own"]),
        ("import sys, own as o; o.run()", ["own", "sys"]),
        ("from own import run", ["own.run"]),
        ("from tools import own", ["tools.own"]),
        ("import os;from tools.own import (run)", ["os", "tools.own.run"]),
        ("from tools.own import *", ["tools.own"]),
    ],
)
@pytest.mark.parametrize("command", ["python -c '{}' $download_path", "env X=1 python3.11 -Ic '{}'", "python -c'{}'"])
def test_what_python_c_imports_is_pinned(desk: Desk, command: str, code: str, modules: list[str]) -> None:
    for name in ("own.py", "beside.py", "tools/own.py", "tools/more.py", "data/x.csv"):
        (desk.root / name).parent.mkdir(exist_ok=True)
        (desk.root / name).write_text("x")
    parts = desk.open(f'[a]\nkey = "a"\nshell = "{command.format(code)}"\n').list_parts()
    inside = ["tools/more.py", "tools/own.py"] if "tools" in code else []
    assert ["beside.py", "own.py", *inside] == [part.name for part in parts if part.kind == "file"]
    named = {part.name.split()[2] for part in parts if part.name.startswith("python module ")}
    assert set() == set(modules) - named


@pytest.mark.parametrize(
    ("command", "file"), [("snakemake all", "workflow/Snakefile"), ("just data", "justfile"), ("doit", "dodo.py")]
)
def test_what_a_program_reads_unasked_is_pinned(desk: Desk, command: str, file: str) -> None:
    (desk.root / file).parent.mkdir(exist_ok=True)
    (desk.root / file).write_text("x")
    parts = desk.open(f'[a]\nkey = "a"\nshell = "{command}"\n').list_parts()
    assert [file] == [part.name for part in parts if part.kind == "file"]


def test_an_unclosed_quote_hides_no_word(desk: Desk) -> None:
    (desk.root / "get.sh").write_text("x")
    parts = desk.open('[a]\nkey = "a"\nshell = "sh get.sh \'open"\n').list_parts()
    assert ["get.sh"] == [part.name for part in parts if part.kind == "file"]


@pytest.mark.parametrize("spelling", ["pickle", "pkl", "PKL", ".pickle", " pkl "])
def test_every_format_that_a_loader_runs_code_for_is_a_pickle_part(desk: Desk, spelling: str) -> None:
    built_in = find_built_in_loader(spelling)
    assert built_in is not None and built_in.runs_code
    parts = desk.parts(f'[a]\nuri = "https://x.org/a"\nformat = "{spelling}"\n')
    assert ["pickle"] == [kind for kind, _, _ in parts]


def test_every_part_has_a_kind_that_is_described(desk: Desk) -> None:
    text = SHELL + '[b]\nuri = "https://x.org/b.pkl"\n[c]\nuri = "https://x.org/c"\nstorage_path = "/outside/c"\n'
    assert {part.kind for part in desk.open(text).list_parts()} <= set(KINDS)


# permission -----------------------------------------------------------------------------------------------------------


def test_without_a_word_of_the_user_nothing_runs(desk: Desk) -> None:
    error = refusal(desk.open(SHELL))
    expected = "cannot fetch 'sst': it would run shell: python get.py, and you have not allowed what this manifest runs"
    assert expected == error.message
    assert "dm trust shows all of it, and asks" == error.hint


def test_what_was_allowed_runs_and_the_permission_names_its_manifest(desk: Desk) -> None:
    desk.write(SHELL)
    desk.allow()
    trust = desk.open()
    assert desk.path == demand(trust).manifest
    assert trust.covers()


def test_a_refusal_is_one_line_whatever_the_manifest_says(desk: Desk) -> None:
    trust = desk.open(SHELL)
    with pytest.raises(Refused) as caught:
        trust.demand("fetch 'a\nb'", "shell: x\u202e\x1b[2J\ny")
    assert caught.value.message.isprintable()
    assert "\\u202e\\x1b[2J\\ny" in caught.value.message


CHANGES = {
    "another command": SHELL.replace("get.py", "other.py"),
    "a second command": SHELL + '[b]\nkey = "b"\nshell = "ls"\n',
    "the same command for another dataset": SHELL.replace("sst", "ssh"),
    "a fetcher": SHELL + '[b]\nkey = "b"\nfetcher = "mod:get"\n',
    "a foreign fetcher": SHELL + '[b]\nkey = "b"\n[b._LANG.r]\nfetcher = "mod:get"\n',
    "a loader": SHELL + 'loader = "mod:read"\n',
    "a loader by format": SHELL + '[_LOADERS]\ncsv = "mod:read"\n',
    "a saver by format": SHELL + '[_SAVERS]\ncsv = "mod:write"\n',
    "pickle data": SHELL + '[b]\nuri = "https://x.org/b.pkl"\n',
    "a place": SHELL + '[b]\nuri = "https://x.org/b"\nstorage_path = "/outside/b"\n',
    "a folder root": SHELL + '[_STORAGE]\nbig = "/outside"\n',
}


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES.keys())
def test_any_new_or_changed_part_stops_everything(desk: Desk, text: str) -> None:
    desk.write(SHELL)
    desk.allow()
    error = refusal(desk.open(text))
    assert "what this manifest runs has changed since you allowed it: " in error.message
    assert "dm trust shows the difference, and asks" == error.hint


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('shell = "get $version"\nversion = "1"', 'shell = "get $version"\nversion = "2"'),
        ('fetcher = "m:f"', 'fetcher = { ref = "m:f", args = [1] }'),
        ('fetcher = { ref = "m:f", args = [1] }', 'fetcher = { ref = "m:f", args = ["1"] }'),
        ('loader = "m:f"', 'loader = "m:g"'),
        ('uri = "https://x.org/a.pkl"', 'uri = "https://y.org/a.pkl"'),
        ('uri = "https://x.org/a.pkl"', f'uri = "https://x.org/a.pkl"\nchecksum = "md5:{"0" * 32}"'),
        ('uri = "https://x.org/a"\nstorage_path = "/out/a"', 'uri = "https://x.org/a"\nstorage_path = "/out2/a"'),
    ],
)
def test_a_part_that_changes_asks_again(desk: Desk, before: str, after: str) -> None:
    table = "[a]\n" if "uri" in before else '[a]\nkey = "a"\n'
    desk.write(f"{table}{before}\n")
    desk.allow()
    assert desk.open().covers()
    desk.write(f"{table}{after}\n")
    assert not desk.open().covers()


def test_what_is_gone_and_what_runs_nothing_may_change(desk: Desk) -> None:
    desk.write(SHELL + '[b]\nkey = "b"\nshell = "ls"\n[c]\nuri = "https://x.org/c"\n')
    desk.allow()
    desk.write(SHELL + '[c]\nuri = "https://y.org/c"\ndescription = "new"\n[d]\nuri = "https://x.org/d"\n')
    assert desk.open().covers()


FILE_CHANGES = {
    "content": lambda root: (root / "pkg" / "get.py").write_text("import os\n"),
    "a new file in the package": lambda root: (root / "pkg" / "new.py").write_text(""),
    "a deleted file": lambda root: (root / "pkg" / "more.py").unlink(),
    "a renamed file": lambda root: (root / "pkg" / "more.py").rename(root / "pkg" / "other.py"),
    "a new sibling": lambda root: (root / "beside.py").write_text(""),
    "a changed sibling": lambda root: (root / "tools.py").write_text("x"),
    "a saver": lambda root: (root / "writers" / "__init__.py").write_text("x"),
    "a sibling that is bytecode": lambda root: (root / "numpy.pyc").write_text("x"),
    "a file that a command names": lambda root: (root / "get.sh").write_text("rm"),
    "that file is gone": lambda root: (root / "get.sh").unlink(),
    "that file is a link now": lambda root: (
        (root / "real.sh").write_text("sh\n"),
        (root / "get.sh").unlink(),
        (root / "get.sh").symlink_to("real.sh"),
    ),
    "a word that becomes a file": lambda root: (root / "later.cfg").write_text("x"),
    "what a link leads to": lambda root: (root.parent / "shared.py").write_text("import os\n"),
    "where a link leads": lambda root: (
        (root.parent / "same.py").write_text(""),
        (root / "pkg" / "linked.py").unlink(),
        (root / "pkg" / "linked.py").symlink_to(root.parent / "same.py"),
    ),
    "a folder becomes a package": lambda root: (root / "numpy" / "__init__.py").write_text(""),
    "an installed module's name in the project": lambda root: (root / "xarray.py").write_text(""),
    "the r module": lambda root: (root / "get.R").write_text("x"),
    "the r profile": lambda root: (root / ".Rprofile").write_text("x"),
    "the julia project": lambda root: (root / "Project.toml").write_text("x"),
    "the julia sources": lambda root: ((root / "src").mkdir(), (root / "src" / "M.jl").write_text("x")),
    "a file for a folder": lambda root: ((root / "pkg" / "more.py").unlink(), (root / "pkg" / "more.py").mkdir()),
}


@pytest.mark.parametrize("change", FILE_CHANGES.values(), ids=FILE_CHANGES.keys())
def test_any_change_of_a_pinned_file_asks_again_in_the_same_session(desk: Desk, change: Any) -> None:
    root = desk.root
    for folder in ("pkg", "numpy", "writers"):
        (root / folder).mkdir()
    for name in ("pkg/__init__.py", "pkg/get.py", "pkg/more.py", "tools.py", "numpy/data.txt", "writers/__init__.py"):
        (root / name).write_text("")
    (root.parent / "shared.py").write_text("")
    (root / "pkg" / "linked.py").symlink_to(root.parent / "shared.py")
    (root / "get.sh").write_text("sh\n")
    trust = desk.open(
        '[a]\nkey = "a"\nfetcher = "pkg.get:run"\n[b]\nkey = "b"\nfetcher = "tools:run"\n'
        '[c]\nkey = "c"\nshell = "sh get.sh --config=later.cfg"\n[d]\nkey = "d"\nloader = "numpy.lib:load"\n'
        '[e]\nkey = "e"\n[e._LANG.r]\nfetcher = "get:run"\n[f]\nkey = "f"\n[f._LANG.julia]\nfetcher = "M:run"\n'
        '[_LOADERS]\nnc = "xarray:open_dataset"\n[_SAVERS]\nnc = "writers:save"\n'
    )
    desk.allow()
    assert isinstance(demand(trust), Permission)
    change(root)
    assert "has changed since you allowed it" in refusal(trust).message


def test_files_of_a_module_that_are_all_gone_ask_again(desk: Desk) -> None:
    (desk.root / "src").mkdir()
    (desk.root / "src" / "M.jl").write_text("")
    (desk.root / "Project.toml").write_text("")
    trust = desk.open('[f]\nkey = "f"\n[f._LANG.julia]\nfetcher = "M:run"\n')
    desk.allow()
    (desk.root / "src" / "M.jl").unlink()
    (desk.root / "src").rmdir()
    refusal(trust)


def test_what_is_not_pinned_may_change(desk: Desk) -> None:
    (desk.root / "pkg").mkdir()
    (desk.root / "pkg" / "__init__.py").write_text("")
    trust = desk.open('[a]\nkey = "a"\nfetcher = "pkg:run"\n')
    desk.allow()
    (desk.root / "pkg" / "__pycache__").mkdir()
    (desk.root / "pkg" / "__pycache__" / "x.pyc").write_text("x")
    (desk.root / "notes.md").write_text("x")
    (desk.root / "beside.py").write_text("x")
    assert isinstance(demand(trust), Permission)


def test_a_record_that_is_taken_back_counts_at_once(desk: Desk) -> None:
    trust = desk.open(SHELL)
    desk.allow()
    demand(trust)
    assert desk.store.revoke(desk.path)
    refusal(trust)
    assert not desk.store.revoke(desk.path)


def test_too_much_to_look_at_is_refused_when_something_is_to_run(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dm.plumbing.records import pinned

    (desk.root / "pkg").mkdir()
    for name in ("__init__.py", "a.py", "b.py"):
        (desk.root / "pkg" / name).write_text("")
    trust = desk.open('[a]\nkey = "a"\nfetcher = "pkg:run"\n')
    desk.allow()
    monkeypatch.setattr(pinned, "ENTRIES_MAX", 2)
    with pytest.raises(Refused) as caught:
        demand(trust)
    assert "pin-too-large" == caught.value.code


def test_many_parts_are_not_looked_at_for_each_of_many_uses(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "_PARTS_LOOKED_AT_ALWAYS", 0)
    trust = desk.open(SHELL)
    desk.allow()
    looks = []
    read = trust._parts.read
    monkeypatch.setattr(trust._parts, "read", lambda: looks.append(1) or read())
    monkeypatch.setattr(trust_module, "read_monotonic_s", iter([0.0, 1.0, 5.0, 10.5, 11.0, 11.0]).__next__)
    for _ in range(3):
        demand(trust)
    assert 2 == len(looks)


# given ----------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_given_trust_runs_anything_and_records_nothing(desk: Desk) -> None:
    trust = desk.open(SHELL, given=True)
    assert isinstance(demand(trust), Permission)
    assert trust.covers()
    assert not desk.store.folder.exists()


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False), ("true", False), ("2", False)])
def test_only_1_in_the_environment_gives_trust(desk: Desk, value: str, expected: bool) -> None:
    variables = {**desk.environment.variables, "DATAMANIFEST_TRUST": value}
    assert expected == is_given(desk.environment._replace(variables=variables))


def test_neither_manifest_nor_config_can_give_trust(desk: Desk, tmp_path: Path) -> None:
    (desk.root / ".datamanifest").mkdir()
    (desk.root / ".datamanifest" / "config.toml").write_text('trust = "1"\nDATAMANIFEST_TRUST = "1"\n')
    (tmp_path / "config" / "datamanifest").mkdir(parents=True)
    (tmp_path / "config" / "datamanifest" / "config.toml").write_text('trust = "1"\n')
    refusal(desk.open('[_STORAGE]\ntrust = "1"\n' + SHELL))


def test_a_manifest_in_memory_is_trusted_by_its_maker_only(desk: Desk) -> None:
    manifest = Manifest.of_tables({"sst": {"key": "sst", "shell": "ls"}}, project_root=desk.root)
    places = open_places(manifest, desk.environment)
    error = refusal(Trust(manifest, places, store=desk.store))
    assert error.message.endswith("and it is named by a manifest in memory, which is not trusted")
    assert "if all of it is yours, pass trust=True where the manifest is made" == error.hint
    assert demand(Trust(manifest, places, store=desk.store, given=True)).manifest is None


def test_what_a_session_read_first_has_to_be_allowed_as_well(desk: Desk) -> None:
    earlier = desk.open('[sst]\nkey = "sst"\nshell = "evil"\n')
    trust = desk.open(SHELL, earlier=earlier)
    desk.allow()
    assert desk.open().covers()
    assert not trust.covers()


# places ---------------------------------------------------------------------------------------------------------------


def locate(path: Path) -> Location:
    return Location(path, None, False, "", ())


def test_a_place_is_allowed_with_what_lies_below_it_and_no_other(desk: Desk, tmp_path: Path) -> None:
    trust = desk.open('[a]\nuri = "https://x.org/a"\nstorage_path = "/outside/$key"\n')
    assert not trust.allows_place(locate(Path("/outside/x.org/a")))
    desk.allow()
    assert trust.allows_place(locate(Path("/outside/x.org/a")))
    assert not trust.allows_place(locate(Path("/outside2/x.org/a")))
    assert not trust.allows_place(locate(Path("/etc/passwd")))


def test_a_place_that_a_link_leads_out_of_is_not_allowed(desk: Desk, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    trust = desk.open(f'[a]\nuri = "https://x.org/a"\nstorage_path = "{outside}/$key"\n')
    desk.allow()
    (outside / "x.org").symlink_to(tmp_path)
    assert not trust.allows_place(locate(outside / "x.org" / "a"))


def test_a_folder_that_git_obeys_is_no_place_whatever_was_allowed(desk: Desk) -> None:
    (desk.root / ".git" / "hooks").mkdir(parents=True)
    (desk.root / "data").symlink_to(".git/hooks")
    trust = desk.open('[a]\nuri = "https://x.org/a"\nstorage_path = "data/$key"\n')
    desk.allow()
    assert trust.covers()
    assert not trust.allows_place(locate(desk.root / "data" / "x.org" / "a"))
    assert not desk.open(given=True).allows_place(locate(desk.root / "data" / "x.org" / "a"))
    assert desk.open(given=True).allows_place(locate(Path("/outside/a")))


# records --------------------------------------------------------------------------------------------------------------


def test_a_record_is_private_and_named_by_the_manifests_real_path(desk: Desk, tmp_path: Path) -> None:
    desk.write(SHELL)
    desk.allow()
    record = desk.record()
    assert tmp_path / "config" / "datamanifest" / "trust" == record.parent
    assert 0o600 == stat.S_IMODE(record.stat().st_mode)
    assert 0o700 == stat.S_IMODE(record.parent.stat().st_mode)
    assert [] == list(desk.root.glob(".datamanifest*"))
    (tmp_path / "link").symlink_to(desk.root)
    assert record == desk.store.path_of(tmp_path / "link" / "datamanifest.toml")


def test_a_record_holds_names_that_are_not_utf_8_and_control_characters(desk: Desk) -> None:
    desk.write(SHELL)
    parts = [Part("file", os.fsdecode(b"\xff.py"), "x"), Part("shell", "a\n\x1b", os.fsdecode(b"\xfe"))]
    desk.store.allow(desk.path, parts)
    record = desk.store.read(desk.path)
    assert record is not None
    assert record.compare(parts).covers
    assert [] == desk.heard.warnings


def test_a_text_that_looks_like_the_records_own_writing_stands_for_itself_alone(desk: Desk) -> None:
    meant = [Part("shell", "a", "sh evil")]
    shown = [Part("shell", "a", "\0" + b"sh evil".hex()), Part("shell", "\0zz", "\0")]
    desk.write(SHELL)
    desk.store.allow(desk.path, shown)
    record = desk.store.read(desk.path)
    assert record is not None
    assert record.compare(shown).covers
    assert not record.compare(meant).covers
    assert [] == desk.heard.warnings


def test_a_copied_or_moved_project_is_not_trusted(desk: Desk, tmp_path: Path) -> None:
    desk.write(SHELL)
    desk.allow()
    moved = tmp_path / "moved"
    desk.root.rename(moved)
    manifest = Manifest.read(moved / "datamanifest.toml")
    refusal(Trust(manifest, open_places(manifest, desk.environment), store=desk.store))


def test_a_link_to_a_trusted_manifest_from_another_folder_is_not_trusted(desk: Desk, tmp_path: Path) -> None:
    desk.write(SHELL)
    desk.allow()
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "datamanifest.toml").symlink_to(desk.path)
    manifest = Manifest.read(tmp_path / "clone" / "datamanifest.toml")
    refusal(Trust(manifest, open_places(manifest, desk.environment), store=desk.store))
    assert ["the trust record is for another 'project_root'" in warning for warning in desk.heard.warnings] == [True]


TAMPERED = {
    "not TOML": "]][[",
    "not UTF-8": b"\xff\xfe",
    "empty": "",
    "no schema": '[_META]\nmanifest = "x"\n',
    "a newer schema": "[_META]\nschema = 2\n",
    "a schema that is no number": "[_META]\nschema = true\n",
    "another manifest's": '[_META]\nschema = 1\nmanifest = "/other"\nproject_root = "/other"\n',
    "kinds that are no tables": "{HEAD}shell = 5\n",
    "parts that are no text": "{HEAD}[shell]\nsst = 5\n",
    "names that are no hex": '{HEAD}[file]\n"\\u0000zz" = "x"\n',
}


@pytest.mark.parametrize("content", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_record_that_cannot_be_relied_upon_counts_for_nothing_and_is_told_once(desk: Desk, content: Any) -> None:
    desk.write(SHELL)
    desk.allow()
    head = "\n".join(desk.record().read_text().splitlines()[:6]) + "\n"
    assert "schema = 1" in head
    if "[_META]" not in str(content) and "{HEAD}" in str(content):
        content = content.replace("{HEAD}", "")
        # a top-level value has to stand before the first table
        content = content + head if content.startswith("shell = ") else head + content
    desk.record().write_bytes(content if isinstance(content, bytes) else content.encode())
    trust = desk.open()
    for _ in range(3):
        assert "you have not allowed" in refusal(trust).message
    assert 1 == len(desk.heard.warnings)
    assert desk.heard.warnings[0].endswith("; the manifest is not trusted")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_record_that_others_may_write_counts_for_nothing(desk: Desk, mode: int) -> None:
    desk.write(SHELL)
    desk.allow()
    desk.record().chmod(mode)
    refusal(desk.open())
    assert "others may write to the record" in desk.heard.warnings[0]


def test_a_folder_of_records_that_others_may_write_counts_for_nothing_and_is_closed_by_the_next_answer(
    desk: Desk,
) -> None:
    desk.write(SHELL)
    desk.allow()
    desk.store.folder.chmod(0o777)
    refusal(desk.open())
    desk.allow()
    assert desk.open().covers()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_record_counts_for_nothing(desk: Desk) -> None:
    desk.write(SHELL)
    desk.allow()
    os.chown(desk.record(), 12345, -1)
    refusal(desk.open())
    assert "or it is another user's" in desk.heard.warnings[0]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_record_that_is_no_file_counts_for_nothing(desk: Desk, tmp_path: Path, kind: str) -> None:
    desk.write(SHELL)
    desk.allow()
    record = desk.record()
    record.rename(tmp_path / "kept")
    if kind == "link":
        record.symlink_to(tmp_path / "kept")
    elif kind == "folder":
        record.mkdir()
    else:
        os.mkfifo(record)
        record.chmod(0o600)
    refusal(desk.open())
    assert 1 == len(desk.heard.warnings)
    assert [] == list_open(record)


def list_open(path: Path) -> list[str]:
    """The descriptors of this process that lead to a path; none where the system does not say."""
    folder = Path("/proc/self/fd")
    links = list(folder.iterdir()) if folder.is_dir() else []
    return [link.name for link in links if os.path.realpath(link) == os.path.realpath(path)]


def test_records_below_the_project_count_for_nothing_and_are_not_made(desk: Desk) -> None:
    inside = desk.environment._replace(variables={"XDG_CONFIG_HOME": str(desk.root / ".config")})
    desk.write(SHELL)
    desk.allow()
    store = TrustStore(inside, progress=desk.heard)
    store.folder.mkdir(parents=True, mode=0o700)
    store.path_of(desk.path).write_bytes(desk.record().read_bytes())
    store.path_of(desk.path).chmod(0o600)
    assert store.read(desk.path) is None
    with pytest.raises(Refused) as caught:
        store.allow(desk.path, [])
    assert "trust-in-project" == caught.value.code
    assert f"cannot keep the answer in '{store.folder}', which lies in the project" in caught.value.message
    assert "set XDG_CONFIG_HOME to a folder outside" in str(caught.value.hint)


def test_a_relative_configuration_folder_is_no_place_for_records(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.root.parent)
    store = TrustStore(desk.environment._replace(variables={"XDG_CONFIG_HOME": "config"}), progress=desk.heard)
    desk.write(SHELL)
    desk.allow()
    assert store.read(desk.path) is None
    with pytest.raises(Refused):
        store.allow(desk.path, [])


def test_answers_at_once_leave_one_whole_record(desk: Desk) -> None:
    desk.write(SHELL)
    choices = [[Part("shell", f"d{number}", "x" * 5000)] for number in range(8)]
    threads = [threading.Thread(target=desk.store.allow, args=(desk.path, parts)) for parts in choices * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = desk.store.read(desk.path)
    assert record is not None
    assert any(record.parts == {(part.kind, part.name): part.text for part in parts} for parts in choices)
    left = sorted(path.suffix for path in desk.store.folder.iterdir())
    assert [".lock", ".toml"] == left


def test_a_comparison_names_what_is_new_changed_and_gone() -> None:
    record = Record({("shell", "a"): "x", ("shell", "b"): "y", ("file", "gone.py"): "z"}, "")
    comparison = record.compare([Part("shell", "a", "x"), Part("shell", "b", "new"), Part("loader", "c", "m:f")])
    assert (Part("loader", "c", "m:f"),) == comparison.added
    assert ((Part("shell", "b", "new"), "y"),) == comparison.changed
    assert (Part("file", "gone.py", "z"),) == comparison.removed
    assert not comparison.covers


def test_a_record_that_cannot_be_written_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.write(SHELL)
    desk.store.folder.parent.mkdir(parents=True)
    desk.store.folder.write_text("a file in the way")
    with pytest.raises((MachineFailed, Refused)):
        desk.store.allow(desk.path, [])


# what dm itself writes ------------------------------------------------------------------------------------------------

PICKLE = '[a]\nuri = "https://x.org/a.pkl"\n'
PINNED = PICKLE + 'checksum = "md5:d41d8cd98f00b204e9800998ecf8427e"\n'


def edit(desk: Desk, before: str, after: str) -> Trust:
    """What an edit by `dm` leaves."""
    old = Manifest.parse("[_META]\nschema = 1\n" + before, desk.path)
    trust = desk.open(after)
    keep_trust(desk.store, old, trust.manifest, open_places(trust.manifest, desk.environment))
    return desk.open()


def test_a_checksum_that_dm_fills_in_keeps_trust(desk: Desk) -> None:
    desk.write(PICKLE)
    desk.allow()
    assert edit(desk, PICKLE, PINNED).covers()


def test_pickle_data_that_dm_adds_to_an_owners_manifest_is_trusted(desk: Desk) -> None:
    desk.write("")
    desk.store.allow(desk.path, ())
    assert edit(desk, "", PINNED).covers()


def test_what_came_by_hand_stays_unallowed_when_dm_edits_next(desk: Desk) -> None:
    desk.write(PICKLE)
    desk.allow()
    by_hand = PICKLE + '[b]\nkey = "b"\nshell = "evil"\n'
    trust = edit(desk, by_hand, by_hand.replace(PICKLE, PINNED))
    assert not trust.covers()
    comparison = trust.compare(trust.list_parts())
    assert comparison is not None
    assert ["b", "files that commands name"] == [part.name for part in comparison.added]
    assert ["a"] == [part.name for part, _ in comparison.changed]


def test_without_a_record_an_edit_makes_none(desk: Desk) -> None:
    assert not edit(desk, PICKLE, PINNED).covers()
    assert not desk.store.folder.exists()


def test_an_edit_never_allows_a_place_outside(desk: Desk) -> None:
    desk.write("")
    desk.store.allow(desk.path, ())
    assert not edit(desk, "", '[a]\nuri = "https://x.org/a"\nstorage_path = "/outside/a"\n').covers()


def test_an_edit_never_allows_a_file_that_changed_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk.root / "get.sh").write_text("good")
    text = '[s]\nkey = "s"\nshell = "sh get.sh"\n'
    desk.write(text + PICKLE)
    desk.allow()
    reads = []
    read = Parts.read

    def read_and_change(parts: Parts) -> list[Part]:
        found = read(parts)
        if not reads:
            (desk.root / "get.sh").write_text("evil")
        reads.append(1)
        return found

    monkeypatch.setattr(Parts, "read", read_and_change)
    trust = edit(desk, text + PICKLE, text + PINNED)
    assert not trust.covers()
    comparison = trust.compare(trust.list_parts())
    assert comparison is not None
    assert {"files", "file"} == {part.kind for part, _ in comparison.changed}


def test_a_users_own_file_and_roots_are_permitted_and_no_others(tmp_path: Path) -> None:
    own = list(os.stat(tmp_path))
    uid = stat.ST_UID
    assert permit_own(os.stat_result(own)) is not None
    own[uid] = 0
    assert permit_own(os.stat_result(own)) is not None
    own[uid] = os.geteuid() + 1
    assert permit_own(os.stat_result(own)) is None
