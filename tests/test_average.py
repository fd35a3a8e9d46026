"""The averaged generator against TensorFlow's law in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from gansound.engine.average import MovingAverage


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_average_reaches_back_over_a_tenth_of_the_steps_at_first(decay: float) -> None:
    """min(decay, (1 + n) / (10 + n)) of what was in it stays, n updates having been; the first copies."""
    model = nn.BatchNorm1d(3).double()
    average = MovingAverage(model, decay)
    expected, rng = np.zeros(6), np.random.default_rng(0)
    for updates in range(12):
        values = rng.standard_normal((3, 3))
        with torch.no_grad():
            for tensor, row in zip((model.weight, model.bias, model.running_mean), values, strict=True):
                tensor.copy_(torch.from_numpy(row))
            model.num_batches_tracked.fill_(updates)
        average.update_parameters(model)
        stays = min(decay, (1 + updates) / (10 + updates)) if updates else 0
        expected = stays * expected + (1 - stays) * values[:2].ravel()
        own = average.module
        np.testing.assert_allclose(torch.cat([own.weight, own.bias]).detach(), expected, rtol=1e-12)
        np.testing.assert_array_equal(own.running_mean, values[2])  # buffers are the model's own
        assert own.num_batches_tracked == updates
        np.testing.assert_array_equal(model.weight.detach(), values[0])
    assert average.n_averaged == 12
