"""llama.cpp itself, as the wheel `xllamacpp` has it, called by ctypes."""

import ctypes
import functools
import pathlib

import numpy as np


class _Params(ctypes.Structure):
    """Larger than the structs of llama.cpp, whose fields change from build to build."""

    _fields_ = (("words", ctypes.c_uint64 * 64),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


@functools.cache
def library():
    """The library.

    Raises:
        ImportError: If the wheel is not installed.
    """
    import xllamacpp as module

    [file] = pathlib.Path(module.__file__).parent.glob("*.so")
    lib = ctypes.CDLL(str(file))
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("llama_model_default_params", _Params, []),
        ("llama_context_default_params", _Params, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Params]),
        ("llama_init_from_model", pointer, [pointer, _Params]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_batch_init", _Batch, [ctypes.c_int32] * 3),
        ("llama_batch_free", None, [_Batch]),
        ("llama_decode", ctypes.c_int32, [pointer, _Batch]),
        ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [pointer]),
        ("llama_set_n_threads", None, [pointer, ctypes.c_int32, ctypes.c_int32]),
        ("llama_free", None, [pointer]),
        ("llama_model_free", None, [pointer]),
        ("llama_log_set", None, [pointer, pointer]),
        ("llama_backend_init", None, []),
        (
            "llama_tokenize",
            ctypes.c_int32,
            [
                pointer,
                ctypes.c_char_p,
                ctypes.c_int32,
                ctypes.POINTER(ctypes.c_int32),
                ctypes.c_int32,
                ctypes.c_bool,
                ctypes.c_bool,
            ],
        ),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)
    lib.silence = log(lambda *_: None)  # kept alive
    lib.llama_log_set(ctypes.cast(lib.silence, pointer), None)
    lib.llama_backend_init()
    return lib


def dequantize(kind, data):
    """Weights of the rows of a tensor, by the function of ggml for its type."""
    lib, size = library(), {"Q1_0": (128, 18), "TQ1_0": (256, 54), "TQ2_0": (256, 66)}
    group, length = size[kind]
    data = np.ascontiguousarray(data)
    rows, width = len(data), data.shape[1] // length * group
    found = np.empty((rows, width), np.float32)
    function = getattr(lib, f"dequantize_row_{kind.lower()}")
    function.restype = None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function(data.ctypes.data, found.ctypes.data, found.size)
    return found


class Model:
    """A model that llama.cpp has loaded."""

    def __init__(self, path, vocabulary):
        self._lib = library()
        params = self._lib.llama_model_default_params()
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"llama.cpp does not load {path}"
        self._vocabulary = vocabulary

    def logits(self, tokens):
        """Logits at every position of a sequence, [length, vocabulary]."""
        params = self._lib.llama_context_default_params()
        # Types of keys and values stand together, and float16 is 1 there; 0 is float32.
        # The last of four enums that are -1, "automatic", is flash attention, which
        # would round keys and values to float16; 0 turns it off.
        words = np.frombuffer(params, np.int32).copy()
        [place] = (i for i in range(0, 40, 2) if (words[i : i + 2] == 1).all())
        [enums] = (i for i in range(40) if (words[i : i + 4] == -1).all())
        words[[place, place + 1, enums + 3]] = 0
        params = _Params.from_buffer_copy(words.tobytes())
        context = self._lib.llama_init_from_model(self._model, params)
        assert context
        logits = self._decode(context, tokens, 0)
        self._lib.llama_free(context)
        return logits

    def generate(self, prompt, *, threads):
        """The most probable token, again and again, until the iterator is closed."""
        params = self._lib.llama_context_default_params()
        context = self._lib.llama_init_from_model(self._model, params)
        assert context
        self._lib.llama_set_n_threads(context, threads, threads)
        tokens, position = list(prompt), 0
        try:
            while True:
                logits = self._decode(context, tokens, position)
                position += len(tokens)
                tokens = [int(logits[-1].argmax())]
                yield tokens[0]
        finally:
            self._lib.llama_free(context)

    def _decode(self, context, tokens, position):
        """Logits at every one of the tokens, of which the first is at a position."""
        batch = self._lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), position + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert self._lib.llama_decode(context, batch) == 0
        found = self._lib.llama_get_logits(context)
        shape = len(tokens), self._vocabulary
        logits = np.ctypeslib.as_array(found, shape).copy()
        self._lib.llama_batch_free(batch)
        return logits

    def tokenize(self, text):
        """Tokens of a text."""
        data = text.encode()
        found = (ctypes.c_int32 * (len(data) + 8))()
        vocabulary = self._lib.llama_model_get_vocab(self._model)
        count = self._lib.llama_tokenize(
            vocabulary, data, len(data), found, len(found), True, False
        )
        assert count >= 0
        return list(found[:count])

    def close(self):
        """Frees the model."""
        self._lib.llama_model_free(self._model)
