"""Replay into a checkpoint and out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from aioseed.errors import CheckpointError
from aioseed.experience.replay.replay import Replay
from aioseed.experience.replay.saving import Cuts, number_of, segments_of
from aioseed.specs import Json
from aioseed.types import SavedReplay


def save_replay(replay: Replay, cuts: Cuts, counts: Mapping[str, Json]) -> SavedReplay:
    """Return what a checkpoint keeps of `replay`, with `counts` beside it."""
    segments, release = cuts.save()
    state: dict[str, Json] = {
        **counts,
        "oldest": replay.blocks.oldest,
        "next": replay.blocks.next,
        "block_unrolls": replay.blocks.block_unrolls,
        "transitions": replay.transitions(),
        "evicted": replay.evicted,
        "evicted_unseen": replay.evicted_unseen,
        "generator": replay.generator_state(),
        "priority_exponent": replay.priority_exponent,
        "segments": [segment.name for segment in segments],
    }
    return SavedReplay(replay.state(), state, segments, release)


def restore_replay(
    replay: Replay,
    cuts: Cuts,
    state: Mapping[str, Json],
    arrays: Mapping[str, np.ndarray],
    read: Callable[[str], Mapping[str, np.ndarray]],
    path: str,
) -> None:
    """Fill an empty `replay` with what `save_replay` returned.

    Raises:
        CheckpointError: It is of another form, or of another capacity.
    """
    blocks = replay.blocks
    found = segments_of(state, path)
    size = number_of(state, "next", path) - number_of(state, "oldest", path)
    if number_of(state, "block_unrolls", path) != blocks.block_unrolls or size > blocks.places:
        message = "the saved replay is of another replay.capacity_unrolls: go on with the one that it was saved with"
        raise CheckpointError(message, path=path)
    blocks.begin_at(number_of(state, "oldest", path))
    try:
        for name, first, count in found:
            blocks.restore(count, read(name))
            cuts.restore(first, count)
        replay.restore_state(arrays["weights"], arrays["draws"], arrays["highest"], _exponent_of(state))
        replay.restore_generator(state["generator"])
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise CheckpointError(f"the saved replay does not fit this configuration: {error}", path=path) from error
    replay.evicted = number_of(state, "evicted", path)
    replay.evicted_unseen = number_of(state, "evicted_unseen", path)


def _exponent_of(state: Mapping[str, Json]) -> float | None:
    """Return the exponent behind the saved weights; None where an earlier version did not say it."""
    value = state.get("priority_exponent")
    if value is not None and (not isinstance(value, int | float) or value < 0):
        raise ValueError(f"its priority_exponent is {value!r}")
    return value
