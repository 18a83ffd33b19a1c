"""train_detector: learns, stops, resumes to the same bits, refuses what it cannot do, and knows its processes."""

import json
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distil.data.detection.detection_set import match_classes
from distil.detector.gkd.prototypes import PrototypeSet
from distil.detector.settings import DetectorSettings, losses_named
from distil.detector.training.prediction import predict
from distil.detector.training.setup import class_match, in_data_labels
from distil.detector.training.step import Columns, learning_rate, shares
from distil.detector.training.train import hold_out, train_detector
from distil.detector.training.trainer import BEST, LAST
from distil.errors import DistilError
from distil.fields import leaves, with_values
from distil.files import load_tensors, save_tensors
from distil.processes import make_fabric
from distil.runs import CHECKPOINT, PREVIOUS, Interrupted
from distil.types import Trace
from tests.forked import in_two_processes

from .tiny import CLASSES, CellsAdapter, Recorder, cells, scripted, squares, tiny_settings

ALL = "gkd,pkd,mgd"


def train(out, settings, *, student=0, teacher=None, data=None, **options):
    return train_detector(cells(student), data or squares(), settings, out=out, teacher=teacher, **options)


def weights(path):
    return load_tensors(path)[0]


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_detector_alone_learns(tmp_path):
    log = Recorder()
    path = train(tmp_path, tiny_settings(epochs=12, lr=0.05), events=log)
    assert path == tmp_path / LAST
    losses = [fields["losses"] for fields in log.of("step")]
    assert set(losses[0]) == {"class", "size"}
    assert sum(x["class"] for x in losses[-4:]) < sum(x["class"] for x in losses[:4])
    assert log.of("start") == [{"step": 0, "steps": 48, "epochs": 12, "images": 13}]
    assert log.of("step")[-1]["step"] == 48
    assert log.of("step")[0]["loss"] == pytest.approx(sum(losses[0].values()))
    cells(1).model.load_state_dict(weights(path), strict=True)


def test_with_a_teacher_all_its_losses_are_there_and_it_does_not_move(tmp_path):
    teacher, log = cells(5, width=8), Recorder()
    before = {name: x.clone() for name, x in teacher.model.state_dict().items()}
    teacher.model.train()
    train(tmp_path, tiny_settings(loss=ALL), teacher=teacher, events=log)
    names = [set(fields["losses"]) for fields in log.of("step")]
    always = {"class", "size", "gkd.foreground", "gkd.background", "gkd.soft", "pkd", "mgd"}
    assert names == [always] * 4 + [always | {"gkd.global"}] * 8
    assert same(before, teacher.model.state_dict())
    assert not any(part.training for part in teacher.model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.model.parameters())
    assert [(x["epoch"], x["file"]) for x in log.of("prototypes")] == [
        (1, "prototypes-0001.safetensors"),
        (2, "prototypes-0002.safetensors"),
    ]
    kept = PrototypeSet.load(tmp_path / "prototypes-0002.safetensors")
    assert (kept.epoch, kept.strides) == (2, (8, 16))
    stored = {name.split(".")[1] for name in weights(tmp_path / CHECKPOINT) if name.startswith("module.")}
    assert stored == {"model", "losses"}
    learned = weights(tmp_path / LAST)
    assert learned.keys() == cells().model.state_dict().keys()


def test_without_a_loss_a_teacher_changes_nothing(tmp_path):
    train(tmp_path / "alone", tiny_settings())
    train(tmp_path / "beside", tiny_settings(), teacher=cells(5))
    assert same(weights(tmp_path / "alone" / LAST), weights(tmp_path / "beside" / LAST))


