"""Scientific machine learning: networks that solve differential equations, and networks that help a solver."""
