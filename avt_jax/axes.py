"""Names of array axes and of the batch, in one place.

Arrays whose layout is not obvious carry their axes as a suffix, in order:

    b  example in the batch        n  video token
    t  video frame                 m  audio token
    h, w, c  pixel row, column, RGB   k  bottleneck token
    s  spectrogram frame (10 ms)   d  width (features)
    f  mel bin                     y  class

`video_bthwc` is the house order for video, `fbank_bsf` for spectrograms. A mask says in its name
what True means: `masked_bm` True = hidden, `valid_b` True = a real example (not padding).

A batch is a dict with the keys below:

    video      [b, t, h, w, 3] uint8     RGB frames; normalised on the device
    audio      [b, s, f] float32         raw log-mel; standardised on the device
    video, audio  [b, n, d] float32      instead, where config.data reads cached tokens
    has_audio  [b] bool                  False: the clip has no audio stream, `audio` is silence
    has_video  [b] bool                  False: the clip has no picture, `video` is the mean colour
    labels     {label set: [b] int32}    one entry for each label set; of a multi-label set,
                                         where a clip may have several classes, [b, y] of 0 and 1
    group      [b] int32                 source video; equal = cut from the same video
    valid      [b] bool                  False: padding, counts nowhere
    id         [b] str                   clip id; stays on the host

    notes      [b, 2] int32              with several processes: (signal that asks this one to stop,
                                         damaged records that it met), in its first example

and, on the device only, where clips are mixed with each other (`training.mixing`):

    partner_labels  {label set: [b] int32}   labels of the clip that was mixed in, or [b, y]
    own_share       [b] float32              how much of the example is the clip itself

and where classes have weights (`losses.objective`), without a batch axis:

    class_weights   {label set: [y] float32}
"""

VIDEO = "video"
AUDIO = "audio"
HAS_AUDIO = "has_audio"
HAS_VIDEO = "has_video"
LABELS = "labels"
GROUP = "group"
VALID = "valid"
ID = "id"
PARTNER_LABELS = "partner_labels"
OWN_SHARE = "own_share"
CLASS_WEIGHTS = "class_weights"
NOTES = "notes"

# What goes to the device; strings cannot.
DEVICE_KEYS = (VIDEO, AUDIO, HAS_AUDIO, HAS_VIDEO, LABELS, GROUP, VALID, NOTES)
