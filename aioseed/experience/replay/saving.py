"""What a checkpoint keeps of replay: pieces that never change, written once each, and the few numbers that do.

The training thread hands references to blocks over and goes on. A block that goes from replay while a save still needs
it keeps its memory until the save is done; when the spare memory for that runs out the save is cut short, never
training. Segments never span blocks, so they go from replay, and from later checkpoints, as wholes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from aioseed.errors import CheckpointError
from aioseed.experience.replay.blocks import Blocks
from aioseed.specs import Json
from aioseed.types import Segment


class Pins:
    """Know which blocks saves under way still need. Thread: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saves: list[_Save] = []

    def may_reuse(self, physical: int) -> bool:
        """Return True if no save needs the memory of this block."""
        with self._lock:
            return not any(physical in save.blocks for save in self._saves)

    def cut_short(self) -> None:
        """Give up all saves under way: of each only the block that is being read at this moment stays needed."""
        with self._lock:
            for save in self._saves:
                save.cancelled = True
                save.blocks &= save.reading

    def begin(self, blocks: set[int]) -> _Save:
        """Begin a save that needs `blocks`."""
        save = _Save(blocks)
        with self._lock:
            self._saves.append(save)
        return save

    def end(self, save: _Save) -> None:
        """End a save."""
        with self._lock:
            self._saves.remove(save)

    @contextmanager
    def reading(self, save: _Save, physical: int) -> Iterator[None]:
        """Hold one block for as long as it is read.

        Raises:
            CheckpointError: It may have been used again.
        """
        with self._lock:
            if physical not in save.blocks:
                raise CheckpointError(
                    "replay needed the memory that was being saved; the next save tries again", path=""
                )
            save.reading.add(physical)
        try:
            yield
        finally:
            with self._lock:
                save.reading.discard(physical)
                if save.cancelled:
                    save.blocks.discard(physical)


@dataclass(eq=False, slots=True)
class _Save:
    blocks: set[int]
    reading: set[int] = field(default_factory=set)
    cancelled: bool = False


@dataclass(eq=False, slots=True)
class _Cut:
    """A range of unrolls that is a segment for as long as it is held."""

    first: int
    count: int
    saved: bool = False

    @property
    def name(self) -> str:
        return f"replay-{self.first:012d}-{self.count}"


class Cuts:
    """Cut what is held into segments. Thread: training, but for the function that `save` returns."""

    def __init__(self, blocks: Blocks, pins: Pins) -> None:
        self._blocks = blocks
        self._pins = pins
        self._cuts: list[_Cut] = []
        self._cut_to = 0

    def save(self) -> tuple[tuple[Segment, ...], Callable[[bool], None]]:
        """Return segments of all that is held, oldest first, and what to call when they are saved or given up."""
        self._cut()
        cuts = list(self._cuts)
        physical = {cut: self._blocks.physical(cut.first) for cut in cuts}
        save = self._pins.begin({physical[cut] for cut in cuts if not cut.saved})
        segments = tuple(
            _Segment(cut.name, self._blocks.arrays(cut.first, cut.count), self._pins, save, physical[cut])
            for cut in cuts
        )

        def release(saved: bool) -> None:
            for cut in cuts:
                cut.saved = saved
            self._pins.end(save)

        return segments, release

    def restore(self, first: int, count: int) -> None:
        """Note a segment that was read from a checkpoint."""
        self._cuts.append(_Cut(first, count, saved=True))
        self._cut_to = first + count

    def _cut(self) -> None:
        blocks = self._blocks
        self._cuts = [cut for cut in self._cuts if cut.first >= blocks.oldest]
        begin = max(self._cut_to, blocks.oldest)
        while begin < blocks.next:
            end = min((begin // blocks.block_unrolls + 1) * blocks.block_unrolls, blocks.next)
            self._cuts.append(_Cut(begin, end - begin))
            begin = end
        self._cut_to = begin


class _Segment:
    """A piece of one block (implements `aioseed.types.Segment`)."""

    def __init__(self, name: str, arrays: Mapping[str, np.ndarray], pins: Pins, save: _Save, physical: int) -> None:
        self._name = name
        self._arrays = arrays
        self._pins = pins
        self._save = save
        self._physical = physical

    @property
    def name(self) -> str:
        return self._name

    @contextmanager
    def read(self) -> Iterator[Mapping[str, np.ndarray]]:
        with self._pins.reading(self._save, self._physical):
            yield self._arrays


def number_of(state: Mapping[str, Json], name: str, path: str) -> int:
    """Return a number of the saved state.

    Raises:
        CheckpointError: It is not there, or not a number.
    """
    value = state.get(name)
    if type(value) is not int:
        raise CheckpointError(f"the saved replay does not say its {name}", path=path)
    return value


def segments_of(state: Mapping[str, Json], path: str) -> list[tuple[str, int, int]]:
    """Return name, first number and count of the saved segments.

    Raises:
        CheckpointError: They are not neighbours, or cannot be read.
    """
    listed = state.get("segments")
    found: list[tuple[str, int, int]] = []
    for name in listed if isinstance(listed, list) else []:
        parts = str(name).split("-")
        if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
            raise CheckpointError(f"the saved replay names a segment {name!r}", path=path)
        found.append((str(name), int(parts[1]), int(parts[2])))
    ends = [number_of(state, "oldest", path), *(first + count for _, first, count in found)]
    if [first for _, first, _ in found] != ends[:-1] or ends[-1] != number_of(state, "next", path):
        raise CheckpointError("the segments of the saved replay leave gaps", path=path)
    return found
