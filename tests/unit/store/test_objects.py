"""Trees: the bytes that are hashed, with vectors; what is refused."""

from __future__ import annotations

import pytest
from blake3 import blake3

from dm.errors import Malformed, Refused
from dm.plumbing.store.objects import (
    TreeEntry,
    decode_tree,
    encode_tree,
    no_object,
    refuse_unsafe_names,
    tree_id,
)
from dm.values import Digest

HELLO = "8e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99"
EMPTY_BLOB = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
EMPTY_TREE = "42a9d4e17ba598ba95f869757e8f035162b73be23b5e23d1a8973ad1ea886e05"
SCRIPT = "bc1f407a11c9377c8b9b13f956b279c8462775105eb958fc9ae3c40de87cc96e"
LINK_TEXT = "c1b130578061e462dc4595c987e151d8715d2702ff08cf24aad9f90410fb295e"
X = "3ae7d805f6789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b5"
Y = "08112a9e334ce73042b531c25668cf5cb12a1ee040a4326afeac065461079a06"
INNER = "0405f251ac26f1a40b9d07ff58d4487de1205b56ab0035674dbc41c5f562d463"

# The vectors of SCHEMA.md, "Objects": (entries as mode, id, size, name; id of the tree).
VECTORS = {
    "an empty folder": ([], EMPTY_TREE),
    "one file": (
        [("100644", HELLO, 6, b"hello.txt")],
        "e68e843112bbdc8009691b11a45e307261fc0c16f5ea2c6e224f5479d4c1f54b",
    ),
    "every mode": (
        [
            ("040000", EMPTY_TREE, 0, b"empty"),
            ("100644", HELLO, 6, b"hello.txt"),
            ("120000", LINK_TEXT, 9, b"link"),
            ("100755", SCRIPT, 10, b"run"),
        ],
        INNER,
    ),
    "a folder sorts without a slash, names are bytes": (
        [
            ("040000", INNER, 25, b"a"),
            ("100644", EMPTY_BLOB, 0, b"a.b"),
            ("100644", Y, 1, "é".encode()),
            ("100644", X, 1, b"\xff"),
        ],
        "71d35f50df97f9bb0e82c7bcaad9a068c74568fc604e1e4f54849a1763ef2e86",
    ),
}


def file_entry(name: bytes, *, size: int = 6) -> TreeEntry:
    return TreeEntry(name, "100644", bytes.fromhex(HELLO), size)


@pytest.mark.parametrize("name", VECTORS)
def test_the_id_of_a_tree_is_that_of_its_vector(name: str) -> None:
    listed, expected = VECTORS[name]
    entries = [TreeEntry(file, mode, bytes.fromhex(id), size) for mode, id, size, file in listed]
    assert tree_id(reversed(entries)).hex() == expected


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_hold_by_a_computation_of_their_own(name: str) -> None:
    listed, expected = VECTORS[name]
    data = b"".join(f"{mode} {id} {size}\t".encode() + file + b"\0" for mode, id, size, file in listed)
    assert blake3(data, derive_key_context="dm tree v1").hexdigest() == expected


def test_the_blobs_of_the_vectors_are_what_b3sum_prints() -> None:
    contents = [b"hello\n", b"", b"#!/bin/sh\n", b"hello.txt", b"x", b"y"]
    assert [HELLO, EMPTY_BLOB, SCRIPT, LINK_TEXT, X, Y] == [blake3(each).hexdigest() for each in contents]


def test_the_encoding_of_one_file_is_this() -> None:
    assert encode_tree([file_entry(b"hello.txt")]) == f"100644 {HELLO} 6\thello.txt\0".encode()


