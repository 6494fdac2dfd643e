"""The label in a record, a serialized tf.train.Example, without reading the image beside it."""

from collections.abc import Callable

import tensorflow as tf

# Bytes that are read at a time: a name, the length of what it names, and a number.
_STEP = 512


def label_in(read: Callable[[int, int], bytes], key: str) -> int:
    """The label that a record has under `key`.

    A record is a message `Example`: its field 1, `Features`, has a field 1 for each feature, with
    the name in field 1 and the value in field 2 (tensorflow/core/example/feature.proto). What has
    another name is jumped over.

    Args:
      read: (start, length) -> bytes of the record, fewer at its end.
      key: name of the feature.

    Raises:
      ValueError: it is not there.
    """
    head = read(0, _STEP)
    at = _length(head, 1)[1]
    wanted = b"\n" + bytes([len(key.encode())]) + key.encode()
    start = 0  # of `head`
    while True:
        if at - start > len(head) - 32 - len(wanted):
            start, head = at, read(at, _STEP)
            if not head:
                raise ValueError(f"no feature {key!r}")
        length, begin = _length(head, at - start + 1)
        if head.startswith(wanted, begin):
            entry = read(at, begin + length - (at - start))
            features = tf.train.Features.FromString(entry)
            return int(features.feature[key].int64_list.value[0])
        at = start + begin + length


def _length(content: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte that begins at `at`, and where what follows it begins."""
    value = shift = 0
    while True:
        value |= (content[at] & 0x7F) << shift
        at += 1
        if not content[at - 1] & 0x80:
            return value, at
        shift += 7
