"""Which models at which quantisation on which device: pure decisions."""
