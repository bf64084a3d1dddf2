"""One llama-server from start to end: started, verified, watched, restarted. Owns its state.

Never decides which models run where, nor when a model sleeps: `planning` and `fleet` do.
"""
