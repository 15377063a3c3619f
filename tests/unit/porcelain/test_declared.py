"""Faults of code and order that reading a manifest finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.plumbing.records.manifest import Manifest
from dm.porcelain.declared import find_faults

_SOUND = """
[_LOADERS]
nc = "readers:open_nc"
netcdf = "nc"

[_SAVERS]
grid = { ref = "writers:save", args = ["$value", "$path"] }

[a]
uri = "https://e.x/a.csv"
loader = "readers:Table.read"

[b]
key = "b.csv"
requires = ["a"]
shell = "cut $path_a $path_1 '$path_other' $download_path"

[c]
key = "c.csv"
requires = ["b"]
fetcher = { ref = "tools.make:c", args = ["$download_path"] }

[d._LANG.r]
fetcher = "scripts/get:d"
"""


def find(text: str) -> list[tuple[str, str, str]]:
    return [(".".join(table), field, str(error)) for table, field, error in find_faults(Manifest.parse(text))]


def test_a_sound_manifest_has_none() -> None:
    assert [] == find(_SOUND)


@pytest.mark.parametrize(
    ("field", "where", "message"),
    [
        ("shell = \"sh -c 'x\"", "shell", "cannot read 'shell': no closing quotation"),
        ('shell = " "', "shell", "'shell' names no program"),
        ('fetcher = "tools.get"', "fetcher", "cannot use 'tools.get' ([a] fetcher): it is not of the form "
         "'module:function'"),
        ('loader = "tools.py:get"', None, None),
        ('loader = "tools/read:get"', "loader", "cannot use 'tools/read:get' ([a] loader): it is not of the form "
         "'module:function'"),
        ('_LANG.r.fetcher = "get"', "_LANG", "'get' ([a] _LANG.r.fetcher) names no function"),
        ('_LANG.julia.fetcher = "../get:x"', "_LANG", "'../get:x' ([a] _LANG.julia.fetcher) names no function"),
        ('requires = ["a"]', "requires", "'requires' goes round in a circle: a -> a"),
        ('requires = ["b"]', "requires", "dataset 'a': cannot follow 'requires': no dataset 'b'"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_field(field: str, where: str | None, message: str | None) -> None:
    expected = [] if where is None else [("a", where, message)]
    assert expected == find(f'[a]\nkey = "a"\n{field}\n')


@pytest.mark.parametrize(
    ("field", "where", "message"),
    [
        ('uri = "htps://e.x/a"', "uri", "cannot fetch 'htps://e.x/a': no transport for 'htps'"),
        ('uri = "e.x/a"', "uri", "cannot fetch 'e.x/a': it has no scheme"),
        ('uris = ["https://e.x/a", "dap://e.x/b"]', "uris", "cannot fetch 'dap://e.x/b': no transport for 'dap'"),
        ('uri = ["https://e.x/a", "dap://e.x/b"]', "uri", "cannot fetch 'dap://e.x/b': no transport for 'dap'"),
        ('uri = "s3://e.x/a.git"', "uri", "cannot fetch 's3://e.x/a.git': a repository is not reached over 's3'"),
        ('uri = "adl://e.x/a"', "uri", "cannot fetch 'adl://e.x/a': the service behind 'adl' was switched off in "
         "February 2024"),
        ('uri = "az:///a"', "uri", "cannot fetch 'az:///a': it names no container"),
        ('uri = "dap://e.x/a"\nlazy_access = true', "uri", "cannot open 'dap://e.x/a': nothing opens 'dap'"),
        ('uri = "ssh://e.x/a"\nlazy_access = true', "uri", "cannot open 'ssh://e.x/a': nothing opens 'ssh'"),
        ('uris = ["https://e.x/a", "https://e.x/a"]', "uris", "dataset 'a': 'https://e.x/a' and 'https://e.x/a' would "
         "both be the file 'a'"),
        ('uris = ["https://e.x/a.zip", "https://e.x/b.zip"]\nextract = true', "uris", "dataset 'a': 'extract' goes "
         "with one archive, and it has a list of 'uris'"),
        # What brings these knows the scheme.
        ('uri = "dap://e.x/a"\nshell = "get $uri"', None, None),
        ('uri = "dap://e.x/a"\nfetcher = "tools:get"', None, None),
        ('uri = "dap://e.x/a"\nskip_download = true', None, None),
        ('uri = "dap://e.x/a"\nlazy_access = true\nloader = "tools:open"', None, None),
        ('uri = "https://e.x/a"\nlazy_access = true', None, None),
        ('uri = "git@e.x:a/b.git"', None, None),
    ],
)  # fmt: skip
def test_a_uri_that_nothing_serves_is_told(field: str, where: str | None, message: str | None) -> None:
    expected = [] if where is None else [("a", where, message)]
    assert expected == find(f'[a]\nkey = "a"\n{field}\n')


def test_every_name_that_is_required_and_unknown_is_told() -> None:
    found = find('[a]\nkey = "a"\nrequires = ["x", "y"]\n')
    assert ["no dataset 'x'", "no dataset 'y'"] == [message.rpartition(": ")[2] for _, _, message in found]


def test_a_command_that_uses_a_path_of_data_opened_in_place_is_told() -> None:
    lazy = '[lazy]\nuri = "https://e.x/a.zarr"\nlazy_access = true\n'
    [(table, field, message)] = find(f'[a]\nkey = "a"\nrequires = ["lazy"]\nshell = "cp $path_lazy x"\n{lazy}')
    assert ("a", "shell", "'shell' uses the path of 'lazy', which has none: it is opened in place (lazy_access)") == (
        table,
        field,
        message,
    )


@pytest.mark.parametrize("table", ["_LOADERS", "_LANG.python.loaders", "_SAVERS", "_LANG.python.savers"])
def test_a_loader_or_saver_for_a_format_that_is_no_binding_is_told(table: str) -> None:
    assert [(table, "", f"cannot use 'read' ([{table}] nc): it is not of the form 'module:function'")] == find(
        f'[{table}]\nnc = "read"\n'
    )


def test_nothing_is_run_imported_or_made(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("raise SystemExit('imported')")
    (tmp_path / "datamanifest.toml").write_text('[a]\nkey = "a"\nfetcher = "tools:x"\nshell = "touch ran"\n')
    assert [] == list(find_faults(Manifest.read(tmp_path / "datamanifest.toml")))
    assert ["datamanifest.toml", "tools.py"] == sorted(each.name for each in tmp_path.iterdir())
