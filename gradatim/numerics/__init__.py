"""The ground floor: numerical methods that several rooms share."""
