"""Algorithms, one folder each, all of one shape: `config`, `loss`, `agent`, and the plug-in object in the package."""
