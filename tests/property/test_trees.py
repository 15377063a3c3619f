"""Whatever is in a folder: encoding and decoding are each other's inverse, and only canonical bytes are read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dm.errors import Malformed
from dm.plumbing.store.objects import TreeEntry, decode_tree, encode_tree, tree_id

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
ENTRIES = st.lists(
    st.builds(
        TreeEntry,
        NAMES,
        st.sampled_from(["100644", "100755", "120000", "040000"]),
        st.binary(min_size=32, max_size=32),
        st.integers(0, (1 << 63) - 1),
    ),
    unique_by=lambda entry: entry.name,
    max_size=8,
)


@given(ENTRIES)
def test_decoding_gives_back_what_was_encoded_in_the_order_of_the_names(entries: list[TreeEntry]) -> None:
    assert decode_tree(encode_tree(entries)) == sorted(entries, key=lambda entry: entry.name)


@given(ENTRIES.flatmap(lambda entries: st.tuples(st.just(entries), st.permutations(entries))))
def test_the_id_does_not_depend_on_the_order_in_which_entries_are_given(
    pair: tuple[list[TreeEntry], list[TreeEntry]],
) -> None:
    assert tree_id(pair[0]) == tree_id(pair[1])


@given(ENTRIES.filter(bool), st.data())
def test_bytes_with_one_changed_are_another_tree_or_none(entries: list[TreeEntry], data: st.DataObject) -> None:
    encoded = bytearray(encode_tree(entries))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    try:
        decoded = decode_tree(bytes(encoded))
    except Malformed:
        return
    assert encode_tree(decoded) == bytes(encoded)
    assert decoded != decode_tree(encode_tree(entries))


@given(st.binary(max_size=200))
def test_any_bytes_are_malformed_or_canonical(data: bytes) -> None:
    try:
        decoded = decode_tree(data)
    except Malformed:
        return
    assert encode_tree(decoded) == data
