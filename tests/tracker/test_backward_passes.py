"""A presentation is the step's own backward pass, once: whatever else goes through the graph, or runs it again."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

import difficulty_prune as dp

N, C = 6, 3
X = torch.randn(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y, INDEX = torch.arange(N) % C, torch.arange(N)


def new_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, C))


def descend(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.5 * p.grad
            p.grad = None


Step = Callable[[dp.DifficultyTracker, nn.Module, Tensor, Tensor], None]


def train(step: Step, steps: int = 4) -> dp.DifficultyTracker:
    """`step` is given the tracker, the model, the inputs from before `watch`, and the logits of what was watched."""
    model, tracker = new_model(), dp.DifficultyTracker(N, ("vog_loss",))
    for _ in range(steps):
        leaf = X.clone().requires_grad_()
        step(tracker, model, leaf, model(tracker.watch(leaf, INDEX)))
        descend(model)
    return tracker


def plain(tracker: dp.DifficultyTracker, model: nn.Module, leaf: Tensor, logits: Tensor) -> None:
    F.cross_entropy(logits, Y).backward()


def saliency(leaf: Tensor, logits: Tensor) -> None:
    torch.autograd.grad(logits.max(1).values.sum(), leaf, retain_graph=True)


def penalty(leaf: Tensor, logits: Tensor) -> None:
    torch.autograd.grad(logits.logsumexp(1).sum(), leaf, create_graph=True)


def of_another_tracker(leaf: Tensor, logits: Tensor) -> None:
    dp.DifficultyTracker(N, ("vog",)).update(INDEX, logits, Y, inputs=leaf)


OTHERS = {"saliency": saliency, "gradient penalty": penalty, "another tracker": of_another_tracker}


@pytest.mark.parametrize("name", OTHERS)
def test_another_pass_is_reported_with_the_remedy_and_paused_does_no_harm(name: str) -> None:
    def unpaused(tracker: dp.DifficultyTracker, model: nn.Module, leaf: Tensor, logits: Tensor) -> None:
        OTHERS[name](leaf, logits)
        plain(tracker, model, leaf, logits)

    def paused(tracker: dp.DifficultyTracker, model: nn.Module, leaf: Tensor, logits: Tensor) -> None:
        with tracker.paused():
            OTHERS[name](leaf, logits)
        plain(tracker, model, leaf, logits)

    tracker = train(unpaused)
    assert tracker.presentations == 4 * N  # one for each watch
    with pytest.raises(ValueError, match=r"4 further backward passes .*with tracker.paused"):
        tracker.compute()
    with pytest.raises(ValueError, match="further backward passes"):
        tracker.finish(architecture="mlp", seed=0)
    resumed = dp.DifficultyTracker(N, ("vog_loss",))
    resumed.load_state_dict(tracker.state_dict())
    with pytest.raises(ValueError, match="4 further backward passes"):
        resumed.compute()
    assert tracker.compute(allow_skipped=True)["vog_loss"].isfinite().all()
    torch.testing.assert_close(train(paused).compute(), train(plain).compute())


def test_a_loss_in_two_parts_is_reported() -> None:
    def parts(tracker: dp.DifficultyTracker, model: nn.Module, leaf: Tensor, logits: Tensor) -> None:
        loss = F.cross_entropy(logits, Y)
        (0.25 * loss).backward(retain_graph=True)
        (0.75 * loss).backward()

    with pytest.raises(ValueError, match="add up a loss of several parts"):
        train(parts).compute()


def test_its_own_extra_pass_is_none_of_these() -> None:
    """`update(inputs=)` with the inputs from before `watch`, whose graph goes through what is watched."""
    tracker, model = dp.DifficultyTracker(N, ("vog", "vog_loss")), new_model()
    for _ in range(2):
        leaf = X.clone().requires_grad_()
        logits = model(tracker.watch(leaf, INDEX))
        tracker.update(INDEX, logits, Y, inputs=leaf)
        F.cross_entropy(logits, Y).backward()
    counts = {name: moments["count"].tolist() for name, moments in tracker.state_dict()["moments"].items()}
    assert counts == {"vog": [2] * N, "vog_loss": [2] * N}
    assert tracker.compute()["vog_loss"].isfinite().all()


HOOKS = {
    "copies": lambda: saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t),
    "half precision": lambda: saved_tensors_hooks(
        lambda t: (t.bfloat16() if t.is_floating_point() else t, t.dtype), lambda pair: pair[0].to(pair[1])
    ),
    "offloading": save_on_cpu,
}


@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.parametrize("always", [True, False])
def test_hooks_on_saved_tensors_do_not_touch_the_state(name: str, always: bool) -> None:
    def run(hooked: bool) -> Tensor:
        model, tracker = new_model(), dp.DifficultyTracker(N, ("vog_loss",))
        for step in range(4):
            with HOOKS[name]() if hooked and (always or step % 2) else contextlib.nullcontext():
                F.cross_entropy(model(tracker.watch(X, INDEX)), Y).backward()
            descend(model)
        return tracker.compute()["vog_loss"]

    torch.testing.assert_close(run(True), run(False), rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("every", [1, 2])
def test_what_checkpointing_runs_again_counts_once(reentrant: bool, every: bool) -> None:
    tracker = dp.DifficultyTracker(N, ("loss", "vog_loss"), gradient=dp.GradientOptions(every=every))
    model, after = new_model(), nn.Linear(C, C)

    def region(x: Tensor) -> Tensor:
        logits = model(tracker.watch(x, INDEX))
        tracker.update(INDEX, logits, Y)
        return after(logits.relu())

    for _ in range(4):
        x = X.clone().requires_grad_()  # which reentrant checkpointing needs
        F.cross_entropy(checkpoint(region, x, use_reentrant=reentrant), Y).backward()
    state = tracker.state_dict()
    assert state["table"][:, 0].tolist() == [4.0] * N
    assert state["moments"]["vog_loss"]["count"].tolist() == [4 // every] * N
    assert tracker.compute()["vog_loss"].isfinite().all()


def test_evaluation_between_steps_is_not_taken_for_a_part_that_was_put_off() -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), new_model()
    for _ in range(3):
        with torch.no_grad():
            model(tracker.watch(X, INDEX))
        x = X.clone().requires_grad_()
        out = checkpoint(lambda z: model(tracker.watch(z, INDEX)), x, use_reentrant=False)
        F.cross_entropy(out, Y).backward()
    assert tracker.presentations == 3 * N


def test_the_extra_pass_does_not_run_the_hooks_of_others() -> None:
    """Per-sample gradient libraries pop in a backward hook what a forward hook pushed."""
    model, activations = new_model(), []
    model[1].register_forward_hook(lambda module, inputs, output: activations.append(inputs[0].detach()))
    model[1].register_full_backward_hook(lambda module, into, out: (activations.pop(), None)[1])
    tracker = dp.DifficultyTracker(N, ("vog", "loss"))
    leaf = X.clone().requires_grad_()
    logits = model(leaf)
    with pytest.warns(UserWarning, match=r"vog: not recorded.*score_checkpoint"):
        tracker.update(INDEX, logits, Y, inputs=leaf)
    F.cross_entropy(logits, Y).backward()
    assert not activations
    assert tracker.presentations == N
    with pytest.raises(RuntimeError, match="vog: no gradient arrived"):
        tracker.compute()


def test_threads_take_turns() -> None:
    """The operator lets go of the interpreter's lock while it works."""
    size, rows = 500, 20_000
    index, logits, labels = torch.arange(rows) % size, torch.randn(rows, 40), torch.zeros(rows, dtype=torch.int64)
    tracker = dp.DifficultyTracker(size, ("el2n",))
    tracker.update(index, logits, labels)
    threads = [
        threading.Thread(target=lambda: [tracker.update(index, logits, labels) for _ in range(20)]) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.presentations == 41 * rows


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_in_parts_through_a_reentrant_checkpoint_is_reported(parts: int) -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), new_model()
    for _ in range(2):
        leaf = X.clone().requires_grad_()
        logits = checkpoint(lambda x: model(tracker.watch(x, INDEX)), leaf, use_reentrant=True)
        for part in range(parts):
            (F.cross_entropy(logits, Y) / parts).backward(retain_graph=part < parts - 1)
    assert tracker.presentations == 2 * N
    if parts == 1:
        assert tracker.compute()["vog_loss"].max() < 1e-7
    else:
        with pytest.raises(ValueError, match="2 further backward passes"):
            tracker.compute()


