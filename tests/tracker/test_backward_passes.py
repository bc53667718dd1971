"""A presentation is the step's own backward pass, once: whatever else goes through the graph, or runs it again."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

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
