"""Optimisers from the gradient literature, as optax gradient transformations."""
