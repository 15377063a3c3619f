"""``requires``: what comes first, side by side where it may, and who fails with whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.commands import Ask, default_copy, list_litter, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

TRUSTED = {"DATAMANIFEST_TRUST": "1"}


def code(name: str, *requires: str, shell: str | None = None, more: str = "") -> str:
    """A dataset whose command writes its name and, a line each, what it requires; it notes in runs.txt when."""
    (shell_text,) = [shell or "./make $download_path $requires_paths"]
    listed = ", ".join(f'"{each}"' for each in requires)
    return f'["{name}"]\nkey = "made/{name}"\nshell = "{shell_text}"\nrequires = [{listed}]\n{more}\n'


@pytest.fixture
def make(project: Path) -> Path:
    """The command."""
    path = project / "make"
    path.write_text(
        '#!/bin/sh\nout=$1; shift; echo "$(basename "$out")" | tee -a runs.txt > "$out"\n'
        'for each in "$@"; do sed "s/^/  /" "$each" >> "$out"; done\n'
    )
    path.chmod(0o755)
    return path


def read_runs(project: Path) -> list[str]:
    path = project / "runs.txt"
    return path.read_text().split() if path.exists() else []


def test_what_is_required_is_brought_first_and_reported(
    ask: Ask, run_dm: RunDm, project: Path, home: Home, make: Path, http_server: HttpServer
) -> None:
    uri = http_server.put("/raw", "raw\n")
    write_manifest(
        project,
        code("end", "middle", "raw data"),
        code("middle", "left", "right"),
        code("left", "doi:10.1/RAW"),
        code("right", "raw data"),
        f'[raw]\nuri = "{uri}"\ndoi = "10.1/raw"\naliases = ["raw data"]\n',
        code("unrelated"),
    )
    planned = run_dm("fetch", "end", "--dry-run", env=TRUSTED)
    assert ["raw", "left", "right", "middle", "end"] == [line.split()[1] for line in planned.stdout.splitlines()]
    names = [each["name"] for each in ask("fetch", "end", "--dry-run", env=TRUSTED).outcomes]
    assert ["raw", "left", "right", "middle", "end"] == names
    assert [] == read_runs(project)
    answer = ask("fetch", "end", env=TRUSTED)
    assert (0, {"ok"}) == (answer.status, {each["status"] for each in answer.outcomes})
    assert "end" == answer.outcomes[0]["name"]
    assert {"end", "middle", "left", "right", "raw"} == {each["name"] for each in answer.outcomes}
    runs = read_runs(project)
    assert ({"left", "right"}, ["middle", "end"]) == (set(runs[:2]), runs[2:])
    expected = "end\n  middle\n    left\n      raw\n    right\n      raw\n  raw\n"
    assert expected == default_copy(home, "made/end").read_text()
    assert 1 == http_server.count("/raw")
    assert not default_copy(home, "made/unrelated").exists()
    assert [] == list_litter(home, project)


def test_what_is_there_asks_for_nothing_that_it_requires(ask: Ask, project: Path, home: Home, make: Path) -> None:
    write_manifest(project, code("a", "b"), code("b"))
    assert 0 == ask("fetch", "a", env=TRUSTED).status
    for path in default_copy(home, "made").glob("b*"):
        path.unlink()
    assert [("a", "unchanged")] == [(each["name"], each["status"]) for each in ask("fetch", "a").outcomes]
    assert ["b", "a"] == read_runs(project)
    # Asked for again, it needs it; --force is about what was asked for.
    answer = ask("fetch", "--force", "a", env=TRUSTED)
    assert [("a", "unchanged"), ("b", "ok")] == [(each["name"], each["status"]) for each in answer.outcomes]
    answer = ask("fetch", "--force", "a", env=TRUSTED)
    assert [("a", "unchanged"), ("b", "unchanged")] == [(each["name"], each["status"]) for each in answer.outcomes]
    assert ["b", "a", "a", "a"] == read_runs(project)  # b came back from its object


def test_a_failure_stops_those_that_need_it_and_nobody_else(
    ask: Ask, project: Path, home: Home, make: Path
) -> None:
    write_manifest(
        project,
        code("top", "middle", "fine"),
        code("middle", "broken"),
        code("broken", shell="false"),
        code("fine"),
        code("other", "fine"),
    )
    answer = ask("fetch", env=TRUSTED)
    found = {each["name"]: (each["status"], each.get("code")) for each in answer.outcomes}
    assert {
        "top": ("failed", "requires-failed"),
        "middle": ("failed", "requires-failed"),
        "broken": ("failed", "shell-failed"),
        "fine": ("ok", None),
        "other": ("ok", None),
    } == found
    assert 5 == answer.status
    messages = {each["name"]: each.get("message") for each in answer.outcomes}
    assert "cannot fetch 'middle': it requires 'broken', which failed" == messages["middle"]
    assert "cannot fetch 'top': it requires 'middle', which failed" == messages["top"]
    assert {"fine", "other"} == set(read_runs(project))


def test_a_circle_fails_its_members_and_who_needs_them(ask: Ask, project: Path, make: Path) -> None:
    path = write_manifest(project, code("a", "b"), code("b", "c"), code("c", "b"), code("d", "d"), code("e"))
    answer = ask("fetch", env=TRUSTED)
    codes = [each.get("code") for each in answer.outcomes]
    assert ["requires-failed", "requires-cycle", "requires-cycle", "requires-cycle", None] == codes
    assert 7 == answer.status
    assert f"{path}:13: 'requires' goes round in a circle: b -> c -> b" == answer.outcomes[1]["message"]
    assert "'requires' goes round in a circle: d -> d" in answer.outcomes[3]["message"]
    assert ["e"] == read_runs(project)
    assert 7 == ask("fetch", "--dry-run", env=TRUSTED).status


def test_an_identifier_that_names_nothing_fails_its_own_dataset(ask: Ask, project: Path, make: Path) -> None:
    path = write_manifest(project, code("a", "nobody"), code("b"))
    answer = ask("fetch", env=TRUSTED)
    assert (7, ["failed", "ok"]) == (answer.status, [each["status"] for each in answer.outcomes])
    assert f"{path}:7: dataset 'a': cannot follow 'requires': no dataset 'nobody'" == answer.outcomes[0]["message"]


def test_what_the_user_provides_counts_when_it_is_there(ask: Ask, project: Path, home: Home, make: Path) -> None:
    write_manifest(project, code("a", "own"), '[own]\nstorage_path = "own data/x.txt"\nskip_download = true\n')
    answer = ask("fetch", "a", env=TRUSTED)
    assert (5, "requires-failed") == (answer.status, answer.outcomes[0]["code"])
    place = project / "own data/x.txt"
    told = f"cannot fetch 'a': it requires 'own', which is not at '{place}' (skip_download)"
    assert told == answer.outcomes[0]["message"]
    place.parent.mkdir()
    place.write_text("mine\n")
    answer = ask("fetch", "a", env=TRUSTED)
    assert (0, ["ok", "skipped"]) == (answer.status, [each["status"] for each in answer.outcomes])
    assert "a\n  mine\n" == default_copy(home, "made/a").read_text()


def test_what_is_opened_in_place_has_no_path_to_hand_on(ask: Ask, project: Path, home: Home, make: Path) -> None:
    lazy = '[far]\nuri = "https://example.org/far.nc"\nlazy_access = true\n'
    write_manifest(project, code("a", "far"), code("b", "far", shell="./make $download_path $path_far"), lazy)
    answer = ask("fetch", "a", "b", env=TRUSTED)
    found = [(each["name"], each["status"], each.get("code")) for each in answer.outcomes]
    assert [("a", "ok", None), ("b", "failed", "path-missing"), ("far", "skipped", None)] == found
    assert "a\n" == default_copy(home, "made/a").read_text()


def test_what_does_not_wait_runs_side_by_side(ask: Ask, project: Path, make: Path) -> None:
    # Each of the two waits for the other to have begun.
    for name, other in (("one", "two"), ("two", "one")):
        path = project / name
        wait = f"touch {name}.begun; until [ -e {other}.begun ]; do sleep 0.01; done"
        path.write_text(f'#!/bin/sh\n{wait}; echo x > "$1"\n')
        path.chmod(0o755)
    write_manifest(
        project,
        code("end", "left", "right"),
        code("left", shell="./one $download_path"),
        code("right", shell="./two $download_path"),
    )
    assert 0 == ask("fetch", "end", env=TRUSTED).status


def test_a_chain_is_brought_from_its_far_end(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> None:
    count = 60
    tables = []
    for number in range(count):
        uri = http_server.put(f"/{number}", str(number))
        needed = f'"d{number + 1}"' if number < count - 1 else ""
        tables.append(f'[d{number}]\nuri = "{uri}"\nrequires = [{needed}]\n')
    write_manifest(project, *tables)
    answer = ask("fetch", "d0")
    assert (0, count) == (answer.status, len(answer.outcomes))
    assert [f"/{number}" for number in reversed(range(count))] == [each.path for each in http_server.requests]
    assert [] == list_litter(home, project)
