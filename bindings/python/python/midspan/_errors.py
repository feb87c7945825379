"""Exceptions, by who has to change something, and their numbers (spec 7.3)."""

from enum import IntEnum
from typing import Dict, Optional, Tuple, Union

__all__ = ["CallerError", "Error", "ErrorNumber", "LibraryError", "ModelError", "ResourceError", "StreamError"]


class Error(Exception):
    """What the library refuses. Its text says what was wanted and found, whose fault it is and where.

    A subclass says who has to change something: :class:`StreamError`, :class:`ModelError`, :class:`CallerError`,
    :class:`ResourceError` or :class:`LibraryError`. Five refusals are Python's own exceptions instead: an argument of a
    wrong type or dtype is a ``TypeError``, a number out of its type's range an ``OverflowError``, a conversion for which
    there is no room a ``MemoryError``, a file that cannot be read an ``OSError``, and a tensor that its own library does
    not give out a ``BufferError``.
    """

    number: int
    """The number of spec 7.3, one of :class:`ErrorNumber`; below 0 for this package's own."""
    fault: str
    """``"stream"``, ``"model"``, ``"caller"``, ``"resource"`` or ``"library"``."""
    offset: Optional[int]
    """Where: bytes from the first byte of the stream header, or of the model file for 7xx, to the first byte of the
    field at fault. For 8xx and 9xx, and for an error of a writer or an encoder, to the chunk that was worked on.
    ``None`` if the error has no place."""
    wanted: Union[int, bytes, None]
    """The number that was wanted, or the largest that is allowed, or this end's digest; ``None`` if there is none."""
    found: Union[int, bytes, None]
    """The number or the digest that was found; ``None`` if there is none. Of WRONG_MODEL it is the fingerprint of the
    model that the stream needs."""
    element: Optional[Tuple[int, int]]
    """The frame of the call and the element of the frame, each from 0, if a single value is at fault."""
    limit: Optional[str]
    """Whose limit was exceeded: ``"declared"`` by the stream header, ``"own"`` of this end, ``"format"``; ``None`` if
    the error is about no limit."""
    setting: Optional[str]
    """With a limit of ``"own"``: the argument to raise, as the session's constructor names it."""
    row: Optional[int]
    """Of :class:`Together`: the row of the batch, which is the place of the session among those of the call."""
    errors: Optional[Dict[int, "Error"]]
    """Of :meth:`Together.push_hidden` and :meth:`Together.push_y`: the errors of all rows that failed, by row.
    The error that is raised has a second object of its own among them."""

    def __init__(
        self,
        message: str = "",
        number: int = 0,
        fault: str = "library",
        offset: Optional[int] = None,
        wanted: Union[int, bytes, None] = None,
        found: Union[int, bytes, None] = None,
        element: Optional[Tuple[int, int]] = None,
        limit: Optional[str] = None,
        setting: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.number = number
        self.fault = fault
        self.offset = offset
        self.wanted = wanted
        self.found = found
        self.element = element
        self.limit = limit
        self.setting = setting
        self.row = None
        self.errors = None


class StreamError(Error):
    """The stream's bytes are wrong: 1xx to 4xx and 6xx. It is final for the session."""


class ModelError(Error):
    """The model file is wrong (7xx), or it does not belong to this stream (5xx)."""


class CallerError(Error, ValueError):
    """The caller asks for something that is not possible: 8xx, what a writer or an encoder refuses, and -2 and -5.
    Nothing changes."""


class ResourceError(Error):
    """A limit that this end set, and can raise, was exceeded."""


class LibraryError(Error, RuntimeError):
    """The library has a bug, which was caught (-4). The session of the call stays unusable; others are not affected."""


class ErrorNumber(IntEnum):
    """The numbers of errors. Those above 0 are the specification's (7.3), and never change their meaning."""

    INVALID_ARGUMENT = -2
    PANIC = -4
    BUSY = -5
    VARINT_NOT_SHORTEST = 101
    VARINT_RESERVED = 102
    FIELD_OUT_OF_RANGE = 103
    BAD_MAGIC = 201
    READER_TOO_OLD = 202
    BAD_VERSION = 203
    HEADER_CRC_MISMATCH = 204
    RESERVED_HEADER_BITS = 205
    TRACK_COUNT = 206
    OPTIONAL_FIELD_ORDER = 207
    UNKNOWN_CRITICAL_FIELD = 208
    HEADER_LAYOUT = 209
    WRONG_BINDING = 210
    RESERVED_KIND = 301
    CHUNK_TOO_LONG = 302
    FRAME_FORM_NOT_SHORTEST = 303
    KIND_NOT_IN_MODE = 304
    SEEK_INDEX_MISPLACED = 305
    CHUNK_LAYOUT = 306
    DATA_AFTER_END = 307
    MESSAGE_TOO_SHORT = 308
    TOO_MANY_FRAMES = 309
    BATCH_OF_ONE = 310
    LANE_COUNT = 311
    LANE_TABLE = 312
    LANE_PADDING = 313
    EXACT_DTYPE = 314
    UNKNOWN_CRITICAL_EXTENSION = 315
    BAD_FOOTER = 316
    SEEK_INDEX_ORDER = 317
    TOO_MANY_CHECKPOINTS = 318
    SIDE_INDICES_LEFT = 319
    TRUNCATED = 401
    FRAME_CHECK_MISMATCH = 402
    CONTROL_CRC_MISMATCH = 403
    INDEX_MISMATCH = 404
    FRAME_TOTAL_MISMATCH = 405
    EPOCH_MISMATCH = 406
    REWIND_TARGET = 407
    REWIND_TOO_FAR = 408
    DIGEST_MISMATCH_W = 409
    DIGEST_MISMATCH_Y = 410
    WRONG_MODEL = 501
    WRONG_MODEL_AT_RESET = 502
    EXACT_FRAME_LENGTH = 503
    UNKNOWN_QUALITY = 504
    WRONG_HOST = 505
    WRONG_SIDE_FLAG = 506
    PREDICTION_LAYERED = 507
    CORRUPT_PAYLOAD = 601
    SEAL_NOT_CANONICAL = 602
    VALUE_OUT_OF_RANGE = 603
    PAYLOAD_TOO_LONG = 604
    MODEL_FILE_SYNTAX = 701
    MODEL_TENSOR_MISSING = 702
    MODEL_TENSOR_SHAPE = 703
    MODEL_TENSOR_UNKNOWN = 704
    MODEL_CONFIG = 705
    MODEL_ROW_BOUND = 706
    MODEL_TABLE = 707
    MODEL_VALUE = 708
    HIDDEN_NOT_FINITE = 801
    WRONG_SHAPE = 802
    AFTER_END = 803
    NOT_AVAILABLE = 804
    BAD_CONFIG = 805
    TARGET_OVERDUE = 806
    FRAME_NOT_PENDING = 807
    SAVED_SESSION = 808
    HIDDEN_CLIPPED = 809
    FLOAT_MODE = 810
    ENGINE_FAULT = 811
    WRONG_SIDE_INDICES = 812
    MEMORY_LIMIT = 901
