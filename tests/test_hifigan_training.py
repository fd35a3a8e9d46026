"""HiFi-GAN's discriminators and its training step against a plain-torch reference and the published shapes."""

import json

import librosa
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from gansound.discriminators import multi_period, multi_scale
from gansound.discriminators.multi_period import MultiPeriodDiscriminator
from gansound.discriminators.multi_scale import HiFiGANMultiScaleDiscriminator
from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.generators.hifigan import hifigan_keys
from gansound.nn.conv import spectral_norm
from gansound.recipe import load_recipe
from tests.reference import hifigan as reference
from tests.reference.melgan import bring_over

KINDS = {
    "mpd": (MultiPeriodDiscriminator, multi_period.hifigan_keys),
    "msd": (HiFiGANMultiScaleDiscriminator, multi_scale.hifigan_keys),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_the_published_ones_through_the_name_map(shared, kind):
    spec = json.loads((shared / "specs" / f"hifigan_{kind}.json").read_text())
    make, keys = KINDS[kind]
    with torch.device("meta" if kind == "mpd" else "cpu"):
        net = make()
    assert {keys(net)[key]: list(tensor.shape) for key, tensor in net.state_dict().items()} == spec[
        "state_dict"
    ]
    assert sum(p.numel() for p in net.parameters()) == spec["_meta"]["n_params_with_weight_norm"]


def small(kind, seed=0):
    """Ours and the reference, of equal weights, in double."""
    torch.manual_seed(seed)
    if kind == "mpd":
        theirs = reference.PeriodDiscriminators((2, 3, 7), 2).double()
        ours = MultiPeriodDiscriminator((2, 3, 7), channels=2).double()
    else:
        theirs = reference.ScaleDiscriminators(3, 16).double()
        ours = HiFiGANMultiScaleDiscriminator(3, channels=16).double()
    settle(theirs)
    bring_over(theirs, ours, KINDS[kind][1](ours))
    return ours, theirs


def settle(net):
    """Give the power iterations the singular vectors, so that one more or less is none."""
    for module in net.modules():
        if isinstance(module, reference.SNConv):
            left, _, right = torch.linalg.svd(module.weight_orig.detach().flatten(1), full_matrices=False)
            module.weight_u, module.weight_v = left[:, 0].clone(), right[0].clone()


@pytest.mark.parametrize("samples", [60, 61, 250])
@pytest.mark.parametrize("kind", KINDS)
def test_maps_and_gradients_equal_the_reference(kind, samples):
    ours, theirs = small(kind)
    audio = torch.randn(2, samples, dtype=torch.float64, requires_grad=True)
    twin = audio.detach().clone().requires_grad_()
    got, expected = ours(audio), theirs(twin.unsqueeze(1))
    for maps, their_maps in zip(got, expected, strict=True):
        for a, b in zip(maps, their_maps, strict=True):
            torch.testing.assert_close(a.transpose(2, 3) if kind == "mpd" else a, b, rtol=1e-9, atol=1e-12)
    sum(m.square().sum() for maps in got for m in maps).backward()
    sum(m.square().sum() for maps in expected for m in maps).backward()
    torch.testing.assert_close(audio.grad, twin.grad, rtol=1e-8, atol=1e-11)
    grads, keys = dict(theirs.named_parameters()), KINDS[kind][1](ours)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[keys[name]].grad, rtol=1e-7, atol=1e-10)


def test_spectral_norm_goes_as_torchs_first_form_does():
    theirs = torch.nn.utils.spectral_norm(nn.Conv1d(3, 5, 4))
    ours = nn.Conv1d(3, 5, 4)
    ours.load_state_dict({"weight": theirs.weight_orig.detach(), "bias": theirs.bias.detach()})
    spectral_norm(ours)
    norm = ours.parametrizations.weight[0]
    largest = torch.linalg.matrix_norm(ours.weight.flatten(1), 2).item()
    assert largest == pytest.approx(1.0, abs=0.05)  # it has looked before the first pass
    norm.u.copy_(theirs.weight_u)
    norm.v.copy_(theirs.weight_v)
    x = torch.randn(2, 3, 20)
    for training in (True, True, False):
        theirs.train(training)
        ours.train(training)
        grads = []
        for layer, weight in ((theirs, theirs.weight_orig), (ours, ours.parametrizations.weight.original)):
            y = layer(x)
            grads.append(torch.autograd.grad(y.square().sum(), weight)[0])
        torch.testing.assert_close(grads[1], grads[0])
        torch.testing.assert_close(norm.u, theirs.weight_u)
        torch.testing.assert_close(norm.v, theirs.weight_v)


