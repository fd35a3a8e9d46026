"""Tags beside the sound of a file: what a generated clip carries its origin in."""

import numpy as np
import pytest
import soundfile

from gansound.audio import AudioError, read, read_tags, write
from gansound.audio.writer import TAG_LIMIT_BYTES

RATE = 16000


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_tags_are_read_again_and_leave_the_samples_alone(tmp_path, suffix, subtype):
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 1000)).astype(np.float32)
    tags = {"title": "Kick, dämpft", "comment": "x" * TAG_LIMIT_BYTES, "genre": "kick", "tracknumber": "7"}
    write(tmp_path / f"plain{suffix}", sound, RATE, subtype=subtype)
    write(tmp_path / f"tagged{suffix}", sound, RATE, subtype=subtype, tags=tags)
    assert read_tags(tmp_path / f"tagged{suffix}") == tags
    assert read_tags(tmp_path / f"plain{suffix}") == {}
    np.testing.assert_array_equal(
        read(tmp_path / f"plain{suffix}", mono=False)[0], read(tmp_path / f"tagged{suffix}", mono=False)[0]
    )
    with soundfile.SoundFile(tmp_path / f"tagged{suffix}") as file:
        assert file.title == tags["title"]


@pytest.mark.parametrize("tags", [{"mood": "dark"}, {"comment": "x" * (TAG_LIMIT_BYTES + 1)}])
def test_a_tag_that_would_be_lost_is_refused(tmp_path, tags):
    with pytest.raises(AudioError, match=next(iter(tags))):
        write(tmp_path / "a.wav", np.zeros(10, np.float32), RATE, tags=tags)
    assert list(tmp_path.iterdir()) == []
