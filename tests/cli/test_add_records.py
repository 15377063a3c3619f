"""``dm add`` with a DOI or the page of a published record: what is declared, what is checked, what stays undone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.fixtures.archives import make_archive, read_tree
from tests.fixtures.catalogues import Services, content_of
from tests.fixtures.commands import Answer, Ask, assert_one_error, default_copy, list_litter, snapshot, write_manifest
from tests.fixtures.homes import Home, RunDm

MANY = "10.5281/zenodo.7963133"
SINGLE = "10.5281/zenodo.6600001"
BIRDS = "10.6084/m9.figshare.19000002.v2"


class Add(Protocol):
    """Runs ``dm add`` where the services are on loopback."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


class AskAdd(Protocol):
    """The same with ``--json``."""

    def __call__(self, *arguments: str) -> Answer: ...


@pytest.fixture
def add(run_dm: RunDm, services: Services, project: Path) -> Add:
    """``dm add`` in a project with an empty manifest."""
    write_manifest(project)
    return lambda *arguments: run_dm("add", *arguments, env=services.variables)


@pytest.fixture
def ask_add(ask: Ask, services: Services, project: Path) -> AskAdd:
    """``dm add … --json`` in a project with an empty manifest."""
    write_manifest(project)
    return lambda *arguments: ask("add", *arguments, env=services.variables)


def read_entries(project: Path) -> dict[str, dict[str, Any]]:
    document = tomllib.loads((project / "datamanifest.toml").read_text())
    return {name: table for name, table in document.items() if not name.startswith("_")}


def md5_of(data: bytes) -> str:
    return f"md5:{hashlib.md5(data).hexdigest()}"


def assert_nothing_declared(project: Path, home: Home) -> None:
    assert {} == read_entries(project)
    state = project / ".datamanifest-state.toml"
    assert not state.exists() or {} == tomllib.loads(state.read_text()).get("datasets", {})
    assert [] == list_litter(home, project)


# One file -------------------------------------------------------------------------------------------------------------


