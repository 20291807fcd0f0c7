"""The conformance kit for environment plugins: what every `aioseed.types.BatchEnvironment` must keep, tried out.

::

    def test_my_environment_keeps_the_rules() -> None:
        check_env(lambda count: plugin.make("My-v0", {}, count))

Each check is a function that yields one sentence for each thing that is wrong. Most of them run two instances side by
side with one difference (what the columns held before, an action, a seed) and look where that difference shows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypeAlias

import numpy as np

from aioseed.errors import SpaceError
from aioseed.specs import ActionSpec, check_servable, leaf_paths, spec_leaves, zeros
from aioseed.types import FINAL, FIRST, TERMINATED, TRUNCATED, BatchEnvironment, StepColumns

__all__ = ["CheckFailed", "EnvironmentKitWarning", "MakeEnvironment", "check_env"]

MakeEnvironment: TypeAlias = Callable[[int], BatchEnvironment]
"""Makes a group of that many environments; each call makes new ones, and all alike."""

ROWS = 4
_POISON, _OTHER_POISON = 0xA5, 0x5A
_KNOWN_FLAGS = FIRST | TERMINATED | TRUNCATED
_SEEDS = (11, 12, 13, 14)


class CheckFailed(AssertionError):
    """Report what an environment does wrong.

    Attributes:
        findings: One sentence for each thing.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = tuple(findings)


class EnvironmentKitWarning(UserWarning):
    """Point at something that is allowed but seldom meant, or that could not be tried."""


def check_env(make: MakeEnvironment, *, steps: int = 300, resets_rows: bool = True) -> None:
    """Try out the environments that `make` makes.

    Args:
        make: Makes a group of environments; is called about a dozen times, with 1 and with 4.
        steps: How many steps a check takes; episodes should end within them.
        resets_rows: False for environments that can only be reset as a whole: rows that were not asked for may then
            begin a new episode (FIRST) in the next step.

    Raises:
        CheckFailed: With one sentence for each thing that is wrong.

    Warns:
        EnvironmentKitWarning: No episode ended, or two seeds gave the same episodes.
    """
    findings: list[str] = []
    raised: list[str] = []
    checks: tuple[Callable[[], Iterator[str]], ...] = (
        lambda: _check_declarations(make),
        lambda: _check_reset(make),
        lambda: _check_flags(make, steps),
        lambda: _check_repeats(make, steps),
        lambda: _check_ignored_action(make, steps),
        lambda: _check_independent_rows(make, steps),
        lambda: _check_partial_reset(make, resets_rows),
        lambda: _check_close(make),
    )
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:
            raised.append(f"it raised {type(error).__name__}: {error}")
    if raised or findings:
        # What it raised first, which is often the cause of the rest. Two checks may meet the same failure.
        raise CheckFailed(list(dict.fromkeys([*raised, *findings])))


class _Run:
    """Drive one group of environments with columns that held something else before each call."""

    def __init__(self, make: MakeEnvironment, stack: ExitStack, *, poison: int = _POISON, seed: int = 0) -> None:
        self.env = make(ROWS)
        stack.callback(self.env.close)
        self.columns = _new_columns(self.env)
        self._poison = poison
        self._rng = np.random.default_rng(seed)

    def reset(self, rows: Sequence[int] = range(ROWS), seeds: Sequence[int] = _SEEDS) -> None:
        if len(rows) == ROWS:
            self._spoil()
        self.env.reset(np.array(rows), [seeds[row] for row in rows], self.columns)

    def step(self, actions: np.ndarray) -> None:
        actions.setflags(write=False)  # in a run, too, they are not the environment's to change
        self._spoil()
        self.env.step(actions, self.columns)

    def actions(self) -> np.ndarray:
        return _random_actions(self.env.spec.action, self._rng)

    def row(self, row: int) -> bytes:
        """Return everything that the environment wrote into a row."""
        return b"".join(column[row].tobytes() for _, column in _written(self.env, self.columns))

    def _spoil(self) -> None:
        for _, column in _written(self.env, self.columns):
            column.reshape(-1).view(np.uint8)[:] = self._poison


def _check_declarations(make: MakeEnvironment) -> Iterator[str]:
    with ExitStack() as stack:
        one, many = make(1), make(ROWS)
        stack.callback(one.close)
        stack.callback(many.close)
        for env, count in ((one, 1), (many, ROWS)):
            if env.count != count:
                yield f"count is {env.count} where {count} environments were asked for"
        if one.spec != many.spec:
            yield f"the specs depend on the number of environments: {one.spec} and {many.spec}"
        try:
            check_servable(many.spec.observation, many.spec.action)
        except SpaceError as error:
            yield f"the specs cannot be served: {error}"
        names = [metric.name for metric in many.metrics]
        if len(set(names)) < len(names):
            yield f"two metrics have one name: {', '.join(names)}"
        for metric in many.metrics:
            if metric.fold not in ("sum", "last", "max"):
                yield f"the metric {metric.name} has the fold {metric.fold!r}, which is none of sum, last and max"


