"""What plugin authors test with: conformance kits, vectors, fault scripts and virtual time. Nothing else imports it."""
