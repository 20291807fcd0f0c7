"""The host: where the rooms of a learner meet, who owns its threads, and in which order it ends."""
