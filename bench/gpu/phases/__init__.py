"""The phases, one module each, and what two of them share. See `bench.gpu`."""
