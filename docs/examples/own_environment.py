"""An own environment: walk to the right end of a corridor. Its name is ``own_environment:Corridor``."""

import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """Observe the place in [0, 1]; action 1 steps to the right, 0 to the left; every step costs."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        """Begin somewhere in the left half."""
        super().reset(seed=seed)
        self.place = int(self.np_random.integers(0, 6))
        return self.observation(), {}

    def step(self, action):
        """Walk one step."""
        self.place = max(0, self.place + (1 if action else -1))
        return self.observation(), -0.1, self.place == 10, False, {}

    def observation(self):
        """Return the place as a share of the corridor."""
        return np.array([self.place / 10], np.float32)
