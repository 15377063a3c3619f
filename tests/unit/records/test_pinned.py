"""The files that code of a manifest comes from, and what is known of each."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dm.errors import Refused
from dm.plumbing.hashing import blake3_of
from dm.plumbing.records import pinned
from dm.plumbing.records.pinned import Pin, PinnedFiles


def write(root: Path, *names: str, content: str = "x = 1\n") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def read(root: Path, *pins: Pin, left_out: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """The groups of files; where modules are is asked for by `places`."""
    groups = PinnedFiles(root, left_out=left_out).read(pins)
    return {group.name: dict(group.files) for group in groups if " module " not in group.name}


def places(root: Path, *pins: Pin) -> dict[str, str]:
    return {group.name: group.told for group in PinnedFiles(root).read(pins) if not group.files}


def names(root: Path, *pins: Pin) -> dict[str, list[str]]:
    return {group: sorted(files) for group, files in read(root, *pins).items()}


def digest(content: str) -> str:
    return f"blake3:{blake3_of(content.encode()).hex()}"


PLAIN = digest("x = 1\n")


# Python ---------------------------------------------------------------------------------------------------------------


def test_of_a_package_every_file_below_it_is_pinned_whatever_it_is(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/sub/deep/get.py", "pkg/table.csv", "pkg/.hidden", "beside.py")
    expected = {"pkg/": ["pkg/.hidden", "pkg/__init__.py", "pkg/sub/deep/get.py", "pkg/table.csv"]}
    assert expected == names(tmp_path, Pin("python", "pkg.sub.deep.get"))


def test_bytecode_folders_and_version_control_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/__pycache__/x.pyc", "pkg/.git/HEAD", "pkg/sub/__pycache__/y.pyc")
    assert {"pkg/": ["pkg/__init__.py"]} == names(tmp_path, Pin("python", "pkg"))


def test_of_a_module_the_files_beside_it_are_pinned_that_python_could_import(tmp_path: Path) -> None:
    write(tmp_path, "get.py", "more.py", "fast.cpython-311-x86_64-linux-gnu.so", "old.pyc", "notes.md", "sub/x.py")
    found = names(tmp_path, Pin("python", "get"))
    expected = ["fast.cpython-311-x86_64-linux-gnu.so", "get.py", "more.py", "old.pyc"]
    assert {"python files beside the manifest": expected} == found


def test_a_package_below_src_is_the_projects_own(tmp_path: Path) -> None:
    write(tmp_path, "src/pkg/__init__.py", "src/pkg/a/b.py", "src/single.py", "src/more.py", "other.py")
    assert {"src/pkg/": ["src/pkg/__init__.py", "src/pkg/a/b.py"]} == names(tmp_path, Pin("python", "pkg.a.b"))
    expected = {"python files in src/": ["src/more.py", "src/single.py"]}
    assert expected == names(tmp_path, Pin("python", "single"))


def test_an_extension_module_alone_is_a_module(tmp_path: Path) -> None:
    write(tmp_path, "get.abi3.so")
    assert {"python files beside the manifest": ["get.abi3.so"]} == names(tmp_path, Pin("python", "get"))


def test_a_folder_and_a_file_of_one_name_are_both_pinned(tmp_path: Path) -> None:
    write(tmp_path, "get.py", "get/__init__.py", "get/more.py")
    expected = {"get/": ["get/__init__.py", "get/more.py"], "python files beside the manifest": ["get.py"]}
    assert expected == names(tmp_path, Pin("python", "get"))


@pytest.mark.parametrize("made", ["data/get.py", "data/get/more.py", "data/get.abi3.so"])
def test_a_folder_without_init_counts_when_it_holds_the_modules_next_part(tmp_path: Path, made: str) -> None:
    write(tmp_path, made, "data/large.nc")
    assert {"data/": sorted([made, "data/large.nc"])} == names(tmp_path, Pin("python", "data.get"))


def test_a_folder_that_only_shares_its_name_with_an_installed_package_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "xarray/large.nc")
    assert {} == names(tmp_path, Pin("python", "xarray.backends"))


def test_a_module_that_is_not_there_is_told_so_and_changes_when_it_comes(tmp_path: Path) -> None:
    assert {"python module later": "none in the project"} == places(tmp_path, Pin("python", "later"))
    write(tmp_path, "later.py")
    assert {"python module later": "python files beside the manifest"} == places(tmp_path, Pin("python", "later"))


def test_names_are_compared_as_a_file_system_without_case_or_forms_does(tmp_path: Path) -> None:
    write(tmp_path, "Pkg/__INIT__.py", "CAFE\u0301.PY")
    expected = {"Pkg/": ["Pkg/__INIT__.py"], "python files beside the manifest": ["CAFE\u0301.PY"]}
    assert expected == names(tmp_path, Pin("python", "pkg"), Pin("python", "caf\u00e9"))


def test_modules_of_the_standard_library_are_not_looked_for_in_the_project(tmp_path: Path) -> None:
    write(tmp_path, "json.py", "os/__init__.py")
    assert {} == names(tmp_path, Pin("python", "json"), Pin("python", "os.path"))


def test_where_a_module_lies_is_told_with_it(tmp_path: Path) -> None:
    write(tmp_path, "get.py", "get/__init__.py")
    assert {"python module get.x": "get/, python files beside the manifest"} == places(tmp_path, Pin("python", "get.x"))


# other languages ------------------------------------------------------------------------------------------------------


def test_of_an_r_module_its_file_the_r_files_beside_it_and_the_profile_are_pinned(tmp_path: Path) -> None:
    write(tmp_path, "code/get.R", "code/more.r", "code/data.csv", "top.R", ".Rprofile", ".Renviron")
    found = names(tmp_path, Pin("R", "code/get"))
    assert ["code/get.R", "code/more.r"] == found["R files in code/"]
    assert [".Renviron", ".Rprofile", "top.R"] == found["R files beside the manifest"]


def test_of_a_julia_module_the_project_and_its_sources_are_pinned(tmp_path: Path) -> None:
    write(tmp_path, "get.jl", "Project.toml", "Manifest-v1.11.toml", "LocalPreferences.toml", "src/Paper.jl", "x.csv")
    found = names(tmp_path, Pin("julia", "get"))
    expected = ["LocalPreferences.toml", "Manifest-v1.11.toml", "Project.toml", "get.jl"]
    assert {"julia files beside the manifest": expected, "src/": ["src/Paper.jl"]} == found


def test_of_a_language_that_is_not_known_files_of_the_modules_name_are_pinned(tmp_path: Path) -> None:
    write(tmp_path, "get.m", "more.m", "get.txt")
    expected = {"matlab files beside the manifest": ["get.m", "get.txt"]}
    assert expected == names(tmp_path, Pin("matlab", "get"))


@pytest.mark.parametrize("module", ["../outside", "/etc/passwd", "a\0b", "", "..", "."])
def test_a_module_of_another_language_never_leads_out_of_the_project(tmp_path: Path, module: str) -> None:
    root = tmp_path / "project"
    write(tmp_path, "outside.R", "project/x.txt")
    files = [name for group in names(root, Pin("R", module)).values() for name in group]
    assert [] == files


# words ----------------------------------------------------------------------------------------------------------------


def test_words_that_are_files_of_the_project_are_pinned_and_no_others(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(tmp_path, "project/get.sh", "project/sub/x.cfg", "outside.sh")
    words = ["get.sh", "./sub/../sub/x.cfg", "sub", "../outside.sh", "/bin/sh", "gone.sh", "a\0b", "x" * 5000, ""]
    expected = {"files that commands name": {"get.sh": PLAIN, "sub/x.cfg": PLAIN}}
    assert expected == read(root, *(Pin("", word) for word in words))


def test_an_absolute_word_below_the_project_is_one_of_its_files(tmp_path: Path) -> None:
    write(tmp_path, "get.sh")
    assert {"files that commands name": ["get.sh"]} == names(tmp_path, Pin("", str(tmp_path / "get.sh")))


def test_a_link_that_leads_nowhere_is_pinned_so_that_filling_it_asks_again(tmp_path: Path) -> None:
    (tmp_path / "get.sh").symlink_to("/nowhere/at/all")
    expected = {"files that commands name": {"get.sh": "not there, by a link to '/nowhere/at/all'"}}
    assert expected == read(tmp_path, Pin("", "get.sh"))


def test_what_is_left_out_is_no_word_of_a_command(tmp_path: Path) -> None:
    write(tmp_path, "datamanifest.toml", "get.py")
    pins = [Pin("", "datamanifest.toml"), Pin("", "./get.py")]
    assert ["get.py"] == list(read(tmp_path, *pins, left_out=("datamanifest.toml",))["files that commands name"])


# links, and what is no file -------------------------------------------------------------------------------------------


def test_links_are_followed_and_their_destination_is_part_of_what_is_known(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(tmp_path, "project/pkg/__init__.py", "elsewhere/real.py", "elsewhere/sub/deep.py")
    (root / "pkg" / "linked.py").symlink_to(tmp_path / "elsewhere" / "real.py")
    (root / "pkg" / "folder").symlink_to(tmp_path / "elsewhere" / "sub")
    outside = tmp_path.resolve() / "elsewhere"
    assert {
        "pkg/__init__.py": PLAIN,
        "pkg/linked.py": f"{PLAIN}, by a link to '{outside}/real.py'",
        "pkg/folder/deep.py": f"{PLAIN}, by a link to '{outside}/sub/deep.py'",
    } == read(root, Pin("python", "pkg"))["pkg/"]


def test_a_package_that_is_a_link_is_followed(tmp_path: Path) -> None:
    root = tmp_path / "project"
    write(tmp_path, "elsewhere/__init__.py", "project/x.txt")
    (root / "pkg").symlink_to(tmp_path / "elsewhere")
    assert {"pkg/": ["pkg/__init__.py"]} == names(root, Pin("python", "pkg"))


def test_links_that_go_round_in_circles_end(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/a/x.py")
    (tmp_path / "pkg" / "a" / "up").symlink_to("..")
    (tmp_path / "pkg" / "self").symlink_to("self")
    found = read(tmp_path, Pin("python", "pkg"))["pkg/"]
    assert {"pkg/__init__.py", "pkg/a/x.py", "pkg/a/up", "pkg/self"} == set(found)
    assert found["pkg/a/up"].startswith("a folder")
    assert found["pkg/self"].startswith("unreadable")


def test_nothing_is_read_from_the_kernels_own_file_systems(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py")
    (tmp_path / "pkg" / "endless").symlink_to("/dev/zero")
    (tmp_path / "pkg" / "tree").symlink_to("/proc/self")
    (tmp_path / "pkg" / "file.py").symlink_to("/proc/self/status")
    found = read(tmp_path, Pin("python", "pkg"))["pkg/"]
    assert {"pkg/__init__.py", "pkg/endless", "pkg/tree", "pkg/file.py"} == set(found)
    assert all(text.startswith("no file") for name, text in found.items() if name != "pkg/__init__.py")


def test_pipes_and_sockets_are_told_and_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "pkg/__init__.py")
    os.mkfifo(tmp_path / "pkg" / "pipe.py")
    monkeypatch.chdir(tmp_path / "pkg")  # a socket's path may not be longer than 108 bytes
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        found = read(tmp_path, Pin("python", "pkg"))["pkg/"]
    assert "no file" == found["pkg/pipe.py"]
    assert found["pkg/socket"].startswith("unreadable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py", "pkg/secret.py")
    (tmp_path / "pkg" / "secret.py").chmod(0)
    assert "unreadable (Permission denied)" == read(tmp_path, Pin("python", "pkg"))["pkg/"]["pkg/secret.py"]


def test_names_that_are_not_utf_8_are_read_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py")
    with open(os.fsencode(tmp_path) + b"/pkg/\xff.py", "w") as file:
        file.write("x = 1\n")
    assert PLAIN == read(tmp_path, Pin("python", "pkg"))["pkg/"][os.fsdecode(b"pkg/\xff.py")]


# bounds ---------------------------------------------------------------------------------------------------------------


def test_more_files_than_can_be_allowed_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinned, "ENTRIES_MAX", 20)
    write(tmp_path, "pkg/__init__.py", *(f"pkg/{number}.py" for number in range(30)))
    with pytest.raises(Refused) as caught:
        read(tmp_path, Pin("python", "pkg"))
    assert "the code that the manifest names lies among more than 20 files, too many to allow" == caught.value.message
    assert "keep it in a package of its own, apart from data" == caught.value.hint
    assert "pin-too-large" == caught.value.code


def test_folders_that_link_to_each_other_are_refused_and_not_walked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinned, "ENTRIES_MAX", 1000)
    write(tmp_path, "pkg/__init__.py")
    for here in range(12):
        for there in range(12):
            (tmp_path / "pkg" / f"d{here}").mkdir(exist_ok=True)
            (tmp_path / "pkg" / f"d{here}" / f"l{there}").symlink_to(f"../d{there}")
    with pytest.raises(Refused) as caught:
        read(tmp_path, Pin("python", "pkg"))
    assert "pin-too-large" == caught.value.code


def test_more_bytes_than_can_be_hashed_are_refused_before_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, "pkg/__init__.py")
    with open(tmp_path / "pkg" / "sparse.bin", "wb") as file:
        file.truncate(pinned.BYTES_MAX + 1)
    with pytest.raises(Refused) as caught:
        read(tmp_path, Pin("python", "pkg"))
    assert "the code that the manifest names lies among more than 8 GiB, too much to allow" == caught.value.message


# again ----------------------------------------------------------------------------------------------------------------


def test_a_change_is_seen_at_the_next_look_also_when_size_and_time_stay(tmp_path: Path) -> None:
    write(tmp_path, "get.py")
    files = PinnedFiles(tmp_path)
    first = files.read([Pin("python", "get")])
    before = (tmp_path / "get.py").stat()
    (tmp_path / "get.py").write_text("y = 2\n")
    os.utime(tmp_path / "get.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert first != files.read([Pin("python", "get")])


def test_a_file_that_is_settled_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "get.py")
    monkeypatch.setattr(pinned, "_RACY_NS", -(10**18))  # as if it had changed long ago
    files = PinnedFiles(tmp_path)
    first = files.read([Pin("python", "get")])
    from dm.plumbing import hashing

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(hashing, "hash_stream", refuse)
    assert first == files.read([Pin("python", "get")])
