"""Every state of SCHEMA.md as `dm status` tells it, each with the command that mends it: and it does mend it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.fixtures.commands import Ask, default_copy, snapshot, store_root, write_manifest
from tests.fixtures.homes import Home, RunDm
from tests.fixtures.servers import HttpServer

BODY = "these are the right bytes"
NAME = "with blank"


class Place:
    """One dataset in its project, to be brought into each state."""

    def __init__(self, ask: Ask, project: Path, home: Home, server: HttpServer) -> None:
        self.ask, self.project, self.home, self.server = ask, project, home, server
        self.uri = server.put("/a.txt", BODY)
        self.manifest = write_manifest(project, f'["{NAME}"]\nuri = "{self.uri}"\n')
        self.copy = default_copy(home, "127.0.0.1/a.txt")

    def fetch(self) -> None:
        assert 0 == self.ask("fetch").status

    def state(self) -> str:
        """The state, which looking does not change."""
        before = snapshot(self.project, self.home.data)
        states = [self.ask("status", *words).only["state"] for words in ([], [NAME])]
        assert before == snapshot(self.project, self.home.data)
        assert states[0] == states[1]
        return str(states[0])

    def set(self, field: str, value: str) -> None:
        self.manifest.write_text(re.sub(f"(?m)^{field} = .*$", f'{field} = "{value}"', self.manifest.read_text()))


@pytest.fixture
def place(ask: Ask, project: Path, home: Home, http_server: HttpServer) -> Place:
    return Place(ask, project, home, http_server)


def overwrite(path: Path, text: str) -> None:
    """Other bytes at a path, as a careless program writes them: not through the hard link."""
    path.unlink()
    path.write_text(text)


def make_missing(place: Place) -> None:
    pass


def make_missing_again(place: Place) -> None:
    place.fetch()
    place.copy.unlink()
    place.copy.with_name("a.txt.complete").unlink()


def make_partial(place: Place) -> None:
    place.copy.parent.mkdir(parents=True)
    place.copy.write_text("half of it")


def make_partial_with_right_bytes(place: Place) -> None:
    place.fetch()
    place.copy.with_name("a.txt.complete").unlink()


def make_modified(place: Place) -> None:
    place.fetch()
    overwrite(place.copy, "these are the wrong bytes")


def make_source_changed(place: Place) -> None:
    place.fetch()
    place.server.change("/a.txt", b"the source's new bytes")
    import hashlib

    place.set("checksum", "sha256:" + hashlib.sha256(b"the source's new bytes").hexdigest())


def make_relocated(place: Place) -> None:
    place.fetch()
    with place.manifest.open("a") as manifest:
        manifest.write('scope = "elsewhere"\n')


def make_untracked(place: Place) -> None:
    place.fetch()
    (place.project / ".datamanifest-state.toml").unlink()


def make_unpinned(place: Place) -> None:
    place.fetch()
    place.manifest.write_text(re.sub("(?m)^checksum.*\n", "", place.manifest.read_text()))


MAKERS = {
    "missing": make_missing,
    "missing-again": make_missing_again,
    "partial": make_partial,
    "partial-right": make_partial_with_right_bytes,
    "modified": make_modified,
    "source-changed": make_source_changed,
    "relocated": make_relocated,
    "untracked": make_untracked,
    "unpinned": make_unpinned,
}


@pytest.mark.parametrize("name", MAKERS)
def test_each_state_is_told_and_its_command_mends_it(place: Place, ask: Ask, run_dm: RunDm, name: str) -> None:
    MAKERS[name](place)
    state = "missing" if name == "missing-again" else "partial" if name == "partial-right" else name
    assert state == place.state()
    outcome = ask("status").only
    commands = re.findall(r"dm [a-z]+(?: --\w+)? '[^']*'", outcome["hint"])
    assert commands, outcome
    assert state in run_dm("status").stdout and commands[0] in run_dm("status").stdout
    assert (0, 1) == (run_dm("status").returncode, run_dm("status", "--exit-code").returncode)
    done = None
    for command in commands:
        done = run_dm(*shlex.split(command)[1:])
        if done.returncode == 0 and place.state() == "clean":
            break
    assert done is not None and 0 == done.returncode, (commands, done)
    assert "clean" == place.state()
    assert 0 == run_dm("status", "--exit-code").returncode
    assert 0 == run_dm("verify", NAME).returncode
    expected = "the source's new bytes" if name == "source-changed" else BODY
    assert expected == Path(run_dm("path", NAME).stdout.rstrip("\n")).read_text()


def test_clean_and_skipped_need_nothing(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.fetch()
    with place.manifest.open("a") as manifest:
        manifest.write("\n[mine]\nskip_download = true\n")
    outcomes = ask("status").outcomes
    assert ["clean", "skipped"] == [each["state"] for each in outcomes]
    assert all("hint" not in each for each in outcomes)
    done = run_dm("status", "--exit-code")
    assert (0, "2 datasets: 1 clean, 1 skipped") == (done.returncode, done.stdout.splitlines()[-1])


def test_status_shows_what_is_off_and_counts_the_rest(run_dm: RunDm, project: Path, http_server: HttpServer) -> None:
    write_manifest(project, *(f'[d{n}]\nuri = "{http_server.put(f"/{n}", str(n))}"\n' for n in range(3)))
    run_dm("fetch", "d0", "d1")
    lines = run_dm("status").stdout.splitlines()
    assert ["missing", "d2"] == lines[0].split()[:2] and "dm fetch d2" in lines[0]
    assert "3 datasets: 2 clean, 1 missing" == lines[1] and 2 == len(lines)
    assert 4 == len(run_dm("-v", "status").stdout.splitlines())


def flip_a_bit(path: Path) -> None:
    """One bit under an unchanged size, inode and mtime."""
    status = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))
    path.chmod(status.st_mode & 0o777)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (status.st_size, status.st_mtime_ns, status.st_ino) == (
        path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino,
    )  # fmt: skip


def test_a_flipped_bit_is_found_and_mended(place: Place, ask: Ask, run_dm: RunDm, home: Home) -> None:
    place.fetch()
    good = ask("verify", NAME)
    assert (0, "ok", "clean") == (good.status, good.only["status"], good.only["state"])
    # The copy and its object may be one file: then a flip in the one is a flip in the other.
    flip_a_bit(place.copy)
    answer = ask("verify", NAME)
    assert (4, "failed", "modified", "content-mismatch") == (
        answer.status, answer.only["status"], answer.only["state"], answer.only["code"],
    )  # fmt: skip
    assert [{"path": ".", "how": "changed"}] == answer.only["differences"]
    assert "dm fetch --force 'with blank'" in answer.only["hint"]
    done = run_dm("verify")
    assert 4 == done.returncode and "the manifest says sha256:" in done.stderr
    assert BODY != place.copy.read_text(), "verify never changes data"
    # It is not handed out: fetch refuses until it is told to put it aside.
    assert 4 == run_dm("fetch").returncode
    assert 0 == run_dm("fetch", "--force", NAME).returncode
    assert (BODY, 0) == (place.copy.read_text(), run_dm("verify").returncode)
    kept = [path for path in (store_root(home) / ".dm" / "quarantine").rglob("a.txt") if path.is_file()]
    assert 1 == len(kept) and BODY[1:] == kept[0].read_text()[1:]


def test_quick_is_honest_about_what_it_did_not_read(place: Place, ask: Ask, run_dm: RunDm) -> None:
    place.fetch()
    run_dm("verify")
    answer = ask("verify", "--quick", NAME)
    size = len(BODY)
    assert (0, f"{size} of {size} bytes not read: their stat data are unchanged") == (
        answer.status, answer.only["message"],
    )  # fmt: skip
    assert f"{size} of {size} bytes not read" in run_dm("verify", "--quick").stdout
    assert "not read" not in run_dm("verify").stdout
    overwrite(place.copy, BODY.upper())
    assert 4 == ask("verify", "--quick", NAME).status


def test_what_differs_in_a_folder_is_named_file_by_file(
    ask: Ask, run_dm: RunDm, project: Path, http_server: HttpServer
) -> None:
    uris = [http_server.put(f"/set/{name}.txt", name) for name in ("same", "changed", "lost")]
    write_manifest(project, f"[many]\nuris = {uris}\n")
    copy = Path(ask("fetch").only["path"])
    for folder in (copy, copy.parent):
        folder.chmod(0o755)
    overwrite(copy / "changed.txt", "other")
    (copy / "lost.txt").unlink()
    (copy / "added.txt").write_text("new")
    answer = ask("verify", "many")
    assert 4 == answer.status
    expected = {("added.txt", "added"), ("changed.txt", "changed"), ("lost.txt", "lost")}
    assert expected == {(each["path"], each["how"]) for each in answer.only["differences"]}
    shown = run_dm("verify").stdout
    assert all(f"{how:<8} {path}" in shown for path, how in expected), shown
    assert "modified" == ask("status").only["state"]


def test_a_renamed_file_or_a_moved_boundary_is_seen(ask: Ask, project: Path, http_server: HttpServer) -> None:
    uris = [http_server.put(f"/set/{name}.txt", name) for name in ("ab", "cd")]
    write_manifest(project, f"[many]\nuris = {uris}\n")
    copy = Path(ask("fetch").only["path"])
    copy.chmod(0o755)
    (copy / "cd.txt").rename(copy / "ce.txt")
    assert 4 == ask("verify", "many").status
    (copy / "ce.txt").rename(copy / "cd.txt")
    assert 0 == ask("verify", "many").status
    overwrite(copy / "ab.txt", "abc")
    overwrite(copy / "cd.txt", "d")
    assert 4 == ask("verify", "many").status


def test_what_is_not_there_is_exit_3_when_named_and_told_among_all(place: Place, ask: Ask, run_dm: RunDm) -> None:
    assert 3 == ask("verify", NAME).status
    assert 3 == run_dm("path", NAME).returncode
    answer = ask("verify")
    assert (0, "skipped", "missing") == (answer.status, answer.only["status"], answer.only["state"])
    assert 0 == run_dm("show", NAME).returncode


def test_show_tells_all_that_is_known(place: Place, ask: Ask, run_dm: RunDm) -> None:
    facts = ask("show", NAME).document["dataset"]
    assert (None, str(place.copy)) == (facts["path"], facts["location"])
    place.fetch()
    facts = ask("show", NAME).document["dataset"]
    assert (str(place.copy), "127.0.0.1/a.txt", len(BODY)) == (facts["path"], facts["key"], facts["bytes"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", facts["verified"])
    assert place.uri == facts["declared"]["uri"]
    assert any(rule["wins"] and rule["rule"] == "composed" for rule in facts["rules"])
    shown = run_dm("show", NAME).stdout
    assert f"path: {place.copy}\n" in shown and "verified: " in shown


def test_verify_records_that_it_looked(place: Place, ask: Ask, home: Home) -> None:
    place.fetch()
    ref = store_root(home) / ".dm" / "refs" / "datasets" / "127.0.0.1" / "a.txt"
    words = ref.read_text().split(" ")
    ref.write_text(" ".join([*words[:3], "2001-01-01T00:00:00Z", *words[4:]]))
    assert 0 == ask("verify", NAME).status
    assert "2001-01-01T00:00:00Z" not in ref.read_text()


def test_a_copy_that_was_replaced_by_the_right_bytes_is_updated(place: Place, ask: Ask) -> None:
    import hashlib

    place.fetch()
    overwrite(place.copy, "a newer version")
    place.set("checksum", "sha256:" + hashlib.sha256(b"a newer version").hexdigest())
    assert (0, "updated") == (lambda answer: (answer.status, answer.only["state"]))(ask("verify", NAME))
    assert "clean" == ask("verify", NAME).only["state"]
    assert "unchanged" == ask("fetch").only["status"]
    assert "clean" == place.state()


def test_what_code_brings_is_mended_by_fetch_and_what_nothing_brings_by_hand(project: Path, ask: Ask) -> None:
    write_manifest(
        project,
        '[shell]\nkey = "a"\nshell = "get a"\n',
        '[own]\nkey = "b"\nfetcher = "module:get"\n',
        '[foreign]\nkey = "c"\n[foreign._LANG.R]\nfetcher = "module:get"\n',
        '[nothing]\nkey = "d"\n',
    )
    hints = {outcome["name"]: outcome["hint"] for outcome in ask("status").outcomes}
    expected = {name: f"dm fetch {name}" for name in ("shell", "own", "foreign")}
    assert expected | {"nothing": "put the data where dm resolve-path nothing points"} == hints


def test_contract_last_seen_and_disk_are_told_apart(place: Place, ask: Ask, run_dm: RunDm) -> None:
    import hashlib

    from blake3 import blake3

    contract = "sha256:" + hashlib.sha256(BODY.encode()).hexdigest()
    seen = f"blake3:{blake3(BODY.encode()).hexdigest()}"
    missing = ask("status").only["digests"]
    assert {"contract": None, "seen": None, "disk": None} == missing
    place.fetch()
    digests = ask("status").only["digests"]
    assert (contract, seen, seen, contract) == tuple(
        digests[name] for name in ("contract", "seen", "disk", "disk_checksum")
    )
    overwrite(place.copy, "edited")
    disk = f"blake3:{blake3(b'edited').hexdigest()}"
    found = ask("status").only
    assert (contract, seen, disk) == tuple(found["digests"][name] for name in ("contract", "seen", "disk"))
    facts = ask("show", NAME).document["dataset"]
    assert ("modified", found["digests"]) == (facts["state"], facts["digests"])
    assert found["hint"] == facts["way_out"]
    shown = run_dm("-v", "status").stdout
    assert all(f"{name:<14} {digest}" in shown for name, digest in (("contract", contract), ("seen", seen)))
    assert disk in shown and disk not in run_dm("status").stdout


def test_each_way_out_of_a_modified_copy_is_told_and_is_one(place: Place, ask: Ask, run_dm: RunDm) -> None:
    for command, text in (("verify --repair", BODY), ("fetch --force", BODY), ("pin", "edited")):
        place.fetch()
        overwrite(place.copy, "edited")
        told = ask("status").only
        assert "modified" == told["state"] and f"dm {command} '{NAME}'" in told["hint"]
        assert 0 == run_dm(*command.split(), NAME).returncode
        assert ("clean", text) == (place.state(), place.copy.read_text())


def test_a_new_contract_may_be_taken_back(place: Place, ask: Ask, run_dm: RunDm) -> None:
    make_source_changed(place)
    assert f"dm fetch --force '{NAME}'; or dm pin '{NAME}' keeps what is there" == ask("status").only["hint"]
    assert 0 == run_dm("pin", NAME).returncode
    assert ("clean", BODY) == (place.state(), place.copy.read_text())


def test_nothing_is_computed_of_what_is_not_checked(place: Place, ask: Ask, run_dm: RunDm, home: Home) -> None:
    with place.manifest.open("a") as manifest:
        manifest.write("skip_checksum = true\n")
    place.fetch()
    overwrite(place.copy, "edited")
    told = ask("status").only
    assert ("skipped", False, False) == (told["state"], "digest" in told, "digests" in told)
    for words in (["verify"], ["verify", "--repair"], ["fetch"], ["refresh"], ["dedup"], ["verify", "--all"]):
        assert 0 == run_dm(*words).returncode
        assert "edited" == place.copy.read_text()
    assert 6 == run_dm("pin", NAME).returncode
    assert [] == [path for path in (store_root(home) / ".dm" / "objects").rglob("*") if path.is_file()]


def test_no_way_out_of_data_without_a_source_leads_to_a_fetch(run_dm: RunDm, ask: Ask, project: Path) -> None:
    own = project / "own.csv"
    own.write_text("1,2\n")
    write_manifest(project)
    assert 0 == ask("add", "own.csv").status
    own.write_text("1,2\n3,4\n")
    expected = (
        "restore it, or dm pin own accepts what is there; "
        "dm verify --repair own mends it from another copy, if there is one"
    )
    assert [expected, expected] == [ask("status").only["hint"], ask("verify").only["hint"]]
    assert 0 == run_dm("pin", "own").returncode
    assert "clean" == ask("status").only["state"]
    own.unlink()
    hint = "hint: put the data where dm resolve-path own points\n"
    for command in ("path", "verify", "pin", "unlock", "lock"):
        done = run_dm(command, "own")
        assert (3, f"dm: error: 'own' is not there\n{hint}") == (done.returncode, done.stderr), command
    assert f"{own}\n" == run_dm("resolve-path", "own").stdout


def test_a_copy_in_a_store_that_is_not_configured_any_more_is_used_where_it_is(
    place: Place, ask: Ask, run_dm: RunDm, project: Path
) -> None:
    assert 0 == run_dm("config", "set", "datasets_dir", "$repo/data").returncode
    place.fetch()
    copy = project / "data" / "127.0.0.1" / "a.txt"
    assert BODY == copy.read_text()
    assert 0 == run_dm("config", "unset", "datasets_dir").returncode
    assert "relocated" == place.state()
    for words in (["fetch"], ["verify"], ["refresh"]):
        answer = ask(*words)
        assert (0, str(copy)) == (answer.status, answer.only["path"])
    assert f"{copy}\n" == run_dm("path", NAME).stdout
    assert 0 == run_dm("fetch", "--force", NAME).returncode
    assert ("clean", BODY) == (place.state(), place.copy.read_text())


def test_show_reveals_what_the_names_of_fields_hide(run_dm: RunDm, project: Path) -> None:
    fields = 'fetcher = { ref = "own:get", kwargs = { "\\u001b[2J\\nstate: clean" = 1 } }\n"un\\u202eknown" = 3\n'
    write_manifest(project, f'[a]\nkey = "a.txt"\n{fields}')
    shown = run_dm("show", "a").stdout
    assert all(line.isprintable() for line in shown.splitlines())
    assert ["state: missing"] == [line for line in shown.splitlines() if line.startswith("state:")]
    assert "      \\x1b[2J\\nstate: clean: 1\n" in shown and "  un\\u202eknown: 3\n" in shown
