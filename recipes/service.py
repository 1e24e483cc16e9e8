"""python recipes/service.py RUN --port 8000: recommendations over HTTP, with FastAPI (pip install fastapi uvicorn).

POST /recommend takes {"history": ["sku-1", "sku-7"], "k": 10, "exclude": ["sku-3"]} and answers a list of
{"item": ..., "probability": ...}; GET /health says that the model is loaded, and /docs shows all of it. A model that
reads moments wants "times" too, one for each item of the history. Requests are answered side by side by threads, which
a Recommender allows. `benchmarks/service.py` puts it under load.
"""

import argparse

import torch
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from sr_transformers import Recommendation, Recommender

ItemId = StrictInt | StrictStr  # true and 1.0 are not the item 1


class Request(BaseModel):
    """What a client asks. Ids are those of the log, and times in its unit; unknown ids in a history are skipped."""

    model_config = ConfigDict(extra="forbid")  # a field with another name is a mistake
    history: list[ItemId] = Field(max_length=10_000)
    times: list[StrictInt] | None = Field(None, max_length=10_000)
    query_time: StrictInt | None = None
    k: StrictInt = Field(10, ge=1, le=1000)
    exclude_seen: StrictBool | None = None
    exclude: list[ItemId] = Field([], max_length=10_000)
    candidates: list[ItemId] | None = Field(None, max_length=100_000)


def build_app(recommender: Recommender) -> FastAPI:
    """The service of a model that is loaded already."""
    app = FastAPI(title="Next items")
    fallback = "error" if recommender.popular is None else "popularity"  # for a visitor of whom nothing is known

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"model": repr(recommender)}

    @app.post("/recommend")
    def recommend(asked: Request) -> list[Recommendation]:
        try:
            return recommender.recommend(**asked.model_dump(), fallback=fallback)
        except (ValueError, TypeError) as error:
            raise HTTPException(422, str(error)) from error

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder or Hub id of a run")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    torch.set_num_threads(1)  # requests run side by side: each takes one core
    uvicorn.run(build_app(Recommender.from_pretrained(options.model)), host=options.host, port=options.port)
