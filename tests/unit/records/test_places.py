"""Where things live: locations with the rule that decided, symbols, scopes, pools, and what a clone may not decide."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from dm.errors import DmError, Malformed, Refused
from dm.plumbing.records.places import Places
from dm.values import Key
from tests.fixtures.places import ROOT, make_places

KEY = Key.parse("example.com/a.nc")


class Entry(NamedTuple):
    """A dataset as far as its place is concerned."""

    name: str = "sst"
    uris: tuple[str, ...] = ("https://example.com/a.nc",)
    storage_path: str | None = None
    local_path: str | None = None
    store: str | None = None
    scope: str | None = None
    skip_download: bool = False
    landing: Key = KEY


# Locations


@pytest.mark.parametrize(
    ("entry", "manifest", "path", "store_root", "user_managed", "scope"),
    [
        (Entry(), "", "/u/data/datamanifest/datasets/example.com/a.nc", "/u/data/datamanifest", False, ""),
        (Entry(scope=""), "", "/u/data/datamanifest/datasets/example.com/a.nc", "/u/data/datamanifest", False, ""),
        (
            Entry(scope="me"),
            "",
            "/u/data/datamanifest/me/datasets/example.com/a.nc",
            "/u/data/datamanifest",
            False,
            "me",
        ),
        (Entry(store="$repo"), "", "/p/proj/datasets/example.com/a.nc", "/p/proj", False, ""),
        (
            Entry(store="${cache}/sub/x"),
            "",
            "/u/cache/datamanifest/sub/x/datasets/example.com/a.nc",
            "/u/cache/datamanifest",
            False,
            "",
        ),
        (
            Entry(store="$cache", scope="me"),
            "",
            "/u/cache/datamanifest/me/datasets/example.com/a.nc",
            "/u/cache/datamanifest",
            False,
            "me",
        ),
        (Entry(), 'datasets_dir = "data"', "/p/proj/data/example.com/a.nc", "/p/proj/data", False, ""),
        (
            Entry(scope=""),
            'datasets_dir = "data"',
            "/u/data/datamanifest/datasets/example.com/a.nc",
            "/u/data/datamanifest",
            False,
            "",
        ),
        (
            Entry(store="$data"),
            'datasets_dir = "data"',
            "/u/data/datamanifest/datasets/example.com/a.nc",
            "/u/data/datamanifest",
            False,
            "",
        ),
        (Entry(), 'default = "$big/sub"\nbig = "/big"', "/big/sub/datasets/example.com/a.nc", "/big", False, ""),
        (
            Entry(),
            'scope = "team"',
            "/u/data/datamanifest/team/datasets/example.com/a.nc",
            "/u/data/datamanifest",
            False,
            "team",
        ),
        (
            Entry(),
            'scope = "a"\n_SCOPE.datasets = "b"\n_PREFIX.datasets = "d"',
            "/u/data/datamanifest/b/d/example.com/a.nc",
            "/u/data/datamanifest",
            False,
            "b",
        ),
        (
            Entry(scope=""),
            'scope = "a"',
            "/u/data/datamanifest/datasets/example.com/a.nc",
            "/u/data/datamanifest",
            False,
            "",
        ),
        (Entry(storage_path="data/a.nc"), "", "/p/proj/data/a.nc", None, True, ""),
        (Entry(local_path="~/a.nc"), "", "/u/a.nc", None, True, ""),
        (Entry(storage_path="$repo/d/$key"), "", "/p/proj/d/example.com/a.nc", "/p/proj/d", False, ""),
        (Entry(storage_path="${key}"), "", "/p/proj/example.com/a.nc", "/p/proj", False, ""),
        (Entry(storage_path="d/$key/sub"), "", "/p/proj/d/example.com/a.nc/sub", None, False, ""),
        (Entry(storage_path="d/x-$key"), "", "/p/proj/d/x-example.com/a.nc", None, False, ""),
        (Entry(storage_path="d/$keys"), 'keys = "k"', "/p/proj/d/k", None, True, ""),
        (
            Entry(storage_path="$datasets_dir/$key"),
            "",
            "/u/data/datamanifest/datasets/example.com/a.nc",
            "/u/data/datamanifest/datasets",
            False,
            "",
        ),
        (
            Entry(storage_path="$datacache_dir/x"),
            'project = "proj1"',
            "/u/cache/datamanifest/proj1/cached/x",
            None,
            True,
            "",
        ),
        (Entry(storage_path="/x/$USER/$project"), "", "/x/me/proj", None, True, ""),
        (Entry(storage_path="a$/b"), "", "/p/proj/a$/b", None, True, ""),
        (Entry(storage_path="d/$key", skip_download=True), "", "/p/proj/d/example.com/a.nc", None, True, ""),
        (Entry(skip_download=True, uris=("file:///x/a%20b.nc",)), "", "/x/a b.nc", None, True, ""),
    ],
)
def test_a_dataset_lives_where_the_first_rule_that_applies_says(
    entry: Entry, manifest: str, path: str, store_root: str | None, user_managed: bool, scope: str
) -> None:
    location = make_places("[_STORAGE]\n" + manifest).locate(entry)
    assert location[:4] == (Path(path), None if store_root is None else Path(store_root), user_managed, scope)


def test_an_extracted_archive_lies_at_its_landing_path() -> None:
    entry = Entry(storage_path="d/$key", landing=Key.parse("example.com/a"))
    assert make_places().locate(entry).path == ROOT / "d/example.com/a"


def test_one_variable_moves_both_roots() -> None:
    places = make_places(variables={"DATAMANIFEST_DIR": "/one"})
    assert [places.root(name) for name in ("data", "cache", "repo")] == [Path("/one"), Path("/one"), ROOT]
    assert places.locate(Entry()).path == Path("/one/datasets/example.com/a.nc")


def test_without_a_project_relative_means_below_the_working_folder() -> None:
    places = make_places(root=None)
    assert places.locate(Entry(storage_path="x")).path == Path("/w/x")
    assert places.store_roots() == [Path("/u/data/datamanifest"), Path("/u/cache/datamanifest")]
    assert Path("/w/datasets") not in places.pools()


def test_every_rule_is_told_with_the_one_that_wins() -> None:
    manifest = '[_STORAGE]\ndatasets_dir = "data"\n\n[sst]\nstore = "$repo"\nstorage_path = "x"\n'
    places = make_places(manifest)

    def told(entry: Entry) -> list[tuple[str, bool, str, str | None]]:
        return [
            (rule.name, rule.wins, rule.reason, None if rule.path is None else str(rule.path))
            for rule in places.explain_location(entry)
        ]

    composed = "/u/data/datamanifest/datasets/example.com/a.nc"
    unset = ("storage_path", False, "the dataset does not set it", None)
    assert told(Entry()) == [
        unset,
        ("datasets_dir", True, "it is set, and the dataset has neither 'store' nor 'scope'",
         "/p/proj/data/example.com/a.nc"),
        ("composed", False, "an earlier rule decides", composed),
    ]  # fmt: skip
    assert told(Entry(store="$repo")) == [
        unset,
        ("datasets_dir", False, "the dataset sets 'store'", "/p/proj/data/example.com/a.nc"),
        ("composed", True, "no earlier rule applies", "/p/proj/datasets/example.com/a.nc"),
    ]
    assert told(Entry(storage_path="x")) == [
        ("storage_path", True, "the dataset sets it: x", "/p/proj/x"),
        ("datasets_dir", False, "an earlier rule decides", "/p/proj/data/example.com/a.nc"),
        ("composed", False, "an earlier rule decides", composed),
    ]
    assert [rule.reason for rule in make_places().explain_location(Entry(scope="me"))] == [
        "the dataset does not set it",
        "nobody sets it",
        "no earlier rule applies",
    ]
    last = places.explain_location(Entry(storage_path="x", scope="a/b"))[-1]
    assert last.reason == (
        "an earlier rule decides, and cannot use 'a/b' as a scope ('scope' of 'sst'): it is not one part of a path"
    )
    rungs = places.explain_location(Entry(storage_path="x"))[0].rungs
    assert [rung.origin for rung in rungs] == ['/p/proj/datamanifest.toml:6 ["sst"] storage_path']
    rungs = places.explain_location(Entry())[1].rungs
    assert [rung.origin for rung in rungs] == ["/p/proj/datamanifest.toml:2 [_STORAGE]"]
    rungs = places.explain_location(Entry(store="$repo"))[2].rungs
    assert [rung.name for rung in rungs] == ["store", "repo", "_PREFIX.datasets"]


def test_a_foreign_copy_sends_a_dataset_to_the_projects_own_scope() -> None:
    places = make_places('[_STORAGE]\nproject = "mine"\n')
    own = places.locate_in_own_scope(Entry())
    assert own is not None
    assert own[:4] == (
        Path("/u/data/datamanifest/mine/datasets/example.com/a.nc"),
        Path("/u/data/datamanifest"),
        False,
        "mine",
    )
    assert places.locate_in_own_scope(Entry(storage_path="d/$key")) is None


# Errors


def fault(places: Places, entry: Entry) -> DmError:
    with pytest.raises(DmError) as caught:
        places.locate(entry)
    return caught.value


@pytest.mark.parametrize(
    ("manifest", "entry", "message", "hint"),
    [
        (
            '[sst]\nuri = "x"\nstorage_path = "$scrath/$key"\n[_STORAGE]\nscratch = "/s"\n',
            Entry(storage_path="$scrath/$key"),
            "/p/proj/datamanifest.toml:3: undefined symbol '$scrath' in 'storage_path' of 'sst'",
            "did you mean '$scratch'? else set it with 'dm config set scrath PATH' or DATAMANIFEST_SCRATH_DIR",
        ),
        (
            '[_STORAGE]\n\ndata = "$nowhere/x"\n',
            Entry(),
            "/p/proj/datamanifest.toml:3: undefined symbol '$nowhere' in 'data'",
            "set it with 'dm config set nowhere PATH' or DATAMANIFEST_NOWHERE_DIR",
        ),
        (
            '[_STORAGE]\na = "$b/x"\nb = "${c}"\nc = "$a"\n[sst]\nstorage_path = "$a"\n',
            Entry(storage_path="$a"),
            "/p/proj/datamanifest.toml:4: symbol '$a' reaches itself: $a → $b → $c → $a",
            None,
        ),
        (
            '[_STORAGE]\ndata = "$datasets_dir/x"\n',
            Entry(),
            "/p/proj/datamanifest.toml:2: symbol '$data' reaches itself: $data → $datasets_dir → $data",
            None,
        ),
        (
            '[_STORAGE]\ndatasets_dir = "d/$key"\n',
            Entry(),
            "/p/proj/datamanifest.toml:2: '$key' means nothing in 'datasets_dir'",
            "it stands in a dataset's 'storage_path' only",
        ),
        (
            '[sst]\nstorage_path = "$link/x"\n',
            Entry(storage_path="$link/x"),
            "/p/proj/datamanifest.toml:2: undefined symbol '$link' in 'storage_path' of 'sst'",
            "'link' is a field or a reserved name; name a folder",
        ),
        (
            '[sst]\nstorage_path = "${data/x"\n',
            Entry(storage_path="${data/x"),
            "/p/proj/datamanifest.toml:2: unfinished '${' in 'storage_path' of 'sst': '${data/x'",
            "write ${NAME}",
        ),
        (
            '[sst]\nstorage_path = "~nosuchuser/x"\n',
            Entry(storage_path="~nosuchuser/x"),
            "/p/proj/datamanifest.toml:2: no user 'nosuchuser' for '~nosuchuser/x' in 'storage_path' of 'sst'",
            None,
        ),
        (
            '[sst]\nstorage_path = "a\\nb"\n',
            Entry(storage_path="a\nb"),
            "/p/proj/datamanifest.toml:2: control character in 'storage_path' of 'sst': 'a\\nb'",
            None,
        ),
        (
            '[sst]\nstorage_path = "a\\u009bb"\n',
            Entry(storage_path="a\x9bb"),
            "/p/proj/datamanifest.toml:2: control character in 'storage_path' of 'sst': 'a\\x9bb'",
            None,
        ),
        (
            '[sst]\nstore = "$data"\nstorage_path = "x"\n',
            Entry(store="$data", storage_path="x"),
            "/p/proj/datamanifest.toml:2: 'sst' has both 'store' and 'storage_path'",
            "keep one of them",
        ),
        (
            '[sst]\nstore = "data/sub"\n',
            Entry(store="data/sub"),
            "/p/proj/datamanifest.toml:2: 'store' is 'data/sub', which does not begin with a folder as '$data' does",
            "write '$data/sub'",
        ),
        (
            '[_STORAGE]\ndefault = "/big"\n',
            Entry(),
            "/p/proj/datamanifest.toml:2: 'default' is '/big', which does not begin with a folder as '$data' does",
            "give the folder a name: dm config set --global mydata /big, then '$mydata'",
        ),
        (
            '[sst]\nstore = "$project/x"\n',
            Entry(store="$project/x"),
            "/p/proj/datamanifest.toml:2: 'store' is '$project/x', which does not begin with a folder as '$data' does",
            "write '$data', '$cache', '$repo' or a folder of your own",
        ),
    ],
)
def test_a_place_that_cannot_be_worked_out_is_told_with_file_and_line(
    manifest: str, entry: Entry, message: str, hint: str | None
) -> None:
    error = fault(make_places(manifest), entry)
    assert (type(error), error.message, error.hint) == (Malformed, message, hint)


def test_an_undefined_symbol_in_a_variable_is_told_by_the_variables_name() -> None:
    error = fault(make_places(variables={"DATAMANIFEST_DATA_DIR": "$gone/x"}), Entry())
    assert error.message == "environment DATAMANIFEST_DATA_DIR: undefined symbol '$gone' in 'data'"


def test_an_empty_variable_is_no_symbol() -> None:
    error = fault(make_places(variables={"SCRATCH": ""}), Entry(storage_path="$SCRATCH/x"))
    assert "undefined symbol '$SCRATCH'" in error.message


def test_the_projects_folder_is_undefined_without_a_project() -> None:
    with pytest.raises(Malformed) as caught:
        make_places(root=None).expand("$repo/x", used_in="the call")
    assert caught.value.message == "undefined symbol '$repo' in the call"
    assert caught.value.hint == "it is the project's folder, and there is no project here"


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        ("datasets", "the tools use a folder of that name"),
        ("Cached", "the tools use a folder of that name"),
        ("shared", "the tools use a folder of that name"),
        ("projects", "the tools use a folder of that name"),
        ("fetched", "it is a prefix in force"),
        (".hidden", "it begins with a '.'"),
        ("..", "it begins with a '.'"),
        ("a/b", "it is not one part of a path"),
        ("$USER", "symbols are not replaced here"),
        ("x.lock", "a part ends in '.lock', which the store uses itself"),
        ("a\x01", "it has a control character"),
        ("a" * 241, "a part is longer than 240 bytes"),
    ],
)
def test_a_name_that_is_no_scope_is_refused_with_where_it_stands(scope: str, reason: str) -> None:
    places = make_places('[_STORAGE]\n_PREFIX.cached = "fetched"\n')
    shown = scope.replace("\x01", "\\x01")
    error = fault(places, Entry(scope=scope))
    assert isinstance(error, Refused)
    assert error.message == f"cannot use '{shown}' as a scope ('scope' of 'sst'): {reason}"
    assert error.hint == "use a plain folder name"
    places = make_places('[_STORAGE]\n_PREFIX.cached = "fetched"\n', variables={"DATAMANIFEST_SCOPE": scope})
    message = f"cannot use '{shown}' as a scope (environment DATAMANIFEST_SCOPE): {reason}"
    assert fault(places, Entry()).message == message


def test_a_prefix_that_is_no_folder_is_refused() -> None:
    error = fault(make_places('[_STORAGE]\n_PREFIX.datasets = "../x"\n'), Entry())
    assert error.message == (
        "cannot use '../x' as a prefix (/p/proj/datamanifest.toml:2 [_STORAGE._PREFIX]): it is not one part of a path"
    )


def test_a_selector_that_leaves_its_folder_is_refused() -> None:
    error = fault(make_places(), Entry(store="$data/../x"))
    assert (type(error), error.message, error.hint) == (
        Refused,
        "unsafe 'store' '$data/../x': it has the part '..'",
        "a plain path goes below the folder",
    )


@pytest.mark.parametrize(
    ("entry", "place", "reason"),
    [
        (Entry(storage_path=".git/hooks/x"), "/p/proj/.git/hooks/x", "'.git' belongs to other tools"),
        (Entry(storage_path="a/../.GIT/config"), "/p/proj/.GIT/config", "'.git' belongs to other tools"),
        (Entry(storage_path=".hg/hgrc"), "/p/proj/.hg/hgrc", "'.hg' belongs to other tools"),
        (
            Entry(storage_path=".datamanifest/config.toml"),
            "/p/proj/.datamanifest/config.toml",
            "'.datamanifest' belongs to other tools",
        ),
        (Entry(storage_path="$data/.dm/refs/x"), "/u/data/datamanifest/.dm/refs/x", "'.dm' is a store's own folder"),
        (
            Entry(storage_path="$key", landing=Key.parse(".git/config")),
            "/p/proj/.git/config",
            "'.git' belongs to other tools",
        ),
    ],
)
def test_a_place_that_other_tools_obey_is_refused(entry: Entry, place: str, reason: str) -> None:
    error = fault(make_places(), entry)
    assert (type(error), error.message, error.hint) == (
        Refused,
        f"cannot keep 'sst' at '{place}': {reason}",
        "give the dataset another 'storage_path' or 'key'",
    )


def test_a_folder_that_the_environment_names_may_lie_among_other_tools_files() -> None:
    """Another tool's staging folder does; not what a key makes of it, nor one that the manifest had a say in."""
    folder = "/p/proj/.datamanifest/partial/1/.dm/x"
    places = make_places(variables={"DATAMANIFEST_DATASETS_DIR": folder})
    assert f"{folder}/x.org/a.nc" == str(places.locate(Entry(landing=Key.parse("x.org/a.nc"))).path)
    error = fault(places, Entry(landing=Key.parse("a/.git/config")))
    assert f"cannot keep 'sst' at '{folder}/a/.git/config': '.git' belongs to other tools" == error.message
    places = make_places(f'[_STORAGE]\nthere = "{folder}"\n', variables={"DATAMANIFEST_DATASETS_DIR": "$there"})
    assert "'.dm' is a store's own folder" in fault(places, Entry(landing=Key.parse("x.org/a.nc"))).message


