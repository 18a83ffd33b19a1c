"""Score files: what an evaluation found, beside the set that was evaluated."""

import hashlib
import json
import shlex
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from distil.checks import check_seed, check_text, is_finite, is_integer, shown
from distil.errors import DistilError
from distil.files import parse_json, write_atomic
from distil.locks import one_at_a_time
from distil.runs import RESULT, sets_in

FORMAT_VERSION = 2
"""Version of a score file; a reader refuses a newer one. Rows of version 1 do not tell the label regime."""

Row = dict[str, Any]
"""`Scores.to_dict()` with file_sha256 (of the artifact; None for real images), test_fingerprint and versions."""

SAME_SET = ("name", "method", "images_per_class", "file_sha256")
TRAINED = ("protocol_version", "protocol_settings", "width", "runs", "seed", "test_fingerprint", "beside")
SAME_EVALUATION = (*SAME_SET, *TRAINED, "labels", "teacher", "temperature")
SAME_TABLE = ("protocol", "protocol_version", "protocol_settings", "test", "test_images", "test_fingerprint")
OPTIONAL = {"protocol_version", "labels", "teacher", "temperature", "beside"}
"""What rows may lack: distil 0.1 wrote no version of the protocol, and score files of version 1 have no labels. beside:
the file_sha256 of the set that real images were evaluated beside."""
NEEDED = {*SAME_EVALUATION, *SAME_TABLE, "bytes", "networks"} - OPTIONAL
LABELED = ("labels", "teacher", "temperature")
REGIMES = ("hard", "stored", "teacher")


def scores_beside(artifact: Path) -> Path:
    """Where the scores of an artifact lie: its name with .scores.json added."""
    return artifact.with_name(f"{artifact.name}.scores.json")


def set_name(artifact: Path) -> str:
    """What a table calls an artifact: its run folder, or its file name without the suffix."""
    return artifact.absolute().parent.name if artifact.name == RESULT else artifact.stem


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_scores(path: Path) -> list[Row]:
    """The rows of a score file.

    Raises: DistilError that names the file if it is missing, is not one, or is from a newer distil, and the field if a
        row makes no sense.
    """
    try:
        content = parse_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DistilError(f"{path}: no such file. Check the path.") from error
    except (OSError, ValueError) as error:
        raise DistilError(f"{path}: not a score file ({error}). Give a file that distil evaluate wrote.") from error
    content = content if isinstance(content, dict) else {}
    version = content.get("format_version")
    if is_integer(version) and version > FORMAT_VERSION:
        raise DistilError(
            f"{path}: made by a newer distil (format {shown(version)}, this one reads up to {FORMAT_VERSION}): "
            "upgrade with pip install -U distil"
        )
    rows = content.get("scores")
    rows = rows if isinstance(rows, list) else []
    if not rows or not all(isinstance(row, dict) and row.keys() >= NEEDED for row in rows):
        raise DistilError(f"{path}: not a score file. Give a file that distil evaluate wrote.")
    for index, row in enumerate(rows):
        try:
            _check_row(row)
        except DistilError as error:
            raise DistilError(f"{path}: row {index}: {error} Evaluate the set again, into another file.") from error
    return rows


def _check_row(row: Row) -> None:
    """Refuse values that no evaluation gives."""
    for name in ("name", "method", "protocol", "test", "test_fingerprint"):
        check_text(row[name], name)
    if row["file_sha256"] is not None:
        check_text(row["file_sha256"], "file_sha256")
    if not isinstance(row.get("path", ""), str | None):
        raise DistilError(f"path is {shown(row['path'])}: it must be text.")
    for name in ("bytes", "runs", "test_images"):
        if not is_integer(row[name]) or row[name] < 0:
            raise DistilError(f"{name} is {shown(row[name])}: it must be a whole number, at least 0.")
    for name in ("images_per_class", "width"):
        if row[name] is not None and (not is_integer(row[name]) or row[name] < 1):
            raise DistilError(f"{name} is {shown(row[name])}: it must be a whole number, at least 1, or null.")
    version = row.get("protocol_version")
    if version is not None and (not is_integer(version) or version < 1):
        raise DistilError(f"protocol_version is {shown(version)}: it must be a whole number, at least 1.")
    _check_labels(row)
    check_seed(row["seed"])
    if not isinstance(row.get("ranking", {}), dict):
        raise DistilError(f"ranking is {shown(row['ranking'])}: it must be an object.")
    if not isinstance(row["protocol_settings"], dict):
        raise DistilError(f"protocol_settings are {shown(row['protocol_settings'])}: they must be an object.")
    if not isinstance(row["networks"], dict) or not row["networks"]:
        raise DistilError(f"networks are {shown(row['networks'])}: they must be an object with a network at least.")
    for name, values in row["networks"].items():
        check_text(name, "the name of a network")
        _check_accuracies(name, values)


