"""How long a test waits for a process that it started."""

PATIENCE = 7200.0
"""Seconds. It only ends a test whose process hangs: how fast a machine is decides no verdict."""
