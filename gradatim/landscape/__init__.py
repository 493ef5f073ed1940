"""The loss landscape: spectra of curvature, what they consist of, what they mean."""
