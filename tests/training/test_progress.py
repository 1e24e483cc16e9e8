from types import SimpleNamespace

from sr_transformers.training.progress import TrainingProgress


class Bar:
    """Stands in for tqdm and remembers."""

    def __init__(self):
        self.lines, self.postfix = [], None

    def write(self, text):
        self.lines.append(text)

    def set_postfix_str(self, text):
        self.postfix = text


def log(entry, main_process=True):
    progress = TrainingProgress()
    progress.training_bar = Bar()
    state = SimpleNamespace(is_world_process_zero=main_process, epoch=2.0, global_step=30)
    progress.on_log(None, state, None, entry)
    return progress.training_bar


def test_a_validation_is_one_short_line():
    entry = {"eval_loss": 5.25, "eval_hr@10": 0.3, "eval_ndcg@10": 0.17, "eval_mrr": 0.1}
    assert log(entry).lines == ["epoch  2.00  validation: loss 5.2500, hr@10 0.3000, ndcg@10 0.1700"]


def test_the_training_loss_stands_beside_the_bar():
    assert log({"loss": 4.2}).postfix == "loss 4.200"


def test_the_switch_is_told():
    assert log({"switched_to_sgd_at": 30.0}).lines == ["validation stopped improving: SGD from step 30 on"]


def test_other_processes_are_silent():
    bar = log({"loss": 4.2, "eval_loss": 1.0}, main_process=False)
    assert (bar.lines, bar.postfix) == ([], None)
