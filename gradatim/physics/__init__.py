"""Simulators whose states are arrays and whose parameters are pytree leaves."""
