"""RecTools trained to its plateau: SASRec, eSASRec (LiGR blocks, sampled softmax) and the network of fast_transformers.

The settings are those of the authors' public comparison: github.com/blondered/transformer_benchmark, configs/paper/loo.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning
import torch
from plateau import Histories, Plateau, padded
from rectools import Columns
from rectools.dataset import Dataset
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, build_sequences
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers
from torch.nn.functional import cross_entropy
from worker import main
from worker_rectools import frame, new_trainer

warnings.filterwarnings("ignore")
FEW_ITEMS = 10_000


class Watch(pytorch_lightning.Callback):
    """Validates. RecTools copies its trainer, callbacks included: the plateau stays outside."""

    settings: dict[str, Any]
    model: SASRecModel
    plateau: Plateau

    def on_train_start(self, trainer: Any, module: Any) -> None:
        numbers = np.zeros(Histories(Watch.settings["folder"]).num_items, np.int64)
        known = Watch.model.data_preparator.item_id_map
        places = known.convert_to_internal(np.arange(len(numbers)), strict=False, return_missing=True)
        found = np.setdiff1d(np.arange(len(numbers)), places[1])
        numbers[found] = places[0]  # 0 is padding: an item that the library dropped with the older history
        window = Watch.settings["window"]

        def encode(histories: Sequence[np.ndarray]) -> np.ndarray:
            rows = [numbers[history] for history in histories]
            batch = {"x": padded([row[row > 0] for row in rows], window, 0)}
            network = module.torch_model
            return network.encode_sessions(batch, network.item_model.get_all_embeddings())[:, -1].numpy()

        def items() -> np.ndarray:
            vectors = module.torch_model.item_model.get_all_embeddings().detach().numpy()[numbers]
            vectors[numbers == 0] = np.nan
            return vectors

        Watch.plateau = Plateau(Watch.settings, module, encode, items)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.should_stop = Watch.plateau.epoch()


def lightning(settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    """`SASRecModel.fit` until the plateau."""
    pytorch_lightning.seed_everything(settings["seed"], verbose=False)
    Watch.settings = settings
    Watch.model = SASRecModel(
        n_factors=settings["width"],
        n_blocks=settings["layers"],
        n_heads=settings["heads"],
        dropout_rate=settings["dropout"],
        session_max_len=settings["window"],
        batch_size=128,
        lr=1e-3,
        get_trainer_func=lambda: new_trainer(max_epochs=100_000, callbacks=[Watch()]),
        **more,
    )
    Watch.model.fit(Dataset.construct(frame(Histories(settings["folder"]).train)))
    return Watch.plateau.result()


def sasrec(settings: dict[str, Any]) -> dict[str, Any]:
    """SASRec: the full softmax instead of the comparison's 256 negatives where that is the cheaper one here, and better
    on ml-1m by others' numbers; the negatives for large catalogues, where the full one is too slow."""
    if Histories(settings["folder"]).num_items < FEW_ITEMS:
        return lightning(settings, loss="softmax") | {"loss": "softmax"}
    return lightning(settings, loss="sampled_softmax", n_negatives=256) | {"loss": "softmax of 256 negatives"}


def esasrec(settings: dict[str, Any]) -> dict[str, Any]:
    """eSASRec: LiGR blocks and a softmax over 256 sampled negatives."""
    return lightning(
        settings,
        loss="sampled_softmax",
        n_negatives=256,
        transformer_layers_type=LiGRLayers,
        use_key_padding_mask=True,
    )


def fast(settings: dict[str, Any]) -> dict[str, Any]:
    """`FlatSASRecNet` of fast_transformers; the package has no training loop for ids, so this one is plain torch."""
    torch.manual_seed(settings["seed"])
    histories = Histories(settings["folder"])
    log = frame(histories.train)
    times = torch.from_numpy(log[Columns.Datetime].astype("int64").to_numpy())
    columns = [torch.from_numpy(log[name].to_numpy().astype(np.int64)) for name in (Columns.User, Columns.Item)]
    x, y, known, _ = build_sequences(*columns, times, max_len=settings["window"])
    numbers = np.zeros(histories.num_items, np.int64)
    numbers[known.numpy()] = np.arange(1, len(known) + 1)
    sizes = {"n_factors": settings["width"], "n_blocks": settings["layers"], "n_heads": settings["heads"]}
    net = FlatSASRecNet(len(known), session_max_len=settings["window"], dropout=settings["dropout"], **sizes)
    for weights in net.parameters():  # as RecTools' own training does; left as they are, vectors of items are N(0, 1)
        if weights.dim() > 1:
            torch.nn.init.xavier_normal_(weights)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.98))

    def encode(histories: Sequence[np.ndarray]) -> np.ndarray:
        rows = [numbers[history] for history in histories]
        return net.encode_last(padded([row[row > 0] for row in rows], settings["window"], 0)).numpy()

    def items() -> np.ndarray:
        vectors = net.item_emb.weight.detach().numpy()[numbers]
        vectors[numbers == 0] = np.nan
        return vectors

    plateau = Plateau(settings, net, encode, items)
    loader = torch.utils.data.DataLoader(SequenceBatchDataset(x, y), batch_size=128, shuffle=True)
    while True:
        for batch in loader:
            loss = cross_entropy(net(batch).flatten(0, 1), batch["y"].flatten() - 1, ignore_index=-1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not bool(torch.isfinite(loss)):
            return {"skipped": "its loss is not finite: rows of padding alone have no attention weights"}
        if plateau.epoch():
            return plateau.result()


if __name__ == "__main__":
    main({f.__name__: f for f in (sasrec, esasrec, fast)}, ("rectools", "torch", "pytorch-lightning", "numpy"))
