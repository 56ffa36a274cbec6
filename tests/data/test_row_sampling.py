"""Sampling by rows draws from the right distribution, and a row depends on its seed alone."""

import pytest
import torch

from mmcot_data.row_sampling import Sampling
from mmcot_data.row_seeds import row_seed

CPU = torch.device("cpu")
LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])


def draws(sampling, num, logits=LOGITS):
    seeds = [row_seed(0, n, question_id="q") for n in range(num)]
    scores = sampling.processors(seeds, 1, CPU)(
        torch.zeros(num, 1, dtype=torch.long), logits.expand(num, -1).clone()
    )
    return scores.argmax(dim=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_of_the_logits_over_the_temperature(temperature):
    """A wrong sign or scale of the noise, or noise before the temperature, changes the shares."""
    num = 20_000
    shares = torch.bincount(draws(Sampling(temperature=temperature), num), minlength=5) / num
    expected = torch.softmax(LOGITS / temperature, dim=0)
    assert torch.allclose(shares, expected, atol=4 * 0.5 / num**0.5)


def test_top_p_leaves_out_the_improbable():
    """0.64 + 0.24 = 0.88 exceed 0.8, so the third and later tokens never come."""
    assert set(draws(Sampling(temperature=1.0, top_p=0.8), 3000).tolist()) == {0, 1}


def test_a_row_does_not_depend_on_its_batch():
    """One stream for the batch would give other texts after a restart."""
    draw = Sampling(temperature=1.0).processors
    given = torch.zeros(3, 1, dtype=torch.long)
    alone = [draw([seed], 1, CPU)(given[:1], LOGITS[None].clone()) for seed in (3, 1, 2)]
    together = draw([3, 1, 2], 1, CPU)(given, LOGITS.expand(3, -1).clone())
    assert torch.equal(torch.cat(alone), together)


def test_temperature_0_adds_nothing():
    """Greedy generation must stay greedy."""
    assert len(Sampling().processors([1, 2], 1, CPU)) == 0


def test_values_out_of_range_are_refused():
    """A negative temperature would prefer the least probable token."""
    with pytest.raises(ValueError, match="temperature is -1"):
        Sampling(temperature=-1)
    with pytest.raises(ValueError, match="top_p is 0"):
        Sampling(temperature=1, top_p=0)


def test_seeds_differ_by_name_and_fit_a_generator():
    """Seeds that collide would repeat a sample; torch takes 64 bits with sign."""
    seeds = {row_seed(seed, sample, question_id="7") for seed in range(30) for sample in range(30)}
    assert len(seeds) == 900
    assert all(0 <= seed < 2**63 for seed in seeds)
