"""The check of a machine with a GPU, in one command: `python -m tests.gpu OUT`.

It tries what is right, measures what is fast, and trains for the rest of the time; `--device cpu --scale tiny` does the
same in a minute and a half without a GPU. What it needs is torch, numpy, accelerate, safetensors, PyYAML, rich,
matplotlib, scipy, tensorboard and pytest. Where soundfile and soxr lack, what reads sounds is left out and says so;
they can be carried to a machine without a network. Before, where there is one, for Python 3.12 on x86-64:

    mkdir -p .whl && python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \\
        -d .whl soundfile==0.13.1 soxr==1.0.0 cffi==2.0.0 pycparser==2.23

and there, from the root of a checkout that holds `.whl`, in one line:

    python3 -m pip install -q --no-index --no-deps --no-compile --target /tmp/site .whl/*.whl &&
    PYTHONPATH=/tmp/site PYTHONUNBUFFERED=1 python3 -m tests.gpu "$OUT" --seconds 560 --audio samples

Each part writes `OUT/PART.json` anew after each of its checks, so that what is cut loses nothing.
"""
