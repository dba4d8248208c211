"""Run ``python -m benchmarks.model_card MODEL [--run RUN_FOLDER]``: write the card of a model."""

import tyro

from benchmarks.model_card.model_card import Args, main

if __name__ == "__main__":
    main(tyro.cli(Args))