def test_several_reentrant_checkpoints_of_one_step_all_count() -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), new_model()
    for _ in range(3):
        total = torch.zeros(())
        for half in (INDEX[:3], INDEX[3:].clone()):
            leaf = X[half].requires_grad_()
            logits = checkpoint(lambda x, i: model(tracker.watch(x, i)), leaf, half, use_reentrant=True)
            total = total + F.cross_entropy(logits, Y[half])
        total.backward()
    assert tracker.presentations == 3 * N
    assert tracker.compute()["vog_loss"].max() < 1e-7


@pytest.mark.parametrize("every", [1, 2])
def test_a_pass_without_gradients_between_does_not_change_what_is_run_again(every: int) -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",), gradient=dp.GradientOptions(every=every)), new_model()
    for _ in range(4):
        leaf = X.clone().requires_grad_()
        logits = checkpoint(lambda x: model(tracker.watch(x, INDEX)), leaf, use_reentrant=False)
        with torch.no_grad():  # a teacher, say
            model(tracker.watch(leaf, INDEX))
        F.cross_entropy(logits, Y).backward()
    assert tracker.presentations == 4 // every * N


def test_the_index_may_be_filled_with_the_next_batch_before_the_backward_pass() -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), new_model()
    buffer = torch.empty(3, dtype=torch.int64)
    for _ in range(2):
        total = torch.zeros(())
        for half in (INDEX[:3], INDEX[3:]):
            buffer.copy_(half)
            total = total + F.cross_entropy(model(tracker.watch(X[half], buffer)), Y[half])
        total.backward()
    assert tracker.compute()["vog_loss"].max() < 1e-7


