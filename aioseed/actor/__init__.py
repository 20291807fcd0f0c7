"""Actors: step environments in worker threads, talk to the learner in the event loop, reconnect. Thin: never JAX.

`run.run_actor` is the way in. `session` and `group` decide what each message means and do no I/O; `worker` holds the
threads; `conversation` joins both to a channel; `watch` tells hung environments from dead channels; `contact` decides
whether to dial again.
"""
