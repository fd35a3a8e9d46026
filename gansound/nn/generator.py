"""What every mel-to-waveform generator of convolutions does alike, its layers whatever they are."""

import copy

from torch import Tensor, nn

from gansound.nn import streaming
from gansound.nn.streaming import ReceptiveField, State


class StreamingGenerator(nn.Module):
    """Base of generators that turn F mel frames into F * hop_length samples, all at once or step by step.

    A subclass sets `n_mels`, `hop_length` and `layers`, a stack of layers of `gansound.nn`, and needs nothing else to
    stream:

        state = generator.init_state(batch)
        for mel in chunks:                                  # (batch, n_mels, n), any n
            audio, state = generator.step(mel, state)       # (batch, n * hop_length), late by the look-ahead
        state = generator.finish(state)                     # then step on with anything until all is out

    `gansound.inference` does this bookkeeping for one who wants sound.
    """

    n_mels: int
    hop_length: int
    layers: nn.Sequential

    def forward(self, mel: Tensor) -> Tensor:
        """Synthesize.

        Shape:
            mel `(B, n_mels, F)` → audio `(B, F * hop_length)`.

        Raises:
            ValueError: when the mel isn't `(B, n_mels, F)` with F >= 1.
        """
        self.check(mel)
        audio: Tensor = self.layers(mel)
        return audio.flatten(1)

    def check(self, mel: Tensor) -> None:
        """Raises ValueError when the mel isn't `(B, n_mels, F)` with F >= 1."""
        if mel.dim() != 3 or mel.shape[1] != self.n_mels or mel.shape[2] < 1:
            turned = mel.dim() == 3 and mel.shape[2] == self.n_mels
            raise ValueError(
                f"expected a mel of shape (batch, {self.n_mels} bands, 1 or more frames), got {tuple(mel.shape)}"
                + ("; it looks transposed: pass mel.transpose(1, 2)" if turned else "")
            )

    def init_state(self, batch: int = 1) -> State:
        """The state of so many streams before their first frame, of the weights' type and device."""
        return streaming.init_state(self.layers, self._frame(batch))

    def step(self, mel: Tensor, state: State, *, interior: bool = False) -> tuple[Tensor, State]:
        """The next frames of each stream in, as many hops of sound out, late by the look-ahead.

        Args:
            mel: any number of frames.
            state: of the step before; it is not changed.
            interior: promise that each stream is `interior_frames` past its start and its end isn't known; faster.

        Returns:
            Audio `(B, n * hop_length)` and the next state. Sample j of the audio is sample
            `frames before this step * hop_length + j - receptive_field.lookahead` of the utterance; those below 0 or
            past its end mean nothing.

        Shape:
            mel `(B, n_mels, n)`, n >= 1.
        """
        audio, state = streaming.step(self.layers, mel, state, interior=interior)
        return audio.flatten(1), state

    def for_inference(self) -> nn.Sequential:
        """A copy of the layers that `gansound.nn.inference_form` lays out: where weights no longer change, so may less
        be computed.
        """
        return copy.deepcopy(self.layers)

    finish = staticmethod(streaming.finish)
    reset = staticmethod(streaming.reset)

    @property
    def receptive_field(self) -> ReceptiveField:
        """In samples, worked out from the layers.

        Raises:
            ValueError: the layers don't stream, or give another number of samples for a frame than `hop_length`.
        """
        field = streaming.receptive_field(self.layers, self._frame(1))
        if field.rate != self.hop_length:
            raise ValueError(
                f"{type(self).__name__}: its layers give {field.rate} samples for each mel frame, "
                f"but its hop_length is {self.hop_length}"
            )
        return field

    @property
    def interior_frames(self) -> int:
        """Frames after which no layer keeps anything from before a stream's start."""
        field = self.receptive_field
        return -(-(field.lookback + field.lookahead) // self.hop_length) + field.remembers

    def _frame(self, batch: int) -> Tensor:
        like = next(self.parameters())
        return like.new_zeros(batch, self.n_mels, 1)
