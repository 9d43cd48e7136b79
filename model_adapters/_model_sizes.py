"""Common sizes of the models of each type, for estimates of their memory.

The sizes of language models are those of their configurations. Types whose models are far too large
for a single GPU, or whose sizes are not known for sure, have no entry.
"""

from collections.abc import Mapping, Sequence

from unidpo_mm.model_types import Decoder, ModelSize

__all__ = ["SIZES"]

M = 10**6
QWEN = 151936
QWEN_LARGE = 152064
LLAVA = 32064
GEMMA = 262208
PALIGEMMA = 257216

QWEN2_5 = {
    "0.5B": Decoder.dense((896, 24, 4864), (14, 2, 64), QWEN, tied=True),
    "1.5B": Decoder.dense((1536, 28, 8960), (12, 2, 128), QWEN, tied=True),
    "3B": Decoder.dense((2048, 36, 11008), (16, 2, 128), QWEN, tied=True),
    "7B": Decoder.dense((3584, 28, 18944), (28, 4, 128), QWEN_LARGE),
    "14B": Decoder.dense((5120, 48, 13824), (40, 8, 128), QWEN_LARGE),
    "32B": Decoder.dense((5120, 64, 27648), (40, 8, 128), QWEN_LARGE),
    "72B": Decoder.dense((8192, 80, 29568), (64, 8, 128), QWEN_LARGE),
}
QWEN3 = {
    "1.7B": Decoder.dense((2048, 28, 6144), (16, 8, 128), QWEN, tied=True),
    "4B": Decoder.dense((2560, 36, 9728), (32, 8, 128), QWEN, tied=True),
    "8B": Decoder.dense((4096, 36, 12288), (32, 8, 128), QWEN),
    "32B": Decoder.dense((5120, 64, 25600), (64, 8, 128), QWEN),
}
VICUNA = {
    "7B": Decoder.dense((4096, 32, 11008), (32, 32, 128), LLAVA),
    "13B": Decoder.dense((5120, 40, 13824), (40, 40, 128), LLAVA),
}
MISTRAL_7B = Decoder.dense((4096, 32, 14336), (32, 8, 128), LLAVA)
YI_34B = Decoder.dense((7168, 60, 20480), (56, 8, 128), 64064)
GLM_9B = Decoder.dense((4096, 40, 13696), (32, 2, 128), 151552, merged=True)
COHERE_7B = Decoder.dense((4096, 32, 14336), (32, 8, 128), 256000, tied=True)


def _experts(
    sizes: tuple[int, int], heads: tuple[int, int, int], experts: tuple[int, int, int], vocab: int
) -> Decoder:
    """Return a decoder whose feed-forward layers are experts in tensors that LoRA does not adapt.

    Args:
        sizes: Size of a hidden state, and number of layers.
        heads: Number of heads, number of heads of keys and values, size of a head.
        experts: Number of experts, number of those that a token uses, size inside an expert.
        vocab: Number of tokens.
    """
    hidden, layers = sizes
    dense = Decoder.dense((hidden, layers, 0), heads, vocab)
    count, used, inner = experts
    return Decoder(
        hidden=hidden,
        layers=layers,
        vocabulary=vocab,
        tied=False,
        queries=dense.queries,
        keys=dense.keys,
        intermediate=used * inner,
        linear=tuple(matrix for matrix in dense.linear if 0 not in matrix),
        experts=layers * count * 3 * hidden * inner,
    )


