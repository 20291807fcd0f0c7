"""``--tls self-signed``: one command on each side, and the token in no output and no file but its own."""

from __future__ import annotations

import shlex

import pytest

pytestmark = pytest.mark.timeout(240)


def test_a_self_signed_learner_is_joined_by_the_command_that_it_prints(start, small, tmp_path):
    listen = ("--listen", "wss://0.0.0.0:0", "--listen", "grpcs://127.0.0.1:0", "--tls", "self-signed")
    learner = start(
        "learner", "cartpole", "--json", *listen, "--steps", 1500, "--run-dir", "run", *small, "mode=lockstep"
    )
    commands = []
    printed = [learner.says("^join with:  (.*)")[1] for _ in range(4)]
    for scheme, index in (("wss", 0), ("grpcs", 1)):
        words = shlex.split(
            next(line for line in printed if f" {scheme}://" in line and f"--actor-index {index}" in line)
        )
        words = words[words.index("actor") :]
        port = words[1].rsplit(":", 1)[1]
        assert "--fingerprint" in words and "--token-file" in words
        commands.append(["actor", f"{scheme}://127.0.0.1:{port}", *words[2:], "--wait-s", "60"])
    file = learner.says("the token is in (.*): take the file to the other machine")[1]
    token = (tmp_path / file).read_text().strip()

    wrong = [word if word != commands[0][commands[0].index("--fingerprint") + 1] else "0" * 64 for word in commands[0]]
    liar = start(*wrong)
    assert liar.ends() == 3 and "fingerprint" in liar.err[-1], liar.text
    actors = [start(*command) for command in commands]
    for actor in actors:
        assert actor.ends() == 0, actor.text
    learner.succeeds()

    shown = "\n".join(command.text for command in (learner, liar, *actors))
    assert token not in shown
    holders = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert holders == [tmp_path / file]
