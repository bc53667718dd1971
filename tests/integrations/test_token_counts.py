"""How many tokens of each row were scored, and whose each prediction is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")

from difficulty_prune.integrations.language_models import predicted_owner
from difficulty_prune.integrations.token_counts import TokenCounts

SIZE = 6
token = st.tuples(st.integers(-1, 2), st.floats(0, 9, width=32))
step = st.tuples(st.permutations(range(SIZE)), st.lists(token, max_size=9))


@settings(max_examples=60)
@given(steps=st.lists(step, max_size=4))
def test_counts_and_sums_are_those_of_a_loop(steps):
    counts, tokens, sums = TokenCounts(SIZE), [0] * SIZE, [0.0] * SIZE
    for rows, line in steps:
        owner = torch.tensor([[place for place, _ in line]], dtype=torch.int64)
        counts.add(torch.tensor(rows[:3]), owner, torch.tensor([[loss for _, loss in line]]))
        for place, loss in line:
            if place >= 0:
                tokens[rows[place]] += 1
                sums[rows[place]] += loss
    assert counts.tokens().tolist() == tokens
    assert counts.loss().tolist() == pytest.approx(sums)
    again = TokenCounts(SIZE)
    again.load_state_dict(counts.state_dict())
    assert torch.equal(again.loss(), counts.loss())


def test_counts_of_another_data_set_are_refused():
    with pytest.raises(ValueError, match=r"got counts \(6,\), expected \[7\]"):
        TokenCounts(7).load_state_dict(TokenCounts(6).state_dict())


def test_a_loss_of_nobody_may_be_anything():
    counts = TokenCounts(1)
    counts.add(torch.tensor([0]), torch.tensor([-1, 0]), torch.tensor([float("nan"), 2.0]))
    assert counts.loss().tolist() == [2]


def test_a_prediction_is_that_of_the_next_token():
    owner = torch.tensor([[0, 0, 1, -1]])
    scored = torch.tensor([[True, True, True]])
    assert predicted_owner(owner, scored).tolist() == [[0, 1, -1]]
    assert predicted_owner(owner, torch.tensor([[True, False, True]])).tolist() == [[0, -1, -1]]


def test_virtual_tokens_of_prompt_learning_are_nobodys_and_predict_the_first_token():
    """The model puts two before each line: predictions of the second of them, then of the four real tokens."""
    owner = torch.tensor([[0, 0, 1, -1]])
    scored = torch.tensor([[False, True, True, True, False]])
    assert predicted_owner(owner, scored).tolist() == [[-1, 0, 0, 1, -1]]


@pytest.mark.parametrize("shape", [(1, 2), (2, 3)])
def test_outputs_that_do_not_follow_the_tokens_are_refused(shape):
    with pytest.raises(ValueError, match=r"scored predictions for \(1, 4\) tokens, expected one fewer"):
        predicted_owner(torch.zeros(1, 4, dtype=torch.int64), torch.ones(shape, dtype=torch.bool))
