"""The wire, version 1: bytes to messages and back, and which message is legal when. No I/O, no clock.

`messages` holds the control messages, `columns` the STEP and ACTION layouts, `session` the table of what may be said
when.
"""
