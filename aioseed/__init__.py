"""Train deep RL agents with environments in one place and accelerators in another."""
