#!/usr/bin/env python3
"""How many pairs it takes to prove that a p50 that is 10 % worse is worse by more than its margin of 5 %, by the noise of self-test.json.

Draws pairs anew from those of the decisions on one program, makes each candidate 10 % worse, and asks the one-sided signed-rank test (normal
approximation, with continuity correction) at 0.0125: 0.05 over four gated metrics, one look, no confirmation. Seed 1, 400 draws a row.
"""

import json
import math
import pathlib
import random

ALPHA, WORSE, MARGIN, DRAWS = 0.05 / 4, math.log(1.10), math.log(1.05), 400


def p_worse(differences):
    ranked = sorted(differences, key=abs)
    n = len(ranked)
    positive = sum(rank for rank, value in enumerate(ranked, 1) if value > 0)
    z = (positive - n * (n + 1) / 4 - 0.5) / math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    return math.erfc(z / math.sqrt(2)) / 2


def main():
    test = json.loads(pathlib.Path(__file__).with_name("self-test.json").read_text())
    [same] = [trial for trial in test["trials"] if not trial["faults"]]
    pairs = [pair for decision in same["decisions"] for pair in decision["pairs"] if pair["left_out"] is None]
    p50 = "response_time_ns_p50"
    ratios = [math.log(pair["candidate"][p50] / pair["baseline"][p50]) for pair in pairs]
    apart = sorted(math.expm1(abs(ratio)) for ratio in ratios)
    print(f"{len(ratios)} pairs, apart by {apart[len(apart) // 2]:.1%} in the median, {apart[len(apart) * 9 // 10]:.1%} in one of ten")
    draw = random.Random(1)
    for count in (20, 40, 60, 80, 100, 140, 200):
        proven = sum(
            p_worse([draw.choice(ratios) + WORSE - MARGIN for _ in range(count)]) <= ALPHA for _ in range(DRAWS)
        )
        print(f"{count:4} pairs: proven in {proven / DRAWS:.1%}")


main()
