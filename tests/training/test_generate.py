"""Generation: a batch says what single prompts say, and a predictions file survives a kill."""

import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from studykit.data.rows import Row
from studykit.errors import UserError
from studykit.training import generate as training_generate
from studykit.training.decoding import Decoding, cut
from studykit.training.generate import batch_consistency, generate, predict
from tests.tuners.models import fused

WORDS = ["<pad>", "<end>", *(f"w{i}" for i in range(38))]
PROMPTS = [" ".join(f"w{(7 * i + j * j) % 38}" for j in range(1 + 5 * i % 13)) for i in range(12)]
ROWS = [Row(f"r{i}", "lua", prompt, "") for i, prompt in enumerate(PROMPTS)]


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
    seen, complete = [], training_generate._complete

    def spy(model, tokenizer, batch, decoding):
        seen.append([list(request.ids) for request in batch])
        return complete(model, tokenizer, batch, decoding)

    monkeypatch.setattr(training_generate, "_complete", spy)
    return seen


def test_batches_say_what_single_prompts_say(model, tokenizer):
    single = generate(model, tokenizer, PROMPTS, Decoding(12), batch_size=1)
    for batch_size in (5, 12):
        assert generate(model, tokenizer, PROMPTS, Decoding(12), batch_size=batch_size) == single
    assert len({completion.tokens for completion in single}) > 6
    assert 0 < sum(completion.finished for completion in single) < len(single)
    for completion in single:
        assert completion.finished or len(completion.tokens) == 12
        assert not set(completion.tokens) & {1, 2, 3}
        assert completion.text.split() == [WORDS[token] for token in completion.tokens if token]  # 0 is special


def test_a_fusion_generates_in_batches_as_it_does_alone(tokenizer):
    model = fused(["python", "ruby"], vocab_size=len(WORDS))
    single = generate(model, tokenizer, PROMPTS, Decoding(6), batch_size=1)
    assert generate(model, tokenizer, PROMPTS, Decoding(6), batch_size=6) == single


def test_greedy_means_the_most_likely_next_token(model, tokenizer):
    ids = tokenizer(PROMPTS[4])["input_ids"]
    found = generate(model, tokenizer, [ids], Decoding(6), batch_size=1)[0]
    model.eval()
    for token in found.tokens:
        assert model(torch.tensor([ids])).logits[0, -1].argmax() == token
        ids = [*ids, token]


def test_longest_prompts_come_first_and_order_is_restored(model, tokenizer, calls):
    whole = generate(model, tokenizer, PROMPTS, Decoding(2), batch_size=3)
    lengths = [len(prompt) for batch in calls for prompt in batch]
    assert lengths == sorted(lengths, reverse=True) and len(calls) == 4
    backwards = generate(model, tokenizer, PROMPTS[::-1], Decoding(2), batch_size=3)
    assert backwards[::-1] == whole


