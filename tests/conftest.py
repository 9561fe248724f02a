"""Set-up every test module needs before it imports anything: Triton's interpreter where there is no GPU."""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

torch.set_num_threads(int(os.environ.get("FER_FAST_TEST_THREADS", "1")))
