"""Classes arrive in groups, and a network keeps learning: what it forgets with and without a few images of before.

python examples/class_incremental.py

Each group of the embedded digits is distilled once, when it is there, and its images are thrown away. When the next
group arrives, the network goes on with its real images and, in every batch, with images of the joined sets of before.
"""

from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from distil import DistilledSet, build_network, distil_dataset, open_source, preset, stream

GROUPS = ["01", "23", "45", "67", "89"]
BATCH = 32


def accuracies(network, test, groups):
    """Percent of the test images of each group that the network, which chooses among all digits, gets right."""
    with torch.no_grad():
        images = normalized(test.images.float() / 255, test)
        right = network(images).argmax(1) == test.labels
    found = []
    for group in groups:
        members = torch.isin(test.labels, torch.tensor([test.classes.index(name) for name in group]))
        found.append(100 * right[members].float().mean().item())
    return found


def normalized(images, described):
    mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in (described.mean, described.std))
    return (images - mean) / std


def learn(source, memories, updates, seed=0):
    """Accuracy on each group, [[after the first group], [after the second], ...]. memories: what is replayed with each
    group, a distilled set of all groups before; None for nothing."""
    network = build_network("convnet3", channels=1, size=source.train.size, classes=10, width=16, seed=seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02, momentum=0.9)
    history = []
    for step, group in enumerate(GROUPS):
        new = source.train.only(list(group))
        index = torch.tensor([source.train.classes.index(name) for name in group])
        before = None if memories[step] is None else memories[step].decoded()
        for update in range(updates):
            generator = stream(seed, "class-incremental", step, update)
            batch = new.sample(BATCH, generator)
            images, labels = normalized(batch.images, source.train), index[batch.labels]
            loss = cross_entropy(network(images), labels)
            if before is not None:
                drawn = torch.randint(len(before.images), (BATCH,), generator=generator)
                replayed = network(normalized(before.images[drawn], source.train))
                loss = loss + step * cross_entropy(replayed, before.labels[drawn])  # each group weighs the same
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append(accuracies(network, source.test, GROUPS[: step + 1]))
    return history


def forgetting(history):
    """Points that a group loses from when it was learned to the end, on average over all groups but the last.

    Source: Chaudhry et al., ECCV 2018, with the accuracy right after a group in the place of the best one.
    """
    return sum(history[i][i] - history[-1][i] for i in range(len(GROUPS) - 1)) / (len(GROUPS) - 1)


def distilled_memories(source, settings):
    """What is kept with each group: the joined distilled sets of all groups before; None with the first."""
    parts, memories = [], [None]
    for group in GROUPS[:-1]:
        parts.append(distil_dataset(source, settings, classes=list(group)))
        memories.append(DistilledSet.concat(parts))
    return memories


def main(ipc=2, updates=60, outer=5, inner=10):
    source = open_source("digits")
    idc = replace(preset("idc", "digits", ipc), width=16, outer=outer, inner=inner)
    kept = {
        "nothing": [None] * len(GROUPS),
        f"{ipc} random images per class": distilled_memories(source, preset("random", "digits", ipc)),
        f"{ipc} distilled items per class (idc)": distilled_memories(source, idc),
    }
    found = {}
    print(f"{'replayed':40} accuracy on all   forgetting")
    for name, memories in kept.items():
        history = learn(source, memories, updates)
        found[name] = forgetting(history)
        print(f"{name:40} {sum(history[-1]) / len(GROUPS):13.1f} % {found[name]:8.1f} points")
    return found


if __name__ == "__main__":
    main()
