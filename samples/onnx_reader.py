"""Speak with a vocoder exported by `gansound export --streaming`, with nothing but numpy and onnxruntime.

    python onnx_reader.py vocoder.onnx mel.npy speech.wav        # mel: bands x frames, in the model's convention

Copy this class into your project; it is yours to use as you like (CC0).
"""

import json
import sys
import wave

import numpy as np
import onnxruntime


class Vocoder:
    """One utterance at a time: push mel frames as they come, play what comes back, flush at the end."""

    def __init__(self, path, threads=1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        if about.get("graph") != "streaming":
            raise ValueError(f"{path}: not a streaming graph; write one with: gansound export --streaming")
        takes = next(kind for kind in ("mel", "latent", "pitched", "code") if kind in about)
        self.mel_convention = json.loads(about[takes])
        self.states = json.loads(about["states"])
        self.sample_rate, self.hop_length, self.n_mels, self.lookahead, self.unknown = (
            int(about[key])
            for key in ("sample_rate", "hop_length", "n_mels", "lookahead_samples", "unknown_length")
        )
        self.reset()

    def reset(self):
        """Forget the utterance and begin another."""
        self.frames = 0
        self.state = {
            f"state.{state['name']}": np.zeros((1, *state["shape"]), state["dtype"]) for state in self.states
        }
        self.state["state.length"][:] = self.unknown

    def push(self, mel):
        """Frames (n_mels, n) in, the samples that are final out: float32, full scale 1."""
        mel = np.asarray(mel, np.float32)
        if mel.ndim != 2 or mel.shape[0] != self.n_mels:
            raise ValueError(f"expected a mel of ({self.n_mels}, frames), got {mel.shape}")
        if mel.shape[1] == 0:
            return np.zeros(0, np.float32)
        audio, *state = self.session.run(None, {"mel": mel[None], **self.state})
        self.state = dict(zip(self.state, state, strict=True))
        before = self.frames * self.hop_length - self.lookahead  # where this audio begins in the utterance
        self.frames += mel.shape[1]
        return audio[0, max(0, -before) :]

    def flush(self):
        """End the utterance: the rest of its samples. Then begin another."""
        frames = self.frames
        self.state["state.length"][:] = frames
        late = -(-self.lookahead // self.hop_length)
        out = max(0, frames * self.hop_length - self.lookahead)
        rest = self.push(np.zeros((self.n_mels, late if frames else 0), np.float32))
        self.reset()
        return rest[: frames * self.hop_length - out]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model, source, target = sys.argv[1:]
    vocoder, mel = Vocoder(model), np.load(source)
    if mel.shape[0] != vocoder.n_mels:
        sys.exit(f"{source}: expected a mel of ({vocoder.n_mels}, frames), got {mel.shape}")
    with wave.open(target, "wb") as file:
        file.setparams((1, 2, vocoder.sample_rate, 0, "NONE", ""))
        for start in range(0, mel.shape[1], 8):
            sound = vocoder.push(mel[:, start : start + 8])
            file.writeframes(np.rint(sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
        file.writeframes(np.rint(vocoder.flush().clip(-1, 1) * 32767).astype("<i2").tobytes())
