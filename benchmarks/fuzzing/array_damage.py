"""Damage to npz files: other arrays, and zip files that tell of other sizes than they hold."""

import io
import random
import re
import zipfile

import numpy as np

from .mutation import Mutation


def archive(content: bytes, draw: random.Random) -> Mutation:
    """An npz with other arrays, or a zip that tells of other sizes than it holds."""
    with np.load(io.BytesIO(content)) as loaded:
        arrays: dict[str, np.ndarray] = {name: loaded[name] for name in loaded.files}
    if draw.random() < 0.3:
        return _zip(arrays, draw)
    told = "; ".join(_array_change(arrays, draw) for _ in range(draw.choice((1, 1, 1, 2))))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return Mutation(buffer.getvalue(), told)


ARRAY_KINDS = ("b1", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", ">i4", "c8", "U3", "S3", "O", "M8[s]")


def _array_change(arrays: dict[str, np.ndarray], draw: random.Random) -> str:
    name = draw.choice(sorted(arrays))
    x = arrays[name]
    change = draw.choice(("kind", "kind", "kind", "value", "value", "shape", "rows", "drop", "rename", "swap", "extra"))
    if change == "kind":
        kind = draw.choice(ARRAY_KINDS)
        try:
            arrays[name] = x.astype(kind)
        except (ValueError, TypeError, OverflowError):
            arrays[name] = np.zeros(x.shape, kind)
        return f"{name} is {kind}"
    if change == "value" and x.size:
        kind = draw.choice(("f4", "f8", "i8", "i4", "u2", "f2", "U9"))
        value = draw.choice((float("nan"), float("inf"), -1.0, 2.0, 6e4, 1e38, 1e-30))
        if kind == "U9" or x.dtype.kind == "U":
            x = x.astype("U9")
            x.reshape(-1)[draw.randrange(x.size)] = draw.choice(("", " ", "a", "\ud800", "\0", "nan"))
        else:
            x = (x / 255 if kind[0] == "f" and draw.random() < 0.5 else x).astype(kind)
            if kind[0] != "f":
                value = draw.choice((-1, 0, 1, 300, 4095, 2**15))
            x.reshape(-1)[draw.randrange(x.size)] = value if kind != "u2" else abs(int(value))
        arrays[name] = x
        return f"{name} as {kind} with {value}"
    if change == "shape":
        with_axis = (x.reshape(-1), x[None], x[..., None], np.stack([x, x], -1), np.stack([x] * 3, -1), x.T)
        arrays[name] = draw.choice(with_axis)
        return f"{name} has shape {arrays[name].shape}"
    if change == "rows" and x.ndim:
        arrays[name] = draw.choice((x[:0], x[:1], x[:-1], np.concatenate([x, x]), x[::-1]))
        return f"{name} has shape {arrays[name].shape}"
    if change == "rename":
        new = draw.choice(
            ("x_val", "y_val", "x_train", "train_images", "X_train", "y", "../x", "arr_0", "allow_pickle")
        )
        arrays[new if new != "allow_pickle" else "a"] = arrays.pop(name)
        return f"{name} is called {new}"
    if change == "swap":
        other = draw.choice(sorted(arrays))
        arrays[name], arrays[other] = arrays[other], arrays[name]
        return f"{name} and {other} change places"
    if change == "extra":
        arrays[draw.choice(("classes", "x_val", "mean", "z"))] = draw.choice((x, x[:1], np.array(["a", "b", "a"])))
    else:
        del arrays[name]
    return f"{change} {name}"


def _zip(arrays: dict[str, np.ndarray], draw: random.Random) -> Mutation:
    """A zip of which one array's own header, or one zip entry, lies."""
    victim = draw.choice(sorted(arrays))
    change = draw.choice(("shape", "shape", "shape", "version", "cut", "folder", "twice", "text"))
    told = f"{change} of {victim}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array, allow_pickle=False)
            data = one.getvalue()
            if name == victim:
                if change == "shape":
                    shape = draw.choice(
                        (b"(3000000000,)", b"(-1, 4)", b"(1e3,)", b"(10**9,)", b"()", b"(60000, 60000)")
                    )
                    data = re.sub(rb"'shape': \([^)]*\)", b"'shape': " + shape, data)
                    told += f": {shape.decode()}"
                elif change == "version":
                    data = data[:6] + draw.choice((b"\x02\x00", b"\x09\x00", b"\xff\xff")) + data[8:]
                elif change == "cut":
                    data = data[: draw.randrange(len(data))]
                elif change == "text":
                    data = draw.choice((b"", b"hello", data[6:]))
            entry = f"{name}.npy" if not (change == "folder" and name == victim) else f"../{name}.npy"
            file.writestr(entry, data)
            if change == "twice" and name == victim:
                file.writestr(f"{name}.npy/", b"") if draw.random() < 0.5 else file.writestr(f"{name}", data)
    return Mutation(buffer.getvalue(), told)
