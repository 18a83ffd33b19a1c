"""One thread a worker: the tests are small, and pytest-xdist runs several workers on few cores."""

import torch

torch.set_num_threads(1)
