"""Astronomy: gradients inside galaxies, from spectra to populations."""
