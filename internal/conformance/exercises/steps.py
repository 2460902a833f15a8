"""Steps of an exercise: each prints what a run directly and one through
lockkeeper have to agree on. What a step does not expect is printed after "!!"."""

import traceback


def run(steps):
    for step in steps:
        print("==", step.__name__)
        try:
            step()
        except Exception as e:
            print("!!", type(e).__name__, str(e).strip().replace("\n", " | "))
            traceback.print_exc()


def show(*values):
    print(*(repr(v) for v in values))