def test_equal_seeds_give_equal_bytes_others_do_not_and_global_generators_stay(tmp_path):
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / folder, tiny_settings(loss=ALL, seed=seed), teacher=cells(5))
    assert torch.equal(torch.rand(4), want)
    a, b, c = ((tmp_path / folder / LAST).read_bytes() for folder in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "sgd", "prototype_every": 2}, {"optimizer": "adamw", "prototype_features": "training"}],
    ids=["fresh", "training"],
)
@pytest.mark.parametrize("stop", [2, 4, 6, 9])
def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, stop, changes):
    settings = tiny_settings(loss=ALL, clip=1.0, **changes)
    train(tmp_path / "whole", settings, teacher=cells(5), measure=scripted(1.0, 3.0, 2.0), validation=squares(5, 7))

    def interrupt(name, **fields):
        if name == "step" and fields["step"] == stop:
            os.kill(os.getpid(), signal.SIGINT)

    options = {"teacher": cells(5), "validation": squares(5, 7)}
    folder = tmp_path / "stopped"
    # the signal is seen after the next step, or in the validation where one comes first
    at, where = (stop, "while validating ") if stop % 4 == 0 else (stop + 1, "")
    epochs = (stop - 1) // 4
    with pytest.raises(
        Interrupted, match=rf"stopped {where}after step {at} of 12: continue with distil detector train --resume"
    ):
        train(folder, settings, events=interrupt, measure=scripted(1.0, 3.0, 2.0), **options)
    assert not (folder / LAST).exists()
    log = Recorder()
    train(folder, settings, resume=True, events=log, measure=scripted(*(1.0, 3.0, 2.0)[epochs:]), student=99, **options)
    assert log.of("start")[0]["step"] == at
    for name in (LAST, BEST, CHECKPOINT):
        assert same(weights(folder / name), weights(tmp_path / "whole" / name))
    assert (folder / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_a_finished_run_resumes_to_nothing_new(tmp_path):
    train(tmp_path, tiny_settings())
    before, log = (tmp_path / LAST).read_bytes(), Recorder()
    assert train(tmp_path, tiny_settings(), resume=True, events=log) == tmp_path / LAST
    assert (tmp_path / LAST).read_bytes() == before
    assert log.of("step") == []


def test_the_best_epoch_is_kept_and_of_equal_ones_the_later(tmp_path):
    seen = []
    student = cells()

    def look(name, **fields):
        if name == "validation":
            seen.append({key: x.clone() for key, x in student.model.state_dict().items()})

    settings = tiny_settings(epochs=4)
    path = train_detector(
        student,
        squares(),
        settings,
        out=tmp_path,
        events=look,
        measure=scripted(5.0, 9.0, 9.0, 8.0),
        validation=squares(4, 7),
    )
    assert path == tmp_path / BEST
    assert same(weights(path), seen[2])
    assert same(weights(tmp_path / LAST), seen[3])
    header = load_tensors(path)[1]
    assert header["validation"] == {"epoch": 3, "ap": 9.0, "ap50": 9.0}


def test_evaluations_come_every_k_epochs_and_at_the_end_and_nan_is_never_best(tmp_path):
    log = Recorder()
    settings = tiny_settings(epochs=5, evaluate_every=2)
    options = {"events": log, "validation": squares(4, 7)}
    assert train(tmp_path, settings, measure=scripted(*[math.nan] * 3), **options) == tmp_path / LAST
    assert [(x["epoch"], x["ap"], x["best"]) for x in log.of("validation")] == [
        (2, None, False),
        (4, None, False),
        (5, None, False),
    ]
    assert not (tmp_path / BEST).exists()


def test_the_held_out_share_is_never_learned_from():
    data = squares(20)
    kept, held_out = hold_out(data, None, tiny_settings(validation=0.25).training, scripted())
    assert (len(kept), len(held_out)) == (15, 5)  # pyright: ignore[reportArgumentType]
    names = [{part.identifier(i) for i in range(len(part))} for part in (kept, held_out)]  # pyright: ignore
    assert not names[0] & names[1]
    assert hold_out(data, None, tiny_settings(validation=0.25).training, None) == (data, None)
    other = squares(4, 7)
    assert hold_out(data, other, tiny_settings(validation=0.25).training, scripted()) == (data, other)


class Breaking:
    """A detector whose loss, or only the loss's gradient, stops being a number at a step."""

    def __init__(self, at, adapter, gradient=False):
        self.left, self.adapter, self.gradient = at, adapter, gradient

    def __getattr__(self, name):
        return getattr(self.adapter, name)

    def trace(self, view, *, regions=None):
        trace = self.adapter.trace(view, regions=regions)
        self.left -= 1
        if self.left == 0:
            size = trace.losses["size"]
            trace.losses["size"] = size + (0 * size).sqrt() if self.gradient else size * math.nan
        return trace


def test_a_loss_that_is_not_a_number_is_named_and_the_checkpoint_kept(tmp_path):
    message = r"the loss size stopped being a finite number at step 7 of 12: lower lr, lengthen warmup, or set c"
    student = Breaking(7, cells())
    with pytest.raises(DistilError, match=message) as caught:
        train_detector(student, squares(), tiny_settings(), out=tmp_path, checkpoint_seconds=0.0)
    assert str(caught.value).endswith(f"The last checkpoint, {tmp_path / CHECKPOINT}, is from before and is kept.")
    tensors, header = load_tensors(tmp_path / CHECKPOINT)
    assert header["step"] == 6
    assert all(x.isfinite().all() for x in tensors.values())
    assert not (tmp_path / LAST).exists()
    train(tmp_path, tiny_settings(), resume=True)
    train(tmp_path / "whole", tiny_settings())
    assert same(weights(tmp_path / LAST), weights(tmp_path / "whole" / LAST))


def test_weights_that_are_not_numbers_are_never_saved(tmp_path):
    message = r"the weights model\.\S+ are not finite numbers: lower lr, or set clip\. The last checkpoint is from"
    student = Breaking(4, cells(), gradient=True)
    with pytest.raises(DistilError, match=message):
        train_detector(student, squares(), tiny_settings(epochs=1, clip=0.0), out=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lr": 0.02},
            r"checkpoint.safetensors was made with lr 0.01, and this run has 0.02: resume with what the run",
        ),
        ({"loss": "none"}, r"was made with loss pkd, and this run has none: resume with what"),
        ({"epochs": 5}, r"was made with epochs 3, and this run has 5"),
    ],
)
def test_a_run_resumes_with_its_own_settings_only(tmp_path, changes, message):
    train(tmp_path, tiny_settings(loss="pkd"), teacher=cells(5))
    changed = tiny_settings(**{"loss": "pkd", **changes})
    with pytest.raises(DistilError, match=message):
        train(tmp_path, changed, teacher=cells(5), resume=True)
    with pytest.raises(DistilError, match=r"already holds a training run\. Continue it \(resume\), or choose"):
        train(tmp_path, tiny_settings(loss="pkd"), teacher=cells(5))


