"""Publishing: one complete, loadable, described repository from a finished run, or from a scaling study.

The folder that is uploaded is built from the run alone, file by file and without dates, so that publishing a run twice
gives the same bytes and makes no second commit. The run's own folder is only read.
"""

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from huggingface_hub import DatasetCard, ModelCard

from sr_transformers.data.staging import check_output, staged
from sr_transformers.hub.check_run import EXTRAS, FinishedRun, check_run, whole
from sr_transformers.hub.curve import draw_curve
from sr_transformers.hub.eval_results import FILE as EVAL_RESULTS
from sr_transformers.hub.eval_results import FOLDER, eval_results
from sr_transformers.hub.model_card import CardOptions, Evidence, figures_of, model_card
from sr_transformers.hub.outgoing import refuse_links, refuse_private
from sr_transformers.hub.upload import repo_name, upload
from sr_transformers.records import RUN_FILE

SHARD_SIZE = "5GB"
CARD = "README.md"
# What an earlier publish of ours may have left and the new one does not have.
OURS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*_lsrm.py",
    *EXTRAS[:3],
    *(f"{name}/*" for name in (*EXTRAS[3:], FOLDER)),
)


def build(
    run: str | Path,
    folder: str | Path,
    repo_id: str,
    options: CardOptions | None = None,
    max_shard_size: str = SHARD_SIZE,
    token: str | None = None,
) -> Path:
    """Writes the exact folder that `publish` uploads: all of it or, if something is wrong, nothing.

    Args:
        run: output folder of a finished run.
        folder: to make; it must not exist or be empty.
        repo_id: name on the Hub, "org/name"; the card mentions it.
        options: of the card.
        max_shard_size: a model larger than this is cut into several safetensors files.
        token: a secret that no file may hold, beside those of the environment.

    Raises:
        FileExistsError: if `folder` has something in it.
        FileNotFoundError, ValueError: if the run cannot be published (`check_run`), the name is none, or a file holds
            a token or the path of the home folder.
        OSError: if the folder cannot be written, for example because the disk is full.
    """
    folder, name = Path(folder), repo_name(repo_id)
    check_output(folder)
    finished = check_run(run)
    with staged(folder) as staging:
        finished.model.save_pretrained(staging, max_shard_size=max_shard_size)
        finished.tokenizer.save_pretrained(staging)
        shutil.copyfile(finished.folder / RUN_FILE, staging / RUN_FILE)
        _copy_extras(finished, staging)
        options = options or CardOptions()
        with whole(finished.folder / RUN_FILE):
            draw_curve(finished.record, staging / "figures")
            results = eval_results(finished.record, options.dataset)
        if results is not None:
            (staging / EVAL_RESULTS).parent.mkdir()
            (staging / EVAL_RESULTS).write_text(results, encoding="utf-8")
        (staging / CARD).write_text(str(_card(finished, name, options, staging)), encoding="utf-8")
        refuse_private(staging, token)
    return folder


def _card(finished: FinishedRun, name: str, options: CardOptions, staging: Path) -> ModelCard:
    """The card, written without the further records first: so an error is known to be of run.json or of the others."""
    for file, evidence in ((RUN_FILE, Evidence()), (" or ".join(EXTRAS[:2]), Evidence.of(finished.folder))):
        with whole(finished.folder / file):
            card = model_card(finished.record, name, options, replace(evidence, figures=figures_of(staging)))
    return card


def _copy_extras(finished: FinishedRun, folder: Path) -> None:
    for name in EXTRAS:
        source = finished.folder / name
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copyfile(source, folder / name)


def publish(
    run: str | Path,
    repo_id: str,
    options: CardOptions | None = None,
    private: bool = False,
    branch: str = "main",
    scaling: str | Path | None = None,
    scaling_repo: str | None = None,
    max_shard_size: str = SHARD_SIZE,
    dry_run: str | Path | None = None,
    token: str | None = None,
) -> str:
    """Publishes a finished run; what was interrupted goes on where it was when it is called again.

    Args:
        private: make the repositories private if they are new.
        branch: made from main if it does not exist.
        scaling: folder of a scaling study; published beside the model as a data set and linked from its card.
        scaling_repo: the study's name on the Hub; by default the model's namespace and the folder's name.
        dry_run: write the repository into this folder and send nothing.
        token: default is the one that huggingface_hub finds (`hf auth login`, HF_TOKEN).

    Returns:
        Address of the commit that holds everything (the old one if nothing has changed), or the folder of a dry run.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `build`; nothing has been sent then.
        HubError: if the Hub refuses or cannot be reached.
    """
    options, study = options or CardOptions(), None
    if scaling is not None:
        study = repo_name(scaling_repo or f"{repo_name(repo_id).split('/')[0]}/{Path(scaling).resolve().name}")
        _check_study(Path(scaling), token)
        options = replace(options, study_repo=study, study=str(scaling))
    if dry_run is not None:
        return str(build(run, dry_run, repo_id, options, max_shard_size, token))
    with tempfile.TemporaryDirectory(prefix="sr-publish-") as temporary:
        folder = build(run, Path(temporary) / "model", repo_id, options, max_shard_size, token)
        if scaling is not None and study is not None:
            publish_study(scaling, study, private, branch, token)
        return upload(folder, repo_id, "model", private, branch, OURS, token)


def publish_study(
    study: str | Path, repo_id: str, private: bool = False, branch: str = "main", token: str | None = None
) -> str:
    """Publishes the folder of a scaling study as a data set, as it is.

    Raises:
        FileNotFoundError: if there is no such folder, or no README.md in it.
        ValueError: if the README.md has no metadata, without which the Hub shows no data set; if something in the
            folder is a link, or holds a token or the path of the home folder.
    """
    _check_study(Path(study), token)
    return upload(Path(study), repo_name(repo_id), "dataset", private, branch, (), token)


def _check_study(study: Path, token: str | None) -> None:
    if not (study / CARD).is_file():
        raise FileNotFoundError(
            f"{study / CARD}: no such file; write the study's report (sr-transformers scaling report {study} --output "
            f"{study}-report) and give that folder."
        )
    if not DatasetCard.load(study / CARD).data.to_dict():
        raise ValueError(f"{study / CARD} has no metadata block; the study is not finished.")
    refuse_links(study, sorted(path.name for path in study.iterdir()))
    refuse_private(study, token)
