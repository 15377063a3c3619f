"""Objects become files again: built under a private name by links, then shown by one rename."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import NamedTuple

from dm.errors import MachineFailed, Refused
from dm.plumbing.fs.link import LINK_MODES, LinkMode, link_file
from dm.plumbing.fs.machine import display_path, machine_errors
from dm.plumbing.hashing import blake3_of
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import LooseObjects
from dm.plumbing.store.markers import MARKER_NAME
from dm.plumbing.store.objects import EXECUTABLE_MODE, FOLDER_MODE, LINK_MODE, STORE_FOLDER_NAME
from dm.progress import Progress
from dm.values import Digest


class Plan(NamedTuple):
    """All that a blob or tree is made of: folders (outermost first), files and links by relative name.

    A blob is one file with the name ``b""``. ``exposed`` are the blobs whose objects are not as read-only as a file.
    """

    folders: list[bytes]
    files: list[tuple[bytes, bytes, bool]]
    links: list[tuple[bytes, bytes]]
    size_bytes: int
    exposed: Set[bytes] = frozenset()

    @property
    def files_count(self) -> int:
        """Files and links."""
        return len(self.files) + len(self.links)


class Built(NamedTuple):
    """What was built: the most expensive mode that a plain file needed, why one stands alone (None: none does), and
    whether no bytes were written at all.
    """

    mode: LinkMode
    fallback: str | None
    all_hardlinks: bool


class Checkout:
    """Builds files from the objects of one store."""

    def __init__(self, layout: Layout, objects: LooseObjects, *, progress: Progress) -> None:
        self._layout = layout
        self._objects = objects
        self._progress = progress

    def plan(self, digest: Digest) -> Plan:
        """Read the trees below ``digest`` and verify every blob, so that nothing is built of damaged objects.

        Raises `NotFound`, `ContentMismatch`, and `Refused` for a tree that holds a store's folder or a marker.
        """
        if not digest.is_tree:
            exposed = self._objects.require([(digest.raw, None)], progress=self._progress)
            return Plan([], [(b"", digest.raw, False)], [], self._objects.size(digest), exposed)
        plan = Plan([], [], [], 0)
        sizes: dict[bytes, int] = {}
        total = 0
        waiting = [(b"", digest)]
        while waiting:
            folder, tree = waiting.pop()
            prefix = folder + b"/" if folder else b""
            for name, mode, raw, size in self._objects.read_tree(tree):
                if name.lower() == STORE_FOLDER_NAME or (not folder and name == MARKER_NAME.encode()):
                    raise _unsafe(digest, prefix + name)
                path = prefix + name
                if mode == FOLDER_MODE:
                    plan.folders.append(path)
                    waiting.append((path, Digest.of_tree(raw)))
                    continue
                total += size
                sizes[raw] = size
                if mode == LINK_MODE:
                    plan.links.append((path, raw))
                else:
                    plan.files.append((path, raw, mode == EXECUTABLE_MODE))
        exposed = self._objects.require(list(sizes.items()), tree=digest.raw, progress=self._progress)
        return plan._replace(size_bytes=total, exposed=exposed)

    def build(self, plan: Plan, staged: str, *, modes: Sequence[LinkMode], strict: bool) -> Built:
        """Build a plan at ``staged``, where nothing lies. Files are read-only; folders can be written by their owner.

        With ``strict`` a file that none of ``modes`` can make is an error, else it is copied. Executables are reflinked
        or copied.
        """
        unfit = self._objects.protect(plan.exposed) if plan.exposed and "hardlink" in modes else frozenset()
        ladder = _Ladder(modes, strict=strict, unfit=frozenset(map(self._layout.object_path, unfit)))
        with machine_errors("check out to", staged):
            if not plan.folders and len(plan.files) == 1 and not plan.files[0][0]:
                ladder.link(self._layout.object_path(plan.files[0][1]), staged, executable=False)
                return ladder.built()
            top = os.fsencode(staged)
            os.mkdir(top)
            for folder in plan.folders:
                os.mkdir(top + b"/" + folder)
            self._share_with_group(top, plan.folders)
            object_path = self._layout.object_path
            with self._progress.start("linking", total=plan.files_count, unit="files") as task:
                for name, raw, executable in plan.files:
                    ladder.link(os.fsencode(object_path(raw)), top + b"/" + name, executable=executable)
                for name, raw in plan.links:
                    os.symlink(self._read_target(raw), top + b"/" + name)
                task.advance(plan.files_count)
        return ladder.built()

    def _share_with_group(self, top: bytes, folders: Sequence[bytes]) -> None:
        bits = self._layout.group_bits() if self._layout.owns(Path(os.fsdecode(top))) else 0
        if bits:
            for path in [top, *[top + b"/" + folder for folder in folders]]:
                os.chmod(path, os.stat(path).st_mode & 0o7777 | bits)

    def _read_target(self, raw: bytes) -> bytes:
        path = self._layout.object_path(raw)
        with open(path, "rb") as file:
            target = file.read()
        if blake3_of(target) != raw or not target or b"\0" in target:
            raise MachineFailed(f"'{display_path(path)}' is no target of a link", code="object-damaged")
        return target


_HARDLINK = LINK_MODES.index("hardlink")


class _Ladder:
    """Links file after file, and remembers how far down it had to go."""

    def __init__(self, modes: Sequence[LinkMode], *, strict: bool, unfit: Set[str]) -> None:
        self._modes = tuple(modes)
        self._unfit = unfit  # objects that no file may be a hard link to
        self._executable: tuple[LinkMode, ...] = ("reflink", "copy") if "reflink" in self._modes else ("copy",)
        self._strict = strict
        self._hardlinks_first = self._modes[:1] == ("hardlink",)
        self._lowest = -1
        self.all_hardlinks = True
        self._fallback: str | None = None

    def link(self, source: str | bytes, target: str | bytes, *, executable: bool) -> None:
        if executable:
            self.all_hardlinks = False
            link_file(source, target, modes=self._executable, executable=True)
            return
        if self._unfit and os.fsdecode(source) in self._unfit:
            self.all_hardlinks = False
            modes = tuple(mode for mode in self._modes if mode != "hardlink")
            mode = link_file(source, target, modes=modes if self._strict else (*modes, "copy"))
            self._lowest = max(self._lowest, LINK_MODES.index(mode))
            return
        if self._hardlinks_first:
            # The whole ladder costs as much again as the link: only where this does not work.
            try:
                os.link(source, target, follow_symlinks=False)
                self._lowest = max(self._lowest, _HARDLINK)
                return
            except OSError:
                self._hardlinks_first = False
        try:
            mode = link_file(source, target, modes=self._modes)
        except MachineFailed as error:
            if self._strict or error.code != "link-failed":
                raise
            self._fallback = error.message
            # Only what the rungs above cannot do is copied; the next file tries them first again.
            self._modes = (*self._modes, "copy")
            mode = link_file(source, target, modes=("copy",))
        self.all_hardlinks = self.all_hardlinks and mode == "hardlink"
        # Objects that can be linked here lie on this file system, where the rungs above do not work.
        self._hardlinks_first = mode == "hardlink"
        self._lowest = max(self._lowest, LINK_MODES.index(mode))

    def built(self) -> Built:
        lowest = LINK_MODES[self._lowest] if self._lowest >= 0 else (self._modes or LINK_MODES)[0]
        return Built(lowest, self._fallback, self.all_hardlinks)


def _unsafe(digest: Digest, name: bytes) -> Refused:
    return Refused(
        f"cannot check out {digest.short}: it holds '{display_path(name)}', which is a store's own",
        hint="dm cat-object shows its files one by one",
        code="name-reserved",
    )
