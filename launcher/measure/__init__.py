"""`trillama bench`, `tune` and `compare`."""
