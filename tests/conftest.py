"""Shapes and types are checked while testing, each worker and what it starts keeps to one thread, and signals do what
they usually do, whoever started the tests (nohup and a shell's background jobs ignore some)."""

import os
import signal

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")

CHECKED = ["distil.functional", "distil.networks", "distil.types", "distil.dataset.objectives"]
CHECKED += ["distil.dataset.selection.coresets"]

install_import_hook(CHECKED, "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
