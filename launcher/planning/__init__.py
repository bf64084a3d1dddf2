"""Decides which models run at which quantisation and length on which devices.

Estimates memory before anything starts; reads headers and earlier choices, but starts nothing.
"""
