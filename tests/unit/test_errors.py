from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from aioseed import errors
from aioseed.errors import AioseedError, ProtocolError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, AioseedError)]
EXAMPLES = [
    errors.AioseedError("text"),
    errors.UsageError("text"),
    errors.ConfigError("text", path="a.b", value="1", expected="2"),
    errors.SpaceError("text"),
    errors.PluginError("text", group="g", name="n", extra="e"),
    errors.ListenError("text", url="ws://localhost:1"),
    errors.ProtocolError("flags", "text", rows=(1, 2), fatal=False),
    errors.RefusedError("capacity", "text", field="f", ours="1", theirs="2", retry=True),
    errors.TransportError("text"),
    errors.ConnectError("text", url="ws://localhost:1"),
    errors.AuthenticationError("text", url="ws://localhost:1"),
    errors.CertificateError("expired", "text", url="wss://localhost:1"),
    errors.ChannelClosed("text", clean=False),
    errors.EnvironmentFailed("text"),
    errors.RunDirectoryError("text", path="runs/a"),
    errors.RunDirectoryInUse("text", path="runs/a"),
    errors.CheckpointError("text", path="runs/a"),
    errors.SaveFailed("text", path="runs/a"),
    errors.TrainingFailed("text"),
]


def tree() -> list[tuple[int, str, int | None]]:
    """Return (depth, name, exit code) of each line of the tree in the module's docstring."""
    found: list[tuple[int, str, int | None]] = []
    for line in (inspect.getdoc(errors) or "").splitlines():
        match = re.match(r"^    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)\b", line)
        if match:
            depth = line.index(match[2]) // 4 - 1
            code = re.search(r"exit (\d+)$", line)
            found.append((depth, match[2], int(code[1]) if code else None))
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn, above = {}, []
    for depth, name, _ in tree():
        above = [*above[:depth], name]
        drawn[name] = above[-2] if depth else "Exception"
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}
    assert all(len(cls.__bases__) == 1 for cls in CLASSES)


def test_exit_codes_are_those_of_the_tree_and_inherited_where_it_names_none() -> None:
    for _, name, code in tree():
        cls = getattr(errors, name)
        assert cls.exit_code == (cls.__base__.exit_code if code is None and cls is not AioseedError else code or 1)


def test_exit_codes_are_never_zero_and_never_a_signal() -> None:
    assert {cls.exit_code for cls in CLASSES} == {1, 2, 3, 4, 5}


def test_counters_are_unique_and_lie_in_one_folder() -> None:
    counters = [cls.counter for cls in CLASSES]
    assert len({*counters}) == len(counters)
    assert all(re.fullmatch(r"errors/[a-z_]+", counter) for counter in counters)


def test_the_module_exports_every_class_and_nothing_else() -> None:
    assert sorted(errors.__all__) == sorted(cls.__name__ for cls in CLASSES)


def test_every_class_has_an_example_here() -> None:
    assert {type(error) for error in EXAMPLES} == {*CLASSES}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_text_is_the_sentence_alone(error: AioseedError) -> None:
    assert str(error) == "text"


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_errors_cross_processes_whole(error: AioseedError, again: object) -> None:
    twin = again(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize(
    "error",
    [
        errors.TransportError("\x1b[31mred\nline\udcff"),
        errors.ConnectError("\x1b[31mred\nline\udcff", url="ws://localhost:1"),
        errors.ChannelClosed("\x1b[31mred\nline\udcff", clean=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_words_of_the_other_side_do_nothing_to_a_terminal(error: AioseedError) -> None:
    assert str(error) == r"\x1b[31mred\nline\udcff" == str(copy.copy(error))


@pytest.mark.parametrize(("clean", "word"), [(True, "closed"), (False, "broke")])
def test_a_channel_that_ended_without_a_reason_says_how(clean: bool, word: str) -> None:
    error = errors.ChannelClosed(clean=clean)
    assert word in str(error) and error.reason == "" and error.clean is clean


def test_a_protocol_error_closes_the_channel_unless_it_says_otherwise() -> None:
    assert ProtocolError("malformed", "text").fatal and ProtocolError("malformed", "text").rows == ()
