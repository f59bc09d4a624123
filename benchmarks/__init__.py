"""How fast and how right, measured beside peers in one run: ratios, not absolute times. Not a test, not imported."""
