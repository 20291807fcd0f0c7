"""The room that trains: the background executor, the update loop, publication and checkpoints.

Read in this order: `update` (one compiled call), `loop` (what surrounds it), `publish`, then `store` and `writer`.
"""
