import pytest

from sr_transformers.evaluation.loading import load_config, load_model


@pytest.mark.parametrize("load", [load_model, load_config])
def test_a_folder_without_a_model_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path} holds no model \(config.json is missing\)"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "no such/place", "/runs/missing"])
def test_what_is_neither_a_folder_nor_a_name_on_the_hub_never_reaches_it(name, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(FileNotFoundError, match=f"{name}: there is no such folder"):
        load_model(name)


def test_what_the_hub_does_not_give_is_named():
    with pytest.raises(OSError, match="org/absent: there is no such folder, and the Hub did not give it"):
        load_model("org/absent")  # the tests have no Hub


def test_a_folder_is_loaded(tmp_path):
    from sr_transformers import LSRMConfig, LSRMForCausalLM

    LSRMForCausalLM(
        LSRMConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path)
    assert load_config(tmp_path).vocab_size == load_model(tmp_path).config.vocab_size == 9
