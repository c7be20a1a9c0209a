"""The gate on features whose truth is known: hands lie in a plane, other pictures do not."""

import json

import numpy as np
import pytest

from boneage.serving.gate import Gate, fit

CHANNELS = 64


@pytest.fixture(scope="module")
def world():
    """Features of hands: 5 factors and a little noise; of others: the same factors and much of everything else."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, CHANNELS))

    def draw(n, noise):
        return (rng.normal(size=(n, 5)) @ mixing + noise * rng.normal(size=(n, CHANNELS)) + 3).astype("float32")

    gate = fit(draw(400, 0.1), draw(400, 0.1))
    return gate, draw


def test_hands_pass_and_what_differs_off_their_plane_does_not(world):
    gate, draw = world
    assert (gate.strangeness(draw(1000, 0.1)) > 1).mean() < 0.01
    assert (gate.strangeness(draw(1000, 0.3)) > 1).all()


def test_hands_far_out_in_their_plane_still_pass(world):
    """The very young and the very old are no foreigners."""
    gate, _ = world
    along = gate.mean + 3 * gate.sd * gate.basis[0]
    assert gate.strangeness(along) < 1


def test_one_set_of_features_gives_one_number(world):
    gate, draw = world
    assert np.ndim(gate.strangeness(draw(1, 0.1)[0])) == 0


def test_a_gate_is_read_back_from_json_as_it_was_written(world):
    gate, draw = world
    again = Gate.from_dict(json.loads(json.dumps(gate.to_dict())))
    features = draw(20, 0.2)
    np.testing.assert_array_equal(again.strangeness(features), gate.strangeness(features))


def test_few_channels_leave_something_to_be_strange_in():
    rng = np.random.default_rng(0)
    hands = rng.normal(size=(100, 8))
    gate = fit(hands[:50], hands[50:])
    assert len(gate.basis) == 4
    assert gate.threshold > 0
