"""`dm prune`: says exactly what would go, removes it, and touches nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.commands import Ask, default_copy, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer


def declare(project: Path, server: HttpServer, *names: str) -> None:
    tables = []
    for name in names:
        uri = server.put(f"/{name}.bin", f"content of {name}".encode() * 10)
        tables.append(f'[{name}]\nuri = "{uri}"\n')
    write_manifest(project, *tables)


def copy_of(home: Home, name: str) -> Path:
    return default_copy(home, f"127.0.0.1/{name}.bin")


def test_nothing_goes_while_refs_name_everything(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    declare(project, http_server, "a", "b")
    assert 0 == run_dm("fetch").returncode
    before = snapshot(home.data)
    assert [] == ask("prune", "--grace", "0").outcomes
    assert before == snapshot(home.data)


def test_the_dry_run_names_what_goes_with_its_bytes_and_changes_nothing(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    declare(project, http_server, "a", "b")
    assert 0 == run_dm("fetch").returncode
    digest = ask("verify", "a").only["digest"]
    assert 0 == run_dm("rm", "--delete", "a").returncode
    before = snapshot(home.data)
    told = ask("prune", "--grace", "0", "--dry-run")
    assert before == snapshot(home.data)
    assert [(digest, "ok", 120)] == [
        (item["name"], item["status"], item["bytes"]) for item in told.outcomes if item["code"] == "object"
    ]
    done = ask("prune", "--grace", "0")
    assert ["object", "alias"] == [item["code"] for item in told.outcomes]
    assert [(item["name"], item["bytes"]) for item in told.outcomes] == [
        (item["name"], item["bytes"]) for item in done.outcomes
    ]
    assert not Path(told.outcomes[0]["path"]).exists()
    assert copy_of(home, "b").is_file()
    assert 0 == run_dm("verify").returncode


def test_the_grace_time_keeps_what_was_touched_lately(
    project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    declare(project, http_server, "a")
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("rm", "--delete", "a").returncode
    assert [] == ask("prune").outcomes
    assert [] == ask("prune", "--grace", "10m").outcomes


def test_a_deleted_copy_keeps_its_objects_until_it_is_to_be_forgotten(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    declare(project, http_server, "a")
    assert 0 == run_dm("fetch").returncode
    copy_of(home, "a").unlink()
    assert [] == ask("prune", "--grace", "0").outcomes
    assert {"ref", "object", "alias"} == {item["code"] for item in ask("prune", "--grace", "0", "--gone").outcomes}


def test_a_store_whose_refs_cannot_be_read_is_left_as_it_is(
    home: Home, project: Path, http_server: HttpServer, run_dm: RunDm, ask: Ask
) -> None:
    declare(project, http_server, "a")
    assert 0 == run_dm("fetch").returncode
    ref = next(path for path in (store_root(home) / ".dm" / "refs").rglob("*") if path.is_file())
    ref.write_text("nonsense\n")
    before = snapshot(home.data)
    answer = ask("prune", "--grace", "0", "--gone")
    assert 7 == answer.status
    assert "ref-malformed" == answer.outcomes[0]["code"]
    assert before == snapshot(home.data)


def test_a_length_of_time_that_is_none_is_wrong_usage(project: Path, run_dm: RunDm) -> None:
    write_manifest(project)
    done = run_dm("prune", "--grace", "a while")
    assert 2 == done.returncode
    assert "'a while' is no length of time" in done.stderr


def test_people_are_told_the_sum(project: Path, http_server: HttpServer, run_dm: RunDm) -> None:
    declare(project, http_server, "a")
    assert 0 == run_dm("fetch").returncode
    assert 0 == run_dm("rm", "--delete", "a").returncode
    done = run_dm("prune", "--grace", "0", "--dry-run")
    assert "2 items, 192 B would be freed" in done.stderr
