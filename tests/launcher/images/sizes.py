"""The images that the stored vectors are of: height and width in pixels; 4 to 768 tokens of 28 x 28 pixels."""

import sys
from pathlib import Path

SIZES = (
    (56, 56),
    (28, 140),
    (196, 28),
    (112, 112),
    (140, 252),
    (336, 532),
    (644, 476),
    (588, 1008),
    (672, 896),
)

if __name__ == "__main__":
    from launcher.build.checks.media_models import write_media_model

    write_media_model(Path(sys.argv[1]))
