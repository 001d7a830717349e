"""A BERT as transformers saves it, as our text encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lsms_rt.errors import InputError
from lsms_rt.model.text import TextEncoder
from lsms_rt.tokenizer import Tokenizer
from lsms_rt.training.bert import read_bert
from lsms_rt.training.options import TrainOptions
from lsms_rt.training.start import begin
from lsms_rt.training.validation import tokenize
from lsms_rt.training.vocabulary import vocabulary_of

SENTENCES = ("the cyst in the left lobe", "two dark lesions")
# With the marks at its ends, 64 tokens.
LONG = " ".join(["the cyst in the left lobe two dark lesions"] * 7)[: -len(" lesions")]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def save(folder: Path, name: str = "BertModel", **changes: Any) -> Any:
    """A random BERT with a tokenizer, in ``folder``."""
    import transformers

    data = vocabulary_of(SENTENCES)
    words = len(json.loads(data)["model"]["vocab"])
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=words, max_position_embeddings=80, **(SIZES | changes))
    model = getattr(transformers, name)(config).eval()
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(data)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BertModel", "BertForMaskedLM"])
def test_the_hidden_states_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    theirs = save(tmp_path, name)
    bert = read_bert(tmp_path)
    assert (bert.config.layers, bert.config.heads, bert.config.hidden_size) == (2, 4, 32)
    ours = TextEncoder(bert.config).eval()
    ours.load_state_dict(bert.state)
    assert bert.config.max_tokens == 64
    ids, mask = tokenize(Tokenizer(bert.tokenizer, bert.config.max_tokens), (*SENTENCES, LONG))
    assert mask.sum(1).tolist() == [8, 5, 64]
    base = theirs if name == "BertModel" else theirs.bert
    with torch.no_grad():
        wanted = base(input_ids=ids, attention_mask=mask).last_hidden_state
        found = ours(ids, mask)
    torch.testing.assert_close(found[mask > 0], wanted[mask > 0], atol=1e-5, rtol=1e-5)


def test_old_names_of_layer_norms_are_read(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save(tmp_path)
    wanted = read_bert(tmp_path).state
    file = tmp_path / "model.safetensors"
    renamed = {
        f"bert.{n}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in load_file(file).items()
    }
    assert any(name.endswith("gamma") for name in renamed)
    save_file(renamed, file)
    found = read_bert(tmp_path).state
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_new_network_has_the_words_of_its_text_encoder(tmp_path: Path) -> None:
    save(tmp_path)
    said: list[str] = []
    options = TrainOptions(dataset=tmp_path, output=tmp_path, init="none", text_encoder=tmp_path, image_size=64)
    start = begin(options, ["words that are not used"], said.append)
    bert = read_bert(tmp_path)
    assert start.tokenizer == (tmp_path / "tokenizer.json").read_bytes()
    assert start.model.config.text == bert.config
    state = start.model.text_encoder.state_dict()
    assert all(torch.equal(state[name], value) for name, value in bert.state.items())
    assert "2 layers of width 32" in said[0] and "at most 64 tokens" in said[0]


def test_other_networks_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    for changes, words in (
        ({"model_type": "roberta"}, "model_type 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"num_hidden_layers": None}, "no usable num_hidden_layers"),
        ({"num_attention_heads": 5}, "no multiple of 5"),
        ({"hidden_size": 64}, "do not fit"),
        ({"num_hidden_layers": 3}, "is missing"),
    ):
        file.write_text(json.dumps(values | changes))
        with pytest.raises(InputError, match=words):
            read_bert(tmp_path)
    file.write_text("{}")
    with pytest.raises(InputError, match="no model_type"):
        read_bert(tmp_path)
    file.write_text("no JSON")
    with pytest.raises(InputError, match="cannot be read"):
        read_bert(tmp_path)


def test_few_positions_are_refused(tmp_path: Path) -> None:
    import transformers

    save(tmp_path)
    words = read_bert(tmp_path).config.vocab_size
    small = transformers.BertConfig(vocab_size=words, max_position_embeddings=63, **SIZES)
    transformers.BertModel(small).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="64 positions or more"):
        read_bert(tmp_path)


def test_a_tokenizer_that_does_not_belong_to_the_weights_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(vocabulary_of([*SENTENCES, "another word"]))
    with pytest.raises(InputError, match="tokenizer that belongs"):
        read_bert(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a valid tokenizer"):
        read_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no model.safetensors"):
        read_bert(tmp_path)
