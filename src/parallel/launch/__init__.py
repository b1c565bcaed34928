"""The ways to a host: a launcher a module."""
