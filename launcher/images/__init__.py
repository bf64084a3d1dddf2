"""What image input needs beside a model: the vision encoder's file (mmproj), and the prompt of an image.

llama.cpp's name for that file is mmproj, for multimodal projector; it has the whole vision encoder.
"""
