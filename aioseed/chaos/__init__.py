"""Break aioseed on purpose, and check what must hold all the same."""