def _check_labels(row: Row) -> None:
    """Refuse a label regime that there is not, and a teacher or temperature that is none."""
    regime, teacher, temperature = row.get("labels"), row.get("teacher"), row.get("temperature")
    if regime is not None and regime not in REGIMES:
        raise DistilError(f"labels is {shown(regime)}: it must be hard, stored or teacher.")
    if regime is not None and (not is_integer(row.get("label_bytes")) or row["label_bytes"] < 0):
        raise DistilError(f"label_bytes is {shown(row.get('label_bytes'))}: it must be a whole number, at least 0.")
    if temperature is not None and not (is_finite(temperature) and temperature > 0):
        raise DistilError(f"temperature is {shown(temperature)}: it must be a number above 0, or null.")
    if teacher is None and regime != "teacher":
        return
    words = teacher.get("words") if isinstance(teacher, dict) else None
    if not isinstance(teacher, dict) or not isinstance(words, list) or not words or temperature is None:
        raise DistilError(f"teacher is {shown(teacher)}: it must be an object with words, beside a temperature.")
    for name, text in (
        ("sha256 of the teacher", teacher.get("sha256")),
        *(("a word of the teacher", w) for w in words),
    ):
        check_text(text, name)
    if not is_integer(teacher.get("bytes")) or teacher["bytes"] < 0:
        raise DistilError(f"bytes of the teacher is {shown(teacher.get('bytes'))}: it must be a whole number.")


def _check_accuracies(network: str, values: Any) -> None:
    """Refuse accuracies that are no percentages, and a mean and deviation that are not theirs."""
    accuracies = values.get("accuracies") if isinstance(values, dict) else None
    if not isinstance(accuracies, list) or not accuracies:
        raise DistilError(f"{network} has no list of accuracies.")
    if not all(is_finite(x) and 0 <= x <= 100 for x in accuracies):
        raise DistilError(f"the accuracies of {network} are {shown(accuracies)}: they must be percentages, 0 to 100.")
    expected = {"mean": fmean(accuracies), "std": stdev(accuracies) if len(accuracies) > 1 else 0.0}
    for name, value in expected.items():
        if not is_finite(values.get(name)) or abs(values[name] - value) > 1e-6:
            raise DistilError(f"{name} of {network} is {shown(values.get(name))}, and its accuracies give {value:.6g}.")


def add_scores(path: Path, row: Row) -> None:
    """Add a row to a score file, making the file if there is none.

    Networks that were evaluated alike (same set, protocol, width, runs, seed and test images) join or replace those of
    the earlier row; rows of another state of the same artifact (by name and path) are dropped.

    Processes that add to one file wait for each other, so that no row is lost.

    Raises: DistilError if the file is there and is not a score file, or cannot be written.
    """
    with one_at_a_time(path):
        _add_scores(path, row)


def _add_scores(path: Path, row: Row) -> None:
    rows = [old for old in (read_scores(path) if path.exists() else []) if not _earlier_state(old, row)]
    for index, old in enumerate(rows):
        if all(old.get(key) == row.get(key) for key in SAME_EVALUATION):
            ranked = {**old.get("ranking", {}), **row.get("ranking", {})}
            rows[index] = {**row, "networks": {**old["networks"], **row["networks"]}}
            rows[index] |= {"ranking": ranked} if ranked else {}
            break
    else:
        rows.append(row)
    text = json.dumps({"format_version": FORMAT_VERSION, "scores": rows}, indent=2, sort_keys=True) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text) and None)


def _earlier_state(old: Row, row: Row) -> bool:
    """Whether a row is of the same artifact before it was made anew, or of real images beside that; earlier rows have
    no path."""
    if row["file_sha256"] is not None and old.get("beside") not in (None, row["file_sha256"]):
        return old.get("path") == row.get("path")
    changed = old["file_sha256"] is not None and row["file_sha256"] not in (None, old["file_sha256"])
    return changed and old["name"] == row["name"] and old.get("path") in (None, row.get("path"))


def scores_of(path: Path) -> list[Row]:
    """The rows of an artifact and of real images that were evaluated beside it, or those in a score file.

    path: a .safetensors artifact with its scores beside it, or a .json that distil evaluate wrote.
    Raises: DistilError if the artifact was not evaluated, or not since it was made.
    """
    if path.suffix == ".json":
        return read_scores(path)
    if path.is_dir():
        inside = sets_in(path)
        raise DistilError(f"{path}: this is a folder: give a file" + (f", such as {inside[0]}." if inside else "."))
    if not path.is_file():
        raise DistilError(f"{path}: no such file. Check the path.")
    remedy = f"Run: distil evaluate {shlex.quote(str(path))} SOURCE"
    beside = scores_beside(path)
    if not beside.is_file():
        raise DistilError(f"{path} has no scores yet. {remedy}")
    digest = file_hash(path)
    rows = read_scores(beside)
    own = [{**row, "name": set_name(path)} for row in rows if row["file_sha256"] == digest]
    if not own:
        raise DistilError(f"{path} has changed since it was evaluated. {remedy}")
    return own + [row for row in rows if row.get("beside") == digest]


def by_table(rows: list[Row]) -> list[list[Row]]:
    """Rows in groups that can share a table: the same protocol, with the same numbers, on the same test images, with
    labels of the same regime, and where a teacher labels while networks train, of the same one."""
    groups: list[list[Row]] = []
    for row in rows:
        for group in groups:
            if all(_in_table(group[0], key) == _in_table(row, key) for key in (*SAME_TABLE, *LABELED)):
                group.append(row)
                break
        else:
            groups.append([row])
    return groups


def _in_table(row: Row, key: str) -> Any:
    """What has to be equal in a table; a teacher is its weights, whatever they are called."""
    if key not in ("teacher", "temperature"):
        return row.get(key)
    if row.get("labels") != "teacher":
        return None
    return row["teacher"]["sha256"] if key == "teacher" else row["temperature"]
