"""The objects of one pack file that has arrived, indexed without holding a file's content in memory.

The format is git's gitformat-pack(5), version 2 and 3. dulwich could index a pack too, but inflates every object as a
whole: a file of 1 GiB then costs as much memory, twice. Here content is hashed piece by piece; only differences
(deltas), which are small on their own, and what they are applied to are held as a whole.
"""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Self

from dm.plumbing.fs.machine import machine_errors
from dm.plumbing.transport.git.faults import MALFORMED_BYTES, corrupt
from dm.plumbing.transport.git.objects import WHOLE_BYTES_MAX, Kind, missing, too_large, wrong_kind

_KINDS: dict[int, Kind] = {1: "commit", 2: "tree", 3: "blob", 4: "tag"}
_OFFSET_DELTA = 6
_NAME_DELTA = 7
_HEADER_BYTES = 12
_PIECE_BYTES = 256 << 10
#: Contents kept for the differences against them.
_CACHE_BYTES = 64 << 20


class PackFile:
    """A pack on disk. Made by `open`; used by one thread; closed by `close`."""

    def __init__(self, data: mmap.mmap, algorithm: str, should_stop: Callable[[], None]) -> None:
        self.name_bytes = hashlib.new(algorithm, usedforsecurity=False).digest_size
        self._data = data
        self._algorithm = algorithm
        self._should_stop = should_stop
        self._offsets: dict[bytes, int] = {}
        #: Where the base of a difference is, by where the difference is.
        self._bases: dict[int, int] = {}
        self._cache: OrderedDict[int, tuple[Kind, bytes]] = OrderedDict()
        self._cached_bytes = 0

    @classmethod
    def open(cls, path: Path, *, algorithm: str, should_stop: Callable[[], None]) -> Self:
        """Map a pack and index it: every object is inflated and hashed, once.

        ``algorithm`` is what names are made with, sha1 or sha256. ``should_stop`` is called now and then and raises
        when the work is to end. Raises `GitFault` for a pack that is damaged or not complete.
        """
        with machine_errors("read", path), open(path, "rb") as file:
            if not path.stat().st_size:
                raise corrupt("it sent nothing")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        pack = cls(data, algorithm, should_stop)
        try:
            pack._index()
        except MALFORMED_BYTES as error:
            pack.close()
            raise corrupt("what it sent is damaged") from error
        except BaseException:
            pack.close()
            raise
        return pack

    def close(self) -> None:
        """Let go of the file."""
        self._cache.clear()
        self._data.close()

    def __contains__(self, name: bytes) -> bool:
        return name in self._offsets

    def read_kind(self, name: bytes) -> Kind:
        """What an object is (see `objects.Objects`)."""
        offset = self._find(name)
        while offset in self._bases:
            offset = self._bases[offset]
        return _KINDS[self._read_header(offset)[0]]

    def read(self, name: bytes, kind: Kind) -> bytes:
        """An object's content (see `objects.Objects`)."""
        found, content = self._read_at(self._find(name))
        if found != kind:
            raise wrong_kind(name, kind)
        return content

    def read_size_bytes(self, name: bytes) -> int:
        """The size of an object's content (see `objects.Objects`)."""
        offset = self._find(name)
        if offset not in self._bases:
            return self._read_header(offset)[1]
        return _read_delta_sizes(self._inflate_at(offset))[1]

    def send_blob(self, name: bytes, take: Callable[[bytes], object]) -> None:
        """Give a file's content (see `objects.Objects`)."""
        offset = self._find(name)
        if offset in self._bases:
            take(self.read(name, "blob"))
            return
        number, size_bytes, position = self._read_header(offset)
        if _KINDS[number] != "blob":
            raise wrong_kind(name, "blob")
        self._inflate(position, size_bytes, take)

    def _find(self, name: bytes) -> int:
        offset = self._offsets.get(name)
        if offset is None:
            raise missing(name)
        return offset

    # Indexing

    def _index(self) -> None:
        data, end = self._data, len(self._data) - self.name_bytes
        if data[:4] != b"PACK" or int.from_bytes(data[4:8], "big") not in (2, 3) or end < _HEADER_BYTES:
            raise corrupt("what it sent is no pack")
        self._check_sum(end)
        waiting = _Waiting()
        position = _HEADER_BYTES
        for _ in range(int.from_bytes(data[8:12], "big")):
            self._should_stop()
            position = self._index_one(position, waiting)
        if position != end:
            raise corrupt("what it sent is damaged")
        for offset in [offset for offset in self._offsets.values() if offset in waiting.by_offset]:
            self._resolve(waiting.by_offset.pop(offset), offset, waiting)
        for name in [name for name in waiting.by_name if name in self._offsets]:
            self._resolve(waiting.by_name.pop(name, []), self._offsets[name], waiting)
        if waiting.by_offset or waiting.by_name:
            raise corrupt("what it sent holds differences to objects that are not there")

    def _check_sum(self, end: int) -> None:
        hasher = hashlib.new(self._algorithm, usedforsecurity=False)
        with memoryview(self._data) as view:
            for position in range(0, end, _PIECE_BYTES):
                self._should_stop()
                with view[position : min(position + _PIECE_BYTES, end)] as piece:
                    hasher.update(piece)
        if hasher.digest() != self._data[end:]:
            raise corrupt("what it sent is damaged or not complete")

    def _index_one(self, offset: int, waiting: _Waiting) -> int:
        """Take in the object at an offset; return where the next one begins."""
        number, size_bytes, position = self._read_header(offset)
        if number == _OFFSET_DELTA:
            distance, position = self._read_distance(position)
            if not 0 < distance <= offset:
                raise corrupt("what it sent is damaged")
            waiting.by_offset[offset - distance].append(offset)
        elif number == _NAME_DELTA:
            waiting.by_name[self._data[position : position + self.name_bytes]].append(offset)
            position += self.name_bytes
        else:
            hasher = self._make_hasher(_KINDS[number], size_bytes)
            position = self._inflate(position, size_bytes, hasher.update)
            self._offsets[hasher.digest()] = offset
            return position
        return self._inflate(position, size_bytes, len)

    def _resolve(self, deltas: list[int], base: int, waiting: _Waiting) -> None:
        """Name the objects that are differences to a base, those that are differences to them, and so on."""
        todo = [(delta, base) for delta in deltas]
        while todo:
            self._should_stop()
            offset, base = todo.pop()
            self._bases[offset] = base
            kind, content = self._read_at(offset)
            hasher = self._make_hasher(kind, len(content))
            hasher.update(content)
            name = hasher.digest()
            self._offsets.setdefault(name, offset)
            todo += [(delta, offset) for delta in waiting.by_offset.pop(offset, ())]
            todo += [(delta, offset) for delta in waiting.by_name.pop(name, ())]

    def _make_hasher(self, kind: Kind, size_bytes: int) -> hashlib._Hash:
        return hashlib.new(self._algorithm, b"%s %d\0" % (kind.encode(), size_bytes), usedforsecurity=False)

    # Reading

    def _read_at(self, offset: int) -> tuple[Kind, bytes]:
        """The kind and content of the object at an offset, through all differences that lead to it."""
        from dulwich.errors import ApplyDeltaError
        from dulwich.pack import apply_delta

        chain = []
        while offset not in self._cache and offset in self._bases:
            chain.append(offset)
            offset = self._bases[offset]
        kind, content = self._cache.get(offset) or self._read_base(offset)
        for delta_offset in reversed(chain):
            delta = self._inflate_at(delta_offset)
            before_bytes, after_bytes = _read_delta_sizes(delta)
            if before_bytes != len(content):
                raise corrupt("what it sent is damaged")
            if after_bytes > WHOLE_BYTES_MAX:
                raise too_large()
            try:
                content = b"".join(apply_delta(content, delta))
            except ApplyDeltaError as error:
                raise corrupt("what it sent is damaged") from error
            self._keep(delta_offset, kind, content)
        return kind, content

    def _read_base(self, offset: int) -> tuple[Kind, bytes]:
        number = self._read_header(offset)[0]
        kind, content = _KINDS[number], self._inflate_at(offset)
        self._keep(offset, kind, content)
        return kind, content

    def _keep(self, offset: int, kind: Kind, content: bytes) -> None:
        self._cache[offset] = (kind, content)
        self._cached_bytes += len(content)
        while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
            _, (_, old) = self._cache.popitem(last=False)
            self._cached_bytes -= len(old)

    def _inflate_at(self, offset: int) -> bytes:
        """What is stored at an offset as a whole: an object's content, or the difference itself."""
        number, size_bytes, position = self._read_header(offset)
        if size_bytes > WHOLE_BYTES_MAX:
            raise too_large()
        if number == _OFFSET_DELTA:
            position = self._read_distance(position)[1]
        elif number == _NAME_DELTA:
            position += self.name_bytes
        pieces: list[bytes] = []
        self._inflate(position, size_bytes, pieces.append)
        return b"".join(pieces)

    def _read_header(self, position: int) -> tuple[int, int, int]:
        """The type's number, the size of what is stored when inflated, and where it begins."""
        byte = self._data[position]
        position += 1
        number, size_bytes, shift = (byte >> 4) & 7, byte & 15, 4
        while byte & 0x80:
            byte = self._data[position]
            position += 1
            size_bytes |= (byte & 0x7F) << shift
            shift += 7
        return number, size_bytes, position

    def _read_distance(self, position: int) -> tuple[int, int]:
        """How far before a difference its base lies, and where what is stored begins."""
        byte = self._data[position]
        distance = byte & 0x7F
        while byte & 0x80:
            position += 1
            byte = self._data[position]
            distance = ((distance + 1) << 7) | (byte & 0x7F)
        return distance, position + 1

    def _inflate(self, position: int, size_bytes: int, take: Callable[[bytes], object]) -> int:
        """Inflate the stream at a position, piece by piece; return where it ends."""
        inflater = zlib.decompressobj()
        step = min(size_bytes + (size_bytes >> 8) + 64, _PIECE_BYTES)
        count = 0
        while not inflater.eof:
            piece = inflater.unconsumed_tail
            if not piece:
                piece = self._data[position : position + step]
                position += len(piece)
                if not piece:
                    raise corrupt("what it sent is not complete")
            inflated = inflater.decompress(piece, _PIECE_BYTES)
            count += len(inflated)
            if count > size_bytes:
                break
            if inflated:
                take(inflated)
                if count > _PIECE_BYTES:
                    self._should_stop()
        if count != size_bytes:
            raise corrupt("what it sent is damaged")
        return position - len(inflater.unused_data)


class _Waiting:
    """Where differences lie whose bases have no name yet: by the base's place, and by its name."""

    def __init__(self) -> None:
        self.by_offset: defaultdict[int, list[int]] = defaultdict(list)
        self.by_name: defaultdict[bytes, list[int]] = defaultdict(list)


def _read_delta_sizes(delta: bytes) -> tuple[int, int]:
    """The sizes before and after, with which a difference begins."""
    sizes, position = [], 0
    for _ in range(2):
        size_bytes = shift = 0
        while True:
            byte = delta[position]
            position += 1
            size_bytes |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        sizes.append(size_bytes)
    return sizes[0], sizes[1]


