"""`trillama corpus`: its commands and their options."""
