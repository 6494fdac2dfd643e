"""The papers' claims: what each says, the runs that test it, and what came out here.

    python -m claims list [--paper=alexnet]
    python -m claims run ID ... [--budget=MINUTES] [--seeds=3] [--data_dir=DIR]
    python -m claims sweep --config=CONFIG --grid FIELD=VALUE,VALUE ...
    python -m claims report

`papers/` is the registry, a file a paper. Every run is main.py in a process of its own, whose files
are read afterwards: metrics.jsonl, config.json and what it printed. `results/` holds what came out,
a JSON file for each claim; docs/report.html and tables of docs/results.md are made from these.
Nothing here imports JAX, so that a listing answers at once; `report` does where it draws the page.
"""
