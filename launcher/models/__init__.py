"""The model files of a family: which are needed, which are here, whether they are complete; and made-up demo models.

Downloads through `hub` and makes files through `conversion`; never decides which quantisation is served: `planning`
does.
"""
