"""Architectures of transformers in small configurations, from their configuration classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks.zoo.subject import Subject, ids, images, noise, tokens

_LENGTH = 12
_BERT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
_AUDIO = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
}
_EXPERTS = {"num_experts_per_tok": 2}


def _hf(model: str, config: str, draw: Callable[..., Any] | None = None, **options: Any) -> Subject:
    """A model class with a configuration of a class."""

    def make() -> nn.Module:
        import transformers

        network: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**options))
        return network

    return Subject(make, draw or tokens(_LENGTH))


def _clip() -> nn.Module:
    import transformers

    text = {**_BERT, "projection_dim": 16, "eos_token_id": 1}
    sight = {**_VISION, "projection_dim": 16}
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=sight, projection_dim=16)
    )


_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_DECODER = {"decoder_input_ids": ids(6)}

SUBJECTS: dict[str, Subject] = {
    "BERT classifier": _hf("BertForSequenceClassification", "BertConfig", **_BERT),
    "BERT encoder (MiniLM)": _hf("BertModel", "BertConfig", **_BERT),
    "BERT masked language (tied head)": _hf("BertForMaskedLM", "BertConfig", **_BERT),
    "DistilBERT": _hf(
        "DistilBertForSequenceClassification", "DistilBertConfig", vocab_size=100, dim=32,
        n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40,
    ),
    "RoBERTa": _hf("RobertaForTokenClassification", "RobertaConfig", **_BERT),
    "ALBERT (shared layers)": _hf(
        "AlbertForSequenceClassification", "AlbertConfig", **_BERT, embedding_size=16
    ),
    "ELECTRA": _hf("ElectraForPreTraining", "ElectraConfig", **_BERT, embedding_size=16),
    "DeBERTa v2": _hf(
        "DebertaV2ForSequenceClassification", "DebertaV2Config", **_BERT, relative_attention=True,
        pos_att_type=["p2c", "c2p"],
    ),
    "MPNet": _hf("MPNetModel", "MPNetConfig", **_BERT),
    "FNet": _hf("FNetForSequenceClassification", "FNetConfig", **_BERT),
    "XLNet": _hf(
        "XLNetForSequenceClassification", "XLNetConfig",
        tokens(_LENGTH, token_type_ids=ids(_LENGTH, 7)), vocab_size=100, d_model=32, n_layer=2,
        n_head=4, d_inner=64,
    ),
    "GPT-2 (Conv1D, tied head)": _hf(
        "GPT2LMHeadModel", "GPT2Config", vocab_size=100, n_positions=40, n_embd=32, n_layer=2,
        n_head=4,
    ),
    "GPT-NeoX": _hf("GPTNeoXForCausalLM", "GPTNeoXConfig", **_BERT),
    "GPT-J": _hf(
        "GPTJForCausalLM", "GPTJConfig", vocab_size=100, n_positions=40, n_embd=32, n_layer=2,
        n_head=4, rotary_dim=4,
    ),
    "OPT": _hf(
        "OPTForCausalLM", "OPTConfig", vocab_size=100, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, ffn_dim=64, max_position_embeddings=40, word_embed_proj_dim=32,
    ),
    "Bloom": _hf(
        "BloomForCausalLM", "BloomConfig", vocab_size=100, hidden_size=32, n_layer=2, n_head=4
    ),
    "Falcon": _hf(
        "FalconForCausalLM", "FalconConfig", vocab_size=100, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4,
    ),
    "Llama": _hf("LlamaForCausalLM", "LlamaConfig", **_LLAMA),
    "Mistral": _hf("MistralForCausalLM", "MistralConfig", **_LLAMA, sliding_window=8),
    "Mixtral": _hf(
        "MixtralForCausalLM", "MixtralConfig", **_LLAMA, **_EXPERTS, num_local_experts=4
    ),
    "Qwen2": _hf("Qwen2ForCausalLM", "Qwen2Config", **_LLAMA),
    "Qwen2-MoE": _hf(
        "Qwen2MoeForCausalLM", "Qwen2MoeConfig", **_LLAMA, **_EXPERTS, num_experts=4,
        moe_intermediate_size=16, shared_expert_intermediate_size=32,
    ),
    "Gemma": _hf("GemmaForCausalLM", "GemmaConfig", **_LLAMA),
    "Gemma 2": _hf("Gemma2ForCausalLM", "Gemma2Config", **_LLAMA),
    "Phi": _hf("PhiForCausalLM", "PhiConfig", **{**_LLAMA, "num_key_value_heads": 4}),
    "Phi-3": _hf("Phi3ForCausalLM", "Phi3Config", **_LLAMA),
    "DeepSeek-V3": _hf(
        "DeepseekV3ForCausalLM", "DeepseekV3Config",
        **{**_LLAMA, "num_key_value_heads": 4, "head_dim": 4},
        **_EXPERTS, n_routed_experts=4, n_group=1, topk_group=1, moe_intermediate_size=16,
        first_k_dense_replace=1, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=4,
        qk_nope_head_dim=8, v_head_dim=8,
    ),
    "T5": _hf(
        "T5ForConditionalGeneration", "T5Config", tokens(_LENGTH, **_DECODER), vocab_size=100,
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
    ),
    "Switch Transformers": _hf(
        "SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig",
        tokens(_LENGTH, **_DECODER), vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2,
        num_heads=4, num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1,
    ),
    "BART": _hf(
        "BartForConditionalGeneration", "BartConfig", tokens(_LENGTH, **_DECODER), vocab_size=100,
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
        max_position_embeddings=40,
    ),
    "Whisper": _hf(
        "WhisperForConditionalGeneration", "WhisperConfig",
        lambda g, n: {"input_features": noise(8, 40)(g, n), "decoder_input_ids": ids(6)(g, n)},
        vocab_size=100, num_mel_bins=8, d_model=32, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64,
        decoder_ffn_dim=64, max_source_positions=20, max_target_positions=20, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    "wav2vec2": _hf(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", lambda g, n: {"input_values": noise(800)(g, n)},
        **_AUDIO,
    ),
    "HuBERT": _hf(
        "HubertForCTC", "HubertConfig", lambda g, n: {"input_values": noise(800)(g, n)}, **_AUDIO
    ),
    "Mamba": _hf(
        "MambaForCausalLM", "MambaConfig", vocab_size=100, hidden_size=32, num_hidden_layers=2,
        state_size=8,
    ),
    "Mamba-2": _hf(
        "Mamba2ForCausalLM", "Mamba2Config", vocab_size=100, hidden_size=32, num_hidden_layers=2,
        state_size=8, num_heads=8, head_dim=8, n_groups=2, chunk_size=4,
    ),
    "RWKV": _hf(
        "RwkvForCausalLM", "RwkvConfig", vocab_size=100, hidden_size=32, num_hidden_layers=2,
        context_length=40, attention_hidden_size=32,
    ),
    "CLIP": Subject(
        _clip, tokens(_LENGTH, pixel_values=lambda g, n: images(32)(g, n))
    ),
    "ViT": _hf(
        "ViTForImageClassification", "ViTConfig", lambda g, n: {"pixel_values": images(32)(g, n)},
        **_VISION,
    ),
    "SegFormer": _hf(
        "SegformerForSemanticSegmentation", "SegformerConfig",
        lambda g, n: {"pixel_values": images(64)(g, n)}, hidden_sizes=[16, 16, 32, 32],
        depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 4], decoder_hidden_size=32,
        num_labels=5,
    ),
    "ConvBERT": _hf("ConvBertModel", "ConvBertConfig", **_BERT, embedding_size=32),
    "Perceiver": _hf(
        "PerceiverModel", "PerceiverConfig", lambda g, n: {"inputs": noise(10, 24)(g, n)},
        d_model=24, d_latents=32, num_latents=6, num_blocks=1, num_self_attends_per_block=2,
        num_self_attention_heads=4, num_cross_attention_heads=4, qk_channels=32, v_channels=32,
    ),
}  # fmt: skip
SUBJECTS = {f"transformers {name}": subject for name, subject in SUBJECTS.items()}
