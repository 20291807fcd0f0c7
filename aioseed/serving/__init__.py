"""Serving: leases and sessions, the rule that closes a batch, and inference."""
