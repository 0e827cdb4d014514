"""A few small clips in memory."""

import pytest
from clip_records import noise_record
from small_batches import NUM_CLIPS


@pytest.fixture(scope="module")
def source():
    return [
        noise_record(i, num_frames=8, duration_sec=1.0, has_audio=i != 4) for i in range(NUM_CLIPS)
    ]
