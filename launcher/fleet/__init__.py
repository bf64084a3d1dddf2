"""The running set: what is prepared, what runs, what makes room."""