# Scopes, project


def test_cached_objects_have_the_projects_id_for_a_scope_and_datasets_none() -> None:
    places = make_places('[_STORAGE]\nproject = "mine"\n')
    assert [places.scope(kind) for kind in ("datasets", "cached")] == ["", "mine"]
    assert [places.prefix(kind) for kind in ("datasets", "cached")] == ["datasets", "cached"]
    assert places.scope("cached", "") == ""
    places = make_places(variables={"DATAMANIFEST_SCOPE_CACHED": "", "DATAMANIFEST_SCOPE": "all"})
    assert [places.scope(kind) for kind in ("datasets", "cached")] == ["all", ""]


def test_the_project_id_of_a_folder_has_its_name_and_eight_digits_of_its_path() -> None:
    from hashlib import sha256

    assert make_places().project_id() == "proj-" + sha256(b"/p/proj").hexdigest()[:8]
    other = make_places(root=Path("/p/.my proj"))
    assert other.project_id() == "my_proj-" + sha256(b"/p/.my proj").hexdigest()[:8]
    assert other.scope("cached") == other.project_id()
    assert make_places(root=Path("/")).project_id() == "project-" + sha256(b"/").hexdigest()[:8]


def test_the_symbol_project_is_the_folders_name_unless_it_is_set() -> None:
    assert make_places().expand("$project", used_in="here") == "proj"
    assert make_places('[_STORAGE]\nproject = "mine"\n').expand("${project}", used_in="here") == "mine"


