"""The model files of a family: which are needed, which are here, whether they are whole."""
