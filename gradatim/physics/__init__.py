"""Simulators whose states are arrays and whose parameters are pytree leaves."""

from . import chemotaxis as chemotaxis
from . import electrolyte as electrolyte
from . import phase_field as phase_field
from . import plasma as plasma
