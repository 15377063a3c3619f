"""The model of a manifest: what it reads, what it refuses and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dm.environment import Environment
from dm.errors import DmError, Malformed, NotFound, Refused, UsageError
from dm.plumbing.records.manifest import MANIFEST_NAMES, Manifest, discover
from dm.values import Digest, Key

FILE = Path("/p/datamanifest.toml")
HEX = "0123456789abcdef" * 4
OTHER_HEX = "f" * 64


def parse(text: str) -> Manifest:
    return Manifest.parse(text, FILE)


def environment(folder: Path, **variables: str) -> Environment:
    return Environment(variables, folder, folder, "host", 1)


def test_fields_are_normalised() -> None:
    manifest = parse(
        f"""
        [_META]
        schema = 1
        [_STORAGE]
        data = "/d"
        [sst]
        uri = "https://h/a/sst.NC"
        sha256 = "{HEX.upper()}"
        description = ""
        scope = ""
        aliases = ["temperature"]
        requires = ["mask"]
        format = ".nc"
        extract = false
        unknown = {{ kept = [1] }}
        """
    )
    sst = manifest.datasets["sst"]
    assert ("https://h/a/sst.NC",) == sst.uris
    assert not sst.is_list
    assert Digest("sha256", HEX) == sst.checksum
    assert (None, "", None) == (sst.description, sst.scope, sst.digest)
    assert (("temperature",), ("mask",), "nc") == (sst.aliases, sst.requires, sst.format)
    assert Key("h/a/sst.NC") == sst.key == sst.landing
    assert {"kept": [1]} == sst.table["unknown"]
    assert (1, {"data": "/d"}, Path("/p")) == (manifest.schema, dict(manifest.storage), manifest.project_root)
    assert ["_META", "_STORAGE", "sst"] == list(manifest.document)


def test_a_model_is_frozen() -> None:
    manifest = parse('[sst]\nuri = "https://h/a"\n')
    with pytest.raises(AttributeError, match="a dataset is frozen: cannot set 'name'"):
        manifest.datasets["sst"].name = "x"
    with pytest.raises(TypeError):
        manifest.datasets["sst"].table["uri"] = "x"  # type: ignore[index]
    with pytest.raises(TypeError):
        manifest.datasets["x"] = manifest.datasets["sst"]  # type: ignore[index]


def test_a_list_given_to_uri_is_several_files() -> None:
    first, second = parse(
        '[a]\nuri = ["https://h/d/x", "https://h/d/y"]\n[b]\nuris = ["https://h/d/x"]\n'
    ).datasets.values()
    assert (True, "h/d", ("x", "y"), None) == (first.is_list, first.key.text, first.file_names, first.version)
    assert (True, "h/d", ("x",)) == (second.is_list, second.key.text, second.file_names)


@pytest.mark.parametrize(
    ("text", "checksum"),
    [
        (HEX, Digest("sha256", HEX)),
        (f"SHA256:{HEX.upper()}", Digest("sha256", HEX)),
        ("md5:" + "a" * 32, Digest("md5", "a" * 32)),
        ("sha1:" + "a" * 40, Digest("sha1", "a" * 40)),
        ("sha512:" + "a" * 128, Digest("sha512", "a" * 128)),
        ("blake2b:" + "a" * 128, Digest("blake2b", "a" * 128)),
        ("blake3:" + "a" * 64, Digest("blake3", "a" * 64)),
        ("", None),
    ],
)
def test_every_checksum_algorithm_is_read(text: str, checksum: Digest | None) -> None:
    assert checksum == parse(f'[a]\nchecksum = "{text}"\n').datasets["a"].checksum


def test_both_spellings_of_one_checksum_may_stand_together() -> None:
    same = parse(f'[a]\nchecksum = "sha256:{HEX}"\nsha256 = "{HEX}"\n').datasets["a"]
    other = parse(f'[a]\nchecksum = "md5:{"a" * 32}"\nsha256 = "{HEX}"\n').datasets["a"]
    assert (Digest("sha256", HEX), Digest("md5", "a" * 32)) == (same.checksum, other.checksum)


FAULTS = {
    "stray key": (
        'title = "x"\n[sst]\n',
        "1: 'title' is not a dataset: a top-level key must be a table, not a string",
        "put it below the header of the dataset that it belongs to",
    ),
    "stray date": (
        "[a]\n[b]\nx = 1\n[c.d]\n".replace("[a]\n", "when = 2020-01-01\n"),
        "1: 'when' is not a dataset: a top-level key must be a table, not a date or time",
        "put it below the header of the dataset that it belongs to",
    ),
    "array of tables": (
        "[[sst]]\nuri = 'x'\n",
        "1: 'sst' is a list of tables, not a dataset",
        "write its header in single brackets",
    ),
    "schema": (
        "[_META]\nschema = 99\n",
        "2: the manifest has schema 99, this dm understands 1",
        "use a newer dm for it",
    ),
    "schema type": ('_META.schema = "1"\n', "1: [_META]: 'schema' must be a whole number", "write schema = 1"),
    "meta type": ("_META = 1\n", "1: [_META]: must be a table, as [_META]", None),
    "storage type": ("\n_STORAGE = []\n", "2: [_STORAGE]: must be a table, as [_STORAGE]", None),
    "flag": (
        '[sst]\n\nextract = "true"\n',
        "3: dataset 'sst': 'extract' must be true or false, not a string",
        "write extract = true or extract = false, without quotes",
    ),
    "text": (
        "[sst]\nversion = 2\n",
        "2: dataset 'sst': 'version' must be a string, not a number",
        'write version = "2"',
    ),
    "text as flag": (
        "[sst]\nbranch = true\n",
        "2: dataset 'sst': 'branch' must be a string, not true or false",
        'write branch = "true"',
    ),
    "text as list": ("[sst]\nkey = []\n", "2: dataset 'sst': 'key' must be a string, not a list", 'write key = "…"'),
    "list": (
        '[sst]\naliases = "a"\n',
        "2: dataset 'sst': 'aliases' must be a list of strings, not a string",
        'write aliases = ["a"]',
    ),
    "list item": (
        "[sst]\nrequires = [\n 1]\n",
        "2: dataset 'sst': 'requires' must be a list of strings, it holds a number",
        "put quotes around it",
    ),
    "uri": (
        "[sst]\nuri = 5\n",
        "2: dataset 'sst': 'uri' must be a string, not a number",
        'write uri = "https://…", or uris = [ … ] for several files',
    ),
    "uri zero": (
        "[sst]\nuri = false\n",
        "2: dataset 'sst': 'uri' must be a string, not true or false",
        'write uri = "https://…", or uris = [ … ] for several files',
    ),
    "uris item": (
        '[sst]\nuri = ["a", 1]\n',
        "2: dataset 'sst': 'uri' must be a list of strings, it holds a number",
        "put quotes around it",
    ),
    "uris empty item": (
        '[sst]\nuris = ["a", ""]\n',
        "2: dataset 'sst': 'uris' is empty",
        "remove it, or name the source",
    ),
    "uri and uris": (
        '["a b"]\nuri = "x"\nuris = ["y"]\n',
        "3: dataset 'a b': 'uri' and 'uris' contradict each other: one source, or several files of one folder",
        "keep one of them",
    ),
    "user": (
        '[sst]\nuri = "https://me:pw@h/a"\n',
        "2: dataset 'sst': 'uri' has a user or password in it, which a manifest must not hold",
        "take the user and password out of it and put them into ~/.netrc",
    ),
    "control character": (
        '[sst]\nuri = "https://h/a\\nb"\n',
        "2: dataset 'sst': 'uri' has a control character: 'https://h/a\\nb'",
        "write it percent-encoded",
    ),
    "store and storage_path": (
        '[sst]\nstorage_path = "x"\nstore = "$data"\n',
        "3: dataset 'sst': 'store' and 'storage_path' contradict each other: both say where it lives",
        "keep one of them",
    ),
    "store and local_path": (
        '[sst]\nlocal_path = "x"\nstore = "$data"\n',
        "3: dataset 'sst': 'store' and 'local_path' contradict each other: both say where it lives",
        "keep one of them",
    ),
    "two places": (
        '[sst]\nlocal_path = "x"\nstorage_path = "y"\n',
        "2: dataset 'sst': 'storage_path' and 'local_path' say two places",
        "keep 'storage_path'",
    ),
    "bare selector": (
        '[sst]\nstore = "data"\n',
        "2: dataset 'sst': 'store' is 'data', which does not begin with a folder as '$data' does",
        'write store = "$data"',
    ),
    "misspelt selector": (
        '[sst]\nstore = "dat/sub"\n',
        "2: dataset 'sst': 'store' is 'dat/sub', which does not begin with a folder as '$data' does",
        'write store = "$data/sub"',
    ),
    "own selector": (
        '[sst]\nstore = "scratch"\n',
        "2: dataset 'sst': 'store' is 'scratch', which does not begin with a folder as '$data' does",
        'write store = "$scratch"',
    ),
    "path as selector": (
        '[sst]\nstore = "/scratch/x/"\n',
        "2: dataset 'sst': 'store' is '/scratch/x/', which does not begin with a folder as '$data' does",
        'for a folder of your own write storage_path = "/scratch/x/$key"',
    ),
    "digest length": (
        '[sst]\nchecksum = "sha256:abc"\n',
        "2: dataset 'sst': 'checksum': 'sha256:abc' is not a sha256 digest of 64 hex digits",
        None,
    ),
    "digest algorithm": (
        '[sst]\nchecksum = "crc:abc"\n',
        "2: dataset 'sst': 'checksum': unknown digest algorithm 'crc'",
        "known are sha256, md5, sha1, sha512, blake2b, blake3, blake3-tree",
    ),
    "tree as checksum": (
        f'[sst]\nchecksum = "blake3-tree:{HEX}"\n',
        "2: dataset 'sst': 'checksum' holds the digest of a folder",
        f'write digest = "blake3-tree:{HEX}"',
    ),
    "md5 as sha256": (
        '[sst]\nsha256 = "md5:' + "a" * 32 + '"\n',
        "2: dataset 'sst': 'sha256' holds another digest",
        'write checksum = "md5:' + "a" * 32 + '"',
    ),
    "two checksums": (
        f'[sst]\nchecksum = "{HEX}"\nsha256 = "{OTHER_HEX}"\n',
        "3: dataset 'sst': 'checksum' is sha256:0123456789ab…, 'sha256' is sha256:ffffffffffff…: "
        "they contradict each other",
        "keep the one that is right, as 'checksum'",
    ),
    "file digest": (
        f'[sst]\ndigest = "blake3:{HEX}"\n',
        f"2: dataset 'sst': 'digest' is 'blake3:{HEX}', not a blake3-tree digest",
        "a folder's digest is blake3-tree:<64 hex digits>; any other goes into 'checksum'",
    ),
    "binding": (
        "[sst]\nloader = 1\n",
        "2: dataset 'sst': 'loader' must be a string or a table, not a number",
        'write loader = "module:function"',
    ),
    "binding part": (
        '[sst.fetcher]\nargs = "a"\n',
        "1: dataset 'sst': 'fetcher.args' must be a list, not a string",
        'write fetcher = { ref = "module:function", args = [], kwargs = {} }',
    ),
    "old spelling": (
        '[sst]\ndownloads = ["a", "b"]\n',
        "2: dataset 'sst': 'downloads' must hold one string",
        'write uri = "…" instead',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_with_place_dataset_and_field_and_a_way_out(fault: str) -> None:
    text, message, hint = FAULTS[fault]
    with pytest.raises(Malformed) as caught:
        parse(text)
    assert f"/p/datamanifest.toml:{message}" == caught.value.message
    assert hint == caught.value.hint
    assert 7 == caught.value.exit_status


def test_names_from_outside_cannot_write_to_the_terminal() -> None:
    with pytest.raises(Malformed) as caught:
        parse('["\\u001b[31m"]\nkey = 1\n')
    assert "/p/datamanifest.toml:2: dataset '\\x1b[31m': 'key' must be a string, not a number" == caught.value.message


def test_a_flat_file_from_before_there_was_a_schema_is_read() -> None:
    dataset = parse('[a]\ndownloads = ["https://h/a.csv"]\npython = "m:f"\n').datasets["a"]
    assert (("https://h/a.csv",), "h/a.csv") == (dataset.uris, dataset.key.text)
    old = parse('[b]\nhost = "Example.com"\npath = "/x/y.nc"\nversion = "2"\n').datasets["b"]
    assert "example.com/x/y.nc#2" == old.key.text
    assert parse("").schema is None


def test_unknown_structural_tables_are_kept_and_not_judged() -> None:
    manifest = parse('_other = 1\n[_X]\ny = [1]\n[_LANG.julia.loaders]\nnc = "M.f"\n[a._LANG.julia]\nfetcher = "g"\n')
    assert {"_other": 1, "_X": {"y": [1]}}.items() <= dict(manifest.document).items()
    assert ["a"] == list(manifest.datasets)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('key = "../x"', "dataset 'a': unsafe key '../x': it has the part '..'"),
        ('key = "/x"', "dataset 'a': unsafe key '/x': it is absolute"),
        ('key = "x/.DM/y"', "dataset 'a': unsafe key 'x/.DM/y': '.dm' is the store's own folder"),
        ('uri = "https://h/a/../b"', "dataset 'a': unsafe key 'h/a/../b': it has the part '..'"),
        (
            'uri = "https://h/a.lock"',
            "dataset 'a': unsafe key 'h/a.lock': a part ends in '.lock', which the store uses itself",
        ),
        (
            'uri = "https://h/a.tmp.zip"\nextract = true',
            "dataset 'a': unsafe key 'h/a.tmp': a part ends in '.tmp', which the store uses itself",
        ),
        ('shell = "x"', "dataset 'a': it has no key, and no 'uri' to derive one from"),
    ],
)
def test_an_unsafe_key_stops_its_own_dataset_when_it_is_asked_for(text: str, message: str) -> None:
    manifest = parse(f'[a]\n{text}\n[b]\nuri = "https://h/b"\n')
    assert "h/b" == manifest.datasets["b"].key.text
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            manifest.datasets["a"].landing  # noqa: B018
        assert message == caught.value.message
        assert 6 == caught.value.exit_status


def test_the_hint_for_an_empty_key_says_what_is_missing() -> None:
    dataset = parse('[a]\nshell = "make"\n').datasets["a"]
    with pytest.raises(Refused) as caught:
        dataset.key  # noqa: B018
    assert "set 'uri', or a 'key' of its own" == caught.value.hint
    assert (None, "", None) == (dataset.find_key(), dataset.show_key(), dataset.format)


def test_a_user_managed_entry_without_source_is_recorded_under_its_name() -> None:
    mine, keyed = parse('[mine]\nstorage_path = "data/x.csv"\n[keyed]\nstorage_path = "d/$key"\n').datasets.values()
    assert (True, "mine") == (mine.is_user_managed, mine.key.text)
    assert (False, None) == (keyed.is_user_managed, keyed.find_key())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('uri = "https://h/a.tgz"', "tar.gz"),
        ('uri = "https://h/get?id=1"\nformat = "ZIP"', "zip"),
        ('uri = "https://h/get?format=tar"', "tar"),
        ('uri = "https://h/a.zip#2"\nkey = "mine"', "zip"),
        ('uri = "https://h/a"\nkey = "mine.tar.zst"', "tar.zst"),
        ('uri = "https://h/a.csv"\nformat = "csv"', None),
    ],
)
def test_the_archive_is_known_by_format_uri_or_key(text: str, expected: str | None) -> None:
    assert expected == parse(f"[a]\n{text}\n").datasets["a"].archive_format


def test_the_field_beats_the_uri_for_the_format() -> None:
    texts = [
        'format = "nc"\nuri = "https://h/a.csv?format=txt"',
        'uri = "https://h/a.csv?format=txt"',
        'uri = "https://h/a.csv"',
        'uri = "https://h/a/../b.csv"',
    ]
    assert ["nc", "txt", "csv", None] == [parse(f"[a]\n{text}\n").datasets["a"].format for text in texts]


def test_file_names_that_collide_name_the_dataset() -> None:
    dataset = parse('[a]\nuris = ["https://h/x?1", "https://h/x?2"]\n').datasets["a"]
    with pytest.raises(Malformed) as caught:
        dataset.file_names  # noqa: B018
    assert "dataset 'a': 'https://h/x?1' and 'https://h/x?2' would both be the file 'x'" == caught.value.message


def test_the_source_id_is_of_the_sources_without_their_secrets() -> None:
    def source_id(text: str) -> str:
        return parse(f"[a]\n{text}\n").datasets["a"].source_id

    plain = source_id('uri = "https://h/a?id=1"')
    assert 64 == len(plain)
    assert plain == source_id('uri = "https://h/a?id=1&token=x"\nchecksum = ""\naliases = ["z"]')
    others = [
        'uri = "https://h/a?id=2"',
        'uri = "https://h/a?id=1"\nbranch = "b"',
        'shell = "x"',
        'fetcher = "m:f"',
        'fetcher = { ref = "m:f", args = [1979-05-27] }',
        'uris = ["https://h/a?id=1", "https://h/b"]',
    ]
    assert 7 == len({plain, *(source_id(text) for text in others)})


def test_the_source_id_is_written_down() -> None:
    """`printf 'uri https://h/a\\0branch b\\0' | b3sum`: refs on disk hold it."""
    from dm.plumbing.hashing import blake3_of

    dataset = parse('[a]\nuri = "https://h/a"\nbranch = "b"\n').datasets["a"]
    assert blake3_of(b"uri https://h/a\0branch b\0").hex() == dataset.source_id


FIND = """
[sst]
uri = "https://h/a"
aliases = ["temperature", "both"]
doi = "10.5281/Zenodo.1"
[ice]
aliases = ["both", "ice"]
doi = "https://doi.org/10.5281/zenodo.2"
[temp]
aliases = ["sst2"]
[sst2]
"""


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("sst", "sst"),
        ("temperature", "sst"),
        ("10.5281/Zenodo.1", "sst"),
        ("10.5281/zenodo.1", "sst"),
        ("doi:10.5281/zenodo.1", "sst"),
        ("https://doi.org/10.5281/ZENODO.1", "sst"),
        ("10.5281/zenodo.2", "ice"),
        ("ice", "ice"),
    ],
)
def test_a_dataset_is_found_by_name_alias_and_doi(identifier: str, name: str) -> None:
    assert name == parse(FIND).find(identifier).name


@pytest.mark.parametrize(
    ("identifier", "message", "hint"),
    [
        ("both", "'both' is ambiguous: 'sst', 'ice'", "use the name of the one that is meant"),
        ("sst2", "'sst2' is ambiguous: 'temp', 'sst2'", "rename or drop the alias"),
        ("temprature", "no dataset 'temprature'", "did you mean 'temperature'?"),
        ("SST", "no dataset 'SST'", "did you mean 'sst' or 'sst2'?"),
        ("zzzzzz", "no dataset 'zzzzzz'", "dm list shows what is declared"),
        ("a\x1bb", "no dataset 'a\\x1bb'", "dm list shows what is declared"),
    ],
)
def test_an_identifier_of_none_or_several_names_the_candidates(identifier: str, message: str, hint: str) -> None:
    with pytest.raises(NotFound) as caught:
        parse(FIND).find(identifier)
    assert (message, hint, 3) == (caught.value.message, caught.value.hint, caught.value.exit_status)


def test_an_empty_manifest_says_so() -> None:
    with pytest.raises(NotFound) as caught:
        parse("").find("sst")
    assert "the manifest declares no datasets; dm add URI declares one" == caught.value.hint


def find_collisions(*tables: str) -> dict[str, list[str]]:
    text = "".join(f"[d{number}]\n{table}\n" for number, table in enumerate(tables, 1))
    return parse(text).find_collisions()


@pytest.mark.parametrize(
    "tables",
    [
        ('uri = "https://h/a?id=1"', 'uri = "https://h/a?id=2"'),
        ('uri = "https://h/a"', 'uri = "https://h:8080/a"'),
        ('uri = "https://h/r.git"\nbranch = "x"', 'uri = "https://h/r.git"\nbranch = "y"'),
        ('uri = "https://h/a.zip"\nextract = true', 'uri = "https://h/a.tar.gz"\nextract = true'),
        ('uris = ["https://h/d/x", "https://h/d/y"]', 'uri = "https://h/d/z"'),
        ('uri = "https://h/a"', 'uri = "https://h/a/b/c"'),
        ('uri = "https://h/x"\nstorage_path = "data/x"', 'uri = "https://h/y"\nstorage_path = "data/./x"'),
        ('uri = "https://h/x"\nstorage_path = "s/$key"', 'uri = "https://h/x?2"\nstorage_path = "s/${key}"'),
        ('uri = "https://h/x"\nstorage_path = "data"', 'uri = "https://h/y"\nlocal_path = "data/y"'),
    ],
    ids=["query", "port", "branch", "archives", "uris", "nested", "place", "keyed", "nested place"],
)
def test_datasets_that_would_land_on_each_other_are_found(tables: tuple[str, str]) -> None:
    assert {"d1": ["d2"], "d2": ["d1"]} == find_collisions(*tables)


@pytest.mark.parametrize(
    "tables",
    [
        ('uri = "https://h/a"', 'uri = "https://h/a"\nalias = ["x"]'),
        ('uri = "https://h/a?1"', 'uri = "https://h/a?2"\nkey = "mine"'),
        ('uri = "https://h/a?1"', 'uri = "https://h/a?2"\nstore = "$cache"'),
        ('uri = "https://h/a?1"', 'uri = "https://h/a?2"\nscope = "mine"'),
        ('uri = "https://h/a?1"', 'uri = "https://h/a?2"\nskip_download = true'),
        ('uri = "https://h/a?1"', 'uri = "https://h/a?2"\nlazy_access = true'),
        ('uri = "https://h/a"', 'uri = "https://h/ab"'),
        ('uri = "https://h/a"', 'uri = "https://h/a.b/c"'),
        ('uri = "https://h/a#1"', 'uri = "https://h/a#2"'),
        ('key = "../x"\nuri = "https://h/1"', 'key = "../x"\nuri = "https://h/2"'),
    ],
    ids=["same", "key", "store", "scope", "skip", "lazy", "prefix", "sibling", "version", "unsafe"],
)
def test_datasets_that_do_not_meet_are_left_alone(tables: tuple[str, str]) -> None:
    assert {} == find_collisions(*tables)


def test_collisions_across_nested_places_are_all_found() -> None:
    found = find_collisions(
        'uri = "https://h/a"', 'uri = "https://h/a/b"', 'uri = "https://h/a/b/c"', 'uri = "https://h/z"'
    )
    assert {"d1": ["d2", "d3"], "d2": ["d1", "d3"], "d3": ["d1", "d2"]} == found


def test_places_can_be_compared_as_they_resolve() -> None:
    manifest = parse(
        '[a]\nuri = "https://h/1"\nkey = "x"\n[b]\nuri = "https://h/2"\nkey = "y"\n[c]\nuri = "https://h/3"\n'
    )
    places = {"a": "/s/x", "b": "/s/x/y", "c": None}
    assert {"a": ["b"], "b": ["a"]} == manifest.find_collisions(lambda dataset: places[dataset.name])


def test_thousands_that_collide_name_a_few_each() -> None:
    count = 2000
    found = find_collisions(*(f'uri = "https://h/a?{number}"' for number in range(count)))
    assert count == len(found)
    assert {8} == {len(others) for others in found.values()}


def test_a_dataset_is_added_in_memory() -> None:
    manifest = parse('[a]\nuri = "https://h/a"\n')
    other = manifest.with_datasets({"b": {"uri": "https://h/b"}})
    assert (["a"], ["a", "b"], "h/b") == (list(manifest.datasets), list(other.datasets), other.find("b").key.text)
    assert ({"uri": "https://h/b"}, None) == (other.document["b"], other.datasets["b"].find_line("uri"))
    with pytest.raises(Malformed) as caught:
        manifest.with_datasets({"b": {"extract": 1}})
    assert "dataset 'b': 'extract' must be true or false, not a number" == caught.value.message
    with pytest.raises(UsageError) as usage:
        manifest.with_datasets({"_b": {}})
    assert "'_b' cannot be the name of a dataset" == usage.value.message


def test_a_manifest_in_memory_has_no_file() -> None:
    manifest = Manifest.of_tables({"a": {"uri": "https://h/a"}}, project_root=Path("/r"))
    assert (None, Path("/r"), "h/a") == (manifest.path, manifest.project_root, manifest.datasets["a"].key.text)
    with pytest.raises(Malformed) as caught:
        Manifest.of_tables({"a": 1})
    assert "'a' is not a dataset: a top-level key must be a table, not a number" == caught.value.message


def test_lines_are_those_of_the_file() -> None:
    manifest = parse('[a]\nuri = "x"\n\n[_STORAGE]\ndata = "/d"\n[_STORAGE._HOST."x*"]\ndata = "/e"\n')
    assert (2, 1) == (manifest.datasets["a"].find_line("uri"), manifest.datasets["a"].find_line("key"))
    assert (5, 7) == (
        manifest.find_line(("_STORAGE",), "data"),
        manifest.find_line(("_STORAGE", "_HOST", "x*"), "data"),
    )


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    cases: list[tuple[Path, str, str | None]] = [
        (tmp_path / "no.toml", f"no manifest '{tmp_path}/no.toml'", "dm init makes one"),
        (tmp_path, f"'{tmp_path}' is a folder, not a manifest", f"name the file in it, or use -C '{tmp_path}'"),
    ]
    for path, message, hint in cases:
        with pytest.raises(NotFound) as caught:
            Manifest.read(path)
        assert (message, hint) == (caught.value.message, caught.value.hint)
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    with pytest.raises(DmError) as failed:
        Manifest.read(loop)
    assert 8 == failed.value.exit_status


def test_the_nearest_manifest_above_is_found_in_the_order_of_names(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert discover(inner, environment(inner)) is None
    for name in reversed(MANIFEST_NAMES):
        path = tmp_path / "a" / name
        path.touch()
        assert name == os.path.basename(discover(inner, environment(inner)) or "")
    (inner / "datasets.toml").touch()
    assert inner / "datasets.toml" == discover(inner, environment(inner))


def test_a_named_manifest_beats_discovery(tmp_path: Path) -> None:
    (tmp_path / "datamanifest.toml").touch()
    for name in ("x.toml", "y.toml", "z.toml"):
        (tmp_path / name).touch()
    both = environment(tmp_path, DATAMANIFEST_TOML="y.toml", DATASETS_TOML=str(tmp_path / "z.toml"))
    assert tmp_path / "x.toml" == discover(tmp_path, both, Path("x.toml"))
    assert tmp_path / "y.toml" == discover(tmp_path, both)
    assert tmp_path / "z.toml" == discover(
        tmp_path, environment(tmp_path, DATASETS_TOML="../" + tmp_path.name + "/z.toml")
    )


def test_a_named_manifest_that_is_not_there_is_told_with_who_named_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        discover(tmp_path, environment(tmp_path, DATAMANIFEST_TOML="no.toml"))
    assert f"no manifest '{tmp_path}/no.toml'" == caught.value.message
    assert "it is named by DATAMANIFEST_TOML" == caught.value.hint
    with pytest.raises(NotFound) as caught:
        discover(tmp_path, environment(tmp_path), Path("no.toml"))
    assert "it is named by --manifest" == caught.value.hint
    with pytest.raises(NotFound) as caught:
        discover(tmp_path, environment(tmp_path), Path("a b/datamanifest.toml"))
    assert f"it is named by --manifest; dm init '{tmp_path}/a b' makes one" == caught.value.hint
