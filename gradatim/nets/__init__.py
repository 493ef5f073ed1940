"""Building blocks of networks, as equinox modules."""
