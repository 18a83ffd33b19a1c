"""Shapes and types are checked while testing, and each worker keeps to one thread."""

from jaxtyping import install_import_hook

CHECKED = ["distil.functional", "distil.networks", "distil.types", "distil.dataset.objectives"]
CHECKED += ["distil.dataset.selection.coresets"]

install_import_hook(CHECKED, "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