def _qwen3_5(
    sizes: tuple[int, int, int], heads: tuple[int, int, int], values: int, *, experts: int = 0
) -> Decoder:
    """Return a decoder in which three of four layers have linear attention.

    Args:
        sizes: Size of a hidden state, number of layers, size inside a feed-forward layer, or inside
            the expert that every token uses.
        heads: Number of heads, number of heads of keys and values, size of a head.
        values: Size of the values of all heads of a layer with linear attention.
        experts: Number of weights of all other experts.
    """
    hidden, layers, intermediate = sizes
    full, linear = layers // 4, layers - layers // 4
    queries, keys = heads[0] * heads[2], heads[1] * heads[2]
    return Decoder(
        hidden=hidden,
        layers=layers,
        vocabulary=248320,
        tied=False,
        queries=2 * queries,
        keys=keys,
        intermediate=intermediate * (9 if experts else 1),
        linear=(
            (hidden, 2 * queries, full),  # queries and their gates
            (hidden, keys, 2 * full),
            (queries, hidden, full),
            (hidden, 2 * 16 * 128 + values, linear),
            (hidden, values, linear),
            (hidden, values // 128, 2 * linear),
            (values, hidden, linear),
            (hidden, intermediate, 2 * layers),
            (intermediate, hidden, layers),
            *(((hidden, 1, layers),) if experts else ()),  # how much of the shared expert is used
        ),
        experts=experts,
    )


def _lfm2(sizes: tuple[int, int, int], attention: int, heads: tuple[int, int, int]) -> Decoder:
    """Return a decoder of convolutions, with attention in some of its layers.

    Args:
        sizes: Size of a hidden state, number of layers, size inside a feed-forward layer.
        attention: Number of layers with attention.
        heads: Number of heads, number of heads of keys and values, size of a head.
    """
    hidden, layers, intermediate = sizes
    queries, keys = heads[0] * heads[2], heads[1] * heads[2]
    return Decoder(
        hidden=hidden,
        layers=layers,
        vocabulary=65536,
        tied=True,
        queries=queries,
        keys=keys,
        intermediate=intermediate,
        linear=(
            (hidden, queries, attention),
            (hidden, keys, 2 * attention),
            (queries, hidden, attention),
            (hidden, 3 * hidden, layers - attention),
            (hidden, hidden, layers - attention),
            (hidden, intermediate, 2 * layers),
            (intermediate, hidden, layers),
        ),
    )


def _sizes(prefix: str, decoders: Mapping[str, tuple[Decoder, int]]) -> tuple[ModelSize, ...]:
    """Return sizes, each from its name, decoder and millions of other weights."""
    return tuple(
        ModelSize(f"{prefix} {name}", decoder, others * M)
        for name, (decoder, others) in decoders.items()
    )


SIZES: Mapping[str, Sequence[ModelSize]] = {
    "qwen2_vl": _sizes(
        "Qwen2-VL",
        {"2B": (QWEN2_5["1.5B"], 665), "7B": (QWEN2_5["7B"], 676), "72B": (QWEN2_5["72B"], 700)},
    ),
    "qwen2_5_vl": _sizes(
        "Qwen2.5-VL",
        {
            "3B": (QWEN2_5["3B"], 669),
            "7B": (QWEN2_5["7B"], 677),
            "32B": (QWEN2_5["32B"], 689),
            "72B": (QWEN2_5["72B"], 709),
        },
    ),
    "qwen3_vl": _sizes(
        "Qwen3-VL",
        {
            "2B": (QWEN3["1.7B"], 407),
            "4B": (QWEN3["4B"], 415),
            "8B": (QWEN3["8B"], 577),
            "32B": (QWEN3["32B"], 595),
        },
    ),
    "qwen3_vl_moe": _sizes(
        "Qwen3-VL",
        {"30B-A3B": (_experts((2048, 48), (32, 4, 128), (128, 8, 768), QWEN), 539)},
    ),
    "qwen3_5": _sizes(
        "Qwen3.5", {"9B": (_qwen3_5((4096, 32, 12288), (16, 4, 256), 32 * 128), 456)}
    ),
    "qwen3_5_moe": _sizes(
        "Qwen3.5",
        {
            "35B-A3B": (
                _qwen3_5(
                    (2048, 40, 512), (16, 2, 256), 32 * 128, experts=40 * 256 * 3 * 2048 * 512
                ),
                447,
            )
        },
    ),
    "glm4v": _sizes("GLM-4.1V", {"9B": (GLM_9B, 893)}),
    "glm46v": _sizes("GLM-4.6V-Flash", {"9B": (GLM_9B, 893)}),
    "llava": (
        *_sizes("LLaVA 1.5", {"7B": (VICUNA["7B"], 324), "13B": (VICUNA["13B"], 335)}),
        ModelSize("Pixtral 12B", Decoder.dense((5120, 40, 14336), (32, 8, 128), 131072), 436 * M),
    ),
    "llava_next": _sizes(
        "LLaVA-NeXT",
        {"7B (Mistral)": (MISTRAL_7B, 324), "13B": (VICUNA["13B"], 335), "34B": (YI_34B, 363)},
    ),
    "llava_next_video": _sizes("LLaVA-NeXT-Video", {"7B": (VICUNA["7B"], 324)}),
    "llava_onevision": _sizes(
        "LLaVA-OneVision", {"0.5B": (QWEN2_5["0.5B"], 400), "7B": (QWEN2_5["7B"], 415)}
    ),
    "internvl": _sizes(
        "InternVL3",
        {
            "1B": (QWEN2_5["0.5B"], 309),
            "2B": (QWEN2_5["1.5B"], 312),
            "8B": (QWEN2_5["7B"], 331),
            "14B": (QWEN2_5["14B"], 352),
        },
    ),
    "ovis2": _sizes(
        "Ovis2",
        {
            "1B": (QWEN2_5["0.5B"], 480),
            "2B": (QWEN2_5["1.5B"], 480),
            "4B": (QWEN2_5["3B"], 800),
            "8B": (QWEN2_5["7B"], 800),
        },
    ),
    "video_llama_3": _sizes(
        "VideoLLaMA3", {"2B": (QWEN2_5["1.5B"], 417), "7B": (QWEN2_5["7B"], 430)}
    ),
    "qwen2_5_omni_thinker": _sizes("Qwen2.5-Omni", {"7B": (QWEN2_5["7B"], 1320)}),
    "gemma3": _sizes(
        "Gemma 3",
        {
            "4B": (Decoder.dense((2560, 34, 10240), (8, 4, 256), GEMMA, tied=True), 420),
            "12B": (Decoder.dense((3840, 48, 15360), (16, 8, 256), GEMMA, tied=True), 421),
            "27B": (Decoder.dense((5376, 62, 21504), (32, 16, 128), GEMMA, tied=True), 423),
        },
    ),
    "paligemma": (
        *_sizes(
            "PaliGemma",
            {"3B": (Decoder.dense((2048, 18, 16384), (8, 1, 256), PALIGEMMA, tied=True), 415)},
        ),
        *_sizes(
            "PaliGemma 2",
            {
                "3B": (Decoder.dense((2304, 26, 9216), (8, 4, 256), PALIGEMMA, tied=True), 415),
                "10B": (Decoder.dense((3584, 42, 14336), (16, 8, 256), PALIGEMMA, tied=True), 417),
            },
        ),
    ),
    "mistral3": _sizes(
        "Mistral Small 3.1",
        {"24B": (Decoder.dense((5120, 40, 32768), (32, 8, 128), 131072), 439)},
    ),
    "idefics2": _sizes("Idefics2", {"8B": (MISTRAL_7B, 1160)}),
    "idefics3": _sizes(
        "Idefics3", {"8B (Llama 3)": (Decoder.dense((4096, 32, 14336), (32, 8, 128), 128259), 470)}
    ),
    "smolvlm": _sizes(
        "SmolVLM",
        {
            "256M": (Decoder.dense((576, 30, 1536), (9, 3, 64), 49280), 94),
            "500M": (Decoder.dense((960, 32, 2560), (15, 5, 64), 49280), 98),
            "2.2B": (Decoder.dense((2048, 24, 8192), (32, 32, 64), 49155), 434),
        },
    ),
    "lfm2_vl": _sizes(
        "LFM2-VL",
        {
            "450M": (_lfm2((1024, 16, 4608), 6, (16, 8, 64)), 97),
            "1.6B": (_lfm2((2048, 16, 8192), 6, (32, 8, 64)), 425),
        },
    ),
    "aya_vision": _sizes("Aya Vision", {"8B": (COHERE_7B, 600)}),
}
"""Model type -> its common sizes."""
