"""An image as a client sent it → the exact pixels that the model was trained to see, as a file for the engine.

`loading` connects the parts: `sources` reads what the client sent, `fetching` downloads it (`urls` and `addresses` say
from where), `decoding` bounds and decodes it, `sizes` and `bicubic` resize it as the original's processor does.
"""