@pytest.mark.parametrize(
    ("setting", "default", "other"), [("prototype_features", "fresh", "training"), ("loss_form", "distil", "published")]
)
def test_a_run_from_before_a_setting_existed_resumes_with_its_default(tmp_path, setting, default, other):
    settings = tiny_settings(loss="gkd")
    train(tmp_path / "new", settings, teacher=cells(5))
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    tensors, header = load_tensors(tmp_path / "old" / CHECKPOINT)
    leaf = next(leaf for leaf in leaves(DetectorSettings()) if leaf.name == setting)
    holder = header["settings"]
    for part in leaf.path[:-1]:
        holder = holder[part]
    assert holder.pop(leaf.path[-1]) == default
    save_tensors(tmp_path / "old" / CHECKPOINT, tensors, header)
    train(tmp_path / "old", settings, teacher=cells(5), resume=True)
    changed = with_values(settings, **{setting: other})
    with pytest.raises(DistilError, match=f"made with {setting} {default}, and this run has {other}"):
        train(tmp_path / "old", changed, teacher=cells(5), resume=True)


def test_a_run_resumes_with_other_workers(tmp_path):
    train(tmp_path, tiny_settings())
    train(tmp_path, tiny_settings(workers=2, teacher_floor=1.0), resume=True)


def test_a_run_resumes_with_its_own_boxes_and_teacher_only(tmp_path):
    settings = tiny_settings(loss="pkd")
    train(tmp_path, settings, teacher=cells(5))
    with pytest.raises(DistilError, match=r"was made with teacher \w{64}, and this run has"):
        train(tmp_path, settings, teacher=cells(6), resume=True)
    with pytest.raises(DistilError, match=r"was made with annotations \w{64}, and this run has"):
        train(tmp_path, settings, teacher=cells(5), data=squares(seed=1), resume=True)


