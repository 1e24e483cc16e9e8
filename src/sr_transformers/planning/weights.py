"""What a model holds before it computes: parameters by group, and the counts of the log that `history` keeps."""

from sr_transformers.evaluation.log_counts import most_stretches
from sr_transformers.lsrm.biases_lsrm import DISTANCES, TIMES
from sr_transformers.lsrm.configuration_lsrm import LAGS, SWIGLU, LSRMConfig
from sr_transformers.lsrm.history_lsrm import CLOCK_CELLS, HISTORY_CELLS


def parameter_counts(config: LSRMConfig) -> dict[str, int]:
    """Parameters by group, as `training.finish.count_parameters` counts them in a built model."""
    d, inner = config.hidden_size, config.inner_size
    norm = d if config.norm == "rms" else 2 * d
    per_layer = 4 * d + inner * (2 if config.hidden_act == SWIGLU else 1) + d + 2 * norm  # attention, feed-forward
    per_layer += 2 * d if config.residual == "gated" else 0
    tables = 1 if config.tie_word_embeddings else 2
    once = norm + (config.head != "plain")
    once += config.num_attention_heads * ((config.position == "relative") * DISTANCES + config.attention_time * TIMES)
    counts = {
        "blocks": config.num_non_embedding_parameters,
        "biases_and_norms": config.num_hidden_layers * per_layer + once,
        "item_embedding": tables * config.vocab_size * d,
        "position_embedding": config.max_position_embeddings * d if config.position == "learned" else 0,
    }
    numbers = history_numbers(config)
    return counts | ({"history": numbers} if numbers else {})


def history_numbers(config: LSRMConfig) -> int:
    """Parameters of `history`."""
    parts, d = config.history, config.hidden_size
    of_states = sum(cells for part, cells in HISTORY_CELLS.items() if part in parts)
    clock = sum(CLOCK_CELLS) * d if "clock" in parts else 0
    return of_states * (d + 1) + clock + (2 * config.vocab_size if "items" in parts else 0)


def successor_bytes(config: LSRMConfig) -> int:
    """Bytes of the successors of every item that `mix` keeps on every process (`data.transitions`). Before
    training has counted them (`successor_pairs`), the most that there can be."""
    if not config.keeps_counts:
        return 0
    counted = config.successor_pairs > 1
    pairs = config.successor_pairs if counted else LAGS * config.vocab_size * config.num_successors
    return 8 * pairs + LAGS * 8 * (config.vocab_size + 1)


def popularity_bytes(config: LSRMConfig) -> int:
    """Bytes of the counts of popularity, of all times and of late, that `mix` keeps on every process. Before training
    has counted them (`mix_pairs`), the most that there can be."""
    if not config.keeps_counts:
        return 0
    if not config.needs_times:
        return 4 * config.vocab_size
    counted = config.mix_pairs > 1
    stretches = config.mix_stretches if counted else most_stretches(config.vocab_size)
    pairs = config.mix_pairs if counted else stretches * config.vocab_size
    return 4 * config.vocab_size + 8 * (2 * stretches + 1) + 8 * pairs
