"""`python -m unidpo_mm` and `accelerate launch -m unidpo_mm`: the same as `unidpo-mm`."""

from .cli.main import main

if __name__ == "__main__":
    main()
