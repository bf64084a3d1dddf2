"""`python -m bench.bulk`: a corpus job against a server whose GPU is a sleep: its rate, its memory, and kill -9."""