def test_a_run_resumes_on_its_own_data_and_detector_only(tmp_path):
    train(tmp_path, tiny_settings())
    with pytest.raises(DistilError, match=r"was made with images 13, and this run has 12: resume with what"):
        train(tmp_path, tiny_settings(), data=squares(12), resume=True)
    with pytest.raises(DistilError, match=r"the checkpoint is of another detector or of other losses \(size mismatch"):
        train_detector(cells(0, width=9), squares(), tiny_settings(), out=tmp_path, resume=True)
    copy_of_last(tmp_path)
    with pytest.raises(DistilError, match=r"is no checkpoint of a detector's training: give the folder of such a run"):
        train(tmp_path, tiny_settings(), resume=True)


def copy_of_last(folder):
    for name in (CHECKPOINT, PREVIOUS):
        shutil.copy(folder / LAST, folder / name)


def test_given_weights_are_where_it_starts(tmp_path):
    first = cells(3).model.state_dict()
    train(tmp_path / "given", tiny_settings(), student=0, weights=first)
    train(tmp_path / "own", tiny_settings(), student=3)
    assert same(weights(tmp_path / "given" / LAST), weights(tmp_path / "own" / LAST))
    with pytest.raises(DistilError, match=r"the first weights are another detector's \(.*\): give weights of the stud"):
        train(tmp_path / "other", tiny_settings(), weights=cells(3, width=9).model.state_dict())


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"teacher": cells(5), "losses": ["pdk"]}, r"unknown loss 'pdk'\. Did you mean pkd\?"),
        ({"loss": "gkd"}, {}, r"the loss gkd needs a teacher: give one, or leave the loss out\."),
        ({"precision": "16-mixed"}, {}, r"precision=16-mixed needs a GPU: use bf16-mixed or 32\."),
        (
            {"loss": "gkd"},
            {"teacher": cells(5, classes=3)},
            r"the teacher tells 3 classes apart and squares has 2: give the names of the teacher's classes\.",
        ),
        (
            {"loss": "gkd"},
            {"teacher": cells(5), "teacher_classes": ("cat",)},
            r"1 names are given for the teacher's 2 classes: give one for each\.",
        ),
        (
            {"loss": "gkd"},
            {"teacher": cells(5), "teacher_classes": ("cat", "dog")},
            r"the teacher knows none of the data's classes",
        ),
        ({}, {"data": squares(1)}, r"squares has 1 images and no object in them: give images with annotated boxes\."),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, settings, options, message):
    with pytest.raises(DistilError, match=message):
        train(tmp_path, tiny_settings(**settings), **options)


def test_a_student_of_other_classes_is_refused(tmp_path):
    message = r"the student tells 3 classes apart and squares has 2: build it for bright, dark\."
    with pytest.raises(DistilError, match=message):
        train_detector(cells(0, classes=3), squares(), tiny_settings(), out=tmp_path)


