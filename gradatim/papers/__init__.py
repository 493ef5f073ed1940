"""One pair of files a paper: what is claimed (TOML) and how it is run (Python)."""
