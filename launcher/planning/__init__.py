"""Decides which models run at which quantisation and length on which devices.

Estimates memory before anything starts; reads headers, earlier choices and the sizes on the hub, but starts nothing.
"""