# Elsewhere


def test_the_other_built_in_roots_are_candidates_in_the_scope_in_force() -> None:
    places = make_places('[_STORAGE]\nscope = "team"\n')
    assert [location.path for location in places.candidates(Entry())] == [
        ROOT / "team/datasets/example.com/a.nc",
        Path("/u/cache/datamanifest/team/datasets/example.com/a.nc"),
    ]
    assert [location.store_root for location in places.candidates(Entry(store="$cache"))] == [
        ROOT,
        Path("/u/data/datamanifest"),
    ]
    assert places.candidates(Entry(storage_path="x")) == []
    one = make_places(variables={"DATAMANIFEST_DIR": "/one"})
    assert [location.path for location in one.candidates(Entry())] == [ROOT / "datasets/example.com/a.nc"]


def test_pools_are_the_known_places_unless_they_are_listed() -> None:
    assert make_places().pools() == [
        ROOT / "datasets",
        Path("/u/data/datamanifest/shared/datasets"),
        Path("/u/data/datamanifest/datasets"),
        Path("/u/.cache/Datasets"),
    ]
    assert make_places().pools("cached") == []
    assert make_places("[_STORAGE]\ndatasets_pools = []\n").pools() == []
    places = make_places('[_STORAGE]\ndatasets_pools = ["/a", "pool", "$data", "/a/."]\n')
    assert places.pools() == [Path("/a"), ROOT / "pool", Path("/u/data/datamanifest")]
    with pytest.raises(Malformed) as caught:
        make_places('[_STORAGE]\ndatasets_pools = ["$gone"]\n').pools()
    assert caught.value.message == "/p/proj/datamanifest.toml:2: undefined symbol '$gone' in 'datasets_pools'"


