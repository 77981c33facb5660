"""Generation: a batch says what single prompts say, and a predictions file survives a kill."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from studykit.evaluation import generate as module
from studykit.evaluation.generate import generate, predict
from studykit.params import UserError
from tests.tuners.models import fused

WORDS = ["<pad>", "<end>", *(f"w{i}" for i in range(38))]
PROMPTS = [" ".join(f"w{(7 * i + j * j) % 38}" for j in range(1 + 5 * i % 13)) for i in range(12)]
ROWS = [{"id": f"r{i}", "prompt": prompt, "meta": {}} for i, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads of a model this small only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(WORDS), num_key_value_heads=2, **sizes))
    for parameter in made.parameters():  # larger weights, so that completions depend on their prompts
        parameter.data *= 1.0 if parameter.dim() == 1 else 8.0
    made.generation_config.eos_token_id = [1, 2, 3]  # some completions end themselves
    return made


@pytest.fixture
def calls(monkeypatch):
    """Prompts per batch that reached the model."""
    seen, complete = [], module._complete

    def spy(model, tokenizer, batch, max_new_tokens):
        seen.append(batch)
        return complete(model, tokenizer, batch, max_new_tokens)

    monkeypatch.setattr(module, "_complete", spy)
    return seen


def test_batches_say_what_single_prompts_say(model, tokenizer):
    single = generate(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=1)
    for batch_size in (5, 12):
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size) == single
    assert len({completion.tokens for completion in single}) > 6
    assert 0 < sum(completion.finished for completion in single) < len(single)
    for completion in single:
        assert completion.finished or len(completion.tokens) == 12
        assert not set(completion.tokens) & {1, 2, 3}
        assert completion.text.split() == [WORDS[token] for token in completion.tokens if token]  # 0 is special


def test_a_fusion_generates_in_batches_as_it_does_alone(tokenizer):
    model = fused(["python", "ruby"], vocab_size=len(WORDS))
    single = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=1)
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=6) == single


def test_greedy_means_the_most_likely_next_token(model, tokenizer):
    ids = tokenizer(PROMPTS[4])["input_ids"]
    found = generate(model, tokenizer, [ids], max_new_tokens=6, batch_size=1)[0]
    model.eval()
    for token in found.tokens:
        assert model(torch.tensor([ids])).logits[0, -1].argmax() == token
        ids = [*ids, token]


def test_longest_prompts_come_first_and_order_is_restored(model, tokenizer, calls):
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=2, batch_size=3)
    lengths = [len(prompt) for batch in calls for prompt in batch]
    assert lengths == sorted(lengths, reverse=True) and len(calls) == 4
    backwards = generate(model, tokenizer, PROMPTS[::-1], max_new_tokens=2, batch_size=3)
    assert backwards[::-1] == whole


def test_the_model_is_left_as_it_was(model, tokenizer):
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    generate(model, tokenizer, PROMPTS[:2], max_new_tokens=2, batch_size=2)
    assert model.training and not model.model.layers[0].training and model.model.layers[1].training
    assert model.config.use_cache is False
    model.config.use_cache = True


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_out_of_memory_halves_the_batch(model, tokenizer, monkeypatch, error):
    expected = generate(model, tokenizer, PROMPTS, max_new_tokens=3, batch_size=4)
    complete, sizes = module._complete, []

    def scarce(model, tokenizer, batch, max_new_tokens):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return complete(model, tokenizer, batch, max_new_tokens)

    monkeypatch.setattr(module, "_complete", scarce)
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=3, batch_size=12) == expected
    assert sizes == [12, 6, 3, 3, 3, 3]
    monkeypatch.setattr(module, "_complete", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match="does not fit into memory"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=3, batch_size=4)


def test_other_errors_pass_through(model, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "_complete", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=3, batch_size=4)
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        generate(model, tokenizer, ["w1", ""], max_new_tokens=3, batch_size=4)


@pytest.mark.parametrize("cut", [0, 10, 0.4, 0.7, -3, -1])
def test_a_killed_run_continues_where_it_was(model, tokenizer, tmp_path, calls, cut):
    """Whatever byte the file ends at, the result is the same and finished rows are not generated again."""
    options = {"max_new_tokens": 4, "batch_size": 3, "settings": {"checkpoint": "abc", "seed": 1}}
    path = tmp_path / "run" / "predictions.jsonl"
    whole = predict(model, tokenizer, ROWS, path, **options)
    assert [record["id"] for record in whole] == [row["id"] for row in ROWS]
    data = path.read_bytes()
    kept = data[: int(cut * len(data)) if isinstance(cut, float) else cut]
    path.write_bytes(kept)
    calls.clear()
    assert predict(model, tokenizer, ROWS, path, **options) == whole
    finished = max(0, kept.count(b"\n") - 1)
    assert sum(map(len, calls)) == len(ROWS) - finished
    assert sorted(path.read_bytes().splitlines()) == sorted(data.splitlines())
    calls.clear()
    assert predict(model, tokenizer, ROWS, path, **options) == whole and not calls


def test_only_missing_rows_are_generated(model, tokenizer, tmp_path, calls):
    options = {"max_new_tokens": 4, "batch_size": 4}
    path = tmp_path / "predictions.jsonl"
    some = predict(model, tokenizer, ROWS[:5], path, **options)
    calls.clear()
    everything = predict(model, tokenizer, ROWS, path, **options)
    assert everything[:5] == some and sum(map(len, calls)) == 7
    changed = predict(model, tokenizer, [ROWS[0] | {"prompt": "w1 w2"}], path, **options)
    assert changed[0]["key"] != some[0]["key"]


def test_changed_settings_are_refused_by_name(model, tokenizer, tmp_path):
    path = tmp_path / "predictions.jsonl"
    predict(model, tokenizer, ROWS[:1], path, max_new_tokens=2, batch_size=4, settings={"seed": 1})
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"batch_size 4 \(now 8\), seed 1 \(now 2\)"):
        predict(model, tokenizer, ROWS, path, max_new_tokens=2, batch_size=8, settings={"seed": 2})
    assert path.read_bytes() == before


def test_lines_say_how_they_were_made(model, tokenizer, tmp_path):
    path = tmp_path / "predictions.jsonl"
    predict(model, tokenizer, ROWS[:2], path, max_new_tokens=2, batch_size=4, max_prompt_tokens=64)
    first, *rest = map(json.loads, path.read_text().splitlines())
    assert first["settings"]["dtype"] == "float32" and first["settings"]["attention"] == "sdpa"
    assert all(set(line) == {"key", "id", "text", "tokens", "finished", "prompt_cut"} for line in rest)
