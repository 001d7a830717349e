"""The whole reference network, in the two halves that become the two graphs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LsmsConfig
from .decoder import FullScaleDecoder
from .decoder_folded import FoldedDecoder
from .encoder import Encoder, TextFeatures
from .forms import choose_kernels
from .presence import PresenceHead
from .text import TextEncoder

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
# Width of the shared pixel-text space of the contrastive loss.
EMBEDDING = 64


class LSMS(nn.Module):
    """Language-guided Scale-aware MedSegmentor, arXiv 2408.17347, reconstructed: no code or weights were released.

    The docstrings of ``encoder``, ``decoder`` and ``text`` name the source of each part, and what we chose.
    ``encode_text`` depends on the sentence only, ``segment`` on the image and on the result of ``encode_text``.

    ``kernels`` selects what computes the encoder's blocks: "stock", the folded algebra in PyTorch's operations;
    "triton", the same and the rest of a block in our kernels (an NVIDIA GPU, no gradients; raises ``MachineError`` if
    they cannot run); "auto", Triton if it runs, else stock, and the choice is logged; "reference", the block's
    definition, for comparisons; "plugins", our kernels inside SVLA only, for the exporter.
    """

    def __init__(self, config: LsmsConfig, kernels: str = "stock") -> None:
        super().__init__()
        self.config = config
        self.kernels = choose_kernels(kernels)
        self.text_encoder = TextEncoder(config.text)
        self.encoder = Encoder(config, self.kernels)
        self.decoder: FullScaleDecoder | FoldedDecoder = FullScaleDecoder(config, self.kernels)
        self.presence = PresenceHead(config.decoder_width // 2) if config.presence else None
        # Only the contrastive loss (abstract of v3) uses these two; they are not exported.
        self.pixel_projection = nn.Conv2d(config.decoder_width // 2, EMBEDDING, 1)
        self.text_projection = nn.Linear(config.text.hidden_size, EMBEDDING)

    def encode_text(self, tokens: Tensor, mask: Tensor) -> TextFeatures:
        """``tokens`` (B, T) int64, ``mask`` (B, T) float32 -> keys and values of every block."""
        return self.encoder.project_text(self.text_encoder(tokens, mask), mask)

    def segment(self, image: Tensor, text: TextFeatures) -> Tensor:
        """``image`` (B, 1, H, W) float in [-1, 1] -> logits (B, 1, H, W); H and W are multiples of 32."""
        features = self.decoder.features(self.encoder(image, text))
        small = self.decoder.logits(features)
        logits = F.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)
        if self.presence is None:
            return logits
        return torch.minimum(logits, self.presence(features, small))

    def forward(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """``image`` (B, 1, H, W), ``tokens`` (B, T), ``mask`` (B, T) -> logits (B, 1, H, W)."""
        return self.segment(image, self.encode_text(tokens, mask))

    def fold_decoder(self) -> LSMS:
        """Replace the decoder by ``FoldedDecoder``, which is equivalent and needs fewer operations; return self.

        For inference and export only: a model with a folded decoder can be neither trained nor saved.
        """
        if isinstance(self.decoder, FullScaleDecoder):
            self.decoder = FoldedDecoder(self.decoder).to(self.decoder.token_embedding).eval()
        return self

    @classmethod
    def from_pretrained(cls, folder: str | Path, kernels: str = "stock") -> LSMS:
        """Load the model of a checkpoint folder, in float32 and eval mode; ``kernels`` as in the constructor.

        Raises ``FileNotFoundError`` with the missing file's name, ``ValueError`` for a config or weights that cannot be
        read, and when a tensor is missing, left over or of another shape.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; use one with {CONFIG}, {WEIGHTS} and {TOKENIZER}")
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} is not a checkpoint: it has no {name}")
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG} is not valid JSON ({error})") from error
        model = cls(LsmsConfig.from_dict(config), kernels)
        try:
            state = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
        except SafetensorError as error:
            raise ValueError(f"{folder / WEIGHTS} is not a safetensors file ({error})") from error
        expected = model.state_dict()
        wrong = [n for n in expected if n in state and state[n].shape != expected[n].shape]
        missing, extra = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
        if missing or extra or wrong:
            raise ValueError(
                f"{folder / WEIGHTS} does not fit its config.json: missing {missing[:3]} ({len(missing)}), "
                f"unknown {extra[:3]} ({len(extra)}), other shape {wrong[:3]} ({len(wrong)})"
            )
        model.load_state_dict({n: t.to(expected[n].dtype) for n, t in state.items()})
        return model.eval()

    def save_pretrained(
        self, folder: str | Path, *, tokenizer: str | Path | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write ``config.json`` and ``model.safetensors`` (and copy ``tokenizer`` to ``tokenizer.json``).

        ``dtype`` is how the weights are stored; they are always loaded as float32.
        """
        from safetensors.torch import save_file

        if not isinstance(self.decoder, FullScaleDecoder):
            raise ValueError(
                "a model with a folded decoder cannot be saved as a checkpoint; save it before fold_decoder()"
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps(self.config.to_dict(), indent=2) + "\n")
        state = {n: t.to(dtype) if t.is_floating_point() else t for n, t in self.state_dict().items()}
        save_file({n: t.contiguous() for n, t in state.items()}, folder / WEIGHTS)
        if tokenizer is not None and Path(tokenizer) != folder / TOKENIZER:
            shutil.copyfile(tokenizer, folder / TOKENIZER)
