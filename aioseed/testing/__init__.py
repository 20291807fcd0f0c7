"""What plugin authors test with: conformance kits, vectors, fault scripts and virtual time. Nothing else imports it."""

from aioseed.testing.environment_kit import check_env

__all__ = ["check_env"]
