from __future__ import annotations

import json

import pytest

from aioseed.errors import ConfigError
from aioseed.host.config import RunConfig, load_config


def test_a_preset_with_overrides_is_a_whole_configuration():
    config = load_config("cartpole", ["seed=3", "actor.processes=3", "agent.discount=0.9"])
    assert (config.seed, config.environment.name) == (3, "CartPole-v1")
    assert config.local_environments == 3 * config.actor.groups * config.actor.envs_per_group
    assert config.agent.section()["discount"] == 0.9


def test_a_configuration_survives_its_way_through_the_run_directory():
    config = load_config("cartpole")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainig.seed=1", 'trainig is not a known key (did you mean "training"?)'),
        ("mode=fast", "mode is 'fast': expected 'free' or 'lockstep'"),
        ("seed=-1", "seed is -1"),
        ("telemetry.every_s=0", "telemetry.every_s is 0"),
        ("transport.max_message_bytes=12", "transport.max_message_bytes is 12"),
    ],
)
def test_a_wrong_key_or_value_names_path_value_and_what_was_expected(override, said):
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole", [override])
    assert said in str(caught.value)


def test_the_json_schema_describes_every_section():
    schema = RunConfig.model_json_schema()
    assert set(schema["properties"]) == set(RunConfig.model_fields)
    assert schema["additionalProperties"] is False
    json.dumps(schema)