def test_a_record_of_one_file_is_that_file_with_its_publishers_checksum(
    ask_add: AskAdd, ask: Ask, project: Path, home: Home, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    answer = ask_add(SINGLE)
    place = default_copy(home, "127.0.0.1/zenodo/records/6600001/files/co2.csv")
    assert ("co2", "ok", str(place)) == tuple(answer.only[field] for field in ("name", "status", "path"))
    expected = {
        "uri": f"{services.urls.zenodo}/records/6600001/files/co2.csv?download=1",
        "doi": SINGLE,
        "description": "Carbon dioxide at the summit",
        "checksum": md5_of(content_of("co2.csv")),
    }
    assert {"co2": expected} == read_entries(project)
    assert content_of("co2.csv") == place.read_bytes()
    # What is declared is a dataset as any other: no catalogue is asked again.
    services.server.forget_requests()
    assert "unchanged" == ask("fetch", SINGLE).only["status"]
    assert "ok" == ask("verify", "co2").only["status"]
    assert [] == services.server.requests


def test_the_version_of_a_record_does_not_enter_the_key(ask_add: AskAdd, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    answer = ask_add("https://zenodo.org/records/7963133", "--pick", "sst*")
    entry = read_entries(project)["sst 2020"]
    assert ("1.2", "127.0.0.1/zenodo/records/7963133/files/sst%202020.csv") == (entry["version"], entry["key"])
    assert answer.only["path"].endswith("/datasets/127.0.0.1/zenodo/records/7963133/files/sst%202020.csv")


def test_a_file_whose_address_holds_no_name_gets_a_key_that_does(
    ask_add: AskAdd, project: Path, home: Home, services: Services
) -> None:
    services.put_figshare(services.read("figshare_single"))
    assert 0 == ask_add("10.6084/m9.figshare.19000001").status
    entry = read_entries(project)["rings"]
    assert ("figshare.com/files/33000001/rings.csv", "1") == (entry["key"], entry["version"])
    assert content_of("rings.csv") == default_copy(home, "figshare.com/files/33000001/rings.csv").read_bytes()


def test_a_query_that_is_no_format_is_not_taken_for_one(
    ask_add: AskAdd, ask: Ask, project: Path, services: Services
) -> None:
    services.put_dataverse(services.read("dataverse_version"), "10.70122/FK2/ABCDEF")
    services.put_pangaea(services.read("pangaea_table"), 206394)
    assert 0 == ask_add("10.70122/FK2/ABCDEF", "--pick", "survey.csv").status
    assert 0 == ask_add("10.1594/PANGAEA.206394", "--name", "core").status
    entries = read_entries(project)
    assert ("csv", md5_of(content_of("survey.csv"))) == (entries["survey"]["format"], entries["survey"]["checksum"])
    assert ("txt", "127.0.0.1/10.1594/PANGAEA.206394.tab") == (entries["core"]["format"], entries["core"]["key"])
    assert entries["core"]["checksum"].startswith("sha256:")  # no publisher's: measured


def test_the_caller_has_the_last_word_on_fields(ask_add: AskAdd, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    sha256 = f"sha256:{hashlib.sha256(content_of('co2.csv')).hexdigest()}"
    options = ("--name", "summit", "--version", "7", "--checksum", sha256, "--doi", "10.1/x", "--key", "co2/all.csv")
    assert 0 == ask_add(SINGLE, *options).status
    entry = read_entries(project)["summit"]
    assert ("7", sha256, "10.1/x", "co2/all.csv") == tuple(
        entry[field] for field in ("version", "checksum", "doi", "key")
    )


def test_two_checksums_that_contradict_each_other_are_told_before_anything_is_fetched(
    add: Add, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    message = assert_one_error(add(SINGLE, "--checksum", "md5:" + "0" * 32), 4)
    assert f"--checksum is md5:{'0' * 32}, the record says {md5_of(content_of('co2.csv'))}" in message
    assert 1 == len(services.server.requests)


# An archive -----------------------------------------------------------------------------------------------------------


def put_archive(services: Services, tmp_path: Path) -> bytes:
    data = make_archive("zip", [("one.txt", b"1"), ("deep/two.txt", b"22")])
    record = services.read("zenodo_single")
    record["files"][0].update(key="all.zip", size=len(data), checksum=md5_of(data))
    services.put_zenodo(record)
    services.server.put("/zenodo/records/6600001/files/all.zip?download=1", data)
    return data


def test_an_archive_stays_one_and_that_is_said(
    add: Add, project: Path, home: Home, services: Services, tmp_path: Path
) -> None:
    data = put_archive(services, tmp_path)
    done = add(SINGLE)
    assert 0 == done.returncode
    assert "'all.zip' is an archive and stays one: --extract makes the folder in it the dataset" in done.stderr
    assert data == default_copy(home, "127.0.0.1/zenodo/records/6600001/files/all.zip").read_bytes()


def test_an_archive_is_extracted_with_its_publishers_checksum(
    ask_add: AskAdd, ask: Ask, project: Path, home: Home, services: Services, tmp_path: Path
) -> None:
    data = put_archive(services, tmp_path)
    answer = ask_add(SINGLE, "--extract")
    assert 0 == answer.status and "archive" not in answer.stderr
    entry = read_entries(project)["all"]
    assert (True, md5_of(data)) == (entry["extract"], entry["checksum"])
    assert entry["digest"].startswith("blake3-tree:")
    assert b"22" == Path(answer.only["path"], "deep/two.txt").read_bytes()
    assert "ok" == ask("verify").only["status"]


def test_extract_with_what_is_no_archive_is_wrong_usage(add: Add, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.put_zenodo(services.read("zenodo_many"))
    assert "'co2.csv' has no archive's name" in assert_one_error(add(SINGLE, "--extract"), 2)
    assert "--extract goes with one archive, and 3 files are chosen" in assert_one_error(add(MANY, "--extract"), 2)


# Several files --------------------------------------------------------------------------------------------------------


def test_several_files_become_one_folder_with_their_names(
    ask_add: AskAdd, ask: Ask, project: Path, home: Home, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    answer = ask_add(MANY)
    assert "sea-surface-temperature-monthly-means" == answer.only["name"]
    folder = default_copy(home, "127.0.0.1/zenodo/records/7963133/files")
    names = ["README.md", "mask.csv", "sst%202020.csv"]
    assert names == sorted(path.name for path in folder.iterdir() if path.name != ".complete")
    entry = read_entries(project)[answer.only["name"]]
    assert {"uris", "doi", "version", "description", "checksum", "digest"} == set(entry)
    assert [f"{services.urls.zenodo}/records/7963133/files/README.md?download=1"] == entry["uris"][:1]
    assert "3 files, " in answer.stderr
    services.server.forget_requests()
    assert "unchanged" == ask("fetch").only["status"]
    assert "ok" == ask("verify").only["status"]
    assert [] == services.server.requests


def test_each_file_of_a_folder_is_held_against_its_publishers_checksum(
    add: Add, project: Path, home: Home, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    path = "/zenodo/records/7963133/files/mask.csv?download=1"
    services.server.change(path, b"other bytes")
    message = assert_one_error(without_notes(add(MANY)), 4)
    assert "mask.csv" in message and md5_of(b"other bytes") in message
    assert {} == read_entries(project)
    services.server.change(path, content_of("mask.csv"))
    assert 0 == add(MANY).returncode


def test_the_wrong_checksum_of_one_file_leaves_nothing(
    add: Add, project: Path, home: Home, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.server.change("/zenodo/records/6600001/files/co2.csv?download=1", b"other bytes")
    done = add(SINGLE)
    assert "'co2'" in assert_one_error(done, 4)
    hint = "nothing was declared; 'checksum' is the publisher's: try again later; if it stays so, tell the publisher"
    assert f"hint: {hint}" == done.stderr.splitlines()[-1]
    assert_nothing_declared(project, home)


def without_notes(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """A command without the lines that are neither error nor hint."""
    lines = [line for line in done.stderr.splitlines() if line.startswith(("dm: error: ", "hint: "))]
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, "\n".join(lines))


def test_pick_chooses_by_name_and_by_path(ask_add: AskAdd, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    services.put_osf()
    answer = ask_add(MANY, "--pick", "*.csv", "--name", "tables")
    assert 0 == answer.status
    assert 2 == len(read_entries(project)["tables"]["uris"])
    for glob in ("reading.csv", "raw/*", "*/reading.*"):
        answer = ask_add("10.17605/OSF.IO/EZCUJ", "--pick", glob, "--name", "reading", "--overwrite")
        assert 0 == answer.status
        assert "osf.io/ezcuj/raw/reading.csv#1" == read_entries(project)["reading"]["key"]


def test_pick_that_matches_nothing_names_what_there_is(add: Add, project: Path, home: Home, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    message = assert_one_error(add(MANY, "--pick", "*.csv", "--pick", "*.nc"), 3)
    assert message.endswith("'*.nc' matches no file of the record; it has 'README.md', 'sst 2020.csv', 'mask.csv'")
    assert_nothing_declared(project, home)


def test_split_makes_an_entry_of_each_file(ask_add: AskAdd, ask: Ask, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    answer = ask_add(MANY, "--split", "--name", "noaa")
    names = ["noaa/README.md", "noaa/sst 2020.csv", "noaa/mask.csv"]
    assert names == [outcome["name"] for outcome in answer.outcomes] == list(read_entries(project))
    for name, entry in read_entries(project).items():
        assert md5_of(content_of(name.removeprefix("noaa/"))) == entry["checksum"]
        assert MANY == entry["doi"]
    assert "ambiguous" == ask("fetch", MANY).only["code"]
    assert ["unchanged"] * 3 == [outcome["status"] for outcome in ask("fetch").outcomes]


def test_files_without_names_in_their_addresses_are_split_and_that_is_said(
    add: Add, project: Path, home: Home, services: Services
) -> None:
    services.put_figshare(services.read("figshare_many"))
    done = add(BIRDS)
    assert 0 == done.returncode
    assert ["bird-counts/sites.csv", "bird-counts/counts.csv"] == list(read_entries(project))
    assert "the addresses at figshare do not hold the files' names: one entry for each file" in done.stderr
    assert content_of("counts.csv") == default_copy(home, "figshare.com/files/34000002/counts.csv").read_bytes()


def test_a_folder_of_a_dataverse_and_of_osf_is_in_the_name(ask_add: AskAdd, project: Path, services: Services) -> None:
    services.put_dataverse(services.read("dataverse_version"), "10.70122/FK2/ABCDEF")
    services.put_osf()
    picks = ("--pick", "*.txt", "--pick", "survey.csv")
    assert 5 == ask_add("10.70122/FK2/ABCDEF", *picks).status  # names.txt is restricted
    assert 0 == ask_add("10.70122/FK2/ABCDEF", "--pick", "map.txt", "--pick", "readme.txt").status
    assert 0 == ask_add("10.17605/OSF.IO/EZCUJ", "--name", "osf").status
    names = {"household-survey/readme.txt", "household-survey/maps/north/map.txt"}
    assert names | {"osf/notes.csv", "osf/protocol.csv", "osf/raw/reading.csv"} == set(read_entries(project))


def test_when_one_of_several_entries_fails_none_is_declared(
    add: Add, ask_add: AskAdd, project: Path, home: Home, services: Services
) -> None:
    services.put_figshare(services.read("figshare_many"))
    services.server.change("/ndownloader/files/34000002", b"other bytes")
    answer = ask_add(BIRDS)
    assert 4 == answer.status
    told = {outcome["name"]: (outcome["status"], outcome.get("code")) for outcome in answer.outcomes}
    expected = {
        "bird-counts/sites.csv": ("skipped", "not-declared"),
        "bird-counts/counts.csv": ("failed", "checksum-mismatch"),
    }
    assert expected == told
    assert_nothing_declared(project, home)
    # What arrived is not asked for again.
    services.server.change("/ndownloader/files/34000002", content_of("counts.csv"))
    services.server.forget_requests()
    assert 0 == ask_add(BIRDS).status
    assert (0, 1) == tuple(services.server.count(f"/ndownloader/files/3400000{n}") for n in (1, 2))
    assert 2 == len(read_entries(project))


def test_extract_with_split_is_for_the_archives(
    ask_add: AskAdd, project: Path, services: Services, tmp_path: Path
) -> None:
    data = make_archive("zip", [("one.txt", b"1")])
    record = services.read("zenodo_single")
    archive = {**record["files"][0], "key": "all.zip", "size": len(data), "checksum": md5_of(data)}
    record["files"].append(archive)
    services.put_zenodo(record)
    services.server.put("/zenodo/records/6600001/files/all.zip?download=1", data)
    answer = ask_add(SINGLE, "--split", "--extract", "--name", "x")
    assert 0 == answer.status
    entries = read_entries(project)
    assert (None, True) == (entries["x/co2.csv"].get("extract"), entries["x/all.zip"]["extract"])
    assert {"one.txt", ".complete"} == set(read_tree(Path(answer.outcomes[1]["path"])))


# Before anything is fetched -------------------------------------------------------------------------------------------


def test_a_dry_run_lists_the_files_with_their_sizes_and_changes_nothing(
    add: Add, ask_add: AskAdd, project: Path, home: Home, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    before = snapshot(project, home.path)
    done = add(MANY, "--dry-run")
    assert 0 == done.returncode
    first, *files = done.stdout.splitlines()
    assert "3 files would be declared as one folder" in first
    sizes = [len(content_of(name)) for name in ("README.md", "sst 2020.csv", "mask.csv")]
    names = ["README.md", "sst 2020.csv", "mask.csv"]
    assert [f"  {size} B  {name}" for size, name in zip(sizes, names, strict=True)] == files
    document = ask_add(MANY, "--dry-run").document
    (record,) = document["records"]
    assert (MANY, "Zenodo", "1.2") == (record["identifier"], record["service"], record["version"])
    assert ["README.md", "sst 2020.csv", "mask.csv"] == [file["name"] for file in record["files"]]
    assert md5_of(content_of("mask.csv")) == record["files"][2]["checksum"]
    assert before == snapshot(project, home.path)
    assert {"/zenodo/api/records/7963133"} == {request.path for request in services.server.requests}


def test_a_record_can_be_declared_without_being_fetched(
    ask_add: AskAdd, ask: Ask, project: Path, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    answer = ask_add(SINGLE, "--no-fetch")
    assert ("ok", "declared") == (answer.only["status"], answer.only["message"])
    assert md5_of(content_of("co2.csv")) == read_entries(project)["co2"]["checksum"]
    assert 1 == len(services.server.requests)
    assert "ok" == ask("fetch", "co2").only["status"]


def test_pick_and_split_go_with_a_record(add: Add, project: Path, services: Services) -> None:
    uri = services.server.put("/a.csv", "a")
    for option in (("--pick", "*"), ("--split",)):
        message = assert_one_error(add(uri, *option), 2)
        assert f"{option[0]} goes with a published record, which '{uri}' is not" == message


def test_options_of_one_file_do_not_go_with_several(add: Add, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    assert "--checksum goes with one file, and 3 are chosen" == assert_one_error(
        add(MANY, "--checksum", "md5:" + "0" * 32), 2
    )
    assert "--key goes with one file, and 3 are chosen" == assert_one_error(add(MANY, "--split", "--key", "x"), 2)
    assert "--branch goes with a repository" in assert_one_error(add(MANY, "--branch", "main"), 2)
    assert "--doi goes with one source" in assert_one_error(add(MANY, SINGLE, "--doi", "10.1/x"), 2)


def test_the_same_record_twice_is_told(add: Add, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    assert 0 == add(SINGLE).returncode
    before = (project / "datamanifest.toml").read_bytes()
    assert "'co2' is declared already" == assert_one_error(add(SINGLE), 6)
    assert before == (project / "datamanifest.toml").read_bytes()


def test_two_choices_of_a_record_need_places_of_their_own(add: Add, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    assert 0 == add(MANY, "--name", "all").returncode
    done = without_notes(add(MANY, "--pick", "*.csv", "--name", "tables", "--no-fetch"))
    assert "'tables' and 'all' would land on each other" in assert_one_error(done, 7)
    assert "--key" in done.stderr
    done = without_notes(add(MANY, "--split", "--dry-run"))
    assert "would land on each other" in assert_one_error(done, 7)
    assert "hint: leave that file out with --pick, or take 'all' out first with dm rm" in done.stderr
    done = add(MANY, "--pick", "*.csv", "--name", "tables", "--key", "noaa/tables")
    assert 0 == done.returncode, done.stderr


# Services that fail ---------------------------------------------------------------------------------------------------


def test_a_record_that_is_not_there_is_told_with_a_way_out(add: Add, project: Path, home: Home) -> None:
    done = add("10.5281/zenodo.1")
    assert "'10.5281/zenodo.1': Zenodo has no record '1'" == assert_one_error(done, 5)
    assert "/zenodo/records/1" in done.stderr.splitlines()[1]
    assert_nothing_declared(project, home)


def test_restricted_files_are_named(add: Add, services: Services) -> None:
    services.put_dataverse(services.read("dataverse_version"), "10.70122/FK2/ABCDEF")
    done = add("10.70122/FK2/ABCDEF")
    assert "1 of 4 files at Dataverse are restricted: 'names.txt'" in assert_one_error(done, 5)
    assert "--pick the others" in done.stderr


def test_a_service_that_answers_nonsense_is_named(add: Add, services: Services) -> None:
    services.server.put("/zenodo/api/records/6600001", b"<html>maintenance</html>")
    assert "cannot read the answer of Zenodo" in assert_one_error(add(SINGLE), 5)


def test_a_service_in_trouble_is_asked_again(run_dm: RunDm, project: Path, services: Services) -> None:
    write_manifest(project)
    services.put_zenodo(services.read("zenodo_single"))
    services.server.fail("/zenodo/api/records/6600001", 503, retry_after="0")
    variables = {**services.variables, "DATAMANIFEST_HTTP_RETRIES": "2"}
    assert 0 == run_dm("add", SINGLE, env=variables).returncode


def test_hostile_names_of_files_are_refused(add: Add, project: Path, home: Home, services: Services) -> None:
    record = services.read("zenodo_single")
    record["files"][0]["key"] = "../../../.bashrc"
    services.put_zenodo(record)
    assert "names a file '../../../.bashrc', which is not used" in assert_one_error(add(SINGLE), 6)
    assert_nothing_declared(project, home)


def test_the_doi_of_all_versions_declares_the_latest(add: Add, project: Path, services: Services) -> None:
    record = services.read("zenodo_single")
    services.put_zenodo(record, at=6600000)
    done = add("https://doi.org/10.5281/zenodo.6600000")
    assert 0 == done.returncode
    assert "the latest, '10.5281/zenodo.6600001', is what is added" in done.stderr
    assert SINGLE == read_entries(project)["co2"]["doi"]


def test_one_of_several_sources_that_fails_does_not_stop_the_others(
    ask_add: AskAdd, project: Path, services: Services
) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    answer = ask_add("10.5281/zenodo.1", SINGLE, services.server.put("/a.csv", "a"))
    assert [("10.5281/zenodo.1", "failed"), ("co2", "ok"), ("a", "ok")] == [
        (outcome["name"], outcome["status"]) for outcome in answer.outcomes
    ]
    assert (5, {"co2", "a"}) == (answer.status, set(read_entries(project)))


def test_a_manifest_does_not_choose_the_services(run_dm: RunDm, project: Path, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    write_manifest(project, f'[_STORAGE]\nzenodo_url = "{services.urls.zenodo}"\n')
    variables = {"DATAMANIFEST_HTTP_RETRIES": "0", "https_proxy": "http://127.0.0.1:9"}
    assert 5 == run_dm("add", SINGLE, env=variables).returncode  # zenodo.org, behind a proxy that is not there
    assert [] == services.server.requests


def test_the_users_config_chooses_the_services(run_dm: RunDm, home: Home, project: Path, services: Services) -> None:
    write_manifest(project)
    services.put_zenodo(services.read("zenodo_single"))
    assert 0 == run_dm("config", "set", "--global", "zenodo_url", services.urls.zenodo + "/").returncode
    assert 0 == run_dm("add", SINGLE).returncode


# The Python face ------------------------------------------------------------------------------------------------------


def test_the_python_face_adds_records(run_dm: RunDm, project: Path, services: Services, tmp_path: Path) -> None:
    import dm
    from tests.fixtures.fetching import make_environment

    services.put_zenodo(services.read("zenodo_many"))
    services.put_figshare(services.read("figshare_many"))
    write_manifest(project)
    variables = {**services.variables, "XDG_DATA_HOME": str(tmp_path / "d"), "XDG_CACHE_HOME": str(tmp_path / "c")}
    with dm.Manifest.open(project, environment=make_environment(tmp_path, **variables)) as manifest:
        one = manifest.add(MANY, pick="mask.csv")
        assert not isinstance(one, list) and "mask" == one.name
        several = manifest.add(MANY, split=True, name="all", overwrite=False, pick=("README.md", "sst*"))
        assert isinstance(several, list) and ["ok", "ok"] == [outcome.status for outcome in several]
        services.server.change("/ndownloader/files/34000002", b"other bytes")
        with pytest.raises(dm.DmError, match="1 of 2 failed"):
            manifest.add(BIRDS)
        assert ["mask", "all/README.md", "all/sst 2020.csv"] == manifest.names


def test_json_tells_the_record_even_when_it_cannot_be_declared(ask_add: AskAdd, services: Services) -> None:
    services.put_dataverse(services.read("dataverse_version"), "10.70122/FK2/ABCDEF")
    document = json.loads(json.dumps(ask_add("10.70122/FK2/ABCDEF").document))
    assert "record-restricted" == document["outcomes"][0]["code"]
    assert ["readme.txt", "maps/north/map.txt", "survey.csv", "names.txt"] == [
        file["name"] for file in document["records"][0]["files"]
    ]