def _check_reset(make: MakeEnvironment) -> Iterator[str]:
    with ExitStack() as stack:
        run = _Run(make, stack)
        run.reset()
        if (run.columns.flags != FIRST).any():
            yield f"after a reset every row is FIRST (1), the flags are {run.columns.flags.tolist()}"
        if run.columns.reward.any():
            yield f"the reward of a FIRST row is 0, after a reset it is {run.columns.reward.tolist()}"
        yield from _not_finite(run, "a reset")
        yield from _identity(run, "a reset")


def _check_flags(make: MakeEnvironment, steps: int) -> Iterator[str]:
    """Follow the flags: NEXT_STEP autoreset, and nothing but it."""
    with ExitStack() as stack:
        run = _Run(make, stack)
        run.reset()
        ended = False
        for step in range(1, steps + 1):
            was_final = (run.columns.flags & FINAL) != 0
            run.step(run.actions())
            wrong = [*_wrong_flags(run.columns, was_final, step), *_not_finite(run, f"step {step}")]
            wrong.extend(_identity(run, f"step {step}"))
            if wrong:
                yield from wrong
                return
            ended = ended or bool(was_final.any())
    if not ended:
        _warn(f"no episode ended within {steps} steps, so that its end could not be checked: give check_env more steps")


def _wrong_flags(columns: StepColumns, was_final: np.ndarray, step: int) -> Iterator[str]:
    for row, (flags, after_final) in enumerate(zip(columns.flags.tolist(), was_final.tolist(), strict=True)):
        first, final = bool(flags & FIRST), bool(flags & FINAL)
        where = f"in step {step}, row {row}"
        if flags & ~int(_KNOWN_FLAGS):
            yield f"{where}, the flags are {flags}, which no combination of FIRST, TERMINATED and TRUNCATED is"
        elif after_final and not first:
            yield f"{where}, the row after a final row is not FIRST"
        elif first and not after_final:
            yield f"{where}, a row is FIRST although the row before it was not final"
        elif first and final:
            yield f"{where}, a FIRST row is final at once"
        elif first and columns.reward[row] != 0:
            yield f"{where}, the reward of a FIRST row is 0, here it is {columns.reward[row]}"


def _check_repeats(make: MakeEnvironment, steps: int) -> Iterator[str]:
    """Compare two runs with the same seeds and actions whose columns held different things before."""
    with ExitStack() as stack:
        run, twin, other = (_Run(make, stack, poison=poison) for poison in (_POISON, _OTHER_POISON, _POISON))
        run.reset()
        twin.reset()
        other.reset(seeds=[seed + 100 for seed in _SEEDS])
        seeds_differ = run.row(0) != other.row(0)
        for step in range(steps + 1):
            when = f"step {step}" if step else "a reset"
            unwritten = _unwritten(run, twin)
            if unwritten:
                yield f"{unwritten} was not written in {when}"
                return
            differing = [row for row in range(ROWS) if run.row(row) != twin.row(row)]
            if differing:
                yield f"with the same seeds and actions, row {differing[0]} differs between two runs in {when}"
                return
            actions = run.actions()
            for each in (run, twin, other):
                each.step(actions)
            seeds_differ = seeds_differ or run.row(0) != other.row(0)
    if not seeds_differ:
        _warn(f"two seeds gave the same rows for {steps} steps: is the seed used?")


def _check_ignored_action(make: MakeEnvironment, steps: int) -> Iterator[str]:
    with ExitStack() as stack:
        run, twin = _Run(make, stack), _Run(make, stack)
        run.reset()
        twin.reset()
        for step in range(1, steps + 1):
            final = (run.columns.flags & FINAL) != 0
            actions, others = run.actions(), run.actions()
            run.step(actions)
            # The twin gets another action only where it must not matter.
            mixed = actions.copy()
            mixed[final] = others[final]
            twin.step(mixed)
            differing = [row for row in np.flatnonzero(final).tolist() if run.row(row) != twin.row(row)]
            if differing:
                yield f"in step {step}, row {differing[0]}, the action after a final row was not ignored"
                return


def _check_independent_rows(make: MakeEnvironment, steps: int) -> Iterator[str]:
    """Give row 0 other actions; until an episode ends, the other rows must not notice.

    Only so long, since a vector environment may draw the resets of all rows from one stream of random numbers.
    """
    with ExitStack() as stack:
        run, twin = _Run(make, stack), _Run(make, stack)
        run.reset()
        twin.reset()
        for step in range(1, steps + 1):
            actions, others = run.actions(), run.actions()
            run.step(actions)
            mixed = actions.copy()
            mixed[0] = others[0]
            twin.step(mixed)
            differing = [row for row in range(1, ROWS) if run.row(row) != twin.row(row)]
            if differing:
                yield f"in step {step}, an action of row 0 changed row {differing[0]}"
                return
            if ((run.columns.flags | twin.columns.flags) & FINAL).any():
                return


