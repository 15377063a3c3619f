"""What a fetch asks of the objects that it has: those of a pack that arrived, or of a repository on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from dm.plumbing.transport.git.faults import GitFault, corrupt

Kind = Literal["commit", "tree", "blob", "tag"]

#: The longest object that is held in memory as a whole: commits, trees, links, and files that came as a difference.
WHOLE_BYTES_MAX = 1 << 30


class Objects(Protocol):
    """Objects by the bytes of their name (20, with SHA-256 32). What is given has been held against that name."""

    @property
    def name_bytes(self) -> int:
        """The length of a name."""

    def __contains__(self, name: bytes) -> bool: ...

    def read_kind(self, name: bytes) -> Kind:
        """What an object is. Raises `GitFault` for one that is not there."""

    def read(self, name: bytes, kind: Kind) -> bytes:
        """An object's content as a whole. Raises `GitFault`, also when it is of another kind."""

    def read_size_bytes(self, name: bytes) -> int:
        """The size of an object's content."""

    def send_blob(self, name: bytes, take: Callable[[bytes], object]) -> None:
        """Give a file's content to ``take``, piece by piece. Raises `GitFault`."""

    def close(self) -> None:
        """Let go of files."""


def missing(name: bytes) -> GitFault:
    """The fault of an object that should be there."""
    return corrupt(f"the object {name.hex()} is missing")


def wrong_kind(name: bytes, kind: Kind) -> GitFault:
    """The fault of an object that is something else than what points to it says."""
    return corrupt(f"the object {name.hex()} is no {kind}")


def too_large(name: bytes | None = None) -> GitFault:
    """The fault of an object that cannot be held in memory as a whole."""
    subject = "an object" if name is None else f"the object {name.hex()}"
    hint = "a file of that size is better fetched from a server of files"
    return GitFault(f"{subject} is larger than 1 GiB", hint=hint, code="git-too-large", refused=True)


def find_commit(objects: Objects, name: bytes) -> bytes:
    """The commit that a name means: itself, or what an annotated tag points to. Raises `GitFault`."""
    for _ in range(64):
        kind = objects.read_kind(name)
        if kind == "commit":
            return name
        if kind != "tag":
            break
        name = _read_field(objects.read(name, "tag"), b"object", objects.name_bytes)
    hint = "name a branch, a tag of a commit, or a commit"
    raise GitFault(f"the object {name.hex()} is no commit", hint=hint, code="git-no-ref")


def find_tree(objects: Objects, commit: bytes) -> bytes:
    """The tree of a commit. Raises `GitFault`."""
    return _read_field(objects.read(commit, "commit"), b"tree", objects.name_bytes)


def _read_field(content: bytes, field: bytes, name_bytes: int) -> bytes:
    """The name in the first line of a commit or a tag."""
    key, _, value = content.partition(b"\n")[0].partition(b" ")
    try:
        name = bytes.fromhex(value.decode("ascii"))
    except ValueError:
        name = b""
    if key != field or len(name) != name_bytes:
        raise corrupt(f"an object names no {field.decode()}")
    return name
