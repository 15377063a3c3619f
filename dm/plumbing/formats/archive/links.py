"""Symbolic links of an archive: where they lead when all members are in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

# Linux follows 40 links in one path and then gives up with ELOOP (path_resolution(7)); macOS 32.
_FOLLOWED_MAX = 40


def leads_outside(link: bytes, links: Mapping[bytes, bytes], fold: Callable[[bytes], bytes]) -> bool:
    """Whether following a link, and any link on its way, goes above the folder that holds them all.

    ``links`` are all links of the folder, their path as ``fold`` gives it to their target; ``link`` is one of them.
    Every part is followed as the kernel does, so that ``a/..`` is the parent of where the link ``a`` leads. What is
    missing counts as a folder. A circle leads nowhere, thus not outside.
    """
    current = link.split(b"/")[:-1]
    pending = links[fold(link)].split(b"/")[::-1]
    followed = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not current:
                return True
            current.pop()
            continue
        current.append(part)
        target = links.get(fold(b"/".join(current)))
        if target is None:
            continue
        followed += 1
        if followed > _FOLLOWED_MAX:
            return False
        current.pop()
        if target.startswith(b"/"):
            return True
        pending.extend(target.split(b"/")[::-1])
    return False
