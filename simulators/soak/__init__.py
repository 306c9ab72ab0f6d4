"""Long load on a whole ward, with faults on a plan, every sample and alert accounted for, and a report.

    python run_pipeline.py soak small --out soak/

A client of the ward like any other: it sends by the wire, subscribes to what is published, and asks the supervisor's
control socket; it has no other way in. `plan` says what is to happen, `faults` makes it happen, `stage` runs the
processes, `observe` watches, `account` and `truth` judge, `report` tells.
"""
