"""The text encoder: BERT through ``transformers``."""

from __future__ import annotations

from torch import Tensor, nn

from .config import TextConfig

# Every checkpoint has at least this many, however few tokens its sentences have.
MIN_POSITIONS = 32


class TextEncoder(nn.Module):
    """BERT without its pooler.

    The paper's abstract names no encoder; SLViT, its ancestor, uses BERT-base.  Any BERT-shaped size works.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(
            BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.intermediate_size,
                # Dropout here changes the tokens by half of their spread, more than "rim" differs from "nodular"; and
                # sentences from a grammar cannot be overfitted.
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                max_position_embeddings=max(config.max_tokens, MIN_POSITIONS),
                attn_implementation="eager",
            ),
            add_pooling_layer=False,
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """``tokens`` (B, T) int64, ``mask`` (B, T) float, 1 for a token -> (B, T, D).

        The additive 4-D mask is computed here: transformers' own mask building leaves data-dependent operators in an
        exported graph.
        """
        additive = (mask[:, None, None, :] - 1.0) * 1e4
        hidden: Tensor = self.bert.embeddings(input_ids=tokens)
        for layer in self.bert.encoder.layer:
            output = layer(hidden, attention_mask=additive)
            hidden = output[0] if isinstance(output, tuple) else output
        return hidden