def test_decoding_gives_the_entries_in_the_order_of_their_names() -> None:
    entries = [file_entry(b"b"), file_entry(b"a"), file_entry(b"a.b")]
    assert decode_tree(encode_tree(entries)) == sorted(entries)
    assert decode_tree(b"") == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (f"100644 {HELLO} 6\ta".encode(), "it does not end with NUL"),
        (f"100644 {HELLO} 6\tb\x00100644 {HELLO} 6\ta\0".encode(), "it is not in canonical form"),
        (f"100644 {HELLO} 6\ta\x00100644 {HELLO} 7\ta\0".encode(), "'a' occurs twice"),
        (f"100644 {HELLO.upper()} 6\ta\0".encode(), "it is not in canonical form"),
        (f"100644 {HELLO} 06\ta\0".encode(), "it is not in canonical form"),
        (f"100644 {HELLO} +6\ta\0".encode(), "it is not in canonical form"),
        (f"100644 {HELLO} -6\ta\0".encode(), "the id or size of 'a' is out of range"),
        (f"100644 {HELLO} {1 << 63}\ta\0".encode(), "the id or size of 'a' is out of range"),
        (f"100644 {HELLO[:-2]} 6\ta\0".encode(), "the id or size of 'a' is out of range"),
        (f"100600 {HELLO} 6\ta\0".encode(), f"'100600 {HELLO} 6\\ta' is not an entry"),
        (f"100644 {HELLO} six\ta\0".encode(), f"'100644 {HELLO} six\\ta' is not an entry"),
        (f"100644  {HELLO} 6\ta\0".encode(), f"'100644  {HELLO} 6\\ta' is not an entry"),
        (f"100644 {HELLO} 6 a\0".encode(), f"'100644 {HELLO} 6 a' is not an entry"),
        (f"100644 {HELLO} 6\t\0".encode(), "'' is not a name"),
        (f"100644 {HELLO} 6\t..\0".encode(), "'..' is not a name"),
        (f"100644 {HELLO} 6\ta/b\0".encode(), "'a/b' is not a name"),
        (b"just some text", "it does not end with NUL"),
    ],
)
def test_bytes_that_are_no_canonical_tree_are_malformed(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed) as caught:
        decode_tree(data)
    assert caught.value.message == f"malformed tree: {reason}"
    assert caught.value.hint == "the object is damaged, or of a newer dm"


def test_an_unknown_mode_is_not_encoded() -> None:
    with pytest.raises(Malformed) as caught:
        encode_tree([TreeEntry(b"a", "100600", bytes(32), 0)])
    assert caught.value.message == "malformed tree: unknown mode '100600'"


def test_a_name_with_nul_is_not_encoded() -> None:
    with pytest.raises(Malformed) as caught:
        encode_tree([file_entry(b"a\0b")])
    assert caught.value.message == "malformed tree: 'a\\x00b' is not a name"


def test_names_that_are_equal_in_nfc_are_refused() -> None:
    with pytest.raises(Refused) as caught:
        refuse_unsafe_names(["é".encode(), "e\u0301".encode()], folder=b"sub")
    assert caught.value.message == "cannot store 'sub/é' beside 'e\u0301': the names are equal in Unicode NFC"
    assert caught.value.hint == "rename one of them"


def test_names_that_differ_in_case_are_refused_only_where_the_file_system_folds_it() -> None:
    refuse_unsafe_names([b"README", b"readme"])
    with pytest.raises(Refused) as caught:
        refuse_unsafe_names([b"README", b"readme"], folds_case=True)
    assert caught.value.message == "cannot store 'README' beside 'readme': the names are equal but for case"


def test_names_that_are_not_utf8_are_taken_as_they_are() -> None:
    refuse_unsafe_names([b"\xff", b"\xfe", "é".encode()], folds_case=True)


@pytest.mark.parametrize("name", [b".dm", b".DM", b".Dm"])
def test_the_stores_own_folder_name_is_refused_in_any_case(name: bytes) -> None:
    with pytest.raises(Refused) as caught:
        refuse_unsafe_names([b"a", name])
    assert caught.value.message == f"cannot store '{name.decode()}': '.dm' is the store's own folder"
    assert caught.value.hint == "leave it out, or store the folders beside it one by one"
    refuse_unsafe_names([b"x.dm", b".dmx"])


def test_an_object_that_is_not_there_is_named() -> None:
    error = no_object(Digest("blake3", HELLO), "in memory")
    assert error.message == f"no blob blake3:{HELLO} in memory"
    assert error.hint == "dm list-objects lists what is there"
    assert no_object(Digest("blake3-tree", INNER), "here").message == f"no tree blake3-tree:{INNER} here"
