"""What the methods that match experts' training have in common: citations, sizes for two cores."""

from dataclasses import replace

from distil.dataset import config
from distil.dataset.methods.shared import GENERAL, OWN, scaled

SOURCES = GENERAL | {
    "validation": f"{OWN}; the papers learn from every training image, as --validation 0 does",
    "factor": "MTT: whole images",
    "init": "MTT's released code: pix_init real",
    "steps": "MTT's released code: Iteration 5000",
    "labels": "MTT: an item keeps its class",
    "student_steps": "MTT's released code: synthetic steps N",
    "span": "MTT's released code: expert epochs M",
    "start_from": "MTT's released code: from the first epoch on",
    "start_to": "MTT's released code: maximal start epoch, which is not reached itself",
    "start_to_first": "MTT: constant",
    "student_lr": "MTT's released code: lr_teacher 0.01",
    "student_lr_lr": "MTT's released code: lr_lr 1e-5",
    "hold_weights": "MTT differentiates through all updates; TESLA holds the weights of each constant",
    "skip_above": "MTT: none",
    "batch_synthetic": "MTT's released code: all images, or batch_syn 256",
    "lr": "MTT's released code: lr_img 100 or 1000",
    "lr_space": "MTT's code learns normalized pixels",
    "momentum": "MTT's released code: 0.5",
    "augment": "MTT's released code: DSA's",
    "augment_one": "MTT's released code: DSA's, one operation a batch",
    "expert_runs": "MTT's released code: num_experts 100",
    "expert_epochs": "MTT's released code: train_epochs 50",
    "expert_every": "MTT's released code: the weights after every epoch",
    "expert_lr": "MTT's released code: lr_teacher 0.01",
    "expert_lr_decay": "MTT's released code: none",
    "expert_momentum": "MTT's released code: mom 0",
    "expert_weight_decay": "MTT's released code: l2 0",
    "expert_batch": "MTT's released code: batch_train 256",
    "expert_cutmix": "MTT: none",
    "expert_augment": "MTT's released code: DSA's",
    "expert_augment_one": "MTT's released code: DSA's, one operation",
}


def nearest_ipc(ipc: int) -> int:
    """The published number of images per class, 1, 10 or 50, that is nearest."""
    return min((1, 10, 50), key=lambda known: abs(known - ipc))


def published(key: str, ipc: int) -> tuple[int, int, int, float]:
    """(student's updates N, expert's epochs M, epochs at which students start, learning rate) of MTT's released code;
    those of CIFAR-10 for data that it does not have."""
    nearest = nearest_ipc(ipc)
    if key == "cifar100":
        return {1: (20, 3, 20, 1000.0), 10: (20, 2, 20, 1000.0), 50: (80, 2, 40, 1000.0)}[nearest]
    return {1: (50, 2, 2, 100.0), 10: (30, 2, 20, 100.0), 50: (30, 2, 40, 1000.0)}[nearest]


def fast(settings: config.Trajectory) -> config.Trajectory:
    """This library's settings for minutes: few experts, short trainings. The student's updates and its first learning
    rate are the better of a few that were tried on held-out training images, with one seed."""
    experts = replace(settings.experts, runs=10, epochs=10, lr=0.02, momentum=0.0, batch=128)
    last = min(settings.start_to, 6)
    first = None if settings.start_to_first is None else min(settings.start_to_first, last)
    return replace(
        settings,
        steps=min(settings.steps, 300),
        student_steps=min(settings.student_steps, 20),
        student_lr=0.05,
        span=1,
        start_from=min(settings.start_from, last),
        start_to=last,
        start_to_first=first,
        experts=experts,
        batch_synthetic=64,
        optimizer=scaled(settings.optimizer),
    )


def for_digits(settings: config.Trajectory) -> config.Trajectory:
    """This library's settings for the embedded digits, sized for two CPU cores: about a minute a run."""
    made = fast(settings)
    experts = replace(made.experts, runs=5, epochs=10, lr=0.05, batch=64)
    return replace(made, width=32, steps=200, student_steps=10, experts=experts)
