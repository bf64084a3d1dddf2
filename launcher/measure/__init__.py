"""`trillama bench`, `tune` and `compare`: measurements, each with its command line in a `*_cli` module.

Starts servers only for a measurement and ends them with it. `bench/` in the checkout compares with other programs.
"""