def _check_partial_reset(make: MakeEnvironment, resets_rows: bool) -> Iterator[str]:
    with ExitStack() as stack:
        run, twin = _Run(make, stack), _Run(make, stack)
        for each in (run, twin):
            each.reset()
        actions = run.actions()
        for each in (run, twin):
            each.step(actions)
        before = [run.row(row) for row in range(ROWS)]
        run.reset(rows=[1])
        touched = [row for row in (0, 2, 3) if run.row(row) != before[row]]
        if touched:
            yield f"a reset of row 1 alone wrote into row {touched[0]}"
        if run.columns.flags[1] != FIRST:
            yield f"a reset of row 1 alone left its flags at {run.columns.flags[1]}, not FIRST"
        was_final = (twin.columns.flags & FINAL) != 0
        actions = run.actions()
        for each in (run, twin):
            each.step(actions)
        if run.columns.flags[1] & FIRST:
            yield "after a reset of row 1 alone, its next step was FIRST once more"
        for row in (0, 2, 3):
            restarted = bool(run.columns.flags[row] & FIRST) and not was_final[row]
            if run.row(row) != twin.row(row) and (resets_rows or not restarted):
                yield f"a reset of row 1 alone changed what row {row} did next"
                return


def _check_close(make: MakeEnvironment) -> Iterator[str]:
    env = make(1)
    env.close()
    try:
        env.close()
    except Exception as error:
        yield f"the second close() raised {type(error).__name__}: {error}"


def _not_finite(run: _Run, when: str) -> Iterator[str]:
    for name, column in _written(run.env, run.columns):
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            yield f"{name} is not finite after {when}"


def _identity(run: _Run, when: str) -> Iterator[str]:
    expected = _new_columns(run.env)
    for name in ("slot", "epoch", "sequence"):
        if not np.array_equal(getattr(run.columns, name), getattr(expected, name)):
            yield f"{when} wrote into the column {name}, which belongs to the actor"


def _unwritten(run: _Run, twin: _Run) -> str:
    """Return the name of a column that kept both poisons at one place, or an empty string."""
    pairs = zip(_written(run.env, run.columns), _written(twin.env, twin.columns), strict=True)
    for (name, mine), (_, theirs) in pairs:
        mine_bytes, their_bytes = mine.reshape(-1).view(np.uint8), theirs.reshape(-1).view(np.uint8)
        if ((mine_bytes == _POISON) & (their_bytes == _OTHER_POISON)).any():
            return name
    return ""


def _written(env: BatchEnvironment, columns: StepColumns) -> list[tuple[str, np.ndarray]]:
    """Return the columns that an environment writes, with their names."""
    leaves = zip(leaf_paths(env.spec.observation), columns.observation, strict=True)
    return [("flags", columns.flags), ("reward", columns.reward), ("metrics", columns.metrics), *leaves]


def _new_columns(env: BatchEnvironment) -> StepColumns:
    """Return columns for a group, with values in slot, epoch and sequence that nobody would write."""
    return StepColumns(
        slot=np.arange(100, 100 + ROWS, dtype=np.uint32),
        epoch=np.arange(200, 200 + ROWS, dtype=np.uint64),
        sequence=np.arange(300, 300 + ROWS, dtype=np.uint32),
        flags=np.zeros(ROWS, np.uint8),
        reward=np.zeros(ROWS, np.float32),
        metrics=np.zeros((ROWS, len(env.metrics)), np.float32),
        observation=tuple(zeros(spec, (ROWS,)) for spec in spec_leaves(env.spec.observation)),
    )


def _random_actions(spec: ActionSpec, rng: np.random.Generator) -> np.ndarray:
    if spec.kind == "box":
        drawn: np.ndarray = rng.uniform(*_drawn_between(spec), (ROWS, spec.array.size))
    else:
        drawn = rng.integers(0, spec.sizes, (ROWS, len(spec.sizes)))
    return drawn.reshape((ROWS, *spec.array.shape)).astype(spec.array.numpy_dtype)


def _drawn_between(spec: ActionSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a box; in place of an infinite one, -1 or 1, or 2 away from the other where that is needed.

    What float32 cannot hold counts as infinite.
    """
    most = np.finfo(np.float32).max
    low, high = np.array(spec.low), np.array(spec.high)
    return (
        np.where(low < -most, np.minimum(-1.0, high - 2.0), low),
        np.where(high > most, np.maximum(1.0, low + 2.0), high),
    )


def _warn(sentence: str) -> None:
    warnings.warn(sentence, EnvironmentKitWarning, stacklevel=3)
