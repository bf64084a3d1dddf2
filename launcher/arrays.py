"""The type of arrays of vectors and weights."""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
