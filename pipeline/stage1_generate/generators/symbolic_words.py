"""Names and things of the symbolic problems; train and eval share none of them."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = {
    "train": "Nora Mark Ivan Greta Hugo Salma Pedro Wendy Oscar Fatima Liam Yusuf Petra Dmitri "
    "Chloe Rajiv Helen Marcus Tanvi Erik Paolo Judith Amir Sofia Kevin Lucia Bjorn Naomi Walter "
    "Zahra Patrick Mei Oleg Celine Dana Ruth Stefan Aiko Gilbert Maren Tomas Leila Curtis Yara "
    "Philip Anouk Vikram Edith Jorge Selma Bruce Noemi Kirill Agnes Douglas Imani Fabian Hazel "
    "Milan Rita Samuel Ebba Warren Lotte Karim Joyce Ennio Vera Alfred Priya Boris Elsa Trevor "
    "Malik Ursula Nikhil Carlos Dorothy Emil Farah",
    "eval": "Quentin Abena Ravi Lorenz Miriam Theo Ingrid Caspar Olivia Hamid Beatriz Jakub Sunil "
    "Adele Ronan Xenia Gustav Latifa Piers Kenji Mabel Otto Svetlana Brandt Jolie Harun Zelda "
    "Ambrose Deepak Colette",
}
# What each person holds -> what tells one from another.
_THINGS = {
    "train": {
        "ball": "red blue green yellow white black orange purple",
        "scarf": "pink grey brown beige striped plain woollen silk",
        "book": "history cookery travel poetry science music gardening art",
    },
    "eval": {
        "key": "brass iron silver golden wooden copper rusty tiny",
        "mask": "fox owl wolf bear tiger rabbit lion crow",
    },
}

NAMES: Mapping[str, tuple[str, ...]] = {side: tuple(text.split()) for side, text in _NAMES.items()}
THINGS: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    side: tuple((thing, tuple(kinds.split())) for thing, kinds in things.items())
    for side, things in _THINGS.items()
}
