"""The ladder: first that is set wins, and every rung says where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from dm.environment import Environment
from dm.errors import Malformed
from dm.plumbing.records.config import make_line_finder
from dm.plumbing.records.ladder import Ladder, Rung, Source, list_settings
from dm.plumbing.records.toml import read_toml

ROOT = Path("/p")


def environment(variables: Mapping[str, str] | None = None, host: str = "login1") -> Environment:
    folders = {"XDG_DATA_HOME": "/u/data", "XDG_CACHE_HOME": "/u/cache"}
    return Environment({**folders, **(variables or {})}, Path("/u"), Path("/w"), host, 1)


def source(text: str, path: str = "/p/datamanifest.toml", root: tuple[str, ...] = ("_STORAGE",)) -> Source:
    table: Mapping[str, object] = read_toml(text)
    for part in root:
        table = table[part]  # type: ignore[assignment]
    return Source(Path(path), table, root, make_line_finder(text))


def config(text: str, path: str) -> Source:
    return source(text, path, ())


def ladder(
    manifest: str | None = None,
    *,
    checkout: str | None = None,
    user: str | None = None,
    variables: Mapping[str, str] | None = None,
    host: str = "login1",
) -> Ladder:
    return Ladder(
        environment(variables, host),
        None if checkout is None else config(checkout, "/p/.datamanifest/config.toml"),
        None if manifest is None else source(manifest),
        None if user is None else config(user, "/u/.config/datamanifest/config.toml"),
        project_root=ROOT,
    )


def shown(rungs: list[Rung]) -> list[tuple[object, str, int, bool]]:
    return [(rung.value, rung.origin, rung.level, rung.wins) for rung in rungs]


MANIFEST = """\
[_META]
schema = 1

[_STORAGE]
data = "/manifest"
_SCOPE = { datasets = "team" }

