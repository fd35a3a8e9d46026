"""Operations written anew for OpenVINO give what they gave, and are its vector code's."""

import numpy as np
import pytest

openvino = pytest.importorskip("openvino")

from openvino import opset13 as ops  # noqa: E402

from gansound.inference.backends.open_vino_graph import vectorise  # noqa: E402

NOISE = np.random.default_rng(0)


def sounded(model: "openvino.Model", *given: np.ndarray) -> np.ndarray:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(list(given))[0].copy()


def kinds(model: "openvino.Model") -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


@pytest.mark.parametrize("kind, exact", [("sin", np.sin), ("cos", np.cos)])
def test_sines_and_cosines_of_many_turns(kind, exact):
    angle = np.concatenate(
        [
            NOISE.uniform(-1000, 1000, 20000),
            NOISE.uniform(-4, 4, 20000),
            NOISE.uniform(-1e-3, 1e-3, 99),
            np.arange(-16, 17) * np.pi / 2,
        ]
    ).astype(np.float32)
    parameter = ops.parameter(angle.shape, np.float32)
    model = openvino.Model([getattr(ops, kind)(parameter)], [parameter])
    vectorise(model, exact=False)
    assert kind.capitalize() in kinds(model)
    vectorise(model, exact=True)
    assert kind.capitalize() not in kinds(model)
    # Of 1000 turns the angle that is left has lost half of what fp32 tells of it.
    error = np.abs(sounded(model, angle) - exact(angle.astype(np.float64)))
    assert error[:20000].max() < 1e-6
    assert error[20000:].max() < 2e-7


@pytest.mark.parametrize("start, stop, step", [(0, 2**31, 2), (1, 9, 3), (-1, -(2**31), -1), (7, 1, -2)])
@pytest.mark.parametrize("axis", [1, -1])
def test_slices_by_steps(start, stop, step, axis):
    values = NOISE.standard_normal((2, 11, 10)).astype(np.float32)
    parameter = ops.parameter(values.shape, np.float32)
    limits = [ops.constant(np.array([limit], np.int64)) for limit in (start, stop, step, axis)]
    model = openvino.Model([ops.slice(parameter, *limits)], [parameter])
    vectorise(model, exact=True)
    assert "Slice" not in kinds(model)
    across = [slice(None)] * 3
    across[axis] = slice(start, stop, step)
    assert np.array_equal(sounded(model, values), values[tuple(across)])


@pytest.mark.parametrize("batch", [1, 2])
def test_gathers_along_one_utterance(batch):
    values = NOISE.standard_normal((batch, 30)).astype(np.float32)
    index = NOISE.integers(0, 30, (batch, 50))
    given = ops.parameter(values.shape, np.float32), ops.parameter(index.shape, np.int64)
    model = openvino.Model([ops.gather_elements(*given, 1)], list(given))
    vectorise(model, exact=True)
    assert ("GatherElements" in kinds(model)) == (batch > 1)
    assert np.array_equal(sounded(model, values, index), np.take_along_axis(values, index, 1))
