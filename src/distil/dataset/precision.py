"""Which devices compute in bfloat16."""

import platform


def computes_bfloat16(device: str) -> bool:
    """False where bfloat16 is known to be emulated: x86 processors and GPUs without its instructions."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return True
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is None or check() for check in checks)
