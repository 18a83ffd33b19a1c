"""MTT: a student's training on the synthetic images is to lead where experts' training on real images led."""

from distil.dataset import config
from distil.dataset.methods.dsa import operations
from distil.dataset.methods.method import Method
from distil.dataset.methods.trajectories import SOURCES, for_digits, published


def settings(key: str, ipc: int) -> config.Trajectory:
    updates, span, starts, lr = published(key, ipc)
    made = config.Trajectory(
        method="mtt",
        ipc=ipc,
        steps=5000,
        parameterization=config.Grid(factor=1, init="real"),
        optimizer=config.ImageSGD(lr=lr, lr_space="normalized", momentum=0.5),
        student_steps=updates,
        span=span,
        start_to=starts - 1,
        augment=operations(key),
        experts=config.Experts(runs=100, epochs=50, augment=operations(key)),
    )
    return for_digits(made) if key == "digits" else made


METHOD = Method(
    name="mtt",
    title="MTT, matching training trajectories",
    kind="matching",
    paper="Cazenavette et al.: Dataset Distillation by Matching Training Trajectories. CVPR 2022; the gradient in "
    "constant memory as in Cui et al.: Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory (TESLA). "
    "ICML 2023",
    description="A student trained on the synthetic images for some updates is to end where experts, trained on real "
    "images beforehand, were some epochs later; its learning rate is learned too.",
    cost="experts: 100 networks of 50 epochs; then 5,000 steps of 20 to 80 updates and their second derivatives",
    settings=settings,
    sources=SOURCES,
    published={
        "cifar10": (46.2, 65.4, 71.6),
        "cifar100": (24.3, 39.7, 47.7),
    },
    has_fast=True,
)
