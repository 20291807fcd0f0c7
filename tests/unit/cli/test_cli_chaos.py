from __future__ import annotations

import shlex

from aioseed.cli.chaos import again, parser


def test_the_command_that_breaks_the_same_again_has_all_that_the_faults_depend_on() -> None:
    words = ["cartpole", "--minutes", "2", "--seed", "3", "--checkpoint-s", "0.5", "actor.processes=4"]
    said = parser().parse_intermixed_args(words)
    repeated = shlex.split(again(said, said.config, said.overrides))
    assert parser().parse_intermixed_args(repeated[repeated.index("chaos") + 1 :]) == said