def test_a_pool_that_is_a_store_root_is_a_store_and_every_other_is_read_only() -> None:
    places = make_places('[_STORAGE]\ndatasets_dir = "d"\ndatasets_pools = ["/a", "d", "$data"]\n')
    assert [(location.path, location.store_root) for location in places.pool_candidates(Entry())] == [
        (Path("/a/example.com/a.nc"), None),
        (ROOT / "d/example.com/a.nc", ROOT / "d"),
        (Path("/u/data/datamanifest/example.com/a.nc"), Path("/u/data/datamanifest")),
    ]


def test_store_roots_are_those_that_the_ladder_names() -> None:
    assert make_places().store_roots() == [Path("/u/data/datamanifest"), ROOT, Path("/u/cache/datamanifest")]
    places = make_places('[_STORAGE]\ndatasets_dir = "d"\ndatacache_dir = "c"\ndefault = "$big"\nbig = "/big"\n')
    assert places.store_roots() == [
        ROOT / "d",
        Path("/big"),
        ROOT / "c",
        ROOT,
        Path("/u/data/datamanifest"),
        Path("/u/cache/datamanifest"),
    ]


# What a cloned project may not decide


def untouched(path: str) -> str:
    return path


@pytest.mark.parametrize(
    ("manifest", "entry"),
    [
        ("", Entry()),
        ("", Entry(store="$repo")),
        ("", Entry(store="$data/sub")),
        ("", Entry(storage_path="data/x")),
        ("", Entry(storage_path="$cache/x")),
        ("", Entry(storage_path="$mine/x/$key")),
        ("", Entry(storage_path="$scratch/$key")),
        ('datasets_dir = "$user_data_dir/datamanifest/shared/datasets"', Entry()),
        ('datasets_dir = "$scratch"', Entry()),
        ('scope = "team"', Entry()),
        ('data = "store"', Entry()),
    ],
)
def test_places_in_the_project_the_built_in_roots_and_the_users_own_need_no_trust(manifest: str, entry: Entry) -> None:
    places = make_places(
        "[_STORAGE]\n" + manifest, user='mine = "/mine"\n', variables={"DATAMANIFEST_SCRATCH_DIR": "/scratch"}
    )
    assert places.untrusted_place(places.locate(entry), resolve=untouched) is None


