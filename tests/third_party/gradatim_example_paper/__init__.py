"""A paper for gradatim in a package of its own."""
