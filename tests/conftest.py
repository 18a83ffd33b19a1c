"""Shapes and types are checked while testing, and each worker keeps to one thread."""

from jaxtyping import install_import_hook

CHECKED = ["distil.functional", "distil.networks", "distil.types", "distil.dataset.matching"]
CHECKED += ["distil.dataset.objectives", "distil.dataset.policies", "distil.dataset.initial", "distil.dataset.coresets"]

install_import_hook(CHECKED, "beartype.beartype")

import torch  # noqa: E402

torch.set_num_threads(1)