def test_what_the_user_sets_needs_no_trust() -> None:
    places = make_places(user='data = "/anywhere"\n')
    assert places.untrusted_place(places.locate(Entry()), resolve=untouched) is None
    places = make_places(variables={"DATAMANIFEST_DATASETS_DIR": "/anywhere"})
    assert places.untrusted_place(places.locate(Entry()), resolve=untouched) is None


@pytest.mark.parametrize(
    ("manifest", "checkout", "entry", "origin", "path"),
    [
        ("", "", Entry(storage_path="/etc/x"), '/p/proj/datamanifest.toml ["sst"] storage_path', "/etc/x"),
        ("", "", Entry(storage_path="$HOME/.ssh/x"), '/p/proj/datamanifest.toml ["sst"] storage_path', "/u/.ssh/x"),
        ("", "", Entry(storage_path="~/.ssh/x"), '/p/proj/datamanifest.toml ["sst"] storage_path', "/u/.ssh/x"),
        ("", "", Entry(storage_path="../other/$key"), '/p/proj/datamanifest.toml ["sst"] storage_path',
         "/p/other/example.com/a.nc"),
        ("", "", Entry(storage_path="/p/proj-other/x"), '/p/proj/datamanifest.toml ["sst"] storage_path',
         "/p/proj-other/x"),
        ('[_STORAGE]\ndata = "/evil"\n', "", Entry(), "/p/proj/datamanifest.toml:2 [_STORAGE]",
         "/evil/datasets/example.com/a.nc"),
        ("", 'datasets_dir = "/evil"\n', Entry(), "/p/proj/.datamanifest/config.toml:1", "/evil/example.com/a.nc"),
        ('[_STORAGE]\nuser_data_dir = "/evil"\n', "", Entry(), "/p/proj/datamanifest.toml:2 [_STORAGE]",
         "/evil/datamanifest/datasets/example.com/a.nc"),
        ('[_STORAGE]\nrepo = "/evil"\n', "", Entry(storage_path="$repo/x"),
         '/p/proj/datamanifest.toml ["sst"] storage_path', "/evil/x"),
        ('[_STORAGE]\ntheirs = "/evil"\n', "", Entry(storage_path="$mine/x"),
         '/p/proj/datamanifest.toml ["sst"] storage_path', "/evil/x"),
    ],
)  # fmt: skip
def test_a_place_outside_that_comes_with_a_clone_needs_trust(
    manifest: str, checkout: str, entry: Entry, origin: str, path: str
) -> None:
    user = 'mine = "$theirs"\n' if "theirs" in manifest else ""
    places = make_places(manifest, checkout=checkout, user=user)
    reason = places.untrusted_place(places.locate(entry), resolve=untouched)
    assert reason == f"{origin} puts it at '{path}': not in the project nor in a folder that you name"


