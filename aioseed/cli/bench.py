"""``aioseed bench``: measure serving, transports, training and start-up, and compare two measurements."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aioseed.bench.compare import compare_files
from aioseed.bench.machine import machine, versions
from aioseed.bench.traffic import Traffic
from aioseed.cli import collector
from aioseed.cli.common import Parser, add_overrides, guarded, print_json, run_until_interrupted, split_overrides
from aioseed.errors import UsageError
from aioseed.lookup import did_you_mean
from aioseed.transport.allocator import keep_large_blocks

Measure = Callable[[asyncio.Event], Awaitable[dict[str, object]]]
DEFAULT_SESSIONS = "1,4,16,64,256,1000"
DEFAULT_ENVIRONMENTS = "1,16,64,256,1024,4096,16384"
LARGE_OBSERVATION_BYTES = 84 * 84 * 4
"""Four stacked frames of Atari: with 16 environments, messages of 452 kB."""
DEFAULT_ENTRIES = "10000,100000,1000000"


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    return guarded("bench", lambda: _bench(argv))


KINDS = {
    "serving": "the serving road beside a bare echo of the same bytes",
    "transports": "serving over several transports beside one another",
    "latency": "latency at the top load and at half of it, beside the bare echo's",
    "connections": "serving for a growing number of connections",
    "environments": "serving for a growing number of environments over the same connections",
    "messages": "large messages over the road beside bare echoes, with and without the allocator's settings",
    "train": "a training run beside its own limit",
    "host": "a learner host alone, fed by recorded rows: inference and training beside each other, without sockets",
    "replay": "inserts, samples and changes of priorities beside cpprb's, where that is installed",
    "startup": "from the command to training and to its goal, with a cold and a warm cache",
    "compare": "what changed between two measurements that were printed with --json",
}


def parser(kind: str) -> Parser:
    """Return the parser of one kind of measurement."""
    words = Parser(prog=f"aioseed bench {kind}", description=f"Measure {KINDS[kind]}.")
    if kind == "compare":
        words.description = f"Print {KINDS[kind]}."
        words.add_argument("before", type=Path, metavar="A.json")
        words.add_argument("after", type=Path, metavar="B.json")
    elif kind == "startup":
        words.add_argument("config", metavar="PRESET-or-FILE", nargs="?", default="cartpole")
        words.add_argument(
            "--repeats", type=int, default=3, help="warm runs, of which medians are printed (default: 3)"
        )
    elif kind == "replay":
        words.add_argument("--entries", default=DEFAULT_ENTRIES, help="unrolls held, separated by commas")
    elif kind in ("train", "host"):
        words.add_argument("config", metavar="PRESET-or-FILE")
        add_overrides(words)
        words.add_argument("--seconds", type=float, default=10.0, help="time to measure (default: 10)")
        words.add_argument("--seed", type=int)
    else:
        _add_traffic(words, LARGE_OBSERVATION_BYTES if kind == "messages" else 16)
    if kind in ("serving", "latency", "connections", "environments"):
        words.add_argument("--transport", default="websocket", help="websocket, grpc, memory or a plug-in's name")
    if kind == "transports":
        words.add_argument("--transports", default="websocket,grpc,memory", help="names, separated by commas")
    if kind == "connections":
        words.add_argument("--connections", default=DEFAULT_SESSIONS, help="numbers, separated by commas")
    if kind == "environments":
        words.add_argument("--environments", default=DEFAULT_ENVIRONMENTS, help="numbers, separated by commas")
    words.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return words


def _add_traffic(words: argparse.ArgumentParser, observation_bytes: int) -> None:
    observation_help = f"of one environment (default: {observation_bytes})"
    words.add_argument("--sessions", type=int, default=16, help="connections (default: 16)")
    words.add_argument("--envs-per-session", type=int, default=16, help="environments of a message (default: 16)")
    words.add_argument("--observation-bytes", type=int, default=observation_bytes, help=observation_help)
    words.add_argument("--seconds", type=float, default=5.0, help="time for the road; the echo takes as long again")


def _bench(argv: Sequence[str]) -> int:
    kind = argv[0] if argv else "--help"
    if kind in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if kind not in KINDS:
        raise UsageError(f'there is nothing called "{kind}" to measure{did_you_mean(kind, list(KINDS))}')
    words = parser(kind).parse_intermixed_args(argv[1:])
    if kind == "compare":
        comparison = compare_files(words.before, words.after)
        if words.json:
            print_json(comparison.figures())
        else:
            sys.stdout.write(comparison.text())
        return 0
    if getattr(words, "seconds", 1.0) <= 0:
        raise UsageError("--seconds must be positive")
    seed, measure = _chosen(kind, words)
    keep_large_blocks()
    collector.wake()  # both as a learner does
    circumstances = {"benchmark": kind, "machine": machine(), "versions": versions(), "seed": seed}
    figures = run_until_interrupted(lambda stop: _unless_stopped(measure(stop), stop, kind), _say)
    if figures is None:
        raise KeyboardInterrupt
    if words.json:
        print_json({**circumstances, **figures})
    else:
        sys.stdout.write(json.dumps({**circumstances, **figures}, indent=2) + "\n")
    return 0


def _chosen(kind: str, words: argparse.Namespace) -> tuple[int, Measure]:
    """Return the seed and what measures."""
    # What each needs is imported when it is asked for: training brings JAX along.
    if kind in ("train", "host"):
        return _training(kind, words)
    if kind == "startup":
        from aioseed.bench.startup import measure_startup

        if words.repeats < 1:
            raise UsageError("--repeats must be at least 1")
        return 0, lambda stop: measure_startup(words.config, words.repeats)
    if kind == "replay":
        from aioseed.bench.replay import measure_replay

        entries = tuple(numbers(words.entries))
        return 0, lambda stop: asyncio.to_thread(measure_replay, entries)
    return 0, _serving(kind, words)


def _training(kind: str, words: argparse.Namespace) -> tuple[int, Measure]:
    from aioseed.bench.host import measure_host
    from aioseed.bench.train import bench_config, measure_training

    overrides = split_overrides(words.overrides)
    config = bench_config(words.config, [*overrides, *([] if words.seed is None else [f"seed={words.seed}"])])

    async def measure(stop: asyncio.Event) -> dict[str, object]:
        of_run, seconds = kind == "train", words.seconds
        result = await (measure_training(config, seconds, stop) if of_run else measure_host(config, seconds))
        return {"config": words.config, "overrides": overrides, **result.figures()}

    return config.seed, measure


def _serving(kind: str, words: argparse.Namespace) -> Measure:
    from aioseed.bench.scale import measure_connections, measure_environments, measure_latency, measure_transports
    from aioseed.bench.serving import measure_serving

    name = getattr(words, "transport", "websocket")
    traffic = Traffic(name, words.sessions, words.envs_per_session, words.observation_bytes).check()

    async def serving(stop: asyncio.Event) -> dict[str, object]:
        return (await measure_serving(traffic, words.seconds, tuned_echo=True)).figures()

    if kind == "messages":
        from aioseed.bench.messages import measure_messages

        return lambda stop: measure_messages(traffic, words.seconds)
    if kind == "transports":
        return lambda stop: measure_transports(traffic, words.transports.split(","), words.seconds)
    if kind == "latency":
        return lambda stop: measure_latency(traffic, words.seconds)
    if kind == "connections":
        return lambda stop: measure_connections(traffic, numbers(words.connections), words.seconds)
    if kind == "environments":
        return lambda stop: measure_environments(traffic, numbers(words.environments), words.seconds)
    return serving


def numbers(text: str) -> list[int]:
    """Return the positive numbers of a list separated by commas.

    Raises:
        UsageError: It holds something else.
    """
    found = [int(part) for part in text.split(",") if part.isdecimal()]
    if len(found) != len(text.split(",")) or not all(found):
        raise UsageError(f'"{text}" is not a list of positive numbers such as {DEFAULT_SESSIONS}')
    return found


async def _unless_stopped(
    measuring: Awaitable[dict[str, object]], stop: asyncio.Event, kind: str
) -> dict[str, object] | None:
    """Return what is measured, or None when the user interrupts; a training run ends by itself and is reported."""
    work = asyncio.ensure_future(measuring)
    if kind == "train":
        return await work
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        stopping.cancel()
        work.cancel()
        await asyncio.gather(work, stopping, return_exceptions=True)


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")


def _help() -> str:
    width = max(len(kind) for kind in KINDS)
    lines = [f"  {kind:<{width}}  {summary}" for kind, summary in KINDS.items()]
    return (
        "usage: aioseed bench WHAT [options]     aioseed bench WHAT --help tells more\n\n"
        + "\n".join(lines)
        + "\n\nEvery ratio is of one run; absolute figures are the machine's as much as ours.\n"
    )
