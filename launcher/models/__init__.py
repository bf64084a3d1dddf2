"""The model files of a family: which are needed, which are here, whether they are complete; and the demo models.

Downloads through `hub`; never decides which quantisation is served (`planning` does).
"""
