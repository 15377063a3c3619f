"""Which objects a store's refs lead to, through trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dm.errors import ContentMismatch, DmError, MachineFailed
from dm.plumbing.store.objects import FOLDER_MODE
from dm.plumbing.store.protocol import Reader
from dm.plumbing.store.refs import Ref
from dm.values import Digest, printable


def find_reached(reader: Reader, refs: Iterable[tuple[str, Ref]]) -> set[bytes]:
    """The ids (32 bytes each) of every object that a ref names, and of all that lies below the trees among them.

    A tree that is not in the store is one whose copy stands alone: nothing was stored on its account. Raises
    `ContentMismatch` for a tree that is there and damaged, `MachineFailed` for one that this user may not read: what it
    leads to cannot be known.
    """
    reached: set[bytes] = set()
    for name, ref in refs:
        if ref.digest is None or ref.digest.raw in reached:
            continue
        try:
            reached.update(_walk(reader, ref.digest, reached))
        except DmError as error:
            message = f"cannot tell what '{printable(name)}' needs: {error.message}"
            if error.code == "permission":
                raise MachineFailed(message, hint=error.hint, code=error.code) from error
            hint = "dm verify --all --repair mends what can be mended"
            raise ContentMismatch(message, hint=hint, code="tree-damaged") from error
    return reached


def _walk(reader: Reader, digest: Digest, known: set[bytes]) -> Iterator[bytes]:
    waiting = [digest]
    seen: set[bytes] = set()
    while waiting:
        each = waiting.pop()
        if each.raw in seen or each.raw in known:
            continue
        seen.add(each.raw)
        yield each.raw
        if not each.is_tree or not reader.has(each):
            continue
        for entry in reader.read_tree(each):
            if entry.mode == FOLDER_MODE:
                waiting.append(Digest.of_tree(entry.id))
            else:
                yield entry.id
