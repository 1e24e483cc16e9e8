# Copyright 2026 The sr_transformers authors. Licensed under the Apache License, Version 2.0.
"""LSRM: a decoder-only transformer over item ids that names the next item.

GPT-2's arithmetic (pre-norm blocks, learned absolute positions, exact GELU, biases, tied head without bias), unless the
configuration chooses other blocks, in the form that transformers' own decoders have today: attention interface, cache,
recorded outputs, parallel plans. Two things are special: dropout rates differ by layer (`LSRMConfig.layer_dropout`),
and given labels in training the head never makes the logits of all positions (`loss_lsrm`).

This file travels to the Hub beside the weights: it imports torch, transformers and its flat siblings only.
"""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.import_utils import is_tracing
from transformers.utils.output_capturing import capture_outputs

from .biases_lsrm import LSRMAttentionBias, LSRMBiasTable
from .configuration_lsrm import NUM_SPECIAL, LSRMConfig
from .divided_lsrm import look_up, refuse_resizing, refuse_undivided
from .dropout_lsrm import LSRMDropout
from .folders_lsrm import WholeFoldersMixin
from .generation_lsrm import SlidingGenerationMixin
from .head_lsrm import CosineHead, LSRMTemperature
from .history_lsrm import LSRMClock, LSRMHistory, ZeroEmbedding, ZeroLinear
from .item_scores_lsrm import ItemScores, add_scores
from .layers_lsrm import LSRMAttention, LSRMDecoderLayer, make_norm
from .loss_lsrm import loss_of_logits, next_item_loss
from .own_items_lsrm import last_places
from .reading_lsrm import read_past
from .rotary_lsrm import rotation_at
from .scoring_lsrm import item_range, score_items
from .targets_lsrm import targets_after
from .varlen_lsrm import implementation_of, masking_config


