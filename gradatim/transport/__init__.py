"""From noise to data: probability paths, flows and the transport between distributions."""