def test_the_model_is_left_as_it_was(model, tokenizer):
    model.train()
    model.model.layers[0].eval()
    model.config.use_cache = False
    generate(model, tokenizer, PROMPTS[:2], Decoding(2), batch_size=2)
    assert model.training and not model.model.layers[0].training and model.model.layers[1].training
    assert model.config.use_cache is False
    model.config.use_cache = True


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_out_of_memory_halves_the_batch(model, tokenizer, monkeypatch, error):
    expected = generate(model, tokenizer, PROMPTS, Decoding(3), batch_size=4)
    complete, sizes = training_generate._complete, []

    def scarce(model, tokenizer, batch, decoding):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise error
        return complete(model, tokenizer, batch, decoding)

    monkeypatch.setattr(training_generate, "_complete", scarce)
    assert generate(model, tokenizer, PROMPTS, Decoding(3), batch_size=12) == expected
    assert sizes == [12, 6, 3, 3, 3, 3]
    monkeypatch.setattr(training_generate, "_complete", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(UserError, match="does not fit into memory"):
        generate(model, tokenizer, PROMPTS, Decoding(3), batch_size=4)


def test_other_errors_pass_through(model, tokenizer, monkeypatch):
    monkeypatch.setattr(training_generate, "_complete", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes")))
    with pytest.raises(RuntimeError, match="shapes"):
        generate(model, tokenizer, PROMPTS, Decoding(3), batch_size=4)
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        generate(model, tokenizer, ["w1", ""], Decoding(3), batch_size=4)


@pytest.mark.parametrize("cut", [0, 10, 0.4, 0.7, -3, -1])
def test_a_killed_run_continues_where_it_was(model, tokenizer, tmp_path, calls, cut):
    """Whatever byte the file ends at, the result is the same and finished rows are not generated again."""
    options = {"decoding": Decoding(4), "batch_size": 3, "settings": {"checkpoint": "abc", "seed": 1}}
    path = tmp_path / "run" / "predictions.jsonl"
    whole = predict(model, tokenizer, ROWS, path, **options)
    assert [record["id"] for record in whole] == [row.id for row in ROWS]
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
    options = {"decoding": Decoding(4), "batch_size": 4}
    path = tmp_path / "predictions.jsonl"
    some = predict(model, tokenizer, ROWS[:5], path, **options)
    calls.clear()
    everything = predict(model, tokenizer, ROWS, path, **options)
    assert everything[:5] == some and sum(map(len, calls)) == 7
    changed = predict(model, tokenizer, [replace(ROWS[0], prompt="w1 w2")], path, **options)
    assert changed[0]["key"] != some[0]["key"]


def test_changed_settings_are_refused_by_name(model, tokenizer, tmp_path):
    path = tmp_path / "predictions.jsonl"
    predict(model, tokenizer, ROWS[:1], path, Decoding(2), batch_size=4, settings={"seed": 1})
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"batch_size 4 \(now 8\), seed 1 \(now 2\)"):
        predict(model, tokenizer, ROWS, path, Decoding(2), batch_size=8, settings={"seed": 2})
    assert path.read_bytes() == before


def test_lines_say_how_they_were_made(model, tokenizer, tmp_path):
    path = tmp_path / "predictions.jsonl"
    predict(model, tokenizer, ROWS[:2], path, Decoding(2), batch_size=4, max_prompt_tokens=64)
    first, *rest = map(json.loads, path.read_text().splitlines())
    assert first["settings"]["dtype"] == "float32" and first["settings"]["attention"] == "sdpa"
    assert all(set(line) == {"key", "id", "sample", "text", "tokens", "finished", "prompt_cut"} for line in rest)


def test_sampling_draws_from_the_softmax_and_does_not_depend_on_the_batch(model, tokenizer, tmp_path):
    """Frequencies of 400 first tokens equal their probabilities; each draw is the same alone, batched and resumed."""
    row, decoding = ROWS[4], Decoding(1, temperature=3.0, samples=400)
    records = predict(model, tokenizer, [row], tmp_path / "a.jsonl", decoding, batch_size=200)
    logits = model(torch.tensor([tokenizer(row.prompt)["input_ids"]])).logits[0, -1]
    expected = torch.softmax(logits / 3.0, -1)
    drawn = [record["tokens"][0] if record["tokens"] else 1 for record in records]  # an end token is not kept
    seen = torch.bincount(torch.tensor(drawn), minlength=len(WORDS)) / 400
    ends = expected[1:4].sum()
    kept = torch.ones(len(WORDS), dtype=bool)
    kept[1:4] = False
    assert torch.allclose(seen[kept], expected[kept], atol=4 * 0.025) and abs(seen[1] - ends) < 0.1
    assert len(set(drawn)) > 5
    few = Decoding(5, temperature=2.0, top_p=0.9, samples=3, seed=7)
    whole = predict(model, tokenizer, ROWS, tmp_path / "b.jsonl", few, batch_size=36)
    single = predict(model, tokenizer, ROWS, tmp_path / "c.jsonl", few, batch_size=1)
    assert whole == single and [r["sample"] for r in whole[:4]] == [0, 1, 2, 0]
    more = predict(model, tokenizer, ROWS[:2], tmp_path / "d.jsonl", Decoding(5, 2.0, 0.9, 5, 7), batch_size=4)
    assert [r for r in more if r["sample"] < 3] == whole[:6]
    other = predict(model, tokenizer, ROWS, tmp_path / "e.jsonl", Decoding(5, 2.0, 0.9, 3, 8), batch_size=36)
    assert other != whole


def test_little_top_p_is_greedy(model, tokenizer):
    greedy = generate(model, tokenizer, PROMPTS, Decoding(6), batch_size=4)
    assert generate(model, tokenizer, PROMPTS, Decoding(6, temperature=0.7, top_p=1e-6), batch_size=4) == greedy


def test_stop_strings_end_a_completion_before_them(model, tokenizer, tmp_path):
    """Row by row: what one row stops at, another may write."""
    free = generate(model, tokenizer, PROMPTS, Decoding(12), batch_size=12)
    index = next(i for i, said in enumerate(free) if len(said.text.split()) > 4 and not said.finished)
    words = free[index].text.split()
    stop = f"{words[2]} {words[3]}"
    rows = [replace(row, stop=(stop, "never")) if i == index else row for i, row in enumerate(ROWS)]
    records = predict(model, tokenizer, rows, tmp_path / "p.jsonl", Decoding(12), batch_size=12)
    assert records[index]["finished"] and records[index]["text"] == free[index].text[: free[index].text.index(stop)]
    assert len(records[index]["tokens"]) < 12
    assert [r["text"] for i, r in enumerate(records) if i != index] == [
        said.text for i, said in enumerate(free) if i != index
    ]
    everywhere = predict(model, tokenizer, rows, tmp_path / "q.jsonl", Decoding(12, stop=()), batch_size=12)
    assert [r["text"] for r in everywhere] == [said.text for said in free]
    assert cut("a\ndef b\nclass c", ["\nclass", "\ndef"]) == ("a", True) and cut("abc", []) == ("abc", False)


def test_a_batch_is_compared_with_single_prompts(model, tokenizer, tmp_path):
    records = predict(model, tokenizer, ROWS, tmp_path / "p.jsonl", Decoding(6), batch_size=12)
    found = batch_consistency(model, tokenizer, ROWS, records, Decoding(6), batch_size=12, n=4)
    assert (found["rows"], found["same"]) == (4, 4) and set(found["prompts_per_second"]) == {"alone", "batched"}
    records[0]["tokens"] = [5]
    assert batch_consistency(model, tokenizer, ROWS, records, Decoding(6), batch_size=12, n=4)["same"] == 3
    assert batch_consistency(model, tokenizer, ROWS, records, Decoding(6), batch_size=12, n=0) is None


CONFIGURED = [
    {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.05}, {"no_repeat_ngram_size": 2},
    {"min_new_tokens": 11}, {"bad_words_ids": [[i] for i in range(8, 30)]}, {"suppress_tokens": list(range(8, 30))},
    {"begin_suppress_tokens": list(range(8, 30))}, {"guidance_scale": 3.0}, {"sequence_bias": [[[9], 100.0]]},
    {"max_time": 0.0001}, {"num_return_sequences": 3, "num_beams": 3}, {"stop_strings": ["w1"]},
    {"penalty_alpha": 0.6, "top_k": 4}, {"prompt_lookup_num_tokens": 3}, {"forced_eos_token_id": 1},
    {"exponential_decay_length_penalty": [2, 9.0]}, {"encoder_repetition_penalty": 4.0}, {"max_length": 3},
    {"output_scores": True, "return_dict_in_generate": True}, {"cache_implementation": "static"}, {"use_cache": False},
    {"cache_implementation": "quantized"}, {"num_beams": 4, "length_penalty": 3.0}, {"dola_layers": "low"},
]  # fmt: skip


@pytest.mark.parametrize("options", CONFIGURED, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize("kind", ["base", "fusion"])
def test_of_generation_config_only_the_end_tokens_act(options, kind, model, tokenizer):
    plain = model if kind == "base" else fused(["python", "ruby"], vocab_size=len(WORDS))
    expected = generate(plain, tokenizer, PROMPTS[:4], Decoding(12), batch_size=4)
    base = plain if kind == "base" else plain.base_model.model
    before = base.generation_config
    base.generation_config = GenerationConfig(eos_token_id=before.eos_token_id, **options)
    try:
        assert generate(plain, tokenizer, PROMPTS[:4], Decoding(12), batch_size=4) == expected
        assert vars(base.generation_config)[next(iter(options))] is not None, "it is the checkpoint's again"
    finally:
        base.generation_config = before


def test_the_end_tokens_that_act_are_recorded(model):
    assert training_generate.settings_of(model, Decoding(3), 1, None)["end_tokens"] == [1, 2, 3]