[_STORAGE._HOST."login*"]
data = "/manifest-host"
"""
CHECKOUT = 'data = "/checkout"\n\n[_HOST."log.n[0-9]"]\ndata = "/checkout-host"\n'
USER = '[_HOST.login1]\ndata = "/user-host"\n\n[_SCOPE]\ndatasets = "me"\n'


def test_every_rung_is_told_with_its_origin_and_the_one_that_wins() -> None:
    rungs = ladder(MANIFEST, checkout=CHECKOUT, user=USER, variables={"DATAMANIFEST_DATA": "/env"}).explain("data")
    assert shown(rungs) == [
        (None, "environment DATAMANIFEST_DATA_DIR", 1, False),
        ("/env", "environment DATAMANIFEST_DATA", 1, True),
        ("/checkout-host", '/p/.datamanifest/config.toml:4 [_HOST."log.n[0-9]"]', 2, False),
        ("/checkout", "/p/.datamanifest/config.toml:1", 2, False),
        ("/manifest-host", '/p/datamanifest.toml:9 [_STORAGE._HOST."login*"]', 3, False),
        ("/manifest", "/p/datamanifest.toml:5 [_STORAGE]", 4, False),
        ("/user-host", '/u/.config/datamanifest/config.toml:2 [_HOST."login1"]', 5, False),
        (None, "/u/.config/datamanifest/config.toml", 5, False),
        ("$user_data_dir/datamanifest", "built in", 6, False),
    ]


def test_a_field_of_a_kind_stands_in_a_table_of_its_own() -> None:
    rungs = ladder(MANIFEST, user=USER).explain("_SCOPE.datasets")
    assert shown(rungs) == [
        (None, "environment DATAMANIFEST_SCOPE_DATASETS", 1, False),
        (None, '/p/datamanifest.toml [_STORAGE._HOST."login*"._SCOPE]', 3, False),
        ("team", "/p/datamanifest.toml:6 [_STORAGE._SCOPE]", 4, True),
        (None, '/u/.config/datamanifest/config.toml [_HOST."login1"._SCOPE]', 5, False),
        ("me", "/u/.config/datamanifest/config.toml:5 [_SCOPE]", 5, False),
    ]


@pytest.mark.parametrize(
    ("variables", "origin"),
    [
        ({"DATAMANIFEST_DIR": "/d"}, "built in: environment DATAMANIFEST_DIR"),
        ({"DATAMANIFEST_DIR": "/d", "DATAMANIFEST_DATA_DIR": "/e"}, "environment DATAMANIFEST_DATA_DIR"),
        ({"DATAMANIFEST_DATA_DIR": ""}, "built in"),
    ],
)
def test_an_empty_variable_is_unset_and_the_general_one_is_the_last_rung(
    variables: dict[str, str], origin: str
) -> None:
    rung = ladder(variables=variables).lookup("data")
    assert rung is not None and rung.origin == origin


@pytest.mark.parametrize(
    ("host", "value"),
    [
        ("login1", "by glob"),
        ("node042", "by expression"),
        ("a.cluster", "by a glob that is no expression"),
        ("both", "first in code-point order"),
        ("elsewhere", "base"),
        ("xlogin1", "base"),
        ("node0421", "base"),
    ],
)
def test_host_patterns_match_as_glob_then_as_a_whole_expression_in_code_point_order(host: str, value: str) -> None:
    manifest = """
    [_STORAGE]
    x = "base"
    [_STORAGE._HOST."login*"]
    x = "by glob"
    [_STORAGE._HOST.'node\\d{3}']
    x = "by expression"
    [_STORAGE._HOST."*.cluster"]
    x = "by a glob that is no expression"
    [_STORAGE._HOST."bot?"]
    x = "second"
    [_STORAGE._HOST."B|both"]
    x = "first in code-point order"
    """
    rung = ladder(manifest, host=host).lookup("x")
    assert rung is not None and rung.value == value


def test_a_host_table_that_does_not_set_a_name_leaves_it_to_the_next_that_matches() -> None:
    manifest = '[_STORAGE._HOST."a*"]\nx = "1"\n[_STORAGE._HOST."ab*"]\ny = "2"\n'
    found = ladder(manifest, host="abc")
    assert [found.lookup(name).value for name in ("x", "y")] == ["1", "2"]  # type: ignore[union-attr]


def test_the_ladder_is_frozen_when_it_is_made() -> None:
    variables = {"DATAMANIFEST_DATA_DIR": "/before"}
    table: dict[str, object] = {"scratch": "/before"}
    made = Ladder(environment()._replace(variables=variables), Source(Path("/c"), table))
    variables["DATAMANIFEST_DATA_DIR"] = "/after"
    table["scratch"] = "/after"
    assert [made.lookup(name).value for name in ("data", "scratch")] == ["/before", "/before"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name", ["ssh_command", "link", "durability", "jobs", "archive_max_bytes", "doi_service", "registry_url"]
)
def test_commands_services_and_limits_are_not_read_from_what_comes_with_a_clone(name: str) -> None:
    found = ladder(f'[_STORAGE]\n{name} = "evil"\n', checkout=f'{name} = "evil"\n')
    rung = found.lookup(name)
    assert rung is None or rung.level == 6
    notes = [rung.note for rung in found.explain(name) if rung.value == "evil"]
    assert notes == ["ignored: only the environment and the user's config may set it"] * 2


def test_personal_fields_are_read_from_the_user_and_the_environment() -> None:
    user = 'ssh_command = "ssh -4"\njobs = 3\narchive_max_bytes = "2GB"\nlink = ["copy"]\n'
    found = ladder("[_STORAGE]\njobs = 99\n", user=user)
    values = [found.lookup(name).value for name in ("ssh_command", "jobs", "archive_max_bytes", "link")]  # type: ignore[union-attr]
    assert values == ["ssh -4", 3, 2_000_000_000, ("copy",)]
    found = ladder(user=user, variables={"DATAMANIFEST_JOBS": "8", "DATAMANIFEST_LINK": "hardlink,copy"})
    assert [found.lookup(name).value for name in ("jobs", "link")] == [8, ("hardlink", "copy")]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "text", "must"),
    [
        ("data", "3", "'data' must be a string, not 3"),
        ("data", '""', "'data' must be a string that is not empty, not ''"),
        ("scope", "true", "'scope' must be a string, not True"),
        ("canonical", '"maybe"', "'canonical' must be true or false, not 'maybe'"),
        ("lock_stale_age", "0", "'lock_stale_age' must be a number of seconds above 0, not 0"),
        ("lock_stale_age", '"soon"', "'lock_stale_age' must be a number of seconds above 0, not 'soon'"),
        ("datasets_pools", "[1]", "'datasets_pools' must be a list of strings, not [1]"),
        ("link", '["symlink"]', "'link' must be a list of 'reflink', 'hardlink', 'copy', not ['symlink']"),
        ("durability", '"none of it"', "'durability' must be 'batch' or 'none', not 'none of it'"),
        ("jobs", "1.5", "'jobs' must be a whole number from 1, not 1.5"),
        ("http_retries", "-1", "'http_retries' must be a whole number from 0, not -1"),
        ("archive_max_ratio", "inf", "'archive_max_ratio' must be a number above 0, not inf"),
        (
            "archive_max_bytes",
            '"many"',
            "'archive_max_bytes' must be a number of bytes, or one with a unit as in '10GB', not 'many'",
        ),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_file_and_line(name: str, text: str, must: str) -> None:
    with pytest.raises(Malformed) as caught:
        ladder(user=f"\n{name} = {text}\n").lookup(name)
    assert caught.value.message == f"/u/.config/datamanifest/config.toml:2: {must}"
    assert caught.value.hint == f"correct it, or take it out with 'dm config unset {name}'"


def test_a_wrong_variable_is_told_by_its_name() -> None:
    with pytest.raises(Malformed) as caught:
        ladder(variables={"DATAMANIFEST_JOBS": "none"}).lookup("jobs")
    assert caught.value.message == "environment DATAMANIFEST_JOBS: 'jobs' must be a whole number from 1, not 'none'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('_HOST = "x"\n', "/p/.datamanifest/config.toml:1: '_HOST' must be a table"),
        ('\n[_HOST]\nlogin1 = "x"\n', "/p/.datamanifest/config.toml:3: '_HOST.login1' must be a table"),
        ('\n_SCOPE = "x"\n', "/p/.datamanifest/config.toml:2: '_SCOPE' must be a table"),
    ],
)
def test_a_table_that_is_none_is_told_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        ladder(checkout=text).lookup("_SCOPE.datasets")
    assert caught.value.message == message


def test_profiles_are_kept_and_never_applied() -> None:
    found = ladder('[_STORAGE._PROFILE.big]\ndata = "/profile"\n')
    assert found.lookup("data").origin == "built in"  # type: ignore[union-attr]


def test_an_empty_list_of_pools_and_an_empty_scope_are_values() -> None:
    found = ladder(user='datasets_pools = []\nscope = "me"\n', variables={"DATAMANIFEST_SCOPE": ""})
    assert [found.lookup(name).value for name in ("datasets_pools", "scope")] == [(), ""]  # type: ignore[union-attr]
    found = ladder(user='datasets_pools = "one"\n')
    assert found.lookup("datasets_pools").value == ("one",)  # type: ignore[union-attr]
    found = ladder(variables={"DATAMANIFEST_DATASETS_POOLS": "/a:/b"})
    assert found.lookup("datasets_pools").value == ("/a", "/b")  # type: ignore[union-attr]


def test_the_settings_of_one_file_are_listed_with_their_hosts() -> None:
    manifest = source(MANIFEST)
    assert [(rung.name, rung.value, rung.host, rung.line) for rung in list_settings(manifest)] == [
        ("data", "/manifest", None, 5),
        ("_SCOPE.datasets", "team", None, 6),
        ("data", "/manifest-host", "login*", 9),
    ]
    for text in ('_HOST = "x"', '[_HOST]\nlogin = "x"'):
        with pytest.raises(Malformed):
            list_settings(config(text, "/c"))


def test_names_are_looked_up_and_listed_without_their_structure() -> None:
    found = ladder(MANIFEST, user='scratch = "/s"\n_OTHER = 1\n')
    assert found.list_names() == ["_SCOPE.datasets", "data", "scratch"]
    assert repr(found.lookup("scratch")) == ("Rung('scratch', '/s', '/u/.config/datamanifest/config.toml:1', 5)")