class LSRMPreTrainedModel(WholeFoldersMixin, PreTrainedModel):
    """What all LSRM classes share: capabilities declared to transformers.

    Initial weights are transformers' default: normal with `initializer_range` for matrices and embeddings, zero for
    biases and the padding row, one for norms.
    """

    config: LSRMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LSRMDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _can_compile_fullgraph = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": LSRMDecoderLayer, "attentions": LSRMAttention}

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resizes the item table as transformers does, and keeps track of what is an item.

        Args:
            new_num_tokens: tokens of the vocabulary from now on; all rows up to there but the special ones are items.
                None: the same items. With more or fewer, `items_fingerprint` no longer says which they are.
            pad_to_multiple_of: rows are added up to a multiple of this, which are no items; mean_resizing: as there.
        """
        refuse_resizing(self.get_input_embeddings())
        if any(part in ("items", "mix") for part in self.config.history):
            raise ValueError(
                "a model whose history counts by item (items, mix) cannot be resized; `finetune`, or "
                "`finetuning.vocabulary`, gives it another vocabulary."
            )
        if self.config.head == "normalised" and not self.config.tie_word_embeddings:
            raise ValueError("a normalised head with weights of its own cannot be resized: tie_word_embeddings.")
        before = item_range(self.config)[1]
        last = before if new_num_tokens is None else new_num_tokens
        embeddings = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self.config.num_items = None if last == self.config.vocab_size else last - NUM_SPECIAL
        self.config.items_fingerprint = self.config.items_fingerprint if last == before else None
        generation = getattr(self, "generation_config", None)
        if generation is not None and generation.suppress_tokens:  # what was no item may be one now
            generation.suppress_tokens = [token for token in generation.suppress_tokens if token < NUM_SPECIAL]
        return embeddings

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ZeroEmbedding | ZeroLinear | LSRMBiasTable | LSRMTemperature):
            for parameter in module.parameters():
                init.zeros_(parameter)
        elif isinstance(module, LSRMHistory):  # counts that whoever trains fills in
            for buffer in module.buffers():
                init.zeros_(buffer)


class LSRMModel(LSRMPreTrainedModel):
    """The decoder without its head: item ids in, one hidden state per position out."""

    _auto_class = "AutoModel"

    def __init__(self, config: LSRMConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        learned = config.position == "learned"
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size) if learned else None
        self.attention_bias = LSRMAttentionBias(config) if config.biases_attention else None
        self.clock = LSRMClock(config) if "clock" in config.history else None
        self.embedding_dropout = LSRMDropout(config.embedding_dropout)
        self.layers = nn.ModuleList([LSRMDecoderLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = make_norm(config)
        self.temperature = None if config.head == "plain" else LSRMTemperature(config.head == "normalised")
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        last_only: bool = False,
        clock: torch.FloatTensor | None = None,
        moments: torch.LongTensor | None = None,
        times: torch.LongTensor | None = None,
        query_times: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Encodes sequences.

        Args:
            input_ids: `(B, T)` int64 in `[0, V)`, oldest item first.
            attention_mask: `(B, T)`, 1 for items and 0 for padding on either side; None means no padding.
            position_ids: `(B, T)` int64 in `[0, max_position_embeddings)`. Several users in one row are told apart by
                positions that restart at 0 (without mask and cache; flash-attention and torch_varlen need
                `cu_seq_lens_*` too). None: positions count the items that the mask keeps, so padding moves nothing.
            past_key_values: keys and values of earlier items.
            inputs_embeds: `(B, T, d)` instead of `input_ids`.
            use_cache: whether to return `past_key_values`.
            last_only: return the state of the last position alone, `(B, 1, d)`: what ranking needs. The last layer
                then computes little more than keys and values for all the others. For eager and sdpa attention.
            clock: `(B, T, 2)` of `own_items_lsrm.Pasts.clock`, for a model that reads moments ("clock" in `history`).
            moments: `(B, K)` int64 of all K items that attention sees, those in the cache too, in the log's unit of
                time, for a model with `attention_time`; whatever for padding.
            times: `(B, T)` int64 moments of `input_ids` in the log's unit, for a model that reads them
                (`LSRMConfig.needs_times`); whatever for padding. Clock and moments are made from them.
            query_times: `(B,)` int64, when it is asked what comes after each row, for a model with `query_time`.

        Raises:
            ValueError: for both or neither of ids and embeddings, a sequence longer than the window, last_only or
                biases of attention with another attention, or missing moments.
        """
        implementation = implementation_of(self.config, self.training, kwargs)
        if last_only and implementation not in ("eager", "sdpa"):
            raise ValueError(f"last_only works with eager and sdpa, not {implementation}.")
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        past = {"clock": clock, "moments": moments}
        read = input_ids, attention_mask, position_ids, times, query_times
        clock, moments = read_past(self.config, past, (), *read, past_key_values).values()
        if inputs_embeds is None:
            inputs_embeds = look_up(self.embed_tokens, input_ids)
        restarting = position_ids  # only these can: whole rows need not be searched for several users
        if position_ids is None:
            position_ids = self._positions(inputs_embeds, attention_mask, past_key_values)
        if position_ids.device.type == "cpu" and position_ids.numel() and not is_tracing(position_ids):
            # Elsewhere looking at the values would stall the device; there the embedding's own assertion speaks.
            self._check_window(int(position_ids.max()) + 1)
        causal_mask = create_causal_mask(
            config=masking_config(self.config, implementation),
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=restarting,
        )
        if self.attention_bias is not None:
            causal_mask = self.attention_bias(causal_mask, inputs_embeds.shape[1], past_key_values, moments)
        # Only now: a mask is made to keep packed users apart only where there is no cache yet.
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        hidden_states, rotation = inputs_embeds, None
        if self.embed_positions is not None:
            hidden_states = hidden_states + self.embed_positions(position_ids)
        elif self.config.position == "rotary":
            rotation = rotation_at(position_ids, self.config.hidden_size // self.config.num_attention_heads)
        if self.clock is not None:
            hidden_states = hidden_states + self.clock(clock)
        hidden_states = self.embedding_dropout(hidden_states)
        layers = self.layers[: self.config.num_hidden_layers]
        for index, layer in enumerate(layers):
            last = last_only and index == len(layers) - 1
            if last and causal_mask is not None:
                causal_mask = causal_mask[:, :, -1:]
            hidden_states = layer(
                hidden_states,
                causal_mask,  # by place: re-entrant checkpointing carries no gradient to what has a name
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                last_only=last,
                rotation=rotation,
                **kwargs,
            )
        hidden_states = self.norm(hidden_states)
        if self.temperature is not None:
            hidden_states = self.temperature(hidden_states)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, past_key_values=past_key_values)

    def _positions(
        self, inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, past_key_values: Cache | None
    ) -> torch.Tensor:
        length = inputs_embeds.shape[1]
        if isinstance(attention_mask, torch.Tensor) and attention_mask.ndim == 2:
            return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        if isinstance(past, int):
            self._check_window(past + length)
        return (torch.arange(length, device=inputs_embeds.device) + past).unsqueeze(0)

    def _check_window(self, length: int) -> None:
        window = self.config.max_position_embeddings
        if length > window:
            raise ValueError(
                f"the sequence has {length} items but the model's window is {window} (max_position_embeddings): "
                "pass the most recent items only."
            )


