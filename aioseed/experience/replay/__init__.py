"""Replay: unrolls that are learned from again and again. Owned by the training thread, so without locks. NumPy only."""