SMALL = {
    "generator.init_args": {
        "channels": 16,
        "upsample_rates": [16, 16],
        "upsample_kernel_sizes": [32, 32],
        "residual_kernel_sizes": [3],
        "residual_dilations": [[1, 3]],
    },
    "discriminators.mpd.network.init_args": {"periods": [2, 3], "channels": 1},
    "discriminators.msd.network.init_args": {"scales": 2, "channels": 16},
    "data.segment_samples": 1024,
}


def test_ten_steps_of_the_recipe_equal_the_plain_loop():
    torch.manual_seed(0)
    planned = plan(load_recipe("hifigan_v1_ljspeech", SMALL))
    task = planned.task
    for network in (task.generator, task.discriminator, task.criteria):
        network.double()
    theirs_g = reference.Generator(80, 16, (16, 16), (32, 32), (3,), ((1, 3),)).double()
    theirs_d = {
        "mpd": reference.PeriodDiscriminators((2, 3), 1).double(),
        "msd": reference.ScaleDiscriminators(2, 16).double(),
    }
    settle(theirs_d["msd"])
    pairs = [(task.generator, theirs_g, hifigan_keys(task.generator))]
    pairs += [
        (task.discriminator[kind], theirs_d[kind], KINDS[kind][1](task.discriminator[kind])) for kind in KINDS
    ]
    for ours, theirs, keys in pairs:
        bring_over(theirs, ours, keys)
    start = [{key: value.clone() for key, value in theirs.state_dict().items()} for _, theirs, _ in pairs]

    settings = {"lr": 2e-4, "betas": (0.8, 0.99)}
    optimizer_g = torch.optim.AdamW(theirs_g.parameters(), **settings)
    judging = [parameter for net in theirs_d.values() for parameter in net.parameters()]
    optimizer_d = torch.optim.AdamW(judging, **settings)
    filters = torch.from_numpy(librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0)).double()
    phases = Phases(task, Accelerator(cpu=True), planned.optimizers)
    for _ in range(10):
        audio = 0.3 * torch.randn(2, 1024, dtype=torch.float64)
        mel = task.condition({"audio": audio})
        losses = reference.plain_train_step(
            theirs_g, theirs_d.values(), optimizer_g, optimizer_d, mel, audio.unsqueeze(1), filters
        )
        figures = phases.step([[{"audio": audio, "position": torch.arange(2)}]], adversarial=True)
        total = sum(
            task.weights[name] * figures[name] for name in task.weights if not name.startswith("disc")
        )
        assert total == pytest.approx(losses[1], rel=1e-6)
    for (ours, theirs, keys), before in zip(pairs, start, strict=True):
        final = theirs.state_dict()
        apart = sum((value - final[keys[key]]).square().sum() for key, value in ours.state_dict().items())
        moved = sum((final[name] - before[name]).square().sum() for name in final)
        assert moved > 1e-4
        assert apart < 1e-12 * moved, "after ten steps they lie apart by more than rounding"


@pytest.mark.parametrize(
    "arguments",
    [{"periods": ()}, {"periods": (1, 2)}, {"periods": (2, 2)}, {"channels": 0}, {"max_channels": 0}],
)
def test_periods_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="got"):
        MultiPeriodDiscriminator(**arguments)


def test_scales_that_cannot_be_are_refused():
    for arguments in ({"scales": 0}, {"channels": 24}, {"channels": 0}):
        with pytest.raises(ValueError, match="got"):
            HiFiGANMultiScaleDiscriminator(**arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_what_they_cannot_judge_is_refused(kind):
    net, _ = small(kind)
    assert net(torch.zeros(1, net.shortest_samples, dtype=torch.float64))
    for shape in ((1, net.shortest_samples - 1), (1, 1, 60), (60,)):
        with pytest.raises(ValueError, match=f"{net.shortest_samples} or more samples"):
            net(torch.zeros(shape, dtype=torch.float64))
