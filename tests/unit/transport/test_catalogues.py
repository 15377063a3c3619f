"""Catalogues: from an identifier to a record, and answers that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dm.errors import DmError, Refused, SourceFailed
from dm.plumbing.transport.catalogues import CatalogueRecord, RecordFile, ServiceUrls, is_record, resolve_record
from dm.plumbing.transport.catalogues import asking as asking_module
from dm.plumbing.transport.catalogues.files import tidy_title
from dm.plumbing.transport.catalogues.resolution import find_doi
from dm.plumbing.transport.connections import HttpOptions
from dm.plumbing.transport.documents import JSON_BYTES_MAX, Documents
from tests.fixtures.catalogues import Services, content_of
from tests.fixtures.fetching import QUICK, make_environment
from tests.fixtures.sinks import RecordingProgress

Resolve = Callable[[str], CatalogueRecord]


@pytest.fixture
def progress() -> RecordingProgress:
    return RecordingProgress()


@pytest.fixture
def resolve(tmp_path: Path, services: Services, progress: RecordingProgress) -> Resolve:
    """Resolve an identifier against the services on loopback."""
    return make_resolve(tmp_path, services, progress)


def make_resolve(
    tmp_path: Path,
    services: Services,
    progress: RecordingProgress,
    *,
    options: HttpOptions = QUICK,
    urls: ServiceUrls | None = None,
) -> Resolve:
    def run(identifier: str) -> CatalogueRecord:
        documents = Documents(make_environment(tmp_path), options)
        try:
            return resolve_record(identifier, documents=documents, urls=urls or services.urls, progress=progress)
        finally:
            documents.close()

    return run


def fail_with(resolve: Resolve, identifier: str, kind: type[DmError], code: str) -> DmError:
    """The error of an identifier that cannot be resolved; it is one line with a way out."""
    with pytest.raises(kind) as caught:
        resolve(identifier)
    error = caught.value
    assert code == error.code, error
    assert "\n" not in error.message and error.hint
    return error


def names_of(record: CatalogueRecord) -> list[str]:
    return [file.name for file in record.files]


def md5_of(name: str) -> str:
    return f"md5:{hashlib.md5(content_of(name)).hexdigest()}"


# Which service --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identifier", "doi"),
    [
        ("10.5281/zenodo.1", "10.5281/zenodo.1"),
        ("doi:10.5281/zenodo.1", "10.5281/zenodo.1"),
        ("DOI: 10.5281/Zenodo.1 ", "10.5281/Zenodo.1"),
        ("https://doi.org/10.5281/zenodo.1", "10.5281/zenodo.1"),
        ("http://dx.doi.org/10.1000/a%2Fb%3Cc%3E", "10.1000/a/b<c>"),
        ("10.1000.10/123(4)5-6", "10.1000.10/123(4)5-6"),
        ("10.5281/with blank", None),
        ("10.12/short", None),
        ("10.5281", None),
        ("./10.5281/zenodo.1", None),
        ("https://example.org/10.5281/zenodo.1", None),
        ("ftp://doi.org/10.5281/zenodo.1", None),
        ("http://[broken/10.5281/zenodo.1", None),
    ],
)
def test_a_doi_is_read_however_it_is_written(identifier: str, doi: str | None) -> None:
    assert doi == find_doi(identifier, ServiceUrls())


@pytest.mark.parametrize(
    "page",
    [
        "https://zenodo.org/records/7963133",
        "https://www.zenodo.org/record/7963133/",
        "https://zenodo.org/api/records/7963133",
        "https://zenodo.org/doi/10.5281/zenodo.7963133",
        "https://zenodo.org/records/7963133?preview=1",
        "https://figshare.com/articles/dataset/Tree_rings/19000001",
        "https://figshare.com/articles/dataset/Tree_rings/19000001/2",
        "https://uni.figshare.com/articles/thesis/Tree_rings/19000001",
        "https://figshare.com/collections/All_rings/5000001",
        "https://dataverse.example.edu/dataset.xhtml?persistentId=doi:10.70122/FK2/ABCDEF",
        "https://example.edu/dataverse/citation?persistentId=hdl:1902.1/1",
        "https://doi.pangaea.de/10.1594/PANGAEA.206394",
        "https://osf.io/ezcuj/",
        "https://osf.io/ezcuj/files/osfstorage",
    ],
)
def test_the_landing_page_of_a_service_is_a_record(page: str) -> None:
    assert is_record(page, ServiceUrls())


@pytest.mark.parametrize(
    "uri",
    [
        "https://zenodo.org/records/7963133/files/sst.nc?download=1",
        "https://zenodo.org/api/records/7963133/files/sst.nc/content",
        "https://zenodo.org/",
        "https://zenodo.org.example.com/records/7963133",
        "https://example.org/records/7963133",
        "https://ndownloader.figshare.com/files/34000001",
        "https://dataverse.example.edu/api/access/datafile/4101",
        "https://dataverse.example.edu/dataset.xhtml",
        "https://doi.pangaea.de/10.1594/PANGAEA.206394?format=textfile",
        "https://osf.io/download/ezcuj/",
        "https://osf.io/abc",
        "https://example.org/ezcuj",
        "http://[broken",
        "s3://zenodo.org/records/7963133",
        "data/10.csv",
    ],
)
def test_the_address_of_a_file_is_none(uri: str) -> None:
    assert not is_record(uri, ServiceUrls())


def test_what_is_neither_a_doi_nor_a_page_is_told(resolve: Resolve) -> None:
    error = fail_with(resolve, "https://example.org/x", SourceFailed, "record-unknown")
    assert "'https://example.org/x' is neither a DOI nor a page of a service that dm knows" == error.message


def test_a_doi_that_is_not_registered_is_told(resolve: Resolve, services: Services) -> None:
    services.answer("/doi/api/handles/10.5066/NOTHING", services.read("doi_unknown"))
    for doi in ("10.5066/NOTHING", "10.5066/GONE"):  # told by the answer, told by a 404
        error = fail_with(resolve, doi, SourceFailed, "doi-unknown")
        assert f"no DOI '{doi}' is registered" == error.message


def test_a_doi_leads_to_the_service_whose_page_it_has(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.put_figshare(services.read("figshare_single"))
    services.put_doi("10.1000/z", "https://zenodo.org/records/6600001")
    services.put_doi("10.1000/f", "https://data.institute.example/articles/dataset/Tree_rings/19000001")
    assert ("Zenodo", ["co2.csv"]) == (lambda record: (record.service, names_of(record)))(resolve("10.1000/z"))
    assert ("figshare", ["rings.csv"]) == (lambda record: (record.service, names_of(record)))(resolve("10.1000/f"))


def test_a_landing_page_that_is_no_web_address_is_refused(resolve: Resolve, services: Services) -> None:
    services.put_doi("10.1000/z", "file:///etc/passwd")
    fail_with(resolve, "10.1000/z", Refused, "record-unsafe")


# Zenodo ---------------------------------------------------------------------------------------------------------------


def test_a_zenodo_record_has_its_files_with_names_and_checksums(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"))
    at = f"{services.urls.zenodo}/records/7963133"
    expected = CatalogueRecord(
        "Zenodo",
        at,
        "10.5281/zenodo.7963133",
        "Sea surface temperature, monthly means",
        "1.2",
        resolve("10.5281/zenodo.7963133").files,
    )
    for identifier in ("10.5281/zenodo.7963133", "https://zenodo.org/records/7963133", f"{at}/"):
        assert expected == resolve(identifier)
    assert ["README.md", "sst 2020.csv", "mask.csv"] == names_of(expected)
    assert f"{at}/files/sst%202020.csv?download=1" == expected.files[1].uri
    assert [md5_of(name) for name in names_of(expected)] == [str(file.checksum) for file in expected.files]
    assert len(content_of("mask.csv")) == expected.files[2].size_bytes
    assert expected.has_named_addresses


def test_the_doi_of_all_versions_leads_to_the_latest_and_says_so(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_many"), at=7963132)
    record = resolve("10.5281/zenodo.7963132")
    assert "10.5281/zenodo.7963133" == record.doi
    assert f"{services.urls.zenodo}/records/7963133/files/README.md?download=1" == record.files[0].uri
    told = "'10.5281/zenodo.7963132' stands for all versions: the latest, '10.5281/zenodo.7963133', is what is added"
    assert (told,) == record.notes


def test_the_doi_of_all_versions_is_found_by_its_latest_version_too(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.server.redirect("/zenodo/api/records/6600000/versions/latest", "/zenodo/api/records/6600001")
    assert "10.5281/zenodo.6600001" == resolve("10.5281/zenodo.6600000").doi


def test_a_zenodo_record_that_is_not_there_or_not_for_everyone_is_told(resolve: Resolve, services: Services) -> None:
    error = fail_with(resolve, "10.5281/zenodo.1", SourceFailed, "record-missing")
    assert "Zenodo has no record '1'" == error.message
    record = services.read("zenodo_single")
    record["metadata"]["access_right"] = "embargoed"
    del record["files"]
    services.put_zenodo(record)
    error = fail_with(resolve, "10.5281/zenodo.6600001", SourceFailed, "record-restricted")
    assert "the files of 'Carbon dioxide at the summit' at Zenodo are not for everyone to download: embargoed" == str(
        error
    )


def test_a_record_without_files_is_told(resolve: Resolve, services: Services) -> None:
    record = services.read("zenodo_single")
    record["files"] = []
    services.put_zenodo(record)
    error = fail_with(resolve, "10.5281/zenodo.6600001", SourceFailed, "record-empty")
    assert "the record at Zenodo has no files: 'Carbon dioxide at the summit'" == error.message


# figshare -------------------------------------------------------------------------------------------------------------


def test_a_figshare_article_has_keys_since_its_addresses_hold_no_names(resolve: Resolve, services: Services) -> None:
    services.put_figshare(services.read("figshare_many"))
    record = resolve("10.6084/m9.figshare.19000002.v2")
    assert ("10.6084/m9.figshare.19000002.v2", "2", "Bird counts") == (record.doi, record.version, record.title)
    file = RecordFile(
        "sites.csv",
        f"{services.server.url}/ndownloader/files/34000001",
        record.files[0].checksum,
        len(content_of("sites.csv")),
        "figshare.com/files/34000001/sites.csv",
    )
    assert file == record.files[0]
    assert md5_of("sites.csv") == str(file.checksum)
    assert not record.has_named_addresses and () == record.notes


def test_a_figshare_doi_without_a_version_pins_the_latest(resolve: Resolve, services: Services) -> None:
    article = services.read("figshare_many")
    article["doi"] = "10.6084/m9.figshare.19000002"
    services.put_figshare(article)
    for identifier in ("10.6084/m9.figshare.19000002", "https://figshare.com/articles/dataset/Bird_counts/19000002"):
        record = resolve(identifier)
        assert "10.6084/m9.figshare.19000002.v2" == record.doi
        assert (
            "no version was asked for: the latest, '10.6084/m9.figshare.19000002.v2', is what is added",
        ) == record.notes


def test_an_article_of_many_files_is_read_by_pages(resolve: Resolve, services: Services) -> None:
    article = services.read("figshare_many")
    page = services.read("figshare_files_page")
    article["files"] = page[:10]
    services.put_figshare(article)
    path = "/figshare/v2/articles/19000002/versions/2/files"
    many = [{**page[0], "id": 36_000_000 + n, "name": f"more{n}.csv"} for n in range(100)]
    services.answer(f"{path}?page=1&page_size=100", many)
    services.answer(f"{path}?page=2&page_size=100", page)
    assert 112 == len(resolve("10.6084/m9.figshare.19000002.v2").files)


def test_a_file_that_lies_elsewhere_has_no_checksum(resolve: Resolve, services: Services) -> None:
    article = services.read("figshare_single")
    article["files"][0].update(is_link_only=True, download_url="https://example.org/rings.csv", size=0)
    services.put_figshare(article)
    file = resolve("10.6084/m9.figshare.19000001").files[0]
    assert ("https://example.org/rings.csv", None, None) == (file.uri, file.checksum, file.size_bytes)


def test_what_figshare_does_not_hand_out_is_told(resolve: Resolve, services: Services) -> None:
    article = services.read("figshare_single")
    article.update(files=[], is_embargoed=True)
    services.put_figshare(article)
    fail_with(resolve, "10.6084/m9.figshare.19000001", SourceFailed, "record-restricted")
    article.update(is_embargoed=False, is_confidential=True)
    services.put_figshare(article)
    fail_with(resolve, "10.6084/m9.figshare.19000001", SourceFailed, "record-restricted")
    error = fail_with(resolve, "10.6084/m9.figshare.c.5000001", SourceFailed, "record-series")
    assert "'c.5000001' at figshare is a collection, not one article with files" == error.message
    error = fail_with(resolve, "10.6084/m9.figshare.19000009.v3", SourceFailed, "record-missing")
    assert "figshare has no record '19000009.v3'" == error.message


# Dataverse ------------------------------------------------------------------------------------------------------------


def test_a_dataverse_dataset_is_asked_where_its_doi_leads(resolve: Resolve, services: Services) -> None:
    page = services.put_dataverse(services.read("dataverse_version"), "10.70122/FK2/ABCDEF")
    record = resolve("10.70122/FK2/ABCDEF")
    assert record == resolve(page)
    assert ("10.70122/FK2/ABCDEF", "2.1", "Household survey") == (record.doi, record.version, record.title)
    assert ["readme.txt", "maps/north/map.txt", "survey.csv", "names.txt"] == names_of(record)
    assert [False, False, False, True] == [file.restricted for file in record.files]
    assert ("a Dataverse DOI stands for all versions: the latest, 2.1, is what is added",) == record.notes


def test_a_table_that_dataverse_took_apart_is_asked_for_as_it_was(resolve: Resolve, services: Services) -> None:
    answer = services.read("dataverse_version")
    services.put_dataverse(answer, "10.70122/FK2/ABCDEF")
    table = resolve("10.70122/FK2/ABCDEF").files[2]
    assert f"{services.server.url}/dataverse/api/access/datafile/4103?format=original" == table.uri
    assert (md5_of("survey.csv"), len(content_of("survey.csv"))) == (str(table.checksum), table.size_bytes)
    assert "127.0.0.1/datafile/4103/survey.csv" == table.key
    del answer["data"]["files"][2]["dataFile"]["originalFileName"]  # as older installations answer
    services.put_dataverse(answer, "10.70122/FK2/ABCDEF")
    assert "survey.csv" == resolve("10.70122/FK2/ABCDEF").files[2].name


def test_the_checksum_of_an_installation_may_be_another_algorithm(resolve: Resolve, services: Services) -> None:
    answer = services.read("dataverse_version")
    stored = answer["data"]["files"][0]["dataFile"]
    stored["checksum"] = {"type": "SHA-256", "value": "AB" * 32}
    answer["data"]["files"][1]["dataFile"]["checksum"] = {"type": "SHA-3", "value": "AB" * 32}
    services.put_dataverse(answer, "10.70122/FK2/ABCDEF")
    files = resolve("10.70122/FK2/ABCDEF").files
    assert ("sha256:" + "ab" * 32, None) == (str(files[0].checksum), files[1].checksum)


def test_a_doi_of_one_file_is_that_file(resolve: Resolve, services: Services) -> None:
    doi = "10.70122/FK2/ABCDEF/README"
    page = f"{services.server.url}/dataverse/file.xhtml?persistentId=doi:{doi}"
    services.put_doi(doi, page)
    quoted = f"doi%3A{doi.replace('/', '%2F')}"
    services.answer(f"/dataverse/api/files/:persistentId?persistentId={quoted}", services.read("dataverse_file"))
    record = resolve(doi)
    assert (doi, "Read this first", ["readme.txt"]) == (record.doi, record.title, names_of(record))
    citation = f"{services.server.url}/dataverse/citation?persistentId=doi:10.70122/FK2/GONE"
    services.put_doi("10.70122/FK2/GONE", citation)
    error = fail_with(resolve, "10.70122/FK2/GONE", SourceFailed, "record-missing")
    assert "Dataverse has no record 'doi:10.70122/FK2/GONE'" == error.message


def test_a_dataverse_of_the_users_choice_is_asked_instead(
    tmp_path: Path, services: Services, progress: RecordingProgress
) -> None:
    services.put_dataverse(services.read("dataverse_version"), "10.7910/DVN/ABCDEF")
    urls = services.urls._replace(dataverse=f"{services.server.url}/dataverse")
    resolve = make_resolve(tmp_path, services, progress, urls=urls)
    page = "https://dataverse.harvard.edu/dataset.xhtml?persistentId=doi:10.7910/DVN/ABCDEF"
    assert "Household survey" == resolve("10.7910/DVN/ABCDEF").title == resolve(page).title
    assert 0 == services.server.count("/doi/api/handles/10.7910/DVN/ABCDEF")


# PANGAEA --------------------------------------------------------------------------------------------------------------


def test_a_pangaea_table_is_its_text(resolve: Resolve, services: Services) -> None:
    services.put_pangaea(services.read("pangaea_table"), 206394)
    uri = f"{services.urls.pangaea}/10.1594/PANGAEA.206394?format=textfile"
    file = RecordFile("PANGAEA.206394.tab", uri, key="127.0.0.1/10.1594/PANGAEA.206394.tab")
    for identifier in ("10.1594/PANGAEA.206394", "https://doi.pangaea.de/10.1594/PANGAEA.206394"):
        record = resolve(identifier)
        assert ("10.1594/PANGAEA.206394", "Radiocarbon ages of core A", (file,)) == (*record[2:4], record.files)


def test_a_pangaea_list_of_files_is_its_files(resolve: Resolve, services: Services) -> None:
    rows = "".join(f"{name}\t{len(content_of(name))}\t{md5_of(name)[4:]}\n" for name in ("a 1.png", "b.png"))
    table = f"/* DATA DESCRIPTION:\nBinary\n*/\nBinary\tBinary (Size)\tBinary (Hash)\n{rows}\n".encode()
    services.put_pangaea(services.read("pangaea_list"), 930512, table)
    record = resolve("10.1594/PANGAEA.930512")
    assert ["a 1.png", "b.png"] == names_of(record)
    assert f"{services.urls.pangaea}/dataset/930512/files/a%201.png" == record.files[0].uri
    assert (md5_of("b.png"), len(content_of("b.png"))) == (str(record.files[1].checksum), record.files[1].size_bytes)
    long_list = table + "".join(f"c{n}.png\t1\t{'0' * 32}\n" for n in range(30_000)).encode()
    services.put_pangaea(services.read("pangaea_list"), 930512, long_list)
    error = fail_with(resolve, "10.1594/PANGAEA.930512", SourceFailed, "record-too-large")
    assert "the record at PANGAEA has more than 20,000 files or 500 pages and folders" == error.message


def test_a_size_that_no_file_has_is_not_told(resolve: Resolve, services: Services) -> None:
    table = f"Binary\tBinary (Size)\na.png\t{'9' * 5000}\nb.png\t{'9' * 18}\n".encode()
    services.put_pangaea(services.read("pangaea_list"), 930512, table)
    assert [None, 10**18 - 1] == [file.size_bytes for file in resolve("10.1594/PANGAEA.930512").files]


def test_a_single_file_at_pangaea_is_that_file(resolve: Resolve, services: Services) -> None:
    record = services.read("pangaea_table")
    address = f"{services.urls.pangaea}/dataset/206394/files/core%20a.zip"
    record["distribution"] = {"@type": "DataDownload", "encodingFormat": "application/zip", "contentUrl": address}
    services.put_pangaea(record, 206394)
    assert (RecordFile("core a.zip", address),) == resolve("10.1594/PANGAEA.206394").files


def test_a_series_at_pangaea_names_its_members(resolve: Resolve, services: Services) -> None:
    services.put_pangaea(services.read("pangaea_series"), 867475)
    error = fail_with(resolve, "10.1594/PANGAEA.867475", SourceFailed, "record-series")
    assert "'Cores of the expedition' at PANGAEA is a series of 7 data sets, not one data set" == error.message
    page = f"{services.urls.pangaea}/10.1594/PANGAEA.867475"
    assert f"add those that are wanted, like dm add 10.1594/PANGAEA.206394; they are listed at {page}" == error.hint


def test_what_pangaea_does_not_hand_out_is_told(resolve: Resolve, services: Services) -> None:
    record = services.read("pangaea_table")
    record.update(isAccessibleForFree=False, conditionsOfAccess="moratorium")
    services.put_pangaea(record, 206394)
    error = fail_with(resolve, "10.1594/PANGAEA.206394", SourceFailed, "record-restricted")
    assert error.message.endswith("moratorium")
    record = services.read("pangaea_table")
    del record["distribution"]
    services.put_pangaea(record, 206394)
    fail_with(resolve, "10.1594/PANGAEA.206394", SourceFailed, "record-empty")
    fail_with(resolve, "10.1594/PANGAEA.1", SourceFailed, "record-missing")


# OSF ------------------------------------------------------------------------------------------------------------------


def test_an_osf_project_has_the_files_of_all_pages_and_folders(resolve: Resolve, services: Services) -> None:
    services.put_osf()
    record = resolve("10.17605/OSF.IO/EZCUJ")
    assert record == resolve("https://osf.io/ezcuj")
    assert ("10.17605/OSF.IO/EZCUJ", "Reproducible reading") == (record.doi, record.title)
    assert ["notes.csv", "protocol.csv", "raw/reading.csv"] == names_of(record)
    protocol = record.files[1]
    assert f"{services.server.url}/osfsite/download/5c1a0001/?version=3" == protocol.uri
    assert f"sha256:{hashlib.sha256(content_of('protocol.csv')).hexdigest()}" == str(protocol.checksum)
    assert ["osf.io/ezcuj/notes.csv#1", "osf.io/ezcuj/protocol.csv#3", "osf.io/ezcuj/raw/reading.csv#1"] == [
        file.key for file in record.files
    ]


def test_an_osf_page_may_be_one_file(resolve: Resolve, services: Services) -> None:
    guid = services.read("osf_guid")
    guid["data"]["relationships"]["referent"]["data"] = {"type": "files", "id": "5c1a0001"}
    services.answer("/osf/v2/guids/ezcuj/?resolve=false", guid)
    services.answer("/osf/v2/files/5c1a0001/", services.read("osf_file"))
    record = resolve("https://osf.io/ezcuj/")
    assert (None, ["protocol.csv"]) == (record.doi, names_of(record))


def test_what_osf_does_not_hand_out_is_told(resolve: Resolve, services: Services) -> None:
    fail_with(resolve, "https://osf.io/ezcuj", SourceFailed, "record-missing")
    path = "/osf/v2/guids/ezcuj/?resolve=false"
    guid = services.read("osf_guid")
    guid["data"]["relationships"]["referent"]["data"]["type"] = "preprints"
    services.answer(path, guid)
    fail_with(resolve, "https://osf.io/ezcuj", SourceFailed, "record-empty")
    services.server.fail(path, 403)
    error = fail_with(resolve, "https://osf.io/ezcuj", SourceFailed, "record-restricted")
    assert error.message.endswith("it is private")


def test_folders_that_lead_in_a_circle_end(resolve: Resolve, services: Services) -> None:
    services.put_osf()
    folder = services.read("osf_folder")
    folder["data"] = [part for part in services.read("osf_files_page1")["data"] if part["id"] == "5c1a0002"]
    services.answer("/osf/v2/nodes/ezcuj/files/osfstorage/5c1a0002/?page=1&page%5Bsize%5D=100", folder)
    fail_with(resolve, "https://osf.io/ezcuj", SourceFailed, "record-malformed")


def test_pages_without_an_end_are_given_up(
    resolve: Resolve, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_module, "REQUESTS_MAX", 20)
    services.put_osf()
    endless = services.read("osf_files_page1")
    for page in range(1, 30):
        path = f"/osf/v2/nodes/ezcuj/files/osfstorage/?page={page}&page%5Bsize%5D=100"
        services.answer(path, {**endless, "data": [endless["data"][0]]})
    fail_with(resolve, "https://osf.io/ezcuj", SourceFailed, "record-too-large")
    assert len(services.server.requests) <= 20


def test_more_folders_than_may_be_asked_for_are_given_up_at_once(resolve: Resolve, services: Services) -> None:
    services.put_osf()
    listed = services.read("osf_files_page1")
    folder = next(part for part in listed["data"] if part["attributes"]["kind"] == "folder")
    named = [{**folder, "attributes": {**folder["attributes"], "path": f"/f{number}/"}} for number in range(500)]
    listed = {**listed, "data": named, "links": {"next": None}}
    services.answer("/osf/v2/nodes/ezcuj/files/osfstorage/?page=1&page%5Bsize%5D=100", listed)
    fail_with(resolve, "https://osf.io/ezcuj", SourceFailed, "record-too-large")
    assert 3 == len(services.server.requests)


# DataCite -------------------------------------------------------------------------------------------------------------


def test_a_doi_of_no_known_service_tells_where_it_leads(resolve: Resolve, services: Services) -> None:
    doi, page = "10.5066/F7AB12CD", "https://example.org/catalog/item/5a1b"
    services.put_doi(doi, page)
    error = fail_with(resolve, doi, SourceFailed, "record-no-files")
    told = f"no service that dm knows says which files doi '{doi}' has; it leads to '{page}'"
    assert told == error.message
    services.answer(f"/datacite/dois/{doi}", services.read("datacite"))
    error = fail_with(resolve, doi, SourceFailed, "record-no-files")
    assert "'Streamflow of the Thames' (doi 10.5066/F7AB12CD)" in error.message
    assert f"find the address of the data there, then dm add URI --doi {doi}" == error.hint


def test_addresses_that_datacite_knows_are_the_files(resolve: Resolve, services: Services) -> None:
    doi = "10.5066/F7AB12CD"
    services.put_doi(doi, "https://example.org/catalog/item/5a1b")
    answer = services.read("datacite")
    answer["data"]["attributes"]["contentUrl"] = ["https://example.org/d/flow%20a.csv", "https://example.org/d/b.csv"]
    services.answer(f"/datacite/dois/{doi}", answer)
    record = resolve(doi)
    assert (doi, "Streamflow of the Thames", ["flow a.csv", "b.csv"]) == (record.doi, record.title, names_of(record))
    answer["data"]["attributes"]["contentUrl"] = "https://example.org/d/b.csv"
    services.answer(f"/datacite/dois/{doi}", answer)
    assert ["b.csv"] == names_of(resolve(doi))


# Answers that cannot be used ------------------------------------------------------------------------------------------

ZENODO = "/zenodo/api/records/6600001"


def put_broken(services: Services, change: Callable[[Any], Any]) -> None:
    record = services.read("zenodo_single")
    services.answer(ZENODO, change(record) or record)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "it is not JSON"),
        (b"", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 200_000, "it is not JSON"),
        (b"  <!DOCTYPE html><title>Log in</title>", "it is a web page, not JSON"),
        (b" " * (JSON_BYTES_MAX + 1), "it is longer than 32 MiB"),
    ],
)
def test_an_answer_that_is_no_json_names_the_service(
    resolve: Resolve, services: Services, body: bytes, reason: str
) -> None:
    services.server.put(ZENODO, body)
    error = fail_with(resolve, "10.5281/zenodo.6600001", SourceFailed, "record-malformed")
    uri = f"{services.urls.zenodo}/api/records/6600001"
    assert f"cannot read the answer of Zenodo for '{uri}': {reason}" == error.message


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda record: [1], "'the whole' is not a table"),
        (lambda record: {"status": 1}, "'id' is not there"),
        (lambda record: record.update(metadata="x"), "'metadata' is not a table"),
        (lambda record: record.update(files={"a": 1}), "'files' is not a list"),
        (lambda record: record.update(id="../x"), "'id' is not the number of a record"),
        (lambda record: record["files"][0].update(size="12"), "'files[0].size' is not a number of bytes"),
        (lambda record: record["files"][0].update(size=-1), "'files[0].size' is not a number of bytes"),
        (lambda record: record["files"][0].update(size=1 << 63), "'files[0].size' is not a number of bytes"),
        (lambda record: record["files"][0].update(key="a\ud800.csv"), "'files[0].key' is not text"),
        (lambda record: record["files"][0].update(key=None), "'files[0].key' is not there"),
        (lambda record: record["files"][0].update(checksum="md5:12"), "'files[0]' is not a md5 checksum"),
        (lambda record: record["metadata"].update(version=["1"]), "'metadata.version' is not a string"),
    ],
)
def test_an_answer_of_another_shape_names_the_field(
    resolve: Resolve, services: Services, change: Callable[[Any], Any], fault: str
) -> None:
    put_broken(services, change)
    error = fail_with(resolve, "10.5281/zenodo.6600001", SourceFailed, "record-malformed")
    assert f"cannot read the answer of Zenodo: {fault}" == error.message


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["../../etc/passwd"], "it has the part '..'"),
        (["/etc/passwd"], "it is absolute"),
        (["a\x1b[2J.csv"], "it has a control character"),
        (["a\x00.csv"], "it has a control character"),
        ([""], "it is empty"),
        (["a/./b"], "it has the part '.'"),
        (["x" * 300], "a part is longer than 240 bytes"),
        ([".dm/objects"], "'.dm' is the store's own folder"),
        (["poetry.lock"], "a part ends in '.lock', which the store uses itself"),
        (["a.csv", "a.csv"], "two files have it"),
        (["caf\u00e9.csv", "cafe\u0301.csv"], "two files have it"),
        (["a/b.csv", "a"], "another file has the name of its folder"),
    ],
)
def test_hostile_names_of_files_are_refused(
    resolve: Resolve, services: Services, names: list[str], fault: str
) -> None:
    record = services.read("zenodo_single")
    record["files"] = [{**record["files"][0], "key": name} for name in names]
    services.answer(ZENODO, record)
    error = fail_with(resolve, "10.5281/zenodo.6600001", Refused, "record-unsafe")
    assert error.message.startswith("Zenodo names a file '") and error.message.endswith(f"which is not used: {fault}")
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "address",
    ["file:///etc/passwd", "https://user:word@example.org/x", "https://exa mple.org/", "ftp://a/b", "http://[x/y", "x"],
)
def test_hostile_addresses_of_files_are_refused(resolve: Resolve, services: Services, address: str) -> None:
    article = services.read("figshare_single")
    article["files"][0]["download_url"] = address
    services.put_figshare(article)
    error = fail_with(resolve, "10.6084/m9.figshare.19000001", Refused, "record-unsafe")
    assert error.message.startswith("figshare gives an address that is not used: '")
    assert "word" not in error.message


def test_a_service_in_trouble_is_asked_again(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.server.fail(ZENODO, 503, retry_after="0")
    services.server.fail(ZENODO, 429)
    services.server.drop(ZENODO)
    assert ["co2.csv"] == names_of(resolve("10.5281/zenodo.6600001"))
    assert 4 == services.server.count(ZENODO)


def test_a_service_that_stays_in_trouble_is_given_up(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.server.fail(ZENODO, 503, times=9)
    error = fail_with(resolve, "10.5281/zenodo.6600001", SourceFailed, "http-503")
    assert error.message.endswith("answered 503 Service Unavailable (4 tries)")


def test_an_answer_that_is_cut_short_is_asked_for_again(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    services.server.truncate(ZENODO, 100)
    assert ["co2.csv"] == names_of(resolve("10.5281/zenodo.6600001"))


def test_a_redirect_out_of_the_web_is_refused(resolve: Resolve, services: Services) -> None:
    services.server.redirect(ZENODO, "file:///etc/passwd")
    fail_with(resolve, "10.5281/zenodo.6600001", Refused, "redirect-unsafe")


def test_json_is_what_is_asked_for(resolve: Resolve, services: Services) -> None:
    services.put_zenodo(services.read("zenodo_single"))
    resolve("10.5281/zenodo.6600001")
    assert "application/json" == services.server.received(ZENODO)[0].headers["accept"]


def test_a_title_is_one_line_of_bounded_length() -> None:
    assert "a b\\x1b c" == tidy_title(" a\n\tb\x1b  c ")
    assert 300 == len(tidy_title("word " * 1000))
    assert "" == tidy_title(None)
