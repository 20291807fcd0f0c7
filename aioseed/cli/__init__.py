"""The command line. `main` and `actor` are thin; the other commands are found by name only when asked for."""