def test_bfloat16_trains_with_losses_in_float32(tmp_path, capfd):
    log = Recorder()
    train(tmp_path, tiny_settings(precision="bf16-mixed", loss=ALL), teacher=cells(5), events=log)
    train(tmp_path / "32", tiny_settings(loss=ALL), teacher=cells(5), events=(exact := Recorder()))
    for one, other in zip(log.of("step"), exact.of("step"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)
    assert capfd.readouterr() == ("", "")
    assert log.of("step")[-1]["loss"] != exact.of("step")[-1]["loss"]
    assert all(x.dtype == torch.float32 for x in weights(tmp_path / LAST).values())


def test_the_learning_rate_by_hand():
    settings = tiny_settings(epochs=24, lr=0.02, warmup=4, milestones=(2 / 3, 11 / 12))
    got = [learning_rate(settings.training, step, 240, step // 10) for step in (0, 1, 2, 4, 159, 160, 219, 220)]
    want = [0.02 * 0.001, 0.02 * (0.001 + 0.999 / 4), 0.02 * (0.001 + 0.999 / 2), 0.02, 0.02, 0.002, 0.002, 0.0002]
    assert got == pytest.approx(want, rel=1e-12)
    assert learning_rate(tiny_settings(lr=0.02, warmup=500).training, 1, 30, 0) == pytest.approx(
        0.02 * (0.001 + 0.999 / 3)
    )


def made_trace(activation, columns, dense=None):
    logits = torch.arange(2.0 * columns).view(2, columns)
    boxes = (torch.zeros(2, 4),)
    labels = torch.tensor([1, 2])
    return Trace((torch.zeros(1, 1, 2, 2),), (8,), boxes, labels, logits, activation, dense=dense)


def test_logits_are_cut_to_the_classes_that_both_know():
    # data: cat, dog, bird; teacher: bird, fish, cat, ant
    columns = Columns(match_classes(("bird", "fish", "cat", "ant"), ("cat", "dog", "bird")).labels, 4)
    student, teacher = columns(made_trace("softmax", 4), made_trace("softmax", 5))
    assert student.logits[0].tolist() == [0, 1, 3]
    assert teacher.logits[0].tolist() == [0, 3, 1]
    dense = torch.arange(8.0).view(1, 2, 4)
    student, teacher = columns(made_trace("sigmoid", 3), made_trace("sigmoid", 4, dense))
    assert student.logits[0].tolist() == [0, 2]
    assert teacher.logits[1].tolist() == [6, 4]
    assert teacher.dense.tolist() == [[[2, 0], [6, 4]]]
    assert list(columns.state_dict()) == []
    same_classes = Columns((1, 2), 2)
    pair = made_trace("softmax", 3), made_trace("softmax", 3)
    assert same_classes(*pair) == pair
    fewer = Columns((1, 2, None), 2)
    assert fewer(made_trace("softmax", 4), made_trace("softmax", 3))[0].logits.shape == (2, 3)
    more = Columns((1, 2), 3)
    assert more(made_trace("softmax", 3), made_trace("softmax", 4))[1].logits.shape == (2, 3)


def test_a_teacher_with_other_classes_teaches(tmp_path):
    log = Recorder()
    options = {"teacher": cells(5, classes=3), "teacher_classes": ("striped", "Dark", "bright")}
    train(tmp_path, tiny_settings(loss="gkd"), events=log, **options)
    assert all(math.isfinite(x["losses"]["gkd.soft"]) for x in log.of("step"))


def test_predictions_of_a_teacher_in_the_datas_labels():
    match = class_match(cells(5, classes=3), ("striped", "dark", "bright"), squares())
    found = [{"boxes": torch.arange(12.0).view(3, 4), "scores": torch.rand(3), "labels": torch.tensor([3, 1, 2])}]
    (got,) = in_data_labels(found, match)
    assert got["labels"].tolist() == [1, 2]
    assert got["boxes"].tolist() == found[0]["boxes"][[0, 2]].tolist()
    nothing = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}]
    assert len(in_data_labels(nothing, match)[0]["labels"]) == 0


def test_names_and_factors_of_losses():
    assert losses_named("gkd, pkd=0.5") == {"gkd": 1.0, "pkd": 0.5}
    with pytest.raises(DistilError, match=r"'much' is no factor; write pkd=0\.5, say\."):
        losses_named("gkd,pkd=much")


def test_predictions_leave_the_modes_alone():
    student, data = cells(), squares(5)
    student.model.train()
    student.model.head.eval()
    whole = predict(student, data, batch=2)
    assert student.model.training
    assert not student.model.head.training
    assert [len(one["boxes"]) for one in whole] == [2] * 5
    some = predict(student, data, part=slice(1, None, 2))
    assert torch.equal(some[1]["scores"], whole[3]["scores"])


def test_what_is_found_as_background_is_not_an_object():
    class Background(CellsAdapter):
        def predict(self, images):
            return [{**one, "labels": one["labels"] * torch.tensor([0, 1])} for one in super().predict(images)]

    (one,) = predict(Background(cells().model), squares(1))
    assert [len(x) for x in one.values()] == [1] * len(one)
    assert one["labels"].min() > 0


def test_seconds_of_a_resumed_run_count_from_its_beginning(tmp_path):
    train(tmp_path, tiny_settings(epochs=1))
    path = tmp_path / CHECKPOINT
    tensors, header = load_tensors(path)
    training = {**header["settings"]["training"], "epochs": 2}
    settings = {**header["settings"], "training": training}
    save_tensors(path, tensors, {**header, "settings": settings, "seconds": 1000.0})
    train(tmp_path, tiny_settings(epochs=2), resume=True)
    assert 1000 < load_tensors(path)[1]["seconds"] < 1100


def test_processes_are_weighed_by_what_their_losses_are_means_over():
    # sums of 3 and 5 things in two processes: the mean of both together from the two means
    other = {"class": torch.tensor(5.0)}
    fabric = SimpleNamespace(
        world_size=2, device=torch.device("cpu"), all_reduce=lambda x, reduce_op: x + torch.stack(list(other.values()))
    )
    own, theirs = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([4.0, 1.0, 1.0, 0.0, 3.0])
    factor = shares({"class": torch.tensor(3.0)}, fabric)["class"]
    assert float(factor) == pytest.approx(2 * 3 / 8)
    both = (own.mean() * factor + theirs.mean() * 2 * 5 / 8) / 2
    assert float(both) == pytest.approx(float(torch.cat([own, theirs]).mean()))
    assert shares({"class": torch.tensor(3.0)}, SimpleNamespace(world_size=1)) == {}


def train_for_processes(folder):
    """Two runs, with what the first process tells of them in a file each."""
    for kind, features in (("sgd", "fresh"), ("adamw", "training")):
        changes = {"optimizer": kind, "prototype_features": features}
        settings = tiny_settings(loss="gkd,pkd,mgd,fgd", batch=6, epochs=2, clip=5.0, **changes)
        options = {"measure": scripted(1.0, 2.0), "validation": squares(5, 7), "events": (log := Recorder())}
        train(Path(folder) / kind, settings, data=squares(14), teacher=cells(5), **options)
        if log.events:
            (Path(folder) / f"{kind}.json").write_text(json.dumps(log.of("step")))


def test_two_processes_learn_what_one_does(tmp_path):
    told = tmp_path / "told.txt"
    assert in_two_processes(train_for_processes, tmp_path / "two", told=told) == [0, 0], told.read_text()
    train_for_processes(tmp_path / "one")
    for kind in ("sgd", "adamw"):
        logs = [json.loads((tmp_path / folder / f"{kind}.json").read_text()) for folder in ("one", "two")]
        losses = [[fields["losses"] for fields in log] for log in logs]
        assert len(losses[0]) == 6
        assert "gkd.global" in losses[0][-1]
        for one, two in zip(*losses, strict=True):
            assert two == pytest.approx(one, rel=2e-4, abs=1e-6)
        first = cells(0).model.state_dict()
        for name in (LAST, BEST):
            one, two = (weights(tmp_path / folder / kind / name) for folder in ("one", "two"))
            apart = max(float((two[key] - x).abs().max()) for key, x in one.items())
            way = max(float((x - first[key]).abs().max()) for key, x in one.items())
            assert way > 0.005
            assert apart < 1e-3 * way


def test_more_processes_than_a_batch_has_images_are_refused(tmp_path, monkeypatch):
    real = make_fabric("cpu", "32")
    monkeypatch.setattr(type(real), "world_size", property(lambda self: 5))
    with pytest.raises(DistilError, match=r"5 processes share batch=4, and each needs an image: start fewer"):
        train(tmp_path, tiny_settings())


def test_the_classes_of_validation_images_must_be_the_same(tmp_path):

    other = replace(squares(4, name="others"), classes=CLASSES[::-1])
    with pytest.raises(DistilError, match=r"the classes of others are not those of squares: use data of one kind\."):
        train(tmp_path, tiny_settings(), measure=scripted(), validation=other)
