"""Objects are written: staged in a workspace, then placed under their names, each once."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from dm.errors import ContentMismatch, MachineFailed
from dm.plumbing.fs.link import LinkMode, link_file
from dm.plumbing.fs.machine import display_path, machine_errors, machine_failed
from dm.plumbing.fs.publish import write_private
from dm.plumbing.hashing import hash_blob, tree_id_of
from dm.plumbing.store.ground import Ground
from dm.plumbing.store.layout import Layout
from dm.plumbing.store.loose import LooseObjects
from dm.plumbing.store.quarantine import set_aside
from dm.plumbing.store.statcache import StatCache
from dm.plumbing.store.workspace import Workspace
from dm.progress import Progress

_NO_HARD_LINK = frozenset(
    {errno.EPERM, errno.EMLINK, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}
)


class ObjectWriter:
    """Writes the objects of one batch. An object that is there already is verified and not written again; a damaged
    one is set aside and replaced.
    """

    def __init__(
        self,
        layout: Layout,
        workspace: Workspace,
        *,
        objects: LooseObjects,
        ground: Ground,
        stat_cache: StatCache | None,
        progress: Progress,
    ) -> None:
        self.ground = ground
        self.stat_cache = stat_cache
        #: How many objects were written.
        self.written = 0
        self._layout = layout
        self._work = workspace
        self.objects = objects
        self._progress = progress
        self._staged: dict[bytes, str] = {}
        self._sound: set[bytes] = set()
        self._unfit: set[bytes] = set()  # objects that no file may be a hard link to
        self._told = False

    def find_existing(
        self, wanted: Iterable[tuple[bytes, int]], *, tree: bytes | None = None, anew: bool = False
    ) -> bool:
        """Look which of these blobs (id and size; ``tree`` and ``anew`` as in `examine`) are there, and verify those.

        Returns whether there were any.
        """
        object_path, exists, sound = self._layout.object_path, os.path.exists, self._sound
        there = {raw: size for raw, size in dict(wanted).items() if raw not in sound and exists(object_path(raw))}
        if not there:
            return False
        examined = self.objects.examine(there.items(), tree=tree, anew=anew, progress=self._progress)
        sound.update(examined.sound)
        if examined.exposed and "hardlink" in self.ground.rungs:
            self._unfit |= self.objects.protect(examined.exposed & examined.sound)
        for raw in sorted(examined.damaged):
            self._set_aside(raw)
        return True

    def find_equal(self, raw: bytes, data: bytes | memoryview) -> bool:
        """Look whether this small blob is there already; its bytes are compared with those in memory."""
        if raw in self._sound or raw in self._staged:
            return True
        path = self._layout.object_path(raw)
        if not os.path.lexists(path):
            return False
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            found = os.read(descriptor, len(data) + 1)
        finally:
            os.close(descriptor)
        if found == data:
            self._sound.add(raw)
            return True
        self.find_existing([(raw, len(data))])
        return raw in self._sound

    def is_known(self, raw: bytes) -> bool:
        """Whether the object is there and sound, or staged in this batch."""
        return raw in self._sound or raw in self._staged

    def stage_bytes(self, raw: bytes, data: bytes | memoryview) -> None:
        """Write an object's bytes under a private name, unless it is known."""
        if not self.is_known(raw):
            private = self._work.new_path()
            write_private(private, data, mode=0o444)
            self._staged[raw] = private

    def stage_tree(self, raw: bytes, data: bytes) -> None:
        """Write a tree object under a private name, unless a sound one is there."""
        if self.is_known(raw):
            return
        path = self._layout.object_path(raw)
        try:
            with open(path, "rb") as file:
                found: bytes | None = file.read()
        except FileNotFoundError:
            found = None
        if found is not None:
            if tree_id_of(found) == raw:
                self._sound.add(raw)
                return
            self._set_aside(raw)
        self.stage_bytes(raw, data)

    def stage_file(self, raw: bytes, path: bytes) -> None:
        """Make an object of a file's bytes by reflink or copy, under a private name."""
        private = self._work.new_path()
        modes = tuple(mode for mode in self.ground.rungs if mode != "hardlink") or self.ground.executable_rungs
        link_file(path, os.fsencode(private), modes=modes)
        self._staged[raw] = private

    def adopt_private(self, raw: bytes, private: str) -> None:
        """Take a private file whose bytes are known to be the object's, read-only already, as staged."""
        self._staged[raw] = private

    def place_staged(self, raw: bytes) -> bool:
        """Give a staged object its name; False when none was staged (it is there already)."""
        private = self._staged.pop(raw, None)
        if private is None:
            return False
        target = self._prepare_place(raw)
        # Over one that another process wrote meanwhile: the bytes are the same.
        with machine_errors("put the object in place", target):
            os.rename(private, target)
        self.written += 1
        self._sound.add(raw)
        return True

    @property
    def has_staged(self) -> bool:
        """Whether an object waits for its name."""
        return bool(self._staged)

    def place_all(self) -> None:
        """Give every object that is still staged its name."""
        # In the order of their names: one folder after the other costs a fifth less.
        for raw in sorted(self._staged):
            self.place_staged(raw)

    def link_staged(self, raw: bytes, path: bytes) -> None:
        """Make a read-only file of ours and its object one by a hard link, whichever was there first."""
        if raw not in self._sound:
            target = self._prepare_place(raw)
            try:
                os.link(path, target, follow_symlinks=False)
            except FileExistsError:
                # Another process was quicker; its bytes count when they are what they should be.
                if hash_blob(self._layout.object_path(raw)) != raw:
                    raise ContentMismatch(
                        f"damaged object '{display_path(self._layout.object_path(raw))}': its bytes are not those of "
                        "its name",
                        hint="publish again: it is then set aside",
                        code="object-damaged",
                    ) from None
            except OSError as error:
                if error.errno not in _NO_HARD_LINK:
                    raise
                # It worked when it was tried out, and not for this file: it stands alone.
                self._tell(machine_failed(error, "link to", target))
                return
            else:
                self.written += 1
                self._sound.add(raw)
                return
            self._sound.add(raw)
        self.share(raw, path, executable=False)

    def share(self, raw: bytes, path: bytes, *, executable: bool) -> None:
        """Let a file of ours share the bytes of an object that was there before it, where that is possible."""
        source = self._layout.object_path(raw)
        if os.path.samefile(source, path):
            return
        apart = executable or raw in self._unfit
        modes: tuple[LinkMode, ...] = self.ground.executable_rungs if apart else self.ground.rungs
        modes = tuple(mode for mode in modes if mode != "copy")
        if not modes:
            return
        # In a private folder nobody sees the moment without the file; renaming over it costs ten times as much on ext4.
        os.unlink(path)
        if modes[0] == "hardlink" and not executable:
            try:
                os.link(source, path, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno not in _NO_HARD_LINK:
                    raise
        try:
            link_file(source, path, modes=modes, executable=executable)
        except MachineFailed as error:
            if error.code != "link-failed":
                raise
            # The object has as many links as it can have, or belongs to another user: this file stands alone.
            self._tell(error)
            link_file(source, path, modes=("copy",), executable=executable)

    def _prepare_place(self, raw: bytes) -> str:
        target = self._layout.object_path(raw)
        self._layout.ensure_folder_once(os.path.dirname(target))
        return target

    def _set_aside(self, raw: bytes) -> None:
        path = Path(self._layout.object_path(raw))
        with machine_errors("set aside", path):
            kept = set_aside(self._layout, path, "a damaged object: its bytes were not those of its name")
        self._progress.warn(f"a damaged object was found and replaced; it is kept at '{display_path(kept)}'")

    def _tell(self, error: MachineFailed) -> None:
        if not self._told:
            self._told = True
            self._progress.note(f"{error.message}; the copy stands alone")
