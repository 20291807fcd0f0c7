"""Pure maths of reinforcement learning: unbatched, time-major, checked while tracing, cited."""
