"""Where artifacts live: the rule that decides, where else they may be, and what a clone may not decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from dm.errors import DmError, Malformed, Refused, UsageError
from dm.plumbing.records.artifact_places import list_artifact_roots, list_other_places, locate_artifact
from tests.fixtures.places import ROOT, make_places

HEX = "0123456789abcdef" * 4
CACHE = "/u/cache/datamanifest"
PROJECT = '[_STORAGE]\nproject = "mine"\n'


@pytest.mark.parametrize(
    ("manifest", "given", "folder", "store_root", "scope"),
    [
        ("", {}, f"{CACHE}/mine/cached", CACHE, "mine"),
        ("", {"scope": ""}, f"{CACHE}/cached", CACHE, ""),
        ("", {"scope": "team"}, f"{CACHE}/team/cached", CACHE, "team"),
        ("", {"store": "$data/sub"}, "/u/data/datamanifest/sub/mine/cached", "/u/data/datamanifest", "mine"),
        ("", {"store": "$repo", "scope": ""}, "/p/proj/cached", "/p/proj", ""),
        ('default = "$data"', {}, f"{CACHE}/mine/cached", CACHE, "mine"),
        ('_SCOPE.cached = ""', {}, f"{CACHE}/cached", CACHE, ""),
        ('scope = "all"\n_PREFIX.cached = "made"', {}, f"{CACHE}/all/made", CACHE, "all"),
        ('cache = "/big/cache"', {}, "/big/cache/mine/cached", "/big/cache", "mine"),
        ('datacache_dir = "results"', {}, "/p/proj/results", "/p/proj/results", ""),
        ('datacache_dir = "$cache/$project"', {}, f"{CACHE}/mine", f"{CACHE}/mine", ""),
        ('datacache_dir = "results"', {"scope": ""}, f"{CACHE}/cached", CACHE, ""),
        ('datacache_dir = "r"', {"store": "$data"}, "/u/data/datamanifest/mine/cached", "/u/data/datamanifest", "mine"),
        ('_HOST."login*".datacache_dir = "/h"\ndatacache_dir = "r"', {}, "/h", "/h", ""),
        ('datacache_dir = "results"', {"cache_dir": "/own/place"}, "/own/place", "/own/place", ""),
        ("", {"cache_dir": "out"}, "/w/out", "/w/out", ""),
        ("", {"cache_dir": Path("out/../x")}, "/w/x", "/w/x", ""),
        ('big = "/b"', {"cache_dir": "$big/x"}, "/b/x", "/b/x", ""),
        ("", {"cache_dir": "~/x"}, "/u/x", "/u/x", ""),
        ("", {"cache_dir": "/own/.git/x"}, "/own/.git/x", "/own/.git/x", ""),
    ],
)
def test_the_first_rule_that_applies_decides(
    manifest: str, given: dict[str, str], folder: str, store_root: str, scope: str
) -> None:
    place = locate_artifact(make_places(PROJECT + manifest), "m.f", "v1", HEX, **given)  # type: ignore[arg-type]
    assert (Path(store_root), Path(folder) / "m.f" / "v1" / HEX, scope) == place[:3]


def test_without_a_version_the_hash_stands_below_the_cachetype() -> None:
    place = locate_artifact(make_places(PROJECT), "m.f", "", HEX)
    assert Path(f"{CACHE}/mine/cached/m.f/{HEX}") == place.folder


def test_a_variable_moves_artifacts_and_goes_before_the_manifest() -> None:
    variables = {"DATAMANIFEST_DATACACHE_DIR": "/v", "DATAMANIFEST_CACHE_DIR": "/c", "DATAMANIFEST_SCOPE_CACHED": "s"}
    places = make_places(PROJECT + 'datacache_dir = "r"', variables=variables)
    assert Path("/v") == locate_artifact(places, "f", "", HEX).store_root
    place = locate_artifact(places, "f", "", HEX, store="$cache")
    assert (Path("/c"), Path(f"/c/s/cached/f/{HEX}")) == place[:2]


def test_without_a_project_the_working_folder_counts() -> None:
    places = make_places(root=None, variables={"DATAMANIFEST_DATACACHE_DIR": "r"})
    assert Path(f"/w/r/f/{HEX}") == locate_artifact(places, "f", "", HEX).folder


FAULTS: list[tuple[str, dict[str, str], type[DmError], str, str | None]] = [
    (
        "",
        {"cache_dir": "x", "scope": ""},
        UsageError,
        "'cache_dir' and 'scope' contradict each other: 'cache_dir' is used as it is",
        "keep one of them",
    ),
    (
        "",
        {"cache_dir": "x", "store": "$data"},
        UsageError,
        "'cache_dir' and 'store' contradict each other: 'cache_dir' is used as it is",
        "keep one of them",
    ),
    ("", {"cache_dir": ""}, UsageError, "'cache_dir' is empty", "leave it out, or name a folder"),
    (
        "",
        {"cache_dir": "$gone/x"},
        Malformed,
        "the call's 'cache_dir': undefined symbol '$gone' in 'cache_dir'",
        "set it with 'dm config set gone PATH' or DATAMANIFEST_GONE_DIR",
    ),
    (
        "",
        {"store": "data"},
        Malformed,
        "the call's 'store': 'store' is 'data', which does not begin with a folder as '$data' does",
        "write '$data'",
    ),
    (
        "",
        {"scope": "cached"},
        Refused,
        "cannot use 'cached' as a scope ('scope'): the tools use a folder of that name",
        "use a plain folder name",
    ),
    (
        'datacache_dir = "$gone"',
        {},
        Malformed,
        "/p/proj/datamanifest.toml:2: undefined symbol '$gone' in 'datacache_dir'",
        "set it with 'dm config set gone PATH' or DATAMANIFEST_GONE_DIR",
    ),
    (
        'datacache_dir = ".git/x"',
        {},
        Refused,
        "cannot keep artifacts in '/p/proj/.git/x': '.git' belongs to other tools",
        "set another 'datacache_dir', or give the call a 'cache_dir'",
    ),
    (
        'big = "/a/.dm/x"',
        {"cache_dir": "$big"},
        Refused,
        "cannot keep artifacts in '/a/.dm/x': '.dm' is a store's own folder",
        "set another 'datacache_dir', or give the call a 'cache_dir'",
    ),
]


@pytest.mark.parametrize(("manifest", "given", "kind", "message", "hint"), FAULTS)
def test_what_names_no_place_is_told(
    manifest: str, given: dict[str, str], kind: type[DmError], message: str, hint: str | None
) -> None:
    with pytest.raises(DmError) as caught:
        locate_artifact(make_places("[_STORAGE]\n" + manifest), "m.f", "", HEX, **given)  # type: ignore[arg-type]
    assert (kind, message, hint) == (type(caught.value), caught.value.message, caught.value.hint)


@pytest.mark.parametrize(("cachetype", "version"), [("../x", ""), ("a/b", ""), ("f", ".."), ("f", HEX), ("a@b", "")])
def test_an_unsafe_name_is_nowhere(cachetype: str, version: str) -> None:
    for locate in (locate_artifact, list_other_places):
        with pytest.raises(Refused, match=r"cannot use '.*' as a (cachetype|version): "):
            locate(make_places(), cachetype, version, HEX)


@pytest.mark.parametrize("text", ["", "../x", HEX.upper(), HEX[1:]])
def test_only_a_parameter_hash_has_a_place(text: str) -> None:
    for locate in (locate_artifact, list_other_places):
        with pytest.raises(UsageError) as caught:
            locate(make_places(), "f", "", text)
        assert f"'{text}' is no parameter hash of 64 hex digits" == caught.value.message


def test_an_artifact_may_lie_in_a_pool_or_where_the_peers_put_it() -> None:
    places = make_places(PROJECT + 'datacache_pools = ["/pool", "$repo/shared", "/pool/."]\n')
    peers = Path(f"{CACHE}/projects/mine/cached")
    assert [Path("/pool/f/v"), ROOT / "shared/f/v", peers / "f/v"] == [
        folder.parent for folder in list_other_places(places, "f", "v", HEX)
    ]
    assert [peers.parents[1] / f"proj/cached/f/{HEX}"] == list_other_places(make_places(), "f", "", HEX)


def test_an_undefined_pool_is_told() -> None:
    with pytest.raises(Malformed) as caught:
        list_other_places(make_places('[_STORAGE]\ndatacache_pools = ["$gone"]\n'), "f", "", HEX)
    assert "/p/proj/datamanifest.toml:2: undefined symbol '$gone' in 'datacache_pools'" == caught.value.message


def test_the_roots_are_the_projects_own_first_and_each_once() -> None:
    places = make_places(PROJECT + 'datacache_dir = "r"\ndatacache_pools = ["/pool", "r"]\n')
    assert [
        (ROOT / "r", ROOT / "r"),
        (Path(f"{CACHE}/mine/cached"), Path(CACHE)),
        (Path("/pool"), None),
        (Path(f"{CACHE}/projects/mine/cached"), None),
    ] == [root[:2] for root in list_artifact_roots(places)]


def test_where_the_peers_put_artifacts_may_be_the_place_for_new_ones_too() -> None:
    places = make_places(PROJECT + 'datacache_dir = "$user_cache_dir/datamanifest/projects/$project/cached"\n')
    peers = Path(f"{CACHE}/projects/mine/cached")
    assert (peers, peers) == list_artifact_roots(places)[0][:2]
    assert 1 == [root.folder for root in list_artifact_roots(places)].count(peers)


# Trust


def untouched(path: str) -> str:
    return path


@pytest.mark.parametrize(
    ("manifest", "given", "origin"),
    [
        ('datacache_dir = "/away"', {}, "/p/proj/datamanifest.toml:2 [_STORAGE]"),
        ('cache = "/away"', {}, "/p/proj/datamanifest.toml:2 [_STORAGE]"),
        ('big = "/away"', {"cache_dir": "$big"}, "/p/proj/datamanifest.toml:2 [_STORAGE]"),
        ('big = "/away"', {"store": "$big", "scope": ""}, "/p/proj/datamanifest.toml:2 [_STORAGE]"),
    ],
)
def test_a_place_outside_that_a_clone_chose_needs_trust(manifest: str, given: dict[str, str], origin: str) -> None:
    places = make_places("[_STORAGE]\n" + manifest)
    place = locate_artifact(places, "f", "", HEX, **given)  # type: ignore[arg-type]
    reason = places.untrusted_place(place.location, resolve=untouched)
    assert f"{origin} puts it at '{place.folder}': not in the project nor in a folder that you name" == reason


@pytest.mark.parametrize(
    ("manifest", "given"),
    [
        ("", {}),
        ("", {"cache_dir": "/anywhere"}),
        ("", {"cache_dir": "$SCRATCH/x"}),
        ('datacache_dir = "results"', {}),
        ('datacache_dir = "$cache/mine"', {}),
        ('datacache_dir = "/mine/x"', {}),
        ("", {"store": "$mine"}),
        ('datacache_dir = "/away"', {"cache_dir": "/anywhere"}),
    ],
)
def test_other_places_need_none(manifest: str, given: dict[str, str]) -> None:
    places = make_places("[_STORAGE]\n" + manifest, user='mine = "/mine"\n', variables={"SCRATCH": "/scratch"})
    place = locate_artifact(places, "f", "", HEX, **given)  # type: ignore[arg-type]
    assert places.untrusted_place(place.location, resolve=untouched) is None


def test_a_root_says_by_itself_what_a_clone_chose() -> None:
    places = make_places('[_STORAGE]\ndatacache_dir = "/away"\n')
    away, own, peers = list_artifact_roots(places)
    told = [places.untrusted_place(root.locate(root.folder / "f"), resolve=untouched) for root in (away, own, peers)]
    assert [True, False, False] == [reason is not None for reason in told]
