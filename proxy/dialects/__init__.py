"""The APIs that are spoken, a file each: JSON of a client's API to a request, a result back to JSON."""
