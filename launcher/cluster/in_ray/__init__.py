"""The only modules that import Ray: the actor that owns a host's node, and the process that deploys these actors."""
