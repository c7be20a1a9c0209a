"""Tables, figures and the report over all runs: everything shown is drawn from files in `outputs/`."""
