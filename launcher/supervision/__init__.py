"""One backend from start to end: started, verified, watched, restarted."""
