"""Real data sets: arrays with their provenance, offline where a package ships them."""
