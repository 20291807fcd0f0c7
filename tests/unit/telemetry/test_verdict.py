from __future__ import annotations

import math

import pytest

from aioseed.telemetry.verdict import RunShares, cycle_ms, explain

CALM = RunShares(
    environments=64,
    training_busy=0.3,
    inference_busy=0.2,
    inference_blocked=0.0,
    loop_busy=0.4,
    action_latency_ms=1.0,
    cycle_ms=10.0,
    round_trip_ms=4.0,
    stepping_share=0.6,
)
FAR = (
    "distance-bound: of the 40 ms from one step of an environment to its next, 30.5 ms are the way to the actors "
    "and back; more environments an actor would help"
)
FULL = (
    "link-bound: of the 1,400 ms from one step of an environment to its next, 1,049 ms are spent between actors and"
    " learner, where a short message is there and back in 30 ms; smaller observations or a faster link would help"
)
NEAR = "actor-bound: training is 30 % busy, inference 20 %; more actors would help"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"environments": 0, "training_busy": 1.0}, "waiting for actors: no environment is connected"),
        ({"training_busy": 0.92, "action_latency_ms": 40.0}, "learner-bound: 92 % busy; actors wait 40 ms"),
        ({"training_busy": 0.7, "inference_blocked": 0.2}, "learner-bound: 70 % busy; actors wait 1 ms"),
        ({"training_busy": 0.3, "inference_blocked": 0.3}, "learner-bound: 30 % busy; actors wait 1 ms"),
        ({"training_busy": 0.3, "inference_blocked": 0.1}, NEAR),
        ({"training_busy": 0.7, "inference_blocked": 0.04}, NEAR.replace("30", "70")),
        ({"inference_busy": 0.9}, "inference-bound: 90 % busy; actors wait 1 ms"),
        ({"inference_busy": 0.95, "training_busy": 0.9}, "inference-bound: 95 % busy; actors wait 1 ms"),
        ({"loop_busy": 0.93}, "network-bound: the event loop is 93 % busy, inference 20 %; actors wait 1 ms"),
        ({"loop_busy": 0.93, "inference_busy": 0.9}, "inference-bound: 90 % busy; actors wait 1 ms"),
        ({}, NEAR),
        ({"cycle_ms": 40.0, "round_trip_ms": 30.5, "stepping_share": 0.1}, FAR),
        ({"cycle_ms": 40.0, "round_trip_ms": 30.5, "stepping_share": math.nan}, FAR),
        ({"cycle_ms": 40.0, "round_trip_ms": 30.5, "stepping_share": 0.6}, NEAR),  # PONGs wait for something else
        ({"cycle_ms": 40.0, "round_trip_ms": 20.0, "stepping_share": math.nan}, NEAR),
        ({"cycle_ms": 1.5, "round_trip_ms": 1.9, "stepping_share": math.nan}, NEAR),  # so near that something else
        ({"cycle_ms": 1400.0, "round_trip_ms": 30.0, "stepping_share": 0.25}, FULL),
        ({"cycle_ms": 400.0, "round_trip_ms": 30.0, "stepping_share": 0.5}, NEAR),
        ({"cycle_ms": 400.0, "round_trip_ms": 30.0, "stepping_share": math.nan}, NEAR),
        ({"cycle_ms": 400.0, "round_trip_ms": 30.0, "stepping_share": 0.25, "action_latency_ms": 150.0}, NEAR),
        ({"cycle_ms": 12.0, "round_trip_ms": 1.0, "stepping_share": 0.1}, NEAR),  # so short that it is a busy machine
        ({"round_trip_ms": math.nan, "stepping_share": math.nan}, NEAR),
        ({"cycle_ms": math.nan, "round_trip_ms": 30.5}, NEAR),
        ({"cycle_ms": math.nan, "round_trip_ms": math.nan}, NEAR),
        (
            {
                "cycle_ms": 40.0,
                "round_trip_ms": 30.5,
                "stepping_share": 0.1,
                "training_busy": 0.92,
                "action_latency_ms": 8.0,
            },
            "learner-bound: 92 % busy; actors wait 8 ms",
        ),
    ],
)
def test_the_sentence_names_what_is_full(change, sentence):
    assert explain(CALM._replace(**change)) == sentence


def test_a_cycle_is_what_an_environment_takes_from_step_to_step():
    assert cycle_ms(4, 100.0) == 40.0 and math.isnan(cycle_ms(4, 0.0))