@pytest.mark.parametrize(
    "path",
    ["$cache/stat-v1.db", "$cache/STAT-V1.db-wal", "$user_cache_dir/datamanifest/stat-v2.db", "$cache/.python/x.pyc"],
)
def test_caches_that_are_believed_or_run_are_no_place_for_a_clones_data(path: str) -> None:
    places = make_places("")
    location = places.locate(Entry(storage_path=path))
    reason = places.untrusted_place(location, resolve=untouched)
    told = f"puts it at '{location.path}', where dm keeps what it believes unread"
    assert reason == f'/p/proj/datamanifest.toml ["sst"] storage_path {told}'


def test_a_link_that_leads_out_of_the_project_needs_trust(tmp_path: Path) -> None:
    project, outside = tmp_path / "proj", tmp_path / "outside"
    (project / ".git").mkdir(parents=True)
    outside.mkdir()
    (project / "data").symlink_to(outside)
    (project / "alias").symlink_to(project / ".git")
    places = make_places(root=project)
    reason = places.untrusted_place(places.locate(Entry(storage_path="data/x")))
    origin = f'{project}/datamanifest.toml ["sst"] storage_path'
    assert reason == (
        f"{origin} puts it at '{project}/data/x', which leads to '{outside}/x':"
        " not in the project nor in a folder that you name"
    )
    assert places.untrusted_place(places.locate(Entry(storage_path="alias/config"))) is not None
    assert places.untrusted_place(places.locate(Entry(storage_path="plain/x"))) is None
    trusting = make_places(root=project, user=f'elsewhere = "{outside}"\n')
    assert trusting.untrusted_place(trusting.locate(Entry(storage_path="data/x"))) is None


# Settings


def test_settings_have_their_built_in_values() -> None:
    places = make_places()
    assert places.link_modes() == ("reflink", "hardlink")
    assert (places.stale_age_s(), places.durable(), places.canonical(), places.jobs()) == (30.0, True, False, None)
    assert (places.number("archive_max_bytes"), places.text("ssh_command")) == (None, None)


def test_settings_are_read_from_the_ladder() -> None:
    user = 'link = "copy"\ndurability = "none"\njobs = 2\narchive_max_ratio = 9\nssh_command = "ssh -4"\n'
    places = make_places("[_STORAGE]\ncanonical = true\nlock_stale_age = 5\n", user=user)
    assert places.link_modes() == ("copy",)
    assert (places.stale_age_s(), places.durable(), places.canonical(), places.jobs()) == (5.0, False, True, 2)
    assert (places.number("archive_max_ratio"), places.text("ssh_command")) == (9.0, "ssh -4")
