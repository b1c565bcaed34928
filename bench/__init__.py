"""The benchmark suite: what `parallel` costs, side by side with its references.

    python -m bench                      every row, a table, bench/results/bench.{json,png}
    python -m bench --quick              the same with few rounds, in under half a minute
    python -m bench --rows process array

A *row* is one piece of work (a no-op in a fresh process, a round trip on a channel). Its
*contenders* do that work, ours first, each in a process of its own that stays for the whole row.
They take turns (A B C, C B A, ...), so that what else happens on the machine hits all of them
alike. A *bar* says how the row's medians must compare.

The layers, each importing only those above it:

    samples     pure: what a contender cost
    bars        pure: what must hold between samples, and the verdict
    cpus        where the two ends of a conversation run
    rows        the table: rows, contenders, bars, how many rounds
    seat        the process that a contender sits in;  turns: its side of the conversation
    runner      lets the contenders of a row take turns
    result      a row with what came of it
    record, report, plot    results as JSON, as a table, as a picture
    hosts       ssh hosts for those who are not trio's;  conversations: what is asked over a channel
    contenders/ the work itself, one module a library; nothing imports these but a seat
    noop, workers   what our own side runs in its workers
"""
