"""The proxy's processes: settings, start, handover from one to the next, pausing of backends."""