class LSRMForCausalLM(LSRMPreTrainedModel, SlidingGenerationMixin):
    """The decoder with its next-item head, tied to the item embeddings."""

    _auto_class = "AutoModelForCausalLM"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    _pp_plan = {"lm_head": (["hidden_states"], ["logits"])}
    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: LSRMConfig):
        super().__init__(config)
        self.model = LSRMModel(config)
        self.vocab_size = config.vocab_size
        head = CosineHead if config.head == "normalised" else nn.Linear
        self.lm_head = head(config.hidden_size, config.vocab_size, bias=False)
        self.history = LSRMHistory(config) if "history" in config.past_inputs else None
        self.post_init()
        if "items" in config.history:
            self._tp_plan["history.item_table"] = "embedding_rowwise"
        # Tied weights are stored once; the Trainer warns of what a checkpoint lacks unless it stands here.
        self._keys_to_ignore_on_save = {"lm_head.weight"} if config.tie_word_embeddings else None

    @property
    def half_lives(self) -> tuple[float, ...]:
        """For `own_items_lsrm.Pasts.columns`: which decayed counts are read."""
        return () if self.history is None else self.history.half_lives

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        negative_ids: torch.LongTensor | None = None,
        negative_log_q: torch.FloatTensor | None = None,
        skip_logits: bool | None = None,
        history: dict[str, torch.Tensor] | None = None,
        clock: torch.FloatTensor | None = None,
        moments: torch.LongTensor | None = None,
        times: torch.LongTensor | None = None,
        query_times: torch.LongTensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Scores the next item at every position, or computes the loss.

        Args: as `LSRMModel.forward`, and
            labels: `(B, T)` int64, the item *at* each position (transformers' convention: shifted inside), -100 for
                no target. Padding, as the mask has it, neither predicts nor is predicted, on whichever side it stands;
                what else is no item (the unknown token) needs -100.
            logits_to_keep: only the last so many positions get logits (0: all), or a tensor of positions.
            shift_labels: `(B, T)` int64, the item *after* each position, -100 for no target; used instead of `labels`.
                By name only: a Trainer wants a value for every parameter whose name has "label" in it.
            num_items_in_batch: number of targets to divide the summed loss by; None: those of this call. transformers'
                Trainer counts labels without looking at the mask: see `targets_lsrm.targets_after`.
            negative_ids: `(S,)` int64 and negative_log_q: `(S,)`: sampled instead of full softmax (see
                `loss_lsrm.sampled_softmax_loss`).
            skip_logits: leave `logits` None; by default so in training when a loss is asked for, because the logits
                of all positions over a large vocabulary are what does not fit into memory.
            history: what the users did before (`own_items_lsrm.Pasts.columns`), for a model with `history`; None: what
                stands in `input_ids` is all that there is, so that nothing may lie in `past_key_values`. For histories
                longer than the window see `last_window`.

        Returns:
            `loss` in nats per target, over all items and nothing else; `logits` `(B, T or logits_to_keep, V)`, float32
            (float64 for a model in that), lowest for what is no item (`scoring_lsrm`).
        """
        shift_labels = kwargs.pop("shift_labels", None)
        past = {"history": history, "clock": clock, "moments": moments}
        read = input_ids, attention_mask, position_ids, times, query_times
        history, clock, moments = read_past(self.config, past, self.half_lives, *read, past_key_values).values()
        outputs: BaseModelOutputWithPast = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            clock=clock,
            moments=moments,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        extra = None
        if self.history is not None:
            refuse_undivided(self.history.parts, self.lm_head)
            if labels is None and shift_labels is None and isinstance(logits_to_keep, int) and logits_to_keep:
                history = last_places(history, hidden_states.shape[1], logits_to_keep)
                hidden_states, logits_to_keep = slice_logits_to_keep(hidden_states, logits_to_keep), 0
            extra = self.history(hidden_states, history)
        loss, items = None, item_range(self.config)
        if labels is not None or shift_labels is not None:
            targets, count = targets_after(labels, shift_labels, attention_mask, num_items_in_batch)
            if self.history is not None and self.history.mixes:
                loss = loss_of_logits(self._logits(hidden_states, 0, extra, history), targets, count, items)
            else:
                negatives = negative_ids, negative_log_q
                loss = next_item_loss(hidden_states, self.lm_head, targets, count, *negatives, items, extra)
        if skip_logits is None:
            skip_logits = self.training and loss is not None
        logits = None if skip_logits else self._logits(hidden_states, logits_to_keep, extra, history)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _logits(
        self,
        hidden_states: torch.Tensor,
        logits_to_keep: int | torch.Tensor,
        extra: ItemScores | None,
        history: dict[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Logits of the positions that are wanted, with all that the history does to them."""
        logits, width = self.score_items(slice_logits_to_keep(hidden_states, logits_to_keep)), hidden_states.shape[1]
        if self.history is None or history is None:
            return logits
        places = torch.arange(width, device=hidden_states.device)[None, :, None]
        places = slice_logits_to_keep(places, logits_to_keep)[0, :, 0]
        rows = logits.flatten(0, 1)
        if extra is not None:
            rows = add_scores(rows, extra.at(places, width))
        if self.history.mixes:
            rows = self.history.mixed(rows, history, places, item_range(self.config))
        return rows.view(logits.shape)

    def score_items(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits `(..., V)` of states `(..., d)`, see `scoring_lsrm.score_items`."""
        return score_items(self.lm_head, hidden_states, item_range(self.config))


__all__ = ["LSRMForCausalLM", "LSRMModel", "LSRMPreTrainedModel"]