@pytest.mark.parametrize("scaler", [None, torch.amp.GradScaler("cpu", enabled=False)], ids=["none", "disabled"])
def test_overflows_are_silent_only_where_a_scaler_leaves_the_step_out(scaler) -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), new_model()
    watched = tracker.watch(X, INDEX, scaler=scaler)
    (F.cross_entropy(model(watched), Y) + (watched[0] * torch.inf).sum()).backward()
    with pytest.raises(ValueError, match="1 x not finite"):
        tracker.compute()


@pytest.mark.parametrize("scaler", [True, 65536.0, "yes"])
def test_what_is_no_scaler_is_refused(scaler) -> None:
    with pytest.raises(TypeError, match=r"scaler: got .*, expected the torch.amp.GradScaler"):
        dp.DifficultyTracker(N, ("vog_loss",)).watch(X, INDEX, scaler=scaler)


def test_hooks_that_come_later_are_found() -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog",)), new_model()
    for step in range(2):
        x = X.clone().requires_grad_()
        logits = model(x)
        with pytest.warns(UserWarning, match="vog: not recorded") if step else contextlib.nullcontext():
            tracker.update(INDEX, logits, Y, inputs=x)
        F.cross_entropy(logits, Y).backward()
        model[1].register_full_backward_hook(lambda *_: None)
    assert tracker.state_dict()["moments"]["vog"]["count"].tolist() == [1] * N


def test_pauses_of_two_threads_end_whatever_their_order() -> None:
    tracker = dp.DifficultyTracker(N, ("vog_loss",))
    first, second = tracker.paused(), tracker.paused()
    first.__enter__()
    second.__enter__()
    copied = copy.deepcopy(tracker)
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    for live in (tracker, copied, pickle.loads(pickle.dumps(copied))):  # noqa: S301 (made here)
        F.cross_entropy(new_model()(live.watch(X, INDEX)), Y).backward()
        assert live.presentations == N


def test_backward_passes_of_threads_take_turns() -> None:
    tracker = dp.DifficultyTracker(N, ("vog_loss",))

    def steps() -> None:
        for _ in range(20):
            tracker.watch(torch.ones(N, 20_000), INDEX, reduction="sum").sum().backward()

    in_threads(steps)
    assert tracker.presentations == 4 * 20 * N
    assert tracker.compute()["vog_loss"].max() == 0


def test_trackers_are_merged_and_finished_while_others_update() -> None:
    whole = dp.DifficultyTracker(N, ("loss",))
    logits = torch.zeros(N, C)
    finished = []

    def steps() -> None:
        part = dp.DifficultyTracker(N, ("loss",))
        for _ in range(50):
            part.update(INDEX, logits, Y)
            whole.update(INDEX, logits, Y)
        whole.merge(part)
        finished.append(whole.finish(architecture="a", seed=0).metadata["presentations"])

    in_threads(steps)
    assert whole.presentations == 4 * 100 * N
    assert all(presentations % N == 0 for presentations in finished)


def in_threads(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12 and later
def test_a_process_forked_while_a_thread_updates_may_update() -> None:
    code = """
import os, threading, torch, difficulty_prune as dp
torch.set_num_threads(1)
tracker = dp.DifficultyTracker(4, ("loss",))
index, labels, stop = torch.arange(200_000) % 4, torch.zeros(200_000, dtype=torch.int64), threading.Event()
def update():
    while not stop.is_set():
        tracker.update(index, torch.zeros(200_000, 2), labels)
thread = threading.Thread(target=update)
thread.start()
statuses = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        tracker.reset()
        tracker.update(torch.arange(4), torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
        os._exit(tracker.presentations)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
thread.join()
print(statuses)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert result.stdout.strip() == str([4] * 8), result.stderr


@pytest.mark.parametrize("reentrant", [None, True, False])
def test_paused_passes_may_come_after_the_steps_own(reentrant: bool | None) -> None:
    tracker, model = dp.DifficultyTracker(N, ("vog_loss",)), new_model()
    for _ in range(2):
        leaf = X.clone().requires_grad_()

        def forward(x: Tensor) -> Tensor:
            return model(tracker.watch(x, INDEX))

        logits = forward(leaf) if reentrant is None else checkpoint(forward, leaf, use_reentrant=reentrant)
        loss = F.cross_entropy(logits, Y)
        loss.backward(retain_graph=True)
        with tracker.paused():
            loss.backward()
    assert tracker.compute()["vog_loss"].max() < 1e-7


def test_another_pass_does_not_keep_back_the_scores_of_logits() -> None:
    tracker, model = dp.DifficultyTracker(N, ("el2n", "vog_loss")), new_model()
    logits = model(tracker.watch(X, INDEX))
    tracker.update(INDEX, logits, Y)
    loss = F.cross_entropy(logits, Y)
    loss.backward(retain_graph=True)
    loss.backward()
    assert not tracker.compute(scores=("el2n",))["el2n"].isnan().any()
    with pytest.raises(ValueError, match="1 further backward passes"):
        tracker.compute()
